"""One object that creates env, algorithm and loop once from a configuration; all else calls it."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import difflib
import itertools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from omad import cgroups, demonstrations, envs, extras, files
from omad.algos.validate import shown
from omad.callbacks import BestPolicy, Callback
from omad.compilation import use_compilation_cache
from omad.config import RunConfig
from omad.errors import CallbackFailed, EnvFailed, NonFinite, UserError
from omad.loggers import Console, Logger, TensorBoard
from omad.loop.build import Built, build, evaluation_mib, forecast
from omad.loop.session import Result, Session
from omad.manifest import manifest_of
from omad.processes import StopSignals, held, interruption, refuse_inside_env
from omad.run import warm_start
from omad.run.folder import RunFolder
from omad.run.places import how_to_resume
from omad.run.records import Ended
from omad.trust import refuse_changed, refuse_foreign


def default_loggers() -> list[Logger]:
    """What is logged to beside the run folder's own lines, where nothing else is asked for."""
    return [TensorBoard(), Console()]


class Experiment:
    """A run that is to be trained, or trained further: its env, algorithm and loop, each made once.

    Args:
        config: The run; `RunConfig.of(task=..., preset=..., **fields)`.
        env: An env of your own instead of the configuration's task: a `JaxEnv`, a `HostEnv`, a PettingZoo `ParallelEnv`
            class or factory, or a gymnax- or JaxMARL-style object.
        callbacks: Called on progress, in this order; after them the best policies are kept unless `keep_best` is off.
        loggers: Where numbers go beside the run folder's own lines; by default TensorBoard and the
            console.
        batch_seeds: Whether seeds are one batch, or run one after the other; by default the former on accelerators.
        info_keys: Names of the env's info numbers as a run has recorded them; by default as they are now.

    Raises:
        UserError: Something given cannot work.
    """

    def __init__(
        self,
        config: RunConfig,
        env: Any = None,
        callbacks: Sequence[Callback] = (),
        loggers: Sequence[Logger] | None = None,
        batch_seeds: bool | None = None,
        info_keys: tuple[str, ...] | None = None,
    ) -> None:
        refuse_inside_env()
        use_compilation_cache()
        if env is not None:
            config = dataclasses.replace(config, task=envs.of_object(env))
        self.config = config
        self.callbacks = [*listed(callbacks, Callback), *([BestPolicy()] if config.keep_best else [])]
        self.loggers = default_loggers() if loggers is None else listed(loggers, Logger)
        extras.require_for_task(config.task)
        self.env = envs.make(config.task, config.env_timeout)
        if info_keys is not None:
            self.env = envs.with_info(self.env, config.task, info_keys)
        self.built: Built = build(config, self.env, batch_seeds)

    @staticmethod
    def of_run(
        folder: RunFolder,
        env: Any = None,
        callbacks: Sequence[Callback] = (),
        loggers: Sequence[Logger] | None = None,
        trust: bool = False,
    ) -> Experiment:
        """The experiment that a run folder holds, to be resumed.

        Args:
            folder: The run.
            env: The env again, where the run began with one that was given as an object.
            callbacks: As for a new run; a run folder does not keep them.
            loggers: As for a new run.
            trust: Import the code of a user's env that the folder names.

        Raises:
            UserError: The folder names a user's env and is not trusted, or its env is not what it was.
        """
        refuse_inside_env()
        if env is not None:
            envs.of_object(env, folder.config.task)
        else:
            refuse_foreign(folder.config.task, folder.path, trust)
        if folder.config.demonstrations:
            demonstrations.unchanged(folder.config.demonstrations, folder.manifest.get("demonstrations"))
        made = Experiment(folder.config, None, callbacks, loggers, info_keys=folder.spec.info_keys)
        refuse_changed(folder, made.built.spec)
        if made.built.spec.info_keys != folder.spec.info_keys:
            made.close()
            raise UserError(
                f"{folder.config.task} has the info numbers {', '.join(made.built.spec.info_keys) or 'none'}; when "
                f"{folder.path} began they were {', '.join(folder.spec.info_keys) or 'none'}, which its checkpoints "
                "count. Restore the env, or start a new run."
            )
        return made

    def close(self) -> None:
        """End whatever runs beside this process."""
        self.built.close()

    # ------------------------------------------------------------ forecasts

    def forecast(self, at_once: int | None = None, resumed: bool = False) -> str:
        """A sentence with the memory forecast of the run.

        Args:
            at_once: Seeds that are trained at a time; by default all of them.
            resumed: Whether it has begun, so that its sizes can no longer be chosen.

        Raises:
            UserError: It cannot fit.
        """
        config = self.config if at_once is None else dataclasses.replace(self.config, seeds=at_once)
        need = forecast(config, self.built, 1 if at_once is None else at_once)
        fewer = f"--seeds (now {config.seeds})" if at_once is None else f"the runs at a time (now {at_once})"
        free, where = available_mib()
        words = ", ".join(f"{name} {value:,.0f} MiB" for name, value in need.items() if name not in _SUMS)
        more = f"; {need['compiler']:,.0f} MiB more while it compiles for the first time" if need["compiler"] else ""
        if need["total"] > free and resumed:
            fewer = f", lower --parallel-seeds (now {at_once})" if at_once and at_once > 1 else ""
            raise UserError(
                f"The run needs about {need['total']:,.0f} MiB ({words}){more}, but only {free:,.0f} MiB are free on "
                f"{where}; end other programs{fewer}, or resume it where more is free."
            )
        if need["total"] > free:
            raise UserError(
                f"The run needs about {need['total']:,.0f} MiB ({words}){more}, but only {free:,.0f} MiB are free on "
                f"{where}; lower --buffer-size (now {config.buffer_size}), --batch-size (now {config.batch_size}), "
                f"--eval-episodes (now {config.eval_episodes}), {fewer} or the networks' widths."
            )
        return f"memory forecast {need['total']:,.0f} MiB ({words}){more}; {free:,.0f} MiB free"

    def check_evaluation(self) -> None:
        """Refuse an evaluation that cannot fit into memory.

        Raises:
            UserError: It cannot.
        """
        need, (free, where) = evaluation_mib(self.config, self.built), available_mib()
        if need > free:
            raise UserError(
                f"{self.config.eval_episodes} episodes at once need about {need:,.0f} MiB, but only {free:,.0f} MiB "
                f"are free on {where}; give fewer --episodes."
            )

    # ------------------------------------------------------------ folders

    def create(self, path: str | Path | None = None, config: RunConfig | None = None) -> RunFolder:
        """A new run folder with nothing trained yet.

        Args:
            path: Where; by default below `runs/`, named after task, algorithm, preset and time.
            config: Of the run, where it differs from the experiment's in its seeds or settings, not in its task.

        Raises:
            UserError: There is something at the path already, it cannot be made, or the run cannot start from another.
        """
        config = config or self.config
        if config.init_from:
            seeds = jnp.asarray(config.all_seeds)
            init = self.built.algorithm.init
            learner = jax.eval_shape(lambda: jax.vmap(lambda seed: init(jax.random.key(seed)))(seeds))
            warm_start.load(warm_start.find(config.init_from), warm_start.Learned(learner, None), config)
        manifest = manifest_of(config, self.env) | {
            "loggers": [type(one).__name__ for one in self.loggers],
            "callbacks": [type(one).__name__ for one in self.callbacks],
        }
        if config.demonstrations:
            manifest["demonstrations"] = demonstrations.digest(config.demonstrations)
        where = Path(path) if path else claim(config)
        with held():  # no half of a folder
            return RunFolder.create(where, config, manifest)

    def create_each(self, run_dir: str | Path | None = None) -> list[Path]:
        """One new run folder `seed-K` for each seed of the configuration, below one folder.

        Raises:
            UserError: The folder exists already, or cannot be made.
        """
        config = self.config
        root = Path(run_dir) if run_dir else claim(config)
        if not run_dir:
            (root / "lock").unlink()  # the folder stays claimed by being there, and is replaced while it is empty
        again = how_to_resume(root, config.task)
        taken = UserError(f"{root} exists already; give another --run-dir, or continue it with: {again}")
        if root.exists() and not (root.is_dir() and not any(root.iterdir())):
            raise taken
        # All are made beside the folder and get its name at once: a kill leaves all seeds or none.
        whole = root.parent.resolve() / root.name
        partial = whole.with_name(whole.name + files.PARTIAL)
        try:
            partial.parent.mkdir(parents=True, exist_ok=True)
            files.make_folder(partial)
        except OSError as error:
            raise UserError(f"{root} cannot be made ({error.strerror}); give another --run-dir.") from None
        with held(), contextlib.ExitStack() as stack:
            if (lock := files.lock(partial / "lock")) is None:
                raise UserError(f"{root} is being made by another process; give another --run-dir.")
            stack.callback(os.close, lock)
            for old in partial.iterdir():
                if not re.fullmatch(r"seed-[0-9]+|lock", old.name) or any(old.glob("checkpoints/*")):
                    raise UserError(f"{partial} holds {old.name}, which is not half of a new folder; move it away.")
            for seed in config.all_seeds:
                files.remove(partial / f"seed-{seed}", partial)
                alone = dataclasses.replace(config, seeds=1, first_seed=seed)
                self.create(partial / f"seed-{seed}", alone).close()
            for old in partial.iterdir():
                if old.name not in {"lock", *(f"seed-{seed}" for seed in config.all_seeds)}:
                    files.remove(old, partial)
            try:
                partial.rename(whole)
                files.sync_folder(whole.parent)
            except OSError:  # there is something by now
                raise taken from None
            files.remove(whole / "lock", whole)  # only now, or another process could begin in the same place
        return [root / f"seed-{seed}" for seed in config.all_seeds]

    # ------------------------------------------------------------ work

    def start(self, run_dir: str | Path | None = None) -> Result:
        """Train from nothing into a new run folder, until the end, a signal, or a callback that stops the run.

        Raises:
            UserError: The folder exists, or memory does not suffice.
            NonFinite: Training diverged.
            EnvFailed: The env failed.
            CallbackFailed: A user's callback or logger failed.
        """
        self.forecast()
        return self.work(self.create(run_dir), fresh=True)

    def work(self, folder: RunFolder, fresh: bool) -> Result:
        """Train in an open run folder: one that `create` has just made, or one to resume. As `start`."""
        signals, built = StopSignals(), self.built
        session = Session(folder, built, self.loggers, self.callbacks, signals)
        with signals:
            try:
                for note in built.notes if fresh else ():
                    session.note(note)
                if fresh:
                    session.begin()
                else:
                    session.restore()
                result = session.go()
                if session.vector_steps == folder.config.total_vector_steps:
                    folder.note_end(Ended("finished"))
                return result
            except UserError:
                raise
            except Exception as error:
                if signals.again:  # what was interrupted may have raised anything
                    raise KeyboardInterrupt from error
                if signals.number is not None and isinstance(error, EnvFailed):
                    # What an env needs may have got the signal as well: that is no fault.
                    raise interruption(signals.number) from error
                if isinstance(error, CallbackFailed) and session.vector_steps == folder.config.total_vector_steps:
                    folder.note_end(Ended("finished"))  # the run itself has nothing left to do
                    raise
                known = isinstance(error, NonFinite | EnvFailed | CallbackFailed)
                words = str(error) if known else f"{type(error).__name__}: {error}"
                seeds = list(error.seeds) if isinstance(error, NonFinite) else []
                folder.note_end(Ended("diverged" if isinstance(error, NonFinite) else "broken", words, seeds))
                raise
            finally:
                try:  # an interrupt while workers end must not leave the folder locked
                    built.close()
                finally:
                    folder.close()


