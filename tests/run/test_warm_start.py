"""What a run takes over from another one, and what begins anew."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omad.config import resolve
from omad.errors import UserError
from omad.run.folder import RunFolder
from omad.run.warm_start import Learned, find, load, other_units, said

HERE = resolve("probe/push", seeds=2, first_seed=3)


def source(path: Path, learner: Any, returns: Any) -> str:
    """A run of both seeds that has saved once."""
    with contextlib.closing(RunFolder.create(path, HERE, {"omad": "test"})) as run:
        run.save(4, 4 * HERE.n_envs, {"w": np.zeros((2, 1))}, {"learner": learner, "returns": returns})
    return str(path)


def ones(scale: float) -> np.ndarray:
    return np.asarray([[1.0], [2.0]], np.float32) * scale


def test_copies_that_are_not_there_begin_as_what_they_are_copies_of(tmp_path: Path) -> None:
    """Else what is evaluated, or what targets come from, would be a random network for a while."""
    stored = {
        "actors": {"w": ones(1)},
        "critics": {"w": ones(2)},
        "stats": {"m": ones(3)},
        "actor_opt": {"mu": ones(4)},
    }
    at = find(source(tmp_path / "run", stored, None))
    zero = {name: {key: 0 * leaf for key, leaf in part.items()} for name, part in stored.items()}
    fresh = zero | {
        "actors_average": {"w": ones(0)}, "actors_target": {"w": ones(0)},
        "critics_target": ({"w": ones(0)}, {"m": ones(0)}), "else": {"w": ones(0)},
    }  # fmt: skip
    (learner, returns), facts = load(at, Learned(fresh, None), HERE)
    for part in (learner["actors"], learner["actors_average"], learner["actors_target"]):
        np.testing.assert_array_equal(part["w"], ones(1))
    for part in (learner["critics"], learner["critics_target"][0]):
        np.testing.assert_array_equal(part["w"], ones(2))
    np.testing.assert_array_equal(learner["critics_target"][1]["m"], ones(3))
    assert not learner["actor_opt"]["mu"].any() and returns is None
    assert (facts["taken"], facts["left"]) == (7, ["else.w"])
    within = {"inner": stored}, {"inner": fresh}  # where observations have running moments
    (learner, _), facts = load(find(source(tmp_path / "moments", within[0], None)), Learned(within[1], None), HERE)
    assert (facts["taken"], facts["left"]) == (7, ["inner.else.w"])
    np.testing.assert_array_equal(learner["inner"]["actors_average"]["w"], ones(1))
    plain = {"critics_target": {"w": ones(0)}}  # of critics without statistics
    np.testing.assert_array_equal(load(at, Learned(plain, None), HERE)[0].learner["critics_target"]["w"], ones(2))


def test_a_copy_that_is_there_is_taken_itself(tmp_path: Path) -> None:
    at = find(source(tmp_path / "run", {"actors": {"w": ones(1)}, "actors_average": {"w": ones(5)}}, None))
    (learner, _), _ = load(
        at,
        Learned({"actors": {"w": ones(0)}, "actors_average": {"w": ones(0)}}, None),
        dataclasses.replace(HERE, seeds=1, first_seed=4),
    )
    np.testing.assert_array_equal(learner["actors_average"]["w"], [[10.0]])


def test_the_scale_of_rewards_comes_with_the_critics(tmp_path: Path) -> None:
    """They are in its units; the returns of episodes that nobody goes on with do not, nor does a scale alone."""
    returns = {"running": np.ones((2, 3), np.float32), "count": ones(7)[:, 0], "highest": ones(9)[:, 0]}
    at = find(source(tmp_path / "run", {"critics": {"w": ones(1)}}, returns))
    zero = {name: 0 * leaf for name, leaf in returns.items()}
    (_, taken), facts = load(at, Learned({"critics": {"w": ones(0)}}, zero), HERE)
    np.testing.assert_array_equal(taken["count"], [7.0, 14.0])
    np.testing.assert_array_equal(taken["highest"], [9.0, 18.0])
    assert not taken["running"].any() and facts["left"] == []
    _, facts = load(
        find(source(tmp_path / "raw", {"critics": {"w": ones(1)}}, None)),
        Learned({"critics": {"w": ones(0)}}, zero),
        HERE,
    )
    assert facts["left"] == ["returns.count", "returns.highest"]
    with pytest.raises(UserError, match="nothing of"):
        load(at, Learned({"other": {"w": ones(0)}}, zero), HERE)


def test_what_makes_values_mean_something_else() -> None:
    """The bound that rewards are divided by; not the support of critics that have none."""

    def between(algorithm: str, one: dict[str, Any], other: dict[str, Any]) -> list[str]:
        return other_units(resolve("probe/push", algorithm, **one), resolve("probe/push", algorithm, **other))

    normalised: dict[str, Any] = {"reward_norm": "return"}
    assert between("hasac", normalised, normalised | {"reward_bound": 9.0}) == ["reward_bound is 9.0, there 5.0"]
    assert between("hasac", {}, {"reward_bound": 9.0}) == []
    scalar: dict[str, Any] = {"critic_kind": "scalar"}
    assert between("omad", scalar, scalar | {"v_max": 7.0}) == []
    assert between("omad", scalar, {"v_max": 7.0}) == ["v_max is 7.0, there 20.0"]
    assert between("hasac", {"gamma": 0.9}, {"gamma": 0.5}) == ["gamma is 0.5, there 0.9"]


@pytest.mark.parametrize("fields", [{"v_max": 7.0}, {"reward_norm": "return"}])
def test_values_in_other_units_are_not_taken_over(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Not the critics; nor the temperature where one run normalises rewards. It is said, with both values."""
    stored = {"actors": {"w": ones(1)}, "critics": {"w": ones(2)}, "temperature": {"log_alpha": ones(3)}}
    returns = {"count": ones(7)[:, 0]}
    zero = {name: {key: 0 * leaf for key, leaf in part.items()} for name, part in stored.items()}
    fresh = Learned(zero | {"critics_target": {"w": ones(0)}}, {"count": ones(0)[:, 0]})
    config = resolve("probe/push", seeds=2, first_seed=3, **fields)
    (learner, taken), facts = load(find(source(tmp_path / "run", stored, returns)), fresh, config)
    np.testing.assert_array_equal(learner["actors"]["w"], ones(1))
    assert not learner["critics"]["w"].any() and not learner["critics_target"]["w"].any()
    assert learner["temperature"]["log_alpha"].any() == ("reward_norm" not in fields)
    assert taken["count"].any() and facts["left"] == []
    assert facts["anew"] == (["critics", "temperature"] if "reward_norm" in fields else ["critics"])
    assert f"; {' and '.join(facts['anew'])} anew, for values mean something else: " in said(facts) and next(
        iter(fields)
    ) in said(facts)


