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

Differences from DIME's public code, which is the single-agent form of this method:

1. One chain, one set of step sizes and one optimiser state an agent; costs add up over agents.
2. The critic is joint and the temperature shared (per-agent on request).
3. The kernels' log-ratio is computed in a cancelled form (`diffusion/sde.py`), not as a difference of densities.
4. The observation's and the time's share of the denoiser's first layer are computed once a chain.
5. The head of the critics is evaluated separately on the two halves of the joint pass, since the second half carries
   no gradient; the twins' next distributions are averaged before they are projected, which is the same by linearity.
6. The projection keeps mass off the row's end (a rounding trap with 100 atoms).

Source tags below: [A] abstract of the paper; [S] summaries of the full paper; [D] DIME's code; [X] CrossQ's code;
[I] inferred; [?] assumed.
"""

from __future__ import annotations

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
from omad.algos.configs.omad import OmadConfig
from omad.algos.sequential import sweep
from omad.algos.values import distributional, scalar
from omad.errors import Refused
from omad.nets import Critic, CriticStats, Denoiser, RenormConfig, XqcCritic
from omad.policies import DiffusionPolicy, chain, draw_noise, inverse_softplus
from omad.tree import at_agent, descend, each, global_norm, polyak, start
from omad.types import Algorithm, Batch, EnvSpec, Mean, Metrics

__all__ = ["OmadConfig", "OmadState", "Temperature", "make"]


AnyCritic = Critic | XqcCritic


class Temperature(eqx.Module):
    """log alpha: one entry shared by all agents, or one an agent."""

    log_alpha: Float[Array, " group"]


class OmadState(eqx.Module):
    """Everything that is learned or carried along; leading axes are agents (actors) and twins (critics).

    Where the policy is shared, there is one entry for all agents.
    """

    actors: DiffusionPolicy
    critics: AnyCritic
    stats: CriticStats
    target: tuple[AnyCritic, CriticStats] | None
    """Polyak copies; None when the joint pass replaces them."""
    temperature: Temperature
    actor_opt: optax.OptState
    critic_opt: optax.OptState
    alpha_opt: optax.OptState


def make(config: OmadConfig, spec: EnvSpec) -> Algorithm:
    """OMAD for a task of the given sizes."""
    n_agents, steps = spec.n_agents, config.denoising_steps
    mask = jnp.asarray(spec.act_mask)
    dims = jnp.asarray(spec.act_dims, float)
    if config.critic_kind == "scalar":
        values = scalar()
    else:
        values = distributional(config.v_max, config.atoms, config.atom_entropy)
    alone = config.critic_scope == "independent"
    renorm = RenormConfig(momentum=config.renorm_momentum, warmup=config.renorm_warmup)
    joint_input = shared.joint_input(spec, config.critic_input)
    critic_size = spec.obs_dim + spec.act_dim if alone else joint_input.size
    if config.share_policy and len(set(zip(spec.obs_dims, spec.act_dims, strict=True))) > 1:
        raise Refused(
            f"share_policy needs agents of equal sizes, but {spec.name} has observations {spec.obs_dims} and actions "
            f"{spec.act_dims}; leave it off"
        )
    groups = n_agents if config.alpha_per_agent else 1
    in_turn = config.policy_update == "sequential"

    actor_tx = optax.flatten(
        optax.chain(
            optax.zero_nans(),
            optax.clip(config.actor_clip),
            optax.adam(falling(config.actor_lr, config.lr_decay_steps, config.actor_every), b1=config.adam_b1),
        )
    )
    critic_tx = each(optax.flatten(optax.adam(falling(config.critic_lr, config.lr_decay_steps), b1=config.adam_b1)))
    alpha_tx = optax.adam(config.alpha_lr)

    # ---------------------------------------------------------------- state

    def init_actor(key: Key[Array, ""]) -> DiffusionPolicy:
        denoiser = Denoiser.init(
            key, spec.act_dim, spec.obs_dim, config.time_frequencies, config.time_width,
            config.actor_width, config.actor_layers,
        )  # fmt: skip
        return DiffusionPolicy(
            denoiser,
            raw_scale=jnp.asarray(inverse_softplus(config.step_init), float),
            raw_friction=jnp.full(spec.act_dim, inverse_softplus(config.friction_init), float),
        )

    def init_critic(key: Key[Array, ""]) -> tuple[AnyCritic, CriticStats]:
        sizes = critic_size, config.critic_width, config.critic_layers, values.outputs
        if config.critic_net == "xqc":
            return XqcCritic.init(key, *sizes, config.critic_blocks)
        return Critic.init(key, *sizes)

    def init(key: Key[Array, ""]) -> OmadState:
        actor_key, critic_key = jax.random.split(key)
        actors = jax.vmap(init_actor)(jax.random.split(actor_key, 1 if config.share_policy else n_agents))
        twins = jax.vmap(init_critic)
        if alone:
            critics, stats = jax.vmap(twins)(jax.random.split(critic_key, (n_agents, 2)))
        else:
            critics, stats = twins(jax.random.split(critic_key, 2))
        temperature = Temperature(jnp.full(groups, math.log(max(config.alpha_init, 1e-30)), float))
        return OmadState(
            actors, critics, stats, (critics, stats) if config.target_network else None, temperature,
            start(each(actor_tx), actors), start(critic_tx, critics), start(alpha_tx, temperature),
        )  # fmt: skip

    # ---------------------------------------------------------------- acting

    sample_chain = functools.partial(
        chain, prior_scale=config.prior_scale, control_clip=config.control_clip, kernel=config.chain_kernel
    )

    def chains(
        actors: DiffusionPolicy, obs: Float[Array, "batch agent obs"], noise: Float[Array, "agent points batch act"]
    ) -> tuple[Float[Array, "batch agent act"], Float[Array, "batch agent"], Float[Array, "batch agent"]]:
        """Every agent's actions, running costs and terminal costs, each from its own row alone."""
        if jax.tree.leaves(actors)[0].shape[0] > 1:
            out = jax.vmap(sample_chain, in_axes=(0, 1, 0, 0))(actors, obs, noise, mask)
            return jnp.moveaxis(out.action, 0, 1), out.running.T, out.terminal.T
        # One set of parameters: the rows of all agents, which are of equal sizes, are one batch.
        rows = obs.shape[0] * n_agents
        draws = jnp.moveaxis(noise, 0, 2).reshape(-1, rows, spec.act_dim)
        out = sample_chain(at_agent(actors, 0), obs.reshape(rows, -1), draws, mask[0])
        running, terminal = (cost.reshape(-1, n_agents) for cost in (out.running, out.terminal))
        return out.action.reshape(-1, n_agents, spec.act_dim), running, terminal

    def noise_for(key: Key[Array, ""], batch: int) -> Float[Array, "agent points batch act"]:
        keys = jax.random.split(key, n_agents)
        return jax.vmap(lambda k: draw_noise(k, steps, batch, spec.act_dim))(keys)

    def policy(learner: OmadState) -> DiffusionPolicy:
        """Parameters of every agent, shared or not: what each takes along."""
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (n_agents, *x.shape[1:])), learner.actors)

    def act(
        actors: DiffusionPolicy, obs: Float[Array, "*b agent obs"], key: Key[Array, ""], explore: bool
    ) -> Float[Array, "*b agent act"]:
        """Sample the chains (explore) or follow them without any noise from x^0 = 0."""
        flat = obs.reshape(-1, *obs.shape[-2:])
        noise = noise_for(key, flat.shape[0])
        action, _, _ = chains(actors, flat, noise if explore else jnp.zeros_like(noise))
        return action.reshape(*obs.shape[:-1], spec.act_dim)

    # ---------------------------------------------------------------- critics

    def critic_input(
        obs: Float[Array, "batch agent obs"],
        state: Float[Array, "batch state"],
        action: Float[Array, "batch agent act"],
    ) -> Float[Array, "*agent batch in"]:
        """What critics read: one table, or one for each agent's own critics."""
        if alone:
            return jnp.moveaxis(jnp.concatenate([obs, action], axis=-1), 1, 0)
        return joint_input(obs, state, action)

    def evaluate(critics: AnyCritic, stats: CriticStats, x: Float[Array, "batch in"]) -> Float[Array, "twin batch out"]:
        """Values under the running statistics."""
        return values.read(jax.vmap(lambda c, s: c(s, x, renorm))(critics, stats))

    def returns(
        critics: AnyCritic, stats: CriticStats, x: Float[Array, "*agent batch in"]
    ) -> Float[Array, "*agent batch"]:
        """Expected returns by both twins together, which policies climb."""
        q = values.mean((jax.vmap(evaluate) if alone else evaluate)(critics, stats, x))
        return q.mean(-2) if config.critic_reduce == "mean" else q.min(-2)

    def combine(rows: Float[Array, "twin batch out"]) -> Float[Array, "batch out"]:
        """The values that stand for both twins'."""
        if config.critic_reduce == "mean":
            return rows.mean(0)
        q = values.mean(rows)
        return jnp.where((q[0] <= q[1])[:, None], rows[0], rows[1])

    def critic_loss(
        critics: AnyCritic,
        stats: CriticStats,
        target: tuple[AnyCritic, CriticStats] | None,
        x: Float[Array, "batch in"],
        next_x: Float[Array, "batch in"],
        shift: Float[Array, " batch"],
        discount: Float[Array, " batch"],
    ) -> tuple[Float[Array, ""], tuple[CriticStats, Metrics]]:
        """Distance of the values from their target, summed over twins."""
        batch = x.shape[0]
        joint = x if target is not None else jnp.concatenate([x, next_x])
        features, new_stats = jax.vmap(lambda c, s: c.features_train(s, joint, renorm))(critics, stats)

        def head(rows: Float[Array, "twin batch features"]) -> Float[Array, "twin batch out"]:
            return values.read(jax.vmap(lambda c, f: c.head(f))(critics, rows))

        here = head(features[:, :batch])
        there = head(jax.lax.stop_gradient(features[:, batch:])) if target is None else evaluate(*target, next_x)
        goal = jax.lax.stop_gradient(values.backup(combine(there), shift, discount))
        loss = jnp.sum(jnp.mean(values.loss(goal[None], here), axis=1))
        measured = {"critic/loss": loss, "critic/q": values.mean(here).mean(), **values.measure(goal, here)}
        return loss, (new_stats, {name: Mean.of(value) for name, value in measured.items()})

    def all_critics_loss(
        critics: AnyCritic,
        stats: CriticStats,
        target: tuple[AnyCritic, CriticStats] | None,
        x: Float[Array, "agent batch in"],
        next_x: Float[Array, "agent batch in"],
        shift: Float[Array, "agent batch"],
        discount: Float[Array, " batch"],
    ) -> tuple[Float[Array, ""], tuple[CriticStats, Metrics]]:
        """The same for every agent's own critics, summed."""
        over_agents = jax.vmap(critic_loss, in_axes=(0, 0, 0, 0, 0, 0, None))
        losses, (new_stats, metrics) = over_agents(critics, stats, target, x, next_x, shift, discount)
        return losses.sum(), (new_stats, jax.tree.map(lambda leaf: leaf.mean(0), metrics))

    # ---------------------------------------------------------------- actors and temperature

    def joint_cost(temperature: Temperature, cost: Float[Array, "batch agent"]) -> Float[Array, " batch"]:
        """Alpha L: each agent's cost times its temperature, summed over agents."""
        return jnp.sum(jnp.exp(temperature.log_alpha) * cost, axis=-1)

    def frozen_steps(actors: DiffusionPolicy) -> DiffusionPolicy:
        """The same policies, without a gradient to their step sizes."""
        frozen = jax.lax.stop_gradient((actors.raw_scale, actors.raw_friction))
        return eqx.tree_at(lambda a: (a.raw_scale, a.raw_friction), actors, frozen)

    def policy_loss(
        actors: DiffusionPolicy, learner: OmadState, batch: Batch, noise: Float[Array, "agent points batch act"]
    ) -> tuple[Float[Array, ""], tuple[Float[Array, " agent"], Metrics]]:
        """mean[ -Q(s, a) + alpha sum_i (R_i + P_i) ] for all agents at once; also mean R_i."""
        if not config.learn_step_size:
            actors = frozen_steps(actors)
        action, running, terminal = chains(actors, batch.obs, noise)
        q = returns(learner.critics, learner.stats, critic_input(batch.obs, batch.state, action))
        climbed = q.sum(0) if alone else q
        loss = jnp.mean(joint_cost(learner.temperature, running + terminal) - climbed)
        saturated = jnp.sum((jnp.abs(action) > 0.99) * mask, axis=(0, 2)) / action.shape[0]
        metrics = policy_metrics(loss, q.mean(), running.mean(0), terminal.mean(0), saturated)
        return loss, (running.mean(0), metrics)

    def policy_metrics(
        loss: Float[Array, ""],
        q: Float[Array, ""],
        running: Float[Array, " agent"],
        terminal: Float[Array, " agent"],
        saturated: Float[Array, " agent"],
    ) -> Metrics:
        """Costs and saturated entries per action dimension, from their sums of each agent."""
        total = spec.joint_act_dim
        measured = {
            "policy/loss": loss,
            "policy/q": q,
            "policy/running_cost": running.sum() / total,
            "policy/terminal_cost": terminal.sum() / total,
            "policy/entropy_bound": -(running + terminal).sum() / total,
            "policy/saturation": saturated.sum() / total,
        }
        return {name: Mean.of(value) for name, value in measured.items()}

    def one_after_another(
        learner: OmadState, batch: Batch, key: Key[Array, ""]
    ) -> tuple[DiffusionPolicy, optax.OptState, Float[Array, " agent"], Metrics, Float[Array, ""]]:
        """A step of every actor in random order: actors, optimisers, mean R_i, metrics, gradient norm."""
        alpha = jnp.broadcast_to(jnp.exp(learner.temperature.log_alpha), (n_agents,))
        size = batch.obs.shape[0]

        def act_alone(actor: DiffusionPolicy, agent: Int[Array, ""], key: Key[Array, ""]) -> tuple[Any, Any]:
            noise = draw_noise(key, steps, size, spec.act_dim)
            if not config.learn_step_size:
                actor = frozen_steps(actor)
            out = sample_chain(actor, batch.obs[:, agent], noise, mask[agent])
            return out.action, (out.running, out.terminal)

        def own_loss(action: Float[Array, "batch agent act"], drawn: Any, agent: Int[Array, ""]) -> tuple[Any, Any]:
            running, terminal = drawn
            q = returns(learner.critics, learner.stats, critic_input(batch.obs, batch.state, action))
            q = q[agent] if alone else q
            loss = jnp.mean(alpha[agent] * (running + terminal) - q)
            saturated = jnp.sum((jnp.abs(action[:, agent]) > 0.99) * mask[agent]) / size
            return loss, (loss, q.mean(), running.mean(), terminal.mean(), saturated)

        done = sweep(actor_tx, learner.actors, learner.actor_opt, act_alone, own_loss, key)
        loss, q, running, terminal, saturated = done.known
        metrics = policy_metrics(loss.mean(), q.mean(), running, terminal, saturated)
        return done.actors, done.opts, running, metrics, done.grad_norm

    def temperature_loss(temperature: Temperature, running: Float[Array, " agent"]) -> Float[Array, ""]:
        """-alpha (R - 4 D): alpha rises while the running cost exceeds its limit. Only R enters, not P."""
        excess = running - config.target_run_per_dim * dims
        if not config.alpha_per_agent:
            excess = excess.sum(keepdims=True)
        return -jnp.sum(jnp.exp(temperature.log_alpha) * excess)

    def update_policies(learner: OmadState, batch: Batch, key: Key[Array, ""]) -> tuple[OmadState, Metrics]:
        """One step of all actors, then one of the temperature."""
        if in_turn:
            actors, actor_opt, running, metrics, grad_norm = one_after_another(learner, batch, key)
        else:
            noise = noise_for(key, batch.obs.shape[0])
            grads, (running, metrics) = jax.grad(policy_loss, has_aux=True)(learner.actors, learner, batch, noise)
            actors, actor_opt = descend(each(actor_tx), grads, learner.actor_opt, learner.actors)
            grad_norm = global_norm(grads)
        temperature, alpha_opt = learner.temperature, learner.alpha_opt
        if config.alpha_mode == "auto":
            slope = jax.grad(temperature_loss)(temperature, running)
            temperature, alpha_opt = descend(alpha_tx, slope, alpha_opt, temperature)
        metrics |= {
            "policy/step_scale": Mean.of(jax.nn.softplus(actors.raw_scale).mean()),
            "policy/friction": Mean.of(jax.nn.softplus(actors.raw_friction).mean()),
            "policy/grad_norm": Mean.of(grad_norm),
            "alpha/value": Mean.of(jnp.exp(temperature.log_alpha).mean()),
        }
        where = lambda s: (s.actors, s.actor_opt, s.temperature, s.alpha_opt)  # noqa: E731
        return eqx.tree_at(where, learner, (actors, actor_opt, temperature, alpha_opt)), metrics

    # ---------------------------------------------------------------- one gradient step

    def update(
        learner: OmadState, batch: Batch, key: Key[Array, ""], count: Int[Array, ""]
    ) -> tuple[OmadState, Metrics]:
        size = batch.ret.shape[0]
        next_key, policy_key = jax.random.split(key)
        with jax.named_scope("target"):
            next_action, running, terminal = chains(learner.actors, batch.next_obs, noise_for(next_key, size))
        if alone:
            bonus = -(jnp.exp(learner.temperature.log_alpha) * (running + terminal)).T
        else:
            bonus = -joint_cost(learner.temperature, running + terminal)
        shift = batch.ret + batch.discount * bonus
        grads, (stats, metrics) = jax.grad(all_critics_loss if alone else critic_loss, has_aux=True)(
            learner.critics, learner.stats, learner.target,
            critic_input(batch.obs, batch.state, batch.action),
            critic_input(batch.next_obs, batch.next_state, next_action),
            shift, batch.discount,
        )  # fmt: skip
        critics, critic_opt = descend(critic_tx, grads, learner.critic_opt, learner.critics)
        critics = critics.projected()
        target = learner.target
        if target is not None:
            target = polyak(target, (critics, stats), config.tau)
        learner = OmadState(
            learner.actors, critics, stats, target, learner.temperature,
            learner.actor_opt, critic_opt, learner.alpha_opt,
        )  # fmt: skip
        metrics["critic/grad_norm"] = Mean.of(global_norm(grads))

        learner, told = policy_update_if(
            count % config.actor_every == 0,
            lambda learner: update_policies(learner, batch, policy_key),
            learner,
        )
        return learner, metrics | told

    return Algorithm(
        init=init,
        policy=policy,
        act=act,
        update=update,
        gamma=config.gamma,
        n_step=config.n_step,
    )
