"""The step-size schedule of the chain."""

from __future__ import annotations

import numpy as np
import pytest

from omad.diffusion.schedule import cosine_squared


def test_schedule_has_the_published_form() -> None:
    """K = 8: eight values to six digits."""
    expected = [0.999845, 0.957698, 0.847034, 0.684436, 0.494273, 0.305043, 0.145105, 0.038429]
    np.testing.assert_allclose(cosine_squared(8), expected, atol=1e-6)


@pytest.mark.parametrize(("steps", "total"), [(8, 4.471863), (16, 8.443695)])
def test_schedule_sums(steps: int, total: float) -> None:
    """Total relative step of a chain."""
    assert float(cosine_squared(steps).sum()) == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 16, 64])
def test_schedule_falls_strictly_and_stays_in_the_unit_interval(steps: int) -> None:
    """Large near the prior, small near the action, never zero."""
    c = cosine_squared(steps)
    assert c.shape == (steps,)
    assert (np.diff(c) < 0).all()
    assert (c > 0).all() and (c < 1).all()
