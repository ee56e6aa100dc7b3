"""A running PettingZoo env: who acts, what is seen and paid, when an episode ends. See `omad.envs.pettingzoo`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from omad.envs import contract
from omad.envs.contract import Broken, guarded
from omad.envs.host_env import HostObservation, StepResult, scale
from omad.errors import UserError
from omad.spec import EnvSpec


def state_of(env: Any) -> np.ndarray:
    """The global state, empty where the env has none.

    Raises:
        Broken: There is one, and it fails or is not made of numbers.
    """
    from pettingzoo import ParallelEnv

    inner = env.unwrapped
    if not hasattr(env, "state") or getattr(type(inner), "state", None) is ParallelEnv.state:
        return np.zeros(0)

    def state() -> Any:
        try:
            return env.state()
        except NotImplementedError:
            return np.zeros(0)

    found = np.asarray(guarded("state()", state))
    if found.dtype.kind not in "buif":
        raise Broken(f"state() returned an array of {found.dtype}; it must return real numbers")
    return found.ravel().astype(float)  # a copy: the env may go on writing into its own


def saved(inner: Any) -> bytes:
    """What an env saves; a number or a text is not taken for bytes."""
    return memoryview(inner.save_state()).tobytes()


def info_of(infos: Mapping[Any, Any], agent: Any) -> Mapping[Any, Any]:
    """An agent's info; empty where it has none."""
    found = infos.get(agent)
    return found if isinstance(found, Mapping) else {}


def refuse_unseen(seen: Mapping[Any, Any], agents: Sequence[Any], due: Sequence[Any], what: str) -> None:
    """What an agent that acts is shown is learned from, and at the end of an episode that is truncated.

    Raises:
        Broken: One of those who are due is shown nothing.
    """
    if missing := [str(agent) for agent in agents if agent in due and agent not in seen]:
        names = ", ".join(missing)
        raise Broken(
            f"{what} returned no observations for {names}, who had not terminated; return those of all who act, at a "
            "truncation the last ones"
        )


