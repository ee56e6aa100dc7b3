"""`omad record RUN|TASK`: episodes of a run's policies, or of random actions, as demonstrations."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from omad import files
from omad.algos.validate import check
from omad.compilation import use_compilation_cache
from omad.console import console, visible
from omad.errors import NonFinite, UserError

__all__ = ["main", "record"]

_IN_JAX, _ON_HOST = 500, 16
"""Episodes that are stepped together."""
_FIELDS = ("obs", "state", "action", "reward", "terminated", "truncated", "next_obs", "next_state")


@dataclasses.dataclass(frozen=True)
class Options:
    """Write the transitions of complete episodes, which omad train --demonstrations learns from."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|TASK")]
    """A run folder, whose policies act, or a task's name, for uniform random actions."""
    out: Path
    """New file, an .npz."""
    episodes: int = 100
    """Episodes to play."""
    seed: int = 0
    """Seed of starts, of the env's own draws and of action noise."""
    training_seed: int | None = None
    """Which training seed's policies; by default the first."""
    which: str = "last"
    """Policies of the newest checkpoint, of the best evaluation (best), or of the checkpoint of an env step."""
    noise_free: bool = False
    """Noise-free actions instead of sampled ones."""
    trust: bool = False
    """Import the code of a user's env that the run folder names; only for folders that you trust."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache folder for the next start."""


Decide = Callable[[Any, Any], Any]
"""(observations, key) -> actions in [-1, 1]."""
Begin = Callable[[Any], tuple[Any, Any]]
"""(keys) -> observations and states of fresh episodes."""
Advance = Callable[[Any, Any], tuple[Any, ...]]
"""(actions, keys) -> observations and states that follow, rewards, terminated, truncated."""


def _in_jax(env: Any) -> tuple[Begin, Advance]:
    import jax
    import jax.numpy as jnp

    reset, step = jax.jit(jax.vmap(env.reset)), jax.jit(jax.vmap(env.step))
    state: Any = None

    def begin(keys: Any) -> tuple[Any, Any]:
        nonlocal state
        state, first = reset(keys)
        return first.obs, first.state

    def advance(action: Any, keys: Any) -> tuple[Any, ...]:
        nonlocal state
        state, outcome = step(state, jnp.asarray(action), keys)
        return outcome.next.obs, outcome.next.state, outcome.reward, outcome.terminated, outcome.truncated

    return begin, advance


def _on_host(pool: Any) -> tuple[Begin, Advance]:
    import jax

    from omad.envs.pool import seeds_of

    number = 0

    def begin(keys: Any) -> tuple[Any, Any]:
        return pool.reset(seeds_of(jax.random.key_data(keys)))

    def advance(action: Any, keys: Any) -> tuple[Any, ...]:
        nonlocal number
        seeds = seeds_of(jax.random.key_data(keys))
        pool.send(action, seeds, seeds, number)
        result, number = pool.receive(number), number + 1
        return result[:5]

    return begin, advance


def record(env: Any, task: str, decide: Decide, episodes: int, seed: int) -> dict[str, np.ndarray]:
    """Transitions of complete episodes, one after another: the fields of `types.Step`.

    Args:
        env: A `JaxEnv` or a `HostEnv`.
        task: Its name, to create instances of it on the host.
        decide: Who acts.
        episodes: How many.
        seed: Of all draws.

    Raises:
        NonFinite: An action is not finite.
        EnvFailed: A hosted env failed, or an episode goes on after the declared horizon.
    """
    import jax

    from omad.envs.pool import Pool
    from omad.evaluate import refuse_unfinished
    from omad.keys import Stream, run_key, stream
    from omad.types import JaxEnv

    spec, root = env.spec, run_key(seed)
    starts = jax.random.split(stream(root, Stream.EVAL_RESET, 0), episodes)
    act_root, env_root = stream(root, Stream.EVAL_ACT, 0), stream(root, Stream.EVAL_ENV, 0)
    size = min(episodes, _IN_JAX if isinstance(env, JaxEnv) else _ON_HOST)
    found: list[list[np.ndarray]] = []
    with contextlib.ExitStack() as stack:
        if isinstance(env, JaxEnv):
            begin, advance = _in_jax(env)
        else:
            begin, advance = _on_host(stack.enter_context(contextlib.closing(Pool.of(task, spec, size))))
        for number, first in enumerate(range(0, episodes, size)):
            # The last round may have fewer episodes than envs; the surplus repeats and is not kept.
            obs, state = map(np.asarray, begin(starts[np.minimum(np.arange(first, first + size), episodes - 1)]))
            alive, rows = np.ones(size, bool), []
            for t in range(spec.horizon):
                when = number * spec.horizon + t
                action = np.asarray(decide(obs, jax.random.fold_in(act_root, when)))
                if not np.isfinite(action[alive]).all():
                    raise NonFinite(f"{spec.name}: the policy returned an action that is not finite")
                keys = jax.random.split(jax.random.fold_in(env_root, when), size)
                next_obs, next_state, reward, terminated, truncated = map(np.asarray, advance(action, keys))
                rows.append((alive, obs, state, action, reward, terminated, truncated, next_obs, next_state))
                alive, obs, state = alive & ~(terminated | truncated), next_obs, next_state
                if not alive.any():
                    break
            refuse_unfinished(spec, bool(alive.any()))
            kept, *columns = (np.stack(column, axis=1) for column in zip(*rows, strict=True))
            for j in range(min(size, episodes - first)):
                found.append([column[j][kept[j]] for column in columns])
    return {name: np.concatenate(parts) for name, parts in zip(_FIELDS, zip(*found, strict=True), strict=True)}


