"""Experiments and runs as objects: callbacks, loggers, best policies, longer runs, warm starts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, cast
from unittest.mock import MagicMock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import omad
from omad import cli, envs
from omad.algos import make as make_algorithm
from omad.callbacks import Context, TimeLimit
from omad.errors import CallbackFailed, UserError
from omad.evaluate import Episodes
from omad.experiment import listed
from omad.loggers import Logger
from omad.run.best import BestPolicies
from omad.run.folder import RunFolder
from omad.saved import policies_at

SIZES: dict[str, Any] = {
    "preset": "tiny", "total_steps": 120, "warmup_steps": 20, "n_envs": 2, "batch_size": 4, "buffer_size": 120,
    "log_every": 20, "eval_every": 20, "eval_episodes": 3, "save_every": 30, "seeds": 2, "algorithm": "hatd3",
    "eval_seed": 5,
}  # fmt: skip


class Recorder(Logger, omad.Callback):
    """Writes down everything that it is recorder."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.policies: list[Any] = []

    def start(self, run: Any) -> None:
        self.calls.append(f"start {run.env_steps}")

    def metrics(self, env_steps: int, seed: int, values: Any) -> None:
        self.calls.append(f"metrics {env_steps} {seed} {values['gradient_steps']}")

    def evaluation(self, evaluation: Any) -> None:
        self.calls.append(f"evaluation {evaluation.env_steps} {evaluation.seed} {evaluation.actions}")

    def close(self) -> None:
        self.calls.append("close")

    def on_start(self, context: Any) -> None:
        self.calls.append(f"on_start {context.env_steps}")

    def on_evaluation(self, context: Any) -> None:
        self.calls.append(f"on_evaluation {context.env_steps} {context.evaluation['sampled'].returns.shape}")
        self.policies.append(jax.device_get(context.policies()))

    def on_save(self, context: Any) -> None:
        self.calls.append(f"on_save {context.env_steps} {context.gradient_steps}")

    def on_end(self, context: Any) -> None:
        self.calls.append(f"on_end {context.env_steps}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[omad.Run, Recorder]:
    recorder = Recorder()
    path = tmp_path_factory.mktemp("whole") / "run"
    run = omad.train("probe/push", run_dir=path, loggers=[recorder], callbacks=[recorder], **SIZES)
    return run, recorder


def copied(run: omad.Run, tmp_path: Path) -> omad.Run:
    return omad.load_run(shutil.copytree(run.path, tmp_path / "copy"))


def same_end(one: Path, other: Path) -> None:
    assert (one / "episodes.jsonl").read_bytes() == (other / "episodes.jsonl").read_bytes()
    parts = [RunFolder.open(path).checkpoints()[0].index.parts for path in (one, other)]
    assert parts[0] == parts[1]


# ---------------------------------------------------------------- events


def test_loggers_and_callbacks_are_called_in_order(whole: tuple[omad.Run, Recorder]) -> None:
    calls = whole[1].calls
    assert calls[:2] == ["start 0", "on_start 0"] and calls[-2:] == ["on_end 120", "close"]
    at_60 = [call for call in calls if " 60" in call]
    assert at_60 == [
        "metrics 60 0 20", "metrics 60 1 20", "evaluation 60 0 sampled", "evaluation 60 1 sampled",
        "evaluation 60 0 noise_free", "evaluation 60 1 noise_free", "on_evaluation 60 (2, 3)", "on_save 60 20",
    ]  # fmt: skip
    assert whole[0].manifest["loggers"] == ["Recorder"] and whole[0].manifest["callbacks"] == ["Recorder", "BestPolicy"]


class Fails(Recorder):
    """Fails once, at a call of a kind."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method

    def __getattribute__(self, name: str) -> Any:
        if name in ("start", "metrics", "on_evaluation", "on_end", "close") and name == super().__getattribute__(
            "method"
        ):
            return super().__getattribute__("fail")
        return super().__getattribute__(name)

    def fail(self, *_: Any) -> None:
        raise RuntimeError("the server has gone")


@pytest.mark.parametrize(
    "method",
    [
        "on_evaluation",
        "close",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("start", "metrics", "on_end")),
    ],
)
def test_one_that_fails_ends_the_run_with_a_checkpoint(
    method: str, whole: tuple[omad.Run, Recorder], tmp_path: Path
) -> None:
    """It is named, no line is lost, and the resumed run ends as if nothing had been."""
    bad: Any = Fails(method)
    with pytest.raises(
        CallbackFailed, match=rf"Fails\.{method}\(\) failed .*RuntimeError: the server has gone"
    ) as error:
        omad.train("probe/push", run_dir=tmp_path / "run", loggers=[bad], callbacks=[bad], **SIZES)
    assert "omad resume" in str(error.value) and "test_experiment.py" in str(error.value)
    assert method == "close" or bad.calls[-1] == "close"
    folder = RunFolder.open(tmp_path / "run")
    assert folder.ended is not None and folder.ended.how == (
        "broken" if method in ("start", "metrics") else folder.ended.how
    )
    run = omad.resume(tmp_path / "run", loggers=[])
    assert run.complete
    same_end(run.path, whole[0].path)


def test_best_policies_that_could_not_be_written_are_when_the_run_goes_on(
    whole: tuple[omad.Run, Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the seed whose file the disk had no room for, and of those after it."""
    real, full = BestPolicies.save, [True]

    def save(best: BestPolicies, *arguments: Any) -> None:
        if full:
            raise OSError("no space left")
        real(best, *arguments)

    monkeypatch.setattr(BestPolicies, "save", save)
    with pytest.raises(CallbackFailed, match="no space left"):
        omad.train("probe/push", run_dir=tmp_path / "run", loggers=[], **SIZES)
    full.clear()
    run = omad.resume(tmp_path / "run", loggers=[])
    ours, theirs = (RunFolder.open(path).best.entries() for path in (run, whole[0]))
    assert {seed: one.env_steps for seed, one in ours.items()} == {seed: one.env_steps for seed, one in theirs.items()}
    assert {seed: one.part for seed, one in ours.items()} == {seed: one.part for seed, one in theirs.items()}


def test_a_method_that_would_never_be_called_is_refused() -> None:
    """Its name is nearly that of one that is; others are the user's own."""

    class Own(omad.Callback):
        def on_metrics(self, context: Any) -> None:
            self._on_metrics()

        def _on_metrics(self) -> None:
            pass

    class Misspelt(Own):
        def on_evaluations(self, context: Any) -> None:
            raise AssertionError

    listed([Own()], omad.Callback)
    with pytest.raises(UserError, match=r"Misspelt has on_evaluations, which no run calls; nearest: on_evaluation\."):
        listed([Misspelt()], omad.Callback)


def test_a_class_or_another_thing_is_no_callback() -> None:
    for given in (omad.EarlyStopping, print):
        with pytest.raises(UserError, match=r"callbacks has .*must be an instance of omad\.Callback"):
            listed([omad.EarlyStopping(), given], omad.Callback)
    with pytest.raises(UserError, match=r"loggers has 'wandb'; each must be an instance of omad\.Logger"):
        listed(["wandb"], Logger)
    with pytest.raises(UserError, match=r"callbacks is <.*EarlyStopping.*>; give a list, as \[EarlyStopping\(...\)\]"):
        listed(omad.EarlyStopping(), omad.Callback)
    assert omad.EarlyStopping(patience=cast(Any, np.int64(3))).patience == 3
    for name, value in (("min_delta", "0.1"), ("min_delta", float("inf")), ("target", "-50"), ("target", float("nan"))):
        with pytest.raises(UserError, match=f"{name} is {value!r}; it must be a"):
            omad.EarlyStopping(**cast(Any, {name: value}))
    for seconds in ("9m", float("nan"), -1):
        with pytest.raises(UserError, match=f"seconds is {seconds!r}; it must be a"):
            TimeLimit(cast(Any, seconds))
    with pytest.raises(UserError, match="patience is 0; it must be a whole number of evaluations"):
        omad.EarlyStopping(patience=0)
    with pytest.raises(UserError, match="min_delta is nan"):
        omad.EarlyStopping(min_delta=float("nan"))


# ---------------------------------------------------------------- stops


def test_early_stopping_counts_alike_in_a_resumed_run(tmp_path: Path, whole: tuple[omad.Run, Recorder]) -> None:
    """It stops where an uncut run stops; a stopped run that is resumed counts anew, to the same end."""

    def stopping() -> list[omad.Callback]:
        return [omad.EarlyStopping(patience=2, min_delta=1e9)]

    straight = omad.train("probe/push", run_dir=tmp_path / "straight", callbacks=stopping(), loggers=[], **SIZES)
    assert straight.stopped and straight.stopped.startswith("EarlyStopping: no return above")
    assert [stop["env_steps"] for stop in straight.manifest["stops"]] == [80]

    class Cut(omad.Callback):
        def on_save(self, context: Any) -> None:
            if context.env_steps == 60:
                context.stop("cut")

    cut = omad.train("probe/push", run_dir=tmp_path / "cut", callbacks=[*stopping(), Cut()], loggers=[], **SIZES)
    assert cut.stopped == omad.load_run(cut.path).stopped == "cut" and not cut.complete
    # Evaluations before the cut, which another one made, count.
    again = omad.resume(cut, callbacks=stopping(), loggers=[])
    assert [stop["env_steps"] for stop in again.manifest["stops"]] == [60, 80]
    assert again.stopped == straight.stopped
    end = omad.resume(straight, callbacks=[], loggers=[])
    assert end.complete and end.stopped is None
    same_end(end.path, whole[0].path)


def test_a_target_and_a_time_limit_stop(tmp_path: Path) -> None:
    run = omad.train(
        "probe/push", run_dir=tmp_path / "target", callbacks=[omad.EarlyStopping(target=-1e9)], loggers=[], **SIZES
    )
    assert run.stopped and "has reached the target" in run.stopped
    run = omad.train("probe/push", run_dir=tmp_path / "time", callbacks=[TimeLimit(0.0)], loggers=[], **SIZES)
    assert run.stopped == "TimeLimit: 0 s are over"


def judged(callback: omad.EarlyStopping, returns: tuple[float, ...]) -> tuple[int, str | None]:
    """Evaluations until it stops, and why; two seeds of two episodes each, whose mean is what is given."""
    folder: Any = MagicMock(spec=RunFolder, manifest={}, evaluations=list)
    context = Context(folder, envs.make("probe/push").spec, lambda: None)
    callback.on_start(context)
    for count, mean in enumerate(returns, start=1):
        each = jnp.asarray([[mean - 1, mean + 3], [mean - 2, mean]], float)
        context.evaluation = {"sampled": Episodes(each, jnp.ones((2, 2), jnp.int32), {})}
        callback.on_evaluation(context)
        if context.stopped:
            return count, context.stopped
    return len(returns), None


def test_a_rise_begins_the_count_anew() -> None:
    """Of more than `min_delta` over the best one so far."""
    plain, coarse = omad.EarlyStopping(patience=2), omad.EarlyStopping(patience=2, min_delta=0.5)
    assert judged(plain, (1, 0, 2, 1, 0)) == (5, "EarlyStopping: no return above 2 in 2 evaluations")
    assert judged(plain, (1, 0, 2, 1, 3)) == (5, None)
    assert judged(plain, (1, 1.25, 1.5, 1.75)) == (4, None)
    assert judged(coarse, (1, 1.25, 1.75, 2, 2.25)) == (5, "EarlyStopping: no return above 1.75 in 2 evaluations")
    assert judged(coarse, (1, 1.25, 1.75, 2, 2.5)) == (5, None)


def test_a_target_stops_once_it_is_reached() -> None:
    for target, below in ((3.0, 2.875), (-50.0, -60.0)):
        said = f"EarlyStopping: the return {target:g} has reached the target {target:g}"
        assert judged(omad.EarlyStopping(target=target), (below, target)) == (2, said)
        assert judged(omad.EarlyStopping(target=target), (below, below)) == (2, None)
    both = omad.EarlyStopping(patience=1, target=10.0)
    assert judged(both, (5, 4)) == (2, "EarlyStopping: no return above 5 in 1 evaluations")


# ---------------------------------------------------------------- runs as objects


def test_numbers_of_a_run(whole: tuple[omad.Run, Recorder], tmp_path: Path) -> None:
    run = whole[0]
    assert Path(run) == run.path and os.fspath(run) == str(run.path) and run == run.path and (run / "x").name == "x"
    metrics, evaluations = run.metrics(), run.evaluations()
    assert metrics.seeds.tolist() == [0, 1] and metrics.steps.tolist() == [20, 40, 60, 80, 100, 120]
    lines = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        i, j = line["seed"], metrics.steps.tolist().index(line["step"])
        for name in metrics:
            np.testing.assert_equal(metrics[name][i, j], line.get(name, np.nan))
    assert evaluations["returns"].shape == (2, len(evaluations.steps), 3)
    np.testing.assert_allclose(evaluations["returns"].mean(2), evaluations["return"])
    frame = evaluations.to_frame()
    assert frame.loc[(1, 60), "return"] == evaluations["return"][1, evaluations.steps.tolist().index(60)]
    assert omad.load_run(run.path).config == run.config


def test_evaluations_of_a_run_begin_where_its_seed_says(whole: tuple[omad.Run, Recorder]) -> None:
    """Noise-free ones are found again by the evaluation of a run that has been saved, and by no other seed."""
    run = whole[0]
    last = [line for line in RunFolder.open(run).lines("episodes.jsonl") if line["step"] == 120]
    kept = [line["returns"] for line in last if line["actions"] == "noise_free"]
    np.testing.assert_allclose(run.evaluate(3, seed=5).returns["noise_free"], kept, atol=1e-4)
    assert not np.isclose(run.evaluate(3, seed=7).returns["noise_free"], kept, atol=1e-4).any()


def test_the_best_policies_are_those_of_their_evaluations(whole: tuple[omad.Run, Recorder]) -> None:
    run, recorder = whole
    found, steps = run.evaluations()["return"], run.evaluations().steps
    folder = RunFolder.open(run)
    algorithm = make_algorithm(run.config.algo, folder.spec, run.config.obs_norm)
    policies, when = policies_at(folder, algorithm, "best")
    for seed in (0, 1):
        place = int(np.argmax(np.round(found[seed], 9)))
        assert when[seed] == steps[place] == folder.best.entries()[seed].env_steps
        np.testing.assert_allclose(folder.best.entries()[seed].mean, found[seed, place], atol=1e-4)
        saved, seen = jax.tree.leaves(policies), jax.tree.leaves(recorder.policies[place])
        for a, b in zip(saved, seen, strict=True):
            np.testing.assert_array_equal(np.asarray(a)[seed], b[seed])
    listed = {p.name for p in (run / "checkpoints" / "best").iterdir()}
    assert listed >= {"best.json", *(f"seed-{seed}-{when[seed]}.safetensors" for seed in (0, 1))}
    assert all(when[int(name.split("-")[1])] >= int(name[7:-12]) for name in listed - {"best.json"})


def test_which_policies(whole: tuple[omad.Run, Recorder], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = whole[0]
    obs = np.zeros((2, 2), np.float32)
    last = np.asarray(run.policy(1).act(obs))
    np.testing.assert_array_equal(last, np.asarray(run.policy(1, 120).act(obs)))
    earlier = RunFolder.open(run).checkpoints()[1].env_steps
    assert not np.array_equal(last, np.asarray(run.policy(1, earlier).act(obs)))
    with pytest.raises(UserError, match=r"no checkpoint of env step 7; it has 120, 90"):
        run.policy(which=7)
    with pytest.raises(UserError, match=r"which is 'bset'; it must be last, best, or the env step of a checkpoint"):
        run.policy(which=cast(Any, "bset"))
    with pytest.raises(KeyError, match=r"'critic/los' is not there; nearest: critic/loss"):
        run.metrics()["critic/los"]
    assert "critic/los" not in run.metrics() and cast(Any, 5) not in run.metrics()
    found = run.evaluate(4, seed=3, which="best")
    assert found.returns["sampled"].shape == (2, 4) and found.env_steps == policies_env_steps(run)
    assert found.random is not None and found.random.shape == (4,) and (found.random < 0).all()
    assert cli.main(["eval", str(run), "--which", "first"]) == 2
    assert "must be last, best, or the env step" in capsys.readouterr().err
    assert cli.main(["eval", str(run), "--which", "best", "--episodes", "4", "--seed", "3", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["random"] == pytest.approx(found.random.mean())
    returns = [one["returns"] for one in printed["results"] if one["actions"] == "sampled"]
    np.testing.assert_allclose(returns, found.returns["sampled"], atol=1e-4)
    copy = copied(run, tmp_path)
    shutil.rmtree(copy / "checkpoints" / "best")
    with pytest.raises(UserError, match=r"no best policy of seed 0, 1.*--which last"):
        copy.policy(which="best")


def policies_env_steps(run: omad.Run) -> tuple[int, ...]:
    return tuple(RunFolder.open(run).best.entries()[seed].env_steps for seed in run.seeds)


# ---------------------------------------------------------------- longer runs, warm starts


def test_a_longer_run_is_one_that_was_that_long_from_the_beginning(
    whole: tuple[omad.Run, Recorder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes: dict[str, Any] = SIZES | {"total_steps": 80}
    short = omad.train("probe/push", run_dir=tmp_path / "run", loggers=[], **sizes)
    assert short.complete
    assert cli.main(["resume", str(short)]) == 0
    assert "complete at 80 env steps; to train on, add --total-steps" in capsys.readouterr().out
    assert cli.main(["resume", str(short), "--total-steps", "80"]) == 0, "as a job that is started again asks"
    assert "complete at 80 env steps" in capsys.readouterr().out
    assert cli.main(["resume", str(short), "--total-steps", "40"]) == 2
    assert "give more" in capsys.readouterr().err
    with pytest.raises(UserError, match="The run's env is probe/push, but object:"):
        omad.resume(short, total_steps=120, env=envs.make("probe/signal"))
    assert short.complete and short.config.total_steps == 80, "a run that is refused is as it was"
    assert omad.resume(short).trusted
    assert cli.main(["resume", str(short), "--total-steps", "120"]) == 0
    longer = omad.load_run(short)
    assert longer.complete and longer.config.total_steps == 120
    rest = [RunFolder.open(run).checkpoints()[0].index.parts["rest"] for run in (longer, whole[0])]
    assert rest[0] == rest[1], "all that training changes is bit for bit the same"
    np.testing.assert_array_equal(longer.evaluations()["returns"], whole[0].evaluations()["returns"])
    assert "replay buffer" not in capsys.readouterr().out
    folder = RunFolder.open(short)
    folder.amend(sources=folder.manifest["sources"] | {"buffer_size": "derived: no larger than total_steps"})
    assert cli.main(["resume", str(short), "--total-steps", "124"]) == 0
    assert "The replay buffer still keeps 120 transitions" in " ".join(capsys.readouterr().out.split())


def test_more_checkpoints_are_kept_if_asked(tmp_path: Path) -> None:
    run = omad.train("probe/push", run_dir=tmp_path / "run", loggers=[], keep_checkpoints=3, keep_best=False, **SIZES)
    assert [one.env_steps for one in RunFolder.open(run).checkpoints()] == [120, 90, 60]
    assert not (run / "checkpoints" / "best").exists()


def test_a_warm_start_takes_over_parameters_but_not_optimisers(
    whole: tuple[omad.Run, Recorder],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from omad.run import arrays

    source, reads, read = whole[0], list[Path](), arrays.read
    monkeypatch.setattr(arrays, "read", lambda path, *more: reads.append(path) or read(path, *more))
    brief: dict[str, Any] = SIZES | {"total_steps": 24, "save_every": 20, "eval_every": 1_000}
    run = omad.train("probe/push", run_dir=tmp_path / "run", loggers=[], init_from=f"{source}@1", **brief)
    assert len(reads) == 1
    facts = run.manifest["init_from"]
    assert facts["seeds"] == [1, 1] and facts["left"] == [] and facts["env_steps"] == [120]
    parts = []
    for folder, step in ((RunFolder.open(run), 20), (RunFolder.open(source), 120)):
        one = next(c for c in folder.checkpoints() if c.env_steps == step)
        parts.append(arrays.read(one.file("rest"), one.index.parts["rest"], "learner."))
    started, trained = parts  # of the end of the warm-up: nothing has been learned yet
    for name, value in started.items():
        if "_opt." in name:
            assert not np.any(value) or name.endswith("count") or "found" in name, name
        else:
            np.testing.assert_array_equal(value, np.stack([trained[name][1]] * 2), err_msg=name)
    for spoken, words in (("@7", "no seed 7; it has 0, 1"), ("-nowhere", "there is no such folder")):
        assert cli.main(["train", "--task", "probe/push", "--preset", "tiny", f"--run-dir={tmp_path / 'no'}",
                         f"--init-from={source}{spoken}"]) == 2  # fmt: skip
        assert words in capsys.readouterr().err
    with pytest.raises(UserError, match="obs_norm is running, but none in"):
        omad.train(
            "probe/push", "hasac", run_dir=tmp_path / "no", init_from=str(source), preset="tiny", obs_norm="running"
        )
    wider: dict[str, Any] = brief | {"actor_width": 24}
    at_once: dict[str, Any] = {"loggers": [], "callbacks": [TimeLimit(0.0)]}  # only how it begins is looked at
    part = omad.train("probe/push", run_dir=tmp_path / "wider", init_from=str(source), **at_once, **wider)
    facts = part.manifest["init_from"]
    assert facts["seeds"] == [0, 1] and any("actors" in name for name in facts["left"])
    assert not any("critics" in name for name in facts["left"])
    assert not (tmp_path / "no").exists()
