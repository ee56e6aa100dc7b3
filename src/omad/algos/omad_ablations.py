"""Ablations of OMAD: what a switch of its configuration puts in place of a part of the published method.

| switch | published | ablation |
| --- | --- | --- |
| `critic_kind` | value distributions | scalar values |
| `critic_reduce` | mean of the twins | the twin of lower value |
| `critic_scope` | one pair of critics for the team | a pair an agent, which reads its own observation and action only |
| `alpha_per_agent` | one temperature | one an agent |
| `policy_update` | all policies at once | one after the other |

The method itself, `omad.algos.omad`, is written for any of them: it asks for its parts here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from omad.algos.configs.omad import OmadConfig
from omad.algos.critics import joint_input
from omad.algos.sequential import SequentialUpdate, sequential_update
from omad.algos.value_head import ValueHead, distributional, scalar
from omad.diffusion.sde import Chain
from omad.types import EnvSpec, GlobalState, TeamAction, TeamObs


def value_head(config: OmadConfig) -> ValueHead:
    """Value distributions, or scalar values."""
    if config.critic_kind == "scalar":
        return scalar()
    return distributional(config.v_max, config.atoms, config.atom_entropy)


class TwinReduction(NamedTuple):
    """How the twins' values become one."""

    q: Callable[[Float[Array, "*agent twin batch"]], Float[Array, "*agent batch"]]
    """Expected returns, which policies ascend."""
    values: Callable[[Float[Array, "twin batch out"]], Float[Array, "batch out"]]
    """Values, from which targets are made."""


def twin_reduction(config: OmadConfig, head: ValueHead) -> TwinReduction:
    """Their mean, or the twin of lower expected return."""

    def lower(values: Float[Array, "twin batch out"]) -> Float[Array, "batch out"]:
        q = head.expectation(values)
        return jnp.where((q[0] <= q[1])[:, None], values[0], values[1])

    if config.critic_reduce == "min":
        return TwinReduction(lambda q: q.min(-2), lower)
    return TwinReduction(lambda q: q.mean(-2), lambda values: values.mean(0))


class CriticScope(NamedTuple):
    """Whose critics there are; with independent ones, critics and what they read have a leading agent axis."""

    input_size: int
    inputs: Callable[..., Float[Array, "*agent batch in"]]
    """(obs, state, action) -> what critics read."""
    init: Callable[..., Any]
    """(initialiser of one critic, key) -> twins."""
    evaluate: Callable[..., Any]
    """(values of a pair of twins) -> the same for all critics there are."""
    loss: Callable[..., Any]
    """(loss of a pair of twins) -> the same for all critics there are: summed, metrics averaged."""
    costs: Callable[[Float[Array, "batch agent"]], Float[Array, "*agent batch"]]
    """Costs of agents -> what each critic's target holds of them."""
    team_q: Callable[[Float[Array, "*agent batch"]], Float[Array, " batch"]]
    """What all policies ascend together."""
    agent_q: Callable[[Float[Array, "*agent batch"], Int[Array, ""]], Float[Array, " batch"]]
    """What one agent's policy ascends."""


def critic_scope(config: OmadConfig, spec: EnvSpec) -> CriticScope:
    """Joint critics, or a pair an agent."""
    if config.critic_scope == "independent":
        return _independent_critics(spec)
    inputs = joint_input(spec, config.critic_input)
    return CriticScope(
        input_size=inputs.size,
        inputs=inputs,
        init=lambda init_critic, key: jax.vmap(init_critic)(jax.random.split(key, 2)),
        evaluate=lambda evaluate: evaluate,
        loss=lambda critic_loss: critic_loss,
        costs=lambda cost: jnp.sum(cost, axis=-1),
        team_q=lambda q: q,
        agent_q=lambda q, agent: q,
    )


def _independent_critics(spec: EnvSpec) -> CriticScope:
    """A pair of twins an agent; the team's reward and the agent's own entropy bonus are in its target."""

    def inputs(obs: TeamObs, state: GlobalState, action: TeamAction) -> Float[Array, "agent batch in"]:
        return jnp.moveaxis(jnp.concatenate([obs, action], axis=-1), 1, 0)

    def loss(critic_loss: Callable[..., Any]) -> Callable[..., Any]:
        def over_agents(*given: Any) -> Any:
            losses, (stats, metrics) = jax.vmap(critic_loss, in_axes=(0, 0, 0, 0, 0, 0, None))(*given)
            return losses.sum(), (stats, jax.tree.map(lambda leaf: leaf.mean(0), metrics))

        return over_agents

    return CriticScope(
        input_size=spec.obs_dim + spec.act_dim,
        inputs=inputs,
        init=lambda init_critic, key: jax.vmap(jax.vmap(init_critic))(jax.random.split(key, (spec.n_agents, 2))),
        evaluate=jax.vmap,
        loss=loss,
        costs=lambda cost: cost.T,
        team_q=lambda q: q.sum(0),
        agent_q=lambda q, agent: q[agent],
    )


class TemperatureScope(NamedTuple):
    """How many temperatures there are."""

    size: int
    excess: Callable[[Float[Array, " agent"]], Float[Array, " group"]]
    """Excess of each agent's running cost over its limit -> that of each temperature."""


def temperature_scope(config: OmadConfig, spec: EnvSpec) -> TemperatureScope:
    """One for the team, or one an agent."""
    if config.alpha_per_agent:
        return TemperatureScope(spec.n_agents, lambda excess: excess)
    return TemperatureScope(1, lambda excess: excess.sum(keepdims=True))


def sequential_policies(
    optimiser: optax.GradientTransformation,
    actors: Any,
    opts: Any,
    sample: Callable[[Any, Int[Array, ""], Key[Array, ""]], Chain],
    q_of: Callable[[TeamAction, Int[Array, ""]], Float[Array, " batch"]],
    alpha: Float[Array, " agent"],
    mask: Float[Array, "agent act"],
    key: Key[Array, ""],
) -> SequentialUpdate:
    """A step of every policy in random order, each on mean[ alpha_i (R_i + P_i) - Q ] at the others' newest actions.

    Args:
        optimiser: Steps one agent's parameters.
        actors: Policies, stacked over agents.
        opts: Optimiser states, stacked over agents.
        sample: (policy, which agent, key) -> its chains on the batch.
        q_of: (joint actions, which agent) -> what its policy ascends.
        alpha: Temperatures.
        mask: 1 for real action dimensions.
        key: Consumed.

    Returns:
        Its `aux` are loss, Q, R_i, P_i and saturated entries of each agent, means over the batch.
    """

    def act(actor: Any, agent: Int[Array, ""], key: Key[Array, ""]) -> tuple[Any, Chain]:
        chain = sample(actor, agent, key)
        return chain.action, chain

    def policy_loss(action: TeamAction, own: Chain, agent: Int[Array, ""]) -> tuple[Any, Any]:
        q = q_of(action, agent)
        loss = jnp.mean(alpha[agent] * own.cost - q)
        saturated = jnp.sum((jnp.abs(action[:, agent]) > 0.99) * mask[agent]) / action.shape[0]
        return loss, (loss, q.mean(), own.running.mean(), own.terminal.mean(), saturated)

    return sequential_update(optimiser, actors, opts, act, policy_loss, key)
