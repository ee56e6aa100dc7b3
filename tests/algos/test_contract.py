"""What every algorithm promises to the loops: `init`, `policy`, `act`, `update` are pure, seeded and bounded.

A new algorithm is tested by an entry in `learners.CONFIGS`.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from learners import ALL_AT_ONCE, CONFIGS, XQC, Setup, batch_for, ordinary, small_setup

from omad import algos
from omad.loop.fused import RETURN, LoopConfig, no_metrics
from omad.tree import all_finite
from omad.types import Mean

NIGHTLY = ("masdac", ALL_AT_ONCE, XQC)
"""As `madpmd` and `omad`, but for what tests of their own look at."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=pytest.mark.slow if n in NIGHTLY else ()) for n in (*CONFIGS, ALL_AT_ONCE, XQC)],
)
def setup(request: pytest.FixtureRequest) -> Setup:
    """The compiled learner of the name, on the probe whose agents are of unequal size."""
    return small_setup(request.param)


def test_every_registered_algorithm_is_tested() -> None:
    """And can be made from its own configuration class by name."""
    assert set(CONFIGS) == set(algos.REGISTRY)
    for name, config in CONFIGS.items():
        assert type(config) is algos.config_class(name)


def test_unknown_algorithms_are_refused_with_the_nearest() -> None:
    """As everywhere: what was given, what is there."""
    with pytest.raises(ValueError, match=r"omat.*omad"):
        algos.config_class("omat")


def test_update_is_deterministic(setup: Setup) -> None:
    """The same learner, batch, key and count give the same bits; another key gives others."""
    again = setup.update(setup.learner, setup.batch, setup.key, jnp.asarray(setup.due))
    assert eqx.tree_equal(again, setup.acting)
    other, _ = setup.update(setup.learner, setup.batch, jax.random.key(8), jnp.asarray(setup.due))
    assert not eqx.tree_equal(other, setup.acting[0])


def test_seeds_give_different_parameters(setup: Setup) -> None:
    """In every random layer; the same seed gives the same ones."""
    first, again, other = (setup.init(jax.random.key(seed)) for seed in (0, 0, 1))
    assert eqx.tree_equal(first, again)
    different = [
        not np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
        if a.ndim >= 3 and len(np.unique(a)) > 1
    ]
    assert len(different) >= 5 and all(different)


def test_agents_start_out_different(setup: Setup) -> None:
    """No parameters are shared by accident of a reused key."""
    for leaf in jax.tree.leaves(setup.algorithm.policy(setup.init(jax.random.key(0)))):
        rows = np.asarray(leaf)
        if len(np.unique(rows)) > 2:
            assert not np.array_equal(rows[0], rows[1])


def counts(learner: Any) -> dict[str, list[int]]:
    """All counters of each optimiser there is; where agents are updated in turn, one an agent."""
    return {
        field: [int(n) for _, kept in optax.tree.get_all_with_path(getattr(learner, field), "count")
                for n in np.ravel(kept)]
        for field in ("actor_opt", "critic_opt", "alpha_opt") if hasattr(learner, field)
    }  # fmt: skip


