"""A run that is killed, stopped, damaged or poisoned: what is left, and what resuming makes of it."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad import envs, schema
from omad.callbacks import BestPolicy, Callback, Context
from omad.config import RunConfig, resolve
from omad.errors import CallbackFailed, NonFinite, UserError
from omad.experiment import Experiment
from omad.loggers import Logger, Progress
from omad.loop import build as building
from omad.loop.build import Built, build
from omad.loop.fused import Carry
from omad.loop.session import Result, Session
from omad.run import arrays
from omad.run.folder import RunFolder
from omad.saved import policies_at

TINY: dict[str, Any] = {
    "total_steps": 400,
    "warmup_steps": 40,
    "n_envs": 2,
    "updates_per_step": 2,
    "batch_size": 8,
    "buffer_size": 128,
    "log_every": 60,
    "eval_every": 100,
    "eval_episodes": 3,
    "save_every": 70,
    "actor_width": 8,
    "actor_layers": 1,
    "critic_width": 8,
    "critic_layers": 1,
    "seeds": 2,
}
OMAD = {"v_max": 8.0, "atoms": 11, "denoising_steps": 2, "time_frequencies": 4, "time_width": 4}


class Killed(BaseException):
    """Stands for the end of the process: nothing after it runs."""


@pytest.fixture(scope="module")
def config() -> RunConfig:
    """With every option of the learner that carries anything, or draws anything."""
    of_run = {"reward_norm": "return", "noise_hold": 2.0}
    levers = {"critic_net": "xqc", "critic_blocks": 1, "alpha_pace": "env", "chain_kernel": "exact"}
    return resolve("probe/push", **TINY, **OMAD, **of_run, **levers)


@pytest.fixture(scope="module")
def built(config: RunConfig) -> Built:
    return build(config, envs.make(config.task))


def manifest(built: Built) -> dict:
    return {"omad": "test", "spec": dataclasses.asdict(built.spec)}


class Watch(Logger):
    """Hands on what is told of progress."""

    def __init__(self, told) -> None:
        self.told = told

    def progress(self, progress: Progress) -> None:
        self.told(progress)


def begin(path: Path, config: RunConfig, built: Built, loggers=(), callbacks=()) -> tuple[Result, Session]:
    run = RunFolder.create(path, config, manifest(built))
    session = Session(run, built, loggers, callbacks)
    try:
        session.begin()
        return session.go(), session
    finally:
        run.close()


class Notes(Logger):
    """What a run says of damaged checkpoints."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def event(self, name: str, env_steps: int, text: str) -> None:
        if name == "note" and "falling back" in text:
            self.said.append(text)


def go_on(path: Path, built: Built, loggers=()) -> tuple[Result, list[str], Session]:
    run = RunFolder.open(path)
    notes = Notes()
    session = Session(run, built, (*loggers, notes))
    try:
        session.restore()
        return session.go(), notes.said, session
    finally:
        run.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, config: RunConfig, built: Built) -> tuple[Path, Session]:
    """A run that nothing ever disturbed."""
    path = tmp_path_factory.mktemp("whole") / "run"
    result, session = begin(path, config, built)
    assert result.env_steps == 400
    return path, session


