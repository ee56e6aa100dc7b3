"""The description of an env whose code runs in other processes: made once and handed on, so that no env is created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from omad.envs.isolated import apart
from omad.spec import EnvSpec


class EnvDescription(msgspec.Struct):
    """Sizes, bounds and notes of an env, as its process reports them."""

    agents: list[str]
    obs_dims: list[int]
    act_dims: list[int]
    act_low: list[list[float]]
    act_high: list[list[float]]
    state_dim: int
    horizon: int
    guessed: bool = False
    exact: bool = True
    notes: list[str] = []
    info_keys: list[str] = []

    def spec(self, task: str) -> EnvSpec:
        """The sizes, under a task's name."""
        return EnvSpec(
            task, tuple(self.obs_dims), tuple(self.act_dims), self.state_dim, self.horizon, tuple(self.info_keys),
            tuple(self.agents), tuple(map(tuple, self.act_low)), tuple(map(tuple, self.act_high)),
        )  # fmt: skip


def describe_spec(spec: EnvSpec, exact: bool = True, notes: tuple[str, ...] = ()) -> dict[str, Any]:
    """The description of an env of these sizes, for a worker that is to create the same one."""
    description = EnvDescription(
        list(spec.agents), list(spec.obs_dims), list(spec.act_dims), [list(row) for row in spec.act_low],
        [list(row) for row in spec.act_high], spec.state_dim, spec.horizon, exact=exact, notes=list(notes),
        info_keys=list(spec.info_keys),
    )  # fmt: skip
    return msgspec.to_builtins(description)


_handed: dict[str, Mapping[str, Any]] = {}


def hand_over(task: str, description: Mapping[str, Any]) -> None:
    """Keep a description that exists already for the next `given_or_found` of the task."""
    _handed[task] = description


def given_or_found(
    task: str, describe: str, factory: str, arguments: Mapping[str, Any], description: Mapping[str, Any] | None,
    timeout_s: float,
) -> EnvDescription:  # fmt: skip
    """An env's description: as given or handed over, else as a process of its own reports it.

    Args:
        task: For messages.
        describe: `module:function` that describes it, called with `factory` and `arguments`.
        factory: `module:qualname` of the user's factory.
        arguments: Of the factory, and of omad.
        description: What is known already.
        timeout_s: For the process that describes it.

    Raises:
        UserError: The env cannot be made, or not be used.
    """
    description = description or _handed.pop(task, None)
    if description is None:
        given = {"factory": factory, "arguments": dict(arguments)}
        description = apart(task, describe, given, timeout_s)
    return msgspec.convert(description, EnvDescription)
