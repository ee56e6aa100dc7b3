"""Runs side by side: the same numbers as in one process, cut and gone on with, failures told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

import omad
from omad import api, cli, launch, launch_ray, processes
from omad.commands.dashboard import Stop, run_with_dashboard
from omad.config import resolve
from omad.errors import CallbackFailed, UserError
from omad.experiment import Experiment
from omad.run.folder import RunFolder
from omad.run.places import members
from omad.run.records import Ended

SMALL: dict[str, Any] = {
    "actor_width": 8, "actor_layers": 1, "critic_width": 8, "critic_layers": 1, "total_steps": 600,
    "warmup_steps": 100, "n_envs": 4, "batch_size": 8, "eval_every": 200, "eval_episodes": 1, "log_every": 100,
    "save_every": 200,
}  # fmt: skip
OMAD: dict[str, Any] = {"denoising_steps": 2, "time_frequencies": 4, "time_width": 4, "atoms": 11}


def small(algorithm: str = "hatd3", **fields: Any) -> Any:
    return resolve("probe/push", algorithm, **(SMALL | fields))


def lines(run: Path, name: str) -> list[dict[str, Any]]:
    """Without what the clock says."""
    found = [json.loads(row) for row in (run / name).read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("time/")} for line in found]


def test_a_runs_process_imports_nothing_that_lies_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a foreign study's."""
    (tmp_path / "select.py").write_text("raise SystemExit('executed')")
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    assert launch.begin(Path("run"), {0}).process.wait(60) == 2
    assert "is not a run folder" in Path("run/log.txt").read_text()


def test_a_group_gets_a_folder_of_its_own_where_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = (Experiment(small(seeds=2)).create_each() for _ in range(2))
    assert one != other and [path.name for path in one] == ["seed-0", "seed-1"]
    assert members(one[0].parent) == one and sorted(Path("runs").iterdir()) == sorted({one[0].parent, other[0].parent})


