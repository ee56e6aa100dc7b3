"""Targets, errors and the temperature's dual, by hand."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad.ops import td


def test_target_by_hand() -> None:
    """Two rewards of an n-step sum, then a bootstrap of gamma^2; none after a termination.

    1 + 0.9 * 2 + 0.81 * 10 = 10.9; and 1 + 0.9 * 2 = 2.8 where the second one ended the task.
    """
    ret = jnp.asarray([1 + 0.9 * 2, 1 + 0.9 * 2])
    out = td.target(ret, jnp.asarray([0.81, 0.0]), jnp.asarray([10.0, 10.0]))
    np.testing.assert_allclose(out, [10.9, 2.8], rtol=1e-6)


def test_the_lower_twin_is_taken_row_by_row() -> None:
    """Not the twin that is lower on average."""
    np.testing.assert_array_equal(td.lower(jnp.asarray([[1.0, 5.0, -2.0], [2.0, 4.0, -3.0]])), [1.0, 4.0, -3.0])


def test_soft_value_by_hand() -> None:
    """3 - 0.5 * -2 = 4: unlikely actions are worth more."""
    out = td.soft_value(jnp.asarray([3.0, 3.0]), jnp.asarray([-2.0, 2.0]), 0.5)
    np.testing.assert_allclose(out, [4.0, 2.0])


def test_smoothing_clips_the_noise_then_the_action() -> None:
    """0.2 + 0.3; noise of 0.9 counts as 0.5; 0.8 + 0.5 is 1; padding stays zero whatever the noise."""
    action = jnp.asarray([[0.2, 0.2, 0.8, -0.8, 0.0]])
    noise = jnp.asarray([[0.3, 0.9, 0.9, -0.9, 0.4]])
    out = td.smoothed(action, noise, 0.5, jnp.asarray([1.0, 1.0, 1.0, 1.0, 0.0]))
    np.testing.assert_allclose(out, [[0.5, 0.7, 1.0, -1.0, 0.0]], rtol=1e-6)


def test_penalties_by_hand() -> None:
    """Half the square; Huber is the same up to delta, then goes on with slope delta: 10 (15 - 5) = 100."""
    error = jnp.asarray([-3.0, 0.0, 10.0, 15.0, -15.0])
    np.testing.assert_allclose(td.squared(error), [4.5, 0.0, 50.0, 112.5, 112.5])
    np.testing.assert_allclose(td.huber(error, 10.0), [4.5, 0.0, 50.0, 100.0, 100.0])
    slope = jax.vmap(jax.grad(lambda e: td.huber(e, 10.0)))(error)
    np.testing.assert_allclose(slope, [-3.0, 0.0, 10.0, 10.0, -10.0])


@pytest.mark.parametrize(("log_prob", "sign"), [(-1.0, -1.0), (3.0, 1.0), (2.0, 0.0)])
def test_dual_raises_alpha_while_entropy_is_too_low(log_prob: float, sign: float) -> None:
    """Target entropy -2: entropy 1 lowers alpha, entropy -3 raises it, -2 leaves it; the slope ignores alpha's size."""
    for alpha in (0.01, 1.0, 100.0):
        log_alpha = jnp.asarray(math.log(alpha), jnp.float32)
        slope = jax.grad(lambda x: td.dual(x, jnp.asarray(log_prob), jnp.asarray(-2.0)))(log_alpha)
        assert float(-slope) == pytest.approx(log_prob - 2.0)
        assert np.sign(float(-slope)) == sign
