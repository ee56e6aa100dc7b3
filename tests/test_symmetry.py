"""Learning from images of transitions: the group, that tasks are the same under it, and what is learned from."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import omad
from omad import algos, envs, tasks
from omad.algos.omad import OmadConfig
from omad.config import resolve
from omad.envs import outside as envs_outside
from omad.envs.mpe import ADVERSARIES, deception
from omad.envs.particles import MpeState
from omad.errors import UserError
from omad.loop.build import build
from omad.symmetry import image, plane, symmetric
from omad.tasks import outside
from omad.types import Batch, JaxEnv, Mean, Symmetry

ELEMENTS = 8


def moved(world: MpeState, element: int) -> MpeState:
    """A world rotated or reflected, worked by hand: swap the axes or not, then mirror each or not."""
    swap, sign = element >= 4, np.array([(1, 1), (-1, 1), (1, -1), (-1, -1)][element % 4])

    def of(x: Any) -> Any:
        return (x[..., ::-1] if swap else x) * sign

    return dataclasses.replace(world, pos=of(world.pos), vel=of(world.vel), landmarks=of(world.landmarks))


@pytest.mark.parametrize(
    "name",
    [
        "mpe/spread-3",
        "mpe/spread-4?state=true",
        "mpe/spread-2-xy",
        "mpe/spread-3?dynamics=v2",
        "mpe/deception-2?adversary=static",
        "mpe/deception-2?adversary=landmark_mean&state=true",
        "mpe/deception-3?adversary=follower&state=full",
        "mpe/deception-2-xy?adversary=static&state=full",
    ],
)
def test_a_task_is_the_same_under_its_symmetries(name: str):
    """From the moved world, the moved actions give the same reward and the moved observations."""
    env = envs.make(name)
    world, _ = jax.jit(env.reset)(jax.random.key(0))
    world = dataclasses.replace(world, vel=jax.random.normal(jax.random.key(1), world.vel.shape))
    worlds = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(moved(world, g) for g in range(ELEMENTS)))
    action = jax.random.uniform(jax.random.key(2), (env.spec.n_agents, env.spec.act_dim), minval=-1.0)

    def same(x: Any) -> Any:
        return jnp.repeat(x[None], ELEMENTS, axis=0)

    batch = jax.jit(lambda: rows(env, ELEMENTS))()
    imaged = jax.jit(lambda batch, elements: image(batch, env.symmetry, elements))
    actions = imaged(dataclasses.replace(batch, action=same(action)), jnp.arange(ELEMENTS)).action
    keys = same(jax.random.key(3))
    _, outcome = jax.jit(jax.vmap(env.step))(worlds, actions, keys)
    real = dataclasses.replace(batch, ret=outcome.reward, next_obs=outcome.next.obs, next_state=outcome.next.state)
    first = jax.tree.map(lambda leaf: same(leaf[0]), real)
    seen = imaged(first, jnp.arange(ELEMENTS))
    np.testing.assert_allclose(real.ret, first.ret, atol=1e-5)
    np.testing.assert_allclose(real.next_obs, seen.next_obs, atol=1e-5)
    np.testing.assert_allclose(real.next_state, seen.next_state, atol=1e-5)


@pytest.mark.parametrize("xy", [False, True])
def test_the_group_is_closed_and_begins_with_the_identity(xy: bool):
    group = plane(6, 4, xy=xy)
    for index, sign in ((group.obs_index, group.obs_sign), (group.action_index, group.action_sign)):
        matrices = np.zeros((ELEMENTS, index.shape[1], index.shape[1]))
        for g in range(ELEMENTS):
            matrices[g, np.arange(index.shape[1]), index[g]] = sign[g]
        np.testing.assert_array_equal(matrices[0], np.eye(index.shape[1]))
        as_rows = {m.tobytes() for m in matrices + 0.0}
        assert len(as_rows) == ELEMENTS
        assert {(a @ b + 0.0).tobytes() for a in matrices for b in matrices} == as_rows


def test_an_env_stays_hashable():
    env = envs.make("mpe/spread-2")
    assert {env: 1}[env] == 1


def test_odd_rows_are_no_rows_of_vectors():
    with pytest.raises(ValueError, match="even"):
        plane(5, 0, xy=True)


def rows(env: JaxEnv, n: int) -> Batch:
    """Transitions that need not be possible."""
    spec, keys = env.spec, jax.random.split(jax.random.key(3), 5)
    return Batch(
        obs=jax.random.normal(keys[0], (n, spec.n_agents, spec.obs_dim)),
        state=jnp.zeros((n, spec.state_dim)),
        action=jax.random.uniform(keys[1], (n, spec.n_agents, spec.act_dim), minval=-1.0),
        ret=jax.random.normal(keys[2], (n,)),
        discount=jnp.full((n,), 0.9),
        next_obs=jax.random.normal(keys[3], (n, spec.n_agents, spec.obs_dim)),
        next_state=jnp.zeros((n, spec.state_dim)),
    )


def test_every_transition_is_learned_from_as_one_of_its_images():
    """Each row's image is one of the eight, all eight are drawn, rewards and discounts stay."""
    env = envs.make("mpe/spread-2")
    seen: list[Batch] = []
    inner = algos.make(OmadConfig(), env.spec)

    def spy(learner: Any, batch: Batch, key: Any, count: Any) -> tuple[Any, dict[str, Mean]]:
        seen.append(batch)
        return learner, {}

    batch = rows(env, 256)
    symmetric(inner._replace(update=spy), env.symmetry).update(None, batch, jax.random.key(0), jnp.int32(1))
    seen_as = jax.jit(lambda element: image(batch, env.symmetry, element))
    images = np.stack([seen_as(jnp.full(256, g)).obs for g in range(ELEMENTS)])
    learned = np.asarray(seen[0].obs)
    which = [int(np.flatnonzero([np.array_equal(images[g, i], learned[i]) for g in range(ELEMENTS)])[0])
             for i in range(256)]  # fmt: skip
    assert set(which) == set(range(ELEMENTS))
    again = seen_as(jnp.asarray(which))
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(seen[0]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("asked", [False, True])
def test_a_run_learns_by_symmetry_if_asked(asked: bool, monkeypatch: pytest.MonkeyPatch):
    made: list[Symmetry] = []
    monkeypatch.setattr("omad.loop.build.symmetric", lambda algorithm, group: made.append(group) or algorithm)
    built = build(resolve("mpe/spread-2", symmetry=asked), envs.make("mpe/spread-2"))
    assert len(made) == asked
    assert all(group.obs_index.shape == (ELEMENTS, built.spec.obs_dim) for group in made)


def test_a_task_without_symmetries_is_refused():
    with pytest.raises(UserError, match="probe/push states no symmetries"):
        resolve("probe/push", symmetry=True)
    ours = [name for name in tasks.TASKS if not name.startswith("mamujoco-")]
    assert all(tasks.find(name).symmetric == name.startswith("mpe/") for name in ours)


def reflected(stated: bool = True) -> JaxEnv:
    """A user's env: `mpe/spread-2`, with or without its symmetry."""
    env = envs.make("mpe/spread-2")
    return env if stated else env._replace(symmetry=None)


@pytest.mark.parametrize("given", [reflected, "test_symmetry:reflected", reflected()])
def test_an_env_of_ones_own_may_state_its_symmetry(given: Any, monkeypatch: pytest.MonkeyPatch):
    """However it is given; in a run folder of another process too."""
    monkeypatch.setattr(outside, "_entries", {})
    monkeypatch.setattr(envs_outside, "_handed", {})
    if isinstance(given, JaxEnv):
        name = envs.of_object(given)
    else:
        omad.register_env(name := "mine", given)
    build(resolve(name, symmetry=True), envs.make(name))
    if isinstance(given, JaxEnv):  # its run folder names it in processes that do not have it
        outside._entries.clear()
        resolve(name, symmetry=True)


def test_an_env_of_ones_own_without_symmetries_is_refused_once_it_is_made(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outside, "_entries", {})
    omad.register_env("mine", reflected)
    name = "mine?stated=false"
    with pytest.raises(UserError, match="states no symmetries"):
        build(resolve(name, symmetry=True), envs.make(name))


def test_a_script_that_is_not_ours_may_know_left_from_right():
    assert deception(2, adversary=lambda world, key: jnp.ones(5)).symmetry is None
    assert isinstance(deception(2, adversary=next(iter(ADVERSARIES))).symmetry, Symmetry)


def test_metrics_pass_through():
    env = envs.make("mpe/spread-2")
    inner = algos.make(OmadConfig(), env.spec)._replace(
        update=lambda learner, batch, key, count: (learner, {"x": Mean.of(batch.ret.sum())})
    )
    batch = rows(env, 8)
    _, metrics = symmetric(inner, env.symmetry).update(None, batch, jax.random.key(0), jnp.int32(1))
    np.testing.assert_allclose(metrics["x"].total, batch.ret.sum(), rtol=1e-6)
