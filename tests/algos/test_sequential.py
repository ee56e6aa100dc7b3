"""Agents updated in turn: who sees what of whom, in which order, and that turns cost what they should."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from omad.algos.sequential import SequentialUpdate, sequential_update

RATE = 0.1


def act(theta: Any, agent: Any, key: Any) -> tuple[Any, Any]:
    """One number an agent, on a batch of two."""
    return jnp.full((2, 1), theta), agent


def loss(joint: Any, own: Any, agent: Any) -> tuple[Any, Any]:
    """Half the squared sum of all actions, so that every slope is that sum; and what was seen."""
    return 0.5 * jnp.mean(jnp.sum(joint[..., 0], axis=1) ** 2), (joint[0, :, 0], own, agent)


@jax.jit
def turns(key: Any, actors: Any) -> SequentialUpdate:
    sgd = optax.sgd(RATE)
    return sequential_update(sgd, actors, jax.vmap(sgd.init)(actors), act, loss, key)


def test_agents_move_one_after_the_other_by_hand() -> None:
    """Actions 1, 2, 3, rate 0.1. The first sees the sum 6 and falls by 0.6; the next sees 5.4, the last 4.86."""
    done = turns(jax.random.key(0), jnp.asarray([1.0, 2.0, 3.0]))
    first, second, third = np.asarray(done.order)
    moved = np.asarray(done.actors) - [1.0, 2.0, 3.0]
    np.testing.assert_allclose(moved[[first, second, third]], [-0.6, -0.54, -0.486], rtol=1e-5)
    assert float(done.grad_norm) == np.float32(np.sqrt(6.0**2 + 5.4**2 + 4.86**2))


def test_each_sees_earlier_agents_as_they_are_and_later_ones_as_they_were() -> None:
    """What is known of an agent's turn comes back in the agents' own order."""
    before = np.asarray([1.0, 2.0, 3.0])
    done = turns(jax.random.key(1), jnp.asarray(before))
    seen, own, agent = (np.asarray(x) for x in done.aux)
    np.testing.assert_array_equal(own, [0, 1, 2])
    np.testing.assert_array_equal(agent, [0, 1, 2])
    place = {int(who): when for when, who in enumerate(done.order)}
    for i, j in itertools.product(range(3), range(3)):
        expected = np.asarray(done.actors)[j] if place[j] < place[i] else before[j]
        assert seen[i, j] == np.float32(expected), (i, j)


def test_every_order_comes_up_about_as_often() -> None:
    """600 keys: each of the six orders 60 to 140 times (100 expected, standard deviation 9)."""
    keys = jax.random.split(jax.random.key(2), 600)
    orders = np.asarray(jax.vmap(lambda key: turns(key, jnp.ones(3)).order)(keys))
    counts = [int((orders == order).all(1).sum()) for order in itertools.permutations(range(3))]
    assert sum(counts) == 600 and min(counts) > 60 and max(counts) < 140


def test_only_one_agent_is_differentiated_in_a_turn() -> None:
    """The loop's body holds one agent's products, so the program does not grow with the number of agents."""

    def size(n: int) -> int:
        return len(str(jax.make_jaxpr(turns)(jax.random.key(0), jnp.ones(n))).splitlines())

    assert size(3) == size(9)
