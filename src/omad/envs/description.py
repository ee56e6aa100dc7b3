"""The description of an env whose code runs in other processes: made once and handed on, so that no env is created."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec

from omad.envs.isolated import apart
from omad.spec import EnvSpec


class EnvDescription(msgspec.Struct):
    """Sizes, bounds and notes of an env, as its process reports them."""

    spec: EnvSpec
    exact: bool = True
    notes: tuple[str, ...] = ()


def describe_spec(spec: EnvSpec, exact: bool = True, notes: tuple[str, ...] = ()) -> dict[str, Any]:
    """The description of an env of these sizes, for a worker that is to create the same one; it has no name yet."""
    return msgspec.to_builtins(EnvDescription(dataclasses.replace(spec, name=""), exact, tuple(notes)))


_handed: dict[str, Mapping[str, Any]] = {}


def hand_over(task: str, description: Mapping[str, Any]) -> None:
    """Keep a description that exists already for the next `given_or_found` of the task."""
    _handed[task] = description


def given_or_found(
    task: str, describe: str, factory: str, arguments: Mapping[str, Any], description: Mapping[str, Any] | None
) -> EnvDescription:
    """An env's description: as given or handed over, else as a process of its own reports it.

    Args:
        task: The name that its spec gets.
        describe: `module:function` that describes it, called with `factory` and `arguments`.
        factory: `module:qualname` of the user's factory.
        arguments: Of the factory, and of omad.
        description: What is known already.

    Raises:
        UserError: The env cannot be made, or not be used.
    """
    description = description or _handed.pop(task, None)
    if description is None:
        description = apart(task, describe, {"factory": factory, "arguments": dict(arguments)})
    found = msgspec.convert(description, EnvDescription)
    return msgspec.structs.replace(found, spec=dataclasses.replace(found.spec, name=task))
