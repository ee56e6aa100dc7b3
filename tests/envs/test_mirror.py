"""Robots in a mirror: MuJoCo goes on from the image of a state as the image of how it goes on from the state."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from omad import envs, tasks
from omad.config import resolve
from omad.envs.mirror import BODIES, Map, mirrored
from omad.errors import UserError
from omad.loop.build import build
from omad.spec import EnvSpec, Symmetry
from omad.symmetry import image
from omad.tasks import robots
from omad.types import Batch

for _package in ("mujoco", "gymnasium_robotics"):
    pytest.importorskip(_package)

ROBOTS = ("ant-2x4", "ant-2x4d", "ant-2x4diag", "ant-4x2", "walker2d-2x3", "swimmer-2x1")
STARTS, STEPS = 30, 4


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo logs into the working directory."""
    monkeypatch.chdir(tmp_path)


def seen(x: np.ndarray, index: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """The image under the second element, in NumPy's double precision."""
    return sign[1] * x.ravel()[index[1]]


def put(world: Any, rng: np.random.Generator, body: Any, mirror: bool) -> None:
    """A state far from rest, limbs beyond their limits and in the ground; or its image."""
    single = world.single
    single.reset(seed=0)
    position = single.data.qpos + 0.2 * rng.normal(size=single.data.qpos.shape)
    velocity = rng.normal(size=single.data.qvel.shape)
    if "Ant" in single.spec.id:
        limits = single.model.jnt_range[1:]
        position[2] = rng.uniform(0.25, 0.6)
        position[3:7] /= np.linalg.norm(position[3:7])
        position[7:] = rng.uniform(limits[:, 0] - 0.1, limits[:, 1] + 0.1)
    single.data.qacc_warmstart[:] = 0
    single.set_state(*((body.qpos(position), body.qvel(velocity)) if mirror else (position, velocity)))


@pytest.mark.parametrize("protocol", robots.PROTOCOLS)
@pytest.mark.parametrize("robot", ROBOTS)
def test_the_image_of_a_transition_is_a_transition(robot: str, protocol: str):
    """Observations of every agent, states, rewards and ends, over several steps, to 1e-9 in double precision."""
    env = envs.make(f"mamujoco-{protocol}/{robot}")
    group, body = env.symmetry(), BODIES[robots.robot(robot)[0]]
    world, rng = env.create(False), np.random.default_rng(0)
    moved, forces = 0.0, 0
    for _ in range(STARTS):
        start, actions = rng.integers(1 << 30), rng.uniform(-1, 1, (STEPS, env.spec.n_agents, env.spec.act_dim))
        passed = []
        for mirror in (False, True):
            put(world, np.random.default_rng(start), body, mirror)
            shown = actions if not mirror else [seen(a, group.action_index, group.action_sign) for a in actions]
            passed.append([world.step(action, 0) for action in shown])
            forces += world.single.data.ncon
        for one, other in zip(*passed, strict=True):
            np.testing.assert_allclose(
                seen(one.next.obs, group.obs_index, group.obs_sign), other.next.obs, rtol=0, atol=1e-9
            )
            np.testing.assert_allclose(
                seen(one.next.state, group.state_index, group.state_sign), other.next.state, rtol=0, atol=1e-9
            )
            assert abs(one.reward - other.reward) < 1e-9
            assert one.terminated == other.terminated
            moved = max(moved, np.abs(one.next.state - other.next.state).max())
    world.close()
    assert moved > 0.1
    assert forces or "swimmer" in robot


@pytest.mark.parametrize("robot", ROBOTS)
def test_a_mirror_shows_an_image_as_it_was_and_every_entry_once(robot: str):
    for protocol in robots.PROTOCOLS:
        group = envs.make(f"mamujoco-{protocol}/{robot}").symmetry()
        for index, sign in (
            (group.obs_index, group.obs_sign),
            (group.state_index, group.state_sign),
            (group.action_index, group.action_sign),
        ):
            x = np.arange(1.0, index[0].size + 1).reshape(index[0].shape)
            np.testing.assert_array_equal(sign[0] * x.ravel()[index[0]], x)
            np.testing.assert_array_equal(seen(seen(x, index, sign), index, sign), x)
            assert set(np.abs(sign).ravel()) == {1.0}


def test_learners_are_shown_the_same_image():
    """Walker2d's legs are two agents, who change places; the one-hot ids stay with the rows."""
    env = envs.make("mamujoco-full/walker2d-2x3")
    group, spec = env.symmetry(), env.spec
    rng = np.random.default_rng(0)
    state = rng.normal(size=(2, spec.state_dim))
    obs = np.stack([np.concatenate([np.repeat(row[None], 2, 0), np.eye(2)], 1) for row in state])
    action = rng.uniform(-1, 1, (2, 2, 3))
    o, s, a = (jnp.asarray(x) for x in (obs, state, action))
    batch = Batch(obs=o, state=s, action=a, ret=jnp.zeros(2), discount=jnp.ones(2), next_obs=o, next_state=s)
    shown = image(batch, group, jnp.asarray([0, 1]))
    for name in ("obs", "state", "action", "next_obs", "next_state"):
        np.testing.assert_array_equal(getattr(shown, name)[0], getattr(batch, name)[0])
    np.testing.assert_array_equal(shown.action[1], a[1, ::-1])
    np.testing.assert_array_equal(shown.obs[1, :, :-2], jnp.stack([shown.state[1]] * 2))
    np.testing.assert_array_equal(shown.obs[1, :, -2:], np.eye(2))
    assert not np.array_equal(shown.state[1], s[1])


def test_an_image_that_no_agent_sees_is_refused():
    spec = dataclasses.replace(envs.make("mamujoco-obsk0/walker2d-2x3").spec, obs_dims=(2, 2))
    routes = [np.asarray([2, 1, 0]), np.asarray([5, 4, 3])]
    assert isinstance(mirrored(spec, "Walker2d", routes, [np.asarray([2, 3]), np.asarray([5, 6])]), Symmetry)
    with pytest.raises(UserError, match="is no agent's observation"):
        mirrored(spec, "Walker2d", routes, [np.asarray([2, 3]), np.asarray([2, 3])])


def test_maps_are_put_together():
    one, two = Map(np.asarray([1, 0]), np.asarray([1.0, -1.0])), Map(np.asarray([0]), np.asarray([-1.0]))
    np.testing.assert_array_equal(one.then(two)(np.asarray([1.0, 2.0, 3.0])), [2.0, -1.0, -3.0])
    np.testing.assert_array_equal(two.then(one).tail(1)(np.asarray([1.0, 2.0])), one(np.asarray([1.0, 2.0])))


def test_robots_with_an_image_are_said_to_have_one():
    assert set(robots.MIRRORED) == set(BODIES)
    for name in tasks.TASKS:
        if name.startswith("mamujoco-"):
            assert tasks.find(name).symmetric == (name.partition("/")[2] in ROBOTS)
    with pytest.raises(UserError, match="halfcheetah-2x3 states no symmetries"):
        resolve("mamujoco-full/halfcheetah-2x3", symmetry=True)


def test_a_run_on_a_robot_learns_by_symmetry(monkeypatch: pytest.MonkeyPatch):
    made: list[Symmetry] = []
    monkeypatch.setattr("omad.loop.build.symmetric", lambda algorithm, group: made.append(group) or algorithm)
    name = "mamujoco-full/ant-4x2"
    built = build(resolve(name, "hasac", symmetry=True), envs.make(name))
    built.close()
    spec: EnvSpec = built.spec
    assert [group.obs_index.shape for group in made] == [(2, spec.n_agents, spec.obs_dim)]
