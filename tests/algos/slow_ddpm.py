"""DDPM policies and scalar critics written out a second time, slowly, for the tests of MADPMD and MASDAC."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from learners import Setup

from omad.keys import normal
from omad.tree import at


def abar(config: Any) -> tuple[np.ndarray, np.ndarray]:
    """(beta, abar) of a configuration."""
    beta = config.beta_scale * np.linspace(1e-4, 0.999, config.denoising_steps)
    return beta, np.cumprod(1 - beta)


def mish(x: Any) -> Any:
    return x * jnp.tanh(jnp.log1p(jnp.exp(x)))


def perceptron(net: Any, x: Any) -> Any:
    for layer in net.layers[:-1]:
        x = mish(x @ layer.weight + layer.bias)
    return x @ net.layers[-1].weight + net.layers[-1].bias


def noise_network(net: Any, x: Any, obs: Any, step: Any) -> Any:
    """Noise in rows of actions x at whole-numbered steps, from the concatenated input."""
    width = net.time.layers[0].weight.shape[-2]
    frequency = 10_000.0 ** (-np.arange(width // 2) / (width // 2))
    angle = jnp.asarray(step, x.dtype)[:, None] * frequency
    features = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1) / math.sqrt(width)
    return perceptron(net.main, jnp.concatenate([x, obs, perceptron(net.time, features)], -1))


def draws(setup: Setup, key: Any) -> list[Any]:
    """Each agent's own draws: T for its chain, one for what is added."""
    keys = jax.random.split(key, setup.spec.n_agents)
    shape = (setup.config.denoising_steps + 1, setup.batch.ret.shape[0], setup.spec.act_dim)
    return [normal(k, shape) for k in keys]


def actions(setup: Setup, actors: Any, obs: Any, noise: list[Any], noise_std: Any) -> Any:
    """Joint actions (batch, agent, act), one agent's chain after the other, the added noise last."""
    beta, kept = abar(setup.config)
    out = []
    for i in range(setup.spec.n_agents):
        net, mask = at(actors, i), setup.spec.act_mask[i]
        x = setup.config.prior_scale * noise[i][0] * mask
        for t in reversed(range(setup.config.denoising_steps)):
            eps = noise_network(net, x, obs[:, i], jnp.full(len(x), t)) * mask
            x0 = jnp.clip((x - math.sqrt(1 - kept[t]) * eps) / math.sqrt(kept[t]), -1, 1)
            before = kept[t - 1] if t else 1.0
            x = (math.sqrt(before) * beta[t] * x0 + math.sqrt(1 - beta[t]) * (1 - before) * x) / (1 - kept[t])
            if t:
                x = x + math.sqrt(beta[t] * (1 - before) / (1 - kept[t])) * noise[i][t] * mask
        out.append(jnp.clip(x + noise_std * noise[i][-1] * mask, -1, 1))
    return jnp.stack(out, 1)


def values(critics: Any, obs: Any, action: Any) -> Any:
    """Both critics on all observations and actions, (twin, batch)."""
    x = jnp.concatenate([obs.reshape(len(obs), -1), action.reshape(len(action), -1)], -1)
    return jnp.stack([perceptron(at(critics, c), x)[:, 0] for c in (0, 1)])


def critic_loss(critics: Any, setup: Setup, learner: Any, next_action: Any) -> Any:
    """Sum over twins of the mean squared error to 0.2 r + discount min Q_target(s', a')."""
    batch = setup.batch
    target = 0.2 * batch.ret + batch.discount * values(learner.critics_target, batch.next_obs, next_action).min(0)
    q = values(critics, batch.obs, batch.action)
    return jnp.mean((q[0] - target) ** 2) + jnp.mean((q[1] - target) ** 2)


def constant_critics(critics: Any, one: float, two: float) -> Any:
    """The same critics, saying two numbers whatever they read."""
    flat = jax.tree.map(jnp.zeros_like, critics)
    last = flat.layers[-1]
    return jax.tree.map(lambda leaf: jnp.asarray([[one], [two]], leaf.dtype) if leaf is last.bias else leaf, flat)


def assert_close(tree: Any, other: Any, tolerance: float) -> None:
    """Leaf by leaf, relative to the largest entry of all leaves' own largest."""
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * max(float(jnp.abs(b).max()), 1e-3))


def value(metrics: Any, name: str) -> float:
    assert float(metrics[name].weight) == 1.0, name
    return float(metrics[name].total)
