"""OMAD's update against its equations, written out here a second time and slowly."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from learners import SMALL, Setup, moment, ordinary, set_up

from omad.algos.omad import OmadConfig, OmadState, make
from omad.critic_nets import RenormConfig
from omad.envs import probe
from omad.errors import UserError
from omad.ops import categorical
from omad.policies import DiffusionPolicy, draw_noise, sample_chain
from omad.tree import at
from omad.types import EnvSpec

CLIP = SMALL.actor_clip


def value(metrics: Any, name: str) -> float:
    assert float(metrics[name].weight) == 1.0, name
    return float(metrics[name].total)


def noise_of(setup: Setup, key: Any) -> list[Any]:
    """Each agent's own draws."""
    keys = jax.random.split(key, setup.spec.n_agents)
    return [draw_noise(k, setup.config.denoising_steps, setup.batch.ret.shape[0], setup.spec.act_dim) for k in keys]


@jax.jit
def one_agent(actor: Any, obs: Any, noise: Any, mask: Any) -> Any:
    return sample_chain(actor, obs, noise, mask, 2.5, 1e4)


def agents_alone(setup: Setup, actors: Any, obs: Any, noise: Any) -> tuple[Any, Any, Any]:
    """Actions (batch, agent, act), R and P (batch, agent), one single-agent chain after the other."""
    mask = jnp.asarray(setup.spec.act_mask, obs.dtype)
    outs = [one_agent(at(actors, i), obs[:, i], noise[i], mask[i]) for i in range(setup.spec.n_agents)]
    actions, running, terminal = ([getattr(out, f) for out in outs] for f in ("action", "running", "terminal"))
    return jnp.stack(actions, 1), jnp.stack(running, 1), jnp.stack(terminal, 1)


def critic_rows(setup: Setup, obs: Any, state: Any, action: Any) -> Any:
    seen = state if setup.spec.state_dim and setup.config.critic_input != "obs" else obs.reshape(obs.shape[0], -1)
    return jnp.concatenate([seen, action.reshape(action.shape[0], -1)], -1)


def batch_norm_critic(critic: Any, x: Any) -> Any:
    """Probabilities in training mode during warm-up: plain batch normalisation over all rows of x."""

    def norm(layer: Any, x: Any) -> Any:
        return (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-3) * layer.scale + layer.bias

    x = norm(critic.norms[0], x)
    for layer, after in zip(critic.hidden, critic.norms[1:], strict=True):
        x = norm(after, jax.nn.relu(x @ layer.weight + layer.bias))
    return jax.nn.softmax(x @ critic.head.weight + critic.head.bias)


def lower(values: list[Any], v_max: float) -> Any:
    """Row by row, whether the first twin's distribution has the lower expectation."""
    first, second = (p @ categorical.support(v_max, p.shape[-1]) for p in values)
    return first <= second


def target_values(learner: OmadState, x: Any) -> list[Any]:
    """Both target critics' probabilities, under their running statistics."""
    assert learner.critics_target is not None
    critics, stats = learner.critics_target
    return [jax.nn.softmax(at(critics, c)(at(stats, c), x, RenormConfig())) for c in (0, 1)]


def critic_objective(critics: Any, setup: Setup, learner: OmadState, key: Any) -> Any:
    """Sum over twins of CE(target, p) + 0.005 sum p log p.

    The target is the mean of both projected ones, or the lower twin's; on the joint pass of CrossQ, or of the target
    critics under their own statistics.
    """
    batch, size = setup.batch, setup.batch.ret.shape[0]
    next_key, _ = jax.random.split(key)
    action, running, terminal = agents_alone(setup, learner.actors, batch.next_obs, noise_of(setup, next_key))
    path_cost = (jnp.exp(learner.temperature.log_alpha) * (running + terminal)).sum(1)
    rows = critic_rows(setup, batch.obs, batch.state, batch.action)
    next_rows = critic_rows(setup, batch.next_obs, batch.next_state, action)
    if learner.critics_target is None:
        probs = [batch_norm_critic(at(critics, c), jnp.concatenate([rows, next_rows])) for c in (0, 1)]
        next_probs = [p[size:] for p in probs]
    else:
        probs = [batch_norm_critic(at(critics, c), rows) for c in (0, 1)]
        next_probs = target_values(learner, next_rows)
    shift = batch.ret - batch.discount * path_cost
    goals = [categorical.project(p, shift, batch.discount, setup.config.v_max) for p in next_probs]
    if setup.config.critic_reduce == "min":
        goal = jnp.where(lower(next_probs, setup.config.v_max)[:, None], *goals)
    else:
        goal = 0.5 * (goals[0] + goals[1])
    goal = jax.lax.stop_gradient(goal)
    loss = 0.0
    for p in probs:
        log_p = jnp.log(p[:size] + 1e-15)
        loss += jnp.mean(-(goal * log_p).sum(-1) + 0.005 * (p[:size] * log_p).sum(-1))
    return loss


