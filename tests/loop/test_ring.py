"""No compiled loop copies the replay ring: at a million transitions that would be most of a vector step."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from omad import buffer, envs
from omad.envs.host_env import HostEnv
from omad.loop import fused
from omad.loop.fused import LoopConfig
from omad.loop.hosted import Hosted
from omad.loop.seeds import ProgramInputs
from omad.types import Algorithm, Mean

ROWS, DEMONSTRATIONS = 4099, 5003  # occur in no other shape
SEEDS = jnp.arange(2, dtype=jnp.int32)
NUMBER = jax.ShapeDtypeStruct((), jnp.int32)
AS_USERS = {"xla_cpu_use_fusion_emitters": True}
"""What is fused, and so what is copied, is looked at as users compile it; other tests compile without."""


def reader(act_mask: Any) -> Algorithm:
    """Learns one number from all that a batch holds."""

    def act(policy: Any, obs: Any, key: Any, explore: bool) -> Any:
        del explore
        return jnp.tanh(policy + jax.random.normal(key, (*obs.shape[:-1], act_mask.shape[-1]))) * act_mask

    def update(learner: Any, batch: Any, key: Any, count: Any) -> Any:
        learner = learner + sum(leaf.mean() for leaf in jax.tree.leaves(batch)) + jax.random.normal(key)
        return learner, {"toy/count": Mean.of(count)}

    return Algorithm(
        init=jax.random.normal, policy=lambda learner: learner, act=act, update=update, gamma=0.9, n_step=2
    )


def never(*_: Any) -> Any:
    """No world is started here."""
    raise AssertionError


def at_first(tree: Any) -> Any:
    """Shapes of one seed's part."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tree)


def copied(compiled: Any) -> list[str]:
    """Instructions that copy an array of the ring's length; an empty one, of a state that there is not, is none."""
    lines = compiled.as_text().splitlines()
    assert any(str(ROWS) in line for line in lines)
    found = [
        line for line in lines if re.search(rf"= \(?\w+\[[\d,]*\b({ROWS}|{DEMONSTRATIONS})\b.* copy(-start)?\(", line)
    ]
    return [line for line in found if ",0]" not in line]


@pytest.mark.parametrize(
    ("updates", "demonstrated", "batch"),
    [
        (1, 3, False),
        (2, 3, True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((1, 0, False), (1, 0, True), (2, 0, False), (2, 0, True), (2, 3, False))
        ),
    ],
)
def test_the_ring_is_never_copied(updates: int, demonstrated: int, batch: bool) -> None:
    """Fused and hosted, for one gradient step a vector step and for more, seeds in turn and in one batch.

    Nor are demonstrations, of which there may be as many.
    """
    env, sizes = envs.make("probe/constant"), LoopConfig(3, updates, 8, ROWS, 4, demonstrated=demonstrated)
    algorithm = reader(env.spec.act_mask)
    shown = buffer.make(env.spec, DEMONSTRATIONS, 1) if demonstrated else None
    loop = fused.make(algorithm, env, sizes, batch, shown)
    carry = jax.eval_shape(loop.init, SEEDS)
    program, place = (loop.chunk._program(len(SEEDS)), ()) if batch else (loop.chunk._program, (NUMBER,))
    lowered = program.lower(carry, SEEDS, *place, NUMBER, NUMBER, loop.chunk._given)
    assert not copied(lowered.compile(AS_USERS))

    hosted = Hosted(algorithm, HostEnv(env.spec, never), sizes, never, batch, shown)
    _, keep, learn = hosted._programs(len(SEEDS))
    leaves, ring = jax.eval_shape(lambda seeds: hosted._trees.bare(hosted._init(seeds)), SEEDS)
    table = jax.ShapeDtypeStruct((2, 3, hosted._layout.width), jnp.float32)
    action = jax.ShapeDtypeStruct((2, 3, *hosted._action), jnp.float32)
    seed, given, place = SEEDS, (table, action, table), None
    if not batch:
        leaves, given, seed = at_first((leaves, given, SEEDS))
        place = NUMBER
    real = jax.ShapeDtypeStruct((), bool)
    assert not copied(keep.lower(leaves, ring, given, NUMBER, place).compile(AS_USERS))
    handed = ProgramInputs({}, shown)
    assert not copied(learn.lower(leaves, ring, given, seed, NUMBER, real, handed, place).compile(AS_USERS))
