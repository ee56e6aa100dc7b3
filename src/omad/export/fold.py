"""Policies reduced to what acting needs: a few tables of numbers of one agent, in one form for all algorithms.

Time features do not depend on the observation, so what they add to the first layer is a table with a row a step.
Padding of unequal agents is cut away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from omad.diffusion import ddpm
from omad.diffusion.sde import transition
from omad.errors import UserError
from omad.keys import normal
from omad.nets import Linear
from omad.policies import LOG_STD, DdpmPolicy, DiffusionPolicy, GaussianPolicy, TanhPolicy
from omad.spec import ObsNorm
from omad.standardise import Standardised
from omad.tree import at
from omad.types import EnvSpec

Kind = Literal["chain", "ddpm", "gaussian", "deterministic", "distilled"]


class Folded(NamedTuple):
    """One agent's policy."""

    kind: Kind
    settings: dict[str, Any]
    """Plain numbers and names."""
    tensors: dict[str, np.ndarray]
    """Single precision. Every kind has `obs.weight`, `time` (first-layer biases, a row a step), `hidden.I.weight`,
    `hidden.I.bias`, `last.weight`, `last.bias`; those that denoise an action have `x.weight` as well. A chain's `step`
    is the way along the drift; its `jump` is the standard deviation of the noise, where that is not sqrt(2 step)."""
    noise_rows: int
    """Rows of standard normal noise that an action reads; zeros make it noise-free."""
    normaliser: ObsNorm

    @property
    def obs_dim(self) -> int:
        """Entries of an observation, frames stacked."""
        return self.tensors["obs.weight"].shape[0]

    @property
    def act_dim(self) -> int:
        """Entries of an action."""
        size = self.tensors["last.bias"].shape[0]
        return size // 2 if self.kind == "gaussian" else size

    @property
    def steps(self) -> int:
        """Evaluations of the network for one action."""
        return self.tensors["time"].shape[0]


def unscaled(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """From a box back to [-1, 1], in double precision: wide bounds must not overflow."""
    low, high = low.astype(float), high.astype(float)
    return (2 * action.astype(float) - low - high) / (high - low)


@jax.jit
def _time_projection(net: Any, steps: Int[Array, " step"]) -> Float[Array, "step hidden"]:
    """Compiled, as acting is: angles of fast features are large, so rounding them otherwise shows in actions."""
    return net.time_projection(steps)


def _array(x: Any) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(x, np.float32))


def _stack(hidden: Sequence[Linear], last: Linear, act: int) -> dict[str, np.ndarray]:
    """Layers after the first one."""
    tensors = {}
    for i, layer in enumerate(hidden):
        tensors |= {f"hidden.{i}.weight": _array(layer.weight), f"hidden.{i}.bias": _array(layer.bias)}
    return tensors | {"last.weight": _array(last.weight[:, :act]), "last.bias": _array(last.bias[:act])}


def _denoising(first: Linear, time: Any, sizes: tuple[int, int, int]) -> dict[str, np.ndarray]:
    """The first layer of a network that reads [x, observation, time]."""
    padded, obs, act = sizes
    weight = first.weight
    return {
        "x.weight": _array(weight[:act]),
        "obs.weight": _array(weight[padded : padded + obs]),
        "time": _array(time + first.bias),
    }


def _chain(policy: DiffusionPolicy, config: Any, obs: int, act: int, steps: int) -> Folded:
    """OMAD's reverse SDE.

    With fewer steps, each stands for several: its length is their sum, and its control that of the first.
    """
    net, trained = policy.denoiser, config.denoising_steps
    groups = np.array_split(np.arange(trained), steps)
    length = np.asarray(policy.step_size(trained), np.float64)[:, :act]
    time = _time_projection(net, jnp.arange(trained))[np.asarray([group[0] for group in groups])]
    length = np.stack([length[group].sum(0) for group in groups])
    pull, jump = transition(length, config.prior_scale, config.chain_kernel, np)
    tensors = {"step": _array(pull)} | ({} if config.chain_kernel == "euler" else {"jump": _array(jump)})
    tensors |= _denoising(net.first, time, (policy.raw_friction.shape[-1], obs, act))
    tensors |= _stack(net.hidden, net.last, act)
    settings = {
        "activations": ["gelu"] * (len(net.hidden) + 1),
        "steps": steps,
        "trained_steps": trained,
        "prior_scale": float(config.prior_scale),
        "control_clip": float(config.control_clip),
        "squash": "tanh",
    }
    return Folded("chain", settings, tensors, steps + 1, "none")


