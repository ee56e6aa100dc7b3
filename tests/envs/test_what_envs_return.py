"""An env on the host is held to one contract: when it is asked, by `check-env`, and in the workers of a run."""

from __future__ import annotations

import os
import re
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
        record(envs.make(odd("endless")), odd("endless"), decide, 2, 0)
    assert record(envs.make(odd()), odd(), decide, 2, 0)["truncated"].sum() == 2


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


def test_the_patience_of_check_env_grows_with_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def call(task: str, function: str, given: Any, timeout_s: float, *more: Any) -> Any:
        asked.append(timeout_s)
        raise UserError("enough")

    monkeypatch.setattr(check, "call", call)
    for steps in (10, 5000):
        with pytest.raises(UserError, match="enough"):
            inspect(odd(), steps)
    assert asked[1] - asked[0] >= 2000 and asked[0] >= 600


def test_what_took_too_long_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(check, "_STEP_S", 0.0)
    with pytest.raises(UserError, match=r"5 steps of check-env took longer than 0.1 s.*fewer --steps") as caught:
        inspect(odd(), 5)
    assert "first reset" not in str(caught.value)
    with pytest.raises(UserError, match=r"making the env and its first reset took longer than 0.1 s"):
        isolated.call("odd", "omad.envs.host:describe", {}, 0.1)


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