def actor_objective(actors: Any, setup: Setup, critics: Any, stats: Any, log_alpha: Any, noise: Any) -> Any:
    """mean[ -(Q1 + Q2) / 2 + alpha sum_i (R_i + P_i) ], critics under running statistics."""
    batch = setup.batch
    action, running, terminal = agents_alone(setup, actors, batch.obs.astype(log_alpha.dtype), noise)
    x = critic_rows(setup, batch.obs, batch.state, action)
    z = jnp.linspace(-setup.config.v_max, setup.config.v_max, setup.config.atoms)
    q = sum(
        jax.nn.softmax(at(critics, c)(at(stats, c), x, RenormConfig())) @ z for c in (0, 1)
    ) / 2  # fmt: skip
    return jnp.mean(jnp.exp(log_alpha[0]) * (running + terminal).sum(1) - q)


def assert_close(tree: Any, other: Any, tolerance: float) -> None:
    """Leaf by leaf, relative to the largest entry of all leaves' own largest."""
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * max(float(jnp.abs(b).max()), 1e-3))


@pytest.fixture(scope="module")
def actor_gradient(small: Setup) -> Any:
    """Each agent's gradient with the others fixed at their old parameters, stacked."""
    learner, after = small.learner, small.acting[0]
    noise = noise_of(small, jax.random.split(small.key)[1])

    @jax.jit
    def slope(actors: DiffusionPolicy) -> Any:
        def alone(mine: Any, i: int) -> Any:
            others = jax.lax.stop_gradient(actors)
            joint = jax.tree.map(lambda all_, one: all_.at[i].set(one), others, mine)
            log_alpha = learner.temperature.log_alpha
            return actor_objective(joint, small, after.critics, after.stats, log_alpha, noise)

        grads = [jax.grad(alone)(at(actors, i), i) for i in range(small.spec.n_agents)]
        return jax.tree.map(lambda *rows: jnp.stack(rows), *grads)

    return slope(learner.actors)


def test_critic_loss_and_gradient(small: Setup) -> None:
    """Both twins, joint pass, projected target with entropy bonus: loss, gradient, Adam's moments and step."""
    learner, (after, metrics) = small.learner, small.plain
    loss, grads = jax.jit(jax.value_and_grad(lambda critics: critic_objective(critics, small, learner, small.key)))(
        learner.critics
    )
    assert value(metrics, "critic/loss") == pytest.approx(float(loss), rel=1e-5)
    assert_close(moment(after.critic_opt, after.critics), jax.tree.map(lambda g: 0.5 * g, grads), 1e-3)
    assert value(metrics, "critic/grad_norm") == pytest.approx(float(optax.tree.norm(grads)), rel=1e-3)
    assert_close(moment(after.critic_opt, after.critics, "nu"), jax.tree.map(lambda g: 1e-3 * g**2, grads), 2e-3)
    moved = jax.tree.map(lambda new, old: jnp.abs(new - old).max(), after.critics, learner.critics)
    assert max(float(leaf) for leaf in jax.tree.leaves(moved)) == pytest.approx(3e-4, rel=1e-3)


def test_running_statistics_are_those_of_the_joint_batch(small: Setup) -> None:
    """One update of the first layer: 1 % of mean and variance over all 2B rows, not of either half."""
    stats, batch = small.plain[0].stats.layers[0], small.batch
    both = np.concatenate([batch.obs, batch.next_obs]).reshape(2 * batch.ret.shape[0], -1)
    width = both.shape[1]
    for twin in (0, 1):
        np.testing.assert_allclose(stats.mean[twin, :width], 0.01 * both.mean(0), atol=1e-6)
        np.testing.assert_allclose(stats.var[twin, :width], 0.99 + 0.01 * both.var(0), atol=1e-6)
    assert np.asarray(stats.count).tolist() == [1, 1]
    assert np.asarray(small.acting[0].stats.layers[0].count).tolist() == [1, 1]  # the actor's pass counts nothing


