"""Streams of randomness: every draw is a function of (seed, stream, step), so a resume needs no stored key."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32
from jaxtyping import Array, Float, Int, Key

from omad.spec import LONGEST_HOLD


class Stream(enum.IntEnum):
    """One number a purpose. Never renumber: a renumbered stream changes every run."""

    INIT = 0
    RESET = 1
    ACT = 2
    ENV = 3
    SAMPLE = 4
    UPDATE = 5
    EVAL_RESET = 6
    EVAL_ACT = 7
    EVAL_ENV = 8
    HOLD = 9
    DEMONSTRATION = 10


def run_key(seed: int | Int[Array, ""]) -> Key[Array, ""]:
    """The root key of one seed."""
    return jax.random.key(seed)


def stream(root: Key[Array, ""], which: Stream, step: int | Int[Array, ""]) -> Key[Array, ""]:
    """The key of one purpose at one step; consume it once (split it first if many draws are needed)."""
    return jax.random.fold_in(jax.random.fold_in(root, which), step)


def normal(key: Key[Array, ""], shape: Sequence[int]) -> Float[Array, ...]:
    """Standard normal draws. The key is consumed.

    Each hash of the counter gives two numbers, where `jax.random.normal` folds two into one so that it can be computed
    in parts: on a CPU this takes a third of the time, and a quarter of it to compile. Values depend on nothing but key
    and shape, also where a program is shared out over devices; each of these then draws everything.
    """
    jax.random.bits(key)  # so that a second draw from the key is found out in tests; compiled away
    size = math.prod(shape)
    bits = threefry_2x32(jax.random.key_data(key), jax.lax.iota(jnp.uint32, size))
    one = jnp.asarray(0x3F800000, jnp.uint32)
    unit = jax.lax.bitcast_convert_type((bits >> 9) | one, jnp.float32) - 1.0
    lowest = np.nextafter(np.float32(-1.0), np.float32(0.0))
    between = jnp.maximum(lowest, unit * (1.0 - lowest) + lowest)  # in (-1, 1)
    return (math.sqrt(2.0) * jax.lax.erf_inv(between)).astype(float).reshape(shape)


def held(root: Key[Array, ""], step: Int[Array, ""], mean: float, first: int = 0) -> Int[Array, ""]:
    """The step at which the noise that acts at `step` was drawn: held for a random number of steps.

    The noise is renewed at every 16th step, and at each other one with the probability that makes `mean` the mean.
    Which steps renew it is a function of the seed, so nothing is carried. With a mean of 1 it is the step itself. No
    noise is older than step `first`, the draws before which are the warm-up's.

    Source: Kim et al. 2026 (FlashSAC).  Differs: geometric lengths instead of a zeta distribution's.
    """
    if mean == 1:
        return step
    begin = step - step % LONGEST_HOLD
    steps = begin + jnp.arange(LONGEST_HOLD)
    draws = jax.vmap(lambda at: jax.random.uniform(stream(root, Stream.HOLD, at)))(steps)
    chance = (LONGEST_HOLD / mean - 1) / (LONGEST_HOLD - 1)
    renewed = (draws < chance) & (steps <= step)
    return jnp.maximum(jnp.max(jnp.where(renewed, steps, begin)), first)
