"""The studies that come with the project can be read, and name what there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import on_its_back
from omad.study import load

STUDIES = sorted((Path(__file__).parents[1] / "studies").glob("*.py"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_can_be_read(path: Path) -> None:
    study = load(path)
    assert study.name == path.stem
    assert f"omad sweep studies/{path.name}" in path.read_text()


def test_there_are_studies() -> None:
    assert {"ablations", "games", "mamujoco_cpu", "mpe_cpu", "mpe_gpu"} <= {path.stem for path in STUDIES}


def test_a_cheetah_on_its_back_is_counted_whatever_its_turns() -> None:
    angle = np.concatenate([np.zeros(5_000), np.full(1_500, np.pi), np.full(1_500, 2 * np.pi - 0.1), np.full(10, -3.2)])
    turned = on_its_back.on_its_back(np.asarray([0.0, 1.5, 6.2, 1.6, 3.3, -3.3, 9.4]))
    assert turned.tolist() == [False] * 3 + [True] * 4
    assert on_its_back.shares(angle) == [0.0, 0.5]