_SUMS = ("total", "compiler")
"""What stands outside of the brackets of a forecast."""


def listed(given: Any, kind: type) -> list[Any]:
    """Callbacks that are all callbacks, or loggers that are all loggers.

    Raises:
        UserError: One is something else, or they are no list.
    """
    word = f"{kind.__name__.lower()}s"
    if not isinstance(given, Iterable):
        raise UserError(f"{word} is {shown(given)}; give a list, as [{type(given).__name__}(...)].")
    for one in (ones := list(given)):
        if not isinstance(one, kind):
            hint = " Give an instance, not the class." if isinstance(one, type) else ""
            raise UserError(f"{word} has {one!r}; each must be an instance of omad.{kind.__name__}.{hint}")
        if isinstance(one, Callback):
            _refuse_misspelt(one)
    return ones


def _refuse_misspelt(one: Any) -> None:
    """A method that is never called, as it has almost the name of one of `Callback` that would be.

    Raises:
        UserError: There is one.
    """
    known = {name for name in vars(Callback) if name.startswith("on_")}
    for name in sorted(name for name in dir(type(one)) if name.startswith("on_") and name not in known):
        if near := difflib.get_close_matches(name, known, 1, 0.85):
            raise UserError(
                f"{type(one).__name__} has {name}, which no run calls; nearest: {near[0]}. Give it that name, or one "
                "that does not begin with on_."
            )


def available_mib() -> tuple[float, str]:
    """Memory that can still be had on the device, and what it is."""
    device = jax.local_devices()[0]
    if device.platform != "cpu" and (stats := device.memory_stats()):
        return (stats["bytes_limit"] - stats["bytes_in_use"]) / 2**20, device.device_kind
    import psutil

    free, left = psutil.virtual_memory().available, cgroups.memory_left()
    if left is not None and left < free:
        return left / 2**20, "this process's share of the machine (cgroup)"
    return free / 2**20, "this machine"


def _default_dir(config: RunConfig) -> Path:
    when = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    task = "".join(c if c.isalnum() or c in "-." else "-" for c in config.task)
    return Path("runs") / f"{task}_{config.algorithm}_{config.preset}_{when}"


def claim(config: RunConfig) -> Path:
    """A new, empty folder with a default name. That making it succeeds decides whose it is.

    Raises:
        UserError: It cannot be made.
    """
    first = _default_dir(config)
    for number in itertools.count(1):
        path = first if number == 1 else first.with_name(f"{first.name}-{number}")
        try:
            path.mkdir(parents=True)
            (path / "lock").touch()
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"{path} cannot be made ({error.strerror}); give a --run-dir.") from None
        return path
    raise AssertionError
