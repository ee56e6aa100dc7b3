"""Any PettingZoo `ParallelEnv` with continuous actions, by import path.

A user's code runs in processes of its own: in workers, and in one that only describes the env (`isolated`). What
it gives there is checked (`contract`).

The team reward is the sum of the agents' rewards (`?team_reward=mean` for their mean). An agent that has ended while
others go on shows zeros, and its action goes nowhere. An episode ends with its last agent: by the task if all of those
that ended last were terminated (an agent with both flags up is), else by the clock; or by omad's clock after
`?horizon=` steps. If the factory takes an argument of one of these two names, it gets it too.

Metrics and evaluations keep each agent's own return, `return/AGENT`, and the numbers that its infos hold after a first
step, `AGENT/KEY`, summed over an episode; one that is absent later, or not finite, counts as 0.

For an exact resume an env may offer `save_state() -> bytes` (always of one length) and `load_state(bytes)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from omad.envs import contract
from omad.envs.contract import Broken, guarded
from omad.envs.description import EnvDescription, given_or_found
from omad.envs.host_env import HostEnv, HostObservation, StepResult, scale
from omad.envs.imported import built, imported
from omad.errors import UserError
from omad.spec import EnvSpec

__all__ = ["PettingZooInstance", "create", "describe", "described", "is_class", "is_env", "make", "parallel"]

OURS = ("team_reward", "horizon")
"""Arguments that are read here; the factory gets them only if it takes arguments of these names."""
DEFAULT_HORIZON = 1000
_TOO_LARGE = 20_000
_MOST_NUMBERS = 64
"""Numbers of the env's infos that are kept."""
_METHODS = ("observation_space", "action_space", "reset", "step", "unwrapped", "close")


def _classes() -> tuple[type, ...]:
    from pettingzoo import AECEnv, ParallelEnv

    return ParallelEnv, AECEnv


def is_class(made: Any) -> bool:
    """Whether something is a class of PettingZoo envs; nothing of PettingZoo is imported for that."""
    bases = (f"{base.__module__}.{base.__qualname__}" for base in getattr(made, "__mro__", ()))
    return isinstance(made, type) and bool(
        {"pettingzoo.utils.env.ParallelEnv", "pettingzoo.utils.env.AECEnv"} & {*bases}
    )


def is_env(made: Any) -> bool:
    """Whether something looks like a running PettingZoo env."""
    return not isinstance(made, type) and (
        is_class(type(made)) or all(hasattr(made, name) for name in ("possible_agents", *_METHODS))
    )


def create(factory: str, arguments: Mapping[str, Any], render: bool = False) -> Any:
    """Import and call the factory; in a worker's process, or in one that only describes it.

    Raises:
        UserError: It cannot be imported or called, or gives something that is not a PettingZoo env.
    """
    made = imported(factory, _classes(), "a PettingZoo ParallelEnv class")
    return parallel(factory, built(factory, made, arguments, OURS, **({"render_mode": "rgb_array"} if render else {})))


def parallel(factory: str, env: Any) -> Any:
    """The env in the form in which agents act at once.

    Raises:
        UserError: It is not a PettingZoo env, has no such form, or cannot be looked at.
    """
    try:
        return guarded("looking at the env", _parallel, factory, env)
    except Broken as error:
        raise UserError(f"{factory}: {error}.") from error


def _parallel(factory: str, env: Any) -> Any:
    if hasattr(env, "agent_iter"):
        from pettingzoo.utils.conversions import aec_to_parallel

        env = guarded("making the env of turns parallel", aec_to_parallel, env)
    if missing := [name for name in _METHODS if not hasattr(env, name)]:
        raise UserError(
            f"{factory} returned a {type(env).__name__}, which is not a PettingZoo ParallelEnv: it has no "
            f"{', '.join(missing)}."
        )
    if not hasattr(env, "possible_agents"):
        raise UserError(f"{factory}: the env has no possible_agents before its first reset; list all agents there.")
    return env


