"""Hyperparameters of OMAD.

Source tags: [S] summaries of the full paper; [D] DIME's code; [X] CrossQ's code, or an ablation; [H] HARL's code;
[I] inferred; [M] measured with this project; [?] assumed.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

from omad.algos.validate import check
from omad.errors import UserError


@dataclasses.dataclass(frozen=True)
class OmadConfig:
    """Hyperparameters of OMAD. Defaults are the paper's where known, else DIME's."""

    program: ClassVar[str] = "omad.algos.omad"
    """The module whose `make` builds the algorithm."""
    traced: ClassVar[tuple[str, ...]] = (
        "actor_lr", "critic_lr", "alpha_lr", "adam_b1", "gamma", "tau", "actor_clip", "atom_entropy",
        "target_run_per_dim", "target_run_end",
    )  # fmt: skip
    """Fields that do not shape the program: runs that differ in these alone are compiled once."""

    # the chain
    denoising_steps: int = 8
    """K, denoising steps of a chain [S]; DIME uses 16."""
    prior_scale: float = 2.5
    """sigma, standard deviation of the chain's starting point [D]."""
    step_init: float = 0.1
    """Initial softplus(delta), the scale of all step sizes [D]."""
    friction_init: float = 1.0
    """Initial softplus(phi), the per-dimension divisor of the step sizes [D]."""
    learn_step_size: bool = True
    """Whether delta and phi are trained [D]."""
    control_clip: float = 1e4
    """Bound on the denoiser's output [D]."""
    chain_kernel: Literal["euler", "exact"] = "euler"
    """Steps of both directions of the chain: Euler-Maruyama's [D], or the reference process's own transitions with
    the control held over a step, which without control leave no gap between the entropy and its bound [I]."""
    share_policy: bool = False
    """One set of policy parameters for all agents, which must be of equal sizes [H: none is shared]. Each agent still
    acts alone on its own observation; who does what then hangs on where agents are, not on their numbers [M]."""
    # the denoiser of each agent
    actor_width: int = 256
    """Units of a hidden layer [D]."""
    actor_layers: int = 3
    """Hidden layers [D]."""
    time_frequencies: int = 256
    """Fourier frequencies of the time features [D]."""
    time_width: int = 256
    """Width of the time embedding [D]."""
    # the joint critics
    critic_width: int = 2048
    """Units of a hidden layer [D]."""
    critic_layers: int = 2
    """Hidden layers [D]."""
    critic_net: Literal["renorm", "xqc"] = "renorm"
    """Norms after the activations and free weights [D][X], or norms before them and hidden weights at unit length
    after every step (Palenicek et al. 2025, XQC)."""
    critic_blocks: int = 0
    """Residual blocks, then RMSNorm, before the head of `xqc` critics (Kim et al. 2026, FlashSAC)."""
    critic_input: Literal["auto", "state", "obs"] = "auto"
    """What critics read besides actions: the env's state, all observations, or the state if there is one [I]."""
    critic_kind: Literal["distributional", "scalar"] = "distributional"
    """Value distributions over atoms [S], or one number and half the squared error, for ablation [X]."""
    critic_scope: Literal["joint", "independent"] = "joint"
    """Critics of the joint action [S], or a pair an agent that reads its own observation and action only, for
    ablation [X]."""
    critic_reduce: Literal["mean", "min"] = "mean"
    """How the twins are combined in target and actor loss: their mean [D]; `min` takes the one of lower value [X]."""
    target_network: bool = False
    """Polyak-averaged target critics instead of the joint pass of CrossQ [S][D say no]."""
    tau: float = 0.005
    """Polyak rate of the target critics; unused without them [?]."""
    atoms: int = 100
    """Atoms of the value distribution [S]; DIME uses 101."""
    v_max: float = 300.0
    """Half-width of the support, per task; watch `critic/edge_mass` [S: set per task, values not published]."""
    atom_entropy: float = 0.005
    """Weight of the entropy bonus on the predicted value distribution [D]."""
    renorm_momentum: float = 0.99
    """Momentum of batch renormalisation's running statistics [D][X]."""
    renorm_warmup: int = 100_000
    """Gradient steps of plain batch normalisation before renormalisation [D][X]."""
    # objective and optimisers
    gamma: float = 0.99
    """Discount factor [D]."""
    n_step: int = 1
    """Rewards summed in a target [D]; beyond 1, entropy bonuses inside the sum are left out."""
    actor_lr: float = 3e-4
    """Adam step size of all actors [D]."""
    critic_lr: float = 3e-4
    """Adam step size of the critics [D]."""
    lr_decay_steps: int = 0
    """Gradient steps in which both fall linearly to a tenth, where they stay; 0 keeps them constant [D: constant]."""
    adam_b1: float = 0.5
    """Adam's first-moment decay for actors and critics [D]."""
    actor_clip: float = 1.0
    """Element-wise bound on the actors' gradients [D]."""
    actor_every: int = 3
    """Gradient steps of the critics per step of actors and temperature [D]."""
    policy_average: float = 0.0
    """Decay, at each step of the actors, of an average of their parameters that is evaluated and leaves training;
    transitions are collected and losses computed with the actors themselves. 0 keeps none [D: none]. At the first
    steps t it is less, (1 + t) / (10 + t), so that nothing of the untrained actors stays."""
    policy_update: Literal["simultaneous", "sequential"] = "simultaneous"
    """All policies in one step [S], or one after the other in random order, each seeing the others' newest actions,
    for ablation [X]."""
    # the temperature
    alpha_mode: Literal["auto", "fixed"] = "auto"
    """Tuned by its dual [S], or fixed at `alpha_init`."""
    alpha_init: float = 1.0
    """Initial temperature [D]."""
    alpha_lr: float = 1e-3
    """Adam step size of log alpha, b1 = 0.9 [D]."""
    alpha_pace: Literal["gradient", "env"] = "gradient"
    """Whether `alpha_lr` holds for a gradient step whatever their number [D], or is divided by the gradient steps per
    env step, so that more of them leave alpha's pace over env steps as it is."""
    alpha_per_agent: bool = False
    """One temperature an agent instead of a shared one [S: joint, hence shared]."""
    target_run_per_dim: float = 4.0
    """Upper limit on the running cost per action dimension; alpha falls below it, rises above it [S][D]."""
    target_run_end: float | None = None
    """What this limit becomes, linearly: a larger one leaves less noise in the actions; by default it stays [M]."""
    target_run_begin: int = 0
    """Gradient steps before it begins to change [M]."""
    target_run_steps: int = 0
    """Gradient steps that the change takes [D: constant]."""

    def __post_init__(self) -> None:
        """Validate; `UserError` names the field, what was given and what is allowed."""
        check(
            self,
            counts=("actor_every",),
            units=("actor_width", "time_frequencies", "time_width", "critic_width", "atoms"),
            unrolled=("denoising_steps", "actor_layers", "critic_layers", "n_step"),
            positive=(
                "prior_scale", "step_init", "friction_init", "control_clip", "v_max", "actor_lr", "critic_lr",
                "actor_clip", "alpha_lr",
            ),
            decays=("adam_b1", "renorm_momentum", "policy_average"),
            most={"v_max": 1e30, "prior_scale": 1e3, "step_init": 1e3, "friction_init": 1e3, "critic_blocks": 1_000,
                  "policy_average": 0.99999},
            fractions=("gamma", "tau"),
            not_negative=("alpha_init", "atom_entropy", "renorm_warmup", "lr_decay_steps", "critic_blocks",
                          "target_run_begin", "target_run_steps"),
            finite=("target_run_per_dim", "target_run_end"),
        )  # fmt: skip
        for name in ("prior_scale", "step_init", "friction_init"):
            if getattr(self, name) < 1e-3:
                raise UserError(f"{name} is {getattr(self, name)}; it must lie between 0.001 and 1000.")
        if not self.target_run_steps and self.target_run_end == self.target_run_per_dim:
            object.__setattr__(self, "target_run_end", None)  # it stays where it is
        if (self.target_run_end is None) != (self.target_run_steps == 0):
            raise UserError(
                f"target_run_end is {self.target_run_end} and target_run_steps {self.target_run_steps}; give both, or "
                "neither if the limit is to stay as it is."
            )
        if self.target_run_begin and not self.target_run_steps:
            raise UserError(
                f"target_run_begin is {self.target_run_begin}, but the limit does not change; give target_run_end and "
                "target_run_steps too."
            )
        if self.atoms < 2:
            raise UserError(f"atoms is {self.atoms}; a value distribution needs at least 2.")
        if self.v_max < 1e-30:
            raise UserError(
                f"v_max is {self.v_max}; it must be a positive number of at least 1e-30, or atoms coincide."
            )
        if self.alpha_init == 0 and self.alpha_mode == "auto":
            raise UserError(
                f"alpha_init is {self.alpha_init}; it must be positive (0 is allowed with alpha_mode fixed)."
            )
        if self.critic_blocks and self.critic_net != "xqc":
            raise UserError(
                f"critic_blocks is {self.critic_blocks}, but only critic_net 'xqc' has blocks; use it, or 0."
            )
        if self.critic_scope == "independent" and self.critic_input != "auto":
            raise UserError(
                f"critic_input is {self.critic_input!r}, but with critic_scope 'independent' each critic reads its own "
                "agent's observation and action only; use 'auto', or critic_scope 'joint'."
            )
        if self.share_policy and self.policy_update == "sequential":
            raise UserError(
                "policy_update is 'sequential', but with share_policy there is one policy to update; give "
                "policy_update 'simultaneous', or share_policy false."
            )

    @property
    def hopeless(self) -> str:
        """Why a new run could not learn; else empty.

        With Euler steps the chain runs away where the first one is longer than twice the time in which noise is
        forgotten. No policy's entropy is above that of uniform actions in [-1, 1], log 2 a dimension, nor is its bound:
        a limit on the running cost below that of such actions is never met, so that the temperature rises for ever.
        """
        length = self.step_init / (self.friction_init * self.prior_scale**2)
        if self.chain_kernel == "euler" and length >= 2.0:
            return (
                f"step_init is {self.step_init:g}, friction_init {self.friction_init:g} and prior_scale "
                f"{self.prior_scale:g}; with Euler steps step_init / (friction_init prior_scale^2), here {length:.3g}, "
                "must be below 2, or the chain runs away. Lower step_init, or set chain_kernel to 'exact'."
            )
        name = "target_run_per_dim" if self.target_run_end is None else "target_run_end"
        least = 0.5 * math.log(math.pi * math.e / 2) + math.log(self.prior_scale)
        if self.alpha_mode == "fixed" or getattr(self, name) > least:
            return ""
        return (
            f"{name} is {getattr(self, name)}; with prior_scale {self.prior_scale:g} it must be above {least:.2f}, the "
            "running cost of uniformly random actions, or the temperature would rise for ever."
        )
