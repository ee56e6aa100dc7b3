"""Whole episodes of any task, step by step and many at a time, for whoever decides on the host what agents do."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from omad.envs.host_env import HostEnv
from omad.envs.pool import Pool, seeds_of
from omad.errors import NonFinite
from omad.evaluate import envs_for, refuse_unfinished
from omad.keys import Stream, run_key, stream
from omad.types import JaxEnv

_AT_ONCE = 500
"""Episodes that are stepped together in JAX."""

Act = Callable[[np.ndarray, Key[Array, ""]], Any]
"""(observations `(episode, agent, obs)`, key) -> actions `(episode, agent, act)` in [-1, 1]. Where an episode is over,
observations are zeros and actions do not matter."""


class Moment(NamedTuple):
    """One env step of the episodes of a round."""

    round: int
    """Its number: instances are stepped through all episodes of one before those of the next."""
    alive: Bool[np.ndarray, " episode"]
    """Episodes that were not over before this step; what follows has no meaning where one was."""
    obs: Float[np.ndarray, "episode agent obs"]
    state: Float[np.ndarray, "episode state"]
    action: Float[np.ndarray, "episode agent act"]
    reward: Float[np.ndarray, " episode"]
    terminated: Bool[np.ndarray, " episode"]
    truncated: Bool[np.ndarray, " episode"]
    next_obs: Float[np.ndarray, "episode agent obs"]
    next_state: Float[np.ndarray, "episode state"]


def played(
    env: JaxEnv | HostEnv, act: Act, episodes: int, seed: int, begin: Callable[[], None] = lambda: None
) -> Iterator[Moment]:
    """Play episodes that start where those of an evaluation with the same seed do, and give every env step.

    The last round may have fewer episodes than the others; its surplus is never alive.

    Args:
        env: The env; on the host instances of it are created by its name.
        act: Who acts.
        episodes: How many.
        seed: Of all draws.
        begin: Called before each round.

    Raises:
        NonFinite: An action is not finite.
        EnvFailed: A hosted env failed, or an episode goes on after the declared horizon.
    """
    spec, root = env.spec, run_key(seed)
    starts = jax.random.split(stream(root, Stream.EVAL_RESET, 0), episodes)
    act_root, env_root = stream(root, Stream.EVAL_ACT, 0), stream(root, Stream.EVAL_ENV, 0)
    with contextlib.ExitStack() as stack:
        if isinstance(env, JaxEnv):
            size, instances = envs_for(episodes, _AT_ONCE), _InJax(env)
        else:
            size = envs_for(episodes)
            instances = _OnHost(stack.enter_context(contextlib.closing(Pool.of(spec.name, spec, size))))
        for number in range(math.ceil(episodes / size)):
            begin()
            places = np.arange(number * size, (number + 1) * size)
            alive = places < episodes
            obs, state = map(np.asarray, instances.reset(starts[np.minimum(places, episodes - 1)]))
            for t in range(spec.horizon):
                when = number * spec.horizon + t
                obs = np.where(alive[:, None, None], obs, 0.0)  # beyond its end an env may return NaN
                action = np.asarray(act(obs, jax.random.fold_in(act_root, when)))
                if not np.isfinite(action[alive]).all():
                    raise NonFinite(f"{spec.name}: the policy returned an action that is not finite")
                keys = jax.random.split(jax.random.fold_in(env_root, when), size)
                moment = Moment(number, alive, obs, state, action, *map(np.asarray, instances.step(action, keys, t)))
                yield moment
                alive = alive & ~(moment.terminated | moment.truncated)
                obs, state = moment.next_obs, moment.next_state
                if not alive.any():
                    break
            refuse_unfinished(spec, bool(alive.any()))


class _InJax:
    """Instances of an env in JAX."""

    def __init__(self, env: JaxEnv) -> None:
        self._reset, self._step = jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))
        self._state: Any = None

    def reset(self, keys: Key[Array, " episode"]) -> tuple[Any, Any]:
        """Observations and states of fresh episodes."""
        self._state, first = self._reset(keys)
        return first.obs, first.state

    def step(self, action: np.ndarray, keys: Key[Array, " episode"], t: int) -> tuple[Any, ...]:
        """What a `Moment` ends with."""
        del t
        self._state, one = self._step(self._state, jnp.asarray(action, float), keys)
        return one.reward, one.terminated, one.truncated, one.next.obs, one.next.state


class _OnHost:
    """The same of an env in worker processes."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def reset(self, keys: Key[Array, " episode"]) -> tuple[Any, Any]:
        """Observations and states of fresh episodes."""
        return self._pool.reset(seeds_of(jax.random.key_data(keys)))

    def step(self, action: np.ndarray, keys: Key[Array, " episode"], t: int) -> tuple[Any, ...]:
        """What a `Moment` ends with."""
        seeds = seeds_of(jax.random.key_data(keys))
        self._pool.send(action, seeds, seeds, t)
        one = self._pool.receive(t)
        return one.reward, one.terminated, one.truncated, one.next_obs, one.next_state
