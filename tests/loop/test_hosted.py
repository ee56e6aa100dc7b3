"""The hosted loop against the fused one, and resumes of runs whose envs run on the host."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad import envs
from omad.algos import make as make_algorithm
from omad.config import resolve
from omad.envs.pool import Pool
from omad.evaluate import make_evaluate, make_host_evaluate
from omad.keys import Stream, run_key, stream
from omad.loop import fused
from omad.loop.fused import Carry, LoopConfig
from omad.loop.hosted import Hosted
from omad.reward_norm import ReturnStats
from omad.tree import at

PROBES = ("constant", "signal", "delay", "timeout", "push", "relay")
SMALL: dict[str, Any] = {"actor_width": 8, "actor_layers": 1, "critic_width": 8, "critic_layers": 1, "n_step": 2}
OMAD: dict[str, Any] = {"denoising_steps": 2, "time_frequencies": 4, "time_width": 4, "atoms": 11}
LEVERS: dict[str, Any] = {
    "critic_net": "xqc", "critic_blocks": 1, "alpha_pace": "env", "lr_decay_steps": 9, "chain_kernel": "exact",
    "policy_average": 0.9, "target_run_end": 6.0, "target_run_begin": 4, "target_run_steps": 9,
}  # fmt: skip
SEEDS = jnp.arange(2, dtype=jnp.int32)
SIZES = LoopConfig(n_envs=3, updates_per_step=2, batch_size=8, buffer_rows=16, warmup_vector_steps=4)

Both = tuple[Any, fused.Fused, Hosted, Any]


def small(task: str, algorithm: str = "omad", **changed: Any) -> Any:
    return resolve(task, algorithm, **SMALL, **(OMAD if algorithm == "omad" else {}), **changed).algo


@contextlib.contextmanager
def both(probe: str, levers: bool = False, name: str = "omad") -> Iterator[Both]:
    """The env, its fused and its hosted loop, and the algorithm in them; with every option of the learner, or none."""
    task = f"probe/{probe}"
    env = envs.make(task)
    host = envs.make(task + "?host=true")
    algorithm, sizes = make_algorithm(small(task, name), env.spec), SIZES
    if levers:
        algorithm = make_algorithm(small(task, name, **LEVERS), env.spec, "running", 2.0 / 3.0)
        sizes = dataclasses.replace(SIZES, reward_norm="return", noise_hold=2.0)
    fused_loop = fused.make(algorithm, env, sizes)
    hosted_loop = Hosted(algorithm, host, sizes, lambda worlds: Pool.of(task + "?host=true", host.spec, worlds, 1))
    try:
        yield env, fused_loop, hosted_loop, algorithm
    finally:
        hosted_loop.close()


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


@pytest.fixture(scope="module")
def push() -> Iterator[Both]:
    with both("push") as made:
        yield made


@pytest.fixture(scope="module")
def timeout() -> Iterator[Both]:
    with both("timeout", name="hatd3") as made:
        yield made


def agree(fused_loop: fused.Fused, hosted_loop: Hosted) -> None:
    """Warm-up, learning, episode ends, a ring that wraps around, two seeds at once, chunks of unequal length."""
    f, h = fused_loop.init(SEEDS), hosted_loop.init(SEEDS)
    assert_equal(f, h)
    row = 0
    for loop, count in (("warm", 4), ("chunk", 1), ("chunk", 7), ("chunk", 9)):
        f = getattr(fused_loop, loop)(f, SEEDS, jnp.int32(row), jnp.int32(count))
        h = getattr(hosted_loop, loop)(h, SEEDS, jnp.int32(row), jnp.int32(count))
        row += count
        assert_equal(f, h)
        np.testing.assert_array_equal(as_bytes(f.env_state), np.asarray(h.env_state))


def test_both_loops_agree_exactly_from_one_carry(push: Both):
    agree(push[1], push[2])


@pytest.mark.slow
@pytest.mark.parametrize("probe", ["push levers", *PROBES])
def test_both_loops_agree_exactly_as_users_compile_them(probe: str):
    """In a process of its own, without the flags with which tests compile quickly: XLA may not fuse the loops apart."""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, __file__, *probe.split()], env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_carry_is_all_that_goes_on(timeout: Both):
    """Worlds that have moved on are brought back to where the carry stands; without learning, to keep it quick."""
    hosted_loop = timeout[2]
    start = hosted_loop.warm(hosted_loop.init(SEEDS), SEEDS, 0, 7)
    saved = jax.tree.map(np.array, start)
    once = hosted_loop.warm(start, SEEDS, 7, 6)
    again = hosted_loop.warm(jax.tree.map(jnp.asarray, saved), SEEDS, 7, 6)
    assert_equal(once, again)
    np.testing.assert_array_equal(np.asarray(once.env_state), np.asarray(again.env_state))


@pytest.mark.parametrize("steps", [5, 16 + 5])
def test_worlds_that_cannot_be_saved_begin_anew(timeout: Both, steps: int):
    """The episodes that they were in count as truncated in the ring of 16 rows, and new ones begin."""
    hosted_loop = timeout[2]
    start = hosted_loop.warm(hosted_loop.init(SEEDS), SEEDS, 0, steps)
    lost = eqx.tree_at(lambda c: c.env_state, start, jnp.zeros((2, SIZES.n_envs, 0), jnp.uint8))
    stats = jax.vmap(lambda _: ReturnStats.none(SIZES.n_envs, 0.9, 5.0).seen(jnp.ones(3), jnp.zeros(3, bool)))(SEEDS)
    lost = dataclasses.replace(lost, returns=stats)
    expected = np.array(lost.ring.truncated)
    assert not expected[:, 4].any()
    expected[:, 4] = True
    attached = hosted_loop._attach(lost, SEEDS, steps)
    np.testing.assert_array_equal(np.asarray(attached.ring.truncated), expected)
    np.testing.assert_array_equal(np.asarray(attached.episode["train/return"]), 0.0)
    assert attached.returns is not None
    assert np.asarray(stats.running).all() and not np.asarray(attached.returns.running).any()
    np.testing.assert_array_equal(attached.returns.highest, stats.highest)


def returns_in_rounds(made: Both, policy: Any, episodes: int, size: int, explore: bool) -> np.ndarray:
    """Of `probe/push`, whose episodes are one step: each has its own start, and each round its own noise."""
    env, algorithm, root = made[0], made[3], run_key(3)
    starts = jax.vmap(env.reset)(jax.random.split(stream(root, Stream.EVAL_RESET, 0), episodes))[1].obs
    act, found = jax.jit(algorithm.act, static_argnums=3), []
    for i, first in enumerate(range(0, episodes, size)):
        obs = starts[np.resize(np.arange(first, min(first + size, episodes)), size)]
        action = act(policy, obs, jax.random.fold_in(stream(root, Stream.EVAL_ACT, 7), i), explore)
        found.append(-np.square(action - obs).sum((1, 2)))
    return np.concatenate(found)[:episodes]


@pytest.mark.parametrize("explore", [True, False])
def test_both_evaluations_agree(explore: bool, push: Both):
    env, fused_loop, _, algorithm = push
    policies = jax.vmap(algorithm.policy)(fused_loop.init(SEEDS).learner)
    pool = Pool.of(env.spec.name + "?host=true", env.spec, 5, 1)
    try:
        asked = policies, jnp.int32(3), jnp.int32(7)
        left = make_evaluate(algorithm, env, 5, explore)(*asked)
        right = make_host_evaluate(algorithm, env.spec, lambda: pool, 5, explore)(*asked)
        np.testing.assert_array_equal(np.asarray(left.lengths), np.asarray(right.lengths))
        np.testing.assert_allclose(np.asarray(left.returns), np.asarray(right.returns), rtol=1e-5)
        rounds = make_host_evaluate(algorithm, env.spec, lambda: pool, 12, explore)(*asked)
        for i in range(2):
            expected = returns_in_rounds(push, at(policies, i), 12, 5, explore)
            assert len(np.unique(expected)) == 12
            np.testing.assert_allclose(rounds.returns[i], expected, rtol=1e-5, atol=1e-6)
    finally:
        pool.close()


@pytest.mark.slow
def test_seeds_in_one_batch_are_seeds_in_turn(push: Both):
    """As on an accelerator; products of batches of another size round differently."""
    task = "probe/push?host=true"
    host, algorithm = envs.make(task), push[3]
    batched = Hosted(algorithm, host, SIZES, lambda worlds: Pool.of(task, host.spec, worlds, 1), batch_seeds=True)
    found = []
    try:
        for loop in (push[2], batched):
            carry = loop.warm(loop.init(SEEDS), SEEDS, 0, 4)
            carry = loop.chunk(carry, SEEDS, 4, 3)
            saved = jax.tree.map(np.array, carry)
            carry = loop.chunk(carry, SEEDS, 7, 3)  # begins with the first one's carry
            assert_equal(loop.chunk(jax.tree.map(jnp.asarray, saved), SEEDS, 7, 3), carry)
            assert [program._cache_size() for program in loop._programs(2)[1:]] == [1, 1]
            found.append(jax.tree.map(np.asarray, eqx.tree_at(lambda c: c.env_state, carry, None)))
    finally:
        batched.close()
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


if __name__ == "__main__":
    with both(sys.argv[1], "levers" in sys.argv) as made:
        agree(made[1], made[2])
