"""Networks: linear layers with explicit initialisation, multi-layer perceptrons, the denoisers.

Every network here belongs to *one* agent or *one* critic; stacks of agents and twins are made with `jax.vmap`
over the initialiser and over the call. OMAD's critics are in `omad.critic_nets`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key


class Linear(eqx.Module):
    """x W + b."""

    weight: Float[Array, "*s in out"]
    bias: Float[Array, "*s out"]

    @staticmethod
    def stack(key: Key[Array, ""], sizes: Sequence[tuple[int, int]]) -> list[Linear]:
        """Layers of the given (in, out) sizes: LeCun-normal weights, zero biases. The key is consumed.

        All weights come from one draw: a draw a layer would compile as many kernels, which takes longer than all
        the rest of a network's initialisation.
        """
        counts = [n_in * n_out for n_in, n_out in sizes]
        # A standard normal cut off at two has this standard deviation, which is divided out.
        flat = jax.random.truncated_normal(key, -2.0, 2.0, (sum(counts),)) / 0.87962566
        parts = jnp.split(flat, np.cumsum(counts)[:-1])
        return [
            Linear(part.reshape(n_in, n_out) / math.sqrt(n_in), jnp.zeros(n_out))
            for part, (n_in, n_out) in zip(parts, sizes, strict=True)
        ]

    @staticmethod
    def constant(value: float, n_in: int, n_out: int) -> Linear:
        """A layer whose output starts out as good as zero, yet with a gradient to every weight."""
        return Linear(jnp.full((n_in, n_out), value, float), jnp.zeros(n_out))

    def __call__(self, x: Float[Array, "*b in"]) -> Float[Array, "*b out"]:
        """Apply to the last axis."""
        return x @ self.weight + self.bias


def mish(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """Mish, x tanh(log(1 + e^x)), with one exponential.

    Source: Misra 2020, eq. 1.  Differs: tanh(log(1 + e^x)) is written as n / (n + 2) with n = e^x (e^x + 2), which is
    the same and on a CPU takes a quarter of the time.
    """
    # Beyond 20 the quotient is 1 in single precision; far beyond, e^2x would overflow.
    e = jnp.exp(jnp.minimum(x, 20.0))
    n = e * (e + 2.0)
    return x * (n / (n + 2.0))


_GELU_FAR = 5.1
"""Beyond this the sigmoid is 0 or 1 in single precision."""
_GELU_OVER = (0.39894208, 0.038064451, 0.0037678814, 1.7566691e-4, 4.6114353e-6)
_GELU_UNDER = (1.0, 0.26290015, 0.027914976, 1.5025093e-3, 7.6099889e-5, 4.3965967e-7)
"""(s(x) - 1/2) / x as a quotient of polynomials in x^2, to 5e-8; 3e-7 larger, so that s ends in 0 and 1 exactly."""


def _gelu_sigmoid(x: Float[Array, "*b"]) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """s(x) = (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, and x^2, cut off where s is constant."""
    near = jnp.clip(x, -_GELU_FAR, _GELU_FAR)
    square = near * near
    over, under = (
        functools.reduce(lambda total, c: total * square + c, reversed(row[:-1]), row[-1])
        for row in (_GELU_OVER, _GELU_UNDER)
    )
    return jnp.clip(0.5 + near * over / under, 0.0, 1.0), square


@jax.custom_jvp
def gelu(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """GELU in its tanh approximation, x s(x), to 2e-6 for |x| < 10 and a relative 2e-7 beyond; its slope to 5e-5.

    Source: Hendrycks and Gimpel 2016, section 2.  Differs: s and the slope are computed from one quotient, which on a
    CPU takes half of the time of a hyperbolic tangent and the derivative of the formula.
    """
    return x * _gelu_sigmoid(x)[0]


@gelu.defjvp
def _gelu_slope(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """d/dx x s(x) = s + 2 sqrt(2 / pi) (1 + 3 * 0.044715 x^2) x s (1 - s)."""
    (x,), (along,) = primals, tangents
    s, square = _gelu_sigmoid(x)
    y, scale = x * s, 2.0 * math.sqrt(2.0 / math.pi)
    return y, along * (s + y * (1.0 - s) * (scale + 3.0 * 0.044715 * scale * square))


class Mlp(eqx.Module):
    """Linear layers with an activation between them; the last one is linear."""

    layers: tuple[Linear, ...]
    activation: Callable[[Array], Array] = eqx.field(static=True)

    @staticmethod
    def init(key: Key[Array, ""], sizes: Sequence[int], activation: Callable[[Array], Array] = jax.nn.relu) -> Mlp:
        """Fresh parameters for layers of sizes[0] -> sizes[1] -> ... The key is consumed."""
        return Mlp(tuple(Linear.stack(key, list(itertools.pairwise(sizes)))), activation)

    def __call__(self, x: Float[Array, "*b in"]) -> Float[Array, "*b out"]:
        """Apply to the last axis."""
        return self.rest(self.layers[0](x))

    def rest(self, first: Float[Array, "*b hidden"]) -> Float[Array, "*b out"]:
        """All that follows the first layer, given that layer's output before the activation."""
        x = first
        for layer in self.layers[1:]:
            x = layer(self.activation(x))
        return x


def scale_last_layer(net: Mlp) -> Mlp:
    """The same network with the last layer's weights times 0.01, so that its outputs start out near zero."""
    return eqx.tree_at(lambda n: n.layers[-1].weight, net, 0.01 * net.layers[-1].weight)


def time_features(
    steps: Int[Array, " step"] | Float[Array, " step"], phase: Float[Array, " freq"]
) -> Float[Array, "step features"]:
    """[sin(w k + p), cos(w k + p)] of the raw step index k for fixed frequencies w = linspace(0.1, 100).

    Source: Celik et al. 2025 (DIME), code.
    """
    frequency = jnp.linspace(0.1, 100.0, phase.shape[-1])
    angle = steps[:, None] * frequency[None, :] + phase[None, :]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class Denoiser(eqx.Module):
    """The control u(x, o, k) of one agent.

    The first hidden layer is linear in [x, o, time(k)]; o does not change along the chain, nor time(k) over the batch.
    So the caller projects each once, with `obs_projection` and `time_projection`, and `__call__` takes their sum.

    Source: Celik et al. 2025 (DIME), code: GELU in its tanh approximation; the last layer starts at 1e-8.
    """

    phase: Float[Array, "*s freq"]
    time_in: Linear
    time_out: Linear
    first: Linear
    """Rows in the order [x, o, time]."""
    hidden: tuple[Linear, ...]
    last: Linear

    @staticmethod
    def init(
        key: Key[Array, ""], act: int, obs: int, frequencies: int, time_width: int, width: int, layers: int
    ) -> Denoiser:
        """Fresh parameters. The key is consumed."""
        time = [(2 * frequencies, time_width), (time_width, time_width)]
        main = [(act + obs + time_width, width), *[(width, width)] * (layers - 1)]
        time_in, time_out, first, *hidden = Linear.stack(key, time + main)
        return Denoiser(
            jnp.zeros(frequencies), time_in, time_out, first, tuple(hidden), Linear.constant(1e-8, width, act)
        )

    def obs_projection(self, obs: Float[Array, "*b obs"]) -> Float[Array, "*b hidden"]:
        """What the observation adds to the first layer's output, bias included."""
        act = self.last.bias.shape[-1]
        return obs @ self.first.weight[act : act + obs.shape[-1]] + self.first.bias

    def time_projection(self, steps: Int[Array, " step"]) -> Float[Array, "step hidden"]:
        """What the time embedding adds to the first layer's output, for all steps at once."""
        embedded = self.time_out(gelu(self.time_in(time_features(steps, self.phase))))
        return embedded @ self.first.weight[-embedded.shape[-1] :]

    def __call__(self, x: Float[Array, "*b act"], projections: Float[Array, "*b hidden"]) -> Float[Array, "*b act"]:
        """The control at x, given the sum of the observation's and the time's projection."""
        h = gelu(x @ self.first.weight[: x.shape[-1]] + projections)
        for layer in self.hidden:
            h = gelu(layer(h))
        return self.last(h)


def sinusoidal_features(steps: Int[Array, " step"], size: int) -> Float[Array, "step features"]:
    """[sin(w k), cos(w k)] / sqrt(size) of the raw step index k, frequencies w falling from 1 by powers of 10000.

    Source: Vaswani et al. 2017, section 3.5; scaled as in the code of Ma et al. 2025 (DPMD and SDAC).
    """
    half = size // 2
    angle = steps[:, None] * 10_000.0 ** (-jnp.arange(half) / half)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1) / math.sqrt(size)


