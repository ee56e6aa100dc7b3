"""Envs on the host as users write them; some cannot be used.

Each construction is noted in the file that `OWN_ENVS_LOG` names.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

from omad import EnvSpec, HostEnv
from omad.envs.host_env import HostObservation, StepResult


def note(what: str) -> None:
    if path := os.environ.get("OWN_ENVS_LOG"):
        with Path(path).open("a") as file:
            file.write(f"{what}\n")


class Lamp:
    """Two agents; the state is the time."""

    def __init__(self, render: bool) -> None:
        note("instance")
        self.time, self.drawn = 0, render

    def _seen(self) -> HostObservation:
        return HostObservation(np.asarray([[self.time, 0.0], [self.time, 1.0]]), np.asarray([float(self.time)]))

    def reset(self, seed: int) -> HostObservation:
        self.time = seed % 7
        return self._seen()

    def step(self, action: np.ndarray, seed: int) -> StepResult:
        self.time += 1
        return StepResult(self._seen(), float(action[0, 0]), False, self.time >= 10, {"lit": 2.0})

    def save(self) -> np.ndarray:
        return np.asarray([self.time], np.uint8)

    def load(self, data: np.ndarray) -> None:
        self.time = int(data[0])

    def render(self) -> np.ndarray:
        return np.full((6, 6, 3), self.time, np.uint8)

    def close(self) -> None:
        """Nothing is open."""


SPEC = EnvSpec("lamp", (1, 2), (1, 1), 1, 10, ("lit",), ("wick", "oil"), ((0.0,), (-1.0,)), ((2.0,), (1.0,)))


def lamp(horizon: int = 10) -> HostEnv:
    return HostEnv(dataclasses.replace(SPEC, horizon=horizon), Lamp, notes=("Lamps are hot.",))


def unlit() -> HostEnv:
    nothing: Any = None
    return HostEnv(nothing, Lamp)


def dark() -> HostEnv:
    return HostEnv(SPEC, cast(Any, lambda render: object()))


def number() -> int:
    return 3


class Counted(ParallelEnv):
    """A PettingZoo env that notes each construction."""

    metadata = {"name": "counted"}  # noqa: RUF012

    def __init__(self, horizon: int = 5, render_mode: str | None = None) -> None:
        note("env")
        self.possible_agents, self.length = ["a", "b"], horizon

    def observation_space(self, agent: str) -> Box:
        return Box(-9, 9, (1,), np.float32)

    def action_space(self, agent: str) -> Box:
        return Box(-1, 1, (1,), np.float32)

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        self.agents, self.time = list(self.possible_agents), 0
        return {a: np.zeros(1, np.float32) for a in self.agents}, {a: {} for a in self.agents}

    def step(self, actions: dict[str, Any]) -> Any:
        self.time += 1
        over, acted = self.time >= self.length, list(self.agents)
        self.agents = [] if over else acted
        seen = {a: np.full(1, self.time, np.float32) for a in acted}
        return seen, dict.fromkeys(acted, 1.0), dict.fromkeys(acted, False), dict.fromkeys(acted, over), {}


def counted() -> Counted:
    return Counted()
