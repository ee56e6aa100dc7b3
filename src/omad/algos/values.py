"""What a critic's outputs mean: a distribution over atoms, or a single number; all else of a critic is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from omad.ops import categorical

__all__ = ["Values", "distributional", "scalar"]


class Values(NamedTuple):
    """How values are read from a critic's outputs, backed up, and fitted. Axes before the last one are free."""

    outputs: int
    """Numbers that a critic gives for one row."""
    read: Callable[[Float[Array, "*b out"]], Float[Array, "*b out"]]
    """Outputs -> values."""
    mean: Callable[[Float[Array, "*b out"]], Float[Array, "*b"]]
    """Values -> expected return."""
    backup: Callable[
        [Float[Array, "batch out"], Float[Array, " batch"], Float[Array, " batch"]], Float[Array, "batch out"]
    ]
    """(values of the successor, reward plus bonus, discount) -> target."""
    loss: Callable[[Float[Array, "*#b out"], Float[Array, "*#b out"]], Float[Array, "*b"]]
    """(target, values) -> what is to be small."""
    measure: Callable[[Float[Array, "*#b out"], Float[Array, "*#b out"]], dict[str, Float[Array, ""]]]
    """(target, values) -> what is to be watched."""


def distributional(v_max: float, atoms: int, atom_entropy: float | Float[Array, ""]) -> Values:
    """Probabilities of atoms on [-v_max, v_max]; cross entropy, less a bonus on the entropy over atoms."""
    places = categorical.support(v_max, atoms)

    def measure(goal: Float[Array, "*#b out"], probs: Float[Array, "*#b out"]) -> dict[str, Float[Array, ""]]:
        return {
            "critic/atom_entropy": -categorical.negative_entropy(probs).mean(),
            "critic/edge_mass": categorical.edge_mass(probs).mean(),
            "critic/target_edge_mass": categorical.edge_mass(goal).mean(),
        }

    return Values(
        outputs=atoms,
        read=lambda outputs: jax.nn.softmax(outputs, axis=-1),
        mean=lambda probs: categorical.expectation(probs, places),
        backup=lambda probs, shift, discount: categorical.project(probs, shift, discount, v_max),
        loss=lambda goal, probs: (
            categorical.cross_entropy(goal, probs) + atom_entropy * categorical.negative_entropy(probs)
        ),
        measure=measure,
    )


def scalar() -> Values:
    """One number; half the squared error."""
    return Values(
        outputs=1,
        read=lambda outputs: outputs,
        mean=lambda values: values[..., 0],
        backup=lambda values, shift, discount: shift[:, None] + discount[:, None] * values,
        loss=lambda goal, values: 0.5 * jnp.square(goal - values).sum(-1),
        measure=lambda goal, values: {},
    )
