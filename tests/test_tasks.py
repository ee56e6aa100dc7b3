"""The table of tasks: names, options, what an error says, and that reading it costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jax
import numpy as np
import pytest

import scripted
from omad import tasks
from omad.commands.tasks import main
from omad.envs import make
from omad.tasks.returns import RANDOM


def test_table_imports_neither_jax_nor_numpy() -> None:
    code = "import sys, omad.tasks; assert not {'jax', 'numpy', 'equinox'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_table_holds_the_promised_tasks() -> None:
    assert {f"mpe/spread-{n}{end}" for n in range(2, 11) for end in ("", "-xy")} <= set(tasks.TASKS)
    assert {f"mpe/deception-{n}" for n in range(1, 7)} <= set(tasks.TASKS)
    assert sum(name.startswith("probe/") for name in tasks.TASKS) == 6


@pytest.mark.parametrize("name", tasks.TASKS)
def test_every_task_can_be_made_and_found_by_its_own_name(name: str) -> None:
    task = tasks.find(name)
    assert task == tasks.TASKS[name]
    spec = make(name).spec
    assert spec.name == task.name == name
    assert (spec.obs_dims, spec.act_dims, spec.state_dim, spec.horizon) == (
        task.obs_dims, task.act_dims, task.state_dim, task.horizon,
    )  # fmt: skip
    assert len(task.obs_dims) == len(task.act_dims) == task.n_agents
    assert task.protocol.endswith(".")
    assert all(source for *_, source in task.references + task.published)


def test_known_sizes() -> None:
    task = tasks.find("mpe/spread-3?state=true")
    assert (task.obs_dims, task.act_dims, task.state_dim, task.horizon) == ((18,) * 3, (5,) * 3, 54, 25)
    assert tasks.find("mpe/spread-4-xy").act_dims == (2,) * 4
    assert tasks.find("mpe/deception-2?state=true").state_dim == 28
    assert tasks.find("mpe/deception-2").obs_dims == (10, 10)


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("mpe/spread-3?dynamics=v3&local_ratio=0.5", "mpe/spread-3"),
        ("mpe/spread-3?state=true&dynamics=v2", "mpe/spread-3?dynamics=v2&state=true"),
        ("mpe/spread-3?local_ratio=0.250", "mpe/spread-3?local_ratio=0.25"),
        ("mpe/spread-3?local_ratio=1.0", "mpe/spread-3?local_ratio=1"),
        ("mpe/spread-3?local_ratio=0.12345678", "mpe/spread-3?local_ratio=0.12345678"),
        ("mpe/deception-2?adversary=static", "mpe/deception-2?adversary=static"),
        ("mpe/deception-2?", "mpe/deception-2"),
    ],
)
def test_a_protocol_has_one_name(given: str, canonical: str) -> None:
    assert tasks.find(given).name == tasks.find(canonical).name == canonical


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mpe/spraed-3", ["'mpe/spraed-3'", "nearest: mpe/spread-3", "N from 2 to 10"]),
        ("mpe/spread-11", ["'mpe/spread-11'", "nearest: mpe/spread-1", "N from 2 to 10"]),
        ("mpe/spread-1", ["'mpe/spread-1'", "N from 2 to 10"]),
        ("probe/relai", ["nearest: probe/relay"]),
        ("", ["''", "nearest: ", "allowed"]),
        (
            "mpe/spread-3?dynamic=v2",
            ["'dynamic'", "nearest: dynamics", "dynamics, history, horizon, local_ratio, state"],
        ),
        ("mpe/spread-3?dynamics=v4", ["dynamics='v4'", "allowed: v3 or v2"]),
        ("mpe/spread-3?local_ratio=2", ["local_ratio='2'", "0 to 1"]),
        ("mpe/spread-3?local_ratio=nan", ["local_ratio='nan'", "0 to 1"]),
        ("mpe/spread-3?horizon=many", ["horizon='many'", "whole number"]),
        ("mpe/spread-3?state=yes", ["state='yes'", "true or false"]),
        ("mpe/spread-3?state=true&state=true", ["'state'", "twice"]),
        ("mpe/deception-2?adversary=statik", ["'statik'", "nearest: static", "random, static"]),
        ("probe/push?horizon=3", ["'horizon'", "allowed: host"]),
    ],
)
def test_an_error_says_what_was_given_what_is_near_and_what_is_allowed(name: str, words: list[str]) -> None:
    for function in (tasks.find, make):
        with pytest.raises(tasks.UnknownTask) as caught:
            function(name)
        message = str(caught.value)
        assert all(word in message for word in words), message
        assert message.endswith(".")
        assert "\n" not in message


def test_sizes_that_only_the_env_knows_are_said_to_be_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pettingzoo:nothing.at:all"]) == 0
    said = capsys.readouterr().out
    assert "–" in said and "omad check-env pettingzoo:nothing.at:all" in said and " 0 " not in said
    assert main(["pettingzoo:nothing.at:all", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert [row[name] for name in ("agents", "obs_dims", "act_dims", "state_dim", "horizon")] == [None] * 5
    assert main(["mpe/spread-3"]) == 0
    assert "check-env" not in capsys.readouterr().out


def test_an_unknown_task_is_a_value_error() -> None:
    assert issubclass(tasks.UnknownTask, ValueError)


def test_nearest_gives_the_closest_names_first_and_always_one() -> None:
    assert tasks.nearest("gama", ["alpha", "gamma", "tau"])[0] == "gamma"
    assert len(tasks.nearest("zzz", ["alpha", "gamma"])) == 1
    assert tasks.nearest("zzz", []) == []


def test_numbers_belong_to_their_protocol() -> None:
    def labels(name: str) -> set[str]:
        return {label for label, *_ in tasks.find(name).references}

    assert tasks.find("mpe/spread-3").published[0][:3] == ("OMAD", -23.9, 1.1)
    assert tasks.find("mpe/spread-3?state=true").published == tasks.find("mpe/spread-3").published
    assert tasks.find("mpe/spread-3-xy").published == tasks.find("mpe/spread-3").published
    assert tasks.find("mpe/spread-3?dynamics=v2").published == ()
    assert tasks.find("mpe/spread-3?local_ratio=0").references == ()
    assert labels("mpe/spread-3-xy") == labels("mpe/spread-3")
    random = {
        name: dict(row[:2] for row in tasks.find(name).references) for name in ("mpe/spread-3", "mpe/spread-3-xy")
    }
    five, two = random.values()
    assert five.pop("uniformly random") != two.pop("uniformly random")
    assert five == two


def test_references_of_a_task_are_in_their_order() -> None:
    for name in ("mpe/spread-3", "mpe/spread-4", "mpe/spread-3?dynamics=v2", "mpe/spread-4?dynamics=v2"):
        value = dict(row[:2] for row in tasks.find(name).references)
        assert value["own nearest landmark"] < value["optimal assignment + PD control"] < value["ceiling"]


def close(returns: Any, name: str) -> bool:
    """Whether returns of random actions have the mean of the table, within four standard errors of both."""
    (due,) = (value for label, value, _ in tasks.find(name).references if label == RANDOM)
    returns = np.asarray(returns, float)
    return abs(returns.mean() - due) < 4 * returns.std() / len(returns) ** 0.5 + 0.7


@pytest.mark.parametrize(
    "name",
    [
        "mpe/spread-5",
        *(pytest.param(f"mpe/spread-{n}", marks=pytest.mark.slow) for n in (2, *range(6, 11))),
        *(pytest.param(f"mpe/spread-{n}-xy", marks=pytest.mark.slow) for n in range(2, 11)),
    ],
)
def test_random_actions_in_larger_teams_have_the_return_of_the_table(name: str) -> None:
    """Those of 3 and 4 agents are compared with an implementation of its own, in `test_scripted.py`."""
    env: Any = make(name)
    returns, _ = scripted.scripted_returns(env, scripted.random(env.spec), jax.random.key(0), 400)
    assert close(returns, name)


ROBOTS = ("halfcheetah-2x3", "ant-2x4", "walker2d-2x3", "swimmer-2x1", "hopper-3x1", "humanoid-9-8",
          "humanoidstandup-9-8", "reacher-2x1", "pusher-3p")  # fmt: skip


@pytest.mark.parametrize(
    ("robot", "steps"), [("halfcheetah-2x3", 3_000), *(pytest.param(n, 20_000, marks=pytest.mark.slow) for n in ROBOTS)]
)
def test_random_actions_of_robots_have_the_return_of_the_table(robot: str, steps: int) -> None:
    """Of whole episodes."""
    for package in ("mujoco", "gymnasium_robotics"):
        pytest.importorskip(package)
    name = f"mamujoco-full/{robot}"
    env: Any = make(name)
    instance, rng, returns, step = env.create(False), np.random.default_rng(0), list[float](), 0
    while step < steps:
        instance.reset(step)
        total, over = 0.0, False
        while not over:
            found = instance.step(rng.uniform(-1, 1, env.spec.act_mask.shape) * env.spec.act_mask, step)
            total, over, step = total + found.reward, found.terminated or found.truncated, step + 1
        returns.append(total)
    instance.close()
    assert close(returns, name)


def test_how_a_robot_is_shared_out_makes_no_difference_to_random_actions() -> None:
    def due(robot: str) -> list[float]:
        return [value for label, value, _ in tasks.find(f"mamujoco-full/{robot}").references if label == RANDOM]

    for robot, others in (
        ("ant-2x4", ("ant-2x4d", "ant-2x4diag", "ant-4x2")),
        ("halfcheetah-2x3", ("halfcheetah-6x1",)),
    ):
        assert len(due(robot)) == 1 and all(due(other) == due(robot) for other in others)
