"""The denoising diffusion model: coefficients, noising and its inverse, sampling where the noise is known exactly."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad.diffusion.ddpm import Schedule, linear_schedule, predict_x0, q_sample, sample

SCHEDULE = linear_schedule(20)
STEPS = SCHEDULE.steps


def draws(seed: int, batch: int, act: int = 2) -> Any:
    return jax.random.normal(jax.random.key(seed), (STEPS, batch, act))


def run(predict: Any, noise: Any, mask: Any = None) -> Any:
    """Chains under `predict(x, abar_t)`."""
    shares = jnp.asarray(SCHEDULE.alpha_bar, noise.dtype)
    mask = jnp.ones(noise.shape[-1]) if mask is None else mask
    return jax.jit(lambda n: sample(predict, shares, SCHEDULE, n, mask))(noise)


def test_schedule_against_a_direct_product() -> None:
    """beta, abar and the posterior's mean and variance, multiplied out one step after the other."""
    kept = 1.0
    for t in range(20):
        beta = 0.8 * (1e-4 + (0.999 - 1e-4) * t / 19)
        before, kept = kept, kept * (1 - beta)
        assert SCHEDULE.beta[t] == pytest.approx(beta, rel=1e-12)
        assert SCHEDULE.alpha_bar[t] == pytest.approx(kept, rel=1e-12)
        # Two Gaussians multiplied: x_{t-1} is N(sqrt(before) x0, 1 - before), x_t given it N(sqrt(1 - beta) ., beta).
        variance = 1 / (1 / (1 - before) + (1 - beta) / beta) if t else 0.0
        assert SCHEDULE.std[t] ** 2 == pytest.approx(variance, rel=1e-9)
        if t:
            assert SCHEDULE.mean_x0[t] == pytest.approx(variance * math.sqrt(before) / (1 - before), rel=1e-9)
            assert SCHEDULE.mean_x[t] == pytest.approx(variance * math.sqrt(1 - beta) / beta, rel=1e-9)
    assert (SCHEDULE.mean_x0[0], SCHEDULE.mean_x[0], SCHEDULE.std[0]) == (pytest.approx(1.0), 0.0, 0.0)
    assert SCHEDULE.alpha_bar[0] == pytest.approx(1 - 8e-5)
    assert SCHEDULE.alpha_bar[-1] < 1e-5


def test_noising_in_one_go_is_noising_step_by_step() -> None:
    """Mean and variance of x_t from the product of all single steps."""
    mean, variance = 1.0, 0.0
    for t in range(20):
        mean, variance = mean * math.sqrt(1 - SCHEDULE.beta[t]), variance * (1 - SCHEDULE.beta[t]) + SCHEDULE.beta[t]
        step = jnp.full((1,), t)
        zero, one = jnp.zeros((1, 1)), jnp.ones((1, 1))
        assert float(q_sample(SCHEDULE, one, step, zero)[0, 0]) == pytest.approx(mean, rel=1e-5)
        assert float(q_sample(SCHEDULE, zero, step, one)[0, 0]) ** 2 == pytest.approx(variance, rel=1e-5)


def test_reconstruction_undoes_noising() -> None:
    """With the noise that was used, x_0 comes back, up to the rounding that abar_t magnifies."""
    rng = np.random.default_rng(0)
    x0, noise = jnp.asarray(rng.uniform(-1, 1, (20, 3, 2)), float), jnp.asarray(rng.standard_normal((20, 3, 2)), float)
    step = jnp.tile(jnp.arange(20)[:, None], (1, 3))
    again = predict_x0(SCHEDULE, q_sample(SCHEDULE, x0, step, noise), step, noise)
    rounding = 1e-6 / np.sqrt(SCHEDULE.alpha_bar)[:, None, None]
    assert (np.abs(again - x0) < 1e-6 + rounding).all()


def test_reconstructions_of_many_noises_at_once() -> None:
    """One x_t, several noises: axes of length one are stretched."""
    x, step, noise = jnp.full((2, 1, 1), 0.3), jnp.asarray([[4], [7]]), jnp.asarray([[[0.0], [1.0]]] * 2)
    out = predict_x0(SCHEDULE, x, step, noise)
    for row, t in enumerate((4, 7)):
        kept = SCHEDULE.alpha_bar[t]
        expected = [0.3 / math.sqrt(kept), (0.3 - math.sqrt(1 - kept)) / math.sqrt(kept)]
        np.testing.assert_allclose(out[row, :, 0], expected, rtol=1e-5)


