"""A denoising diffusion model of one agent's actions: noising, reconstruction and ancestral sampling.

Noising turns an action x_0 into x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps. A network learns to tell eps from
(x_t, t); sampling walks back from noise, step by step, through what that network takes x_0 to be.

Source: Ho et al. 2020, "Denoising Diffusion Probabilistic Models", with the schedule, the starting point and the
clipping of the public code of Ma et al. 2025 (DPMD and SDAC).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from omad.diffusion.schedule import linear_variances

Predict = Callable[[Float[Array, "batch act"], Array], Float[Array, "batch act"]]
"""(x_t, input of this step) -> the noise that it is taken to hold."""


class Schedule(NamedTuple):
    """Coefficients of T noising steps, each `(step,)` in double precision, for t = 0 .. T - 1."""

    beta: np.ndarray
    """Variance that step t adds."""
    alpha_bar: np.ndarray
    """abar_t, what is left of the variance of x_0: the product of 1 - beta up to t."""
    from_x: np.ndarray
    """Weight of x_t in the x_0 that a noise tells, `predict_x0`."""
    from_noise: np.ndarray
    """Weight of that noise, which is subtracted."""
    mean_x0: np.ndarray
    """Weight of x_0 in the mean of x_{t-1} given x_t and x_0."""
    mean_x: np.ndarray
    """Weight of x_t in the same mean."""
    std: np.ndarray
    """Standard deviation of x_{t-1} given x_t and x_0; 0 at t = 0."""

    @property
    def steps(self) -> int:
        """T."""
        return len(self.beta)


def linear_schedule(steps: int, scale: float = 0.8) -> Schedule:
    """Variances that grow linearly, `linear_variances`. Source: Ho et al. 2020, eq. 4 for abar_t."""
    beta = linear_variances(steps, scale)
    return schedule_of(np.cumprod(1.0 - beta), beta)


def schedule_of(alpha_bar: np.ndarray, beta: np.ndarray | None = None) -> Schedule:
    """From abar_t; beta follows from it, but for rounding.

    Source: Ho et al. 2020, eq. 15 for x_0 and eq. 7 for the posterior of x_{t-1}.
    """
    before = np.concatenate([[1.0], alpha_bar[:-1]])
    beta = 1.0 - alpha_bar / before if beta is None else beta
    return Schedule(
        beta=beta,
        alpha_bar=alpha_bar,
        from_x=np.sqrt(1.0 / alpha_bar),
        from_noise=np.sqrt(1.0 / alpha_bar - 1.0),
        mean_x0=np.sqrt(before) * beta / (1.0 - alpha_bar),
        mean_x=np.sqrt(1.0 - beta) * (1.0 - before) / (1.0 - alpha_bar),
        std=np.sqrt(beta * (1.0 - before) / (1.0 - alpha_bar)),
    )


def _at(table: np.ndarray, step: Int[Array, "*b"], like: Float[Array, "*c act"]) -> Float[Array, "*b 1"]:
    """Entries of a coefficient for each row, ready to be multiplied with actions."""
    return jnp.asarray(table, like.dtype)[step][..., None]


def q_sample(
    schedule: Schedule, x0: Float[Array, "*b act"], step: Int[Array, "*b"], noise: Float[Array, "*b act"]
) -> Float[Array, "*b act"]:
    """x_t, the action after t noising steps, drawn in one go from standard normal noise.

    Source: Ho et al. 2020, eq. 4.
    """
    signal_std, noise_std = np.sqrt(schedule.alpha_bar), np.sqrt(1.0 - schedule.alpha_bar)
    return _at(signal_std, step, x0) * x0 + _at(noise_std, step, x0) * noise


def predict_x0(
    schedule: Schedule, x: Float[Array, "*#b act"], step: Int[Array, "*#b"], noise: Float[Array, "*#b act"]
) -> Float[Array, "*b act"]:
    """The x_0 from which `noise` would have led to x_t; it is not clipped.

    Source: Ho et al. 2020, eq. 15.
    """
    return _at(schedule.from_x, step, x) * x - _at(schedule.from_noise, step, x) * noise


def sample(
    predict: Predict,
    step_inputs: Array,
    schedule: Schedule,
    noise: Float[Array, "step batch act"],
    mask: Float[Array, " act"],
    start_scale: float = 0.5,
) -> Float[Array, "batch act"]:
    """Draw actions by walking back from t = T - 1 to t = 0, under any noise prediction.

    The last step adds no noise and gives the reconstruction of x_0 itself, so the result lies in [-1, 1].

    Source: Ho et al. 2020, algorithm 2 with the posterior variance of eq. 7.

    Args:
        predict: (x, input of this step) -> noise.
        step_inputs: One entry a step, that of t at index t.
        schedule: Coefficients.
        noise: Standard normal: entry 0 is for the starting point, entry t for step t.
        mask: 1 for real action dimensions, 0 for padding, which stays at zero.
        start_scale: Standard deviation of the starting point.

    Returns:
        x_0.

    Differs: the paper starts from N(0, I) and does not clip. Here it is N(0, start_scale^2 I), and what the network
    takes x_0 to be is clipped to [-1, 1] at every step, as in the code of DPMD and SDAC.
    """
    noise = noise * mask
    columns = tuple(jnp.asarray(table, noise.dtype) for table in schedule[2:])  # from `from_x` to `std`

    def step(x: Array, inputs: tuple[Array, Array, tuple[Array, ...]]) -> tuple[Array, None]:
        step_input, eps, (from_x, from_noise, mean_x0, mean_x, std) = inputs
        x0 = jnp.clip(from_x * x - from_noise * predict(x, step_input) * mask, -1.0, 1.0)
        return mean_x0 * x0 + mean_x * x + std * eps, None

    x, _ = jax.lax.scan(step, start_scale * noise[0], (step_inputs, noise, columns), reverse=True)
    return x
