"""The true entropy of a chain of one dimension, and its bound without the noise of sampling, both by quadrature.

The density of x^k is carried from step to step on grids, beginning with the prior's:

    p_{k+1}(y) = integral p_k(x) N(y; x + pull_k (u_k(x) - x / sigma^2), jump_k^2) dx

and the entropy of a = tanh(x^K) is that of x^K plus the mean of log(1 - tanh^2). Every step is blurred by its own
Gaussian, so sums over a grid that is a few times finer than that are as good as integrals. The mean cost of a step is
known at every x in closed form, for its noise is Gaussian and enters as a quadratic.

NumPy only, in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_FINENESS, _FINEST = 4, 256
"""Grid points within a standard deviation; doubled where the control is so steep that they would be drawn apart."""
_REACH = 8.5
"""Standard deviations beyond which a Gaussian is cut off."""


class Entropies(NamedTuple):
    """Of an action in [-1, 1], in nats."""

    true: float
    bound: float
    """-E[R + P]."""

    @property
    def gap(self) -> float:
        """What the bound misses."""
        return self.true - self.bound


def entropies(
    control: Callable[[int, np.ndarray], np.ndarray],
    pull: np.ndarray,
    jump: np.ndarray,
    prior_scale: float,
    squash: bool = True,
) -> Entropies:
    """Entropy of the end of a chain, and the bound that its cost gives.

    Args:
        control: (step, points) -> u.
        pull: How far each step goes along the drift, as `sde.transition` says.
        jump: Standard deviation of each step's noise.
        prior_scale: sigma.
        squash: Whether a = tanh(x^K); else a = x^K.

    Raises:
        ValueError: The control is too steep to be resolved.
    """
    fineness = _FINENESS
    while (found := _on_grid(control, pull, jump, prior_scale, squash, fineness)) is None:
        fineness *= 2
        if fineness > _FINEST:
            raise ValueError("the control is too steep for a grid")
    return found


def _on_grid(
    control: Callable[[int, np.ndarray], np.ndarray],
    pull: np.ndarray,
    jump: np.ndarray,
    prior_scale: float,
    squash: bool,
    fineness: int,
) -> Entropies | None:
    """The same on grids of one fineness; None where neighbouring points are drawn apart by about the blur or more."""
    precision, cost = 1.0 / prior_scale**2, 0.0
    # A grid must resolve the blur that made its density and the one that comes.
    blurs = np.concatenate([[prior_scale], jump, jump[-1:]])
    spacings = np.minimum(blurs[:-1], blurs[1:]) / fineness
    x, mass = _spread(np.zeros(1), np.ones(1), prior_scale, spacings[0])
    for k, (far, blur) in enumerate(zip(pull, jump, strict=True)):
        u = control(k, x)
        drift = u - precision * x
        mean = x + far * drift
        if (np.abs(np.diff(mean)) > 0.7 * blur).any():
            return None
        # The log-ratio is (q g)^2 / 2 - q g eps with g = still + blur eps / sigma^2, see `sde.rollout`.
        still = precision * (x + mean) - u
        q = far / blur
        cost += 0.5 * q**2 * (mass @ still**2 + (precision * blur) ** 2) - precision * far
        x, mass = _spread(mean, mass, blur, spacings[k + 1])
    filled = mass[mass > 0]
    true = -float(filled @ np.log(filled / spacings[-1]))
    bound = 0.5 * math.log(2.0 * math.pi * math.e * prior_scale**2) - float(cost)
    if squash:
        log_det = float(mass @ (2.0 * (math.log(2.0) - x - np.logaddexp(0.0, -2.0 * x))))
        true, bound = true + log_det, bound + log_det
    return Entropies(true, bound)


def _spread(mean: np.ndarray, mass: np.ndarray, blur: float, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """A mixture of Gaussians on a grid: its points and what lies at each; ends that hold next to nothing are cut."""
    reach = math.ceil(_REACH * blur / spacing)
    places = np.floor(mean / spacing).astype(np.int64)[:, None] + np.arange(-reach, reach + 2)
    away = (places * spacing - mean[:, None]) / blur
    parts = mass[:, None] * np.exp(-0.5 * away**2) * (spacing / (blur * math.sqrt(2.0 * math.pi)))
    first = int(places.min())
    total = np.bincount((places - first).ravel(), parts.ravel())
    kept = np.flatnonzero(total > 1e-14)
    total = total[kept[0] : kept[-1] + 1]
    points = (first + kept[0] + np.arange(len(total))) * spacing
    return points, total / total.sum()
