"""Algorithms from outside the package: one file and one line, in a script or in an installed package."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import omad
from omad import algos
from omad.commands.train import Options, parse
from omad.errors import UserError
from omad.run.folder import RunFolder

TOY = "own_algorithm:DriftConfig"
"""The example of an algorithm of one's own."""
FIELDS = {
    "total_steps": 640, "warmup_steps": 320, "n_envs": 32, "eval_every": 320, "eval_episodes": 8, "save_every": 640,
    "log_every": 320, "buffer_size": 640, "batch_size": 32, "pace": 0.5,
}  # fmt: skip


def toy_config(**fields: float) -> Any:
    return importlib.import_module("own_algorithm").DriftConfig(**fields)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> omad.Run:
    """A run of the toy algorithm, which is not registered any more."""
    algos.register("toy", TOY)
    path = omad.train("probe/constant", "toy", "matched", tmp_path_factory.mktemp("toy") / "run", **FIELDS)
    algos._registered.clear()
    return path


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch):
    """What a test adds is gone after it."""
    monkeypatch.setattr(algos, "_registered", {})
    yield
    algos._installed.cache_clear()


def test_a_registered_algorithm_trains_resumes_and_acts(run: omad.Run):
    """By the Python interface, with the presets' settings for runs; a folder that names it needs it registered."""
    for use in (omad.resume, omad.load_policy):
        with pytest.raises(UserError, match=r"'toy'.*omad.*install"):
            use(run)
    algos.register("toy", TOY)
    folder = RunFolder.open(run)
    assert folder.config.algorithm == "toy" and folder.config.algo == toy_config(pace=0.5)
    assert folder.config.updates_per_step == 2
    assert [e["mean"] for e in folder.evaluations()] == pytest.approx([1.0] * len(folder.evaluations()))
    assert any("policy/step" in line for line in folder.lines("metrics.jsonl"))
    assert omad.resume(run) == run
    policy = omad.load_policy(run)
    action = np.asarray(policy.act(np.zeros((3, 2, 1))))
    assert action.shape == (3, 2, 1) and np.abs(action).max() < 1


def test_the_command_line_knows_it(monkeypatch: pytest.MonkeyPatch):
    """By an entry point, as an installed package has it; with its own fields as flags."""
    point = metadata.EntryPoint("toy", TOY, algos.GROUP)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == algos.GROUP else [])
    algos._installed.cache_clear()
    config, _ = parse(["toy", "--task", "probe/push", "--pace", "0.25"], "omad train", Options())
    assert (config.algorithm, config.algo) == ("toy", toy_config(pace=0.25))
    with pytest.raises(UserError, match=r"'toi'.*toy.*allowed: .*hasac"):
        algos.config_class("toi")


def test_a_run_folder_decides_no_import(run: omad.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A configuration that names a module is refused, and nothing of that module runs."""
    (tmp_path / "trap_for_omad.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = shutil.copytree(run, tmp_path / "run")
    written = json.loads((folder / "config.json").read_text())
    for name in ("trap_for_omad:Config", "trap_for_omad"):
        (folder / "config.json").write_text(json.dumps(written | {"algorithm": name}))
        with pytest.raises(UserError, match="trap_for_omad"):
            omad.load_policy(folder)
    assert "trap_for_omad" not in sys.modules


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [
        ("omad", TOY, "omad.algos.configs.omad:OmadConfig"),
        ("my toy", TOY, "'my toy'.*letters"),
        ("toy", "own_algorithm", "module:ConfigClass"),
        ("toy", "no_such_package:Config", "no_such_package:Config.*there is no package no_such_package; install it"),
    ],
)
def test_what_cannot_be_registered_is_refused(name: str, target: str, said: str):
    with pytest.raises(UserError, match=said):
        algos.register(name, target)


def test_a_name_is_given_once_and_repeating_it_is_harmless():
    """Running a script's registration twice, as in a notebook, is no error; another target is."""
    algos.register("toy", TOY)
    algos.register("toy", TOY)
    with pytest.raises(UserError, match="already"):
        algos.register("toy", "other:Config")


@pytest.mark.parametrize("target", ["own_algorithm:Nothing", "own_algorithm.part:Config", "own_algorithm:make"])
def test_what_cannot_be_imported_is_said(target: str):
    algos.register("broken", target)
    with pytest.raises(UserError, match=f"'broken'.*{target}"):
        algos.config_class("broken")
