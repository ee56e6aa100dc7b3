"""`omad run-bundle DIR`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from omad.algos.validate import check
from omad.commands.computing import ANYWHERE, ComputingFlags
from omad.console import console, print_json
from omad.errors import UserError
from omad.run.records import rounded, standard_error


@dataclasses.dataclass(frozen=True)
class Options:
    """Play episodes with an exported team, each agent in a process of its own that gets its own observation only."""

    folder: Annotated[Path, tyro.conf.Positional]
    """The team, as written by omad export."""
    task: str | None = None
    """Task to play; by default the one that the team was trained on."""
    episodes: int = 500
    """How many."""
    seed: int = 2_000_000
    """Seed of initial states and action noise, as of omad eval."""
    noise_free: bool = False
    """Noise-free instead of sampled actions."""
    timeout: float = 10.0
    """Seconds after which an agent that does not answer is late."""
    trust: bool = False
    """Execute a runner.py that is not this version's, and the code of a user's env that the folder names; only for
    folders that you trust."""
    json: bool = False
    """Print JSON."""
    computing: ComputingFlags = ANYWHERE


def run_bundle(options: Options) -> dict[str, Any]:
    """Returns of the agents' processes, and of the same policies in one process.

    Raises:
        UserError: The bundle cannot be used on the task.
        EnvFailed: An agent died or is late.
    """
    check(options, positive=("timeout",), not_negative=("seed",), most={"timeout": 1e6, "episodes": 10**6}, flags=True)
    if options.episodes < 2:
        raise UserError(f"--episodes is {options.episodes}; it must be at least 2.")
    import numpy as np

    from omad.export import bundle, play
    from omad.trust import refuse_foreign

    team = bundle.load(options.folder)
    task = options.task or team.facts.task
    refuse_foreign(task, options.folder, options.trust or options.task is not None)
    env = play.env_of(team, task)
    folded = bundle.policies(options.folder, team)
    explore = not options.noise_free
    with play.Agents(options.folder, team, options.seed, explore, options.timeout, options.trust) as agents:
        apart = play.play(agents, env, options.episodes, options.seed)
    together = np.asarray(play.evaluate(folded, env, options.episodes, options.seed, explore).returns[0], float)

    def words(returns: Any) -> dict[str, Any]:
        return {"mean": float(returns.mean()), "se": standard_error(returns)}

    return {
        "folder": str(options.folder),
        "task": task,
        "episodes": options.episodes,
        "actions": "sampled" if explore else "noise_free",
        "processes": words(apart) | {"returns": [rounded(r) for r in apart]},
        "jax": words(together) | {"returns": [rounded(r) for r in together]},
    }


def main(arguments: Sequence[str]) -> int:
    """Play and print."""
    options = tyro.cli(Options, prog="omad run-bundle", args=list(arguments))
    options.computing.prepare()
    found = run_bundle(options)
    if options.json:
        print_json(found)
        return 0
    out = console()
    out.print(f"{found['task']}, {found['episodes']} episodes, {found['actions'].replace('_', '-')} actions")
    for name, label in (("processes", "one process an agent"), ("jax", "all in JAX, as omad eval")):
        out.print(f"  {label + ':':<26}{found[name]['mean']:9.2f} ± {found[name]['se']:.2f}")
    return 0
