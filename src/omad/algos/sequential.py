"""Policies updated one agent after the other, in a fresh random order, each seeing the others' newest actions.

Paper: Zhong et al., "Heterogeneous-Agent Reinforcement Learning", JMLR 25 (32), 2024 (arXiv 2304.09870);
Liu et al., "Maximum Entropy Heterogeneous-Agent Reinforcement Learning", ICLR 2024 (arXiv 2306.10715).

    a_1..a_N  <- act of every agent, no gradient
    for agent i in a random order of all:
        theta_i  <- one optimiser step on  loss_i(a_1 .. act(theta_i) .. a_N)
        a_i      <- act(theta_i), new parameters, no gradient

It is one loop in compiled code, so the program's size does not grow with the number of agents; only one agent's
gradient is computed at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from omad.tree import at, descend, global_norm, put
from omad.types import TeamAction

Act = Callable[[Any, Int[Array, ""], Key[Array, ""]], tuple[Float[Array, "batch act"], Any]]
"""(one agent's parameters, which agent, key) -> its actions on the batch, and what else its loss needs."""
Loss = Callable[[TeamAction, Any, Int[Array, ""]], tuple[Float[Array, ""], Any]]
"""(all agents' actions, what `act` gave, which agent) -> its loss, and auxiliary values."""


class SequentialUpdate(NamedTuple):
    """What one update of every agent leaves behind; leading axes are agents, in their own order."""

    actors: Any
    opts: Any
    aux: Any
    """What each agent's loss gave besides its value."""
    grad_norm: Float[Array, ""]
    """Over all agents' gradients."""
    order: Int[Array, " agent"]
    """Who came first, second, ..."""


def sequential_update(
    optimiser: optax.GradientTransformation, actors: Any, opts: Any, act: Act, loss: Loss, key: Key[Array, ""]
) -> SequentialUpdate:
    """One optimiser step of every agent, in random order. The key is consumed.

    Args:
        optimiser: Steps one agent's parameters.
        actors: Parameters, stacked over agents.
        opts: Optimiser states, stacked over agents.
        act: One agent's actions on the batch.
        loss: One agent's loss.
        key: Decides the order and every draw of `act`.
    """
    n_agents = jax.tree.leaves(actors)[0].shape[0]
    order_key, first_key, step_key = jax.random.split(key, 3)
    order = jax.random.permutation(order_key, n_agents)
    keys = jax.random.split(first_key, n_agents)
    joint = jax.vmap(lambda *one: act(*one)[0], out_axes=1)(actors, jnp.arange(n_agents), keys)

    def step(carry: tuple[Any, Any, TeamAction], inputs: Any) -> tuple[Any, Any]:
        actors, opts, joint = carry
        agent, place = inputs
        loss_key, act_key = jax.random.split(jax.random.fold_in(step_key, place))

        def objective(actor: Any) -> tuple[Float[Array, ""], Any]:
            action, drawn = act(actor, agent, loss_key)
            return loss(joint.at[:, agent].set(action), drawn, agent)

        actor = at(actors, agent)
        grads, aux = jax.grad(objective, has_aux=True)(actor)
        actor, opt = descend(optimiser, grads, at(opts, agent), actor)
        joint = joint.at[:, agent].set(act(actor, agent, act_key)[0])
        return (put(actors, agent, actor), put(opts, agent, opt), joint), (aux, global_norm(grads))

    (actors, opts, _), (aux, norms) = jax.lax.scan(step, (actors, opts, joint), (order, jnp.arange(n_agents)))
    by_agent = jnp.argsort(order)
    aux = jax.tree.map(lambda rows: rows[by_agent], aux)
    return SequentialUpdate(actors, opts, aux, jnp.sqrt(jnp.sum(jnp.square(norms))), order)
