"""What each ablation of OMAD changes, and what it must leave alone."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners import (
    ALL_AT_ONCE,
    CONFIGS,
    SMALL,
    VARIANTS,
    Setup,
    batch_for,
    moment,
    set_up,
    small_setup,
    value,
)

from omad import algos
from omad.algos.omad import OmadConfig
from omad.algos.omad_ablations import critic_scope
from omad.algos.value_head import distributional, scalar
from omad.critic_nets import RenormConfig
from omad.envs import games, probe
from omad.errors import UserError
from omad.loop import fused
from omad.ops import categorical
from omad.policies import draw_noise, sample_chain
from omad.tree import at
from omad.types import Mean


def test_scalar_values_by_hand() -> None:
    """Target r + g q, half the squared error; outputs are the values themselves."""
    head = scalar()
    q = jnp.asarray([[2.0], [-1.0]])
    target = head.bellman_target(q, jnp.asarray([0.5, 1.0]), jnp.asarray([0.9, 0.0]))
    np.testing.assert_allclose(target, [[2.3], [1.0]], rtol=1e-6)
    np.testing.assert_allclose(head.loss(target, head.decode(q)), [0.5 * 0.3**2, 2.0], rtol=1e-5)
    np.testing.assert_allclose(head.expectation(q), [2.0, -1.0])
    assert head.outputs == 1 and head.diagnostics(target, q) == {}


def test_distributional_values_are_the_categorical_ones() -> None:
    head = distributional(4.0, 5, 0.1)
    probs = head.decode(jnp.asarray([[0.0, 1.0, -2.0, 0.5, 0.0]]))
    target = head.bellman_target(probs, jnp.asarray([1.5]), jnp.asarray([0.5]))
    np.testing.assert_allclose(head.expectation(target), 1.5 + 0.5 * head.expectation(probs), rtol=1e-6)
    due = categorical.cross_entropy(target, probs) + 0.1 * categorical.negative_entropy(probs)
    np.testing.assert_allclose(head.loss(target, probs), due)
    assert set(head.diagnostics(target, probs)) == {
        "critic/atom_entropy",
        "critic/edge_mass",
        "critic/target_edge_mass",
    }


def changed(before: Any, after: Any, agent: int) -> bool:
    """Whether anything of an agent differs in trees with a leading agent axis."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return any(not np.array_equal(a[agent], b[agent]) for a, b in pairs)


def updated(setup: Setup, batch: Any, count: int) -> Any:
    return setup.update(setup.learner, batch, setup.key, jnp.asarray(count))[0]


def test_independent_critics_know_nothing_of_other_agents() -> None:
    """Agent 1's action and observations reach its own critics only; with joint critics they reach both twins."""
    setup = small_setup("omad independent")
    other = dataclasses.replace(
        setup.batch,
        action=setup.batch.action.at[:, 1].multiply(-0.5),
        obs=setup.batch.obs.at[:, 1].add(0.3),
        next_obs=setup.batch.next_obs.at[:, 1].add(0.3),
    )
    one, two = updated(setup, setup.batch, setup.due), updated(setup, other, setup.due)
    for part in ("critics", "actors"):
        assert not changed(getattr(one, part), getattr(two, part), 0), part
        assert changed(getattr(one, part), getattr(two, part), 1), part
    joint = small_setup("omad")
    one, two = updated(joint, joint.batch, joint.due), updated(joint, other, joint.due)
    assert changed(one.critics, two.critics, 0)
    assert changed(one.actors, two.actors, 0)


