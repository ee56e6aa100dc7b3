"""One small learner, compiled once for all tests of algorithms."""

from __future__ import annotations

import pytest
from learners import SMALL, Setup, set_up

from omad.envs import probe


@pytest.fixture(scope="session")
def small() -> Setup:
    """OMAD on the probe whose agents are of unequal size."""
    return set_up(SMALL, probe.push().spec)