def _ddpm(policy: DdpmPolicy, config: Any, obs: int, act: int, steps: int) -> Folded:
    """A denoising diffusion model. With fewer steps, noise levels are left out between the highest and the lowest.

    Source: Nichol and Dhariwal 2021, section 4 (strided sampling).
    """
    net, trained = policy.net, config.denoising_steps
    schedule = ddpm.linear_schedule(trained, config.beta_scale)
    kept = np.linspace(0, trained - 1, steps).round().astype(int) if steps > 1 else np.asarray([trained - 1])
    layers = net.main.layers
    padded = layers[-1].bias.shape[-1]
    tensors = {"coefficients": _array(np.stack(ddpm.schedule_of(schedule.alpha_bar[kept])[2:], 1))}
    tensors |= _denoising(layers[0], _time_projection(net, jnp.arange(trained))[kept], (padded, obs, act))
    tensors |= _stack(layers[1:-1], layers[-1], act)
    settings = {
        "activations": ["mish"] * (len(layers) - 1),
        "steps": steps,
        "trained_steps": trained,
        "prior_scale": float(config.prior_scale),
        "squash": "clip",
        "explore_std": float(policy.noise_std),
    }
    return Folded("ddpm", settings, tensors, steps + 1, "none")


def _gaussian(policy: GaussianPolicy, obs: int, act: int) -> Folded:
    """A squashed Gaussian; one last layer gives mean and log standard deviation."""
    first, *hidden = policy.trunk.layers
    heads = [(np.asarray(h.weight)[:, :act], np.asarray(h.bias)[:act]) for h in (policy.mean, policy.log_std)]
    last = Linear(*(jnp.asarray(np.concatenate(part, -1)) for part in zip(*heads, strict=True)))
    tensors = {"obs.weight": _array(first.weight[:obs]), "time": _array(first.bias[None])}
    settings = {
        "activations": [*["relu"] * len(hidden), policy.final],
        "log_std_low": LOG_STD[0],
        "log_std_high": LOG_STD[1],
    }
    return Folded("gaussian", settings, tensors | _stack(hidden, last, 2 * act), 1, "none")


def _deterministic(policy: TanhPolicy, config: Any, obs: int, act: int) -> Folded:
    """Tanh of a network, and noise on it when exploring."""
    first, *hidden, last = policy.net.layers
    tensors = {"obs.weight": _array(first.weight[:obs]), "time": _array(first.bias[None])}
    settings = {"activations": ["relu"] * (len(hidden) + 1), "explore_std": float(config.explore_noise)}
    return Folded("deterministic", settings, tensors | _stack(hidden, last, act), 1, "none")


def fold(policies: Any, config: Any, spec: EnvSpec, obs_norm: ObsNorm, steps: int | None = None) -> list[Folded]:
    """Every agent's policy.

    Args:
        policies: What `Algorithm.policy` gives, of one seed: leaves have a leading agent axis.
        config: Hyperparameters of the algorithm.
        spec: Sizes of the task.
        obs_norm: How observations are standardised.
        steps: Denoising steps of an action; by default those that it was trained with.

    Raises:
        UserError: The policies are of an unknown kind, or cannot have that many steps.
    """
    stats = policies.obs if isinstance(policies, Standardised) else None
    inner = jax.device_get(policies.inner if isinstance(policies, Standardised) else policies)
    trained = getattr(config, "denoising_steps", 1)
    if steps is not None and not 1 <= steps <= trained:
        raise UserError(f"{steps} denoising steps were asked for, but the policy has {trained}; give 1 to {trained}.")
    folded = []
    for i, (obs, act) in enumerate(zip(spec.obs_dims, spec.act_dims, strict=True)):
        one = at(inner, i)
        if isinstance(one, DiffusionPolicy):
            found = _chain(one, config, obs, act, steps or trained)
        elif isinstance(one, DdpmPolicy):
            found = _ddpm(one, config, obs, act, steps or trained)
        elif isinstance(one, GaussianPolicy):
            found = _gaussian(one, obs, act)
        elif isinstance(one, TanhPolicy):
            found = _deterministic(one, config, obs, act)
        else:
            raise UserError(
                f"Policies of the kind {type(one).__name__} cannot be exported; those of omad's own algorithms can."
            )
        found = found._replace(normaliser=obs_norm)
        if stats is not None:
            norm = {"norm.mean": stats.mean, "norm.std": jnp.sqrt(stats.variance + 1e-6)}
            shape = (spec.n_agents, spec.obs_dim)
            found.tensors.update({name: _array(rows.reshape(shape)[i, :obs]) for name, rows in norm.items()})
        folded.append(found)
    return folded


# ---------------------------------------------------------------- the same in JAX, for training and evaluating


