"""Hyperparameters of HASAC and HATD3. Source tags: [H] HARL's code and tuned configurations."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from omad.algos.validate import check
from omad.errors import UserError


@dataclasses.dataclass(frozen=True)
class HasacConfig:
    """Hyperparameters of HASAC. Defaults are those of HARL."""

    program: ClassVar[str] = "omad.algos.hasac"
    """The module whose `make` builds the algorithm."""
    traced: ClassVar[tuple[str, ...]] = (
        "actor_lr", "critic_lr", "alpha_lr", "gamma", "tau", "huber_delta", "target_entropy_per_dim",
    )  # fmt: skip
    """Fields that do not shape the program: runs that differ in these alone are compiled once."""

    # the policy of each agent
    actor_width: int = 256
    """Units of a hidden layer [H]."""
    actor_layers: int = 2
    """Hidden layers of the trunk [H]."""
    actor_final: Literal["tanh", "relu"] = "tanh"
    """Activation after the trunk's last layer, before the heads [H]."""
    # the joint critics
    critic_width: int = 256
    """Units of a hidden layer [H]."""
    critic_layers: int = 2
    """Hidden layers [H]."""
    critic_input: Literal["auto", "state", "obs"] = "auto"
    """What critics read besides actions: the env's state, all observations, or the state if there is one [H]."""
    critic_loss: Literal["mse", "huber"] = "mse"
    """Penalty of a critic's error: squared, as in HARL's tuned settings, or linear from `huber_delta` on [H]."""
    huber_delta: float = 10.0
    """Error from which the Huber penalty is linear [H]."""
    tau: float = 0.005
    """Polyak rate of the target critics [H]."""
    # objective and optimisers
    gamma: float = 0.99
    """Discount factor [H]."""
    n_step: int = 20
    """Rewards summed in a target [H]; bonuses inside the sum are left out."""
    actor_lr: float = 5e-4
    """Adam step size of the actors [H]."""
    critic_lr: float = 5e-4
    """Adam step size of the critics [H]."""
    lr_decay_steps: int = 0
    """Gradient steps in which both fall linearly to a tenth, where they stay; 0 keeps them constant [H: constant]."""
    actor_every: int = 1
    """Gradient steps of the critics per step of actors and temperatures [H]."""
    # the temperatures
    alpha_mode: Literal["auto", "fixed"] = "auto"
    """Tuned by their duals, one an agent and one for the critics, or all fixed at `alpha_init` [H: per task]."""
    alpha_init: float = 1.0
    """Initial temperatures [H]; 0.2 or 0.001 where HARL fixes them."""
    alpha_lr: float = 3e-4
    """Adam step size of log alpha [H]."""
    alpha_pace: Literal["gradient", "env"] = "gradient"
    """Whether `alpha_lr` holds for a gradient step whatever their number [H], or is divided by the gradient steps per
    env step."""
    target_entropy_per_dim: float = -1.0
    """Entropy per action dimension below which a temperature rises, in nats [H]."""

    def __post_init__(self) -> None:
        """Validate; `UserError` names the field, what was given and what is allowed."""
        check(
            self,
            counts=("actor_every",),
            units=("actor_width", "critic_width"),
            unrolled=("actor_layers", "critic_layers", "n_step"),
            positive=("huber_delta", "actor_lr", "critic_lr", "alpha_lr"),
            not_negative=("alpha_init", "lr_decay_steps"),
            finite=("target_entropy_per_dim",),
            fractions=("gamma", "tau"),
        )
        if self.alpha_init == 0 and self.alpha_mode == "auto":
            raise UserError(
                f"alpha_init is {self.alpha_init}; it must be positive (0 is allowed with alpha_mode fixed)."
            )


@dataclasses.dataclass(frozen=True)
class Hatd3Config:
    """Hyperparameters of HATD3. Defaults are those of HARL."""

    program: ClassVar[str] = "omad.algos.hatd3"
    """The module whose `make` builds the algorithm."""
    traced: ClassVar[tuple[str, ...]] = (
        "actor_lr", "critic_lr", "gamma", "tau", "huber_delta", "target_noise", "target_noise_clip",
    )  # fmt: skip
    """Fields that do not shape the program: runs that differ in these alone are compiled once."""

    # actors
    actor_width: int = 128
    """Units of a hidden layer [H]; 256 where HARL tunes for MuJoCo."""
    actor_layers: int = 2
    """Hidden layers [H]."""
    explore_noise: float = 0.1
    """Standard deviation of the noise on actions in training [H]."""
    # the joint critics
    critic_width: int = 128
    """Units of a hidden layer [H]; 256 where HARL tunes for MuJoCo."""
    critic_layers: int = 2
    """Hidden layers [H]."""
    critic_input: Literal["auto", "state", "obs"] = "auto"
    """What critics read besides actions: the env's state, all observations, or the state if there is one [H]."""
    critic_loss: Literal["mse", "huber"] = "mse"
    """Penalty of a critic's error: squared, or linear from `huber_delta` on [H]."""
    huber_delta: float = 10.0
    """Error from which the Huber penalty is linear [H]."""
    # targets
    target_noise: float = 0.2
    """Standard deviation of the noise on target actions [H]."""
    target_noise_clip: float = 0.5
    """Bound on that noise [H]."""
    tau: float = 0.005
    """Polyak rate of the target actors and critics, at every policy update [H]."""
    gamma: float = 0.99
    """Discount factor [H]."""
    n_step: int = 1
    """Rewards summed in a target [H]; 5 to 20 where HARL tunes for MuJoCo."""
    # optimisers
    actor_lr: float = 5e-4
    """Adam step size of the actors [H]."""
    critic_lr: float = 1e-3
    """Adam step size of the critics [H]."""
    lr_decay_steps: int = 0
    """Gradient steps in which both fall linearly to a tenth, where they stay; 0 keeps them constant [H: constant]."""
    actor_every: int = 2
    """Gradient steps of the critics per step of actors and targets [H]."""

    def __post_init__(self) -> None:
        """Validate; `UserError` names the field, what was given and what is allowed."""
        check(
            self,
            counts=("actor_every",),
            units=("actor_width", "critic_width"),
            unrolled=("actor_layers", "critic_layers", "n_step"),
            positive=("huber_delta", "actor_lr", "critic_lr"),
            not_negative=("explore_noise", "target_noise", "target_noise_clip", "lr_decay_steps"),
            fractions=("gamma", "tau"),
        )
