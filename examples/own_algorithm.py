"""An algorithm of your own in one file: every agent repeats one action, which drifts to what has paid.

cd examples && python own_algorithm.py
"""

import dataclasses

import jax
import jax.numpy as jnp

import omad
from omad.types import Algorithm, Mean


@dataclasses.dataclass(frozen=True)
class DriftConfig:
    """Hyperparameters; each is a flag of `omad train` and a keyword of `omad.train`."""

    gamma: float = 0.9
    """Discount factor."""
    pace: float = 0.05
    """Step size."""


def make(config, spec):
    """An algorithm is a record of pure functions; `learner` may be any pytree of arrays."""
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


def main(run_dir=None, preset="matched", **fields):
    """Registered by import path; an installed package adds an entry point `omad.algorithms` instead."""
    omad.register_algorithm("drift", "own_algorithm:DriftConfig")
    return omad.train("probe/relay", "drift", preset, run_dir, **fields)


if __name__ == "__main__":
    run = main(total_steps=10_000)
    print(run.metrics()["policy/step"])
