"""The Python interface, in the words of the command line: `train`, `resume`, `load_policy`."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import omad
from omad import envs, files, tasks
from omad.algos import make as make_algorithm
from omad.config import RunConfig, resolve
from omad.errors import Refused
from omad.export.bundle import Facts
from omad.export.team import Trained
from omad.loop.train import (
    AT_A_BOUNDARY,
    EXACT,
    Built,
    Progress,
    Result,
    build,
    continue_run,
    evaluation_mib,
    forecast,
)
from omad.policy import TrainedPolicy
from omad.processes import held, interruption, refuse_inside_env
from omad.run import machine
from omad.run.folder import RunFolder, members
from omad.tree import at_agent

__all__ = [
    "check_evaluation",
    "check_memory",
    "create",
    "create_each",
    "load_policy",
    "resume",
    "start",
    "train",
]

_PACKAGES = ("jax", "jaxlib", "equinox", "optax", "safetensors", "numpy")
_HOSTED = ("mujoco", "gymnasium", "gymnasium-robotics", "pettingzoo")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _quiet(_: Progress) -> None:
    pass


def _commit() -> str | None:
    """The commit of the source tree, if there is one."""
    # Without optional locks, so not by `describe --dirty`, which takes one: a kill would leave it behind.
    git = ["git", "--no-optional-locks", "-C", str(Path(__file__).resolve().parent)]
    said = []
    for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            done = subprocess.run(
                git + words, capture_output=True, text=True, timeout=5, check=True, start_new_session=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        said.append(done.stdout.strip())
    return said[0] + ("-dirty" if said[1] else "")


def _manifest(config: RunConfig) -> dict[str, Any]:
    task = tasks.find(config.task)
    env = envs.make(config.task)
    packages = [*_PACKAGES, *(_HOSTED if task.hosted else ())]
    return {
        "omad": omad.__version__,
        "commit": _commit(),
        "protocol": task.protocol,
        "spec": dataclasses.asdict(env.spec),
        "obs_norm": config.obs_norm,
        "resume": EXACT if getattr(env, "exact", True) else AT_A_BOUNDARY,
        "updates_per_env_step": config.updates_per_env_step,
        "command": sys.argv,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: version for name in packages if (version := _version(name))},
        **machine.facts(),
    }


def _default_dir(config: RunConfig) -> Path:
    when = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    task = "".join(c if c.isalnum() or c in "-." else "-" for c in config.task)
    return Path("runs") / f"{task}_{config.algorithm}_{config.preset}_{when}"


def _claim(config: RunConfig) -> Path:
    """A new, empty folder with a default name. That making it succeeds decides whose it is."""
    first = _default_dir(config)
    for number in itertools.count(1):
        path = first if number == 1 else first.with_name(f"{first.name}-{number}")
        try:
            path.mkdir(parents=True)
            (path / "lock").touch()
        except FileExistsError:
            continue
        except OSError as error:
            raise Refused(f"{path} cannot be made ({error.strerror}); give a --run-dir.") from None
        return path
    raise AssertionError


def _available_mib() -> tuple[float, str]:
    """Memory that can still be had on the device, and what it is."""
    device = jax.local_devices()[0]
    if device.platform != "cpu" and (stats := device.memory_stats()):
        return (stats["bytes_limit"] - stats["bytes_in_use"]) / 2**20, device.device_kind
    import psutil

    return psutil.virtual_memory().available / 2**20, "this machine"


def check_memory(config: RunConfig, at_once: int | None = None) -> str:
    """A sentence that forecasts the memory of a run.

    Args:
        config: Of the run.
        at_once: Seeds that are trained at a time; by default all of them.

    Raises:
        Refused: It cannot fit.
    """
    config = config if at_once is None else dataclasses.replace(config, seeds=at_once)
    need = forecast(config, build(config))
    free, where = _available_mib()
    words = ", ".join(f"{name} {value:,.0f} MiB" for name, value in need.items() if name != "total")
    if need["total"] > free:
        raise Refused(
            f"The run needs about {need['total']:,.0f} MiB ({words}), but only {free:,.0f} MiB are free on {where}; "
            f"lower --buffer-size (now {config.buffer_size}), --batch-size (now {config.batch_size}), "
            f"--eval-episodes (now {config.eval_episodes}), --seeds (now {config.seeds}) or the networks' widths."
        )
    return f"memory forecast {need['total']:,.0f} MiB ({words}); {free:,.0f} MiB free"


def check_evaluation(config: RunConfig, built: Built) -> None:
    """Refuse an evaluation that cannot fit into memory.

    Raises:
        Refused: It cannot.
    """
    need, (free, where) = evaluation_mib(config, built), _available_mib()
    if need > free:
        raise Refused(
            f"{config.eval_episodes} episodes at once need about {need:,.0f} MiB, but only {free:,.0f} MiB are free on "
            f"{where}; give fewer --episodes."
        )


def create(config: RunConfig, path: Path) -> RunFolder:
    """A new run folder at a path, with nothing trained yet; `resume` trains it.

    Raises:
        Refused: There is something at the path already, or it cannot be made.
    """
    manifest = _manifest(config)
    with held():  # no half of a folder
        return RunFolder.create(path, config, manifest)


def create_each(config: RunConfig, run_dir: str | Path | None = None) -> list[Path]:
    """One new run folder `seed-K` for each seed of a configuration, below one folder.

    Raises:
        Refused: The folder exists already, or cannot be made.
    """
    refuse_inside_env()
    root = Path(run_dir) if run_dir else _claim(config)
    taken = Refused(f"{root} exists already; give another --run-dir, or continue it with: omad resume {root}")
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        raise taken
    # All are made beside the folder and get its name at once: a kill leaves all seeds or none.
    whole = root.parent.resolve() / root.name
    partial = whole.with_name(whole.name + files.PARTIAL)
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        files.make_folder(partial)
    except OSError as error:
        raise Refused(f"{root} cannot be made ({error.strerror}); give another --run-dir.") from None
    with held(), contextlib.ExitStack() as stack:
        if (claim := files.lock(partial / "lock")) is None:
            raise Refused(f"{root} is being made by another process; give another --run-dir.")
        stack.callback(os.close, claim)
        for old in partial.iterdir():
            if not re.fullmatch(r"seed-[0-9]+|lock", old.name) or any(old.glob("checkpoints/*")):
                raise Refused(f"{partial} holds {old.name}, which is not half of a new folder; move it away.")
        for seed in config.all_seeds:
            files.remove(partial / f"seed-{seed}", partial)
            create(dataclasses.replace(config, seeds=1, first_seed=seed), partial / f"seed-{seed}").close()
        for old in partial.iterdir():
            if old.name not in {f"seed-{seed}" for seed in config.all_seeds}:
                files.remove(old, partial)
        try:
            files.rename_folder(partial, whole)
        except OSError:
            raise taken from None
    return [root / f"seed-{seed}" for seed in config.all_seeds]


def start(
    config: RunConfig,
    run_dir: str | Path | None = None,
    watch: Callable[[Progress], None] = _quiet,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Train from nothing into a new run folder; save and return early once `stop()` says so.

    Raises:
        Refused: The folder exists, or memory does not suffice.
        NonFinite: Training diverged.
    """
    refuse_inside_env()
    check_memory(config)
    run = create(config, Path(run_dir) if run_dir else _claim(config))
    return continue_run(run, watch, fresh=True, stop=stop)[0]


