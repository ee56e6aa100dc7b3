"""Evaluation on fixed initial states: every episode's return, never only a mean."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from omad.envs.contract import beyond
from omad.envs.pool import Pool, seeds_of
from omad.errors import EnvFailed, NonFinite
from omad.keys import Stream, run_key, stream
from omad.tree import at
from omad.types import Algorithm, EnvSpec, JaxEnv, Policy

_MOST_ENVS = 16

Stop = Callable[[], bool]
"""Asked whether to end."""


def _never() -> bool:
    return False


def _go_on(stop: Stop) -> None:
    if stop():
        raise EvaluationStopped


class EvaluationStopped(Exception):
    """A stop came before the last episode of an evaluation."""


class Episodes(eqx.Module):
    """Results of an evaluation, one entry an episode."""

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
        (policies with a leading seed axis, evaluation seed, step, stop) -> `Episodes` with leading seed axis. The
        step names the draws of action noise and of the env's steps. Where `stop`, which may be left out, returns True,
        `EvaluationStopped` is raised: here before the evaluation only, for hosted envs at any env step.
    """

    def one(policy: Policy, eval_seed: Int[Array, ""], step: Int[Array, ""]) -> tuple[Episodes, Bool[Array, ""]]:
        root = run_key(eval_seed)
        env_state, seen = jax.vmap(env.reset)(jax.random.split(stream(root, Stream.EVAL_RESET, 0), episodes))
        act_root, env_root = stream(root, Stream.EVAL_ACT, step), stream(root, Stream.EVAL_ENV, step)

        def body(carry: tuple[Any, Any, Bool[Array, " episode"], Episodes], t: Int[Array, ""]) -> tuple[Any, None]:
            env_state, seen, alive, total = carry
            action = algorithm.act(policy, seen.obs, jax.random.fold_in(act_root, t), explore)
            keys = jax.random.split(jax.random.fold_in(env_root, t), episodes)
            env_state, outcome = jax.vmap(env.step)(env_state, action, keys)
            # Chosen, not multiplied by 0: an env that is stepped beyond its end may return NaN.
            total = Episodes(
                total.returns + jnp.where(alive, outcome.reward, 0.0),
                total.lengths + alive.astype(jnp.int32),
                {name: total.info[name] + jnp.where(alive, outcome.info[name], 0.0) for name in total.info},
            )
            alive = alive & ~(outcome.terminated | outcome.truncated)
            return (env_state, outcome.next, alive, total), None

        zeros = Episodes(
            jnp.zeros(episodes), jnp.zeros(episodes, jnp.int32),
            {name: jnp.zeros(episodes) for name in env.spec.info_keys},
        )  # fmt: skip
        carry = (env_state, seen, jnp.ones(episodes, bool), zeros)
        (_, _, alive, total), _ = jax.lax.scan(body, carry, jnp.arange(env.spec.horizon))
        return total, alive.any()

    played = jax.jit(jax.vmap(one, in_axes=(0, None, None)))

    def evaluate(policies: Policy, eval_seed: Int[Array, ""], step: Int[Array, ""], stop: Stop = _never) -> Episodes:
        _go_on(stop)
        found, unfinished = played(policies, eval_seed, step)
        refuse_unfinished(env.spec, bool(np.asarray(unfinished).any()))
        return found

    return evaluate


def refuse_unfinished(spec: EnvSpec, unfinished: bool) -> None:
    """The horizon is declared; whoever plays whole episodes counts up to there, so none may be longer.

    Raises:
        EnvFailed: One is.
    """
    if unfinished:
        raise EnvFailed(f"{spec.name}: {beyond(spec.horizon)}.")


def envs_for(episodes: int, most: int = _MOST_ENVS) -> int:
    """Instances that are stepped together, of a hosted env 16 at most; episodes go through them in even rounds.

    An env without an episode in the last round is stepped all the same: 20 episodes are two rounds of 10.
    """
    return math.ceil(episodes / math.ceil(episodes / most))


def make_host_evaluate(
    algorithm: Algorithm, spec: EnvSpec, pool: Callable[[], Pool], episodes: int, explore: bool
) -> Any:
    """The same for an env that runs on the host.

    Args:
        algorithm: Whose `act` to use.
        spec: Sizes of the task.
        pool: Returns the running envs to evaluate in; episodes go through them in rounds.
        episodes: How many; episode j starts from the same seed for every policy and at every time.
        explore: Sampled actions, or noise-free ones.

    Returns:
        As `make_evaluate`.
    """

    def act(policy: Policy, obs: Array, eval_seed: Array, step: Array, t: Array) -> tuple[Array, Array]:
        """Actions, and bits of the keys of the envs' own draws."""
        root = run_key(eval_seed)
        action = algorithm.act(policy, obs, jax.random.fold_in(stream(root, Stream.EVAL_ACT, step), t), explore)
        keys = jax.random.split(jax.random.fold_in(stream(root, Stream.EVAL_ENV, step), t), obs.shape[0])
        return action, jax.random.key_data(keys)

    jitted_act = jax.jit(act)

    def one(policy: Policy, eval_seed: int, step: int, stop: Stop) -> Episodes:
        envs = pool()
        root = run_key(eval_seed)
        starts = seeds_of(jax.random.key_data(jax.random.split(stream(root, Stream.EVAL_RESET, 0), episodes)))
        found: list[Episodes] = []
        for round_, first in enumerate(range(0, episodes, envs.n_envs)):
            # The last round may have fewer episodes than envs; the surplus repeats and is not counted.
            seeds = np.resize(starts[first : first + envs.n_envs], envs.n_envs)
            obs, _ = envs.reset(seeds)
            alive = np.ones(envs.n_envs, bool)
            returns, lengths = np.zeros(envs.n_envs), np.zeros(envs.n_envs, np.int32)
            info = {name: np.zeros(envs.n_envs) for name in spec.info_keys}
            for t in range(spec.horizon):
                _go_on(stop)
                when = round_ * spec.horizon + t
                action, keys = jitted_act(policy, obs, jnp.int32(eval_seed), jnp.int32(step), jnp.int32(when))
                if not np.isfinite(np.asarray(action)).all():
                    kind = "a sampled" if explore else "a noise-free"
                    raise NonFinite(
                        f"{spec.name}: the policy returned {kind} action that is not finite in an evaluation"
                    )
                envs.send(np.asarray(action), seeds_of(np.asarray(keys)), seeds, t)
                result = envs.receive(t)
                returns += alive * result.reward
                lengths += alive
                for name in info:
                    info[name] += alive * result.info[name]
                alive &= ~(result.terminated | result.truncated)
                obs = result.obs
                if not alive.any():
                    break
            refuse_unfinished(spec, bool(alive.any()))
            sums = {name: jnp.asarray(total, float) for name, total in info.items()}
            found.append(Episodes(jnp.asarray(returns, float), jnp.asarray(lengths), sums))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:episodes], *found)

    def evaluate(policies: Policy, eval_seed: Int[Array, ""], step: Int[Array, ""], stop: Stop = _never) -> Episodes:
        n_seeds = len(jax.tree.leaves(policies)[0])
        each = [one(at(policies, i), int(eval_seed), int(step), stop) for i in range(n_seeds)]
        return jax.tree.map(lambda *parts: np.stack(parts), *each)

    return evaluate
