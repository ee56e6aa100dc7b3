"""Studies and their sweeps: what is listed is what is run, whatever happens in between."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest

from omad import api, cli, envs, launch
from omad.commands.sweep import seconds
from omad.config import RunConfig, resolve
from omad.errors import UserError
from omad.experiment import Experiment
from omad.launch import last_line
from omad.manifest import manifest_of
from omad.run.folder import RunFolder
from omad.run.records import Ended
from omad.study import PlannedRun, Study, grid, load, place

SMALL: dict[str, Any] = {
    "actor_width": 8, "actor_layers": 1, "critic_width": 8, "critic_layers": 1, "total_steps": 600,
    "warmup_steps": 100, "n_envs": 4, "batch_size": 8, "eval_every": 200, "eval_episodes": 1, "log_every": 100,
    "save_every": 200,
}  # fmt: skip
OMAD: dict[str, Any] = {"denoising_steps": 2, "time_frequencies": 4, "time_width": 4, "atoms": 11}


def create(config: RunConfig, path: Path) -> RunFolder:
    return Experiment(config).create(path)


def study_file(
    path: Path, tasks: list[str], settings: dict[str, Any], seeds: int, algorithm: str = "hatd3", **fields: Any
) -> Path:
    given = SMALL | (OMAD if algorithm == "omad" else {}) | fields
    path.write_text(
        "from omad.study import Study, grid\n"
        f"STUDY = Study('small', grid({tasks!r}, [{algorithm!r}], {settings!r}, range({seeds}), **{given!r}))\n"
    )
    return path


def lines(run: Path) -> list[dict[str, Any]]:
    """Everything measured, without what the clock says."""
    found = [
        json.loads(row) for name in ("metrics.jsonl", "episodes.jsonl") for row in (run / name).read_text().splitlines()
    ]
    return [{key: value for key, value in line.items() if not key.startswith("time/")} for line in found]


def test_a_grid_is_every_combination_seeds_slowest() -> None:
    runs = grid(["probe/push", "mpe/spread-3"], ["omad", "hasac"], {"matched": {}, "calm": {"gamma": 0.5}}, [3, 4])
    assert len(runs) == len({run.folder for run in runs}) == 16
    assert [run.config.first_seed for run in runs] == [3] * 8 + [4] * 8
    assert {(run.setting, run.config.preset, run.config.algo.gamma == 0.5) for run in runs} == {
        ("matched", "matched", False),
        ("calm", "cpu", True),
    }
    assert runs[0].folder == Path("probe-push/omad/matched/seed-3")
    plain = grid(["probe/push"], settings=["matched", "paper"], seeds=[0], total_steps=9_000)
    assert [run.config.preset for run in plain] == ["matched", "paper"]
    assert all(run.config.total_steps == 9_000 for run in plain)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PlannedRun(resolve("probe/push", seeds=2), "cpu"), "one seed, not 2"),
        (lambda: PlannedRun(resolve("probe/push"), " "), "needs a setting"),
        (lambda: Study("two words", grid(["probe/push"])), "names its folder"),
        (lambda: Study("empty", []), "lists no runs"),
        (lambda: Study("s", grid(["probe/push"]), {"mpe/spread-3": -30.0}), "no run of it"),
        (lambda: Study("s", grid(["probe/push"]), {"probe/push": math.nan}), r"a return of at most 3.5e\+38"),
        (lambda: Study("s", grid(["probe/push"]), {"probe/push": 1e308}), r"a return of at most 3.5e\+38"),
        (lambda: Study("twice", grid(["probe/push"], seeds=[0, 0])), "probe-push/omad/cpu/seed-0 twice"),
        (lambda: Study("same", 2 * grid(["probe/push"], seeds=[0])), "probe-push/omad/cpu/seed-0 twice"),
        (lambda: grid(["probe/push"], ["omat"]), "omad"),
        (lambda: grid(["probe/push"], gama=0.5), "gamma"),
        (lambda: grid(["probe/push"], settings=["matchd"]), "'matchd', which is no preset; nearest: matched"),
        (lambda: grid(["probe/push"], settings="matched"), r"give a list, as \['matched'\]"),
        (lambda: grid("probe/push"), r"give a list, as \['probe/push'\]"),
        (lambda: grid(["probe/push"], preset="matched"), "The setting 'cpu' has the preset 'matched'"),
        (lambda: Study("..", grid(["probe/push"])), "names its folder"),
        (lambda: PlannedRun(resolve("probe/push"), ".."), "needs a setting"),
        (lambda: Study("s", cast(Any, [grid(["probe/push"])])), r"lists a list of 3.*Put a star"),
        (lambda: grid(["probe/push"], seeds=cast(Any, 3)), r"seeds is 3; give a list, as \[3\]"),
        (lambda: grid(["probe/push"], first_seed=3), "first_seed is among the fields of runs"),
        (lambda: grid(["probe/push"], settings={"mine": {"algorithm": "hasac"}}), "algorithm is among the fields"),
        (lambda: grid(["probe/push"], settings=cast(Any, {0.1: {}})), "settings has the name 0.1; names are texts"),
    ],
)
def test_a_study_that_cannot_work_is_refused(make: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is not a file"),
        ("RUNS = []\n", "STUDY = None"),
        ("\nx = 1 / 0\n", "line 2: ZeroDivisionError"),
        ("def f(:\n", "line 1: SyntaxError"),
        ("from omad.study import grid\n\ngrid(['probe/pish'])\n", "line 3: .*probe/push"),
    ],
)
def test_a_study_file_that_cannot_be_read_is_refused(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "study.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=words):
        load(path)


def test_folders_are_made_once_and_changed_runs_refused(tmp_path: Path) -> None:
    """A folder whose making was cut off is made again; one that holds anything else is not touched."""
    study = load(study_file(tmp_path / "s.py", ["probe/push"], {"cpu": {}}, 2))
    study = dataclasses.replace(study, thresholds={"probe/push": 3})
    root = tmp_path / "out"
    folders = place(study, root, create)
    assert folders == [root / "probe-push/hatd3/cpu/seed-0", root / "probe-push/hatd3/cpu/seed-1"]
    listed = json.loads((root / "study.json").read_text())
    assert listed["thresholds"] == {"probe/push": 3.0}
    assert [(run["folder"], run["seed"], run["setting"]) for run in listed["runs"]] == [
        ("probe-push/hatd3/cpu/seed-0", 0, "cpu"),
        ("probe-push/hatd3/cpu/seed-1", 1, "cpu"),
    ]
    before = (folders[0] / "manifest.json").stat().st_mtime_ns
    (folders[1] / "manifest.json").unlink()
    for name in ("metrics.jsonl", "episodes.jsonl"):
        (folders[1] / name).unlink()
    assert place(study, root, create) == folders
    assert (folders[0] / "manifest.json").stat().st_mtime_ns == before
    assert RunFolder.open(folders[1]).config == study.runs[1].config
    other = load(study_file(tmp_path / "t.py", ["probe/push"], {"cpu": {"gamma": 0.25}}, 2))
    (folders[0] / "metrics.jsonl").write_text('{"step": 4, "seed": 0}\n')
    with pytest.raises(UserError, match=r"begun with gamma 0\.\d+, now 0\.25"):
        place(other, root, create)
    (folders[0] / "metrics.jsonl").write_text("")
    assert place(other, root, create) == folders, "nothing was trained yet"
    assert [RunFolder.open(folder).config.algo.gamma for folder in folders] == [0.25, 0.25]
    place(study, root, create)
    few = tmp_path / "few"
    assert place(study, few, create, study.runs[1:]) == [few / study.runs[1].folder]
    assert not (few / study.runs[0].folder).exists(), "only those that were chosen are made"
    place(study, few, create)
    metrics = few / study.runs[0].folder / "metrics.jsonl"
    assert place(other, few, create, other.runs[1:]) == [few / other.runs[1].folder]
    assert RunFolder.open(metrics.parent).config.algo.gamma != 0.25, "one that was not chosen stays"
    metrics.write_text('{"step": 4, "seed": 0}\n')
    with pytest.raises(UserError, match=r"begun with gamma 0\.\d+, now 0\.25"):
        place(other, few, create, other.runs[1:])
    (metrics.parent / "manifest.json").write_text("{")  # one that was not chosen and cannot be read blocks nothing
    assert place(other, few, create, other.runs[1:]) == [few / other.runs[1].folder]
    assert len(json.loads((few / "study.json").read_text())["runs"]) == 2
    patient = load(study_file(tmp_path / "u.py", ["probe/push"], {"cpu": {"env_workers": 1, "env_timeout": 300.0}}, 2))
    (folders[0] / "metrics.jsonl").write_text('{"step": 4, "seed": 0}\n')
    assert place(patient, root, create) == folders
    for folder in folders:  # what no result depends on is changed
        config = RunFolder.open(folder).config
        assert (config.env_workers, config.env_timeout) == (1, 300.0)
    with pytest.raises(UserError, match="is of the study 'small', not large; sweep into another --out"):
        place(dataclasses.replace(study, name="large"), root, create)
    ours = (root / "study.json").read_bytes()
    for other, words in (('{"runs": 3}', "is not a study's list of runs"), ("{", "study.json")):
        (root / "study.json").write_text(other)
        with pytest.raises(UserError, match=words):
            place(study, root, create)
        assert (root / "study.json").read_text() == other
    (root / "study.json").write_bytes(ours)
    (folders[1] / "manifest.json").unlink()
    (folders[1] / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"manifest\.json"):
        place(study, root, create)
    assert (folders[1] / "notes.txt").read_text() == "mine"


def test_a_study_may_list_its_runs_once(tmp_path: Path) -> None:
    runs = grid(["probe/push"], seeds=[0])
    assert Study("s", cast(Any, iter(runs))).runs == tuple(runs)


def test_what_a_study_begins_from_may_lie_elsewhere_later(tmp_path: Path) -> None:
    """A copied project goes on; another file under the new name is another setting."""
    names = [tmp_path / name for name in ("a.npz", "b.npz", "c.npz")]
    assert cli.main(["record", "probe/push", "--episodes", "60", "--out", str(names[0])]) == 0
    assert cli.main(["record", "probe/push", "--episodes", "70", "--out", str(names[2])]) == 0
    names[1].write_bytes(names[0].read_bytes())
    first, moved, other = (
        load(study_file(tmp_path / f"{name.stem}.py", ["probe/push"], {"cpu": {"demonstrations": str(name)}}, 1))
        for name in names
    )
    (folder,) = place(first, tmp_path / "out", create)
    (folder / "metrics.jsonl").write_text('{"step": 4, "seed": 0}\n')
    names[0].unlink()
    assert place(moved, tmp_path / "out", create) == [folder]
    assert RunFolder.open(folder).config.demonstrations == str(names[1])
    with pytest.raises(UserError, match=r"begun with demonstrations .*b\.npz', now .*c\.npz"):
        place(other, tmp_path / "out", create)


@pytest.mark.parametrize(("words", "value"), [("90s", 90.0), ("9m", 540.0), ("1h30m", 5400.0), ("2h", 7200.0)])
def test_time_limits(words: str, value: float) -> None:
    assert seconds(words) == value


@pytest.mark.parametrize("words", ["", "9", "m", "0s", "-3m", "1.5h", "9m later"])
def test_other_time_limits_are_refused(words: str) -> None:
    with pytest.raises(UserError, match="as in 1h30m"):
        seconds(words)


def test_sweep_refuses_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = str(study_file(tmp_path / "s.py", ["probe/push"], {"cpu": {}}, 1))
    out = ["--out", str(tmp_path / "out")]
    assert cli.main(["sweep", study, *out, "--only", "spread"]) == 2
    assert "fits none of the 1 runs" in capsys.readouterr().err
    assert cli.main(["sweep", study, *out, "--workers", "-1"]) == 2
    assert cli.main(["sweep", study, *out, "--time-limit", "soon"]) == 2
    capsys.readouterr()
    assert cli.main(["sweep", study, *out, "--show", "--time-limit", "9m"]) == 2
    assert "--time-limit is given with --show, which runs nothing" in capsys.readouterr().err
    assert cli.main(["sweep", study, *out, "--show", "--device", "cpu"]) == 2
    assert "--device is 'cpu', with --show, which runs nothing; leave it out." in capsys.readouterr().err
    assert cli.main(["sweep", study, *out, "--launcher", "ray", "--device", "gpu"]) == 2
    assert "but Ray chooses; --gpus-per-run asks it for GPUs; leave it out." in capsys.readouterr().err
    assert cli.main(["sweep", study, *out, "--device", "gpus"]) == 2
    assert "--device is 'gpus'; nearest: gpu; allowed: " in capsys.readouterr().err
    assert cli.main(["sweep", study, *out, "--show", "--json"]) == 0
    (state,) = json.loads(capsys.readouterr().out)
    assert (state["state"], state["total_steps"]) == ("waiting", load(study).runs[0].config.total_steps)
    assert not (tmp_path / "out").exists()
    (folder,) = place(load(study), tmp_path / "out", create)
    RunFolder.open(folder).note_end(Ended("broken", "the disk is full"))
    assert cli.main(["sweep", study, *out, "--show", "--json"]) == 0
    (state,) = json.loads(capsys.readouterr().out)
    assert (state["state"], state["message"]) == ("failed", "the disk is full")
    manifest = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text("{")  # a damaged run is shown beside the others
    assert cli.main(["sweep", study, *out, "--show", "--json"]) == 0
    (state,) = json.loads(capsys.readouterr().out)
    assert state["state"] == "failed" and "manifest.json" in state["message"]
    (folder / "manifest.json").write_text(manifest)
    code = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); "
        "print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out/lock")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert cli.main(["sweep", study, *out]) == 2
        assert "swept by another process" in capsys.readouterr().err
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout:
            holder.stdout.close()


def swept(study: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "omad", "sweep", str(study), "--out", str(out), *more]


def kill_once_begun(words: list[str], out: Path, after_s: float) -> None:
    """SIGKILL the sweep some time after the first run has begun; its runs' processes save and end."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)
    end = time.monotonic() + 120

    def busy() -> bool:
        return any(RunFolder.busy(path.parent) for path in out.glob("*/*/*/*/lock"))

    while not busy() and process.poll() is None:
        assert time.monotonic() < end, "nothing began"
        time.sleep(0.1)
    time.sleep(after_s)
    process.kill()
    process.wait()
    while busy():
        assert time.monotonic() < end, "runs go on without their sweep"
        time.sleep(0.1)


