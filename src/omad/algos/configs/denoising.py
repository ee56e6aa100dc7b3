"""Hyperparameters of MADPMD and MASDAC."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

import numpy as np

from omad.algos.validate import check
from omad.diffusion.schedule import linear_variances
from omad.errors import UserError

_MOST_EXPONENT = 80.0
"""e^88.7 is the largest number in single precision; sums and products need room."""


@dataclasses.dataclass(frozen=True)
class DenoisingConfig:
    """Hyperparameters of both algorithms. Defaults are those of the public code of DPMD and SDAC.

    Source tags: [R] that code; [I] inferred; [?] assumed.
    """

    traced: ClassVar[tuple[str, ...]] = (
        "actor_lr", "actor_lr_end", "critic_lr", "alpha_lr", "gamma", "tau", "reward_scale", "target_entropy_per_dim",
    )  # fmt: skip
    """Fields that do not shape the program: runs that differ in these alone are compiled once."""

    # the chain
    denoising_steps: int = 20
    """T, denoising steps of a chain [R]."""
    prior_scale: float = 0.5
    """Standard deviation of the chain's starting point [R]."""
    beta_scale: float = 0.8
    """Factor on the noising variances linspace(1e-4, 0.999, T) [R]."""
    # the noise network of each agent
    actor_width: int = 256
    """Units of a hidden layer [R]."""
    actor_layers: int = 3
    """Hidden layers [R]."""
    time_width: int = 16
    """Sinusoidal features of time, and width of their embedding; even [R]."""
    # the joint critics
    critic_width: int = 256
    """Units of a hidden layer [R]."""
    critic_layers: int = 3
    """Hidden layers [R]."""
    critic_input: Literal["auto", "state", "obs"] = "auto"
    """What critics read besides actions: the env's state, all observations, or the state if there is one [I]."""
    # objective and optimisers
    gamma: float = 0.99
    """Discount factor [R]."""
    n_step: int = 1
    """Rewards summed in a target [R]."""
    reward_scale: float = 0.2
    """Factor on rewards inside the learner; values are reported without it [R]."""
    target_samples: int = 1
    """Joint samples of which the critics choose one wherever training draws actions; beyond 1 an ablation, for the
    joint choice is centralised; acting always takes one sample [?; R: 32 in training and acting]."""
    actor_lr: float = 3e-4
    """Adam step size of all actors at first [R]."""
    actor_lr_end: float = 3e-5
    """Adam step size of all actors after its decay [R]."""
    actor_decay_begin: int = 25_000
    """Policy updates before the step size starts to fall [R]."""
    actor_decay_steps: int = 50_000
    """Policy updates in which it falls linearly; 0 keeps it constant [R]."""
    critic_lr: float = 3e-4
    """Adam step size of the critics [R]."""
    critic_decay_steps: int = 0
    """Gradient steps in which it falls linearly to a tenth, where it stays; 0 keeps it constant [R: constant]."""
    actor_every: int = 2
    """Gradient steps of the critics per step of actors, target critics and the policies that act [R]."""
    tau: float = 0.005
    """Polyak rate of target critics and of the policies that act [R]."""
    # the temperature, which is also the size of the exploration noise
    noise_scale: float = 0.1
    """Standard deviation of the Gaussian noise added to actions, as a multiple of alpha [R]."""
    alpha_mode: Literal["auto", "fixed"] = "auto"
    """Tuned to the target entropy of the added noise [R], or fixed at `alpha_init`."""
    alpha_init: float = 5.0
    """Initial temperature [R]."""
    alpha_lr: float = 7e-3
    """Adam step size of log alpha [R]."""
    alpha_pace: Literal["gradient", "env"] = "gradient"
    """Whether `alpha_lr` holds for a gradient step whatever their number [R], or is divided by the gradient steps per
    env step."""
    alpha_every: int = 250
    """Gradient steps of the critics per step of the temperature [R]."""
    target_entropy_per_dim: float = -0.9
    """Entropy of the added noise per action dimension that the temperature moves to, nats [R]."""

    def __post_init__(self) -> None:
        """Validate; `UserError` names the field, what was given and what is allowed."""
        check(
            self,
            counts=("actor_every", "alpha_every"),
            units=("actor_width", "time_width", "critic_width", "target_samples"),
            unrolled=("denoising_steps", "actor_layers", "critic_layers", "n_step"),
            positive=("prior_scale", "reward_scale", "actor_lr", "actor_lr_end", "critic_lr", "alpha_init", "alpha_lr"),
            fractions=("beta_scale", "gamma", "tau"),
            not_negative=("actor_decay_begin", "actor_decay_steps", "critic_decay_steps", "noise_scale"),
            finite=("target_entropy_per_dim",),
        )  # fmt: skip
        if self.time_width % 2:
            raise UserError(f"time_width is {self.time_width}; it must be even, for sines and cosines come in pairs.")
        if self.alpha_mode == "auto" and self.noise_scale == 0:
            raise UserError(
                f"noise_scale is {self.noise_scale}, so there is no entropy to tune alpha by; give alpha_mode 'fixed'."
            )

    @property
    def hopeless(self) -> str:
        """Why a new run could not learn; else empty.

        What is left of an action's variance after all noising steps must be little, or a chain from noise hardly leaves
        where it starts; and the root of its inverse, by which the chain multiplies, must be a number.
        """
        left = float(np.log1p(-linear_variances(self.denoising_steps, self.beta_scale)).sum())
        if -2.0 * _MOST_EXPONENT < left < math.log(0.5):
            return ""
        change = "Lower denoising_steps or beta_scale" if left < -1.0 else "Raise denoising_steps or beta_scale"
        return (
            f"denoising_steps is {self.denoising_steps} and beta_scale {self.beta_scale:g}, which leave e^{left:.3g} "
            f"of an action's variance; it must lie between e^-{2 * _MOST_EXPONENT:g} and a half. {change}."
        )