def test_fewer_runs_than_places_have_more_cores_each_and_no_cache_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NotStarted(Exception):
        pass

    def popen(words: list[str], env: dict[str, str], **_: Any) -> Any:
        seen.append((words[-2], env.get("JAX_ENABLE_COMPILATION_CACHE", "")))
        raise NotStarted

    seen: list[tuple[str, str]] = []
    run = Experiment(small()).create(tmp_path / "run")
    run.close()
    monkeypatch.setattr(launch, "available_cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(subprocess, "Popen", popen)
    before = jax.config.values["jax_enable_compilation_cache"]
    try:
        for keep in (True, False):
            jax.config.update("jax_enable_compilation_cache", keep)
            with pytest.raises(NotStarted):
                launch.side_by_side([run.path], 4, quiet)
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
    assert seen == [("0,1,2,3", ""), ("0,1,2,3", "false")]
    monkeypatch.setattr(
        RunFolder, "checkpoints", lambda run: [SimpleNamespace(vector_steps=1, env_steps=4)]
    )  # one that has begun on two stays on two
    manifest = json.loads((run.path / "manifest.json").read_text())
    (run.path / "manifest.json").write_text(json.dumps(manifest | {"cores": 2}))
    with pytest.raises(NotStarted):
        launch.side_by_side([run.path], 4, quiet)
    assert seen[-1][0] == "0,1"


def quiet(states: list[launch.State]) -> None:
    del states


@pytest.mark.parametrize("algorithm", ["hatd3", pytest.param("omad", marks=pytest.mark.slow)])
def test_seeds_side_by_side_are_the_seeds_of_one_process(tmp_path: Path, algorithm: str) -> None:
    """Line by line; complete runs are left alone; a folder of several runs is told apart from a run."""
    both: dict[str, Any] = SMALL | (OMAD if algorithm == "omad" else {}) | {"seeds": 2, "first_seed": 5}
    folders = Experiment(resolve("probe/push", algorithm, **both)).create_each(tmp_path / "both")
    assert folders == members(tmp_path / "both") == [tmp_path / "both" / f"seed-{k}" for k in (5, 6)]
    seen: list[str] = []
    ended = launch.side_by_side(folders, 2, lambda states: seen.extend(state.state for state in states))
    assert [state.state for state in ended] == ["finished", "finished"], [state.message for state in ended]
    assert "running" in seen
    assert [state.env_steps for state in ended] == [600, 600]
    api.train("probe/push", algorithm, run_dir=tmp_path / "one", **both)
    for name in ("metrics.jsonl", "episodes.jsonl"):
        together = [line for folder in folders for line in lines(folder, name)]
        key = lambda line: (line["seed"], line["step"], line.get("actions", ""))  # noqa: E731
        assert sorted(together, key=key) == sorted(lines(tmp_path / "one", name), key=key)
    before = [(folder / "log.txt").stat().st_mtime_ns for folder in folders]
    assert [state.state for state in launch.side_by_side(folders, 2, quiet)] == ["finished", "finished"]
    assert [(folder / "log.txt").stat().st_mtime_ns for folder in folders] == before
    shutil.rmtree(folders[0] / "checkpoints")
    assert [state.state for state in launch.side_by_side(folders, 2, quiet)] == ["finished", "finished"]
    with pytest.raises(UserError, match="checkpoints are gone"):
        api.resume(folders[0])
    assert len(lines(folders[0], "episodes.jsonl")) == len(lines(folders[1], "episodes.jsonl")) > 0
    with pytest.raises(UserError, match="several runs"):
        RunFolder.open(tmp_path / "both")
    with pytest.raises(UserError, match="exists already"):
        Experiment(small(seeds=2)).create_each(tmp_path / "both")
    assert api.load_policy(tmp_path / "both", seed=6).spec.name == "probe/push"
    with pytest.raises(UserError, match="no seed 9"):
        api.load_policy(tmp_path / "both", seed=9)


def reaching_the_end(begun: list[Path]) -> Any:
    """In place of what starts a run's process: one that does nothing, of a run that is done."""

    def begin(folder: Path, cores: set[int]) -> launch.Started:
        begun.append(folder)
        RunFolder.open(folder).note_end(Ended("finished"))
        return launch.Started(subprocess.Popen([sys.executable, "-c", ""]), 0)

    return begin


@pytest.mark.parametrize("gone", [0, 1])
def test_a_group_goes_on_without_the_seed_that_is_complete_and_has_lost_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gone: int
) -> None:
    """To be trained longer it is refused, and nothing of the group is changed then."""
    folders = Experiment(small(seeds=2)).create_each(tmp_path / "both")
    RunFolder.open(folders[gone]).note_end(Ended("finished"))
    before = {path: path.read_bytes() for folder in folders for path in folder.glob("*.json")}
    assert cli.main(["resume", str(tmp_path / "both"), "--total-steps", "60000"]) == 2
    assert f"{folders[gone]} has lines up to env step 0, but its checkpoints are gone" in capsys.readouterr().err
    assert {path: path.read_bytes() for folder in folders for path in folder.glob("*.json")} == before
    begun: list[Path] = []
    monkeypatch.setattr(launch, "begin", reaching_the_end(begun))
    assert cli.main(["resume", str(tmp_path / "both")]) == 0
    assert begun == [folders[1 - gone]]


@pytest.mark.parametrize(("cores", "names"), [(1, {"run"}), (2, {"seed-0", "seed-1"})])
def test_seeds_in_parallel_may_be_as_many_as_there_are_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, names: set[str]
) -> None:
    begun: list[Path] = []
    monkeypatch.setattr(launch, "begin", reaching_the_end(begun))
    monkeypatch.setattr("omad.commands.train.cores_at_once", lambda: cores)
    words = f"train hatd3 --task probe/push --preset tiny --total-steps 240 --seeds 2 --run-dir {tmp_path / 'run'}"
    assert cli.main([*words.split(), "--parallel-seeds", "0"]) == 0
    assert {path.name for path in members(tmp_path / "run")} == names
    assert {path.name for path in begun} == (names if cores > 1 else set())


