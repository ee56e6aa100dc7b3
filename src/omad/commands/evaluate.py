"""`omad eval RUN`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from omad.algos.validate import check
from omad.commands.returns_table import returns_table
from omad.compilation import use_compilation_cache
from omad.console import console, print_json
from omad.device import use_device
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
    device: str | None = None
    """Device that JAX computes on: cpu, gpu, cuda, rocm or tpu; by default what JAX chooses."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache folder for the next start."""


def result_rows(found: Evaluated) -> list[tuple[str, float, str]]:
    """Rows of the table of results: label, mean return, how it was measured."""
    rows = []
    for kind, returns in found.returns.items():
        words = "sampled" if kind == "sampled" else "noise-free"
        for seed, steps, row in zip(found.seeds, found.env_steps, returns, strict=True):
            error = f" ± {standard_error(row):.2f}" if len(row) > 1 else ""
            label = f"this run, seed {seed}, {words} actions"
            rows.append((label, float(row.mean()), f"{len(row)} episodes{error}, after {steps:,} env steps"))
    if found.random is not None:
        error = f" ± {standard_error(found.random):.2f}" if len(found.random) > 1 else ""
        rows.append(("uniformly random actions", float(found.random.mean()), f"{len(found.random)} episodes{error}"))
    return rows


def as_json(found: Evaluated, run: Run, denoising_steps: int | None) -> dict[str, Any]:
    """All of it, every episode's return included."""
    results = [
        {
            "seed": seed,
            "actions": kind,
            "env_steps": found.env_steps[i],
            "mean": float(returns[i].mean()),
            "se": standard_error(returns[i]) if returns.shape[1] > 1 else None,
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
        "episodes": len(results[0]["returns"]),
        "eval_seed": found.eval_seed,
        "random": None if found.random is None else float(found.random.mean()),
        "results": results,
    }


def main(arguments: Sequence[str]) -> int:
    """Evaluate and print."""
    options = tyro.cli(Options, prog="omad eval", args=list(arguments))
    check(options, counts=("episodes",), not_negative=("seed",), flags=True)
    use_device(options.device)
    use_compilation_cache(options.compilation_cache)
    from omad import tasks
    from omad.saved import which_of
    from omad.trained import Run

    run = Run(options.run)
    which = which_of(options.which)
    found = run.evaluate(options.episodes, options.seed, options.task, which, options.trust, options.denoising_steps)
    if options.json:
        print_json(as_json(found, run, options.denoising_steps))
    else:
        console().print(returns_table(tasks.find(found.task), result_rows(found)))
    return 0
