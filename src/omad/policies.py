"""Policies of one agent; stacks of agents are made with `jax.vmap`."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from omad.diffusion.schedule import cosine_squared
from omad.diffusion.sde import Chain, rollout
from omad.nets import Denoiser

__all__ = ["DiffusionPolicy", "chain", "draw_noise", "inverse_softplus"]


def inverse_softplus(value: float) -> float:
    """The x for which softplus(x) = value > 0."""
    return value + math.log(-math.expm1(-value))


class DiffusionPolicy(eqx.Module):
    """What one agent needs to act: its denoiser and its learnable step sizes."""

    denoiser: Denoiser
    raw_scale: Float[Array, "*s"]
    """delta; softplus of it scales all steps."""
    raw_friction: Float[Array, "*s act"]
    """phi; softplus of it divides the steps of each action dimension."""

    def step_size(self, steps: int) -> Float[Array, "step act"]:
        """h_k = softplus(delta) c_k / softplus(phi)."""
        schedule = jnp.asarray(cosine_squared(steps), self.raw_scale.dtype)
        return schedule[:, None] * (jax.nn.softplus(self.raw_scale) / jax.nn.softplus(self.raw_friction))


def draw_noise(key: Key[Array, ""], steps: int, batch: int, act: int) -> Float[Array, "points batch act"]:
    """The K + 1 standard normal draws of `batch` chains. The key is consumed."""
    return jax.random.normal(key, (steps + 1, batch, act))


def chain(
    policy: DiffusionPolicy,
    obs: Float[Array, "batch obs"],
    noise: Float[Array, "points batch act"],
    mask: Float[Array, " act"],
    prior_scale: float,
    control_clip: float,
) -> Chain:
    """Sample one agent's actions on its own observations.

    Nothing of other agents comes in: decentralised execution is visible in the signature. The observation's
    and the time's share of the denoiser's first layer are computed once, not once a step.
    """
    steps = noise.shape[0] - 1
    seen = policy.denoiser.observation_share(obs)
    shares = policy.denoiser.time_share(jnp.arange(steps))

    def control(x: Float[Array, "batch act"], share: Float[Array, " hidden"]) -> Float[Array, "batch act"]:
        return jnp.clip(policy.denoiser(x, seen + share[None, :]), -control_clip, control_clip)

    return rollout(control, shares, policy.step_size(steps), prior_scale, noise, mask)
