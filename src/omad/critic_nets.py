"""Networks of OMAD's critics: batch renormalisation, the trunk of CrossQ, and that of XQC.

As in `omad.nets`, a network is *one* critic, and what is carried but not trained (running statistics) is its own
record.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from omad.nets import Linear


class BatchRenorm(eqx.Module):
    """Scale and bias of one batch-renormalisation layer."""

    scale: Float[Array, "*s features"]
    bias: Float[Array, "*s features"]

    @staticmethod
    def init(features: int) -> BatchRenorm:
        """The identity."""
        return BatchRenorm(jnp.ones(features), jnp.zeros(features))


class RenormStats(eqx.Module):
    """Running statistics of one layer: carried, not trained."""

    mean: Float[Array, "*s features"]
    var: Float[Array, "*s features"]
    count: Int[Array, "*s"]
    """Training calls so far."""

    @staticmethod
    def init(features: int) -> RenormStats:
        """Mean 0, variance 1, no training calls yet."""
        return RenormStats(jnp.zeros(features), jnp.ones(features), jnp.zeros((), jnp.int32))


class RenormConfig(eqx.Module):
    """Constants of batch renormalisation."""

    momentum: float = eqx.field(static=True, default=0.99)
    eps: float = eqx.field(static=True, default=1e-3)
    r_max: float = eqx.field(static=True, default=3.0)
    d_max: float = eqx.field(static=True, default=5.0)
    warmup: int = eqx.field(static=True, default=100_000)


def renorm_train(
    layer: BatchRenorm, stats: RenormStats, x: Float[Array, "batch features"], config: RenormConfig
) -> tuple[Float[Array, "batch features"], RenormStats]:
    """Normalise a training batch and update the running statistics.

    Plain batch normalisation for the first `warmup` calls; after that the batch statistics are corrected
    towards the running ones by r and d, through which no gradient flows.

    Source: Ioffe 2017, eq. 3-6, as used by Bhatt et al. 2024 (CrossQ).
    """
    mean, var = x.mean(0), x.var(0)
    std, running_std = jnp.sqrt(var + config.eps), jnp.sqrt(stats.var + config.eps)
    warm = stats.count >= config.warmup
    r = jnp.where(warm, jnp.clip(std / running_std, 1.0 / config.r_max, config.r_max), 1.0)
    d = jnp.where(warm, jnp.clip((mean - stats.mean) / running_std, -config.d_max, config.d_max), 0.0)
    r, d = jax.lax.stop_gradient((r, d))
    # ((x - mean) / std) r + d, then scale and bias, as one multiply and one add over the batch.
    slope = layer.scale * r / std
    y = x * slope + (layer.scale * d + layer.bias - mean * slope)
    new = RenormStats(
        mean=stats.mean + (1.0 - config.momentum) * (jax.lax.stop_gradient(mean) - stats.mean),
        var=stats.var + (1.0 - config.momentum) * (jax.lax.stop_gradient(var) - stats.var),
        count=stats.count + 1,
    )
    return y, new


def renorm_eval(
    layer: BatchRenorm, stats: RenormStats, x: Float[Array, "*b features"], config: RenormConfig
) -> Float[Array, "*b features"]:
    """Normalise with the running statistics, which stay as they are."""
    slope = layer.scale / jnp.sqrt(stats.var + config.eps)
    return x * slope + (layer.bias - stats.mean * slope)


class CriticStats(eqx.Module):
    """Running statistics of one critic, one record a normalisation layer."""

    layers: tuple[RenormStats, ...]


def _features_train(
    self: Critic | XqcCritic, stats: CriticStats, x: Float[Array, "batch in"], config: RenormConfig
) -> tuple[Float[Array, "batch features"], CriticStats]:
    """What the head reads, normalised with the batch's own statistics; and the updated running ones."""
    updated: list[RenormStats] = []

    def normalise(i: int, x: Float[Array, "batch _"]) -> Float[Array, "batch _"]:
        x, new = renorm_train(self.norms[i], stats.layers[i], x, config)
        updated.append(new)
        return x

    x = self.features(normalise, x)
    return x, CriticStats(tuple(updated))


def _evaluate(
    self: Critic | XqcCritic, stats: CriticStats, x: Float[Array, "batch in"], config: RenormConfig
) -> Float[Array, "batch out"]:
    """The head's output under the running statistics."""
    return self.head(self.features(lambda i, x: renorm_eval(self.norms[i], stats.layers[i], x, config), x))