def check_against_undisturbed(study: Path, out: Path, tmp_path: Path) -> None:
    for i, run in enumerate(load(study).runs):
        alone = RunFolder.create(
            tmp_path / f"alone-{i}", run.config, manifest_of(run.config, envs.make(run.config.task))
        )
        alone.close()
        api.resume(alone.path)
        assert lines(out / run.folder) == lines(alone.path), run.folder


def test_the_same_sweep_again_does_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With processes that end at once: the first reaches its end, the second fails, and is begun again."""
    study, out = study_file(tmp_path / "s.py", ["probe/push"], {"cpu": {}}, 2), tmp_path / "out"
    begun: list[str] = []

    def begin(folder: Path, cores: set[int]) -> launch.Started:
        begun.append(folder.name)
        how = "finished" if begun in (["seed-0"], ["seed-0", "seed-1", "seed-1"]) else "broken"
        RunFolder.open(folder).note_end(Ended(how, "" if how == "finished" else "its disk is full"))
        return launch.Started(subprocess.Popen([sys.executable, "-c", f"raise SystemExit({how == 'broken':d})"]), 0)

    monkeypatch.setattr(launch, "begin", begin)
    for code, due in ((1, ["seed-0", "seed-1"]), (0, ["seed-0", "seed-1", "seed-1"]), (0, begun)):
        assert cli.main(["sweep", str(study), "--out", str(out), "--workers", "1"]) == code
        assert begun == due


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on_to_the_same_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The launcher dies by SIGKILL; its run saves and ends by itself; the same command finishes it."""
    study, out = study_file(tmp_path / "s.py", ["probe/push"], {"cpu": {}}, 1, total_steps=2_000), tmp_path / "out"
    kill_once_begun(swept(study, out), out, 2.0)
    assert cli.main(["sweep", str(study), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    check_against_undisturbed(study, out, tmp_path)
    before = [(path, path.stat().st_mtime_ns) for path in sorted(out.glob("*/*/*/*/log.txt"))]
    assert cli.main(["sweep", str(study), "--out", str(out)]) == 0
    assert [(path, path.stat().st_mtime_ns) for path in sorted(out.glob("*/*/*/*/log.txt"))] == before


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_24_runs_killed_three_times(tmp_path: Path) -> None:
    """The sweep and all processes of its runs die by SIGKILL at once, three times."""
    settings = {"cpu": {}, "calm": {"gamma": 0.5}}
    tasks, out = ["probe/push", "probe/signal", "probe/delay"], tmp_path / "out"
    study = study_file(tmp_path / "s.py", tasks, settings, 4, "omad", total_steps=2_000)
    assert len(load(study).runs) == 24
    for after_s in (6.0, 15.0, 25.0):
        kill_once_begun(swept(study, out), out, after_s)
        for words in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                mine = str(out).encode() in words.read_bytes()
            except OSError:
                continue
            if mine:
                os.kill(int(words.parent.name), signal.SIGKILL)
    done = subprocess.run(swept(study, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    check_against_undisturbed(study, out, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `cluster`")
def test_ray_with_a_killed_worker(tmp_path: Path) -> None:
    """A Ray worker dies by SIGKILL in the middle of a run; the run is begun anew elsewhere and ends the same."""
    study, out = (
        study_file(tmp_path / "s.py", ["probe/push", "probe/signal"], {"cpu": {}}, 2, total_steps=20_000),
        tmp_path / "out",
    )
    process = subprocess.Popen(
        swept(study, out, "--launcher", "ray"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    end, victim = time.monotonic() + 300, None
    while victim is None:
        assert time.monotonic() < end and process.poll() is None, "no run was seen in its middle"
        time.sleep(0.2)
        if not any(step.name.isdigit() for step in out.glob("*/*/*/*/checkpoints/*")):
            continue
        for words in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                child = str(out).encode() in words.read_bytes() and b"resume" in words.read_bytes()
                parent = int((words.parent / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if child and b"ray::" in Path(f"/proc/{parent}/cmdline").read_bytes():
                    victim = parent
            except OSError:
                continue
    os.kill(victim, signal.SIGKILL)
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    check_against_undisturbed(study, out, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `cluster`")
def test_ray_is_stopped_after_runs_have_saved(tmp_path: Path) -> None:
    """Ctrl-C: the run in its middle saves where it is, far from any checkpoint of its own accord."""
    fields: dict[str, Any] = {"total_steps": 2_000_000, "save_every": 2_000_000, "eval_every": 2_000_000}
    study, out = study_file(tmp_path / "s.py", ["probe/push"], {"cpu": {}}, 1, **fields), tmp_path / "out"
    process = subprocess.Popen(
        swept(study, out, "--launcher", "ray"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    folder, end = out / "probe-push/hatd3/cpu/seed-0", time.monotonic() + 300
    while not (last_line(folder / "metrics.jsonl") or {}).get("gradient_steps"):
        assert time.monotonic() < end and process.poll() is None, "the run did not begin"
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert not RunFolder.busy(folder)
    (kept,) = RunFolder.open(folder).checkpoints()
    assert 0 < kept.vector_steps < RunFolder.open(folder).config.total_vector_steps
