"""The studies that come with the project can be read, and name what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from omad.study import load

STUDIES = sorted((Path(__file__).parents[1] / "studies").glob("*.py"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_can_be_read(path: Path) -> None:
    study = load(path)
    assert study.name == path.stem
    assert f"omad sweep studies/{path.name}" in path.read_text()


def test_there_are_studies() -> None:
    assert {"ablations", "games", "mamujoco_cpu", "mpe_cpu", "mpe_gpu"} <= {path.stem for path in STUDIES}