def _sizes(env: Any, factory: str) -> tuple[list[int], list[int], list[list[float]], list[list[float]]]:
    """Observation and action sizes of every agent, and the bounds of actions.

    Raises:
        UserError: A space is not a bounded box of real numbers.
    """
    obs_dims, act_dims, lows, highs = [], [], [], []
    for agent in env.possible_agents:
        seen, acts = env.observation_space(agent), env.action_space(agent)
        if not (hasattr(acts, "low") and np.issubdtype(acts.dtype, np.floating)):
            raise UserError(
                f"{factory}: agent {agent} acts in {acts}; diffusion policies need continuous actions, a Box of real "
                "numbers. If the env has a continuous form, ask for it (often ?continuous_actions=true)."
            )
        if not (np.isfinite(acts.low).all() and np.isfinite(acts.high).all() and (acts.low < acts.high).all()):
            raise UserError(f"{factory}: agent {agent} acts in {acts}, which has no finite bounds low < high.")
        if not hasattr(seen, "low"):
            raise UserError(f"{factory}: agent {agent} observes {seen}; only Box observations can be read.")
        obs_dims.append(int(np.prod(seen.shape)))
        act_dims.append(int(np.prod(acts.shape)))
        lows.append(np.asarray(acts.low, float).ravel().tolist())
        highs.append(np.asarray(acts.high, float).ravel().tolist())
        if obs_dims[-1] > _TOO_LARGE:
            raise UserError(
                f"{factory}: agent {agent} observes {seen.shape}; at most {_TOO_LARGE} numbers can be read."
            )
        if not min(obs_dims[-1], act_dims[-1]):
            raise UserError(f"{factory}: agent {agent} has a space without a number; each needs at least one.")
    if not obs_dims:
        raise UserError(f"{factory}: the env has no agents.")
    return obs_dims, act_dims, lows, highs


def _state_of(env: Any) -> np.ndarray:
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


def _horizon(env: Any, arguments: Mapping[str, Any]) -> tuple[int, bool]:
    """As asked, as the env says, or a guess; and whether it is one."""
    inner = env.unwrapped
    for value in (
        *(arguments.get(name) for name in contract.LENGTHS),
        *(getattr(inner, name, None) for name in contract.LENGTHS),
    ):
        try:
            if isinstance(value, bool) or value is None or np.ndim(value) or float(value) != int(value):
                continue
        except (TypeError, ValueError, OverflowError):
            continue
        if 0 < int(value) < 2**31:
            return int(value), False
    return DEFAULT_HORIZON, True


def _saved(inner: Any) -> bytes:
    """What an env saves; a number or a text is not taken for bytes."""
    return memoryview(inner.save_state()).tobytes()


def _exact(env: Any, agents: list[str]) -> tuple[bool, str]:
    """Whether a state that was saved can be loaded again, and why not; it is tried."""
    inner = env.unwrapped
    if not hasattr(inner, "save_state"):
        return False, ""
    if not hasattr(inner, "load_state"):
        return False, "it has save_state() but no load_state()"
    try:
        first = guarded("save_state()", _saved, inner)
        env.step({a: np.asarray(env.action_space(a).low + env.action_space(a).high) / 2 for a in env.agents})
        second = guarded("save_state()", _saved, inner)
        if len(first) != len(second):
            return False, f"save_state() returned {len(first)} bytes, then {len(second)}; all must be of one length"
        guarded("load_state()", inner.load_state, first)
        if guarded("save_state()", _saved, inner) != first:
            return False, "save_state() gives something else after load_state()"
    except (Broken, Exception) as error:  # noqa: BLE001 - a user's code may raise anything
        return False, str(error)
    return True, ""


def _own_numbers(env: Any, keys: list[Any]) -> list[str]:
    """Names of the numbers that the env's infos hold after a first step, `AGENT/KEY`; none where that step fails."""
    try:
        env.reset(seed=0)
        acts = {a: _middle(env.action_space(a)) for a in env.agents}
        infos = contract.checked_step(guarded("step()", env.step, acts), keys, acts)[4]
    except Exception:  # noqa: BLE001 - the same step will say so in training
        return []
    return [
        f"{agent}/{key}"
        for agent in keys
        for key, value in sorted(_info_of(infos, agent).items(), key=lambda item: str(item[0]))
        if isinstance(key, str) and key.isprintable() and len(key) <= 80 and contract.finite(value) is not None
    ][:_MOST_NUMBERS]


def _info_of(infos: Mapping[Any, Any], agent: Any) -> Mapping[Any, Any]:
    found = infos.get(agent)
    return found if isinstance(found, Mapping) else {}


def _middle(box: Any) -> np.ndarray:
    return ((np.asarray(box.low, float) + np.asarray(box.high, float)) / 2).astype(box.dtype)


