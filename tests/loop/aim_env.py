"""A tiny env of a user that can be saved; its worker starts a process of its own. Imported by workers."""

from __future__ import annotations

import subprocess
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv


class Aim(ParallelEnv):
    """Two agents act as they are told; an observation may be made large, a reward may come to nothing."""

    metadata = {"name": "aim"}  # noqa: RUF012

    def __init__(self, scale: float = 1.0, helper: bool = False, render_mode: str | None = None) -> None:
        del render_mode
        self.possible_agents = ["left", "right"]
        self.scale = scale
        self.wants_helper = helper

    def observation_space(self, agent: str) -> Box:
        del agent
        return Box(-np.inf, np.inf, (3,), np.float32)

    def action_space(self, agent: str) -> Box:
        del agent
        return Box(-1, 1, (2,), np.float32)

    def see(self) -> dict[str, np.ndarray]:
        return {agent: (self.scale * np.append(self.aim, self.t / 5)).astype(np.float32) for agent in self.agents}

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        del options
        self.t, self.aim = 0, np.random.default_rng(seed).uniform(-1, 1, 2)
        self.agents = list(self.possible_agents)
        return self.see(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        if self.wants_helper:  # never ended, and in a session of its own
            self.helper = subprocess.Popen(["sleep", "600"], start_new_session=True)
            self.wants_helper = False
        self.t += 1
        living, over = list(self.agents), self.t >= 5
        rewards = {agent: -float(np.square(actions[agent] - self.aim).sum()) for agent in living}
        seen = self.see()
        if over:
            self.agents = []
        return seen, rewards, dict.fromkeys(living, False), dict.fromkeys(living, over), {a: {} for a in living}

    def save_state(self) -> bytes:
        return np.asarray([self.t, len(self.agents), *self.aim], float).tobytes()

    def load_state(self, data: bytes) -> None:
        t, living, *aim = np.frombuffer(data)
        self.t, self.aim = int(t), np.asarray(aim)
        self.agents = list(self.possible_agents) if living else []
