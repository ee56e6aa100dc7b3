"""Builds the parts of a run from its configuration and its env, and forecasts their memory."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from omad import buffer, demonstrations, tasks
from omad.algos import REGISTRY
from omad.algos import make as make_algorithm
from omad.config import RunConfig
from omad.derived import support_of
from omad.envs.draw import contact_sheet, draws, play
from omad.envs.host_env import HostEnv
from omad.envs.pool import Pool
from omad.errors import UserError
from omad.evaluate import envs_for, make_evaluate, make_host_evaluate
from omad.keys import Stream, run_key, stream
from omad.loop import fused
from omad.loop.check_algorithm import check_algorithm
from omad.loop.hosted import Hosted
from omad.processes import cores_at_once
from omad.symmetry import symmetric
from omad.types import Algorithm, EnvSpec, JaxEnv, Step

_PROGRAM_MIB, _DENOISING_MIB = 350.0, 60.0
"""What an interpreter with JAX and the loaded programs of a run takes, and how much more if actions are denoised."""
_COMPILER_MIB, _DENOISING_COMPILER_MIB, _FUSED_COMPILER_MIB = 200.0, 150.0, 75.0
"""What compiling takes at its peak, and how much more for denoising steps and for envs in JAX."""
_WORKER_MIB = 70.0
"""A process with NumPy and a robot. All of these are measured (docs/results/speed.md) and hold to about a tenth."""


class Built(NamedTuple):
    """The parts of a run, made from its configuration."""

    spec: EnvSpec
    algorithm: Algorithm
    loop: fused.Fused | Hosted
    sampled: Callable[..., Any]
    noise_free: Callable[..., Any]
    random: Callable[..., Any]
    """Evaluations with sampled, noise-free and uniformly random actions."""
    close: Callable[[], None]
    """End whatever runs beside this process."""
    picture: Callable[[Any, int], np.ndarray] | None = None
    """(policy, seed) -> an episode with sampled actions as one picture, `(height, width, 3)`; where the env draws."""
    notes: tuple[str, ...] = ()
    """Sentences about the env that a user should read before training."""
    demonstrations: Step | None = None
    """Transitions that the loop was given."""


def build(config: RunConfig, env: JaxEnv | HostEnv, batch_seeds: bool | None = None) -> Built:
    """Everything a run needs; nothing is compiled, allocated or started yet.

    Args:
        config: The run.
        env: Its env.
        batch_seeds: Whether seeds are one batch, or run one after the other; by default the former on accelerators.

    Raises:
        UserError: Algorithm, env and settings do not fit together.
    """
    if config.algorithm not in REGISTRY:
        check_algorithm(config, env.spec)
    algorithm = make_algorithm(config.algo, env.spec, config.obs_norm, config.updates_per_env_step)
    if config.symmetry:
        if env.symmetry is None:
            raise UserError(f"symmetry is on, but {config.task} states no symmetries. Give --no-symmetry.")
        algorithm = symmetric(algorithm, env.symmetry() if isinstance(env, HostEnv) else env.symmetry)
    sizes = fused.LoopConfig(
        n_envs=config.n_envs,
        updates_per_step=config.updates_per_step,
        batch_size=config.batch_size,
        buffer_rows=buffer.rows_for(config.buffer_size, config.n_envs),
        warmup_vector_steps=config.warmup_vector_steps,
        reward_norm=config.reward_norm,
        reward_bound=config.reward_bound,
        noise_hold=config.noise_hold,
        demonstrated=config.demonstrated,
    )
    shown, notes = None, env.notes
    if config.demonstrations:
        shown = demonstrations.load(config.demonstrations, env.spec)
        remark = demonstrations.remark(config.demonstrations, env.spec)
        notes = (*notes, remark) if remark else notes
    notes = (*notes, *_narrow_support(config, env.spec))
    acting = ((algorithm, True), (algorithm, False), (algorithm._replace(act=_uniform(env.spec)), True))
    if isinstance(env, JaxEnv):
        loop = fused.make(algorithm, env, sizes, batch_seeds, shown)
        evaluate = [make_evaluate(one, env, config.eval_episodes, explore) for one, explore in acting]
        picture = functools.partial(_picture, algorithm, env) if draws(env) else None
        return Built(
            env.spec,
            algorithm,
            loop,
            *evaluate,
            close=lambda: None,
            notes=notes,
            demonstrations=shown,
            picture=picture,
        )

    def start_pool(n_envs: int) -> Pool:
        return Pool.of(config.task, env.spec, n_envs, config.env_workers, config.env_timeout)

    hosted = Hosted(algorithm, env, sizes, start_pool, batch_seeds, shown)
    eval_pool = EvaluationPool(start_pool, config.eval_episodes)
    evaluate = [make_host_evaluate(one, env.spec, eval_pool, config.eval_episodes, explore) for one, explore in acting]

    def close() -> None:
        hosted.close()
        eval_pool.close()

    return Built(env.spec, algorithm, hosted, *evaluate, close=close, notes=notes, demonstrations=shown)


def _narrow_support(config: RunConfig, spec: EnvSpec) -> tuple[str, ...]:
    """What to say of a user's env whose episodes may be cut off so early that values leave the derived support."""
    if config.reward_norm != "return" or "v_max" in config.given or tasks.find(config.task).horizon:
        return ()
    v_max, gamma = getattr(config.algo, "v_max", math.inf), getattr(config.algo, "gamma", 0.0)
    if v_max >= (due := support_of(config.reward_bound, gamma, spec.horizon)):
        return ()
    return (
        f"v_max is {v_max:g}. If {config.task} cuts episodes off after {spec.horizon} steps (truncated), their "
        f"values go on and may reach {due:g} in units of normalised returns: then give --v-max {due:g}.",
    )


