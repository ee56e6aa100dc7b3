"""Random teams of every algorithm, made without training or compiling."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from omad import envs
from omad.algos import config_class
from omad.algos import make as make_algorithm
from omad.export.bundle import Facts
from omad.export.team import Trained
from omad.standardise import Standardised

ALGORITHMS = ("omad", "hasac", "hatd3", "madpmd", "masdac")
SMALL: dict[str, dict[str, Any]] = {
    "omad": {"denoising_steps": 4, "actor_width": 16, "actor_layers": 2, "time_frequencies": 4, "time_width": 8},
    "hasac": {"actor_width": 16, "actor_layers": 2},
    "hatd3": {"actor_width": 16, "actor_layers": 2},
    "madpmd": {"denoising_steps": 5, "actor_width": 16, "actor_layers": 2, "time_width": 4},
    "masdac": {"denoising_steps": 5, "actor_width": 16, "actor_layers": 2, "time_width": 4},
}


def team(algorithm: str, task: str, obs_norm: Any = "none", seed: int = 0, **fields: Any) -> Trained:
    """Weights of the size that a network starts with; every leaf differs from zero."""
    spec = envs.make(task).spec
    config = config_class(algorithm)(**SMALL[algorithm] | fields)
    made = make_algorithm(config, spec, obs_norm)
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda s: made.policy(made.init(jax.random.key(s))), 0)

    def fill(leaf: Any) -> Any:
        scale = (leaf.shape[-2] if len(leaf.shape) > 2 else 4.0) ** -0.5
        return jnp.asarray(scale * rng.standard_normal(leaf.shape), jnp.float32)

    policy = jax.tree.map(fill, shapes)
    if isinstance(policy, Standardised):
        policy = eqx.tree_at(lambda p: p.obs.variance, policy, 0.1 + jnp.square(policy.obs.variance))
    facts = Facts(task, "a protocol", algorithm, seed, 100, {"sampled": -1.0}, "run")
    return Trained(made.act, policy, spec, config, obs_norm, facts)
