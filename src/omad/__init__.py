"""Online multi-agent reinforcement learning with diffusion policies."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omad import algos, callbacks, envs, loggers
    from omad.algos import register as register_algorithm
    from omad.api import load_policy, load_run, resume, train
    from omad.callbacks import BestPolicy, Callback, EarlyStopping, TimeLimit
    from omad.config import RunConfig
    from omad.envs import register as register_env
    from omad.envs.host_env import HostEnv, HostObservation, StepResult
    from omad.errors import UserError
    from omad.experiment import Experiment
    from omad.loggers import Logger
    from omad.spec import EnvSpec, Symmetry
    from omad.trained import Run
    from omad.types import JaxEnv, Observation, Outcome

__version__ = "0.1.0"
_LAZY = {
    name: f"omad.{module}:{name}"
    for module, names in {
        "api": ("load_policy", "load_run", "resume", "train"),
        "callbacks": ("BestPolicy", "Callback", "EarlyStopping", "TimeLimit"),
        "config": ("RunConfig",),
        "envs.host_env": ("HostEnv", "HostObservation", "StepResult"),
        "errors": ("UserError",),
        "experiment": ("Experiment",),
        "loggers": ("Logger",),
        "spec": ("EnvSpec", "Symmetry"),
        "trained": ("Run",),
        "types": ("JaxEnv", "Observation", "Outcome"),
    }.items()
    for name in names
}
_LAZY |= {name: f"omad.{name}" for name in ("algos", "callbacks", "envs", "loggers")}
_LAZY |= {"register_algorithm": "omad.algos:register", "register_env": "omad.envs:register"}
"""Public name -> the module, or what of it, is meant; imported on first use, so that `import omad` stays light."""
__all__ = [
    "BestPolicy", "Callback", "EarlyStopping", "EnvSpec", "Experiment", "HostEnv", "HostObservation", "JaxEnv",
    "Logger", "Observation", "Outcome", "Run", "RunConfig", "StepResult", "Symmetry", "TimeLimit", "UserError",
    "__version__", "algos", "callbacks", "envs", "load_policy", "load_run", "loggers", "register_algorithm",
    "register_env", "resume", "train",
]  # fmt: skip


def __dir__() -> list[str]:
    """Everything public, imported or not."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _LAZY:
        raise AttributeError(f"module 'omad' has no attribute {name!r}")
    module, _, part = _LAZY[name].partition(":")
    found = importlib.import_module(module)
    return getattr(found, part) if part else found
