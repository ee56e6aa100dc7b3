"""Networks: the denoiser against its literal form, batch renormalisation, the critic's two modes."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad.critic_nets import BatchRenorm, Critic, RenormConfig, RenormStats, XqcCritic, renorm_eval, renorm_train
from omad.nets import Denoiser, Linear, Mlp, NoiseNet, gelu, mish, scale_last_layer, sinusoidal_features, time_features

ACT, OBS, WIDTH = 2, 3, 16


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    """One with weights of ordinary size everywhere."""
    fresh = jax.jit(lambda key: Denoiser.init(key, ACT, OBS, 4, 8, WIDTH, 3))(jax.random.key(0))
    leaves, tree = jax.tree.flatten(fresh)
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(tree, [jnp.asarray(0.4 * rng.standard_normal(x.shape), jnp.float32) for x in leaves])


def test_linear_is_lecun_normal_with_zero_bias() -> None:
    """Standard deviation 1 / sqrt(fan in), truncated at two, as flax has it; layers of a stack share no weight."""
    layer, other = Linear.stack(jax.random.key(0), [(400, 300), (100, 7)])
    assert other.weight.shape == (100, 7)
    assert np.asarray(other.weight).std() == pytest.approx(0.1, rel=0.1)
    assert np.isin(np.asarray(other.weight) * 10, np.asarray(layer.weight) * 20).mean() < 0.1
    weight = np.asarray(layer.weight)
    assert weight.shape == (400, 300)
    assert weight.std() == pytest.approx(1 / 20, rel=0.02)
    assert abs(weight.mean()) < 4 * weight.std() / np.sqrt(weight.size)
    assert np.abs(weight).max() < 2.4 / 20
    assert not np.asarray(layer.bias).any()
    np.testing.assert_allclose(layer(jnp.ones((2, 400))), np.tile(weight.sum(0), (2, 1)), atol=1e-4)


def test_time_features_use_raw_step_indices() -> None:
    """[sin(w k + p), cos(w k + p)], w evenly spaced from 0.1 to 100, k = 0..K-1 as it is."""
    phase = jnp.asarray([0.0, 0.5, -0.5])
    out = np.asarray(time_features(jnp.arange(4), phase))
    angle = np.arange(4)[:, None] * np.asarray([0.1, 50.05, 100.0]) + np.asarray(phase)
    np.testing.assert_allclose(out, np.concatenate([np.sin(angle), np.cos(angle)], 1), atol=1e-4)


def test_denoiser_is_the_plain_network_on_x_obs_and_time(denoiser: Denoiser) -> None:
    """Shares of the first layer computed apart give the MLP on the concatenated [x, o, time(k)]."""
    rng = np.random.default_rng(1)
    x, obs = (jnp.asarray(rng.standard_normal((5, n)), jnp.float32) for n in (ACT, OBS))
    shares = denoiser.time_projection(jnp.arange(6))
    for k in range(6):
        tau = time_features(jnp.asarray([k]), denoiser.phase)
        embedded = denoiser.time_out(jax.nn.gelu(denoiser.time_in(tau), approximate=True))
        h = jnp.concatenate([x, obs, jnp.tile(embedded, (5, 1))], -1)
        for layer in (denoiser.first, *denoiser.hidden):
            h = jax.nn.gelu(layer(h), approximate=True)
        expected = h @ denoiser.last.weight + denoiser.last.bias
        out = denoiser(x, denoiser.obs_projection(obs) + shares[k][None])
        np.testing.assert_allclose(out, expected, atol=2e-5)


def test_denoiser_has_the_reference_architecture_and_starts_out_as_zero() -> None:
    """Sizes of DIME's network: three hidden layers, time 2 x frequencies -> width -> width; last weights all 1e-8."""
    net = jax.eval_shape(lambda key: Denoiser.init(key, 4, 11, 256, 256, 256, 3), jax.random.key(0))
    assert [leaf.shape for leaf in jax.tree.leaves(net)] == [
        (256,),
        (512, 256), (256,), (256, 256), (256,),
        (4 + 11 + 256, 256), (256,), (256, 256), (256,), (256, 256), (256,),
        (256, 4), (4,),
    ]  # fmt: skip
    small = Denoiser.init(jax.random.key(0), ACT, OBS, 4, 8, WIDTH, 3)
    np.testing.assert_array_equal(small.last.weight, np.float32(1e-8))
    assert not np.asarray(small.phase).any() and not np.asarray(small.last.bias).any()
    x = 10.0 * jax.random.normal(jax.random.key(1), (64, ACT))
    out = small(x, small.obs_projection(jnp.ones((64, OBS))) + small.time_projection(jnp.asarray([3])))
    assert float(jnp.abs(out).max()) < 1e-4


