"""Entropy of squashed Gaussians and the log-determinant of tanh."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad.ops.entropy import gaussian_entropy, tanh_log_det

GRID = np.linspace(-12, 12, 20_001)
WEIGHT = np.exp(-0.5 * GRID**2) / math.sqrt(2 * math.pi) * (GRID[1] - GRID[0])


def mean_log_det(scale: float) -> float:
    """E log(1 - tanh^2 x) for x ~ N(0, scale^2), by quadrature."""
    with jax.enable_x64(True):
        return float(WEIGHT @ np.asarray(tanh_log_det(jnp.asarray(scale * GRID))))


@pytest.mark.parametrize(("scale", "entropy"), [(0.5, 0.5000), (1.0, 0.6698), (2.5, -0.5196)])
def test_entropy_of_squashed_gaussians(scale: float, entropy: float) -> None:
    """H(tanh x) = H(x) + E log(1 - tanh^2 x); none exceeds log 2, the entropy of the uniform on [-1, 1]."""
    value = float(gaussian_entropy(jnp.asarray(scale))) + mean_log_det(scale)
    assert value == pytest.approx(entropy, abs=1e-4)
    assert value < math.log(2)


def test_mean_log_det_at_the_prior_scale() -> None:
    """At scale 2.5, where the chain starts."""
    assert mean_log_det(2.5) == pytest.approx(-2.8548, abs=1e-4)


def test_gaussian_entropy_is_half_log_two_pi_e_variance() -> None:
    """For scale 2.5: 2.335229 nats."""
    assert float(gaussian_entropy(jnp.asarray(2.5))) == pytest.approx(2.335229, abs=1e-6)
    assert float(gaussian_entropy(jnp.asarray(1.0))) == pytest.approx(0.5 * math.log(2 * math.pi * math.e), abs=1e-6)


def test_stable_log_det_is_the_log_of_the_derivative_of_tanh() -> None:
    """Against automatic differentiation in double precision for |x| <= 5, and in single precision by value."""
    x = np.linspace(-5, 5, 401)
    with jax.enable_x64(True):
        slope = np.log(np.asarray(jax.vmap(jax.grad(jnp.tanh))(jnp.asarray(x))))
        np.testing.assert_allclose(tanh_log_det(jnp.asarray(x)), slope, atol=1e-10)
    np.testing.assert_allclose(tanh_log_det(jnp.asarray(x, jnp.float32)), slope, atol=2e-6)


def test_log_det_and_its_gradient_are_finite_far_out() -> None:
    """At +-50, where 1 - tanh^2 is zero in floating point."""
    x = jnp.asarray([-50.0, -20.0, 0.0, 20.0, 50.0])
    np.testing.assert_allclose(tanh_log_det(x), 2 * math.log(2) - 2 * np.abs(x) - 2 * np.log1p(np.exp(-2 * np.abs(x))),
                               rtol=1e-6, atol=1e-6)  # fmt: skip
    np.testing.assert_allclose(jax.vmap(jax.grad(tanh_log_det))(x), -2 * np.tanh(x), atol=1e-6)
