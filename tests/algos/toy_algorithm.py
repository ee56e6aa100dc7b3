"""An algorithm outside the package: each agent always does the same, and drifts to what has paid."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from omad.types import Algorithm, EnvSpec, Mean


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    gamma: float = 0.9
    """Discount factor."""
    pace: float = 0.1
    """Step size."""


def make(config: ToyConfig, spec: EnvSpec) -> Algorithm:
    mask = jnp.asarray(spec.act_mask, float)

    def act(policy, obs, key, explore):
        noise = 0.1 * jax.random.normal(key, (*obs.shape[:-1], spec.act_dim)) if explore else 0.0
        return jnp.tanh(policy + noise) * mask + jnp.zeros_like(obs[..., :1])

    def update(learner, batch, key, count):
        advantage = batch.ret - batch.ret.mean()
        step = jnp.mean(advantage[:, None, None] * batch.action, axis=0)
        return learner + config.pace * step, {"policy/step": Mean.of(jnp.abs(step).mean())}

    return Algorithm(
        init=lambda key: 0.1 * jax.random.normal(key, mask.shape),
        policy=lambda learner: learner,
        act=act,
        update=update,
        gamma=config.gamma,
        n_step=1,
    )
