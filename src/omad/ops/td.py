"""Scalar temporal-difference learning: what values are pulled towards, how hard, and the temperature's dual."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def target(
    ret: Float[Array, " batch"], discount: Float[Array, " batch"], next_value: Float[Array, " batch"]
) -> Float[Array, " batch"]:
    """The n-step target, ret + discount V(s'); `discount` is gamma^m, or 0 after a termination.

    Source: Sutton and Barto 2018, eq. 7.1.
    """
    return ret + discount * next_value


def lower(values: Float[Array, "twin batch"]) -> Float[Array, " batch"]:
    """The lower of the twins' values, row by row.

    Source: Fujimoto et al. 2018 (TD3), eq. 10.
    """
    return values.min(0)


def soft_value(
    value: Float[Array, "*b"], log_prob: Float[Array, "*b"], alpha: Float[Array, ""] | float
) -> Float[Array, "*b"]:
    """Value with the entropy bonus of one sampled action, Q - alpha log pi.

    Source: Haarnoja et al. 2018 (SAC, arXiv 1812.05905), eq. 3.
    """
    return value - alpha * log_prob


def smoothed(
    action: Float[Array, "*b act"],
    noise: Float[Array, "*b act"],
    limit: float | Float[Array, ""],
    mask: Float[Array, "*m act"],
) -> Float[Array, "*b act"]:
    """Action plus noise, the noise within +-limit, the sum within [-1, 1], padding zero.

    Source: Fujimoto et al. 2018 (TD3), section 5.3 and algorithm 1.
    """
    return jnp.clip(action + jnp.clip(noise, -limit, limit), -1.0, 1.0) * mask


def squared(error: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Half the squared error."""
    return 0.5 * jnp.square(error)


def huber(error: Float[Array, "*b"], delta: float | Float[Array, ""]) -> Float[Array, "*b"]:
    """Half the squared error up to delta, from there on its tangent.

    Source: Huber 1964, section 4.
    """
    inside = jnp.minimum(jnp.abs(error), delta)
    return 0.5 * jnp.square(inside) + delta * (jnp.abs(error) - inside)


def dual(
    log_alpha: Float[Array, "*g"], log_prob: Float[Array, "*g"], target_entropy: Float[Array, "*g"]
) -> Float[Array, "*g"]:
    """-log alpha (log pi + H): alpha rises while the entropy, -log pi, is below its target H.

    Source: Haarnoja et al. 2018 (SAC, arXiv 1812.05905), eq. 18.  Differs: log alpha stands for alpha in the product,
    as in HARL, so that a step's size does not hang on alpha.
    """
    return -log_alpha * (log_prob + target_entropy)
