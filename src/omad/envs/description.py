"""What is known of an env whose code runs in other processes: told once, and handed on, so that none is made for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from omad import processes
from omad.envs.isolated import call
from omad.spec import EnvSpec

__all__ = ["EnvDescription", "describe_spec", "given_or_found", "hand_over"]


class EnvDescription(msgspec.Struct):
    """What an env is like, as a process told that was asked."""

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
    """What is known of an env, for a worker that is to make the same one."""
    told = EnvDescription(
        list(spec.agents), list(spec.obs_dims), list(spec.act_dims), [list(row) for row in spec.act_low],
        [list(row) for row in spec.act_high], spec.state_dim, spec.horizon, exact=exact, notes=list(notes),
        info_keys=list(spec.info_keys),
    )  # fmt: skip
    return msgspec.to_builtins(told)


_handed: dict[str, Mapping[str, Any]] = {}


def hand_over(task: str, told: Mapping[str, Any]) -> None:
    """What an env is like that was looked at already; the next who would ask is told this."""
    _handed[task] = told


def given_or_found(
    task: str, describe: str, factory: str, arguments: Mapping[str, Any], told: Mapping[str, Any] | None,
    timeout_s: float,
) -> EnvDescription:  # fmt: skip
    """What an env is like: as told or handed over, else as a process of its own answers.

    Args:
        task: For messages.
        describe: `module:function` that tells, called with `factory` and `arguments`.
        factory: `module:qualname` of the user's factory.
        arguments: Of the factory, and of omad.
        told: What is known already.
        timeout_s: For the process that is asked.

    Raises:
        Refused: The env cannot be made, or not be used.
    """
    told = told or _handed.pop(task, None)
    if told is None:
        given = {"factory": factory, "arguments": dict(arguments)}
        if os.environ.get(processes.WORKER) is None:
            told = call(task, describe, given, timeout_s)
        else:  # this is a process of its own
            import importlib

            module, _, function = describe.partition(":")
            told = getattr(importlib.import_module(module), function)(**given)
    return msgspec.convert(told, EnvDescription)
