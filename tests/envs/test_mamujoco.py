"""Multi-Agent MuJoCo is, number for number, gymnasium-robotics' and Gymnasium's."""

from __future__ import annotations

import ctypes.util
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from omad import envs, tasks
from omad.envs.host_env import HostObservation, StepResult
from omad.envs.mamujoco import MujocoInstance, factored
from omad.envs.pool import Pool
from omad.errors import UserError
from omad.spec import EnvSpec
from omad.tasks import robots

for _package in ("mujoco", "gymnasium_robotics"):
    pytest.importorskip(_package)

SEVEN = ("ant-2x4", "ant-2x4d", "ant-4x2", "halfcheetah-2x3", "halfcheetah-6x1", "walker2d-2x3", "swimmer-2x1")
OTHERS = (*(name for name in robots.ROBOTS if name not in SEVEN), "manysegmentswimmer-3x2", "manysegmentant-2x1")
LEGS = {"1": ("hip_1", "ankle_1"), "2": ("hip_2", "ankle_2"), "3": ("hip_3", "ankle_3"), "4": ("hip_4", "ankle_4")}
CHEETAH = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
JOINTS: dict[str, list[tuple[str, ...]]] = {
    "ant-2x4": [LEGS["1"] + LEGS["2"], LEGS["3"] + LEGS["4"]],
    "ant-2x4d": [LEGS["1"] + LEGS["4"], LEGS["2"] + LEGS["3"]],
    "ant-2x4diag": [LEGS["1"] + LEGS["3"], LEGS["2"] + LEGS["4"]],
    "ant-4x2": [LEGS["1"], LEGS["2"], LEGS["3"], LEGS["4"]],
    "halfcheetah-2x3": [CHEETAH[:3], CHEETAH[3:]],
    "halfcheetah-6x1": [(joint,) for joint in CHEETAH],
    "walker2d-2x3": [
        ("foot_joint", "leg_joint", "thigh_joint"),
        ("foot_left_joint", "leg_left_joint", "thigh_left_joint"),
    ],
    "swimmer-2x1": [("motor1_rot",), ("motor2_rot",)],
}
"""The joints that each agent drives, in the order of the entries of its action."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo logs into the working directory."""
    monkeypatch.chdir(tmp_path)


def start(name: str) -> MujocoInstance:
    return envs.make(name).create(False)


def draw(rng: np.random.Generator, spec: EnvSpec) -> np.ndarray:
    """Actions that are mapped to [-1, 1] without rounding, zeros in the padding."""
    fine = np.round(rng.uniform(-1, 1, (spec.n_agents, spec.act_dim)) * 2.0**40) / 2.0**40
    return fine * spec.act_mask


def driven(spec: EnvSpec, action: np.ndarray, box: Any) -> list[np.ndarray]:
    """What each agent's row is in the units of the robot; all actuators of a robot have the same limits."""
    low, high = float(box.low[0]), float(box.high[0])
    rows = (1.0 - action) * (0.5 * low) + (1.0 + action) * (0.5 * high)
    return [row[:size] for row, size in zip(rows, spec.act_dims, strict=True)]


def padded(shown: dict[str, np.ndarray], width: int) -> np.ndarray:
    table = np.zeros((len(shown), width))
    for row, agent in zip(table, sorted(shown), strict=True):
        row[: len(shown[agent])] = shown[agent]
    return table


