"""JAX envs of other libraries as a `JaxEnv`: dicts or single agents, boxes of their own, and one `done`.

Such a library has one flag for the end of an episode, whether the task ended or the clock. Learning needs to know
which: values bootstrap behind the clock's end, never behind the task's. `?done=` says it:

- `auto`, the default: an end at or after the env's own limit of steps is the clock's (truncated), one before it the
  task's (terminated). An env that says no limit gives no way to tell, and all its ends count as truncated: a bootstrap
  too many is a small bias where episodes rarely end early, a terminal too many teaches that what follows is worth
  nothing. An end by the task in the very last step is taken for the clock's.
- `terminated`, `truncated`: all ends that the env itself gives are.

`?horizon=` cuts episodes before the env does. The env's own `step`, which resets, is never called, so that the
observation of the last step is the true one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from omad.envs import adapt
from omad.envs.adapted import team_options
from omad.envs.contract import RETURN
from omad.errors import UserError
from omad.types import EnvSpec, EnvState, JaxEnv, Observation, Outcome

OURS = ("team_reward", "horizon", "done")
"""Arguments that are read here; a factory gets them only if it takes arguments of these names."""


class Stepped(NamedTuple):
    """What a step of another library's env gives, agent by agent."""

    obs: list[Array]
    state: Array
    """Empty where there is none."""
    rewards: list[Array]
    ended: list[Array]
    """Whether each agent has ended."""
    done: Array
    """Whether the episode has."""


class Source(NamedTuple):
    """An env of another library."""

    agents: tuple[str, ...]
    """Empty where it gives them no names."""
    boxes: list[tuple[np.ndarray, np.ndarray, tuple[int, ...]]]
    """Lower and upper bounds of each agent's actions, flat, and their shape."""
    reset: Callable[[Any], tuple[EnvState, list[Array], Array]]
    """key -> state, observations, state for critics. Keys are raw, as these libraries were written for."""
    step: Callable[[EnvState, list[Array], Any], tuple[EnvState, Stepped]]
    length: int | None
    """Steps after which its own clock ends an episode, where it says that."""
    clock: str
    """The entry of its state that counts steps; empty where there is none."""


class Timed(eqx.Module):
    """The env's own state, how many steps were done, and who had ended before the next."""

    state: EnvState
    time: Int[Array, "*b"]
    ended: Bool[Array, "*b agent"]


def own_limit(source: Source) -> int | None:
    """Steps after which the env's clock ends an episode; some end it one step later than they say.

    Asked of the env itself: its clock is set to the last steps, and looked at what `done` says.
    """
    length = source.length
    if length is None:
        return None
    key = jax.random.key_data(jax.random.key(np.uint32(0)))
    state: Any = jax.jit(lambda key: source.reset(key)[0])(key)
    if not source.clock or not hasattr(state, source.clock) or not hasattr(state, "__dataclass_fields__"):
        return length
    acts = [jnp.asarray((low + high) / 2, float).reshape(shape) for low, high, shape in source.boxes]
    done = jax.jit(lambda state: source.step(state, acts, key)[1].done)

    def ends(time: int) -> bool:
        return bool(
            done(dataclasses.replace(state, **{source.clock: jnp.full_like(getattr(state, source.clock), time)}))
        )

    return length if ends(length - 1) or not ends(length) else length + 1


def strong(tree: Any) -> Any:
    """Python's numbers in a state as arrays of their kind, so that a state is alike before and after a step."""

    def one(leaf: Any) -> Any:
        return leaf if isinstance(leaf, jax.Array) and not leaf.weak_type else jnp.asarray(leaf, jnp.result_type(leaf))

    return jax.tree.map(one, tree)


