"""One small learner, compiled once for all tests of algorithms."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from omad.algos.omad import OmadConfig, OmadState, make
from omad.types import Algorithm, Batch, EnvSpec, Metrics

SIZE = 16
SMALL = OmadConfig(
    denoising_steps=3, actor_width=8, actor_layers=2, time_frequencies=4, time_width=8,
    critic_width=16, critic_layers=2, atoms=11, v_max=10.0, alpha_init=0.5, actor_clip=0.1,
)  # fmt: skip


def ordinary(tree: Any, seed: int, scale: float = 0.3) -> Any:
    """The same tree with noise on every number, so that nothing is zero or symmetric by construction."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.asarray(scale * rng.standard_normal(x.shape), x.dtype), tree)


def batch_for(spec: EnvSpec, seed: int = 0, size: int = SIZE) -> Batch:
    """Random transitions; a quarter terminated; padded entries are zero."""
    rng = np.random.default_rng(seed)
    n, width = spec.n_agents, spec.obs_dim
    real = np.arange(width)[None, :] < np.asarray(spec.obs_dims)[:, None]

    def normal(*shape: int) -> Any:
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    return Batch(
        obs=normal(size, n, width) * real,
        state=normal(size, spec.state_dim),
        action=jnp.asarray(rng.uniform(-1, 1, (size, n, spec.act_dim)), jnp.float32) * spec.act_mask,
        ret=normal(size),
        discount=jnp.asarray(np.where(np.arange(size) % 4 == 0, 0.0, 0.99), jnp.float32),
        next_obs=(normal(size, n, width) + 1.0) * real,
        next_state=normal(size, spec.state_dim) + 1.0,
    )


@dataclasses.dataclass(frozen=True)
class Setup:
    """A compiled learner, one state of it, a batch and a key; and what one update makes of them."""

    config: OmadConfig
    spec: EnvSpec
    algorithm: Algorithm
    init: Any
    update: Any
    learner: OmadState
    batch: Batch
    seed: int
    plain: tuple[OmadState, Metrics]
    """After gradient step 1: critics only."""
    acting: tuple[OmadState, Metrics]
    """After gradient step 3: actors and temperature too."""

    @property
    def key(self) -> jax.Array:
        """A fresh copy of the one key of all updates."""
        return jax.random.key(self.seed)


def set_up(config: OmadConfig, spec: EnvSpec) -> Setup:
    """Compile `init` and `update` once."""
    algorithm = make(config, spec)
    # Strong types, as records have that are made by hand: `update` is compiled for one kind only.
    init = jax.jit(lambda key: jax.tree.map(lambda x: jnp.asarray(x, x.dtype), algorithm.init(key)))
    update = jax.jit(algorithm.update)
    learner = init(jax.random.key(0))
    learner = dataclasses.replace(
        learner, actors=ordinary(learner.actors, 1), critics=ordinary(learner.critics, 2, 0.1)
    )
    if learner.target is not None:
        learner = dataclasses.replace(learner, target=(ordinary(learner.target[0], 3, 0.1), learner.target[1]))
    batch = batch_for(spec)

    def after(count: int) -> Any:
        return update(learner, batch, jax.random.key(7), jnp.asarray(count))

    return Setup(config, spec, algorithm, init, update, learner, batch, 7, after(1), after(3))
