"""Policies of one agent; stacks of agents are made with `jax.vmap`."""

from __future__ import annotations

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from omad.diffusion.schedule import cosine_squared
from omad.diffusion.sde import Chain, Kernel, rollout
from omad.keys import normal
from omad.nets import Denoiser, Linear, Mlp
from omad.ops.entropy import tanh_log_det

__all__ = [
    "LOG_STD",
    "DiffusionPolicy",
    "GaussianPolicy",
    "Squashed",
    "TanhPolicy",
    "chain",
    "draw_noise",
    "inverse_softplus",
    "squashed",
]

LOG_STD = (-20.0, 2.0)
"""Bounds on the logarithm of a Gaussian policy's standard deviations (Haarnoja et al. 2018, code; HARL)."""


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
    return normal(key, (steps + 1, batch, act))


def chain(
    policy: DiffusionPolicy,
    obs: Float[Array, "batch obs"],
    noise: Float[Array, "points batch act"],
    mask: Float[Array, " act"],
    prior_scale: float,
    control_clip: float,
    kernel: Kernel = "euler",
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

    return rollout(control, shares, policy.step_size(steps), prior_scale, noise, mask, kernel=kernel)


class TanhPolicy(eqx.Module):
    """A deterministic policy of one agent: tanh of a network."""

    net: Mlp

    @staticmethod
    def init(key: Key[Array, ""], obs: int, act: int, width: int, layers: int) -> TanhPolicy:
        """Fresh parameters. The key is consumed."""
        return TanhPolicy(Mlp.init(key, [obs, *[width] * layers, act]))

    def __call__(self, obs: Float[Array, "*b obs"], mask: Float[Array, " act"]) -> Float[Array, "*b act"]:
        """The agent's actions on its own observations; padded dimensions are zero."""
        return jnp.tanh(self.net(obs)) * mask


class GaussianPolicy(eqx.Module):
    """A Gaussian of one agent, squashed by tanh: a trunk, and linear heads for mean and log standard deviation."""

    trunk: Mlp
    mean: Linear
    log_std: Linear
    final: Literal["tanh", "relu"] = eqx.field(static=True)
    """Activation after the last layer of the trunk."""

    @staticmethod
    def init(
        key: Key[Array, ""], obs: int, act: int, width: int, layers: int, final: Literal["tanh", "relu"] = "tanh"
    ) -> GaussianPolicy:
        """Fresh parameters. The key is consumed."""
        sizes = [(obs, width), *[(width, width)] * (layers - 1), (width, act), (width, act)]
        *trunk, mean, log_std = Linear.stack(key, sizes)
        return GaussianPolicy(Mlp(tuple(trunk), jax.nn.relu), mean, log_std, final)

    def __call__(self, obs: Float[Array, "*b obs"]) -> tuple[Float[Array, "*b act"], Float[Array, "*b act"]]:
        """Mean and log standard deviation before the squashing."""
        features = self.trunk(obs)
        features = jnp.tanh(features) if self.final == "tanh" else jax.nn.relu(features)
        return self.mean(features), jnp.clip(self.log_std(features), *LOG_STD)


class Squashed(eqx.Module):
    """Sampled actions of a squashed Gaussian, and how likely they were."""

    action: Float[Array, "*b act"]
    log_prob: Float[Array, "*b"]
    """Log density of the action, in nats summed over real dimensions."""
    std: Float[Array, "*b act"]
    """Standard deviations before the squashing; zero in padded dimensions."""


def squashed(
    policy: GaussianPolicy,
    obs: Float[Array, "*b obs"],
    noise: Float[Array, "*b act"],
    mask: Float[Array, " act"],
) -> Squashed:
    """tanh(mean + std noise) on one agent's own observations, with the density of tanh's argument changed to its own.

    Source: Haarnoja et al. 2018 (SAC), appendix C.
    """
    mean, log_std = policy(obs)
    std = jnp.exp(log_std)
    x = mean + std * noise
    log_prob = -0.5 * jnp.square(noise) - log_std - 0.5 * math.log(2.0 * math.pi) - tanh_log_det(x)
    return Squashed(jnp.tanh(x) * mask, jnp.sum(log_prob * mask, axis=-1), std * mask)
