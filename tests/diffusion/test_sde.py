"""The controlled chain and its path cost: closed forms, bounds and identities of Celik et al. 2025 (DIME).

With a linear control u = c x + b the chain is Gaussian, so its true entropy is known; and its path cost is quadratic
in the noise, so the mean over the 2n points +-sqrt(n) e_i is the exact expectation over n standard normal draws.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad.diffusion.schedule import cosine_squared
from omad.diffusion.sde import Chain, Kernel, rollout, transition
from omad.ops.entropy import tanh_log_det

SIGMA = 2.5
PRIOR = -0.5 * math.log(2 * math.pi * math.e) - math.log(SIGMA)
"""Mean log-density of the prior at its own draws."""

TABLE = [
    # K, c, b, mean running cost (no tanh), true entropy of x^K, bound, mean and variance of x^K
    (8, 0.0, 0.0, -0.000410, 2.335642, 2.335640, 0.0, 6.25517),
    (16, 0.0, 0.0, -0.000707, 2.335941, 2.335936, 0.0, 6.25890),
    (8, -1.0, 0.0, 0.784733, 1.916084, 1.550496, 0.0, 2.70281),
    (16, -1.0, 0.0, 1.091103, 1.648626, 1.244126, 0.0, 1.58309),
    (8, -3.0, 0.0, 3.183752, 1.144396, -0.848522, 0.0, 0.57748),
    (8, -1.0, 2.0, 1.060930, 1.916084, 1.274300, 0.72311, 2.70281),
]
ROWS = pytest.mark.parametrize(("steps", "c", "b", "running", "entropy", "bound", "mean", "var"), TABLE)


def linear_chain(h: Any, c: Any, b: Any, noise: Any, squash: bool = False, kernel: Kernel = "euler") -> Chain:
    """The chain under u = c x + b; `noise` is (points, batch, act), `h` is (step, act)."""
    act = noise.shape[-1]
    shares = jnp.zeros((noise.shape[0] - 1, 1), noise.dtype)
    return rollout(lambda x, share: c * x + b, shares, h, SIGMA, noise, jnp.ones(act, noise.dtype), squash, kernel)


run = jax.jit(linear_chain, static_argnames=("squash", "kernel"))


def cubature(steps: int) -> np.ndarray:
    """Points whose plain mean integrates quadratics of K + 1 standard normal draws exactly, (points, batch, 1)."""
    n = steps + 1
    corners = math.sqrt(n) * np.concatenate([np.eye(n), -np.eye(n)])
    return corners.T[:, :, None]


def step_sizes(steps: int) -> np.ndarray:
    """h_k = 0.1 c_k, one action dimension."""
    return 0.1 * cosine_squared(steps)[:, None]


def gaussian_entropy(var: float) -> float:
    return 0.5 * math.log(2 * math.pi * math.e * var)


def normal_logpdf(x: Any, mean: Any, var: Any) -> Any:
    return -0.5 * (x - mean) ** 2 / var - 0.5 * jnp.log(2 * math.pi * var)


def literal_cost(control: Any, h: Any, noise: Any, kernel: Kernel = "euler") -> tuple[Any, Any, Any]:
    """(x^K, running cost without tanh, terminal cost), by two Gaussian log-densities a step."""
    # Shares of the point and of the control, and the variance.
    keep, gain, var = 1 - h / SIGMA**2, h, 2 * h
    if kernel == "exact":  # the solution of dx = (-x / sigma^2 + u) dt + sqrt(2) dW over h, u held
        keep = jnp.exp(-h / SIGMA**2)
        gain, var = SIGMA**2 * (1 - keep), SIGMA**2 * (1 - keep**2)
    x = SIGMA * noise[0]
    terminal = normal_logpdf(x, 0.0, SIGMA**2).sum(-1)
    running = jnp.zeros(x.shape[:-1])
    for k in range(h.shape[0]):
        forward = keep[k] * x + gain[k] * control(x, k)
        y = forward + jnp.sqrt(var[k]) * noise[k + 1]
        ratio = normal_logpdf(y, forward, var[k]) - normal_logpdf(x, keep[k] * y, var[k])
        running = running + ratio.sum(-1)
        x = y
    return x, running, terminal


@ROWS
def test_bound_table_exactly(
    steps: int, c: float, b: float, running: float, entropy: float, bound: float, mean: float, var: float
) -> None:
    """Mean cost, moments and bound of the linear chains to the last digit of the table, in double precision."""
    with jax.enable_x64(True):
        out = run(jnp.asarray(step_sizes(steps)), c, b, jnp.asarray(cubature(steps)))
        x, r, p = (np.asarray(leaf) for leaf in (out.action[:, 0], out.running, out.terminal))
    assert r.mean() == pytest.approx(running, abs=1.5e-6)
    assert p.mean() == pytest.approx(PRIOR, abs=1e-9)
    assert x.mean() == pytest.approx(mean, abs=1e-5)
    assert x.var() == pytest.approx(var, abs=1e-5)
    assert gaussian_entropy(x.var()) == pytest.approx(entropy, abs=2e-6)
    assert -(r + p).mean() == pytest.approx(bound, abs=2e-6)
    assert bound <= entropy


@ROWS
def test_bound_table_by_monte_carlo(
    steps: int, c: float, b: float, running: float, entropy: float, bound: float, mean: float, var: float
) -> None:
    """2e5 chains in single precision: everything within 4 standard errors, and the bound below the entropy."""
    count = 200_000
    noise = jax.random.normal(jax.random.key(steps), (steps + 1, count, 1))
    out = run(jnp.asarray(step_sizes(steps), jnp.float32), c, b, noise)
    x, r, p = (np.asarray(leaf, np.float64) for leaf in (out.action[:, 0], out.running, out.terminal))

    def close(sample: np.ndarray, expected: float) -> None:
        assert abs(sample.mean() - expected) < 4 * sample.std() / math.sqrt(count) + 1e-5

    close(r, running)
    close(p, PRIOR)
    close(x, mean)
    close((x - mean) ** 2, var)
    close(-(r + p), bound)
    slack = 4 * (r + p).std() / math.sqrt(count)
    assert -(r + p).mean() <= gaussian_entropy(x.var()) + slack
    np.testing.assert_array_equal(out.cost, out.running + out.terminal)


@pytest.mark.parametrize(("h", "steps", "low", "high"), [(0.1, 8, 5e-6, 7e-6), (0.01, 80, 0.0, 1e-6)])
def test_bound_is_nearly_tight_without_control(h: float, steps: int, low: float, high: float) -> None:
    """Without control the prior is stationary up to O(h^2): the gap is 6e-6, and below 1e-6 with finer steps."""
    with jax.enable_x64(True):
        out = run(jnp.full((steps, 1), h), 0.0, 0.0, jnp.asarray(cubature(steps)))
        gap = gaussian_entropy(float(out.action.var())) + float(out.cost.mean())
    assert low <= gap < high


def test_cost_telescopes_under_the_exact_reference_process() -> None:
    """The literal log-ratio, used below as reference, with the exact transition of the OU process in both kernels.

    Detailed balance makes R = log N(x^K; 0, sigma^2) - P for every single chain.
    """
    rng = np.random.default_rng(0)
    rho = np.linspace(0.5, 0.99, 8)
    var = SIGMA**2 * (1 - rho**2)
    x = start = SIGMA * rng.standard_normal((1000, 2))
    running = np.zeros(1000)
    for k in range(8):
        y = rho[k] * x + np.sqrt(var[k]) * rng.standard_normal(x.shape)
        running += np.asarray(normal_logpdf(y, rho[k] * x, var[k]) - normal_logpdf(x, rho[k] * y, var[k])).sum(-1)
        x = y
    terminal = np.asarray(normal_logpdf(start, 0.0, SIGMA**2)).sum(-1)
    np.testing.assert_allclose(running, np.asarray(normal_logpdf(x, 0.0, SIGMA**2)).sum(-1) - terminal, atol=1e-4)


def test_exact_steps_without_control_leave_no_gap() -> None:
    """R = log N(x^K; 0, sigma^2) - P for every single chain, so the bound is the entropy, whatever the steps."""
    with jax.enable_x64(True):
        h = jnp.asarray(step_sizes(8) * np.linspace(1.0, 30.0, 8)[:, None])
        noise = jnp.asarray(np.random.default_rng(0).standard_normal((9, 1000, 1)))
        out = run(h, 0.0, 0.0, noise, kernel="exact")
        end = normal_logpdf(out.action, 0.0, SIGMA**2)[:, 0]
        np.testing.assert_allclose(out.running, end - out.terminal, rtol=0, atol=1e-12)
        tight = run(h, 0.0, 0.0, jnp.asarray(cubature(8)), kernel="exact")
        assert float(tight.action.var()) == pytest.approx(SIGMA**2, abs=1e-12)
        assert -float(tight.cost.mean()) == pytest.approx(gaussian_entropy(SIGMA**2), abs=1e-12)
    single = run(jnp.asarray(h, jnp.float32), 0.0, 0.0, jnp.asarray(noise, jnp.float32), kernel="exact")
    np.testing.assert_allclose(single.running, end - out.terminal, rtol=0, atol=1e-5)


def test_kernels_agree_on_short_steps_and_in_numpy() -> None:
    h = np.geomspace(1e-6, 1e-3, 5)
    for a, b in zip(transition(h, SIGMA, "exact", np), transition(h, SIGMA, "euler", np), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)
    for kernel in ("euler", "exact"):
        for a, b in zip(transition(3.0 * h, SIGMA, kernel, np), transition(3.0 * h, SIGMA, kernel), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_bound_is_the_entropy_when_the_chain_is_reversed_exactly() -> None:
    """For c = -1, K = 8: with the true conditional q(x^k | x^{k+1}) as noising kernel, -E[R + P] = 1.916084 = H."""
    h, noise = step_sizes(8)[:, 0], cubature(8)[:, :, 0]
    x, var = SIGMA * noise[0], SIGMA**2
    cost = -0.5 * x**2 / SIGMA**2 - 0.5 * np.log(2 * math.pi * SIGMA**2)
    for k in range(8):
        slope = 1 + h[k] * (-1.0 - 1 / SIGMA**2)
        y = slope * x + np.sqrt(2 * h[k]) * noise[k + 1]
        next_var = slope**2 * var + 2 * h[k]
        gain = slope * var / next_var
        back_mean, back_var = gain * y, var - gain * slope * var
        forward = -0.5 * (y - slope * x) ** 2 / (2 * h[k]) - 0.5 * np.log(2 * math.pi * 2 * h[k])
        backward = -0.5 * (x - back_mean) ** 2 / back_var - 0.5 * np.log(2 * math.pi * back_var)
        cost += forward - backward
        x, var = y, next_var
    with jax.enable_x64(True):
        out = run(jnp.asarray(h[:, None]), -1.0, 0.0, jnp.asarray(noise[:, :, None]))
        np.testing.assert_allclose(out.action[:, 0], x, atol=1e-12)
        loose = -float(out.cost.mean())
    assert -cost.mean() == pytest.approx(1.916084, abs=2e-6)
    assert -cost.mean() == pytest.approx(gaussian_entropy(var), abs=1e-9)
    assert loose < -cost.mean()


def test_squashing_shifts_cost_by_the_log_det_and_changes_nothing_else() -> None:
    """True entropy and bound move by the same E log(1 - tanh^2), so the gap of the bound stays."""
    h, noise = jnp.asarray(step_sizes(8), jnp.float32), jax.random.normal(jax.random.key(0), (9, 512, 1))
    plain, squashed = run(h, -1.0, 0.5, noise), run(h, -1.0, 0.5, noise, squash=True)
    np.testing.assert_allclose(squashed.action, jnp.tanh(plain.action), atol=1e-6)
    np.testing.assert_allclose(plain.running - squashed.running, tanh_log_det(plain.action)[:, 0], atol=1e-5)
    np.testing.assert_array_equal(plain.terminal, squashed.terminal)


def curved(weights: Any) -> Any:
    """A non-linear control of three action dimensions with parameters."""

    def control(x: Any, share: Any) -> Any:
        return jnp.tanh(x @ weights + 0.3 * share) * 2.0 - 0.5 * x

    return control


@pytest.mark.parametrize("kernel", ["euler", "exact"])
def test_compact_log_ratio_is_the_literal_one(kernel: Kernel) -> None:
    """Per chain within 1e-4 of two log-densities a step, with the same gradients (control, step sizes, noise)."""
    weights = jax.random.normal(jax.random.key(1), (3, 3))
    noise = jax.random.normal(jax.random.key(2), (5, 256, 3))
    scale = jnp.asarray([0.08, 0.1, 0.15])
    c = jnp.asarray(cosine_squared(4), jnp.float32)[:, None]
    steps = jnp.arange(4.0)

    def compact(weights: Any, scale: Any, noise: Any) -> Any:
        chain = rollout(curved(weights), steps, c * scale, SIGMA, noise, jnp.ones(3), False, kernel)
        return chain.running, chain.terminal, chain.action

    def literal(weights: Any, scale: Any, noise: Any) -> Any:
        control = curved(weights)
        x, running, terminal = literal_cost(lambda x, k: control(x, jnp.asarray(float(k))), c * scale, noise, kernel)
        return running, terminal, x

    def both(f: Any) -> tuple[Any, Any]:
        def total(*args: Any) -> tuple[Any, Any]:
            out = f(*args)
            return out[0].mean() + 0.1 * jnp.sin(out[2]).sum(-1).mean(), out

        grads, out = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(weights, scale, noise)
        return out, grads

    (ours, ours_grad), (theirs, theirs_grad) = both(compact), both(literal)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    for a, b in zip(ours_grad, theirs_grad, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * float(jnp.abs(b).max()) + 1e-6)


def test_padded_dimensions_stay_zero_and_cost_nothing() -> None:
    """A masked third dimension gives bit for bit the costs of the first two alone."""
    noise = jax.random.normal(jax.random.key(3), (5, 64, 3))
    h = jnp.full((4, 3), 0.1)
    mask = jnp.asarray([1.0, 1.0, 0.0])

    def control(x: Any, share: Any) -> Any:
        return jnp.sin(x) + 7.0

    padded = rollout(control, jnp.zeros((4, 1)), h, SIGMA, noise, mask)
    alone = rollout(control, jnp.zeros((4, 1)), h[:, :2], SIGMA, noise[..., :2], jnp.ones(2))
    assert not np.asarray(padded.action[:, 2]).any()
    np.testing.assert_array_equal(padded.action[:, :2], alone.action)
    np.testing.assert_allclose(padded.running, alone.running, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(padded.terminal, alone.terminal, rtol=1e-6)


def test_costs_of_dimensions_add_up() -> None:
    """Where the control does not mix dimensions, the cost of three is the sum of three chains of one."""
    noise = jax.random.normal(jax.random.key(4), (9, 32, 3))
    h = jnp.asarray(step_sizes(8), jnp.float32)
    whole = run(jnp.tile(h, (1, 3)), -1.0, 0.2, noise, squash=True)
    parts = [run(h, -1.0, 0.2, noise[..., i : i + 1], squash=True) for i in range(3)]
    np.testing.assert_allclose(whole.running, sum(p.running for p in parts), atol=1e-5)
    np.testing.assert_allclose(whole.terminal, sum(p.terminal for p in parts), atol=1e-5)
    np.testing.assert_array_equal(whole.action, jnp.concatenate([p.action for p in parts], -1))


def test_chain_without_noise_is_the_deterministic_flow() -> None:
    """From x^0 = 0: x^{k+1} = x^k + h_k (u - x^k / sigma^2)."""
    h = jnp.asarray(step_sizes(8), jnp.float32)
    out = run(h, -1.0, 2.0, jnp.zeros((9, 1, 1)))
    x = 0.0
    for step in np.asarray(h)[:, 0]:
        x += step * (-x + 2.0 - x / SIGMA**2)
    assert float(out.action[0, 0]) == pytest.approx(x, abs=1e-6)
