"""Evaluation on fixed initial states: every episode's return, never only a mean."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from omad.keys import Stream, run_key, stream
from omad.types import Algorithm, JaxEnv, Policy

__all__ = ["Episodes", "make_evaluate"]


class Episodes(eqx.Module):
    """What evaluation saw, one entry an episode."""

    returns: Float[Array, "*s episode"]
    """Undiscounted team returns."""
    lengths: Int[Array, "*s episode"]
    """Env steps."""
    info: dict[str, Float[Array, "*s episode"]]
    """The env's extra numbers, summed over the episode."""


def make_evaluate(algorithm: Algorithm, env: JaxEnv, episodes: int, explore: bool) -> Any:
    """Compile-once evaluation of a stack of policies.

    Args:
        algorithm: Whose `act` to use.
        env: The task.
        episodes: How many; episode j starts from the same state for every policy and at every time.
        explore: Sampled actions, or noise-free ones.

    Returns:
        (policies with a leading seed axis, evaluation seed, step) -> `Episodes` with leading seed axis. The step
        only names the draw of action noise.
    """

    def one(policy: Policy, eval_seed: Int[Array, ""], step: Int[Array, ""]) -> Episodes:
        root = run_key(eval_seed)
        env_state, seen = jax.vmap(env.reset)(jax.random.split(stream(root, Stream.EVAL_RESET, 0), episodes))
        act_root, env_root = stream(root, Stream.EVAL_ACT, step), stream(root, Stream.EVAL_ENV, step)

        def body(carry: tuple[Any, Any, Bool[Array, " episode"], Episodes], t: Int[Array, ""]) -> tuple[Any, None]:
            env_state, seen, alive, total = carry
            action = algorithm.act(policy, seen.obs, jax.random.fold_in(act_root, t), explore)
            keys = jax.random.split(jax.random.fold_in(env_root, t), episodes)
            env_state, outcome = jax.vmap(env.step)(env_state, action, keys)
            weight = alive.astype(float)
            total = Episodes(
                total.returns + weight * outcome.reward,
                total.lengths + alive.astype(jnp.int32),
                {name: total.info[name] + weight * outcome.info[name] for name in total.info},
            )
            alive = alive & ~(outcome.terminated | outcome.truncated)
            return (env_state, outcome.next, alive, total), None

        zeros = Episodes(
            jnp.zeros(episodes), jnp.zeros(episodes, jnp.int32),
            {name: jnp.zeros(episodes) for name in env.spec.info_keys},
        )  # fmt: skip
        carry = (env_state, seen, jnp.ones(episodes, bool), zeros)
        (_, _, _, total), _ = jax.lax.scan(body, carry, jnp.arange(env.spec.horizon))
        return total

    return jax.jit(jax.vmap(one, in_axes=(0, None, None)))