def draw_noise(
    one: Folded, agents: int, padded: int, batch: int, key: Key[Array, ""]
) -> Float[Array, "agent batch row act"]:
    """The noise that the algorithm's own `act` draws from a key, in its order. The key is consumed."""
    if one.noise_rows == 1:
        return jnp.moveaxis(normal(key, (batch, agents, padded)), 1, 0)[:, :, None]
    keys = jax.random.split(key, agents)
    drawn = jax.vmap(lambda k: normal(k, (one.noise_rows, batch, padded)))(keys)
    return jnp.moveaxis(drawn, 1, 2)


_ACTIVATIONS: dict[str, Any] = {
    "gelu": jax.nn.gelu, "relu": jax.nn.relu, "tanh": jnp.tanh, "mish": jax.nn.mish,
}  # fmt: skip


def normalised(one: Folded, tensors: dict[str, Any], obs: Float[Array, "*b obs"]) -> Float[Array, "*b obs"]:
    """What the network sees of an observation."""
    if one.normaliser == "running":
        return jnp.clip((obs - tensors["norm.mean"]) / tensors["norm.std"], -10.0, 10.0)
    if one.normaliser == "harl":
        obs = obs - obs.mean(-1, keepdims=True)
        return obs / jnp.maximum(jnp.sqrt((obs * obs).mean(-1, keepdims=True)), 1e-6)
    return obs


def sample(
    one: Folded, tensors: dict[str, Any], obs: Float[Array, "*b obs"], noise: Float[Array, "*b row act"]
) -> Float[Array, "*b act"]:
    """Actions in [-1, 1].

    Args:
        one: Kind and settings of the policy.
        tensors: Its numbers, which may be traced.
        obs: Observations, frames stacked.
        noise: Standard normal, or zeros.
    """
    return squashed(one, unsquashed(one, tensors, obs, noise), noise)


def squashed(one: Folded, x: Float[Array, "*b act"], noise: Float[Array, "*b row act"]) -> Float[Array, "*b act"]:
    """From what `unsquashed` gives to an action in [-1, 1]."""
    if one.kind == "deterministic":
        x = jnp.tanh(x)
    elif one.settings.get("squash", "tanh") == "tanh":
        return jnp.tanh(x)
    return jnp.clip(jnp.clip(x, -1.0, 1.0) + one.settings["explore_std"] * noise[..., -1, :], -1.0, 1.0)


def unsquashed(
    one: Folded, tensors: dict[str, Any], obs: Float[Array, "*b obs"], noise: Float[Array, "*b row act"]
) -> Float[Array, "*b act"]:
    """The same before it is squashed into [-1, 1]."""
    t, s, act = tensors, one.settings, one.act_dim
    seen = normalised(one, t, obs) @ t["obs.weight"]

    def net(x: Any) -> Any:
        names = [*(f"hidden.{i}" for i in range(len(s["activations"]) - 1)), "last"]
        for activation, name in zip(s["activations"], names, strict=True):
            x = _ACTIVATIONS[activation](x) @ t[f"{name}.weight"] + t[f"{name}.bias"]
        return x

    if one.kind == "gaussian":
        out = net(seen + t["time"][0])
        log_std = jnp.clip(out[..., act:], s["log_std_low"], s["log_std_high"])
        return out[..., :act] + jnp.exp(log_std) * noise[..., 0, :]
    if one.kind == "deterministic":
        return net(seen + t["time"][0])
    x = s["prior_scale"] * noise[..., 0, :]
    if one.kind == "chain":
        for k in range(one.steps):
            h = t["step"][k]
            jump = t["jump"][k] if "jump" in t else jnp.sqrt(2.0 * h)
            u = jnp.clip(net(x @ t["x.weight"] + seen + t["time"][k]), -s["control_clip"], s["control_clip"])
            x = x + h * (u - x / s["prior_scale"] ** 2) + jump * noise[..., k + 1, :]
    elif one.kind == "ddpm":
        for k in reversed(range(one.steps)):
            from_x, from_noise, mean_x0, mean_x, std = t["coefficients"][k]
            x0 = from_x * x - from_noise * net(x @ t["x.weight"] + seen + t["time"][k])
            x = mean_x0 * jnp.clip(x0, -1.0, 1.0) + mean_x * x + std * noise[..., k, :]
    else:
        group = s["group"]
        for k in range(one.steps):
            rows = noise[..., 1 + k * group : 1 + (k + 1) * group, :]
            read = jnp.concatenate([x, rows.reshape(*rows.shape[:-2], -1)], -1) @ t["x.weight"]
            x = x + net(read + seen + t["time"][k])
    return x
