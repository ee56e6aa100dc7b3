"""`omad bench` and its count of operations."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from omad.algos import make
from omad.algos.hasac import HasacConfig
from omad.algos.hatd3 import Hatd3Config
from omad.algos.omad import OmadConfig
from omad.commands.bench import measure
from omad.commands.operations import of_jaxpr, of_update
from omad.config import resolve
from omad.spec import EnvSpec


def operations(config: Any, spec: EnvSpec, size: int, every: int) -> float:
    """Of a gradient step of an algorithm."""
    return of_update(make(config, spec), spec, size, every)


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


def test_measure_reports_consistent_numbers():
    config = resolve(
        "probe/push", total_steps=1_000, warmup_steps=20, batch_size=8, v_max=5.0, atoms=11, denoising_steps=2,
        actor_width=8, actor_layers=1, critic_width=8, critic_layers=1,
    )  # fmt: skip
    found = measure(config, 0.2)
    rate = found["flops_per_gradient_step"] * found["gradient_steps_per_s"] / found["matmul_flops_per_s"]
    assert found["utilisation"] == pytest.approx(rate)
    assert found["env_steps_per_s"] == pytest.approx(
        found["gradient_steps_per_s"] / found["updates_per_env_step"], rel=1e-6
    )