def _acting(options: Options) -> tuple[Any, str, Decide]:
    """The env, its task's name, and who acts in it.

    Raises:
        UserError: The source is neither a run nor a task, or an option does not go with it.
    """
    import jax

    from omad import envs

    run = Path(options.source)
    if not run.is_dir():
        task = _task_named(options.source)
        for name in ("training_seed", "which", "noise_free", "trust"):
            if getattr(options, name) != getattr(Options("", Path()), name):
                raise UserError(f"--{name.replace('_', '-')} is of policies, but {options.source} is no run folder.")
        env = envs.make(task)
        mask = env.spec.act_mask

        def anything(obs: Any, key: Any) -> Any:
            return mask * jax.random.uniform(key, (len(obs), *mask.shape), minval=-1.0)

        return env, task, jax.jit(anything)
    from omad.api import load_policy
    from omad.run.folder import RunFolder
    from omad.saved import which_of
    from omad.trust import refuse_changed, refuse_foreign

    folder = RunFolder.open(run)
    refuse_foreign(folder.config.task, folder.path, options.trust)
    env = envs.make(folder.config.task)
    refuse_changed(folder, env.spec)
    team = load_policy(run, options.training_seed, which_of(options.which)).team
    act = jax.jit(lambda policy, obs, key: team.act(policy, obs, key, not options.noise_free))
    return env, folder.config.task, lambda obs, key: act(team.policy, obs, key)


def _task_named(source: str) -> str:
    """The full name of a task.

    Raises:
        UserError: There is none of this name; where it is not like one either, a folder may have been meant.
    """
    from omad import tasks

    try:
        return tasks.find(source).name
    except tasks.UnknownTask:
        if ":" in source or source.startswith(("mpe/", "probe/", "games/", "mamujoco-")):
            raise
        raise UserError(
            f"{source} is neither a run folder (there is no such folder) nor a task; give the path that omad train "
            "printed, or a name that omad tasks lists."
        ) from None


def main(arguments: Sequence[str]) -> int:
    """Play, write, and print what was written."""
    options = tyro.cli(Options, prog="omad record", args=list(arguments))
    check(options, counts=("episodes",), not_negative=("seed", "training_seed"), flags=True)
    use_compilation_cache(options.compilation_cache)
    from omad import demonstrations

    files.check_new(options.out)
    env, task, decide = _acting(options)
    size = options.episodes * env.spec.horizon * demonstrations.row_bytes(env.spec)
    if size > demonstrations.MOST:
        raise UserError(
            f"{options.episodes:,} episodes of {task} may take {size >> 20:,} MiB; at most "
            f"{demonstrations.MOST >> 20:,} MiB are allowed: give fewer --episodes."
        )
    found = record(env, task, decide, options.episodes, options.seed)
    demonstrations.save(options.out, found, env.spec)
    returns = found["reward"].sum() / options.episodes
    out = console()
    out.print(
        f"{options.episodes:,} episodes of {task}, {len(found['reward']):,} transitions, mean return {returns:.2f}; "
        f"learn from them with: omad train --task {shlex.quote(task)} --demonstrations {shlex.quote(str(options.out))}"
    )
    out.print(visible(str(options.out)))
    return 0
