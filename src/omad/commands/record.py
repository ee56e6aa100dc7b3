"""`omad record RUN|TASK`: episodes of a run's policies, or of random actions, as demonstrations."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from omad import files
from omad.algos.validate import check
from omad.commands.computing import ANYWHERE, ComputingFlags
from omad.console import console
from omad.errors import UserError


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
    computing: ComputingFlags = ANYWHERE


def record(env: Any, act: Any, episodes: int, seed: int) -> dict[str, np.ndarray]:
    """Transitions of complete episodes, one after another: the fields of `types.Step`; arguments as of `played`."""
    from omad.episodes import Moment, played

    found: list[list[np.ndarray]] = []
    for _, moments in itertools.groupby(played(env, act, episodes, seed), lambda moment: moment.round):
        alive, *columns = (np.stack(column, axis=1) for column in zip(*(moment[1:] for moment in moments), strict=True))
        found += [[column[j][kept] for column in columns] for j, kept in enumerate(alive)]
    columns = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return dict(zip(Moment._fields[2:], columns, strict=True))


def _acting(options: Options) -> tuple[Any, str, Any]:
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
    env = envs.make(folder.config.task, folder.config.env_timeout)
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
    options.computing.prepare()
    from omad import demonstrations

    files.check_new(options.out)
    env, task, decide = _acting(options)
    size = options.episodes * env.spec.horizon * demonstrations.row_bytes(env.spec)
    if size > demonstrations.MOST:
        raise UserError(
            f"{options.episodes:,} episodes of {task} may take {size >> 20:,} MiB; at most "
            f"{demonstrations.MOST >> 20:,} MiB are allowed: give fewer --episodes."
        )
    found = record(env, decide, options.episodes, options.seed)
    demonstrations.save(options.out, found, env.spec)
    returns = found["reward"].sum() / options.episodes
    out = console()
    out.print(
        f"{options.episodes:,} episodes of {task}, {len(found['reward']):,} transitions, mean return {returns:.2f}; "
        f"learn from them with: omad train --task {shlex.quote(task)} --demonstrations {shlex.quote(str(options.out))}"
    )
    out.print(str(options.out))
    return 0