def test_one_seed_that_fails_does_not_keep_the_others_of_a_group_from_going_on(tmp_path: Path) -> None:
    class Failing(omad.Callback):
        def on_start(self, context: Any) -> None:
            if context.config.first_seed == 5:
                raise RuntimeError("the fuse is blown")

    folders = Experiment(small(seeds=2, first_seed=5)).create_each(tmp_path / "both")
    with pytest.raises(CallbackFailed, match="the fuse is blown"):
        api.resume(tmp_path / "both", callbacks=[Failing()], loggers=())
    assert [RunFolder.open(folder).complete for folder in folders] == [False, True]


def test_a_group_is_continued_from_python_as_well(tmp_path: Path) -> None:
    """One seed after the other, which equals seeds of one process; made longer, all are before one is trained."""
    both: dict[str, Any] = SMALL | {"seeds": 2, "first_seed": 5}
    folders = Experiment(resolve("probe/push", "hatd3", **both)).create_each(tmp_path / "both")
    before = {path: path.read_bytes() for folder in folders for path in folder.glob("*.json")}
    with pytest.raises(UserError, match="--total-steps"):
        api.resume(tmp_path / "both", total_steps=1, loggers=())
    assert {path: path.read_bytes() for folder in folders for path in folder.glob("*.json")} == before
    run = api.resume(tmp_path / "both", loggers=())
    assert run.complete and run.seeds == (5, 6) and run.stopped is None and run.trusted
    one = api.train("probe/push", "hatd3", run_dir=tmp_path / "one", loggers=(), **both)
    np.testing.assert_array_equal(run.evaluations()["returns"], one.evaluations()["returns"])
    longer = both["total_steps"] + 200
    assert api.resume(tmp_path / "both", total_steps=longer, loggers=()).config.total_steps == longer
    assert all(RunFolder.open(folder).complete for folder in folders)


def test_a_group_is_made_longer_by_the_same_command_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a batch system's job does that was cut: a seed that is done by then is left alone."""
    folders = Experiment(small(seeds=2, total_steps=800)).create_each(tmp_path / "both")
    RunFolder.open(folders[0]).note_end(Ended("finished"))
    (folders[0] / "metrics.jsonl").write_text("")
    begun: list[Path] = []
    monkeypatch.setattr(launch, "begin", reaching_the_end(begun))
    assert cli.main(["resume", str(tmp_path / "both"), "--total-steps", "800"]) == 0
    assert begun == [folders[1]]
    held = Experiment(small(total_steps=800)).create(tmp_path / "held")  # open for writing
    try:
        assert cli.main(["resume", str(held.path), "--total-steps", "900"]) == 2
    finally:
        held.close()
    assert "being written by another process" in capsys.readouterr().err
    assert RunFolder.open(held.path).config.total_steps == 800


def test_a_run_that_was_killed_is_told_from_its_own_process(tmp_path: Path) -> None:
    """Not from what an earlier one printed into the same file."""
    run = Experiment(small()).create(tmp_path / "run")
    run.close()
    old = b"omad: the old reason\n"
    (run.path / "log.txt").write_bytes(old)
    assert launch.verdict(run, -9, len(old)) == ("failed", "killed by signal 9")
    assert launch.verdict(run, 2, 0) == ("failed", "exit code 2: the old reason")
    (run.path / "log.txt").write_bytes(old + b"omad: the new one\n")
    assert launch.verdict(run, -9, len(old)) == ("failed", "killed by signal 9: the new one")
    (run.path / "ended.json").write_text("{")
    assert launch.state_of(run).state == "failed" and "ended.json" in launch.state_of(run).message
    assert not launch.finished(run)
    assert launch.verdict(run, 2, len(old)) == ("failed", "exit code 2: the new one")


