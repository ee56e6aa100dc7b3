"""`omad bench` and its count of operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import omad
from omad.algos import make
from omad.algos.hasac import HasacConfig
from omad.algos.hatd3 import Hatd3Config
from omad.algos.omad import OmadConfig
from omad.commands.bench import measure, side_of
from omad.commands.flop_count import of_jaxpr, products, rehearsal, update_jaxpr
from omad.commands.profiling import own_times, part_of
from omad.commands.versus import Side, compare, ratio
from omad.config import resolve
from omad.errors import UserError
from omad.spec import EnvSpec


def operations(config: Any, spec: EnvSpec, size: int, every: int) -> float:
    """Of a gradient step of an algorithm."""
    return of_jaxpr(update_jaxpr(make(config, spec), spec, size), every)


ONE = EnvSpec("t", (1,), (1,), 0, 1)
"""One agent, one observation, one action."""


def test_operations_of_hatd3_are_those_counted_by_hand():
    """Width 2, one layer, batch 1.

    Actor: 1*2 + 2*1 = 4 products. Critic: 2*2 + 2*1 = 6. The next actions: 4. Twins: targets 6, there and back
    6 + 6 + 2 (no dx in the first layer) each. Every 2nd step: 4, then 4*4 - 2 and one critic's 6 + 6.
    """
    config = Hatd3Config(actor_width=2, actor_layers=1, critic_width=2, critic_layers=1)
    assert operations(config, ONE, 1, 2) == 2 * (4 + 2 * (6 + 14) + (4 + 14 + 12) / 2)


def test_operations_of_hasac_are_those_counted_by_hand():
    """The same sizes.

    Actor: 1*2 + 2 heads of 2*1 = 6 products. Critic: 2*2 + 2*1 = 6. The next actions: 6. Twins: targets 6, there and
    back 6 + 6 + 2 (no dx in the first layer) each. A policy update: 6, then 4*6 - 2 and twice 6 + 6.
    """
    config = HasacConfig(actor_width=2, actor_layers=1, critic_width=2, critic_layers=1)
    assert operations(config, ONE, 1, 1) == 2 * (6 + 2 * (6 + 14) + 6 + 22 + 24)


def test_operations_of_omad_are_those_counted_by_hand():
    """Two agents, two steps of their chains, batch 3: all layers along the chain, both twins, the actor's way back."""
    size, width, obs, act, atoms = 3, 8, 4, 2, 11
    config = OmadConfig(
        denoising_steps=2, actor_width=width, actor_layers=2, time_frequencies=4, time_width=width, critic_width=16,
        critic_layers=2, atoms=atoms,
    )  # fmt: skip
    along = act * width + width * width + width * act
    embed = (2 * 4 + width + width) * width
    sample = 2 * (size * (2 * along + obs * width) + 2 * embed)
    back = 2 * sample - 2 * size * obs * width
    trunk, head = (2 * obs + 2 * act) * 16 + 16 * 16, 16 * atoms
    critic = 2 * size * (3 * trunk + head + 3 * (trunk + head))
    actor = sample + back + 2 * 2 * size * (trunk + head)
    found = operations(config, EnvSpec("t", (obs, obs), (act, act), 0, 1), size, 3)
    assert found == pytest.approx(2 * (sample + critic + actor / 3), rel=0.03)


def test_loops_and_branches_count_as_often_as_they_run():
    """A loop of known length as often, another once; of a switch the dearest branch; a convolution by its kernel."""
    square = jnp.ones((4, 4))
    product = 2.0 * 4**3

    def times(n: Any) -> Any:
        return lambda x: jax.lax.fori_loop(0, n, lambda _, y: y @ square, x)

    def count(function: Any, *given: Any, every: int = 1) -> float:
        return of_jaxpr(jax.make_jaxpr(function)(*given).jaxpr, every)

    assert count(times(5), square) == 5 * product
    assert count(lambda n, x: times(n)(x), 5, square) == product
    assert count(jax.jit(jax.grad(lambda x: jnp.sum(jnp.sin(x @ square)))), square) == 2 * product
    assert count(lambda i, x: jax.lax.switch(i, [times(2), times(3), times(1)], x), 1, square) == 3 * product
    pair = lambda i, x: jax.lax.cond(i > 0, times(6), times(2), x)  # noqa: E731
    assert count(pair, 1, square, every=4) == (6 + 3 * 2) / 4 * product
    image, kernel = jnp.ones((1, 3, 8, 8)), jnp.ones((5, 3, 2, 2))
    convolved = lambda x: jax.lax.conv(x, kernel, (1, 1), "VALID")  # noqa: E731
    assert count(convolved, image) == 2.0 * (5 * 7 * 7) * (3 * 2 * 2)