def test_losses_of_independent_critics_are_summed_and_reported_as_their_mean() -> None:
    """Then each agent's critics step as if they were alone, and the metric does not grow with the team."""
    spec = probe.push().spec
    scope = critic_scope(dataclasses.replace(SMALL, critic_scope="independent"), spec)

    def of_one(critics: Any, *batch: Any) -> Any:
        loss = critics * batch[0]
        return loss, (batch[0], {"critic/loss": Mean.of(loss)})

    losses, values = jnp.asarray([1.0, 5.0]), jnp.asarray([2.0, 3.0])
    total, (stats, metrics) = scope.loss(of_one)(losses, values, *[values] * 4, None)
    assert float(total) == 17.0
    np.testing.assert_array_equal(stats, values)
    np.testing.assert_allclose(metrics["critic/loss"].total / metrics["critic/loss"].weight, 8.5)


@functools.cache
def in_turn() -> Setup:
    """Policies one after the other, a pair of scalar XQC critics an agent, one temperature each."""
    config = dataclasses.replace(VARIANTS[ALL_AT_ONCE], critic_net="xqc", critic_blocks=1)
    return set_up(config, probe.push().spec)


def keys_of_policies(setup: Setup) -> list[Any]:
    """Of the noise that each agent's loss reads in an update."""
    key, n = jax.random.split(setup.key)[1], setup.spec.n_agents
    if setup.config.policy_update == "simultaneous":
        return list(jax.random.split(key, n))
    order_key, _, turns_key = jax.random.split(key, 3)
    order = jax.random.permutation(order_key, n)
    keys = {int(i): jax.random.split(jax.random.fold_in(turns_key, turn))[0] for turn, i in enumerate(order)}
    return [keys[i] for i in range(n)]


@pytest.mark.parametrize("policy_update", ["simultaneous", "sequential"])
def test_every_policy_is_pulled_by_its_own_critics_and_its_own_costs(policy_update: str) -> None:
    """mean[ alpha_i (R_i + P_i) - Q_i(o_i, a_i) ], the order deciding nothing: loss, and what Adam saw of each agent.

    Agents at once descend the sum of these; those in turn report the mean.
    """
    setup = small_setup("omad independent") if policy_update == "simultaneous" else in_turn()
    config, learner, batch, (after, metrics) = setup.config, setup.learner, setup.batch, setup.acting
    assert config.policy_update == policy_update
    n, mask = setup.spec.n_agents, jnp.asarray(setup.spec.act_mask, jnp.float32)
    alpha = jnp.broadcast_to(jnp.exp(learner.temperature.log_alpha), n)

    @jax.jit
    @jax.value_and_grad
    def objective(actor: Any, critics: Any, stats: Any, obs: Any, noise: Any, real: Any, alpha: Any) -> Any:
        chain = sample_chain(actor, obs, noise, real, 2.5, 1e4)
        x = jnp.concatenate([obs, chain.action], -1)
        out = [at(critics, c)(at(stats, c), x, RenormConfig()) for c in (0, 1)]
        if config.critic_kind == "scalar":
            q = jnp.minimum(out[0][:, 0], out[1][:, 0])
        else:
            q = sum(jax.nn.softmax(o) @ categorical.support(10.0, 11) for o in out) / 2
        return jnp.mean(alpha * (chain.running + chain.terminal) - q)

    losses = []
    for i, key in enumerate(keys_of_policies(setup)):
        noise = draw_noise(key, config.denoising_steps, len(batch.ret), setup.spec.act_dim)
        parts = (at(part, i) for part in (learner.actors, after.critics, after.stats))
        loss, grads = objective(*parts, batch.obs[:, i], noise, mask[i], alpha[i])
        losses.append(float(loss))
        seen = at(moment(after.actor_opt, learner.actors), i).denoiser
        for mu, g in zip(jax.tree.leaves(seen), jax.tree.leaves(grads.denoiser), strict=True):
            np.testing.assert_allclose(mu, 0.5 * jnp.clip(g, -config.actor_clip, config.actor_clip), atol=1e-4)
    due = np.sum(losses) if policy_update == "simultaneous" else np.mean(losses)
    assert value(metrics, "policy/loss") == pytest.approx(float(due), rel=1e-4)