def test_one_optimiser_step_an_update(setup: Setup) -> None:
    """Critics at every count, the others at their own cadence; each counter rises by exactly one."""
    learner, key = setup.learner, setup.key
    every = {"critic_opt": 1, "actor_opt": setup.due, "alpha_opt": getattr(setup.config, "alpha_every", setup.due)}
    assert all(n == 0 for numbers in counts(learner).values() for n in numbers)
    for count in range(1, 8):
        key, update_key = jax.random.split(key)
        learner, metrics = setup.update(learner, setup.batch, update_key, jnp.asarray(count))
        assert set(metrics) == set(setup.plain[1])
        for field, numbers in counts(learner).items():
            assert numbers and all(n == count // every[field] for n in numbers), (field, count)
        assert bool(all_finite((learner, metrics)))


def test_metrics_are_the_same_at_every_update(setup: Setup) -> None:
    """Those that the loops read from shapes: scalars, weight 0 or 1, finite."""
    config = LoopConfig(
        n_envs=2, updates_per_step=1, batch_size=len(setup.batch.ret), buffer_rows=8, warmup_vector_steps=4
    )
    kept = no_metrics(setup.algorithm, setup.spec, config)
    assert all(float(mean.weight) == float(mean.total) == 0.0 for mean in kept.values())
    for _, metrics in (setup.plain, setup.acting):
        assert {*metrics, RETURN} == set(kept)
        for name, mean in metrics.items():
            assert isinstance(mean, Mean) and mean.total.shape == mean.weight.shape == (), name
            assert float(mean.weight) in (0.0, 1.0), name
            assert np.isfinite(float(mean.total)), name
    assert all(float(m.weight) == 1.0 for m in setup.acting[1].values())


def test_update_keeps_the_type_of_every_leaf(setup: Setup) -> None:
    """Shape, dtype and weak type: else the second update compiles everything once more."""
    fresh = jax.eval_shape(setup.algorithm.init, jax.random.key(0))
    after, _ = jax.eval_shape(setup.algorithm.update, fresh, setup.batch, jax.random.key(0), jnp.asarray(1))

    def types(tree: Any) -> dict[str, Any]:
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {jax.tree_util.keystr(path): (x.shape, x.dtype, x.weak_type) for path, x in leaves}

    assert types(fresh) == types(after)


def test_nothing_becomes_non_finite(setup: Setup) -> None:
    """Learner and metrics after updates on ordinary, huge and constant batches."""
    batch = setup.batch
    extremes = [
        batch,
        jax.tree.map(lambda x: 100.0 * x, dataclasses.replace(batch, discount=batch.discount / 100)),
        jax.tree.map(jnp.zeros_like, batch),
    ]
    for given in extremes:
        for count in (1, setup.due):
            assert bool(all_finite(setup.update(setup.learner, given, setup.key, jnp.asarray(count))))


@pytest.mark.parametrize("explore", [True, False])
def test_actions_are_bounded_and_padding_is_zero(setup: Setup, explore: bool) -> None:
    """In [-1, 1] for ordinary and absurd parameters; padded dimensions exactly 0; leading axes are free."""
    obs = jnp.stack([batch_for(setup.spec, seed).obs for seed in (0, 1, 2)]) * 3.0
    act = jax.jit(lambda policy, key: setup.algorithm.act(policy, obs, key, explore))
    padded = np.asarray(setup.spec.act_mask) == 0
    assert padded.any()
    policy = setup.algorithm.policy(setup.learner)
    for scale in (0.0, 30.0):
        action = np.asarray(act(ordinary(policy, 9, scale), setup.key))
        assert action.shape == (*obs.shape[:-1], setup.spec.act_dim)
        assert np.isfinite(action).all() and np.abs(action).max() <= 1.0
        assert not action[..., padded].any()
        assert np.abs(action[..., ~padded]).max() > 0


def test_exploration_draws_and_its_absence_does_not(setup: Setup) -> None:
    """Explore: the key decides, rows of a batch differ. Not explore: the key is without effect."""
    policy, obs = setup.algorithm.policy(setup.learner), jnp.tile(setup.batch.obs[:1], (4, 1, 1))

    compiled = jax.jit(setup.algorithm.act, static_argnums=3)

    def act(seed: int, explore: bool) -> np.ndarray:
        return np.asarray(compiled(policy, obs, jax.random.key(seed), explore))[..., 0]

    np.testing.assert_array_equal(act(0, True), act(0, True))
    assert not np.isclose(act(0, True), act(1, True)).any()
    assert len(np.unique(act(0, True))) == 8
    np.testing.assert_array_equal(act(0, False), act(1, False))
    np.testing.assert_allclose(act(0, False), np.tile(act(0, False)[:1], (4, 1)), atol=1e-6)


def test_acting_takes_a_policy_own_observations_and_a_key_only(setup: Setup) -> None:
    """Decentralised execution is visible in the signature: no state, no critic."""
    parameters = list(inspect.signature(setup.algorithm.act).parameters)
    assert len(parameters) == 4 and parameters[1:] == ["obs", "key", "explore"]


@pytest.mark.parametrize("explore", [True, False])
def test_actions_depend_on_own_observations_alone(setup: Setup, explore: bool) -> None:
    """Jacobian: d action_i / d obs_j is exactly zero for i != j, and not zero for i = j."""
    policy, obs = setup.algorithm.policy(setup.learner), setup.batch.obs[0]
    jacobian = np.asarray(jax.jit(jax.jacrev(lambda o: setup.algorithm.act(policy, o, setup.key, explore)))(obs))
    n, act_dims = setup.spec.n_agents, setup.spec.act_dims
    assert jacobian.shape == (n, setup.spec.act_dim, n, setup.spec.obs_dim)
    for i in range(n):
        for j in range(n):
            assert jacobian[i, : act_dims[i], j].any() == (i == j)
        assert not jacobian[i, act_dims[i] :].any()  # a padded action hangs on nothing


def test_policy_holds_nothing_but_what_acts(setup: Setup) -> None:
    """Every leaf of the policy matters for its actions (all but the padding), and there is no critic among them."""
    policy = setup.algorithm.policy(setup.learner)
    size = sum(leaf.size for leaf in jax.tree.leaves(policy))
    assert size < sum(leaf.size for leaf in jax.tree.leaves(setup.learner)) / 2
    for leaf in jax.tree.leaves(policy):
        assert leaf.shape[0] == setup.spec.n_agents


def test_gamma_and_n_step_are_declared(setup: Setup) -> None:
    """What the sampler needs."""
    assert (setup.algorithm.gamma, setup.algorithm.n_step) == (setup.config.gamma, setup.config.n_step)