class PettingZooInstance:
    """One running env; its rows are in the order of the spec's agents.

    Raises:
        UserError: It has other agents than the spec.
    """

    def __init__(self, env: Any, spec: EnvSpec, mean: bool) -> None:
        self.env, self.spec, self.mean = env, spec, mean
        found = {str(agent): agent for agent in env.possible_agents}
        if sorted(found) != sorted(spec.agents):
            raise UserError(
                f"{spec.name}: here the agents are {', '.join(found)}, but the env was begun with "
                f"{', '.join(spec.agents)}; an env must have the same agents in every process."
            )
        self.agents = [found[name] for name in spec.agents]
        self.boxes = [
            (np.asarray(box.low, float).ravel(), np.asarray(box.high, float).ravel(), box.shape, box.dtype)
            for box in (env.action_space(agent) for agent in self.agents)
        ]
        for agent, (low, high, *_), *due in zip(spec.agents, self.boxes, spec.act_low, spec.act_high, strict=True):
            if [tuple(low.tolist()), tuple(high.tolist())] != due:
                raise UserError(
                    f"{spec.name}: here agent {agent} acts from {low} to {high}, but the env was begun with "
                    f"{due[0]} to {due[1]}; an env must have the same bounds in every process."
                )
        own = [name for name in spec.info_keys if not name.startswith(contract.RETURN)]
        self.numbers = [
            (name, agent, name.removeprefix(f"{agent}/")) for name in own for agent in self.agents
            if name.startswith(f"{agent}/")
        ]  # fmt: skip
        self.time = 0
        self.state = np.zeros(spec.state_dim)
        self.cut = False
        """Whether omad's clock, not the env's, ended the last episode."""

    def reset(self, seed: int) -> HostObservation:
        """An episode from a seed of 31 bits."""
        seen = contract.checked_reset(self.env.reset(seed=seed & 0x7FFFFFFF), self.agents)
        if not self.env.agents:
            raise Broken("reset() has left the env's `agents` empty; it must list those that act in the new episode")
        refuse_unseen(seen, self.agents, self.env.agents, "reset()")
        self.time = 0
        return self._see(seen, "reset()")

    def step(self, action: np.ndarray, seed: int) -> StepResult:
        """All agents that still live act."""
        del seed
        acts = {}
        for agent, row, (low, high, shape, kind) in zip(self.agents, action, self.boxes, strict=True):
            if agent in self.env.agents:
                acts[agent] = scale(row[: low.size], low, high).reshape(shape).astype(kind)
        given = self.env.step(acts)
        seen, paid, terminations, truncations, infos = contract.checked_step(given, self.agents, acts)
        seen = {agent: row for agent, row in seen.items() if agent in acts or agent in self.env.agents}
        paid = {agent: reward for agent, reward in paid.items() if agent in acts}
        total = float(sum(paid.values()))
        self.time += 1
        living = [agent for agent in self.env.agents if not (terminations.get(agent) or truncations.get(agent))]
        over = not living
        last = [agent for agent in acts if over and not terminations.get(agent)]  # at a clock's end it is bootstrapped
        refuse_unseen(seen, self.agents, [*living, *last], "step()")
        terminated = over and all(terminations.get(agent, False) for agent in acts)
        self.cut = not over and self.time >= self.spec.horizon
        shown = self._see(seen, "step()")
        each = {f"{contract.RETURN}{agent}": paid.get(agent, 0.0) for agent in self.agents}
        for name, agent, key in self.numbers:
            each[name] = contract.finite(info_of(infos, agent).get(key)) or 0.0
        reward = total / len(self.agents) if self.mean else total
        return StepResult(shown, reward, terminated, not terminated and (over or self.cut), each)

    def _see(self, seen: Mapping[str, Any], what: str) -> HostObservation:
        obs = np.zeros((self.spec.n_agents, self.spec.obs_dim))
        for row, agent, size in zip(obs, self.agents, self.spec.obs_dims, strict=True):
            if agent in seen:
                row[:size] = contract.row_of(seen[agent], size, what, agent)
        if self.spec.state_dim:
            try:
                state = state_of(self.env)
            except Broken:
                if len(self.env.agents) == len(self.agents):
                    raise
                state = np.zeros(0)  # of agents that have ended, some envs cannot tell it any more
            if state.size == self.spec.state_dim:
                self.state = state
            elif len(self.env.agents) == len(self.agents):  # as agents end, some shrink; the last whole one stands
                raise Broken(f"state() returned {state.size} numbers, not {self.spec.state_dim} as at first")
        return HostObservation(obs, self.state)

    def left(self, obs: np.ndarray) -> str:
        """What to say of observations `(time, agent, obs)` that leave the boxes which the env declares."""
        for i, agent in enumerate(self.agents):
            box, rows = self.env.observation_space(agent), obs[:, i, : self.spec.obs_dims[i]]
            low, high = (np.ravel(part).astype(np.float32) for part in (box.low, box.high))
            out = ((rows < low) | (rows > high)) & rows.any(1, keepdims=True)  # an agent that has ended shows zeros
            if out.any():
                time, place = np.argwhere(out)[0]
                return (
                    f"Observations leave the space that the env declares: agent {agent} was shown "
                    f"{rows[time, place]:g} at place {place}, from {low[place]:g} to {high[place]:g} there. They are "
                    "learned from as they are."
                )
        return ""

    def save(self) -> np.ndarray | None:
        """What the env saves of itself, and the clock."""
        if not all(hasattr(self.env.unwrapped, name) for name in ("save_state", "load_state")):
            return None
        own = np.concatenate([[float(self.time)], self.state]).view(np.uint8)
        return np.concatenate([own, np.frombuffer(saved(self.env.unwrapped), np.uint8)])

    def load(self, data: np.ndarray) -> None:
        """Go on from there."""
        size = 8 * (1 + self.spec.state_dim)
        own = np.frombuffer(data[:size].tobytes(), float)
        self.time, self.state = int(own[0]), own[1:].copy()
        self.env.unwrapped.load_state(data[size:].tobytes())

    def render(self) -> np.ndarray:
        """What the env draws of itself.

        Raises:
            UserError: It draws nothing.
        """
        try:
            return contract.picture(guarded("render()", self.env.render))
        except Broken as error:
            raise UserError(f"{self.spec.name}: {error}.") from error

    def close(self) -> None:
        """Close the env."""
        self.env.close()
