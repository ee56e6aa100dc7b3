"""A time-major replay ring on the device: `make`, `add`, `sample`.

Rows are vector steps, columns are parallel envs. Where the next row goes is a function of the vector-step
count, which the caller passes in, so that under a `vmap` over seeds all writes stay plain slice updates.
Where seeds run sequentially, their rings stay one array each leaf, which leads with a seed axis, and `seed_index`
selects the ring: cutting it out would copy it.
Reset observations are never stored as successors: every transition carries its own.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from omad.types import Batch, EnvSpec, Step


def rows_for(capacity: int, n_envs: int) -> int:
    """Rows of a ring that holds `capacity` transitions of `n_envs` parallel envs, rounded up."""
    return max(1, math.ceil(capacity / n_envs))


def make(spec: EnvSpec, rows: int, n_envs: int) -> Step:
    """An empty ring; every leaf is `(rows, n_envs, ...)`."""

    def zeros(*shape: int, dtype: type = float) -> Array:
        return jnp.zeros((rows, n_envs, *shape), dtype)

    obs, state = (spec.n_agents, spec.obs_dim), (spec.state_dim,)
    return Step(
        obs=zeros(*obs),
        state=zeros(*state),
        action=zeros(spec.n_agents, spec.act_dim),
        reward=zeros(),
        terminated=zeros(dtype=bool),
        truncated=zeros(dtype=bool),
        next_obs=zeros(*obs),
        next_state=zeros(*state),
    )


def n_bytes(spec: EnvSpec, rows: int, n_envs: int) -> int:
    """Bytes of a ring, from shapes alone."""
    shapes = jax.tree.leaves(jax.eval_shape(lambda: make(spec, rows, n_envs)))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in shapes)


def batch_shapes(spec: EnvSpec, batch_size: int) -> Batch:
    """What `sample` gives, as shapes."""
    return jax.eval_shape(lambda: sample(make(spec, 1, 1), jnp.int32(1), jax.random.key(0), batch_size, 1.0))


def where(ring: Step, count: Int[Array, ""], seed_index: Int[Array, ""] | None = None) -> tuple[Int[Array, ""], ...]:
    """The index of row number `count`, of the seed at `seed_index` if leaves lead with a seed axis."""
    return (*(() if seed_index is None else (seed_index,)), count % ring.reward.shape[-2])


def add(ring: Step, step: Step, count: Int[Array, ""], seed_index: Int[Array, ""] | None = None) -> Step:
    """Write one vector step (leaves `(n_envs, ...)`) as row number `count`; the oldest row goes first."""
    row = where(ring, count, seed_index)
    return jax.tree.map(lambda kept, new: kept.at[row].set(new), ring, step)


def sample(
    ring: Step,
    count: Int[Array, ""],
    key: Key[Array, ""],
    batch_size: int,
    gamma: float | Float[Array, ""],
    n_step: int = 1,
    seed_index: Int[Array, ""] | None = None,
) -> Batch:
    """Draw transitions uniformly, with replacement.

    Args:
        ring: The ring.
        count: Vector steps written so far; at least `n_step`.
        key: Consumed.
        batch_size: Transitions to draw.
        gamma: Discount factor.
        n_step: Rewards to sum. A sum stops early at the end of an episode, terminated or truncated.
        seed_index: Whose ring it is, if leaves lead with a seed axis.

    Returns:
        A batch whose `discount` is gamma^m for the m rewards summed, or 0 if the last one terminated.
    """
    rows, n_envs = ring.reward.shape[-2:]
    row_key, env_key = jax.random.split(key)
    filled = jnp.minimum(count, rows)
    first = (count - filled) % rows
    start = first + jax.random.randint(row_key, (batch_size,), 0, filled - n_step + 1)
    env = jax.random.randint(env_key, (batch_size,), 0, n_envs)
    return _transitions(ring, start, env, gamma, n_step, seed_index)


def sample_complete(
    episodes: Step, key: Key[Array, ""], batch_size: int, gamma: float | Float[Array, ""], n_step: int = 1
) -> Batch:
    """The same from complete episodes, one after another, as the only column of a ring that is never written to."""
    start = jax.random.randint(key, (batch_size,), 0, episodes.reward.shape[0])
    return _transitions(episodes, start, jnp.zeros_like(start), gamma, n_step)


def _transitions(
    ring: Step,
    start: Int[Array, " batch"],
    env: Int[Array, " batch"],
    gamma: float | Float[Array, ""],
    n_step: int,
    seed_index: Int[Array, ""] | None = None,
) -> Batch:
    """What begins in rows `start` (counted on, beyond the last row) and columns `env`."""
    rows = ring.reward.shape[-2]
    seed = () if seed_index is None else (seed_index,)
    ret = ring.reward[*seed, start % rows, env]
    last, weight = start, jnp.full_like(ret, gamma)
    for _ in range(1, n_step):
        here = *seed, last % rows, env
        runs_on = ~(ring.terminated[here] | ring.truncated[here])
        # `last` stands still from the first episode end on, and so does what hangs on it.
        last = jnp.where(runs_on, last + 1, last)
        ret = ret + jnp.where(runs_on, weight * ring.reward[*seed, last % rows, env], 0.0)
        weight = jnp.where(runs_on, weight * gamma, weight)
    begin, end = (*seed, start % rows, env), (*seed, last % rows, env)
    return Batch(
        obs=ring.obs[begin],
        state=ring.state[begin],
        action=ring.action[begin],
        ret=ret,
        discount=jnp.where(ring.terminated[end], 0.0, weight),
        next_obs=ring.next_obs[end],
        next_state=ring.next_state[end],
    )
