"""MADPMD's update against its equations, written out here a second time and slowly; and what MASDAC shares with it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from learners import Setup, batch_for, moment, small_setup
from slow_ddpm import (
    abar,
    actions,
    assert_close,
    constant_critics,
    critic_loss,
    draws,
    noise_network,
    value,
    values,
)

from omad.algos.denoising import DenoisingConfig, actor_rate, excess_entropy, make_diffusion_learner
from omad.algos.madpmd import MadpmdConfig, critic_optimiser, make, twice
from omad.config import resolve
from omad.diffusion import ddpm
from omad.errors import UserError
from omad.keys import normal
from omad.ops import weights
from omad.tree import at
from omad.types import EnvSpec


@pytest.fixture(scope="module")
def small() -> Setup:
    """MADPMD on the probe whose agents are of unequal size."""
    return small_setup("madpmd")


def next_actions(setup: Setup) -> Any:
    """The joint actions a' of the update, from the online actors."""
    learner, key = setup.learner, jax.random.split(setup.key)[0]
    noise_std = setup.config.noise_scale * setup.config.alpha_init
    return actions(setup, learner.actors, setup.batch.next_obs, draws(setup, key), noise_std)


# ---------------------------------------------------------------- critics


def test_critic_loss_and_gradient(small: Setup) -> None:
    """Scaled rewards, lower target, online actors with noise: loss, Adam's first moment and the size of its step."""
    learner, (after, metrics) = small.learner, small.plain
    action = next_actions(small)
    loss, grads = jax.jit(jax.value_and_grad(lambda c: critic_loss(c, small, learner, action)))(learner.critics)
    assert value(metrics, "critic/loss") == pytest.approx(float(loss), rel=1e-4)
    assert_close(moment(after.critic_opt, grads), jax.tree.map(lambda g: 0.1 * g, grads), 1e-3)
    moved = jax.tree.map(lambda new, old: jnp.abs(new - old).max(), after.critics, learner.critics)
    assert max(float(leaf) for leaf in jax.tree.leaves(moved)) == pytest.approx(3e-4, rel=1e-3)
    q = values(learner.critics, small.batch.obs, small.batch.action)
    assert value(metrics, "critic/q") == pytest.approx(float(q.mean()) / 0.2, rel=1e-4)


def test_target_by_hand(small: Setup) -> None:
    """Target critics say 3 and 5, critics 1 and 2, rewards are 10: 0.2 x 10 + 0.9 x 3 = 4.7, without an entropy bonus.

    A termination leaves 2. So the losses are 3.7^2 + 2.7^2 = 20.98 and 1 + 0 = 1.
    """
    learner = dataclasses.replace(
        small.learner,
        critics=constant_critics(small.learner.critics, 1.0, 2.0),
        critics_target=constant_critics(small.learner.critics_target, 3.0, 5.0),
    )
    for discount, target, loss in ((0.9, 4.7, 20.98), (0.0, 2.0, 1.0)):
        given = dataclasses.replace(
            small.batch,
            ret=jnp.full_like(small.batch.ret, 10.0),
            discount=jnp.full_like(small.batch.discount, discount),
        )
        _, metrics = small.update(learner, given, small.key, jnp.asarray(1))
        assert value(metrics, "critic/target") == pytest.approx(target / 0.2, rel=1e-6)
        assert value(metrics, "critic/loss") == pytest.approx(loss, rel=1e-5)


def test_twice_is_two_steps_with_one_gradient() -> None:
    """The reference's double step: parameters and both counters as after two calls."""
    params, grads, tx = {"w": jnp.asarray([1.0, -2.0])}, {"w": jnp.asarray([0.3, 5.0])}, optax.adam(0.1)
    double = twice(tx)
    updates, state = double.update(grads, double.init(params), params)
    expected, kept = params, tx.init(params)
    for _ in range(2):
        step, kept = tx.update(grads, kept)
        expected = optax.apply_updates(expected, step)
    assert_close(optax.apply_updates(params, updates), expected, 1e-6)
    assert int(optax.tree.get(state, "count")) == 2
    assert_close(optax.tree.get(state, "nu"), optax.tree.get(kept, "nu"), 1e-6)


# ---------------------------------------------------------------- policies