class NoiseNet(eqx.Module):
    """The noise eps(x, o, t) that one agent's noised action x_t is taken to hold.

    As in `Denoiser`, the caller projects o and t once.

    Source: Ma et al. 2025 (DPMD and SDAC), code: Mish everywhere; the last layer starts at a hundredth.
    """

    time: Mlp
    main: Mlp
    """First layer: rows in the order [x, o, time]."""

    @staticmethod
    def init(key: Key[Array, ""], act: int, obs: int, time_width: int, width: int, layers: int) -> NoiseNet:
        """Fresh parameters; features of time have `time_width` entries, as their embedding has. The key is consumed."""
        time_key, main_key = jax.random.split(key)
        time = Mlp.init(time_key, [time_width, 2 * time_width, time_width], mish)
        main = Mlp.init(main_key, [act + obs + time_width, *[width] * layers, act], mish)
        return NoiseNet(time, scale_last_layer(main))

    def obs_projection(self, obs: Float[Array, "*b obs"]) -> Float[Array, "*b hidden"]:
        """What the observation adds to the first layer's output, bias included."""
        first, act = self.main.layers[0], self.main.layers[-1].bias.shape[-1]
        return obs @ first.weight[act : act + obs.shape[-1]] + first.bias

    def time_projection(self, steps: Int[Array, " step"]) -> Float[Array, "step hidden"]:
        """What the time embedding adds to the first layer's output, for all steps at once."""
        embedded = self.time(sinusoidal_features(steps, self.time.layers[0].weight.shape[-2]))
        return embedded @ self.main.layers[0].weight[-embedded.shape[-1] :]

    def __call__(self, x: Float[Array, "*b act"], projections: Float[Array, "*b hidden"]) -> Float[Array, "*b act"]:
        """The noise in x, given the sum of the observation's and the time's projection."""
        return self.main.rest(x @ self.main.layers[0].weight[: x.shape[-1]] + projections)
