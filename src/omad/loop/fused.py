"""The fused loop: act, sample, update, step and add inside one compiled loop.

`chunk(carry, seeds, start, count)` runs `count` vector steps from number `start`. Both counters are traced but not
batched, so one compilation serves every chunk length, every cadence stays a real branch under the `vmap` over
seeds, and the result does not depend on how a run is cut into chunks.

Seeds are one batch on an accelerator, shared out where there are several. On a CPU they run one after the other
through the same program: a batch of seeds is no quicker there, and even a batch of one costs a third more (12.0 ms a
gradient step against 9.3 on one core).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from omad import buffer
from omad.keys import Stream, held, run_key, stream
from omad.loop.seeds import ProgramInputs, SequentialSeeds, ShardedSeeds
from omad.reward_norm import SCALE, ReturnStats
from omad.spec import RewardNorm
from omad.tree import all_finite
from omad.types import Algorithm, Batch, EnvSpec, EnvState, JaxEnv, Learner, Mean, Metrics, Observation, Step

T = TypeVar("T")

RETURN = "train/return"
"""Undiscounted team return of the episodes that ended while training. The env's extra numbers, summed over an episode,
are `train/NAME`."""


def episode_metrics(spec: EnvSpec) -> tuple[str, ...]:
    """What is summed over episodes: the return, then the env's extra numbers."""
    return RETURN, *(f"train/{name}" for name in spec.info_keys)


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """Sizes of the training loop."""

    n_envs: int
    updates_per_step: int
    batch_size: int
    buffer_rows: int
    warmup_vector_steps: int
    reward_norm: RewardNorm = "none"
    """Whether batches' rewards are divided by the size of returns."""
    reward_bound: float = 5.0
    """Bound on values in those units."""
    noise_hold: float = 1.0
    """Mean number of vector steps for which a policy's noise is held."""
    demonstrated: int = 0
    """Transitions of a batch that are drawn from demonstrations."""


class Carry(eqx.Module):
    """Everything that training changes; leaves lead with a seed axis outside the loop."""

    learner: Learner
    ring: Step
    env_state: EnvState
    observation: Observation
    episode: dict[str, Float[Array, "*s env"]]
    """Of the running episodes: undiscounted team return, and sums of the env's extra numbers, by metric."""
    sums: Metrics
    """Metrics since they were last read."""
    returns: ReturnStats | None = None
    """By which rewards are divided; None where they are not."""


class Fused(NamedTuple):
    """The compiled loop of one run."""

    init: Any
    """(seeds) -> carry."""
    chunk: Any
    """(carry, seeds, start, count) -> carry; the given carry is donated."""
    warm: Any
    """The same with uniform random actions and no updates, for the first `warmup_vector_steps` vector steps."""
    healthy: Any
    """(carry) -> one flag a seed: learner and metrics are finite."""
    shapes: Any
    """(seeds) -> what `init` gives, as shapes."""


def program_inputs(algorithm: Algorithm, demonstrations: Step | None) -> ProgramInputs:
    """All that programs are given from outside."""
    return ProgramInputs(
        {name: jnp.float32(value) for name, value in algorithm.hyperparameters.items()}, demonstrations
    )


def traced_once(algorithm: Algorithm) -> Callable[[Mapping[str, Array]], Algorithm]:
    """The algorithm by its hyperparameters, whose update is traced once for `no_metrics` and the loop.

    The compiled program is that of the algorithm itself.
    """
    remade = algorithm.remade or (lambda given: algorithm)
    update = jax.jit(lambda given, *rest: remade(given).update(*rest), inline=True)
    return lambda given: remade(given)._replace(update=lambda *rest: update(given, *rest))


