"""Small PettingZoo envs for the tests of the adapter; some cannot be used."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

LIMITS = {"left": ([-0.5], [2.0]), "right": ([[0.0, -3.0]], [[10.0, -1.0]])}


class Pair(ParallelEnv):
    """Two agents that see time, seed and their last action; each has its own end, by the task or by a clock.

    Args:
        left_ends: Step at which the left agent terminates; 0 for never.
        right_ends: The right one.
        left_clock: Step at which the left agent is truncated; 0 for never.
        right_clock: The right one.
        stays: Whether agents that have ended go on being listed and shown, which is not as it should be.
    """

    metadata = {"name": "pair", "render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self,
        left_ends: int = 0,
        right_ends: int = 0,
        left_clock: int = 0,
        right_clock: int = 0,
        stays: bool = False,
        render_mode: str | None = None,
    ) -> None:
        self.possible_agents = ["left", "right"]
        self.ends = {"left": left_ends, "right": right_ends}
        self.clock = {"left": left_clock, "right": right_clock}
        self.stays, self.render_mode = stays, render_mode
        self.boxes = {agent: box(*limits) for agent, limits in LIMITS.items()}
        self.given: list[dict[str, np.ndarray]] = []
        """All actions of the episode."""

    def observation_space(self, agent: str) -> spaces.Space:
        return spaces.Box(-np.inf, np.inf, (3,) if agent == "left" else (2, 2), np.float32)

    def action_space(self, agent: str) -> spaces.Space:
        return self.boxes[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        del options
        self.agents = list(self.possible_agents)
        self.time, self.seed, self.given = 0, seed or 0, []
        self.last = {agent: np.zeros_like(space.low) for agent, space in self.boxes.items()}
        return self.seen(self.agents), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        self.time += 1
        self.given.append(actions)
        living = list(self.agents)
        self.last |= actions
        ended = {agent: 0 < self.ends[agent] <= self.time for agent in living}
        cut = {agent: 0 < self.clock[agent] <= self.time for agent in living}
        if not self.stays:
            self.agents = [agent for agent in living if not (ended[agent] or cut[agent])]
        rewards = {agent: self.time * (1.0 if agent == "left" else 10.0) for agent in living}
        return self.seen(living), rewards, ended, cut, {agent: {} for agent in living}

    def seen(self, agents: list[str]) -> dict[str, np.ndarray]:
        """Nothing shown is ever zero."""
        row = {agent: [1 + self.time, 1 + self.seed, *(5 + self.last[agent].ravel())] for agent in agents}
        shape = {"left": (3,), "right": (2, 2)}
        return {agent: np.asarray(row[agent], np.float32).reshape(shape[agent]) for agent in agents}

    def render(self) -> np.ndarray | None:
        return np.full((4, 6, 3), self.time, np.uint8) if self.render_mode == "rgb_array" else None


def box(low: Any, high: Any, kind: Any = np.float32) -> spaces.Box:
    return spaces.Box(np.asarray(low, kind), np.asarray(high, kind), dtype=kind)


pair = Pair


class Stateful(Pair):
    """Has a global state, which it changes in place."""

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.everything = np.zeros((2, 3))
        return super().reset(seed, options)

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        told = super().step(actions)
        self.everything += 1
        return told

    def state(self) -> np.ndarray:
        return self.everything


class Shrinking(Pair):
    """Has a state of those agents only that still live."""

    def state(self) -> np.ndarray:
        return np.concatenate([[self.time], *(self.last[agent].ravel() for agent in self.agents)])


class Saved(Pair):
    """Can be saved."""

    def save_state(self) -> bytes:
        lives = [agent in self.agents for agent in self.possible_agents]
        return struct.pack("qq??3f", self.time, self.seed, *lives, *self.last["left"], *self.last["right"].ravel())

    def load_state(self, data: bytes) -> None:
        self.time, self.seed, left, right, a, b, c = struct.unpack("qq??3f", data)
        self.agents = [agent for agent, lives in zip(self.possible_agents, (left, right), strict=True) if lives]
        self.last = {"left": np.asarray([a], np.float32), "right": np.asarray([[b, c]], np.float32)}


class SavedShrinking(Saved, Shrinking):
    """Can be saved, and its state becomes smaller."""


class Timed(Pair):
    """Says how long its episodes are."""

    max_cycles = 40


class Fine(Pair):
    """Its limits are in double precision and none that halves and doubles end up at."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes = {"left": box([-0.1], [0.3], np.float64), "right": box([[-0.7, 1e-9]], [[0.1, 1e9]], np.float64)}


class _Acts(Pair):
    def __init__(self, acts: Any) -> None:
        super().__init__()
        self.boxes |= {"right": acts}

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        raise AssertionError("an env that is refused is not started")


def discrete() -> ParallelEnv:
    return _Acts(spaces.Discrete(5))


def whole() -> ParallelEnv:
    return _Acts(spaces.Box(0, 4, (2,), np.int64))


def unbounded() -> ParallelEnv:
    return _Acts(spaces.Box(-np.inf, np.inf, (2,), np.float32))


def half_bounded() -> ParallelEnv:
    return _Acts(box([-1.0, 0.0], [1.0, np.inf]))


def empty_range() -> ParallelEnv:
    return _Acts(box([-1.0, 0.0], [1.0, 0.0]))


class DictSeen(Pair):
    def observation_space(self, agent: str) -> spaces.Space:
        return spaces.Dict({"a": super().observation_space(agent), "b": spaces.Discrete(3)})


class Images(Pair):
    def observation_space(self, agent: str) -> spaces.Space:
        return spaces.Box(0, 255, (100, 100, 3), np.uint8)


class Broken(Pair):
    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        raise ZeroDivisionError("no ground to stand on")


class Emptied(Pair):
    """Lists its agents once, and not again in its next episode."""

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        first = not hasattr(self, "agents")
        seen = super().reset(seed, options)
        self.agents = self.agents if first else []
        return seen


class Unseen(Pair):
    """The left agent is shown nothing, at its reset or at a step, while it lives."""

    def __init__(self, at: str = "step", **ends: Any) -> None:
        super().__init__(**ends)
        self.at = at

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        seen, infos = super().reset(seed, options)
        return {agent: row for agent, row in seen.items() if agent != "left" or self.at != "reset"}, infos

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        told = super().step(actions)
        return {agent: row for agent, row in told[0].items() if agent != "left" or self.at != "step"}, *told[1:]


class Unlisted(Pair):
    """Never says who acts."""

    agents: Any = None

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        told = super().reset(seed, options)
        self.agents = None
        return told


class Nobody(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.possible_agents = []


class Duck:
    """Has all that an env is asked for when it is made, and nothing else."""

    possible_agents = ("left", "right")

    def __init__(self) -> None:
        self.inner = Pair()
        self.observation_space, self.action_space = self.inner.observation_space, self.inner.action_space
        self.reset, self.step = self.inner.reset, self.inner.step


def number() -> int:
    return 3


def turns() -> Any:
    """An env of turns whose agents cannot act at once."""
    from mpe2 import simple_spread_v3

    env = simple_spread_v3.raw_env(continuous_actions=True)
    env.metadata = {**env.metadata, "is_parallelizable": False}
    return env


def wrapped(**given: Any) -> Any:
    """As PettingZoo's own factories are: of any arguments."""
    return pair(**given)
