"""Runs that are told to stop, by signals to their whole process group and by pipes that break."""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest

from omad import api, cli, envs, evaluate, processes
from omad.config import resolve
from omad.envs.contract import guarded
from omad.errors import CallbackFailed, EnvFailed, NonFinite, UserError
from omad.experiment import Experiment
from omad.launch import last_line
from omad.loggers import Logger, Progress
from omad.loop.build import build
from omad.loop.session import Session
from omad.run.folder import RunFolder
from omad.run.places import members
from omad.types import Mean

HERE = Path(__file__).parent
SMALL: dict[str, Any] = {
    "warmup_steps": 40, "n_envs": 2, "updates_per_step": 2, "batch_size": 8, "buffer_size": 128, "eval_episodes": 1,
    "actor_width": 8, "actor_layers": 1, "critic_width": 8, "critic_layers": 1, "env_workers": 2, "log_every": 200,
    "save_every": 250, "eval_every": 1_000,
}  # fmt: skip
OMAD: dict[str, Any] = {"v_max": 8.0, "atoms": 11, "denoising_steps": 2, "time_frequencies": 4, "time_width": 4}
"""What OMAD has besides. Which algorithm it is does not matter to a signal, so `hatd3` runs, which starts sooner."""
SHORT: dict[str, Any] = SMALL | {"total_steps": 400}
MARK = "OMAD_TEST_MARK"
HOSTED = "pettingzoo:aim_env:Aim?helper=true"


# ---------------------------------------------------------------- real processes


