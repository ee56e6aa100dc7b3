"""HASAC: heterogeneous-agent soft actor-critic.

Paper: Liu, Zhong, Hu, Fu, Fu, Chang, Yang, "Maximum Entropy Heterogeneous-Agent Reinforcement Learning", ICLR 2024
(arXiv 2306.10715). Single-agent parent: Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", arXiv
1812.05905, 2018.

One gradient step on a batch (o, s, a, R, discount, o', s'), where R sums the rewards of n steps:

    every agent i:  a'_i, log pi'_i = sample(theta_i, o'_i)                                no gradient
    y = R + discount (min Q'(s', a') - alpha_c sum_i log pi'_i)
    critics  <- descend  sum over twins of (Q(s, a) - y)^2 / 2;   targets <- (1 - tau) target + tau online
    every agent i, in a fresh random order:
        theta_i      <- descend  alpha_i log pi_i - min Q(s, a_1 .. a_i .. a_N)    those before i: newest actions
        log alpha_i  <- descend  -log alpha_i (log pi_i - d_i)
    log alpha_c      <- descend  -log alpha_c sum_i (log pi_i - d_i)

Differences from HARL, the authors' code: docs/algorithms/hasac.md.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from omad.algos.configs.harl import HasacConfig
from omad.algos.critics import fit_twins, init_twins, joint_input, regression_loss, twin_values
from omad.algos.delayed import delayed_update, linear_decay
from omad.algos.sequential import sequential_update
from omad.keys import normal
from omad.nets import Mlp
from omad.ops import td
from omad.policies import GaussianPolicy, GaussianSample, sample_gaussian
from omad.tree import descend, each, polyak, start
from omad.types import Algorithm, Batch, EnvSpec, Mean, Metrics, TeamAction


class Temperatures(eqx.Module):
    """Log temperatures: one an agent for its own loss, one for the critics' targets."""

    log_agent: Float[Array, " agent"]
    log_critic: Float[Array, ""]


class HasacState(eqx.Module):
    """Everything that is learned or carried along; leading axes are agents (actors) and twins (critics)."""

    actors: GaussianPolicy
    critics: Mlp
    critics_target: Mlp
    temperatures: Temperatures
    actor_opt: optax.OptState
    """An entry an agent, counters included."""
    critic_opt: optax.OptState
    alpha_opt: optax.OptState


