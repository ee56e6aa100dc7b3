"""Coverage on states made by hand, and from the buffers of real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import state_coverage as coverage
from omad import api, cli
from omad.run.folder import RunFolder


def test_the_whole_plane_and_its_half() -> None:
    """One visits a square evenly, the other its left half: about half the bins, and none alone."""
    rng = np.random.default_rng(0)
    square = rng.uniform(-1, 1, (20_000, 2)) * np.asarray([3.0, 1.0])
    half = square[square[:, 0] < 0]
    found = coverage.cover({"all": square, "half": half}, bins=10)
    assert found.states == len(half)
    assert found.union == found.visited["all"].sum()
    assert found.share("all") == 1.0
    assert found.share("half") == pytest.approx(0.5, abs=0.11)
    assert (found.alone("half"), found.alone("all")) == (0, found.union - found.visited["half"].sum())
    assert found.explained == pytest.approx(1.0)
    assert coverage.draw(found, "here").startswith(b"\x89PNG")


def test_constant_entries_and_directions_of_little_variance_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    plane = rng.standard_normal((5_000, 2))
    states = np.concatenate([plane, np.full((5_000, 1), 7.0), plane @ [[1.0], [1.0]]], axis=1)
    found = coverage.cover({"one": states})
    assert found.explained == pytest.approx(1.0)
    assert found.share("one") == 1.0
    assert found.alone("one") == 0


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ({"a": np.zeros((5, 3)), "b": np.zeros((5, 4))}, r"\[3, 4\] entries"),
        ({"a": np.zeros((5, 1))}, r"\[1\] entries"),
        ({"a": np.zeros((5, 3)), "b": np.zeros((1, 3))}, "1 states"),
    ],
)
def test_states_that_cannot_be_compared(states: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        coverage.cover(states)


@pytest.mark.parametrize("words", ["--bins 1000000", "--bins 1", "--first 1", "--first 99999999999"])
def test_sizes_that_cannot_be_are_refused(words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(str(tmp_path), *words.split()) == 2
    assert words.split()[0] in capsys.readouterr().err


SMALL: dict[str, Any] = {
    "actor_width": 8, "actor_layers": 1, "critic_width": 8, "critic_layers": 1, "total_steps": 400,
    "warmup_steps": 100, "n_envs": 4, "batch_size": 8, "eval_every": 400, "eval_episodes": 1, "log_every": 200,
    "save_every": 400, "buffer_size": 400,
}  # fmt: skip


def command(*words: str) -> int:
    return cli.answer("coverage", lambda: coverage.main(words))


@pytest.mark.slow
def test_states_of_runs_come_from_their_buffers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many as env steps, real positions and not padding; a buffer that has forgotten its beginning is refused."""
    run = api.train("mpe/spread-2", "hatd3", run_dir=tmp_path / "cpu" / "seed-0", loggers=[], **SMALL)
    states = coverage.visited_states(RunFolder.open(run))
    assert states.shape == (400, 24)
    assert (np.abs(states).sum(1) > 0).all()
    np.testing.assert_array_equal(coverage.visited_states(RunFolder.open(run), 40), states[:40])
    assert command(str(tmp_path), "--out", str(tmp_path), "--json", "--bins", "8") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["states"] == 400
    assert found["methods"]["hatd3, cpu"]["share"] == 1.0
    section = json.loads((tmp_path / "sections" / "coverage-mpe-spread-2.json").read_text())
    assert (tmp_path / "sections" / section["figure"]).read_bytes().startswith(b"\x89PNG")
    assert command(str(run), "--bins", "1") == 2
    assert command(str(tmp_path / "sections")) == 2
    forgetful: dict[str, Any] = SMALL | {"total_steps": 600}
    short = api.train("mpe/spread-2", "hatd3", run_dir=tmp_path / "short", **forgetful)
    capsys.readouterr()
    assert command(str(short)) == 2
    assert "first states are gone" in capsys.readouterr().err
