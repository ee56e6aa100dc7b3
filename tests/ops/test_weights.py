"""Weights of samples by their values, worked by hand."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from omad.ops.weights import ess_fraction, mirror_descent, softmax


def scalar(value: float) -> Any:
    return jnp.asarray(value, float)


def test_mirror_descent_by_hand() -> None:
    """Mean 2, standard deviation 4, alpha 2: scores -0.5, 0, 1 and one beyond the limit of 3."""
    q = jnp.asarray([0.0, 2.0, 6.0, 100.0])
    out = mirror_descent(q, scalar(2.0), scalar(4.0), scalar(2.0))
    np.testing.assert_allclose(out, [math.exp(-0.25), 1.0, math.exp(0.5), math.exp(1.5)], rtol=1e-6)
    narrow = mirror_descent(q, scalar(2.0), scalar(4.0), scalar(2.0), limit=0.5)
    np.testing.assert_allclose(narrow, np.exp([-0.25, 0.0, 0.25, 0.25]), rtol=1e-6)


def test_the_missing_bracket_divides_the_mean_alone() -> None:
    """With q - 2/4 the scores are -0.5, 1.5 and, from 3.5 on, 3; without the flag none of these."""
    q = jnp.asarray([0.0, 2.0, 6.0])
    out = mirror_descent(q, scalar(2.0), scalar(4.0), scalar(2.0), reference=True)
    np.testing.assert_allclose(out, np.exp([-0.25, 0.75, 1.5]), rtol=1e-6)
    same = mirror_descent(jnp.asarray([20.0, 30.0]), scalar(25.0), scalar(5.0), scalar(1.0), reference=True)
    assert float(same[0]) == float(same[1])
    told_apart = mirror_descent(jnp.asarray([20.0, 30.0]), scalar(25.0), scalar(5.0), scalar(1.0))
    np.testing.assert_allclose(told_apart, [math.exp(-1), math.e], rtol=1e-6)


def test_mirror_descent_without_any_spread_is_finite() -> None:
    """A standard deviation of zero: average values weigh 1, all others the most or the least."""
    out = mirror_descent(jnp.asarray([1.0, 2.0, 0.0]), scalar(1.0), scalar(0.0), scalar(3.0))
    np.testing.assert_allclose(out, [1.0, math.e, 1 / math.e], rtol=1e-6)


def test_softmax_by_hand() -> None:
    """5 / alpha with alpha 2.5: values log 1, log 2, log 3 halved give weights 1/6, 2/6, 3/6."""
    q = jnp.log(jnp.asarray([[1.0, 2.0, 3.0], [3.0, 3.0, 3.0]])) / 2
    out = softmax(q, scalar(2.5))
    np.testing.assert_allclose(out, [[1 / 6, 2 / 6, 3 / 6], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-5)
    np.testing.assert_allclose(softmax(q, scalar(2.5), 0.0 + 1e-9), np.full((2, 3), 1 / 3), rtol=1e-5)


@given(
    hnp.arrays(np.float32, (3, 2, 7), elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False)),
    st.floats(0.01, 100),
)
def test_softmax_weights_of_every_state_sum_to_one(q: Any, alpha: float) -> None:
    """For any values and temperature; a better sample never weighs less."""
    out = np.asarray(softmax(jnp.asarray(q), scalar(alpha)))
    np.testing.assert_allclose(out.sum(-1), 1.0, atol=1e-5)
    order = np.argsort(q, axis=-1)
    assert (np.diff(np.take_along_axis(out, order, -1), axis=-1) >= 0).all()


def test_ess_fraction() -> None:
    """All alike: 1. One of four alone: 1/4. Weights 3 and 1: 16 / 20. Tiny weights count as others do."""
    rows = jnp.asarray([[2.0, 2.0], [3.0, 1.0], [1e-30, 1e-30]])
    np.testing.assert_allclose(ess_fraction(rows), [1.0, 0.8, 1.0], rtol=1e-6)
    assert float(ess_fraction(jnp.asarray([0.0, 0.0, 5.0, 0.0]))) == pytest.approx(0.25)
