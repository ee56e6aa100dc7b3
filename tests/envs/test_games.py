"""Games with several good joint actions: what is paid where."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad import envs, tasks

MODES = np.asarray(tasks.GAME_MODES)


def paid(name: str, action: np.ndarray) -> float:
    env = envs.make(name)
    state, _ = env.reset(jax.random.key(0))
    _, outcome = env.step(state, jnp.asarray(action), jax.random.key(1))
    assert bool(outcome.terminated) and not bool(outcome.truncated)
    return float(outcome.reward)


@pytest.mark.parametrize("n", [2, 3])
def test_every_joint_choice_of_points_is_best_on_the_islands(n: int) -> None:
    for choice in itertools.product(range(4), repeat=n):
        assert paid(f"games/islands-{n}", MODES[list(choice)]) == pytest.approx(1.0)
    assert paid(f"games/islands-{n}", np.zeros((n, 2))) == pytest.approx(math.exp(-0.72 / 0.3))


@pytest.mark.parametrize("n", [2, 3])
def test_only_the_same_point_is_best_at_a_meeting(n: int) -> None:
    for choice in itertools.product(range(4), repeat=n):
        value = paid(f"games/meeting-{n}", MODES[list(choice)])
        assert value == pytest.approx(1.0) if len(set(choice)) == 1 else value < 0.01
    near = MODES[[2] * n] + np.asarray([0.1, 0.0])
    assert paid(f"games/meeting-{n}", near) == pytest.approx(math.exp(-0.01 * n / 0.3), rel=1e-5)


def test_all_agents_see_the_same_numbers_and_these_differ_between_episodes() -> None:
    env = envs.make("games/meeting-3")
    seen = np.asarray(jax.vmap(lambda key: env.reset(key)[1].obs)(jax.random.split(jax.random.key(2), 50)))
    assert (seen == seen[:, :1]).all()
    assert (np.abs(seen) <= 1).all()
    assert seen[:, 0].std(0).min() > 0.4
