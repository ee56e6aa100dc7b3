"""Standardised observations: moments, the per-vector form, and what an algorithm is given."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import omad.algos.omad
from omad import algos
from omad.algos.configs.omad import OmadConfig
from omad.reward_norm import ReturnStats
from omad.standardise import RunningStats, standardised, within
from omad.types import Algorithm, Batch, EnvSpec

SPEC = EnvSpec("test", (3, 2), (1, 1), 4, 10)


def batch(key: Any, size: int = 8) -> Batch:
    keys = jax.random.split(key, 4)
    obs = 5 + 3 * jax.random.normal(keys[0], (size, 2, 3)) * SPEC.obs_mask
    state = -2 + 7 * jax.random.normal(keys[1], (size, 4))
    zeros = jnp.zeros(size)
    return Batch(obs * SPEC.obs_mask, state, jnp.zeros((size, 2, 1)), zeros, zeros, obs * SPEC.obs_mask, state)


def spy() -> tuple[Algorithm, list[Any]]:
    """An algorithm that only looks at what it is given."""
    seen: list[Any] = []

    def act(policy: Any, obs: Any, key: Any, explore: bool) -> Any:
        del policy, key, explore
        seen.append(obs)
        return obs[..., :1]

    def update(learner: Any, given: Batch, key: Any, count: Any) -> Any:
        del key, count
        seen.append(given)
        return learner, {}

    init = lambda key: jnp.zeros(())  # noqa: E731
    return Algorithm(init, lambda learner: learner, act, update, 0.9, 1), seen


def test_moments_of_batches_are_those_of_all_rows_together():
    rows = np.random.default_rng(0).normal(3, 2, (40, 5)).astype(np.float32)
    moments = RunningStats.none(5)
    for part in (rows[:7], rows[7:8], rows[8:]):
        moments = moments.seen(jnp.asarray(part))
    np.testing.assert_allclose(np.asarray(moments.mean), rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(moments.variance), rows.var(0), rtol=1e-5)
    assert float(moments.count) == 40
    out = np.asarray(moments(jnp.asarray(rows)))
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(0), 1, atol=1e-4)
    assert np.abs(np.asarray(moments(jnp.full((5,), 1e9)))).max() == 10


@pytest.mark.parametrize("stats", [RunningStats.none(3), ReturnStats.none(2, 0.9, 5.0)])
def test_moments_of_a_very_long_run_go_on_moving(stats: Any) -> None:
    """One more row added to a count that float32 cannot raise must not make the variance grow for ever."""
    end = dataclasses.replace(stats, count=jnp.asarray(2.0**34), mean=stats.mean + 1.0, variance=stats.variance * 4.0)
    for _ in range(3):
        rows = jnp.ones((2, 3)) * jnp.asarray([[0.0], [2.0]])
        end = end.seen(rows) if isinstance(end, RunningStats) else end.seen(rows[:, 0], jnp.ones(2, bool))
    assert np.all(np.asarray(end.variance) < 4.0) and np.all(np.isfinite(np.asarray(end.mean)))
    assert float(end.count) < 2.0**24


def test_nothing_seen_changes_nothing():
    x = jnp.asarray([1.0, -2.0, 3.0])
    np.testing.assert_allclose(np.asarray(RunningStats.none(3)(x)), np.asarray(x), rtol=1e-5)


def test_within_a_vector_as_harl_does():
    """(x - mean(x)) / std(x) over the real entries of one vector; padding stays zero, equal entries give zeros."""
    x = jnp.asarray([[1.0, 2.0, 6.0], [4.0, 8.0, 0.0]])
    out = np.asarray(within(x, jnp.asarray(SPEC.obs_mask)))
    np.testing.assert_allclose(out[0], (np.array([1, 2, 6]) - 3) / np.std([1, 2, 6]), rtol=1e-6)
    np.testing.assert_allclose(out[1], [-1, 1, 0], rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(within(jnp.full((4,), 7.0))), 0)


def test_none_is_the_algorithm_itself():
    algorithm, _ = spy()
    assert standardised(algorithm, SPEC, "none") is algorithm


def test_running_moments_belong_to_the_policy_and_are_of_what_was_learned_from():
    algorithm, seen = spy()
    wrapped = standardised(algorithm, SPEC, "running")
    learner = wrapped.init(jax.random.key(0))
    given = batch(jax.random.key(1), 64)
    learner, _ = wrapped.update(learner, given, jax.random.key(2), jnp.int32(1))
    inside = seen.pop()
    flat = np.asarray(inside.obs)
    np.testing.assert_allclose(flat[:, 0].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(flat[:, 0].std(0), 1, atol=1e-3)
    np.testing.assert_array_equal(flat[:, 1, 2], 0)  # padding
    np.testing.assert_allclose(np.asarray(inside.state).std(0), 1, atol=1e-3)
    policy = wrapped.policy(learner)
    wrapped.act(policy, given.obs, jax.random.key(3), True)
    np.testing.assert_allclose(np.asarray(seen.pop()), flat, atol=1e-6)


def test_agents_that_share_a_policy_share_its_moments():
    """Each agent's own would make entries that tell agents apart zeros for all of them."""
    spec = dataclasses.replace(SPEC, obs_dims=(3, 3))
    algorithm, seen = spy()
    wrapped = standardised(algorithm, spec, "running", alike=True)
    given = batch(jax.random.key(1), 64)
    obs = given.obs.at[:, 0, 2].set(1.0).at[:, 1, 2].set(0.0)  # who I am
    learner, _ = wrapped.update(
        wrapped.init(jax.random.key(0)), dataclasses.replace(given, obs=obs), jax.random.key(2), jnp.int32(1)
    )
    flat = np.asarray(seen.pop().obs)
    np.testing.assert_allclose(flat[:, :, 2], np.tile([1.0, -1.0], (64, 1)), atol=1e-3)
    np.testing.assert_allclose(flat.mean((0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(flat.std((0, 1)), 1, atol=1e-3)
    moments = np.asarray(wrapped.policy(learner).obs.mean).reshape(2, 3)
    np.testing.assert_array_equal(moments[0], moments[1])


@pytest.mark.parametrize("shared", [True, False])
def test_an_algorithm_that_shares_its_policy_shares_its_moments(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its configuration says; agents that see unlike numbers have unlike moments otherwise."""
    algorithm, _ = spy()
    monkeypatch.setattr(omad.algos.omad, "make", lambda config, spec: algorithm)
    spec = dataclasses.replace(SPEC, obs_dims=(3, 3))
    made = algos.make(OmadConfig(share_policy=shared), spec, "running")
    given = batch(jax.random.key(1), 64)  # where the second agent's last entry is zero
    learner, _ = made.update(made.init(jax.random.key(0)), given, jax.random.key(2), jnp.int32(1))
    moments = np.asarray(made.policy(learner).obs.mean).reshape(2, 3)
    assert np.array_equal(moments[0], moments[1]) == shared


def test_harl_needs_no_state():
    algorithm, seen = spy()
    wrapped = standardised(algorithm, SPEC, "harl")
    given = batch(jax.random.key(1))
    learner, _ = wrapped.update(wrapped.init(jax.random.key(0)), given, jax.random.key(2), jnp.int32(1))
    inside = seen.pop()
    wrapped.act(wrapped.policy(learner), given.obs, jax.random.key(3), True)
    np.testing.assert_array_equal(np.asarray(seen.pop()), np.asarray(inside.obs))
    np.testing.assert_allclose(np.asarray(inside.obs)[:, 0].mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(np.asarray(inside.state).std(-1), 1, atol=1e-4)
