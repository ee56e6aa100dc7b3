"""HATD3's update against its equations, written out here a second time and slowly."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from learners import CONFIGS, Setup, constant_twins, filled, set_up, value

from omad import buffer
from omad.algos.hatd3 import Hatd3Config, make
from omad.keys import normal
from omad.policies import TanhPolicy
from omad.tree import at
from omad.types import EnvSpec

SPEC = EnvSpec("unequal", (3, 1, 2), (1, 3, 2), 4, 5)
"""Three agents of unequal sizes, and a state for critics."""
N = SPEC.n_agents
MASK = np.asarray(SPEC.act_mask)


@pytest.fixture(scope="module")
def trio() -> Setup:
    """HATD3 for three agents, with so much noise on target actions that its bound matters."""
    return set_up(dataclasses.replace(CONFIGS["hatd3"], target_noise=0.6), SPEC)


def same(tree: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (tree, other)), strict=True))


def always(actors: TanhPolicy, action: float) -> TanhPolicy:
    """Policies that do the same whatever they see."""
    flat = jax.tree.map(jnp.zeros_like, actors)
    last = flat.net.layers[-1]
    last = dataclasses.replace(last, bias=jnp.full_like(last.bias, math.atanh(action)))
    return dataclasses.replace(flat, net=dataclasses.replace(flat.net, layers=(*flat.net.layers[:-1], last)))


def reading(critics: Any, entry: int) -> Any:
    """Twins that say what stands in one entry of their row, which must be above -2."""
    flat = jax.tree.map(jnp.zeros_like, critics)
    first, second, last = flat.layers
    return dataclasses.replace(flat, layers=(
        dataclasses.replace(first, weight=first.weight.at[:, entry, 0].set(1.0), bias=first.bias.at[:, 0].set(2.0)),
        dataclasses.replace(second, weight=second.weight.at[:, 0, 0].set(1.0)),
        dataclasses.replace(last, weight=last.weight.at[:, 0, 0].set(1.0), bias=jnp.full_like(last.bias, -2.0)),
    ))  # fmt: skip


# ---------------------------------------------------------------- critics


def test_target_and_loss_by_hand(trio: Setup) -> None:
    """Target twins 7 and 5, two rewards summing to 1 + 0.9 * 2: y = 2.8 + 0.81 * 5 = 6.85, or 2.8 at an end.

    Twins that say 0 and 1: half of 6.85^2 + 5.85^2, 40.5725 in all.
    """
    learner = dataclasses.replace(
        trio.learner,
        critics=constant_twins(trio.learner.critics, 0.0, 1.0),
        critics_target=constant_twins(trio.learner.critics, 7.0, 5.0),
    )
    _, metrics = trio.update(learner, filled(trio.batch, ret=2.8, discount=0.81), trio.key, jnp.asarray(1))
    assert value(metrics, "critic/target") == pytest.approx(6.85, rel=1e-5)
    assert value(metrics, "critic/loss") == pytest.approx(40.5725, rel=1e-5)
    _, metrics = trio.update(learner, filled(trio.batch, ret=2.8, discount=0.0), trio.key, jnp.asarray(1))
    assert value(metrics, "critic/target") == pytest.approx(2.8, rel=1e-5)


def test_n_step_targets_from_the_buffer(trio: Setup) -> None:
    """Reward 1 throughout, n = 3, gamma 0.99: y = 1 + 0.99 + 0.9801 + 0.970299 * 5 = 7.821595."""
    assert (trio.algorithm.n_step, trio.algorithm.gamma) == (3, 0.99)
    ring = buffer.make(SPEC, 8, 2)
    ring = dataclasses.replace(ring, reward=jnp.ones_like(ring.reward))
    batch = buffer.sample(ring, jnp.asarray(8), jax.random.key(1), 16, trio.algorithm.gamma, trio.algorithm.n_step)
    batch = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), batch, trio.batch)
    learner = dataclasses.replace(trio.learner, critics_target=constant_twins(trio.learner.critics, 5.0, 7.0))
    _, metrics = trio.update(learner, batch, trio.key, jnp.asarray(1))
    assert value(metrics, "critic/target") == pytest.approx(7.821595, rel=1e-5)


@pytest.mark.parametrize("action", [0.0, 0.8])
def test_target_actions_are_smoothed_within_bounds(trio: Setup, action: float) -> None:
    """Target actors, not online ones; noise of deviation 0.6 cut off at 0.5; within [-1, 1]; padding stays zero.

    Read off through target critics that say what stands in one entry of their row, the state's 4 entries first.
    """
    noise = np.asarray(0.6 * normal(jax.random.split(trio.key)[0], trio.batch.action.shape))
    assert (np.abs(noise) > 0.5).mean() > 0.2
    expected = np.clip(action + np.clip(noise, -0.5, 0.5), -1, 1) * MASK
    learner = dataclasses.replace(trio.learner, actors_target=always(trio.learner.actors, action))
    for agent, dim in ((0, 0), (1, 2), (2, 1), (2, 2)):
        seen = dataclasses.replace(learner, critics_target=reading(learner.critics, 4 + agent * 3 + dim))
        _, metrics = trio.update(seen, filled(trio.batch, ret=0.0, discount=1.0), trio.key, jnp.asarray(1))
        assert value(metrics, "critic/target") == pytest.approx(float(expected[:, agent, dim].mean()), abs=1e-5)


# ---------------------------------------------------------------- actors


def one_after_the_other(setup: Setup, critics: Any) -> list[Any]:
    """A plain loop over agents in the order of the update: the new actors."""
    learner, batch, mask = setup.learner, setup.batch, jnp.asarray(MASK, jnp.float32)
    order = jax.random.permutation(jax.random.split(jax.random.split(setup.key)[1], 3)[0], N)
    actors = [at(learner.actors, i) for i in range(N)]
    actions = [actors[i](batch.obs[:, i], mask[i]) for i in range(N)]
    optimiser = optax.adam(setup.config.actor_lr)
    for i in map(int, order):

        def loss(actor: Any, i: int = i) -> Any:
            joint = [actor(batch.obs[:, i], mask[i]) if j == i else actions[j] for j in range(N)]
            return -jnp.mean(at(critics, 0)(jnp.concatenate([batch.state, *joint], -1)))

        updates, _ = optimiser.update(jax.jit(jax.grad(loss))(actors[i]), optimiser.init(actors[i]))
        actors[i] = optax.apply_updates(actors[i], updates)
        actions[i] = actors[i](batch.obs[:, i], mask[i])
    return actors


def test_sequential_update_is_a_plain_loop_over_agents(trio: Setup) -> None:
    """Same order, first critic after its own step: actors within 1e-6; the largest step is Adam's first, 5e-4."""
    after, _ = trio.acting
    for i, actor in enumerate(one_after_the_other(trio, after.critics)):
        for looped, swept in zip(*map(jax.tree.leaves, (actor, at(after.actors, i))), strict=True):
            np.testing.assert_allclose(swept, looped, atol=1e-6)
    moved = jax.tree.map(lambda new, old: jnp.abs(new - old).max(), after.actors, trio.learner.actors)
    assert max(float(leaf) for leaf in jax.tree.leaves(moved)) == pytest.approx(5e-4, rel=1e-3)


