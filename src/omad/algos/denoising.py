"""What MADPMD and MASDAC share: settings, policies that are DDPMs, twin scalar critics, draws, steps and cadences.

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

from omad.algos.cadence import policy_update_if
from omad.algos.configs.denoising import DenoisingConfig
from omad.algos.joint import (
    JointInput,
    fit,
    joint_input,
    twin_values,
)
from omad.diffusion import ddpm
from omad.keys import normal
from omad.nets import Mlp, NoiseNet, mish, quiet
from omad.ops import td
from omad.ops.entropy import gaussian_entropy
from omad.tree import descend, each, global_norm, polyak, start
from omad.types import Batch, EnvSpec, Mean, Metrics

__all__ = [
    "DdpmPolicy",
    "DenoisingConfig",
    "DenoisingState",
    "Moments",
    "Parts",
    "actor_rate",
    "chain",
    "excess_entropy",
    "make_parts",
]


class DdpmPolicy(eqx.Module):
    """What one agent needs to act: its noise network and the size of its exploration noise."""

    net: NoiseNet
    spread: Float[Array, "*s"]
    """Standard deviation of the Gaussian that is added to actions when exploring."""


class Moments(eqx.Module):
    """Running mean and standard deviation of values: carried, not trained."""

    mean: Float[Array, "*s"]
    std: Float[Array, "*s"]


class DenoisingState(eqx.Module):
    """Everything that is learned or carried along; leading axes are agents (actors) and twins (critics)."""

    actors: NoiseNet
    acting: NoiseNet
    """Polyak copies of the actors, which act."""
    critics: Mlp
    targets: Mlp
    """Polyak copies of the critics."""
    log_alpha: Float[Array, ""]
    moments: Moments | None
    """Of values of the samples that policies are regressed on; None where weights do not need them."""
    actor_opt: optax.OptState
    critic_opt: optax.OptState
    alpha_opt: optax.OptState


class Parts(NamedTuple):
    """Pure functions that both algorithms are put together from, for one task."""

    schedule: ddpm.Schedule
    init: Callable[[Key[Array, ""], bool], DenoisingState]
    """(key, whether running moments are carried) -> all learnable state."""
    act: Callable[[DdpmPolicy, Float[Array, "*b agent obs"], Key[Array, ""], bool], Float[Array, "*b agent act"]]
    """As in `Algorithm`: one chain an agent, from its own row alone."""
    policy: Callable[[DenoisingState], DdpmPolicy]
    """What acts: Polyak copies of the actors and the size of their noise."""
    draw: Callable[..., Float[Array, "batch agent act"]]
    """(learner, obs, state, key) -> joint actions for training: online actors, noise added."""
    critic_rows: JointInput
    """(obs, state, actions) -> what critics read; actions come last, agent after agent."""
    min_q: Callable[..., Float[Array, " batch"]]
    """(critics, obs, state, actions) -> the lower of the twins' values, of scaled rewards."""
    predict: Callable[..., Float[Array, "batch agent act"]]
    """(actors, obs, noised actions, steps) -> noise, each agent's from its own row and action."""
    step_critics: Callable[..., tuple[DenoisingState, Metrics]]
    """(learner, batch, next actions) -> one gradient step on both critics."""
    step_policies: Callable[..., tuple[DenoisingState, Metrics]]
    """(learner, gradients, actions) -> one step of all actors; then all Polyak copies follow."""
    on_cadence: Callable[..., tuple[DenoisingState, Metrics]]
    """(count, update, learner) -> policies updated if it is their turn, then the temperature if it is its own."""


def chain(
    net: NoiseNet,
    obs: Float[Array, "batch obs"],
    noise: Float[Array, "step batch act"],
    mask: Float[Array, " act"],
    schedule: ddpm.Schedule,
    prior_scale: float,
) -> Float[Array, "batch act"]:
    """Sample one agent's actions on its own observations.

    Nothing of other agents comes in: decentralised execution is visible in the signature. The observation's and the
    time's share of the network's first layer are computed once, not once a step.
    """
    seen = net.observation_share(obs)
    shares = net.time_share(jnp.arange(schedule.steps))
    return ddpm.sample(lambda x, share: net(x, seen + share), shares, schedule, noise, mask, prior_scale)


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


