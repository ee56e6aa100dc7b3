"""Exported teams act as the algorithms do in JAX, from their folders alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from teams import ALGORITHMS, team

from omad.export import bundle
from omad.export.team import compare, export

UNEQUAL = "probe/push"
QUICK = [
    *((algorithm, UNEQUAL, "none") for algorithm in ALGORITHMS),
    ("omad", "mpe/deception-2?history=3", "running"),
    ("madpmd", "mamujoco-obsk0/halfcheetah-6x1", "harl"),
]
TASKS = ("mpe/spread-3", UNEQUAL, "mpe/deception-2?history=3", "mamujoco-obsk0/halfcheetah-6x1")
REST = [
    pytest.param(algorithm, task, obs_norm, marks=pytest.mark.slow)
    for algorithm in ALGORITHMS
    for task in TASKS
    for obs_norm in ("none", "running", "harl")
    if (algorithm, task, obs_norm) not in QUICK
]


@pytest.mark.parametrize(("algorithm", "task", "obs_norm"), [*QUICK, *REST])
def test_numpy_and_onnx_act_as_jax_does(algorithm: str, task: str, obs_norm: str, tmp_path: Path) -> None:
    """From the same noise, sampled and noise-free, within 1e-5; at loading, the runner checks its test vectors."""
    pytest.importorskip("onnxruntime")
    trained = team(algorithm, task, obs_norm)
    out = export(trained, tmp_path / "team")
    found = compare(out, trained, bundle.VECTORS)["difference"]
    assert set(found) == {"numpy", "onnx"} and max(found.values()) <= 1e-5, found


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A team of two agents of unequal sizes."""
    return export(team("omad", UNEQUAL), tmp_path_factory.mktemp("export") / "team", ["numpy"])
