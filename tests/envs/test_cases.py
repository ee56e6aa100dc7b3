"""A user's env is checked, not believed: its faults are named before training, and its code runs apart."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omad import envs, tasks
from omad.commands.check import _sentences, inspect
from omad.envs.pool import Pool
from omad.errors import EnvFailed, UserError
from omad.trust import refuse_foreign

HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


def odd(kind: str = "", more: str = "") -> str:
    return f"pettingzoo:odd_cases:Odd?kind={kind}{more}"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("length fails", r"asking how long an episode is failed with RuntimeError: no length \(odd_cases.py, line"),
        ("unwrapped fails", r"looking at the env failed with RuntimeError: nothing inside \(odd_cases.py, line"),
        ("short", r"reset\(\) shows agent left 1 number; its space has 3"),
        ("long", r"reset\(\) shows agent left 5 numbers; its space has 3"),
        ("old reset", r"reset\(\) returned a dict of 2; reset\(\) must return two dicts"),
        ("late agents", "no possible_agents before its first reset"),
        ("exits", r"tried to end the process with sys.exit\(0\) \(odd_cases.py, line"),
        ("state fails", r"state\(\) failed with AttributeError.*absent"),
    ],
)
def test_what_cannot_be_used_is_refused_when_the_env_is_asked(kind: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        envs.make(odd(kind))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        pytest.param(
            "vector reward", r"the reward an array of shape \(3,\); it must be one number", marks=pytest.mark.slow
        ),
        ("team key", "rewards for 'team', which is no agent; the agents are left, right"),
        pytest.param("four values", r"step\(\) returned a dict of 2, .*must return five dicts", marks=pytest.mark.slow),
        ("huge", "not finite in single precision"),
        pytest.param("nan", "not finite in single precision", marks=pytest.mark.slow),
        pytest.param("state grows", r"state\(\) returned 2 numbers, not 1 as at first", marks=pytest.mark.slow),
        pytest.param("no words", r"NoWords \(odd_cases.py, line", marks=pytest.mark.slow),
        ("raises", r"FileNotFoundError.*maps/a.xml.*odd_cases.py, line"),
    ],
)
def test_check_env_is_not_softer_than_training(kind: str, said: str) -> None:
    """Both name the same fault; a worker is what training steps."""
    if kind == "nan":  # is seen at the first reset, by whoever asks
        assert "not finite" in inspect(odd(kind), 20)["problems"][0]
    else:
        found = inspect(odd(kind), 20)
        problems, first = found["problems"], _sentences(found)[0]
        assert len(problems) == 1
        assert re.search(said, problems[0]), problems
        assert first == problems[0] and found["reward_mean"] is found["deterministic"] is None
        assert [note for note in found["notes"] if "episode" not in note] == []
    env = envs.make(odd(kind))
    pool = Pool.of(odd(kind), env.spec, 1)
    seeds = np.asarray([1], np.uint64)
    try:
        with pytest.raises(EnvFailed, match=said if kind != "nan" else "not finite"):
            pool.reset(seeds)
            for t in range(8):
                pool.send(np.zeros((1, 2, 2), np.float32), seeds, seeds, t)
                pool.receive(t)
    finally:
        pool.close()


def test_observations_outside_their_space_are_noted() -> None:
    notes = inspect(odd("outside"), 20)["notes"]
    said = [note for note in notes if "leave the space" in note]
    assert len(said) == 1 and re.search(r"agent left was shown \d\.\d+ at place \d, from -2 to 2 there", said[0])
    assert not any("leave the space" in note for note in inspect(odd(), 20)["notes"])


def test_of_both_flags_terminated_wins() -> None:
    found = inspect(odd("both flags"), 40)
    assert (found["terminated"], found["truncated"]) == (4, 0)
    plain = inspect(odd(), 40)
    assert (plain["terminated"], plain["truncated"], plain["problems"]) == (0, 4, [])


@pytest.mark.parametrize("kind", ["shared class", pytest.param("global random", marks=pytest.mark.slow)])
def test_worlds_that_disturb_each_other_are_found_and_kept_apart(kind: str) -> None:
    found = inspect(odd(kind), 40)
    assert found["deterministic"] and not found["isolated"]
    assert any("disturb each other" in note for note in found["notes"])
    spec = envs.make(odd(kind)).spec
    results = []
    for worlds in (1, 3):
        pool = Pool.of(odd(kind), spec, worlds)
        seeds = np.arange(worlds, dtype=np.uint64)
        try:
            pool.reset(seeds)
            for t in range(3):
                pool.send(np.zeros((worlds, 2, 2), np.float32), seeds, seeds, t)
                results.append(pool.receive(t).next_obs[0])
        finally:
            pool.close()
    np.testing.assert_array_equal(results[:3], results[3:])


def test_rows_keep_to_one_order_of_agents_in_every_process() -> None:
    spec = envs.make(odd("set order")).spec
    assert sorted(spec.agents) == ["ankle", "hip", "knee", "toe"]
    other = dataclasses.replace(spec, agents=("hip", "knee", "ankle", "elbow"))
    with pytest.raises(EnvFailed, match=r"here the agents are .*must have the same agents in every process"):
        Pool.of(odd("set order"), other, 1)


def test_an_env_leaves_the_process_that_asks_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.chdir(tmp_path)
    envs.make(odd("chdir"))
    assert Path.cwd() == tmp_path
    envs.make(odd("prints"))
    assert capfd.readouterr().out == ""
    assert "odd_cases" not in sys.modules


def test_names_and_bounds_belong_to_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    before = envs.make(odd()).spec
    assert before.agents == ("left", "right") and before.act_low == ((-1.0, -1.0),) * 2
    monkeypatch.setenv("ODD_BOUNDS", "1")
    after = envs.make(odd()).spec
    assert before.differences(after) == [f"act_high {before.act_high!r}, now {after.act_high!r}"]
    assert not before.differences(dataclasses.replace(before, name="another name"))


@pytest.mark.parametrize(
    "named",
    ["os:system", "subprocess:run", "builtins:exec", "shutil:rmtree", "omad.cli:main", "__main__:Env",
     "odd_cases:os", "odd_cases:Stranger", "odd_cases:Any", "odd_cases:np", "pettingzoo.utils.env:np"],
)  # fmt: skip
def test_only_what_makes_an_env_is_called(named: str) -> None:
    said = r"is not a module of an env|, not a PettingZoo ParallelEnv class or a function|cannot import what a script"
    with pytest.raises(UserError, match=said):
        envs.make(f"pettingzoo:{named}")


@pytest.mark.parametrize("named", ["os:makedirs", "odd_cases:makedirs"])
def test_functions_of_other_modules_are_refused_before_they_do_anything(named: str, tmp_path: Path) -> None:
    """Also where a user's module has imported one."""
    with pytest.raises(UserError, match=r"os is not a module of an env|a function from os, not a PettingZoo"):
        envs.make(f"pettingzoo:{named}?name={tmp_path / 'made'}")
    assert not (tmp_path / "made").exists()


