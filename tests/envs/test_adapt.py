"""Scaling, clipping and padding between a learner and an env."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad.envs import adapt
from omad.types import EnvSpec, JaxEnv, Observation, Outcome


def echo(act_dims: tuple[int, ...]) -> JaxEnv:
    """An env whose state after a step is the action that it was given."""
    spec = EnvSpec("echo", (1,) * len(act_dims), act_dims, 0, 1)
    seen = Observation(jnp.zeros((len(act_dims), 1)), jnp.zeros((0,)))
    no = jnp.zeros((), bool)

    def step(state: Any, action: Any, key: Any) -> tuple[Any, Outcome]:
        del state, key
        return action, Outcome(seen, jnp.zeros(()), no, no)

    return JaxEnv(spec, lambda key: (None, seen), step)


def test_actions_are_clipped_and_mapped_to_each_agents_box_with_zero_padding() -> None:
    env = adapt.rescale(echo((1, 2)), low=[0.0, [-2.0, 10.0]], high=[1.0, [2.0, 30.0]])

    def native(action: Any) -> Any:
        return env.step(None, jnp.asarray(action), jax.random.key(0))[0]

    np.testing.assert_allclose(native([[-1.0, 0.7], [-1.0, -1.0]]), [[0.0, 0.0], [-2.0, 10.0]])
    np.testing.assert_allclose(native([[0.0, -9.0], [0.5, 0.0]]), [[0.5, 0.0], [1.0, 20.0]])
    np.testing.assert_allclose(native([[7.0, 1.0], [2.0, 5.0]]), [[1.0, 0.0], [2.0, 30.0]])


def test_padded_dimensions_have_no_gradient() -> None:
    env = adapt.rescale(echo((1, 2)), low=[0.0, -1.0], high=[1.0, 1.0])
    slope = jax.grad(lambda a: env.step(None, a, jax.random.key(0))[0].sum())(jnp.zeros((2, 2)))
    np.testing.assert_allclose(slope, [[0.5, 0.0], [1.0, 1.0]])


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [([0.0], [1.0, 1.0], "1 action limits given for 2 agents"), ([0.0, 2.0], [1.0, 1.0], "ordered")],
)
def test_wrong_limits_are_an_error(low: list[float], high: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        adapt.rescale(echo((1, 2)), low, high)


def test_short_rows_are_padded_with_zeros() -> None:
    rows = adapt.pad([jnp.asarray([1.0]), jnp.asarray([2.0, 3.0])], 3)
    assert rows.tolist() == [[1.0, 0.0, 0.0], [2.0, 3.0, 0.0]]