def timeless(path: Path) -> list[dict]:
    lines = [json.loads(row) for row in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


def assert_same_run(path: Path, other: Path, carry, reference) -> None:
    assert (path / "episodes.jsonl").read_bytes() == (other / "episodes.jsonl").read_bytes()
    assert timeless(path) == timeless(other)
    left, right = jax.tree.leaves(carry), jax.tree.leaves(reference)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_records_hold_every_line_once(whole: tuple[Path, Session], config: RunConfig):
    path, _ = whole
    logged = [(line["step"], line["seed"]) for line in timeless(path)]
    assert logged == [(step, seed) for step in (*range(60, 400, 60), 400) for seed in (0, 1)]
    episodes = [json.loads(row) for row in (path / "episodes.jsonl").read_text().splitlines()]
    seen = [(line["step"], line["actions"], line["seed"]) for line in episodes]
    assert seen == [
        (step, kind, seed) for step in (100, 200, 300, 400) for kind in ("sampled", "noise_free") for seed in (0, 1)
    ]
    assert all(len(line["returns"]) == config.eval_episodes for line in episodes)
    assert [c.env_steps for c in RunFolder.open(path).checkpoints()] == [400, 350]
    assert not list(path.rglob("*.partial"))


def test_twenty_kills_change_nothing(tmp_path: Path, config: RunConfig, built: Built, whole: tuple[Path, Session]):
    """Killed at random reports of progress, resumed each time: the same parameters, buffer and lines."""
    path, rng, kills = tmp_path / "run", np.random.default_rng(0), 0

    def fragile():
        lives = int(rng.integers(1, 14))

        def watch(_: Progress) -> None:
            nonlocal lives
            lives -= 1
            if lives < 0:
                raise Killed

        return watch

    session = None
    while session is None:
        try:
            loggers = [Watch(fragile())] if kills < 20 else []
            session = go_on(path, built, loggers)[2] if path.exists() else begin(path, config, built, loggers)[1]
        except Killed:
            kills += 1
            with (path / "metrics.jsonl").open("ab") as file:  # what a process leaves that dies while it writes
                file.write(b'{"step": 1')
    assert kills >= 10
    assert_same_run(path, whole[0], session.carry, whole[1].carry)


def test_stopping_anywhere_changes_nothing(
    tmp_path: Path, config: RunConfig, built: Built, whole: tuple[Path, Session]
):
    """Asked to stop between boundaries, a run saves at once, and goes on as if it had not been stopped."""

    class Stop(Callback):
        calls = 0

        def on_progress(self, context: Context) -> None:
            self.calls += 1
            if self.calls > 8:
                context.stop("told to")

    result, _ = begin(tmp_path / "run", config, built, callbacks=[Stop()])
    assert result.stopped == "told to"
    assert 40 < result.env_steps < 400
    assert RunFolder.open(tmp_path / "run").checkpoints()[0].env_steps == result.env_steps
    _, passed, session = go_on(tmp_path / "run", built)
    assert passed == []
    assert_same_run(tmp_path / "run", whole[0], session.carry, whole[1].carry)


def copy_of(whole: tuple[Path, Session], tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole[0], tmp_path / "run"))


def damage(part: Path) -> None:
    file = part.with_suffix(".safetensors")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, built: Built, whole: tuple[Path, Session]):
    path = copy_of(whole, tmp_path)
    damage(path / "checkpoints" / "400" / "rest")
    _, passed, session = go_on(path, built)
    assert len(passed) == 1
    assert "damaged" in passed[0]
    assert_same_run(path, whole[0], session.carry, whole[1].carry)


def test_policies_fall_back_too(tmp_path: Path, built: Built, whole: tuple[Path, Session]):
    path = copy_of(whole, tmp_path)
    damage(path / "checkpoints" / "400" / "policy")
    policies_at(RunFolder.open(path), built.algorithm)
    damage(path / "checkpoints" / "350" / "policy")
    with pytest.raises(UserError, match="no readable checkpoint"):
        policies_at(RunFolder.open(path), built.algorithm)


def test_nothing_is_lost_when_all_checkpoints_are_damaged(tmp_path: Path, built: Built, whole: tuple[Path, Session]):
    path = copy_of(whole, tmp_path)
    before = (path / "episodes.jsonl").read_bytes()
    for step in ("350", "400"):
        damage(path / "checkpoints" / step / "rest")
    with pytest.raises(UserError, match="No checkpoint"):
        go_on(path, built)
    assert (path / "episodes.jsonl").read_bytes() == before
    assert len(RunFolder.open(path).checkpoints()) == 2


def test_a_damaged_index_is_said_and_never_taken_for_a_fresh_start(
    tmp_path: Path, built: Built, whole: tuple[Path, Session]
):
    """With another checkpoint the run goes on from there; with none it is refused, and nothing is cut."""
    path = copy_of(whole, tmp_path)
    os.truncate(path / "checkpoints" / "400.json", 20)
    _, passed, session = go_on(path, built)
    assert passed == ["the checkpoint of env step 400 has a damaged index; falling back."]
    assert_same_run(path, whole[0], session.carry, whole[1].carry)
    alone = Path(shutil.copytree(whole[0], tmp_path / "alone"))
    for step in ("350", "400"):
        os.truncate(alone / "checkpoints" / f"{step}.json", 20)
    before = {name: (alone / name).read_bytes() for name in ("metrics.jsonl", "episodes.jsonl")}
    with pytest.raises(UserError, match=r"400.json is damaged, and there is no checkpoint before it"):
        go_on(alone, built)
    assert {name: (alone / name).read_bytes() for name in before} == before


