"""Record episodes of the `mpe2` package, the reference for the particle tasks.

Writes `tests/fixtures/mpe_<task>.npz`:

    python tests/envs/record_mpe2.py

Actions are uniform in the box. A third of the episodes starts from agent positions a quarter as wide, which
forces contacts, and a third from positions three times as wide. Positions and velocities (float64) are kept
at every step, team rewards (float64) of every transition, and the observations of every 15th, as the scenario
computes them (float64), before `mpe2` casts them to float32.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

FIXTURES = Path(__file__).parents[1] / "fixtures"
TASKS = {
    "spread-3": ("simple_spread_v3", 3),
    "spread-4": ("simple_spread_v3", 4),
    "deception-2": ("simple_adversary_v3", 2),
}
EPISODES, STEPS, OBSERVED_EVERY = 60, 25, 15


def record(task: str, episodes: int = EPISODES) -> dict[str, np.ndarray]:
    """Play episodes of a task; the first ones are the same for any number of them."""
    module, n = TASKS[task]
    spread = task.startswith("spread")
    arguments: dict[str, Any] = {"N": n, "max_cycles": STEPS, "continuous_actions": True}
    env: Any = importlib.import_module(f"mpe2.{module}").parallel_env(
        **arguments | ({"local_ratio": 0.5} if spread else {})
    )
    rows: dict[str, list[Any]] = {
        key: []
        for key in (
            "pos",
            "vel",
            "landmarks",
            "goal",
            "action",
            "reward",
            "terminated",
            "truncated",
            "obs",
            "cast",
        )
    }
    rng = np.random.default_rng(0)
    for episode in range(episodes):
        env.reset(seed=episode)
        world, scenario = env.unwrapped.world, env.unwrapped.scenario
        names = list(env.agents)
        team = [name for name in names if not name.startswith("adversary")]
        for body in world.agents:
            body.state.p_pos = body.state.p_pos * (1.0, 0.25, 3.0)[episode % 3]
        rows["landmarks"].append([mark.state.p_pos.copy() for mark in world.landmarks])
        rows["goal"].append(0 if spread else world.landmarks.index(world.agents[0].goal_a))
        for step in range(STEPS + 1):
            # Copies: positions are updated in place.
            rows["pos"].append([body.state.p_pos.copy() for body in world.agents])
            rows["vel"].append([body.state.p_vel.copy() for body in world.agents])
            if step == STEPS:
                break
            action = rng.random((len(names), 5), dtype=np.float32)
            seen, reward, terminated, truncated, _ = env.step(dict(zip(names, action, strict=True)))
            rows["action"].append(action)
            rows["reward"].append(sum(reward[name] for name in team))
            rows["terminated"].append([terminated[name] for name in names])
            rows["truncated"].append([truncated[name] for name in names])
            if (episode * STEPS + step) % OBSERVED_EVERY == 0:
                # Agents see unequal amounts in `deception-2`, so one flat row holds them all.
                rows["obs"].append(np.concatenate([scenario.observation(body, world) for body in world.agents]))
                rows["cast"].append(np.concatenate([seen[name] for name in names]))
    env.close()
    arrays = {key: np.asarray(value) for key, value in rows.items()}
    for key in ("pos", "vel"):
        arrays[key] = arrays[key].reshape(episodes, STEPS + 1, *arrays[key].shape[1:])
    return arrays


if __name__ == "__main__":
    save: Any = np.savez_compressed
    for name in TASKS:
        data = record(name)
        # What was cast is what is in `obs`, cast: one of them is enough.
        assert np.array_equal(data["obs"].astype(np.float32), data.pop("cast"))
        save(FIXTURES / f"mpe_{name}.npz", **data)
