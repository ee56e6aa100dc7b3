"""Each probe pays what its docstring says, ends as it says, and hides what it says."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad import tasks
from omad.envs import make
from omad.types import Outcome

PROBES = ("constant", "signal", "delay", "timeout", "push", "relay")


def first_step(kind: str, action: Any, seed: int = 0) -> tuple[Any, Outcome]:
    env = make(f"probe/{kind}")
    state, seen = env.reset(jax.random.key(seed))
    return seen, env.step(state, jnp.asarray(action, float), jax.random.key(0))[1]


@pytest.mark.parametrize("kind", PROBES)
def test_sizes_horizon_and_end(kind: str) -> None:
    env, task = make(f"probe/{kind}"), tasks.find(f"probe/{kind}")
    spec = env.spec
    assert (spec.name, spec.n_agents, spec.obs_dims, spec.act_dims) == (
        task.name,
        2,
        task.obs_dims,
        task.act_dims,
    )
    state, seen = env.reset(jax.random.key(0))
    assert seen.obs.shape == (2, spec.obs_dim)
    assert seen.state.shape == (0,)
    for time in range(spec.horizon):
        state, outcome = env.step(state, jnp.zeros((2, spec.act_dim)), jax.random.key(0))
        last = time == spec.horizon - 1
        assert bool(outcome.terminated) == (last and kind != "timeout")
        assert bool(outcome.truncated) == (last and kind == "timeout")
        assert outcome.reward.shape == ()
        assert outcome.next.obs.shape == seen.obs.shape


def test_constant_pays_one_whatever_is_done() -> None:
    for action in ([[0.0], [0.0]], [[1.0], [-1.0]]):
        assert float(first_step("constant", action)[1].reward) == 1.0


def test_signal_pays_the_sign_that_both_agents_see() -> None:
    signs = set()
    for seed in range(12):
        seen, outcome = first_step("signal", [[0.3], [0.1]], seed)
        assert float(seen.obs[0, 0]) == float(seen.obs[1, 0]) == float(outcome.reward)
        signs.add(float(outcome.reward))
    assert signs == {-1.0, 1.0}


def test_delay_pays_at_the_second_step_only_and_shows_which_it_is() -> None:
    env = make("probe/delay")
    state, seen = env.reset(jax.random.key(0))
    assert seen.obs.tolist() == [[0.0], [0.0]]
    state, outcome = env.step(state, jnp.zeros((2, 1)), jax.random.key(0))
    assert float(outcome.reward) == 0.0
    assert outcome.next.obs.tolist() == [[1.0], [1.0]]
    _, outcome = env.step(state, jnp.zeros((2, 1)), jax.random.key(0))
    assert float(outcome.reward) == 1.0


def test_timeout_pays_one_a_step_and_shows_no_time() -> None:
    env = make("probe/timeout")
    state, seen = env.reset(jax.random.key(0))
    for _ in range(10):
        state, outcome = env.step(state, jnp.zeros((2, 1)), jax.random.key(0))
        assert float(outcome.reward) == 1.0
        assert np.array_equal(outcome.next.obs, seen.obs)


def test_push_is_best_at_the_observed_targets_and_ignores_padding() -> None:
    seen, outcome = first_step("push", jnp.zeros((2, 2)))
    target = seen.obs
    assert float(target[0, 1]) == 0.0
    np.testing.assert_allclose(outcome.reward, -jnp.square(target).sum(), rtol=1e-6)
    assert float(first_step("push", target)[1].reward) == 0.0
    assert float(first_step("push", target.at[0, 1].set(0.9))[1].reward) == 0.0
    off = first_step("push", target.at[1, 1].add(0.1))[1].reward
    np.testing.assert_allclose(off, -0.01, rtol=1e-4)


def test_push_targets_fill_their_range_independently() -> None:
    env = make("probe/push")
    _, seen = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 4000))
    targets = np.stack([seen.obs[:, 0, 0], seen.obs[:, 1, 0], seen.obs[:, 1, 1]])
    assert 0.79 < np.abs(targets).max() <= 0.8
    np.testing.assert_allclose(np.cov(targets), np.eye(3) * 0.64 / 3, atol=0.015)


def test_relay_has_two_equal_modes_and_punishes_their_mean_and_their_mixture() -> None:
    def pay(a: float, b: float) -> float:
        return float(first_step("relay", [[a], [b]])[1].reward)

    np.testing.assert_allclose(pay(0.6, -0.6), 1.0, atol=1e-3)
    np.testing.assert_allclose(pay(-0.6, 0.6), pay(0.6, -0.6), rtol=1e-6)
    assert pay(0.0, 0.0) < 0.2
    assert pay(0.6, 0.6) < 0.2
    assert pay(-0.6, -0.6) < 0.2
    assert pay(0.5, -0.5) > pay(0.4, -0.4) > pay(0.2, -0.2) > pay(0.0, 0.0)
