"""Options of learning for every algorithm: normalised rewards against a slow count, paces and rates, defaults."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from learners import CONFIGS, SMALL, batch_for, small_setup

from omad import algos
from omad.algos.delayed import linear_decay
from omad.config import resolve
from omad.envs import probe
from omad.errors import UserError
from omad.reward_norm import ReturnStats

GAMMA, ENVS = 0.9, 3


def discounted(reward: np.ndarray, over: np.ndarray) -> np.ndarray:
    """Every G of every env."""
    seen = []
    for r, o in zip(reward.T, over.T, strict=True):
        g = 0.0
        for one, ends in zip(r, o, strict=True):
            g = GAMMA * g + one
            seen.append(g)
            g = 0.0 if ends else g
    return np.asarray(seen)


def slow(reward: np.ndarray, over: np.ndarray, bound: float) -> float:
    """max(std, max |G| / bound) over all of them."""
    seen = discounted(reward, over)
    return max(float(np.std(seen)), float(np.abs(seen).max()) / bound)


@pytest.mark.parametrize(("shift", "bound"), [(0.0, 5.0), (4.0, 1.0), (-300.0, 5.0)])
def test_scale_is_that_of_all_returns_so_far(shift: float, bound: float) -> None:
    """Where the deviation decides, and where the largest return does; episodes begin anew."""
    rng = np.random.default_rng(0)
    reward, over = rng.normal(shift, 2.0, (60, ENVS)), rng.uniform(size=(60, ENVS)) < 0.1
    seen = jax.jit(ReturnStats.seen)
    stats = ReturnStats.none(ENVS, GAMMA, bound)
    assert float(stats.scale()) == pytest.approx(1.0)
    for row, (r, o) in enumerate(zip(reward, over, strict=True), 1):
        stats = seen(stats, jnp.asarray(r, jnp.float32), jnp.asarray(o))
        if row in (1, 7, 60):
            assert float(stats.scale()) == pytest.approx(slow(reward[:row], over[:row], bound), rel=1e-4)
    batch = batch_for(probe.push().spec)
    out = stats.normalised(batch)
    np.testing.assert_allclose(out.ret, np.asarray(batch.ret) / slow(reward, over, bound), rtol=1e-4)
    assert out.discount is batch.discount and out.obs is batch.obs


def test_episodes_from_elsewhere_count_as_if_they_had_come_first() -> None:
    """Then as ever; with a scale of their own they would be divided by next to nothing until something is gained."""
    rng = np.random.default_rng(1)
    reward, over = rng.normal(3.0, 2.0, (60, 1)), rng.uniform(size=(60, 1)) < 0.1
    over[39] = True
    none = ReturnStats.none(1, GAMMA, 5.0)
    stats = none.after(reward[:40, 0], over[:40, 0])
    assert float(stats.scale()) == pytest.approx(slow(reward[:40], over[:40], 5.0), rel=1e-4)
    for r, o in zip(reward[40:], over[40:], strict=True):
        stats = stats.seen(jnp.asarray(r, jnp.float32), jnp.asarray(o))
    assert float(stats.scale()) == pytest.approx(slow(reward, over, 5.0), rel=1e-4)


def test_two_samples_of_returns_merge_into_one() -> None:
    """Of unlike sizes, means and spreads: all four numbers, and the scale, are those of both samples together."""
    rng = np.random.default_rng(2)
    reward, over = rng.normal(1.0, 2.0, (30, ENVS)), rng.uniform(size=(30, ENVS)) < 0.1
    theirs, ends = rng.normal(-3.0, 0.5, 200), rng.uniform(size=200) < 0.05
    none = ReturnStats.none(ENVS, GAMMA, 50.0)
    ours, other = none, none.after(theirs, ends)
    for r, o in zip(reward, over, strict=True):
        ours = ours.seen(jnp.asarray(r, jnp.float32), jnp.asarray(o))
    both = np.concatenate([discounted(reward, over), discounted(theirs[:, None], ends[:, None])])
    merged = ours.merged(other)
    found = [float(x) for x in (merged.count, merged.mean, merged.variance, merged.highest, merged.scale())]
    assert found == pytest.approx([290, both.mean(), both.var(), np.abs(both).max(), both.std()], rel=1e-4)
    np.testing.assert_array_equal(merged.running, ours.running)


@pytest.mark.parametrize("given", ["state", "obs"])
def test_what_independent_critics_cannot_read_is_refused(given: str) -> None:
    with pytest.raises(UserError, match=f"critic_input is '{given}'.*'independent' each critic reads its own agent's"):
        resolve("mpe/spread-3", critic_scope="independent", critic_input=given)


def test_a_row_that_was_not_there_changes_nothing() -> None:
    """The first call of a hosted chunk keeps nothing."""
    before = ReturnStats.none(ENVS, GAMMA, 5.0)
    after = before.seen(jnp.full(ENVS, 7.0), jnp.zeros(ENVS, bool))
    for real, expected in ((True, after), (False, before)):
        kept = after.where(jnp.asarray(real), before)
        assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(expected), strict=True))


def test_the_support_follows_the_bound_unless_it_is_given() -> None:
    """In units of normalised rewards; without them it is the task's."""
    task = "mamujoco-full/halfcheetah-2x3"
    assert resolve(task, preset="matched").algo.v_max == 2000.0
    assert resolve(task, reward_norm="return").algo.v_max == 5.0
    assert resolve(task, reward_norm="return", reward_bound=7.0).algo.v_max == 7.0
    assert resolve(task, reward_norm="return", v_max=9.0).algo.v_max == 9.0
    for name, wrong in (("reward_bound", 0.0), ("noise_hold", 0.5), ("noise_hold", 17.0)):
        with pytest.raises(UserError, match=name):
            resolve(task, "omad", "cpu", **{name: wrong})


