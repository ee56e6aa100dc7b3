"""Optional packages: what each extra is for, and whether it is there, which is asked before anything is made."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import NamedTuple

from omad.errors import UserError


class Extra(NamedTuple):
    """An extra of this package."""

    modules: tuple[str, ...]
    """What it installs."""
    purpose: str


EXTRAS: dict[str, Extra] = {
    "cluster": Extra(("ray",), "studies on a Ray cluster (omad sweep --launcher ray)"),
    "cuda": Extra(("jax_cuda13_plugin",), "training on NVIDIA GPUs"),
    "docs": Extra(("mkdocs", "material", "mkdocstrings"), "building the documentation"),
    "frames": Extra(("pandas",), "numbers of a run as a table (to_frame)"),
    "jaxmarl": Extra(("jaxmarl",), "tasks jaxmarl:NAME"),
    "mujoco": Extra(("mujoco", "gymnasium", "gymnasium_robotics", "pettingzoo"), "tasks mamujoco-... (robots)"),
    "onnx": Extra(("onnx", "onnxruntime"), "ONNX graphs of exported policies (omad export)"),
    "pettingzoo": Extra(("pettingzoo",), "tasks pettingzoo:package.module:factory"),
    "render": Extra(("imageio_ffmpeg",), "films of episodes (omad render)"),
    "tune": Extra(("optuna",), "the search of hyperparameters in examples/"),
    "wandb": Extra(("wandb",), "the logger Wandb"),
}
"""What each one installs and is for."""
_OF_TASKS = {"mamujoco-": "mujoco", "pettingzoo:": "pettingzoo"}
"""How a task's name begins -> the extra that it needs."""


def installed(module: str) -> bool:
    """Whether a module can be imported; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # it is imported already and does not say from where
        return True


def refuse_missing(place: str) -> None:
    """Refuse `package.module:name` whose package is neither installed nor in the working folder; nothing is imported.

    Raises:
        UserError: It is not there.
    """
    add_working_folder()
    package = place.partition(":")[0].partition(".")[0]
    if not installed(package):
        raise UserError(
            f"{place} cannot be registered: there is no package {package}; install it, or run from the folder of its "
            "file."
        )


def add_working_folder() -> None:
    """A script in the working folder is found, as `python -m` would find it."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)


def version(package: str) -> str | None:
    """The installed version of a distribution; None where there is none."""
    from importlib import metadata  # which takes a tenth of a worker's start, and it asks for no version

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def require(extra: str, what: str, *modules: str) -> None:
    """Refuse to continue without the packages of an extra.

    Args:
        extra: One of `EXTRAS`.
        what: Needs it.
        *modules: Of the extra; by default all.

    Raises:
        UserError: A package is missing.
    """
    if missing := [module for module in modules or EXTRAS[extra].modules if not installed(module)]:
        raise UserError(f"{what} needs the package {', '.join(missing)}; install it with: pip install 'omad[{extra}]'.")


def require_for_task(task: str) -> None:
    """Refuse a task whose packages are missing.

    Raises:
        UserError: They are.
    """
    for begin, extra in _OF_TASKS.items():
        if task.startswith(begin):
            require(extra, task)
