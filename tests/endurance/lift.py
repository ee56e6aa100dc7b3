"""A user's own env for the endurance runs: two agents of unequal sizes hold a height together; it can be saved."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv


class Lift(ParallelEnv):
    """Episodes of eight steps; the reward of each agent is minus the height's distance from zero."""

    metadata = {"name": "lift"}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.possible_agents, self.render_mode = ["arm", "winch"], render_mode
        self.height, self.time = 0.0, 0

    def observation_space(self, agent: str) -> Box:
        """One number for the arm, two for the winch."""
        return Box(-np.inf, np.inf, (1 if agent == "arm" else 2,), np.float32)

    def action_space(self, agent: str) -> Box:
        """Lopsided bounds."""
        return Box(-0.5, 2.0, (2,), np.float32) if agent == "arm" else Box(0.0, 10.0, (1,), np.float32)

    def _see(self) -> dict[str, np.ndarray]:
        height = np.asarray([self.height, self.time / 8], np.float32)
        return {"arm": height[:1], "winch": height}

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """A height drawn from the seed."""
        self.height, self.time = float(np.random.default_rng(seed).uniform(-1, 1)), 0
        self.agents = list(self.possible_agents)
        return self._see(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        """Both pull."""
        self.time += 1
        self.height += 0.1 * float(actions["arm"].sum()) - 0.02 * float(actions["winch"][0])
        agents, over = list(self.agents), self.time >= 8
        self.agents = [] if over else agents
        none = dict.fromkeys(agents, False)
        rewards, infos = dict.fromkeys(agents, -abs(self.height)), {agent: {} for agent in agents}
        return self._see(), rewards, none, dict.fromkeys(agents, over), infos

    def save_state(self) -> bytes:
        """All that the next step depends on."""
        return np.asarray([self.height, self.time]).tobytes()

    def load_state(self, data: bytes) -> None:
        """Go on from there."""
        height, time = np.frombuffer(data)
        self.height, self.time, self.agents = float(height), int(time), list(self.possible_agents)
