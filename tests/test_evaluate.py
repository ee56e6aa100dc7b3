"""Evaluation: fixed initial states, every episode's return, exactly one episode each."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float, Int

import omad.episodes
from omad.commands.record import record
from omad.episodes import played
from omad.errors import EnvFailed
from omad.evaluate import Episodes, envs_for, make_evaluate
from omad.keys import Stream, run_key, stream
from omad.types import Algorithm, EnvSpec, JaxEnv, Observation, Outcome

HORIZON, EPISODES = 6, 5


class Walk(eqx.Module):
    """A start that is remembered, and a clock."""

    start: Float[Array, ""]
    time: Int[Array, ""]


def walk(ends_early: bool) -> JaxEnv:
    """Reward: the start plus the first agent's action. If asked to, it terminates after 2 steps where start < 0.

    What it returns beyond that end is NaN.
    """
    spec = EnvSpec("walk", (1, 1), (1, 1), 0, HORIZON, ("tick", "start"))

    def observe(state: Walk) -> Observation:
        return Observation(jnp.full((2, 1), state.start), jnp.zeros((0,)))

    def reset(key: Any) -> tuple[Walk, Observation]:
        state = Walk(jax.random.normal(key), jnp.zeros((), jnp.int32))
        return state, observe(state)

    def step(state: Walk, action: Any, key: Any) -> tuple[Walk, Outcome]:
        del key
        state = Walk(state.start, state.time + 1)
        early = (state.start < 0) & ends_early
        broken = jnp.where(early & (state.time > 2), jnp.nan, 0.0)
        outcome = Outcome(
            observe(dataclasses.replace(state, start=state.start + broken)),
            state.start + action[0, 0] + broken,
            early & (state.time >= 2),
            state.time >= HORIZON,
            {"tick": jnp.ones(()) + broken, "start": state.start + broken},
        )
        return state, outcome

    return JaxEnv(spec, reset, step)


def act(policy: Any, obs: Any, key: Any, explore: bool) -> Any:
    """The policy's number, plus noise if exploring."""
    noise = jax.random.normal(key, obs.shape) if explore else jnp.zeros(obs.shape)
    return policy + noise


def never(*_: Any) -> Any:
    raise AssertionError("evaluation only acts")


ALGORITHM = Algorithm(
    init=never, policy=never, act=act, update=never, gamma=0.9, n_step=1,
)  # fmt: skip


@functools.cache
def compiled(explore: bool, ends_early: bool) -> Any:
    return make_evaluate(ALGORITHM, walk(ends_early), EPISODES, explore)


def run(explore: bool, step: int, seed: int = 3, policies: Any = (0.0, 1.0), ends_early: bool = False) -> Episodes:
    return compiled(explore, ends_early)(jnp.asarray(policies), jnp.asarray(seed), jnp.asarray(step))


def test_every_episode_of_every_policy_is_kept() -> None:
    """Returns, lengths and sums of the env's own numbers, (policies, episodes) each; lengths are the horizon."""
    out = run(False, 0)
    assert out.returns.shape == out.lengths.shape == out.info["tick"].shape == (2, EPISODES)
    np.testing.assert_array_equal(out.lengths, HORIZON)
    np.testing.assert_array_equal(out.info["tick"], HORIZON)
    np.testing.assert_allclose(out.returns[1] - out.returns[0], HORIZON, rtol=1e-5)
    np.testing.assert_allclose(out.returns[0], out.info["start"][0], rtol=1e-5)


def test_initial_states_depend_on_the_evaluation_seed_alone() -> None:
    """Not on the training step, not on the policy; and episodes differ from each other."""
    one, later, other = run(True, 0), run(True, 10_000), run(True, 0, seed=4)
    np.testing.assert_array_equal(one.info["start"], later.info["start"])
    np.testing.assert_array_equal(one.info["start"][0], one.info["start"][1])
    assert len(np.unique(np.asarray(one.info["start"][0]))) == EPISODES
    assert not np.isin(np.asarray(other.info["start"][0]), np.asarray(one.info["start"][0])).any()


def test_noise_free_evaluation_is_deterministic() -> None:
    """The same returns at every step; with exploration the step draws fresh noise, and repeats it if repeated."""
    np.testing.assert_array_equal(run(False, 0).returns, run(False, 77).returns)
    np.testing.assert_array_equal(run(True, 5).returns, run(True, 5).returns)
    assert not np.isclose(run(True, 5).returns, run(True, 6).returns).any()


def test_noise_is_fresh_at_every_time_step_and_in_every_episode() -> None:
    """Six independent unit draws: the return's variance around its start is 6, not 36; no two episodes share them."""
    evaluate = make_evaluate(ALGORITHM, walk(False), 4000, True)
    out = evaluate(jnp.zeros(1), jnp.asarray(0), jnp.asarray(0))
    noise = np.asarray(out.returns[0] - out.info["start"][0], np.float64)
    assert abs(noise.mean()) < 4 * np.sqrt(6 / 4000)
    assert noise.var() == pytest.approx(6.0, abs=4 * 6 * np.sqrt(2 / 4000))


