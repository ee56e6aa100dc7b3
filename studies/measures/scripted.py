"""Scripted policies for the particle tasks: reference returns to compare with.

They read the env state, so they are bounds of a kind, not competitors: a learned policy sees less.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from omad.envs.frame_stack import env_state
from omad.envs.particles import MpeState, distance, pursue
from omad.types import EnvSpec, EnvState, JaxEnv

Scripted = Callable[[MpeState, Key[Array, ""]], Float[Array, "agent act"]]
"""(env state, key) -> actions in [-1, 1] of the learning agents."""

_GAINS = {"v3": (8.0, 2.0), "v2": (12.0, 1.5)}
"""Proportional and derivative gains of the controllers, tuned for each order of integration."""


def encode(thrust: Float[Array, "agent 2"], act_dim: int) -> Float[Array, "agent act"]:
    """Actions in [-1, 1] that produce exactly a thrust in [-1, 1]^2, of two or of five numbers."""
    if act_dim == 2:
        return thrust
    pushes = jnp.stack([-thrust, thrust], axis=2).reshape(-1, 4)
    return jnp.pad(pushes, ((0, 0), (1, 0)))


def zero(spec: EnvSpec) -> Scripted:
    """No thrust."""

    def act(world: MpeState, key: Key[Array, ""]) -> Float[Array, "agent act"]:
        del world, key
        return jnp.zeros((spec.n_agents, spec.act_dim))

    return act


def random(spec: EnvSpec) -> Scripted:
    """Uniform in the action box."""

    def act(world: MpeState, key: Key[Array, ""]) -> Float[Array, "agent act"]:
        del world
        return jax.random.uniform(key, (spec.n_agents, spec.act_dim), minval=-1, maxval=1)

    return act


def greedy(spec: EnvSpec) -> Scripted:
    """Every agent steers to the landmark nearest to itself, taken or not, with gains 4 and 1.5."""

    def act(world: MpeState, key: Key[Array, ""]) -> Float[Array, "agent act"]:
        del key
        target = world.landmarks[jnp.argmin(_ranges(world, spec.n_agents), axis=1)]
        return _steer(spec, world, target, 4.0, 1.5)

    return act


def assigned(spec: EnvSpec, dynamics: str = "v3") -> Scripted:
    """The agents cover all landmarks by the shortest total way, recomputed at every step over all assignments."""
    return _matched(spec, dynamics, 0.0)


def cover(spec: EnvSpec, dynamics: str = "v3") -> Scripted:
    """For `deception`: the agent nearest to the goal takes it, the others cover the other landmarks."""
    return _matched(spec, dynamics, 1e3)


def _matched(spec: EnvSpec, dynamics: str, haste: float) -> Scripted:
    """Steer to the landmarks of the cheapest assignment; `haste` is added weight of the way to the goal."""
    n = spec.n_agents
    if n > 7:
        raise ValueError(f"{spec.name}: at most 7 agents can be assigned by trying all orders, not {n}.")
    orders = np.asarray(list(itertools.permutations(range(n))))
    kp, kd = _GAINS[dynamics]

    def act(world: MpeState, key: Key[Array, ""]) -> Float[Array, "agent act"]:
        del key
        weight = 1 + haste * (jnp.arange(n) == world.goal)
        costs = (_ranges(world, n) * weight[None, :])[np.arange(n)[None, :], orders].sum(1)
        target = world.landmarks[jnp.asarray(orders)[jnp.argmin(costs)]]
        return _steer(spec, world, target, kp, kd)

    return act


def scripted_returns(
    env: JaxEnv, policy: Scripted, key: Key[Array, ""], episodes: int = 2000
) -> tuple[Float[Array, " episode"], dict[str, Float[Array, " episode"]]]:
    """Undiscounted returns of a scripted policy, and each episode's sums of the env's per-step numbers."""
    return _rollout(env, policy, episodes, key)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _rollout(
    env: JaxEnv, policy: Scripted, episodes: int, key: Key[Array, ""]
) -> tuple[Float[Array, " episode"], dict[str, Float[Array, " episode"]]]:
    def episode(key: Key[Array, ""]) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        reset_key, steps_key = jax.random.split(key)

        def step(
            state: EnvState, time: Int[Array, ""]
        ) -> tuple[EnvState, tuple[Float[Array, ""], dict[str, Float[Array, ""]]]]:
            act_key, env_key = jax.random.split(jax.random.fold_in(steps_key, time))
            state, outcome = env.step(state, policy(env_state(state), act_key), env_key)
            return state, (outcome.reward, outcome.info)

        _, trace = jax.lax.scan(step, env.reset(reset_key)[0], jnp.arange(env.spec.horizon))
        return jax.tree.map(jnp.sum, trace)

    return jax.vmap(episode)(jax.random.split(key, episodes))


def _steer(
    spec: EnvSpec, world: MpeState, target: Float[Array, "agent 2"], kp: float, kd: float
) -> Float[Array, "agent act"]:
    """Actions of proportional-derivative control; the learning agents are the last bodies."""
    n = spec.n_agents
    return encode(pursue(world.pos[-n:], world.vel[-n:], target, kp, kd), spec.act_dim)


def _ranges(world: MpeState, n_agents: int) -> Float[Array, "agent landmark"]:
    """Distances from the last `n_agents` bodies to the landmarks."""
    return distance(world.landmarks[None, :, :] - world.pos[-n_agents:, None, :])
