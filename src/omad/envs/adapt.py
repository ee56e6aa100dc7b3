"""Rescaled actions and padding: an env's own action box as [-1, 1], agents of unequal size as rows of one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from omad.types import EnvState, JaxEnv, Outcome

Bound = float | Sequence[float]
"""One limit of an agent's action box: the same for all dimensions, or one number a dimension."""


def pad(rows: Sequence[Float[Array, " _size"]], width: int) -> Float[Array, "agent {width}"]:
    """Stack vectors of unequal size, zeros behind the short ones."""
    return jnp.stack([jnp.pad(row, (0, width - row.shape[0])) for row in rows])


def rescale(env: JaxEnv, low: Sequence[Bound], high: Sequence[Bound]) -> JaxEnv:
    """Let an env that acts in its own box be driven by actions in [-1, 1].

    Actions are clipped to [-1, 1], mapped affinely to each agent's box, and set to zero in padded dimensions,
    so that nothing a learner writes there can reach the env.

    Args:
        env: env whose `step` takes an `agent act` array in the units of the box.
        low: lower limits, one entry an agent.
        high: upper limits, one entry an agent.

    Raises:
        ValueError: Limits are not finite, not ordered, or not one an agent.
    """
    lower, upper = _table(env, low), _table(env, high)
    if not np.all(np.isfinite(lower) & np.isfinite(upper) & (lower <= upper)):
        raise ValueError(f"{env.spec.name}: action limits must be finite and ordered, got {low} and {high}.")
    middle, half = (lower + upper) / 2, (upper - lower) / 2

    def step(state: EnvState, action: Float[Array, "agent act"], key: Key[Array, ""]) -> tuple[EnvState, Outcome]:
        native = jnp.asarray(middle, float) + jnp.asarray(half, float) * jnp.clip(action, -1, 1)
        return env.step(state, native, key)

    return env._replace(step=step)


def _table(env: JaxEnv, bounds: Sequence[Bound]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Limits as a padded `agent act` table with zeros in the padding."""
    spec = env.spec
    if len(bounds) != spec.n_agents:
        raise ValueError(f"{spec.name}: {len(bounds)} action limits given for {spec.n_agents} agents.")
    table = np.zeros((spec.n_agents, spec.act_dim))
    for row, size, bound in zip(table, spec.act_dims, bounds, strict=True):
        row[:size] = bound
    return table