def test_actors_climb_the_first_critic_only(trio: Setup) -> None:
    """Another second critic changes nothing about the actors' step; the loss is minus the first one's value."""
    mixed = jax.tree.map(lambda x: x.at[1].multiply(-2.0), trio.learner.critics)
    learner = dataclasses.replace(trio.learner, critics=mixed)
    after, _ = trio.update(learner, trio.batch, trio.key, jnp.asarray(trio.due))
    assert same(after.actors, trio.acting[0].actors)
    learner = dataclasses.replace(
        trio.learner, critics=constant_twins(mixed, 3.0, -5.0), critics_target=constant_twins(mixed, 3.0, 3.0)
    )
    _, metrics = trio.update(learner, filled(trio.batch, ret=3.0, discount=0.0), trio.key, jnp.asarray(trio.due))
    assert value(metrics, "policy/loss") == pytest.approx(-3.0, abs=1e-5)


def test_all_targets_follow_at_policy_updates_only(trio: Setup) -> None:
    """(1 - tau) target + tau online, tau 0.1, of actors and critics after their own steps; else bit for bit."""
    before, (plain, _), (acting, _) = trio.learner, trio.plain, trio.acting
    for online, target in (("actors", "actors_target"), ("critics", "critics_target")):
        assert same(getattr(plain, target), getattr(before, target))
        trees = getattr(before, target), getattr(acting, online), getattr(acting, target)
        for old, now, new in zip(*map(jax.tree.leaves, trees), strict=True):
            np.testing.assert_allclose(new, 0.9 * old + 0.1 * now, atol=1e-6)


