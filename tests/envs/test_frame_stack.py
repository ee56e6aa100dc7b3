"""Frame stacking: what an observation then holds, and that nothing else of the task changes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scripted
from omad import envs, tasks
from omad.envs import mpe, particles
from omad.envs.draw import episode_frames
from omad.envs.frame_stack import env_state, stack_frames
from omad.errors import UserError
from omad.types import JaxEnv, Observation, Outcome

STEPS = 4


def play(env: JaxEnv, scale: float = 1.0) -> tuple[list[Any], list[Observation], list[jax.Array], list[Outcome]]:
    """An episode's beginning under drawn actions: states, observations, actions, outcomes."""
    state, seen = env.reset(jax.random.key(0))
    states, shown, actions, outcomes = [state], [seen], [], []
    step = jax.jit(env.step)
    for t in range(STEPS):
        act_key, env_key = jax.random.split(jax.random.fold_in(jax.random.key(1), t))
        shape = (env.spec.n_agents, env.spec.act_dim)
        actions.append(scale * jax.random.uniform(act_key, shape, minval=-1.0))
        state, outcome = step(state, actions[-1], env_key)
        states.append(state)
        shown.append(outcome.next)
        outcomes.append(outcome)
    return states, shown, actions, outcomes


@pytest.mark.parametrize("name", ["mpe/deception-2", "mpe/deception-3-xy?state=full", "mpe/spread-2?state=true"])
def test_an_observation_holds_what_was_seen_and_done_and_nothing_else_changes(name: str) -> None:
    plain = envs.make(name)
    base, _, options = name.partition("?")
    env = envs.make(f"{base}?history=3" + ("&" + options if options else ""))
    states, shown, actions, outcomes = play(env)
    inner_states, seen, _, inner = play(plain)
    idle, whole = jnp.zeros_like(actions[0]), np.zeros((0, 0))
    for t in range(STEPS + 1):
        obs = [seen[max(t - k, 0)].obs for k in range(3)]
        did = [actions[t - k] if t >= k else idle for k in (1, 2)]
        whole = np.concatenate([obs[0], obs[1], did[0], obs[2], did[1]], axis=1)
        np.testing.assert_array_equal(shown[t].obs, whole)
        np.testing.assert_array_equal(shown[t].state, seen[t].state)
    for ours, theirs in zip(outcomes, inner, strict=True):
        assert (ours.reward, ours.truncated, ours.terminated) == (theirs.reward, theirs.truncated, theirs.terminated)
        assert ours.info == theirs.info
    same = jax.tree.map(np.array_equal, [env_state(s) for s in states], inner_states)
    assert all(jax.tree.leaves(same))
    task = tasks.find(env.spec.name)
    assert (task.obs_dims, task.state_dim) == (env.spec.obs_dims, env.spec.state_dim)
    assert whole.shape[1] == env.spec.obs_dim


def test_it_remembers_the_action_that_the_env_took() -> None:
    """Actions beyond the box are clipped by the env, and so in memory."""
    env = envs.make("mpe/spread-2?history=2")
    _, shown, actions, _ = play(env, scale=3.0)
    assert float(jnp.abs(actions[0]).max()) > 1
    np.testing.assert_array_equal(shown[1].obs[:, -5:], jnp.clip(actions[0], -1, 1))


@pytest.mark.parametrize("dynamics", ["v3", "v2"])
def test_two_moments_tell_an_agent_its_velocity(dynamics: str) -> None:
    """Which `mpe/deception-N` shows to nobody: the step between two positions, and what was done with it."""
    states, shown, _, _ = play(envs.make(f"mpe/deception-2?history=2&dynamics={dynamics}"))
    now, before, done = jnp.split(shown[-1].obs, (10, 20), axis=1)
    # The goal comes first in an observation; it does not move, so its relative position moves against the agent.
    velocity = (before[:, :2] - now[:, :2]) / particles.DT
    if dynamics == "v3":  # Positions have followed the velocity before the thrust.
        velocity = (1 - particles.DAMPING) * velocity + particles.DT * particles.THRUST * particles.thrust_of(
            (done + 1) / 2
        )
    np.testing.assert_allclose(velocity, env_state(states[-1]).vel[1:], atol=1e-5)


@pytest.mark.parametrize("suffix", ["", "-xy"])
def test_memories_turn_with_what_they_are_of(suffix: str) -> None:
    plain, env = (envs.make(f"mpe/deception-2{suffix}{tail}").symmetry for tail in ("", "?history=3"))
    obs, act = plain.obs_index.shape[1], plain.action_index.shape[1]
    parts = np.split(np.arange(3.0 * obs + 2 * act), np.cumsum([obs, obs, act, obs]))
    for g in range(8):
        turned = env.obs_sign[g] * np.concatenate(parts)[env.obs_index[g]]
        of_obs = [plain.obs_sign[g] * parts[i][plain.obs_index[g]] for i in (0, 1, 3)]
        of_act = [plain.action_sign[g] * parts[i][plain.action_index[g]] for i in (2, 4)]
        np.testing.assert_array_equal(turned, np.concatenate([of_obs[0], of_obs[1], of_act[0], of_obs[2], of_act[1]]))


def test_a_name_says_how_much_is_remembered() -> None:
    assert tasks.find("mpe/deception-2?history=1&state=full").name == "mpe/deception-2?state=full"
    assert tasks.find("mpe/deception-2?state=full&history=2").name == "mpe/deception-2?history=2&state=full"
    task, plain = tasks.find("mpe/spread-3?history=4"), tasks.find("mpe/spread-3")
    assert "last 4 observations" in task.protocol
    assert (task.references, task.published) == (plain.references, plain.published)
    for wrong in ("0", "11", "1.5", "all"):
        with pytest.raises(UserError, match="whole number from 1 to 10"):
            tasks.find(f"mpe/spread-3?history={wrong}")
    assert mpe.deception(2, adversary=lambda world, key: jnp.zeros(5), history=2).spec.name.endswith("&history=2")


def test_agents_of_several_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="sizes"):
        stack_frames(envs.make("probe/push"), 2, "probe/push?history=2")


def test_scripts_and_pictures_read_the_env_state() -> None:
    env = envs.make("mpe/deception-2?history=2")
    returns, _ = scripted.scripted_returns(env, scripted.zero(env.spec), jax.random.key(0), 4)
    plain = envs.make("mpe/deception-2")
    without, _ = scripted.scripted_returns(plain, scripted.zero(plain.spec), jax.random.key(0), 4)
    np.testing.assert_array_equal(returns, without)
    states, _, _, outcomes = play(env)
    stacked = jax.tree.map(lambda *rows: np.stack(rows), *states)
    assert len(episode_frames(stacked, [float(o.reward) for o in outcomes], title="")) == STEPS + 1