def test_joint_costs_are_sums_of_single_agent_costs(small: Setup) -> None:
    """R, P and the bound, per real action dimension, from one chain after the other under split keys."""
    noise = noise_of(small, jax.random.split(small.key)[1])
    action, running, terminal = agents_alone(small, small.learner.actors, small.batch.obs, noise)
    metrics, dims = small.acting[1], small.spec.joint_act_dim
    assert dims == 3
    r, p = float(running.sum(1).mean()) / dims, float(terminal.sum(1).mean()) / dims
    assert value(metrics, "policy/running_cost") == pytest.approx(r, rel=1e-5)
    assert value(metrics, "policy/terminal_cost") == pytest.approx(p, rel=1e-5)
    assert value(metrics, "policy/entropy_bound") == pytest.approx(-(r + p), rel=1e-4)
    real = np.asarray(small.spec.act_mask, bool)
    saturated = (np.abs(np.asarray(action))[:, real] > 0.99).mean()
    assert value(metrics, "policy/saturation") == pytest.approx(saturated, abs=1e-6)


def test_acting_is_one_chain_an_agent(small: Setup) -> None:
    """Joint actions are the single agents' actions under split keys; nobody else changes a bit of them."""
    act = jax.jit(lambda actors, obs, key: small.algorithm.act(actors, obs, key, True))
    actors, obs = small.learner.actors, small.batch.obs
    joint = act(actors, obs, small.key)
    alone, _, _ = agents_alone(small, actors, obs, noise_of(small, small.key))
    np.testing.assert_allclose(joint, alone, atol=1e-5)
    other_row = act(actors, obs.at[:, 1].add(3.0), small.key)
    other_actor = act(jax.tree.map(lambda x: x.at[1].add(0.5), actors), obs, small.key)
    for changed in (other_row, other_actor):
        np.testing.assert_array_equal(changed[:, 0], joint[:, 0])
        assert not np.isclose(changed[:, 1], joint[:, 1]).all()


def test_costs_of_one_agent_do_not_depend_on_the_others(small: Setup) -> None:
    """Under the vmapped chain of the update: R_0 and P_0 are bit-identical whatever agent 1 sees and is."""
    noise = jnp.stack(noise_of(small, small.key))
    mask = small.spec.act_mask

    @jax.jit
    def joint(actors: Any, obs: Any) -> Any:
        return jax.vmap(sample_chain, in_axes=(0, 1, 0, 0, None, None))(actors, obs, noise, mask, 2.5, 1e4)

    actors, obs = small.learner.actors, small.batch.obs
    base = joint(actors, obs)
    for changed in (joint(actors, obs.at[:, 1].add(3.0)), joint(ordinary(actors, 5, 0.1), obs)):
        assert not np.isclose(changed.running[1], base.running[1]).all()
    changed = joint(jax.tree.map(lambda x: x.at[1].add(0.5), actors), obs.at[:, 1].add(3.0))
    np.testing.assert_array_equal(changed.running[0], base.running[0])
    np.testing.assert_array_equal(changed.terminal[0], base.terminal[0])
    np.testing.assert_array_equal(changed.action[0], base.action[0])


def test_all_agents_descend_at_once_from_their_old_parameters(small: Setup, actor_gradient: Any) -> None:
    """Synchrony: the update's gradient of agent i is that of its own loss with all others fixed as they were.

    Also: the mean of both critics, in evaluation mode, after their own step of this update.
    """
    clipped = jax.tree.map(lambda g: 0.5 * jnp.clip(g, -CLIP, CLIP), actor_gradient)
    assert_close(moment(small.acting[0].actor_opt, small.learner.actors), clipped, 1e-3)
    norm = float(optax.tree.norm(actor_gradient))
    assert value(small.acting[1], "policy/grad_norm") == pytest.approx(norm, rel=1e-3)


def test_actor_gradients_are_clipped_elementwise(small: Setup, actor_gradient: Any) -> None:
    """Entries beyond the bound become the bound; the others stay as they are, so it is no clipping by norm."""
    entries = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(actor_gradient)])
    moments = np.concatenate(
        [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(moment(small.acting[0].actor_opt, small.learner.actors))]
    )
    large = np.abs(entries) > 1.01 * CLIP
    assert large.sum() > 5 and not large.all()
    np.testing.assert_allclose(moments[large], 0.5 * CLIP * np.sign(entries[large]), rtol=1e-5)
    np.testing.assert_allclose(moments[~large], 0.5 * entries[~large], atol=0.01 * CLIP)


