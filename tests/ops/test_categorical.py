"""Categorical value distributions: mass, mean, worked examples, fixed points, signs of the losses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omad.ops import categorical

project = jax.jit(categorical.project, static_argnums=3)
SUPPORTS = [(100, v) for v in (50.0, 100.0, 200.0, 400.0, 800.0, 1600.0)] + [(101, 1600.0), (51, 10.0), (2, 1.0)]


def random_rows(seed: int, rows: int, atoms: int, v_max: float) -> tuple[Any, Any, Any]:
    """Distributions of every kind (flat, peaked, one atom, edges), shifts beyond the support, discounts 0 to 1."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(atoms, 0.1), rows)
    probs[0], probs[1], probs[2] = np.eye(atoms)[0], np.eye(atoms)[-1], np.eye(atoms)[atoms // 2]
    shift = rng.uniform(-3 * v_max, 3 * v_max, rows)
    shift[rows // 2 :] = rng.uniform(-0.01 * v_max, 0.01 * v_max, rows - rows // 2)
    scale = rng.choice([0.0, 0.9, 0.99, 1.0], rows)
    return jnp.asarray(probs, jnp.float32), jnp.asarray(shift, jnp.float32), jnp.asarray(scale, jnp.float32)


def reference(probs: np.ndarray, shift: np.ndarray, scale: np.ndarray, v_max: float) -> np.ndarray:
    """The projection atom by atom, in double precision (Bellemare et al. 2017, algorithm 1)."""
    rows, n = probs.shape
    gap = 2 * v_max / (n - 1)
    out = np.zeros((rows, n))
    for row in range(rows):
        for j in range(n):
            value = np.clip(shift[row] + scale[row] * (-v_max + j * gap), -v_max, v_max)
            position = (value + v_max) / gap
            lower = min(int(np.floor(position)), n - 2)
            out[row, lower] += probs[row, j] * (1 - (position - lower))
            out[row, lower + 1] += probs[row, j] * (position - lower)
    return out


@pytest.mark.parametrize(("atoms", "v_max"), SUPPORTS)
def test_projection_keeps_the_mass_of_every_row(atoms: int, v_max: float) -> None:
    """Rows sum to one and are nowhere negative, whatever is clipped; also with 100 atoms, where positions round up."""
    probs, shift, scale = random_rows(0, 64, atoms, v_max)
    out = project(probs, shift, scale, v_max)
    np.testing.assert_allclose(out.sum(1), 1.0, atol=1e-6)
    assert float(out.min()) >= 0.0
    np.testing.assert_allclose(
        out, reference(np.asarray(probs), np.asarray(shift), np.asarray(scale), v_max), atol=2e-4
    )


@pytest.mark.parametrize(("atoms", "v_max"), SUPPORTS)
@pytest.mark.parametrize("edge", [-1.0, 1.0])
def test_all_mass_at_an_edge_stays_in_its_own_row(atoms: int, v_max: float, edge: float) -> None:
    """Every atom clipped to one end: its whole mass is there and nothing reaches the neighbouring rows."""
    probs, _, _ = random_rows(1, 8, atoms, v_max)
    sign = edge * jnp.where(jnp.arange(8) % 2 == 0, 1.0, -1.0)
    out = project(probs, 3.0 * v_max * sign, jnp.ones(8), v_max)
    expected = np.where(np.asarray(sign)[:, None] > 0, np.eye(atoms)[-1], np.eye(atoms)[0])
    np.testing.assert_allclose(out, expected, atol=1e-6)


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), which=st.sampled_from([5, 6, 7]))
def test_projecting_a_batch_is_projecting_its_rows(seed: int, which: int) -> None:
    """No row knows of another; mass and sign hold for whatever is drawn."""
    atoms, v_max = SUPPORTS[which]
    probs, shift, scale = random_rows(seed, 6, atoms, v_max)
    out = project(probs, shift, scale, v_max)
    np.testing.assert_allclose(out.sum(1), 1.0, atol=1e-6)
    assert float(out.min()) >= 0.0
    for i in (0, 3, 5):
        alone = project(probs[i : i + 1], shift[i : i + 1], scale[i : i + 1], v_max)
        np.testing.assert_array_equal(alone[0], out[i])


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000))
def test_mean_of_the_projection_is_the_shifted_mean_where_nothing_is_clipped(seed: int) -> None:
    """E = r + gamma (Q' - alpha L'): linear interpolation preserves means."""
    rng = np.random.default_rng(seed)
    v_max, atoms = 10.0, 51
    probs = jnp.asarray(rng.dirichlet(np.ones(atoms), 16), jnp.float32)
    scale = jnp.asarray(rng.uniform(0, 0.5, 16), jnp.float32)
    shift = jnp.asarray(rng.uniform(-4.9, 4.9, 16), jnp.float32)
    z = categorical.support(v_max, atoms)
    mean = categorical.expectation(project(probs, shift, scale, v_max), z)
    np.testing.assert_allclose(mean, shift + scale * categorical.expectation(probs, z), atol=2e-5)


