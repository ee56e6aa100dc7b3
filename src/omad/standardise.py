"""Standardised observations, the same for every algorithm: an algorithm in, an algorithm out.

`running` keeps mean and variance of every entry, of each agent's observation and of the state, from the batches that
are learned from; they are part of the policy, so what is shipped acts on raw observations. `harl` standardises
each vector by its own mean and deviation over its entries, as HARL does: scale and offset of a vector are lost, but
there is nothing to learn or ship.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from omad.spec import ObsNorm
from omad.types import Algorithm, Batch, EnvSpec, Learner, Metrics, Policy

STILL_COUNTS = 2.0**22
"""Batches after which running moments are a moving average: to more, one more would add nothing in float32."""
_LIMIT = 10.0
"""Standardised entries are clipped to this many deviations, as is usual."""


class RunningStats(eqx.Module):
    """Running mean and variance, entry by entry."""

    count: Float[Array, "*s"]
    mean: Float[Array, "*s entry"]
    variance: Float[Array, "*s entry"]

    @staticmethod
    def none(size: int) -> RunningStats:
        """Nothing seen yet: standardising changes nothing."""
        return RunningStats(jnp.zeros(()), jnp.zeros(size), jnp.ones(size))

    def seen(self, rows: Float[Array, "batch entry"]) -> RunningStats:
        """With a batch more. Source: Chan, Golub, LeVeque 1983, eq. 2.1 (merging two samples)."""
        n = rows.shape[0]
        count = jnp.minimum(self.count, n * STILL_COUNTS)
        total = count + n
        mean, variance = rows.mean(0), rows.var(0)
        step = mean - self.mean
        merged = (count * self.variance + n * variance + step**2 * count * n / total) / total
        return RunningStats(total, self.mean + step * n / total, merged)

    def __call__(self, x: Float[Array, "*b entry"]) -> Float[Array, "*b entry"]:
        """Standardised, within ten deviations."""
        return jnp.clip((x - self.mean) / jnp.sqrt(self.variance + 1e-6), -_LIMIT, _LIMIT)


class Standardised(eqx.Module):
    """A learner or a policy, and the running statistics that standardise its inputs."""

    inner: Any
    obs: RunningStats
    """Of all agents' rows, flattened."""
    state: RunningStats


def within(x: Float[Array, "*b entry"], mask: Any = 1.0) -> Float[Array, "*b entry"]:
    """A vector less its own mean, divided by its own deviation; padding stays zero.

    Source: HARL, multi-agent MuJoCo wrapper.  Differs: a vector of equal entries gives zeros, not a division by zero.
    """
    mask = jnp.broadcast_to(jnp.asarray(mask, x.dtype), x.shape)
    n = jnp.maximum(mask.sum(-1, keepdims=True), 1.0)
    centred = (x - (x * mask).sum(-1, keepdims=True) / n) * mask
    return centred / jnp.maximum(jnp.sqrt((centred**2).sum(-1, keepdims=True) / n), 1e-6)


def standardised(algorithm: Algorithm, spec: EnvSpec, how: ObsNorm, alike: bool = False) -> Algorithm:
    """An algorithm that sees standardised observations and states.

    Args:
        algorithm: The algorithm.
        spec: Sizes of its task.
        how: `none`, `running` or `harl`.
        alike: Whether all agents share the running moments, as they must where they share a policy: entries that tell
            agents apart are constant for each of them.
    """
    if how == "none":
        return algorithm
    mask = jnp.asarray(spec.obs_mask)

    def look(batch: Batch, obs: Any, state: Any) -> Batch:
        return eqx.tree_at(
            lambda b: (b.obs, b.state, b.next_obs, b.next_state),
            batch,
            (obs(batch.obs), state(batch.state), obs(batch.next_obs), state(batch.next_state)),
        )

    if how == "harl":
        rows = lambda x: within(x, mask)  # noqa: E731
        return algorithm._replace(
            act=lambda policy, obs, key, explore: algorithm.act(policy, rows(obs), key, explore),
            update=lambda learner, batch, key, count: algorithm.update(learner, look(batch, rows, within), key, count),
        )

    def through(stats: RunningStats) -> Any:
        return lambda obs: stats(obs.reshape(*obs.shape[:-2], -1)).reshape(obs.shape) * mask

    def init(key: Key[Array, ""]) -> Standardised:
        n = spec.n_agents * spec.obs_dim
        return Standardised(algorithm.init(key), RunningStats.none(n), RunningStats.none(spec.state_dim))

    def act(policy: Policy, obs: Float[Array, "*b agent obs"], key: Key[Array, ""], explore: bool) -> Any:
        return algorithm.act(policy.inner, through(policy.obs)(obs), key, explore)

    def update(learner: Learner, batch: Batch, key: Key[Array, ""], count: Int[Array, ""]) -> tuple[Learner, Metrics]:
        rows = batch.obs.reshape(-1, spec.obs_dim) if alike else batch.obs.reshape(batch.obs.shape[0], -1)
        obs = learner.obs.seen(jnp.tile(rows, spec.n_agents) if alike else rows)
        state = learner.state.seen(batch.state)
        inner, metrics = algorithm.update(learner.inner, look(batch, through(obs), state), key, count)
        return Standardised(inner, obs, state), metrics

    def with_moments(policy: Callable[[Learner], Policy]) -> Callable[[Learner], Policy]:
        return lambda learner: Standardised(policy(learner.inner), learner.obs, learner.state)

    return algorithm._replace(
        init=init,
        policy=with_moments(algorithm.policy),
        behaviour=algorithm.behaviour and with_moments(algorithm.behaviour),
        act=act,
        update=update,
    )
