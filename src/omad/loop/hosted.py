"""The hosted loop: envs step in worker processes while the device computes the gradient steps.

Each vector step is one compiled call that acts and one that adds the previous transitions, samples and learns:

    action = act(learner, observation)        waits for the previous call
    pool.send(action)                         the workers step the envs ...
    learner, ring = learn(transitions before) ... while this runs
    outcome = pool.receive()

It computes exactly what the fused loop does, from the same streams of randomness; the env's seeds are bits of the
keys that a JAX env would be given. Between chunks, the carry holds the envs as bytes, so it is all that a resume
needs. An env that cannot be saved starts a new episode instead, and the one it was in counts as truncated.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from omad.envs.host_env import HostEnv
from omad.envs.pool import Pool, PoolStep, seeds_of
from omad.errors import EnvFailed, NonFinite, UnevenSaves
from omad.keys import Stream, run_key, stream
from omad.loop.fused import (
    Carry,
    LoopConfig,
    choose_actions,
    fresh_carry,
    healthy,
    learn_vector_step,
    no_returns,
    program_inputs,
    record_step,
    traced_once,
)
from omad.loop.packing import Layout, Trees, on_host
from omad.loop.seeds import ProgramInputs, replicate, seed_sharding, shard_over_devices
from omad.tree import all_finite, at, stacked
from omad.types import Algorithm, Observation, Step

_DRAWN = 32
"""Vector steps whose bits of randomness are computed at a time."""


def _bits(n_envs: int, seeds: Int[Array, " seed"], first: Int[Array, ""]) -> tuple[Array, Array]:
    """Of the envs' own draws and of resets, `(vector_step, seed, env, word)`."""

    def of(seed: Int[Array, ""], vector_step: Int[Array, ""]) -> tuple[Array, Array]:
        root = run_key(seed)
        keys = stream(root, Stream.ENV, vector_step), stream(root, Stream.RESET, vector_step + 1)
        env_bits, reset_bits = (jax.random.key_data(jax.random.split(key, n_envs)) for key in keys)
        return env_bits, reset_bits

    return jax.vmap(jax.vmap(of, in_axes=(0, None)), in_axes=(None, 0))(seeds, first + jnp.arange(_DRAWN))


