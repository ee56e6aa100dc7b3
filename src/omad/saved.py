"""What the checkpoints of a run hold: its policies at a moment, and its replay buffer."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from omad.errors import UserError
from omad.experiment import Experiment
from omad.loop.hosted import Hosted
from omad.run import arrays
from omad.run.folder import RunFolder
from omad.trust import refuse_foreign

Which = Literal["last", "best"] | int
"""A moment of a run: its newest checkpoint, each seed's best evaluation, or the checkpoint of an env step."""


def which_of(text: str) -> Which:
    """The moment that a word of the command line names.

    Raises:
        UserError: It is none.
    """
    if text in ("last", "best"):
        return text
    if text.isdecimal() and len(text) < 19:
        return int(text)
    raise UserError(f"--which is {text!r}; it must be last, best, or the env step of a checkpoint.")


def policies_at(folder: RunFolder, algorithm: Any, which: Which = "last") -> tuple[Any, tuple[int, ...]]:
    """The policies of all seeds, stacked, and the env step of each.

    Args:
        folder: The run.
        algorithm: Whose policies.
        which: The newest checkpoint that is whole, each seed's best, or the checkpoint of an env step.

    Raises:
        UserError: There is none.
    """
    every = folder.config.all_seeds
    seeds = jnp.asarray(every)
    shapes = jax.eval_shape(lambda: jax.vmap(lambda s: algorithm.policy(algorithm.init(jax.random.key(s))))(seeds))
    if which == "best":
        return _best(folder, shapes)
    reason = "it has none yet"
    known = {checkpoint.env_steps: checkpoint for checkpoint in folder.checkpoints()}
    if isinstance(which, str) and which != "last":
        raise UserError(f"which is {which!r}; it must be last, best, or the env step of a checkpoint.")
    if which != "last" and which not in known:
        there = ", ".join(map(str, known)) or "none"
        raise UserError(f"{folder.path} has no checkpoint of env step {which}; it has {there}.")
    for env_steps, one in known.items() if which == "last" else [(which, known[which])]:
        try:
            return one.restore("policy", shapes), (env_steps,) * len(every)
        except UserError as error:
            reason = str(error).rstrip(".")
    raise UserError(f"{folder.path} has no readable checkpoint: {reason}.")


def replayed(folder: RunFolder, trust: bool = False, whole: bool = True) -> Any:
    """What the replay buffer of a run's newest checkpoint holds.

    Args:
        folder: The run.
        trust: Whether code that the folder names may be imported.
        whole: Only with all transitions from the first env step on, in their order.

    Returns:
        Transitions with the leading axes `(seed, row, env)`.

    Raises:
        UserError: There is no checkpoint, or the buffer has lost what is asked for.
    """
    checkpoints = folder.checkpoints()
    if not checkpoints:
        raise UserError(f"{folder.path} has no checkpoint yet; resume it until it has saved once.")
    refuse_foreign(folder.config.task, folder.path, trust)
    built = Experiment(dataclasses.replace(folder.config, demonstrations=""), loggers=()).built
    if isinstance(built.loop, Hosted):
        built.loop.give_up_saves("only the buffer is read")  # so that no env is started
    try:
        shapes = built.loop.shapes(jnp.asarray(folder.config.all_seeds, jnp.int32))
    finally:
        built.close()
    ring = checkpoints[0].restore("rest", shapes, loose=("env_state",)).ring
    rows, done = ring.reward.shape[1], checkpoints[0].vector_steps
    if whole and done > rows:
        steps, kept = done * folder.config.n_envs, rows * folder.config.n_envs
        raise UserError(
            f"{folder.path} has done {steps:,} env steps, but its buffer keeps {kept:,}: its first states are gone. "
            "Train with a larger --buffer-size."
        )
    return jax.tree.map(lambda leaf: leaf[:, : min(done, rows)], ring)


def _best(folder: RunFolder, shapes: Any) -> tuple[Any, tuple[int, ...]]:
    """Each seed's best policy."""
    known, every = folder.best.entries(), folder.config.all_seeds
    if missing := [str(seed) for seed in every if seed not in known]:
        raise UserError(
            f"{folder.path} has no best policy of seed {', '.join(missing)}: it was not evaluated yet, or was trained "
            "with --no-keep-best; take --which last."
        )
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), shapes)
    rows = [arrays.load(folder.best.file(seed, known[seed]), known[seed].part, one) for seed in every]
    policies = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *rows)
    return policies, tuple(known[seed].env_steps for seed in every)
