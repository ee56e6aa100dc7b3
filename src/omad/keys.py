"""Streams of randomness: every draw is a function of (seed, stream, step), so a resume needs no stored key."""

from __future__ import annotations

import enum

import jax
from jaxtyping import Array, Int, Key

__all__ = ["Stream", "run_key", "stream"]


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


def run_key(seed: int | Int[Array, ""]) -> Key[Array, ""]:
    """The root key of one seed."""
    return jax.random.key(seed)


def stream(root: Key[Array, ""], which: Stream, step: int | Int[Array, ""]) -> Key[Array, ""]:
    """The key of one purpose at one step; consume it once (split it first if many draws are needed)."""
    return jax.random.fold_in(jax.random.fold_in(root, which), step)
