"""A user's own env, in a file outside the package: trained, cut, resumed, evaluated, drawn; and its faults."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import psutil
import pytest

from omad import api, envs
from omad.api import load_policy
from omad.callbacks import Callback, Context
from omad.cli import main
from omad.commands.check import inspect
from omad.commands.render import Options, films, write_gif, write_mp4
from omad.config import RunConfig, resolve
from omad.envs.draw import contact_sheet
from omad.envs.pool import Pool
from omad.errors import EnvFailed, UserError
from omad.experiment import Experiment
from omad.loop.build import build
from omad.loop.session import Session
from omad.run.folder import RunFolder
from omad.trained import Run

SCRATCH = '''
import os
import time
import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

class Lift(ParallelEnv):
    """Two agents of unequal sizes and lopsided bounds hold a height together."""
    metadata = {"name": "lift"}
    possible_agents = ["arm", "winch"]

    def __init__(self, saves=True, fault="", at=0, render_mode=None):
        self.fault, self.at, self.render_mode, self.steps = fault, at, render_mode, 0
        if count := os.environ.get("LIFT_COUNT"):
            with open(count, "a") as file:
                file.write("made\\n")
        if saves:
            self.save_state = lambda: np.asarray([self.height, self.t, self.steps], float).tobytes()
            self.load_state = self._load

    def observation_space(self, agent):
        return Box(-np.inf, np.inf, (1,) if agent == "arm" else (3,), np.float32)

    def action_space(self, agent):
        return Box(np.float32(-0.5), np.float32(2.0), (2,)) if agent == "arm" else Box(0.0, 10.0, (1,))

    def _load(self, data):
        self.height, t, steps = np.frombuffer(data)
        self.t, self.steps, self.agents = int(t), int(steps), list(self.possible_agents)

    def _see(self):
        height = np.asarray([self.height, self.t / 8, 1], np.float32)
        return {"arm": height[:1], "winch": height}

    def reset(self, seed=None, options=None):
        self.height, self.t, self.agents = np.random.default_rng(seed).uniform(-1, 1), 0, list(self.possible_agents)
        return self._see(), {a: {} for a in self.agents}

    def step(self, actions):
        self.t, self.steps = self.t + 1, self.steps + 1
        self.height += 0.1 * float(actions["arm"].sum()) - 0.02 * float(actions["winch"][0])
        if self.fault and self.steps == self.at:
            if self.fault == "raise":
                raise RuntimeError("the motor is on fire")
            if self.fault == "nan":
                self.height = float("nan")
            if self.fault == "hang":
                time.sleep(60)
        rewards = {a: -abs(self.height) for a in self.agents}
        cut = {a: self.t >= 8 for a in self.agents}
        seen, none = self._see(), {a: False for a in self.agents}
        if self.t >= 8:
            self.agents = []
        return seen, rewards, none, cut, {a: {} for a in cut}

    def render(self):
        picture = np.full((41, 61, 3), 200, np.uint8)
        picture[20 + int(np.clip(self.height * 10, -19, 19))] = 0
        return picture
'''
TINY: dict[str, Any] = {
    "total_steps": 120, "warmup_steps": 24, "n_envs": 2, "updates_per_step": 1, "batch_size": 8, "buffer_size": 64,
    "log_every": 30, "eval_every": 60, "eval_episodes": 3, "save_every": 40, "actor_width": 8, "actor_layers": 1,
    "critic_width": 8, "critic_layers": 1, "env_workers": 2,
}  # fmt: skip
OMAD: dict[str, Any] = {"v_max": 8.0, "atoms": 11, "denoising_steps": 2, "time_frequencies": 4, "time_width": 4}


@pytest.fixture
def lift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "lift_scratch.py").write_text(SCRATCH)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "pettingzoo:lift_scratch:Lift"


def config_of(task: str, algorithm: str = "hatd3", **fields: Any) -> RunConfig:
    return resolve(task, algorithm, **TINY | (OMAD if algorithm == "omad" else {}) | fields)


def cut_and_resumed(config: RunConfig, path: Path) -> RunFolder:
    """A run that is stopped at env step 60 and resumed by new processes."""

    class Stop(Callback):
        def on_progress(self, context: Context) -> None:
            if context.env_steps >= 60:
                context.stop("far enough")

    assert Experiment(config, callbacks=[Stop()]).start(path).stopped == "far enough"
    assert RunFolder.open(path).checkpoints()[0].env_steps < 120
    folder = RunFolder.open(path)
    result = Experiment.of_run(folder, trust=True).work(folder, fresh=False)
    assert result.env_steps == 120
    return RunFolder.open(path)


@pytest.mark.parametrize("algorithm", ["hatd3", pytest.param("omad", marks=pytest.mark.slow)])
def test_trains_resumes_evaluates_and_draws(algorithm: str, lift: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LIFT_COUNT", str(tmp_path / "count.txt"))
    whole = RunFolder.open(Experiment(config_of(lift, algorithm)).start(tmp_path / "whole").run_dir)
    made = (tmp_path / "count.txt").read_text().count("made")
    assert made == 1 + TINY["n_envs"] + TINY["eval_episodes"], "once for its sizes, and once in every world"
    cut = cut_and_resumed(config_of(lift, algorithm), tmp_path / "cut")
    assert whole.manifest["resume"] == "exact"
    assert (whole.path / "episodes.jsonl").read_bytes() == (cut.path / "episodes.jsonl").read_bytes()
    built = build(whole.config, envs.make(whole.config.task))
    carries = []
    try:
        for run in (whole, cut):
            session = Session(RunFolder.open(run.path), built)
            session.restore()
            session.run.close()
            carries.append(jax.tree.map(np.asarray, session.carry))
    finally:
        built.close()
    for a, b in zip(*map(jax.tree.leaves, carries), strict=True):
        np.testing.assert_array_equal(a, b)
    kinds = [json.loads(line)["actions"] for line in (whole.path / "episodes.jsonl").read_text().splitlines()]
    assert set(kinds) == {"sampled"}, "noise-free evaluations of hosted envs only on request"
    found = Run(whole.path).evaluate(5, 7, trust=True)
    assert [returns.shape for returns in found.returns.values()] == [(1, 5), (1, 5)]
    policy = load_policy(whole.path)
    arm, winch = policy.act([np.zeros(1), np.zeros(3)], jax.random.key(0))
    assert (arm.shape, winch.shape) == ((2,), (1,))
    film = next(films(Options(whole.path, max_steps=6, trust=True)))
    assert len(film.frames) == 7
    write_gif(film, tmp_path / "film.gif")
    contact_sheet(film.frames).save(tmp_path / "film.png")
    write_mp4(film, tmp_path / "film.mp4")
    assert (tmp_path / "film.mp4").read_bytes()[4:8] == b"ftyp"
    assert not psutil.Process().children(recursive=True)


def test_an_env_that_cannot_be_saved_is_resumed_at_an_episode_boundary(lift: str, tmp_path: Path):
    run = cut_and_resumed(config_of(lift + "?saves=false"), tmp_path / "run")
    assert run.manifest["resume"] == "resumed at an episode boundary"
    steps = [line["step"] for line in map(json.loads, (run.path / "episodes.jsonl").read_text().splitlines())]
    assert steps == sorted(steps)
    assert steps[-1] == 120
    assert Run(run.path).buffered_obs(trust=True).shape[1:] == (
        2,
        3,
    )  # which needs no env, and so none that can be saved


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raise", "RuntimeError: the motor is on fire"),
        pytest.param("nan", "not finite", marks=pytest.mark.slow),
        pytest.param("hang", "did not answer within 5 s", marks=pytest.mark.slow),
    ],
)
def test_a_fault_ends_the_run_with_a_sentence_and_a_good_checkpoint(
    lift: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, words: str
):
    """Every world takes its 45th step in vector step 44; the checkpoint of env step 80 stands."""
    pools: list[Pool] = []

    def of(*given: Any) -> Pool:
        pools.append(make_pool(*given))
        return pools[-1]

    class LessPatient(Callback):
        """Once the workers are up, which takes longest."""

        def on_save(self, context: Context) -> None:
            (pool,) = pools
            assert pool.timeout_s in (150.0, 5.0)
            pool.timeout_s = 5.0

    make_pool = Pool.of
    monkeypatch.setattr(Pool, "of", of)
    config = config_of(f"{lift}?fault={fault}&at=45", eval_every=1000, env_timeout=150.0)
    with pytest.raises(EnvFailed, match=words) as error:
        Experiment(config, callbacks=[LessPatient()]).start(tmp_path / "run")
    assert "env 0" in str(error.value) or "env 1" in str(error.value)
    assert "vector step 44" in str(error.value)
    assert str(tmp_path / "run") in str(error.value)
    kept = [point.env_steps for point in RunFolder.open(tmp_path / "run").checkpoints()]
    assert kept == [80, 40]
    load_policy(tmp_path / "run")
    assert not psutil.Process().children(recursive=True)


def test_check_env_reports(lift: str):
    found = inspect(lift, steps=100)
    assert (found["agents"], found["obs_dims"], found["act_dims"], found["episodes"]) == (2, (1, 3), (2, 1), 12)
    assert (found["terminated"], found["truncated"], found["deterministic"], found["saves"]) == (0, 12, True, True)
    assert found["problems"] == []
    assert any("not finite" in problem for problem in inspect(lift + "?fault=nan&at=30", steps=100)["problems"])
    assert any("cannot be saved" in note for note in inspect(lift + "?saves=false", steps=20)["notes"])
    assert inspect("probe/push", steps=20)["episodes"] == 20


def test_a_support_that_short_episodes_outgrow_is_said_before_training(monkeypatch: pytest.MonkeyPatch):
    """In units of normalised returns: 5 / (1 - 0.99^5); not where it is given, nor where rewards are as they are."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "envs"))
    task = "jax:own_envs:reach?horizon=5"

    def notes(**fields: Any) -> tuple[str, ...]:
        return build(resolve(task, "omad", "tiny", **fields), envs.make(task)).notes

    (said,) = notes(reward_norm="return")
    assert "v_max is 5." in said and "after 5 steps" in said and said.endswith("give --v-max 102.")
    assert notes() == notes(reward_norm="return", v_max=5.0) == ()


