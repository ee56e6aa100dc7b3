"""Environments by name; what a task needs is imported only when it is made."""

from __future__ import annotations

import importlib

from omad import tasks
from omad.types import JaxEnv

__all__ = ["make"]


def make(name: str) -> JaxEnv:
    """Make the env of a task.

    Args:
        name: as in `mpe/spread-3`, `mpe/spread-4-xy`, `mpe/deception-2?adversary=static&state=true`,
            `probe/relay`; see `omad.tasks`.

    Raises:
        omad.tasks.UnknownTask: where no such task or option exists.
    """
    task = tasks.find(name)
    module, _, function = task.factory.partition(":")
    return getattr(importlib.import_module(module), function)(**task.arguments)
