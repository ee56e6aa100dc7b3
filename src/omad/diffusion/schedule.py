"""Step-size schedules of the denoising chain."""

from __future__ import annotations

import math

import numpy as np

_OFFSET, _FLOOR = 0.008, 0.001
"""s and m of `cosine_squared`."""


def linear_variances(steps: int, scale: float) -> np.ndarray:
    """beta_t = scale * linspace(1e-4, 0.999, T), variances that T noising steps add, `(step,)`.

    Source: Ho et al. 2020, section 4; the bounds are those of the code of DPMD and SDAC.
    """
    return scale * np.linspace(1e-4, 0.999, steps)


def cosine_squared(steps: int) -> np.ndarray:
    """Relative step sizes c_0 > ... > c_{K-1}: large near the prior, small near the action.

    c_k = (1 - m) cos^2( (pi/2) (1 + s - t_k) / (1 + s) ) + m with t_k = (K - k) / K, s = 0.008, m = 0.001.

    Source: Celik et al. 2025 (DIME), after Nichol and Dhariwal 2021.

    Args:
        steps: K, the number of denoising steps.

    Returns:
        `(steps,)` array in (0, 1).
    """
    remaining = (steps - np.arange(steps)) / steps
    cosine = np.cos(0.5 * math.pi * (1.0 + _OFFSET - remaining) / (1.0 + _OFFSET))
    return (1.0 - _FLOOR) * cosine**2 + _FLOOR
