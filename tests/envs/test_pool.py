"""Worlds in worker processes: order, seeds, bytes, and what is said when one fails."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from omad import envs, processes
from omad.envs import worker
from omad.envs.host_env import HostObservation
from omad.envs.pool import Pool, PoolStep, seeds_of, worker_count
from omad.errors import EnvFailed

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import odd_worlds  # noqa: E402

START = 60.0
"""Seconds that a worker may take to start on a busy machine."""


@pytest.fixture(autouse=True)
def _odd(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool hands the parent's path on to its workers."""
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    before = set(psutil.Process().children())
    yield
    assert set(psutil.Process().children()) <= before


def pool_of(n_envs: int, workers: int = 1, factory: str = "odd_worlds:counter", **arguments: Any) -> Pool:
    spec = odd_worlds.counter(**arguments).spec if factory.endswith(":counter") else odd_worlds.counter().spec
    return Pool(factory, arguments, spec, n_envs, workers, START)


def u64(*numbers: int) -> np.ndarray:
    return np.asarray(numbers, np.uint64)


def seed_of(obs: np.ndarray) -> list[int]:
    """Of each env, the seed that its first agent sees."""
    return [odd_worlds.whole(one[0, : odd_worlds.PIECES]) for one in obs]


def time_of(obs: np.ndarray) -> list[float]:
    return obs[:, 0, odd_worlds.PIECES].tolist()


def play(pool: Pool, steps: int, first: int = 0) -> list[PoolStep]:
    """Steps with actions and seeds that are functions of the step and the env."""
    results = []
    for t in range(first, first + steps):
        rng = np.random.default_rng(t)
        n = pool.n_envs
        actions = rng.uniform(-1, 1, (n, 2, 2)).astype(np.float32)
        pool.send(actions, rng.integers(0, 2**64, n, np.uint64), rng.integers(0, 2**64, n, np.uint64), t)
        results.append(pool.receive(t))
    return results


def same(one: list[PoolStep], other: list[PoolStep]) -> bool:
    def flat(results: list[PoolStep]) -> list[bytes]:
        return [
            np.asarray(leaf).tobytes()
            for result in results
            for part in result
            for leaf in (part.values() if isinstance(part, dict) else [part])
        ]

    return len(one) == len(other) and flat(one) == flat(other)


# ---------------------------------------------------------------- order


def test_every_world_gets_its_own_action_and_seeds() -> None:
    pool = pool_of(5, 2, state=True)
    try:
        obs, state = pool.reset(u64(10, 11, 12, 13, 14))
        assert (obs.shape, state.shape, obs.dtype) == ((5, 2, odd_worlds.OBS), (5, odd_worlds.STATE), np.float32)
        assert seed_of(obs) == [10, 11, 12, 13, 14]
        actions = np.arange(20, dtype=np.float32).reshape(5, 2, 2) / 32
        pool.send(actions, u64(20, 21, 22, 23, 24), u64(*[99] * 5), 0)
        result = pool.receive(0)
        assert (result.next_obs[:, :, -2:] == actions).all()
        assert seed_of(result.next_obs) == [10, 11, 12, 13, 14]
        assert [odd_worlds.whole(one[:4]) for one in result.next_state] == [20, 21, 22, 23, 24]
        assert result.reward.tolist() == (1 + actions.sum((1, 2))).tolist()
        assert (result.obs == result.next_obs).all()
        assert (result.state == result.next_state).all()
    finally:
        pool.close()


def test_results_do_not_depend_on_the_number_of_workers() -> None:
    seeds = u64(0, 1, 2, 3, 4)
    told = []
    for workers in (1, 2, 3):
        pool = pool_of(5, workers, horizon=3, state=True)
        try:
            first = [part.tobytes() for part in pool.reset(seeds)]
            assert len(pool._workers) == workers
            assert sum(one.size for one in pool._workers) == 5
            told.append((first, play(pool, 7), pool.save(7)))
        finally:
            pool.close()
    for first, steps, saved in told[1:]:
        assert first == told[0][0]
        assert same(steps, told[0][1])
        assert (saved == told[0][2]).all()