def regression(actors: Any, setup: Setup, action: Any, weight: Any) -> Any:
    """mean[ w sum_i |eps_theta_i(x_i, o'_i, t_i) - eps_i|^2 ] with the update's own draws."""
    step_key, noise_key = jax.random.split(jax.random.split(setup.key)[1])
    step = jax.random.randint(step_key, action.shape[:2], 0, setup.config.denoising_steps)
    noise = normal(noise_key, action.shape) * setup.spec.act_mask
    kept = jnp.asarray(abar(setup.config)[1], jnp.float32)[step][..., None]
    noisy = jnp.sqrt(kept) * action + jnp.sqrt(1 - kept) * noise
    error = 0.0
    for i in range(setup.spec.n_agents):
        predicted = noise_network(at(actors, i), noisy[:, i], setup.batch.next_obs[:, i], step[:, i])
        error = error + jnp.sum(((predicted - noise[:, i]) * setup.spec.act_mask[i]) ** 2, -1)
    return jnp.mean(weight * error)


def weight_of(setup: Setup, learner: Any, action: Any, bracket: bool = True) -> Any:
    """exp(clip((q - mean) / std, -3, 3) / alpha) with the critics after their step."""
    q = values(setup.plain[0].critics, setup.batch.next_obs, action).min(0)
    mean, std = learner.value_stats.mean, learner.value_stats.std
    score = (q - mean) / std if bracket else q - mean / std
    return jnp.exp(jnp.clip(score, -3, 3) / setup.config.alpha_init)


def with_value_stats(setup: Setup, mean: float, std: float) -> Any:
    stats = dataclasses.replace(setup.learner.value_stats, mean=jnp.asarray(mean, float), std=jnp.asarray(std, float))
    return dataclasses.replace(setup.learner, value_stats=stats)


def test_every_agent_regresses_on_its_own_part_of_the_joint_action(small: Setup) -> None:
    """Each agent's gradient with the others' parameters fixed, all under one weight, is what Adam saw."""
    learner = with_value_stats(small, 0.1, 0.05)
    after, metrics = small.update(learner, small.batch, small.key, jnp.asarray(small.due))
    action = next_actions(small)
    weight = weight_of(small, learner, action)
    assert float(weight.max() / weight.min()) > 2  # they tell actions apart
    loss = jax.jit(lambda actors: regression(actors, small, action, weight))

    def alone(mine: Any, i: int) -> Any:
        joint = jax.tree.map(lambda rows, one: jax.lax.stop_gradient(rows).at[i].set(one), learner.actors, mine)
        return regression(joint, small, action, weight)

    grads = [jax.jit(jax.grad(lambda m, i=i: alone(m, i)))(at(learner.actors, i)) for i in (0, 1)]
    expected = jax.tree.map(lambda *rows: 0.1 * jnp.stack(rows), *grads)
    assert_close(moment(after.actor_opt, expected), expected, 1e-3)
    assert value(metrics, "policy/loss") == pytest.approx(float(loss(learner.actors)), rel=1e-4)
    share = float(weight.sum() ** 2 / (16 * (weight**2).sum()))
    assert value(metrics, "policy/ess_fraction") == pytest.approx(share, rel=1e-4)


def test_value_statistics_follow_slowly(small: Setup) -> None:
    """A thousandth of the batch's mean and standard deviation at every gradient step, and only after they were used."""
    q = values(small.plain[0].critics, small.batch.next_obs, next_actions(small)).min(0)
    for after, _ in (small.plain, small.acting):
        assert float(after.value_stats.mean) == pytest.approx(0.001 * float(q.mean()), rel=1e-3)
        assert float(after.value_stats.std) == pytest.approx(0.999 + 0.001 * float(q.std()), rel=1e-6)


def test_a_policy_update_moves_no_critic_and_its_absence_no_policy(small: Setup) -> None:
    """Critics are bit for bit those of an update without one; without one, all that is slow stands still."""
    plain, acting = small.plain[0], small.acting[0]
    assert eqx.tree_equal((plain.critics, plain.critic_opt), (acting.critics, acting.critic_opt))
    slow = ("actors", "actors_target", "critics_target", "actor_opt", "log_alpha", "alpha_opt")
    for field in slow:
        assert eqx.tree_equal(getattr(plain, field), getattr(small.learner, field)), field
    for field in slow[:4]:
        assert not eqx.tree_equal(getattr(acting, field), getattr(small.learner, field)), field


