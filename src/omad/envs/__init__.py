"""Environments by name; what a task needs is imported only when it is made."""

from __future__ import annotations

import importlib
from typing import Any

from omad import processes, tasks
from omad.envs.registry import of_object, register

__all__ = ["make", "of_object", "register"]


def make(name: str) -> Any:
    """Make the env of a task: a `JaxEnv`, or a `HostEnv` where the env is not written in JAX.

    Args:
        name: as in `mpe/spread-3`, `mpe/deception-2?adversary=static&state=true`, `mamujoco-full/ant-2x4`,
            `pettingzoo:package.module:factory?n=3`, `jaxmarl:NAME`, or as registered; see `omad.tasks`.

    Raises:
        omad.tasks.UnknownTask: where no such task or option exists.
        omad.errors.UserError: where a package is missing or a user's own env cannot be used.
    """
    task = tasks.find(name)
    module, _, function = task.factory.partition(":")
    with processes.env_code():
        return getattr(importlib.import_module(module), function)(**task.arguments)
