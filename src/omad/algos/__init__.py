"""The registry of algorithms: one line each."""

from __future__ import annotations

import importlib
from typing import Any

from omad.errors import Refused
from omad.standardise import ObsNorm, standardised
from omad.tasks import nearest
from omad.types import Algorithm, EnvSpec

__all__ = ["REGISTRY", "config_class", "make"]

REGISTRY: dict[str, str] = {
    "omad": "omad.algos.omad:OmadConfig",
    "hasac": "omad.algos.hasac:HasacConfig",
    "hatd3": "omad.algos.hatd3:Hatd3Config",
}
"""Name -> `module:ConfigClass`; the module also has `make(config, spec)`."""


def config_class(name: str) -> type:
    """The configuration dataclass of an algorithm.

    Raises:
        Refused: No such algorithm; the message names the nearest.
    """
    if name not in REGISTRY:
        raise Refused(
            f"There is no algorithm {name!r}; nearest: {', '.join(nearest(name, REGISTRY))}; "
            f"allowed: {', '.join(REGISTRY)}."
        )
    module, cls = REGISTRY[name].split(":")
    return getattr(importlib.import_module(module), cls)


def make(config: Any, spec: EnvSpec, obs_norm: ObsNorm = "none") -> Algorithm:
    """The algorithm that a configuration belongs to, for a task of the given sizes."""
    algorithm = importlib.import_module(type(config).__module__).make(config, spec)
    return standardised(algorithm, spec, obs_norm)