class Beside:
    """Ours in the protocols that there are, gymnasium-robotics' per obsk, and Gymnasium's; all in step."""

    def __init__(self, robot: str) -> None:
        import gymnasium

        scenario, parts, _, local, *_ = robots.robot(robot)
        self.ours = {kind: start(f"mamujoco-{kind}/{robot}") for kind in (tasks.PROTOCOLS if local else ("full",))}
        self.theirs = {f"obsk{k}": reference(scenario, parts, k) for k in (0, 1)}
        self.plain: Any = None
        if not scenario.startswith("ManySegment"):  # Gymnasium has no such robot
            self.plain = gymnasium.make(f"{scenario}-v5", disable_env_checker=True)
        self.spec = self.ours["full"].spec
        self.box = self.theirs["obsk0"].single_agent_env.action_space

    def compare(self, seen: dict[str, HostObservation], shown: dict[str, Any], state: np.ndarray | None) -> None:
        n = self.spec.n_agents
        due = np.concatenate([np.tile(seen["full"].state, (n, 1)), np.eye(n)], axis=1)
        assert (seen["full"].obs == due).all()
        for kind, one in seen.items():
            assert one.obs.shape == (n, self.ours[kind].spec.obs_dim)
            assert one.state.shape == (self.spec.state_dim,)
            if kind != "full":
                assert (one.obs == padded(shown[kind], self.ours[kind].spec.obs_dim)).all()
            for them in self.theirs.values():
                assert (one.state == them.state()).all()
            assert state is None or (one.state == state).all()

    def reset(self, seed: int) -> None:
        seen = {kind: world.reset(seed) for kind, world in self.ours.items()}
        shown = {kind: them.reset(seed=seed)[0] for kind, them in self.theirs.items()}
        self.compare(seen, shown, None if self.plain is None else self.plain.reset(seed=seed)[0])

    def step(self, action: np.ndarray) -> tuple[dict[str, StepResult], dict[str, Any]]:
        rows = driven(self.spec, action, self.box)
        acts = {f"agent_{i}": row for i, row in enumerate(rows)}
        moved = {kind: world.step(action, 0) for kind, world in self.ours.items()}
        shown, state = {}, None
        for kind, them in self.theirs.items():
            shown[kind], reward, ended, *_ = them.step(acts)
            for one in moved.values():
                assert all(one.reward == value for value in reward.values())
                assert all(one.terminated == value for value in ended.values())
        if self.plain is not None:
            joint = self.theirs["obsk0"].map_local_actions_to_global_action(acts)
            state, value, over, *_ = self.plain.step(joint)
            assert all(one.reward == value and one.terminated == over for one in moved.values())
        self.compare({kind: one.next for kind, one in moved.items()}, shown, state)
        assert not any(one.truncated for one in moved.values())
        return moved, shown


def reference(scenario: str, parts: str, obsk: int) -> Any:
    """gymnasium-robotics' own env; of the diagonal, which it does not have, by legs of its 4x2."""
    from gymnasium_robotics import mamujoco_v1

    if parts != "2x4diag":
        return mamujoco_v1.parallel_env(scenario, parts, agent_obsk=obsk)
    legs, edges, roots = mamujoco_v1.get_parts_and_edges("Ant", "4x2")
    pairs = {"partition": [legs[0] + legs[2], legs[1] + legs[3]], "edges": edges, "globals": roots}
    return mamujoco_v1.parallel_env("Ant", "2x4", agent_obsk=obsk, agent_factorization=pairs)


# ---------------------------------------------------------------- parity


@pytest.mark.parametrize(
    ("robot", "steps"),
    [
        *((robot, 400) for robot in ("ant-2x4", "halfcheetah-6x1", "walker2d-2x3", "swimmer-2x1")),
        *(pytest.param(robot, 1_500, marks=pytest.mark.slow) for robot in SEVEN),
    ],
)
def test_parity(robot: str, steps: int) -> None:
    """Random steps; episodes end by the task, or are cut after a bit more than a quarter of all."""
    rng, beside = np.random.default_rng(0), Beside(robot)
    seed, begun, ended = 0, 0, 0
    beside.reset(seed)
    for t in range(steps):
        moved, _ = beside.step(draw(rng, beside.spec))
        over = moved["full"].terminated
        ended += over
        if over or t - begun == steps // 4:
            seed, begun = seed + 1, t + 1
            beside.reset(seed)
    assert seed >= 3
    assert (ended > 0) == robot.startswith(("ant", "walker2d"))


@pytest.mark.parametrize("robot", OTHERS)
def test_parity_of_the_other_robots(robot: str) -> None:
    rng, beside = np.random.default_rng(1), Beside(robot)
    beside.reset(5)
    for t in range(49):  # the shortest time limit is 50
        moved, _ = beside.step(draw(rng, beside.spec))
        if moved["full"].terminated:
            beside.reset(100 + t)


