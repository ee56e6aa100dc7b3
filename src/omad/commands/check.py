"""`omad check-env TASK`: is an env fit for training, and what is it like?"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import tyro

from omad.algos.fields import MOST, check
from omad.commands.screen import console, print_json

__all__ = ["inspect", "main"]


@dataclasses.dataclass(frozen=True)
class Options:
    """Run an env with uniform random actions and report what it is like; nothing is trained."""

    task: Annotated[str, tyro.conf.Positional]
    """A task's name, most useful for pettingzoo:package.module:factory."""
    steps: int = 1000
    """Steps to take."""
    seed: int = 0
    """Seed of starts and actions."""
    json: bool = False
    """Print JSON."""


def _trace(world: Any, spec: Any, steps: int, seed: int) -> dict[str, Any]:
    """What a number of steps gave."""
    rng = np.random.default_rng(seed)
    mask = spec.act_mask
    seen = world.reset(seed)
    obs, rewards, lengths, returns = [seen.obs], [], [], []
    ends = {"terminated": 0, "truncated": 0}
    length = total = 0
    spent, broken = 0.0, ""
    for t in range(steps):
        action = mask * rng.uniform(-1, 1, mask.shape)
        started = time.perf_counter()
        moved = world.step(action, seed + t)
        spent += time.perf_counter() - started
        length, total = length + 1, total + moved.reward
        obs.append(moved.next.obs)
        rewards.append(moved.reward)
        for name, array, due in (
            ("observation", moved.next.obs, (spec.n_agents, spec.obs_dim)),
            ("state", moved.next.state, (spec.state_dim,)),
        ):
            if np.shape(array) != due:
                broken = broken or f"the {name} has shape {np.shape(array)} at step {t}; {due} was declared"
            elif not np.isfinite(array).all():
                broken = broken or f"the {name} is not finite at step {t}"
        if not np.isfinite(moved.reward):
            broken = broken or f"the reward is {moved.reward} at step {t}"
        if moved.terminated or moved.truncated:
            ends["terminated" if moved.terminated else "truncated"] += 1
            lengths.append(length)
            returns.append(total)
            length = total = 0
            obs.append(world.reset(seed + t + 1).obs)
        if broken:
            break
    return {
        "obs": np.stack(obs), "rewards": np.asarray(rewards), "lengths": lengths, "returns": returns, "ends": ends,
        "steps_per_s": len(rewards) / max(spent, 1e-9), "broken": broken, "saves": world.save() is not None,
    }  # fmt: skip