def test_an_ended_episode_shows_its_true_successor_and_where_the_next_begins() -> None:
    pool = pool_of(3, 2, horizon=2, state=True)
    try:
        pool.reset(u64(1, 2, 3))
        still = np.zeros((3, 2, 2), np.float32)
        pool.send(still, u64(0, 0, 0), u64(50, 60, 70), 0)
        result = pool.receive(0)
        assert seed_of(result.obs) == [1, 2, 3]  # reset seeds are not used
        assert not result.terminated.any()
        assert not result.truncated.any()
        pool.send(still + 0.5, u64(7, 8, 9), u64(51, 61, 71), 1)
        result = pool.receive(1)
        assert result.terminated.tolist() == [True, False, True]
        assert result.truncated.tolist() == [False, True, False]
        assert (seed_of(result.next_obs), time_of(result.next_obs)) == ([1, 2, 3], [2, 2, 2])
        assert (result.next_obs[:, :, -2:] == 0.5).all()
        assert [odd_worlds.whole(one[:4]) for one in result.next_state] == [7, 8, 9]
        assert (seed_of(result.obs), time_of(result.obs)) == ([51, 61, 71], [0, 0, 0])
        assert (result.state[:, :4] == 0).all()
        pool.send(still, u64(0, 0, 0), u64(52, 62, 72), 2)
        result = pool.receive(2)
        assert (seed_of(result.obs), time_of(result.obs)) == ([51, 61, 71], [1, 1, 1])
    finally:
        pool.close()


def test_only_worlds_whose_episode_ended_are_reset() -> None:
    pool = pool_of(2, 1, horizon=3)
    try:
        pool.reset(u64(4, 6))
        saved = pool.save(0)
        play(pool, 1)
        table = pool.save(1).copy()
        table[0] = saved[0]  # the first world is one step behind
        pool.load(table, 1)
        results = play(pool, 2, 1)
        assert [result.truncated.tolist() for result in results] == [[False, False], [False, True]]
        assert seed_of(results[-1].obs)[0] == 4
        assert time_of(results[-1].obs) == [2, 0]
        assert play(pool, 1, 3)[0].truncated.tolist() == [True, False]
    finally:
        pool.close()


def test_info_and_an_empty_state() -> None:
    pool = pool_of(3, 3)
    try:
        _, state = pool.reset(u64(1, 2, 3))
        assert state.shape == (3, 0)
        actions = np.asarray([0.25, -0.5, 1.0], np.float32)[:, None, None] * np.ones((3, 2, 2), np.float32)
        pool.send(actions, u64(1, 1, 1), u64(1, 1, 1), 0)
        result = pool.receive(0)
        assert list(result.info) == ["time", "twice"]
        assert result.info["time"].tolist() == [1, 1, 1]
        assert result.info["twice"].tolist() == [0.5, -1.0, 2.0]
        assert result.reward.tolist() == [2.0, -1.0, 5.0]
        assert result.next_state.shape == result.state.shape == (3, 0)
        assert (result.terminated.dtype, result.truncated.dtype) == (np.bool_, np.bool_)
        assert seed_of(result.obs) == [1, 2, 3]
    finally:
        pool.close()


def test_a_number_of_workers() -> None:
    assert [worker_count(5, asked) for asked in (1, 3, 5, 9)] == [1, 3, 5, 5]
    assert worker_count(1) == 1
    assert worker_count(10**6) == processes.cores_at_once()


# ---------------------------------------------------------------- seeds


def test_seeds_of_64_bits_survive() -> None:
    pool = pool_of(4, 2, horizon=1, state=True)
    large = [2**64 - 1, 2**63 + 5, 2**32, 0x0123456789ABCDEF]
    try:
        obs, _ = pool.reset(u64(*large))
        assert seed_of(obs) == large
        pool.send(np.zeros((4, 2, 2), np.float32), u64(*large[::-1]), u64(*(x ^ 1 for x in large)), 0)
        result = pool.receive(0)
        assert [odd_worlds.whole(one[:4]) for one in result.next_state] == large[::-1]
        assert seed_of(result.obs) == [x ^ 1 for x in large]
    finally:
        pool.close()


def test_pairs_of_words_are_joined() -> None:
    """The first word is the low one."""
    words = np.asarray([[[1, 0], [0, 1]], [[2**32 - 1, 2**31], [7, 9]]], np.uint32)
    assert seeds_of(words).tolist() == [1, 2**32, 2**31 * 2**32 + 2**32 - 1, 9 * 2**32 + 7]
    assert seeds_of(words).dtype == np.uint64
    assert seeds_of(words[:, ::-1]).tolist() == [2**32, 1, 9 * 2**32 + 7, 2**31 * 2**32 + 2**32 - 1]
    assert seeds_of(np.zeros((0, 2), np.uint32)).shape == (0,)


