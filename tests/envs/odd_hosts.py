"""One small env on the host and its faults, each of which users meet; `kind` says which."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from omad import EnvSpec, HostEnv
from omad.envs.host_env import HostObservation, StepResult
from omad.envs.patience import progress

HORIZON = 4


class Odd:
    """Two agents that see one and two numbers; four steps, then truncated."""

    def __init__(self, kind: str) -> None:
        self.kind, self.time = kind, 0

    def see(self) -> HostObservation:
        """The clock; a number behind the first agent's own is nobody's."""
        spare = 7.0 if self.kind == "padding" or (self.kind == "late padding" and self.time) else 0.0
        return HostObservation(np.asarray([[self.time, spare], [self.time, 1.0]]), np.zeros(0))

    def reset(self, seed: int) -> Any:
        """The first of them."""
        self.time = 0
        if self.kind == "bare reset":
            return self.see().obs, {}
        return HostObservation([[1.0], [1.0, 2.0]], np.zeros(0)) if self.kind == "ragged" else self.see()  # type: ignore[arg-type]  # that it is no array is the point

    def step(self, action: np.ndarray, seed: int) -> Any:
        """One step."""
        self.time += 1
        if self.kind == "raises":
            raise ValueError("the motor is on fire")
        if self.kind == "hangs" and self.time == 3:
            time.sleep(600)
        over = self.time >= HORIZON and self.kind != "endless"
        info = {} if self.kind == "no info" else {"lit": 2.0}
        flags = (over, False) if self.kind == "clock terminates" else (False, over)
        moved = StepResult(self.see(), float(action[0, 0]), *flags, info)
        if self.kind == "nan info":
            moved = moved._replace(info={"lit": np.nan})
        return tuple(moved) if self.kind == "tuple" else moved

    def save(self) -> None:
        """Not offered."""

    def load(self, data: np.ndarray) -> None:
        """Not offered."""

    def render(self) -> Any:
        """A picture, or something else."""
        given = {"no picture": None, "float picture": np.full((8, 8, 3), 0.5), "no display": None}
        if self.kind == "no display":
            raise RuntimeError("an OpenGL platform library has not been loaded")
        return given.get(self.kind, np.full((8, 8, 3), 20 * self.time, np.uint8))

    def close(self) -> None:
        """Nothing is open."""


def odd(kind: str = "") -> HostEnv:
    """Notes in the file that `OWN_ENVS_LOG` names in which process it was called."""
    if path := os.environ.get("OWN_ENVS_LOG"):
        with Path(path).open("a") as file:
            file.write(f"{os.getpid()}\n")
    return HostEnv(EnvSpec("odd", (1, 2), (1, 1), 0, HORIZON, ("lit",)), lambda render: Odd(kind))


def dawdle(steps: int, each_s: float) -> dict[str, int]:
    """Takes its time, and says so."""
    for t in range(steps):
        progress(f"step {t}")
        time.sleep(each_s)
    return {"steps": steps}