def test_polyak_copies_follow_actors_and_critics(small: Setup) -> None:
    """(1 - tau) old + tau new, after the steps of the same update."""
    before, after = small.learner, small.acting[0]
    mix = lambda old, new: jax.tree.map(lambda o, n: 0.9 * o + 0.1 * n, old, new)  # noqa: E731
    assert_close(after.actors_target, mix(before.actors_target, after.actors), 1e-5)
    assert_close(after.critics_target, mix(before.critics_target, after.critics), 1e-5)


def test_acting_is_one_chain_an_agent_of_the_polyak_copies(small: Setup) -> None:
    """Plus noise of alpha / 10; without exploration the chain from zero, and nothing added."""
    policy = small.algorithm.policy(small.learner)
    assert eqx.tree_equal(policy.net, small.learner.actors_target)
    np.testing.assert_allclose(policy.noise_std, [0.05, 0.05], rtol=1e-6)
    act = jax.jit(small.algorithm.act, static_argnums=3)
    noise = draws(small, small.key)
    alone = actions(small, small.learner.actors_target, small.batch.obs, noise, 0.05)
    np.testing.assert_allclose(act(policy, small.batch.obs, small.key, True), alone, atol=2e-5)
    still = actions(small, small.learner.actors_target, small.batch.obs, [jnp.zeros_like(n) for n in noise], 0.05)
    np.testing.assert_allclose(act(policy, small.batch.obs, small.key, False), still, atol=2e-5)


# ---------------------------------------------------------------- the reference's defects


@pytest.fixture(scope="module")
def reference(small: Setup) -> Any:
    """`update` of the same learner with both defects."""
    config = dataclasses.replace(small.config, reference_weights=True, reference_double_step=True)
    return jax.jit(make(config, small.spec).update)


def test_defects_are_back_behind_their_flags(small: Setup, reference: Any) -> None:
    """The missing bracket changes the weights, the double step the critics; by default neither is there."""
    assert not (MadpmdConfig().reference_weights or MadpmdConfig().reference_double_step)
    learner = with_value_stats(small, 0.1, 0.05)
    after, metrics = reference(learner, small.batch, small.key, jnp.asarray(small.due))
    assert optax.tree.get(after.critic_opt, "ScaleByAdamState").count.tolist() == [2, 2]
    moved = jax.tree.map(lambda new, old: jnp.abs(new - old).max(), after.critics, learner.critics)
    assert max(float(leaf) for leaf in jax.tree.leaves(moved)) == pytest.approx(6e-4, rel=0.01)
    # q - 0.1 / 0.05 is far below zero for all of these values.
    q = values(after.critics, small.batch.next_obs, next_actions(small)).min(0)
    weight = jnp.exp(jnp.clip(q - 2.0, -3, 3) / 0.5)
    share = float(weight.sum() ** 2 / (16 * (weight**2).sum()))
    assert value(metrics, "policy/ess_fraction") == pytest.approx(share, rel=1e-4)
    fixed = small.update(learner, small.batch, small.key, jnp.asarray(small.due))[1]
    assert value(fixed, "policy/ess_fraction") < 0.95 * share


# ---------------------------------------------------------------- temperature and step sizes


def test_temperature_settles_where_the_noise_has_its_entropy() -> None:
    """At alpha = 10 exp(-0.9) / sqrt(2 pi e) = 0.98378 the slope is zero; it is positive above, negative below."""
    config = DenoisingConfig()
    fixed = 10 * math.exp(-0.9) / math.sqrt(2 * math.pi * math.e)
    assert fixed == pytest.approx(0.98378, abs=5e-6)
    slope = lambda alpha: float(excess_entropy(jnp.log(jnp.asarray(alpha, float)), config))  # noqa: E731
    assert slope(fixed) == pytest.approx(0.0, abs=1e-5)
    assert slope(5.0) == pytest.approx(math.log(5.0 / fixed), abs=1e-5)
    assert slope(0.5) < 0