@pytest.mark.parametrize(
    ("reward", "bonus", "discount", "expected"),
    [
        (0.5, -0.3, 0.9, [0.057, 0.177, 0.374, 0.266, 0.126]),
        (0.5, -0.3, 0.0, [0.0, 0.0, 0.5, 0.5, 0.0]),
        (1.5, 1.0, 0.9, [0.0, 0.0, 0.04, 0.16, 0.8]),
    ],
)
def test_projection_of_worked_examples(reward: float, bonus: float, discount: float, expected: list[float]) -> None:
    """Five atoms at -2..2 by hand; with discount 0 the entropy bonus is gone together with the bootstrap."""
    p = jnp.asarray([[0.1, 0.2, 0.4, 0.2, 0.1]])
    shift, scale = jnp.asarray([reward + discount * bonus]), jnp.asarray([discount])
    out = categorical.project(p, shift, scale, 2.0)
    np.testing.assert_allclose(out[0], expected, atol=1e-6)
    if discount and reward == 0.5:
        mean = categorical.expectation(out, categorical.support(2.0, 5))
        np.testing.assert_allclose(mean, 0.227, atol=1e-6)  # 0.230 but for the bottom atom, which is clipped


def test_terminal_target_ignores_successor_and_entropy_bonus() -> None:
    """Discount 0: the projected distribution is the reward, whatever is in the successor."""
    peaked, flat = jnp.eye(51)[:1], jnp.full((1, 51), 1 / 51)
    for successor in (peaked, flat):
        out = categorical.project(successor, jnp.asarray([1.7]), jnp.zeros(1), 10.0)
        assert float(categorical.expectation(out, categorical.support(10.0, 51))[0]) == pytest.approx(1.7, abs=1e-5)
        assert int((out > 0).sum()) == 2


@pytest.mark.parametrize(("path_cost", "alpha", "v_max", "value"), [(0.0, 0.0, 20.0, 10.0), (-2.0, 0.5, 40.0, 19.0)])
def test_fixed_point_of_a_one_state_task(path_cost: float, alpha: float, v_max: float, value: float) -> None:
    """Reward 1, gamma 0.9: 1 / (1 - gamma) = 10, and 10 + 0.9 * 0.5 * 2 / 0.1 = 19 with a constant bonus."""
    gamma = 0.9
    shift, scale = jnp.asarray([1.0 - gamma * alpha * path_cost]), jnp.asarray([gamma])
    probs = jax.lax.fori_loop(
        0, 300, lambda _, p: categorical.project(p, shift, scale, v_max), jnp.full((1, 100), 0.01)
    )
    q = categorical.expectation(probs, categorical.support(v_max, 100))
    assert float(q[0]) == pytest.approx(value, abs=0.1)


def test_support_and_edge_mass() -> None:
    """Atoms are symmetric and evenly spaced; the edge mass is that of the two outermost."""
    z = np.asarray(categorical.support(300.0, 100))
    assert z[0] == -300.0 and z[-1] == 300.0
    np.testing.assert_allclose(np.diff(z), 600 / 99, rtol=1e-5)
    np.testing.assert_allclose(z, -z[::-1], atol=1e-4)
    probs = jnp.asarray([[0.1, 0.2, 0.4, 0.2, 0.05]])
    assert float(categorical.edge_mass(probs)[0]) == pytest.approx(0.15)


def test_cross_entropy_gradient_vanishes_where_the_prediction_is_the_target() -> None:
    """The gradient at the logits is p - target."""
    logits = jnp.asarray([[0.3, -1.0, 2.0, 0.0]])
    other = jnp.asarray([[0.1, 0.2, 0.3, 0.4]])

    def slope(target: Any) -> Any:
        return jax.grad(lambda x: categorical.cross_entropy(target, jax.nn.softmax(x)).sum())(logits)

    p = jax.nn.softmax(logits)
    np.testing.assert_allclose(slope(p), 0.0, atol=1e-6)
    np.testing.assert_allclose(slope(other), p - other, atol=1e-6)


def test_cross_entropy_of_one_target_with_two_critics() -> None:
    """One target for both twins: the leading axis of size one is spread over them."""
    target = jnp.asarray([[[0.5, 0.5], [1.0, 0.0]]])
    probs = jnp.asarray([[[0.5, 0.5], [0.5, 0.5]], [[0.25, 0.75], [0.8, 0.2]]])
    out = categorical.cross_entropy(target, probs)
    expected = [[np.log(2), np.log(2)], [-0.5 * np.log(0.25 * 0.75), -np.log(0.8)]]
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_atom_entropy_term_alone_spreads_the_distribution() -> None:
    """Descending sum p log p raises the entropy; its value is minus the entropy, finite at zero mass."""
    logits = jnp.asarray([[0.3, -1.0, 2.0, 0.0]])

    def term(x: Any) -> Any:
        return 0.005 * categorical.negative_entropy(jax.nn.softmax(x)).sum()

    after = logits - 10.0 * jax.grad(term)(logits)
    assert float(term(after)) < float(term(logits))
    np.testing.assert_allclose(categorical.negative_entropy(jnp.full((1, 4), 0.25)), -np.log(4), rtol=1e-6)
    corner = jax.grad(lambda p: categorical.negative_entropy(p).sum())(jnp.asarray([[1.0, 0.0, 0.0, 0.0]]))
    assert bool(jnp.isfinite(corner).all())
