"""HASAC's update against its equations, written out here a second time and slowly."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from learners import CONFIGS, Setup, constant_twins, filled, moment, set_up, value

from omad import buffer
from omad.algos.hasac import HasacConfig, Temperatures, make
from omad.keys import normal
from omad.policies import GaussianPolicy, sample_gaussian
from omad.tree import at
from omad.types import EnvSpec

SPEC = EnvSpec("unequal", (3, 1, 2), (1, 3, 2), 4, 5)
"""Three agents of unequal sizes, and a state for critics."""
N = SPEC.n_agents


@pytest.fixture(scope="module")
def trio() -> Setup:
    """HASAC for three agents."""
    return set_up(CONFIGS["hasac"], SPEC)


def spread(actors: GaussianPolicy, *log_std: float) -> GaussianPolicy:
    """Policies of mean zero whose log standard deviations are these, whatever they see."""
    flat = jax.tree.map(jnp.zeros_like, actors)
    bias = jnp.broadcast_to(jnp.asarray(log_std)[:, None], flat.log_std.bias.shape)
    return dataclasses.replace(flat, log_std=dataclasses.replace(flat.log_std, bias=bias))


def all_alpha(alpha: float) -> Temperatures:
    return Temperatures(jnp.full(N, math.log(alpha)), jnp.asarray(math.log(alpha)))


def log_density(noise: Any, log_std: Any) -> Any:
    """Of tanh(std noise), by the textbook, summed over the real dimensions: (batch, agent)."""
    x = np.exp(log_std) * noise
    each = -0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - np.tanh(x) ** 2)
    return np.sum(each * SPEC.act_mask, -1)


# ---------------------------------------------------------------- critics


def test_target_and_loss_by_hand(trio: Setup) -> None:
    """Target twins 7 and 5, two rewards summing to 1 + 0.9 * 2, alpha 0: y = 2.8 + 0.81 * 5 = 6.85.

    Twins that say 0 and 1: half of 6.85^2 + 5.85^2, 40.5725 in all.
    """
    learner = dataclasses.replace(
        trio.learner,
        critics=constant_twins(trio.learner.critics, 0.0, 1.0),
        critics_target=constant_twins(trio.learner.critics, 7.0, 5.0),
        temperatures=all_alpha(1e-30),
    )
    _, metrics = trio.update(learner, filled(trio.batch, ret=2.8, discount=0.81), trio.key, jnp.asarray(1))
    assert value(metrics, "critic/target") == pytest.approx(6.85, rel=1e-5)
    assert value(metrics, "critic/loss") == pytest.approx(40.5725, rel=1e-5)
    assert value(metrics, "critic/q") == pytest.approx(0.5)
    _, metrics = trio.update(learner, filled(trio.batch, ret=2.8, discount=0.0), trio.key, jnp.asarray(1))
    assert value(metrics, "critic/target") == pytest.approx(2.8, rel=1e-5)


def test_entropy_bonus_of_the_target(trio: Setup) -> None:
    """-0.9 * 0.5 * mean sum_i log pi_i on top, by the critics' own temperature; none of it after a termination."""
    log_std = np.asarray([0.0, -1.0, -2.0])
    learner = dataclasses.replace(
        trio.learner,
        actors=spread(trio.learner.actors, *log_std),
        critics_target=constant_twins(trio.learner.critics, 0.0, 0.0),
        temperatures=Temperatures(jnp.full(N, 3.0), jnp.asarray(math.log(0.5))),
    )
    noise = np.asarray(normal(jax.random.split(trio.key)[0], trio.batch.action.shape), float)
    bonus = -0.5 * log_density(noise, log_std[:, None]).sum(1).mean()
    for discount in (0.9, 0.0):
        _, metrics = trio.update(learner, filled(trio.batch, ret=1.0, discount=discount), trio.key, jnp.asarray(1))
        assert value(metrics, "critic/target") == pytest.approx(1.0 + discount * bonus, rel=1e-4)


def test_n_step_targets_from_the_buffer(trio: Setup) -> None:
    """Reward 1 throughout, n = 3, gamma 0.99: y = 1 + 0.99 + 0.9801 + 0.970299 * 5 = 7.821595."""
    assert (trio.algorithm.n_step, trio.algorithm.gamma) == (3, 0.99)
    ring = buffer.make(SPEC, 8, 2)
    ring = dataclasses.replace(ring, reward=jnp.ones_like(ring.reward))
    batch = buffer.sample(ring, jnp.asarray(8), jax.random.key(1), 16, trio.algorithm.gamma, trio.algorithm.n_step)
    learner = dataclasses.replace(
        trio.learner, critics_target=constant_twins(trio.learner.critics, 5.0, 7.0), temperatures=all_alpha(1e-30)
    )
    batch = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), batch, trio.batch)
    _, metrics = trio.update(learner, batch, trio.key, jnp.asarray(1))
    assert value(metrics, "critic/target") == pytest.approx(7.821595, rel=1e-5)


