"""What an env of another library is asked for before it is adapted: options, bounds of actions, length of episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from omad.errors import UserError

_LENGTHS = ("horizon", "max_cycles", "max_steps", "episode_length", "max_episode_steps", "max_steps_in_episode")
"""Where the length of an episode is looked for, in this order."""


def team_options(task: str, arguments: Mapping[str, Any]) -> tuple[bool, int | None]:
    """Whether the team's reward is the mean of its agents' instead of the sum, and the horizon that was asked for.

    Raises:
        UserError: One cannot be what it is.
    """
    reward, horizon = arguments.get("team_reward", "sum"), arguments.get("horizon")
    if reward not in ("sum", "mean"):
        raise UserError(
            f"{task}: team_reward is {reward!r}; it may be sum or mean. The env's own argument of this name is written "
            "env.team_reward."
        )
    if horizon is not None and (not isinstance(horizon, int) or isinstance(horizon, bool) or horizon < 1):
        raise UserError(
            f"{task}: horizon is {horizon!r}; it must be a whole number of steps, at least 1. The env's own argument "
            "of this name is written env.horizon."
        )
    return reward == "mean", horizon


def bounds_of(task: str, agent: Any, space: Any, hint: str) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """The bounds of a space of actions, flat, and its shape.

    Raises:
        UserError: It is not continuous and bounded; the hint says how the env may be made so.
    """
    kind = type(space)
    shown = f"a {kind.__name__}" if kind.__repr__ is object.__repr__ else repr(space)
    if not (hasattr(space, "low") and hasattr(space, "high") and np.issubdtype(np.dtype(space.dtype), np.floating)):
        raise UserError(
            f"{task}: agent {agent} acts in {shown}; diffusion policies need continuous actions, a Box of real "
            f"numbers.{hint}"
        )
    shape = tuple(space.shape)
    low, high = (np.broadcast_to(np.asarray(part, float), shape).ravel() for part in (space.low, space.high))
    if not low.size:
        raise UserError(f"{task}: agent {agent} has a space without a number; each needs at least one.")
    if not np.isfinite([low, high]).all() or not (low < high).all():
        raise UserError(
            f"{task}: agent {agent} acts in {shown} from {low} to {high}, which has no finite bounds low < high."
        )
    return low, high, shape


def length_of(*owners: Any) -> int | None:
    """How long an env, its parameters or its factory's arguments say that an episode is; the first to say it counts."""
    for owner in owners:
        for name in _LENGTHS:
            value = owner.get(name) if isinstance(owner, Mapping) else getattr(owner, name, None)
            try:
                if isinstance(value, bool) or value is None or np.ndim(value) or float(value) != int(value):
                    continue
            except (TypeError, ValueError, OverflowError):
                continue
            if 0 < int(value) < 2**31:
                return int(value)
    return None