class Started:
    """A command in a process group of its own, marked so that nothing it starts can hide."""

    def __init__(self, words: list[str], log: Path, stdout: Any = None) -> None:
        self.mark, self.log = uuid.uuid4().hex, log
        path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "omad", *words],
                stdout=stdout or file, stderr=file, env=os.environ | {MARK: self.mark, "PYTHONPATH": path},
                start_new_session=True,
            )  # fmt: skip

    def signal(self, number: int) -> None:
        """To the whole group, as schedulers and terminals do."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def end(self) -> tuple[int, str]:
        """Exit code and what was printed, once everything has gone."""
        code = self.process.wait(timeout=120)
        end = time.monotonic() + 10
        while (left := list(self.living())) and time.monotonic() < end:
            time.sleep(0.1)
        assert left == [], [process.cmdline() for process in left]
        return code, self.log.read_text()

    def living(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    yield process


def train_words(path: Path, task: str, algorithm: str = "hatd3", **fields: Any) -> list[str]:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in (SMALL | fields).items()]
    return ["train", algorithm, "--task", task, f"--run-dir={path}", *flags]


def progress(path: Path) -> dict[str, int]:
    """What may be waited for: bytes of lines, and entries of the folder of checkpoints, which come and go meanwhile."""
    sizes, entries = {"metrics": 0, "episodes": 0}, list[str]()
    studied = map(Path, glob.glob(f"{path}/*/*/*/*"))  # noqa: PTH207 - which takes folders that vanish meanwhile as empty
    for run in (path, *(path / f"seed-{seed}" for seed in (0, 1)), *studied):
        for name in sizes:
            with contextlib.suppress(OSError):
                sizes[name] += (run / f"{name}.jsonl").stat().st_size
        with contextlib.suppress(OSError):
            entries += sorted(entry.name for entry in (run / "checkpoints").iterdir())
    return sizes | {"checkpoints": hash(tuple(entries))}


def wait_for(started: Started, path: Path, kind: str, rng: np.random.Generator) -> None:
    """Until a random moment of a phase of the run."""
    if kind == "start":
        time.sleep(float(rng.uniform(0.3, 5.0)))
        return
    before = progress(path)[kind]
    while progress(path)[kind] == before and started.process.poll() is None:
        time.sleep(0.002)
    if rng.random() < 0.5:
        time.sleep(float(rng.uniform(0.0, 0.5)))


def last_carries(*paths: Path) -> Iterator[list[np.ndarray]]:
    """What the newest checkpoint of each run holds; all of one configuration."""
    config = RunFolder.open(paths[0]).config
    parts = build(config, envs.make(config.task))
    try:
        for path in paths:
            run = RunFolder.open(path)
            session = Session(run, parts)
            newest = run.checkpoints()[0].vector_steps
            session.restore()
            assert session.vector_steps == newest and not run.damaged()
            run.close()
            yield [np.asarray(leaf) for leaf in jax.tree.leaves(session.carry)]
    finally:
        parts.close()


def lines(path: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """What the clock does not say."""
    rows = [json.loads(row) for row in (path / "metrics.jsonl").read_text().splitlines()]
    timeless = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]
    return (path / "episodes.jsonl").read_bytes(), timeless


def struck(tmp_path: Path, task: str, moments: int, **fields: Any) -> None:
    """Stop a run at random moments and resume it each time: right codes, nothing left, the same end."""

    def words(path: Path) -> list[str]:
        return ["resume", str(path), "--trust"] if path.exists() else train_words(path, task, **fields)

    struck_while(tmp_path, words, members, moments)


def struck_while(
    tmp_path: Path, words: Callable[[Path], list[str]], runs: Callable[[Path], list[Path]], moments: int
) -> None:
    """The same for any command that works in a folder and, given again, goes on there.

    What is never struck, and the last part of what was, are run by this process, which has compiled it already.
    """
    path, still = tmp_path / "struck", tmp_path / "still"
    assert cli.main(words(still)) == 0
    rng = np.random.default_rng(0)
    kinds = itertools.cycle(["metrics", "start", "checkpoints", "episodes", "metrics"])
    numbers = itertools.cycle([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    done = 0
    for turn in range(moments):
        started = Started(words(path), tmp_path / f"{turn}.txt")
        kind, number = next(kinds), next(numbers)
        wait_for(started, path, kind, rng)
        started.signal(number)
        code, said = started.end()
        about = f"turn {turn}, {kind}, {number.name}: exit code {code}\n{said}"
        if code == 0:  # it came too late
            break
        done += 1
        if code == -number:  # Python had not yet begun with our code
            assert "memory" not in said, about
        else:
            assert code == 128 + number, about
            assert "Traceback" not in said, about
        assert all('"finished"' in file.read_text() for file in path.rglob("ended.json")), about
    else:
        assert cli.main(words(path)) == 0
    assert done >= 0.8 * moments
    for one, other in zip(runs(path), runs(still), strict=True):
        assert lines(one) == lines(other)
        for a, b in zip(*last_carries(one, other), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.fixture(autouse=True)
def _aim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


def test_a_group_signal_while_it_learns(tmp_path: Path) -> None:
    struck(tmp_path, "probe/push", 1, total_steps=4_000)


@pytest.mark.slow
def test_group_signals_at_three_moments(tmp_path: Path) -> None:
    """One of each signal."""
    struck(tmp_path, "probe/push", 3, total_steps=6_000)


@pytest.mark.slow
def test_group_signals_at_three_moments_of_a_hosted_run(tmp_path: Path) -> None:
    """Each worker has started a process in yet another session, which must end too."""
    struck(tmp_path, HOSTED, 3, total_steps=2_500)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("task", "fields"),
    [
        ("probe/push", {"total_steps": 20_000}),
        (HOSTED, {"total_steps": 8_000}),
        ("probe/push", {"total_steps": 20_000, "seeds": 2, "parallel_seeds": 2}),
    ],
    ids=["compiled", "hosted", "seeds"],
)
def test_group_signals_at_twenty_moments(tmp_path: Path, task: str, fields: dict[str, Any]) -> None:
    struck(tmp_path, task, 20, algorithm="omad", **OMAD, **fields)


def sweep_struck(tmp_path: Path, moments: int, total_steps: int) -> None:
    """A sweep of two runs at a time, stopped with its whole group; the same command goes on."""
    study = tmp_path / "study.py"
    study.write_text(
        "from omad.study import Study, grid\n"
        f"STUDY = Study('s', grid(['probe/push'], seeds=[0, 1], **{SMALL | OMAD | {'total_steps': total_steps}!r}))\n"
    )

    def words(path: Path) -> list[str]:
        return ["sweep", str(study), "--out", str(path), "--workers", "2"]

    struck_while(tmp_path, words, lambda path: sorted(found.parent for found in path.rglob("config.json")), moments)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_group_signals_at_twelve_moments_of_a_sweep(tmp_path: Path) -> None:
    sweep_struck(tmp_path, 12, 20_000)


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    """As `omad train | head -1`: saved, exit code 141, and nothing but that."""
    path = tmp_path / "run"
    started = Started(train_words(path, "probe/push", total_steps=400_000), tmp_path / "log.txt", subprocess.PIPE)
    assert started.process.stdout is not None
    assert started.process.stdout.readline().startswith(b"hatd3 on probe/push")
    while not last_line(path / "metrics.jsonl") and started.process.poll() is None:
        time.sleep(0.02)
    started.process.stdout.close()
    code, said = started.end()
    assert (code, said) == (141, "")
    assert RunFolder.open(path).checkpoints()
    assert RunFolder.open(path).ended is None


@pytest.mark.slow
def test_seeds_side_by_side(tmp_path: Path) -> None:
    """One signal to the group of the launching process: every run saves and ends."""
    path = tmp_path / "both"
    words = train_words(path, "probe/push", total_steps=400_000, seeds=2, parallel_seeds=2)
    started = Started(words, tmp_path / "log.txt")
    folders = [path / "seed-0", path / "seed-1"]
    while not all(last_line(folder / "metrics.jsonl") for folder in folders) and started.process.poll() is None:
        time.sleep(0.1)
    started.signal(signal.SIGTERM)
    code, said = started.end()
    assert code == 143, said
    for folder in folders:
        assert RunFolder.open(folder).checkpoints()
        assert not RunFolder.busy(folder)
        assert not (folder / "ended.json").exists()


# ---------------------------------------------------------------- in this process


@pytest.fixture
def handlers() -> Iterator[None]:
    """A script's own handlers are there again afterwards."""
    before = {number: signal.getsignal(number) for number in processes.STOPPING}
    yield
    assert {number: signal.getsignal(number) for number in processes.STOPPING} == before