def test_gelu_and_its_slope_are_those_of_the_formula() -> None:
    """Against double precision; constant where it ends, also where the formula would overflow."""
    x = np.linspace(-10, 10, 100_001)
    inner, inner_slope = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3), np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)
    t = np.tanh(inner)
    value, slope = gelu(jnp.asarray(x, jnp.float32)), jax.vmap(jax.grad(gelu))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(value, 0.5 * x * (1 + t), atol=2e-6)
    np.testing.assert_allclose(slope, 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * inner_slope, atol=5e-5)
    far = jnp.asarray([-1e30, -1e4, -6.0, 6.0, 1e4, 1e30])
    np.testing.assert_array_equal(gelu(far), [0, 0, 0, 6.0, 1e4, np.float32(1e30)])
    np.testing.assert_array_equal(jax.vmap(jax.grad(gelu))(far), [0, 0, 0, 1, 1, 1])
    nan = jnp.asarray(jnp.nan)
    assert np.isnan(gelu(nan)) and np.isnan(jax.grad(gelu)(nan))


# ---------------------------------------------------------------- batch renormalisation

EPS = 1e-3


def layer_and_batch() -> tuple[BatchRenorm, Any]:
    rng = np.random.default_rng(0)
    layer = BatchRenorm(jnp.asarray([2.0, 1.0, 0.5]), jnp.asarray([0.0, -1.0, 3.0]))
    return layer, jnp.asarray(rng.standard_normal((64, 3)) * [1.0, 3.0, 0.2] + [0.0, 5.0, -1.0], jnp.float32)


def stats_of(mean: Any, var: Any, count: int) -> RenormStats:
    return RenormStats(jnp.asarray(mean, jnp.float32), jnp.asarray(var, jnp.float32), jnp.asarray(count, jnp.int32))


def normalised(layer: BatchRenorm, x: Any, mean: Any, var: Any) -> np.ndarray:
    return np.asarray((x - mean) / np.sqrt(np.asarray(var) + EPS) * layer.scale + layer.bias)


def test_renorm_defaults_are_the_references() -> None:
    """Momentum 0.99, eps 1e-3, r at most 3, d at most 5, 100 000 calls of warm-up."""
    config = RenormConfig()
    assert dataclasses.astuple(config) == (0.99, 1e-3, 3.0, 5.0, 100_000)


def test_renorm_before_warmup_is_batch_normalisation() -> None:
    """Whatever the running statistics are; they are updated all the same."""
    layer, x = layer_and_batch()
    before = stats_of([9.0, 9.0, 9.0], [4.0, 4.0, 4.0], 6)
    y, after = renorm_train(layer, before, x, RenormConfig(warmup=7))
    mean, var = np.asarray(x).mean(0), np.asarray(x).var(0)
    np.testing.assert_allclose(y, normalised(layer, x, mean, var), atol=1e-4)
    np.testing.assert_allclose(after.mean, 0.99 * 9.0 + 0.01 * mean, rtol=1e-5)
    np.testing.assert_allclose(after.var, 0.99 * 4.0 + 0.01 * var, rtol=1e-5)
    assert int(after.count) == 7


def test_renorm_after_warmup_corrects_towards_running_statistics() -> None:
    """x_hat = (x - mu) / sigma * r + d (Ioffe 2017), with r in [1/3, 3] and d in [-5, 5], clipped per feature."""
    layer, x = layer_and_batch()
    running_mean, running_var = np.asarray([0.5, -40.0, -1.2]), np.asarray([1.5, 30.0, 9.0])
    y, after = renorm_train(layer, stats_of(running_mean, running_var, 7), x, RenormConfig(warmup=7))
    mean, std = np.asarray(x).mean(0), np.sqrt(np.asarray(x).var(0) + EPS)
    running_std = np.sqrt(running_var + EPS)
    r = np.clip(std / running_std, 1 / 3, 3)
    d = np.clip((mean - running_mean) / running_std, -5, 5)
    assert r[2] == pytest.approx(1 / 3) and d[1] == 5.0
    np.testing.assert_allclose(y, ((x - mean) / std * r + d) * layer.scale + layer.bias, atol=1e-4)
    # Where nothing is clipped this is plain normalisation by the running statistics.
    np.testing.assert_allclose(y[:, 0], normalised(layer, x, running_mean, running_var)[:, 0], atol=1e-4)
    np.testing.assert_allclose(after.mean, 0.99 * running_mean + 0.01 * mean, rtol=1e-5)


