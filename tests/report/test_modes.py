"""Counting kept modes, on actions made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mode_coverage as modes
from omad import api, cli, tasks

POINTS = np.asarray(tasks.GAME_MODES)


def command(*words: str) -> int:
    return cli.answer("modes", lambda: modes.main(words))


def test_an_action_is_at_the_nearest_point_within_reach() -> None:
    actions = np.asarray([[0.6, 0.6], [-0.6, 0.85], [0.0, 0.0], [0.6, -0.95]])
    assert modes.nearest(actions, POINTS).tolist() == [0, 1, -1, -1]


def test_one_mode_of_each_agent() -> None:
    """Always points 0 and 1: one each, one joint choice, never the same."""
    found = modes.count(np.tile(POINTS[[0, 1]], (100, 1, 1)), POINTS)
    assert (found.modes_per_agent, found.joint_modes, found.success_rate, found.miscoordination_rate) == (
        (1, 1),
        1,
        1.0,
        1.0,
    )
    assert found.shares == ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0))


def test_all_modes_apart_and_together() -> None:
    """Independent agents keep all 16 joint choices and miss three times in four; agents that agree keep four."""
    rng = np.random.default_rng(0)
    apart = modes.count(POINTS[rng.integers(0, 4, (4000, 2))], POINTS)
    assert (apart.modes_per_agent, apart.joint_modes, apart.success_rate) == ((4, 4), 16, 1.0)
    assert apart.miscoordination_rate == pytest.approx(0.75, abs=0.03)
    together = modes.count(POINTS[np.repeat(rng.integers(0, 4, (4000, 1)), 2, axis=1)], POINTS)
    assert (together.modes_per_agent, together.joint_modes, together.miscoordination_rate) == ((4, 4), 4, 0.0)


def test_actions_at_no_point_and_rare_points() -> None:
    """Half the draws at no point are no hits; a point taken once in a hundred is not kept; no draws are refused."""
    actions = np.tile(POINTS[[0, 0]], (100, 1, 1))
    actions[:50, 0] = 0.0
    actions[99, 1] = POINTS[2]
    found = modes.count(actions, POINTS)
    assert (found.modes_per_agent, found.success_rate) == ((1, 1), 0.5)
    assert found.miscoordination_rate == pytest.approx(1 / 50)
    nowhere = modes.count(np.zeros((5, 2, 2)), POINTS)
    assert (nowhere.modes_per_agent, nowhere.joint_modes, nowhere.success_rate, nowhere.miscoordination_rate) == (
        (0, 0),
        0,
        0.0,
        None,
    )
    with pytest.raises(ValueError, match="no draws"):
        modes.count(np.zeros((0, 2, 2)), POINTS)


@pytest.mark.slow
def test_the_command_counts_draws_and_writes_a_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small: dict[str, Any] = {
        "actor_width": 8, "actor_layers": 1, "critic_width": 8, "critic_layers": 1, "total_steps": 300,
        "warmup_steps": 100, "n_envs": 4, "batch_size": 8, "eval_every": 300, "eval_episodes": 1, "log_every": 100,
        "save_every": 300,
    }  # fmt: skip
    run = api.train("games/meeting-2", "hatd3", run_dir=tmp_path / "cpu" / "seed-0", loggers=[], **small)
    assert command(str(tmp_path), "--draws", "50", "--out", str(tmp_path), "--json") == 0
    (one,) = json.loads(capsys.readouterr().out).values()
    assert one["one observation"]["draws"] == 50
    section = json.loads((tmp_path / "sections" / "modes-meeting-2.json").read_text())
    assert {"title", "text", "figure", "alt"} <= section.keys()
    assert (tmp_path / "sections" / section["figure"]).read_bytes().startswith(b"\x89PNG")
    assert command(str(run), "--draws", "50") == 0
    assert "games/meeting-2: sampled actions" in capsys.readouterr().out
    assert command(str(tmp_path / "sections")) == 2
    assert "hold no runs" in capsys.readouterr().err
    for words in (["--draws", "0"], ["--draws", "1000000000"], ["--seed", "-1"]):
        assert command(str(run), *words) == 2
        assert words[0] in capsys.readouterr().err
