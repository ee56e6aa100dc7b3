"""What few-step policies keep of their teachers: return, modes of a game, and how much quicker they are.

    python benchmarks/distillation.py RUN... [--steps 1] [--episodes 2000] [--updates 20000] [--out FILE]

Every training seed of every run is a teacher. A row a teacher, as JSON: returns of uniformly random actions, of the
teacher, of its chain with as few steps (`omad export --denoising-steps`) and of the student; the student's share of the
teacher's improvement over random actions; milliseconds of one action of the first agent in the NumPy runner; on a task
games/..., the joint modes that sampled actions cover at one observation.

    python benchmarks/distillation.py --speed TEACHER STUDENT

measures those milliseconds alone, of two folders of omad export and omad distil.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from omad import api, envs, tasks
from omad.export import bundle, play, team
from omad.export.agent import VECTORS
from omad.export.distil import Settings, distil, observations, usual_episodes
from omad.export.fold import Folded, fold
from omad.export.runner import Policy
from omad.trained import Run

sys.path.append(str(Path(__file__).parents[1] / "studies" / "measures"))

import mode_coverage

SEED = 2_000_000
"""Of evaluation episodes."""


def returns(players: Sequence[Folded], env: Any, episodes: int) -> dict[str, float]:
    """Mean and standard error of sampled actions, mean of noise-free ones."""
    sampled, still = (np.asarray(play.evaluate(players, env, episodes, SEED, e).returns[0]) for e in (True, False))
    error = float(sampled.std() / len(sampled) ** 0.5)
    return {"sampled": float(sampled.mean()), "standard_error": error, "noise_free": float(still.mean())}


def random_return(players: Sequence[Folded], env: Any, episodes: int) -> float:
    """Of uniformly random actions."""
    spec = env.spec
    uniform = play.as_algorithm(players, spec)._replace(
        act=lambda _, obs, key, explore: jax.random.uniform(key, (*obs.shape[:-1], spec.act_dim), minval=-1.0)
    )
    return float(np.mean(play.run_episodes(uniform, play.tensors_of(players), env, episodes, SEED).returns))


def milliseconds(folders: Sequence[Path], actions: int = 2000) -> list[float]:
    """Medians of one action in the NumPy runner, folder by folder in turn."""
    policies = [Policy(min(folder.glob("*/policy.json")).parent, seed=0) for folder in folders]
    spent: list[list[float]] = [[] for _ in folders]
    obs = np.zeros(policies[0].obs_dim, np.float32)
    for _ in range(actions):
        for policy, times in zip(policies, spent, strict=True):
            begun = time.perf_counter()
            policy.act(obs)
            times.append(1e3 * (time.perf_counter() - begun))
    return [statistics.median(times) for times in spent]


def modes(players: Sequence[Folded], spec: Any, draws: int = 2000) -> dict[str, Any]:
    """Modes that sampled actions cover at one observation."""
    tensors = [{name: jnp.asarray(array) for name, array in one.tensors.items()} for one in players]
    still = jnp.zeros((draws, spec.n_agents, spec.obs_dim))
    actions = play.as_algorithm(players, spec).act(tensors, still, jax.random.key(SEED), True)
    return dataclasses.asdict(mode_coverage.count(np.asarray(actions), np.asarray(tasks.GAME_MODES)))


def measure(run: Run, seed: int, settings: Settings, episodes: int) -> dict[str, Any]:
    """A row."""
    teacher = api.load_policy(run, seed).team
    task, spec, env = teacher.facts.task, teacher.spec, envs.make(teacher.facts.task)
    folded = fold(teacher.policy, teacher.config, spec, teacher.obs_norm)
    fewer = fold(teacher.policy, teacher.config, spec, teacher.obs_norm, steps=settings.steps)

    def visit(players: Sequence[Folded], number: int) -> np.ndarray:
        return observations(players, env, usual_episodes(env), number)

    begun = time.perf_counter()
    obs = np.concatenate([visit(folded, 0), run.buffered_obs(seed)])
    students, errors = distil(folded, obs, settings, 0, visit)
    row: dict[str, Any] = {
        "task": task, "seed": seed, "env_steps": teacher.facts.env_steps, "settings": settings._asdict(),
        "seconds": time.perf_counter() - begun, "rms_difference": errors, "episodes": episodes,
        "random": random_return(folded, env, episodes),
    }  # fmt: skip
    teams = {"teacher": folded, "fewer_steps": fewer, "student": students}
    row |= {name: returns(players, env, episodes) for name, players in teams.items()}
    gain = row["teacher"]["sampled"] - row["random"]
    row["share"] = {name: (row[name]["sampled"] - row["random"]) / gain for name in ("fewer_steps", "student")}
    if task.startswith("games/"):
        row["modes"] = {name: modes(players, spec) for name, players in teams.items()}
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("teacher", "student")]
        for path, players in zip(paths, (folded, students), strict=True):
            bundle.write(
                path, players, team.folded_vectors(players, VECTORS), team.boxes(spec), team.history_of(task),
                teacher.facts, ("numpy",), spec.agents,
            )  # fmt: skip
        row["milliseconds"] = dict(zip(("teacher", "student"), milliseconds(paths), strict=True))
    row["times_quicker"] = row["milliseconds"]["teacher"] / row["milliseconds"]["student"]
    return row


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument(
        "--speed", type=Path, nargs=2, metavar=("TEACHER", "STUDENT"), help="measure these folders only"
    )
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--updates", type=int, default=Settings().updates)
    parser.add_argument("--out", type=Path, help="file to which rows are appended, one JSON a line")
    given = parser.parse_args()
    if bool(given.runs) == bool(given.speed):
        parser.error("give either runs, or --speed and two folders")
    if given.speed:
        teacher, student = milliseconds(given.speed, 4000)
        sys.stdout.write(f"{teacher:.4f} ms, {student:.4f} ms: {teacher / student:.2f} times as quick\n")
        return
    settings = Settings(steps=given.steps, updates=given.updates)
    for run in map(api.load_run, given.runs):
        for seed in run.seeds:
            line = json.dumps(measure(run, int(seed), settings, given.episodes))
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            if given.out:
                with given.out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")


if __name__ == "__main__":
    main()