def test_a_jax_env_by_path_trains_and_is_drawn_where_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "envs"))
    task = "jax:own_envs:reach?horizon=5"
    sizes: dict[str, Any] = {"total_steps": 80, "warmup_steps": 40, "eval_every": 80, "eval_episodes": 2}
    trained = api.train(task, "hatd3", "tiny", run_dir=tmp_path / "run", loggers=(), **sizes)
    run = trained.path
    assert trained.evaluate(2).returns["sampled"].shape == (1, 2)  # whoever trained it has imported it
    with pytest.raises(UserError, match="module own_envs would be imported and reach called"):
        Run(run).evaluate(2)
    manifest = RunFolder.open(run).manifest
    assert (manifest["spec"]["name"], manifest["spec"]["horizon"]) == (task, 5)
    with pytest.raises(UserError, match=f"continue it with: omad resume {run} --trust"):
        api.train(task, "hatd3", "tiny", run_dir=run, loggers=(), **sizes)
    assert main(["eval", str(run), "--task", "jax:own_envs:reach?horizon=6", "--episodes", "2"]) == 0
    said = capsys.readouterr().out
    assert "not as in training: horizon 5, now 6" in said and re.search(r"env steps *│ *6 │ *6 │", said), said
    assert re.search(r"far *│ *\d", said), said
    film = next(films(Options(run, trust=True)))
    assert (len(film.frames), film.frames[0].size) == (6, (320, 320 + 32))
    with pytest.raises(UserError, match="module own_envs would be imported and reach called"):
        next(films(Options(run)))