def inspect(task: str, steps: int = 1000, seed: int = 0) -> dict[str, Any]:
    """What an env is like, as plain values; `problems` is empty where it can be trained on.

    Raises:
        Refused: The env cannot be made, or not be used at all.
    """
    from omad import envs, tasks
    from omad.envs.hosted import JaxWorld
    from omad.types import JaxEnv

    row = tasks.find(task)
    env = envs.make(row.name)
    start = (lambda: JaxWorld(env)) if isinstance(env, JaxEnv) else (lambda: env.world(False))
    runs = []
    for _ in range(2):
        with contextlib.closing(start()) as world:
            runs.append(_trace(world, env.spec, steps, seed))
    first, second = runs
    same = all(
        first[name].shape == second[name].shape and np.array_equal(first[name], second[name], equal_nan=True)
        for name in ("obs", "rewards")
    )
    spec = env.spec
    seen = first["obs"][np.isfinite(first["obs"])]
    notes, problems = [], []
    if first["broken"]:
        problems.append(f"Cannot be trained on: {first['broken']}.")
    if not same:
        notes.append("Not deterministic: the same seed and actions gave something else the second time.")
    if seen.size and np.abs(seen).max() > 100:
        notes.append(
            f"Observations reach {np.abs(seen).max():.3g}; consider --obs-norm running, or smaller units in the env."
        )
    if not sum(first["ends"].values()):
        notes.append(f"No episode ended in {steps} steps; training cuts them at the horizon of {spec.horizon}.")
    if not first["saves"]:
        notes.append("Its state cannot be saved: a resumed run begins new episodes (offer save_state and load_state).")
    if first["rewards"].size and np.ptp(first["rewards"]) == 0:
        notes.append(
            f"The reward was {first['rewards'][0]:g} at every step: random actions find nothing to learn from."
        )
    rewards = first["rewards"] if first["rewards"].size else np.zeros(1)
    worth = float(np.abs(rewards).mean()) * 100
    return {
        "task": spec.name,
        "protocol": row.protocol,
        "agents": spec.n_agents,
        "obs_dims": spec.obs_dims,
        "act_dims": spec.act_dims,
        "state_dim": spec.state_dim,
        "horizon": spec.horizon,
        "steps": len(first["rewards"]),
        "episodes": len(first["lengths"]),
        "episode_length": float(np.mean(first["lengths"])) if first["lengths"] else None,
        "random_return": float(np.mean(first["returns"])) if first["returns"] else None,
        "terminated": first["ends"]["terminated"],
        "truncated": first["ends"]["truncated"],
        "reward_min": float(rewards.min()),
        "reward_mean": float(rewards.mean()),
        "reward_max": float(rewards.max()),
        "obs_min": float(seen.min()) if seen.size else None,
        "obs_max": float(seen.max()) if seen.size else None,
        "deterministic": same,
        "saves": first["saves"],
        "steps_per_s": first["steps_per_s"],
        "suggested_v_max": float(np.ceil(max(2 * worth, 10.0))),
        "notes": notes,
        "problems": problems,
    }


def _sentences(found: dict[str, Any]) -> list[str]:
    ends = found["terminated"] + found["truncated"]
    lines = [
        f"{found['task']}: {found['agents']} agents.",
        found["protocol"],
        f"Observations: {', '.join(map(str, found['obs_dims']))} numbers an agent, from {found['obs_min']:.3g} to "
        f"{found['obs_max']:.3g} here.",
        f"Actions: {', '.join(map(str, found['act_dims']))} numbers an agent; policies write [-1, 1], "
        "which is mapped to the env's bounds.",
        f"State for critics: {found['state_dim']} numbers."
        if found["state_dim"]
        else "There is no state(); critics read all observations.",
        f"Episodes: horizon {found['horizon']}; {ends} ended in {found['steps']} steps, "
        f"{found['terminated']} by the task and {found['truncated']} by the clock"
        + (f", after {found['episode_length']:.1f} steps on average." if ends else "."),
        f"Team reward of a step: from {found['reward_min']:.4g} to {found['reward_max']:.4g}, mean "
        f"{found['reward_mean']:.4g}"
        + (f"; an episode of random actions returns {found['random_return']:.4g}." if ends else "."),
        f"A first --v-max to try with a discount of 0.99: {found['suggested_v_max']:g} (twice 100 steps of "
        "the mean size of a reward); watch critic/target_edge_mass.",
        "Deterministic: the same seed and actions give the same." if found["deterministic"] else "",
        f"Speed: {found['steps_per_s']:,.0f} steps/s in one process.",
    ]
    return [line for line in lines if line] + found["notes"] + found["problems"]


def main(arguments: Sequence[str]) -> int:
    """Run and report; exit code 2 where the env cannot be trained on."""
    options = tyro.cli(Options, prog="omad check-env", args=list(arguments))
    from omad.errors import Refused

    check(options, counts=("steps",), not_negative=("seed",), most={"steps": 100_000_000}, flags=True)
    if options.seed + options.steps > MOST:
        raise Refused(f"--seed is {options.seed}; with --steps {options.steps} at most {MOST - options.steps}.")
    found = inspect(options.task, options.steps, options.seed)
    if options.json:
        print_json(found)
    else:
        for line in _sentences(found):
            console().print(line)
    return 2 if found["problems"] else 0
