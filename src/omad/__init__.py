"""Online multi-agent reinforcement learning with diffusion policies."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omad import callbacks, loggers
    from omad.api import load_policy, load_run, resume, train
    from omad.callbacks import Callback, EarlyStopping
    from omad.config import RunConfig
    from omad.experiment import Experiment
    from omad.loggers import Logger
    from omad.trained import Run

__version__ = "0.1.0"
_HOMES = {
    "Callback": "callbacks",
    "EarlyStopping": "callbacks",
    "Experiment": "experiment",
    "Logger": "loggers",
    "Run": "trained",
    "RunConfig": "config",
    "load_policy": "api",
    "load_run": "api",
    "resume": "api",
    "train": "api",
}
"""Public name -> the module that it is imported from on first use, so that `import omad` stays light."""
_MODULES = ("callbacks", "loggers")
__all__ = [
    "Callback", "EarlyStopping", "Experiment", "Logger", "Run", "RunConfig", "__version__", "callbacks", "load_policy",
    "load_run", "loggers", "resume", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"omad.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"omad.{name}")
    raise AttributeError(f"module 'omad' has no attribute {name!r}")