@pytest.mark.parametrize(
    ("number", "raised", "code"),
    [
        (signal.SIGINT, KeyboardInterrupt, None),
        (signal.SIGTERM, SystemExit, 143),
        (signal.SIGHUP, SystemExit, 129),
        (signal.SIGPIPE, SystemExit, 141),
    ],
)
def test_a_script_does_not_go_on_after_a_signal(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    handlers: None,
    number: int,
    raised: type[BaseException],
    code: int | None,
) -> None:
    """A watcher that prints to nobody counts as SIGPIPE."""
    monkeypatch.setattr("omad.loop.listeners.nobody_reads", lambda error: isinstance(error, BrokenPipeError))

    class Watch(Logger):
        def progress(self, progress: Progress) -> None:
            if progress.env_steps and progress.event == "run":
                if number == signal.SIGPIPE:
                    raise BrokenPipeError
                signal.raise_signal(number)

    with pytest.raises(raised) as error:
        api.train("probe/push", "hatd3", run_dir=tmp_path / "run", loggers=[Watch()], **SHORT)
    assert getattr(error.value, "code", None) == code
    assert 0 < RunFolder.open(tmp_path / "run").checkpoints()[0].env_steps < 400


def test_another_broken_pipe_than_the_outputs_is_its_callbacks_fault(tmp_path: Path, handlers: None) -> None:
    class Tells(Logger):
        def progress(self, progress: Progress) -> None:
            raise BrokenPipeError("the service has gone")

    with pytest.raises(CallbackFailed, match=r"Tells.progress\(\) failed .* the service has gone"):
        api.train("probe/push", "hatd3", run_dir=tmp_path / "run", loggers=[Tells()], **SHORT)


def test_who_has_gone_is_told_from_the_pipe() -> None:
    words = (
        "import sys; from omad.processes import nobody_reads; sys.stderr.write(str(nobody_reads(BrokenPipeError())))"
    )
    here, there = os.pipe()
    for gone in (False, True):
        if gone:
            os.close(here)
        done = subprocess.run([sys.executable, "-c", words], stdout=there, stderr=subprocess.PIPE, check=True)
        assert done.stderr == str(gone).encode()
    os.close(there)


