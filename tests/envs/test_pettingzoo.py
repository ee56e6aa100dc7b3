"""Any PettingZoo env: scaling, padding, ends of agents, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

from omad import envs, processes, tasks
from omad.envs.contract import Broken
from omad.envs.pettingzoo import create
from omad.envs.pettingzoo_instance import PettingZooInstance
from omad.envs.pool import Pool
from omad.errors import UserError
from omad.spec import EnvSpec

pytest.importorskip("pettingzoo")

HERE = Path(__file__).parent
SPREAD = "pettingzoo:mpe2.simple_spread_v3:parallel_env?continuous_actions=true"
SPEAKER = "pettingzoo:mpe2.simple_speaker_listener_v4:parallel_env?continuous_actions=true"
WATER = "pettingzoo:pettingzoo.sisl.waterworld_v4:parallel_env"
WALKER = "pettingzoo:pettingzoo.sisl.multiwalker_v9:parallel_env"


@pytest.fixture(autouse=True)
def _odd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Envs are described in this process, which is quicker, but where a test asks for processes."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv(processes.WORKER, "1")


def start(name: str, render: bool = False) -> PettingZooInstance:
    return envs.make(f"pettingzoo:odd_parallel:{name}" if ":" not in name else name).create(render)


def act(left: float = 0.0, first: float = 0.0, second: float = 0.0, padding: float = 0.0) -> np.ndarray:
    return np.asarray([[left, padding], [first, second]])


def flags(world: PettingZooInstance, steps: int) -> list[tuple[bool, bool]]:
    world.reset(0)
    return [world.step(act(), 0)[2:4] for _ in range(steps)]


GO, END, CUT = (False, False), (True, False), (False, True)


# ---------------------------------------------------------------- sizes and scaling


def test_sizes() -> None:
    env = envs.make("pettingzoo:odd_parallel:pair")
    assert env.spec.name == "pettingzoo:odd_parallel:pair"
    assert (env.spec.obs_dims, env.spec.act_dims, env.spec.state_dim, env.spec.horizon) == ((3, 4), (1, 2), 0, 1000)
    assert not env.exact


def test_the_ends_of_the_range_are_the_limits_and_beyond_is_clipped() -> None:
    world = start("pair")
    world.reset(0)
    for way, left, right in ((-1, -0.5, [[0, -3]]), (1, 2, [[10, -1]]), (0, 0.75, [[5, -2]])):
        for far in (1.0, 1.5, 1e9, np.inf) if way else (1.0,):
            value = float(way) * far if way else 0.0
            world.step(act(value, value, value), 0)
            given = world.env.given[-1]
            assert given["left"].tolist() == [left]
            assert given["right"].tolist() == right
            for agent, action in given.items():
                assert action.dtype == np.float32
                assert world.env.action_space(agent).contains(action)


def test_limits_in_double_precision_are_kept() -> None:
    """An action beyond a limit by a rounding is no longer one that the env takes."""
    world = start("Fine")
    world.reset(0)
    for value in (-1.0, 1.0):
        world.step(act(value, value, value), 0)
        for agent, action in world.env.given[-1].items():
            limits = world.env.action_space(agent)
            assert action.dtype == np.float64
            assert (action == (limits.high if value > 0 else limits.low)).all()


def test_padding_goes_nowhere() -> None:
    one, other = start("pair"), start("pair")
    seen = one.reset(4)
    other.reset(4)
    assert seen.obs.shape == (2, 4)
    assert (seen.obs[0, 3], (seen.obs != 0).sum()) == (0, 7)
    a, b = one.step(act(0.2, 0.4, 0.6), 0), other.step(act(0.2, 0.4, 0.6, padding=-0.9), 0)
    assert (a.next.obs == b.next.obs).all()
    assert one.env.given[0]["left"].shape == (1,)
    assert one.env.given[0]["right"].shape == (1, 2)
    assert (a.next.obs != 0).tolist() == [[True, True, True, False], [True] * 4]


def test_rows_of_an_observation_are_in_order() -> None:
    world = start("pair")
    world.reset(6)
    obs = world.step(act(1.0, -1.0, 1.0), 0).next.obs
    assert obs.tolist() == [[2, 7, 7, 0], [2, 7, 5, 4]]


def test_an_episode_is_a_function_of_its_seed_of_which_31_bits_are_used() -> None:
    world = start("pair")
    assert world.reset(2**31 + 5).obs.tolist() == world.reset(5).obs.tolist()
    assert world.reset(2**64 - 1).obs[0, 1] == np.float32(2**31)


def test_the_clock_begins_anew_with_an_episode() -> None:
    world = start("pair?horizon=3")
    assert flags(world, 2) == [GO, GO]
    assert flags(world, 3) == [GO, GO, CUT]


# ---------------------------------------------------------------- rewards and ends


def test_the_team_reward_is_the_sum_or_the_mean() -> None:
    total, mean = start("pair?team_reward=sum&left_ends=2"), start("pair?team_reward=mean&left_ends=2")
    for world, rewards in ((total, [11, 22, 30]), (start("pair?left_ends=2"), [11, 22, 30]), (mean, [5.5, 11, 15])):
        world.reset(0)
        moves = [world.step(act(), 0) for _ in rewards]
        assert [one.reward for one in moves] == rewards
        assert [one.info["return/left"] for one in moves] == [1.0, 2.0, 0.0]  # each agent's own, never a mean
        assert [one.info["return/right"] for one in moves] == [10.0, 20.0, 30.0]


@pytest.mark.parametrize("first", ["left_ends", "left_clock"])
def test_an_agent_that_has_ended_shows_zeros_and_is_not_acted(first: str) -> None:
    world = start(f"pair?{first}=2")
    world.reset(1)
    moves = [world.step(act(0.5, 0.5, 0.5), 0) for _ in range(4)]
    assert [one[2:4] for one in moves] == [GO] * 4
    assert [sorted(given) for given in world.env.given] == [["left", "right"]] * 2 + [["right"]] * 2
    assert (moves[1].next.obs[0, :3] != 0).all()  # its last
    assert (moves[2].next.obs[0] == 0).all()
    assert (moves[3].next.obs[0] == 0).all()
    assert (moves[3].next.obs[1] != 0).all()
    assert (world.reset(1).obs[0, :3] != 0).all()


@pytest.mark.parametrize(
    ("ends", "last"),
    [
        ("left_ends=2&right_ends=4", END),
        ("left_clock=2&right_clock=4", CUT),
        ("left_clock=2&right_ends=4", END),
        ("left_ends=2&right_clock=4", CUT),
        ("left_ends=4&right_ends=4", END),
        ("left_clock=4&right_clock=4", CUT),
        ("left_ends=4&right_clock=4", CUT),
        ("left_ends=2&right_ends=4&horizon=4", END),
        ("left_ends=2&horizon=4", CUT),
        ("right_clock=2&left_clock=3&horizon=4", None),
    ],
)
def test_an_episode_ends_with_its_last_agent(ends: str, last: tuple[bool, bool] | None) -> None:
    """By the clock if one of those that ended last was truncated, else by the task."""
    world = start(f"pair?{ends}")
    assert flags(world, 4 if last else 3) == ([GO] * 3 + [last] if last else [GO, GO, CUT])


def test_an_env_that_lists_no_agents_in_its_next_episode_is_named() -> None:
    """It would be learned from as episodes of one step that end, with no reward."""
    world = start("Emptied?left_ends=2&right_ends=2")
    assert flags(world, 2) == [GO, END]
    with pytest.raises(Broken, match="`agents` empty"):
        world.reset(1)


@pytest.mark.parametrize("flag", ["", "&left_clock=1&right_clock=1"])
def test_an_agent_that_lives_and_is_shown_nothing_is_named(flag: str) -> None:
    """Zeros would be learned from; at a clock's end its last observation is bootstrapped."""
    world = start(f"Unseen?at=step{flag}")
    world.reset(0)
    with pytest.raises(Broken, match=r"step\(\) returned no observations for left, who had not terminated"):
        world.step(act(), 0)
    with pytest.raises(UserError, match=r"reset\(\) returned no observations for left"):
        envs.make(f"pettingzoo:odd_parallel:Unseen?at=reset{flag}")


