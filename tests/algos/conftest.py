"""One small learner, compiled once for all tests of algorithms."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from learners import Setup, small_setup

sys.path.append(str(Path(__file__).parents[2] / "examples"))


@pytest.fixture(scope="session")
def small() -> Setup:
    """OMAD on the probe whose agents are of unequal size."""
    return small_setup("omad")
