"""The page of each algorithm says what its file computes: the same pseudo-code, the metrics that there are."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from learners import CONFIGS, batch_for

from omad import algos
from omad.envs import probe

PAGES = Path(__file__).parents[2] / "docs" / "algorithms"
OF_EVERY_RUN = {"train/return", "eval/return", "eval_noise_free/return"}
"""Metrics that loops and evaluations add."""


def test_every_algorithm_has_a_page() -> None:
    """In docs, and no page is left over from one that is gone."""
    assert {path.stem for path in PAGES.glob("*.md")} == set(algos.REGISTRY)


@pytest.mark.parametrize("name", CONFIGS)
def test_its_metrics_are_those_of_the_code(name: str) -> None:
    """The first column of the page's table, against the shapes of `update`."""
    spec = probe.push().spec
    algorithm = algos.make(CONFIGS[name], spec)
    learner = jax.eval_shape(algorithm.init, jax.random.key(0))
    _, metrics = jax.eval_shape(algorithm.update, learner, batch_for(spec), jax.random.key(0), jnp.asarray(1))
    section = (PAGES / f"{name}.md").read_text().split("## Metrics\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert {key for row in rows for key in re.findall(r"`([^`]+)`", row.split("|")[1])} == {*metrics, *OF_EVERY_RUN}


@pytest.mark.parametrize("name", CONFIGS)
def test_its_pseudo_code_is_that_of_the_file(name: str) -> None:
    """Word for word; and differences from the published method are listed."""
    text = importlib.import_module(algos.config_class(name).program).__doc__ or ""
    step = text[text.index("One gradient step") :].split("\nDifferences from")[0].rstrip()
    page = (PAGES / f"{name}.md").read_text()
    assert len(step.splitlines()) >= 8 and f"## Pseudo-code\n\n{step}\n" in page
    assert "\n## Differences from" in page and "\n1. " in page.split("\n## Differences from")[1]


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.md")), ids=lambda path: path.stem)
def test_it_reads_on_a_phone(path: Path) -> None:
    """No line beyond 160 characters, no table beyond eight columns."""
    for line in path.read_text().splitlines():
        assert len(line) <= 160, line
        assert not line.startswith("|") or line.replace(r"\|", "").count("|") <= 9, line