def test_renorm_with_matching_statistics_equals_running_normalisation() -> None:
    """After warm-up, mu = running mean and v = running variance: training and evaluation agree to 1e-3."""
    layer, x = layer_and_batch()
    stats = stats_of(np.asarray(x).mean(0), np.asarray(x).var(0), 10)
    y, _ = renorm_train(layer, stats, x, RenormConfig(warmup=7))
    np.testing.assert_allclose(y, renorm_eval(layer, stats, x, RenormConfig()), atol=1e-3)


def test_renorm_lets_no_gradient_through_its_corrections() -> None:
    """Corrections r and d are constants: the gradient is that of batch normalisation times r."""
    layer, x = layer_and_batch()
    stats = stats_of([0.5, 4.0, -1.2], [1.5, 30.0, 0.1], 7)

    def slope(config: RenormConfig) -> Any:
        weight = jnp.cos(jnp.arange(x.size)).reshape(x.shape)
        return jax.grad(lambda x: jnp.sum(weight * renorm_train(layer, stats, x, config)[0]))(x)

    std = np.sqrt(np.asarray(x).var(0) + EPS)
    r = np.clip(std / np.sqrt(np.asarray(stats.var) + EPS), 1 / 3, 3)
    np.testing.assert_allclose(slope(RenormConfig(warmup=7)), r * slope(RenormConfig(warmup=8)), atol=1e-4)


def test_renorm_normalises_the_whole_joint_batch_not_its_halves() -> None:
    """Two halves with different means: the halves of the output keep their difference."""
    layer = BatchRenorm.init(1)
    x = jnp.concatenate([jnp.full((8, 1), -1.0), jnp.full((8, 1), 1.0)])
    y, after = renorm_train(layer, RenormStats.init(1), x, RenormConfig())
    np.testing.assert_allclose(y, np.asarray(x) / np.sqrt(1 + EPS), atol=1e-6)
    np.testing.assert_allclose(after.mean, 0.0, atol=1e-7)
    np.testing.assert_allclose(after.var, 1.0, atol=1e-7)


def test_renorm_of_a_constant_feature_is_finite() -> None:
    """Padded inputs have variance zero; value and gradient stay finite, before warm-up and after."""
    layer, x = BatchRenorm.init(2), jnp.zeros((8, 2))
    for count in (0, 10):
        stats = stats_of([0.0, 0.0], [1.0, 0.0], count)
        y, _ = renorm_train(layer, stats, x, RenormConfig(warmup=5))
        slope = jax.grad(lambda x, stats=stats: renorm_train(layer, stats, x, RenormConfig(warmup=5))[0].sum())(x)
        assert not np.asarray(y).any()
        assert bool(jnp.isfinite(slope).all())


# ---------------------------------------------------------------- critic


def test_critic_alternates_norm_linear_relu_and_moves_statistics_only_in_training() -> None:
    """Norm, (linear, ReLU, norm) x layers, head; the training pass returns new statistics, evaluation none."""
    config = RenormConfig()
    critic, stats = Critic.init(jax.random.key(0), 5, 8, 2, 3)
    assert [norm.scale.shape for norm in critic.norms] == [(5,), (8,), (8,)]
    assert [layer.weight.shape for layer in (*critic.hidden, critic.head)] == [(5, 8), (8, 8), (8, 3)]
    x = jax.random.normal(jax.random.key(1), (32, 5)) * 2.0 + 1.0

    features, new = critic.features_train(stats, x, config)
    h, expected = np.asarray(x), []
    for i in range(3):
        expected.append((0.01 * h.mean(0), 0.99 + 0.01 * h.var(0)))
        h = (h - h.mean(0)) / np.sqrt(h.var(0) + EPS)
        if i < 2:
            h = np.maximum(h @ np.asarray(critic.hidden[i].weight), 0.0)
    np.testing.assert_allclose(features, h, atol=1e-4)
    for stat, (mean, var) in zip(new.layers, expected, strict=True):
        np.testing.assert_allclose(stat.mean, mean, atol=1e-5)
        np.testing.assert_allclose(stat.var, var, atol=1e-4)
        assert int(stat.count) == 1

    h = np.asarray(x)
    for i in range(3):
        h = (h - new.layers[i].mean) / np.sqrt(np.asarray(new.layers[i].var) + EPS)
        if i < 2:
            h = np.maximum(h @ np.asarray(critic.hidden[i].weight), 0.0)
    np.testing.assert_allclose(critic(new, x, config), h @ np.asarray(critic.head.weight), atol=1e-4)