# ---------------------------------------------------------------- saving


def test_saved_worlds_go_on_in_another_pool() -> None:
    pool, other = pool_of(5, 2, state=True), pool_of(5, 3, state=True)
    try:
        pool.reset(u64(5, 6, 7, 8, 9))
        play(pool, 2)
        saved = pool.save(2)
        assert (saved.shape, saved.dtype) == ((5, 56), np.uint8)
        due = play(pool, 5, 2)
        other.load(saved, 2)
        assert (other.save(2) == saved).all()
        assert same(play(other, 5, 2), due)
        pool.load(saved, 2)
        assert same(play(pool, 5, 2), due)
    finally:
        pool.close()
        other.close()


def test_worlds_that_cannot_be_saved_give_no_bytes() -> None:
    pool = pool_of(5, 2, saves=False)
    try:
        pool.reset(u64(1, 2, 3, 4, 5))
        assert pool.save(0).shape == (5, 0)
        assert time_of(play(pool, 1)[0].obs) == [1] * 5  # and go on
    finally:
        pool.close()


def test_worlds_that_save_themselves_in_unequal_sizes_are_an_error() -> None:
    """Cut in rows of the mean size, every world but the first would be given bytes of another."""
    pool = pool_of(2, 2, "odd_worlds:sized")
    try:
        pool.reset(u64(1, 3))
        with pytest.raises(EnvFailed, match="bytes"):
            pool.save(0)
    finally:
        pool.close()


# ---------------------------------------------------------------- faults

AT_STEP = [
    ("raise", r"env 3 failed at vector step 11: ValueError: the motor is on fire \(odd_worlds.py, line \d+\)"),
    ("nan obs", r"env 3 failed at vector step 11: step\(\) returned an observation that is not finite"),
    ("inf state", r"env 3 failed at vector step 11: step\(\) returned a state that is not finite"),
    ("nan reward", r"env 3 failed at vector step 11: step\(\) returned the reward nan"),
    ("inf reward", r"env 3 failed at vector step 11: step\(\) returned the reward inf"),
    ("shape", r"env 3 failed at vector step 11: .*observation of shape \(2, 6\); \(2, 7\) was declared"),
    ("state shape", r"env 3 failed at vector step 11: .*state of shape \(6,\); \(5,\) was declared"),
    ("large obs", r"env 3 failed at vector step 11: .*observation"),
    ("large reward", r"env 3 failed at vector step 11: .*reward"),
    ("no reward", r"env 3 failed at vector step 11: .*"),
    ("array reward", r"env 3 failed at vector step 11: .*"),
    ("no info", r"env 3 failed at vector step 11: .*time"),
    ("nothing", r"env 3 failed at vector step 11: .*"),
    ("ragged", r"env 3 failed at vector step 11: .*"),
    ("text", r"env 3 failed at vector step 11: .*"),
    ("kill", r"one of envs 2 to 3 died at vector step 11 \(killed by signal 9\)"),
    ("exit", r"env 3 failed at vector step 11: it tried to end the process with sys.exit\(3\)"),
    ("hang", r"one of envs 2 to 3 did not answer within 1 s at vector step 11"),
]
"""What the world with seed 13 does when it takes its second step, and what is said; two workers share four worlds."""


@pytest.mark.parametrize(("kind", "words"), AT_STEP, ids=[kind for kind, _ in AT_STEP])
def test_a_fault_names_env_and_step(kind: str, words: str) -> None:
    pool = pool_of(4, 2, state=True, fault={"kind": kind, "seed": 13, "time": 2})
    pids = [one.process.pid for one in pool._workers]
    try:
        pool.reset(u64(10, 11, 12, 13))
        play(pool, 1, 10)
        pool.timeout_s = 1.0 if kind == "hang" else 20.0
        begun = time.monotonic()
        with pytest.raises(EnvFailed, match=f"odd/counter: {words}"):
            play(pool, 1, 11)
        assert time.monotonic() - begun < 10
    finally:
        begun = time.monotonic()
        pool.close()
        assert time.monotonic() - begun < 10
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize("kind", ["raise", "nan obs", "kill"])
@pytest.mark.parametrize("where", ["at the start", "after an episode"])
def test_a_fault_in_a_reset(kind: str, where: str) -> None:
    pool = pool_of(2, 2, horizon=2, fault={"kind": kind, "where": "reset", "seed": 5})
    words = {"raise": "ValueError: the motor", "nan obs": r"reset\(\) returned an obs", "kill": "signal 9"}[kind]
    try:
        if where == "at the start":
            with pytest.raises(EnvFailed, match=f"env 1 (failed|died) at vector step 0.*{words}"):
                pool.reset(u64(4, 5))
            return
        pool.reset(u64(4, 4))
        play(pool, 1)
        pool.send(np.zeros((2, 2, 2), np.float32), u64(0, 0), u64(6, 5), 1)
        with pytest.raises(EnvFailed, match=f"env 1 (failed|died) at vector step 1.*{words}"):
            pool.receive(1)
    finally:
        pool.close()


