"""MASDAC: soft diffusion actor-critic, one diffusion policy an agent, under a joint critic.

Single-agent parent: Ma, Chen, Wang, Li, Dai, "Efficient Online Reinforcement Learning for Diffusion Policy" (SDAC),
ICML 2025, arXiv 2502.00361. Li et al., arXiv 2602.18291 (OMAD) compare with a multi-agent extension of it, of which
no details are public; this is the direct one.

One gradient step on a batch (o, s, a, r, discount, o', s'), rewards scaled:

    every agent i:  a'_i = clip( DDPM(theta_i, o'_i) + 0.1 alpha eps )        no gradient
    target  = r + discount min over twins of Q_target(s', a'_1..a'_N)         no entropy
    critics <- descend  sum over twins of (Q(s, a) - target)^2
    every 2nd step:
        every agent i:  a_i drawn at o_i as a'_i was at o'_i
        every agent i:  t_i uniform,  x_i = noised a_i
                        64 noises eps_m, each of which would make x_i of the action
                            ahat_m = clip( (x_i - sqrt(1 - abar_t) eps_m) / sqrt(abar_t), -1, 1 )
                        w_m = softmax over m of  (5 / alpha) min over twins of Q(s, a_1 .. ahat_m .. a_N)
        all theta_i <- descend  mean[ sum_i sum_m w_m |eps_theta_i(x_i, o_i, t_i) - eps_m|^2 ]
        target critics and acting policies follow slowly
    every 250th step:  log alpha moves so that the added noise has an entropy of -0.9 a dimension

Differences from SDAC's public code: docs/algorithms/masdac.md.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from omad.algos.configs.denoising import MasdacConfig
from omad.algos.delayed import linear_decay
from omad.algos.denoising import DenoisingState, make_diffusion_learner
from omad.diffusion import ddpm
from omad.keys import normal
from omad.nets import Mlp, NoiseNet
from omad.ops import weights
from omad.tree import each
from omad.types import Algorithm, Batch, EnvSpec, Mean, Metrics, TeamAction, TeamObs


def make(config: MasdacConfig, spec: EnvSpec) -> Algorithm:
    """MASDAC for a task of the given sizes.

    Raises:
        UserError: Critics are to read a state that is not there.
    """
    critic_tx = each(optax.flatten(optax.adam(linear_decay(config.critic_lr, config.critic_decay_steps))))
    shared = make_diffusion_learner(config, spec, critic_tx)
    n_agents, act_dim, mask = spec.n_agents, spec.act_dim, spec.act_mask

    def replaced_q(
        critics: Mlp, batch: Batch, action: TeamAction, own: Float[Array, "batch agent sample act"]
    ) -> Float[Array, "batch agent sample"]:
        """Lower value of the twins where one agent's action is another one, for each agent and each such action."""
        x = shared.critic_input(batch.obs, batch.state, action)

        def q_of(critic: Mlp) -> Float[Array, "batch agent sample"]:
            first = critic.layers[0]
            columns = first.weight[-n_agents * act_dim :].reshape(n_agents, act_dim, -1)
            change = jnp.einsum("bnma,nah->bnmh", own - action[:, :, None], columns)
            return critic.rest(first(x)[:, None, None] + change)[..., 0]

        return jax.vmap(q_of)(critics).min(0)

    def policy_loss(
        actors: NoiseNet,
        obs: TeamObs,
        noisy: TeamAction,
        step: Int[Array, "batch agent"],
        noise: Float[Array, "batch agent sample act"],
        weight: Float[Array, "batch agent sample"],
    ) -> Float[Array, ""]:
        """mean[ sum_i sum_m w_m |eps_theta_i(x_i, o_i, t_i) - eps_m|^2 ]."""
        predicted = shared.predict_noise(actors, obs, noisy, step)
        error = jnp.sum(jnp.square(predicted[:, :, None] - noise), axis=-1)
        return jnp.mean(jnp.sum(weight * error, axis=(1, 2)))

    def update_policies(learner: DenoisingState, batch: Batch, key: Key[Array, ""]) -> tuple[DenoisingState, Metrics]:
        """Regress every agent's network on the noises whose reconstructions are worth most."""
        draw_key, step_key, noise_key, samples_key = jax.random.split(key, 4)
        action = shared.sample_actions(learner, batch.obs, batch.state, draw_key)
        step = jax.random.randint(step_key, action.shape[:2], 0, shared.schedule.steps)
        noisy = ddpm.q_sample(shared.schedule, action, step, normal(noise_key, action.shape) * mask)
        shape = (*action.shape[:2], config.reconstructions, act_dim)
        noise = normal(samples_key, shape) * mask[:, None]
        own = jnp.clip(ddpm.predict_x0(shared.schedule, noisy[:, :, None], step[..., None], noise), -1.0, 1.0)
        q = replaced_q(learner.critics, batch, action, own)
        weight = weights.softmax(q, jnp.exp(learner.log_alpha), config.weight_scale)
        loss, grads = jax.value_and_grad(policy_loss)(learner.actors, batch.obs, noisy, step, noise, weight)
        learner, metrics = shared.update_actors(learner, grads, action)
        sampled_q = shared.min_q(learner.critics, batch.obs, batch.state, action)
        return learner, metrics | {
            "policy/loss": Mean.of(loss),
            "policy/q": Mean.of(sampled_q.mean() / config.reward_scale),
            "policy/ess_fraction": Mean.of(weights.ess_fraction(weight).mean()),
        }

    def update(
        learner: DenoisingState, batch: Batch, key: Key[Array, ""], count: Int[Array, ""]
    ) -> tuple[DenoisingState, Metrics]:
        next_key, policy_key = jax.random.split(key)
        with jax.named_scope("target"):
            next_action = shared.sample_actions(learner, batch.next_obs, batch.next_state, next_key)
        learner, metrics = shared.update_critics(learner, batch, next_action)
        learner, policy_metrics = shared.delayed_updates(
            count, lambda one: update_policies(one, batch, policy_key), learner
        )
        return learner, metrics | policy_metrics

    return Algorithm(
        init=lambda key: shared.init(key, False),
        policy=shared.policy,
        act=shared.act,
        update=update,
        gamma=config.gamma,
        n_step=config.n_step,
    )