def test_hidden_weights_of_xqc_are_at_unit_length_after_a_step() -> None:
    """Every unit's incoming ones, though Adam has moved them and they were of other lengths before."""
    setup = in_turn()

    def lengths(learner: Any) -> np.ndarray:
        return np.concatenate([np.linalg.norm(weight, axis=-2).ravel() for weight in learner.critics.weights])

    assert np.abs(lengths(setup.learner) - 1).max() > 0.1
    np.testing.assert_allclose(lengths(setup.plain[0]), 1.0, atol=1e-6)


@pytest.mark.slow
def test_sequential_is_simultaneous_where_agents_do_not_matter_to_each_other() -> None:
    """With independent critics the order decides nothing: over many keys both updates agree on average."""
    steps: dict[str, Any] = {}
    for kind in ("simultaneous", "sequential"):
        config = dataclasses.replace(SMALL, critic_scope="independent", policy_update=kind, actor_lr=1e-2)
        setup = set_up(config, probe.push().spec)
        batch = batch_for(setup.spec, size=256)

        def moved(key: Any, setup: Setup = setup, batch: Any = batch) -> Any:
            after, _ = setup.algorithm.update(setup.learner, batch, key, jnp.asarray(setup.due))
            return jax.tree.map(lambda new, old: new - old, after.actors, setup.learner.actors)

        over_keys = jax.jit(jax.vmap(moved))(jax.random.split(jax.random.key(3), 64))
        steps[kind] = np.concatenate([np.asarray(leaf).mean(0).ravel() for leaf in jax.tree.leaves(over_keys)])
    assert np.corrcoef(*steps.values())[0, 1] > 0.98
    assert np.abs(steps["sequential"]).max() > 0


def test_only_value_distributions_have_atoms_to_watch() -> None:
    spec = probe.push().spec
    for name, has in (("omad", True), ("omad sequential", True), ("omad scalar", False)):
        algorithm = algos.make((CONFIGS | VARIANTS)[name], spec)
        learner = jax.eval_shape(algorithm.init, jax.random.key(0))
        _, metrics = jax.eval_shape(algorithm.update, learner, batch_for(spec), jax.random.key(0), jnp.asarray(1))
        assert ("critic/edge_mass" in metrics) == has


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_losses_of_every_ablation_are_finite(name: str) -> None:
    assert np.isfinite(value(small_setup(name).acting[1], "critic/loss"))


def test_one_shared_policy_cannot_be_updated_in_turn() -> None:
    with pytest.raises(UserError, match="one policy to update"):
        OmadConfig(share_policy=True, policy_update="sequential")


@functools.cache
def learned(kind: str) -> float:
    """Mean reward on the islands after 1,500 gradient steps, one a vector step."""
    fields: dict[str, Any] = dict(word.split("=") for word in kind.split())
    config = OmadConfig(
        denoising_steps=4, actor_width=32, actor_layers=2, time_frequencies=8, time_width=16, critic_width=64,
        critic_layers=2, atoms=51, v_max=2.0, gamma=0.9, actor_lr=3e-3, critic_lr=3e-3, actor_every=2,
        alpha_mode="fixed", alpha_init=1e-3, **fields,
    )  # fmt: skip
    env = games.islands(2)
    algorithm = algos.make(config, env.spec)
    loop = fused.make(algorithm, env, fused.LoopConfig(8, 1, 64, 512, 32))
    seeds = jnp.asarray([0])
    carry = loop.warm(loop.init(seeds), seeds, jnp.asarray(0), jnp.asarray(32))
    carry = loop.chunk(carry, seeds, jnp.asarray(32), jnp.asarray(1500))
    assert np.asarray(loop.healthy(carry)).all()
    return float(carry.ring.reward[0, -200:].mean())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["", "critic_kind=scalar", "critic_scope=independent", "policy_update=sequential"])
def test_every_ablation_still_learns(kind: str) -> None:
    """Uniformly random actions get 0.59."""
    reward = learned(kind)
    assert reward > 0.75, reward
