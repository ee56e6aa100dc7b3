"""`omad distil RUN --out DIR`."""

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


@dataclasses.dataclass(frozen=True)
class Options:
    """Train policies of few denoising steps to act as a run's do from the same noise, and export them."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder, as printed by omad train."""
    out: Path
    """New folder of the distilled team, as omad export writes it."""
    denoising_steps: int = 1
    """Evaluations of the network for one action."""
    training_seed: int | None = None
    """Which training seed's policies are the teacher; by default the first."""
    which: str = "last"
    """Checkpoint of the teacher: last, best, or its env steps."""
    updates: int = 24_000
    """Gradient steps of each agent, rounded up to a multiple of 200 in every round."""
    episodes: int | None = None
    """Fresh episodes to take observations from, of the teacher and then of the students; by default as many as have
    100,000 env steps (25,000 where envs run on the host), at least 16."""
    rounds: int = 6
    """Equal parts of the training, between which students play; 1 takes the teacher's episodes alone."""
    formats: str = "numpy,onnx"
    """numpy, onnx or both, separated by a comma."""
    seed: int = 0
    """Seed of episodes, first weights, batches and noise."""
    trust: bool = False
    """Import the code of a user's env that the run folder names; only for folders that you trust."""
    json: bool = False
    """Print JSON."""
    computing: ComputingFlags = ANYWHERE


def distil_run(options: Options) -> dict[str, Any]:
    """Train and export the students; differences from the teachers.

    Raises:
        UserError: Something given cannot work, or the run's policies take one step already.
    """
    most = {"updates": 10**9, "episodes": 10**7, "rounds": 1000, "seed": 2**31 - 1001}
    check(
        options,
        counts=("denoising_steps", "updates", "episodes", "rounds"),
        not_negative=("seed",),
        most=most,
        flags=True,
    )
    import numpy as np

    from omad import envs
    from omad.experiment import available_mib
    from omad.export import bundle, team
    from omad.export.agent import VECTORS
    from omad.export.distil import MOST, Settings, distil, observations, usual_episodes
    from omad.export.fold import fold
    from omad.saved import which_of
    from omad.trained import Run
    from omad.trust import refuse_changed, refuse_foreign

    bundle.check_new(options.out, formats := bundle.parsed(options.formats))
    run = Run(options.run)
    teacher = run.policy(options.training_seed, which_of(options.which)).team
    refuse_foreign(teacher.facts.task, options.run, options.trust)
    env = envs.make(teacher.facts.task, run.config.env_timeout)
    refuse_changed(run.folders[0], env.spec)
    folded = fold(teacher.policy, teacher.config, teacher.spec, teacher.obs_norm)
    settings = Settings(steps=options.denoising_steps, updates=options.updates, rounds=options.rounds)
    episodes = options.episodes or usual_episodes(env)
    rows, (free, where) = episodes * teacher.spec.horizon, available_mib()
    need = max(2 * rows, options.rounds * min(rows, MOST)) * 4 * teacher.spec.n_agents * teacher.spec.obs_dim / 2**20
    if need > free:
        raise UserError(
            f"{episodes:,} episodes in {options.rounds} rounds need about {need:,.0f} MiB, but only {free:,.0f} MiB "
            f"are free on {where}; give fewer --episodes or --rounds."
        )

    def visit(players: Sequence[Any], number: int) -> Any:
        return observations(players, env, episodes, options.seed + number)

    obs = np.concatenate([visit(folded, 0), run.buffered_obs(options.training_seed, options.trust)])
    students, errors = distil(folded, obs, settings, options.seed, visit)
    bundle.write(
        options.out, students, team.folded_vectors(students, VECTORS), team.boxes(teacher.spec),
        team.history_of(teacher.facts.task), teacher.facts, formats, teacher.spec.agents,
    )  # fmt: skip
    return {
        "out": str(options.out),
        "denoising_steps": options.denoising_steps,
        "teacher_denoising_steps": folded[0].steps,
        "observations": len(obs),
        "rms_difference": errors,
    }


def main(arguments: Sequence[str]) -> int:
    """Distil and print."""
    options = tyro.cli(Options, prog="omad distil", args=list(arguments))
    options.computing.prepare()
    found = distil_run(options)
    if options.json:
        print_json(found)
        return 0
    out = console()
    for i, error in enumerate(found["rms_difference"]):
        out.print(f"agent {i}: actions within {error:.3f} (root mean square) of the teacher's from the same noise")
    out.print(str(options.out))
    return 0
