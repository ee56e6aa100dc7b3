"""Checkpoints as files: bit-exact, found to be damaged wherever they are, and never fewer than there were."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from omad import files
from omad.config import resolve
from omad.errors import UserError
from omad.run import arrays
from omad.run.folder import RunFolder
from omad.run.records import EPISODES, LINES, METRICS

CONFIG = resolve("probe/push")


def tree(moment: int) -> dict[str, Any]:
    rng = np.random.default_rng(moment)
    return {
        "net": {"w": rng.normal(size=(3, 5)).astype(np.float32), "b": np.array(moment % 2 == 0)},
        "bits": rng.integers(0, 2**32, 7, np.uint32),
        "half": rng.normal(size=4).astype(ml_dtypes.bfloat16),
        "bytes": rng.integers(0, 255, (2, 3), np.uint8),
        "none": np.zeros((2, 0), np.float32),
        "count": np.int32(moment),
    }


def save(run: RunFolder, moment: int) -> None:
    """A line in each file, then a checkpoint."""
    run.write(METRICS, {"step": moment, "seed": 0, "loss": 0.5})
    run.write(EPISODES, {"step": moment, "seed": 0, "actions": "sampled", "eval_seed": 1, "returns": [1.0]})
    run.save(moment, moment, {"w": tree(moment)["net"]["w"]}, tree(moment))


def moments(path: Path) -> list[int]:
    """Those of which all can be read and is what was saved."""
    found = []
    for point in RunFolder.open(path).checkpoints():
        try:
            rest = point.restore("rest", tree(0))
            policy = point.restore("policy", {"w": tree(0)["net"]["w"]})
        except UserError:
            continue
        due = tree(point.vector_steps)
        for a, b in zip(jax.tree.leaves(rest), jax.tree.leaves(due), strict=True):
            assert np.asarray(a).dtype == b.dtype
            assert np.asarray(a).tobytes() == b.tobytes()
        np.testing.assert_array_equal(policy["w"], due["net"]["w"])
        found.append(point.vector_steps)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    RunFolder.create(tmp_path / "run", CONFIG, {"omad": "test"}).close()
    return tmp_path / "run"


@pytest.fixture
def run(path: Path) -> Iterator[RunFolder]:
    opened = RunFolder.open(path)
    opened.rewind(None)
    yield opened
    opened.close()


def test_everything_comes_back_bit_for_bit(run: RunFolder) -> None:
    for moment in (1, 2, 3):
        save(run, moment)
    assert moments(run.path) == [3, 2]
    whole = load_file(run.checkpoints()[0].file("rest"))
    assert {"net.w", "bits", "count"} <= whole.keys()
    assert whole["half"].dtype == ml_dtypes.bfloat16
    assert arrays.n_bytes(tree(3)) == run.checkpoints()[0].file("rest").stat().st_size


@pytest.mark.parametrize(
    ("like", "words"),
    [
        ({"w": np.zeros((2, 5), np.float32)}, "it holds w as F32 of shape"),
        ({"w": np.zeros((3, 5), np.int32)}, "not I32"),
        ({"v": np.zeros(3)}, "it has no v"),
        ({}, "it holds w too"),
    ],
)
def test_what_does_not_fit_is_refused(run: RunFolder, like: Any, words: str) -> None:
    save(run, 1)
    with pytest.raises(UserError, match=words):
        run.checkpoints()[0].restore("policy", like)


def test_arrays_whose_paths_are_written_alike_are_refused(tmp_path: Path) -> None:
    """One would replace the other, and the run could not go on."""
    with pytest.raises(UserError, match=r"both called 'a\.b'"):
        arrays.save(tmp_path / "file", {"a.b": np.zeros(2), "a": {"b": np.ones(2)}}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_changed_byte_of_an_index_or_a_part_is_found(run: RunFolder) -> None:
    """Digits most of all: a row, a length, a size."""
    save(run, 1)
    save(run, 12)
    point = run.checkpoints()[0]
    for file in (run.path / "checkpoints" / "12.json", point.file("policy"), point.file("rest")):
        good = file.read_bytes()
        index = file.suffix == ".json"
        for place in range(0, len(good), 1 if index else 13):
            old = good[place : place + 1]
            new = b"%d" % ((int(old) + 1) % 10) if old.isdigit() else bytes([good[place] ^ 1])
            file.write_bytes(good[:place] + new + good[place + 1 :])
            if index:
                assert [one.vector_steps for one in run.checkpoints()] == [1] or old.isspace(), place
                continue
            with pytest.raises(UserError, match="damaged"):
                point.restore("policy" if file.stem == "policy" else "rest", tree(0))
        file.write_bytes(good)
    assert moments(run.path) == [12, 1]


def test_parts_of_two_moments_do_not_go_together(run: RunFolder) -> None:
    save(run, 1)
    save(run, 2)
    shutil.copy(run.path / "checkpoints/1/policy.safetensors", run.path / "checkpoints/2/policy.safetensors")
    assert moments(run.path) == [1]


@pytest.mark.parametrize("name", [".DS_Store", "²³.json", "abc", "7.txt", "99.json", "007.json", "-1.json", "1e3.json"])
def test_stray_files_cost_no_checkpoint(run: RunFolder, name: str) -> None:
    save(run, 1)
    save(run, 2)
    (run.path / "checkpoints" / name).write_text("{}")
    save(run, 3)
    assert moments(run.path) == [3, 2]
    assert (run.path / "checkpoints" / name).read_text() == "{}"


@pytest.mark.parametrize("content", [b"[" * 100_000, b"", b"null", b'{"format":2}', b"\xff" * 50, b"1" * 400])
def test_an_index_that_is_something_else_is_passed_over(run: RunFolder, content: bytes) -> None:
    save(run, 1)
    save(run, 2)
    (run.path / "checkpoints" / "2.json").write_bytes(content)
    assert moments(run.path) == [1]


@pytest.mark.parametrize(
    "change",
    [
        {"lengths": {METRICS: 0, "../victim.txt": 0}},
        {"lengths": {METRICS: 0, EPISODES: 0, "/etc/x": 0}},
        {"lengths": {METRICS: 0}},
        {"folder": "../../victim"},
        {"folder": "1"},
        {"row": True},
        {"row": 10**30},
        {"env_steps": 1},
        {"format": 1},
    ],
)
def test_only_our_own_names_are_opened(run: RunFolder, change: dict[str, Any]) -> None:
    """Even if the checksum is right."""
    import msgspec

    from omad.run.records import Index

    save(run, 1)
    save(run, 2)
    file = run.path / "checkpoints" / "2.json"
    fields = json.loads(file.read_text()) | change
    with contextlib.suppress(msgspec.ValidationError):
        fields["checksum"] = msgspec.convert(fields, Index).digest()
    file.write_text(json.dumps(fields))
    assert [point.vector_steps for point in run.checkpoints()] == [1]


# ------------------------------------------------------------ kills


class Killed(BaseException):
    """Stands for the end of the process: nothing after it runs."""


class Dying:
    """The module `os` until the n-th change of a file; from then on every call ends the process."""

    changes = frozenset({"mkdir", "write", "fsync", "replace", "unlink", "rmdir", "ftruncate"})

    def __init__(self, lives: int, error: OSError | None = None) -> None:
        self.lives, self.error, self.dead = lives, error, False

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self.changes:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.lives -= 1
            if self.dead or self.lives < 0:
                self.dead = self.error is None
                if name == "write" and not self.dead:
                    raise OSError(*self.error.args) if self.error else Killed
                if self.dead:
                    raise Killed
            return None if name == "fsync" else real(*args, **kwargs)  # the machine itself stays up

        return call


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "os", Dying(10**9))


@pytest.mark.parametrize("before", [[1], [1, 3], [3], [1, 2]])
def test_killed_anywhere_in_a_save(tmp_path: Path, before: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each change of a file: all that was saved last is still there; the next save leaves the newest two."""
    lives, done = 0, False
    while not done:
        path = tmp_path / f"{lives}"
        run = RunFolder.create(path, CONFIG, {"omad": "test"})
        for moment in before:
            save(run, moment)
        monkeypatch.setattr(files, "os", Dying(lives))
        try:
            save(run, 3)
            done = True
        except Killed:
            pass
        monkeypatch.setattr(files, "os", Dying(10**9))
        run.close()
        found = moments(path)
        assert before[-1] in found or found[:1] == [3], lives
        assert len(found) >= min(2, len(before)), lives
        again = RunFolder.open(path)
        again.rewind(again.checkpoints()[0])
        assert all(len(again.lines(name)) in (len(before), len(before) + 1) for name in LINES)
        save(again, 4)
        again.close()
        last = moments(path)
        assert last[0] == 4 and len(last) == 2
        assert not list(path.rglob("*.partial"))
        left = {entry.name.partition(".")[0] for entry in (path / "checkpoints").iterdir()}
        assert left == set(map(str, last))
        lives += 1
    assert lives > 20


