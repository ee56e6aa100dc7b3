"""Environments by name; what a task needs is imported only when it is made."""

from __future__ import annotations

import dataclasses
import pkgutil
from typing import Any

from omad import processes, tasks
from omad.envs.patience import waiting
from omad.envs.registry import of_object, register

__all__ = ["make", "of_object", "register", "with_info"]


def make(name: str, timeout_s: float = 0.0) -> Any:
    """Make the env of a task: a `JaxEnv`, or a `HostEnv` where the env is not written in JAX.

    Args:
        name: as in `mpe/spread-3`, `mpe/deception-2?adversary=static&state=true`, `mamujoco-full/ant-2x4`,
            `pettingzoo:package.module:factory?n=3`, `jaxmarl:NAME`, or as registered; see `omad.tasks`.
        timeout_s: Seconds that a user's env may take to be made and described, if they are more than two minutes.

    Raises:
        omad.tasks.UnknownTask: where no such task or option exists.
        omad.errors.UserError: where a package is missing or a user's own env cannot be used.
    """
    task = tasks.find(name)
    with processes.env_code(), waiting(timeout_s):
        return pkgutil.resolve_name(task.factory)(**task.arguments)


def with_info(env: Any, name: str, info_keys: tuple[str, ...]) -> Any:
    """A PettingZoo env of a task with the info numbers that a run recorded; any other env as it is.

    Which numbers the agents' infos hold is found in one step, and may be by chance; those that are missing count 0.
    """
    if tasks.find(name).factory != "omad.envs.pettingzoo:make":
        return env
    return env._replace(spec=dataclasses.replace(env.spec, info_keys=info_keys))