def train(
    task: str = "mpe/spread-3",
    algorithm: str = "omad",
    preset: str = "cpu",
    run_dir: str | Path | None = None,
    watch: Callable[[Progress], None] = _quiet,
    **fields: Any,
) -> Path:
    """Train and return the run folder.

    Args:
        task: Name of a task, as `omad tasks` lists them.
        algorithm: Name of the algorithm.
        preset: `cpu`, `paper` or `matched`.
        run_dir: A new folder; by default one below `runs/`, named after task, algorithm, preset and time.
        watch: Called with a `Progress` about once a second.
        **fields: Any flag of `omad train`, with underscores: `seeds=3`, `total_steps=100_000`, `v_max=200.0`.

    Raises:
        Refused: Something given is unknown or cannot work.
        NonFinite: Training diverged.
        KeyboardInterrupt: SIGINT came; the run has been saved, and `resume` goes on with it.
        SystemExit: SIGTERM or SIGHUP came, or the reader of what `watch` prints has gone; as above.
    """
    refuse_inside_env()
    return _to_its_end(start(resolve(task, algorithm, preset, **fields), run_dir, watch))


def resume(run: str | Path, watch: Callable[[Progress], None] = _quiet, trust: bool = False) -> Path:
    """Continue a run from its newest good checkpoint to its end; a complete run is left as it is.

    Args:
        run: A run folder.
        watch: Called with a `Progress` about once a second.
        trust: Import the code of a user's env that the folder names.

    Raises:
        Refused: The folder names a user's env and is not trusted, or cannot be continued.
        KeyboardInterrupt: As `train` does, and `SystemExit`.
    """
    refuse_inside_env()
    return _to_its_end(continue_run(RunFolder.open(run), watch, fresh=False, trust=trust)[0])