def test_actor_step_is_adams(small: Setup) -> None:
    """First step: rate 3e-4 in the direction of minus the sign of every gradient."""
    before, after = small.learner.actors, small.acting[0]
    for old, new, mu in zip(
        *map(jax.tree.leaves, (before, after.actors, moment(after.actor_opt, before))), strict=True
    ):
        big = np.abs(np.asarray(mu)) > 1e-4
        np.testing.assert_allclose((new - old)[big], -3e-4 * np.sign(np.asarray(mu)[big]), rtol=2e-2)


def test_actor_loss_value(small: Setup) -> None:
    """The reported loss is the objective, Q included."""
    after, learner = small.acting[0], small.learner
    noise = noise_of(small, jax.random.split(small.key)[1])
    loss = actor_objective(learner.actors, small, after.critics, after.stats, learner.temperature.log_alpha, noise)
    assert value(small.acting[1], "policy/loss") == pytest.approx(float(loss), rel=1e-4)


def test_pathwise_gradient_by_finite_differences(small: Setup, actor_gradient: Any) -> None:
    """Common noise, double precision: five random parameters, delta and phi of each agent within 1 %."""
    noise = [np.asarray(n) for n in noise_of(small, jax.random.split(small.key)[1])]
    after, learner = small.acting[0], small.learner
    flat_gradient, _ = jax.flatten_util.ravel_pytree(actor_gradient)
    gradient = np.asarray(flat_gradient)
    with jax.enable_x64(True):

        def double(tree: Any) -> Any:
            return jax.tree.map(lambda x: jnp.asarray(np.asarray(x), float), tree)

        actors, critics = double(learner.actors), double(after.critics)
        stats = eqx.tree_at(lambda s: [r.count for r in s.layers], double(after.stats), [jnp.zeros(2, jnp.int32)] * 3)
        flat, unflatten = jax.flatten_util.ravel_pytree(actors)
        wide = dataclasses.replace(small, batch=double(small.batch))
        log_alpha, draws = double(learner.temperature.log_alpha), [jnp.asarray(n, float) for n in noise]

        @jax.jit
        def loss(theta: Any) -> Any:
            return actor_objective(unflatten(theta), wide, critics, stats, log_alpha, draws)

        ones = jax.tree.map(jnp.zeros_like, actors)
        marks = dataclasses.replace(
            ones, raw_scale=jnp.ones_like(ones.raw_scale),
            raw_friction=jnp.ones_like(ones.raw_friction) * jnp.asarray(small.spec.act_mask, float),
        )  # fmt: skip
        step_sizes = np.flatnonzero(np.asarray(jax.flatten_util.ravel_pytree(marks)[0]))
        assert len(step_sizes) == 5  # two deltas, and phi in three real dimensions
        others = np.random.default_rng(0).choice(np.flatnonzero(np.abs(gradient) > 1e-2), 5, replace=False)
        for j in (*step_sizes, *others):
            slope = float(loss(flat.at[j].add(1e-5)) - loss(flat.at[j].add(-1e-5))) / 2e-5
            assert slope != 0.0
            assert gradient[j] == pytest.approx(slope, rel=0.01, abs=1e-4), j


def test_actor_step_moves_no_critic(small: Setup) -> None:
    """Critics, their statistics and optimiser are bit for bit those of an update without an actor step."""
    for field in ("critics", "stats", "critic_opt"):
        assert eqx.tree_equal(getattr(small.plain[0], field), getattr(small.acting[0], field))


def test_without_an_actor_step_actors_and_temperature_stay(small: Setup) -> None:
    """Bit for bit; and their metrics say that nothing was measured."""
    after, metrics = small.plain
    for field in ("actors", "actor_opt", "temperature", "alpha_opt"):
        assert eqx.tree_equal(getattr(after, field), getattr(small.learner, field))
    for name in metrics:
        expected = 0.0 if name.startswith(("policy/", "alpha/")) and name != "policy/update_fraction" else 1.0
        assert float(metrics[name].weight) == expected, name
    assert value(metrics, "policy/update_fraction") == 0.0
    assert value(small.acting[1], "policy/update_fraction") == 1.0


# ---------------------------------------------------------------- temperature


def tuned(setup: Setup, learner: OmadState) -> tuple[float, float, float]:
    """(R per dimension, change of log alpha, gradient of log alpha) of one update with an actor step."""
    after, metrics = setup.update(learner, setup.batch, setup.key, jnp.asarray(3))
    change = float(after.temperature.log_alpha[0] - learner.temperature.log_alpha[0])
    return (
        value(metrics, "policy/running_cost"),
        change,
        float(optax.tree.get(after.alpha_opt, "mu").log_alpha[0]) / 0.1,
    )


