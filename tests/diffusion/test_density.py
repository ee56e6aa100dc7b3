"""True entropies by quadrature: closed forms, a slow quadrature on one fixed grid, and the bound by sampling."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from density import entropies
from omad.diffusion.schedule import cosine_squared
from omad.diffusion.sde import Kernel, rollout, transition

SIGMA = 2.5


def gaussian_entropy(var: float) -> float:
    return 0.5 * math.log(2 * math.pi * math.e * var)


def linear(c: float, b: float, kernel: Kernel, steps: int = 8, h: Any = None, squash: bool = False) -> Any:
    """Entropies and the closed form, for u = c x + b."""
    pull, jump = transition(0.1 * cosine_squared(steps) if h is None else h, SIGMA, kernel, np)
    found = entropies(lambda k, x: c * x + b, pull, jump, SIGMA, squash)
    var = SIGMA**2
    for far, blur in zip(pull, jump, strict=True):
        var = (1 + far * (c - 1 / SIGMA**2)) ** 2 * var + blur**2
    return found, var


@pytest.mark.parametrize("kernel", ["euler", "exact"])
@pytest.mark.parametrize(("c", "b"), [(0.0, 0.0), (-1.0, 0.0), (-3.0, 0.0), (-1.0, 2.0), (1.5, -1.0)])
def test_linear_controls_have_gaussian_ends(c: float, b: float, kernel: Kernel) -> None:
    found, var = linear(c, b, kernel)
    assert found.true == pytest.approx(gaussian_entropy(var), abs=1e-9)
    assert found.gap > -1e-9


@pytest.mark.parametrize(
    ("steps", "c", "b", "entropy", "bound"),
    [(8, 0.0, 0.0, 2.335642, 2.335640), (16, -1.0, 0.0, 1.648626, 1.244126), (8, -3.0, 0.0, 1.144396, -0.848522),
     (8, -1.0, 2.0, 1.916084, 1.274300)],
)  # fmt: skip
def test_the_table_of_bounds(steps: int, c: float, b: float, entropy: float, bound: float) -> None:
    """The same rows as by Monte Carlo and by cubature, to the last digit."""
    found, _ = linear(c, b, "euler", steps)
    assert (found.true, found.bound) == (pytest.approx(entropy, abs=2e-6), pytest.approx(bound, abs=2e-6))


@pytest.mark.parametrize("h", [np.asarray([0.01]), np.asarray([1.5]), np.geomspace(1e-4, 3.0, 6)])
def test_exact_steps_without_control_leave_no_gap(h: np.ndarray) -> None:
    found, _ = linear(0.0, 0.0, "exact", h=h)
    assert found.true == pytest.approx(gaussian_entropy(SIGMA**2), abs=1e-9)
    assert abs(found.gap) < 1e-9
    single, var = linear(-0.3, 0.7, "exact", h=h[:1])
    assert single.true == pytest.approx(gaussian_entropy(var), abs=1e-9)


@pytest.mark.parametrize(("scale", "entropy"), [(0.5, 0.5000), (1.0, 0.6698), (2.5, -0.5196)])
def test_squashed_gaussians(scale: float, entropy: float) -> None:
    """Known entropies of tanh N(0, scale^2), from a chain that stays in the prior."""
    pull, jump = transition(np.full(3, 0.05), scale, "exact", np)
    found = entropies(lambda k, x: 0.0 * x, pull, jump, scale)
    assert found.true == pytest.approx(entropy, abs=1e-4)
    assert abs(found.gap) < 1e-9


def curved(k: Any, x: Any, xp: Any = np) -> Any:
    """Pulls to one of two ends, ever more strongly."""
    return (2.0 + k) * xp.tanh(1.5 * x) - 0.4 * x + 0.3


def test_a_curved_control_against_a_slow_quadrature_and_against_samples() -> None:
    """Entropy by one dense matrix a step on a fixed grid; the bound by chains, within four standard errors."""
    h = 0.15 * cosine_squared(5)
    pull, jump = transition(h, SIGMA, "euler", np)
    found = entropies(curved, pull, jump, SIGMA)
    grid = np.linspace(-24.0, 24.0, 2001)
    width = grid[1] - grid[0]
    density = np.exp(-0.5 * (grid / SIGMA) ** 2) / (SIGMA * math.sqrt(2 * math.pi))
    for k in range(5):
        mean = grid + h[k] * (curved(k, grid) - grid / SIGMA**2)
        kernel = np.exp(-0.25 * (grid[:, None] - mean[None]) ** 2 / h[k]) / math.sqrt(4 * math.pi * h[k])
        density = kernel @ density * width
    assert density.sum() * width == pytest.approx(1.0, abs=1e-6)
    x, p = grid, np.maximum(density, 1e-300)
    slow = width * float(np.sum(-density * np.log(p) + density * np.log1p(-np.minimum(np.tanh(x) ** 2, 1 - 1e-16))))
    assert found.true == pytest.approx(slow, abs=1e-4)
    noise = jax.random.normal(jax.random.key(0), (6, 20_000, 1))
    out = rollout(lambda x, k: curved(k, x, jnp), jnp.arange(5.0), jnp.asarray(h)[:, None], SIGMA, noise, jnp.ones(1))
    cost = np.asarray(out.cost, float)
    assert found.bound == pytest.approx(-cost.mean(), abs=4 * cost.std() / math.sqrt(len(cost)))
    assert found.gap > 0.05


def test_a_leap_is_refused() -> None:
    with pytest.raises(ValueError, match="too steep"):
        entropies(lambda k, x: 1e4 * np.sign(x), np.full(2, 0.1), np.full(2, 0.3), SIGMA)