@pytest.mark.parametrize("robot", (*SEVEN, *OTHERS))
def test_sizes_of_the_table(robot: str) -> None:
    """What is known before MuJoCo is imported is what the packages say."""
    scenario, parts, acts, none, one, state, horizon = robots.robot(robot)
    for k, due in ((0, none), (1, one)):
        them = reference(scenario, parts, k)
        agents = them.possible_agents
        assert acts == tuple(them.action_space(agent).shape[0] for agent in agents)
        if due:  # not for the robot whose local observations are not offered
            assert due == tuple(them.observation_space(agent).shape[0] for agent in agents)
        assert state == them.single_agent_env.observation_space.shape[0]
        assert horizon == them.single_agent_env.spec.max_episode_steps
    for kind in tasks.PROTOCOLS if none else ("full",):
        spec = envs.make(f"mamujoco-{kind}/{robot}").spec
        assert spec.obs_dims == {"full": (state + len(acts),) * len(acts), "obsk0": none, "obsk1": one}[kind]
        assert (spec.act_dims, spec.state_dim, spec.horizon) == (acts, state, horizon)


# ---------------------------------------------------------------- routing


@pytest.mark.parametrize("robot", JOINTS)
@pytest.mark.parametrize("kind", ["full", "obsk0"])
def test_every_actuator_is_routed_once_by_the_name_of_its_joint(robot: str, kind: str) -> None:
    world = start(f"mamujoco-{kind}/{robot}")
    model, data, spec = world.single.model, world.single.data, world.spec
    names = [model.joint(model.actuator_trnid[i, 0]).name for i in range(model.nu)]
    base = np.full((spec.n_agents, spec.act_dim), -0.25)
    moved = []
    for agent, joints in enumerate(JOINTS[robot]):
        assert spec.act_dims[agent] == len(joints)
        for entry, joint in enumerate(joints):
            world.reset(0)
            world.step(base, 0)
            before = data.ctrl.copy()
            action = base.copy()
            action[agent, entry] = 0.75
            world.reset(0)
            world.step(action, 0)
            changed = np.flatnonzero(data.ctrl != before)
            assert [names[i] for i in changed] == [joint]
            assert data.ctrl[changed] == [0.75]
            moved += list(changed)
    assert sorted(moved) == list(range(model.nu))


def test_the_diagonal_is_legs_one_and_three_against_two_and_four() -> None:
    """Places of the feet at rest, and not names, say what is diagonal."""
    world = start("mamujoco-obsk0/ant-2x4diag")
    model, data = world.single.model, world.single.data
    world.reset(0)
    for route in world.routes:
        joints = [model.actuator_trnid[i, 0] for i in route]
        feet = [data.xanchor[j][:2] - data.qpos[:2] for j in joints if model.joint(j).name.startswith("ankle")]
        assert len(feet) == 2
        assert feet[0] @ feet[1] < -0.9 * np.linalg.norm(feet[0]) * np.linalg.norm(feet[1])


def test_the_same_joint_action_moves_all_groupings_of_ant_alike() -> None:
    rng = np.random.default_rng(2)
    worlds = [start(f"mamujoco-full/ant-{parts}") for parts in ("2x4", "2x4d", "2x4diag")]
    for world in worlds:
        world.reset(9)
    for _ in range(60):
        joint = draw(rng, worlds[0].spec).ravel()
        moved = [world.step(np.stack([joint[route] for route in world.routes]), 0) for world in worlds]
        assert moved[0].next.obs.tobytes() == moved[1].next.obs.tobytes() == moved[2].next.obs.tobytes()
        assert moved[0].reward == moved[1].reward == moved[2].reward


@pytest.mark.parametrize("act", [7.5, np.inf])
def test_actions_beyond_one_are_clipped(act: float) -> None:
    """Of a robot whose limits are not one."""
    world = start("mamujoco-full/humanoid-9-8")
    world.reset(0)
    world.step(np.full((2, 9), act), 0)
    assert (world.single.data.ctrl == world.high).all()
    world.reset(0)
    world.step(np.full((2, 9), -act), 0)
    assert (world.single.data.ctrl == world.low).all()


# ---------------------------------------------------------------- traps


def test_no_distance_means_one_agent_to_the_package_but_all_to_us() -> None:
    from gymnasium_robotics import mamujoco_v1

    assert len(mamujoco_v1.parallel_env("Ant", "4x2", agent_obsk=None).possible_agents) == 1
    world = start("mamujoco-full/ant-4x2")
    seen = world.reset(0)
    assert seen.obs.shape == (4, 109)
    assert (seen.obs[:, 105:] == np.eye(4)).all()
    assert (seen.obs[:, :105] == seen.state).all()


