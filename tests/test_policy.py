"""A trained policy takes and gives what users hold: dicts by name, lists, stacked arrays, one agent alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad.envs.host_env import scale
from omad.errors import UserError
from omad.export.bundle import Facts
from omad.export.team import Trained
from omad.policy import TrainedPolicy
from omad.spec import EnvSpec

SPEC = EnvSpec(
    "two", (3, 2), (1, 2), 0, 5, agents=("rover", "drone"),
    act_low=((0.1,), (-2.0, 0.0)), act_high=((0.7,), (2.0, 3.0)),
)  # fmt: skip
FACTS = Facts(task="two", protocol="", algorithm="omad", seed=0, env_steps=0, evaluation={}, run="r", commit=None)
RNG = np.random.default_rng(0)
OBS = {"rover": RNG.standard_normal((4, 3)), "drone": RNG.standard_normal((4, 2))}
STACKED = np.stack([OBS["rover"], np.pad(OBS["drone"], ((0, 0), (0, 1)))], axis=1)


def act(policy: Any, obs: Any, key: Any, explore: bool) -> Any:
    """An agent's action hangs on its own observation, the place of its row and the noise."""
    mean = jnp.einsum("...ao,aoc->...ac", obs, policy)
    noise = jax.random.normal(key, mean.shape) if explore else 0.0
    return jnp.tanh(mean + noise) * SPEC.act_mask


def policy_of(spec: EnvSpec = SPEC) -> TrainedPolicy:
    weights = jnp.asarray(np.random.default_rng(1).standard_normal((2, 3, 2)), jnp.float32)
    return TrainedPolicy(Trained(act, weights, spec, None, "none", FACTS))


POLICY = policy_of()


@pytest.mark.parametrize("seed", [None, 3])
def test_all_forms_agree(seed: int | None):
    """In [-1, 1] or in the env's units, together or alone, by seed or by key."""
    stacked = np.asarray(POLICY.act(STACKED, seed))
    rows = POLICY.act(list(OBS.values()), seed)
    named = POLICY.act(OBS, seed)
    assert list(named) == ["rover", "drone"] and [row.shape for row in rows] == [(4, 1), (4, 2)]
    for i, (name, size) in enumerate(zip(SPEC.agents, SPEC.act_dims, strict=True)):
        np.testing.assert_array_equal(rows[i], stacked[:, i, :size])
        due = scale(rows[i].astype(float), np.asarray(SPEC.act_low[i]), np.asarray(SPEC.act_high[i]))
        np.testing.assert_allclose(named[name], due, rtol=1e-6)
        np.testing.assert_array_equal(POLICY.act({name: OBS[name]}, seed)[name], named[name])
        for agent in (name, i):
            np.testing.assert_array_equal(POLICY.agent(agent).act(OBS[name], seed=seed), named[name])
    if seed is not None:
        np.testing.assert_array_equal(POLICY.act(STACKED, jax.random.key(seed)), stacked)
        assert not np.array_equal(POLICY.act(STACKED), stacked)


def test_one_moment_needs_no_batch_axis():
    one = POLICY.act({name: row[0] for name, row in OBS.items()})
    assert {name: action.shape for name, action in one.items()} == {"rover": (1,), "drone": (2,)}
    np.testing.assert_allclose(one["drone"], POLICY.act(OBS)["drone"][0], rtol=1e-6)


def test_actions_never_pass_the_bounds():
    """Also where float32 has no number that is equal to a bound."""
    for value in (-100.0, 100.0):
        action = POLICY.act({"rover": np.full(3, value)})["rover"].astype(float)
        assert np.all((action >= 0.1) & (action <= 0.7))


def test_a_policy_may_act_inside_a_compiled_function():
    np.testing.assert_allclose(jax.jit(POLICY.act)(STACKED.astype(np.float32)), POLICY.act(STACKED), rtol=1e-6)


@pytest.mark.parametrize(
    ("obs", "said"),
    [
        ({"rovr": OBS["rover"]}, "no agent 'rovr'; nearest: rover; allowed: rover, drone"),
        ({0: OBS["rover"]}, "no agent 0"),
        ({}, "at least one agent"),
        ({"rover": np.zeros(2)}, r"shape \(2,\) was given for agent rover; two needs \(..., 3\)"),
        ({"rover": np.zeros((4, 3)), "drone": np.zeros((5, 2))}, r"shape \(5, 2\) was given for agent drone"),
        ({"rover": np.float32(1)}, r"shape \(\) was given"),
        ({"rover": "north"}, "must be an array of numbers"),
        ({"rover": [0.0, float("nan"), 0.0]}, "not finite"),
        ([np.zeros(3), np.array([1e300, 0.0])], "not finite"),
        ([np.zeros(3)], "two needs"),
        ([np.zeros(3), [[0.0], [0.0, 1.0]]], "must be an array of numbers"),
        (np.full((2, 3), np.inf), "not finite"),
        (np.zeros((3, 2)), r"shape \(3, 2\) were given"),
        (None, "shape|numbers|finite"),
    ],
)
def test_what_does_not_fit_gets_one_sentence(obs: Any, said: str):
    with pytest.raises(UserError, match=said) as error:
        POLICY.act(obs)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", [-1, 2**32, True])
def test_seeds_are_whole_numbers_or_keys(seed: int):
    with pytest.raises(UserError, match="whole number from 0 to"):
        POLICY.act(STACKED, seed)


def test_agents_without_names_are_called_by_number():
    nameless = policy_of(dataclasses.replace(SPEC, agents=()))
    with pytest.raises(UserError, match="has no names for its agents; give one stacked array, a list, or a number"):
        nameless.act(OBS)
    np.testing.assert_array_equal(nameless.agent(1).act(OBS["drone"]), POLICY.agent("drone").act(OBS["drone"]))
    for wrong in (2, -1, True):
        with pytest.raises(UserError, match="agents 0 to 1"):
            nameless.agent(wrong)
