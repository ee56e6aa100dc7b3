"""Any PettingZoo `ParallelEnv` with continuous actions, by import path.

The team reward is the sum of the agents' rewards (`?team_reward=mean` for their mean). An agent that has ended while
others go on shows zeros, and its action goes nowhere. An episode ends with its last agent: by the clock if one of those
that ended last was truncated, else by the task; or by the clock after `?horizon=` steps.

For an exact resume an env may offer `save_state() -> bytes` (always of one length) and `load_state(bytes)`.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from omad.envs.world import HostEnv, Moved, Seen, scale
from omad.errors import Refused
from omad.spec import EnvSpec

__all__ = ["PettingZooWorld", "create", "make"]

OURS = ("team_reward", "horizon")
"""Arguments that are read here and not handed to the factory."""
DEFAULT_HORIZON = 1000
_TOO_LARGE = 20_000
_METHODS = ("possible_agents", "observation_space", "action_space", "reset", "step", "unwrapped", "close")


def create(factory: str, arguments: Mapping[str, Any], render: bool = False) -> Any:
    """Import and call the factory.

    Raises:
        Refused: It cannot be imported or called, or gives something that is not a PettingZoo env.
    """
    module, _, function = factory.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # a script in the working directory is found, as `python -m` would find it
        sys.path.append(here)
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        raise Refused(
            f"The env {factory} cannot be imported: {error}. Install its package, or run from the folder of its file."
        ) from error
    made = getattr(imported, function, None)
    if made is None:
        raise Refused(f"The module {module} has no {function}; name what makes the env.")
    given = {key: value for key, value in arguments.items() if key not in OURS}
    if render:
        given["render_mode"] = "rgb_array"
    try:
        env = made(**given)
    except TypeError as error:
        raise Refused(f"{factory} cannot be called with {given}: {error}.") from error
    if hasattr(env, "agent_iter"):
        from pettingzoo.utils.conversions import aec_to_parallel

        try:
            env = aec_to_parallel(env)
        except AssertionError as error:
            raise Refused(f"{factory} is an env of turns that cannot be made parallel: {error}") from error
    if not all(hasattr(env, name) for name in _METHODS):
        raise Refused(f"{factory} gave a {type(env).__name__}, which is not a PettingZoo ParallelEnv.")
    return env


def _sizes(env: Any, factory: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Observation and action sizes of every agent.

    Raises:
        Refused: A space is not a bounded box of real numbers.
    """
    obs_dims, act_dims = [], []
    for agent in env.possible_agents:
        seen, acts = env.observation_space(agent), env.action_space(agent)
        if not (hasattr(acts, "low") and np.issubdtype(acts.dtype, np.floating)):
            raise Refused(
                f"{factory}: agent {agent} acts in {acts}; diffusion policies need continuous actions, a Box of real "
                "numbers. If the env has a continuous form, ask for it (often ?continuous_actions=true)."
            )
        if not (np.isfinite(acts.low).all() and np.isfinite(acts.high).all() and (acts.low < acts.high).all()):
            raise Refused(f"{factory}: agent {agent} acts in {acts}, which has no finite bounds low < high.")
        if not hasattr(seen, "low"):
            raise Refused(f"{factory}: agent {agent} observes {seen}; only Box observations can be read.")
        obs_dims.append(int(np.prod(seen.shape)))
        act_dims.append(int(np.prod(acts.shape)))
        if obs_dims[-1] > _TOO_LARGE:
            raise Refused(f"{factory}: agent {agent} observes {seen.shape}; at most {_TOO_LARGE} numbers can be read.")
    if not obs_dims:
        raise Refused(f"{factory}: the env has no agents.")
    return tuple(obs_dims), tuple(act_dims)


def _state_of(env: Any) -> np.ndarray:
    """The global state, empty where there is none."""
    try:
        return np.array(env.state(), float).ravel()  # a copy: the env may go on writing into its own
    except (AttributeError, NotImplementedError, TypeError):
        return np.zeros(0)


def _horizon(env: Any, arguments: Mapping[str, Any]) -> int:
    """As asked, as the env says, or 1000."""
    for value in (
        arguments.get("horizon"), arguments.get("max_cycles"), arguments.get("max_steps"),
        getattr(env.unwrapped, "max_cycles", None), getattr(env.unwrapped, "max_steps", None), DEFAULT_HORIZON,
    ):  # fmt: skip
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return DEFAULT_HORIZON


