"""The Python interface, in the words of the command line: `train`, `resume`, `load_run`, `load_policy`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from omad import envs
from omad.algos.validate import typed
from omad.callbacks import Callback
from omad.config import RunConfig, resolve
from omad.demonstrations import unchanged
from omad.errors import CallbackFailed, EnvFailed, NonFinite, UserError
from omad.experiment import Experiment
from omad.loggers import Logger
from omad.loop.session import Result
from omad.policy import TrainedPolicy
from omad.processes import interruption, refuse_inside_env
from omad.run.folder import RunFolder
from omad.run.places import members
from omad.saved import Which
from omad.trained import Run
from omad.trust import refuse_foreign


def train(
    task: str | None = None,
    algorithm: str = "omad",
    preset: str = "cpu",
    run_dir: str | Path | None = None,
    *,
    env: Any = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] | None = None,
    **fields: Any,
) -> Run:
    """Train to the end and return the run.

    Args:
        task: Name of a task, as `omad tasks` lists them; by default mpe/spread-3.
        algorithm: Name of the algorithm.
        preset: `cpu`, `efficient`, `paper`, `matched` or `tiny`.
        run_dir: A new folder; by default one below `runs/`, named after task, algorithm, preset and time.
        env: An env of your own instead of a task; see `Experiment`.
        callbacks: Called on progress; they may stop the run.
        loggers: Where numbers go beside the run folder's own lines; by default TensorBoard and the console.
        **fields: Any field that `omad train --print-config` shows: `seeds=3`, `total_steps=100_000`, `v_max=200.0`.

    Raises:
        UserError: Something given is unknown or cannot work.
        NonFinite: Training diverged.
        EnvFailed: The env failed.
        CallbackFailed: A callback or logger failed; the run has been saved.
        KeyboardInterrupt: SIGINT came; the run has been saved, and `resume` continues it.
        SystemExit: SIGTERM or SIGHUP came, or the reader of what a logger prints has gone; as above.
    """
    refuse_inside_env()
    if env is not None:
        if task is not None:
            raise UserError(f"both the task {task!r} and env are given; give one of them.")
        task = envs.of_object(env)
    experiment = Experiment(
        resolve(RunConfig.task if task is None else task, algorithm, preset, **fields), None, callbacks, loggers
    )
    return _to_its_end(experiment.start(run_dir))


def resume(
    run: str | os.PathLike[str],
    trust: bool = False,
    *,
    total_steps: int | None = None,
    demonstrations: str | os.PathLike[str] | None = None,
    env_workers: int | None = None,
    env_timeout: float | None = None,
    env: Any = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] | None = None,
) -> Run:
    """Continue a run from its newest good checkpoint to its end; a complete run is left as it is.

    Args:
        run: A run folder, or a folder of runs `seed-K`, which are continued one after the other: each calls callbacks
            from `on_start` on, and one that fails or is stopped by a callback does not keep the others from going on.
        trust: Import the code of a user's env that the folder names; needless for what `train` or `resume` returned.
        total_steps: Train to this many env steps instead, more than the run has. Fields that followed from the old
            number where they were not given keep their values: `buffer_size`, and where a preset has values change
            over the run `lr_decay_steps`, `target_run_begin` and `target_run_steps`. The policies are those of a run
            that was that long from the beginning with the same values of these.
        demonstrations: Where the file lies that the run began with, if it was moved; its SHA-256 must be the same.
        env_workers: Processes that step a hosted task's envs from now on; no result depends on it.
        env_timeout: Seconds after which a hosted env that does not answer is taken to hang, from now on.
        env: The env again, where the run began with one that was given as an object.
        callbacks: As for `train`; a run folder does not keep them.
        loggers: As for `train`.

    Raises:
        UserError: The folder names a user's env and is not trusted, or cannot be continued.
        NonFinite: As `train` does, and `EnvFailed`, `CallbackFailed`, `KeyboardInterrupt` and `SystemExit`.
    """
    refuse_inside_env()
    trust = trust or (isinstance(run, Run) and run.trusted)
    stepping = {"env_workers": env_workers, "env_timeout": env_timeout}
    if members(run) != [Path(run)]:
        group = Run(run)
        if env is not None:
            envs.of_object(env, group.config.task)
        due, _ = prepare_group(group.folders, total_steps, trust, demonstrations, stepping, env)
        ended, failures = list[Run](), list[NonFinite | EnvFailed | CallbackFailed]()
        for path in due:
            try:
                ended.append(resume(path, trust, env=env, callbacks=callbacks, loggers=loggers))
            except (NonFinite, EnvFailed, CallbackFailed) as error:  # the others go on without it
                failures.append(error)
        if failures:
            raise failures[0]
        group = Run(run)
        group.trusted = trust or env is not None or bool(ended)
        return group
    folder = open_to_resume(run, total_steps, trust or env is not None, demonstrations, stepping)
    if folder is None:
        complete = Run(run)
        if env is not None:
            envs.of_object(env, complete.config.task)
        complete.trusted = True
        return complete
    experiment = Experiment.of_run(folder, env, callbacks, loggers, trust)
    experiment.forecast(resumed=True)
    return _to_its_end(experiment.work(folder, fresh=False))


def prepare_group(
    runs: Sequence[RunFolder],
    total_steps: int | None,
    trust: bool,
    demonstrations: str | os.PathLike[str] | None,
    stepping: Mapping[str, int | float | None],
    env: Any = None,
    at_once: int = 1,
) -> tuple[list[Path], str]:
    """The runs of a group that have something left to do, with what changes for them written into each.

    All are looked at before one is written. Arguments and errors are those of `open_to_resume`, but for `env` and for
    `at_once`, the number of runs that go on at a time.

    Returns:
        The folders, and the memory forecast of these runs.
    """
    due = [run.path for run in runs if not run.complete or total_steps not in (None, run.config.total_steps)]
    trusted = trust or env is not None
    opened = [open_to_resume(path, total_steps, trusted, demonstrations, stepping) for path in due]
    said = ""
    if (first := next(filter(None, opened), None)) is not None:
        with contextlib.closing(Experiment.of_run(first, env, loggers=(), trust=trust)) as experiment:
            said = experiment.forecast(min(at_once, len(due)), resumed=True)
    changed = any(change is not None for change in (total_steps, demonstrations, *stepping.values()))
    for run in filter(None, opened if changed else []):
        with contextlib.closing(run):
            run.lock()
            run.write_changes()
    return due, said


def open_to_resume(
    run: str | os.PathLike[str],
    total_steps: int | None = None,
    trust: bool = False,
    demonstrations: str | os.PathLike[str] | None = None,
    stepping: Mapping[str, int | float | None] = MappingProxyType({}),
) -> RunFolder | None:
    """The folder of a run to resume, longer where `total_steps` asks for it; None where it is complete.

    Nothing is written yet, so a run that is refused for another reason is as it was.

    Args:
        run: A run folder.
        total_steps: Its new length.
        trust: Whether the env that the folder names may be imported.
        demonstrations: Where they lie now.
        stepping: How envs are stepped from now on: fields of the run, None for those that stay.

    Raises:
        UserError: It is no run folder, names a user's env and is not trusted, cannot be made longer, or another process
            writes to it.
    """
    folder = RunFolder.open(run)
    refuse_foreign(folder.config.task, folder.path, trust)
    if not folder.checkpoints():
        folder.refuse_if_saved_once()
    if folder.complete and total_steps in (None, folder.config.total_steps):
        return None
    given = {name: value for name, value in stepping.items() if value is not None}
    if total_steps is not None or demonstrations is not None or given:
        folder.refuse_if_busy()
    folder.adjust(**typed(RunConfig, given))
    if demonstrations is not None:
        folder.look_for_demonstrations(demonstrations)
        unchanged(folder.config.demonstrations, folder.manifest.get("demonstrations"))
    if total_steps is not None:
        folder.lengthen(total_steps)
    return folder


def _to_its_end(result: Result) -> Run:
    """The run; a script must not continue as if a run were complete that was asked to stop."""
    if result.signal is not None:
        raise interruption(result.signal)
    run = Run(result.run_dir)
    run.trusted = True
    return run


def load_run(path: str | os.PathLike[str]) -> Run:
    """A run that was trained before, as `train` returned it.

    Raises:
        UserError: It is not a run folder.
    """
    return Run(path)


def load_policy(run: str | os.PathLike[str], seed: int | None = None, which: Which = "last") -> TrainedPolicy:
    """The policies of one training seed; short for `load_run(run).policy(seed, which)`.

    Args:
        run: A run folder, or a folder of runs `seed-K`.
        seed: Which training seed; by default the first.
        which: `last`, `best`, or the env step of a checkpoint.

    Raises:
        UserError: It is not a run folder, or has no such seed or checkpoint.
    """
    return Run(run).policy(seed, which)
