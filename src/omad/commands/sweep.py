"""`omad sweep STUDY`."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from omad.algos.validate import check
from omad.commands.computing import ANYWHERE, ComputingFlags
from omad.commands.curve import LearningCurve
from omad.commands.dashboard import Stop, run_with_dashboard
from omad.config import RunConfig
from omad.console import console, print_json
from omad.device import share_device
from omad.errors import UserError
from omad.processes import cores_at_once


@dataclasses.dataclass(frozen=True)
class Options:
    """Run a study: all its runs, as many at a time as there are cores.

    Complete runs are skipped and all others continue from their newest checkpoint, so the same command starts a study,
    continues it after any interruption, and retries what failed.
    """

    study: Annotated[Path, tyro.conf.Positional]
    """A Python file that holds STUDY = Study(name, runs); it is run, so read it first if it is not yours."""
    out: Path | None = None
    """Folder of the study; by default runs/NAME."""
    workers: int = 0
    """Runs at a time, each on its own share of the cores; 0 for one a core."""
    time_limit: str | None = None
    """Save and stop after this time, such as 90s, 9m or 1h30m."""
    only: str = ""
    """Only runs whose folder contains this text, such as spread-3/omad."""
    launcher: Literal["local", "ray"] = "local"
    """Processes of this machine, or tasks on a Ray cluster whose machines share the study's folder."""
    cpus_per_run: float = 1.0
    """Cores that Ray sets aside for a run."""
    gpus_per_run: float = 0.0
    """GPUs that Ray sets aside for a run."""
    show: bool = False
    """Only print the state of all runs; nothing is run or written."""
    json: bool = False
    """With --show, as JSON."""
    computing: ComputingFlags = ANYWHERE


def seconds(words: str) -> float:
    """`1h30m`, `9m` or `90s` in seconds.

    Raises:
        UserError: It is no such time, or none at all.
    """
    found = re.fullmatch(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,10})s)?", words.strip())
    value = sum(int(n or 0) * unit for n, unit in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0
    if not 0 < value <= 10**9:
        raise UserError(
            f"--time-limit is {words!r}; give hours, minutes and seconds above 0, at most 10^9 s, as in 1h30m or 90s."
        )
    return float(value)


def _refuse_ignored(options: Options) -> None:
    """Options that would change nothing beside the others.

    Raises:
        UserError: There is one.
    """
    if options.json and not options.show:
        raise UserError("--json is given without --show, which is what it prints; give both, or neither.")
    for name, used in (("workers", 0), ("time_limit", None), ("launcher", "local")) if options.show else ():
        if getattr(options, name) != used:
            raise UserError(f"--{name.replace('_', '-')} is given with --show, which runs nothing; leave one out.")
    device = options.computing.device
    if device is not None and (options.show or options.launcher == "ray"):
        why = "with --show, which runs nothing" if options.show else "but Ray chooses; --gpus-per-run asks it for GPUs"
        raise UserError(f"--device is {device!r}, {why}; leave it out.")
    if options.launcher == "ray" and options.workers:
        raise UserError(
            f"--workers is {options.workers}, but Ray starts as many runs as its cluster has room for; "
            "give --cpus-per-run and --gpus-per-run instead."
        )
    if options.launcher == "local":
        for name, used in (("cpus_per_run", Options.cpus_per_run), ("gpus_per_run", Options.gpus_per_run)):
            if getattr(options, name) != used:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"{flag} is {getattr(options, name):g}, which --launcher ray asks for; give --workers.")


def main(arguments: Sequence[str]) -> int:
    """Start or continue a study."""
    options = tyro.cli(Options, prog="omad sweep", args=list(arguments))
    check(
        options,
        positive=("cpus_per_run",),
        not_negative=("workers", "gpus_per_run"),
        most={"workers": 10_000, "cpus_per_run": 10_000.0, "gpus_per_run": 10_000.0},
        flags=True,
    )
    _refuse_ignored(options)
    limit = None if options.time_limit is None else seconds(options.time_limit)
    from omad.study import load

    study = load(options.study)
    root = options.out or Path("runs") / study.name
    chosen = [run for run in study.runs if options.only in run.folder.as_posix()]
    if not chosen:
        folders = ", ".join(run.folder.as_posix() for run in study.runs[:3])
        raise UserError(f"--only {options.only!r} fits none of the {len(study.runs)} runs; they are {folders}, ...")
    if options.show:
        return _show({root / run.folder: run.config.total_steps for run in chosen}, options.json)
    if options.launcher == "ray":
        from omad.launch_ray import connect

        connect()
    share_device()
    options.computing.prepare()
    from omad import files
    from omad.experiment import Experiment
    from omad.launch import finished, side_by_side
    from omad.run.folder import RunFolder
    from omad.study import place

    workers = options.workers or cores_at_once()
    out = console()
    root.mkdir(parents=True, exist_ok=True)
    if (claim := files.lock(root / "lock", root)) is None:
        raise UserError(f"{root} is being swept by another process; wait for it, or stop it.")
    with os.fdopen(claim):
        known: dict[tuple[str, str, str], Experiment] = {}

        def experiment(config: RunConfig) -> Experiment:
            """One for all seeds of a setting, so that an env is made once."""
            key = config.task, config.algorithm, repr(dataclasses.replace(config, seeds=1, first_seed=0))
            if key not in known:
                known[key] = Experiment(config, callbacks=[LearningCurve()])
            return known[key]

        folders = place(study, root, lambda config, path: experiment(config).create(path, config), chosen)
        due = [run for run, folder in zip(chosen, folders, strict=True) if not finished(RunFolder.open(folder))]
        at_once = max(1, min(workers, len(due)))
        pace = "as Ray has room" if options.launcher == "ray" else f"{at_once} at a time"
        if options.launcher == "local":  # machines of a cluster have memory of their own
            for config in {run.folder.parent: run.config for run in due}.values():
                experiment(config).forecast(at_once)
        out.print(f"study {study.name}: {len(chosen)} of {len(study.runs)} runs, {pace}, in {root}")
        if options.launcher == "ray":
            from omad.launch_ray import on_ray

            each = {"num_cpus": options.cpus_per_run, "num_gpus": options.gpus_per_run}
            work = functools.partial(on_ray, folders, each)
        else:
            work = functools.partial(side_by_side, folders, workers)
        code = run_with_dashboard(work, Stop(limit))
    out.print(str(root))
    return code


def _show(lengths: Mapping[Path, int], as_json: bool) -> int:
    """Print the state of runs, read from their folders; those not started have only their length in env steps."""
    from omad.commands.dashboard import status_table
    from omad.launch import State, state_of
    from omad.run.folder import RunFolder

    def state(path: Path, length: int) -> State:
        try:
            if (path / "manifest.json").exists():
                return state_of(RunFolder.open(path))
        except UserError as error:  # the others are shown all the same
            return State(path, "failed", 0, length, 0.0, None, str(error))
        return State(path, "waiting", 0, length, 0.0, None)

    states = [state(path, length) for path, length in lengths.items()]
    if as_json:
        print_json(
            [
                {"run": str(state.folder), **{k: v for k, v in dataclasses.asdict(state).items() if k != "folder"}}
                for state in states
            ]
        )
    else:
        console().print(status_table(states, len(states)))
    return 0
