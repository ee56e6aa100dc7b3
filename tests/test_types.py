"""The records that everything is made of."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from omad.types import Batch, EnvSpec, Mean, Step


def test_sizes_of_unequal_agents() -> None:
    """Padded sizes are the largest, D counts real dimensions, the mask says which are real."""
    spec = EnvSpec("t", (1, 3, 2), (2, 1, 3), 0, 5)
    assert (spec.n_agents, spec.obs_dim, spec.act_dim, spec.joint_act_dim) == (3, 3, 3, 6)
    np.testing.assert_array_equal(spec.act_mask, [[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.horizon = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_means_add_up_and_nothing_measured_counts_for_nothing() -> None:
    """2, then nothing, then 4 is a mean of 3 over two measurements."""
    nothing = Mean(jnp.zeros(()), jnp.zeros(()))
    total = Mean.of(2) + nothing + Mean.of(jnp.asarray(4))
    assert float(total.total / total.weight) == 3.0
    assert float(total.weight) == 2.0


def test_records_are_checked_where_tests_run() -> None:
    """A shape (B, 1) next to (B,) would broadcast to (B, B) in a loss without anyone noticing."""
    zeros = jnp.zeros
    rows = {"obs": zeros((4, 2, 3)), "state": zeros((4, 0)), "action": zeros((4, 2, 1)),
            "next_obs": zeros((4, 2, 3)), "next_state": zeros((4, 0))}  # fmt: skip
    Batch(**rows, ret=zeros(4), discount=zeros(4))
    with pytest.raises(jaxtyping.TypeCheckError):
        Batch(**rows, ret=zeros((4, 1)), discount=zeros(4))
    with pytest.raises(jaxtyping.TypeCheckError):
        Batch(**rows, ret=zeros(5), discount=zeros(4))
    with pytest.raises(jaxtyping.TypeCheckError):
        Step(**rows, reward=zeros(4), terminated=zeros(4), truncated=zeros(4, bool))


def test_records_are_frozen_pytrees() -> None:
    """State changes only by making new records."""
    mean = Mean.of(1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        mean.total = jnp.zeros(())  # pyright: ignore[reportAttributeAccessIssue]
    assert len(jax.tree.leaves(mean)) == 2
