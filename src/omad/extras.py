"""Optional packages: whether they are there is asked before anything is made."""

from __future__ import annotations

import importlib.util

from omad.errors import Refused

__all__ = ["EXTRAS", "installed", "require", "require_for_task"]

EXTRAS: dict[str, tuple[str, ...]] = {
    "mujoco": ("mujoco", "gymnasium", "gymnasium_robotics", "pettingzoo"),
    "onnx": ("onnx", "onnxruntime"),
    "pettingzoo": ("pettingzoo",),
    "render": ("imageio_ffmpeg",),
    "wandb": ("wandb",),
}
"""Extra of this package -> the modules that it installs."""
_OF_TASKS = {"mamujoco-": "mujoco", "pettingzoo:": "pettingzoo"}
"""How a task's name begins -> the extra that it needs."""


def installed(module: str) -> bool:
    """Whether a module can be imported; it is not imported."""
    return importlib.util.find_spec(module) is not None


def require(extra: str, what: str) -> None:
    """Refuse to go on without the packages of an extra.

    Args:
        extra: One of `EXTRAS`.
        what: Needs it.

    Raises:
        Refused: A package is missing.
    """
    if missing := [module for module in EXTRAS[extra] if not installed(module)]:
        raise Refused(f"{what} needs the package {', '.join(missing)}; install it with: pip install 'omad[{extra}]'.")


def require_for_task(task: str) -> None:
    """Refuse a task whose packages are missing.

    Raises:
        Refused: They are.
    """
    for begin, extra in _OF_TASKS.items():
        if task.startswith(begin):
            require(extra, task)
