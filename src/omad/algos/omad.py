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

import dataclasses
import math
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from omad.algos import joint as shared
from omad.algos.cadence import falling, policy_update_if
from omad.algos.fields import ALPHA_PACES, check
from omad.algos.sequential import sweep
from omad.algos.values import distributional, scalar
from omad.errors import Refused
from omad.nets import Critic, CriticStats, Denoiser, RenormConfig, XqcCritic
from omad.policies import DiffusionPolicy, chain, draw_noise, inverse_softplus
from omad.tree import at_agent, descend, global_norm, polyak, start
from omad.types import Algorithm, Batch, EnvSpec, Mean, Metrics

__all__ = ["OmadConfig", "OmadState", "Temperature", "make"]


@dataclasses.dataclass(frozen=True)
class OmadConfig:
    """Hyperparameters of OMAD. Defaults are the paper's where known, else DIME's."""

    # the chain
    denoising_steps: int = 8
    """K, denoising steps of a chain [S]; DIME uses 16."""
    prior_scale: float = 2.5
    """sigma, standard deviation of the chain's starting point [D]."""
    step_init: float = 0.1
    """Initial softplus(delta), the scale of all step sizes [D]."""
    friction_init: float = 1.0
    """Initial softplus(phi), the per-dimension divisor of the step sizes [D]."""
    learn_step_size: bool = True
    """Whether delta and phi are trained [D]."""
    control_clip: float = 1e4
    """Bound on the denoiser's output [D]."""
    share_policy: bool = False
    """One set of policy parameters for all agents, which must be of equal sizes [H: none is shared]. Each agent still
    acts alone on its own observation; who does what then hangs on where agents are, not on their numbers [M]."""
    # the denoiser of each agent
    actor_width: int = 256
    """Units of a hidden layer [D]."""
    actor_layers: int = 3
    """Hidden layers [D]."""
    time_frequencies: int = 256
    """Fourier frequencies of the time features [D]."""
    time_width: int = 256
    """Width of the time embedding [D]."""
    # the joint critics
    critic_width: int = 2048
    """Units of a hidden layer [D]."""
    critic_layers: int = 2
    """Hidden layers [D]."""
    critic_net: Literal["renorm", "xqc"] = "renorm"
    """Norms after the activations and free weights [D][X], or norms before them and hidden weights at unit length
    after every step (Palenicek et al. 2025, XQC)."""
    critic_blocks: int = 0
    """Residual blocks, then RMSNorm, before the head of `xqc` critics (Kim et al. 2026, FlashSAC)."""
    critic_input: Literal["auto", "state", "obs"] = "auto"
    """What critics read besides actions: the env's state, all observations, or the state if there is one [I]."""
    critic_kind: Literal["distributional", "scalar"] = "distributional"
    """Value distributions over atoms [S], or one number and half the squared error, for ablation [X]."""
    critic_scope: Literal["joint", "independent"] = "joint"
    """Critics of the joint action [S], or a pair an agent that reads its own observation and action only, for
    ablation [X]."""
    critic_reduce: Literal["mean", "min"] = "mean"
    """How the twins are combined in target and actor loss: their mean [D]; `min` takes the one of lower value [X]."""
    target_network: bool = False
    """Polyak-averaged target critics instead of the joint pass of CrossQ [S][D say no]."""
    tau: float = 0.005
    """Polyak rate of the target critics; unused without them [?]."""
    atoms: int = 100
    """Atoms of the value distribution [S]; DIME uses 101."""
    v_max: float = 300.0
    """Half-width of the support, per task; watch `critic/edge_mass` [S: set per task, values not published]."""
    atom_entropy: float = 0.005
    """Weight of the entropy bonus on the predicted value distribution [D]."""
    renorm_momentum: float = 0.99
    """Momentum of batch renormalisation's running statistics [D][X]."""
    renorm_warmup: int = 100_000
    """Gradient steps of plain batch normalisation before renormalisation [D][X]."""
    # objective and optimisers
    gamma: float = 0.99
    """Discount factor [D]."""
    n_step: int = 1
    """Rewards summed in a target [D]; beyond 1, entropy bonuses inside the sum are left out."""
    actor_lr: float = 3e-4
    """Adam step size of all actors [D]."""
    critic_lr: float = 3e-4
    """Adam step size of the critics [D]."""
    lr_decay_steps: int = 0
    """Gradient steps in which both fall linearly to a tenth, where they stay; 0 keeps them constant [D: constant]."""
    adam_b1: float = 0.5
    """Adam's first-moment decay for actors and critics [D]."""
    actor_clip: float = 1.0
    """Element-wise bound on the actors' gradients [D]."""
    actor_every: int = 3
    """Gradient steps of the critics per step of actors and temperature [D]."""
    policy_update: Literal["simultaneous", "sequential"] = "simultaneous"
    """All policies in one step [S], or one after the other in random order, each seeing the others' newest actions,
    for ablation [X]."""
    # the temperature
    alpha_mode: Literal["auto", "fixed"] = "auto"
    """Tuned by its dual [S], or fixed at `alpha_init`."""
    alpha_init: float = 1.0
    """Initial temperature [D]."""
    alpha_lr: float = 1e-3
    """Adam step size of log alpha, b1 = 0.9 [D]."""
    alpha_pace: Literal["gradient", "env"] = "gradient"
    """Whether `alpha_lr` holds for a gradient step whatever their number [D], or is divided by the gradient steps per
    env step, so that more of them leave alpha's pace over env steps as it is."""
    alpha_per_agent: bool = False
    """One temperature an agent instead of a shared one [S: joint, hence shared]."""
    target_run_per_dim: float = 4.0
    """Upper limit on the running cost per action dimension; alpha falls below it, rises above it [S][D]."""

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            Refused: Names the field, what was given and what is allowed.
        """
        check(
            self,
            counts=("actor_every",),
            units=("actor_width", "time_frequencies", "time_width", "critic_width", "atoms"),
            unrolled=("denoising_steps", "actor_layers", "critic_layers", "n_step"),
            positive=(
                "prior_scale", "step_init", "friction_init", "control_clip", "v_max", "actor_lr", "critic_lr",
                "actor_clip", "alpha_lr",
            ),
            decays=("adam_b1", "renorm_momentum"),
            most={"v_max": 1e30},
            shares=("gamma", "tau"),
            not_negative=("alpha_init", "atom_entropy", "renorm_warmup", "lr_decay_steps", "critic_blocks"),
            finite=("target_run_per_dim",),
            choices={
                "critic_net": ("renorm", "xqc"),
                "critic_input": shared.CRITIC_INPUTS,
                "critic_kind": ("distributional", "scalar"),
                "critic_scope": ("joint", "independent"),
                "critic_reduce": ("mean", "min"),
                "policy_update": ("simultaneous", "sequential"),
                "alpha_mode": ("auto", "fixed"),
                "alpha_pace": ALPHA_PACES,
            },
        )  # fmt: skip
        if self.atoms < 2:
            raise Refused(f"atoms is {self.atoms}; a value distribution needs at least 2")
        if self.v_max < 1e-30:
            raise Refused(f"v_max is {self.v_max}; it must be a positive number of at least 1e-30, or atoms coincide")
        if self.alpha_init == 0 and self.alpha_mode == "auto":
            raise Refused(f"alpha_init is {self.alpha_init}; it must be positive (0 is allowed with alpha_mode fixed)")
        if self.critic_blocks and self.critic_net != "xqc":
            raise Refused(f"critic_blocks is {self.critic_blocks}, but only critic_net 'xqc' has blocks; use it, or 0")
        if self.share_policy and self.policy_update == "sequential":
            raise Refused(
                "policy_update is 'sequential', but with share_policy there is one policy to update; use one."
            )


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

    actor_tx = optax.chain(
        optax.zero_nans(),
        optax.clip(config.actor_clip),
        optax.adam(falling(config.actor_lr, config.lr_decay_steps, config.actor_every), b1=config.adam_b1),
    )
    critic_tx = optax.adam(falling(config.critic_lr, config.lr_decay_steps), b1=config.adam_b1)
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
            jax.vmap(lambda actor: start(actor_tx, actor))(actors) if in_turn else start(actor_tx, actors),
            start(critic_tx, critics), start(alpha_tx, temperature),
        )  # fmt: skip

    # ---------------------------------------------------------------- acting

    def chains(
        actors: DiffusionPolicy, obs: Float[Array, "batch agent obs"], noise: Float[Array, "agent points batch act"]
    ) -> tuple[Float[Array, "batch agent act"], Float[Array, "batch agent"], Float[Array, "batch agent"]]:
        """Every agent's actions, running costs and terminal costs, each from its own row alone."""
        # Shared parameters have no agent axis here, so that all agents' rows make one matrix product.
        one = jax.tree.leaves(actors)[0].shape[0] == 1
        out = jax.vmap(chain, in_axes=(None if one else 0, 1, 0, 0, None, None))(
            at_agent(actors, 0) if one else actors, obs, noise, mask, config.prior_scale, config.control_clip
        )
        return jnp.moveaxis(out.action, 0, 1), out.running.T, out.terminal.T

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
            out = chain(actor, batch.obs[:, agent], noise, mask[agent], config.prior_scale, config.control_clip)
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
            actors, actor_opt = descend(actor_tx, grads, learner.actor_opt, learner.actors)
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