@pytest.mark.parametrize("flag", ["left_ends=1", "left_clock=1"])
def test_of_an_agent_that_has_ended_nothing_need_be_shown_while_others_go_on(flag: str) -> None:
    world = start(f"Unseen?at=step&{flag}")
    world.reset(0)
    assert not world.step(act(), 0).next.obs[0].any()


@pytest.mark.parametrize(
    ("ends", "last"),
    [("left_ends=2&right_ends=4", END), ("left_ends=4&right_ends=4", END), ("left_clock=4&right_clock=4", CUT)],
)
def test_agents_that_go_on_being_listed_end_the_episode_all_the_same(ends: str, last: tuple[bool, bool]) -> None:
    """Some envs do not take agents from the list when they end."""
    assert flags(start(f"pair?{ends}&stays=true"), 4) == [GO] * 3 + [last]


def test_the_horizon_of_a_task_cuts_an_env_that_has_none() -> None:
    world = start("pair?horizon=7")
    assert world.spec.horizon == 7
    assert flags(world, 7) == [GO] * 6 + [CUT]


def test_the_horizon_is_that_of_the_env_unless_asked() -> None:
    assert envs.make("pettingzoo:odd_parallel:Timed").spec.horizon == 40
    assert envs.make("pettingzoo:odd_parallel:Timed?horizon=9").spec.horizon == 9
    assert envs.make(SPREAD).spec.horizon == 25
    assert envs.make(f"{SPREAD}&max_cycles=12").spec.horizon == 12