def test_runs_that_others_have_stopped_are_not_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ended(how: str) -> Any:
        return lambda update, stop: [launch.State(tmp_path / "run", how, 5, 10, 0.0, None)]

    assert run_with_dashboard(ended("finished"), Stop()) == 0
    assert run_with_dashboard(ended("stopped"), Stop()) == 1
    assert "omad resume or the same omad sweep continues it" in " ".join(capsys.readouterr().out.split())
    assert run_with_dashboard(ended("stopped"), Stop(0.0)) == 0, "the time limit is no fault"

    def later(update: Any, stop: Stop) -> list[launch.State]:
        states = ended("stopped")(update, stop)
        update(states)
        stop._end = 0.0
        return states

    assert run_with_dashboard(later, Stop(60.0)) == 1, "that comes too late"

    def again(update: Any, stop: Stop) -> list[launch.State]:
        for how in ("stopped", "running"):  # as Ray starts a run again
            update(ended(how)(update, stop))
        stop._end = 0.0
        return ended("stopped")(update, stop)

    assert run_with_dashboard(again, Stop(60.0)) == 0


def test_a_stop_saves_and_what_is_left_goes_on_later(tmp_path: Path) -> None:
    """Stopped once one has saved; at most one process at a time; then both reach their end."""
    folders = Experiment(small(seeds=2, total_steps=60_000, eval_every=60_000)).create_each(tmp_path / "both")
    begun: list[int] = []

    def on_update(states: list[launch.State]) -> None:
        assert sum(state.state == "running" for state in states) <= 1
        begun[:] = [state.env_steps for state in states]

    states = launch.side_by_side(folders, 1, on_update, lambda: bool(begun) and begun[0] > 100)
    assert [state.state for state in states] == ["stopped", "waiting"]
    assert RunFolder.open(folders[0]).checkpoints()


@pytest.mark.slow
def test_a_run_that_is_held_and_one_that_cannot_go_on_keep_no_other_from_its_turn(tmp_path: Path) -> None:
    """With one slot, the second fails, with its reason, while another process works on the first; then that is done."""
    folders = Experiment(small(seeds=2, total_steps=200)).create_each(tmp_path / "both")
    config = json.loads((folders[1] / "config.json").read_text())
    config["task"] = "pettingzoo:no_such_module:factory"
    (folders[1] / "config.json").write_text(json.dumps(config))
    held = RunFolder.open(folders[0])
    held.lock()
    order: list[str] = []

    def on_update(states: list[launch.State]) -> None:
        order[:] = [state.state for state in states]
        if order == ["waiting", "failed"]:
            held.close()

    states = launch.side_by_side(folders, 1, on_update, stop=lambda: order == ["running", "waiting"])
    assert [state.state for state in states] == ["finished", "failed"]
    assert "no_such_module" in states[1].message
    ended = [RunFolder.open(folder).ended for folder in folders]
    assert ended[0] == Ended("finished")
    assert ended[1] is not None and ended[1].how == "broken" and "no_such_module" in ended[1].words


def test_processes_end_with_the_one_that_launched_them(tmp_path: Path) -> None:
    """SIGKILL of the launching process: its runs save and end by themselves, and the folder is free again."""
    (folder,) = Experiment(small(total_steps=400_000, eval_every=400_000, save_every=400_000)).create_each(
        tmp_path / "one"
    )
    code = "import sys; from omad.launch import side_by_side; from pathlib import Path\n"
    code += "side_by_side([Path(sys.argv[1])], 1, lambda states: None)"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    end = time.monotonic() + 200
    while not (launch.last_line(folder / "metrics.jsonl") or {}).get("gradient_steps") and time.monotonic() < end:
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while RunFolder.busy(folder) and time.monotonic() < end:
        time.sleep(0.2)
    assert not RunFolder.busy(folder)
    assert len(RunFolder.open(folder).checkpoints()) == 1


