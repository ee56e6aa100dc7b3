"""Two configurations, or two versions of this package, timed in turn by processes of their own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omad.errors import UserError

WORKER = """
import json, os, sys, time
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what imported code prints is no answer
said = json.loads(sys.argv[1])
import jax, jax.numpy as jnp
from omad.compilation import use_compilation_cache
use_compilation_cache(said["cache"])
from omad.config import resolve
from omad.experiment import Experiment
config = resolve(said["task"], said["algorithm"], said["preset"], **said["fields"])
size = max(config.batch_size, min(config.buffer_size, 20_000))
config = resolve(said["task"], said["algorithm"], said["preset"], **(said["fields"] | {"buffer_size": size}))
built = Experiment(config, loggers=()).built
loop, seeds, row = built.loop, jnp.asarray(config.all_seeds, jnp.int32), -(-config.warmup_steps // config.n_envs)
carry = loop.warm(loop.init(seeds), seeds, jnp.int32(0), jnp.int32(row))

def step(rows):
    global carry, row
    wall, cpu = time.perf_counter(), time.process_time()
    carry = jax.block_until_ready(loop.chunk(carry, seeds, jnp.int32(row), jnp.int32(rows)))
    row += rows
    return time.perf_counter() - wall, time.process_time() - cpu

rows = cadence = getattr(config.algo, "actor_every", 1)
step(rows)
while step(rows)[0] < said["slice"]:
    rows += max(cadence, rows // cadence * cadence)
print(json.dumps(rows * config.updates_per_step * config.seeds), file=answers, flush=True)
for _ in sys.stdin:
    print(json.dumps(step(rows)), file=answers, flush=True)
built.close()
"""
"""What each side runs. It is sent as text and uses little, so that an earlier version can be the other side too."""
_SLICE_S = 0.2


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two."""

    label: str
    run: Mapping[str, Any]
    """`task`, `algorithm`, `preset`, and the `fields` that were given; the other version may not know any other."""
    version: Path | None = None
    """Another version: a Python interpreter that has it installed, or the folder that has the package `omad`."""


class _Process:
    """A side's process, which takes a slice of time whenever it is asked to."""

    def __init__(self, side: Side, cache: bool) -> None:
        python, env = sys.executable, dict(os.environ)
        if side.version is not None and side.version.is_dir():
            env["PYTHONPATH"] = str(side.version.absolute())
        elif side.version is not None:
            python = str(side.version.absolute())
            env.pop("PYTHONPATH", None)
        said = json.dumps({**side.run, "slice": _SLICE_S, "cache": cache})
        self._side = side
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by end(); a pipe would fill up unread
        self._process = subprocess.Popen(
            [python, "-P", "-c", WORKER, said], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors,
        )  # fmt: skip

    def ready(self) -> None:
        """Wait until it has compiled."""
        self.steps = float(self._answer())

    def slice(self) -> tuple[float, float]:
        """Gradient steps per second by the clock and by the time of its processor."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; why, the answer says
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        wall, cpu = self._answer()
        return self.steps / wall, self.steps / max(cpu, 1e-9)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        output = self._errors.read().strip().splitlines() or ["no reason given"]
        raise UserError(f"{self._side.label} cannot be timed ({output[-1]}); run omad bench on it alone to see more.")

    def end(self) -> None:
        """Let it go."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        self._errors.close()


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times faster the first is, pair by pair: median, and the middle half of all pairs."""
    low, middle, high = np.quantile(np.asarray(ours) / np.asarray(theirs), (0.25, 0.5, 0.75))
    return {"ratio": float(middle), "low": float(low), "high": float(high)}


def compare(one: Side, other: Side, seconds: float, cache: bool = True) -> dict[str, Any]:
    """Slices of both in turn, the one that comes first changing with every pair.

    Args:
        one: What is asked about.
        other: What it is compared with.
        seconds: Time to spend on each side, compilation left out.
        cache: Whether compiled programs are kept.

    Returns:
        `pairs`; for `wall` and `cpu` the ratio of gradient steps per second, its quartiles, and both medians.

    Raises:
        UserError: One of them does not run.
    """
    for side in (one, other):
        if side.version is not None and not side.version.exists():
            raise UserError(
                f"{side.version} is not there; give a Python interpreter or a folder with the package omad."
            )
    sides: list[_Process] = []
    try:
        for side in (one, other):  # one after the other, or each would be compiled on half of the machine
            sides.append(_Process(side, cache))
            sides[-1].ready()
        seen: list[list[tuple[float, float]]] = [[], []]
        for pair in range(max(3, round(seconds / _SLICE_S))):
            for i in (0, 1) if pair % 2 else (1, 0):
                seen[i].append(sides[i].slice())
    finally:
        for side in sides:
            side.end()
    found: dict[str, Any] = {"one": one.label, "other": other.label, "pairs": len(seen[0])}
    for k, clock in enumerate(("wall", "cpu")):
        ours, theirs = ([rates[k] for rates in rows] for rows in seen)
        medians = {"one": float(np.median(ours)), "other": float(np.median(theirs))}
        found[clock] = ratio(ours, theirs) | medians
    return found