def test_a_function_of_the_named_module_is_called() -> None:
    assert envs.make("pettingzoo:odd_cases:factory?horizon=7").spec.horizon == 7


def test_a_folder_may_name_an_env_but_not_have_it_imported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"module os would be imported and system called.*--trust"):
        refuse_foreign("pettingzoo:os:system?command=ls", tmp_path, trust=False)
    refuse_foreign("pettingzoo:os:system?command=ls", tmp_path, trust=True)
    refuse_foreign("mpe/spread-3", tmp_path, trust=False)


@pytest.mark.parametrize("kind", ["saves only", "saves grow", "saves a number"])
def test_saves_that_cannot_be_loaded_are_found_at_the_start(kind: str) -> None:
    env = envs.make(odd(kind))
    assert not env.exact and any("A resumed run begins new episodes" in note for note in env.notes)


def test_instances_have_the_bounds_that_the_env_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    env = envs.make(odd())
    monkeypatch.setenv("ODD_BOUNDS", "1")
    with pytest.raises(UserError, match="must have the same bounds in every process"):
        env.create(False)


def test_the_horizon_is_read_or_said_to_be_a_guess() -> None:
    assert not envs.make(odd("", "&horizon=50")).notes
    env = envs.make("pettingzoo:odd_cases:Odd")
    assert env.spec.horizon == 1000 and "does not say how long an episode is" in env.notes[0]


def test_arguments_are_python_literals_or_refused() -> None:
    given = tasks.find("pettingzoo:a:b?sizes=[64,64]&weights={'a':1}&level='7'&env.horizon=3").arguments["arguments"]
    assert given == {"sizes": [64, 64], "weights": {"a": 1}, "level": "7", "env.horizon": 3}
    with pytest.raises(UserError, match="write it as Python does"):
        tasks.find("pettingzoo:a:b?weights={a:1}")


def test_json_of_check_env_is_json_whatever_the_env_prints() -> None:
    words = [sys.executable, "-m", "omad", "check-env", odd("prints"), "--json", "--steps", "20"]
    paths = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, timeout=120)
    assert done.returncode == 0 and json.loads(done.stdout)["problems"] == []
