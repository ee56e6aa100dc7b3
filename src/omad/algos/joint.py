"""The joint critic that algorithms share: what it reads, twins of scalar values, and their gradient step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from omad.errors import Refused
from omad.nets import Mlp
from omad.tree import descend, global_norm
from omad.types import EnvSpec, Mean, Metrics

__all__ = [
    "Fitted",
    "JointInput",
    "fit",
    "init_twins",
    "joint_input",
    "twin_values",
]


class JointInput(NamedTuple):
    """What a joint critic reads: the env's state or all observations, then all actions."""

    use_state: bool
    size: int
    """Entries of a row."""

    def __call__(
        self,
        obs: Float[Array, "batch agent obs"],
        state: Float[Array, "batch state"],
        action: Float[Array, "batch agent act"],
    ) -> Float[Array, "batch in"]:
        """One row a transition."""
        seen = state if self.use_state else obs.reshape(obs.shape[0], -1)
        return jnp.concatenate([seen, action.reshape(action.shape[0], -1)], axis=-1)


def joint_input(spec: EnvSpec, critic_input: Literal["auto", "state", "obs"]) -> JointInput:
    """What critics of a task read: `auto` takes the state where there is one.

    Raises:
        Refused: The state is asked for, but the task has none.
    """
    use_state = critic_input == "state" or (critic_input == "auto" and spec.state_dim > 0)
    if use_state and spec.state_dim == 0:
        raise Refused(f"critic_input is 'state' but {spec.name} has none; use 'auto' or 'obs'")
    seen = spec.state_dim if use_state else spec.n_agents * spec.obs_dim
    return JointInput(use_state, seen + spec.n_agents * spec.act_dim)


def init_twins(key: Key[Array, ""], sizes: Sequence[int]) -> Mlp:
    """Two scalar critics, stacked. The key is consumed."""
    return jax.vmap(lambda k: Mlp.init(k, sizes))(jax.random.split(key, 2))


def twin_values(critics: Mlp, x: Float[Array, "batch in"]) -> Float[Array, "twin batch"]:
    """Both critics' values of every row."""
    return jax.vmap(lambda critic: critic(x)[:, 0])(critics)


class Fitted(NamedTuple):
    """Critics after a gradient step, and what was measured."""

    critics: Mlp
    opt: optax.OptState
    metrics: Metrics


def fit(
    optimiser: optax.GradientTransformation,
    critics: Mlp,
    opt: optax.OptState,
    x: Float[Array, "batch in"],
    goal: Float[Array, " batch"],
    penalty: Callable[[Any], Any],
) -> Fitted:
    """One step of both critics towards the same goal: mean penalty of the error, summed over the twins."""

    def loss(critics: Mlp) -> tuple[Float[Array, ""], Float[Array, "twin batch"]]:
        values = twin_values(critics, x)
        return jnp.sum(jnp.mean(penalty(values - goal[None]), axis=1)), values

    (value, values), grads = jax.value_and_grad(loss, has_aux=True)(critics)
    critics, opt = descend(optimiser, grads, opt, critics)
    measured = {
        "critic/loss": value,
        "critic/q": values.mean(),
        "critic/target": goal.mean(),
        "critic/grad_norm": global_norm(grads),
    }
    return Fitted(critics, opt, {name: Mean.of(number) for name, number in measured.items()})
