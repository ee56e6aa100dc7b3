"""MADPMD: diffusion policies by mirror descent, one an agent, under a joint critic.

Single-agent parent: Ma, Chen, Wang, Li, Dai, "Efficient Online Reinforcement Learning for Diffusion Policy" (DPMD),
ICML 2025, arXiv 2502.00361. Li et al., arXiv 2602.18291 (OMAD) compare with a multi-agent extension of it, of which
no details are public; this is the direct one.

One gradient step on a batch (o, s, a, r, discount, o', s'), rewards scaled:

    every agent i:  a'_i = clip( DDPM(theta_i, o'_i) + 0.1 alpha eps )        no gradient
    target  = r + discount min over twins of Q_target(s', a'_1..a'_N)         no entropy
    critics <- descend  sum over twins of (Q(s, a) - target)^2
    q  = min over twins of Q(s', a'_1..a'_N);   w = exp( clip((q - mean) / std, -3, 3) / alpha )
    every 2nd step:
        every agent i:  t_i uniform,  x_i = noised a'_i
        all theta_i <- descend  mean[ w sum_i |eps_theta_i(x_i, o'_i, t_i) - eps_i|^2 ]      the same w for all
        target critics and acting policies follow slowly
    mean, std <- 0.1 % towards those of q in this batch
    every 250th step:  log alpha moves so that the added noise has an entropy of -0.9 a dimension

Differences from DPMD's public code: docs/algorithms/madpmd.md. The numbers published for DPMD come from code with the
two defects of `reference_weights` and `reference_double_step`; those of this project from the defaults.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from omad.algos.configs.denoising import MadpmdConfig
from omad.algos.delayed import linear_decay
from omad.algos.denoising import DenoisingState, ValueStats, make_diffusion_learner
from omad.diffusion import ddpm
from omad.keys import normal
from omad.nets import NoiseNet
from omad.ops import weights
from omad.tree import each
from omad.types import Algorithm, Batch, EnvSpec, Mean, Metrics, TeamAction, TeamObs


def twice(optimiser: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimiser that takes two steps with each gradient."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        first, state = optimiser.update(updates, state, params)
        second, state = optimiser.update(updates, state, params)
        return jax.tree.map(jnp.add, first, second), state

    return optax.GradientTransformation(optimiser.init, update)


def critic_optimiser(config: MadpmdConfig) -> optax.GradientTransformation:
    """Adam, applied once or twice with each gradient; its schedule counts Adam's steps."""
    applied = 2 if config.reference_double_step else 1
    adam = optax.flatten(optax.adam(linear_decay(config.critic_lr, applied * config.critic_decay_steps)))
    return twice(adam) if config.reference_double_step else adam


def make(config: MadpmdConfig, spec: EnvSpec) -> Algorithm:
    """MADPMD for a task of the given sizes.

    Raises:
        UserError: Critics are to read a state that is not there.
    """
    shared = make_diffusion_learner(config, spec, each(critic_optimiser(config)))
    mask = spec.act_mask

    def policy_loss(
        actors: NoiseNet,
        obs: TeamObs,
        action: TeamAction,
        weight: Float[Array, " batch"],
        step: Int[Array, "batch agent"],
        noise: TeamAction,
    ) -> Float[Array, ""]:
        """mean[ w sum_i |eps_theta_i(x_i, o_i, t_i) - eps_i|^2 ], x_i being a_i after t_i noising steps."""
        noisy = ddpm.q_sample(shared.schedule, action, step, noise)
        error = jnp.sum(jnp.square(shared.predict_noise(actors, obs, noisy, step) - noise), axis=(1, 2))
        return jnp.mean(weight * error)

    def update_policies(
        learner: DenoisingState, obs: TeamObs, action: TeamAction, q: Float[Array, " batch"], key: Key[Array, ""]
    ) -> tuple[DenoisingState, Metrics]:
        """Regress every agent's network on its own part of the joint action, weighted by the joint value."""
        assert learner.value_stats is not None
        step_key, noise_key = jax.random.split(key)
        step = jax.random.randint(step_key, action.shape[:2], 0, shared.schedule.steps)
        noise = normal(noise_key, action.shape) * mask
        weight = weights.mirror_descent(
            q, learner.value_stats.mean, learner.value_stats.std, jnp.exp(learner.log_alpha),
            config.score_limit, config.reference_weights,
        )  # fmt: skip
        loss, grads = jax.value_and_grad(policy_loss)(learner.actors, obs, action, weight, step, noise)
        learner, metrics = shared.update_actors(learner, grads, action)
        return learner, metrics | {
            "policy/loss": Mean.of(loss),
            "policy/q": Mean.of(q.mean() / config.reward_scale),
            "policy/q_std": Mean.of(q.std() / config.reward_scale),
            "policy/ess_fraction": Mean.of(weights.ess_fraction(weight)),
        }

    def update_stats(stats: ValueStats, q: Float[Array, " batch"]) -> ValueStats:
        """The running statistics, moved a little towards those of a batch."""
        rate = config.moments_rate
        return ValueStats(
            mean=stats.mean + rate * (q.mean() - stats.mean), std=stats.std + rate * (q.std() - stats.std)
        )

    def update(
        learner: DenoisingState, batch: Batch, key: Key[Array, ""], count: Int[Array, ""]
    ) -> tuple[DenoisingState, Metrics]:
        next_key, policy_key = jax.random.split(key)
        with jax.named_scope("target"):
            next_action = shared.sample_actions(learner, batch.next_obs, batch.next_state, next_key)
        learner, metrics = shared.update_critics(learner, batch, next_action)
        q = shared.min_q(learner.critics, batch.next_obs, batch.next_state, next_action)
        learner, policy_metrics = shared.delayed_updates(
            count, lambda one: update_policies(one, batch.next_obs, next_action, q, policy_key), learner
        )
        assert learner.value_stats is not None
        learner = eqx.tree_at(lambda s: s.value_stats, learner, update_stats(learner.value_stats, q))
        return learner, metrics | policy_metrics

    return Algorithm(
        init=lambda key: shared.init(key, True),
        policy=shared.policy,
        act=shared.act,
        update=update,
        gamma=config.gamma,
        n_step=config.n_step,
    )
