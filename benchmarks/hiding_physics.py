"""What the physics costs a training run, and what our workers cost the physics.

Three comparisons on one task, all in one run on the same cores:

1. Wall time of training against the same run over an env of the same sizes that costs nothing.
2. Env steps/s of our worker processes against gymnasium-robotics stepped in bare loops by as many processes.
3. The same bare loops in threads, to see which of the two the physics favours.

    python benchmarks/hiding_physics.py [--task mamujoco-full/halfcheetah-2x3] [--vector-steps 600] [--json]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import threading
import time
from typing import Any

import numpy as np

from omad.envs.host_env import HostEnv, HostObservation, StepResult
from omad.spec import EnvSpec

DRAWN = 100
"""Random actions of every world, used in turn: what a step costs hangs on where the robot is, so both sides must move
alike."""


class Idle:
    """A world that costs nothing: constant observations, no reward, truncated by the clock."""

    def __init__(self, spec: EnvSpec) -> None:
        self.seen = HostObservation(np.zeros((spec.n_agents, spec.obs_dim)), np.zeros(spec.state_dim))
        self.horizon, self.time = spec.horizon, 0

    def reset(self, seed: int) -> HostObservation:
        """The constant."""
        self.time = 0
        return self.seen

    def step(self, action: np.ndarray, seed: int) -> StepResult:
        """The constant."""
        self.time += 1
        return StepResult(self.seen, 0.0, False, self.time >= self.horizon, {})

    def save(self) -> np.ndarray:
        """The clock."""
        return np.asarray([self.time], np.int64).view(np.uint8)

    def load(self, data: np.ndarray) -> None:
        """The clock."""
        self.time = int(np.frombuffer(data.tobytes(), np.int64)[0])

    def render(self) -> np.ndarray:
        """Nothing to see."""
        return np.zeros((1, 1, 3), np.uint8)

    def close(self) -> None:
        """Nothing is open."""


def idle(**sizes: Any) -> HostEnv:
    """The idle env of the given sizes."""
    spec = EnvSpec(**{key: tuple(value) if isinstance(value, list) else value for key, value in sizes.items()})
    return HostEnv(spec, lambda render: Idle(spec))


def trainer(task: str, workers: int, costless: bool) -> Any:
    """(vector_steps -> seconds): trains for that many vector steps."""
    import jax
    import jax.numpy as jnp

    from omad import buffer, envs
    from omad.algos import make as make_algorithm
    from omad.config import resolve
    from omad.envs.pool import Pool
    from omad.loop.fused import LoopConfig
    from omad.loop.hosted import Hosted

    config = resolve(task, "omad", "matched")
    env = envs.make(task)
    spec = dataclasses.replace(env.spec, info_keys=())
    algorithm = make_algorithm(config.algo, env.spec, config.obs_norm)
    sizes = LoopConfig(
        config.n_envs, config.updates_per_step, config.batch_size,
        buffer.rows_for(20_000, config.n_envs), config.warmup_vector_steps,
    )  # fmt: skip

    def start(n_envs: int) -> Pool:
        if costless:
            return Pool("hiding_physics:idle", dataclasses.asdict(spec), spec, n_envs, workers)
        return Pool.of(task, env.spec, n_envs, workers)

    loop = Hosted(algorithm, env, sizes, start)
    seeds = jnp.asarray([0], jnp.int32)
    carry = loop.warm(loop.init(seeds), seeds, 0, config.warmup_vector_steps)
    at = [config.warmup_vector_steps, jax.block_until_ready(loop.chunk(carry, seeds, config.warmup_vector_steps, 3))]
    at[0] += 3

    def train(vector_steps: int) -> float:
        started = time.perf_counter()
        at[1] = jax.block_until_ready(loop.chunk(at[1], seeds, at[0], vector_steps))
        at[0] += vector_steps
        return time.perf_counter() - started

    train.close = loop.close  # type: ignore[attr-defined]
    return train


def bare(scenario: str, partition: str, n_envs: int, vector_steps: int, go: Any, took: Any, place: int) -> None:
    """Step `n_envs` gymnasium-robotics envs in turn, from a common start."""
    from gymnasium_robotics import mamujoco_v1

    envs = [mamujoco_v1.parallel_env(scenario, partition, agent_obsk=0) for _ in range(n_envs)]
    rng = np.random.default_rng(place)
    for env in envs:
        env.reset(seed=place)
    sizes = {a: envs[0].action_space(a).shape for a in envs[0].possible_agents}
    drawn = [{a: rng.uniform(-1, 1, size) for a, size in sizes.items()} for _ in range(DRAWN * n_envs)]
    go.wait()
    started = time.perf_counter()
    for step in range(vector_steps):
        for i, env in enumerate(envs):
            _, _, terminated, truncated, _ = env.step(drawn[step % DRAWN * n_envs + i])
            env.state()
            if any(terminated.values()) or any(truncated.values()):
                env.reset()
    took[place] = time.perf_counter() - started


def bare_rate(task: str, n_envs: int, workers: int, vector_steps: int, threads: bool) -> float:
    """Env steps/s of bare loops in processes or threads."""
    robots = {"halfcheetah": "HalfCheetah", "ant": "Ant", "walker2d": "Walker2d", "swimmer": "Swimmer"}
    robot, _, partition = task.split("/")[1].partition("-")
    shares = [len(part) for part in np.array_split(np.arange(n_envs), workers)]
    context = multiprocessing.get_context("spawn")
    go = threading.Barrier(workers) if threads else context.Barrier(workers)
    took: Any = [0.0] * workers if threads else context.Array("d", workers)
    make = threading.Thread if threads else context.Process
    team = [
        make(target=bare, args=(robots[robot], partition, n, vector_steps, go, took, i)) for i, n in enumerate(shares)
    ]
    for one in team:
        one.start()
    for one in team:
        one.join()
    return n_envs * vector_steps / max(took)


def pool_rate(task: str, n_envs: int, workers: int, vector_steps: int) -> float:
    """Env steps/s of our worker processes with random actions."""
    from omad import envs
    from omad.envs.pool import Pool

    spec = envs.make(task).spec
    pool = Pool.of(task, spec, n_envs, workers)
    seeds = np.arange(n_envs, dtype=np.uint64)
    pool.reset(seeds)
    drawn = np.random.default_rng(0).uniform(-1, 1, (DRAWN, n_envs, spec.n_agents, spec.act_dim)) * spec.act_mask
    started = time.perf_counter()
    for step in range(vector_steps):
        pool.send(drawn[step % DRAWN], seeds, seeds, step)
        pool.receive(step)
    rate = n_envs * vector_steps / (time.perf_counter() - started)
    pool.close()
    return rate


def main() -> None:
    """Measure, alternating, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="mamujoco-full/halfcheetah-2x3")
    parser.add_argument("--vector-steps", type=int, default=600, help="vector steps of one measurement")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--envs", type=int, default=16, help="envs of the comparison without learning")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    workers = len(os.sched_getaffinity(0))
    real, costless = (trainer(given.task, workers, free) for free in (False, True))
    times = [(real(given.vector_steps), costless(given.vector_steps)) for _ in range(given.repeats)]
    real.close()
    costless.close()
    found: dict[str, Any] = {
        "task": given.task,
        "workers": workers,
        "training_s": float(np.median([t for t, _ in times])),
        "training_costless_s": float(np.median([t for _, t in times])),
        "training_ratio": float(np.median([a / b for a, b in times])),
    }
    vector_steps = 4 * given.vector_steps
    rates = [
        (
            pool_rate(given.task, given.envs, workers, vector_steps),
            bare_rate(given.task, given.envs, workers, vector_steps, threads=False),
            bare_rate(given.task, given.envs, workers, vector_steps, threads=True),
        )
        for _ in range(given.repeats)
    ]
    for i, name in enumerate(("workers", "bare_processes", "bare_threads")):
        found[f"{name}_steps_per_s"] = float(np.median([r[i] for r in rates]))
    found["physics_ratio"] = float(np.median([bare / ours for ours, bare, _ in rates]))
    if given.json:
        print(json.dumps(found, indent=1))  # noqa: T201
        return
    for name, value in found.items():
        print(f"{name:>28}  {value if isinstance(value, str | int) else round(value, 3)}")  # noqa: T201


if __name__ == "__main__":
    main()