def test_a_checkpoint_that_cannot_be_read_for_now_is_not_thrown_away(
    tmp_path: Path, built: Built, whole: tuple[Path, Session], monkeypatch: pytest.MonkeyPatch
):
    path = copy_of(whole, tmp_path)

    def refused(file: Path) -> Any:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("omad.run.arrays.open_plain", refused)
    with pytest.raises(
        UserError, match=r"rest.safetensors cannot be read \(Permission denied\), though it may be whole"
    ):
        go_on(path, built)
    monkeypatch.undo()
    opened = schema.open_plain
    monkeypatch.setattr(schema, "open_plain", lambda file: refused(file) if file.name == "400.json" else opened(file))
    with pytest.raises(UserError, match=r"400.json cannot be read \(Permission denied\), though it may be whole"):
        go_on(path, built)
    monkeypatch.undo()
    assert [one.env_steps for one in RunFolder.open(path).checkpoints()] == [400, 350]
    _, passed, session = go_on(path, built)
    assert passed == []
    assert_same_run(path, whole[0], session.carry, whole[1].carry)


def test_entries_that_another_process_has_added_to_the_manifest_stay(tmp_path: Path, whole: tuple[Path, Session]):
    path = copy_of(whole, tmp_path)
    early, other = RunFolder.open(path), RunFolder.open(path)
    other.lock()
    other.amend(stops=[{"env_steps": 400, "reason": "enough"}])
    other.close()
    early.lock()
    early.amend(resume="exact now")
    early.close()
    assert RunFolder.open(path).manifest["stops"] == [{"env_steps": 400, "reason": "enough"}]


def test_lines_missing_before_the_checkpoint_are_refused(tmp_path: Path, built: Built, whole: tuple[Path, Session]):
    path = copy_of(whole, tmp_path)
    os.truncate(path / "episodes.jsonl", 10)
    with pytest.raises(UserError, match="lines are missing"):
        go_on(path, built)


