"""Streams of randomness."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad.keys import Stream, held, normal, run_key, stream
from omad.spec import LONGEST_HOLD


def bits(key: jax.Array) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_every_seed_stream_and_step_has_its_own_key() -> None:
    """No two draws of a run, or of two runs, share a key."""
    every = jax.jit(jax.vmap(jax.vmap(lambda seed, step: [stream(run_key(seed), which, step) for which in Stream])))
    keys = every(*jnp.meshgrid(jnp.arange(3), jnp.arange(20)))
    seen = {tuple(row) for key in keys for row in np.asarray(jax.random.key_data(key)).reshape(-1, 2).tolist()}
    assert len(seen) == 3 * len(Stream) * 20


def test_streams_keep_their_numbers() -> None:
    """A renumbered stream would change every run."""
    assert [(s.name, int(s)) for s in Stream] == [
        ("INIT", 0), ("RESET", 1), ("ACT", 2), ("ENV", 3), ("SAMPLE", 4), ("UPDATE", 5),
        ("EVAL_RESET", 6), ("EVAL_ACT", 7), ("EVAL_ENV", 8), ("HOLD", 9), ("DEMONSTRATION", 10),
    ]  # fmt: skip


def test_a_key_is_the_same_whether_its_numbers_are_traced_or_not() -> None:
    """Under jit and vmap over seeds as well: a run alone draws what it draws among others."""
    traced = jax.jit(jax.vmap(lambda s, t: stream(run_key(s), Stream.ACT, t), in_axes=(0, None)))
    keys = traced(jnp.arange(3), jnp.asarray(7))
    for seed in range(3):
        assert bits(keys[seed]) == bits(stream(run_key(seed), Stream.ACT, 7))


def test_keys_are_typed() -> None:
    """Raw integer keys can be reused by mistake without anyone noticing."""
    assert jnp.issubdtype(run_key(0).dtype, jax.dtypes.prng_key)


def test_noise_is_held_for_a_random_number_of_steps() -> None:
    """Renewals come at a step itself, in order, with the mean asked for, and after 16 steps in any case."""
    steps, mean = jnp.arange(3200), 3.0
    drawn = np.asarray(jax.jit(jax.vmap(lambda step: held(run_key(3), step, mean)))(steps))
    begins = np.unique(drawn)
    np.testing.assert_array_equal(drawn[begins], begins)  # who acts at a renewal has drawn there
    np.testing.assert_array_equal(drawn, begins[np.searchsorted(begins, np.arange(3200), side="right") - 1])
    assert {*range(0, 3200, LONGEST_HOLD)} <= {*begins.tolist()}
    assert abs(len(begins) / 3200 - 1 / mean) < 4 * np.sqrt(1 / mean / 3200)
    assert {int(held(run_key(3), jnp.asarray(step), float(LONGEST_HOLD))) for step in (16, 20, 31)} == {16}
    assert all(int(held(run_key(3), jnp.asarray(step), 1.0)) == step for step in (0, 5, 40))
    first = int(np.argmax(drawn < steps))  # a step that goes on with earlier noise
    late = np.asarray(jax.vmap(lambda step: held(run_key(3), step, mean, first))(steps[first:]))
    np.testing.assert_array_equal(late, np.maximum(drawn[first:], first))
    assert late[0] == first > drawn[first]


def test_normal_draws_are_those_of_the_plain_counter() -> None:
    """Of any shape; one word of the hash a number, in order. Under `vmap` and where a program is shared out as well."""
    first = lambda: jax.random.key(3)  # noqa: E731
    with jax.threefry_partitionable(False):
        for shape in ((3,), (7, 5), (4, 3, 2)):
            np.testing.assert_array_equal(normal(first(), shape), jax.random.normal(first(), shape))
    drawn = jax.jit(jax.vmap(lambda key: normal(key, (7, 5))))(jax.random.split(first()))
    np.testing.assert_array_equal(drawn[1], normal(jax.random.split(first())[1], (7, 5)))
    many = np.asarray(normal(first(), (100_000,)))
    assert abs(many.mean()) < 0.01 and abs(many.std() - 1) < 0.01 and np.isfinite(many).all()
    assert len(np.unique(many)) > 98_000
    used = first()
    normal(used, (1,))
    with pytest.raises(jax.errors.KeyReuseError):
        normal(used, (1,))