def test_runs_on_one_machine_of_a_cluster_keep_to_cores_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_ray.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(launch_ray, "available_cores", lambda: [2, 3, 5])
    everything = {2, 3, 5}
    with launch_ray._cores(2) as first, launch_ray._cores(1) as second, launch_ray._cores(1) as none_left:
        assert len(first) == 2 and len(second) == 1 and first | second == everything
        assert none_left == everything
    with launch_ray._cores(1) as one, launch_ray._cores(3) as too_many, launch_ray._cores(1) as another:
        assert too_many == everything and not one & another, "what is not enough is left to others"
    with launch_ray._cores(0.5) as shared:
        assert shared == everything


def test_a_run_that_no_machine_of_a_cluster_has_room_for_says_what_it_waits_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 4.0}},
        {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    ray = SimpleNamespace(nodes=lambda: nodes)
    assert not launch_ray._want(ray, {"num_cpus": 2, "num_gpus": 1})
    assert not launch_ray._want(ray, {"num_cpus": 4, "num_gpus": 0})
    want = launch_ray._want(ray, {"num_cpus": 4, "num_gpus": 1})
    assert "(4 CPU, 1 GPU; at most 4 CPU, 1 GPU)" in want
    state = launch.State(tmp_path / "run", "waiting", 0, 10, 0.0, None, want)

    def work(update: Any, stop: Stop) -> list[launch.State]:
        for _ in range(3):
            update([state])
        return [state]

    run_with_dashboard(work, Stop())
    assert " ".join(capsys.readouterr().out.split()).count(want) == 1


STUDY = """
from omad.study import Study, grid

FIELDS = {small!r}
STUDY = Study("two", grid(["probe/push"], ["hatd3"], {{"small": FIELDS}}, seeds=[0, 1]))
"""


@pytest.mark.slow
def test_runs_on_ray_are_those_of_this_machine(tmp_path: Path) -> None:
    """Each on its one core, to the same policies; stopped while they wait for a machine that does not come."""
    pytest.importorskip("ray", reason="the extra cluster is not installed")
    (tmp_path / "two.py").write_text(STUDY.format(small=SMALL))

    def sweep(*words: str) -> str:
        command = [sys.executable, "-m", "omad", "sweep", "two.py", *words]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
        assert not ended.returncode, ended.stderr
        return " ".join(ended.stdout.split())

    sweep("--out", "here", "--workers", "2")
    ray = ["--out", "there", "--launcher", "ray"]
    assert "(4096 CPU, 0 GPU; at most" in sweep(*ray, "--cpus-per-run", "4096", "--time-limit", "5s")
    sweep(*ray, "--cpus-per-run", "1")
    for seed in ("seed-0", "seed-1"):
        here, there = (next((tmp_path / name).glob(f"**/{seed}")) for name in ("here", "there"))
        assert RunFolder.open(there).complete and RunFolder.open(there).manifest["cores"] == 1
        assert lines(here, "metrics.jsonl") == lines(there, "metrics.jsonl")


def test_cores_are_shared_out() -> None:
    """Each slot its own, all of them used; more slots than cores share all."""
    mine = os.sched_getaffinity(0)
    for slots in range(1, len(mine) + 1):
        shares = launch.cores_for(slots)
        assert len(shares) == slots and set().union(*shares) == mine
        assert sum(map(len, shares)) == len(mine)
    assert launch.cores_for(len(mine) + 1) == [mine] * (len(mine) + 1)


def test_cores_where_the_system_has_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of the machine's are taken to be there, and no process is kept to some."""
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert processes.available_cores() == [0, 1, 2, 3]
    assert launch.cores_for(2) == [{0, 2}, {1, 3}]
    processes.keep_to_cores(0, [1])


def test_a_process_stops_with_its_parent_where_the_system_sends_no_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    parents, sent = iter([7, 7, 1]), list[tuple[int, int]]()
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    monkeypatch.setattr(time, "sleep", lambda s: None)
    processes._watch(7)
    assert sent == [(os.getpid(), signal.SIGTERM)]
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(processes, "_watch", lambda parent: None)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(SystemExit) as ended:
        processes.stop_with(7)
    assert ended.value.code == 128 + signal.SIGTERM
