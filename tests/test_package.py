"""What the package says of itself agrees with what it is: versions, extras, Pythons."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import omad
from omad.extras import EXTRAS

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL: dict[str, list[str]] = PROJECT["optional-dependencies"]


def test_one_version_everywhere() -> None:
    assert PROJECT["version"] == omad.__version__
    assert f"\nversion: {omad.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_table_of_extras_is_that_of_the_package() -> None:
    assert OPTIONAL.keys() - {"all", "test"} == EXTRAS.keys()
    [every] = OPTIONAL["all"]
    named = set(every.removeprefix("omad[").removesuffix("]").split(","))
    assert named == EXTRAS.keys() - {"cuda", "docs"}


@pytest.mark.parametrize("name", ["", *OPTIONAL])
def test_every_requirement_has_a_lower_bound(name: str) -> None:
    """And no upper one: that a newer version breaks something is told by the nightly tests, not decided in advance."""
    for need in OPTIONAL[name] if name else PROJECT["dependencies"]:
        assert re.fullmatch(r"omad\[.*\]|[A-Za-z0-9_.\[\]-]+>=[0-9.]+", need), need


def test_pythons_are_those_of_the_workflows() -> None:
    said = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    assert min(said) == PROJECT["requires-python"].removeprefix(">=")
    for name in ("ci", "nightly"):
        text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text()
        assert set(re.findall(r'"(3\.\d+)"', text.partition("matrix:")[2].partition("]")[0])) == said
        for job in re.split(r"\n  (?=\w+:\n)", text):
            assert "make test" not in job or "libegl1 libegl-mesa0" in job, "a renderer, see docs/install.md"