def test_a_signal_before_training_leaves_a_folder_that_goes_on(tmp_path: Path, handlers: None) -> None:
    experiment = Experiment(resolve("probe/push", "hatd3", **SHORT), loggers=())
    run = experiment.create(tmp_path / "run")
    with processes.StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        result = experiment.work(run, fresh=True)
    assert (result.signal, result.env_steps, signals.number) == (signal.SIGTERM, 0, signal.SIGTERM)
    assert not RunFolder.open(tmp_path / "run").checkpoints()
    assert api.resume(tmp_path / "run") == tmp_path / "run"
    assert RunFolder.open(tmp_path / "run").complete


def test_a_signal_ends_an_evaluation_which_is_made_again_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handlers: None
) -> None:
    """But for the last one, after which the run is complete."""
    asked = {"stop": 0}
    go_on = evaluate._go_on

    def go_on_after_a_signal(stop: Callable[[], bool]) -> None:
        asked["stop"] += 1
        if asked["stop"] in (
            3,
            10,
        ):  # of 5 env steps each: the first evaluation, and, once that has been made, the last
            signal.raise_signal(signal.SIGTERM)
        go_on(stop)

    fields: dict[str, Any] = SHORT | {"eval_every": 200}
    still, path = tmp_path / "still", tmp_path / "run"
    api.train("pettingzoo:aim_env:Aim", "hatd3", run_dir=still, loggers=[], **fields)
    monkeypatch.setattr(evaluate, "_go_on", go_on_after_a_signal)
    with pytest.raises(SystemExit):
        api.train("pettingzoo:aim_env:Aim", "hatd3", run_dir=path, loggers=[], **fields)
    run = RunFolder.open(path)
    assert (asked["stop"], run.checkpoints()[0].env_steps, run.evaluations()) == (3, 200, [])
    result = Experiment.of_run(run, loggers=[], trust=True).work(run, fresh=False)
    assert (asked["stop"], result.signal, run.complete) == (3 + 5 + 5, None, True)
    assert lines(path) == lines(still)


def test_an_env_that_fails_while_a_run_is_stopped_is_not_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handlers: None
) -> None:
    """What an env needs may have been told to stop as well."""

    def go(_: Session) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise EnvFailed("its simulator has gone")

    monkeypatch.setattr(Session, "go", go)
    experiment = Experiment(resolve("probe/push", "hatd3", **SHORT), loggers=())
    run = experiment.create(tmp_path / "run")
    with pytest.raises(SystemExit) as error:
        experiment.work(run, fresh=True)
    assert error.value.code == 143
    assert RunFolder.open(tmp_path / "run").ended is None


def test_an_import_is_finished_before_a_signal_ends_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handlers: None
) -> None:
    """Also where the command itself is called while a module is imported: then that import is none of its own."""
    (tmp_path / "half_imported.py").write_text("import signal\nsignal.raise_signal(signal.SIGTERM)\nWHOLE = True\n")
    (tmp_path / "a_program.py").write_text(
        "import signal\nfrom omad.processes import StopSignals\n"
        "with StopSignals(raising=True):\n    signal.raise_signal(signal.SIGTERM)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as stop, processes.StopSignals(raising=True) as signals:
        import half_imported  # pyright: ignore[reportMissingImports]

        assert half_imported.WHOLE and signals.number == signal.SIGTERM
        time.sleep(30)
    assert stop.value.code == 143
    with pytest.raises(SystemExit):
        import a_program  # noqa: F401 # pyright: ignore[reportMissingImports]


def test_signals_are_noted_once_and_a_second_interrupt_interrupts(
    monkeypatch: pytest.MonkeyPatch, handlers: None
) -> None:
    clock = [100.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: clock[0])
    with processes.StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        clock[0] += 0.5  # the same Ctrl-C, passed on by a wrapper
        signal.raise_signal(signal.SIGINT)
        assert signals.number == signal.SIGTERM
        clock[0] += 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(SystemExit) as error, processes.StopSignals(raising=True):
        signal.raise_signal(signal.SIGHUP)
    assert error.value.code == 129


def test_a_signal_in_an_envs_code_is_not_the_envs_fault() -> None:
    def step() -> None:
        raise processes.interruption(signal.SIGTERM)

    with pytest.raises(SystemExit) as stop:
        guarded("step()", step)
    assert stop.value.code == 143


def test_signals_are_held_while_something_must_not_be_halved(handlers: None) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt):
        with processes.held():
            signal.raise_signal(signal.SIGINT)
            done.append("whole")
        done.append("never")
    assert done == ["whole"]


