"""What a critic's outputs mean: a distribution over atoms, or a single number; all else of a critic is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from omad.ops import categorical


class ValueHead(NamedTuple):
    """How values are decoded from a critic's outputs, backed up, and fitted. Axes before the last one are free."""

    outputs: int
    """Numbers that a critic gives for one row."""
    decode: Callable[[Float[Array, "*b out"]], Float[Array, "*b out"]]
    """Outputs -> values: the probabilities of atoms, or the number itself."""
    expectation: Callable[[Float[Array, "*b out"]], Float[Array, "*b"]]
    """Values -> expected return."""
    bellman_target: Callable[
        [Float[Array, "batch out"], Float[Array, " batch"], Float[Array, " batch"]], Float[Array, "batch out"]
    ]
    """(values of the successor, soft reward, discount) -> target."""
    loss: Callable[[Float[Array, "*#b out"], Float[Array, "*#b out"]], Float[Array, "*b"]]
    """(target, values) -> loss of each row."""
    diagnostics: Callable[[Float[Array, "*#b out"], Float[Array, "*#b out"]], dict[str, Float[Array, ""]]]
    """(target, values) -> metrics of this kind of value alone."""


def distributional(v_max: float, atoms: int, atom_entropy: float | Float[Array, ""]) -> ValueHead:
    """Probabilities of atoms on [-v_max, v_max]; cross entropy, less a bonus on the entropy over atoms."""
    support = categorical.support(v_max, atoms)

    def diagnostics(target: Float[Array, "*#b out"], probs: Float[Array, "*#b out"]) -> dict[str, Float[Array, ""]]:
        return {
            "critic/atom_entropy": -categorical.negative_entropy(probs).mean(),
            "critic/edge_mass": categorical.edge_mass(probs).mean(),
            "critic/target_edge_mass": categorical.edge_mass(target).mean(),
        }

    return ValueHead(
        outputs=atoms,
        decode=lambda outputs: jax.nn.softmax(outputs, axis=-1),
        expectation=lambda probs: categorical.expectation(probs, support),
        bellman_target=lambda probs, soft_reward, discount: categorical.project(probs, soft_reward, discount, v_max),
        loss=lambda target, probs: (
            categorical.cross_entropy(target, probs) + atom_entropy * categorical.negative_entropy(probs)
        ),
        diagnostics=diagnostics,
    )


def scalar() -> ValueHead:
    """One number; half the squared error."""
    return ValueHead(
        outputs=1,
        decode=lambda outputs: outputs,
        expectation=lambda values: values[..., 0],
        bellman_target=lambda values, soft_reward, discount: soft_reward[:, None] + discount[:, None] * values,
        loss=lambda target, values: 0.5 * jnp.square(target - values).sum(-1),
        diagnostics=lambda target, values: {},
    )
