"""An env on the host is held to one contract: when it is asked, by `check-env`, and in the workers of a run."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad import EnvSpec, JaxEnv, Observation, Outcome, envs
from omad.commands import check
from omad.commands.check import inspect
from omad.commands.record import record
from omad.envs import contract, isolated
from omad.envs.host_env import HostObservation
from omad.envs.pool import Pool
from omad.errors import EnvFailed, UserError
from omad.tasks import outside

HERE = Path(__file__).resolve().parent
SPEC = EnvSpec("odd", (1, 2), (1, 1), 0, 4, ("lit",))


@pytest.fixture(autouse=True)
def _odd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setattr(outside, "_entries", {})


def odd(kind: str = "") -> str:
    return f"host:odd_hosts:odd?kind={kind}"


PADDING = r"shows agent 0 the number 7 behind its own; spec.obs_dims gives it 1, and the rest of its row must be zeros"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("padding", rf"reset\(\) {PADDING}"),
        ("bare reset", r"reset\(\) returned a tuple of 2; it must return an omad HostObservation"),
        ("ragged", r"reset\(\) returned an observation that is no array of real numbers"),
    ],
)
def test_a_first_observation_is_looked_at_when_the_env_is_asked(kind: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        envs.make(odd(kind))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("late padding", rf"step\(\) {PADDING}"),
        ("tuple", r"step\(\) returned a tuple; it must return an omad StepResult"),
        ("no info", r"step\(\) returned info without 'lit', which spec.info_keys has"),
        ("nan info", r"step\(\) returned the info lit nan"),
    ],
)
def test_check_env_says_of_a_step_what_a_worker_says(kind: str, said: str) -> None:
    problems = inspect(odd(kind), 10)["problems"]
    assert len(problems) == 1 and re.search(f"at step 0, {said}", problems[0]), problems
    pool = Pool.of(odd(kind), envs.make(odd(kind)).spec, 1, 1)
    seeds = np.zeros(1, np.uint64)
    try:
        pool.reset(seeds)
        pool.send(np.zeros((1, 2, 1), np.float32), seeds, seeds, 0)
        with pytest.raises(EnvFailed, match=said):
            pool.receive(0)
    finally:
        pool.close()


def test_an_episode_beyond_its_horizon_is_refused_by_check_env_and_record() -> None:
    """As by evaluations, in the same words."""
    said = "declares a horizon of 4 steps, but an episode goes on after that; declare the most steps"
    found = inspect(odd("endless"), 10)
    assert len(found["problems"]) == 1 and f"at step 3, its spec {said}" in found["problems"][0]
    assert not inspect(odd(), 10)["problems"]

    def decide(obs: Any, key: Any) -> Any:
        return np.zeros((len(obs), 2, 1), np.float32)

    with pytest.raises(EnvFailed, match=said):
        record(envs.make(odd("endless")), decide, 2, 0)
    assert record(envs.make(odd()), decide, 2, 0)["truncated"].sum() == 2


def test_padding_is_looked_for_only_where_there_is_some() -> None:
    row = np.empty(4, np.float32)
    seen = HostObservation(np.asarray([[1.0, 7.0], [2.0, 3.0]]), np.zeros(0))
    contract.write_seen(row, seen, (2, 2), 0, "reset()")
    assert row.tolist() == [1.0, 7.0, 2.0, 3.0] and contract.padding_of((2, 2)) is None
    with pytest.raises(contract.Broken, match=PADDING):
        contract.write_seen(row, seen, (1, 2), 0, "reset()")
    mask = EnvSpec("", (1, 3, 2), (1, 1, 1), 0, 1).obs_mask
    np.testing.assert_array_equal(contract.padding_of((1, 3, 2)), np.flatnonzero(mask == 0))


def spilling() -> JaxEnv:
    """The first agent's row has a number too many, from the first step on."""
    spec = EnvSpec("spilling", (1, 2), (1, 1), 0, 3)

    def seen(time: Any) -> Observation:
        return Observation(jnp.asarray([[1.0, 7.0], [2.0, 3.0]]) * time, jnp.zeros(0))

    def step(time: Any, action: Any, key: Any) -> Any:
        return time + 1, Outcome(seen(time + 1), 1.0 * time, jnp.zeros((), bool), time + 1 >= 3)

    return JaxEnv(spec, lambda key: (jnp.zeros((), jnp.int32), seen(jnp.zeros((), jnp.int32))), step)


def test_what_a_jax_env_writes_into_padding_reaches_no_policy() -> None:
    task = envs.of_object(spilling())
    env = envs.make(task)
    state, first = env.reset(jax.random.key(0))
    _, outcome = jax.jit(env.step)(state, jnp.zeros((2, 1)), jax.random.key(0))
    assert not first.obs.any()
    assert outcome.next.obs.tolist() == [[1.0, 0.0], [2.0, 3.0]]
    assert any("behind" in note and "zero" in note for note in inspect(task, 10)["notes"])