def test_critic_gradient_is_that_of_the_written_loss(trio: Setup) -> None:
    """Squared error to the target, halved, summed over the twins; one Adam step on it; the state is read."""
    learner, batch, (after, metrics) = trio.learner, trio.batch, trio.plain
    noise = normal(jax.random.split(trio.key)[0], batch.action.shape)
    mask = jnp.asarray(SPEC.act_mask, jnp.float32)
    drawn = [sample_gaussian(at(learner.actors, i), batch.next_obs[:, i], noise[:, i], mask[i]) for i in range(N)]
    next_x = jnp.concatenate([batch.next_state, *[d.action for d in drawn]], -1)
    next_q = jnp.minimum(*[at(learner.critics_target, c)(next_x)[:, 0] for c in (0, 1)])
    alpha = jnp.exp(learner.temperatures.log_critic)
    goal = batch.ret + batch.discount * (next_q - alpha * jnp.sum(jnp.stack([d.log_prob for d in drawn]), axis=0))
    x = jnp.concatenate([batch.state, batch.action.reshape(len(batch.ret), -1)], -1)

    def objective(critics: Any) -> Any:
        return sum(0.5 * jnp.mean((at(critics, c)(x)[:, 0] - goal) ** 2) for c in (0, 1))

    loss, grads = jax.jit(jax.value_and_grad(objective))(learner.critics)
    assert value(metrics, "critic/loss") == pytest.approx(float(loss), rel=1e-4)
    assert value(metrics, "critic/grad_norm") == pytest.approx(float(optax.tree.norm(grads)), rel=1e-4)
    for mu, g in zip(jax.tree.leaves(moment(after.critic_opt, grads)), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(mu, 0.1 * g, atol=1e-5)


def test_target_critics_follow_at_every_step(trio: Setup) -> None:
    """(1 - tau) target + tau online after the step, tau 0.1, with and without a policy update."""
    before = trio.learner.critics_target
    for after, _ in (trio.plain, trio.acting):
        for old, online, new in zip(*map(jax.tree.leaves, (before, after.critics, after.critics_target)), strict=True):
            np.testing.assert_allclose(new, 0.9 * old + 0.1 * online, atol=1e-6)


# ---------------------------------------------------------------- actors


def one_after_the_other(setup: Setup, critics: Any) -> tuple[list[Any], list[float]]:
    """A plain loop over agents in the order and with the draws of the update: new actors, mean log densities."""
    learner, batch, mask = setup.learner, setup.batch, jnp.asarray(SPEC.act_mask, jnp.float32)
    order_key, first_key, turns_key = jax.random.split(jax.random.split(setup.key)[1], 3)
    order = [int(i) for i in jax.random.permutation(order_key, N)]
    first, again = (
        jax.random.split(first_key, N),
        [jax.random.split(jax.random.fold_in(turns_key, t)) for t in range(N)],
    )
    actors = [at(learner.actors, i) for i in range(N)]
    shape, optimiser = (len(batch.ret), SPEC.act_dim), optax.adam(setup.config.actor_lr)

    @jax.jit
    def draw(actor: Any, obs: Any, key: Any, real: Any) -> Any:
        return sample_gaussian(actor, obs, normal(key, shape), real)

    actions = [draw(actors[i], batch.obs[:, i], first[i], mask[i]).action for i in range(N)]
    log_probs = [0.0] * N
    for turn, i in enumerate(order):

        def loss(actor: Any, i: int = i, turn: int = turn) -> Any:
            mine = draw(actor, batch.obs[:, i], again[turn][0], mask[i])
            joint = [mine.action if j == i else actions[j] for j in range(N)]
            x = jnp.concatenate([batch.state, *joint], -1)
            q = jnp.minimum(*[at(critics, c)(x)[:, 0] for c in (0, 1)])
            return jnp.mean(setup.config.alpha_init * mine.log_prob - q), mine.log_prob.mean()

        grads, log_prob = jax.jit(jax.grad(loss, has_aux=True))(actors[i])
        updates, _ = optimiser.update(grads, optimiser.init(actors[i]))
        actors[i] = optax.apply_updates(actors[i], updates)
        actions[i] = draw(actors[i], batch.obs[:, i], again[turn][1], mask[i]).action
        log_probs[i] = float(log_prob)
    return actors, log_probs


def test_sequential_update_is_a_plain_loop_over_agents(trio: Setup) -> None:
    """Same order, same draws: actors within 1e-6, and the entropies that are reported."""
    after, metrics = trio.acting
    actors, log_probs = one_after_the_other(trio, after.critics)
    for i in range(N):
        for looped, swept in zip(*map(jax.tree.leaves, (actors[i], at(after.actors, i))), strict=True):
            np.testing.assert_allclose(swept, looped, atol=1e-6)
    entropy = -sum(log_probs) / SPEC.joint_act_dim
    assert value(metrics, "policy/entropy") == pytest.approx(entropy, rel=1e-4)
    moved = [float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (trio.learner.actors, after.actors)),
                                                          strict=True)]  # fmt: skip
    assert max(moved) == pytest.approx(5e-4, rel=1e-3)