def describe(factory: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Create an env and describe it in plain values; runs in a process that does only this.

    Raises:
        UserError: It cannot be made, or not be used; the message says why.
    """
    return described(create(factory, arguments), factory, arguments)


def described(env: Any, factory: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a running env is like, which is closed after that; raises as `describe`."""
    try:
        keys = guarded("possible_agents", list, env.possible_agents)
        agents = [str(agent) for agent in keys]
        if len(set(agents)) < len(agents):
            raise UserError(f"{factory}: two of its agents have one name: {', '.join(agents)}.")
        if not all(isinstance(agent, str | int | np.integer) for agent in keys):
            raise UserError(f"{factory}: the names of agents must be text or whole numbers; they are {keys!r}.")
        obs_dims, act_dims, lows, highs = guarded("asking for its spaces", _sizes, env, factory)
        seen = contract.checked_reset(guarded("its reset()", env.reset, seed=0), keys)
        for agent, size in zip(keys, obs_dims, strict=True):
            if agent in seen:
                contract.row_of(seen[agent], size, "reset()", agent)
        state = _state_of(env).size
        horizon, guessed = guarded("asking how long an episode is", _horizon, env, arguments)
        exact, why = _exact(env, agents)
        own = _own_numbers(env, keys)
        notes = [f"Its state cannot be saved: {why}. A resumed run begins new episodes."] if why else []
        if guessed:
            notes.append(
                f"The env does not say how long an episode is; omad cuts one that lasts longer than {horizon} steps. "
                "Give ?horizon= to say it."
            )
        guarded("close()", env.close)
    except UserError as error:
        raise UserError(f"{factory}: {error}" if not str(error).startswith(factory) else str(error)) from None
    except Broken as error:
        inner = error.__cause__
        if isinstance(inner, UserError):
            raise UserError(str(inner)) from None
        raise UserError(f"{factory}: {error}; fix the env, or the versions of what it needs.") from None
    each = [f"{contract.RETURN}{agent}" for agent in agents]
    description = EnvDescription(
        agents, obs_dims, act_dims, lows, highs, state, horizon, guessed, exact, notes, [*each, *own]
    )
    return msgspec.to_builtins(description)


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
        terminated = over and all(terminations.get(agent, False) for agent in acts)
        self.cut = not over and self.time >= self.spec.horizon
        shown = self._see(seen, "step()")
        each = {f"{contract.RETURN}{agent}": paid.get(agent, 0.0) for agent in self.agents}
        for name, agent, key in self.numbers:
            each[name] = contract.finite(_info_of(infos, agent).get(key)) or 0.0
        reward = total / len(self.agents) if self.mean else total
        return StepResult(shown, reward, terminated, not terminated and (over or self.cut), each)

    def _see(self, seen: Mapping[str, Any], what: str) -> HostObservation:
        obs = np.zeros((self.spec.n_agents, self.spec.obs_dim))
        for row, agent, size in zip(obs, self.agents, self.spec.obs_dims, strict=True):
            if agent in seen:
                row[:size] = contract.row_of(seen[agent], size, what, agent)
        if self.spec.state_dim:
            try:
                state = _state_of(self.env)
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
        return np.concatenate([own, np.frombuffer(_saved(self.env.unwrapped), np.uint8)])

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


def make(
    task: str,
    factory: str,
    arguments: dict[str, Any],
    description: Mapping[str, Any] | None = None,
    timeout_s: float = 120.0,
) -> HostEnv:
    """The env of a user.

    Args:
        task: Its whole name.
        factory: `module:function`.
        arguments: Of the factory, and of omad.
        description: What `describe` returned before, so that no process is started for it.
        timeout_s: For the process that describes it.

    Raises:
        UserError: It cannot be made, or not be used; the message says why.
    """
    kind = arguments.get("team_reward", "sum")
    if kind not in ("sum", "mean"):
        raise UserError(
            f"{task}: team_reward is {kind!r}; it may be sum or mean. The factory's own argument of this "
            "name is written env.team_reward."
        )
    wanted = arguments.get("horizon", 1)
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise UserError(
            f"{task}: horizon is {wanted!r}; it must be a whole number of steps, at least 1. The "
            "factory's own argument of this name is written env.horizon."
        )
    found = given_or_found(task, "omad.envs.pettingzoo:describe", factory, arguments, description, timeout_s)
    spec = found.spec(task)

    def create_instance(render: bool) -> PettingZooInstance:
        return PettingZooInstance(create(factory, arguments, render), spec, kind == "mean")

    return HostEnv(spec, create_instance, found.exact, tuple(found.notes))
