"""Run folders that were filled by somebody else, half made, or are worked on by two processes."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omad import files
from omad.commands import compare
from omad.config import resolve
from omad.errors import UserError
from omad.experiment import Experiment, claim
from omad.run import arrays
from omad.run.folder import RunFolder
from omad.run.machine import differences, facts
from omad.run.places import how_to_resume, instead, members
from omad.run.records import EPISODES, METRICS, Ended, Unreadable
from omad.tasks import outside
from omad.trained import Run

CONFIG = resolve("probe/push")


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    RunFolder.create(tmp_path / "run", CONFIG, {"omad": "test"}).close()
    return tmp_path / "run"


def test_another_policy_of_the_same_env_step_replaces_the_best(path: Path) -> None:
    """A run that does not resume exactly may come to a better one there; the same one is not written again."""
    with contextlib.closing(RunFolder.open(path)) as run:
        run.lock()
        run.best.save(0, 40, 1.0, {"w": np.zeros(2)})
        first = run.best.entries()[0]
        run.best.save(0, 40, 1.0, {"w": np.zeros(2)})
        assert run.best.entries()[0] == first
        run.best.save(0, 40, 2.0, {"w": np.ones(2)})
        second = run.best.entries()[0]
        assert second.mean == 2.0 and second.part.sha256 != first.part.sha256
        assert arrays.read(run.best.file(0, second), second.part, "")["w"].tolist() == [1.0, 1.0]


def test_a_rewound_run_has_no_best_policy_that_it_has_not_come_to(path: Path) -> None:
    """Else a run that does not resume exactly would keep one that none of its lines explains."""
    with contextlib.closing(RunFolder.open(path)) as run:
        run.lock()
        run._lines.open()
        run.save(10, 40, {"w": np.zeros(2)}, {"w": np.zeros(2)})
        run.best.save(0, 80, 2.0, {"w": np.ones(2)})
    with contextlib.closing(RunFolder.open(path)) as run:
        file = run.best.file(0, run.best.entries()[0])
        run.rewind(run.checkpoints()[0])
        assert not run.best.entries() and not file.exists()
        run.best.save(0, 40, 1.0, {"w": np.zeros(2)})
    with contextlib.closing(RunFolder.open(path)) as run:
        run.rewind(run.checkpoints()[0])
        assert run.best.entries()[0].env_steps == 40


def test_a_rewound_run_has_the_best_policy_that_it_had_then(path: Path) -> None:
    """A later one replaces it only once no checkpoint is left that it was the best at."""
    with contextlib.closing(RunFolder.open(path)) as run:
        run.lock()
        run._lines.open()
        arrays_of = lambda value: {"w": np.full(2, value)}  # noqa: E731
        run.best.save(0, 20, 0.5, arrays_of(0.0))
        run.best.save(0, 30, 1.0, arrays_of(1.0))
        assert len(list(run.best.root.glob("*.safetensors"))) == 1  # nothing to continue from yet
        run.save(10, 40, arrays_of(9.0), arrays_of(9.0))
        run.best.save(0, 80, 2.0, arrays_of(2.0))
        assert run.best.entries()[0].env_steps == 80
    with contextlib.closing(RunFolder.open(path)) as run:
        run.rewind(run.checkpoints()[0])
        entry = run.best.entries()[0]
        assert (entry.env_steps, entry.mean) == (30, 1.0)
        assert arrays.read(run.best.file(0, entry), entry.part, "")["w"].tolist() == [1.0, 1.0]
        assert len(list(run.best.root.glob("*.safetensors"))) == 1
        run.best.save(0, 80, 2.0, arrays_of(2.0))
        for moment in ((20, 80), (30, 120)):
            run.save(*moment, arrays_of(9.0), arrays_of(9.0))
        assert [one.name for one in run.best.root.glob("*.safetensors")] == ["seed-0-80.safetensors"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENOMEM])
def test_what_cannot_be_read_for_now_costs_nothing(path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the newest checkpoint nor the best policies: what they hold is not known."""

    def refuse(file: Path) -> Any:
        raise OSError(number, os.strerror(number), str(file))

    with contextlib.closing(RunFolder.open(path)) as run:
        run.lock()
        run._lines.open()
        weights = {"w": np.ones(2)}
        run.best.save(0, 20, 5.0, weights)
        run.save(10, 40, weights, weights)
        (newest,) = run.checkpoints()
        with monkeypatch.context() as patch:
            patch.setattr("omad.run.arrays.open_plain", refuse)
            with pytest.raises(Unreadable, match="though it may be whole"):
                newest.restore("rest", weights)
        with monkeypatch.context() as patch:
            patch.setattr("omad.schema.open_plain", refuse)
            for use in (run.best.entries, run.best.tidy, lambda: run.best.save(0, 40, -3.0, weights)):
                with pytest.raises(Unreadable):
                    use()
        assert newest.restore("rest", weights)["w"].tolist() == [1.0, 1.0]
        entry = run.best.entries()[0]
        assert (entry.mean, run.best.file(0, entry).exists()) == (5.0, True)