def test_evaluation_treats_rows_one_by_one() -> None:
    """Under the running statistics a row's output does not depend on the rest of the batch; in training it does."""
    config = RenormConfig()
    critic, stats = Critic.init(jax.random.key(0), 5, 8, 1, 3)
    x = jax.random.normal(jax.random.key(1), (4, 5))
    other = x.at[1:].add(1.0)
    np.testing.assert_allclose(critic(stats, x, config)[0], critic(stats, other, config)[0], atol=1e-6)
    trained = [critic.features_train(stats, batch, config)[0][0] for batch in (x, other)]
    assert float(jnp.abs(trained[0] - trained[1]).max()) > 0.1


def test_two_critics_are_independent() -> None:
    """Stacked by vmap over keys, they differ in every layer."""
    keys = jax.random.split(jax.random.key(0), 2)
    twins, _ = jax.jit(jax.vmap(lambda key: Critic.init(key, 5, 8, 2, 3)))(keys)
    for layer in (*twins.hidden, twins.head):
        assert float(jnp.abs(layer.weight[0] - layer.weight[1]).min()) > 0
    assert eqx.tree_equal(twins.norms[0].scale[0], twins.norms[0].scale[1])


def slow_xqc(critic: XqcCritic, x: np.ndarray, stats: Any = None) -> tuple[np.ndarray, list[np.ndarray]]:
    """What the head reads, layer after layer, by the batch's own statistics or the given ones; and all norms' input."""
    seen: list[np.ndarray] = []

    def norm(h: np.ndarray) -> np.ndarray:
        i = len(seen)
        seen.append(h)
        mean, var = (h.mean(0), h.var(0)) if stats is None else (stats.layers[i].mean, stats.layers[i].var)
        return (h - mean) / np.sqrt(np.asarray(var) + EPS) * critic.norms[i].scale + critic.norms[i].bias

    weights = [np.asarray(weight, float) for weight in critic.weights]
    h = norm(x)
    for weight in weights[: len(weights) - 2 * critic.blocks]:
        h = np.maximum(norm(h @ weight), 0.0)
    for b in range(critic.blocks):
        first, second = weights[len(weights) - 2 * critic.blocks + 2 * b :][:2]
        h = h + norm(np.maximum(norm(h @ first), 0.0) @ second)
    return (h / np.sqrt(np.mean(h**2, -1, keepdims=True)) if critic.blocks else h), seen


@pytest.mark.parametrize("blocks", [0, 2])
def test_xqc_critic_norms_before_activations(blocks: int) -> None:
    """Against the layers written out in double precision: features, statistics, evaluation."""
    critic, stats = XqcCritic.init(jax.random.key(0), 5, 8, 2, 3, blocks)
    rng = np.random.default_rng(1)
    norms = tuple(
        BatchRenorm(*(jnp.asarray(1 + 0.3 * rng.standard_normal(n.scale.shape), jnp.float32) for _ in range(2)))
        for n in critic.norms
    )
    critic = dataclasses.replace(critic, norms=norms)
    x = rng.normal(1.0, 2.0, (32, 5))
    given = jnp.asarray(x, jnp.float32)
    features, new = critic.features_train(stats, given, RenormConfig())
    expected, seen = slow_xqc(critic, x)
    np.testing.assert_allclose(features, expected, atol=2e-4)
    assert len(new.layers) == len(seen) == 3 + 2 * blocks
    for stat, rows in zip(new.layers, seen, strict=True):
        np.testing.assert_allclose(stat.mean, 0.01 * rows.mean(0), atol=1e-4)
        np.testing.assert_allclose(stat.var, 0.99 + 0.01 * rows.var(0), atol=1e-4)
    shown, _ = slow_xqc(critic, x, new)
    np.testing.assert_allclose(critic(new, given, RenormConfig()), shown @ np.asarray(critic.head.weight), atol=1e-3)


