"""Rewards divided by the size of discounted returns, the same for every algorithm and task.

Each parallel env keeps its running discounted return, G <- gamma G + r, which is reset with each episode. Rewards of
a batch are divided by

    max( standard deviation of G,  max |G| / bound ),

both over all env steps so far, those of demonstrations included, as if they had come first. G looks back and values
look ahead, so these keep to [-bound, bound] up to a factor of about 1.5 where an episode's rewards fall off; neither
the support of a value distribution nor the temperature hangs on the units of a task's reward. Dividing the sum of an
n-step return is the same as dividing its rewards. Values, losses and the temperature are then in these units; reported
returns are not.

Source: Lee et al. 2025 (SimbaV2, arXiv 2502.15280), section 4.3, with bound 5; used alike by FlashSAC (2026).
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from omad.standardise import STILL_COUNTS
from omad.types import Batch

SCALE = "train/reward_scale"
"""What rewards are divided by."""


class ReturnStats(eqx.Module):
    """Running statistics of discounted returns: carried, not trained."""

    running: Float[Array, "*s env"]
    """Discounted return of each env's episode so far."""
    count: Float[Array, "*s"]
    mean: Float[Array, "*s"]
    variance: Float[Array, "*s"]
    highest: Float[Array, "*s"]
    """Largest |G| so far."""
    gamma: float = eqx.field(static=True)
    bound: float = eqx.field(static=True)

    @staticmethod
    def none(n_envs: int, gamma: float, bound: float) -> ReturnStats:
        """Nothing seen yet: nothing is divided."""
        zero = jnp.zeros(())
        return ReturnStats(jnp.zeros(n_envs), zero, zero, jnp.ones(()), zero, gamma, bound)

    def after(self, reward: np.ndarray, over: np.ndarray) -> ReturnStats:
        """After episodes that were recorded elsewhere, one behind the other: `(transition,)`, `(transition,)`."""
        returns, running = np.empty(len(reward)), 0.0
        for t, (gained, ends) in enumerate(zip(reward.tolist(), over.tolist(), strict=True)):
            running = returns[t] = self.gamma * running + gained
            running = 0.0 if ends else running
        count, mean, variance, highest = len(returns), returns.mean(), returns.var(), np.abs(returns).max()
        numbers = {"count": count, "mean": mean, "variance": variance, "highest": highest}
        return dataclasses.replace(self, **{name: jnp.float32(number) for name, number in numbers.items()})

    def merged(self, other: ReturnStats) -> ReturnStats:
        """With all that `other` has seen; the episodes that go on are these."""
        total, step = self.count + other.count, other.mean - self.mean
        part = other.count / jnp.maximum(total, 1.0)
        return dataclasses.replace(
            self,
            count=total,
            mean=self.mean + step * part,
            variance=(1 - part) * self.variance + part * other.variance + (1 - part) * part * step**2,
            highest=jnp.maximum(self.highest, other.highest),
        )

    def seen(self, reward: Float[Array, " env"], over: Bool[Array, " env"]) -> ReturnStats:
        """With one more step of every env; `over` says whose episode ended with it.

        Source: Chan, Golub, LeVeque 1983, eq. 2.1 (merging two samples).
        """
        returns = self.gamma * self.running + reward
        n = returns.shape[0]
        count = jnp.minimum(self.count, n * STILL_COUNTS)
        total = count + n
        step = returns.mean() - self.mean
        variance = (count * self.variance + n * returns.var() + step**2 * count * n / total) / total
        return dataclasses.replace(
            self,
            running=jnp.where(over, 0.0, returns),
            count=total,
            mean=self.mean + step * n / total,
            variance=variance,
            highest=jnp.maximum(self.highest, jnp.abs(returns).max()),
        )

    def scale(self) -> Float[Array, ""]:
        """What rewards are divided by."""
        return jnp.maximum(jnp.sqrt(self.variance + 1e-8), self.highest / self.bound)

    def normalised(self, batch: Batch) -> Batch:
        """The batch with its rewards divided."""
        return dataclasses.replace(batch, ret=batch.ret / self.scale())

    def where(self, real: Bool[Array, ""], old: ReturnStats) -> ReturnStats:
        """These where `real`, else the old ones."""
        return jax.tree.map(lambda new, kept: jnp.where(real, new, kept), self, old)
