"""The actor's update and the temperature's, alone, on a bandit with four modes whose value is known."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from omad.nets import Denoiser
from omad.policies import DiffusionPolicy, draw_noise, inverse_softplus, sample_chain
from omad.tree import descend

STEPS, BATCH, DIM, WIDTH = 8, 256, 2, 128
MODES = np.asarray([[0.6, 0.6], [0.6, -0.6], [-0.6, 0.6], [-0.6, -0.6]])


def learn(sharpness: float, updates: int) -> tuple[DiffusionPolicy, float, float]:
    """(policy, alpha, running cost per dimension over the last tenth) after some actor updates."""
    actor_tx = optax.chain(optax.zero_nans(), optax.clip(1.0), optax.adam(3e-4, b1=0.5))
    alpha_tx = optax.adam(1e-3)
    modes, obs = jnp.asarray(MODES, jnp.float32), jnp.ones((BATCH, 1))
    policy: Any = DiffusionPolicy(
        jax.jit(lambda key: Denoiser.init(key, DIM, 1, 64, WIDTH, WIDTH, 3))(jax.random.key(0)),
        jnp.asarray(inverse_softplus(0.1), jnp.float32),
        jnp.full(DIM, inverse_softplus(1.0), jnp.float32),
    )

    def loss(policy: DiffusionPolicy, log_alpha: Any, key: Any) -> tuple[Any, Any]:
        out = sample_chain(policy, obs, draw_noise(key, STEPS, BATCH, DIM), jnp.ones(DIM), 2.5, 1e4)
        distance = jnp.sum((out.action[:, None] - modes[None]) ** 2, -1)
        q = sharpness * jax.nn.logsumexp(-distance / 0.02, axis=1)
        return jnp.mean(jnp.exp(log_alpha) * out.cost - q), out.running.mean()

    def dual(log_alpha: Any, running: Any) -> Any:
        return -jnp.exp(log_alpha) * (running - 4.0 * DIM)

    def step(i: Any, carry: Any) -> Any:
        policy, log_alpha, actor_opt, alpha_opt, late = carry
        grads, running = jax.grad(loss, has_aux=True)(policy, log_alpha, jax.random.fold_in(jax.random.key(1), i))
        policy, actor_opt = descend(actor_tx, grads, actor_opt, policy)
        log_alpha, alpha_opt = descend(alpha_tx, jax.grad(dual)(log_alpha, running), alpha_opt, log_alpha)
        return policy, log_alpha, actor_opt, alpha_opt, late + jnp.where(i >= updates - updates // 10, running, 0.0)

    log_alpha = jnp.zeros((), jnp.float32)
    start = (policy, log_alpha, actor_tx.init(policy), alpha_tx.init(log_alpha), jnp.zeros((), jnp.float32))
    policy, log_alpha, _, _, late = jax.jit(lambda carry: jax.lax.fori_loop(0, updates, step, carry))(start)
    return policy, float(jnp.exp(log_alpha)), float(late) / (updates // 10) / DIM


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_sharp_bandit_binds_the_running_cost() -> None:
    """Q = 2 logsumexp: the cost settles at its limit of 4 nats a dimension, alpha near 1 to 3, steps grow."""
    policy, alpha, running = learn(2.0, 5000)
    assert running == pytest.approx(4.0, abs=0.15)
    assert 1.0 < alpha < 3.0
    assert float(jax.nn.softplus(policy.raw_scale)) > 0.15


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_flat_bandit_lowers_the_temperature() -> None:
    """Q a hundred times smaller: alpha falls towards 0.01 and the cost climbs to 3.7 to 3.8, still below its limit."""
    _, alpha, running = learn(0.02, 12_000)
    assert 0.003 < alpha < 0.03
    assert 3.6 < running < 4.1
