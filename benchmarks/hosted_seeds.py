"""Several seeds in one process: as one batch, and one after the other.

Each side trains the same run from its warm-up on, in chunks of vector steps. Sides alternate, so that other work on
the machine slows both. Prints the best and the median chunk, wall and CPU time of this process (workers not counted).

    python benchmarks/hosted_seeds.py --task mamujoco-full/halfcheetah-2x3 --seeds 1 8 --vector-steps 100 \\
        updates_per_step=4

Fields of the run and of its algorithm are given as `name=value`, after all options. A field that is left out has the
preset's value.
"""

from __future__ import annotations

import argparse
import ast
import json
import resource
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

from omad import envs
from omad.config import resolve
from omad.loop.build import build


class Side:
    """One way to run the seeds."""

    def __init__(self, config: Any, batch: bool) -> None:
        self.config, self.batch = config, batch
        self.built = build(config, envs.make(config.task), batch)
        self.seeds = jnp.asarray(config.all_seeds, jnp.int32)
        started = time.perf_counter()
        self.carry, self.done = self.built.loop.init(self.seeds), 0
        self.advance(self.built.loop.warm, config.warmup_vector_steps)
        self.advance(self.built.loop.chunk, 2)
        self.ready_s = time.perf_counter() - started
        self.wall_s: list[float] = []
        self.cpu_s: list[float] = []

    def advance(self, loop: Any, vector_steps: int) -> None:
        """So many vector steps, done when this returns."""
        carry = loop(self.carry, self.seeds, jnp.int32(self.done), jnp.int32(vector_steps))
        self.carry, self.done = jax.block_until_ready(carry), self.done + vector_steps

    def measure(self, vector_steps: int) -> None:
        """One more chunk."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.advance(self.built.loop.chunk, vector_steps)
        self.wall_s.append((time.perf_counter() - wall) / vector_steps)
        self.cpu_s.append((time.process_time() - cpu) / vector_steps)

    def found(self) -> dict[str, Any]:
        """What was measured so far."""
        steps = self.config.updates_per_step * self.config.seeds
        best, median = min(self.wall_s), statistics.median(self.wall_s)
        return {
            "seeds": self.config.seeds,
            "how": "batch" if self.batch else "in turn",
            "vector_steps_per_s": 1 / best,
            "vector_steps_per_s_median": 1 / median,
            "gradient_steps_per_s": steps / best,
            "gradient_steps_per_s_median": steps / median,
            "env_steps_per_s": self.config.n_envs * self.config.seeds / best,
            "cpu_ms_per_vector_step": 1e3 * statistics.median(self.cpu_s),
            "ready_s": self.ready_s,
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="mamujoco-full/halfcheetah-2x3")
    parser.add_argument("--algorithm", default="omad")
    parser.add_argument("--preset", default="matched")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 8], help="numbers of seeds, measured in this order")
    parser.add_argument("--vector-steps", type=int, default=50, help="vector steps of a chunk")
    parser.add_argument("--chunks", type=int, default=5, help="chunks of each side")
    parser.add_argument("--how", nargs="+", choices=("batch", "turn"), default=["batch", "turn"])
    parser.add_argument("--json", action="store_true", help="one JSON line a side")
    parser.add_argument("fields", nargs="*", metavar="name=value", help="fields of the run or of its algorithm")
    given = parser.parse_args()
    fields = {name: _value(text) for name, _, text in (field.partition("=") for field in given.fields)}
    device = jax.devices()[0]
    if not given.json:
        _say(f"{given.algorithm} on {given.task}, preset {given.preset}, {device.platform} {device.device_kind}")
    for n in given.seeds:
        config = resolve(given.task, given.algorithm, given.preset, **{"warmup_steps": 1_000} | fields, seeds=n)
        sides = [Side(config, how == "batch") for how in given.how]
        try:
            for _ in range(given.chunks):
                for side in sides:
                    side.measure(given.vector_steps)
        finally:
            for side in sides:
                side.built.close()
        for side in sides:
            _say(json.dumps(side.found()) if given.json else _line(side.found()))
        jax.clear_caches()
    if not given.json:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
        _say(f"peak memory of this process {peak:,.0f} MiB")


def _line(found: dict[str, Any]) -> str:
    return (
        f"{found['seeds']:3} seeds, {found['how']:8}"
        f"{found['vector_steps_per_s']:9.1f} vector steps/s (median {found['vector_steps_per_s_median']:.1f})"
        f"{found['gradient_steps_per_s']:10.1f} gradient steps/s (median {found['gradient_steps_per_s_median']:.1f})"
        f"{found['env_steps_per_s']:10.0f} env steps/s"
        f"{found['cpu_ms_per_vector_step']:9.2f} CPU ms a vector step"
        f"   ready after {found['ready_s']:.0f} s"
    )


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


if __name__ == "__main__":
    main()
