"""The hosted loop against the fused one, and resumes of runs whose envs run on the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad import envs
from omad.algos import make as make_algorithm
from omad.envs.pool import Pool
from omad.evaluate import make_evaluate, make_host_evaluate
from omad.loop import fused
from omad.loop.fused import Carry, LoopConfig
from omad.loop.hosted import Hosted
from omad.presets import resolve

PROBES = ("constant", "signal", "delay", "timeout", "push", "relay")
SMALL: dict[str, Any] = {
    "denoising_steps": 2, "actor_width": 8, "actor_layers": 1, "time_frequencies": 4, "time_width": 4,
    "critic_width": 8, "critic_layers": 1, "atoms": 11, "n_step": 2,
}  # fmt: skip
SEEDS = jnp.arange(2, dtype=jnp.int32)
SIZES = LoopConfig(n_envs=3, updates_per_step=2, batch_size=8, buffer_rows=16, warmup_rows=4)


def small(task: str) -> Any:
    return resolve(task, **SMALL).algo


@pytest.fixture
def hosted_loop(request: pytest.FixtureRequest) -> Iterator[tuple[Any, fused.Fused, Hosted, Any]]:
    task = f"probe/{request.param}"
    env = envs.make(task)
    host = envs.make(task + "?host=true")
    algorithm = make_algorithm(small(task), env.spec)
    there = fused.make(algorithm, env, SIZES)
    here = Hosted(algorithm, host, SIZES, lambda worlds: Pool.of(task + "?host=true", host.spec, worlds, 1))
    yield env, there, here, algorithm
    here.close()


def assert_equal(left: Carry, right: Carry) -> None:
    """Everything but the form in which envs are kept."""
    drop = lambda c: eqx.tree_at(lambda x: x.env_state, c, None)  # noqa: E731
    a, b = (jax.tree_util.tree_flatten_with_path(drop(c))[0] for c in (left, right))
    assert len(a) == len(b)
    for (path, x), (_, y) in zip(a, b, strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=jax.tree_util.keystr(path))


def as_bytes(env_state: Any) -> np.ndarray:
    """(seed, env, byte) of fused env states, as the host form keeps them."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(env_state)]
    rows = [np.ascontiguousarray(leaf).reshape(*leaf.shape[:2], -1).view(np.uint8) for leaf in leaves]
    return np.concatenate(rows, axis=2)


@pytest.mark.parametrize("hosted_loop", PROBES, indirect=True)
def test_both_loops_agree_exactly_from_one_carry(hosted_loop: Any):
    """Warm-up, learning, episode ends, a ring that wraps around, two seeds at once, chunks of unequal length."""
    _, there, here, _ = hosted_loop
    f, h = there.init(SEEDS), here.init(SEEDS)
    assert_equal(f, h)
    row = 0
    for loop, count in (("warm", 4), ("chunk", 1), ("chunk", 7), ("chunk", 9)):
        f = getattr(there, loop)(f, SEEDS, jnp.int32(row), jnp.int32(count))
        h = getattr(here, loop)(h, SEEDS, jnp.int32(row), jnp.int32(count))
        row += count
        assert_equal(f, h)
        np.testing.assert_array_equal(as_bytes(f.env_state), np.asarray(h.env_state))


@pytest.mark.parametrize("hosted_loop", ["timeout", "push"], indirect=True)
def test_a_carry_is_all_that_goes_on(hosted_loop: Any):
    """Worlds that have moved on are brought back to where the carry stands."""
    _, _, here, _ = hosted_loop
    start = here.warm(here.init(SEEDS), SEEDS, 0, 7)
    saved = jax.tree.map(lambda leaf: np.array(leaf), start)
    once = here.chunk(start, SEEDS, 7, 6)
    again = here.chunk(jax.tree.map(jnp.asarray, saved), SEEDS, 7, 6)
    assert_equal(once, again)
    np.testing.assert_array_equal(np.asarray(once.env_state), np.asarray(again.env_state))


@pytest.mark.parametrize("hosted_loop", ["signal", "timeout"], indirect=True)
@pytest.mark.parametrize("explore", [True, False])
def test_both_evaluations_agree(hosted_loop: Any, explore: bool):
    env, there, _, algorithm = hosted_loop
    policies = jax.vmap(algorithm.policy)(there.init(SEEDS).learner)
    pool = Pool.of(env.spec.name + "?host=true", env.spec, 5, 1)
    try:
        left = make_evaluate(algorithm, env, 5, explore)(policies, jnp.int32(3), jnp.int32(7))
        right = make_host_evaluate(algorithm, env.spec, lambda: pool, 5, explore)(policies, jnp.int32(3), jnp.int32(7))
        np.testing.assert_array_equal(np.asarray(left.lengths), right.lengths)
        np.testing.assert_allclose(np.asarray(left.returns), right.returns, rtol=1e-6)
        rounds = make_host_evaluate(algorithm, env.spec, lambda: pool, 12, explore)
        assert rounds(policies, jnp.int32(3), jnp.int32(7)).returns.shape == (2, 12)
    finally:
        pool.close()
