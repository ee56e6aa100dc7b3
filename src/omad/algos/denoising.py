"""What MADPMD and MASDAC share: DDPM policies, twin scalar critics, sampling, gradient steps and their delays.

The two differ in how the samples are made and weighted on which policies are regressed; their own files say how.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from omad.algos.configs.denoising import DenoisingConfig
from omad.algos.critics import JointInput, fit_twins, init_twins, joint_input, twin_values
from omad.algos.delayed import delayed_update
from omad.diffusion import ddpm
from omad.nets import Mlp, NoiseNet, mish, scale_last_layer
from omad.ops import td
from omad.ops.entropy import gaussian_entropy
from omad.policies import DdpmPolicy, agent_noise, sample_ddpm
from omad.tree import descend, each, global_norm, polyak, start
from omad.types import Batch, EnvSpec, GlobalState, Mean, Metrics, TeamAction, TeamObs


class ValueStats(eqx.Module):
    """Running mean and standard deviation of values: carried, not trained."""

    mean: Float[Array, "*s"]
    std: Float[Array, "*s"]


class DenoisingState(eqx.Module):
    """Everything that is learned or carried along; leading axes are agents (actors) and twins (critics)."""

    actors: NoiseNet
    actors_target: NoiseNet
    """Polyak copies of the actors; these act."""
    critics: Mlp
    critics_target: Mlp
    log_alpha: Float[Array, ""]
    value_stats: ValueStats | None
    """Of values of the samples that policies are regressed on; None where weights do not need them."""
    actor_opt: optax.OptState
    critic_opt: optax.OptState
    alpha_opt: optax.OptState


class DiffusionLearner(NamedTuple):
    """Pure functions that both algorithms are put together from, for one task."""

    schedule: ddpm.Schedule
    init: Callable[[Key[Array, ""], bool], DenoisingState]
    """(key, whether value statistics are carried) -> all learnable state."""
    act: Callable[[DdpmPolicy, Float[Array, "*b agent obs"], Key[Array, ""], bool], Float[Array, "*b agent act"]]
    """As in `Algorithm`: one chain an agent, from its own row alone."""
    policy: Callable[[DenoisingState], DdpmPolicy]
    """What acts: Polyak copies of the actors and the size of their noise."""
    sample_actions: Callable[..., TeamAction]
    """(learner, obs, state, key) -> joint actions for training: online actors, noise added."""
    critic_input: JointInput
    """(obs, state, actions) -> what critics read; actions come last, agent after agent."""
    min_q: Callable[..., Float[Array, " batch"]]
    """(critics, obs, state, actions) -> the lower of the twins' values, of scaled rewards."""
    predict_noise: Callable[..., TeamAction]
    """(actors, obs, noised actions, steps) -> noise, each agent's from its own row and action."""
    update_critics: Callable[..., tuple[DenoisingState, Metrics]]
    """(learner, batch, next actions) -> one gradient step on both critics."""
    update_actors: Callable[..., tuple[DenoisingState, Metrics]]
    """(learner, gradients, actions) -> one step of all actors; then all Polyak copies follow."""
    delayed_updates: Callable[..., tuple[DenoisingState, Metrics]]
    """(count, update, learner) -> policies updated where it is due, then the temperature where it is."""


def actor_rate(config: DenoisingConfig) -> optax.ScalarOrSchedule:
    """Adam step size of the actors by the number of policy updates: constant, then falling linearly, then constant."""
    if not config.actor_decay_steps:
        return config.actor_lr
    return optax.linear_schedule(
        config.actor_lr, config.actor_lr_end, config.actor_decay_steps, config.actor_decay_begin
    )


def excess_entropy(log_alpha: Float[Array, ""], config: DenoisingConfig) -> Float[Array, ""]:
    """How much more entropy a dimension of the added noise has than it should, 1/2 log(2 pi e (0.1 alpha)^2) + 0.9.

    It is the slope that log alpha descends, so alpha settles where it is zero, at 0.98378.
    """
    return gaussian_entropy(config.noise_scale * jnp.exp(log_alpha)) - config.target_entropy_per_dim


