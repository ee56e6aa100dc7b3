"""What hangs on the number of gradient steps: policy updates that come less often, settings that change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from omad.types import Mean, Metrics

T = TypeVar("T")


def linear_decay(start: float | Float[Array, ""], steps: int, every: int = 1) -> optax.ScalarOrSchedule:
    """A learning rate that falls linearly to a tenth in `steps` gradient steps and stays there; 0 keeps it constant.

    `every` is how many gradient steps there are to one of its optimiser's.
    """
    return optax.linear_schedule(start, 0.1 * start, max(1, steps // every)) if steps else start


def linear(
    start: float | Float[Array, ""], end: float | Float[Array, ""] | None, begin: int, steps: int
) -> optax.Schedule:
    """From the number of gradient steps to a value that is `start` up to `begin` and `end` from `steps` later on.

    It is linear in between; without an end it stays `start`.
    """
    return optax.constant_schedule(start) if end is None else optax.linear_schedule(start, end, steps, begin)


def delayed_update(due: Bool[Array, ""], update: Callable[[T], tuple[T, Metrics]], learner: T) -> tuple[T, Metrics]:
    """Update the policies where it is due; else keep the learner and return the same metrics with weight 0.

    It is a branch, so nothing is computed where it is not due. The metric `policy/update_fraction` comes on top.
    """
    update = jax.jit(jax.named_scope("policy")(update), inline=True)  # so that it is traced once

    def skip(learner: T) -> tuple[T, Metrics]:
        shapes: Any = jax.eval_shape(update, learner)[1]
        return learner, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    learner, metrics = jax.lax.cond(due, update, skip, learner)
    return learner, metrics | {"policy/update_fraction": Mean.of(due)}