def test_every_agent_has_its_own_temperature_and_critics_another(trio: Setup) -> None:
    """A hotter agent 1 changes its own loss, and leaves the critics and whoever came before it as they were."""
    hot = dataclasses.replace(trio.learner.temperatures, log_agent=jnp.asarray([0.0, 2.0, 0.0]) + math.log(0.5))
    learner = dataclasses.replace(trio.learner, temperatures=hot)
    after, _ = trio.update(learner, trio.batch, trio.key, jnp.asarray(trio.due))
    base, _ = trio.acting
    for new, old in zip(*map(jax.tree.leaves, (after.critics, base.critics)), strict=True):
        np.testing.assert_array_equal(new, old)
    order = [int(i) for i in jax.random.permutation(jax.random.split(jax.random.split(trio.key)[1], 3)[0], N)]
    for place, i in enumerate(order):
        same = all(
            np.array_equal(new, old)
            for new, old in zip(*map(jax.tree.leaves, (at(after.actors, i), at(base.actors, i))),
                                strict=True)
        )  # fmt: skip
        assert same or place >= order.index(1)
        assert i != 1 or not same


def test_without_a_policy_update_actors_and_temperatures_stay(trio: Setup) -> None:
    """Bit for bit; their metrics say that nothing was measured."""
    after, metrics = trio.plain
    for field in ("actors", "actor_opt", "temperatures", "alpha_opt"):
        for new, old in zip(*(jax.tree.leaves(getattr(s, field)) for s in (after, trio.learner)), strict=True):
            np.testing.assert_array_equal(new, old)
    for name, mean in metrics.items():
        idle = name.startswith(("policy/", "alpha/")) and name != "policy/update_fraction"
        assert float(mean.weight) == (0.0 if idle else 1.0), name
    assert value(metrics, "policy/update_fraction") == 0.0
    assert value(trio.acting[1], "policy/update_fraction") == 1.0


def test_acting_samples_or_takes_the_mean(trio: Setup) -> None:
    """Explore: tanh(mean + std noise), each agent from its own row; not explore: tanh(mean)."""
    actors, obs = trio.learner.actors, trio.batch.obs
    mask = jnp.asarray(SPEC.act_mask, jnp.float32)
    noise = normal(trio.key, trio.batch.action.shape)
    for explore in (True, False):
        action = trio.algorithm.act(actors, obs, trio.key, explore)
        for i in range(N):
            mean, log_std = at(actors, i)(obs[:, i])
            expected = jnp.tanh(mean + explore * jnp.exp(log_std) * noise[:, i]) * mask[i]
            np.testing.assert_allclose(action[:, i], expected, atol=1e-6)


# ---------------------------------------------------------------- temperatures


