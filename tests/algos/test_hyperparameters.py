"""Hyperparameters that do not shape the program are arguments of it: a search over them compiles once."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners import CONFIGS

from omad import algos, envs
from omad.loop import fused
from omad.loop.fused import LoopConfig

ENV = envs.make("probe/push")
MOVING = dataclasses.replace(CONFIGS["omad"], target_run_end=5.0, target_run_steps=9)
CONFIGS = CONFIGS | {"omad": MOVING}  # so that every field that may be left out is given
SEEDS, NUMBER = jax.ShapeDtypeStruct((1,), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32)
SIZES = LoopConfig(n_envs=2, updates_per_step=3, batch_size=8, buffer_rows=16, warmup_vector_steps=4)


def others(config: Any) -> Any:
    """The same with another value of every field that is said not to shape the program."""
    return dataclasses.replace(config, **{name: 0.7 * getattr(config, name) for name in config.traced})


@functools.cache
def program(config: Any, how: str = "none") -> str:
    """What would be compiled."""
    algorithm = algos.make(config, ENV.spec, how)  # pyright: ignore[reportArgumentType]
    loop = fused.make(algorithm, ENV, SIZES, batch_seeds=False)
    carry = jax.eval_shape(loop.init, SEEDS)
    return loop.chunk._program.lower(carry, SEEDS, NUMBER, NUMBER, NUMBER, loop.chunk._given).as_text()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "omad" else [pytest.mark.slow]) for name in CONFIGS]
)
def test_the_program_is_the_same_for_other_values(name: str) -> None:
    config = CONFIGS[name]
    how = "running" if name == "omad" else "none"  # through a wrapper, too
    assert program(config, how) == program(others(config), how)


def test_a_field_that_shapes_the_program_does_change_it() -> None:
    """Lest the test above compares nothing."""
    config = CONFIGS["hatd3"]
    assert program(config) != program(dataclasses.replace(config, actor_every=2))


def test_values_reach_the_program() -> None:
    """A learning rate of (nearly) nothing leaves the critics where they were, and the actors learn."""
    seeds = jnp.arange(1, dtype=jnp.int32)
    config = dataclasses.replace(CONFIGS["hatd3"], critic_lr=1e-20, actor_lr=1e-2)
    loop = fused.make(algos.make(config, ENV.spec), ENV, SIZES)
    carry = loop.warm(loop.init(seeds), seeds, jnp.int32(0), jnp.int32(4))
    before = jax.tree.map(np.asarray, carry.learner)
    after = loop.chunk(carry, seeds, jnp.int32(4), jnp.int32(2)).learner

    def moved(part: str) -> float:
        leaves = zip(*(jax.tree.leaves(getattr(learner, part)) for learner in (before, after)), strict=True)
        return max(float(np.abs(a - b).max()) for a, b in leaves)

    assert moved("critics") < 1e-15
    assert moved("actors") > 1e-3
