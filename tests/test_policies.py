"""The diffusion policy of one agent: step sizes, noise, costs at the start, what it may see."""

from __future__ import annotations

import inspect
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad import policies
from omad.diffusion.schedule import cosine_squared
from omad.nets import Denoiser
from omad.policies import (
    DiffusionPolicy,
    GaussianPolicy,
    TanhPolicy,
    draw_noise,
    inverse_softplus,
    sample_chain,
    sample_gaussian,
)

STEPS = 8


def fresh(act: int = 2, obs: int = 3, width: int = 16) -> DiffusionPolicy:
    """As the learner starts: no control, softplus(delta) = 0.1, softplus(phi) = 1."""
    denoiser = jax.jit(lambda key: Denoiser.init(key, act, obs, 4, 8, width, 2))(jax.random.key(0))
    friction = jnp.full(act, inverse_softplus(1.0))
    return DiffusionPolicy(denoiser, jnp.asarray(inverse_softplus(0.1)), friction)


@jax.jit
def sample(policy: DiffusionPolicy, obs: Any, noise: Any) -> Any:
    """Chain with the default prior and no mask."""
    return sample_chain(policy, obs, noise, jnp.ones(noise.shape[-1]), 2.5, 1e4)


@pytest.mark.parametrize(("value", "raw"), [(0.1, -2.25217), (1.0, 0.541325)])
def test_inverse_softplus_of_the_initial_values(value: float, raw: float) -> None:
    """The published starting values of delta and phi."""
    assert inverse_softplus(value) == pytest.approx(raw, abs=1e-5)


@pytest.mark.parametrize("value", [1e-4, 0.1, 1.0, 5.0, 30.0, 800.0])
def test_inverse_softplus_inverts(value: float) -> None:
    """Also where exp would overflow."""
    assert float(jax.nn.softplus(inverse_softplus(value))) == pytest.approx(value, rel=1e-5)


def test_step_sizes_scale_with_delta_and_divide_by_phi() -> None:
    """h_k = softplus(delta) c_k / softplus(phi), one column a dimension."""
    policy = eqx.tree_at(lambda p: p.raw_friction, fresh(), jnp.asarray([inverse_softplus(1.0), inverse_softplus(4.0)]))
    h = policy.step_size(STEPS)
    np.testing.assert_allclose(h[:, 0], 0.1 * cosine_squared(STEPS), rtol=1e-5)
    np.testing.assert_allclose(h[:, 1], 0.025 * cosine_squared(STEPS), rtol=1e-5)


def test_noise_is_standard_normal_with_one_entry_for_the_prior() -> None:
    """K + 1 draws, mean 0 and variance 1 within 4 standard errors."""
    noise = np.asarray(draw_noise(jax.random.key(0), STEPS, 5000, 2))
    assert noise.shape == (STEPS + 1, 5000, 2)
    assert abs(noise.mean()) < 4 / math.sqrt(noise.size)
    assert abs((noise**2).mean() - 1) < 4 * math.sqrt(2 / noise.size)
    assert len(np.unique(noise)) > 0.99 * noise.size * (1 - noise.size / 2**24)


def test_costs_of_fresh_policies() -> None:
    """1e5 chains of a real network: running cost 2.855 and terminal cost -2.335 per dimension, no control yet."""
    count = 50_000
    policy = fresh(width=8)
    noise = draw_noise(jax.random.key(1), STEPS, count, 2)
    out = sample(policy, jax.random.normal(jax.random.key(2), (count, 3)), noise)
    running, terminal = np.asarray(out.running) / 2, np.asarray(out.terminal) / 2
    assert abs(running.mean() - 2.855) < max(0.02, 4 * running.std() / math.sqrt(count))
    assert abs(terminal.mean() + 2.335229) < max(0.01, 4 * terminal.std() / math.sqrt(count))
    assert abs(-out.cost.mean() / 2 + 0.520) < 0.03
    assert float(jnp.abs(out.action).max()) <= 1.0
    # Close to bang-bang: tanh of N(0, 2.5^2) is beyond 0.99 with probability 0.290.
    assert float((jnp.abs(out.action) > 0.99).mean()) == pytest.approx(0.290, abs=0.01)

    share = policy.denoiser.obs_projection(jnp.ones((1, 3))) + policy.denoiser.time_projection(jnp.arange(STEPS))
    points = jnp.linspace(-10, 10, STEPS)[:, None] * jnp.ones(2)
    assert float(jnp.abs(policy.denoiser(points, share)).max()) < 1e-4


def test_cost_is_differentiable_in_everything_that_is_trained() -> None:
    """Control, delta and phi all get finite gradients; none is identically zero."""
    noise = draw_noise(jax.random.key(1), STEPS, 64, 2)
    obs = jax.random.normal(jax.random.key(2), (64, 3))
    grads = jax.jit(jax.grad(lambda p: sample(p, obs, noise).running.mean()))(fresh())
    for leaf in jax.tree.leaves(grads):
        assert bool(jnp.isfinite(leaf).all())
    for leaf in (grads.raw_scale, grads.raw_friction, grads.denoiser.last.weight, grads.denoiser.last.bias):
        assert float(jnp.abs(leaf).min()) > 0