def test_temperature_moves_by_its_own_cadence(small: Setup) -> None:
    """From 0.5 upwards by one Adam step at every second count, whether policies are updated or not."""
    for count, change in ((1, 0.0), (2, 7e-3), (3, 0.0), (4, 7e-3)):
        after, _ = small.update(small.learner, small.batch, small.key, jnp.asarray(count))
        assert float(after.log_alpha - small.learner.log_alpha) == pytest.approx(change, rel=1e-3)


def test_step_size_of_the_actors_falls_late() -> None:
    """3e-4 for 25k policy updates, 3e-5 from 75k on, half way at 50k; constant where asked."""
    rate: Any = actor_rate(DenoisingConfig())
    for count, size in ((0, 3e-4), (25_000, 3e-4), (50_000, 1.65e-4), (75_000, 3e-5), (500_000, 3e-5)):
        assert float(rate(count)) == pytest.approx(size, rel=1e-4)
    assert actor_rate(DenoisingConfig(actor_decay_steps=0)) == 3e-4


# ---------------------------------------------------------------- best of several, in training only


def test_target_samples_picks_the_joint_action_of_highest_lower_value(small: Setup) -> None:
    """Of the same candidates, row by row; and acting knows nothing of it."""
    one, four = (
        make_diffusion_learner(
            dataclasses.replace(small.config, target_samples=n, noise_scale=1e-6), small.spec, optax.adam(1.0)
        )
        for n in (1, 4)
    )
    obs, state, learner = small.batch.obs, small.batch.state, small.learner
    draw = jax.jit(lambda key: one.sample_actions(learner, obs, state, key))
    candidates = jnp.stack([draw(key) for key in jax.random.split(jax.random.key(3), 4)])
    worth = jnp.stack([values(learner.critics, obs, action).min(0) for action in candidates])
    best = jnp.argmax(worth, 0)
    assert len(np.unique(best)) > 1
    chosen = jax.jit(lambda key: four.sample_actions(learner, obs, state, key))(jax.random.key(3))
    np.testing.assert_allclose(chosen, candidates[best, jnp.arange(16)], atol=1e-4)
    assert (values(learner.critics, obs, chosen).min(0) >= worth.max(0) - 1e-4).all()
    policy = one.policy(learner)
    acts = [jax.jit(p.act, static_argnums=3)(policy, obs, small.key, True) for p in (one, four)]
    np.testing.assert_array_equal(*acts)


# ---------------------------------------------------------------- configuration


def test_defaults_are_the_published_ones() -> None:
    """Ma et al. 2025, code; but one sample."""
    c = MadpmdConfig()
    assert (c.denoising_steps, c.prior_scale, c.beta_scale, c.time_width) == (20, 0.5, 0.8, 16)
    assert (c.actor_width, c.actor_layers, c.critic_width, c.critic_layers) == (256, 3, 256, 3)
    assert (c.actor_lr, c.actor_lr_end, c.actor_decay_begin, c.actor_decay_steps) == (3e-4, 3e-5, 25_000, 50_000)
    assert (c.critic_lr, c.gamma, c.tau, c.actor_every, c.reward_scale) == (3e-4, 0.99, 0.005, 2, 0.2)
    assert (c.alpha_init, c.alpha_lr, c.alpha_every, c.target_entropy_per_dim) == (5.0, 7e-3, 250, -0.9)
    assert (c.noise_scale, c.target_samples, c.score_limit, c.moments_rate) == (0.1, 1, 3.0, 0.001)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("denoising_steps", 0), ("actor_layers", 0), ("time_width", 0), ("time_width", 7), ("target_samples", 0),
        ("alpha_every", 0), ("actor_decay_steps", -1), ("prior_scale", 0.0), ("reward_scale", -1.0),
        ("alpha_init", 0.0), ("beta_scale", 1.5), ("gamma", 0.0), ("tau", 2.0), ("noise_scale", -0.1),
        ("noise_scale", 0.0), ("target_entropy_per_dim", math.nan), ("actor_lr_end", math.inf), ("score_limit", 0.0),
        ("moments_rate", 0.0),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_by_name(field: str, wrong: Any) -> None:
    """The message names the field and what was given."""
    with pytest.raises(ValueError, match=f"{field}.*{wrong}"):
        MadpmdConfig(**{field: wrong})


