"""OMAD: online multi-agent reinforcement learning with diffusion policies.

Paper: Li, Zhong, Wang, Xia, Zhang, Huang, "Diffusing to Coordinate: Efficient Online Multi-Agent Diffusion
Policies", arXiv 2602.18291, 2026. Single-agent parent: Celik et al., "DIME", arXiv 2502.02316, 2025.

One gradient step on a batch (o, s, a, r, discount, o', s'):

    every agent i:  a'_i, R'_i, P'_i = chain(theta_i, o'_i)                  no gradient
    p, p'  = critics, one training pass over [(s, a); (s', a')]              both twins
    target = mean over twins of project(p', r + discount (z - alpha L'))     L' = sum_i R'_i + P'_i
    critics  <- descend  sum over twins of CE(target, p) - 0.005 H(p)
    every 3rd step:
        every agent i:  a_i, R_i, P_i = chain(theta_i, o_i)                  gradient through the whole chain
        all theta_i  <- descend  mean[ -Q(s, a_1..a_N) + alpha sum_i (R_i + P_i) ]     all agents at once
        log alpha    <- descend  -alpha (mean sum_i R_i - 4 D)

Differences from DIME's public code, which is the single-agent form of this method: docs/algorithms/omad.md.
What ablations put in place of parts of the method: `omad_ablations.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from omad.algos import omad_ablations as ablations
from omad.algos.configs.omad import OmadConfig
from omad.algos.delayed import delayed_update, linear, linear_decay
from omad.critic_nets import Critic, CriticStats, RenormConfig, XqcCritic
from omad.diffusion.sde import Chain
from omad.errors import UserError
from omad.nets import Denoiser
from omad.policies import DiffusionPolicy, agent_noise, draw_noise, sample_chain
from omad.tree import at, descend, each, global_norm, polyak, start
from omad.types import Algorithm, Batch, EnvSpec, Mean, Metrics, TeamAction, TeamObs

AnyCritic = Critic | XqcCritic


class Temperature(eqx.Module):
    """log alpha: one entry shared by all agents, or one an agent."""

    log_alpha: Float[Array, " group"]


class OmadState(eqx.Module):
    """Everything that is learned or carried along; leading axes are agents (actors) and twins (critics).

    Where the policy is shared, there is one entry for all agents.
    """

    actors: DiffusionPolicy
    actors_average: DiffusionPolicy | None
    """What leaves training, where `policy_average` asks for it."""
    critics: AnyCritic
    stats: CriticStats
    critics_target: tuple[AnyCritic, CriticStats] | None
    """Polyak copies; None when the joint pass replaces them."""
    temperature: Temperature
    actor_opt: optax.OptState
    critic_opt: optax.OptState
    alpha_opt: optax.OptState


def make(config: OmadConfig, spec: EnvSpec) -> Algorithm:
    """OMAD for a task of the given sizes.

    Raises:
        UserError: Agents of unequal sizes cannot share a policy, or critics are to read a state that is not there.
    """
    if config.share_policy and len(set(zip(spec.obs_dims, spec.act_dims, strict=True))) > 1:
        raise UserError(
            f"share_policy needs agents of equal sizes, but {spec.name} has observations {spec.obs_dims} and actions "
            f"{spec.act_dims}; leave it off."
        )
    n_agents, steps = spec.n_agents, config.denoising_steps
    mask = jnp.asarray(spec.act_mask)
    dims = jnp.asarray(spec.act_dims, float)
    head = ablations.value_head(config)
    scope = ablations.critic_scope(config, spec)
    twins = ablations.twin_reduction(config, head)
    temperatures = ablations.temperature_scope(config, spec)
    renorm = RenormConfig(momentum=config.renorm_momentum, warmup=config.renorm_warmup)

    actor_rate = linear_decay(config.actor_lr, config.lr_decay_steps, config.actor_every)
    actor_tx = optax.flatten(
        optax.chain(optax.zero_nans(), optax.clip(config.actor_clip), optax.adam(actor_rate, b1=config.adam_b1))
    )
    critic_tx = each(optax.flatten(optax.adam(linear_decay(config.critic_lr, config.lr_decay_steps), config.adam_b1)))
    alpha_tx = optax.adam(config.alpha_lr)
    limit = linear(config.target_run_per_dim, config.target_run_end, config.target_run_begin, config.target_run_steps)

    # ---------------------------------------------------------------- state

    def init_actor(key: Key[Array, ""]) -> DiffusionPolicy:
        denoiser = Denoiser.init(
            key, spec.act_dim, spec.obs_dim, config.time_frequencies, config.time_width,
            config.actor_width, config.actor_layers,
        )  # fmt: skip
        return DiffusionPolicy.init(denoiser, config.step_init, config.friction_init)

    def init_critic(key: Key[Array, ""]) -> tuple[AnyCritic, CriticStats]:
        sizes = scope.input_size, config.critic_width, config.critic_layers, head.outputs
        if config.critic_net == "xqc":
            return XqcCritic.init(key, *sizes, config.critic_blocks)
        return Critic.init(key, *sizes)

    def init(key: Key[Array, ""]) -> OmadState:
        actor_key, critic_key = jax.random.split(key)
        actors = jax.vmap(init_actor)(jax.random.split(actor_key, 1 if config.share_policy else n_agents))
        critics, stats = scope.init(init_critic, critic_key)
        temperature = Temperature(jnp.full(temperatures.size, math.log(max(config.alpha_init, 1e-30)), float))
        return OmadState(
            actors, actors if config.policy_average else None,
            critics, stats, (critics, stats) if config.target_network else None, temperature,
            start(each(actor_tx), actors), start(critic_tx, critics), start(alpha_tx, temperature),
        )  # fmt: skip

    # ---------------------------------------------------------------- acting

    sample = functools.partial(
        sample_chain, prior_scale=config.prior_scale, control_clip=config.control_clip, kernel=config.chain_kernel
    )

    def sample_joint(
        actors: DiffusionPolicy, obs: TeamObs, noise: Float[Array, "agent points batch act"]
    ) -> tuple[TeamAction, Float[Array, "batch agent"], Float[Array, "batch agent"]]:
        """Every agent's actions, running costs R and terminal costs P, each from its own row alone."""
        if jax.tree.leaves(actors)[0].shape[0] > 1:
            chains = jax.vmap(sample, in_axes=(0, 1, 0, 0))(actors, obs, noise, mask)
            return jnp.moveaxis(chains.action, 0, 1), chains.running.T, chains.terminal.T
        # One set of parameters: the rows of all agents, which are of equal sizes, are one batch.
        rows = obs.shape[0] * n_agents
        draws = jnp.moveaxis(noise, 0, 2).reshape(-1, rows, spec.act_dim)
        chains = sample(at(actors, 0), obs.reshape(rows, -1), draws, mask[0])
        running, terminal = (cost.reshape(-1, n_agents) for cost in (chains.running, chains.terminal))
        return chains.action.reshape(-1, n_agents, spec.act_dim), running, terminal

    def of_every_agent(actors: DiffusionPolicy) -> DiffusionPolicy:
        """Parameters of every agent, shared or not: what each takes along."""
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (n_agents, *x.shape[1:])), actors)

    def policy(learner: OmadState) -> DiffusionPolicy:
        return of_every_agent(learner.actors if learner.actors_average is None else learner.actors_average)

    def behaviour(learner: OmadState) -> DiffusionPolicy:
        return of_every_agent(learner.actors)

    def act(
        actors: DiffusionPolicy, obs: Float[Array, "*b agent obs"], key: Key[Array, ""], explore: bool
    ) -> Float[Array, "*b agent act"]:
        """Sample the chains (explore) or follow them without any noise from x^0 = 0."""
        flat = obs.reshape(-1, *obs.shape[-2:])
        noise = agent_noise(key, n_agents, steps, flat.shape[0], spec.act_dim)
        action, _, _ = sample_joint(actors, flat, noise if explore else jnp.zeros_like(noise))
        return action.reshape(*obs.shape[:-1], spec.act_dim)

    # ---------------------------------------------------------------- critics

    def evaluate(critics: AnyCritic, stats: CriticStats, x: Float[Array, "batch in"]) -> Float[Array, "twin batch out"]:
        """Values under the running statistics."""
        return head.decode(jax.vmap(lambda c, s: c(s, x, renorm))(critics, stats))

    def q_value(learner: OmadState, batch: Batch, action: TeamAction) -> Float[Array, "*agent batch"]:
        """Expected returns of joint actions by both twins together, which policies ascend."""
        x = scope.inputs(batch.obs, batch.state, action)
        return twins.q(head.expectation(scope.evaluate(evaluate)(learner.critics, learner.stats, x)))

    def critic_loss(
        critics: AnyCritic,
        stats: CriticStats,
        critics_target: tuple[AnyCritic, CriticStats] | None,
        x: Float[Array, "batch in"],
        next_x: Float[Array, "batch in"],
        soft_reward: Float[Array, " batch"],
        discount: Float[Array, " batch"],
    ) -> tuple[Float[Array, ""], tuple[CriticStats, Metrics]]:
        """CE(target, p) - 0.005 H(p), summed over twins; one pass normalises (s, a) and (s', a') together."""
        batch = x.shape[0]
        joint_x = x if critics_target is not None else jnp.concatenate([x, next_x])
        features, new_stats = jax.vmap(lambda c, s: c.features_train(s, joint_x, renorm))(critics, stats)

        def decode(features: Float[Array, "twin batch features"]) -> Float[Array, "twin batch out"]:
            return head.decode(jax.vmap(lambda c, f: c.head(f))(critics, features))

        q_dist = decode(features[:, :batch])
        if critics_target is None:
            next_q_dist = decode(jax.lax.stop_gradient(features[:, batch:]))
        else:
            next_q_dist = evaluate(*critics_target, next_x)
        target_dist = jax.lax.stop_gradient(head.bellman_target(twins.values(next_q_dist), soft_reward, discount))
        loss = jnp.sum(jnp.mean(head.loss(target_dist[None], q_dist), axis=1))
        metrics = {"critic/loss": loss, "critic/q": head.expectation(q_dist).mean()}
        metrics |= head.diagnostics(target_dist, q_dist)
        return loss, (new_stats, {name: Mean.of(value) for name, value in metrics.items()})

    def update_critics(learner: OmadState, batch: Batch, key: Key[Array, ""]) -> tuple[OmadState, Metrics]:
        """One step of all critics; Polyak copies follow, if there are any."""
        with jax.named_scope("target"):
            noise = agent_noise(key, n_agents, steps, batch.ret.shape[0], spec.act_dim)
            next_action, running, terminal = sample_joint(learner.actors, batch.next_obs, noise)
        cost = running + terminal
        bonus = -scope.costs(jnp.exp(learner.temperature.log_alpha) * cost)
        soft_reward = batch.ret + batch.discount * bonus
        grads, (stats, metrics) = jax.grad(scope.loss(critic_loss), has_aux=True)(
            learner.critics, learner.stats, learner.critics_target,
            scope.inputs(batch.obs, batch.state, batch.action),
            scope.inputs(batch.next_obs, batch.next_state, next_action),
            soft_reward, batch.discount,
        )  # fmt: skip
        critics, critic_opt = descend(critic_tx, grads, learner.critic_opt, learner.critics)
        critics, target = critics.projected(), learner.critics_target
        if target is not None:
            target = polyak(target, (critics, stats), config.tau)
        metrics["critic/grad_norm"] = Mean.of(global_norm(grads))
        learner = dataclasses.replace(
            learner, critics=critics, stats=stats, critics_target=target, critic_opt=critic_opt
        )
        return learner, metrics

    # ---------------------------------------------------------------- policies and temperature

    def trained(actors: DiffusionPolicy) -> DiffusionPolicy:
        return actors if config.learn_step_size else actors.with_frozen_steps()

    def policy_loss(
        actors: DiffusionPolicy, learner: OmadState, batch: Batch, noise: Float[Array, "agent points batch act"]
    ) -> tuple[Float[Array, ""], tuple[Float[Array, " agent"], Metrics]]:
        """mean[ -Q(s, a) + alpha sum_i (R_i + P_i) ] for all agents at once; also mean R_i."""
        action, running, terminal = sample_joint(trained(actors), batch.obs, noise)
        q = q_value(learner, batch, action)
        team_q, cost = scope.team_q(q), running + terminal
        loss = jnp.mean(jnp.sum(jnp.exp(learner.temperature.log_alpha) * cost, axis=-1) - team_q)
        saturated = jnp.sum((jnp.abs(action) > 0.99) * mask, axis=(0, 2)) / action.shape[0]
        metrics = measure(loss, q.mean(), running.mean(0), terminal.mean(0), saturated)
        return loss, (running.mean(0), metrics)

    def measure(
        loss: Float[Array, ""],
        q: Float[Array, ""],
        running: Float[Array, " agent"],
        terminal: Float[Array, " agent"],
        saturated: Float[Array, " agent"],
    ) -> Metrics:
        """Metrics of the policies: costs and saturated entries per action dimension, from their sums of each agent."""
        total = spec.joint_act_dim
        metrics = {
            "policy/loss": loss,
            "policy/q": q,
            "policy/running_cost": running.sum() / total,
            "policy/terminal_cost": terminal.sum() / total,
            "policy/entropy_bound": -(running + terminal).sum() / total,
            "policy/saturation": saturated.sum() / total,
        }
        return {name: Mean.of(value) for name, value in metrics.items()}

    def temperature_loss(
        temperature: Temperature, running: Float[Array, " agent"], count: Int[Array, ""]
    ) -> Float[Array, ""]:
        """-alpha (R - 4 D): alpha rises while the running cost exceeds its limit. Only R enters, not P."""
        excess = temperatures.excess(running - limit(count) * dims)
        return -jnp.sum(jnp.exp(temperature.log_alpha) * excess)

    def update_policies(
        learner: OmadState, batch: Batch, key: Key[Array, ""], count: Int[Array, ""]
    ) -> tuple[OmadState, Metrics]:
        """One step of all actors, then one of the temperature."""
        size = batch.obs.shape[0]
        if config.policy_update == "sequential":

            def sample_one(actor: DiffusionPolicy, agent: Int[Array, ""], key: Key[Array, ""]) -> Chain:
                noise = draw_noise(key, steps, size, spec.act_dim)
                return sample(trained(actor), batch.obs[:, agent], noise, mask[agent])

            done = ablations.sequential_policies(
                actor_tx, learner.actors, learner.actor_opt, sample_one,
                lambda action, agent: scope.agent_q(q_value(learner, batch, action), agent),
                jnp.broadcast_to(jnp.exp(learner.temperature.log_alpha), (n_agents,)), mask, key,
            )  # fmt: skip
            actors, actor_opt, grad_norm = done.actors, done.opts, done.grad_norm
            loss, q, running, terminal, saturated = done.aux
            metrics = measure(loss.mean(), q.mean(), running, terminal, saturated)
        else:
            noise = agent_noise(key, n_agents, steps, size, spec.act_dim)
            grads, (running, metrics) = jax.grad(policy_loss, has_aux=True)(learner.actors, learner, batch, noise)
            actors, actor_opt = descend(each(actor_tx), grads, learner.actor_opt, learner.actors)
            grad_norm = global_norm(grads)
        temperature, alpha_opt = learner.temperature, learner.alpha_opt
        if config.alpha_mode == "auto":
            slope = jax.grad(temperature_loss)(temperature, running, count)
            temperature, alpha_opt = descend(alpha_tx, slope, alpha_opt, temperature)
        metrics |= {
            "policy/step_scale": Mean.of(jax.nn.softplus(actors.raw_scale).mean()),
            "policy/friction": Mean.of(jax.nn.softplus(actors.raw_friction).mean()),
            "policy/grad_norm": Mean.of(grad_norm),
            "alpha/value": Mean.of(jnp.exp(temperature.log_alpha).mean()),
        }
        average = learner.actors_average
        if average is not None:
            share = jnp.maximum(1.0 - config.policy_average, 9.0 / (10.0 + count // config.actor_every))
            average = polyak(average, actors, share)
        return dataclasses.replace(
            learner, actors=actors, actors_average=average, actor_opt=actor_opt,
            temperature=temperature, alpha_opt=alpha_opt,
        ), metrics  # fmt: skip

    # ---------------------------------------------------------------- one gradient step

    def update(
        learner: OmadState, batch: Batch, key: Key[Array, ""], count: Int[Array, ""]
    ) -> tuple[OmadState, Metrics]:
        next_key, policy_key = jax.random.split(key)
        learner, critic_metrics = update_critics(learner, batch, next_key)
        learner, policy_metrics = delayed_update(
            count % config.actor_every == 0, lambda learner: update_policies(learner, batch, policy_key, count), learner
        )
        return learner, critic_metrics | policy_metrics

    return Algorithm(
        init=init, policy=policy, behaviour=behaviour, act=act, update=update, gamma=config.gamma, n_step=config.n_step
    )
