"""Entropy of squashed distributions."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def tanh_log_det(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Elementwise log(1 - tanh(x)^2), finite for every finite x.

    Source: Haarnoja et al. 2018 (appendix C), in the stable form 2 (log 2 - x - softplus(-2x)).
    """
    return 2.0 * (math.log(2.0) - x - jax.nn.softplus(-2.0 * x))


def gaussian_entropy(scale: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Differential entropy of N(0, scale^2) in nats."""
    return 0.5 * math.log(2.0 * math.pi * math.e) + jnp.log(scale)