def test_temperature_rises_above_its_limit_and_falls_below(small: Setup) -> None:
    """R > 4 D: up; R < 4 D: down; the first Adam step has size 1e-3; the slope is -alpha (R - 4 D), without P."""
    fresh = small.init(jax.random.key(0))
    costly = eqx.tree_at(lambda s: s.actors.denoiser.last.bias, fresh, jnp.full((2, 2), 12.0, float))
    low, down, low_slope = tuned(small, fresh)
    high, up, high_slope = tuned(small, costly)
    assert low < 4 < high
    assert down == pytest.approx(-1e-3, rel=1e-3)
    assert up == pytest.approx(1e-3, rel=1e-3)
    alpha, dims = small.config.alpha_init, small.spec.joint_act_dim
    assert low_slope == pytest.approx(-alpha * (low - 4) * dims, rel=1e-4)
    assert high_slope == pytest.approx(-alpha * (high - 4) * dims, rel=1e-4)


# ---------------------------------------------------------------- targets


def test_termination_removes_bootstrap_and_bonus_and_truncation_neither(small: Setup) -> None:
    """With discount 0 the temperature has no influence on the critics; with gamma it has."""
    hot = dataclasses.replace(
        small.learner, temperature=dataclasses.replace(small.learner.temperature, log_alpha=jnp.asarray([3.0]))
    )

    def critics(learner: OmadState, discount: float) -> Any:
        batch = dataclasses.replace(small.batch, discount=jnp.full_like(small.batch.discount, discount))
        return small.update(learner, batch, small.key, jnp.asarray(1))[0].critics

    assert eqx.tree_equal(critics(hot, 0.0), critics(small.learner, 0.0))
    assert not eqx.tree_equal(critics(hot, 0.99), critics(small.learner, 0.99))


def test_nan_gradients_do_not_reach_the_actors(small: Setup) -> None:
    """They are zeroed before Adam sees them."""
    broken = dataclasses.replace(small.batch, obs=jnp.full_like(small.batch.obs, jnp.nan))
    after, _ = small.update(small.learner, broken, small.key, jnp.asarray(3))
    assert eqx.tree_equal(after.actors, small.learner.actors)


# ---------------------------------------------------------------- variants


@pytest.fixture(scope="module")
def variant() -> Setup:
    """Three unequal agents, a state, target networks, the lower critic, a temperature an agent, averaged policies."""
    config = dataclasses.replace(
        SMALL, target_network=True, tau=0.1, critic_reduce="min", alpha_per_agent=True, learn_step_size=False,
        policy_average=0.75, target_run_per_dim=2.0, target_run_end=6.0, target_run_begin=3, target_run_steps=6,
    )  # fmt: skip
    return set_up(config, EnvSpec("unequal", (3, 1, 2), (1, 3, 2), 4, 5))


def nearly_alike(twins: Any) -> Any:
    """The first twin and a second one that differs by so little that now this one says less, now that one."""
    return ordinary(jax.tree.map(lambda x: jnp.stack([x[0], x[0]]), twins), 11, 0.05)


def test_targets_are_of_the_lower_target_critic(variant: Setup) -> None:
    """Loss and gradient, where target critics and their statistics, and temperatures, are unlike the others."""
    assert variant.learner.critics_target is not None
    critics, stats = variant.learner.critics_target
    stats = jax.tree.map(lambda x: x + 0.5 if jnp.issubdtype(x.dtype, jnp.floating) else x, stats)
    learner = eqx.tree_at(
        lambda s: (s.critics_target, s.temperature.log_alpha),
        variant.learner, ((nearly_alike(critics), stats), jnp.log(jnp.asarray([0.2, 0.5, 0.9]))),
    )  # fmt: skip
    batch = variant.batch
    noise = noise_of(variant, jax.random.split(variant.key)[0])
    action, _, _ = agents_alone(variant, learner.actors, batch.next_obs, noise)
    x = critic_rows(variant, batch.next_obs, batch.next_state, action)
    first = np.asarray(lower(target_values(learner, x), variant.config.v_max))
    assert 0 < first[np.asarray(batch.discount) > 0].mean() < 1
    after, metrics = variant.update(learner, batch, variant.key, jnp.asarray(1))
    loss, grads = jax.jit(jax.value_and_grad(lambda c: critic_objective(c, variant, learner, variant.key)))(
        learner.critics
    )
    assert value(metrics, "critic/loss") == pytest.approx(float(loss), rel=1e-5)
    assert_close(moment(after.critic_opt, after.critics), jax.tree.map(lambda g: 0.5 * g, grads), 1e-3)