@pytest.mark.parametrize("robot", ["walker2d-2x3", "hopper-3x1"])
@pytest.mark.parametrize("k", [0, 1])
def test_fast_joints(robot: str, k: int) -> None:
    """The state is clipped at 10; local observations are what the package shows, clipped (Hopper) or not (Walker2d)."""
    scenario, parts, *_ = robots.robot(robot)
    world, them = start(f"mamujoco-obsk{k}/{robot}"), reference(scenario, parts, k)
    world.reset(0)
    them.reset(seed=0)
    speed = np.linspace(-30, 30, world.single.data.qvel.size)
    for single in (world.single, them.single_agent_env.unwrapped):
        single.data.qvel[:] = speed
    action = np.zeros((world.spec.n_agents, world.spec.act_dim))
    moved = world.step(action, 0)
    shown, *_ = them.step(
        {f"agent_{i}": row for i, row in enumerate(driven(world.spec, action, them.action_space("agent_0")))}
    )
    assert np.abs(world.single.data.qvel).max() > 10
    assert np.abs(moved.next.state[-speed.size :]).max() == 10
    assert (moved.next.state == them.state()).all()
    assert (np.abs(moved.next.obs).max() > 10) == (scenario == "Walker2d")
    assert (moved.next.obs == padded(shown, world.spec.obs_dim)).all()


def test_short_observations_are_padded_with_zeros() -> None:
    world = start("mamujoco-obsk1/halfcheetah-6x1")
    assert world.spec.obs_dims == (9, 9, 8, 9, 9, 8)
    rng = np.random.default_rng(0)
    world.reset(0)
    for _ in range(5):
        obs = world.step(draw(rng, world.spec), 0).next.obs
        assert (obs[[2, 5], 8] == 0).all()
        assert (obs * world.spec.obs_mask == obs).all()
        assert (obs[[0, 1, 3, 4], 8] != 0).all()


# ---------------------------------------------------------------- the clock


@pytest.mark.parametrize(("robot", "limit"), [("halfcheetah-2x3", 1000), ("reacher-2x1", 50), ("pusher-3p", 100)])
def test_the_clock_truncates(robot: str, limit: int) -> None:
    world = start(f"mamujoco-full/{robot}")
    assert world.spec.horizon == limit
    rng = np.random.default_rng(0)
    for seed in (0, 1):
        world.reset(seed)
        flags = [world.step(draw(rng, world.spec), 0)[2:4] for _ in range(limit)]
        assert flags == [(False, False)] * (limit - 1) + [(False, True)]


# ---------------------------------------------------------------- saving


class Plain(NamedTuple):
    state: bytes
    obs: bytes
    reward: float
    flags: tuple[bool, bool]


def plain(moved: StepResult) -> Plain:
    return Plain(
        moved.next.state.tobytes(), moved.next.obs.tobytes(), moved.reward, (moved.terminated, moved.truncated)
    )  # fmt: skip


@pytest.mark.parametrize("robot", ["ant-4x2", "humanoid-9-8", "reacher-2x1", "swimmer-2x1", "walker2d-2x3"])
@pytest.mark.parametrize("kind", ["full", "obsk1"])
def test_another_world_goes_on_bit_for_bit(robot: str, kind: str) -> None:
    """One that was never reset, and one that was in the middle of something else; across the end of the clock."""
    rng = np.random.default_rng(3)
    name = f"mamujoco-{kind}/{robot}"
    world, fresh, busy = start(name), start(name), start(name)
    world.reset(1)
    sizes = {world.save().size}
    for _ in range(min(60, world.spec.horizon - 20)):
        if world.step(0.3 * draw(rng, world.spec), 0).terminated:
            world.reset(2)
    busy.reset(7)
    for _ in range(11):
        busy.step(draw(rng, world.spec), 0)
    saved = world.save()
    sizes |= {saved.size}
    keep = saved.copy()
    actions = [draw(rng, world.spec) for _ in range(40)]
    due = [plain(world.step(action, 0)) for action in actions]
    assert (saved == keep).all()  # a copy, not a view of what runs
    for other in (fresh, busy):
        other.load(saved)
        assert (other.save() == saved).all()
        assert [plain(other.step(action, 0)) for action in actions] == due
        sizes |= {other.save().size}
        assert (other.reset(4).state == world.reset(4).state).all()
    assert len(sizes) == 1
    assert saved.dtype == np.uint8
    if robot == "reacher-2x1":
        assert any(one.flags == (False, True) for one in due)