def test_draws_of_the_env_are_fresh_at_every_step_of_training() -> None:
    """Of an env that pays what it draws, whatever the policy: each env step and episode has its own draw."""
    env = walk(False)

    def step(state: Walk, action: Any, key: Any) -> tuple[Walk, Outcome]:
        paid = jax.random.normal(key)
        after, outcome = env.step(state, action, key)
        return after, dataclasses.replace(outcome, reward=paid)

    def drawn(step: int) -> np.ndarray:
        root = stream(run_key(3), Stream.EVAL_ENV, step)
        keys = (jax.random.split(jax.random.fold_in(root, t), EPISODES) for t in range(HORIZON))
        return np.sum([jax.vmap(jax.random.normal)(each) for each in keys], axis=0)

    evaluate = make_evaluate(ALGORITHM, env._replace(step=step), EPISODES, False)
    for when in (5, 6):
        found = evaluate(jnp.zeros(2), jnp.asarray(3), jnp.asarray(when)).returns
        np.testing.assert_allclose(found, np.stack([drawn(when)] * 2), rtol=1e-5, atol=1e-6)
    assert not np.isclose(drawn(5), drawn(6)).any()


def test_nothing_is_counted_after_an_episode_ended() -> None:
    """Episodes that terminate early have their own length and return."""
    out = run(False, 0, ends_early=True)
    start = np.asarray(run(False, 0).info["start"]) / HORIZON
    early = start < 0
    assert early.any() and not early.all()
    np.testing.assert_array_equal(out.lengths, np.where(early, 2, HORIZON))
    np.testing.assert_allclose(out.returns[0], out.lengths[0] * start[0], rtol=1e-5)


def test_what_plays_whole_episodes_looks_at_nothing_after_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Actors see finite numbers only, as exported policies ask; each episode is played once, whatever fits a round."""
    monkeypatch.setattr(omad.episodes, "_AT_ONCE", 2)
    rounds: list[int] = []

    def decide(obs: np.ndarray, _: object) -> np.ndarray:
        assert obs.shape == (2, 2, 1) and np.isfinite(obs).all()
        return obs

    def begin() -> None:
        rounds.append(len(rounds))

    env = walk(True)
    moments = list(played(env, decide, EPISODES, 3, begin))
    assert rounds == [0, 1, 2] == sorted({moment.round for moment in moments})
    assert sum(moment.alive.sum() for moment in moments if moment.round == 2) in (2, HORIZON)  # one, not its double
    found = record(env, decide, EPISODES, 3)
    assert all(np.isfinite(array).all() for array in found.values())
    ends = found["terminated"] | found["truncated"]
    assert ends.sum() == EPISODES and found["terminated"].any() and found["truncated"].any()
    starts = jax.random.split(stream(run_key(3), Stream.EVAL_RESET, 0), EPISODES)
    start = np.asarray(jax.vmap(env.reset)(starts)[1].obs)[:, 0, 0]
    returns = [part.sum() for part in np.split(found["reward"], np.flatnonzero(ends)[:-1] + 1)]
    np.testing.assert_allclose(np.sort(returns), np.sort(np.where(start < 0, 2, HORIZON) * 2 * start), rtol=1e-5)


def test_one_compilation_serves_all_steps_and_seeds() -> None:
    """Step and evaluation seed are traced."""
    traced = []

    def counted(*given: Any) -> Any:
        traced.append(1)
        return act(*given)

    evaluate = make_evaluate(ALGORITHM._replace(act=counted), walk(False), 2, True)
    evaluate(jnp.zeros(2), jnp.asarray(0), jnp.asarray(0))
    once = len(traced)
    for step, seed in ((100, 0), (200, 9)):
        evaluate(jnp.zeros(2), jnp.asarray(seed), jnp.asarray(step))
    assert len(traced) == once


def test_an_episode_beyond_the_declared_horizon_is_refused() -> None:
    """Else evaluations would count its first steps only, and training all of it."""
    env = walk(False)
    longer = env._replace(spec=dataclasses.replace(env.spec, horizon=HORIZON - 1))
    with pytest.raises(EnvFailed, match=rf"declares a horizon of {HORIZON - 1} steps, but an episode goes on"):
        make_evaluate(ALGORITHM, longer, 2, False)(jnp.zeros(1), jnp.asarray(0), jnp.asarray(0))


@pytest.mark.parametrize("episodes", [1, 10, 16, 17, 20, 33, 500])
def test_rounds_of_hosted_envs_are_even(episodes: int):
    size = envs_for(episodes)
    rounds = math.ceil(episodes / size)
    assert 1 <= size <= 16
    assert rounds == math.ceil(episodes / 16)
    assert rounds * size - episodes < rounds  # in the last round fewer are idle than there are rounds
