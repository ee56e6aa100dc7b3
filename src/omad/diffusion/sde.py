"""The controlled diffusion chain of one agent, its path cost, and the entropy bound that follows from it.

Generation starts at the prior x^0 ~ N(0, sigma^2) and takes K Euler-Maruyama steps of an Ornstein-Uhlenbeck
process with a learned control u:

    x^{k+1} = x^k + h_k (-x^k / sigma^2 + u(x^k, o, k)) + sqrt(2 h_k) eps_k,      a = tanh(x^K)

Or each step is the process's own transition over h_k with the control held ("exact"), in which x^k decays by the
factor rho = exp(-h_k / sigma^2): the drift is that of a step of (1 - rho) sigma^2, the noise has variance
sigma^2 (1 - rho^2). Then a chain without control stays in the prior, and its bound is the entropy.

The reference (noising) kernel walks back with the same h_k and without control. The log-ratio of the two, plus the
tanh Jacobian, is the running cost R; the prior's log-density is the terminal cost P; and

    E[R + P | o]  >=  E[log pi(a | o)],      so      -E[R + P | o]  <=  H(pi(. | o)).

Source: Celik et al. 2025 (DIME), sections 3-4; Berner et al. 2024 for the path-space view.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from omad.ops.entropy import tanh_log_det

Kernel = Literal["euler", "exact"]

Control = Callable[[Float[Array, "batch act"], Array], Float[Array, "batch act"]]


class Chain(eqx.Module):
    """The end of a sampled chain and its cost, summed over the real action dimensions."""

    action: Float[Array, "*b act"]
    """tanh of the last point, in [-1, 1]."""
    running: Float[Array, "*b"]
    """R: log-ratio of generation and reference kernels along the path, minus log |d tanh|, in nats."""
    terminal: Float[Array, "*b"]
    """P: log-density of the starting point under the prior, in nats."""

    @property
    def cost(self) -> Float[Array, "*b"]:
        """L = R + P; its negative mean bounds the entropy of the action from below."""
        return self.running + self.terminal


def transition(h: Any, prior_scale: float, kernel: Kernel, xp: Any = jnp) -> tuple[Any, Any]:
    """How far steps h go along the drift, and the standard deviation of their noise; `xp` is JAX's NumPy or NumPy."""
    if kernel == "euler":
        return h, xp.sqrt(2.0 * h)
    rate = h / prior_scale**2
    return -(prior_scale**2) * xp.expm1(-rate), prior_scale * xp.sqrt(-xp.expm1(-2.0 * rate))


def rollout(
    control: Control,
    step_inputs: Array,
    step_size: Float[Array, "step act"],
    prior_scale: float,
    noise: Float[Array, "points batch act"],
    mask: Float[Array, " act"],
    squash: bool = True,
    kernel: Kernel = "euler",
) -> Chain:
    """Run the chain under any control.

    With g = (x^k + x^{k+1}) / sigma^2 - u, the log-ratio of the two Gaussian kernels of a step is, per
    dimension, h g^2 / 4 - sqrt(h / 2) g eps: the quadratic forms written out and cancelled, so nothing is divided
    by h and no large numbers are subtracted. For exact steps it is (q g)^2 / 2 - q g eps, q the way along the drift
    over the noise's standard deviation; with Euler's q = sqrt(h / 2) that is the same.

    Args:
        control: (x, input of this step) -> u.
        step_inputs: One entry a step, passed to the control.
        step_size: h_k.
        prior_scale: sigma.
        noise: Standard normal: K + 1 entries, the first for the prior, then one a step.
        mask: 1 for real action dimensions, 0 for padding, which stays at zero and costs nothing.
        squash: Whether a = tanh(x^K); else a = x^K.
        kernel: Of both directions: a step of Euler-Maruyama, or the process's own transition with the control held.

    Returns:
        Actions and costs.

    Differs: the reference code evaluates two Gaussian log-densities and subtracts them; the value and the
    gradient are the same.
    """
    precision = 1.0 / prior_scale**2

    def step(carry: tuple[Array, Array], inputs: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
        x, cost = carry
        h, step_input, eps = inputs
        u = control(x, step_input) * mask
        pull, jump = transition(h, prior_scale, kernel)
        y = x + pull * (u - precision * x) + jump * eps
        g = precision * (x + y) - u
        if kernel == "euler":
            ratio = 0.25 * h * g * g - jnp.sqrt(0.5 * h) * g * eps
        else:
            q = pull / jump
            ratio = 0.5 * jnp.square(q * g) - q * g * eps
        return (y, cost + jnp.sum(ratio, axis=-1)), None

    # Backward, only the matrix products are kept and the rest is computed again: on a CPU, storing every
    # intermediate of every step costs twice as much time as computing it.
    step = jax.checkpoint(step, policy=jax.checkpoint_policies.dots_saveable)
    noise = noise * mask
    x = prior_scale * noise[0]
    (x, running), _ = jax.lax.scan(step, (x, jnp.zeros(x.shape[:-1])), (step_size, step_inputs, noise[1:]))
    log_normaliser = (0.5 * math.log(2.0 * math.pi) + math.log(prior_scale)) * jnp.sum(mask)
    terminal = -0.5 * jnp.sum(noise[0] ** 2, axis=-1) - log_normaliser
    if not squash:
        return Chain(x, running, terminal)
    return Chain(jnp.tanh(x), running - jnp.sum(tanh_log_det(x) * mask, axis=-1), terminal)