@pytest.mark.parametrize(
    ("algorithm", "own"),
    [("hatd3", {}), pytest.param("omad", {"v_max": 5.0, "atoms": 11, "denoising_steps": 2}, marks=pytest.mark.slow)],
)
def test_measure_reports_consistent_numbers(algorithm: str, own: dict[str, Any]):
    config = resolve(
        "probe/push", algorithm, total_steps=1_000, warmup_steps=20, batch_size=8, actor_width=8, actor_layers=1,
        critic_width=8, critic_layers=1, **own,
    )  # fmt: skip
    found = measure(config, 0.2)
    rate = found["flops_per_gradient_step"] * found["gradient_steps_per_s"] / found["matmul_flops_per_s"]
    assert found["utilisation"] == pytest.approx(rate)
    rate = found["flops_per_gradient_step"] * found["gradient_steps_per_s"] / found["own_matmul_flops_per_s"]
    assert found["own_utilisation"] == pytest.approx(rate)
    assert sum(found["shares"].values()) == pytest.approx(1.0)
    busy = ("acting", "env", "sampling", "target", "critic", "policy", "optimiser", "records")
    assert all(found["shares"][part] > 0 for part in busy), found["shares"]
    assert found["env_steps_per_s"] == pytest.approx(
        found["gradient_steps_per_s"] / found["updates_per_env_step"], rel=1e-6
    )


def test_equal_products_are_one_kind_and_are_made_as_often_as_they_are_counted():
    """Two of one shape, five times in a loop, one of another; a rehearsal does 64 times as much."""
    square, row = jnp.ones((4, 4)), jnp.ones((1, 4))

    def both(x: Any, y: Any) -> Any:
        return jax.lax.fori_loop(0, 5, lambda _, x: (x @ square) @ square, x), y @ square

    found = products(jax.make_jaxpr(both)(square, row).jaxpr)
    assert sorted((product.flops, count) for product, count in found.items()) == [(32.0, 1.0), (128.0, 10.0)]
    run, work = rehearsal(found)
    assert work == 128.0 * (640 + 1) + 32.0 * (64 + 1)
    assert [np.shape(number) for number in run()] == [(), ()]


def test_time_belongs_to_the_innermost_scope_and_not_to_the_loop_around():
    assert part_of("jit(one)/while/body/critic/transpose(jvp(critic))/policy/branch/optimiser/add") == "optimiser"
    assert part_of("jit(one)/while/body/critic/dot_general") == "critic"
    assert part_of("jit(one)/while/body/critics/add") == "other"
    events = [(0.0, 10.0, "while"), (1.0, 3.0, "a"), (4.0, 9.0, "cond"), (5.0, 8.0, "a"), (10.0, 11.0, "b")]
    assert own_times(events) == {"while": 3.0, "a": 5.0, "cond": 2.0, "b": 1.0}


def test_ratios_are_of_pairs():
    """A minute in which both are slow changes nothing."""
    assert ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0]) == {"ratio": 2.0, "low": 2.0, "high": 2.0}
    assert ratio([1.0, 2.0, 3.0, 4.0, 5.0], [1.0] * 5) == {"ratio": 3.0, "low": 2.0, "high": 4.0}


def test_a_side_is_told_what_was_given_and_nothing_else():
    """Another version may not know the settings of this one."""
    config = resolve("probe/push", "hatd3", "tiny", batch_size=8, actor_width=4)
    assert side_of(config) == {
        "task": "probe/push", "algorithm": "hatd3", "preset": "tiny", "fields": {"batch_size": 8, "actor_width": 4},
    }  # fmt: skip
    with pytest.raises(UserError, match="is not there; give a Python interpreter"):
        compare(Side("one", {}), Side("other", {}, Path("/nowhere/at/all")), 1.0)


def test_what_imported_code_prints_is_no_answer(tmp_path: Path):
    (tmp_path / "omad").mkdir()
    (tmp_path / "omad" / "__init__.py").write_text("print('[1.0, 1.0]', flush=True)\nraise ImportError('too old')\n")
    with pytest.raises(UserError, match=r"noisy cannot be timed .*too old"):
        compare(Side("noisy", {}, tmp_path), Side("never", {}, tmp_path), 1.0)


@pytest.mark.slow
def test_two_sides_take_turns():
    """The same twice is as fast as itself; one that fails says why."""
    config = resolve("probe/push", "hatd3", "tiny")
    one = Side("one", side_of(config))
    found = compare(one, Side("two", side_of(config), Path(omad.__file__).parents[1]), 4.0)
    assert found["pairs"] == 20 and 0.5 < found["cpu"]["ratio"] < 2.0
    assert found["cpu"]["low"] <= found["cpu"]["ratio"] <= found["cpu"]["high"]
    with pytest.raises(UserError, match=r"wrong cannot be timed .*no field 'nothing'"):
        compare(one, Side("wrong", side_of(config) | {"fields": {"nothing": 1}}), 1.0)
