"""The records that everything else is made of: what an env gives, what a learner eats, what acts.

Shape words: `batch agent obs act state`. Unless a docstring says otherwise, leading axes `*b` are free.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

__all__ = [
    "Algorithm",
    "Batch",
    "EnvSpec",
    "JaxEnv",
    "Mean",
    "Metrics",
    "Observation",
    "Outcome",
    "Step",
]


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """Sizes of a task, known before anything is compiled.

    Agents of unequal size are zero-padded to `obs_dim` and `act_dim`; `obs_dims` and `act_dims` keep the real sizes.
    """

    name: str
    """Full task name, protocol and options included, e.g. `mpe/spread-3`."""
    obs_dims: tuple[int, ...]
    """Real observation size of each agent."""
    act_dims: tuple[int, ...]
    """Real action size of each agent."""
    state_dim: int
    """Size of the global state, 0 where the env gives none (critics then read all observations)."""
    horizon: int
    """Env steps until an episode is truncated."""
    info_keys: tuple[str, ...] = ()
    """Names of the extra per-step numbers in `Outcome.info`; evaluation sums them over an episode."""

    @property
    def n_agents(self) -> int:
        """Number of agents."""
        return len(self.obs_dims)

    @property
    def obs_dim(self) -> int:
        """Padded observation size."""
        return max(self.obs_dims)

    @property
    def act_dim(self) -> int:
        """Padded action size."""
        return max(self.act_dims)

    @property
    def joint_act_dim(self) -> int:
        """Real action dimensions of all agents together, the D of the paper."""
        return sum(self.act_dims)

    @property
    def act_mask(self) -> Float[Array, "agent act"]:
        """1 where an action dimension is real, 0 where it is padding."""
        return (jnp.arange(self.act_dim)[None, :] < jnp.asarray(self.act_dims)[:, None]).astype(float)


class Observation(eqx.Module):
    """What is visible at one moment: one row an agent, and the state for critics only."""

    obs: Float[Array, "*b agent obs"]
    state: Float[Array, "*b state"]


class Outcome(eqx.Module):
    """What one env step gives back; never the result of a reset."""

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
    """What a learner eats. No learner sees `done`: `discount` is gamma^m, or 0 after a termination."""

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
EnvState = Any
Learner = Any
Policy = PyTree


class JaxEnv(NamedTuple):
    """A JAX-native env: two pure, unbatched functions. It never resets itself."""

    spec: EnvSpec
    reset: Callable[[Key[Array, ""]], tuple[EnvState, Observation]]
    step: Callable[[EnvState, Float[Array, "agent act"], Key[Array, ""]], tuple[EnvState, Outcome]]
    """(env state, actions in [-1, 1], key) -> (env state, outcome)."""


class Algorithm(NamedTuple):
    """An algorithm is a record of pure functions and of what a caller must know about them."""

    init: Callable[[Key[Array, ""]], Learner]
    """All learnable state. The key is consumed."""
    policy: Callable[[Learner], Policy]
    """The part that acts: shipped, evaluated, bundled. It holds no critic."""
    act: Callable[[Policy, Float[Array, "*b agent obs"], Key[Array, ""], bool], Float[Array, "*b agent act"]]
    """(policy, observations, key, explore) -> actions in [-1, 1]; `explore` is static."""
    update: Callable[[Learner, Batch, Key[Array, ""], Int[Array, ""]], tuple[Learner, Metrics]]
    """One critic step; the rest by its own cadence, read from the gradient-step count (1 for the first)."""
    metrics: tuple[str, ...]
    """Exactly the keys that `update` returns."""
    flops: Callable[[int], float]
    """Floating-point operations of one gradient step, averaged over the cadence, for a batch size."""
    gamma: float
    """Discount factor, for the sampler."""
    n_step: int
    """Steps of reward in a target, for the sampler."""


def is_mean(leaf: Any) -> bool:
    """Whether a pytree node is a `Mean`, for `jax.tree.map(..., is_leaf=is_mean)`."""
    return isinstance(leaf, Mean)


def seed_axis(tree: PyTree) -> int:
    """Length of the leading axis that all leaves share."""
    return jax.tree.leaves(tree)[0].shape[0]