def test_target_critics_follow_slowly(variant: Setup) -> None:
    """(1 - tau) target + tau online after the step, for parameters and running statistics; only B rows are seen."""
    before, after = variant.learner, variant.plain[0]
    assert before.critics_target is not None and after.critics_target is not None
    mixed = jax.tree.map(lambda t, o: 0.9 * t + 0.1 * o, before.critics_target[0], after.critics)
    assert_close(after.critics_target[0], mixed, 1e-5)
    seen = np.concatenate([variant.batch.state, variant.batch.action.reshape(len(variant.batch.ret), -1)], 1)
    np.testing.assert_allclose(after.stats.layers[0].mean[0], 0.01 * seen.mean(0), atol=1e-6)
    np.testing.assert_allclose(after.critics_target[1].layers[0].mean, 0.1 * after.stats.layers[0].mean, atol=1e-7)


def test_the_average_follows_the_actors_and_leaves_training(variant: Setup) -> None:
    """0.75 average + 0.25 actors, at steps of the actors only; transitions come from the actors themselves.

    At step t of the actors no more than (1 + t) / (10 + t) of the average stays, so that nothing is left of its start.
    """
    before, plain, acting = variant.learner, variant.plain[0], variant.acting[0]
    assert eqx.tree_equal(plain.actors_average, before.actors_average)
    for count, kept in ((3, 2 / 11), (300, 0.75)):
        later, _ = variant.update(variant.learner, variant.batch, variant.key, jnp.asarray(count))
        mixed = jax.tree.map(lambda a, o, kept=kept: kept * a + (1 - kept) * o, before.actors_average, later.actors)
        assert_close(later.actors_average, mixed, 1e-5)
    assert eqx.tree_equal(variant.algorithm.policy(acting), acting.actors_average)
    assert eqx.tree_equal(variant.algorithm.behaviour_policy(acting), acting.actors)
    assert not eqx.tree_equal(acting.actors_average, acting.actors)


def test_without_an_average_the_actors_leave_training(small: Setup) -> None:
    assert small.learner.actors_average is None
    assert eqx.tree_equal(small.algorithm.policy(small.learner), small.learner.actors)


def test_fixed_step_sizes_stay(variant: Setup) -> None:
    """`learn_step_size` off: delta and phi do not move while the denoiser does."""
    before, after = variant.learner.actors, variant.acting[0].actors
    assert eqx.tree_equal((before.raw_scale, before.raw_friction), (after.raw_scale, after.raw_friction))
    assert not eqx.tree_equal(before.denoiser, after.denoiser)


@pytest.mark.parametrize(("count", "limit"), [(3, 2.0), (6, 4.0), (9, 6.0), (12, 6.0)])
def test_every_agent_has_its_own_temperature_and_the_limit_changes(variant: Setup, count: int, limit: float) -> None:
    """Slope -alpha_i (R_i - L d_i), each from its own running cost and dimensions; L goes from 2 to 6 in steps 3-9."""
    noise = noise_of(variant, jax.random.split(variant.key)[1])
    _, running, _ = agents_alone(variant, variant.learner.actors, variant.batch.obs, noise)
    slope = -0.5 * (np.asarray(running.mean(0)) - limit * np.asarray([1, 3, 2]))
    after, _ = variant.update(variant.learner, variant.batch, variant.key, jnp.asarray(count))
    np.testing.assert_allclose(optax.tree.get(after.alpha_opt, "mu").log_alpha / 0.1, slope, rtol=1e-3, atol=1e-4)


def test_lower_critic_is_used_where_asked(variant: Setup) -> None:
    """The actor's Q is the minimum of the twins, row by row."""
    batch = variant.batch
    learner = dataclasses.replace(variant.learner, critics=nearly_alike(variant.learner.critics))
    after, metrics = variant.update(learner, batch, variant.key, jnp.asarray(variant.due))
    noise = noise_of(variant, jax.random.split(variant.key)[1])
    action, _, _ = agents_alone(variant, variant.learner.actors, batch.obs, noise)
    x = critic_rows(variant, batch.obs, batch.state, action)
    z = categorical.support(10.0, 11)
    q = [jax.nn.softmax(at(after.critics, c)(at(after.stats, c), x, RenormConfig())) @ z for c in (0, 1)]
    assert value(metrics, "policy/q") == pytest.approx(float(jnp.minimum(*q).mean()), rel=1e-3, abs=1e-4)
    assert 0 < float((q[0] < q[1]).mean()) < 1