def _to_its_end(result: Result) -> Path:
    """The folder of a run; a script must not go on as if a run were done that has been asked to stop."""
    if result.signal is not None:
        raise interruption(result.signal)
    return result.run_dir


def of_seed(run: str | Path, seed: int | None) -> Path:
    """The run folder that holds a seed, where every seed has its own; the given folder otherwise."""
    inside = members(run)
    return next((path for path in inside if path.name == f"seed-{seed}"), inside[0])


def load_policy(run: str | Path, seed: int | None = None, step: int | None = None) -> TrainedPolicy:
    """The policy of a run's newest good checkpoint. Neither critic nor env is made, and nothing is executed.

    Args:
        run: A run folder.
        seed: Which training seed; by default the first.
        step: Env steps of the checkpoint to take; by default the newest good one.

    Raises:
        Refused: It is not a run folder, has no such seed or checkpoint, or no readable checkpoint.
    """
    folder = RunFolder.open(of_seed(run, seed))
    config, spec = folder.config, folder.spec
    seed = config.first_seed if seed is None else seed
    if seed not in config.all_seeds:
        raise Refused(f"{run} has no seed {seed}; it has {', '.join(map(str, config.all_seeds))}.")
    algorithm = make_algorithm(config.algo, spec, config.obs_norm)
    policies, env_steps = policies_at(folder, algorithm, step)
    evaluations = [row for row in folder.evaluations() if row["seed"] == seed and row["step"] <= env_steps]
    facts = Facts(
        task=config.task,
        protocol=str(folder.manifest.get("protocol", "")),
        algorithm=config.algorithm,
        seed=seed,
        env_steps=env_steps,
        evaluation={row["actions"]: row["mean"] for row in evaluations},  # the last of each kind
        run=folder.path.resolve().name,
        commit=folder.manifest.get("commit"),
    )
    policy = at_agent(policies, config.all_seeds.index(seed))
    return TrainedPolicy(Trained(algorithm.act, policy, spec, config.algo, config.obs_norm, facts))


def policies_at(folder: RunFolder, algorithm: Any, step: int | None = None) -> tuple[Any, int]:
    """The policies of all seeds, stacked, from the checkpoint of an env step or the newest that is whole; its env step.

    Raises:
        Refused: There is none.
    """
    seeds = jnp.asarray(folder.config.all_seeds)
    shapes = jax.eval_shape(lambda: jax.vmap(lambda s: algorithm.policy(algorithm.init(jax.random.key(s))))(seeds))
    reason = "it has none yet"
    every = {checkpoint.env_steps: checkpoint for checkpoint in folder.checkpoints()}
    if step is not None and step not in every:
        there = ", ".join(map(str, every)) or "none"
        raise Refused(f"{folder.path} has no checkpoint of env step {step}; it has {there}.")
    for env_steps, checkpoint in every.items() if step is None else [(step, every[step])]:
        try:
            return checkpoint.restore("policy", shapes), env_steps
        except Refused as error:
            reason = str(error)
    raise Refused(f"{folder.path} has no readable checkpoint: {reason}.")
