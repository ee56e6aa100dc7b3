"""Envs of one's own by path, by a registered name, or as objects: what they become, and what is refused."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import omad
from omad import envs, tasks
from omad.commands.check import inspect
from omad.config import resolve
from omad.envs import contract, description, registry
from omad.envs import outside as envs_outside
from omad.envs.pool import Pool
from omad.errors import UserError
from omad.experiment import Experiment
from omad.run.folder import RunFolder
from omad.spec import EnvSpec
from omad.tasks import outside
from omad.trust import refuse_foreign
from omad.types import JaxEnv, Outcome

pytest.importorskip("pettingzoo")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import own_envs  # noqa: E402
import own_hosts  # noqa: E402

PATH, HOST = "own_envs:", "own_hosts:"


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setattr(outside, "_entries", {})
    monkeypatch.setattr(description, "_handed", {})
    monkeypatch.setattr(envs_outside, "_handed", {})


def run(env: JaxEnv, actions: list[Any], seed: int = 0) -> list[Outcome]:
    state, _ = env.reset(jax.random.key(seed))
    found = []
    for t, action in enumerate(actions):
        state, outcome = env.step(state, jnp.asarray(action, float), jax.random.key(t))
        found.append(outcome)
    return found


def ends(name: str, steps: int) -> list[str]:
    env = envs.make(name)
    idle = np.zeros((env.spec.n_agents, env.spec.act_dim))
    return ["T" * bool(o.terminated) + "C" * bool(o.truncated) + "." for o in run(env, [idle] * steps)]


# ---------------------------------------------------------------- JAX envs


def test_a_jax_env_by_path_has_the_tasks_name_and_its_arguments() -> None:
    env = envs.make(f"jax:{PATH}reach?n=3&horizon=6")
    assert isinstance(env, JaxEnv)
    assert (env.spec.name, env.spec.obs_dims, env.spec.horizon) == (f"jax:{PATH}reach?n=3&horizon=6", (1, 2, 3), 6)


def test_an_env_of_one_done_is_a_team_with_padded_rows_and_both_flags() -> None:
    env = envs.make(f"jax:{PATH}Team")
    spec = env.spec
    assert (spec.obs_dims, spec.act_dims, spec.state_dim, spec.horizon) == ((1, 3), (1, 2), 3, 6)
    assert (spec.agents, spec.act_low, spec.act_high) == (("short", "long"), ((0,), (-1, -1)), ((4,), (1, 1)))
    acts = np.asarray([[-1.0, 9.0], [0.5, 0.5]])
    first = run(env, [acts])[0]
    state, seen = env.reset(jax.random.key(0))
    assert seen.obs.shape == (2, 3) and not seen.obs[0, 1:].any() and (seen.obs[1] == 1).all()
    assert float(first.reward) == 11.0
    assert first.next.state.tolist()[1:] == state.state.push.tolist()  # an action of -1 is the lower bound, 0
    full = run(env, [np.ones((2, 2))])[0]
    assert full.next.state[1] == pytest.approx(state.state.push[0] + 4)


def test_the_reward_of_a_team_is_the_sum_or_the_mean() -> None:
    for option, due in (("", 11.0), ("?team_reward=sum", 11.0), ("?team_reward=mean", 5.5)):
        assert float(run(envs.make(f"jax:{PATH}Team{option}"), [np.zeros((2, 2))])[0].reward) == due


@pytest.mark.parametrize(
    ("options", "due"),
    [
        ("", [".", ".", ".", ".", ".", "C."]),  # ends one step later than it says, as JaxMARL's particle tasks do
        ("?late=0", [".", ".", ".", ".", "C."]),
        ("?ends=2", [".", "T."]),
        ("?ends=2&done=truncated", [".", "C."]),
        ("?late=0&done=terminated", [".", ".", ".", ".", "T."]),
        ("?horizon=3", [".", ".", "C."]),
        ("?ends=2&max_steps=0&horizon=9", [".", "C."]),  # cannot be told apart
    ],
)
def test_one_done_is_the_clock_or_the_task(options: str, due: list[str]) -> None:
    assert ends(f"jax:{PATH}Team{options}", len(due)) == due


def test_an_agent_that_has_ended_shows_zeros_and_is_paid_no_more() -> None:
    found = run(envs.make(f"jax:{PATH}Team?ends=3"), [np.zeros((2, 2))] * 5)
    assert [float(o.reward) for o in found] == [11.0, 22.0, 33.0, 40.0, 50.0]
    assert [float(o.info["return/short"]) for o in found] == [1.0, 2.0, 3.0, 0.0, 0.0]
    assert [float(o.info["return/long"]) for o in found] == [10.0, 20.0, 30.0, 40.0, 50.0]
    assert [bool(o.next.obs[0].any()) for o in found] == [True, True, True, False, False]
    assert all(o.next.obs[1].all() for o in found)


def test_a_single_agent_in_the_style_of_gymnax_is_a_team_of_one() -> None:
    task = envs.of_object(own_envs.Alone())
    env = envs.make(task)
    assert (task, env.spec.obs_dims, env.spec.act_dims, env.spec.horizon) == ("object:Alone", (2,), (1,), 3)
    assert (env.spec.act_low, env.spec.act_high) == (((-2.0,),), ((2.0,),))
    flags = [(bool(o.terminated), bool(o.truncated)) for o in run(env, [[[0.0]]] * 3)]
    assert flags == [(False, False), (False, False), (False, True)]
    assert bool(run(env, [[[1.0]]] * 2)[1].terminated)
    state, _ = env.reset(jax.random.key(0))
    after = env.step(state, jnp.zeros((1, 1)), jax.random.key(0))[0]
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (one.dtype, one.weak_type) == (other.dtype, other.weak_type)


def test_check_env_says_what_an_end_means_and_runs_every_scheme() -> None:
    found = inspect(f"jax:{PATH}Team", 20)
    assert found["problems"] == [] and found["truncated"] == 3
    assert any("one flag for the end of an episode: one after 6 steps" in note for note in found["notes"])
    host = inspect(f"host:{HOST}lamp", 20)
    assert host["problems"] == [] and host["saves"] and "Lamps are hot." in host["notes"]


# ---------------------------------------------------------------- registered names


def test_a_registered_name_takes_arguments() -> None:
    omad.register_env("my/reach-1", own_envs.reach)
    assert envs.make("my/reach-1?n=3").spec.obs_dims == (1, 2, 3)
    assert tasks.find("my/reach-1?n=3").name == "my/reach-1?n=3"
    omad.register_env("my/reach-1", own_envs.reach)
    omad.register_env("by.path", f"{PATH}Team")
    assert envs.make("by.path?horizon=3").spec.horizon == 3
    with pytest.raises(UserError, match=r"There is no task 'my/reech-1'; nearest: my/reach-1"):
        tasks.find("my/reech-1")


@pytest.mark.parametrize(
    ("name", "factory", "words"),
    [
        ("my env", "a:b", "cannot name an env"),
        ("/x", "a:b", "cannot name an env"),
        ("mpe/mine", "a:b", "names a task of this package"),
        ("mamujoco-full/x", "a:b", "names a task of this package"),
        ("mine", "ab", "write package.module:factory"),
        ("mine", "no_such_package.envs:reach", "there is no package no_such_package; install it"),
        ("mine", own_envs.Team(), "A Team was given as the factory"),
        ("taken", "other:factory", "There is an env 'taken' already"),
    ],
)
def test_what_cannot_be_registered(name: str, factory: Any, words: str) -> None:
    envs.register("taken", f"{PATH}reach")
    with pytest.raises(UserError, match=words):
        envs.register(name, factory)


def test_registered_envs_on_the_host_must_be_importable() -> None:
    envs.register("here", lambda: own_hosts.lamp())
    with pytest.raises(UserError, match="must be able to import what makes it"):
        envs.make("here")
    envs.register("jax/here", lambda n=2: own_envs.reach(n))
    assert envs.make("jax/here?n=1").spec.n_agents == 1
    envs.register("lamp", own_hosts.lamp)
    before = resolve("lamp", "hasac", "cpu")
    env = envs.make("lamp?horizon=4")
    assert (env.spec.horizon, env.spec.agents, tasks.find("lamp").isolated) == (4, ("wick", "oil"), True)
    assert resolve("lamp", "hasac", "cpu") == before, "what a preset sets depends on no env that was made"
    pool = Pool.of("lamp?horizon=4", env.spec, 2, 1)
    try:
        assert pool.reset(np.asarray([3, 4], np.uint64))[0][:, 0, 0].tolist() == [3, 4]
    finally:
        pool.close()


def test_what_an_instance_saves_is_bytes_of_either_kind_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    lamp = own_hosts.Lamp(False)
    lamp.time = 5
    assert contract.saved(lamp) == b"\x05"
    for kept, bytes_of_it in ((b"abc", b"abc"), (None, b"")):
        monkeypatch.setattr(own_hosts.Lamp, "save", lambda self, kept=kept: kept)
        assert contract.saved(lamp) == bytes_of_it
    monkeypatch.setattr(own_hosts.Lamp, "save", lambda self: [1, 2])
    with pytest.raises(contract.Broken, match=r"save\(\) returned a list of 2; it must return an array of uint8"):
        contract.saved(lamp)


def test_installed_packages_name_envs_by_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """But none that stands for a task of this package."""
    names = ("their/reach", "mpe/spread-3", "mamujoco-arm/one")
    points = [metadata.EntryPoint(name, f"{PATH}reach", outside.GROUP) for name in names]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points if group == outside.GROUP else [])
    outside._installed.cache_clear()
    try:
        assert envs.make("their/reach?n=1").spec.n_agents == 1
        assert outside.registered() == ["their/reach"] and tasks.find("mpe/spread-3").obs_dims == (18,) * 3
        with pytest.raises(UserError, match="There is an env 'their/reach' already"):
            envs.register("their/reach", "other:factory")
    finally:
        outside._installed.cache_clear()


# ---------------------------------------------------------------- objects


def test_an_object_gets_a_name_of_its_own() -> None:
    one, other = own_envs.reach(), own_envs.reach(n=3)
    assert [envs.of_object(env) for env in (one, other, one)] == ["object:reach", "object:reach-2", "object:reach"]
    assert envs.make("object:reach-2").spec.obs_dims == (1, 2, 3)
    assert envs.of_object(other, "object:reach") == "object:reach"  # a run goes on with it
    assert envs.make("object:reach").spec.obs_dims == (1, 2, 3)
    assert envs.of_object(lambda: own_envs.Team()) == "object:Team"
    with pytest.raises(UserError, match="takes no arguments"):
        envs.make("object:Team?horizon=3")


def test_an_object_is_unknown_elsewhere_and_its_folder_can_be_read() -> None:
    assert tasks.find("object:reach").protocol.endswith("given as an object.")
    with pytest.raises(UserError, match=r"was given as an object.*give it again: env="):
        envs.make("object:reach")


def test_what_can_be_imported_is_named_by_its_path() -> None:
    assert envs.of_object(own_hosts.Counted) == f"pettingzoo:{HOST}Counted"
    assert envs.of_object(own_envs.reach) == f"jax:{PATH}reach"
    assert envs.of_object(own_hosts.lamp) == f"host:{HOST}lamp"
    assert envs.of_object(own_hosts.counted) == f"pettingzoo:{HOST}counted"
    assert envs.make(f"jax:{PATH}reach").spec.obs_dims == (1, 2)
    mpe = pytest.importorskip("mpe2.simple_spread_v3")
    with pytest.raises(UserError, match="continuous_actions=true"):  # a factory that PettingZoo's helper has made
        envs.of_object(mpe.parallel_env)


def test_a_host_env_whose_create_can_be_imported_is_stepped_by_workers() -> None:
    task = envs.of_object(own_hosts.lamp())
    env = envs.make(task)
    assert (task, env.spec.agents, env.spec.info_keys) == ("object:lamp", ("wick", "oil"), ("lit",))
    pool = Pool.of(task, env.spec, 1)
    try:
        pool.reset(np.zeros(1, np.uint64))
        pool.send(np.ones((1, 2, 1)), np.zeros(1, np.uint64), np.zeros(1, np.uint64), 0)
        assert pool.receive(0).info["lit"].tolist() == [2.0]
    finally:
        pool.close()


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("mpe/spread-3", "a task's name goes to task="),
        (3, "env is a int; it may be a JaxEnv"),
        (own_hosts.Counted(), "a running PettingZoo env, of which worker processes must make their own"),
        (own_envs.number, "returned a int; it must return a JaxEnv"),
        (own_envs.undeclared(), "spec is a NoneType, not an omad.EnvSpec; an env declares its sizes"),
        (own_envs.Team(discrete=True), r"acts in namespace\(.*\); diffusion policies need continuous actions"),
        (own_envs.Alone(discrete=True), r"acts in namespace\(.*\); diffusion policies need continuous actions"),
        (own_envs.Team(max_steps=0), r"does not say how long an episode is; give \?horizon="),
        (lambda: own_hosts.lamp(), "runs in worker processes, which cannot import it"),
        (lambda: own_hosts.Counted(), "runs in worker processes, which cannot import it"),
        (own_hosts.lamp()._replace(create=lambda render: own_hosts.Lamp(render)), "which cannot import it"),
        (own_envs.taken(), "spec.info_keys has 'return', which is a metric of omad's own"),
        (own_envs.twice(), "spec.info_keys has 'lit', twice"),
        (own_envs.flagged(), r"step\(\) returned terminated of int32; it must be true or false"),
        (own_envs.failing, "the constructor failed with ZeroDivisionError: no ground to stand on .own_envs.py"),
    ],
)
def test_an_object_that_cannot_be_used_is_refused(env: Any, words: str) -> None:
    before = dict(outside._entries)
    with pytest.raises(UserError, match=words):
        envs.of_object(env)
    assert outside._entries == before


# ---------------------------------------------------------------- refusals of names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gym:CartPole", "begins with 'gym:'.*allowed: pettingzoo:package.module:factory"),
        ("jax:own_envs", "must be jax:package.module:factory"),
        ("jaxmarl:", "names no env of JaxMARL"),
        ("jax:no_such_module:env", "cannot be imported.*Install its package"),
        (f"jax:{PATH}absent", "has no absent"),
        (f"jax:{PATH}number", "returned a int; it must return a JaxEnv, or an env in the style of JaxMARL or gymnax"),
        (f"jax:{PATH}hosted", f"runs on the host; write host:{PATH}hosted"),
        (f"jax:{HOST}counted", f"runs on the host; write pettingzoo:{HOST}counted"),
        (f"jax:{PATH}undeclared", "spec is a NoneType, not an omad.EnvSpec"),
        (f"jax:{PATH}misdeclared", r"reset\(\) returned obs of shape \(2, 2\); its spec declares \(2, 3\)"),
        (f"jax:{PATH}changing", r"a state\[1\] as float32\[\]; it must be int32\[\], as reset\(\)"),
        (f"jax:{PATH}vector", r"step\(\) returned the info 'far' of shape \(2,\); it must be one number"),
        (f"jax:{PATH}failing", "ZeroDivisionError"),
        (f"jax:{PATH}reach?colour=red&n=2", "unexpected keyword argument 'colour'"),
        (f"jax:{PATH}reach?done=truncated", "done is no argument of its factory"),
        (f"jax:{PATH}Team?discrete=true", "continuous actions"),
        (f"jax:{PATH}Team?done=maybe", "done is 'maybe'; it may be auto, terminated, truncated"),
        (f"jax:{PATH}Team?team_reward=max", "team_reward is 'max'"),
        (f"jax:{PATH}Team?horizon=0", "horizon is 0"),
        (f"jax:{PATH}Team?horizon=9", "horizon is 9, but the env ends its episodes after 6 steps itself"),
        ("jax:os:system", "os is not a module of an env"),
        ("jax:omad.envs.mpe:spread", "omad is not a module of an env"),
        ("jax:own_envs:jnp", "cannot be called"),
        ("jax:own_envs:SimpleNamespace", "is a type from types"),
        ("host:os:system", "os is not a module of an env"),
        (f"host:{HOST}number", "returned a int, not an omad.HostEnv"),
        (f"host:{HOST}unlit", "spec is a NoneType, not an omad.EnvSpec"),
        (f"host:{HOST}dark", "returned a object, which has no reset, step, save"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_in_one_sentence(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        envs.make(name)
    assert "\n" not in str(caught.value)


def test_a_run_folders_code_is_imported_only_with_trust(tmp_path: Path) -> None:
    for scheme in ("jax", "host", "pettingzoo"):
        with pytest.raises(UserError, match=r"module os would be imported and system called.*--trust"):
            refuse_foreign(f"{scheme}:os:system?command=ls", tmp_path, trust=False)
    omad.register_env("mine", own_envs.reach)
    for name in ("jaxmarl:MPE_simple_spread_v3?action_type=Continuous", "mine?n=3", "object:env", "mpe/spread-3"):
        refuse_foreign(name, tmp_path, trust=False)


def test_a_run_that_was_just_trained_needs_no_trust(tmp_path: Path) -> None:
    """Its code runs here already; the folder alone proves nothing."""
    sizes: dict[str, Any] = {"warmup_steps": 40, "eval_every": 80, "eval_episodes": 2, "loggers": []}
    run = omad.train(f"jax:{PATH}reach", "hatd3", "tiny", tmp_path / "run", total_steps=80, **sizes)
    assert run.buffered_obs().shape[1:] == (2, 2)
    with pytest.raises(UserError, match="--trust"):
        omad.resume(run.path, total_steps=160, loggers=[])
    longer = omad.resume(run, total_steps=160, loggers=[])
    assert longer.evaluate(2).env_steps == (160,)


# ---------------------------------------------------------------- one construction


@pytest.mark.parametrize(
    ("how", "asked"),
    [
        (f"pettingzoo:{HOST}Counted", 1),
        (f"host:{HOST}lamp", 1),
        ("function", 1),
        ("host env", 0),
    ],
)
def test_an_env_is_constructed_once_an_instance_and_once_for_its_sizes(
    how: str, asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("OWN_ENVS_LOG", str(log))
    task = how
    if how == "function":
        task = envs.of_object(own_hosts.counted)
    if how == "host env":
        task = envs.of_object(own_hosts.lamp())
    spec = envs.make(task).spec
    pool = Pool.of(task, spec, 3)
    try:
        pool.reset(np.arange(3, dtype=np.uint64))
    finally:
        pool.close()
    assert len(log.read_text().splitlines()) == 3 + asked


# ---------------------------------------------------------------- import


def test_the_registries_can_be_reached_after_plain_import() -> None:
    """As documented; nothing heavy comes with `import omad` itself."""
    code = (
        "import sys, omad; assert 'jax' not in sys.modules\n"
        "omad.register_env('my/env', 'own_envs:reach'); omad.envs.register('other', 'own_envs:reach')\n"
        "assert 'jax' not in sys.modules\n"
        "omad.algos.register('mine', 'own_envs:Config'); omad.register_algorithm('mine', 'own_envs:Config')\n"
        "assert omad.algos.available()['mine'] == 'own_envs:Config' and 'own_envs' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=Path(__file__).parent)


def test_no_name_is_both_public_and_lost() -> None:
    assert all(getattr(omad, name) is not None for name in omad.__all__)
    assert registry.of_object is omad.envs.of_object
    assert {*omad.__all__} <= {*dir(omad)}
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = omad.absent


def test_numbers_of_infos_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a first step; text, arrays and what is not finite are none, and what is absent later counts as 0."""
    (tmp_path / "told_env.py").write_text(
        "import numpy as np\n"
        "from gymnasium.spaces import Box\n"
        "from pettingzoo import ParallelEnv\n"
        "class Env(ParallelEnv):\n"
        "    metadata = {'name': 'told'}\n"
        "    possible_agents = ['a', 'b']\n"
        "    max_steps = 3\n"
        "    observation_space = lambda self, agent: Box(-1, 1, (1,))\n"
        "    action_space = lambda self, agent: Box(-1, 1, (1,))\n"
        "    def reset(self, seed=None, options=None):\n"
        "        self.agents, self.t = ['a', 'b'], 0\n"
        "        return {x: np.zeros(1) for x in 'ab'}, {x: {} for x in 'ab'}\n"
        "    def step(self, actions):\n"
        "        self.t += 1\n"
        "        over = self.t == 3\n"
        "        infos = {'a': {'hit': self.t == 2, 'fuel': np.float32(self.t)}, 'b': None}\n"
        "        infos['a'] |= {'word': 'x', 'map': np.zeros(2), 'lost': np.nan}\n"
        "        if over: del infos['a']['fuel']; self.agents = []\n"
        "        flags = {x: False for x in 'ab'}, {x: over for x in 'ab'}\n"
        "        return {x: np.zeros(1) for x in 'ab'}, {x: 1.0 for x in 'ab'}, *flags, infos\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    env: Any = envs.make("pettingzoo:told_env:Env")
    assert env.spec.info_keys == ("return/a", "return/b", "a/fuel", "a/hit")
    world = env.create(False)
    world.reset(0)
    seen = [dict(world.step(np.zeros((2, 1)), 0).info) for _ in range(3)]
    assert [row["a/fuel"] for row in seen] == [1.0, 2.0, 0.0] and [row["a/hit"] for row in seen] == [0.0, 1.0, 0.0]


def test_info_numbers_that_come_and_go_do_not_keep_a_run_from_going_on(tmp_path: Path) -> None:
    """Of a PettingZoo env those that the run has recorded are counted; for another a sentence says what changed."""
    task, recorded = f"pettingzoo:{HOST}Counted", ("return/a", "return/b", "a/hit")
    spec = envs.with_info(envs.make(task), task, recorded).spec
    pool = Pool.of(task, spec, 1)
    try:
        pool.reset(np.zeros(1, np.uint64))
        pool.send(np.zeros((1, 2, 1), np.float32), np.zeros(1, np.uint64), np.zeros(1, np.uint64), 0)
        assert pool.receive(0).info["a/hit"].tolist() == [0.0]
    finally:
        pool.close()

    env = own_envs.reach()
    config = resolve(envs.of_object(env), "hatd3", "tiny")
    Experiment(config, loggers=()).create(tmp_path / "run").close()

    def renamed(*given: Any) -> Any:
        state, outcome = env.step(*given)
        return state, dataclasses.replace(outcome, info={"near": outcome.info["far"]})

    other = env._replace(spec=dataclasses.replace(env.spec, info_keys=("near",)), step=renamed)
    with pytest.raises(UserError, match=r"has the info numbers near; when .* began they were far"):
        Experiment.of_run(RunFolder.open(tmp_path / "run"), env=other)


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"act_low": ((-2.0,),)}, "only one of act_low and act_high"),
        ({"act_low": ((-np.inf,),), "act_high": ((np.inf,),)}, "bounds must be finite"),
        ({"act_low": ((1.0,),), "act_high": ((-1.0,),)}, "an action from 1.0 to -1.0"),
        ({"act_low": ((1.0,),), "act_high": ((1.0,),)}, "the lower one below the other"),
    ],
)
def test_bounds_that_no_action_can_be_scaled_to_are_refused(bounds: Any, said: str) -> None:
    """They would train, and fail on the robot: infinite actions, or the ends alone."""
    spec = EnvSpec("own", (2,), (1,), 0, 9)
    assert not contract.problem(spec)
    assert not contract.problem(dataclasses.replace(spec, act_low=((-2.0,),), act_high=((3.0,),)))
    assert said in contract.problem(dataclasses.replace(spec, **bounds))
