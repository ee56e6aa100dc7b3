"""Helpers on pytrees of parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from omad.tree import all_finite, at, descend, each, global_norm, polyak, put


def test_descend_goes_downhill_and_counts_once() -> None:
    """One step of plain gradient descent and one of Adam, whose first step has the size of its rate."""
    params, grads = {"a": jnp.asarray([1.0, 2.0])}, {"a": jnp.asarray([0.5, -3.0])}
    sgd = optax.sgd(0.1)
    new, _ = descend(sgd, grads, sgd.init(params), params)
    np.testing.assert_allclose(new["a"], [0.95, 2.3], rtol=1e-6)
    adam = optax.adam(0.1)
    new, state = descend(adam, grads, adam.init(params), params)
    np.testing.assert_allclose(new["a"], [0.9, 2.1], rtol=1e-5)
    assert int(optax.tree.get(state, "count")) == 1


def test_a_flat_optimiser_for_each_entry_does_what_the_plain_one_does() -> None:
    """Adam's steps of two entries, leaf by leaf; moments are one vector an entry."""
    params = {"w": jnp.arange(12.0).reshape(2, 3, 2), "b": jnp.asarray([5.0, -1.0])}
    grads = jax.tree.map(lambda x: jnp.sin(x + 1.0), params)
    plain, flat = optax.adam(0.1), each(optax.flatten(optax.adam(0.1)))
    expected, found = (params, plain.init(params)), (params, flat.init(params))
    for _ in range(3):
        expected, found = (descend(tx, grads, state, old) for tx, (old, state) in ((plain, expected), (flat, found)))
    for name in params:
        np.testing.assert_allclose(found[0][name], expected[0][name], rtol=1e-6)
    assert optax.tree.get(found[1], "mu").shape == (2, 7)
    assert optax.tree.get(found[1], "count").tolist() == [3, 3]


def test_polyak_mixes_floats_and_takes_over_counters() -> None:
    """(1 - tau) target + tau online; tau 1 copies."""
    target = {"w": jnp.asarray([0.0, 10.0]), "n": jnp.asarray(3)}
    online = {"w": jnp.asarray([1.0, 20.0]), "n": jnp.asarray(7)}
    mixed = polyak(target, online, 0.25)
    np.testing.assert_allclose(mixed["w"], [0.25, 12.5])
    assert int(mixed["n"]) == 7 and mixed["n"].dtype == online["n"].dtype
    np.testing.assert_array_equal(polyak(target, online, 1.0)["w"], online["w"])


def test_rows_of_one_agent() -> None:
    """The leading axis goes."""
    tree = {"w": jnp.arange(6.0).reshape(3, 2), "b": jnp.arange(3)}
    row = at(tree, 1)
    np.testing.assert_array_equal(row["w"], [2.0, 3.0])
    assert int(row["b"]) == 1


def test_global_norm_is_over_all_leaves() -> None:
    """3, 4 and 12 make 13."""
    assert float(global_norm({"a": jnp.asarray([3.0, 4.0]), "b": jnp.asarray([[12.0]])})) == 13.0


def test_all_finite_sees_every_leaf_and_ignores_integers() -> None:
    """One bad entry anywhere is enough."""
    good = {"a": jnp.ones(3), "n": jnp.asarray(2**30)}
    assert bool(all_finite(good))
    for bad in (jnp.nan, jnp.inf, -jnp.inf):
        assert not bool(all_finite(good | {"b": jnp.asarray([0.0, bad])}))


def test_what_holds_no_real_numbers_is_finite() -> None:
    """Counters alone, and nothing at all; compiled as well."""
    for tree in ({"n": jnp.asarray([1, 2])}, {}):
        assert bool(all_finite(tree)) and bool(jax.jit(all_finite)(tree))


def test_rows_of_one_agent_are_put_back() -> None:
    """Only they change; the agent may be traced."""
    tree = {"w": jnp.arange(6.0).reshape(3, 2), "b": jnp.arange(3)}
    row = {"w": jnp.asarray([-1.0, -2.0]), "b": jnp.asarray(7)}
    for new in (put(tree, 1, row), jax.jit(put)(tree, 1, row)):
        np.testing.assert_array_equal(new["w"], [[0.0, 1.0], [-1.0, -2.0], [4.0, 5.0]])
        np.testing.assert_array_equal(new["b"], [0, 7, 2])
