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

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from omad.envs import contract
from omad.envs.adapted import bounds_of, length_of, team_options
from omad.envs.contract import Broken, guarded
from omad.envs.description import describe_spec, given_or_found
from omad.envs.host_env import HostEnv
from omad.envs.imported import built, imported
from omad.envs.pettingzoo_instance import PettingZooInstance, info_of, refuse_unseen, saved, state_of
from omad.errors import UserError
from omad.spec import EnvSpec

OURS = ("team_reward", "horizon")
"""Arguments that are read here; the factory gets them only if it takes arguments of these names."""
DEFAULT_HORIZON = 1000
_HINT = " If the env has a continuous form, ask for it (often ?continuous_actions=true)."
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
    more = {"render_mode": "rgb_array"} if render else {}
    try:
        inspect.signature(made).bind_partial(**more)
    except TypeError:
        raise UserError(
            f"{factory} cannot be drawn, as it takes no render_mode='rgb_array'; give it this argument."
        ) from None
    except ValueError:  # its signature cannot be read
        pass
    return parallel(factory, built(factory, made, arguments, OURS, **more))


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


def _sizes(env: Any, factory: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[Any, ...], tuple[Any, ...]]:
    """Observation and action sizes of every agent, and the bounds of actions.

    Raises:
        UserError: A space is not a bounded box of real numbers.
    """
    obs_dims, act_dims, lows, highs = [], [], [], []
    for agent in env.possible_agents:
        seen, acts = env.observation_space(agent), env.action_space(agent)
        low, high, _ = bounds_of(factory, agent, acts, _HINT)
        if not hasattr(seen, "low"):
            raise UserError(f"{factory}: agent {agent} observes {seen}; only Box observations can be read.")
        obs_dims.append(int(np.prod(seen.shape)))
        act_dims.append(len(low))
        lows.append(tuple(low.tolist()))
        highs.append(tuple(high.tolist()))
        if obs_dims[-1] > _TOO_LARGE:
            raise UserError(
                f"{factory}: agent {agent} observes {seen.shape}; at most {_TOO_LARGE} numbers can be read."
            )
        if not obs_dims[-1]:
            raise UserError(f"{factory}: agent {agent} has a space without a number; each needs at least one.")
    if not obs_dims:
        raise UserError(f"{factory}: the env has no agents.")
    return tuple(obs_dims), tuple(act_dims), tuple(lows), tuple(highs)


def _exact(env: Any) -> tuple[bool, str]:
    """Whether a state that was saved can be loaded again, and why not; it is tried."""
    inner = env.unwrapped
    if not hasattr(inner, "save_state"):
        return False, ""
    if not hasattr(inner, "load_state"):
        return False, "it has save_state() but no load_state()"
    try:
        first = guarded("save_state()", saved, inner)
        env.step({a: np.asarray(env.action_space(a).low + env.action_space(a).high) / 2 for a in env.agents})
        second = guarded("save_state()", saved, inner)
        if len(first) != len(second):
            return False, f"save_state() returned {len(first)} bytes, then {len(second)}; all must be of one length"
        guarded("load_state()", inner.load_state, first)
        if guarded("save_state()", saved, inner) != first:
            return False, "save_state() gives something else after load_state()"
    except Exception as error:  # noqa: BLE001 - a user's code may raise anything
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
        for key, value in sorted(info_of(infos, agent).items(), key=lambda item: str(item[0]))
        if isinstance(key, str) and key.isprintable() and len(key) <= 80 and contract.finite(value) is not None
    ][:_MOST_NUMBERS]


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
        refuse_unseen(seen, keys, guarded("asking for its agents", lambda: list(env.agents)), "reset()")
        for agent, size in zip(keys, obs_dims, strict=True):
            if agent in seen:
                contract.row_of(seen[agent], size, "reset()", agent)
        state = state_of(env).size
        length = guarded("asking how long an episode is", lambda: length_of(arguments, env.unwrapped))
        horizon = length or DEFAULT_HORIZON
        exact, why = _exact(env)
        own = _own_numbers(env, keys)
        notes = [f"Its state cannot be saved: {why}. A resumed run begins new episodes."] if why else []
        if length is None:
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
    spec = EnvSpec("", obs_dims, act_dims, state, horizon, (*each, *own), tuple(agents), lows, highs)
    return describe_spec(spec, exact, tuple(notes))


def make(task: str, factory: str, arguments: dict[str, Any], description: Mapping[str, Any] | None = None) -> HostEnv:
    """The env of a user.

    Args:
        task: Its whole name.
        factory: `module:function`.
        arguments: Of the factory, and of omad.
        description: What `describe` returned before, so that no process is started for it.

    Raises:
        UserError: It cannot be made, or not be used; the message says why.
    """
    mean, _ = team_options(task, arguments)
    found = given_or_found(task, "omad.envs.pettingzoo:describe", factory, arguments, description)

    def create_instance(render: bool) -> PettingZooInstance:
        return PettingZooInstance(create(factory, arguments, render), found.spec, mean)

    return HostEnv(found.spec, create_instance, found.exact, found.notes)
