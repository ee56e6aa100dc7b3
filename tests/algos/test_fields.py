"""Every field of an algorithm's configuration changes what the algorithm is."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners import CONFIGS, batch_for

from omad import algos
from omad.types import EnvSpec

SPEC = EnvSpec("equal", (2, 2), (2, 2), 3, 5)
"""Agents of equal sizes, which may share a policy, and a state, which critics may read."""
HARL: dict[str, Any] = {
    "actor_width": 9, "actor_layers": 3, "critic_width": 9, "critic_layers": 3, "critic_input": "obs",
    "critic_loss": "huber", "huber_delta": (2.0, {"critic_loss": "huber"}), "tau": 0.3, "gamma": 0.9, "n_step": 2,
    "actor_lr": 0.01, "critic_lr": 0.01, "lr_decay_steps": 99, "actor_every": 2,
}  # fmt: skip
DENOISING: dict[str, Any] = {
    "denoising_steps": 2, "prior_scale": 0.7, "beta_scale": 0.3, "actor_width": 9, "actor_layers": 3, "time_width": 6,
    "critic_width": 9, "critic_layers": 3, "critic_input": "obs", "gamma": 0.9, "n_step": 2, "reward_scale": 0.7,
    "target_samples": 2, "actor_lr": 0.01, "actor_lr_end": 0.02, "actor_decay_begin": 7, "actor_decay_steps": 99,
    "critic_lr": 0.01, "critic_decay_steps": 99, "actor_every": 2, "tau": 0.3, "noise_scale": 0.3,
    "alpha_mode": "fixed", "alpha_init": 0.7, "alpha_lr": 0.01, "alpha_pace": "env", "alpha_every": 3,
    "target_entropy_per_dim": -0.5,
}  # fmt: skip
LIMIT: dict[str, Any] = {"target_run_end": 5.0, "target_run_steps": 9}
OTHERS: dict[str, dict[str, Any]] = {
    "omad": {
        "denoising_steps": 2, "prior_scale": 1.5, "step_init": 0.2, "friction_init": 2.0, "learn_step_size": False,
        "control_clip": 9.0, "chain_kernel": "exact", "share_policy": True, "actor_width": 9, "actor_layers": 3,
        "time_frequencies": 3, "time_width": 6, "critic_width": 9, "critic_layers": 3, "critic_net": "xqc",
        "critic_blocks": (1, {"critic_net": "xqc"}), "critic_input": "obs", "critic_kind": "scalar",
        "critic_scope": "independent", "critic_reduce": "min", "target_network": True,
        "tau": (0.3, {"target_network": True}), "atoms": 7, "v_max": 7.0, "atom_entropy": 0.1, "renorm_momentum": 0.7,
        "renorm_warmup": 7, "gamma": 0.9, "n_step": 2, "actor_lr": 0.01, "critic_lr": 0.01, "lr_decay_steps": 99,
        "adam_b1": 0.7, "actor_clip": 0.7, "actor_every": 2, "policy_average": 0.7, "policy_update": "sequential",
        "alpha_mode": "fixed", "alpha_init": 0.7, "alpha_lr": 0.01, "alpha_pace": "env", "alpha_per_agent": True,
        "target_run_per_dim": 5.0, "target_run_end": (6.0, LIMIT), "target_run_begin": (7, LIMIT),
        "target_run_steps": (7, LIMIT),
    },
    "hasac": HARL | {
        "actor_final": "relu", "alpha_mode": "fixed", "alpha_init": 0.7, "alpha_lr": 0.01, "alpha_pace": "env",
        "target_entropy_per_dim": -0.5,
    },
    "hatd3": HARL | {"explore_noise": 0.3, "target_noise": 0.3, "target_noise_clip": 0.3},
    "madpmd": DENOISING | {
        "score_limit": 2.0, "moments_rate": 0.1, "reference_weights": True, "reference_double_step": True,
    },
    "masdac": DENOISING | {"reconstructions": 3, "weight_scale": 2.0},
}  # fmt: skip
"""Another value of every field; with it, other fields that both have, where it has no effect on its own."""
ALWAYS = ("omad", "hatd3")


@functools.cache
def made(config: Any) -> Any:
    return algos.make(config, SPEC, updates_per_env_step=4.0)


@functools.cache
def program(config: Any, part: str) -> Any:
    """One function of an algorithm as it would be compiled, with all the constants that it holds."""
    algorithm, key = made(config), jax.random.key(0)
    if part == "numbers":
        return algorithm.gamma, algorithm.n_step
    if part == "init":
        traced = jax.make_jaxpr(algorithm.init)(key)
    else:
        learner, batch = jax.eval_shape(algorithm.init, key), batch_for(SPEC, size=4)
        if part == "update":
            traced = jax.make_jaxpr(algorithm.update)(learner, batch, key, jnp.asarray(1))
        else:
            act = functools.partial(algorithm.act, explore=True)
            traced = jax.make_jaxpr(act)(jax.eval_shape(algorithm.policy, learner), batch.obs, key)
    return str(traced), [np.asarray(const).tobytes() for const in traced.consts]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_table_has_every_field(name: str) -> None:
    assert set(OTHERS[name]) == {field.name for field in dataclasses.fields(CONFIGS[name])}


@pytest.mark.parametrize(
    ("name", "field"),
    [
        pytest.param(name, field, marks=() if name in ALWAYS else pytest.mark.slow)
        for name, fields in OTHERS.items()
        for field in fields
    ],
)
def test_every_field_has_an_effect(name: str, field: str) -> None:
    """On what the sampler is told, or on the program of fresh parameters, of acting, or of a gradient step."""
    other = OTHERS[name][field]
    other, both = other if isinstance(other, tuple) else (other, {})
    config = dataclasses.replace(CONFIGS[name], **both)
    changed = dataclasses.replace(config, **{field: other})
    parts = ("numbers", "init", "act", "update")
    assert any(program(config, part) != program(changed, part) for part in parts)


def test_equal_fields_have_equal_programs() -> None:
    """Lest programs differ whatever is compared."""
    config = CONFIGS["hatd3"]
    before = [program(config, part) for part in ("init", "act", "update")]
    program.cache_clear()
    made.cache_clear()
    assert before == [program(dataclasses.replace(config), part) for part in ("init", "act", "update")]
