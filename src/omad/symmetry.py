"""Symmetry augmentation, the same for every algorithm: an algorithm in, an algorithm out.

Where a task is invariant to rotations or reflections, the image of a transition is a transition. Each gradient step
replaces every transition of its batch by one of its images, sampled uniformly; acting does not change. Agents may swap
in an image, as a robot's left and right legs do. So critics need not learn left from right, and a policy gains nothing
by a preference such as "the leftmost landmark is mine", in which learning seems to get stuck otherwise on
`mpe/spread-4` (docs/learning/roles-and-symmetry.md). Published OMAD lacks it.

In single-agent learning from pixels the same is known as data augmentation: Laskin et al., "Reinforcement Learning with
Augmented Data", arXiv 2004.14990; van der Pol et al., "Multi-Agent MDP Homomorphic Networks", arXiv 2110.04495, build
the plane's symmetries into networks instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from omad.types import Algorithm, Batch, Learner, Metrics, Symmetry

_SWAPS = ((0, 1), (1, 0))
_SIGNS = ((1, 1), (-1, 1), (1, -1), (-1, -1))


def plane(obs: int, state: int, *, xy: bool) -> Symmetry:
    """The dihedral group D4: the eight rotations and reflections that map a square onto itself, the identity first.

    Args:
        obs: size of an observation that is a row of vectors (x, y).
        state: size of a state that is one, too.
        xy: whether an action is one vector, or the five numbers (nothing, left, right, down, up).

    Raises:
        ValueError: A size is odd.
    """
    if obs % 2 or state % 2:
        raise ValueError(f"Rows of plane vectors have even sizes, not {obs} and {state}.")
    elements = [(swap, sign) for swap in _SWAPS for sign in _SIGNS]

    def vectors(size: int) -> tuple[np.ndarray, np.ndarray]:
        first = 2 * (np.arange(size) // 2)
        return (
            np.array([first + np.resize(swap, size) for swap, _ in elements], int).reshape(len(elements), size),
            np.array([np.resize(sign, size) for _, sign in elements], float).reshape(len(elements), size),
        )

    def pushes(swap: Sequence[int], sign: Sequence[int]) -> list[int]:
        """Which of the five numbers each one is afterwards: an axis keeps its two ends, unless it is reflected."""
        ends = [(1 + 2 * axis, 2 + 2 * axis)[::flip] for axis, flip in zip(swap, sign, strict=True)]
        return [0, *ends[0], *ends[1]]

    action = vectors(2) if xy else (np.array([pushes(*e) for e in elements]), np.ones((len(elements), 5)))
    return Symmetry(*vectors(obs), *vectors(state), *action)


def image(batch: Batch, symmetry: Symmetry, element: Int[Array, " batch"]) -> Batch:
    """Every transition as the given element of the group shows it; rewards and discounts stay."""

    def transformed(x: Float[Array, "batch *agent entry"], index: np.ndarray, sign: np.ndarray) -> Array:
        if index.ndim == 3:  # agents change places: the table is one row
            row = transformed(x.reshape(len(x), -1), index.reshape(len(index), -1), sign.reshape(len(sign), -1))
            return row.reshape(x.shape)
        shape = (x.shape[0],) + (1,) * (x.ndim - 2) + (x.shape[-1],)
        where = jnp.asarray(index)[element].reshape(shape)
        return jnp.asarray(sign, x.dtype)[element].reshape(shape) * jnp.take_along_axis(x, where, axis=-1)

    s = symmetry
    return dataclasses.replace(
        batch,
        obs=transformed(batch.obs, s.obs_index, s.obs_sign),
        state=transformed(batch.state, s.state_index, s.state_sign),
        action=transformed(batch.action, s.action_index, s.action_sign),
        next_obs=transformed(batch.next_obs, s.obs_index, s.obs_sign),
        next_state=transformed(batch.next_state, s.state_index, s.state_sign),
    )


def symmetric(algorithm: Algorithm, symmetry: Symmetry) -> Algorithm:
    """The algorithm, learning from a random image of every transition."""

    def update(learner: Learner, batch: Batch, key: Key[Array, ""], count: Int[Array, ""]) -> tuple[Learner, Metrics]:
        key, draw = jax.random.split(key)
        element = jax.random.randint(draw, batch.ret.shape, 0, len(symmetry.obs_index))
        return algorithm.update(learner, image(batch, symmetry, element), key, count)

    remade = algorithm.remade
    return algorithm._replace(
        update=update, remade=None if remade is None else lambda given: symmetric(remade(given), symmetry)
    )
