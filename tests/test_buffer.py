"""The replay ring: n-step sums by hand, wrap-around, uniform coverage, and a plain Python model of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omad import buffer
from omad.types import Batch, EnvSpec, Step

SPEC = EnvSpec("t", (1, 1), (2, 1), 1, 9)
ROWS, ENVS, GAMMA = 7, 2, 0.9


class Row(NamedTuple):
    """One vector step: (n_envs,) each."""

    reward: Sequence[float]
    terminated: Sequence[bool]
    truncated: Sequence[bool]


def step_of(count: int, row: Row) -> Step:
    """A vector step whose contents name it: obs is 10 count + env, what follows is that plus a half."""
    name = 10 * count + np.arange(ENVS, dtype=np.float32)
    obs = np.broadcast_to(name[:, None, None], (ENVS, 2, 1))
    return Step(
        obs=jnp.asarray(obs),
        state=jnp.asarray(name[:, None]),
        action=jnp.asarray(np.broadcast_to(-name[:, None, None], (ENVS, 2, 2))),
        reward=jnp.asarray(row.reward, jnp.float32),
        terminated=jnp.asarray(row.terminated),
        truncated=jnp.asarray(row.truncated),
        next_obs=jnp.asarray(obs + 0.5),
        next_state=jnp.asarray(name[:, None] + 0.5),
    )


add = jax.jit(buffer.add)
sample = jax.jit(buffer.sample, static_argnames=("batch_size", "gamma", "n_step"))


def filled(rows: Sequence[Row], size: int = ROWS) -> Step:
    ring = buffer.make(SPEC, size, ENVS)
    for count, row in enumerate(rows):
        ring = add(ring, step_of(count, row), jnp.asarray(count))
    return ring


def expected(rows: Sequence[Row], count: int, env: int, n_step: int) -> tuple[float, float, float]:
    """(return, discount, name of what follows) of the transition `count` of an env, walked one by one."""
    ret, weight = 0.0, 1.0
    for m in range(n_step):
        row = rows[count + m]
        ret += weight * row.reward[env]
        weight *= GAMMA
        if row.terminated[env]:
            return ret, 0.0, 10.0 * (count + m) + env + 0.5
        if row.truncated[env]:
            return ret, weight, 10.0 * (count + m) + env + 0.5
    return ret, weight, 10.0 * (count + n_step - 1) + env + 0.5


def check(batch: Batch, rows: Sequence[Row], n_step: int, size: int = ROWS) -> set[tuple[int, int]]:
    """Every drawn transition against the model; returns which ones were drawn."""
    drawn: set[tuple[int, int]] = set()
    batch = jax.tree.map(np.asarray, batch)
    names = np.asarray(batch.obs)[:, 0, 0]
    for i, name in enumerate(names):
        count, env = round(float(name)) // 10, round(float(name)) % 10
        assert max(0, len(rows) - size) <= count <= len(rows) - n_step
        ret, discount, following = expected(rows, count, env, n_step)
        assert float(batch.ret[i]) == pytest.approx(ret, rel=1e-6, abs=1e-5)
        assert float(batch.discount[i]) == pytest.approx(discount, abs=1e-6)
        assert np.all(batch.next_obs[i] == following)
        assert np.all(batch.next_state[i] == following)
        assert np.all(batch.state[i] == name)
        assert np.all(batch.action[i] == -name)
        drawn.add((count, env))
    return drawn


def plain(count: int) -> list[Row]:
    """Rewards that tell rows and envs apart, nothing ends."""
    return [Row([1.0 + t, 100.0 + t], [False] * 2, [False] * 2) for t in range(count)]


def draw(rows: Sequence[Row], n_step: int, seed: int = 0, size: int = ROWS) -> Batch:
    ring = filled(rows, size)
    batch = sample(ring, jnp.asarray(len(rows)), jax.random.key(seed), batch_size=64, gamma=GAMMA, n_step=n_step)
    return jax.tree.map(np.asarray, batch)  # of which single numbers are quicker to read


def test_three_step_return_by_hand() -> None:
    """1 + 0.9 * 2 + 0.81 * 3 = 5.23, discount 0.729, successor of the third step."""
    rows = plain(3)
    batch = draw(rows, 3)
    for i in range(64):
        env = round(float(batch.obs[i, 0, 0])) % 10
        assert float(batch.ret[i]) == pytest.approx(5.23 if env == 0 else 100 + 90.9 + 82.62, rel=1e-5)
        assert float(batch.discount[i]) == pytest.approx(0.729)
        assert float(batch.next_obs[i, 0, 0]) == pytest.approx(20.5 + env)
    check(batch, rows, 3)


def test_termination_inside_the_sum_ends_it_without_bootstrap() -> None:
    """Rewards after the end belong to another episode."""
    rows = plain(3)
    rows[1] = Row([2.0, 101.0], [True, False], [False, False])
    batch = draw(rows, 3)
    check(batch, rows, 3)
    first = int(np.flatnonzero(np.asarray(batch.obs)[:, 0, 0] == 0.0)[0])
    assert float(batch.ret[first]) == pytest.approx(1 + 0.9 * 2)
    assert float(batch.discount[first]) == 0.0
    assert float(batch.next_obs[first, 0, 0]) == 10.5


def test_truncation_inside_the_sum_ends_it_with_bootstrap_from_its_own_successor() -> None:
    """gamma^2 after two rewards, at the true next observation and not at the reset that follows."""
    rows = plain(3)
    rows[1] = Row([2.0, 101.0], [False, False], [True, False])
    batch = draw(rows, 3)
    check(batch, rows, 3)
    first = int(np.flatnonzero(np.asarray(batch.obs)[:, 0, 0] == 0.0)[0])
    assert float(batch.ret[first]) == pytest.approx(1 + 0.9 * 2)
    assert float(batch.discount[first]) == pytest.approx(0.81)
    assert float(batch.next_obs[first, 0, 0]) == 10.5


def test_an_end_that_is_both_termination_and_truncation_is_a_termination() -> None:
    """The task ended on the last tick of the clock: no bootstrap."""
    rows = plain(3)
    rows[0] = Row([1.0, 100.0], [True, True], [True, True])
    batch = draw(rows, 1)
    check(batch, rows, 1)
    assert float(batch.discount[np.asarray(batch.obs)[:, 0, 0] == 0.0][0]) == 0.0


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("count", [7, 8, 10, 14, 23])
def test_ring_wraps_around(count: int, n_step: int) -> None:
    """The oldest rows go first; sums run across the seam of the ring but never from the newest into the oldest row."""
    rows = plain(count)
    drawn: set[tuple[int, int]] = set()
    for seed in range(3):
        drawn |= check(draw(rows, n_step, seed), rows, n_step)
    assert drawn == {(t, e) for t in range(count - ROWS, count - n_step + 1) for e in range(ENVS)}


@pytest.mark.parametrize("n_step", [1, 3])
def test_partly_filled_ring_gives_only_what_was_written(n_step: int) -> None:
    """Rows that were never written are never drawn."""
    rows = plain(4)
    assert check(draw(rows, n_step), rows, n_step) == {(t, e) for t in range(5 - n_step) for e in range(ENVS)}


def test_sampling_covers_all_transitions_uniformly() -> None:
    """Chi-square of 28 000 draws over 14 transitions below its 99.99 % point; keys decide, and only they."""
    ring = filled(plain(10))
    big = jax.jit(lambda key: buffer.sample(ring, jnp.asarray(10), key, 28_000, GAMMA).obs[:, 0, 0])
    names, counts = np.unique(np.asarray(big(jax.random.key(1))), return_counts=True)
    assert len(names) == 14
    assert ((counts - 2000) ** 2 / 2000).sum() < 40.9  # 13 degrees of freedom
    np.testing.assert_array_equal(big(jax.random.key(1)), big(jax.random.key(1)))
    assert not np.array_equal(big(jax.random.key(1)), big(jax.random.key(2)))


@settings(max_examples=25)
@given(data=st.data(), n_step=st.sampled_from([1, 3]), count=st.integers(3, 20), seed=st.integers(0, 1000))
def test_samples_agree_with_a_plain_model(data: Any, n_step: int, count: int, seed: int) -> None:
    """Any history of rewards, terminations and truncations, any fill level."""
    flags = st.lists(st.booleans(), min_size=ENVS, max_size=ENVS)
    rewards = st.lists(st.integers(-3, 3).map(float), min_size=ENVS, max_size=ENVS)
    rows = [Row(data.draw(rewards), data.draw(flags), data.draw(flags)) for _ in range(count)]
    check(draw(rows, n_step, seed), rows, n_step)


def test_capacity_and_memory_are_known_beforehand() -> None:
    """Rows are rounded up; bytes are counted from shapes and agree with the real ring."""
    assert [buffer.rows_for(c, n) for c, n in ((100, 8), (96, 8), (1, 8), (0, 8))] == [13, 12, 1, 1]
    ring = buffer.make(SPEC, 13, 8)
    assert buffer.n_bytes(SPEC, 13, 8) == sum(leaf.nbytes for leaf in jax.tree.leaves(ring))
    assert {leaf.shape[:2] for leaf in jax.tree.leaves(ring)} == {(13, 8)}


def test_writing_is_a_slice_update_when_seeds_are_stacked() -> None:
    """With the row number shared by all seeds, no scatter is needed."""
    rings = jax.vmap(lambda _: buffer.make(SPEC, ROWS, ENVS))(jnp.arange(3))
    steps = jax.tree.map(lambda x: jnp.stack([x] * 3), step_of(0, plain(1)[0]))
    lowered = jax.jit(jax.vmap(buffer.add, in_axes=(0, 0, None))).lower(rings, steps, jnp.asarray(2))
    text = lowered.compile({"xla_cpu_use_fusion_emitters": True}).as_text()  # as users compile it
    assert text and "dynamic-update-slice" in text
    assert " scatter(" not in text