def fresh_carry(
    algorithm: Algorithm,
    spec: EnvSpec,
    config: LoopConfig,
    seed: Int[Array, ""],
    started: tuple[EnvState, Observation],
    returns: ReturnStats | None,
) -> Carry:
    """What training begins with, given the envs' first states and observations and what `no_returns` gives."""
    env_state, observation = started
    return Carry(
        learner=algorithm.init(stream(run_key(seed), Stream.INIT, 0)),
        ring=buffer.make(spec, config.buffer_rows, config.n_envs),
        env_state=env_state,
        observation=observation,
        episode={name: jnp.zeros(config.n_envs) for name in episode_metrics(spec)},
        sums=no_metrics(algorithm, spec, config),
        returns=returns,
    )


def healthy(carry: Carry) -> Bool[Array, " seed"]:
    """Whether a seed's learner and metrics are finite."""
    return jax.vmap(lambda learner, sums: all_finite((learner, sums)))(carry.learner, carry.sums)


def no_metrics(algorithm: Algorithm, spec: EnvSpec, config: LoopConfig) -> Metrics:
    """Nothing measured yet, of what an update says that it measures and of what the loop does."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    learner, count = jax.eval_shape(algorithm.init, key), jax.ShapeDtypeStruct((), jnp.int32)
    measured = jax.eval_shape(algorithm.update, learner, buffer.batch_shapes(spec, config.batch_size), key, count)[1]
    names = (*measured, *episode_metrics(spec), *((SCALE,) if config.reward_norm == "return" else ()))
    return {name: Mean(jnp.zeros(()), jnp.zeros(())) for name in names}


def no_returns(algorithm: Algorithm, config: LoopConfig, demonstrations: Step | None) -> ReturnStats | None:
    """No returns seen yet but those of demonstrations, or None where rewards stay as they are."""
    if config.reward_norm == "none":
        return None
    stats = ReturnStats.none(config.n_envs, float(algorithm.gamma), config.reward_bound)
    if demonstrations is None:
        return stats
    over = demonstrations.terminated | demonstrations.truncated
    return stats.after(np.asarray(demonstrations.reward[:, 0], float), np.asarray(over[:, 0]))


@jax.named_scope("acting")
def choose_actions(
    algorithm: Algorithm,
    spec: EnvSpec,
    learner: Learner,
    obs: Float[Array, "env agent obs"],
    root: Key[Array, ""],
    step: Int[Array, ""],
    learn: bool,
    hold: float = 1.0,
    first: int = 0,
) -> Float[Array, "env agent act"]:
    """Actions of all envs: by the policies as they are now, or uniform during the warm-up.

    The barriers keep the compiler from mixing this with what comes before and after, which would round differently in
    the fused and in the hosted loop.
    """
    key = stream(root, Stream.ACT, held(root, step, hold, first) if learn else step)
    if learn:
        policy, obs = jax.lax.optimization_barrier((algorithm.behaviour_policy(learner), obs))
        return jax.lax.optimization_barrier(algorithm.act(policy, obs, key, True))
    return spec.act_mask * jax.random.uniform(key, (obs.shape[0], spec.n_agents, spec.act_dim), minval=-1.0)


@jax.named_scope("records")
def record_step(
    carry: Carry,
    transition: Step,
    info: Mapping[str, Float[Array, " env"]],
    step: Int[Array, ""],
    real: Bool[Array, ""] | bool = True,
    seed_index: Int[Array, ""] | None = None,
) -> Carry:
    """Record vector step number `step`: its transitions, and returns and extra numbers of the episodes that ended.

    Where `real` is false there was no such step, and nothing changes. `seed_index` selects the seed's ring, if the
    ring, and nothing else, leads with a seed axis.
    """
    over = (transition.terminated | transition.truncated) & real
    gained = {RETURN: transition.reward} | {f"train/{name}": number for name, number in info.items()}
    episode = {name: total + jnp.where(real, gained[name], 0.0) for name, total in carry.episode.items()}
    ended = over.sum().astype(float)
    measured = {name: Mean(jnp.sum(jnp.where(over, total, 0.0)), ended) for name, total in episode.items()}
    stats = carry.returns
    if stats is not None:
        # A barrier as in `choose_actions`, for the sums over envs.
        stats = jax.lax.optimization_barrier(stats.seen(transition.reward, over).where(jnp.asarray(real), stats))
        measured[SCALE] = Mean(jnp.where(real, stats.scale(), 0.0), jnp.asarray(real, float))
    if real is not True:
        row = buffer.where(carry.ring, step, seed_index)
        transition = jax.tree.map(lambda new, kept: jnp.where(real, new, kept[row]), transition, carry.ring)
    return eqx.tree_at(
        lambda c: (c.ring, c.episode, c.sums, c.returns),
        carry,
        (
            buffer.add(carry.ring, transition, step, seed_index),
            {name: jnp.where(over, 0.0, total) for name, total in episode.items()},
            carry.sums | {name: carry.sums[name] + mean for name, mean in measured.items()},
            stats,
        ),
        is_leaf=lambda leaf: leaf is None,
    )


@jax.named_scope("sampling")
def sample_batch(
    algorithm: Algorithm,
    config: LoopConfig,
    ring: Step,
    root: Key[Array, ""],
    step: Int[Array, ""],
    count: Int[Array, ""],
    demonstrations: Step | None,
    seed_index: Int[Array, ""] | None,
) -> Batch:
    """The batch of gradient step number `count`: from the ring, then from the demonstrations, if there are some."""
    key, size, how = stream(root, Stream.SAMPLE, count), config.batch_size, (algorithm.gamma, algorithm.n_step)
    if demonstrations is None:
        return buffer.sample(ring, step, key, size, *how, seed_index)
    own = buffer.sample(ring, step, key, size - config.demonstrated, *how, seed_index)
    key = stream(root, Stream.DEMONSTRATION, count)
    given = buffer.sample_complete(demonstrations, key, config.demonstrated, *how)
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), own, given)


def learn_vector_step(
    algorithm: Algorithm,
    config: LoopConfig,
    carry: Carry,
    root: Key[Array, ""],
    step: Int[Array, ""],
    demonstrations: Step | None = None,
    seed_index: Int[Array, ""] | None = None,
) -> tuple[Carry, Int[Array, ""]]:
    """The gradient steps that belong to vector step number `step`, on batches of all vector steps before it.

    They need nothing of that step's outcome, so that a hosted env can step meanwhile. The step comes back out of the
    loop, unchanged: what writes vector step `step` by that number must come after all reading. Otherwise the compiler
    may do it before, and then copies the whole ring at every step (the training loop was half as fast). A loop of one
    round would be unrolled and the dependency folded away with it, so that number is hidden from the compiler.
    """
    ring = carry.ring
    often = config.updates_per_step
    rounds = often if often > 1 else jnp.where(step >= 0, often, 0)

    def learn_once(
        i: Int[Array, ""], carried: tuple[Learner, Metrics, Int[Array, ""]]
    ) -> tuple[Learner, Metrics, Int[Array, ""]]:
        learner, sums, chained_step = carried
        count = (step - config.warmup_vector_steps) * often + i + 1
        batch = sample_batch(algorithm, config, ring, root, step, count, demonstrations, seed_index)
        if carry.returns is not None:
            batch = carry.returns.normalised(batch)
        # Barriers as in `choose_actions`, but none around the learner: it would be copied, which at the paper's sizes
        # took as long as the update itself.
        batch = jax.lax.optimization_barrier(batch)
        with jax.named_scope("critic"):  # what the algorithm names no otherwise
            learner, metrics = algorithm.update(learner, batch, stream(root, Stream.UPDATE, count), count)
        metrics = jax.lax.optimization_barrier(metrics)
        sums = {name: total + metrics[name] if name in metrics else total for name, total in sums.items()}
        return learner, sums, chained_step + i // often  # plus nothing, but the compiler does not know

    done = jax.lax.fori_loop(0, rounds, learn_once, (carry.learner, carry.sums, step))
    return eqx.tree_at(lambda c: (c.learner, c.sums), carry, done[:2]), done[2]


def reset_all(env: JaxEnv, config: LoopConfig, key: Key[Array, ""]) -> tuple[EnvState, Observation]:
    """New episodes in all envs of a seed."""
    return jax.vmap(env.reset)(jax.random.split(key, config.n_envs))


@jax.named_scope("env")
def interact(
    env: JaxEnv,
    config: LoopConfig,
    carry: Carry,
    action: Float[Array, "env agent act"],
    root: Key[Array, ""],
    step: Int[Array, ""],
    seed_index: Int[Array, ""] | None,
) -> Carry:
    """One step of every env: step, add, reset what ended."""
    seen = carry.observation
    env_keys = jax.random.split(stream(root, Stream.ENV, step), config.n_envs)
    env_state, outcome = jax.vmap(env.step)(carry.env_state, action, env_keys)
    fresh = reset_all(env, config, stream(root, Stream.RESET, step + 1))
    over = outcome.terminated | outcome.truncated

    def pick(new: Array, old: Array) -> Array:
        return jnp.where(over.reshape(over.shape + (1,) * (new.ndim - 1)), new, old)

    env_state, observation = jax.tree.map(pick, fresh, (env_state, outcome.next))
    transition = Step(
        seen.obs, seen.state, action, outcome.reward, outcome.terminated, outcome.truncated,
        outcome.next.obs, outcome.next.state,
    )  # fmt: skip
    carry = eqx.tree_at(lambda c: (c.env_state, c.observation), carry, (env_state, observation))
    return record_step(carry, transition, outcome.info, step, seed_index=seed_index)


def make(
    algorithm: Algorithm,
    env: JaxEnv,
    config: LoopConfig,
    batch_seeds: bool | None = None,
    demonstrations: Step | None = None,
) -> Fused:
    """Compile nothing yet; everything static is captured here.

    Args:
        algorithm: What learns.
        env: The task.
        config: Sizes of the loop.
        batch_seeds: Whether seeds are one batch, or run one after the other; by default the former on accelerators.
        demonstrations: Complete episodes `(transition, 1, ...)`, of which `config.demonstrated` are in every batch.
    """
    spec, given, having = env.spec, program_inputs(algorithm, demonstrations), traced_once(algorithm)
    if batch_seeds is None:
        batch_seeds = jax.default_backend() != "cpu"
    returns = no_returns(algorithm, config, demonstrations)

    def init(seed: Int[Array, ""]) -> Carry:
        started = reset_all(env, config, stream(run_key(seed), Stream.RESET, 0))
        return fresh_carry(having(given.hyperparameters), spec, config, seed, started, returns)

    def over_seeds(learn: bool) -> Any:
        def one(
            carry: Carry,
            seed: Int[Array, ""],
            start: Array,
            count: Array,
            given: ProgramInputs | None,
            seed_index: Int[Array, ""] | None = None,
        ) -> Carry:
            root = run_key(seed)
            learning = having(given.hyperparameters) if given else algorithm

            def vector_step(step: Int[Array, ""], carry: Carry) -> Carry:
                obs = carry.observation.obs
                noise = config.noise_hold, config.warmup_vector_steps
                action = choose_actions(learning, spec, carry.learner, obs, root, step, learn, *noise)
                if given:
                    carry, step = learn_vector_step(
                        learning, config, carry, root, step, given.demonstrations, seed_index
                    )
                return interact(env, config, carry, action, root, step, seed_index)

            return jax.lax.fori_loop(start, start + count, vector_step, carry)

        handed = given if learn else None
        return ShardedSeeds(one, handed) if batch_seeds else SequentialSeeds(one, handed)

    begin = jax.jit(jax.vmap(init))
    return Fused(
        begin, over_seeds(True), over_seeds(False), jax.jit(healthy), lambda seeds: jax.eval_shape(begin, seeds)
    )
