"""Options of learning for every algorithm: normalised rewards against a slow count, paces and rates, defaults."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners import SMALL, batch_for

from omad import algos
from omad.algos.delayed import linear_decay
from omad.config import resolve
from omad.envs import probe
from omad.errors import UserError
from omad.reward_norm import ReturnStats

GAMMA, ENVS = 0.9, 3


def slow(reward: np.ndarray, over: np.ndarray, bound: float) -> float:
    """max(std, max |G| / bound) over every G of every env."""
    seen = []
    for r, o in zip(reward.T, over.T, strict=True):
        g = 0.0
        for one, ends in zip(r, o, strict=True):
            g = GAMMA * g + one
            seen.append(g)
            g = 0.0 if ends else g
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
