"""Small helpers on pytrees of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

__all__ = [
    "all_finite",
    "at_agent",
    "at_seed",
    "descend",
    "global_norm",
    "polyak",
    "put_agent",
    "put_seed",
    "stacked",
    "start",
]

T = TypeVar("T")


def descend(optimiser: optax.GradientTransformation, grads: Any, state: Any, params: T) -> tuple[T, Any]:
    """One optimiser step downhill: the new parameters and the new optimiser state."""
    updates, state = optimiser.update(grads, state)
    return eqx.apply_updates(params, updates), state


def start(optimiser: optax.GradientTransformation, params: Any) -> optax.OptState:
    """The optimiser's state before its first step."""
    return optimiser.init(params)


def polyak(target: T, online: T, tau: float | Float[Array, ""]) -> T:
    """Exponential average of parameters: (1 - tau) target + tau online; counters are taken over as they are."""

    def mix(t: Array, o: Array) -> Array:
        return t + tau * (o - t) if jnp.issubdtype(o.dtype, jnp.floating) else o

    return jax.tree.map(mix, target, online)


def at_agent(tree: T, agent: int | Int[Array, ""]) -> T:
    """The rows of one agent in a tree whose leaves carry a leading agent axis."""
    return jax.tree.map(lambda leaf: leaf[agent], tree)


def put_agent(tree: T, agent: int | Int[Array, ""], row: T) -> T:
    """The same tree with the rows of one agent replaced."""
    return jax.tree.map(lambda leaf, new: leaf.at[agent].set(new), tree, row)


def at_seed(tree: T, seed: int | Int[Array, ""]) -> T:
    """The rows of one seed (by its place) in a tree whose leaves carry a leading seed axis."""
    return jax.tree.map(lambda leaf: leaf[seed], tree)


def put_seed(tree: T, seed: int | Int[Array, ""], row: T) -> T:
    """The same tree with the rows of one seed (by its place) replaced."""
    return jax.tree.map(lambda leaf, new: leaf.at[seed].set(new), tree, row)


def stacked(trees: Sequence[T]) -> T:
    """One tree whose leaves carry a new leading axis, an entry a tree."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def global_norm(tree: PyTree) -> Float[Array, ""]:
    """Euclidean norm over all leaves."""
    return optax.tree.norm(tree)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every floating-point entry of every leaf is finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
