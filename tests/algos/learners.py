"""One small learner of each algorithm, compiled once for all tests."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from omad import algos
from omad.algos.hasac import HasacConfig
from omad.algos.hatd3 import Hatd3Config
from omad.algos.madpmd import MadpmdConfig
from omad.algos.masdac import MasdacConfig
from omad.algos.omad import OmadConfig
from omad.envs import probe
from omad.types import Algorithm, Batch, EnvSpec, Metrics

SIZE = 16
SMALL = OmadConfig(
    denoising_steps=3, actor_width=8, actor_layers=2, time_frequencies=4, time_width=8,
    critic_width=16, critic_layers=2, atoms=11, v_max=10.0, alpha_init=0.5, actor_clip=0.1,
    lr_decay_steps=30,
)  # fmt: skip
TINY_DDPM: dict[str, Any] = {
    # Little noise, so that few actions lie on the edge of the box, where nothing has a gradient.
    "denoising_steps": 3, "beta_scale": 0.05, "prior_scale": 0.3, "actor_width": 8, "actor_layers": 2, "time_width": 4,
    "critic_width": 16, "critic_layers": 2, "actor_every": 3, "tau": 0.1, "alpha_init": 0.5, "alpha_every": 2,
    "actor_decay_begin": 0, "actor_decay_steps": 10, "critic_decay_steps": 30,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "omad": SMALL,
    "hasac": HasacConfig(
        actor_width=8, critic_width=16, alpha_init=0.5, n_step=3, actor_every=3, tau=0.1, lr_decay_steps=30
    ),
    "hatd3": Hatd3Config(actor_width=8, critic_width=16, n_step=3, actor_every=3, tau=0.1, lr_decay_steps=30),
    "madpmd": MadpmdConfig(**TINY_DDPM),
    "masdac": MasdacConfig(**TINY_DDPM, reconstructions=4),
}
"""Small settings of every registered algorithm, with a policy update that does not come at every gradient step.

Rates fall to a tenth in 30 gradient steps; at the first step of an optimiser they are what they are without a decay."""
ALL_AT_ONCE, XQC = "omad scalar independent sequential", "omad xqc exact"
VARIANTS: dict[str, Any] = {
    "omad scalar": dataclasses.replace(SMALL, critic_kind="scalar"),
    "omad independent": dataclasses.replace(SMALL, critic_scope="independent"),
    "omad sequential": dataclasses.replace(SMALL, policy_update="sequential"),
    ALL_AT_ONCE: dataclasses.replace(
        SMALL, critic_kind="scalar", critic_scope="independent", policy_update="sequential", target_network=True,
        critic_reduce="min", alpha_per_agent=True, learn_step_size=False,
    ),
    XQC: dataclasses.replace(
        SMALL, critic_net="xqc", critic_blocks=1, critic_reduce="min", chain_kernel="exact", policy_average=0.9
    ),
}  # fmt: skip
"""Ablations and options; the last two are held to the same contract as algorithms."""
NOISE = {"actors": 0.3, "actors_average": 0.3, "actors_target": 0.3, "critics": 0.1, "critics_target": 0.1}
"""Noise on each field of parameters, whatever an algorithm has of them."""


def ordinary(tree: Any, seed: int, scale: float = 0.3) -> Any:
    """The same tree with noise on every number, so that nothing is zero or symmetric by construction."""
    rng = np.random.default_rng(seed)
    noisy = lambda x: (np.asarray(x) + scale * rng.standard_normal(x.shape)).astype(x.dtype)  # noqa: E731
    return jax.tree.map(lambda x: jax.device_put(noisy(x)), tree)


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

    config: Any
    spec: EnvSpec
    algorithm: Algorithm
    init: Any
    update: Any
    learner: Any
    batch: Batch
    seed: int
    due: int
    """The first gradient step with a policy update."""
    plain: tuple[Any, Metrics]
    """After gradient step 1: critics only."""
    acting: tuple[Any, Metrics]
    """After gradient step `due`: actors too."""

    @property
    def key(self) -> jax.Array:
        """A fresh copy of the one key of all updates."""
        return jax.random.key(self.seed)


def set_up(config: Any, spec: EnvSpec) -> Setup:
    """Compile `init` and `update` once."""
    algorithm = algos.make(config, spec)
    # Strong types, as records have that are made by hand: `update` is compiled for one kind only.
    init = jax.jit(lambda key: jax.tree.map(lambda x: jnp.asarray(x, x.dtype), algorithm.init(key)))
    update = jax.jit(algorithm.update)
    learner = init(jax.random.key(0))
    # OMAD may have pairs of target critics and their statistics, which stay as they are, or none.
    fields = [name for name in NOISE if not isinstance(getattr(learner, name, None), tuple | None)]
    learner = dataclasses.replace(
        learner, **{f: ordinary(getattr(learner, f), i, NOISE[f]) for i, f in enumerate(fields, 1)}
    )
    target = getattr(learner, "critics_target", None)
    if isinstance(target, tuple):
        learner = dataclasses.replace(learner, critics_target=(ordinary(target[0], 3, 0.1), target[1]))
    batch = batch_for(spec)
    assert config.actor_every > 1

    def after(count: int) -> Any:
        return update(learner, batch, jax.random.key(7), jnp.asarray(count))

    return Setup(
        config,
        spec,
        algorithm,
        init,
        update,
        learner,
        batch,
        7,
        config.actor_every,
        after(1),
        after(config.actor_every),
    )


@functools.cache
def small_setup(name: str) -> Setup:
    """An algorithm's small learner on the probe whose agents are of unequal size."""
    return set_up((CONFIGS | VARIANTS)[name], probe.push().spec)


def value(metrics: Metrics, name: str) -> float:
    """A metric that was measured once."""
    assert float(metrics[name].weight) == 1.0, name
    return float(metrics[name].total)


def filled(batch: Batch, **fields: float) -> Batch:
    """The batch, with fields that are the same in every row."""
    return dataclasses.replace(batch, **{k: jnp.full_like(getattr(batch, k), v) for k, v in fields.items()})


def constant_twins(critics: Any, *levels: float) -> Any:
    """Scalar twins that say these values whatever they see."""
    flat = jax.tree.map(jnp.zeros_like, critics)
    last = dataclasses.replace(flat.layers[-1], bias=jnp.asarray(levels)[:, None])
    return dataclasses.replace(flat, layers=(*flat.layers[:-1], last))


def moment(state: Any, like: Any, which: str = "mu") -> Any:
    """Adam's moment, which is one vector an entry of the leading axis, as leaves like those of the parameters."""
    leaves, tree = jax.tree.flatten(like)
    ends = np.cumsum([leaf[0].size for leaf in leaves])[:-1]
    parts = jnp.split(optax.tree.get(state, which), ends, axis=1)
    return jax.tree.unflatten(tree, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)])