def make_parts(config: DenoisingConfig, spec: EnvSpec, critic_tx: optax.GradientTransformation) -> Parts:
    """The shared parts for a task of the given sizes, critics stepping by the given optimiser."""
    n_agents, steps = spec.n_agents, config.denoising_steps
    mask = jnp.asarray(spec.act_mask, float)
    schedule = ddpm.linear_schedule(steps, config.beta_scale)
    rows = joint_input(spec, config.critic_input)
    critic_sizes = [rows.size, *[config.critic_width] * config.critic_layers, 1]
    actor_tx, alpha_tx = each(optax.flatten(optax.adam(actor_rate(config)))), optax.adam(config.alpha_lr)

    # ---------------------------------------------------------------- state

    def init_actor(key: Key[Array, ""]) -> NoiseNet:
        return NoiseNet.init(
            key, spec.act_dim, spec.obs_dim, config.time_width, config.actor_width, config.actor_layers
        )

    def init_critic(key: Key[Array, ""]) -> Mlp:
        return quiet(Mlp.init(key, critic_sizes, mish))

    def init(key: Key[Array, ""], with_moments: bool) -> DenoisingState:
        actor_key, critic_key = jax.random.split(key)
        actors = jax.vmap(init_actor)(jax.random.split(actor_key, n_agents))
        critics = jax.vmap(init_critic)(jax.random.split(critic_key, 2))
        log_alpha = jnp.full((), math.log(config.alpha_init), float)
        return DenoisingState(
            actors, actors, critics, critics, log_alpha,
            Moments(jnp.zeros((), float), jnp.ones((), float)) if with_moments else None,
            start(actor_tx, actors), start(critic_tx, critics), start(alpha_tx, log_alpha),
        )  # fmt: skip

    # ---------------------------------------------------------------- acting

    def noise_for(key: Key[Array, ""], batch: int) -> Float[Array, "agent points batch act"]:
        """T draws for each agent's chain and one for what is added to its action."""
        keys = jax.random.split(key, n_agents)
        return jax.vmap(lambda k: normal(k, (steps + 1, batch, spec.act_dim)))(keys)

    def chains(
        nets: NoiseNet, obs: Float[Array, "batch agent obs"], noise: Float[Array, "agent points batch act"]
    ) -> Float[Array, "agent batch act"]:
        """Every agent's actions, each from its own row alone, without the last of the draws."""
        one = lambda net, row, draws, real: chain(net, row, draws, real, schedule, config.prior_scale)  # noqa: E731
        return jax.vmap(one, in_axes=(0, 1, 0, 0))(nets, obs, noise[:, :-1], mask)

    def perturbed(
        action: Float[Array, "agent batch act"],
        spread: Float[Array, " agent"],
        noise: Float[Array, "agent points batch act"],
    ) -> Float[Array, "batch agent act"]:
        """Actions plus noise, back in [-1, 1]."""
        extra = spread[:, None, None] * noise[:, -1] * mask[:, None]
        return jnp.moveaxis(jnp.clip(action + extra, -1.0, 1.0), 0, 1)

    def spread(log_alpha: Float[Array, ""]) -> Float[Array, " agent"]:
        return jnp.full(n_agents, config.noise_scale * jnp.exp(log_alpha))

    def act(
        policy: DdpmPolicy, obs: Float[Array, "*b agent obs"], key: Key[Array, ""], explore: bool
    ) -> Float[Array, "*b agent act"]:
        """Sample the chains and add noise (explore), or follow them without any noise from x_T = 0."""
        flat = obs.reshape(-1, *obs.shape[-2:])
        noise = noise_for(key, flat.shape[0])
        noise = noise if explore else jnp.zeros_like(noise)
        action = perturbed(chains(policy.net, flat, noise), policy.spread, noise)
        return action.reshape(*obs.shape[:-1], spec.act_dim)

    def draw(
        learner: DenoisingState,
        obs: Float[Array, "batch agent obs"],
        state: Float[Array, "batch state"],
        key: Key[Array, ""],
    ) -> Float[Array, "batch agent act"]:
        def one(key: Key[Array, ""]) -> tuple[Float[Array, "agent batch act"], Float[Array, "agent points batch act"]]:
            noise = noise_for(key, obs.shape[0])
            return chains(learner.actors, obs, noise), noise

        if config.target_samples == 1:
            action, noise = one(key)
        else:
            actions, noises = jax.vmap(one)(jax.random.split(key, config.target_samples))
            value = jax.vmap(lambda a: min_q(learner.critics, obs, state, jnp.moveaxis(a, 0, 1)))(actions)
            best = jnp.argmax(value, axis=0)
            action, noise = jnp.take_along_axis(actions, best[None, None, :, None], axis=0)[0], noises[0]
        return perturbed(action, spread(learner.log_alpha), noise)

    # ---------------------------------------------------------------- critics

    def min_q(
        critics: Mlp,
        obs: Float[Array, "batch agent obs"],
        state: Float[Array, "batch state"],
        action: Float[Array, "batch agent act"],
    ) -> Float[Array, " batch"]:
        return td.lower(twin_values(critics, rows(obs, state, action)))

    def unscaled(mean: Mean) -> Mean:
        """A value of scaled rewards, as one of rewards."""
        return Mean(mean.total / config.reward_scale, mean.weight)

    def step_critics(
        learner: DenoisingState, batch: Batch, next_action: Float[Array, "batch agent act"]
    ) -> tuple[DenoisingState, Metrics]:
        """Descend the squared error to r + discount min Q_target(s', a'), without an entropy bonus."""
        with jax.named_scope("target"):
            bootstrap = min_q(learner.targets, batch.next_obs, batch.next_state, next_action)
        goal = td.target(config.reward_scale * batch.ret, batch.discount, bootstrap)
        seen = rows(batch.obs, batch.state, batch.action)
        fitted = fit(critic_tx, learner.critics, learner.critic_opt, seen, goal, jnp.square)
        learner = eqx.tree_at(lambda s: (s.critics, s.critic_opt), learner, (fitted.critics, fitted.opt))
        own_units = {name: unscaled(fitted.metrics[name]) for name in ("critic/q", "critic/target")}
        return learner, fitted.metrics | own_units

    # ---------------------------------------------------------------- actors and temperature

    def predict(
        actors: NoiseNet,
        obs: Float[Array, "batch agent obs"],
        noisy: Float[Array, "batch agent act"],
        step: Int[Array, "batch agent"],
    ) -> Float[Array, "batch agent act"]:
        def one(
            net: NoiseNet,
            obs: Float[Array, "batch obs"],
            noisy: Float[Array, "batch act"],
            step: Int[Array, " batch"],
            real: Float[Array, " act"],
        ) -> Float[Array, "batch act"]:
            share = net.observation_share(obs) + net.time_share(jnp.arange(steps))[step]
            return net(noisy, share) * real

        return jax.vmap(one, in_axes=(0, 1, 1, 1, 0), out_axes=1)(actors, obs, noisy, step, mask)

    def step_policies(
        learner: DenoisingState, grads: NoiseNet, action: Float[Array, "batch agent act"]
    ) -> tuple[DenoisingState, Metrics]:
        actors, actor_opt = descend(actor_tx, grads, learner.actor_opt, learner.actors)
        acting = polyak(learner.acting, actors, config.tau)
        targets = polyak(learner.targets, learner.critics, config.tau)
        saturated = jnp.sum((jnp.abs(action) > 0.99) * mask) / (action.shape[0] * spec.joint_act_dim)
        where = lambda s: (s.actors, s.acting, s.targets, s.actor_opt)  # noqa: E731
        return eqx.tree_at(where, learner, (actors, acting, targets, actor_opt)), {
            "policy/saturation": Mean.of(saturated),
            "policy/grad_norm": Mean.of(global_norm(grads)),
            "alpha/value": Mean.of(jnp.exp(learner.log_alpha)),
        }

    def tune(learner: DenoisingState) -> DenoisingState:
        """Lower alpha while the added noise has more entropy than its target, raise it while it has less."""
        excess = excess_entropy(learner.log_alpha, config)
        log_alpha, alpha_opt = descend(alpha_tx, excess, learner.alpha_opt, learner.log_alpha)
        return eqx.tree_at(lambda s: (s.log_alpha, s.alpha_opt), learner, (log_alpha, alpha_opt))

    def on_cadence(
        count: Int[Array, ""],
        update: Callable[[DenoisingState], tuple[DenoisingState, Metrics]],
        learner: DenoisingState,
    ) -> tuple[DenoisingState, Metrics]:
        learner, metrics = policy_update_if(count % config.actor_every == 0, update, learner)
        if config.alpha_mode == "auto":
            learner = jax.lax.cond(count % config.alpha_every == 0, tune, lambda same: same, learner)
        return learner, metrics

    return Parts(
        schedule=schedule,
        init=init,
        act=act,
        policy=lambda learner: DdpmPolicy(learner.acting, spread(learner.log_alpha)),
        draw=draw,
        critic_rows=rows,
        min_q=min_q,
        predict=predict,
        step_critics=step_critics,
        step_policies=step_policies,
        on_cadence=on_cadence,
    )
