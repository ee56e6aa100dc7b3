"""Step-size schedules of the denoising chain."""

from __future__ import annotations

import math

import numpy as np


def linear_variances(steps: int, scale: float, low: float = 1e-4, high: float = 0.999) -> np.ndarray:
    """beta_t = scale * linspace(low, high, T), variances that T noising steps add, `(step,)`.

    Source: Ho et al. 2020, section 4; the bounds are those of the code of DPMD and SDAC.
    """
    return scale * np.linspace(low, high, steps)


def cosine_squared(steps: int, offset: float = 0.008, floor: float = 0.001) -> np.ndarray:
    """Relative step sizes c_0 > ... > c_{K-1}: large near the prior, small near the action.

    c_k = (1 - m) cos^2( (pi/2) (1 + s - t_k) / (1 + s) ) + m with t_k = (K - k) / K.

    Source: Celik et al. 2025 (DIME), after Nichol and Dhariwal 2021.

    Args:
        steps: K, the number of denoising steps.
        offset: s.
        floor: m.

    Returns:
        `(steps,)` array in (0, 1).
    """
    remaining = (steps - np.arange(steps)) / steps
    cosine = np.cos(0.5 * math.pi * (1.0 + offset - remaining) / (1.0 + offset))
    return (1.0 - floor) * cosine**2 + floor