def test_check_env_waits_for_each_step_anew() -> None:
    """An env that is slow for long is not one that hangs; which step hangs is said."""
    assert isolated.call("odd", "odd_hosts:dawdle", {"steps": 5, "each_s": 0.8}, 60.0, 3.0) == {"steps": 5}
    with pytest.raises(UserError, match=r": step 2 took longer than 4 s; the env hangs, or --env-timeout is too short"):
        inspect(odd("hangs"), 50, env_timeout=4.0)


def test_a_clock_that_terminates_is_noted() -> None:
    """Values would be learned as if nothing came after it."""
    found = inspect(odd("clock terminates"), 12)
    assert not found["problems"] and found["terminated"] == 3
    assert [note for note in found["notes"] if note.startswith("All 3 episodes terminated after exactly 4 steps.")]
    assert not [note for note in inspect(odd(), 12)["notes"] if "terminated after" in note]


def test_agents_and_bounds_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a spec declares none, what that means for exported policies."""
    found = inspect(odd(), 5)
    assert any("declares no bounds" in note for note in found["notes"])
    assert "odd?kind=: 2 agents." in check._sentences(found)[0]
    named = found | {"agents_named": ["left", "right"], "act_low": ((-0.5,), (0.0,)), "act_high": ((2.0,), (1.0,))}
    said = "\n".join(check._sentences(named))
    assert "2 agents, left, right." in said and "1, 1 numbers an agent, from -0.5 to 2 (left); 0 to 1 (right);" in said
    assert "an agent, from -1 to 1;" in "\n".join(check._sentences(found))


def test_a_spec_takes_arrays_and_numpys_numbers() -> None:
    """It is hashed, compared and written to a run's manifest."""
    parts: dict[str, Any] = {
        "obs_dims": [np.int64(1), 2], "act_dims": np.asarray([1, 1]), "state_dim": np.int32(0), "info_keys": ["lit"],
        "agents": ["a", "b"], "act_low": [[jnp.float32(-0.5)], jnp.zeros(1)],
        "act_high": [np.ones(1), (np.float32(2.0),)],
    }  # fmt: skip
    given = EnvSpec("odd", horizon=4, **parts)
    due = EnvSpec("odd", (1, 2), (1, 1), 0, 4, ("lit",), ("a", "b"), ((-0.5,), (0.0,)), ((1.0,), (2.0,)))
    assert given == due and hash(given) == hash(due) and not contract.problem(given)
    assert json.loads(json.dumps(dataclasses.asdict(given)))["act_high"] == [[1.0], [2.0]]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"act_low": -1.0, "act_high": 1.0}, "spec.act_low is -1.0; it must be a tuple of one row of numbers an agent"),
        ({"act_low": jnp.zeros(2), "act_high": jnp.ones(2)}, "spec.act_low is a tuple of 2; it must be"),
        ({"act_low": (-1.0, -1.0), "act_high": ((1.0,), (1.0,))}, "it must be a tuple of one row of numbers an agent"),
        ({"act_low": ((-1.0,), ("a",)), "act_high": ((1.0,), (1.0,))}, "bounds must be finite"),
        ({"agents": "ab"}, "spec.agents is 'ab'; it must be a tuple of names"),
        ({"agents": ("a", 1)}, "it must be a tuple of names"),
        ({"agents": ("a", "b", "b")}, "it must name each of the 2 agents"),
    ],
)  # fmt: skip
def test_a_spec_that_cannot_be_used_is_explained(wrong: dict[str, Any], said: str) -> None:
    assert said in contract.problem(dataclasses.replace(SPEC, **wrong))


def test_an_env_that_is_described_says_nothing_on_standard_error() -> None:
    """Its process runs a module of the package that describes it, which nothing may have imported before."""
    code = f"from omad import envs; envs.make({odd()!r})"
    paths = os.pathsep.join([str(HERE), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_took_too_long_is_said() -> None:
    with pytest.raises(UserError, match=r"making the env and its first reset took longer than 0.1 s"):
        isolated.call("odd", "omad.envs.host:describe", {}, 0.1)


def test_an_env_has_as_long_to_describe_itself_as_a_run_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def call(task: str, function: str, given: Any, timeout_s: float) -> Any:
        asked.append(timeout_s)
        raise UserError("enough")

    monkeypatch.setattr(isolated, "call", call)
    for timeout_s in (0.0, 60.0, 300.0):
        with pytest.raises(UserError, match="enough"):
            envs.make(odd(), timeout_s)
    assert asked == [120.0, 120.0, 300.0]


def test_a_registered_path_is_called_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_ENVS_LOG", str(tmp_path / "log"))
    envs.register("my/odd", "odd_hosts:odd")
    env = envs.make("my/odd")
    assert (env.spec.obs_dims, env.spec.name) == ((1, 2), "my/odd")
    pids = (tmp_path / "log").read_text().split()
    assert len(pids) == 1 and str(os.getpid()) not in pids
    envs.register("my/number", "own_hosts:number")
    with pytest.raises(UserError, match="returned a int; it must return a JaxEnv"):
        envs.make("my/number")
    with pytest.raises(UserError, match=PADDING):
        envs.make("my/odd?kind=padding")