def test_a_temperature_that_is_fixed_is_the_one_that_was_given(tmp_path: Path) -> None:
    stored = {"actors": {"w": ones(1)}, "temperature": {"log_alpha": ones(3)}}
    zero = {name: {key: 0 * leaf for key, leaf in part.items()} for name, part in stored.items()}
    at = find(source(tmp_path / "run", stored, None))
    assert load(at, Learned(zero, None), HERE)[0].learner["temperature"]["log_alpha"].any()
    fixed = resolve("probe/push", seeds=2, first_seed=3, alpha_mode="fixed")
    (learner, _), facts = load(at, Learned(zero, None), fixed)
    assert not learner["temperature"]["log_alpha"].any() and said(facts).endswith("; temperature anew.")


def test_critics_of_which_a_part_fits_begin_anew(tmp_path: Path) -> None:
    """A trained head and running statistics say nothing on top of layers that are not trained; actors are kept."""
    stored = {"actors": {"w": ones(1)}, "critics": {"w": ones(2), "head": ones(3)}, "stats": {"m": ones(4)}}
    fresh: dict[str, Any] = {"actors": {"w": ones(0)}, "stats": {"m": ones(0)}}
    fresh["critics"] = {"w": np.zeros((2, 5), np.float32), "head": ones(0)}
    (learner, _), facts = load(find(source(tmp_path / "run", stored, None)), Learned(fresh, None), HERE)
    assert learner["actors"]["w"].any() and not learner["critics"]["head"].any() and not learner["stats"]["m"].any()
    assert facts["anew"] == ["critics"] and "critics anew, for not all arrays of critics fit" in said(facts)


def test_networks_that_saw_other_inputs_are_refused(tmp_path: Path) -> None:
    at = find(source(tmp_path / "run", {"actors": {"w": ones(1)}}, None))
    with pytest.raises(UserError, match=r"obs_norm is harl, but none in .*; .* Give --obs-norm none"):
        load(at, Learned({"actors": {"w": ones(0)}}, None), dataclasses.replace(HERE, obs_norm="harl"))
