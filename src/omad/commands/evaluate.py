"""`omad eval RUN`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from omad.algos.fields import check
from omad.commands.screen import console, print_json, standing_table
from omad.compilation import use_compilation_cache
from omad.errors import Refused

__all__ = ["evaluate_run", "main"]


@dataclasses.dataclass(frozen=True)
class Options:
    """Evaluate the policies of a run's newest checkpoint, with sampled and with noise-free actions."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder, as printed by omad train."""
    episodes: int = 500
    """Episodes of each seed and kind of action."""
    seed: int = 2_000_000
    """Seed of initial states and action noise; not the one that training evaluated on."""
    task: str | None = None
    """Evaluate on this task instead, of the same sizes: another adversary, say."""
    denoising_steps: int | None = None
    """Denoising steps of an action, at most those of training; fewer are quicker and less exact."""
    trust: bool = False
    """Import the code of a user's env that the run folder names; only for folders that you trust."""
    json: bool = False
    """Print JSON."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache folder for the next start."""


def evaluate_run(
    run: Path,
    episodes: int,
    seed: int,
    task: str | None = None,
    trust: bool = False,
    denoising_steps: int | None = None,
) -> dict[str, Any]:
    """Returns of every episode, seed and kind of action.

    Raises:
        Refused: The run cannot be read, or the other task has other sizes.
    """
    import jax
    import jax.numpy as jnp

    from omad.api import check_evaluation, policies_at
    from omad.export.fold import fold
    from omad.export.play import evaluate
    from omad.loop.train import build, refuse_changed, refuse_foreign
    from omad.run.folder import RunFolder
    from omad.tree import at_seed, stacked

    if episodes < 1 or not 0 <= seed < 2**31:
        raise Refused(
            f"episodes is {episodes} and seed is {seed}; the first must be at least 1, the second 0 to 2^31 - 1."
        )
    folder = RunFolder.open(run)
    config, spec = folder.config, folder.spec
    refuse_foreign(config.task, folder.path, trust or task is not None)
    config = dataclasses.replace(config, task=task or config.task, eval_episodes=episodes)
    built = build(config)
    if task is None:
        refuse_changed(folder, built.spec)
    if (built.spec.obs_dims, built.spec.act_dims) != (spec.obs_dims, spec.act_dims):
        raise Refused(
            f"{built.spec.name} has observations {built.spec.obs_dims} and actions {built.spec.act_dims}, but the "
            f"run's policies were trained for {spec.obs_dims} and {spec.act_dims}."
        )
    check_evaluation(config, built)
    policies, env_steps = policies_at(folder, built.algorithm)
    results = []
    with contextlib.ExitStack() as stack:
        stack.callback(built.close)
        if denoising_steps is None:
            kinds = (("sampled", built.sampled), ("noise_free", built.noise_free))
            every = [(kind, jax.device_get(play(policies, jnp.int32(seed), jnp.int32(0)))) for kind, play in kinds]
        else:
            places = range(len(config.all_seeds))
            teams = [fold(at_seed(policies, i), config.algo, spec, config.obs_norm, denoising_steps) for i in places]
            tensors = stacked([[one.tensors for one in team] for team in teams])
            kinds = (("sampled", True), ("noise_free", False))
            every = [
                (kind, evaluate(teams[0], config.task, episodes, seed, explore, tensors)) for kind, explore in kinds
            ]
    for kind, found in every:
        for i, training_seed in enumerate(folder.config.all_seeds):
            returns = np.asarray(found.returns[i], float)
            results.append(
                {
                    "seed": training_seed,
                    "actions": kind,
                    "mean": float(returns.mean()),
                    "se": float(returns.std(ddof=1) / np.sqrt(episodes)) if episodes > 1 else None,
                    "info": {name: float(total[i].mean()) for name, total in found.info.items()},
                    "returns": [round(float(r), 4) for r in returns],
                }
            )
    return {
        "run": str(run),
        "task": built.spec.name,
        "env_steps": env_steps,
        "denoising_steps": denoising_steps or getattr(config.algo, "denoising_steps", None),
        "updates_per_env_step": folder.config.updates_per_env_step,
        "episodes": episodes,
        "eval_seed": seed,
        "results": results,
    }


def main(arguments: Sequence[str]) -> int:
    """Evaluate and print."""
    options = tyro.cli(Options, prog="omad eval", args=list(arguments))
    check(options, counts=("episodes",), not_negative=("seed",), flags=True)
    use_compilation_cache(options.compilation_cache)
    from omad import tasks
    from omad.run.folder import members

    each = [
        evaluate_run(run, options.episodes, options.seed, options.task, options.trust, options.denoising_steps)
        for run in members(options.run)
    ]
    found = each[0] | {"run": str(options.run), "results": [result for part in each for result in part["results"]]}
    if options.json:
        print_json(found)
        return 0
    rows = []
    for result in found["results"]:
        words = "sampled" if result["actions"] == "sampled" else "noise-free"
        error = "" if result["se"] is None else f" ± {result['se']:.2f}"
        rows.append(
            (
                f"this run, seed {result['seed']}, {words} actions",
                result["mean"],
                f"{found['episodes']} episodes{error}, after {found['env_steps']:,} env steps",
            )
        )
    console().print(standing_table(tasks.find(found["task"]), rows))
    return 0
