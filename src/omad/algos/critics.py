"""The joint critic that algorithms share: what it reads, twins of scalar values, and their gradient step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from omad.errors import UserError
from omad.nets import Mlp
from omad.ops import td
from omad.tree import descend, global_norm
from omad.types import EnvSpec, GlobalState, Mean, Metrics, TeamAction, TeamObs


class JointInput(NamedTuple):
    """What a joint critic reads: the env's state or all observations, then all actions."""

    use_state: bool
    size: int
    """Entries of a row."""

    def __call__(
        self,
        obs: TeamObs,
        state: GlobalState,
        action: TeamAction,
    ) -> Float[Array, "batch in"]:
        """One row a transition."""
        context = state if self.use_state else obs.reshape(obs.shape[0], -1)
        return jnp.concatenate([context, action.reshape(action.shape[0], -1)], axis=-1)


def joint_input(spec: EnvSpec, critic_input: Literal["auto", "state", "obs"]) -> JointInput:
    """What critics of a task read: `auto` takes the state where there is one.

    Raises:
        UserError: The state is asked for, but the task has none.
    """
    use_state = critic_input == "state" or (critic_input == "auto" and spec.state_dim > 0)
    if use_state and spec.state_dim == 0:
        raise UserError(f"critic_input is 'state' but {spec.name} has none; use 'auto' or 'obs'.")
    context = spec.state_dim if use_state else spec.n_agents * spec.obs_dim
    return JointInput(use_state, context + spec.n_agents * spec.act_dim)


def init_twins(
    key: Key[Array, ""], inputs: int, width: int, layers: int, activation: Callable[[Array], Array] = jax.nn.relu
) -> Mlp:
    """Two scalar critics of so many hidden layers, stacked. The key is consumed."""
    sizes = [inputs, *[width] * layers, 1]
    return jax.vmap(lambda k: Mlp.init(k, sizes, activation))(jax.random.split(key, 2))


def twin_values(critics: Mlp, x: Float[Array, "batch in"]) -> Float[Array, "twin batch"]:
    """Both critics' values of every row."""
    return jax.vmap(lambda critic: critic(x)[:, 0])(critics)


def regression_loss(kind: Literal["mse", "huber"], huber_delta: float | Float[Array, ""]) -> Callable[[Any], Any]:
    """Elementwise loss of an error: half its square, or Huber's."""
    return functools.partial(td.huber, delta=huber_delta) if kind == "huber" else td.squared


class CriticStep(NamedTuple):
    """Critics after a gradient step, and its metrics."""

    critics: Mlp
    opt: optax.OptState
    metrics: Metrics


def fit_twins(
    optimiser: optax.GradientTransformation,
    critics: Mlp,
    opt: optax.OptState,
    x: Float[Array, "batch in"],
    target: Float[Array, " batch"],
    error_loss: Callable[[Any], Any],
) -> CriticStep:
    """One step of both critics towards the same target: mean loss of the error, summed over the twins."""

    def critic_loss(critics: Mlp) -> tuple[Float[Array, ""], Float[Array, "twin batch"]]:
        q = twin_values(critics, x)
        return jnp.sum(jnp.mean(error_loss(q - target[None]), axis=1)), q

    (loss, q), grads = jax.value_and_grad(critic_loss, has_aux=True)(critics)
    critics, opt = descend(optimiser, grads, opt, critics)
    metrics = {
        "critic/loss": loss,
        "critic/q": q.mean(),
        "critic/target": target.mean(),
        "critic/grad_norm": global_norm(grads),
    }
    return CriticStep(critics, opt, {name: Mean.of(value) for name, value in metrics.items()})
