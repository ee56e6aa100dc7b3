"""Games of one step with several equally good joint actions: how many does a team keep, and does it agree on one?

Every agent picks a point of the square [-1, 1]^2; four points are good, the corners of a smaller square. All agents
see the same two random numbers, which mean nothing for the reward, but which agents may use to agree.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from omad.envs.probe import ProbeState, probe_env
from omad.tasks import GAME_MODES
from omad.types import JaxEnv

WIDTH = 0.3
"""Divisor of squared distances, as in the probe `relay`."""


def islands(n_agents: int = 2) -> JaxEnv:
    """Every agent should be at any of the good points; 4^N joint actions are equally good.

    Reward: the mean over agents of exp(-d^2 / 0.3), with d the distance to the nearest good point. Keeping all points
    costs nothing, so a policy that seeks entropy should keep them. At the mean of the points: 0.09.
    """

    def reward(near: Float[Array, "agent mode"]) -> Float[Array, ""]:
        return near.max(1).mean()

    return _game("islands", n_agents, reward)


def meeting(n_agents: int = 2) -> JaxEnv:
    """All agents should be at the same good point; 4 joint actions are equally good.

    Reward: the best over good points of the product over agents of exp(-d^2 / 0.3), with d the distance to that
    point. Agents that act alone keep more than one point only at the price of missing each other, unless they let the
    numbers that all see choose.
    """

    def reward(near: Float[Array, "agent mode"]) -> Float[Array, ""]:
        return near.prod(0).max()

    return _game("meeting", n_agents, reward)


def _game(kind: str, n_agents: int, reward_of: Callable[[Array], Array]) -> JaxEnv:
    points = jnp.asarray(GAME_MODES)

    def sample_hint(key: Key[Array, ""]) -> Float[Array, "agent obs"]:
        return jnp.tile(jax.random.uniform(key, (1, 2), minval=-1.0), (n_agents, 1))

    def reward(state: ProbeState, action: Float[Array, "agent act"]) -> Float[Array, ""]:
        del state
        return reward_of(jnp.exp(-jnp.square(action[:, None] - points).sum(-1) / WIDTH))

    return probe_env(f"games/{kind}-{n_agents}", (2,) * n_agents, sample_hint=sample_hint, reward=reward)