def test_fixed_temperature_zero_is_exactly_zero() -> None:
    """`alpha_init` 0 with `alpha_mode` fixed turns the entropy bonus off."""
    algorithm = make(dataclasses.replace(SMALL, alpha_mode="fixed", alpha_init=0.0), EnvSpec("t", (1,), (1,), 0, 1))
    temperature = jax.jit(algorithm.init)(jax.random.key(0)).temperature
    assert float(jnp.exp(temperature.log_alpha[0])) < 1e-29


# ---------------------------------------------------------------- configuration


def test_defaults_are_the_published_ones() -> None:
    """Li et al. 2026 where known, else Celik et al. 2025."""
    c = OmadConfig()
    assert (c.denoising_steps, c.atoms, c.prior_scale, c.gamma) == (8, 100, 2.5, 0.99)
    assert (c.critic_width, c.critic_layers, c.actor_width, c.actor_layers) == (2048, 2, 256, 3)
    assert (c.time_frequencies, c.time_width, c.step_init, c.friction_init) == (256, 256, 0.1, 1.0)
    assert (c.actor_lr, c.critic_lr, c.adam_b1, c.actor_clip, c.actor_every) == (3e-4, 3e-4, 0.5, 1.0, 3)
    assert (c.alpha_mode, c.alpha_init, c.alpha_lr, c.target_run_per_dim) == ("auto", 1.0, 1e-3, 4.0)
    assert (c.atom_entropy, c.renorm_momentum, c.renorm_warmup) == (0.005, 0.99, 100_000)
    assert (c.critic_reduce, c.target_network, c.alpha_per_agent, c.n_step) == ("mean", False, False, 1)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("denoising_steps", 0), ("actor_layers", 0), ("atoms", 1), ("v_max", 0.0), ("v_max", math.inf),
        ("prior_scale", -1.0), ("actor_lr", math.nan), ("alpha_init", 0.0), ("gamma", 1.5), ("gamma", 0.0),
        ("tau", 0.0), ("adam_b1", 1.0), ("renorm_momentum", -0.1), ("atom_entropy", -1.0), ("n_step", 0),
        ("actor_every", 0), ("renorm_warmup", -1), ("target_run_per_dim", math.nan),
        ("target_run_end", math.inf), ("target_run_steps", -1), ("target_run_begin", -1), ("atom_entropy", math.nan),
        ("prior_scale", 1e-30), ("step_init", 1e30), ("friction_init", 1e-30),
        ("policy_average", 0.999999),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_by_name(field: str, wrong: Any) -> None:
    """The message names the field and what was given."""
    with pytest.raises(ValueError, match=f"{field}.*{re.escape(str(wrong))}"):
        OmadConfig(**{field: wrong})


def test_chains_that_run_away_are_hopeless() -> None:
    """With Euler steps of twice the time in which noise is forgotten, or longer; exact steps have no such limit."""
    for fields in ({"prior_scale": 0.1}, {"step_init": 20.0}, {"friction_init": 0.001}):
        limit: dict[str, Any] = {"alpha_mode": "fixed"}
        assert "the chain runs away" in OmadConfig(**fields, **limit).hopeless
        assert not OmadConfig(**fields, **limit, chain_kernel="exact").hopeless
    assert not OmadConfig(step_init=12.0).hopeless


def test_a_limit_below_the_cost_of_random_actions_is_hopeless() -> None:
    """R / d = log(2 pi e) / 2 + log sigma - H / d, and no H / d is above log 2: alpha would rise for ever."""
    limits = {sigma: 0.5 * math.log(math.pi * math.e / 2) + math.log(sigma) for sigma in (1.0, 2.5, 100.0)}
    moving: dict[str, Any] = {"target_run_per_dim": 1.0, "target_run_steps": 9}
    for sigma, least in limits.items():
        assert not OmadConfig(prior_scale=sigma, target_run_per_dim=least + 0.01).hopeless
        assert not OmadConfig(prior_scale=sigma, target_run_per_dim=least - 0.01, alpha_mode="fixed").hopeless
        assert not OmadConfig(prior_scale=sigma, target_run_end=least + 0.01, **moving).hopeless
        words = f"with prior_scale {sigma:g} it must be above {least:.2f}"
        assert words in OmadConfig(prior_scale=sigma, target_run_per_dim=least - 0.01).hopeless
        assert words in OmadConfig(prior_scale=sigma, target_run_end=least - 0.01, **moving).hopeless
    assert limits[2.5] == pytest.approx(1.642, abs=1e-3) and limits[100.0] > 4.0
    with pytest.raises(ValueError, match="critic_blocks is 1001; it must be at most 1000"):
        OmadConfig(critic_blocks=1_001, critic_net="xqc")


