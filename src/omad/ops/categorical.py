"""Categorical (C51) value distributions on a fixed, evenly spaced support."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

_TINY = 1e-15
"""Added inside logarithms (Celik et al. 2025, code)."""


def support(v_max: float, atoms: int) -> Float[Array, " atom"]:
    """Atom positions z_j, evenly spaced on [-v_max, v_max]."""
    return jnp.linspace(-v_max, v_max, atoms)


def expectation(probs: Float[Array, "*b atom"], atoms: Float[Array, " atom"]) -> Float[Array, "*b"]:
    """Mean of the distribution, Q = sum_j z_j p_j."""
    return probs @ atoms


def project(
    probs: Float[Array, "batch atom"],
    shift: Float[Array, " batch"],
    scale: Float[Array, " batch"],
    v_max: float,
) -> Float[Array, "batch atom"]:
    """Distribution of clip(shift + scale z, -v_max, v_max), put back on the support.

    Each moved atom gives its mass to its two neighbours on the support, linearly; the lower neighbour is at
    most atom n - 2, so no rounding of the position can carry mass past the last atom.

    Source: Bellemare et al. 2017, algorithm 1.

    Args:
        probs: Mass at the atoms of the successor.
        shift: Reward plus entropy bonus of each row; it moves all atoms alike.
        scale: Discount of each row, 0 after a termination.
        v_max: Half-width of the support.

    Returns:
        Mass at the atoms; rows sum to one.
    """
    n = probs.shape[-1]
    moved = shift[:, None] + scale[:, None] * support(v_max, n)[None, :]
    position = jnp.clip((moved + v_max) * ((n - 1) / (2.0 * v_max)), 0.0, n - 1.0)
    lower = jnp.minimum(jnp.floor(position), n - 2.0)
    to_upper = probs * (position - lower)
    index = lower.astype(jnp.int32)
    rows = jnp.arange(probs.shape[0])[:, None]
    out = jnp.zeros_like(probs).at[rows, index].add(probs - to_upper)
    return out.at[rows, index + 1].add(to_upper)


def cross_entropy(target: Float[Array, "*#b atom"], probs: Float[Array, "*#b atom"]) -> Float[Array, "*b"]:
    """-sum_j target_j log p_j."""
    return -jnp.sum(target * jnp.log(probs + _TINY), axis=-1)


def negative_entropy(probs: Float[Array, "*b atom"]) -> Float[Array, "*b"]:
    """sum_j p_j log p_j; adding it to a loss rewards spread-out distributions."""
    return jnp.sum(probs * jnp.log(probs + _TINY), axis=-1)


def edge_mass(probs: Float[Array, "*b atom"]) -> Float[Array, "*b"]:
    """Mass on the two outermost atoms; more than about 1 % says that the support is too narrow."""
    return probs[..., 0] + probs[..., -1]