# ------------------------------------------------------------ full disks


def test_a_write_that_fails_keeps_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever it is, of lines, arrays or index."""
    lives, done = 0, False
    while not done:
        path = tmp_path / f"{lives}"
        run = RunFolder.create(path, CONFIG, {"omad": "test"})
        save(run, 1)
        monkeypatch.setattr(files, "os", Dying(lives, OSError(errno.ENOSPC, "No space left on device")))
        try:
            save(run, 2)
            done = True
        except OSError as error:
            assert "No space left" in str(error) and str(path) in str(error)
        monkeypatch.setattr(files, "os", Dying(10**9))
        run.close()
        assert moments(path) == ([2, 1] if done else [1])
        again = RunFolder.open(path)
        again.rewind(again.checkpoints()[0])
        save(again, 5)
        again.close()
        assert moments(path) == ([5, 2] if done else [5, 1])
        assert [line["step"] for line in RunFolder.open(path).lines(METRICS)] == ([1, 2, 5] if done else [1, 5])
        lives += 1
    assert lives > 20


def test_too_little_space_is_said_before_anything_is_written(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    save(run, 1)
    before = sorted((run.path / "checkpoints").iterdir())
    monkeypatch.setattr(files, "free_bytes", lambda _: 900)
    with pytest.raises(OSError, match=r"needs [\d,]+ bytes, 900 are free; nothing was written"):
        save(run, 2)
    assert sorted((run.path / "checkpoints").iterdir()) == before
    assert moments(run.path) == [1]


def mounted(path: Path, kib: int) -> bool:
    path.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(path)]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.parametrize("kib", range(24, 104, 8))
def test_file_systems_from_too_small_to_large_enough(tmp_path: Path, kib: int) -> None:
    """There is always a checkpoint once there was one; with more room, the run goes on from it."""
    place = tmp_path / "disk"
    if not mounted(place, kib):
        pytest.skip("a file system of a given size cannot be mounted here")
    try:
        path, last, failed = place / "run", 0, ""
        try:
            run = RunFolder.create(path, CONFIG, {"omad": "test"})
        except OSError:
            return
        for moment in range(1, 6):
            try:
                save(run, moment)
                last = moment
            except OSError as error:
                failed = str(error)
                break
        run.close()
        assert failed or last == 5
        found = moments(path)
        assert found[:1] == ([last] if last else [])
        subprocess.run(["mount", "-o", "remount,size=1m", str(place)], check=True)
        again = RunFolder.open(path)
        again.rewind(again.checkpoints()[0] if last else None)
        for moment in range(last + 1, 6):
            save(again, moment)
        again.close()
        assert moments(path) == [5, 4]
        assert [line["step"] for line in RunFolder.open(path).lines(METRICS)] == [1, 2, 3, 4, 5]
    finally:
        subprocess.run(["umount", str(place)], check=True)
