"""The probe ladder: what isolates one ability each must be solved, in this order, values and actions.

Values are read off the critics, at observations and actions whose true value is known. Uniformly random actions reach
everything in these tasks, so the ladder learns from a ring of random play and one compiled learner climbs most of it;
`test_probe_in_the_loop` (slow) climbs it once more with the learner's own play.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad import buffer, envs
from omad.algos.omad import OmadConfig, OmadState, make
from omad.loop import fused
from omad.nets import RenormConfig
from omad.ops import categorical
from omad.types import Algorithm, EnvSpec

GAMMA, V_MAX, ATOMS = 0.9, 15.0, 51
CONFIG = OmadConfig(
    denoising_steps=4, actor_width=32, actor_layers=2, time_frequencies=8, time_width=16,
    critic_width=64, critic_layers=2, atoms=ATOMS, v_max=V_MAX, gamma=GAMMA,
    actor_lr=1e-3, critic_lr=1e-3, actor_every=2, alpha_mode="fixed", alpha_init=1e-3,
)  # fmt: skip
BATCH, ROWS, ENVS = 64, 64, 32
PROBES = {"constant": 2000, "signal": 600, "delay": 1000, "timeout": 1500, "push": 2400, "relay": 1500}
"""In the order of the ladder, each with the gradient steps it is given."""


def values(learner: OmadState, obs: Any, action: Any) -> np.ndarray:
    """Q of observations (batch, agent, obs) and actions, mean of the twins under running statistics."""
    obs, action = jnp.asarray(obs, jnp.float32), jnp.asarray(action, jnp.float32)
    x = jnp.concatenate([obs.reshape(len(obs), -1), action.reshape(len(obs), -1)], -1)
    logits = jax.vmap(lambda critic, stats: critic(stats, x, RenormConfig()))(learner.critics, learner.stats)
    return np.asarray((jax.nn.softmax(logits) @ categorical.support(V_MAX, ATOMS)).mean(0))


@functools.cache
def compiled(obs_dims: tuple[int, ...], act_dims: tuple[int, ...]) -> tuple[Any, Any]:
    """(init, train) for tasks of these sizes."""
    algorithm = make(CONFIG, EnvSpec("any", obs_dims, act_dims, 0, 1))

    def train(learner: OmadState, ring: Any, key: Any, updates: Any) -> OmadState:
        def step(count: Any, learner: OmadState) -> OmadState:
            sample_key, update_key = jax.random.split(jax.random.fold_in(key, count))
            batch = buffer.sample(ring, jnp.asarray(ROWS), sample_key, BATCH, GAMMA)
            return algorithm.update(learner, batch, update_key, count)[0]

        return jax.lax.fori_loop(1, updates + 1, step, learner)

    return jax.jit(algorithm.init), jax.jit(train)


def from_random_play(name: str) -> tuple[Algorithm, OmadState]:
    """A learner after some updates on 2048 transitions of uniformly random actions."""
    env = envs.make(f"probe/{name}")
    algorithm = make(CONFIG, env.spec)
    loop = fused.make(algorithm, env, fused.LoopConfig(ENVS, 1, BATCH, ROWS, ROWS))
    seeds = jnp.asarray([0])
    carry = loop.warm(loop.init(seeds), seeds, jnp.asarray(0), jnp.asarray(ROWS))
    init, train = compiled(env.spec.obs_dims, env.spec.act_dims)
    ring = jax.tree.map(lambda x: x[0], carry.ring)
    return algorithm, train(init(jax.random.key(1)), ring, jax.random.key(2), jnp.asarray(PROBES[name]))


def from_own_play(name: str) -> tuple[Algorithm, OmadState]:
    """A learner after as many updates in the fused loop, one a vector step."""
    env = envs.make(f"probe/{name}")
    algorithm = make(CONFIG, env.spec)
    loop = fused.make(algorithm, env, fused.LoopConfig(8, 1, BATCH, 512, 32))
    seeds = jnp.asarray([0])
    carry = loop.warm(loop.init(seeds), seeds, jnp.asarray(0), jnp.asarray(32))
    carry = loop.chunk(carry, seeds, jnp.asarray(32), jnp.asarray(PROBES[name]))
    assert np.asarray(loop.healthy(carry)).all()
    return algorithm, jax.tree.map(lambda x: x[0], carry.learner)


def check(name: str, algorithm: Algorithm, learner: OmadState) -> None:
    """Values within 5 % of the range of what is at stake; actions clearly better than not knowing."""
    rng = np.random.default_rng(0)
    action = rng.uniform(-1, 1, (64, 2, 1))
    ones = np.ones((64, 2, 1))
    act = functools.partial(algorithm.act, algorithm.policy(learner))
    if name == "constant":
        np.testing.assert_allclose(values(learner, ones, action), 1.0, atol=0.1)
    elif name == "signal":
        np.testing.assert_allclose(values(learner, ones, action), 1.0, atol=0.1)
        np.testing.assert_allclose(values(learner, -ones, action), -1.0, atol=0.1)
    elif name == "delay":
        np.testing.assert_allclose(values(learner, 0 * ones, action), GAMMA, atol=0.1)
        np.testing.assert_allclose(values(learner, ones, action), 1.0, atol=0.1)
    elif name == "timeout":
        # 10 with the bootstrap; about 6 where truncations are taken for ends.
        np.testing.assert_allclose(values(learner, ones, action), 1 / (1 - GAMMA), atol=0.5)
    elif name == "push":
        goal = rng.uniform(-0.8, 0.8, (256, 2, 2)) * np.asarray([[1, 0], [1, 1]])
        np.testing.assert_allclose(values(learner, goal, goal).mean(), 0.0, atol=0.1)
        np.testing.assert_allclose(values(learner, goal, 0 * goal).mean(), -np.mean(np.sum(goal**2, (1, 2))), atol=0.1)
        miss = {
            e: (np.asarray(act(jnp.asarray(goal, jnp.float32), jax.random.key(3), e)) - goal) ** 2
            for e in (True, False)
        }
        assert miss[False].sum((1, 2)).mean() < 0.06  # 0.64 for no action at all
        assert miss[True].sum((1, 2)).mean() < 0.3  # 3.2 for the chain as it starts
    elif name == "relay":
        one, two = np.asarray(act(jnp.ones((256, 2, 1)), jax.random.key(3), True))[:, :, 0].T
        reward = np.sum([np.exp(-((one - m) ** 2 + (two + m) ** 2) / 0.3) for m in (0.6, -0.6)], axis=0)
        assert reward.mean() > 0.6  # 0.18 at the mean of both modes, 0.02 for one agent in each


@pytest.mark.parametrize("name", PROBES)
def test_probe(name: str) -> None:
    """From uniformly random play."""
    check(name, *from_random_play(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBES)
def test_probe_in_the_loop(name: str) -> None:
    """From the learner's own play, in the loop that trains everything else."""
    check(name, *from_own_play(name))