def test_one_world_goes_back() -> None:
    """After a fall, with contacts, to before it."""
    rng = np.random.default_rng(0)
    world = start("mamujoco-obsk0/ant-2x4")
    world.reset(0)
    for _ in range(15):
        world.step(draw(rng, world.spec), 0)
    saved = world.save()
    actions = [draw(rng, world.spec) for _ in range(120)]
    due = [plain(world.step(action, 0)) for action in actions]
    world.load(saved)
    assert [plain(world.step(action, 0)) for action in actions] == due


# ---------------------------------------------------------------- packages, processes


@pytest.mark.parametrize("package", ["mujoco", "gymnasium_robotics"])
def test_a_missing_package_is_refused_with_what_to_install(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else real(name, *rest))
    env = envs.make("mamujoco-full/ant-2x4")  # sizes are known without it
    assert env.spec.state_dim == 105
    with pytest.raises(UserError, match=rf"needs the package {package}; .*pip install 'omad\[mujoco\]'"):
        env.create(False)


def test_a_table_that_is_wrong_is_refused() -> None:
    spec = EnvSpec("wrong", (63,) * 3, (4, 2, 2), 105, 1000)
    with pytest.raises(UserError, match="2 agents drive 8 actuators here, but 3 and 8 are expected"):
        MujocoInstance(spec, "Ant", "2x4", 1)


def test_the_diagonal_is_offered_at_every_distance() -> None:
    assert [len(factored("Ant", "2x4diag", k).possible_agents) for k in (0, 1, 2)] == [2, 2, 2]


def test_worlds_in_processes_say_the_same() -> None:
    """In single precision."""
    name = "mamujoco-obsk1/halfcheetah-6x1"
    env, world = envs.make(name), start(name)
    rng = np.random.default_rng(0)
    pool = Pool.of(name, env.spec, n_envs=2, workers=2)
    try:
        pool.reset(np.asarray([3, 4], np.uint64))
        world.reset(4)
        for t in range(3):
            action = rng.uniform(-1, 1, (2, 6, 1)).astype(np.float32)
            pool.send(action, np.zeros(2, np.uint64), np.zeros(2, np.uint64), t)
            arrival, moved = pool.receive(t), world.step(action[1].astype(float), 0)
            assert (arrival.next_obs[1] == moved.next.obs.astype(np.float32)).all()
            assert (arrival.next_state[1] == moved.next.state.astype(np.float32)).all()
            assert arrival.reward[1] == np.float32(moved.reward)
    finally:
        pool.close()


@pytest.mark.slow
def test_chains_start_in_several_processes_at_once() -> None:
    """gymnasium-robotics writes such a robot to a file of one name, reads it and deletes it."""
    name = "mamujoco-full/manysegmentswimmer-3x2"
    for _ in range(3):
        pool = Pool.of(name, envs.make(name).spec, n_envs=4, workers=4)
        pool.close()


def test_files_in_the_folder_for_temporary_files_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers run there, and anyone may write there."""
    for module in ("gymnasium", "mujoco", "numpy", "json"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit(7)\n")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    name = "mamujoco-full/swimmer-2x1"
    Pool.of(name, envs.make(name).spec, n_envs=1).close()


def test_the_camera_follows_the_robot() -> None:
    """Half a hundred metres on, the robot is in the picture still; in a process that may choose EGL."""
    code = """
import os, ctypes.util
os.environ.setdefault("MUJOCO_GL", "egl" if ctypes.util.find_library("EGL") else "osmesa")
import numpy as np, mujoco
from omad import envs
world = envs.make("mamujoco-full/halfcheetah-2x3").create(True)
world.reset(0)
shares = []
for x in (0.0, 50.0):
    world.single.data.qpos[0] = x
    mujoco.mj_forward(world.single.model, world.single.data)
    picture = world.render().astype(int)
    shares.append(float(((picture[..., 0] - picture[..., 2]) > 50).mean()))
print(*shares)
"""
    if not (ctypes.util.find_library("EGL") or ctypes.util.find_library("OSMesa")):
        pytest.skip("there is no library to draw with here")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    near, far = map(float, done.stdout.split()[-2:])
    assert near > 0.005 and far > near / 2
