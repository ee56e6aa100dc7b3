"""How much a policy's return hangs on the moment at which it is looked at, and what averaging its parameters gives.

From the newest checkpoint of a robot's run (trained with `--policy-average 0`), learning goes on for some vector steps
on the buffer as it is. After every 25, the actors of that moment and exponential averages of their parameters play the
same episodes. The folder is copied before, so nothing of the run changes.

    python benchmarks/policy_snapshots.py RUN [--rounds 10] [--decay 0.95 0.98] [--episodes 4]

Decays are those a vector step; with 8 gradient steps in one and a policy step at every third, 0.95 is 0.98 a policy
step.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from omad import envs
from omad.keys import run_key
from omad.loop.build import build
from omad.loop.fused import learn_vector_step
from omad.loop.hosted import Hosted
from omad.loop.session import Session
from omad.run.folder import RunFolder
from omad.tree import polyak

VECTOR_STEPS = 25


def say(name: str, values: Any) -> None:
    """One line of numbers."""
    sys.stdout.write(" ".join([name, *(f"{value:9.1f}" for value in values)]) + "\n")
    sys.stdout.flush()


def measure(path: Path, rounds: int, decays: list[float], episodes: int) -> None:
    """Print one line a round, then the means."""
    run = RunFolder.open(path)
    config = dataclasses.replace(run.config, eval_episodes=episodes)
    parts = build(config, envs.make(config.task))
    session = Session(run, parts)
    try:
        session.restore()
        algorithm, loop = parts.algorithm, parts.loop
        assert isinstance(loop, Hosted), "only tasks whose envs run on the host"
        root = run_key(session.seeds[0])

        def learn(carry: Any, averages: list[Any], first: Any) -> tuple[Any, list[Any]]:
            def body(i: Any, carried: tuple[Any, list[Any]]) -> tuple[Any, list[Any]]:
                carry = learn_vector_step(algorithm, loop.config, carried[0], root, first + i)[0]
                policy = algorithm.behaviour_policy(carry.learner)
                return carry, [polyak(old, policy, 1.0 - decay) for old, decay in zip(carried[1], decays, strict=True)]

            return jax.lax.fori_loop(0, VECTOR_STEPS, body, (carry, averages))

        compiled = jax.jit(learn, donate_argnums=(0, 1))
        carry = jax.tree.map(lambda leaf: leaf[0], session.carry)
        averages = [jax.tree.map(jnp.array, algorithm.behaviour_policy(carry.learner)) for _ in decays]
        found = []
        for number in range(rounds):
            carry, averages = compiled(carry, averages, jnp.int32(session.vector_steps + number * VECTOR_STEPS))
            policies = [algorithm.behaviour_policy(carry.learner), *averages]
            if number == 0:  # the first average began at whatever the checkpoint's moment was
                averages = [jax.tree.map(jnp.array, policies[0]) for _ in decays]
            played = [
                parts.sampled(jax.tree.map(lambda leaf: leaf[None], one), jnp.int32(7), jnp.int32(0))
                for one in policies
            ]
            found.append([float(np.mean(one.returns)) for one in played])
            say(f"{number + 1:4d}", found[-1])
        say("mean", np.mean(found, axis=0))
    finally:
        parts.close()
        run.close()


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--decay", type=float, nargs="+", default=[0.95])
    parser.add_argument("--episodes", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "run"
        shutil.copytree(given.run, copy)
        measure(copy, given.rounds, given.decay, given.episodes)


if __name__ == "__main__":
    main()
