"""Policies of one agent, and how each draws actions; stacks of agents are made with `jax.vmap`.

Every sampler reads the agent's own observations and nothing of other agents: decentralised execution is visible in its
signature.
"""

from __future__ import annotations

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from omad.diffusion import ddpm
from omad.diffusion.schedule import cosine_squared
from omad.diffusion.sde import Chain, Kernel, rollout
from omad.keys import normal
from omad.nets import Denoiser, Linear, Mlp, NoiseNet
from omad.ops.entropy import tanh_log_det


def draw_noise(key: Key[Array, ""], steps: int, batch: int, act: int) -> Float[Array, "points batch act"]:
    """The `steps` + 1 standard normal draws of `batch` chains of one agent. The key is consumed."""
    return normal(key, (steps + 1, batch, act))


def agent_noise(
    key: Key[Array, ""], n_agents: int, steps: int, batch: int, act: int
) -> Float[Array, "agent points batch act"]:
    """The draws of every agent's chains, under a key each. The key is consumed."""
    return jax.vmap(lambda k: draw_noise(k, steps, batch, act))(jax.random.split(key, n_agents))


# ---------------------------------------------------------------- OMAD: a controlled diffusion


def inverse_softplus(value: float) -> float:
    """The x for which softplus(x) = value > 0."""
    return value + math.log(-math.expm1(-value))


class DiffusionPolicy(eqx.Module):
    """A controlled diffusion of one agent: its denoiser and its learnable step sizes."""

    denoiser: Denoiser
    raw_scale: Float[Array, "*s"]
    """delta; softplus of it scales all steps."""
    raw_friction: Float[Array, "*s act"]
    """phi; softplus of it divides the steps of each action dimension."""

    @staticmethod
    def init(denoiser: Denoiser, step_init: float, friction_init: float) -> DiffusionPolicy:
        """Around a fresh denoiser, with softplus(delta) = `step_init` and softplus(phi) = `friction_init`."""
        friction = jnp.full(denoiser.last.bias.shape[-1], inverse_softplus(friction_init), float)
        return DiffusionPolicy(denoiser, jnp.asarray(inverse_softplus(step_init), float), friction)

    def step_size(self, steps: int) -> Float[Array, "step act"]:
        """h_k = softplus(delta) c_k / softplus(phi)."""
        schedule = jnp.asarray(cosine_squared(steps), self.raw_scale.dtype)
        return schedule[:, None] * (jax.nn.softplus(self.raw_scale) / jax.nn.softplus(self.raw_friction))

    def with_frozen_steps(self) -> DiffusionPolicy:
        """The same policy, without a gradient to its step sizes."""
        frozen = jax.lax.stop_gradient((self.raw_scale, self.raw_friction))
        return eqx.tree_at(lambda policy: (policy.raw_scale, policy.raw_friction), self, frozen)


def sample_chain(
    policy: DiffusionPolicy,
    obs: Float[Array, "batch obs"],
    noise: Float[Array, "points batch act"],
    mask: Float[Array, " act"],
    prior_scale: float,
    control_clip: float,
    kernel: Kernel = "euler",
) -> Chain:
    """Actions of a controlled diffusion and what they cost, from K + 1 standard normal draws (`draw_noise`).

    The observation's and the time's part of the denoiser's first layer are computed once, not once a step.
    """
    steps = noise.shape[0] - 1
    from_obs = policy.denoiser.obs_projection(obs)
    from_time = policy.denoiser.time_projection(jnp.arange(steps))

    def control(x: Float[Array, "batch act"], time: Float[Array, " hidden"]) -> Float[Array, "batch act"]:
        return jnp.clip(policy.denoiser(x, from_obs + time[None, :]), -control_clip, control_clip)

    return rollout(control, from_time, policy.step_size(steps), prior_scale, noise, mask, kernel=kernel)


# ---------------------------------------------------------------- MADPMD, MASDAC: a denoising diffusion model


class DdpmPolicy(eqx.Module):
    """A denoising diffusion model of one agent, and the size of its exploration noise."""

    net: NoiseNet
    noise_std: Float[Array, "*s"]
    """Standard deviation of the Gaussian that is added to actions when exploring."""


def sample_ddpm(
    net: NoiseNet,
    obs: Float[Array, "batch obs"],
    noise: Float[Array, "step batch act"],
    mask: Float[Array, " act"],
    schedule: ddpm.Schedule,
    prior_scale: float,
) -> Float[Array, "batch act"]:
    """Actions of a denoising diffusion model in [-1, 1], from T standard normal draws; no exploration noise is added.

    The observation's and the time's part of the network's first layer are computed once, not once a step.
    """
    from_obs = net.obs_projection(obs)
    from_time = net.time_projection(jnp.arange(schedule.steps))
    return ddpm.sample(lambda x, time: net(x, from_obs + time), from_time, schedule, noise, mask, prior_scale)


# ---------------------------------------------------------------- HATD3: a deterministic policy


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


# ---------------------------------------------------------------- HASAC: a squashed Gaussian

LOG_STD = (-20.0, 2.0)
"""Bounds on the logarithm of a Gaussian policy's standard deviations (Haarnoja et al. 2018, code; HARL)."""


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


class GaussianSample(eqx.Module):
    """Sampled actions of a squashed Gaussian, and how likely they were."""

    action: Float[Array, "*b act"]
    log_prob: Float[Array, "*b"]
    """Log density of the action, in nats summed over real dimensions."""
    std: Float[Array, "*b act"]
    """Standard deviations before the squashing; zero in padded dimensions."""


def sample_gaussian(
    policy: GaussianPolicy,
    obs: Float[Array, "*b obs"],
    noise: Float[Array, "*b act"],
    mask: Float[Array, " act"],
) -> GaussianSample:
    """tanh(mean + std noise) on one agent's own observations, and its log density.

    Source: Haarnoja et al. 2018 (SAC), appendix C.
    """
    mean, log_std = policy(obs)
    std = jnp.exp(log_std)
    x = mean + std * noise
    log_prob = -0.5 * jnp.square(noise) - log_std - 0.5 * math.log(2.0 * math.pi) - tanh_log_det(x)
    return GaussianSample(jnp.tanh(x) * mask, jnp.sum(log_prob * mask, axis=-1), std * mask)
