"""`omad resume RUN`."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from omad.algos.validate import check
from omad.commands.computing import ANYWHERE, ComputingFlags
from omad.commands.dashboard import Stop, run_with_dashboard
from omad.commands.train import finish
from omad.console import console
from omad.device import refuse_unknown, share_device
from omad.errors import UserError
from omad.processes import cores_at_once


@dataclasses.dataclass(frozen=True)
class Options:
    """Continue a run from its newest checkpoint; a complete run is left as it is."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder, as printed by omad train."""
    total_steps: int | None = None
    """Train to this many env steps instead. Fields that followed from the old number, as buffer_size, stay; else the
    run is the same as one that was that long from the beginning, but for what its first end wrote."""
    demonstrations: Path | None = None
    """Where the file of demonstrations lies that the run began with, if it was moved."""
    env_workers: int | None = None
    """Processes that step a hosted task's envs from now on; no result depends on it."""
    env_timeout: float | None = None
    """Seconds after which a hosted env that does not answer is taken to hang, from now on."""
    parallel_seeds: int = 0
    """Processes at a time, where every seed has a folder of its own; 0 for one a core."""
    trust: bool = False
    """Import the code of a user's env that the run folder names; only for folders that you trust."""
    computing: ComputingFlags = ANYWHERE


def main(arguments: Sequence[str]) -> int:
    """Continue a run."""
    options = tyro.cli(Options, prog="omad resume", args=list(arguments))
    limits = {"parallel_seeds": 10_000}
    check(options, counts=("total_steps",), not_negative=("parallel_seeds",), most=limits, flags=True)
    from omad.files import PARTIAL
    from omad.run.folder import RunFolder
    from omad.run.longer import kept_of_length
    from omad.run.places import members

    if options.run.name.endswith(PARTIAL):
        raise UserError(f"{options.run} was only partly created; run the omad train command that created it again.")
    stepping = {"env_workers": options.env_workers, "env_timeout": options.env_timeout}
    folders = members(options.run)
    if folders != [options.run]:
        share_device()
    refuse_unknown(options.computing.device)
    opened = [RunFolder.open(folder) for folder in folders]  # what is none is refused before JAX is imported
    options.computing.prepare()
    from omad.api import open_to_resume, prepare_group
    from omad.commands.curve import LearningCurve
    from omad.experiment import Experiment
    from omad.launch import LAUNCHED, side_by_side

    out = console()
    if folders != [options.run]:
        at_once = options.parallel_seeds or cores_at_once()
        length, place = options.total_steps, options.demonstrations
        due, forecast = prepare_group(opened, length, options.trust, place, stepping, at_once=at_once)
        if due:
            out.print(forecast)
        if words := kept_of_length(RunFolder.open(folders[0])):
            out.print(words)
        code = run_with_dashboard(functools.partial(side_by_side, folders, at_once), Stop())
        out.print(str(options.run))
        return code
    folder = open_to_resume(options.run, options.total_steps, options.trust, options.demonstrations, stepping)
    if folder is None:
        steps = RunFolder.open(options.run).config.total_steps
        out.print(f"the run is complete at {steps:,} env steps; to train on, add --total-steps with more")
        out.print(str(options.run))
        return 0
    experiment = Experiment.of_run(folder, callbacks=[LearningCurve()], trust=options.trust)
    if LAUNCHED not in os.environ:
        out.print(experiment.forecast(resumed=True))
    return finish(experiment.work(folder, fresh=False))