def test_ignored_signals_stay_ignored(handlers: None) -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with processes.StopSignals() as signals:
            signal.raise_signal(signal.SIGHUP)
        assert signals.number is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_patience_counts_slices_however_long_they_took() -> None:
    patience, slices = processes.Patience(1.2), []
    while patience.slice_s:
        slices.append(patience.slice_s)
        patience.spend()
    assert slices == pytest.approx([0.5, 0.5, 0.2])


# ---------------------------------------------------------------- scripts without a main guard


def test_training_while_an_env_is_imported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of an env is the script itself: it must not train once more for every process that reads it."""
    (tmp_path / "no_guard_script.py").write_text(
        "import omad\nfrom aim_env import Aim as Env\nomad.train('pettingzoo:no_guard_script:Env', total_steps=400)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"if __name__ == \"__main__\":"):
        api.train("pettingzoo:no_guard_script:Env", "hatd3", run_dir=tmp_path / "run", **SHORT)
    monkeypatch.setenv(processes.WORKER, "1")
    config = resolve("probe/push")
    calls = (api.train, lambda: api.resume(tmp_path), lambda: Experiment(config))
    for call in calls:
        with pytest.raises(UserError, match="put what trains under"):
            call()
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------- who has diverged


@pytest.mark.parametrize(
    ("task", "fields", "advice"),
    [
        ("pettingzoo:aim_env:Aim", {"actor_lr": 1e38, "actor_every": 40}, "Lower the learning rates"),
        pytest.param(
            "pettingzoo:aim_env:Aim?scale=1e20",
            {"obs_norm": "running"},
            "use smaller units in the env",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["learning rate", "normalised"],
)
def test_a_learner_that_diverges_is_named_and_not_its_env(
    tmp_path: Path, task: str, fields: dict[str, Any], advice: str
) -> None:
    given: dict[str, Any] = SMALL | {"total_steps": 3_000, "env_workers": 1, "log_every": 1_000} | fields
    config = resolve(task, "hatd3", **given)
    with pytest.raises(NonFinite, match=advice) as error:
        Experiment(config).start(tmp_path / "run")
    assert "seed 0" in str(error.value)
    ended = RunFolder.open(tmp_path / "run").ended
    assert ended is not None and (ended.how, ended.words) == ("diverged", str(error.value))


def test_advice_where_observations_are_huge() -> None:
    seen = SimpleNamespace(observation=SimpleNamespace(obs=jnp.full((1, 2), -1e20)))
    run: Any = SimpleNamespace(carry=seen, config=SimpleNamespace(obs_norm="none"))
    assert Session._advice(run).endswith("reach 1e+20: give --obs-norm running, or use smaller units in the env.")


def test_advice_names_no_option_that_the_algorithm_does_not_have() -> None:
    seen = SimpleNamespace(observation=SimpleNamespace(obs=jnp.zeros((1, 2))))
    for algorithm, support in (("omad", True), ("hasac", False)):
        run: Any = SimpleNamespace(carry=seen, config=resolve("probe/push", algorithm))
        assert ("--v-max" in Session._advice(run)) == support


def test_an_envs_number_that_is_not_finite_is_not_the_learners_fault() -> None:
    """As long as the learner's own are finite."""
    total = Mean(jnp.array([1.0, jnp.nan]), jnp.ones(2))
    carry = SimpleNamespace(learner={"w": jnp.ones((2, 3))}, sums={"train/return": total})
    loop = SimpleNamespace(healthy=lambda carry: jnp.array([True, False]))
    config = SimpleNamespace(task="jax:mine:env", all_seeds=(4, 5))
    run: Any = SimpleNamespace(built=SimpleNamespace(loop=loop), carry=carry, config=config)
    with pytest.raises(EnvFailed, match="jax:mine:env returned a number that is not finite: seed 5, in train/return"):
        Session._check(run)
    carry.learner["w"] = jnp.full((2, 3), jnp.nan)
    with pytest.raises(NonFinite, match="seed 5 met a non-finite number") as error:
        Session._check(run)
    assert error.value.seeds == (5,)
