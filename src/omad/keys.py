"""Streams of randomness: every draw is a function of (seed, stream, step), so a resume needs no stored key."""

from __future__ import annotations

import enum

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from omad.spec import LONGEST_HOLD

__all__ = ["Stream", "held", "run_key", "stream"]


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


def held(root: Key[Array, ""], step: Int[Array, ""], mean: float) -> Int[Array, ""]:
    """The step at which the noise that acts at `step` was drawn: held for a random number of steps.

    At each step the noise is renewed with probability 1 / mean, and at every 16th in any case. Who was renewed when is
    a function of seed and step, so nothing is carried. With a mean of 1 it is the step itself.

    Source: Kim et al. 2026 (FlashSAC).  Differs: geometric lengths instead of a zeta distribution's.
    """
    if mean == 1:
        return step
    begin = step - step % LONGEST_HOLD
    steps = begin + jnp.arange(LONGEST_HOLD)
    draws = jax.vmap(lambda at: jax.random.uniform(stream(root, Stream.HOLD, at)))(steps)
    renewed = (draws < 1.0 / mean) & (steps <= step)
    return jnp.max(jnp.where(renewed, steps, begin))