# ------------------------------------------------------------ links


@pytest.mark.parametrize("name", ["lock", METRICS, EPISODES])
@pytest.mark.parametrize("how", ["symbolic", "hard", "pipe", "folder"])
def test_what_is_no_plain_file_is_neither_claimed_nor_cut(path: Path, name: str, how: str) -> None:
    victim = path.parent / "victim.txt"
    victim.write_text("precious\n")
    (path / name).unlink()
    if how == "symbolic":
        (path / name).symlink_to(victim)
    elif how == "hard":
        os.link(victim, path / name)
    elif how == "pipe":
        os.mkfifo(path / name)
    else:
        (path / name).mkdir()
    run = RunFolder.open(path)
    with pytest.raises(UserError, match="not a plain file"):
        run.rewind(None)
    run.close()
    assert victim.read_text() == "precious\n"
    assert RunFolder.busy(path) is False


@pytest.mark.parametrize("name", ["ended.json", "ended.json.partial", "manifest.json", "curve.png"])
def test_files_that_are_written_whole_replace_a_link(path: Path, name: str) -> None:
    victim = path.parent / "victim.txt"
    victim.write_text("precious\n")
    manifest = (path / "manifest.json").read_text()
    (path / name).unlink(missing_ok=True)
    (path / name).symlink_to(victim)
    if name == "curve.png":
        files.write_bytes(path / name, b"a picture", path)
    elif name == "manifest.json":
        files.write_text(path / name, manifest, path)
    else:
        RunFolder.open(path).note_end(Ended("finished"))
        assert RunFolder.open(path).ended == Ended("finished")
    assert victim.read_text() == "precious\n"
    assert not (path / name).is_symlink()


def test_folders_that_are_links_are_not_entered(path: Path) -> None:
    outside = path.parent / "outside"
    (outside / "7").mkdir(parents=True)
    (outside / "7.json.partial").write_text("precious")
    (path / "checkpoints").rmdir()
    (path / "checkpoints").symlink_to(outside)
    run = RunFolder.open(path)
    run.rewind(None)
    with pytest.raises(UserError, match="not a plain file"):
        run.save(1, 1, {}, {})
    run.close()
    assert sorted(entry.name for entry in outside.iterdir()) == ["7", "7.json.partial"]
    (path / "tb").symlink_to(outside)
    with pytest.raises(UserError, match="not a plain"):
        files.make_folder(path / "tb", path)
    files.remove(path / "tb", path)
    assert (outside / "7").is_dir() and not (path / "tb").exists()


def test_removing_a_folder_leaves_what_its_links_point_to(path: Path) -> None:
    outside = path.parent / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    (path / "checkpoints" / "5").mkdir()
    (path / "checkpoints" / "5" / "link").symlink_to(outside)
    files.remove(path / "checkpoints", path)
    assert (outside / "file").read_text() == "precious"
    with pytest.raises(UserError, match="not a plain"):
        files.write_text(path / ".." / "up.txt", "x", path)


def test_the_run_folder_itself_may_be_reached_through_a_link(path: Path) -> None:
    link = path.parent / "link"
    link.symlink_to(path)
    run = RunFolder.open(link)
    run.rewind(None)
    run.save(1, 1, {}, {})
    run.close()
    assert [point.vector_steps for point in RunFolder.open(link).checkpoints()] == [1]