def as_team(task: str, source: Source, arguments: Mapping[str, Any]) -> JaxEnv:
    """The env as a team's: padded rows, actions in [-1, 1], one reward, both flags.

    Args:
        task: Its name.
        source: The env.
        arguments: In which `team_reward`, `horizon` and `done` are read.

    Raises:
        UserError: One of these cannot be what it is, or the env does not say how long an episode is.
    """
    (mean, horizon), meaning = team_options(task, arguments), _meaning(task, arguments)
    limit = own_limit(source)
    if horizon is None and limit is None:
        raise UserError(f"{task}: the env does not say how long an episode is; give ?horizon= to cut it there.")
    if horizon and limit and horizon > limit:
        raise UserError(
            f"{task}: horizon is {horizon}, but the env ends its episodes after {limit} steps itself; give the env's "
            "own argument for that, or a horizon of at most as many."
        )
    steps = horizon or limit
    assert steps is not None
    key = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    _, rows, world = jax.eval_shape(source.reset, key)
    if wide := [row for row in rows if not jnp.issubdtype(row.dtype, jnp.number)]:
        raise UserError(f"{task}: an observation is made of {wide[0].dtype}; only numbers can be read.")
    lows = [tuple(low.tolist()) for low, _, _ in source.boxes]
    highs = [tuple(high.tolist()) for _, high, _ in source.boxes]
    plain = all(value == -1 for row in lows for value in row) and all(value == 1 for row in highs for value in row)
    spec = EnvSpec(
        task, tuple(row.size for row in rows), tuple(len(low) for low in lows), world.size, steps,
        tuple(f"{RETURN}{agent}" for agent in source.agents),
        agents=source.agents, act_low=() if plain else tuple(lows), act_high=() if plain else tuple(highs),
    )  # fmt: skip

    def shown(rows: Sequence[Array], world: Array, ended: Bool[Array, " agent"]) -> Observation:
        table = adapt.pad([jnp.asarray(row, float).ravel() for row in rows], spec.obs_dim)
        return Observation(jnp.where(ended[:, None], 0.0, table), jnp.asarray(world, float).ravel())

    def reset(key: Key[Array, ""]) -> tuple[Timed, Observation]:
        state, rows, world = source.reset(jax.random.key_data(key))
        ended = jnp.zeros(spec.n_agents, bool)
        return Timed(strong(state), jnp.zeros((), jnp.int32), ended), shown(rows, world, ended)

    def step(was: Timed, action: Float[Array, "agent act"], key: Key[Array, ""]) -> tuple[Timed, Outcome]:
        acts = [action[i, : low.size].reshape(shape) for i, (low, _, shape) in enumerate(source.boxes)]
        state, moved = source.step(was.state, acts, jax.random.key_data(key))
        time = was.time + 1
        rewards = jnp.stack([jnp.asarray(reward, float).reshape(()) for reward in moved.rewards])
        rewards = jnp.where(was.ended, 0.0, rewards)
        total = jnp.sum(rewards)
        done = jnp.asarray(moved.done, bool).reshape(())
        early = time < limit if limit is not None else jnp.zeros((), bool)
        by_task = {"auto": done & early, "terminated": done, "truncated": jnp.zeros_like(done)}[meaning]
        outcome = Outcome(
            next=shown(moved.obs, moved.state, was.ended),
            reward=total / spec.n_agents if mean else total,
            terminated=by_task,
            truncated=~by_task & (done | (time >= steps)),
            info={key: rewards[i] for i, key in enumerate(spec.info_keys)},
        )
        ended = jnp.stack([jnp.asarray(flag, bool).reshape(()) for flag in moved.ended])
        return Timed(strong(state), time, was.ended | ended), outcome

    env = JaxEnv(spec, reset, step, notes=(_words(limit, horizon, meaning),))
    return adapt.rescale(env, lows, highs)


def _meaning(task: str, arguments: Mapping[str, Any]) -> str:
    """What `done` means.

    Raises:
        UserError: It cannot be that.
    """
    meaning, allowed = arguments.get("done", "auto"), ("auto", "terminated", "truncated")
    if meaning not in allowed:
        raise UserError(
            f"{task}: done is {meaning!r}; it may be {', '.join(allowed)}. The env's own argument of this name is "
            "written env.done."
        )
    return meaning


def _words(limit: int | None, horizon: int | None, meaning: str) -> str:
    """What an end of an episode is taken for."""
    if meaning != "auto":
        said = f"as ?done={meaning} says, every end that the env itself gives is {meaning}"
    elif limit is None:
        said = "the env says no limit of steps, so every end counts as truncated; ?done=terminated says otherwise"
    else:
        said = (
            f"one after {limit} steps, the env's own limit, counts as truncated, one before that as terminated; ?done= "
            "says otherwise"
        )
    cut = f", and omad truncates after {horizon} steps" if horizon and horizon != limit else ""
    return f"The env has one flag for the end of an episode: {said}{cut}."