def test_exact_noise_of_a_point_leads_to_the_point() -> None:
    """With eps = (x - sqrt(abar) m) / sqrt(1 - abar): every chain ends at m."""
    point = jnp.asarray([0.7, -0.25])
    out = run(lambda x, kept: (x - jnp.sqrt(kept) * point) / jnp.sqrt(1 - kept), draws(0, 64))
    np.testing.assert_allclose(out, jnp.tile(point, (64, 1)), atol=2e-4)


def gaussian_chain(schedule: Schedule, m: float, s: float) -> tuple[float, float]:
    """Mean and standard deviation of the chain's end under the exact noise of N(m, s^2): all steps are linear."""
    mean, variance = 0.0, 0.25
    for t in reversed(range(schedule.steps)):
        kept = schedule.alpha_bar[t]
        # E[x_0 | x] = m + gain (x - sqrt(abar) m)
        gain = math.sqrt(kept) * s**2 / (kept * s**2 + 1 - kept)
        slope = schedule.mean_x0[t] * gain + schedule.mean_x[t]
        mean = slope * mean + schedule.mean_x0[t] * m * (1 - gain * math.sqrt(kept))
        variance = slope**2 * variance + schedule.std[t] ** 2
    return mean, math.sqrt(variance)


def test_exact_noise_of_a_gaussian_leads_to_the_gaussian() -> None:
    """N(0.2, 0.15^2): samples have the moments of the linear recursion, and that of many steps those of the target.

    Twenty steps keep the mean but give half the spread: the posterior variance is that of a known x_0.
    """
    m, s, count = 0.2, 0.15, 40_000

    def predict(x: Any, kept: Any) -> Any:
        return jnp.sqrt(1 - kept) * (x - jnp.sqrt(kept) * m) / (kept * s**2 + 1 - kept)

    out = np.asarray(run(predict, draws(1, count, 1)))[:, 0]
    mean, std = gaussian_chain(SCHEDULE, m, s)
    assert out.mean() == pytest.approx(mean, abs=4 * std / math.sqrt(count))
    assert out.std() == pytest.approx(std, rel=0.02)
    assert (mean, std) == (pytest.approx(m, abs=1e-3), pytest.approx(0.08, abs=0.01))
    assert gaussian_chain(linear_schedule(1000, 0.02), m, s) == pytest.approx((m, s), rel=0.03)


@pytest.mark.parametrize("size", [0.0, 1e3])
def test_samples_stay_in_the_box(size: float) -> None:
    """A network that gives zero, or absurd numbers: the end of the chain is a clipped reconstruction."""
    out = np.asarray(run(lambda x, kept: size * jnp.sin(37.0 * x), draws(2, 500)))
    assert np.isfinite(out).all() and np.abs(out).max() <= 1.0
    assert (out > 0).any() and (out < 0).any()


def test_the_last_step_adds_no_noise_and_the_first_draw_only_starts() -> None:
    """Entry 0 is multiplied by the starting scale; a network that always sees m forgets it and all other draws."""
    noise = draws(3, 8)
    exact = lambda x, kept: (x - jnp.sqrt(kept) * 0.4) / jnp.sqrt(1 - kept)  # noqa: E731
    np.testing.assert_allclose(run(exact, noise), run(exact, draws(4, 8)), atol=2e-4)
    # No noise but the start: under a zero network the chain is a function of 0.5 noise[0] alone.
    zero = lambda x, kept: jnp.zeros_like(x)  # noqa: E731
    start = jnp.zeros_like(noise).at[0].set(1e-4)
    x = 0.5e-4
    for t in reversed(range(20)):
        reconstruction = min(x / math.sqrt(SCHEDULE.alpha_bar[t]), 1.0)
        x = SCHEDULE.mean_x0[t] * reconstruction + SCHEDULE.mean_x[t] * x
    np.testing.assert_allclose(run(zero, start), np.full((8, 2), x), rtol=1e-4)


def test_padding_stays_zero() -> None:
    """Whatever the network says there; real dimensions do not notice."""
    mask = jnp.asarray([1.0, 0.0])
    noise = draws(5, 16)
    out = run(lambda x, kept: 0.3 * x + 1.0, noise, mask)
    assert not np.asarray(out[:, 1]).any()
    np.testing.assert_array_equal(out[:, 0], run(lambda x, kept: 0.3 * x + 1.0, noise)[:, 0])
