"""`omad bench`: its count of operations against the program itself."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from omad import envs
from omad.algos.omad import OmadConfig, make
from omad.commands.bench import measure
from omad.config import resolve
from omad.types import Batch


def products(jaxpr: Any, branch: int) -> float:
    """Operations of all matrix products of a program, loops counted; of a branch, the given one."""
    total = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contract, _), _ = eqn.params["dimension_numbers"]
            depth = math.prod(eqn.invars[0].aval.shape[axis] for axis in contract)
            total += 2.0 * depth * math.prod(eqn.outvars[0].aval.shape)
        elif eqn.primitive.name == "cond":
            total += products(eqn.params["branches"][branch].jaxpr, branch)
        else:
            times = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
            for inner in jaxprs_in_params(eqn.params):
                total += times * products(inner, branch)
    return total


@pytest.mark.parametrize("target_network", [False, True])
def test_counted_operations_are_those_of_the_program(target_network: bool):
    """From shapes, within 3 % of the matrix products in the traced update, averaged over the cadence."""
    spec = envs.make("mpe/spread-3").spec
    config = OmadConfig(
        actor_width=64, actor_layers=2, time_frequencies=8, time_width=8, critic_width=96, target_network=target_network
    )
    algorithm, size = make(config, spec), 128
    batch = Batch(
        jnp.zeros((size, 3, 18)), jnp.zeros((size, 0)), jnp.zeros((size, 3, 5)), jnp.zeros(size), jnp.zeros(size),
        jnp.zeros((size, 3, 18)), jnp.zeros((size, 0)),
    )  # fmt: skip
    learner = jax.eval_shape(algorithm.init, jax.random.key(jnp.uint32(0)))
    traced = jax.make_jaxpr(algorithm.update)(learner, batch, jax.random.key(jnp.uint32(1)), jnp.int32(1)).jaxpr
    skipped, acted = products(traced, 0), products(traced, 1)
    assert acted > skipped
    found = skipped + (acted - skipped) / config.actor_every
    assert algorithm.flops(size) == pytest.approx(found, rel=0.03)


def test_measure_reports_consistent_numbers():
    config = resolve(
        "probe/push", total_steps=1_000, warmup_steps=20, batch_size=8, v_max=5.0, actor_width=8, critic_width=8
    )
    found = measure(config, 0.2)
    rate = found["flops_per_gradient_step"] * found["gradient_steps_per_s"] / found["matmul_flops_per_s"]
    assert found["utilisation"] == pytest.approx(rate)
    assert found["env_steps_per_s"] == pytest.approx(
        found["gradient_steps_per_s"] / found["updates_per_env_step"], rel=1e-6
    )
