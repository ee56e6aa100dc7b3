"""Tiny worlds in NumPy for the tests of worker processes; some misbehave. Imported by workers, so nothing of JAX."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np

from omad.envs.host_env import HostEnv, HostObservation, StepResult
from omad.spec import EnvSpec

PIECES = 4
"""A 64-bit seed is shown as that many numbers of 16 bits, which single precision holds."""
OBS = PIECES + 3
STATE = PIECES + 1


def pieces(seed: int) -> list[float]:
    return [float(seed >> 16 * i & 0xFFFF) for i in range(PIECES)]


def whole(shown: np.ndarray) -> int:
    """The seed that is shown."""
    return sum(int(piece) << 16 * i for i, piece in enumerate(shown))


class Counter:
    """Two agents of one and two action entries; an agent sees the episode's seed, the time and its last action.

    The state, if there is one, shows the seed of the last step, and whether JAX has been imported.
    """

    def __init__(self, spec: EnvSpec, fault: dict[str, Any], saves: bool) -> None:
        self.spec, self.fault, self.saves = spec, fault, saves
        self.seed, self.time = 0, 0
        self.last = np.zeros((2, 2))
        self.step_seed = 0

    def reset(self, seed: int) -> HostObservation:
        self.seed, self.time, self.last, self.step_seed = seed, 0, np.zeros((2, 2)), 0
        return self._spoilt(self._see())

    def step(self, action: np.ndarray, seed: int) -> StepResult:
        assert action.shape == (2, 2)
        self.time, self.last, self.step_seed = self.time + 1, action.copy(), seed
        over = self.time >= self.spec.horizon
        by_task = over and self.seed % 2 == 1
        info = {"time": float(self.time), "twice": 2.0 * action[0, 0]}
        moved = StepResult(self._see(), self.time + action.sum(), by_task, over and not by_task, info)
        return self._wrong(moved)

    def _see(self) -> HostObservation:
        obs = [[*pieces(self.seed), self.time, *row] for row in self.last]
        state = [*pieces(self.step_seed), "jax" in sys.modules] if self.spec.state_dim else []
        return HostObservation(np.asarray(obs, float), np.asarray(state, float))

    def _due(self, where: str) -> bool:
        """Whether to misbehave now: at a call, at a time, in the episode of a seed."""
        fault = self.fault
        return fault.get("where", "step") == where and fault.get("time", 0) == self.time and fault["seed"] == self.seed

    def _spoilt(self, seen: HostObservation) -> HostObservation:
        return misbehave(self.fault["kind"], StepResult(seen, 0.0, False, False)).next if self._due("reset") else seen

    def _wrong(self, moved: StepResult) -> Any:
        return misbehave(self.fault["kind"], moved) if self._due("step") else moved

    def save(self) -> np.ndarray | None:
        if self._due("save"):
            misbehave(self.fault["kind"], None)
        if not self.saves:
            return None
        words = np.asarray([self.seed, self.time, self.step_seed], np.uint64)
        return np.concatenate([words.view(np.uint8), self.last.ravel().view(np.uint8)])

    def load(self, data: np.ndarray) -> None:
        self.seed, self.time, self.step_seed = (int(word) for word in np.frombuffer(data[:24].tobytes(), np.uint64))
        self.last = np.frombuffer(data[24:].tobytes(), float).reshape(2, 2).copy()
        if self._due("load"):
            misbehave(self.fault["kind"], None)

    def render(self) -> np.ndarray:
        return np.zeros((2, 2, 3), np.uint8)

    def close(self) -> None:
        if self.fault.get("where") == "close":
            misbehave(self.fault["kind"], None)


def misbehave(kind: str, moved: Any) -> Any:
    """Do that."""
    if kind == "raise":
        raise ValueError("the motor is on fire")
    if kind == "hang":
        time.sleep(600)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "exit":
        sys.exit(3)
    if kind == "print":
        print("x" * 100_000, flush=True)  # noqa: T201
        os.write(1, b"y" * 1000)
        return moved
    if kind in ("fork", "fork and die"):
        if kind == "fork and die":
            for pipe in range(3, 200):  # the child keeps them open whatever it closes
                with contextlib.suppress(OSError):
                    os.dup(pipe)
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        if kind == "fork and die":
            os._exit(4)
        return moved
    if kind in ("start", "daemon"):
        subprocess.Popen(["sleep", "600"], start_new_session=kind == "daemon", close_fds=False)
        return moved
    if kind == "stdin":
        return moved._replace(reward=float(len(sys.stdin.read())))
    seen, kinds = moved.next, {"nan reward": np.nan, "inf reward": np.inf, "large reward": 1e300, "no reward": None}
    if kind in kinds:
        return moved._replace(reward=kinds[kind])
    changed: dict[str, Any] = {
        "nan obs": seen._replace(obs=seen.obs * np.nan),
        "large obs": seen._replace(obs=seen.obs + 1e300),
        "inf state": seen._replace(state=seen.state + np.inf),
        "shape": seen._replace(obs=seen.obs[:, :-1]),
        "ragged": seen._replace(obs=[[1.0], [1.0, 2.0]]),
        "text": seen._replace(obs=[["a"] * OBS] * 2),
        "state shape": seen._replace(state=np.zeros(1 + seen.state.size)),
    }
    if kind in changed:
        return moved._replace(next=changed[kind])
    if kind == "no info":
        return moved._replace(info={})
    if kind == "array reward":
        return moved._replace(reward=np.ones(2))
    if kind == "nothing":
        return None
    raise AssertionError(kind)


def counter(horizon: int = 4, state: bool = False, saves: bool = True, fault: dict[str, Any] | None = None) -> HostEnv:
    """The worlds above.

    Args:
        horizon: Steps of an episode; it terminates if its seed is odd, else it is truncated.
        state: Whether there is one.
        saves: Whether worlds can be saved.
        fault: What is done (`kind`) at which call (`where`), time and seed.
    """
    spec = EnvSpec("odd/counter", (OBS, OBS), (1, 2), STATE * state, horizon, ("time", "twice"))
    return HostEnv(spec, lambda render: Counter(spec, {"seed": -1} | (fault or {}), saves), saves)


def sized(horizon: int = 4) -> HostEnv:
    """Worlds that save themselves in as many bytes as the seed says."""
    env = counter(horizon)

    class Sized(Counter):
        def save(self) -> np.ndarray | None:
            return np.zeros(3 + self.seed, np.uint8)

    return HostEnv(env.spec, lambda render: Sized(env.spec, {"seed": -1}, True))


def unborn(kind: str = "raise", after: int = 0) -> HostEnv:
    """Worlds of which all, or those after some, cannot be started."""
    env, made = counter(), []

    def world(render: bool) -> Counter:
        made.append(render)
        if len(made) > after:
            misbehave(kind, None)
        return Counter(env.spec, {"seed": -1}, True)

    return HostEnv(env.spec, world)


def refused() -> HostEnv:
    """Not even that."""
    raise ImportError("no module named unobtainium")
