"""How much a sampled action counts when a policy is regressed on samples, by its value."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def mirror_descent(
    q: Float[Array, "*b"],
    mean: Float[Array, ""],
    std: Float[Array, ""],
    alpha: Float[Array, ""],
    limit: float = 3.0,
    reference: bool = False,
) -> Float[Array, "*b"]:
    """exp( clip((q - mean) / std, -limit, limit) / alpha ): a mirror-descent step from the policy that was sampled.

    Source: Ma et al. 2025 (DPMD), code.

    Args:
        q: Values of the sampled actions.
        mean: Running mean of values.
        std: Running standard deviation of values.
        alpha: Temperature.
        limit: Bound on the standardised value.
        reference: Whether to weight as the public code does, where the bracket is missing: q - mean / std.

    Returns:
        Positive weights, 1 for an action of average value.

    Differs: the bracket is set. Without it the values are neither centred nor scaled: wherever they exceed the limit
    plus mean / std, all weights are the same and the policy learns to imitate itself.
    """
    std = jnp.maximum(std, 1e-6)
    score = q - mean / std if reference else (q - mean) / std
    return jnp.exp(jnp.clip(score, -limit, limit) / alpha)


def softmax(q: Float[Array, "*b sample"], alpha: Float[Array, ""], scale: float = 5.0) -> Float[Array, "*b sample"]:
    """softmax_m( (scale / alpha) q_m ): self-normalised weights of the samples of one state; they sum to 1.

    Source: Ma et al. 2025 (SDAC), code; scale is the initial temperature there, so that the first weights are those
    of temperature 1.
    """
    return jax.nn.softmax(scale / alpha * q, axis=-1)


def ess_fraction(weights: Float[Array, "*b sample"]) -> Float[Array, "*b"]:
    """(sum w)^2 / (n sum w^2): effective sample size over n, in (0, 1]; 1 if all weigh the same.

    Source: Kish 1965, effective sample size.
    """
    # Relative to the largest weight: squares of small weights would vanish.
    weights = weights / jnp.max(weights, axis=-1, keepdims=True)
    return jnp.square(weights.sum(-1)) / (weights.shape[-1] * jnp.square(weights).sum(-1))
