"""`omad eval RUN`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.table import Table

from omad.algos.validate import check
from omad.commands.computing import ANYWHERE, ComputingFlags
from omad.commands.returns_table import returns_table
from omad.console import console, print_json, row, table
from omad.run.records import rounded, standard_error

if TYPE_CHECKING:
    from omad.trained import Evaluated, Run


@dataclasses.dataclass(frozen=True)
class Options:
    """Evaluate the policies of a run's checkpoint, with sampled and with noise-free actions."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder, as printed by omad train."""
    episodes: int = 500
    """Episodes of each seed and kind of action."""
    seed: int = 2_000_000
    """Seed of initial states and action noise; not the one that training evaluated on."""
    task: str | None = None
    """Evaluate on this task instead, of the same sizes: another adversary, say."""
    which: str = "last"
    """Policies of the newest checkpoint, of each seed's best evaluation (best), or of the checkpoint of an env step."""
    denoising_steps: int | None = None
    """Denoising steps of an action, at most those of training; fewer are quicker and less exact."""
    trust: bool = False
    """Import the code of a user's env that the run folder names; only for folders that you trust."""
    json: bool = False
    """Print JSON."""
    computing: ComputingFlags = ANYWHERE


def result_rows(found: Evaluated) -> list[tuple[str, float, str]]:
    """Rows of the table of results: label, mean return, how it was measured."""
    rows = []
    for kind, returns in found.returns.items():
        words = "sampled" if kind == "sampled" else "noise-free"
        for seed, steps, each in zip(found.seeds, found.env_steps, returns, strict=True):
            error = f" ± {standard_error(each):.2f}" if len(each) > 1 else ""
            label = f"this run, seed {seed}, {words} actions"
            rows.append((label, float(each.mean()), f"{len(each)} episodes{error}, after {steps:,} env steps"))
    if found.random is not None:
        error = f" ± {standard_error(found.random):.2f}" if len(found.random) > 1 else ""
        rows.append(("uniformly random actions", float(found.random.mean()), f"{len(found.random)} episodes{error}"))
    return rows


def numbers_table(found: Evaluated) -> Table:
    """Lengths of episodes and the env's extra numbers: means over episodes and seeds, by kind of actions."""
    kinds = [kind.replace("_", "-") for kind in found.returns]
    made = table("means over all episodes and seeds", "number", *kinds, right=kinds)
    rows = {"env steps": found.lengths} | {
        name: {kind: total[name] for kind, total in found.info.items()} for name in found.info["sampled"]
    }
    for name, values in rows.items():
        row(made, name, *(f"{values[kind].mean():.4g}" for kind in found.returns))
    return made


def as_json(found: Evaluated, run: Run, denoising_steps: int | None) -> dict[str, Any]:
    """All of it, every episode's return included."""
    results = [
        {
            "seed": seed,
            "actions": kind,
            "env_steps": found.env_steps[i],
            "mean": float(returns[i].mean()),
            "se": standard_error(returns[i]) if returns.shape[1] > 1 else None,
            "length": float(found.lengths[kind][i].mean()),
            "info": {name: float(total[i].mean()) for name, total in found.info[kind].items()},
            "returns": [rounded(r) for r in returns[i]],
        }
        for kind, returns in found.returns.items()
        for i, seed in enumerate(found.seeds)
    ]
    return {
        "run": str(run),
        "task": found.task,
        "denoising_steps": denoising_steps or getattr(run.config.algo, "denoising_steps", None),
        "updates_per_env_step": run.config.updates_per_env_step,
        "differences": list(found.differences),
        "episodes": len(results[0]["returns"]),
        "eval_seed": found.eval_seed,
        "random": None if found.random is None else float(found.random.mean()),
        "results": results,
    }


def main(arguments: Sequence[str]) -> int:
    """Evaluate and print."""
    options = tyro.cli(Options, prog="omad eval", args=list(arguments))
    check(options, counts=("episodes",), not_negative=("seed",), flags=True)
    options.computing.prepare()
    from omad import tasks
    from omad.saved import which_of
    from omad.trained import Run

    run = Run(options.run)
    which = which_of(options.which)
    found = run.evaluate(options.episodes, options.seed, options.task, which, options.trust, options.denoising_steps)
    if options.json:
        print_json(as_json(found, run, options.denoising_steps))
    else:
        out = console()
        for difference in found.differences:
            out.print(f"not as in training: {difference}")
        out.print(returns_table(tasks.find(found.task), result_rows(found)))
        out.print(numbers_table(found))
    return 0
