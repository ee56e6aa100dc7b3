"""The world of the particle tasks: bodies that are pushed, slow down, and may repel each other.

The numbers are those of `mpe2`: positions in world units, one step is 0.1 s, every mass is 1.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

DT = 0.1
DAMPING = 0.25
THRUST = 5.0
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
AGENT_RADIUS = 0.15


class MpeState(eqx.Module):
    """The env state of both tasks."""

    pos: Float[Array, "*b body 2"]
    """Positions of the agents; in `deception` row 0 is the adversary."""
    vel: Float[Array, "*b body 2"]
    """Velocities, units/s."""
    landmarks: Float[Array, "*b landmark 2"]
    goal: Int[Array, "*b"]
    """Index of the goal landmark; always 0 in `spread`, where it means nothing."""
    time: Int[Array, "*b"]
    """Steps done in this episode."""


def distance(delta: Float[Array, "*b 2"]) -> Float[Array, "*b"]:
    """Euclidean length with gradient 0, not infinity, at length 0."""
    square = jnp.sum(jnp.square(delta), -1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def thrust_of(action: Float[Array, "*b act"]) -> Float[Array, "*b 2"]:
    """Thrust in [-1, 1]^2 from the five numbers (nothing, left, right, down, up).

    Two numbers are the thrust already. The difference is taken in float32, since the actions of `mpe2` are
    float32.
    """
    if action.shape[-1] == 2:
        return action
    single = action.astype(jnp.float32)
    return (single[..., 2::2] - single[..., 1::2]).astype(action.dtype)


def contact_force(pos: Float[Array, "body 2"], radius: float) -> Float[Array, "body 2"]:
    """Sum of the soft repulsions on each of some equal discs, in units of force (mass is 1)."""
    delta = pos[:, None, :] - pos[None, :, :]
    gap = distance(delta)
    depth = CONTACT_MARGIN * jnp.logaddexp(0.0, -(gap - 2 * radius) / CONTACT_MARGIN)
    # Delta is 0 on the diagonal, so that no disc repels itself; there the divisor must only not be 0.
    return CONTACT_FORCE * jnp.sum(delta * (depth / jnp.where(gap > 0, gap, 1))[..., None], 1)


def move(
    world: MpeState, thrust: Float[Array, "body 2"], *, radius: float | None = None, dynamics: str = "v3"
) -> MpeState:
    """One step of physics.

    Args:
        world: the state before the step.
        thrust: in [-1, 1]^2, five units of force at 1.
        radius: of the discs that repel each other; None where bodies pass through each other.
        dynamics: `v3` moves the bodies by their old velocity, `v2` by their new one.
    """
    force = THRUST * thrust
    if radius is not None:
        force = force + contact_force(world.pos, radius)
    vel = (1 - DAMPING) * world.vel + DT * force
    pos = world.pos + DT * (world.vel if dynamics == "v3" else vel)
    return MpeState(pos, vel, world.landmarks, world.goal, world.time + 1)


def pursue(
    pos: Float[Array, "*b 2"],
    vel: Float[Array, "*b 2"],
    target: Float[Array, "*b 2"],
    kp: float = 8.0,
    kd: float = 2.0,
) -> Float[Array, "*b 2"]:
    """Thrust of a proportional-derivative controller; its default gains suit `v3` dynamics."""
    return jnp.clip(kp * (target - pos) - kd * vel, -1, 1)


def others_from_each(pos: Float[Array, "body 2"]) -> Float[Array, "body other_2"]:
    """Positions of all other bodies relative to each body, flattened in the bodies' order."""
    n = pos.shape[0]
    delta = (pos[None, :, :] - pos[:, None, :]).reshape(n * n, 2)
    # Rows of the flat matrix off its diagonal: drop entry 0, then every (n+1)th.
    return delta[1:].reshape(n - 1, n + 1, 2)[:, :-1].reshape(n, 2 * (n - 1))


def points_from_each(points: Float[Array, "point 2"], pos: Float[Array, "body 2"]) -> Float[Array, "body point_2"]:
    """Positions of all points relative to each body, flattened."""
    return (points[None, :, :] - pos[:, None, :]).reshape(pos.shape[0], -1)