def test_options_are_off_by_default() -> None:
    """In every preset that was there before them; so those runs are what they were."""
    for preset in ("cpu", "paper", "matched"):
        for name in algos.REGISTRY:
            config = resolve("mpe/spread-3", name, preset)
            assert (config.reward_norm, config.noise_hold) == ("none", 1.0)
            algo = {"critic_net": "renorm", "alpha_pace": "gradient", "critic_blocks": 0, "critic_decay_steps": 0}
            algo["chain_kernel"] = "euler"
            for field, value in algo.items():
                assert getattr(config.algo, field, value) == value, (preset, name, field)


def test_blocks_belong_to_one_kind_of_critic() -> None:
    with pytest.raises(UserError, match=r"critic_blocks is 1.*xqc"):
        dataclasses.replace(SMALL, critic_blocks=1)


@pytest.mark.parametrize("name", ["omad", "hasac", "madpmd", "masdac"])
def test_pace_of_the_temperature_over_env_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four gradient steps an env step move it a quarter as far each; by gradient steps, they change nothing."""
    made: list[Any] = []
    make = importlib.import_module(f"omad.algos.{name}").make
    monkeypatch.setattr(f"omad.algos.{name}.make", lambda config, spec: made.append(config) or make(config, spec))
    config = algos.config_class(name)(alpha_lr=8e-3)
    for pace, rate in (("gradient", 8e-3), ("env", 2e-3)):
        algos.make(dataclasses.replace(config, alpha_pace=pace), probe.push().spec, updates_per_env_step=4.0)
        assert made[-1].alpha_lr == pytest.approx(rate)


def test_rates_fall_to_a_tenth() -> None:
    """Linearly over gradient steps, whatever the optimiser's own cadence; or not at all."""
    assert linear_decay(1e-3, 0) == 1e-3
    rate: Any = linear_decay(1e-3, 300, 3)
    for step, expected in ((0, 1e-3), (50, 0.55e-3), (100, 1e-4), (500, 1e-4)):
        assert float(rate(step)) == pytest.approx(expected)


def after_steps(opt: Any, steps: int) -> Any:
    """The optimiser's state, with a rate as after so many of its steps; what Adam has gathered stays as it is."""
    is_rate = lambda node: isinstance(node, optax.ScaleByScheduleState)  # noqa: E731
    moved = lambda node: node._replace(count=jnp.full_like(node.count, steps)) if is_rate(node) else node  # noqa: E731
    return jax.tree.map(moved, opt, is_leaf=is_rate)


@pytest.mark.parametrize("name", CONFIGS)
def test_rates_fall_in_every_algorithm(name: str) -> None:
    """To a tenth in 30 gradient steps, 10 of them with a step of the actors; halfway to 0.55 of what they were."""
    setup = small_setup(name)
    before = setup.learner
    for share, done in ((0.55, 15), (0.1, 30)):
        opts = {
            "critic_opt": after_steps(before.critic_opt, done),
            "actor_opt": after_steps(before.actor_opt, done // 3),
        }
        learner = dataclasses.replace(before, **opts)
        after, _ = setup.update(learner, setup.batch, setup.key, jnp.asarray(setup.due))
        for part, rate in (("critics", setup.config.critic_lr), ("actors", setup.config.actor_lr)):
            moved = jax.tree.map(lambda new, old: jnp.abs(new - old).max(), getattr(after, part), getattr(before, part))
            assert max(map(float, jax.tree.leaves(moved))) == pytest.approx(share * rate, rel=2e-2), (part, done)