def test_a_truncated_last_line_is_passed_over(tmp_path: Path, whole: tuple[Path, Session]):
    path = copy_of(whole, tmp_path)
    run = RunFolder.open(path)
    before = list(run.lines("metrics.jsonl"))
    with (path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 40')
    assert list(run.lines("metrics.jsonl")) == before


def test_a_complete_run_is_left_as_it_is(tmp_path: Path, built: Built, whole: tuple[Path, Session]):
    path = copy_of(whole, tmp_path)
    result, _, _ = go_on(path, built)
    assert result.env_steps == 400
    assert (path / "episodes.jsonl").read_bytes() == (whole[0] / "episodes.jsonl").read_bytes()


def test_two_writers_are_refused(tmp_path: Path, built: Built, whole: tuple[Path, Session]):
    path = copy_of(whole, tmp_path)
    first = RunFolder.open(path)
    first.lock()
    with pytest.raises(UserError, match="another process"):
        go_on(path, built)
    first.close()


def test_a_non_finite_number_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Within one chunk; run, step and metric are named; the last good checkpoint stands."""
    config = resolve("probe/push", "hatd3", **TINY)
    built = build(config, envs.make(config.task))
    poison_at = 201

    def update(learner, batch, key, count):
        learner, metrics = built.algorithm.update(learner, batch, key, count)
        loss = metrics["critic/loss"]
        sick = jnp.where(count >= poison_at, jnp.nan, loss.total)
        return learner, metrics | {"critic/loss": eqx.tree_at(lambda m: m.total, loss, sick)}

    poisoned = built.algorithm._replace(update=update, remade=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "make_algorithm", lambda *_: poisoned)
        sick = build(config, envs.make(config.task))
    path = tmp_path / "run"
    reports: list[Progress] = []
    with pytest.raises(NonFinite, match="critic/loss") as error:
        begin(path, config, sick, [Watch(reports.append)])
    # gradient step 201 belongs to vector step 20 + 101, env step 242
    said = int(str(error.value).split("env step ")[1].split(",")[0])
    assert said <= 242
    assert all(report.env_steps < 242 for report in reports)
    assert str(path) in str(error.value)
    kept = RunFolder.open(path).checkpoints()
    assert [c.env_steps for c in kept] == [210, 140]
    policies_at(RunFolder.open(path), built.algorithm)
    monkeypatch.setattr("omad.experiment.build", lambda *_: sick)
    folder = RunFolder.open(path)
    with pytest.raises(NonFinite) as error:
        Experiment.of_run(folder, loggers=()).work(folder, fresh=False)
    ended = RunFolder.open(path).ended
    assert ended is not None and (ended.how, ended.words) == ("diverged", str(error.value))


def test_a_full_disk_loses_nothing(tmp_path: Path, config: RunConfig, built: Built, monkeypatch: pytest.MonkeyPatch):
    real, saves = arrays.save, 0

    def save(*args):
        nonlocal saves
        saves += 1
        if saves > 4:  # two parts a checkpoint: the third checkpoint fails
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    monkeypatch.setattr(arrays, "save", save)
    with pytest.raises(OSError, match="No space left"):
        begin(tmp_path / "run", config, built)
    kept = RunFolder.open(tmp_path / "run").checkpoints()
    assert [c.env_steps for c in kept] == [140, 70]
    assert not (tmp_path / "run" / "checkpoints" / "210").exists()
    policies_at(RunFolder.open(tmp_path / "run"), built.algorithm)


def mount(path: Path, kib: int, *, again: bool = False) -> bool:
    """A file system of a size, or a new size of it; whether that is possible here."""
    path.mkdir(exist_ok=True)
    size = f"remount,size={kib}k" if again else f"size={kib}k"
    words = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
def test_a_disk_of_any_size_loses_nothing(tmp_path: Path, config: RunConfig, built: Built, whole: tuple[Path, Session]):
    """Ten sizes from too small to large enough: once there was a checkpoint there is one; with room, the same end."""
    files = [path for path in (whole[0] / "checkpoints").rglob("*") if path.is_file()]
    one_kib = sum(path.stat().st_size for path in files) / 2 / 1024
    place, outcomes = tmp_path / "disk", []
    for kib in np.linspace(0.6 * one_kib, 3.4 * one_kib + 128, 10).round().astype(int):
        if not mount(place, kib):
            pytest.skip("a file system of a given size cannot be mounted here")
        try:
            path, saved = place / "run", 0

            class Saved(Callback):
                def on_save(self, context: Context) -> None:
                    nonlocal saved
                    saved = context.env_steps

            try:
                result, session = begin(path, config, built, callbacks=[Saved(), BestPolicy()])
                assert result.env_steps == 400
                outcomes.append("done")
            except (OSError, CallbackFailed) as error:
                assert "No space left" in str(error) or "cannot be made" in str(error), error
                found = RunFolder.open(path).checkpoints() if (path / "manifest.json").exists() else []
                assert [one.env_steps for one in found][:1] == ([saved] if saved else [])
                outcomes.append("cut" if saved else "nothing saved")
                assert mount(place, 64 * 1024, again=True)
                if not found:
                    shutil.rmtree(path, ignore_errors=True)
                session = go_on(path, built)[2] if found else begin(path, config, built)[1]
            assert_same_run(path, whole[0], session.carry, whole[1].carry)
        finally:
            subprocess.run(["umount", str(place)], check=True)
    assert set(outcomes) == {"nothing saved", "cut", "done"}


def test_a_run_that_cannot_fit_is_refused_before_anything_is_made(tmp_path: Path, config: RunConfig):
    huge = dataclasses.replace(config, buffer_size=2**31 - 1)
    with pytest.raises(UserError, match="--buffer-size"):
        Experiment(huge).start(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_folders_that_are_not_runs(tmp_path: Path, config: RunConfig, built: Built, whole: tuple[Path, Session]):
    with pytest.raises(UserError, match="no such folder"):
        RunFolder.open(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not a run folder"):
        RunFolder.open(tmp_path / "empty")
    with pytest.raises(UserError, match="exists already"):
        RunFolder.create(whole[0], config, manifest(built))
    path = copy_of(whole, tmp_path)
    values = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(values | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        RunFolder.open(path)
    (path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="cannot be used"):
        RunFolder.open(path)
    (path / "manifest.json").write_text(json.dumps(values))
    fields = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(fields | {"colour": "red"}))
    with pytest.raises(UserError, match="colour"):
        RunFolder.open(path)


def words(path: Path, task: str = "probe/push", algorithm: str = "hatd3") -> list[str]:
    """A run in a process of its own, with the algorithm that starts soonest."""
    fields = TINY | (OMAD if algorithm == "omad" else {}) | {"total_steps": 20_000}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
    return [sys.executable, "-m", "omad", "train", algorithm, "--task", task, f"--run-dir={path}", *flags]


@pytest.mark.slow
def test_a_file_that_cannot_grow_ends_a_run_with_a_sentence(tmp_path: Path):
    """A real process whose files may not pass a limit, so that no checkpoint fits: as on a full disk."""
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000)); "
    program = limited + "from omad.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, *words(tmp_path / "run")[3:]]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 2
    said = [line for line in ended.stderr.splitlines() if line.startswith("omad: ")]
    assert len(said) == 1 and "could not be written" in said[0] and "ERROR:" not in ended.stderr
    assert "What was written before is kept" in ended.stderr
    run = RunFolder.open(tmp_path / "run")
    assert not run.complete and list(run.lines("metrics.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_first(tmp_path: Path, number: signal.Signals, code: int):
    """A real process, a real signal: exit code 128 + n, and a checkpoint of that very moment."""
    path = tmp_path / "run"
    process = subprocess.Popen(words(path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 240
    while not list(path.glob("checkpoints/*.json")) and time.monotonic() < end and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert out.splitlines()[-1] == str(path)
    saved = RunFolder.open(path).checkpoints()[0].env_steps
    assert f"env step {saved:,}" in out


def last_carry(path: Path) -> Carry:
    """What the newest checkpoint of a run holds."""
    run = RunFolder.open(path)
    parts = build(run.config, envs.make(run.config.task))
    session = Session(run, parts)
    try:
        newest = run.checkpoints()[0].vector_steps
        session.restore()
        assert session.vector_steps == newest and not run.damaged()
        return session.carry
    finally:
        parts.close()
        run.close()


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("task", "deaths", "changes"),
    [
        ("probe/push", 20, {"total_steps": 120_000, "save_every": 250, "log_every": 200, "eval_every": 1_000}),
        # Physics in worker processes, which have to end with the process that was killed.
        (
            "mamujoco-full/swimmer-2x1",
            8,
            {"total_steps": 12_000, "save_every": 100, "log_every": 100, "eval_every": 3_000, "eval_episodes": 1},
        ),
    ],
)
def test_real_kills_change_nothing(tmp_path: Path, task: str, deaths: int, changes: dict[str, int]):
    """SIGKILL at random moments of a real process, start-up and saving included; then compared with a quiet run."""

    def command(path: Path) -> list[str]:
        return [
            *words(path, task, "omad"),
            "--seeds=1",
            *(f"--{name.replace('_', '-')}={value}" for name, value in changes.items()),
        ]

    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    still, struck = tmp_path / "still", tmp_path / "struck"
    subprocess.run(command(still), check=True, capture_output=True, timeout=600, env=environment)
    rng, kills, progress = np.random.default_rng(0), 0, {0}

    def newest() -> int:
        points = RunFolder.open(struck).checkpoints() if (struck / "checkpoints").is_dir() else []
        return points[0].env_steps if points else 0

    while kills < deaths:
        resume = [sys.executable, "-m", "omad", "resume", str(struck)]
        begun = (struck / "manifest.json").exists()
        if not begun:  # killed before there was a run
            shutil.rmtree(struck, ignore_errors=True)
        process = subprocess.Popen(
            resume if begun else command(struck), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
        )
        if kills % 3:  # in the middle of the work, however quick the machine is
            while newest() in progress and process.poll() is None:
                time.sleep(0.05)
            time.sleep(float(rng.uniform(0.0, 3.0)))
        else:  # most likely while it starts
            time.sleep(float(rng.uniform(0.5, 6.0)))
        if process.poll() is not None:
            assert process.returncode == 0, process.communicate()[1].decode()
            break
        process.kill()
        process.communicate()
        kills += 1
        progress.add(newest())
    subprocess.run(
        [sys.executable, "-m", "omad", "resume", str(struck)], check=True, capture_output=True, timeout=600,
        env=environment,
    )  # fmt: skip
    assert kills == deaths and len(progress) > deaths // 2
    assert_same_run(struck, still, last_carry(struck), last_carry(still))
