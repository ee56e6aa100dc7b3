"""A JAX env as a host env: each instance is stepped alone, by the same keys. Probes are offered in both forms."""

from __future__ import annotations

import dataclasses
import pkgutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from omad.envs.host_env import HostEnv, HostObservation, StepResult
from omad.types import JaxEnv, Observation


def _key(seed: int) -> Any:
    return jax.random.wrap_key_data(jnp.asarray(np.asarray([seed], np.uint64).view(np.uint32)))


def _seen(observation: Observation) -> HostObservation:
    return HostObservation(np.asarray(observation.obs), np.asarray(observation.state))


class JaxInstance:
    """One running JAX env; a seed is the bits of the key that the fused loop would give it."""

    def __init__(self, env: JaxEnv) -> None:
        self.env = env
        self._reset, self._step = jax.jit(env.reset), jax.jit(env.step)
        self._state: Any = jax.eval_shape(env.reset, _key(0))[0]

    def reset(self, seed: int) -> HostObservation:
        """As the env resets from the key."""
        self._state, observation = self._reset(_key(seed))
        return _seen(observation)

    def step(self, action: np.ndarray, seed: int) -> StepResult:
        """As the env steps with the key."""
        self._state, outcome = self._step(self._state, jnp.asarray(action, float), _key(seed))
        return StepResult(
            _seen(outcome.next), float(outcome.reward), bool(outcome.terminated), bool(outcome.truncated),
            {name: float(value) for name, value in outcome.info.items()},
        )  # fmt: skip

    def save(self) -> np.ndarray:
        """All leaves of the env state, one after another."""
        leaves = [np.asarray(leaf).ravel().view(np.uint8) for leaf in jax.tree.leaves(self._state)]
        return np.concatenate(leaves)

    def load(self, data: np.ndarray) -> None:
        """Go on from there."""
        leaves, rest = [], data.tobytes()
        for like in jax.tree.leaves(self._state):
            size = like.size * like.dtype.itemsize
            leaves.append(jnp.asarray(np.frombuffer(rest[:size], like.dtype).reshape(like.shape)))
            rest = rest[size:]
        self._state = jax.tree.unflatten(jax.tree.structure(self._state), leaves)

    def render(self) -> np.ndarray:
        """Not offered: the JAX form has pictures of its own.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("the JAX form of this env is the one that is drawn")

    def close(self) -> None:
        """Nothing is open."""


def make(factory: str, arguments: dict[str, Any]) -> HostEnv:
    """The host form of a JAX env of the table of tasks."""
    env: JaxEnv = pkgutil.resolve_name(factory)(**arguments)
    spec = env.spec
    return HostEnv(dataclasses.replace(spec, name=f"{spec.name}?host=true"), lambda render: JaxInstance(env))