@pytest.mark.parametrize("field", ["critic_reduce", "alpha_mode", "critic_input"])
def test_unknown_choices_are_refused(field: str) -> None:
    """Also where nothing checks types at run time, as in production: a typo must not select the other choice."""
    config = OmadConfig()
    object.__setattr__(config, field, "typo")
    with pytest.raises(ValueError, match=f"{field}.*typo"):
        config.__post_init__()


def test_critics_cannot_read_a_state_that_is_not_there() -> None:
    """Before anything is compiled."""
    with pytest.raises(ValueError, match="critic_input"):
        make(dataclasses.replace(SMALL, critic_input="state"), EnvSpec("t", (1,), (1,), 0, 1))


# ---------------------------------------------------------------- decentralised execution


def test_acting_takes_own_parameters_observations_and_a_key_only(small: Setup) -> None:
    """No state, no critic: what acts is the diffusion policies alone."""
    parameters = list(inspect.signature(small.algorithm.act).parameters)
    assert len(parameters) == 4 and parameters[1:] == ["obs", "key", "explore"]
    policy = small.algorithm.policy(small.learner)
    assert isinstance(policy, DiffusionPolicy)
    assert eqx.tree_equal(policy, small.learner.actors)


@pytest.mark.parametrize("explore", [True, False])
def test_actions_depend_on_own_observations_alone(small: Setup, explore: bool) -> None:
    """Jacobian: d action_i / d obs_j is exactly zero for i != j, and not zero for i = j."""
    obs = small.batch.obs[0]
    jacobian = np.asarray(
        jax.jit(jax.jacrev(lambda o: small.algorithm.act(small.learner.actors, o, small.key, explore)))(obs)
    )
    assert jacobian.shape == (2, 2, 2, 2)
    for i in (0, 1):
        assert not jacobian[i, :, 1 - i].any()
        assert (np.abs(jacobian[i, : small.spec.act_dims[i], i]) > 0).all()
    assert not jacobian[0, 1].any()  # a padded action hangs on nothing


# ---------------------------------------------------------------- a shared policy


def test_a_shared_policy_is_pulled_by_the_sum_of_what_pulls_its_copies() -> None:
    """One entry of parameters; the same actions as N copies have; the gradient is the sum of the copies' gradients."""
    config = dataclasses.replace(SMALL, actor_clip=1e6)
    env = probe.relay()
    apart = set_up(config, env.spec)
    algorithm = make(dataclasses.replace(config, share_policy=True), env.spec)
    one = jax.tree.map(lambda x: x[:1], apart.learner.actors)
    assert jax.tree.map(jnp.shape, algorithm.init(jax.random.key(0)).actors) == jax.tree.map(jnp.shape, one)
    copies = dataclasses.replace(apart.learner, actors=jax.tree.map(lambda x: jnp.stack([x[0], x[0]]), one))
    opt = jax.tree.map(lambda x: x[:1], apart.learner.actor_opt)
    shared = dataclasses.replace(apart.learner, actors=one, actor_opt=opt)
    assert eqx.tree_equal(algorithm.policy(shared), copies.actors)
    after_copies, _ = apart.update(copies, apart.batch, apart.key, jnp.asarray(3))
    after_shared, metrics = jax.jit(algorithm.update)(shared, apart.batch, apart.key, jnp.asarray(3))
    assert_close(after_shared.critics, after_copies.critics, 1e-5)
    summed = jax.tree.map(lambda m: m.sum(0, keepdims=True), moment(after_copies.actor_opt, copies.actors))
    assert_close(moment(after_shared.actor_opt, one), summed, 1e-3)
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(summed))
    assert value(metrics, "policy/update_fraction") == 1.0


def test_agents_of_unequal_sizes_cannot_share_a_policy() -> None:
    """Named with their sizes."""
    with pytest.raises(UserError, match="equal sizes"):
        make(dataclasses.replace(SMALL, share_policy=True), probe.push().spec)