def _picture(algorithm: Algorithm, env: JaxEnv, policy: Any, seed: int) -> np.ndarray:
    root, act = run_key(seed), jax.jit(algorithm.act, static_argnums=3)
    frames, _ = play(
        env, lambda obs, t: act(policy, obs, stream(root, Stream.EVAL_ACT, t), True), seed, env.spec.horizon
    )
    return np.asarray(contact_sheet(frames))


def _uniform(spec: EnvSpec) -> Callable[..., Any]:
    """Acts at random, whatever the policy."""
    mask = jnp.asarray(spec.act_mask, float)

    def act(policy: Any, obs: Any, key: Any, explore: bool) -> Any:
        del policy, explore
        return mask * jax.random.uniform(key, (*obs.shape[:-1], spec.act_dim), minval=-1.0)

    return act


class EvaluationPool:
    """Envs of their own for evaluations, started on the first call."""

    def __init__(self, start_pool: Callable[[int], Pool], episodes: int) -> None:
        self._start_pool, self._count = start_pool, envs_for(episodes)
        self._pool: Pool | None = None

    def __call__(self) -> Pool:
        """The running envs."""
        if self._pool is None:
            self._pool = self._start_pool(self._count)
        return self._pool

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def forecast(config: RunConfig, built: Built, processes: int = 1) -> dict[str, float]:
    """Memory that a run will take at its peak, in MiB: parts by name, their `total`, and `compiler`.

    `work` is what one gradient step keeps for its backward pass, taken as the matrix products of the update with one
    float each per multiply-add chain; it is an upper estimate. `evaluation` is a step of all its episodes at once.
    `compiler` comes on top while programs are compiled for the first time, and is no part of a later start. On an
    accelerator only what lies there counts.
    """
    rows = buffer.rows_for(config.buffer_size, config.n_envs)
    learner = jax.eval_shape(built.algorithm.init, jax.eval_shape(lambda: jax.random.key(0)))
    mib = {
        "buffer": buffer.n_bytes(built.spec, rows, config.n_envs) * config.seeds / 2**20,
        "learner": _mib(learner) * config.seeds,
        "work": 64.0 + 4.0 * config.seeds * _activations(config.algo, built.spec.n_agents, config.batch_size) / 2**20,
        "evaluation": evaluation_mib(config, built),
    }
    if built.demonstrations is not None:
        mib["demonstrations"] = _mib(built.demonstrations) * processes
    compiler = 0.0
    if jax.default_backend() == "cpu":
        denoises, hosted = hasattr(config.algo, "denoising_steps"), isinstance(built.loop, Hosted)
        mib["program"] = processes * (_PROGRAM_MIB + denoises * _DENOISING_MIB)
        compiler = processes * (_COMPILER_MIB + denoises * _DENOISING_COMPILER_MIB + (not hosted) * _FUSED_COMPILER_MIB)
        if hosted:
            pools = config.n_envs * config.seeds // processes, envs_for(config.eval_episodes)
            cores = max(1, cores_at_once() // processes)
            each = sum(Pool.processes(config.task, n, config.env_workers, cores) for n in pools)
            mib["workers"] = _WORKER_MIB * processes * each
    return mib | {"total": sum(mib.values()), "compiler": compiler}


def _mib(tree: Any) -> float:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)) / 2**20


def evaluation_mib(config: RunConfig, built: Built) -> float:
    """Memory that a step of all episodes of an evaluation takes, in MiB: observations, actions and a hidden layer.

    Episodes of a hosted env go through few instances, so only their results are kept.
    """
    spec, hidden = built.spec, 2 * getattr(config.algo, "actor_width", 0)
    floats = 4 + len(spec.info_keys)
    if isinstance(built.loop, fused.Fused):
        floats += 3 * spec.n_agents * (spec.obs_dim + spec.act_dim) + 2 * spec.state_dim + spec.n_agents * hidden
    return 4.0 * config.seeds * config.eval_episodes * floats / 2**20


def _activations(algo: Any, n_agents: int, batch: int) -> float:
    """Hidden activations of an update, in floats, for any algorithm with the usual field names."""
    steps = getattr(algo, "denoising_steps", 1)
    actors = n_agents * batch * steps * getattr(algo, "actor_width", 0) * getattr(algo, "actor_layers", 0)
    critics = 4 * batch * getattr(algo, "critic_width", 0) * (getattr(algo, "critic_layers", 0) + 1)
    return 4.0 * (actors + critics)
