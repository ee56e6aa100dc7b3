"""One small env and its faults, each of which users meet; `kind` says which."""

from __future__ import annotations

import os
import sys
import tempfile
from os import makedirs as makedirs
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv


class NoWords(BaseException):
    """Has no message."""

    def __str__(self) -> str:
        raise RuntimeError


class Odd(ParallelEnv):
    """Two agents, ten steps, the reward minus the squared distance of the action from what is seen."""

    metadata = {"name": "odd", "render_modes": ["rgb_array"]}  # noqa: RUF012
    where: ClassVar[dict[str, Any]] = {"moves": 0.0}

    def __init__(self, kind: str = "", horizon: int = 10, render_mode: str | None = None) -> None:
        self.possible_agents = list({"hip", "knee", "ankle", "toe"}) if kind == "set order" else ["left", "right"]
        self.kind, self.length, self.render_mode = kind, horizon, render_mode
        if kind == "chdir":
            os.chdir(tempfile.gettempdir())
        if kind == "prints":
            sys.stdout.write("hello from the env\n")
        if kind == "exits":
            sys.exit(0)
        if kind == "saves a number":
            self.save_state = lambda: 5
            self.load_state = lambda data: None
        if kind == "late agents":
            del self.possible_agents
        if kind == "saves only":
            self.save_state = lambda: b"state"
        if kind == "saves grow":
            self.save_state = lambda: b"s" * (1 + self.time)
            self.load_state = lambda data: None

    def observation_space(self, agent: str) -> Box:
        """Three numbers."""
        return Box(-2, 2, (3,), np.float32)

    def action_space(self, agent: str) -> Box:
        """Two numbers; other bounds once the variable is set."""
        return Box(-1, 3 if os.environ.get("ODD_BOUNDS") else 1, (2,), np.float32)

    def see(self) -> dict[str, Any]:
        """Its own clock and aim."""
        shown = np.append(self.aim, self.time / self.length).astype(np.float32)
        size = {"short": 1, "long": 5}.get(self.kind, 3)
        value = np.resize(shown, size)
        if self.kind == "outside":
            value = value + 2.5
        if self.kind == "nan":
            value = value * np.nan
        if self.kind == "global random":
            value = value + np.random.random()  # noqa: NPY002
        if self.kind == "shared class":
            value = value + self.where["moves"]
        return dict.fromkeys(self.agents, value)

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        """Draws an aim."""
        self.time, self.aim = 0, np.random.default_rng(seed).uniform(-1, 1, 2)
        self.agents = list(self.possible_agents)
        if self.kind == "global random":
            np.random.seed(seed)  # noqa: NPY002
        self.where["moves"] = 0.0
        seen = self.see()
        return seen if self.kind == "old reset" else (seen, {agent: {} for agent in self.agents})

    def step(self, actions: dict[str, Any]) -> Any:
        """One step."""
        self.time += 1
        self.where["moves"] += 0.1
        agents, over = list(self.agents), self.time >= self.length
        if self.kind == "raises" and self.time == 5:
            raise FileNotFoundError(2, "No such file", "maps/a.xml")
        if self.kind == "no words":
            raise NoWords
        rewards: dict[str, Any] = {a: -float(np.square(actions[a] - self.aim).sum()) for a in agents}
        if self.kind == "vector reward":
            rewards = {a: np.asarray([r, 100.0, -3.0]) for a, r in rewards.items()}
        if self.kind == "team key":
            rewards["team"] = 1000.0
        if self.kind == "huge":
            rewards = dict.fromkeys(agents, 1e39)
        terminated = dict.fromkeys(agents, over and self.kind == "both flags")
        seen, infos = self.see(), {agent: {} for agent in agents}
        if over:
            self.agents = []
        if self.kind == "four values":
            return seen, rewards, terminated, infos
        return seen, rewards, terminated, dict.fromkeys(agents, over), infos

    def state(self) -> Any:
        """Of some kinds only."""
        if self.kind == "state fails":
            return self.absent  # type: ignore[attr-defined]  # that it is not there is the point
        if self.kind == "state grows":
            return np.zeros(1 + self.time)
        raise NotImplementedError

    @property
    def unwrapped(self) -> ParallelEnv:
        """Of some kinds not."""
        if self.kind == "unwrapped fails":
            raise RuntimeError("nothing inside")
        return self

    @property
    def horizon(self) -> None:
        """Not told."""
        if self.kind == "length fails":
            raise RuntimeError("no length")

    def render(self) -> Any:
        """A picture, or something else."""
        return None if self.kind == "no picture" else np.full((32, 48, 3), 20, np.uint8)


def factory(**arguments: Any) -> Odd:
    """As a function."""
    return Odd(**arguments)


class Stranger:
    """No ParallelEnv."""