def test_without_a_policy_update_actors_stay(trio: Setup) -> None:
    """Bit for bit, optimiser included; their metrics say that nothing was measured; critics do move."""
    after, metrics = trio.plain
    assert same((after.actors, after.actor_opt), (trio.learner.actors, trio.learner.actor_opt))
    assert not same(after.critics, trio.learner.critics)
    assert same(after.critics, trio.acting[0].critics)
    for name, mean in metrics.items():
        idle = name.startswith("policy/") and name != "policy/update_fraction"
        assert float(mean.weight) == (0.0 if idle else 1.0), name
    assert value(metrics, "policy/update_fraction") == 0.0
    assert value(trio.acting[1], "policy/update_fraction") == 1.0


def test_exploration_adds_gaussian_noise_and_evaluation_none(trio: Setup) -> None:
    """Deviation 0.1 in units of [-1, 1], padding and bounds kept; without exploring, tanh of the networks."""
    act = jax.jit(trio.algorithm.act, static_argnums=3)
    obs = jnp.tile(trio.batch.obs[:1], (4000, 1, 1))
    for action in (0.3, 0.99):
        policy = always(trio.learner.actors, action)
        plain = np.asarray(act(policy, obs, trio.key, False))
        np.testing.assert_allclose(plain, np.broadcast_to(action * MASK, plain.shape), atol=1e-6)
        noisy = np.asarray(act(policy, obs, trio.key, True))
        assert not noisy[:, MASK == 0].any() and np.abs(noisy).max() <= 1.0
        real = noisy[:, MASK == 1]
        if action == 0.3:
            assert real.mean() == pytest.approx(0.3, abs=0.003)
            assert real.std() == pytest.approx(0.1, rel=0.03)
        else:
            assert (real == 1.0).mean() == pytest.approx(0.46, abs=0.02)  # P(noise > 0.01) of a deviation 0.1


# ---------------------------------------------------------------- configuration


def test_defaults_are_harls() -> None:
    """Zhong et al. 2024, code."""
    c = Hatd3Config()
    assert (c.actor_width, c.actor_layers, c.critic_width, c.critic_layers) == (128, 2, 128, 2)
    assert (c.tau, c.gamma, c.n_step, c.actor_lr, c.critic_lr, c.actor_every) == (0.005, 0.99, 1, 5e-4, 1e-3, 2)
    assert (c.explore_noise, c.target_noise, c.target_noise_clip) == (0.1, 0.2, 0.5)
    assert (c.critic_loss, c.huber_delta) == ("mse", 10.0)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("actor_width", 0), ("critic_layers", 0), ("n_step", 0), ("actor_every", 0), ("actor_lr", -1.0),
        ("critic_lr", math.nan), ("gamma", 0.0), ("tau", 1.5), ("explore_noise", -0.1), ("target_noise", math.nan),
        ("target_noise_clip", -1.0), ("huber_delta", 0.0),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_by_name(field: str, wrong: Any) -> None:
    """The message names the field and what was given."""
    with pytest.raises(ValueError, match=f"{field}.*{wrong}"):
        Hatd3Config(**{field: wrong})


@pytest.mark.parametrize("field", ["critic_loss", "critic_input"])
def test_unknown_choices_are_refused(field: str) -> None:
    """Also where nothing checks types at run time, as in production."""
    config = Hatd3Config()
    object.__setattr__(config, field, "typo")
    with pytest.raises(ValueError, match=f"{field}.*typo"):
        config.__post_init__()


def test_critics_cannot_read_a_state_that_is_not_there() -> None:
    """Before anything is compiled."""
    with pytest.raises(ValueError, match="critic_input"):
        make(Hatd3Config(critic_input="state"), EnvSpec("t", (1,), (1,), 0, 1))
