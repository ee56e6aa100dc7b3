"""The records between the parts: what an env returns, what a learner reads, what acts.

Shape words: `batch agent obs act state`. Unless a docstring says otherwise, leading axes `*b` are free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from omad.spec import EnvSpec, Symmetry


class Observation(eqx.Module):
    """Observations at one step: one row an agent, and the state for critics only."""

    obs: Float[Array, "*b agent obs"]
    state: Float[Array, "*b state"]


class Outcome(eqx.Module):
    """The result of one env step; never of a reset."""

    next: Observation
    """The true successor, also at the end of an episode."""
    reward: Float[Array, "*b"]
    """Team reward."""
    terminated: Bool[Array, "*b"]
    """The task ended: no bootstrap."""
    truncated: Bool[Array, "*b"]
    """The clock ended: bootstrap."""
    info: dict[str, Float[Array, "*b"]] = eqx.field(default_factory=dict)


class Step(eqx.Module):
    """One transition, as the buffer keeps it."""

    obs: Float[Array, "*b agent obs"]
    state: Float[Array, "*b state"]
    action: Float[Array, "*b agent act"]
    """In [-1, 1]; zero in padded dimensions."""
    reward: Float[Array, "*b"]
    terminated: Bool[Array, "*b"]
    truncated: Bool[Array, "*b"]
    next_obs: Float[Array, "*b agent obs"]
    next_state: Float[Array, "*b state"]


class Batch(eqx.Module):
    """A batch as a learner reads it. No learner sees `done`: `discount` is gamma^m, or 0 after a termination."""

    obs: Float[Array, "batch agent obs"]
    state: Float[Array, "batch state"]
    action: Float[Array, "batch agent act"]
    ret: Float[Array, " batch"]
    """Discounted sum of the m rewards up to `next_obs` (m = 1 unless n-step returns are used)."""
    discount: Float[Array, " batch"]
    next_obs: Float[Array, "batch agent obs"]
    next_state: Float[Array, "batch state"]


class Mean(eqx.Module):
    """A running mean: sum of what was measured and how often. Weight 0 means "not measured in this step"."""

    total: Float[Array, "*s"]
    weight: Float[Array, "*s"]

    @staticmethod
    def of(value: Any) -> Mean:
        """One measurement of a scalar."""
        value = jnp.asarray(value, float)
        return Mean(value, jnp.ones_like(value))

    def __add__(self, other: Mean) -> Mean:
        """Both sets of measurements together."""
        return Mean(self.total + other.total, self.weight + other.weight)


Metrics = dict[str, Mean]
TeamObs = Float[Array, "batch agent obs"]
TeamAction = Float[Array, "batch agent act"]
GlobalState = Float[Array, "batch state"]
EnvState = Any
Learner = Any
Policy = PyTree


class JaxEnv(NamedTuple):
    """A JAX-native env: two pure, unbatched functions. It never resets itself."""

    spec: EnvSpec
    reset: Callable[[Key[Array, ""]], tuple[EnvState, Observation]]
    step: Callable[[EnvState, Float[Array, "agent act"], Key[Array, ""]], tuple[EnvState, Outcome]]
    """(env state, actions in [-1, 1], key) -> (env state, outcome)."""
    symmetry: Symmetry | None = None
    """What leaves the task as it is, where that is known."""
    picture: Callable[[EnvState], np.ndarray] | None = None
    """What the env draws of one state, `(height, width, 3)` bytes, where it draws itself."""
    notes: tuple[str, ...] = ()
    """Sentences that a user should read before training."""


class Algorithm(NamedTuple):
    """An algorithm is a record of pure functions and of what a caller must know about them."""

    init: Callable[[Key[Array, ""]], Learner]
    """All learnable state. The key is consumed."""
    policy: Callable[[Learner], Policy]
    """The part that leaves training: evaluated, exported, bundled. It holds no critic."""
    act: Callable[[Policy, Float[Array, "*b agent obs"], Key[Array, ""], bool], Float[Array, "*b agent act"]]
    """(policy, observations, key, explore) -> actions in [-1, 1]; `explore` is static."""
    update: Callable[[Learner, Batch, Key[Array, ""], Int[Array, ""]], tuple[Learner, Metrics]]
    """One critic step; the rest by its own cadence, read from the gradient-step count (1 for the first).

    Every call gives metrics of the same names; what is not measured in a step has weight 0.
    """
    gamma: float | Float[Array, ""]
    """Discount factor, for the sampler."""
    n_step: int
    """Steps of reward in a target, for the sampler."""
    hyperparameters: Mapping[str, float] = MappingProxyType({})
    """Those that do not shape the program. Loops hand them to compiled programs as arguments, so that runs
    which differ in these alone are compiled once."""
    remade: Callable[[Mapping[str, Any]], Algorithm] | None = None
    """(hyperparameters) -> the same algorithm with these, which may be tracers; None where there are none.

    Loops learn by what this gives: whoever replaces `update` replaces this, too, or sets it to None."""
    behaviour: Callable[[Learner], Policy] | None = None
    """What collects transitions in training, of the same form as `policy` gives; None where that is `policy` itself."""

    def behaviour_policy(self, learner: Learner) -> Policy:
        """What collects transitions in training."""
        return (self.behaviour or self.policy)(learner)