class PettingZooWorld:
    """One running env."""

    def __init__(self, env: Any, spec: EnvSpec, mean: bool) -> None:
        self.env, self.spec, self.mean = env, spec, mean
        self.agents = list(env.possible_agents)
        self.boxes = [
            (np.asarray(box.low, float).ravel(), np.asarray(box.high, float).ravel(), box.shape, box.dtype)
            for box in (env.action_space(agent) for agent in self.agents)
        ]
        self.time = 0
        self.state = np.zeros(spec.state_dim)

    def reset(self, seed: int) -> Seen:
        """An episode from a seed of 31 bits."""
        seen, _ = self.env.reset(seed=seed & 0x7FFFFFFF)
        self.time = 0
        return self._see(seen)

    def step(self, action: np.ndarray, seed: int) -> Moved:
        """All agents that still live act."""
        del seed
        acts = {}
        for agent, row, (low, high, shape, kind) in zip(self.agents, action, self.boxes, strict=True):
            if agent in self.env.agents:
                acts[agent] = scale(row[: low.size], low, high).reshape(shape).astype(kind)
        seen, rewards, terminations, truncations, _ = self.env.step(acts)
        self.time += 1
        total = float(sum(np.asarray(value, float).sum() for value in rewards.values()))
        over = not self.env.agents or all(
            terminations.get(agent, True) or truncations.get(agent, False) for agent in self.env.agents
        )
        by_clock = any(truncations.get(agent, False) for agent in acts)
        terminated = over and not by_clock
        truncated = not terminated and (over or self.time >= self.spec.horizon)
        return Moved(self._see(seen), total / len(self.agents) if self.mean else total, terminated, truncated)

    def _see(self, seen: Mapping[str, Any]) -> Seen:
        obs = np.zeros((self.spec.n_agents, self.spec.obs_dim))
        for row, agent, size in zip(obs, self.agents, self.spec.obs_dims, strict=True):
            if agent in seen:
                row[:size] = np.asarray(seen[agent], float).ravel()
        if self.spec.state_dim:
            state = _state_of(self.env)
            if state.size == self.spec.state_dim:  # some envs' state shrinks as agents end; the last whole one stands
                self.state = state
        return Seen(obs, self.state)

    def save(self) -> np.ndarray | None:
        """What the env saves of itself, and the clock."""
        give = getattr(self.env.unwrapped, "save_state", None)
        if give is None:
            return None
        own = np.concatenate([[float(self.time)], self.state]).view(np.uint8)
        return np.concatenate([own, np.frombuffer(bytes(give()), np.uint8)])

    def load(self, data: np.ndarray) -> None:
        """Go on from there."""
        size = 8 * (1 + self.spec.state_dim)
        own = np.frombuffer(data[:size].tobytes(), float)
        self.time, self.state = int(own[0]), own[1:].copy()
        self.env.unwrapped.load_state(data[size:].tobytes())

    def render(self) -> np.ndarray:
        """What the env draws of itself.

        Raises:
            Refused: It draws nothing.
        """
        picture = self.env.render()
        if picture is None or np.ndim(picture) != 3:
            raise Refused(f"{self.spec.name}: render() gave no picture; the env must support render_mode='rgb_array'.")
        return np.asarray(picture, np.uint8)

    def close(self) -> None:
        """Close the env."""
        self.env.close()


def make(task: str, factory: str, arguments: dict[str, Any]) -> HostEnv:
    """The env of a user.

    Raises:
        Refused: It cannot be made, or not be used; the message says why.
    """
    kind = arguments.get("team_reward", "sum")
    if kind not in ("sum", "mean"):
        raise Refused(f"{task}: team_reward is {kind!r}; it may be sum or mean.")
    wanted = arguments.get("horizon", 1)
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise Refused(f"{task}: horizon is {wanted!r}; it must be a whole number of steps, at least 1.")
    env = create(factory, arguments)
    obs_dims, act_dims = _sizes(env, factory)
    try:
        env.reset(seed=0)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise Refused(
            f"{task}: its reset() failed with {type(error).__name__}: {error} ({Path(place.filename).name}, line "
            f"{place.lineno}); mend the env, or the versions of what it needs."
        ) from error
    spec = EnvSpec(task, obs_dims, act_dims, _state_of(env).size, _horizon(env, arguments))
    exact = hasattr(env.unwrapped, "save_state") and hasattr(env.unwrapped, "load_state")
    env.close()

    def world(render: bool) -> PettingZooWorld:
        return PettingZooWorld(create(factory, arguments, render), spec, kind == "mean")

    return HostEnv(spec, world, exact)