def test_a_temperature_whose_weights_are_no_numbers_is_refused() -> None:
    """Of a new run; one that was begun can still be read."""
    for alpha in (0.01, 0.0375):
        assert bool(MadpmdConfig(alpha_init=alpha).hopeless) == (alpha < 0.03)
        highest = weights.mirror_descent(jnp.float32(1e9), jnp.float32(0), jnp.float32(1), jnp.float32(alpha))
        assert bool(jnp.isfinite(highest)) == (alpha > 0.03)
    with pytest.raises(UserError, match=r"alpha_init is 0.01 and score_limit 3; .*at least 0.0375"):
        resolve("probe/push", "madpmd", "tiny", alpha_init=0.01)


@pytest.mark.parametrize("algorithm", ["madpmd", "masdac"])
def test_schedules_by_which_no_chain_gets_anywhere_are_refused(algorithm: str) -> None:
    """Of a new run; and what is let through gives numbers, and another action where the network says another noise."""
    for steps, scale, words in ((1000, 0.8, "Lower"), (300, 0.8, "Lower"), (1, 0.8, "Raise"), (20, 1e-3, "Raise")):
        with pytest.raises(UserError, match=rf"denoising_steps is {steps} and beta_scale {scale:g}.* {words}"):
            resolve("probe/push", algorithm, "tiny", denoising_steps=steps, beta_scale=scale)
    for steps in (2, 200):
        schedule = ddpm.linear_schedule(steps, resolve("probe/push", algorithm, denoising_steps=steps).algo.beta_scale)
        noise, mask = normal(jax.random.key(0), (steps, 64, 1)), jnp.ones(1)
        found = [
            ddpm.sample(lambda x, _, share=share: share * x, jnp.arange(steps), schedule, noise, mask)
            for share in (0.0, 1.0)
        ]
        assert all(bool(jnp.isfinite(one).all()) for one in found) and float(jnp.abs(found[0] - found[1]).mean()) > 0.2
    with pytest.raises(UserError, match=r"alpha, by target_entropy_per_dim and noise_scale, is 0.0328"):
        resolve("probe/push", "madpmd", "tiny", noise_scale=3.0)


def test_the_critics_step_sizes_fall_over_gradient_steps_however_often_each_is_applied() -> None:
    """A doubled step of Adam moves parameters twice as far at the same rate, at the end of the fall as well."""
    moved = []
    for doubled in (False, True):
        config = MadpmdConfig(critic_decay_steps=10, reference_double_step=doubled)
        optimiser = critic_optimiser(config)
        parameter, state = jnp.zeros(()), optimiser.init(jnp.zeros(()))
        sizes: list[Any] = []
        for _ in range(6):  # in which the rate falls to 0.55 of its beginning
            update, state = optimiser.update(jnp.ones(()), state, parameter)
            sizes.append(update)
        moved.append(np.array(sizes))
    np.testing.assert_allclose(moved[1] / moved[0], 2.0, rtol=0.06)


@pytest.mark.parametrize("field", ["alpha_mode", "critic_input"])
def test_unknown_choices_are_refused(field: str) -> None:
    """Also where nothing checks types at run time, as in production."""
    config = MadpmdConfig()
    object.__setattr__(config, field, "typo")
    with pytest.raises(ValueError, match=f"{field}.*typo"):
        config.__post_init__()


def test_critics_read_the_state_where_there_is_one() -> None:
    """By default; all observations on request; a state that is not there is refused."""
    spec = EnvSpec("t", (3, 2), (1, 2), 5, 9)
    sizes = {
        name: make_diffusion_learner(MadpmdConfig(critic_input=name), spec, optax.adam(1.0)).critic_input.size
        for name in ("auto", "state", "obs")
    }
    assert sizes == {"auto": 5 + 4, "state": 5 + 4, "obs": 6 + 4}
    batch = batch_for(spec, size=2)
    rows = make_diffusion_learner(MadpmdConfig(), spec, optax.adam(1.0)).critic_input(
        batch.obs, batch.state, batch.action
    )
    np.testing.assert_array_equal(rows, jnp.concatenate([batch.state, batch.action.reshape(2, 4)], -1))
    with pytest.raises(ValueError, match="critic_input"):
        make(MadpmdConfig(critic_input="state"), EnvSpec("t", (1,), (1,), 0, 1))