@dataclasses.dataclass(frozen=True)
class MadpmdConfig(DenoisingConfig):
    """Hyperparameters of MADPMD. Defaults are those of DPMD's public code [R], its two defects fixed."""

    program: ClassVar[str] = "omad.algos.madpmd"
    """The module whose `make` builds the algorithm."""

    score_limit: float = 3.0
    """Bound on the standardised value that an action is weighted by [R]."""
    moments_rate: float = 0.001
    """Share of a batch in the running mean and standard deviation of values [R]."""
    reference_weights: bool = False
    """Weight by q - mean / std, as the public code does, instead of (q - mean) / std."""
    reference_double_step: bool = False
    """Apply each gradient of the critics twice, as the public code does."""

    def __post_init__(self) -> None:
        """Validate; `UserError` names the field, what was given and what is allowed."""
        super().__post_init__()
        check(self, positive=("score_limit",), fractions=("moments_rate",))

    @property
    def hopeless(self) -> str:
        """As of both; and the largest weight, e^(limit / alpha), must be a number, where alpha settles too."""
        least, name = self.alpha_init, "alpha_init"
        if self.alpha_mode == "auto":
            settled = math.exp(self.target_entropy_per_dim) / (math.sqrt(2 * math.pi * math.e) * self.noise_scale)
            if settled < least:
                least, name = settled, "alpha, by target_entropy_per_dim and noise_scale,"
        if words := super().hopeless:
            return words
        if self.score_limit <= _MOST_EXPONENT * least:
            return ""
        return (
            f"{name} is {least:.3g} and score_limit {self.score_limit:g}; weights up to e^(score_limit / alpha) are no "
            f"numbers in single precision above e^{_MOST_EXPONENT:g}. Raise it to at least "
            f"{self.score_limit / _MOST_EXPONENT:.3g}, or lower score_limit."
        )


@dataclasses.dataclass(frozen=True)
class MasdacConfig(DenoisingConfig):
    """Hyperparameters of MASDAC. Defaults are those of SDAC's public code [R]."""

    program: ClassVar[str] = "omad.algos.masdac"
    """The module whose `make` builds the algorithm."""

    reconstructions: int = 64
    """M, reconstructions of an action that are weighted against each other [R]."""
    weight_scale: float = 5.0
    """Factor on values over alpha inside the softmax: the initial temperature [R]."""

    def __post_init__(self) -> None:
        """Validate; `UserError` names the field, what was given and what is allowed."""
        super().__post_init__()
        check(self, units=("reconstructions",), positive=("weight_scale",))
        if self.reconstructions < 2:
            raise UserError(
                f"reconstructions is {self.reconstructions}; it must be at least 2, or none outweighs another."
            )