# ---------------------------------------------------------------- state, saving, pictures


def test_the_state_is_flat() -> None:
    env = envs.make("pettingzoo:odd_parallel:Stateful")
    assert env.spec.state_dim == 6
    world = env.create(False)
    assert world.reset(0).state.tolist() == [0] * 6
    assert world.step(act(), 0).next.state.tolist() == [1] * 6


def test_what_was_seen_does_not_change_afterwards() -> None:
    """Of an env that changes its state in place."""
    world = start("Stateful")
    first = world.reset(0)
    second = world.step(act(), 0).next
    world.step(act(), 0)
    assert second.state.tolist() == [1] * 6
    assert first.state.tolist() == [0] * 6


def test_a_state_that_shrinks_keeps_its_declared_size() -> None:
    world = start("Shrinking?left_ends=2&right_ends=4")
    assert world.spec.state_dim == 4
    world.reset(0)
    assert [world.step(act(), 0).next.state.shape for _ in range(4)] == [(4,)] * 4


@pytest.mark.parametrize("kind", ["Saved", "SavedShrinking"])
def test_another_world_goes_on(kind: str) -> None:
    """Even from where one of two agents has ended."""
    name = f"pettingzoo:odd_parallel:{kind}?left_ends=3&horizon=6"
    env = envs.make(name)
    assert env.exact
    world, other = env.create(False), env.create(False)
    world.reset(7)
    other.reset(8)
    for before in range(5):
        saved = world.save()
        assert saved is not None
        assert (saved.dtype, saved.size) == (np.uint8, 8 + 8 * env.spec.state_dim + 32)
        moved = world.step(act(0.1 * before, 0.2, 0.3), 0)
        for one in (other, env.create(False)):
            one.load(saved)
            again = one.step(act(0.1 * before, 0.2, 0.3), 0)
            assert again.next.obs.tobytes() == moved.next.obs.tobytes()
            assert again.next.state.tobytes() == moved.next.state.tobytes()
            assert again[1:4] == moved[1:4]