# ------------------------------------------------------------ what is read


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 1}, "format 1; this version reads 3"),
        ({"format": True}, "format True"),
        ({"packages": {"jax": 3}}, "packages"),
        ({"device": "cpu"}, "device"),
        ({"cores": "two"}, "cores"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(path: Path, change: dict[str, Any], words: str) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=words):
        RunFolder.open(path)


@pytest.mark.parametrize(
    "text", ["[]", "{", "[" * 100_000, "", '"\ud800"'.encode("utf-8", "surrogatepass").decode("latin1")]
)
def test_json_of_another_kind_is_refused(path: Path, text: str) -> None:
    for name in ("manifest.json", "config.json"):
        good = (path / name).read_text()
        (path / name).write_text(text)
        with pytest.raises(UserError, match=name):
            RunFolder.open(path)
        (path / name).write_text(good)
    (path / "ended.json").write_text(text)
    with pytest.raises(UserError, match=r"ended\.json"):
        _ = RunFolder.open(path).ended


@pytest.mark.parametrize(
    "change",
    [
        {"obs_dims": "2"}, {"obs_dims": [2, True]}, {"act_dims": [1]}, {"state_dim": -1}, {"horizon": 0},
        {"horizon": 10**30}, {"obs_dims": [], "act_dims": []}, {"name": 4}, {"horizon": None},
        {"act_low": [[-1, -1, -1], [0]], "act_high": [[1], [1]]}, {"agents": ["one"]},
    ],
)  # fmt: skip
def test_sizes_that_cannot_be_are_refused(path: Path, change: dict[str, Any]) -> None:
    run = RunFolder.open(path)
    good = {"name": "x", "obs_dims": [2, 2], "act_dims": [1, 1], "state_dim": 0, "horizon": 5}
    run.manifest["spec"] = good
    assert run.spec.obs_dims == (2, 2)
    run.manifest["spec"] = good | change
    with pytest.raises(UserError, match="spec"):
        _ = run.spec
    del run.manifest["spec"]
    with pytest.raises(UserError, match="spec"):
        _ = run.spec


def test_damaged_lines_are_named_and_the_others_kept(path: Path) -> None:
    good = {"step": 3, "seed": 0, "actions": "sampled", "eval_seed": 1, "returns": [1.0, 2.0], "info": {}}
    rows = [good, {**good, "returns": "none"}, {**good, "step": "3"}, {"step": 3}, good]
    (path / EPISODES).write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows) + b'\xff{\n{"step": 4')
    found = RunFolder.open(path).records(EPISODES)
    assert [line["returns"] for line in found.values] == [[1.0, 2.0]] * 2
    assert [words.partition("line ")[2].partition(":")[0] for words in found.damaged] == ["2", "3", "4", "6"]
    assert [line["mean"] for line in RunFolder.open(path).evaluations()] == [1.5, 1.5]


def test_numbers_that_are_not_finite_are_null_in_the_file(path: Path) -> None:
    run = RunFolder.open(path)
    run.rewind(None)
    run.write(METRICS, {"step": 1, "seed": 0, "loss": float("nan")})
    run.write(METRICS, {"step": 2, "seed": 0, "loss": 0.25})
    run.close()
    assert (
        path / METRICS
    ).read_text() == '{"step": 1, "seed": 0, "loss": null}\n{"step": 2, "seed": 0, "loss": 0.25}\n'
    one, other = RunFolder.open(path).lines(METRICS)
    assert one["loss"] != one["loss"] and other == {"step": 2, "seed": 0, "loss": 0.25}


# ------------------------------------------------------------ two processes, and half-made folders


def test_names_that_are_no_text_do_not_make_a_run_unreadable(path: Path) -> None:
    """A lone surrogate, as a name of a file may have, is written out in what is only told, else refused."""
    run = RunFolder.open(path)
    run.amend(command=["omad", "--run-dir", "r\udcff"])
    run.note_end(Ended("broken", "cannot open 'r\udcff'"))
    again = RunFolder.open(path)
    assert again.manifest["command"][-1] == "r\\udcff"
    assert again.ended == Ended("broken", "cannot open 'r\\udcff'")
    with pytest.raises(UserError, match=r"init_from is 'r\\udcff'; it must be text in UTF-8"):
        resolve(init_from="r\udcff")