def make_diffusion_learner(
    config: DenoisingConfig, spec: EnvSpec, critic_tx: optax.GradientTransformation
) -> DiffusionLearner:
    """The shared functions for a task of the given sizes, critics stepping by the given optimiser."""
    n_agents, steps, act_dim = spec.n_agents, config.denoising_steps, spec.act_dim
    mask = jnp.asarray(spec.act_mask, float)
    schedule = ddpm.linear_schedule(steps, config.beta_scale)
    critic_input = joint_input(spec, config.critic_input)
    actor_tx, alpha_tx = each(optax.flatten(optax.adam(actor_rate(config)))), optax.adam(config.alpha_lr)

    # ---------------------------------------------------------------- state

    def init_actor(key: Key[Array, ""]) -> NoiseNet:
        return NoiseNet.init(key, act_dim, spec.obs_dim, config.time_width, config.actor_width, config.actor_layers)

    def init(key: Key[Array, ""], with_value_stats: bool) -> DenoisingState:
        actor_key, critic_key = jax.random.split(key)
        actors = jax.vmap(init_actor)(jax.random.split(actor_key, n_agents))
        critics = init_twins(critic_key, critic_input.size, config.critic_width, config.critic_layers, mish)
        critics = scale_last_layer(critics)
        log_alpha = jnp.full((), math.log(config.alpha_init), float)
        return DenoisingState(
            actors, actors, critics, critics, log_alpha,
            ValueStats(jnp.zeros((), float), jnp.ones((), float)) if with_value_stats else None,
            start(actor_tx, actors), start(critic_tx, critics), start(alpha_tx, log_alpha),
        )  # fmt: skip

    # ---------------------------------------------------------------- acting

    def sample_joint(
        nets: NoiseNet, obs: TeamObs, noise: Float[Array, "agent points batch act"]
    ) -> Float[Array, "agent batch act"]:
        """Every agent's actions, each from its own row alone; the last of the draws is left for exploration."""
        sample = lambda net, row, draws, real: sample_ddpm(net, row, draws, real, schedule, config.prior_scale)  # noqa: E731
        return jax.vmap(sample, in_axes=(0, 1, 0, 0))(nets, obs, noise[:, :-1], mask)

    def add_noise(
        action: Float[Array, "agent batch act"],
        noise_std: Float[Array, " agent"],
        noise: Float[Array, "agent points batch act"],
    ) -> TeamAction:
        """Actions plus the last of the draws, back in [-1, 1]."""
        extra = noise_std[:, None, None] * noise[:, -1] * mask[:, None]
        return jnp.moveaxis(jnp.clip(action + extra, -1.0, 1.0), 0, 1)

    def noise_std(log_alpha: Float[Array, ""]) -> Float[Array, " agent"]:
        return jnp.full(n_agents, config.noise_scale * jnp.exp(log_alpha))

    def act(
        policy: DdpmPolicy, obs: Float[Array, "*b agent obs"], key: Key[Array, ""], explore: bool
    ) -> Float[Array, "*b agent act"]:
        """Sample the chains and add noise (explore), or follow them without any noise from x_T = 0."""
        flat = obs.reshape(-1, *obs.shape[-2:])
        noise = agent_noise(key, n_agents, steps, flat.shape[0], act_dim)
        noise = noise if explore else jnp.zeros_like(noise)
        action = add_noise(sample_joint(policy.net, flat, noise), policy.noise_std, noise)
        return action.reshape(*obs.shape[:-1], act_dim)

    def sample_actions(learner: DenoisingState, obs: TeamObs, state: GlobalState, key: Key[Array, ""]) -> TeamAction:
        def once(key: Key[Array, ""]) -> tuple[Float[Array, "agent batch act"], Float[Array, "agent points batch act"]]:
            noise = agent_noise(key, n_agents, steps, obs.shape[0], act_dim)
            return sample_joint(learner.actors, obs, noise), noise

        if config.target_samples == 1:
            action, noise = once(key)
        else:
            actions, noises = jax.vmap(once)(jax.random.split(key, config.target_samples))
            q = jax.vmap(lambda a: min_q(learner.critics, obs, state, jnp.moveaxis(a, 0, 1)))(actions)
            best = jnp.argmax(q, axis=0)
            action, noise = jnp.take_along_axis(actions, best[None, None, :, None], axis=0)[0], noises[0]
        return add_noise(action, noise_std(learner.log_alpha), noise)

    # ---------------------------------------------------------------- critics

    def min_q(critics: Mlp, obs: TeamObs, state: GlobalState, action: TeamAction) -> Float[Array, " batch"]:
        return td.lower(twin_values(critics, critic_input(obs, state, action)))

    def update_critics(
        learner: DenoisingState, batch: Batch, next_action: TeamAction
    ) -> tuple[DenoisingState, Metrics]:
        """Descend the squared error to r + discount min Q_target(s', a'), without an entropy bonus."""
        with jax.named_scope("target"):
            next_q = min_q(learner.critics_target, batch.next_obs, batch.next_state, next_action)
        target = td.target(config.reward_scale * batch.ret, batch.discount, next_q)
        x = critic_input(batch.obs, batch.state, batch.action)
        step = fit_twins(critic_tx, learner.critics, learner.critic_opt, x, target, jnp.square)
        learner = eqx.tree_at(lambda s: (s.critics, s.critic_opt), learner, (step.critics, step.opt))
        unscaled = {
            name: Mean(step.metrics[name].total / config.reward_scale, step.metrics[name].weight)
            for name in ("critic/q", "critic/target")
        }
        return learner, step.metrics | unscaled

    # ---------------------------------------------------------------- actors and temperature

    def predict_noise(actors: NoiseNet, obs: TeamObs, noisy: TeamAction, step: Int[Array, "batch agent"]) -> TeamAction:
        def predict(
            net: NoiseNet,
            obs: Float[Array, "batch obs"],
            noisy: Float[Array, "batch act"],
            step: Int[Array, " batch"],
            real: Float[Array, " act"],
        ) -> Float[Array, "batch act"]:
            projections = net.obs_projection(obs) + net.time_projection(jnp.arange(steps))[step]
            return net(noisy, projections) * real

        return jax.vmap(predict, in_axes=(0, 1, 1, 1, 0), out_axes=1)(actors, obs, noisy, step, mask)

    def update_actors(learner: DenoisingState, grads: NoiseNet, action: TeamAction) -> tuple[DenoisingState, Metrics]:
        actors, actor_opt = descend(actor_tx, grads, learner.actor_opt, learner.actors)
        actors_target = polyak(learner.actors_target, actors, config.tau)
        critics_target = polyak(learner.critics_target, learner.critics, config.tau)
        saturated = jnp.sum((jnp.abs(action) > 0.99) * mask) / (action.shape[0] * spec.joint_act_dim)
        where = lambda s: (s.actors, s.actors_target, s.critics_target, s.actor_opt)  # noqa: E731
        return eqx.tree_at(where, learner, (actors, actors_target, critics_target, actor_opt)), {
            "policy/saturation": Mean.of(saturated),
            "policy/grad_norm": Mean.of(global_norm(grads)),
            "alpha/value": Mean.of(jnp.exp(learner.log_alpha)),
        }

    def update_temperature(learner: DenoisingState) -> DenoisingState:
        """Lower alpha while the added noise has more entropy than its target, raise it while it has less."""
        excess = excess_entropy(learner.log_alpha, config)
        log_alpha, alpha_opt = descend(alpha_tx, excess, learner.alpha_opt, learner.log_alpha)
        return eqx.tree_at(lambda s: (s.log_alpha, s.alpha_opt), learner, (log_alpha, alpha_opt))

    def delayed_updates(
        count: Int[Array, ""],
        update: Callable[[DenoisingState], tuple[DenoisingState, Metrics]],
        learner: DenoisingState,
    ) -> tuple[DenoisingState, Metrics]:
        learner, metrics = delayed_update(count % config.actor_every == 0, update, learner)
        if config.alpha_mode == "auto":
            due = count % config.alpha_every == 0
            learner = jax.lax.cond(due, update_temperature, lambda learner: learner, learner)
        return learner, metrics

    return DiffusionLearner(
        schedule=schedule,
        init=init,
        act=act,
        policy=lambda learner: DdpmPolicy(learner.actors_target, noise_std(learner.log_alpha)),
        sample_actions=sample_actions,
        critic_input=critic_input,
        min_q=min_q,
        predict_noise=predict_noise,
        update_critics=update_critics,
        update_actors=update_actors,
        delayed_updates=delayed_updates,
    )
