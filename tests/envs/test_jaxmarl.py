"""JaxMARL's own envs: its particle task is ours, step by step, and its episodes stay as long as they are."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import omad
from omad import envs
from omad.envs import particles
from omad.envs.foreign import Timed
from omad.errors import UserError
from omad.types import JaxEnv

if importlib.util.find_spec("jaxmarl") is None:  # it takes seconds to import, so not while tests are collected
    pytest.skip("JaxMARL is not installed", allow_module_level=True)
SPREAD = "jaxmarl:MPE_simple_spread_v3"


@pytest.fixture(scope="module")
def theirs() -> JaxEnv:
    streams = sys.stdout, sys.stderr
    env = envs.make(f"{SPREAD}?action_type=Continuous")
    assert (sys.stdout, sys.stderr) == streams
    return env


def injected(like: Timed, world: particles.MpeState) -> Timed:
    """JaxMARL's state where ours is."""
    still = jnp.zeros_like(world.landmarks)
    state = dataclasses.replace(
        like.state, p_pos=jnp.concatenate([world.pos, world.landmarks]), p_vel=jnp.concatenate([world.vel, still]),
        step=world.time,
    )  # fmt: skip
    return Timed(state, world.time, like.ended)


@pytest.mark.slow
def test_a_team_that_learned_from_mirror_images_is_evaluated_on_a_task_that_states_none(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"total_steps": 80, "warmup_steps": 40, "eval_every": 80, "eval_episodes": 2}
    run = omad.train("mpe/spread-3", "hatd3", "tiny", symmetry=True, run_dir=tmp_path / "run", loggers=[], **sizes)
    found = run.evaluate(2, task=f"{SPREAD}?action_type=Continuous")
    assert found.returns["sampled"].shape == (1, 2)


@pytest.mark.slow
def test_its_spread_is_ours(theirs: JaxEnv) -> None:
    """25 steps of eight episodes, half of which begin crowded, so that agents touch."""
    ours = envs.make("mpe/spread-3")
    assert (theirs.spec.obs_dims, theirs.spec.act_dims) == (ours.spec.obs_dims, ours.spec.act_dims)
    assert (theirs.spec.act_low, theirs.spec.act_high) == (ours.spec.act_low, ours.spec.act_high)
    like = theirs.reset(jax.random.key(0))[0]

    def episode(key: Any, scale: Any) -> Any:
        world = ours.reset(key)[0]
        world = dataclasses.replace(world, pos=world.pos * scale)

        def step(world: particles.MpeState, key: Any) -> Any:
            action = jax.random.uniform(key, (3, 5), minval=-1.0)
            there, other = theirs.step(injected(like, world), action, key)
            world, outcome = ours.step(world, action, key)
            return world, (outcome, other, world, there.state)

        return jax.lax.scan(step, world, jax.random.split(jax.random.fold_in(key, 1), 25))[1]

    with jax.debug_key_reuse(False):
        keys = jax.random.split(jax.random.key(5), 8)
        found = jax.jit(jax.vmap(episode))(keys, jnp.asarray([1.0, 0.25] * 4))
    outcome, other, world, state = jax.tree.map(np.asarray, found)
    np.testing.assert_allclose(state.p_pos[..., :3, :], world.pos, atol=1e-5)
    np.testing.assert_allclose(state.p_vel[..., :3, :], world.vel, atol=1e-4)
    np.testing.assert_allclose(other.next.obs, outcome.next.obs, atol=1e-4)
    np.testing.assert_allclose(other.reward, outcome.reward, atol=1e-4)
    assert outcome.info["collisions"].any()
    assert not other.truncated.any() and outcome.truncated[:, -1].all()  # it goes on for one step more


def test_an_episode_has_26_steps_and_ends_with_its_true_observation(theirs: JaxEnv) -> None:
    assert theirs.spec.horizon == 26
    assert "one after 26 steps, the env's own limit, counts as truncated" in theirs.notes[0]
    state, _ = theirs.reset(jax.random.key(1))
    step = jax.jit(theirs.step)
    outcomes = []
    for t in range(26):
        state, outcome = step(state, jnp.ones((3, 5)), jax.random.key(t))
        outcomes.append(outcome)
    assert [bool(one.truncated) for one in outcomes] == [False] * 25 + [True]
    assert not any(bool(one.terminated) for one in outcomes)
    assert outcomes[-1].next.obs[:, 2:4].tolist() == state.state.p_pos[:3].tolist()
    assert int(state.state.step) == 26


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (SPREAD, r"acts in a Discrete; .*Its continuous form is \?action_type=Continuous"),
        ("jaxmarl:SMAX", r"Its continuous form is \?action_type=continuous"),
        ("jaxmarl:MPE_simple_spred_v3", "nearest: MPE_simple_spread_v3"),
        (f"{SPREAD}?action_type=Continuous&agents_=4", "has no argument 'agents_'; nearest: agents"),
        (f"{SPREAD}?action_type=Continuous&num_agents=many", "failed with TypeError"),
        (f"{SPREAD}?action_type=Continuous&horizon=30", "ends its episodes after 26 steps itself"),
    ],
)
def test_what_is_refused(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        envs.make(name)


def test_agents_of_unequal_sizes_keep_their_names() -> None:
    spec = envs.make("jaxmarl:MPE_simple_speaker_listener_v4?action_type=Continuous&max_steps=9").spec
    assert (spec.agents, spec.obs_dims, spec.act_dims) == (("speaker_0", "listener_0"), (3, 11), (3, 5))
    assert spec.horizon == 10