def test_xqc_weights_are_kept_at_unit_length() -> None:
    """Incoming weights of every hidden unit, from the first on, also stacked; the head is left alone."""
    twins, _ = jax.vmap(lambda key: XqcCritic.init(key, 5, 8, 2, 3, 1))(jax.random.split(jax.random.key(0), 2))
    assert [weight.shape for weight in twins.weights] == [(2, 5, 8), (2, 8, 8), (2, 8, 8), (2, 8, 8)]
    stretched = dataclasses.replace(twins, weights=tuple(3.0 * weight for weight in twins.weights))
    for critic in (twins, stretched.projected()):
        for weight, first in zip(critic.weights, twins.weights, strict=True):
            np.testing.assert_allclose(np.linalg.norm(weight, axis=1), 1.0, atol=1e-6)
            np.testing.assert_allclose(weight, first, atol=1e-6)
    assert eqx.tree_equal(stretched.projected().head, twins.head)


# ---------------------------------------------------------------- multilayer perceptron, noise network


def test_perceptron_is_its_layers_one_after_the_other() -> None:
    """Activation between layers and not after the last; `rest` goes on from the first layer's output."""
    net = jax.jit(lambda key: Mlp.init(key, [3, 8, 5, 2], jnp.tanh))(jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)), jnp.float32)
    one, two, three = net.layers
    first = x @ one.weight + one.bias
    expected = jnp.tanh(jnp.tanh(first) @ two.weight + two.bias) @ three.weight + three.bias
    np.testing.assert_allclose(net(x), expected, atol=1e-6)
    np.testing.assert_allclose(net.rest(first), expected, atol=1e-6)
    small = scale_last_layer(net)
    np.testing.assert_allclose(small(x), 0.01 * expected, atol=1e-6)
    assert eqx.tree_equal(small.layers[:-1], net.layers[:-1])


def test_mish_is_its_definition_and_finite_everywhere() -> None:
    """Against x tanh(log(1 + e^x)) in double precision, value and slope; far out it is x, or nothing."""
    x = np.linspace(-30, 30, 601)
    softplus = np.logaddexp(0, x)
    np.testing.assert_allclose(mish(jnp.asarray(x, jnp.float32)), x * np.tanh(softplus), atol=2e-6)
    slope = np.tanh(softplus) + x / np.cosh(softplus) ** 2 / (1 + np.exp(-x))
    np.testing.assert_allclose(jax.vmap(jax.grad(mish))(jnp.asarray(x, jnp.float32)), slope, atol=1e-5)
    far = jnp.asarray([-1e4, -200.0, 200.0, 1e4])
    np.testing.assert_allclose(mish(far), [0.0, 0.0, 200.0, 1e4])
    np.testing.assert_allclose(jax.vmap(jax.grad(mish))(far), [0.0, 0.0, 1.0, 1.0])


def test_sinusoidal_features_by_hand() -> None:
    """Four features: frequencies 1 and 1/100, divided by 2."""
    out = sinusoidal_features(jnp.asarray([0, 3]), 4)
    expected = [[0.0, 0.0, 0.5, 0.5], [np.sin(3) / 2, np.sin(0.03) / 2, np.cos(3) / 2, np.cos(0.03) / 2]]
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_noise_network_is_one_perceptron_on_action_observation_and_time() -> None:
    """The shares of the first layer add up to the layer on the concatenated input; it starts out near zero."""
    net = jax.jit(lambda key: NoiseNet.init(key, 2, 3, 6, 16, 3))(jax.random.key(0))
    assert [layer.weight.shape for layer in net.main.layers] == [(11, 16), (16, 16), (16, 16), (16, 2)]
    assert [layer.weight.shape for layer in net.time.layers] == [(6, 12), (12, 6)]
    rng = np.random.default_rng(1)
    x, obs = (jnp.asarray(rng.standard_normal((5, n)), jnp.float32) for n in (2, 3))
    embedded = net.time(sinusoidal_features(jnp.arange(4), 6))
    out = net(x, net.obs_projection(obs) + net.time_projection(jnp.arange(4))[2])
    whole = jnp.concatenate([x, obs, jnp.tile(embedded[2], (5, 1))], -1)
    np.testing.assert_allclose(out, net.main(whole), atol=1e-6)
    assert 0 < float(jnp.abs(out).max()) < 0.1
