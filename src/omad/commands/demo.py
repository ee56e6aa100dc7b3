"""`omad demo`: a short training run, then an evaluation beside reference returns, the curve, and an animation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from omad.algos.validate import check
from omad.commands import render
from omad.commands.computing import ANYWHERE, ComputingFlags
from omad.commands.evaluate import result_rows
from omad.commands.render import films, write_gif
from omad.commands.returns_table import returns_table
from omad.commands.train import finish
from omad.console import console


@dataclasses.dataclass(frozen=True)
class Options:
    """Train OMAD on mpe/spread-3 for a few minutes and show what it learned."""

    minutes: float = 6.5
    """Training stops and saves after this long, wherever it is; `omad resume` continues it."""
    total_steps: int = 45_000
    """Env steps after which training is complete."""
    run_dir: Path | None = None
    """New folder of the run; by default one below runs/."""
    computing: ComputingFlags = ANYWHERE


def main(arguments: Sequence[str]) -> int:
    """Train, evaluate, draw."""
    options = tyro.cli(Options, prog="omad demo", args=list(arguments))
    check(options, counts=("total_steps",), positive=("minutes",), most={"minutes": 100_000.0}, flags=True)
    options.computing.prepare()
    from omad import tasks
    from omad.callbacks import TimeLimit
    from omad.commands.curve import LearningCurve
    from omad.config import resolve
    from omad.experiment import Experiment
    from omad.trained import Run

    out = console()
    config = resolve("mpe/spread-3", total_steps=options.total_steps, eval_every=5_000)
    out.print(
        f"OMAD on {config.task}: a team of {tasks.find(config.task).n_agents} diffusion policies learns to spread out"
    )
    experiment = Experiment(config, callbacks=[LearningCurve(), TimeLimit(60 * options.minutes)])
    out.print(experiment.forecast())
    result = experiment.start(options.run_dir)
    if result.signal is not None:
        return finish(result)
    found = Run(result.run_dir).evaluate(500)
    out.print(returns_table(tasks.find(config.task), result_rows(found)))
    picture = result.run_dir / "episode.gif"
    write_gif(next(films(render.Options(result.run_dir))), picture)
    if (curve := result.run_dir / "curve.png").exists():  # there has been an evaluation
        out.print(f"learning curve: {curve}")
    out.print(f"one learned episode: {picture}")
    out.print(str(result.run_dir))
    return 0