def test_nothing_is_cut_before_everything_is_good(path: Path) -> None:
    run = RunFolder.open(path)
    run.rewind(None)
    for step in (1, 2):
        run.write(METRICS, {"step": step, "seed": 0})
        run.write(EPISODES, {"step": step, "seed": 0, "actions": "sampled", "eval_seed": 1, "returns": [1.0]})
        run.save(step, step, {}, {})
    run.note_end(Ended("broken", "words"))
    run.close()
    os.truncate(path / EPISODES, 3)
    kept = (path / METRICS).read_bytes()
    again = RunFolder.open(path)
    with pytest.raises(UserError, match="lines are missing"):
        again.rewind(again.checkpoints()[1])
    again.close()
    assert (path / METRICS).read_bytes() == kept
    assert RunFolder.open(path).ended == Ended("broken", "words")
    assert [point.vector_steps for point in RunFolder.open(path).checkpoints()] == [2, 1]


def test_another_process_holds_the_folder(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from omad import files; p = Path(sys.argv[1]);"
        "assert files.lock(p / 'lock', p) is not None; print('held', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(path)]
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdin is not None
    try:
        assert holder.stdout.readline() == "held\n"
        assert RunFolder.busy(path)
        with pytest.raises(UserError, match="another process"):
            RunFolder.open(path).rewind(None)
    finally:
        holder.kill()
        holder.communicate()
    assert not RunFolder.busy(path)
    run = RunFolder.open(path)
    run.rewind(None)
    run.close()


def test_a_run_is_made_longer_by_who_claims_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opened it before that cannot end it at its old length; after a kill in between it is not complete."""
    RunFolder.open(path).note_end(Ended("finished"))
    early, longer = RunFolder.open(path), RunFolder.open(path)
    longer.lengthen(CONFIG.total_steps + 400)
    assert not longer.complete and RunFolder.open(path).complete, "nothing is written yet"
    longer.lock()
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "_write_config", lambda run: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            longer.write_changes()
    assert RunFolder.open(path).config == CONFIG and not RunFolder.open(path).complete
    longer.write_changes()
    longer.close()
    assert RunFolder.open(path).config.total_steps == CONFIG.total_steps + 400
    assert not RunFolder.open(path).complete
    early.lock()
    with pytest.raises(UserError, match="by another process just now; resume it again"):
        early.rewind(None)
    early.close()


def test_places_where_no_run_folder_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for place, words in ((".", "is there, and empty; give a --run-dir"), ("/", "exists already")):
        with pytest.raises(UserError, match=words):
            RunFolder.create(Path(place), CONFIG, {"omad": "test"})


@pytest.mark.parametrize("names", [["lock"], ["lock", "checkpoints/"], ["lock", "checkpoints/", "config.json"]])
def test_a_half_made_folder_is_completed(tmp_path: Path, names: list[str]) -> None:
    path = tmp_path / "run"
    path.mkdir()
    for name in names:
        (path / name).mkdir() if name.endswith("/") else (path / name).write_text("")
    with pytest.raises(UserError, match="partly created" if names else "not a run folder"):
        RunFolder.open(path)
    RunFolder.create(path, CONFIG, {"omad": "test"}).close()
    assert RunFolder.open(path).config == CONFIG
    with pytest.raises(UserError, match="exists already"):
        RunFolder.create(path, CONFIG, {"omad": "test"})


def test_a_folder_with_anything_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        RunFolder.create(tmp_path, CONFIG, {"omad": "test"})
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_group_is_made_whole_or_not_at_all(tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    group, made = resolve("probe/push", seeds=3), []
    monkeypatch.setattr("omad.experiment.manifest_of", lambda *_: {"omad": "test"})
    real = RunFolder.create

    def create(*arguments: Any) -> RunFolder:
        if len(made) == after:
            raise Killed
        made.append(1)
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "create", create)
        with pytest.raises(Killed):
            Experiment(group).create_each(tmp_path / "all")
    assert not (tmp_path / "all").exists()
    folders = Experiment(group).create_each(tmp_path / "all")
    assert members(tmp_path / "all") == folders == [tmp_path / "all" / f"seed-{seed}" for seed in range(3)]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["all"]
    assert sorted(entry.name for entry in (tmp_path / "all").iterdir()) == ["seed-0", "seed-1", "seed-2"]


def test_runs_of_one_second_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("omad.experiment._default_dir", lambda _: Path("runs/name"))
    assert [claim(CONFIG).name for _ in range(3)] == ["name", "name-2", "name-3"]


def test_what_may_change_rounding_is_told() -> None:
    now = facts()
    assert differences(now) == [] == differences({})
    then = json.loads(json.dumps(now))
    then["cores"], then["flags"]["jax_enable_x64"] = 64, "other"
    assert [words.partition(" was ")[0] for words in differences(then)] == ["cores", "flags jax_enable_x64"]


def test_folders_that_are_no_seeds_of_one_run_are_no_group(tmp_path: Path) -> None:
    """Else the first would stand for all; only what a resume that was cut off has changed may differ."""
    for name, fields in {
        "good": {"total_steps": CONFIG.total_steps + 400, "first_seed": 5},
        "other": {"batch_size": CONFIG.batch_size // 2, "first_seed": 1},
        "twice": {},
    }.items():
        for seed, config in ((0, CONFIG), (1, dataclasses.replace(CONFIG, **fields))):
            RunFolder.create(tmp_path / name / f"seed-{seed}", config, {"omad": "test"}).close()
    run = Run(tmp_path / "good")
    assert run.seeds == (0, 5) and run.config == CONFIG, "no range of seeds"
    RunFolder.create(tmp_path / "one", CONFIG, {"omad": "test"}).close()
    found = {row["field"]: row for row in compare.differences(tmp_path / "good", tmp_path / "one")}
    assert {name: (row["a"]["value"], row["b"]["value"]) for name, row in found.items()} == {
        "seeds": (2, 1),
        "total_steps": ([CONFIG.total_steps, CONFIG.total_steps + 400], CONFIG.total_steps),
    }
    for name, words in (("other", "batch_size differ in its folders"), ("twice", "has seed 0 twice")):
        for use in (lambda path: Run(path), lambda path: compare.differences(path, tmp_path / "good")):
            with pytest.raises(UserError, match=words):
                use(tmp_path / name)


# ---------------------------------------------------------------- what to do with a folder


def test_what_continues_a_run_is_a_command_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quoted, with trust for a user's env, and in Python for an env that no other process knows."""
    monkeypatch.setattr(outside, "_entries", {"my/env": outside.Entry("own.envs:make")})
    assert how_to_resume("runs/a b", "probe/push") == "omad resume 'runs/a b'"
    assert how_to_resume("runs/a", "jax:own.envs:make?n=3") == "omad resume runs/a --trust"
    assert how_to_resume("runs/a", "object:JaxEnv").startswith("omad.resume('runs/a', env=...) in Python")
    assert "after omad.envs.register('my/env', ...)" in how_to_resume("runs/a", "my/env?n=3")


def test_a_folder_that_is_no_run_is_named(path: Path) -> None:
    """A team, or the nearest run in it, of which links are not followed; else nothing is said."""
    root = path.parent
    (root / "empty").mkdir()
    (root / "deep" / "er").mkdir(parents=True)
    (root / "linked").mkdir()
    (root / "linked" / "run").symlink_to(path)
    RunFolder.create(root / "deep" / "er" / "run", CONFIG, {"omad": "test"}).close()
    assert instead(root).startswith(f" It holds runs: give one, as {path}; omad runs {root} lists them.")
    assert f"as {root / 'deep' / 'er' / 'run'};" in instead(root / "deep")
    assert instead(root / "empty") == instead(root / "linked") == instead(root / "no") == ""
    (root / "empty" / "team.json").touch()
    assert "omad run-bundle plays it" in instead(root / "empty")