def make(config: HasacConfig, spec: EnvSpec) -> Algorithm:
    """HASAC for a task of the given sizes.

    Raises:
        UserError: Critics are to read a state that is not there.
    """
    n_agents, mask = spec.n_agents, jnp.asarray(spec.act_mask, float)
    target_entropy = config.target_entropy_per_dim * jnp.asarray(spec.act_dims, float)
    critic_input = joint_input(spec, config.critic_input)
    error_loss = regression_loss(config.critic_loss, config.huber_delta)
    actor_tx = optax.flatten(optax.adam(linear_decay(config.actor_lr, config.lr_decay_steps, config.actor_every)))
    critic_tx = each(optax.flatten(optax.adam(linear_decay(config.critic_lr, config.lr_decay_steps))))
    alpha_tx = optax.adam(config.alpha_lr)

    def init_actor(key: Key[Array, ""]) -> GaussianPolicy:
        return GaussianPolicy.init(
            key, spec.obs_dim, spec.act_dim, config.actor_width, config.actor_layers, config.actor_final
        )

    def init(key: Key[Array, ""]) -> HasacState:
        actor_key, critic_key = jax.random.split(key)
        actors = jax.vmap(init_actor)(jax.random.split(actor_key, n_agents))
        critics = init_twins(critic_key, critic_input.size, config.critic_width, config.critic_layers)
        log_alpha = math.log(max(config.alpha_init, 1e-30))
        temperatures = Temperatures(jnp.full(n_agents, log_alpha, float), jnp.asarray(log_alpha, float))
        return HasacState(
            actors, critics, critics, temperatures,
            start(each(actor_tx), actors), start(critic_tx, critics), start(alpha_tx, temperatures),
        )  # fmt: skip

    # ---------------------------------------------------------------- acting

    def sample(
        actors: GaussianPolicy, obs: Float[Array, "*b agent obs"], noise: Float[Array, "*b agent act"]
    ) -> tuple[Float[Array, "*b agent act"], Float[Array, "*b agent"]]:
        """Every agent's actions and their log densities, each from its own row alone."""

        def sample_one(actor: GaussianPolicy, *inputs: Any) -> tuple[Any, Any]:
            sample = sample_gaussian(actor, *inputs)
            return sample.action, sample.log_prob

        return jax.vmap(sample_one, in_axes=(0, -2, -2, 0), out_axes=(-2, -1))(actors, obs, noise, mask)

    def act(
        actors: GaussianPolicy, obs: Float[Array, "*b agent obs"], key: Key[Array, ""], explore: bool
    ) -> Float[Array, "*b agent act"]:
        """Sampled actions (explore), or tanh of the means."""
        noise = normal(key, (*obs.shape[:-1], spec.act_dim))
        return sample(actors, obs, noise if explore else jnp.zeros_like(noise))[0]

    # ---------------------------------------------------------------- actors and temperatures

    def temperature_loss(temperatures: Temperatures, log_prob: Float[Array, " agent"]) -> Float[Array, ""]:
        """Dual losses of all temperatures: each agent's own, and that of the joint policy for the critics."""
        own = td.dual(temperatures.log_agent, log_prob, target_entropy)
        return own.sum() + td.dual(temperatures.log_critic, log_prob.sum(), target_entropy.sum())

    def update_policies(learner: HasacState, batch: Batch, key: Key[Array, ""]) -> tuple[HasacState, Metrics]:
        """One step of the actors, one after the other, then one of the temperatures."""
        alpha = jnp.exp(learner.temperatures.log_agent)

        def act_one(actor: GaussianPolicy, agent: Int[Array, ""], key: Key[Array, ""]) -> tuple[Any, GaussianSample]:
            noise = normal(key, (batch.ret.shape[0], spec.act_dim))
            sample = sample_gaussian(actor, batch.obs[:, agent], noise, mask[agent])
            return sample.action, sample

        def policy_loss(joint: TeamAction, own: GaussianSample, agent: Int[Array, ""]) -> tuple[Any, dict[str, Any]]:
            """mean[ alpha_i log pi_i - min Q(s, a) ]."""
            q = td.lower(twin_values(learner.critics, critic_input(batch.obs, batch.state, joint)))
            loss = -jnp.mean(td.soft_value(q, own.log_prob, alpha[agent]))
            return loss, {
                "loss": loss,
                "q": q.mean(),
                "log_prob": own.log_prob.mean(),
                "std": own.std.sum() / own.std.shape[0],
                "saturated": jnp.sum(jnp.abs(own.action) > 0.99) / own.action.shape[0],
            }

        done = sequential_update(actor_tx, learner.actors, learner.actor_opt, act_one, policy_loss, key)
        temperatures, alpha_opt = learner.temperatures, learner.alpha_opt
        if config.alpha_mode == "auto":
            slope = jax.grad(temperature_loss)(temperatures, done.aux["log_prob"])
            temperatures, alpha_opt = descend(alpha_tx, slope, alpha_opt, temperatures)
        aux, dims = done.aux, spec.joint_act_dim
        metrics = {
            "policy/loss": Mean.of(aux["loss"].mean()),
            "policy/q": Mean.of(aux["q"].mean()),
            "policy/entropy": Mean.of(-aux["log_prob"].sum() / dims),
            "policy/std": Mean.of(aux["std"].sum() / dims),
            "policy/saturation": Mean.of(aux["saturated"].sum() / dims),
            "policy/grad_norm": Mean.of(done.grad_norm),
            "alpha/value": Mean.of(jnp.exp(temperatures.log_agent).mean()),
            "alpha/critic": Mean.of(jnp.exp(temperatures.log_critic)),
        }
        return dataclasses.replace(
            learner, actors=done.actors, actor_opt=done.opts, temperatures=temperatures, alpha_opt=alpha_opt
        ), metrics

    # ---------------------------------------------------------------- one gradient step

    def update(
        learner: HasacState, batch: Batch, key: Key[Array, ""], count: Int[Array, ""]
    ) -> tuple[HasacState, Metrics]:
        next_key, policy_key = jax.random.split(key)
        with jax.named_scope("target"):
            noise = normal(next_key, batch.action.shape)
            next_action, log_prob = sample(learner.actors, batch.next_obs, noise)
            next_x = critic_input(batch.next_obs, batch.next_state, next_action)
            next_q = td.lower(twin_values(learner.critics_target, next_x))
            next_value = td.soft_value(next_q, log_prob.sum(-1), jnp.exp(learner.temperatures.log_critic))
        target = td.target(batch.ret, batch.discount, next_value)
        x = critic_input(batch.obs, batch.state, batch.action)
        step = fit_twins(critic_tx, learner.critics, learner.critic_opt, x, target, error_loss)
        learner = dataclasses.replace(
            learner,
            critics=step.critics,
            critic_opt=step.opt,
            critics_target=polyak(learner.critics_target, step.critics, config.tau),
        )
        learner, policy_metrics = delayed_update(
            count % config.actor_every == 0, lambda learner: update_policies(learner, batch, policy_key), learner
        )
        return learner, step.metrics | policy_metrics

    return Algorithm(
        init=init,
        policy=lambda learner: learner.actors,
        act=act,
        update=update,
        gamma=config.gamma,
        n_step=config.n_step,
    )