class Critic(eqx.Module):
    """Norm, then (linear, ReLU, norm) x layers, then a linear head: one critic.

    Source: Bhatt et al. 2024 (CrossQ) for the normalised trunk; Celik et al. 2025 (DIME) for its use under a
    categorical head.
    """

    norms: tuple[BatchRenorm, ...]
    hidden: tuple[Linear, ...]
    head: Linear

    @staticmethod
    def init(key: Key[Array, ""], n_in: int, width: int, layers: int, n_out: int) -> tuple[Critic, CriticStats]:
        """Fresh parameters and statistics. The key is consumed."""
        sizes = (n_in, *[width] * layers)
        *hidden, head = Linear.stack(key, list(itertools.pairwise((*sizes, n_out))))
        critic = Critic(tuple(BatchRenorm.init(n) for n in sizes), tuple(hidden), head)
        return critic, CriticStats(tuple(RenormStats.init(n) for n in sizes))

    def features(
        self, normalise: Callable[[int, Float[Array, "batch _"]], Float[Array, "batch _"]], x: Float[Array, "batch in"]
    ) -> Float[Array, "batch features"]:
        """What the head reads, given how layer number i is normalised."""
        x = normalise(0, x)
        for i, layer in enumerate(self.hidden, 1):
            x = normalise(i, jax.nn.relu(layer(x)))
        return x

    features_train = _features_train
    __call__ = _evaluate

    def projected(self) -> Critic:
        """The same: its weights are free."""
        return self


def rms_norm(x: Float[Array, "*b features"]) -> Float[Array, "*b features"]:
    """Each row divided by the root of its mean square. Source: Zhang and Sennrich 2019, eq. 4, without a gain."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


class XqcCritic(eqx.Module):
    """Norm, then (linear, norm, ReLU) x layers, then residual blocks if any, then a linear head: one critic.

    The norm comes before the activation, and every unit's incoming weights have length one, kept so by `projected`
    after each optimiser step. The norm takes out the length of the weights anyway; that it does not grow keeps the
    effective learning rate from falling. Biases before a norm have no effect, so there are none.

    A block adds norm(relu(norm(x A)) B) to x; after the last one each row is divided by its root mean square.

    Source: Palenicek et al. 2025 (XQC, arXiv 2509.25174); blocks and RMSNorm: Kim et al. 2026 (FlashSAC).
    Differs: a block is no wider inside than outside; batch renormalisation as in CrossQ, after its warm-up.
    """

    norms: tuple[BatchRenorm, ...]
    """Of the input, of each hidden layer, of the two layers of each block."""
    weights: tuple[Float[Array, "... _ _"], ...]
    """Hidden layers, then two a block."""
    head: Linear
    blocks: int = eqx.field(static=True)

    @staticmethod
    def init(
        key: Key[Array, ""], n_in: int, width: int, layers: int, n_out: int, blocks: int = 0
    ) -> tuple[XqcCritic, CriticStats]:
        """Fresh parameters and statistics. The key is consumed."""
        sizes = (n_in, *[width] * (layers + 2 * blocks))
        *hidden, head = Linear.stack(key, list(itertools.pairwise((*sizes, n_out))))
        norms = tuple(BatchRenorm.init(n) for n in sizes)
        critic = XqcCritic(norms, tuple(layer.weight for layer in hidden), head, blocks)
        return critic.projected(), CriticStats(tuple(RenormStats.init(n) for n in sizes))

    def features(
        self, normalise: Callable[[int, Float[Array, "batch _"]], Float[Array, "batch _"]], x: Float[Array, "batch in"]
    ) -> Float[Array, "batch features"]:
        """What the head reads, given how layer number i is normalised."""
        layers = len(self.weights) - 2 * self.blocks
        x = normalise(0, x)
        for i in range(layers):
            x = jax.nn.relu(normalise(i + 1, x @ self.weights[i]))
        for i in range(layers, len(self.weights), 2):
            inner = jax.nn.relu(normalise(i + 1, x @ self.weights[i]))
            x = x + normalise(i + 2, inner @ self.weights[i + 1])
        return rms_norm(x) if self.blocks else x

    features_train = _features_train
    __call__ = _evaluate

    def projected(self) -> XqcCritic:
        """The same with every hidden unit's incoming weights at length one."""

        def unit(weight: Float[Array, "... n_in n_out"]) -> Float[Array, "... n_in n_out"]:
            return weight / jnp.maximum(jnp.linalg.norm(weight, axis=-2, keepdims=True), 1e-12)

        return dataclasses.replace(self, weights=tuple(unit(weight) for weight in self.weights))