def test_temperatures_rise_where_entropy_is_below_target_and_fall_above(trio: Setup) -> None:
    """Agent 1 is narrow, the others wide: its temperature alone rises; first Adam steps have size 3e-4.

    Slopes are -(mean log pi_i - d_i), and their sum for the critics' temperature.
    """
    for log_std, sign in (((-5.0, -5.0, -5.0), (1, 1, 1, 1)), ((0.0, -5.0, 0.0), (-1, 1, -1, 1)),
                          ((0.0, 0.0, 0.0), (-1, -1, -1, -1))):  # fmt: skip
        learner = dataclasses.replace(trio.learner, actors=spread(trio.learner.actors, *log_std))
        after, metrics = trio.update(learner, trio.batch, trio.key, jnp.asarray(trio.due))
        change = jax.tree.map(lambda new, old: new - old, after.temperatures, learner.temperatures)
        np.testing.assert_allclose([*change.log_agent, change.log_critic], 3e-4 * np.asarray(sign), rtol=2e-3)
        slope = optax.tree.get(after.alpha_opt, "mu")
        order_key, _, turns_key = jax.random.split(jax.random.split(trio.key)[1], 3)
        keys = [jax.random.split(jax.random.fold_in(turns_key, t))[0] for t in range(N)]
        order = jax.random.permutation(order_key, N)
        draws = {int(i): normal(key, (16, 3)) for key, i in zip(keys, order, strict=True)}
        noise = np.stack([np.asarray(draws[i], float) for i in range(N)], 1)
        excess = log_density(noise, np.asarray(log_std)[:, None]).mean(0) - np.asarray(SPEC.act_dims)
        np.testing.assert_allclose(slope.log_agent, -0.1 * excess, rtol=1e-3)
        assert float(slope.log_critic) == pytest.approx(-0.1 * excess.sum(), rel=1e-3)
        assert value(metrics, "alpha/critic") == pytest.approx(math.exp(float(after.temperatures.log_critic)), rel=1e-5)


# ---------------------------------------------------------------- variants and configuration


def test_huber_penalty_fixed_temperature_and_observations() -> None:
    """Huber from 1 on: errors of 6.85 and 5.85 cost 6.35 + 5.35; temperatures stay; critics read observations."""
    config = dataclasses.replace(
        CONFIGS["hasac"], critic_loss="huber", huber_delta=1.0, alpha_mode="fixed", alpha_init=0.0, critic_input="obs",
        actor_every=2,
    )  # fmt: skip
    setup = set_up(config, SPEC)
    assert setup.learner.critics.layers[0].weight.shape == (2, 3 * 3 + 3 * 3, 16)
    learner = dataclasses.replace(
        setup.learner,
        critics=constant_twins(setup.learner.critics, 0.0, 1.0),
        critics_target=constant_twins(setup.learner.critics, 7.0, 5.0),
    )
    after, metrics = setup.update(learner, filled(setup.batch, ret=2.8, discount=0.81), setup.key, jnp.asarray(2))
    assert value(metrics, "critic/loss") == pytest.approx(11.7, rel=1e-5)
    assert value(metrics, "alpha/value") < 1e-29
    np.testing.assert_array_equal(after.temperatures.log_agent, learner.temperatures.log_agent)


def test_defaults_are_harls() -> None:
    """Zhong et al. 2024 and Liu et al. 2024, code."""
    c = HasacConfig()
    assert (c.actor_width, c.actor_layers, c.actor_final, c.critic_width, c.critic_layers) == (256, 2, "tanh", 256, 2)
    assert (c.tau, c.gamma, c.n_step, c.actor_lr, c.critic_lr, c.actor_every) == (0.005, 0.99, 20, 5e-4, 5e-4, 1)
    assert (c.alpha_mode, c.alpha_init, c.alpha_lr, c.target_entropy_per_dim) == ("auto", 1.0, 3e-4, -1.0)
    assert (c.critic_loss, c.huber_delta) == ("mse", 10.0)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("actor_layers", 0), ("critic_width", 0), ("n_step", 0), ("actor_every", 0), ("actor_lr", math.nan),
        ("critic_lr", 0.0), ("alpha_lr", math.inf), ("alpha_init", 0.0), ("alpha_init", -1.0), ("gamma", 1.5),
        ("gamma", math.nan), ("tau", 0.0), ("huber_delta", -1.0), ("target_entropy_per_dim", math.nan),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_by_name(field: str, wrong: Any) -> None:
    """The message names the field and what was given."""
    with pytest.raises(ValueError, match=f"{field}.*{wrong}"):
        HasacConfig(**{field: wrong})


@pytest.mark.parametrize("field", ["critic_loss", "alpha_mode", "critic_input", "actor_final"])
def test_unknown_choices_are_refused(field: str) -> None:
    """Also where nothing checks types at run time, as in production."""
    config = HasacConfig()
    object.__setattr__(config, field, "typo")
    with pytest.raises(ValueError, match=f"{field}.*typo"):
        config.__post_init__()


def test_critics_cannot_read_a_state_that_is_not_there() -> None:
    """Before anything is compiled."""
    with pytest.raises(ValueError, match="critic_input"):
        make(HasacConfig(critic_input="state"), EnvSpec("t", (1,), (1,), 0, 1))
