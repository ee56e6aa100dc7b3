"""Online multi-agent reinforcement learning with diffusion policies."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "EnvSpec",
    "HostEnv",
    "JaxEnv",
    "Observation",
    "Outcome",
    "__version__",
    "algos",
    "envs",
    "load_policy",
    "register_algorithm",
    "register_env",
    "resume",
    "train",
]

if TYPE_CHECKING:
    from omad import algos, envs
    from omad.algos import register as register_algorithm
    from omad.api import load_policy, resume, train
    from omad.envs import register as register_env
    from omad.envs.world import HostEnv
    from omad.spec import EnvSpec
    from omad.types import JaxEnv, Observation, Outcome

_LAZY = {
    "EnvSpec": "omad.spec:EnvSpec",
    "HostEnv": "omad.envs.world:HostEnv",
    "JaxEnv": "omad.types:JaxEnv",
    "Observation": "omad.types:Observation",
    "Outcome": "omad.types:Outcome",
    "algos": "omad.algos",
    "envs": "omad.envs",
    "load_policy": "omad.api:load_policy",
    "register_algorithm": "omad.algos:register",
    "register_env": "omad.envs:register",
    "resume": "omad.api:resume",
    "train": "omad.api:train",
}
"""Public name -> the module, or what of it, is meant."""


def __getattr__(name: str) -> Any:
    """Import the interface on first use, so that `import omad` stays light."""
    if name not in _LAZY:
        raise AttributeError(f"module 'omad' has no attribute {name!r}")
    module, _, part = _LAZY[name].partition(":")
    found = importlib.import_module(module)
    return getattr(found, part) if part else found