def test_an_env_that_cannot_be_saved_says_so() -> None:
    world = start("pair")
    world.reset(0)
    assert world.save() is None


def test_pictures() -> None:
    world = start("pair", render=True)
    world.reset(0)
    world.step(act(), 0)
    assert world.render().tolist() == np.full((4, 6, 3), 1).tolist()
    with pytest.raises(UserError, match="render_mode='rgb_array'"):
        start("pair").render()


def test_a_factory_that_takes_no_render_mode_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE.parents[1] / "examples"))
    with pytest.raises(UserError, match="own_pettingzoo_env:Lift cannot be drawn, as it takes no render_mode"):
        create("own_pettingzoo_env:Lift", {}, render=True)
    assert create("odd_parallel:wrapped", {}, render=True).render_mode == "rgb_array"


def test_in_worker_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved in one pool, loaded in another that was never reset."""
    monkeypatch.delenv(processes.WORKER)
    name = "pettingzoo:odd_parallel:Saved?left_ends=2&horizon=3"
    spec = envs.make(name).spec
    pool, other = (Pool.of(name, spec, n_envs=3, workers=workers) for workers in (2, 1))
    try:
        obs, _ = pool.reset(np.asarray([1, 2, 3], np.uint64))
        assert obs[:, :, 1].tolist() == [[2, 2], [3, 3], [4, 4]]
        told, saved = [], []
        for t in range(3):
            saved.append(pool.save(t))
            pool.send(np.full((3, 2, 2), 1 / 4), np.zeros(3, np.uint64), np.full(3, 9, np.uint64), t)
            told.append(pool.receive(t))
        assert [one.truncated.tolist() for one in told] == [[False] * 3] * 2 + [[True] * 3]
        assert (told[1].next_obs[:, 0, :3] != 0).all()
        assert (told[2].next_obs[:, 0] == 0).all()
        assert (told[2].obs[:, :, 1] == 10).all()
        other.load(saved[1], 1)
        other.send(np.full((3, 2, 2), 1 / 4), np.zeros(3, np.uint64), np.zeros(3, np.uint64), 1)
        assert (other.receive(1).next_obs == told[1].next_obs).all()
    finally:
        pool.close()
        other.close()


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("odd_parallel:discrete", r"agent right acts in Discrete\(5\).*continuous actions.*\?continuous_actions=true"),
        ("odd_parallel:whole", "agent right acts in Box.*continuous actions"),
        ("odd_parallel:unbounded", "agent right acts in .*no finite bounds"),
        ("odd_parallel:half_bounded", "agent right acts in .*no finite bounds"),
        ("odd_parallel:empty_range", "agent right acts in .*bounds low < high"),
        ("odd_parallel:DictSeen", r"agent left observes Dict\(.*only Box observations"),
        ("odd_parallel:Images", r"agent left observes \(100, 100, 3\); at most 20000 numbers"),
        (
            "odd_parallel:Broken",
            r"its reset\(\) failed with ZeroDivisionError: no ground to stand on .odd_parallel.py, line",
        ),
        ("odd_parallel:Nobody", "the env has no agents"),
        ("odd_parallel:Unlisted", "asking for its agents failed with TypeError"),
        ("odd_parallel:number", "returned a int, which is not a PettingZoo ParallelEnv"),
        ("odd_parallel:LIMITS", "cannot be called"),
        ("odd_parallel:pair?colour=red", "odd_parallel:pair cannot be called with {'colour': 'red'}.*colour"),
        ("odd_parallel:absent", "The module odd_parallel has no absent"),
        ("no_such_package.env:make", "no_such_package.env:make cannot be imported.*Install its package"),
        ("odd_parallel:pair?team_reward=max", "team_reward is 'max'; it may be sum or mean"),
        ("odd_parallel:pair?horizon=0", "horizon is 0; it must be a whole number of steps, at least 1"),
        ("odd_parallel:pair?horizon=2.5", "horizon is 2.5; it must be a whole number"),
        ("odd_parallel:pair?horizon=long", "horizon is 'long'; it must be a whole number"),
        ("odd_parallel:pair?horizon=true", "horizon is True; it must be a whole number"),
        ("odd_parallel:turns", "odd_parallel:turns"),
        ("mpe2.simple_spread_v3:parallel_env", "continuous_actions=true"),
        ("mpe2.simple_spread_v3:env", "continuous_actions=true"),
    ],
)
def test_what_cannot_be_used_is_refused(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        envs.make(f"pettingzoo:{name}")


@pytest.mark.parametrize(
    "name",
    [
        "pettingzoo:",
        "pettingzoo:a",
        "pettingzoo:a:b:c",
        "pettingzoo:a b:c",
        "pettingzoo:a:b?n",
        "pettingzoo:a:b?n=1&n=2",
    ],
)
def test_a_name_that_does_not_say_where_an_env_is(name: str) -> None:
    with pytest.raises(tasks.UnknownTask):
        envs.make(name)


def test_a_module_that_fails_to_import_is_not_said_to_lack_the_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the function; something else is missing in it."""
    (tmp_path / "half_made.py").write_text("import math\n\n\ndef env():\n    ...\n\n\nmath.nothing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises((UserError, AttributeError), match="nothing") as caught:
        envs.make("pettingzoo:half_made:env")
    assert "has no env" not in str(caught.value)


def test_an_env_that_only_looks_like_one_is_used_or_refused() -> None:
    try:
        world = start("Duck")
        world.reset(0)
        world.step(act(), 0)
        world.save()
        world.close()
    except UserError as error:
        assert "not a PettingZoo" in str(error)


def test_arguments_have_types() -> None:
    text = "a=true&b=false&c=3&d=-2.5&e=none&f=word"
    given = tasks.find(f"pettingzoo:x.y:z?{text}").arguments["arguments"]
    assert given == {"a": True, "b": False, "c": 3, "d": -2.5, "e": None, "f": "word"}


def test_an_env_in_the_working_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_here.py").write_text("from odd_parallel import Pair\n\n\ndef env():\n    return Pair()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(processes.WORKER)
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = "pettingzoo:made_here:env"
    spec = envs.make(name).spec
    assert spec.obs_dims == (3, 4)
    Pool.of(name, spec, n_envs=1).close()


# ---------------------------------------------------------------- real envs


def native(space: Any, row: np.ndarray) -> np.ndarray:
    low, high = space.low.astype(float), space.high.astype(float)
    return (low + (high - low) * (row[: low.size].reshape(low.shape) + 1.0) / 2.0).astype(space.dtype)


def agrees(name: str, raw: Any, steps: int) -> tuple[int, int]:
    """Steps both with the same actions; how many episodes ended, and in how many steps not all agents acted."""
    world, rng, seed, ended, fewer = start(name), np.random.default_rng(0), 3, 0, 0
    spec, agents = world.spec, list(raw.possible_agents)

    def check(obs: np.ndarray, shown: dict[str, np.ndarray]) -> None:
        due = np.zeros((spec.n_agents, spec.obs_dim))
        for row, agent in zip(due, agents, strict=True):
            if agent in shown:
                row[: shown[agent].size] = shown[agent].ravel()
        assert (obs == due).all()

    check(world.reset(seed).obs, raw.reset(seed=seed)[0])
    for _ in range(steps):
        action = rng.uniform(-1, 1, (spec.n_agents, spec.act_dim)) * spec.act_mask
        rows = {agent: native(raw.action_space(agent), action[agents.index(agent)]) for agent in raw.agents}
        fewer += len(rows) < len(agents)
        shown, rewards, terminations, truncations, _ = raw.step(rows)
        moved = world.step(action, 0)
        check(moved.next.obs, shown)
        assert moved.reward == pytest.approx(sum(map(float, rewards.values())), rel=1e-12, abs=1e-12)
        over = not raw.agents
        assert (moved.terminated or moved.truncated) == over
        assert not (moved.terminated and moved.truncated)
        if over:
            assert moved.truncated == any(truncations.values())
            assert moved.terminated == (any(terminations.values()) and not any(truncations.values()))
            ended, seed = ended + 1, seed + 1
            check(world.reset(seed).obs, raw.reset(seed=seed)[0])
    world.close()
    return ended, fewer


def test_simple_spread_is_stepped_as_it_is() -> None:
    mpe = pytest.importorskip("mpe2.simple_spread_v3")
    assert agrees(SPREAD, mpe.parallel_env(continuous_actions=True), 60) == (2, 0)


def test_agents_of_unequal_size_are_stepped_as_they_are() -> None:
    mpe = pytest.importorskip("mpe2.simple_speaker_listener_v4")
    assert envs.make(SPEAKER).spec.obs_dims == (3, 11)
    assert agrees(SPEAKER, mpe.parallel_env(continuous_actions=True), 60) == (2, 0)


@pytest.mark.parametrize("options", ["", "?terminate_on_fall=false&remove_on_fall=true"])
def test_multiwalker_is_stepped_as_it_is(options: str) -> None:
    """Walkers fall; with the options, some before others."""
    walker = pytest.importorskip("pettingzoo.sisl.multiwalker_v9")
    given = {"terminate_on_fall": False, "remove_on_fall": True} if options else {}
    ended, fewer = agrees(WALKER + options, walker.parallel_env(**given), 200)
    assert ended > 0
    assert (fewer > 0) == bool(options)


def test_waterworld_is_stepped_as_it_is() -> None:
    """It left PettingZoo after 1.25 and needs pymunk below 7, so most installs lack it."""
    water = pytest.importorskip("pettingzoo.sisl.waterworld_v4")
    options = {"max_cycles": 20, "n_pursuers": 3}
    assert agrees(f"{WATER}?max_cycles=20&n_pursuers=3", water.parallel_env(**options), 60) == (3, 0)


def test_an_env_of_turns_is_converted() -> None:
    walker = pytest.importorskip("pettingzoo.sisl.multiwalker_v9")
    name = WALKER.replace("parallel_env", "env")
    assert envs.make(name).spec.n_agents == 3
    assert agrees(name, walker.parallel_env(), 200)[0] > 0


def test_agents_that_have_ended_show_zeros_and_those_that_join_are_seen_at_once() -> None:
    """The left agent leaves at its second step and goes on being shown and paid; the right one joins then."""

    class Guests:
        possible_agents = ("left", "right")
        observation_space = staticmethod(lambda agent: Box(-9, 9, (1,), np.float32))
        action_space = staticmethod(lambda agent: Box(-1, 1, (1,), np.float32))

        def reset(self, seed: int | None = None) -> tuple[dict, dict]:
            self.agents, self.time = ["left"], 0
            return {"left": np.ones(1)}, {"left": {}}

        def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
            self.time += 1
            rows = {"left": np.ones(1)} | ({"right": np.full(1, 7.0)} if self.time >= 2 else {})
            ended = {agent: agent == "left" and self.time >= 2 for agent in rows}
            self.agents = ["left"] if self.time < 2 else ["right"]
            return rows, dict.fromkeys(rows, 1.0), ended, dict.fromkeys(rows, False), {agent: {} for agent in rows}

    spec = EnvSpec("guests", (1, 1), (1, 1), 0, 9, ("return/left", "return/right"),
                   agents=("left", "right"), act_low=((-1.0,),) * 2, act_high=((1.0,),) * 2)  # fmt: skip
    world = PettingZooInstance(Guests(), spec, mean=False)
    world.reset(0)
    steps = [world.step(np.zeros((2, 1)), 0) for _ in range(3)]
    assert [step.next.obs.ravel().tolist() for step in steps] == [[1.0, 0.0], [1.0, 7.0], [0.0, 7.0]]
    assert [step.reward for step in steps] == [1.0, 1.0, 1.0]