class Hosted:
    """The loop of one run over a host env; `init`, `chunk`, `warm` and `healthy` are those of `fused.Fused`.

    Args:
        algorithm: What learns.
        env: Sizes and instances.
        config: Sizes of the loop.
        start_pool: (n_envs) -> a pool of that many running envs; called once, when first needed.
        batch_seeds: Whether seeds are one batch, or run one after the other; by default the former on accelerators.
        demonstrations: As `fused.make` takes them.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        env: HostEnv,
        config: LoopConfig,
        start_pool: Any,
        batch_seeds: bool | None = None,
        demonstrations: Step | None = None,
    ) -> None:
        self.spec, self.config, self._start_pool = env.spec, config, start_pool
        given, having = program_inputs(algorithm, demonstrations), traced_once(algorithm)
        self.batch_seeds = jax.default_backend() != "cpu" if batch_seeds is None else batch_seeds
        self._action = env.spec.n_agents, env.spec.act_dim
        self._given = given
        self._pool: Pool | None = None
        self._live: Any = None
        """The `env_state` at which the running envs are; any other has to be loaded first."""
        self.why_inexact = "" if env.exact else "its envs cannot be saved"
        """Why a resume begins new episodes; empty where it continues exactly."""
        self._bytes_each: int | None = None
        """Length of an env's save, once there was one."""
        measured = algorithm._replace(update=having(given.hyperparameters).update)
        returns = no_returns(algorithm, config, demonstrations)

        def one(seed: Int[Array, ""]) -> Carry:
            """What lives on the device; observation and envs are put in by the host."""
            obs = jnp.zeros((config.n_envs, env.spec.n_agents, env.spec.obs_dim))
            shown = Observation(obs, jnp.zeros((config.n_envs, env.spec.state_dim)))
            return fresh_carry(
                measured, env.spec, config, seed, (jnp.zeros((config.n_envs, 0), jnp.uint8), shown), returns
            )

        self._one = one
        self._init = jax.jit(jax.vmap(self._one))
        self._algorithm = algorithm
        self._layout = layout = Layout(env.spec)

        def act(leaves: list[Array], table: Array, seed: Int[Array, ""], step: Int[Array, ""], learn: bool) -> Array:
            learner, (obs, _) = self._trees.for_acting(leaves), layout.shown_next(table)
            noise = config.noise_hold, config.warmup_vector_steps
            return choose_actions(algorithm, env.spec, learner, obs, run_key(seed), step, learn, *noise)

        def keep(
            leaves: list[Array],
            ring: list[Array],
            given: tuple[Array, Array, Array],
            step: Int[Array, ""],
            seed_index: Int[Array, ""] | None,
        ) -> tuple[list[Array], list[Array]]:
            """Keep the transition of vector step `step`."""
            carry, table = self._trees.whole(leaves, ring), given[-1]
            return self._trees.bare(
                record_step(carry, layout.transition(*given), layout.info(table), step, seed_index=seed_index)
            )

        def learn(
            leaves: list[Array],
            ring: list[Array],
            given: tuple[Array, Array, Array],
            seed: Int[Array, ""],
            step: Int[Array, ""],
            real: Bool[Array, ""],
            handed: ProgramInputs,
            seed_index: Int[Array, ""] | None,
        ) -> tuple[list[Array], list[Array]]:
            """Keep vector step `step - 1` (if it is `real`: the first of a chunk is kept already), then learn."""
            carry, info = self._trees.whole(leaves, ring), layout.info(given[-1])
            carry = record_step(carry, layout.transition(*given), info, step - 1, real, seed_index)
            learning, shown = having(handed.hyperparameters), handed.demonstrations
            return self._trees.bare(
                learn_vector_step(learning, config, carry, run_key(seed), step, shown, seed_index)[0]
            )

        self._bits = jax.jit(functools.partial(_bits, config.n_envs))
        self.healthy = jax.jit(healthy)
        self._programs: Any = functools.cache(self._batched if self.batch_seeds else self._sequential)
        self._functions: tuple[Any, Any, Any] = act, keep, learn
        # One program: leaf after leaf would be hundreds of dispatches a chunk.
        self._split = jax.jit(lambda tree, n: [at(tree, i) for i in range(n)], static_argnums=1)
        self._join = jax.jit(stacked)

    @functools.cached_property
    def _trees(self) -> Trees:
        return Trees.of(self._algorithm, jax.eval_shape(self._one, jax.ShapeDtypeStruct((), jnp.int32)))

    def _sequential(self, n_seeds: int) -> tuple[Any, Any, Any]:
        """Programs of one seed at a time, which are the fused loop's on a CPU; rings keep their seed axis."""
        act, keep, learn = self._functions
        return (
            jax.jit(act, static_argnums=4), jax.jit(keep, donate_argnums=(0, 1)), jax.jit(learn, donate_argnums=(0, 1))
        )  # fmt: skip

    def _batched(self, n_seeds: int) -> tuple[Any, Any, Any]:
        """Programs of all seeds at once, shared out over the local devices; steps have no seed axis."""
        act, keep, learn = self._functions

        def over(function: Any, by_seed: tuple[bool, ...], donate: tuple[int, ...]) -> Any:
            batched = jax.vmap(function, in_axes=tuple(0 if leads else None for leads in by_seed))
            return shard_over_devices(batched, n_seeds, by_seed, donate)

        acts = {
            choice: over(lambda *given, choice=choice: act(*given, choice), (True, True, True, False), ())
            for choice in (True, False)
        }
        return (
            lambda leaves, table, seeds, step, choice: acts[choice](leaves, table, seeds, step),
            over(keep, (True, True, True, False, False), (0, 1)),
            over(learn, (True, True, True, True, False, False, False, False), (0, 1)),
        )

    # ------------------------------------------------------------ envs

    def _envs(self, n_seeds: int) -> Pool:
        pool = self._pool
        if pool is None:
            pool = self._pool = self._start_pool(n_seeds * self.config.n_envs)
        return pool

    def _lead(self, rows: np.ndarray, n_seeds: int) -> Array:
        """From `(env, ...)` on the host to `(seed, env, ...)` on the device."""
        return jnp.asarray(rows.reshape(n_seeds, self.config.n_envs, *rows.shape[1:]))

    def _reset(self, seeds: Int[Array, " seed"], vector_step: int) -> Observation:
        """New episodes everywhere, as those that begin when one ended at vector step `vector_step - 1`."""
        keys = jax.vmap(lambda s: jax.random.split(stream(run_key(s), Stream.RESET, vector_step), self.config.n_envs))(
            seeds
        )
        obs, state = self._envs(len(seeds)).reset(seeds_of(jax.random.key_data(keys)))
        return Observation(self._lead(obs, len(seeds)), self._lead(state, len(seeds)))

    def _snapshot(self, n_seeds: int, vector_step: int) -> Array:
        """What the envs save; nothing, once that has been of no use."""
        saved = np.zeros((n_seeds * self.config.n_envs, 0), np.uint8)
        if not self.why_inexact:
            try:
                found = self._envs(n_seeds).save(vector_step)
                if self._bytes_each in (None, found.shape[1]):
                    saved, self._bytes_each = found, found.shape[1]
                else:
                    self.give_up_saves(f"save() returned {self._bytes_each} bytes, then {found.shape[1]}")
            except UnevenSaves as error:
                self.give_up_saves(str(error).rstrip("."))
        return self._lead(saved, n_seeds)

    def give_up_saves(self, why: str) -> None:
        """From now on envs are neither saved nor loaded."""
        self.why_inexact = why

    def _try_saves(self, n_seeds: int) -> bool:
        """Save, step and load the envs once, before hours of training rely on it; whether they are as before."""
        pool = self._envs(n_seeds)
        try:
            before = pool.save(0)
        except EnvFailed as error:
            return self._without_saves(error)
        if not before.shape[1]:
            self.give_up_saves("its envs give nothing to save")
            return True
        action = np.zeros((pool.n_envs, self.spec.n_agents, self.spec.act_dim), np.float32)
        seeds = np.zeros(pool.n_envs, np.uint64)
        pool.send(action, seeds, seeds, 0)
        pool.receive(0)
        try:
            after = pool.save(0)
            pool.load(before, 0)
            again = pool.save(0)
        except EnvFailed as error:
            return self._without_saves(error)
        if after.shape != before.shape:
            self.give_up_saves(f"save() returned {before.shape[1]} bytes, then {after.shape[1]}")
            return False
        if not (same := np.array_equal(before, again)):
            self.give_up_saves("save() after load() returned something else than what was loaded")
        return same

    def _without_saves(self, error: EnvFailed) -> bool:
        self.close()  # an env that has raised something is gone
        self.give_up_saves(str(error).rstrip("."))
        return False

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        self._live = None

    # ------------------------------------------------------------ the four functions

    def init(self, seeds: Int[Array, " seed"]) -> Carry:
        """A fresh carry; the envs are started."""
        carry = self._init(seeds)
        observation = self._reset(seeds, 0)
        if not self.why_inexact and not self._try_saves(len(seeds)):
            observation = self._reset(seeds, 0)
        self._live = self._snapshot(len(seeds), 0)
        return eqx.tree_at(on_host, carry, (observation, self._live))

    def shapes(self, seeds: Int[Array, " seed"]) -> Carry:
        """What `init` gives, as shapes."""
        core = jax.eval_shape(self._init, seeds)
        bytes_each = 0
        if not self.why_inexact:
            if self._live is None:
                self._reset(seeds, 0)  # envs that never began an episode may have nothing to save
            bytes_each = self._envs(len(seeds)).save(0).shape[1]
        saved = jax.ShapeDtypeStruct((len(seeds), self.config.n_envs, bytes_each), jnp.uint8)
        return eqx.tree_at(lambda c: c.env_state, core, saved)

    def chunk(self, carry: Carry, seeds: Int[Array, " seed"], start: Any, count: Any) -> Carry:
        """`count` vector steps from number `start`; the given carry may be donated."""
        return self._run(carry, seeds, int(start), int(count), True)

    def warm(self, carry: Carry, seeds: Int[Array, " seed"], start: Any, count: Any) -> Carry:
        """The same with uniform random actions and no learning."""
        return self._run(carry, seeds, int(start), int(count), False)

    def _run(self, carry: Carry, seeds: Int[Array, " seed"], start: int, count: int, learn: bool) -> Carry:
        n, pool = len(seeds), self._envs(len(seeds))
        if carry.env_state is not self._live:
            carry = self._attach(carry, seeds, start)
        act, keep, learn_from = self._programs(n)
        leaves, ring = self._trees.bare(carry)
        # The rings keep their seed axis, for cutting them out and putting them together would copy them. All else is
        # one part a seed, or one part for all of them.
        if self.batch_seeds:
            leaves, ring = jax.device_put((leaves, ring), seed_sharding(n))
            self._given = replicate(self._given, n)
            cores, seed_indices = [leaves], [None]
        else:
            cores, seed_indices = self._split(leaves, n), [np.int32(i) for i in range(n)]
        parts = range(len(cores))
        self._live = None  # until the envs have been saved again
        shown = self._layout.pack_shown(carry.observation)
        of, tables = self._put(np.asarray(seeds)), self._put(shown)
        # What came before, what was done, what came of it: not a transition that is to be kept, before the first step.
        given = list(
            zip(tables, self._put(np.zeros((*shown.shape[:2], *self._action), np.float32)), tables, strict=True)
        )
        real, shared = np.bool_(False), self._given
        bits: list[tuple[np.ndarray, np.ndarray]] = []
        for vector_step in range(start, start + count):
            step = np.int32(vector_step)
            acted = [act([cores[i][k] for k in self._trees.acting], tables[i], of[i], step, learn) for i in parts]
            if not bits:
                bits = list(zip(*map(np.asarray, self._bits(seeds, step)), strict=True))
            env_bits, reset_bits = bits.pop(0)
            action = np.concatenate([np.asarray(part).reshape(-1, *self._action) for part in acted])
            self._check_actions(action, seeds, vector_step)
            pool.send(action, seeds_of(env_bits), seeds_of(reset_bits), vector_step)
            for i in parts:
                if learn:
                    cores[i], ring = learn_from(cores[i], ring, given[i], of[i], step, real, shared, seed_indices[i])
                elif real:
                    cores[i], ring = keep(cores[i], ring, given[i], np.int32(vector_step - 1), seed_indices[i])
            shown = self._receive(pool, cores, seeds, vector_step).table.reshape(shown.shape)
            before, tables, real = tables, self._put(shown), np.bool_(True)
            given = list(zip(before, acted, tables, strict=True))
        for i in parts if real else ():
            cores[i], ring = keep(cores[i], ring, given[i], np.int32(start + count - 1), seed_indices[i])
        self._live = self._snapshot(n, start + count)
        ended = self._trees.whole(cores[0] if self.batch_seeds else self._join(cores), ring)
        observation = Observation(*map(jnp.asarray, self._layout.shown_next(shown)))
        return eqx.tree_at(on_host, ended, (observation, self._live), is_leaf=lambda leaf: leaf is None)

    def _put(self, rows: np.ndarray) -> list[Array]:
        """From the host to the device, what leads with a seed axis: one array for all seeds, or one a seed."""
        if self.batch_seeds:
            return [jax.device_put(rows, seed_sharding(len(rows)))]
        return jax.device_put(list(rows))

    def _check_actions(self, action: np.ndarray, seeds: Int[Array, " seed"], vector_step: int) -> None:
        """Look at actions before an env does: who first sees a bad number is not who made it.

        Raises:
            NonFinite: A learner has diverged.
        """
        good = np.isfinite(action)
        if not good.all():
            bad = np.asarray(seeds)[~good.reshape(len(seeds), -1).all(1)].tolist()
            raise NonFinite(
                f"seed {bad[0]} returned an action that is not finite", f"at vector step {vector_step}", seeds=bad
            )

    def _receive(self, pool: Pool, cores: list[list[Array]], seeds: Int[Array, " seed"], vector_step: int) -> PoolStep:
        """Wait for the envs; where one fails that a diverged learner acted in, it is the learner that is named."""
        try:
            return pool.receive(vector_step)
        except EnvFailed as error:
            for i, leaves in enumerate(cores):
                bad = [int(seeds[i])] if len(cores) == len(seeds) else [int(seed) for seed in seeds]
                core = jax.tree.unflatten(self._trees.core, leaves)
                if not all_finite((core.learner, core.sums)):
                    said = f"seed {', '.join(map(str, bad))} met a non-finite number"
                    raise NonFinite(said, f"as an env reported: {error}", seeds=bad) from error
            raise

    def _attach(self, carry: Carry, seeds: Int[Array, " seed"], vector_step: int) -> Carry:
        """Bring the envs to where a carry is."""
        saved = np.asarray(carry.env_state)
        if saved.size and not self.why_inexact:
            self._envs(len(seeds)).load(saved.reshape(-1, saved.shape[-1]), vector_step)
            return carry
        if vector_step == 0:
            return carry
        # These envs cannot be saved: the episodes they were in end here, by the clock.
        last = (vector_step - 1) % carry.ring.reward.shape[1]
        truncated = carry.ring.truncated.at[:, last].set(~carry.ring.terminated[:, last])
        returns = carry.returns
        if returns is not None:
            returns = dataclasses.replace(returns, running=jnp.zeros_like(returns.running))
        return eqx.tree_at(
            lambda c: (c.observation, c.ring.truncated, c.episode, c.returns),
            carry,
            (self._reset(seeds, vector_step), truncated, jax.tree.map(jnp.zeros_like, carry.episode), returns),
            is_leaf=lambda leaf: leaf is None,
        )
