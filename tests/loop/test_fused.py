"""The fused loop, mostly with an algorithm and an env so small that what they did can be counted."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jaxtyping import Array, Float, Int

from omad import buffer
from omad.algos.omad import OmadConfig
from omad.algos.omad import make as make_omad
from omad.envs import probe
from omad.keys import Stream, held, run_key, stream
from omad.loop import fused
from omad.loop.fused import Carry, Fused, LoopConfig
from omad.types import Algorithm, Batch, EnvSpec, JaxEnv, Mean, Observation, Outcome

HORIZON, ENVS, WARM, UPDATES = 4, 3, 5, 2
LOOP = LoopConfig(n_envs=ENVS, updates_per_step=UPDATES, batch_size=4, buffer_rows=64, warmup_vector_steps=WARM)
SEEDS = jnp.asarray([11, 5])
KEPT = 16
"""Transitions of a batch that is looked at."""

DELAYED_STEPS: list[int] = []
"""Counts at which the delayed branch really ran, one entry a seed."""


class Ticks(eqx.Module):
    """What a reset drew, and the steps since."""

    start: Float[Array, ""]
    time: Int[Array, ""]


def clock() -> JaxEnv:
    """Shows (draw of the reset, time); reward is the draw plus 10 x time; truncated after four steps."""
    spec = EnvSpec("clock", (2, 2), (1, 2), 1, HORIZON, info_keys=("ticks",))

    def observe(state: Ticks) -> Observation:
        row = jnp.stack([state.start, state.time.astype(float)])
        return Observation(jnp.stack([row, -row]), state.start[None])

    def reset(key: Any) -> tuple[Ticks, Observation]:
        state = Ticks(jax.random.uniform(key), jnp.zeros((), jnp.int32))
        return state, observe(state)

    def step(state: Ticks, action: Any, key: Any) -> tuple[Ticks, Outcome]:
        del action, key
        after = Ticks(state.start, state.time + 1)
        no = jnp.zeros((), bool)
        info = {"ticks": after.time.astype(float)}
        return after, Outcome(observe(after), state.start + 10.0 * state.time, no, after.time >= HORIZON, info)

    return JaxEnv(spec, reset, step)


def counting(delay: int = 3) -> Algorithm:
    """Acts with noise around a learned number; every `delay`-th update runs a branch that leaves a trace."""
    mask = clock().spec.act_mask

    def init(key: Any) -> Any:
        w = jax.random.normal(key)
        return {"w": w, "copy": w, "steps": jnp.zeros((), jnp.int32)}

    def act(policy: Any, obs: Any, key: Any, explore: bool) -> Any:
        del explore
        return jnp.tanh(policy + 0.1 * jax.random.normal(key, (*obs.shape[:-1], 2))) * mask

    def update(learner: Any, batch: Any, key: Any, count: Any) -> Any:
        noise = jax.random.normal(key)
        w = learner["w"] + 0.01 * (batch.ret.mean() + batch.obs.mean() + noise)

        def delayed(steps: Any) -> Any:
            jax.debug.callback(lambda c, _: DELAYED_STEPS.append(int(c)), count, learner["w"])
            return steps + 1

        steps = jax.lax.cond(count % delay == 0, delayed, lambda steps: steps, learner["steps"])
        return {"w": w, "copy": learner["copy"], "steps": steps}, {"toy/count": Mean.of(count)}

    return Algorithm(init=init, policy=lambda learner: learner["w"], act=act, update=update, gamma=0.9, n_step=1)


@pytest.fixture(scope="module", params=[True, False], ids=["batch", "in-turn"])
def loop(request: pytest.FixtureRequest) -> Fused:
    """The toy loop, seeds as a batch and one after the other; compiled on first use."""
    return fused.make(counting(), clock(), LOOP, batch_seeds=request.param)


def run(loop: Fused, seeds: Any, cuts: tuple[int, ...], warm_cuts: tuple[int, ...] = (WARM,)) -> Carry:
    """Warm-up, then learning, each in chunks of the given lengths."""
    carry, at = loop.init(seeds), 0
    for length in warm_cuts:
        carry, at = loop.warm(carry, seeds, jnp.asarray(at), jnp.asarray(length)), at + length
    for length in cuts:
        carry, at = loop.chunk(carry, seeds, jnp.asarray(at), jnp.asarray(length)), at + length
    return carry


@pytest.fixture(scope="module")
def done(loop: Fused) -> Carry:
    """Nine learning steps in one chunk."""
    return run(loop, SEEDS, (9,))


def test_result_does_not_depend_on_how_a_run_is_cut(loop: Fused, done: Carry) -> None:
    """Bit for bit, learner, ring, env states, metrics; also when the warm-up is cut."""
    assert eqx.tree_equal(run(loop, SEEDS, (2, 1, 5, 1), (1, 3, 1)), done)


def test_a_seed_is_the_same_alone_and_among_others(loop: Fused, done: Carry) -> None:
    """Runs of a stack are the runs of its seeds; and seeds differ."""
    for i, seed in enumerate(SEEDS):
        alone = run(loop, seed[None], (9,))
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(done), strict=True):
            np.testing.assert_allclose(a[0], b[i], rtol=1e-5, atol=1e-6)
    assert not np.isclose(done.learner["w"][0], done.learner["w"][1])
    assert not np.isclose(done.ring.state[0], done.ring.state[1]).all(axis=(0, 2)).any()


def test_one_compilation_serves_every_length_of_a_chunk() -> None:
    """Start and length are traced: one program for learning, one for warm-up."""
    own = fused.make(counting(), clock(), LOOP, batch_seeds=False)
    run(own, SEEDS, (1, 4, 2, 7), (1, 4))
    assert own.chunk._program._cache_size() == 1
    assert own.warm._program._cache_size() == 1


def test_updates_are_counted_from_one_and_the_delayed_branch_is_skipped(loop: Fused) -> None:
    """9 steps x 2 updates: counts 1..18, and the delayed branch ran at 3, 6, .., 18 for each seed, not more."""
    jax.effects_barrier()
    DELAYED_STEPS.clear()
    carry = run(loop, SEEDS, (4, 5))
    jax.effects_barrier()
    assert sorted(DELAYED_STEPS) == sorted([3, 6, 9, 12, 15, 18] * 2)
    assert np.asarray(carry.learner["steps"]).tolist() == [6, 6]
    np.testing.assert_array_equal(carry.sums["toy/count"].weight, 18)
    np.testing.assert_array_equal(carry.sums["toy/count"].total, 18 * 19 / 2)


def test_warm_up_acts_uniformly_over_the_whole_box_and_learns_nothing(loop: Fused) -> None:
    """Mean near 0 and variance near 1/3 within 4 standard errors, both ends reached, padding 0, learner untouched."""
    before = loop.init(SEEDS)
    carry = run(loop, SEEDS, (), (60,))
    action = np.asarray(carry.ring.action)[:, :60]
    assert not action[:, :, :, 0, 1].any()
    for agent, dim in ((0, 0), (1, 0), (1, 1)):
        a = action[..., agent, dim].ravel()
        assert abs(a.mean()) < 4 / np.sqrt(3 * a.size)
        assert a.var() == pytest.approx(1 / 3, abs=4 * np.sqrt(4 / 45 / a.size))
        assert a.min() < -0.95 and a.max() > 0.95 and np.abs(a).max() <= 1
        assert len(np.unique(a)) > 0.99 * a.size
    assert eqx.tree_equal(carry.learner, before.learner)
    assert not np.asarray(carry.sums["toy/count"].weight).any()


def test_stored_successors_are_true_ones_and_never_resets(loop: Fused) -> None:
    """At a truncation the successor shows time 4 of the same episode; the next row starts a fresh one at time 0."""
    ring = jax.tree.map(lambda x: np.asarray(x)[:, :14], run(loop, SEEDS, (9,)).ring)
    start, time = ring.obs[..., 0, 0], ring.obs[..., 0, 1]
    np.testing.assert_array_equal(time, np.arange(14)[None, :, None] % HORIZON * np.ones((2, 14, ENVS)))
    np.testing.assert_array_equal(ring.truncated, time == HORIZON - 1)
    assert not ring.terminated.any()
    np.testing.assert_array_equal(ring.next_obs[..., 0, 1], time + 1)
    np.testing.assert_array_equal(ring.next_obs[..., 0, 0], start)
    np.testing.assert_array_equal(ring.next_state[..., 0], start)
    np.testing.assert_allclose(ring.reward, start + 10 * time, rtol=1e-6)
    same = start[:, 1:] == start[:, :-1]
    np.testing.assert_array_equal(same, ~ring.truncated[:, :-1])
    assert len(np.unique(start[:, ::HORIZON])) == start[:, ::HORIZON].size


def test_training_returns_are_those_of_finished_episodes(done: Carry) -> None:
    """14 steps: three whole episodes an env; the running fourth is kept apart."""
    ring = jax.tree.map(lambda x: np.asarray(x)[:, :14], done.ring)
    np.testing.assert_array_equal(done.sums[fused.RETURN].weight, 3 * ENVS)
    np.testing.assert_allclose(done.sums[fused.RETURN].total, ring.reward[:, :12].sum((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(done.episode[fused.RETURN], ring.reward[:, 12:].sum(1), rtol=1e-5)


def test_numbers_of_the_env_are_summed_over_episodes(done: Carry) -> None:
    """1 + 2 + 3 + 4 for each episode that ended; the running ones are two steps old."""
    np.testing.assert_array_equal(done.sums["train/ticks"].total, 10.0 * 3 * ENVS)
    np.testing.assert_array_equal(done.sums["train/ticks"].weight, 3 * ENVS)
    np.testing.assert_array_equal(done.episode["train/ticks"], 1.0 + 2.0)


def test_learned_actions_come_from_the_policy_with_fresh_noise(done: Carry) -> None:
    """No action is repeated, neither over time nor over envs."""
    action = np.asarray(done.ring.action)[:, WARM:14, :, 1, 0]
    assert len(np.unique(action)) == action.size


def test_transitions_come_from_the_behaviour_policy() -> None:
    """What leaves training may be another one."""
    algorithm, spec = counting(), clock().spec
    learner, obs = algorithm.init(jax.random.key(0)), jnp.zeros((4, spec.n_agents, spec.obs_dim))

    def chosen(algorithm: Algorithm) -> Any:
        return fused.choose_actions(algorithm, spec, learner, obs, jax.random.key(1), jnp.int32(9), True)

    apart = algorithm._replace(policy=lambda learner: learner["w"] + 5.0, behaviour=algorithm.policy)
    np.testing.assert_array_equal(chosen(apart), chosen(algorithm))
    assert not np.array_equal(chosen(apart), chosen(apart._replace(behaviour=None)))


@pytest.mark.parametrize("step", [20, 27])
def test_noise_that_is_held_is_that_of_an_earlier_step(step: int) -> None:
    """Of the step that `held` names, on the observations of now."""
    algorithm, spec, root = counting(), clock().spec, run_key(3)
    learner, obs = algorithm.init(jax.random.key(0)), jnp.ones((4, spec.n_agents, spec.obs_dim))

    def chosen(step: int, hold: float, first: int = WARM, learn: bool = True) -> Any:
        return fused.choose_actions(algorithm, spec, learner, obs, root, jnp.int32(step), learn, hold, first)

    earlier = int(held(root, jnp.int32(step), 5.0, WARM))
    assert WARM < earlier < step
    np.testing.assert_array_equal(chosen(step, 5.0), chosen(earlier, 1.0))
    assert not np.isclose(chosen(step, 5.0), chosen(step, 1.0))[:, 0, 0].any()
    np.testing.assert_array_equal(chosen(step, 5.0, step), chosen(step, 1.0))
    np.testing.assert_array_equal(chosen(step, 5.0, learn=False), chosen(step, 1.0, learn=False))


def keeping() -> Algorithm:
    """Its learner is the last batch that it was given; it acts by noise alone."""
    spec = clock().spec

    def init(key: Any) -> Batch:
        del key
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), buffer.batch_shapes(spec, KEPT))

    def act(policy: Any, obs: Any, key: Any, explore: bool) -> Any:
        del policy, explore
        return jax.random.uniform(key, (*obs.shape[:-1], spec.act_dim), minval=-1.0) * spec.act_mask

    return Algorithm(
        init=init, policy=lambda learner: learner.ret, act=act, gamma=0.7, n_step=3,
        update=lambda learner, batch, key, count: (batch, {"toy/count": Mean.of(count)}),
    )  # fmt: skip


@pytest.fixture(scope="module", params=[{}, {"reward_norm": "return", "noise_hold": 3.0}], ids=["plain", "levers"])
def kept(request: pytest.FixtureRequest) -> tuple[LoopConfig, Carry, Carry]:
    """The carries before and after the eighth learning step."""
    config = dataclasses.replace(LOOP, batch_size=KEPT, **request.param)
    loop = fused.make(keeping(), clock(), config, batch_seeds=True)
    carry = run(loop, SEEDS, (7,))
    before = jax.tree.map(np.array, carry)
    after = loop.chunk(carry, SEEDS, jnp.asarray(WARM + 7), jnp.asarray(1))
    return config, before, jax.tree.map(np.array, after)


def test_batches_are_what_the_algorithm_asks_for(kept: tuple[LoopConfig, Carry, Carry]) -> None:
    """The last one against a sample of the ring as it was then, with rewards divided by the scale of that moment."""
    config, before, after = kept
    count, row = 8 * UPDATES, jnp.int32(WARM + 7)
    for i, seed in enumerate(SEEDS):
        ring = jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), before.ring)
        drawn = buffer.sample(ring, row, stream(run_key(seed), Stream.SAMPLE, count), KEPT, 0.7, 3)
        assert len(np.unique(np.round(np.asarray(drawn.discount), 5))) > 1, "some sums end with their episodes"
        scale = 1.0
        if config.reward_norm == "return":
            assert before.returns is not None
            scale = float(jax.tree.map(lambda leaf, i=i: jnp.asarray(leaf[i]), before.returns).scale())
            assert scale > 2.0
        expected = dataclasses.replace(drawn, ret=drawn.ret / scale)
        given = jax.tree.map(lambda leaf, i=i: leaf[i], after.learner)
        for name in Batch.__dataclass_fields__:
            np.testing.assert_allclose(getattr(given, name), getattr(expected, name), rtol=1e-5, err_msg=name)


def test_a_loop_holds_noise_for_as_long_as_it_was_told(kept: tuple[LoopConfig, Carry, Carry]) -> None:
    """Actions that are noise alone repeat exactly while it is held."""
    config, _, after = kept
    for i, seed in enumerate(SEEDS):
        steps = jnp.arange(WARM, WARM + 8)
        named = [int(held(run_key(seed), step, config.noise_hold, WARM)) for step in steps]
        actions = np.asarray(after.ring.action)[i, WARM : WARM + 8]
        same = (actions[:, None] == actions[None]).all((2, 3, 4))
        np.testing.assert_array_equal(same, np.equal.outer(named, named))
        assert (len(set(named)) < 8) == (config.noise_hold > 1)


def test_given_carry_is_donated(loop: Fused) -> None:
    """Its memory is used again, so that the ring exists once; reading it afterwards is an error."""
    carry = run(loop, SEEDS, (1,))
    loop.chunk(carry, SEEDS, jnp.asarray(6), jnp.asarray(1))
    assert carry.ring.obs.is_deleted() and carry.learner["w"].is_deleted()
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(carry.ring.obs)


def test_health_is_told_seed_by_seed(loop: Fused) -> None:
    """A number that is not finite in learner or metrics."""
    carry = loop.init(SEEDS)
    assert np.asarray(loop.healthy(carry)).tolist() == [True, True]
    sick = eqx.tree_at(lambda c: c.learner["w"], carry, jnp.asarray([0.0, jnp.nan], jnp.float32))
    assert np.asarray(loop.healthy(sick)).tolist() == [True, False]


# ---------------------------------------------------------------- with OMAD


@pytest.fixture(scope="module")
def omad_loop() -> Fused:
    """OMAD on the probe with unequal agents, small; target networks start as the critics themselves."""
    config = OmadConfig(
        denoising_steps=2, actor_width=8, actor_layers=1, time_frequencies=2, time_width=4, critic_width=8,
        critic_layers=1, atoms=7, v_max=5.0, renorm_warmup=6, target_network=True,
    )  # fmt: skip
    env = probe.push()
    return fused.make(make_omad(config, env.spec), env, LOOP, batch_seeds=True)


def test_omad_runs_alike_in_any_cut_and_in_any_company(omad_loop: Fused) -> None:
    """One chunk and four are bit-identical; a seed's neighbour in the stack does not matter; all is finite."""
    whole = run(omad_loop, SEEDS, (6,))
    assert eqx.tree_equal(run(omad_loop, SEEDS, (1, 2, 2, 1)), whole)
    assert omad_loop.chunk._program(len(SEEDS))._cache_size() == 1
    assert np.asarray(omad_loop.healthy(whole)).all()
    np.testing.assert_array_equal(whole.sums["policy/loss"].weight, 4)  # 12 updates, every third
    np.testing.assert_array_equal(whole.sums["critic/loss"].weight, 12)
    elsewhere = run(omad_loop, jnp.asarray([int(SEEDS[1]), 99]), (6,))
    for a, b in zip(jax.tree.leaves(elsewhere), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a[0], b[1], rtol=1e-5, atol=1e-6)
    assert omad_loop.chunk._program(len(SEEDS))._cache_size() == 1


def test_omad_keeps_a_real_branch_for_its_delayed_update(omad_loop: Fused) -> None:
    """Under the vmap over seeds the actor update is a conditional, not a selection after computing both."""
    carry = jax.eval_shape(omad_loop.init, SEEDS)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    traced = omad_loop.chunk._program(len(SEEDS)).trace(carry, SEEDS, number, number, omad_loop.chunk._given)

    def branches(jaxpr: Any) -> list[Any]:
        found = []
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "cond":
                found.append(eqn)
            for inner in jaxprs_in_params(eqn.params):
                found += branches(inner)
        return found

    def products(jaxpr: Any) -> int:
        inner = sum(products(j) for eqn in jaxpr.eqns for j in jaxprs_in_params(eqn.params))
        return inner + sum(eqn.primitive.name == "dot_general" for eqn in jaxpr.eqns)

    delayed = [
        sorted(products(branch.jaxpr) for branch in eqn.params["branches"]) for eqn in branches(traced.jaxpr.jaxpr)
    ]
    assert any(counts[0] == 0 and counts[1] > 10 for counts in delayed), delayed
