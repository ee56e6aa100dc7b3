"""How the hosted loop hands things to its programs: an env's results as one row of numbers, carries as bare leaves."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from omad.loop.fused import Carry
from omad.loop.seeds import with_ring, without_ring
from omad.types import Algorithm, EnvSpec, Learner, Observation, Step


def core_of(carry: Carry) -> Carry:
    """What a seed's programs change, but for the ring."""
    return eqx.tree_at(on_host, without_ring(carry), (None, None), is_leaf=lambda leaf: leaf is None)


def on_host(carry: Carry) -> tuple[Any, Any]:
    """What the host holds while envs run."""
    return carry.observation, carry.env_state


class Layout:
    """How the results of a vector step lie in one row of numbers an env, as in `PoolStep.table`: one transfer, then.

    Successor and its state, reward, terminated, truncated, extra numbers, next observation and its state.
    """

    def __init__(self, spec: EnvSpec) -> None:
        self.agents, self.obs = spec.n_agents, spec.n_agents * spec.obs_dim
        self.shown, self.width = spec.seen_size, spec.row_size
        self.info_keys = spec.info_keys

    def pack_shown(self, observation: Observation) -> np.ndarray:
        """`(seed, env, number)` with the next observation only."""
        obs, state = np.asarray(observation.obs), np.asarray(observation.state)
        table = np.zeros((*state.shape[:2], self.width), np.float32)
        table[..., -self.shown :] = np.concatenate([obs.reshape(*state.shape[:2], -1), state], axis=2)
        return table

    def _apart(self, part: Any) -> tuple[Any, Any]:
        obs, state = part[..., : self.obs], part[..., self.obs :]
        return obs.reshape(*obs.shape[:-1], self.agents, self.obs // self.agents), state

    def shown_next(self, table: Any) -> tuple[Any, Any]:
        """The next observation, and its state."""
        return self._apart(table[..., -self.shown :])

    def transition(self, before: Array, action: Array, table: Array) -> Step:
        """From the table of the step before, the actions, and the table that they led to."""
        reward, terminated, truncated = (table[..., self.shown + i] for i in range(3))
        over = terminated > 0, truncated > 0
        return Step(*self.shown_next(before), action, reward, *over, *self._apart(table[..., : self.shown]))

    def info(self, table: Array) -> dict[str, Array]:
        """The env's extra numbers."""
        return {name: table[..., self.shown + 3 + i] for i, name in enumerate(self.info_keys)}


class Trees(NamedTuple):
    """How carries are taken apart.

    Leaves go in and out of programs bare, for Python walks through trees for a good part of a cheap vector step.
    """

    core: Any
    """Of what a seed's programs change, but for the ring."""
    ring: Any
    learner: Any
    shapes: list[Any]
    """Of the learner's leaves, with which those of the core begin."""
    acting: list[int]
    """The leaves of the learner that its behaviour policy is made of."""

    @staticmethod
    def of(algorithm: Algorithm, carry: Carry) -> Trees:
        """For a carry of one seed, given as shapes."""
        shapes, learner = jax.tree.flatten(carry.learner)
        traced = jax.make_jaxpr(algorithm.behaviour_policy)(carry.learner).jaxpr
        read = {id(v) for v in traced.outvars} | {id(v) for eqn in traced.eqns for v in eqn.invars}
        acting = [k for k, v in enumerate(traced.invars) if id(v) in read]
        return Trees(jax.tree.structure(core_of(carry)), jax.tree.structure(carry.ring), learner, shapes, acting)

    def whole(self, leaves: list[Array], ring: list[Array]) -> Carry:
        """A carry without what is on the host."""
        return with_ring(jax.tree.unflatten(self.core, leaves), jax.tree.unflatten(self.ring, ring))

    def bare(self, carry: Carry) -> tuple[list[Array], list[Array]]:
        """And back."""
        return jax.tree.leaves(core_of(carry)), jax.tree.leaves(carry.ring)

    def for_acting(self, leaves: list[Array]) -> Learner:
        """A learner of which only what the policy reads is given; the rest is no part of the compiled program."""
        given = dict(zip(self.acting, leaves, strict=True))
        every = [given[k] if k in given else jnp.zeros(s.shape, s.dtype) for k, s in enumerate(self.shapes)]
        return jax.tree.unflatten(self.learner, every)
