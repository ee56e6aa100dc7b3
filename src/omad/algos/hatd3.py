"""HATD3: heterogeneous-agent twin delayed deep deterministic policy gradients.

Paper: Zhong, Kuba, Feng, Hu, Ji, Yang, "Heterogeneous-Agent Reinforcement Learning", JMLR 25 (32), 2024 (arXiv
2304.09870). Single-agent parent: Fujimoto, van Hoof, Meger, "Addressing Function Approximation Error in Actor-Critic
Methods" (TD3), ICML 2018.

One gradient step on a batch (o, s, a, R, discount, o', s'), where R sums the rewards of n steps:

    every agent i:  a'_i = clip(mu'_i(o'_i) + clip(0.2 noise, -0.5, 0.5), -1, 1)      target actors
    critics  <- descend  sum over twins of (Q(s, a) - R - discount min Q'(s', a'))^2 / 2
    every 2nd step:
        every agent i, in a fresh random order:
            theta_i  <- descend  -Q_1(s, a_1 .. mu_i(o_i) .. a_N)                     those before i: newest actions
        all targets  <- (1 - tau) target + tau online

Differences from HARL, the authors' code: docs/algorithms/hatd3.md.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from omad.algos.configs.harl import Hatd3Config
from omad.algos.critics import fit_twins, init_twins, joint_input, regression_loss, twin_values
from omad.algos.delayed import delayed_update, linear_decay
from omad.algos.sequential import sequential_update
from omad.keys import normal
from omad.nets import Mlp
from omad.ops import td
from omad.policies import TanhPolicy
from omad.tree import at, each, polyak, start
from omad.types import Algorithm, Batch, EnvSpec, Mean, Metrics, TeamAction


class Hatd3State(eqx.Module):
    """Everything that is learned or carried along; leading axes are agents (actors) and twins (critics)."""

    actors: TanhPolicy
    critics: Mlp
    actors_target: TanhPolicy
    critics_target: Mlp
    actor_opt: optax.OptState
    """An entry an agent, counters included."""
    critic_opt: optax.OptState


def make(config: Hatd3Config, spec: EnvSpec) -> Algorithm:
    """HATD3 for a task of the given sizes.

    Raises:
        UserError: Critics are to read a state that is not there.
    """
    n_agents, mask = spec.n_agents, jnp.asarray(spec.act_mask, float)
    critic_input = joint_input(spec, config.critic_input)
    error_loss = regression_loss(config.critic_loss, config.huber_delta)
    actor_tx = optax.flatten(optax.adam(linear_decay(config.actor_lr, config.lr_decay_steps, config.actor_every)))
    critic_tx = each(optax.flatten(optax.adam(linear_decay(config.critic_lr, config.lr_decay_steps))))

    def init(key: Key[Array, ""]) -> Hatd3State:
        actor_key, critic_key = jax.random.split(key)
        init_actor = functools.partial(
            TanhPolicy.init, obs=spec.obs_dim, act=spec.act_dim, width=config.actor_width, layers=config.actor_layers
        )
        actors = jax.vmap(init_actor)(jax.random.split(actor_key, n_agents))
        critics = init_twins(critic_key, critic_input.size, config.critic_width, config.critic_layers)
        return Hatd3State(actors, critics, actors, critics, start(each(actor_tx), actors), start(critic_tx, critics))

    # ---------------------------------------------------------------- acting

    def act_all(actors: TanhPolicy, obs: Float[Array, "*b agent obs"]) -> Float[Array, "*b agent act"]:
        """Every agent's actions without noise, each from its own row alone."""
        return jax.vmap(lambda actor, o, m: actor(o, m), in_axes=(0, -2, 0), out_axes=-2)(actors, obs, mask)

    def act(
        actors: TanhPolicy, obs: Float[Array, "*b agent obs"], key: Key[Array, ""], explore: bool
    ) -> Float[Array, "*b agent act"]:
        """The actors' actions, with Gaussian noise on them (explore) or as they are."""
        action = act_all(actors, obs)
        if not explore:
            return action
        noise = config.explore_noise * normal(key, action.shape)
        return jnp.clip(action + noise, -1.0, 1.0) * mask

    # ---------------------------------------------------------------- actors and targets

    def update_policies(learner: Hatd3State, batch: Batch, key: Key[Array, ""]) -> tuple[Hatd3State, Metrics]:
        """One step of the actors, one after the other, then one of all targets."""

        def act_one(actor: TanhPolicy, agent: Int[Array, ""], key: Key[Array, ""]) -> tuple[Any, Any]:
            del key
            action = actor(batch.obs[:, agent], mask[agent])
            return action, action

        def policy_loss(joint: TeamAction, own: Any, agent: Int[Array, ""]) -> tuple[Any, Any]:
            """mean[ -Q_1(s, a) ]; also how many entries of this agent's action are saturated."""
            loss = -jnp.mean(at(learner.critics, 0)(critic_input(batch.obs, batch.state, joint)))
            return loss, (loss, jnp.sum(jnp.abs(own) > 0.99) / own.shape[0])

        done = sequential_update(actor_tx, learner.actors, learner.actor_opt, act_one, policy_loss, key)
        losses, saturated = done.aux
        learner = dataclasses.replace(
            learner,
            actors=done.actors,
            actor_opt=done.opts,
            actors_target=polyak(learner.actors_target, done.actors, config.tau),
            critics_target=polyak(learner.critics_target, learner.critics, config.tau),
        )
        return learner, {
            "policy/loss": Mean.of(losses.mean()),
            "policy/saturation": Mean.of(saturated.sum() / spec.joint_act_dim),
            "policy/grad_norm": Mean.of(done.grad_norm),
        }

    # ---------------------------------------------------------------- one gradient step

    def update(
        learner: Hatd3State, batch: Batch, key: Key[Array, ""], count: Int[Array, ""]
    ) -> tuple[Hatd3State, Metrics]:
        noise_key, policy_key = jax.random.split(key)
        with jax.named_scope("target"):
            noise = config.target_noise * normal(noise_key, batch.action.shape)
            next_action = act_all(learner.actors_target, batch.next_obs)
            next_action = td.smoothed(next_action, noise, config.target_noise_clip, mask)
            next_x = critic_input(batch.next_obs, batch.next_state, next_action)
            next_value = td.lower(twin_values(learner.critics_target, next_x))
        step = fit_twins(
            critic_tx, learner.critics, learner.critic_opt, critic_input(batch.obs, batch.state, batch.action),
            td.target(batch.ret, batch.discount, next_value), error_loss,
        )  # fmt: skip
        learner = dataclasses.replace(learner, critics=step.critics, critic_opt=step.opt)
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
