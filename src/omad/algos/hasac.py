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

Differences from HARL, the authors' code:

1. Policies act in [-1, 1] and the adapter scales to the task's box. HARL multiplies tanh by the box's upper end, which
   is right for [-1, 1] only: in MPE's [0, 1] half of all its actions are cut off by the env.
2. Weights start out as LeCun normal, biases as zero; HARL has PyTorch's uniform draws, whose deviation is 0.58 of that.
3. All temperatures move after all agents have; no agent's loss reads another's, so the numbers are the same.
4. Targets follow at every gradient step, also where `actor_every` is above 1 (HARL: 1).
5. One gradient step is one call; HARL makes 50 of them after every 50 steps of its parallel envs.
6. What a loop needs of all agents is one stacked array: unequal agents are padded, and padding is masked.
7. Temporal limits always bootstrap, as with HARL's option for it; value normalisation is left out.

Source tags below: [H] HARL's code and tuned configurations; [?] assumed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from omad.algos import joint as shared
from omad.algos.cadence import falling, policy_update_if
from omad.algos.configs.harl import HasacConfig
from omad.algos.sequential import sweep
from omad.keys import normal
from omad.nets import Mlp
from omad.ops import td
from omad.policies import GaussianPolicy, Squashed, squashed
from omad.tree import descend, each, polyak, start
from omad.types import Algorithm, Batch, EnvSpec, Mean, Metrics

