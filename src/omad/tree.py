"""Small helpers on pytrees of parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

T = TypeVar("T")


@jax.named_scope("optimiser")
def descend(optimiser: optax.GradientTransformation, grads: Any, state: Any, params: T) -> tuple[T, Any]:
    """One optimiser step downhill: the new parameters and the new optimiser state."""
    updates, state = optimiser.update(grads, state)
    return eqx.apply_updates(params, updates), state


def start(optimiser: optax.GradientTransformation, params: Any) -> optax.OptState:
    """The optimiser's state before its first step; optax's own types do not know modules as parameters."""
    return optimiser.init(params)


def each(optimiser: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimiser for a stack of parameters: every entry of the leading axis has a state of its own.

    Around `optax.flatten`, moments are one vector an entry: a step is one pass over it and not one over every leaf.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.vmap(lambda grads, own: optimiser.update(grads, own))(updates, state)

    return optax.GradientTransformation(lambda params: jax.vmap(optimiser.init)(params), update)


@jax.named_scope("optimiser")
def polyak(target: T, online: T, tau: float | Float[Array, ""]) -> T:
    """Exponential average of parameters: (1 - tau) target + tau online; counters are taken over as they are."""

    def mix(t: Array, o: Array) -> Array:
        return t + tau * (o - t) if jnp.issubdtype(o.dtype, jnp.floating) else o

    return jax.tree.map(mix, target, online)


def at(tree: T, place: int | Int[Array, ""]) -> T:
    """The rows of one agent, or of one seed by its place, in a tree whose leaves carry a leading axis of these."""
    return jax.tree.map(lambda leaf: leaf[place], tree)


def put(tree: T, place: int | Int[Array, ""], row: T) -> T:
    """The same tree with these rows replaced."""
    return jax.tree.map(lambda leaf, new: leaf.at[place].set(new), tree, row)


def stacked(trees: Sequence[T]) -> T:
    """One tree whose leaves carry a new leading axis, an entry a tree."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def difference(name: str, due: PyTree, given: PyTree) -> str:
    """Where the form of a tree is not the one that is due, in words without a full stop; empty if it is."""
    forms = [str(jax.tree.structure(tree)).removeprefix("PyTreeDef")[:200] for tree in (given, due)]
    if jax.tree.structure(due) != jax.tree.structure(given):
        return f"{name} of the structure {forms[0]}; it must be {forms[1]}"
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(given), jax.tree.leaves(due), strict=True):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            words = [f"{leaf.dtype}{list(leaf.shape)}" for leaf in (one, other)]
            return f"{name}{jax.tree_util.keystr(path)} as {words[0]}; it must be {words[1]}"
    return ""


def key_in(name: str, tree: PyTree) -> str:
    """The first leaf that is a random key and what to do about it, in words without a full stop; empty if none is."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return (
                f"{name}{jax.tree_util.keystr(path)} as a random key, which no checkpoint can hold; keep "
                "jax.random.key_data of it, or use the key that is given at every step"
            )
    return ""


def global_norm(tree: PyTree) -> Float[Array, ""]:
    """Euclidean norm over all leaves."""
    return optax.tree.norm(tree)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every floating-point entry of every leaf is finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves] or [True]).all()