@pytest.mark.parametrize("where", ["save", "load"])
def test_a_fault_in_saving_or_loading(where: str) -> None:
    pool = pool_of(3, 2, fault={"kind": "raise", "where": where, "seed": 7})
    try:
        pool.reset(u64(5, 6, 7))
        with pytest.raises(EnvFailed, match="env 2 failed at vector step 42: ValueError: the motor is on fire"):
            pool.load(pool.save(42), 42)
    finally:
        pool.close()


@pytest.mark.parametrize("kind", ["raise", "kill", "exit"])
def test_a_world_that_cannot_be_started(kind: str) -> None:
    words = {
        "raise": r"failed.*ValueError: the motor is on fire",
        "kill": "died.*signal 9",
        "exit": r"failed.*sys.exit\(3\)",
    }
    with pytest.raises(EnvFailed, match=f"odd/counter: env [01] {words[kind]}"):
        pool_of(2, 2, "odd_worlds:unborn", kind=kind)


def test_the_second_world_of_a_worker_cannot_be_started() -> None:
    with pytest.raises(EnvFailed, match=r"env 1 failed at vector step 0: ValueError: the motor is on fire"):
        pool_of(2, 1, "odd_worlds:unborn", after=1)


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("odd_worlds:refused", "ImportError: no module named unobtainium"),
        ("odd_worlds:missing", "AttributeError: module 'odd_worlds' has no attribute 'missing'"),
        ("no_such_module:env", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_an_env_that_cannot_be_made(factory: str, words: str) -> None:
    with pytest.raises(EnvFailed, match=words):
        pool_of(1, 1, factory)


def test_a_hang_at_the_start() -> None:
    begun = time.monotonic()
    with pytest.raises(EnvFailed, match="env 0 did not answer within 2 s at vector step 0"):
        Pool("odd_worlds:unborn", {"kind": "hang"}, odd_worlds.counter().spec, 1, 1, timeout_s=2.0)
    assert time.monotonic() - begun < 8


def test_a_hang_of_one_world_names_its_worker_and_not_another() -> None:
    pool = pool_of(3, 3, fault={"kind": "hang", "seed": 2, "time": 1})
    try:
        pool.reset(u64(1, 2, 3))
        pool.timeout_s = 1.0
        with pytest.raises(EnvFailed, match="env 1 did not answer within 1 s at vector step 4"):
            play(pool, 1, 4)
    finally:
        pool.close()


def test_closing_does_not_wait_for_worlds_that_do_not_close() -> None:
    pool = pool_of(2, 2, fault={"kind": "hang", "where": "close", "seed": 0})
    begun = time.monotonic()
    pool.close()
    assert time.monotonic() - begun < 8
    pool.close()  # again does nothing


# ---------------------------------------------------------------- processes


def test_what_a_world_prints_does_not_get_among_the_answers(capfd: pytest.CaptureFixture[str]) -> None:
    pool = pool_of(2, 1, fault={"kind": "print", "seed": 1, "time": 1})
    try:
        pool.reset(u64(1, 2))
        assert time_of(play(pool, 1)[0].obs) == [1, 1]
        assert time_of(play(pool, 1, 1)[0].obs) == [2, 2]
    finally:
        pool.close()
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("x") == 100_000


def test_a_world_that_reads_the_keyboard_gets_nothing() -> None:
    pool = pool_of(1, 1, fault={"kind": "stdin", "seed": 1, "time": 1})
    try:
        pool.reset(u64(1))
        assert play(pool, 1)[0].reward == 0
    finally:
        pool.close()


def test_a_worker_does_not_import_jax() -> None:
    assert "jax" in sys.modules
    pool = pool_of(2, 1, state=True)
    try:
        _, state = pool.reset(u64(1, 2))
        assert (state[:, -1] == 0).all()
        assert (play(pool, 1)[0].next_state[:, -1] == 0).all()
    finally:
        pool.close()


@pytest.mark.parametrize("name", ["mamujoco-full/swimmer-2x1", "pettingzoo:odd_parallel:pair"])
def test_envs_that_need_no_jax_are_made_and_stepped_without_it(name: str, tmp_path: Path) -> None:
    """As a worker would; JAX takes half a second and 150 MB in each."""
    for package in ("mujoco", "gymnasium_robotics", "pettingzoo"):
        pytest.importorskip(package)
    code = """
import sys, numpy as np
sys.path.insert(0, sys.argv[1])
import omad.envs.worker
from omad import envs
env = envs.make(sys.argv[2])
world = env.create(False)
world.reset(0)
world.step(np.zeros((env.spec.n_agents, env.spec.act_dim)), 0)
print([name for name in ("jax", "equinox", "matplotlib") if name in sys.modules])
"""
    command = [sys.executable, "-c", code, str(HERE), name]
    told = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_that_ask_to_stop_are_for_the_parent(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first moment of a worker's life; a signal to the parent's group does not even reach it."""
    start = Pool._start

    def struck(pool: Pool, *arguments: Any) -> None:
        start(pool, *arguments)
        pool._workers[-1].process.send_signal(number)

    monkeypatch.setattr(Pool, "_start", struck)
    pool = pool_of(2, 2)
    try:
        pool.reset(u64(1, 2))
        for one in pool._workers:
            assert os.getpgid(one.process.pid) == os.getsid(one.process.pid) == one.process.pid
            one.process.send_signal(number)
        assert time_of(play(pool, 1)[0].obs) == [1, 1]
    finally:
        pool.close()


def test_time_while_a_worker_is_stopped_does_not_count_as_hanging() -> None:
    """More than the patience; a hang is reported all the same."""
    pool = pool_of(1, 1, fault={"kind": "hang", "seed": 1, "time": 2})
    pid = pool._workers[0].process.pid
    pool.reset(u64(1))
    pool.timeout_s = 1.2
    os.kill(pid, signal.SIGSTOP)
    waker = threading.Timer(2.4, os.kill, (pid, signal.SIGCONT))
    waker.start()
    try:
        assert time_of(play(pool, 1)[0].obs) == [1]
        with pytest.raises(EnvFailed, match="did not answer"):
            play(pool, 1, 1)
    finally:
        waker.join()
        pool.close()


@pytest.mark.parametrize("how", ["close", "kill"])
@pytest.mark.parametrize("kind", ["fork", "start", "daemon"])
def test_what_a_worker_has_started_ends_with_it(kind: str, how: str) -> None:
    """When it is closed; and when it is killed, except for what it has put into a session of its own."""
    pool = pool_of(1, 1, fault={"kind": kind, "seed": 1, "time": 1})
    try:
        pool.reset(u64(1))
        play(pool, 1)
        (child,) = psutil.Process(pool._workers[0].process.pid).children()
        if how == "kill":
            pool._workers[0].process.kill()
            with pytest.raises(EnvFailed, match="died at vector step 1"):
                play(pool, 1, 1)
    finally:
        begun = time.monotonic()
        pool.close()
        assert time.monotonic() - begun < 10
    if (kind, how) == ("daemon", "kill"):
        child.kill()
    assert gone([child])


def test_a_child_that_keeps_the_pipes_open_does_not_make_the_parent_wait() -> None:
    """Its parent died; even where the child could not be told to close them."""
    pool = pool_of(1, 1, "odd_worlds:counter", fault={"kind": "fork and die", "seed": 1, "time": 1})
    try:
        pool.reset(u64(1))
        begun = time.monotonic()
        with pytest.raises(EnvFailed, match=r"died at vector step 0 \(ended with exit code 4"):
            play(pool, 1)
        assert time.monotonic() - begun < 10
    finally:
        pool.close()


def gone(processes: list[psutil.Process], within: float = 10.0) -> bool:
    """Whether they have ended, at the latest after some time."""
    end = time.monotonic() + within
    while (left := [one for one in processes if lives(one)]) and time.monotonic() < end:
        time.sleep(0.05)
    return not left


PARENT = """
import sys, time
sys.path.insert(0, sys.argv[1])
import odd_worlds, numpy as np
from omad.envs import worker
from omad.envs.pool import Pool
fault = {"kind": sys.argv[2], "seed": 1, "time": 1}
pool = Pool("odd_worlds:counter", {"fault": fault}, odd_worlds.counter().spec, 3, 3)
pool.reset(np.asarray([1, 2, 3], np.uint64))
print(*(one.process.pid for one in pool._workers), flush=True)
pool.send(np.zeros((3, 2, 2)), np.zeros(3, np.uint64), np.zeros(3, np.uint64), 0)
time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["idle", "hang", "fork", "daemon"])
def test_workers_end_with_their_parent(kind: str) -> None:
    """Even if it is killed, and even if one of them hangs then; and so does what they have started."""
    command = [sys.executable, "-c", PARENT, str(HERE), "print" if kind == "idle" else kind]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout is not None
    workers: list[psutil.Process] = []
    try:
        workers = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        assert len(workers) == 3
        time.sleep(0.5)  # the step has begun
        assert all(one.is_running() for one in workers)
        if kind in ("fork", "daemon"):
            workers += [child for one in workers for child in one.children()]
            assert len(workers) == 4
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    try:
        assert gone(workers)
    finally:
        for one in workers:
            if lives(one):
                one.kill()


def lives(process: psutil.Process) -> bool:
    """Not gone, and not waiting for someone to read its exit code."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_pool_of_a_task_of_the_table() -> None:
    """A probe in its host form, which does import JAX."""
    name = "probe/timeout?host=true"
    pool = Pool.of(name, envs.make(name).spec, n_envs=2, workers=1)
    try:
        obs, _ = pool.reset(u64(1, 2))
        assert obs.shape == (2, 2, 1)
        pool.send(np.zeros((2, 2, 1), np.float32), u64(1, 2), u64(3, 4), 0)
        assert pool.receive(0).reward.tolist() == [1.0, 1.0]
    finally:
        pool.close()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((1, 2), "returned a tuple; it must return an omad StepResult"),
        ({"info": {}}, "info without 'worth', which spec.info_keys has"),
        ({"reward": np.zeros(2)}, "returned the reward array"),
        ({"terminated": "False"}, "returned the terminated 'False'; it must be one number, or true or false"),
    ],
)
def test_what_a_hosts_step_returns_is_looked_at(given: Any, words: str) -> None:
    """Whoever wrote it is told, in words of what may be returned."""
    spec = dataclasses.replace(odd_worlds.counter(state=True).spec, info_keys=("worth",))
    world = odd_worlds.Counter(spec, {"seed": -1}, True)
    step = world.step

    def wrong(action: Any, seed: int) -> Any:
        whole = step(action, seed)._replace(info={"worth": 1.0})
        return given if isinstance(given, tuple) else whole._replace(**given)

    world.step = wrong  # type: ignore[method-assign]
    worker.serve([world], spec, 0, worker.Frame(worker.RESET, 0, np.asarray([5], np.uint64).tobytes()))
    body = np.zeros((1, 2, 2), np.float32).tobytes() + np.asarray([7, 9], np.uint64).tobytes()
    with pytest.raises(worker._Stop) as stop:
        worker.serve([world], spec, 0, worker.Frame(worker.STEP, 1, body))
    assert words in str(stop.value.args[1])


class Reuses(odd_worlds.Counter):
    """Hands out the same two arrays every time, as many envs do."""

    def _see(self) -> HostObservation:
        fresh = super()._see()
        if not hasattr(self, "kept"):
            self.kept = fresh
        self.kept.obs[:], self.kept.state[:] = fresh
        return self.kept


def test_a_reset_that_uses_memory_again_does_not_reach_the_successor() -> None:
    """The last step of an episode shows its own time, 4, and the next episode begins at 0 beside it."""
    spec = odd_worlds.counter(state=True).spec
    world = Reuses(spec, {"seed": -1}, True)
    worker.serve([world], spec, 0, worker.Frame(worker.RESET, 0, np.asarray([5], np.uint64).tobytes()))
    body = np.zeros((1, 2, 2), np.float32).tobytes() + np.asarray([7, 9], np.uint64).tobytes()
    for now in (1, 2, 3, 4):
        (table,) = worker.serve([world], spec, 0, worker.Frame(worker.STEP, now, body))
        row = np.asarray(table)[0]
        seen = 2 * odd_worlds.OBS + odd_worlds.STATE
        assert row[odd_worlds.PIECES] == now
        assert row[row.size - seen + odd_worlds.PIECES] == now % 4
    assert [odd_worlds.whole(row[at : at + odd_worlds.PIECES]) for at in (0, row.size - seen)] == [5, 9]