def test_control_is_clipped() -> None:
    """Outputs beyond +-clip act like the clip."""
    policy = eqx.tree_at(lambda p: p.denoiser.last.bias, fresh(), jnp.asarray([1e6, -1e6]))
    noise = draw_noise(jax.random.key(1), STEPS, 16, 2)
    obs = jnp.zeros((16, 3))
    clipped = sample_chain(policy, obs, noise, jnp.ones(2), 2.5, 0.5)
    modest = eqx.tree_at(lambda p: p.denoiser.last.bias, policy, jnp.asarray([0.5, -0.5]))
    np.testing.assert_allclose(
        clipped.running, sample_chain(modest, obs, noise, jnp.ones(2), 2.5, 1e4).running, rtol=1e-4
    )


def test_acting_needs_nothing_but_own_parameters_own_observations_and_noise() -> None:
    """Decentralised execution is visible in the signature: no state, no critic, no other agent."""
    allowed = {"policy", "obs", "noise", "mask", "prior_scale", "control_clip", "kernel"}
    assert set(inspect.signature(policies.sample_chain).parameters) == allowed
    assert set(DiffusionPolicy.__dataclass_fields__) == {"denoiser", "raw_scale", "raw_friction"}


# ---------------------------------------------------------------- deterministic and squashed Gaussian policies


def gaussian(obs: int = 3, act: int = 1, final: Any = "tanh") -> GaussianPolicy:
    """Heads of ordinary size."""
    return jax.jit(lambda key: GaussianPolicy.init(key, obs, act, 8, 2, final))(jax.random.key(0))


def test_gaussian_policy_has_the_reference_architecture() -> None:
    """Linear, ReLU, linear, tanh, then linear heads; log standard deviation within [-20, 2]."""
    policy = gaussian(act=2)
    obs = jnp.asarray([[0.5, -1.0, 2.0]])
    first, second = policy.trunk.layers
    h = jnp.tanh(jax.nn.relu(obs @ first.weight + first.bias) @ second.weight + second.bias)
    mean, log_std = policy(obs)
    np.testing.assert_allclose(mean, h @ policy.mean.weight + policy.mean.bias, atol=1e-6)
    np.testing.assert_allclose(log_std, h @ policy.log_std.weight + policy.log_std.bias, atol=1e-6)
    extreme = eqx.tree_at(lambda p: p.log_std.bias, policy, jnp.asarray([100.0, -100.0]))
    np.testing.assert_array_equal(extreme(obs)[1], [[2.0, -20.0]])
    relu = gaussian(act=2, final="relu")
    h = jax.nn.relu(jax.nn.relu(obs @ first.weight + first.bias) @ second.weight + second.bias)
    np.testing.assert_allclose(relu(obs)[0], h @ relu.mean.weight + relu.mean.bias, atol=1e-6)


def test_density_of_a_squashed_gaussian_integrates_to_one() -> None:
    """Numerically over (-1, 1) in the action itself; its mean there is that of many draws."""
    policy, obs = gaussian(), jnp.asarray([0.3, -0.7, 1.0])
    mean, log_std = (float(x[0]) for x in policy(obs))
    action = np.linspace(-1, 1, 200_001)[1:-1]
    noise = (np.arctanh(action) - mean) / math.exp(log_std)
    many = jnp.tile(obs, (len(action), 1))
    drawn = sample_gaussian(policy, many, jnp.asarray(noise[:, None], jnp.float32), jnp.ones(1))
    np.testing.assert_allclose(drawn.action[:, 0], action, atol=1e-5)
    density = np.exp(np.asarray(drawn.log_prob, float))
    assert np.trapezoid(density, action) == pytest.approx(1.0, abs=1e-3)
    draws = sample_gaussian(policy, many, jax.random.normal(jax.random.key(1), many[:, :1].shape), jnp.ones(1)).action
    assert float(draws.mean()) == pytest.approx(np.trapezoid(density * action, action), abs=0.01)


def test_log_density_is_the_change_of_variables_by_autodiff() -> None:
    """Log N(noise) - log |det d action / d noise|, three dimensions, one of them padding."""
    policy, mask = gaussian(act=3), jnp.asarray([1.0, 1.0, 0.0])
    obs, noise = jnp.asarray([0.3, -0.7, 1.0]), jnp.asarray([0.4, -1.2, 3.0])
    drawn = sample_gaussian(policy, obs, noise, mask)
    jacobian = np.asarray(jax.jacfwd(lambda e: sample_gaussian(policy, obs, e, mask).action)(noise), float)
    normal = -0.5 * np.sum(np.asarray(noise[:2]) ** 2) - math.log(2 * math.pi)
    expected = normal - np.linalg.slogdet(jacobian[:2, :2])[1]
    assert float(drawn.log_prob) == pytest.approx(expected, abs=1e-4)
    assert not jacobian[2].any() and float(drawn.action[2]) == 0 and float(drawn.std[2]) == 0
    other = sample_gaussian(policy, obs, noise.at[2].set(-50.0), mask)
    assert float(other.log_prob) == float(drawn.log_prob)


def test_deterministic_policy_is_tanh_of_its_network_and_masked() -> None:
    """Padded dimensions are zero."""
    policy = jax.jit(lambda key: TanhPolicy.init(key, 3, 2, 8, 2))(jax.random.key(0))
    obs = jax.random.normal(jax.random.key(1), (5, 3))
    action = policy(obs, jnp.asarray([1.0, 0.0]))
    assert [layer.weight.shape for layer in policy.net.layers] == [(3, 8), (8, 8), (8, 2)]
    np.testing.assert_allclose(action[:, 0], np.tanh(policy.net(obs))[:, 0], atol=1e-6)
    assert not np.asarray(action[:, 1]).any()