__all__ = ["HasacConfig", "HasacState", "Temperatures", "make"]


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
    """HASAC for a task of the given sizes."""
    n_agents, mask = spec.n_agents, jnp.asarray(spec.act_mask, float)
    target_entropy = config.target_entropy_per_dim * jnp.asarray(spec.act_dims, float)
    critic_in = shared.joint_input(spec, config.critic_input)
    critic_sizes = [critic_in.size, *[config.critic_width] * config.critic_layers, 1]
    penalty = functools.partial(td.huber, delta=config.huber_delta) if config.critic_loss == "huber" else td.squared
    actor_tx = optax.flatten(optax.adam(falling(config.actor_lr, config.lr_decay_steps, config.actor_every)))
    critic_tx = each(optax.flatten(optax.adam(falling(config.critic_lr, config.lr_decay_steps))))
    alpha_tx = optax.adam(config.alpha_lr)

    def init_actor(key: Key[Array, ""]) -> GaussianPolicy:
        return GaussianPolicy.init(
            key, spec.obs_dim, spec.act_dim, config.actor_width, config.actor_layers, config.actor_final
        )

    def init(key: Key[Array, ""]) -> HasacState:
        actor_key, critic_key = jax.random.split(key)
        actors = jax.vmap(init_actor)(jax.random.split(actor_key, n_agents))
        critics = shared.init_twins(critic_key, critic_sizes)
        log_alpha = math.log(max(config.alpha_init, 1e-30))
        temperatures = Temperatures(jnp.full(n_agents, log_alpha, float), jnp.asarray(log_alpha, float))
        return HasacState(
            actors, critics, critics, temperatures,
            start(each(actor_tx), actors), start(critic_tx, critics),
            start(alpha_tx, temperatures),
        )  # fmt: skip

    # ---------------------------------------------------------------- acting

    def sample(
        actors: GaussianPolicy, obs: Float[Array, "*b agent obs"], noise: Float[Array, "*b agent act"]
    ) -> tuple[Float[Array, "*b agent act"], Float[Array, "*b agent"]]:
        """Every agent's actions and their log densities, each from its own row alone."""

        def one(actor: GaussianPolicy, *rows: Any) -> tuple[Any, Any]:
            drawn = squashed(actor, *rows)
            return drawn.action, drawn.log_prob

        return jax.vmap(one, in_axes=(0, -2, -2, 0), out_axes=(-2, -1))(actors, obs, noise, mask)

    def act(
        actors: GaussianPolicy, obs: Float[Array, "*b agent obs"], key: Key[Array, ""], explore: bool
    ) -> Float[Array, "*b agent act"]:
        """Sampled actions (explore), or tanh of the means."""
        noise = normal(key, (*obs.shape[:-1], spec.act_dim))
        return sample(actors, obs, noise if explore else jnp.zeros_like(noise))[0]

    # ---------------------------------------------------------------- actors and temperatures

    def temperature_loss(temperatures: Temperatures, log_prob: Float[Array, " agent"]) -> Float[Array, ""]:
        """The duals of all temperatures: each agent's own, and that of the joint policy for the critics."""
        own = td.dual(temperatures.log_agent, log_prob, target_entropy)
        return own.sum() + td.dual(temperatures.log_critic, log_prob.sum(), target_entropy.sum())

    def update_policies(learner: HasacState, batch: Batch, key: Key[Array, ""]) -> tuple[HasacState, Metrics]:
        """One step of the actors, one after the other, then one of the temperatures."""
        alpha = jnp.exp(learner.temperatures.log_agent)

        def act_one(actor: GaussianPolicy, agent: Int[Array, ""], key: Key[Array, ""]) -> tuple[Any, Squashed]:
            noise = normal(key, (batch.ret.shape[0], spec.act_dim))
            drawn = squashed(actor, batch.obs[:, agent], noise, mask[agent])
            return drawn.action, drawn

        def loss_of(
            joint: Float[Array, "batch agent act"], own: Squashed, agent: Int[Array, ""]
        ) -> tuple[Any, dict[str, Any]]:
            """mean[ alpha_i log pi_i - min Q(s, a) ]."""
            q = td.lower(shared.twin_values(learner.critics, critic_in(batch.obs, batch.state, joint)))
            loss = -jnp.mean(td.soft_value(q, own.log_prob, alpha[agent]))
            return loss, {
                "loss": loss,
                "q": q.mean(),
                "log_prob": own.log_prob.mean(),
                "std": own.std.sum() / own.std.shape[0],
                "saturated": jnp.sum(jnp.abs(own.action) > 0.99) / own.action.shape[0],
            }

        turns = sweep(actor_tx, learner.actors, learner.actor_opt, act_one, loss_of, key)
        temperatures, alpha_opt = learner.temperatures, learner.alpha_opt
        if config.alpha_mode == "auto":
            slope = jax.grad(temperature_loss)(temperatures, turns.known["log_prob"])
            temperatures, alpha_opt = descend(alpha_tx, slope, alpha_opt, temperatures)
        known, total = turns.known, spec.joint_act_dim
        metrics = {
            "policy/loss": Mean.of(known["loss"].mean()),
            "policy/q": Mean.of(known["q"].mean()),
            "policy/entropy": Mean.of(-known["log_prob"].sum() / total),
            "policy/std": Mean.of(known["std"].sum() / total),
            "policy/saturation": Mean.of(known["saturated"].sum() / total),
            "policy/grad_norm": Mean.of(turns.grad_norm),
            "alpha/value": Mean.of(jnp.exp(temperatures.log_agent).mean()),
            "alpha/critic": Mean.of(jnp.exp(temperatures.log_critic)),
        }
        return dataclasses.replace(
            learner, actors=turns.actors, actor_opt=turns.opts, temperatures=temperatures, alpha_opt=alpha_opt
        ), metrics

    # ---------------------------------------------------------------- one gradient step

    def update(
        learner: HasacState, batch: Batch, key: Key[Array, ""], count: Int[Array, ""]
    ) -> tuple[HasacState, Metrics]:
        next_key, policy_key = jax.random.split(key)
        with jax.named_scope("target"):
            noise = normal(next_key, batch.action.shape)
            next_action, log_prob = sample(learner.actors, batch.next_obs, noise)
            next_x = critic_in(batch.next_obs, batch.next_state, next_action)
            next_q = td.lower(shared.twin_values(learner.critics_target, next_x))
            next_value = td.soft_value(next_q, log_prob.sum(-1), jnp.exp(learner.temperatures.log_critic))
        goal = td.target(batch.ret, batch.discount, next_value)
        x = critic_in(batch.obs, batch.state, batch.action)
        fitted = shared.fit(critic_tx, learner.critics, learner.critic_opt, x, goal, penalty)
        learner = dataclasses.replace(
            learner,
            critics=fitted.critics,
            critic_opt=fitted.opt,
            critics_target=polyak(learner.critics_target, fitted.critics, config.tau),
        )
        learner, metrics = policy_update_if(
            count % config.actor_every == 0, lambda learner: update_policies(learner, batch, policy_key), learner
        )
        return learner, fitted.metrics | metrics

    return Algorithm(
        init=init,
        policy=lambda learner: learner.actors,
        act=act,
        update=update,
        gamma=config.gamma,
        n_step=config.n_step,
    )
