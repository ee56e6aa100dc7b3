"""Scripted policies reach their known returns, so the reward is the one by which numbers are read."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scripted
from omad import tasks
from omad.envs import make, mpe, particles
from omad.types import EnvSpec

EPISODES = 2000
POLICIES: dict[str, Callable[[EnvSpec], scripted.Scripted]] = {
    "zero": scripted.zero,
    "random": scripted.random,
    "greedy": scripted.greedy,
    "assigned": scripted.assigned,
    "cover": scripted.cover,
}
LABELS = {
    "zero": "zero action",
    "random": "uniformly random",
    "greedy": "own nearest landmark",
    "assigned": "optimal assignment + PD control",
    "cover": "nearest agent to the goal, others cover + PD control",
}

# An independent NumPy implementation of the same protocol, 2,000 episodes (spread) and 4,000 (deception);
# standard errors from the standard deviation of an episode's return there.
REFERENCE = [
    ("mpe/spread-3", "zero", -72.0, 0.54),
    ("mpe/spread-3", "random", -74.9, 0.54),
    ("mpe/spread-3", "greedy", -48.8, 0.59),
    ("mpe/spread-3", "assigned", -17.7, 0.20),
    ("mpe/spread-4", "zero", -112.2, 0.75),
    ("mpe/spread-4", "random", -117.9, 0.72),
    ("mpe/spread-4", "greedy", -76.6, 0.78),
    ("mpe/spread-4", "assigned", -29.2, 0.29),
    ("mpe/deception-2?adversary=static", "cover", 45.0, 0.40),
    ("mpe/deception-2", "cover", 46.7, 0.40),
]


@pytest.mark.parametrize(("name", "policy", "expected", "error"), REFERENCE)
def test_return_is_that_of_an_independent_implementation(name: str, policy: str, expected: float, error: float) -> None:
    env = make(name)
    returns, info = scripted.scripted_returns(env, POLICIES[policy](env.spec), jax.random.key(0), EPISODES)
    both = float(np.hypot(error, returns.std() / EPISODES**0.5))
    assert abs(float(returns.mean()) - expected) < 3 * both
    # And the table of tasks says the same (its own standard errors are a third of the reference's).
    table = {label: value for label, value, _ in tasks.find(name).references}
    assert abs(table[LABELS[policy]] - float(returns.mean())) < 3 * both
    assert set(info) == set(env.spec.info_keys)
    if name.startswith("mpe/spread"):
        n = env.spec.n_agents
        np.testing.assert_allclose(returns, 0.5 * (n * info["global"] - info["collisions"]), rtol=1e-4)


def test_static_adversary_is_as_far_from_the_goal_as_two_random_points() -> None:
    env = mpe.deception(2, adversary="static")
    _, info = scripted.scripted_returns(env, scripted.zero(env.spec), jax.random.key(1), EPISODES)
    far = info["adversary_distance"]
    # Mean distance of two uniform points of a square of side 2 (Santalo): 2 (2 + sqrt 2 + 5 ln(1 + sqrt 2)) /
    # 15.
    exact = 25 * 2 * (2 + np.sqrt(2) + 5 * np.log(1 + np.sqrt(2))) / 15
    assert abs(float(far.mean()) - exact) < 3 * float(far.std()) / EPISODES**0.5


def test_assignment_is_the_cheapest_and_cover_sends_the_nearest_to_the_goal() -> None:
    # Cheapest in total: 0.9 + 1.1 = 2.0 ways, not 0.4 + 2.4, though agent 2 is nearest to the goal at 0.
    pos = jnp.asarray([[5.0, 5.0], [-1.0, 0.0], [0.4, 0.0]])
    landmarks = jnp.asarray([[0.0, 0.0], [1.5, 0.0]])
    zero = jnp.zeros((), jnp.int32)
    world = particles.MpeState(pos, jnp.zeros_like(pos), landmarks, zero, zero)
    spec = mpe.deception(2, xy=True).spec
    key = jax.random.key(0)
    assert np.sign(scripted.assigned(spec)(world, key)).tolist() == [[1, 0], [1, 0]]
    assert np.sign(scripted.cover(spec)(world, key)).tolist() == [[1, 0], [-1, 0]]


def test_encoded_thrust_is_the_thrust_that_the_env_applies() -> None:
    thrust = jnp.asarray([[0.5, -1.0], [0.25, 0.0]])
    for xy in (False, True):
        env = mpe.spread(2, xy=xy)
        world, _ = env.reset(jax.random.key(0))
        action = scripted.encode(thrust, env.spec.act_dim)
        after, _ = env.step(world, action, jax.random.key(1))
        np.testing.assert_allclose(after.vel, 0.5 * thrust + 0.1 * particles.contact_force(world.pos, 0.15), atol=1e-6)


def test_too_many_agents_to_assign_is_an_error() -> None:
    with pytest.raises(ValueError, match="at most 7 agents"):
        scripted.assigned(mpe.spread(8).spec)
