"""MASDAC's policy update against its equations, written out here a second time and slowly.

What it shares with MADPMD (critics, acting, cadences, temperature) is tested in `test_madpmd.py`.
"""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from learners import Setup, moment, small_setup
from slow_ddpm import abar, actions, assert_close, critic_loss, draws, noise_network, value, values

from omad.algos.masdac import MasdacConfig
from omad.keys import normal
from omad.tree import at

SAMPLES = 4


@pytest.fixture(scope="module")
def small() -> Setup:
    """MASDAC on the probe whose agents are of unequal size."""
    return small_setup("masdac")


class Drawn:
    """All that an update draws: joint actions at o, what is noised, and the noises that would explain it."""

    def __init__(self, setup: Setup) -> None:
        config, learner, batch, mask = setup.config, setup.learner, setup.batch, setup.spec.act_mask
        draw, step, there, back = jax.random.split(jax.random.split(setup.key)[1], 4)
        self.action = actions(setup, learner.actors, batch.obs, draws(setup, draw), 0.05)
        self.step = jax.random.randint(step, self.action.shape[:2], 0, config.denoising_steps)
        self.kept = jnp.asarray(abar(config)[1], jnp.float32)[self.step][..., None]
        noise = normal(there, self.action.shape) * mask
        self.noisy = jnp.sqrt(self.kept) * self.action + jnp.sqrt(1 - self.kept) * noise
        self.noise = normal(back, (*self.action.shape[:2], SAMPLES, 2)) * mask[:, None]

    def weight(self, setup: Setup) -> Any:
        """Softmax of (5 / alpha) min Q(s, ahat_m, others as drawn), with the critics after their step."""
        rows = []
        for i in range(setup.spec.n_agents):
            q = []
            for m in range(SAMPLES):
                noise_std = jnp.sqrt(1 - self.kept[:, i])
                own = jnp.clip((self.noisy[:, i] - noise_std * self.noise[:, i, m]) / jnp.sqrt(self.kept[:, i]), -1, 1)
                joint = self.action.at[:, i].set(own)
                q.append(values(setup.plain[0].critics, setup.batch.obs, joint).min(0))
            score = 5.0 / setup.config.alpha_init * jnp.stack(q, -1)
            rows.append(jnp.exp(score) / jnp.exp(score).sum(-1, keepdims=True))
        return jnp.stack(rows, 1)


def regression(actor: Any, i: int, setup: Setup, drawn: Drawn, weight: Any) -> Any:
    """mean[ sum_m w_m |eps_theta_i(x_i, o_i, t_i) - eps_m|^2 ] of one agent, one network call a reconstruction."""
    loss = 0.0
    for m in range(SAMPLES):
        predicted = noise_network(actor, drawn.noisy[:, i], setup.batch.obs[:, i], drawn.step[:, i])
        error = jnp.sum(((predicted - drawn.noise[:, i, m]) * setup.spec.act_mask[i]) ** 2, -1)
        loss = loss + weight[:, i, m] * error
    return jnp.mean(loss)


def test_every_agent_regresses_on_its_own_reconstructions(small: Setup) -> None:
    """Loss, weights and each agent's gradient, from its own network alone, are what the update reports and Adam saw."""
    drawn = Drawn(small)
    weight = drawn.weight(small)
    after, metrics = small.acting
    np.testing.assert_allclose(weight.sum(-1), 1.0, atol=1e-6)
    pairs = [
        jax.jit(jax.value_and_grad(lambda a, i=i: regression(a, i, small, drawn, weight)))(at(small.learner.actors, i))
        for i in (0, 1)
    ]
    assert value(metrics, "policy/loss") == pytest.approx(float(sum(loss for loss, _ in pairs)), rel=1e-4)
    expected = jax.tree.map(lambda *rows: 0.1 * jnp.stack(rows), *(grads for _, grads in pairs))
    assert_close(moment(after.actor_opt, expected), expected, 1e-3)
    share = float((weight.sum(-1) ** 2 / (SAMPLES * (weight**2).sum(-1))).mean())
    assert share < 0.995  # they tell reconstructions apart
    assert value(metrics, "policy/ess_fraction") == pytest.approx(share, rel=1e-4)
    fresh = values(small.plain[0].critics, small.batch.obs, drawn.action).min(0)
    assert value(metrics, "policy/q") == pytest.approx(float(fresh.mean()) / 0.2, rel=1e-3)


def test_critic_step_is_that_of_madpmd(small: Setup) -> None:
    """The same target and gradient; one optimiser step; the policy update leaves critics alone."""
    learner, (after, metrics) = small.learner, small.plain
    action = actions(small, learner.actors, small.batch.next_obs, draws(small, jax.random.split(small.key)[0]), 0.05)
    loss = critic_loss(learner.critics, small, learner, action)
    assert value(metrics, "critic/loss") == pytest.approx(float(loss), rel=1e-4)
    assert optax.tree.get(after.critic_opt, "ScaleByAdamState").count.tolist() == [1, 1]
    assert eqx.tree_equal((after.critics, after.critic_opt), (small.acting[0].critics, small.acting[0].critic_opt))
    assert learner.value_stats is None


def test_policies_and_their_copies_move_only_with_a_policy_update(small: Setup) -> None:
    """And then the copies follow by a tenth, the rate asked for."""
    for field in ("actors", "actors_target", "critics_target", "actor_opt"):
        assert eqx.tree_equal(getattr(small.plain[0], field), getattr(small.learner, field)), field
    after = small.acting[0]
    mixed = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, small.learner.actors_target, after.actors)
    assert_close(after.actors_target, mixed, 1e-5)
    assert eqx.tree_equal(small.algorithm.policy(after).net, after.actors_target)


@pytest.mark.parametrize(
    ("field", "wrong"), [("reconstructions", 1), ("weight_scale", 0.0), ("weight_scale", math.nan), ("tau", 0.0)]
)
def test_what_cannot_work_is_refused_by_name(field: str, wrong: Any) -> None:
    """The message names the field and what was given."""
    with pytest.raises(ValueError, match=f"{field}.*{wrong}"):
        MasdacConfig(**{field: wrong})


def test_defaults_are_the_published_ones() -> None:
    """Ma et al. 2025, code; the rest is shared and tested with MADPMD."""
    c = MasdacConfig()
    assert (c.reconstructions, c.weight_scale, c.denoising_steps, c.actor_every) == (64, 5.0, 20, 2)
