"""The registry of algorithms: one line each, and those that come from outside this package.

An installed package adds its own by an entry point of the group `omad.algorithms`; a script by calling `register`. The
configuration of a run holds a name only, which is looked up here, so opening someone else's run folder never imports
what that folder says, but only what was installed or registered on this machine.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import re
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from omad.errors import UserError
from omad.extras import refuse_missing
from omad.spec import EnvSpec, ObsNorm
from omad.tasks import nearest

if TYPE_CHECKING:
    from omad.types import Algorithm

REGISTRY: dict[str, str] = {
    "omad": "omad.algos.configs.omad:OmadConfig",
    "hasac": "omad.algos.configs.harl:HasacConfig",
    "hatd3": "omad.algos.configs.harl:Hatd3Config",
    "madpmd": "omad.algos.configs.denoising:MadpmdConfig",
    "masdac": "omad.algos.configs.denoising:MasdacConfig",
}
"""Name -> `module:ConfigClass`. `make(config, spec)` is in the module that the class names as its `program`, else in
its own; these configurations stand apart from their programs, so that they are read without waiting for JAX."""
GROUP = "omad.algorithms"
"""Entry points of this group, `name = "module:ConfigClass"`, are algorithms too."""
_registered: dict[str, str] = {}


@functools.cache
def _installed() -> dict[str, str]:
    """Algorithms of other installed packages; nothing is imported yet."""
    return {point.name: point.value for point in metadata.entry_points(group=GROUP)}


def available() -> Mapping[str, str]:
    """All algorithms there are: those of this package, which nothing replaces, then registered, then installed ones."""
    return {**_installed(), **_registered, **REGISTRY}


def register(name: str, target: str) -> None:
    """Add an algorithm of your own for as long as the process runs.

    Args:
        name: What it is called on the command line and in run folders.
        target: `module:ConfigClass`; the module also has `make(config, spec)`.

    Raises:
        UserError: The name is taken or cannot be one, the target is not of that form, or its package is not there.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        raise UserError(f"{name!r} cannot name an algorithm; use lower-case letters, digits, - and _.")
    if not re.fullmatch(r"[\w.]+:\w+", target):
        raise UserError(f"{target!r} does not say where an algorithm is; write module:ConfigClass.")
    taken = available().get(name, target)
    if taken != target:
        raise UserError(f"There is an algorithm {name!r} already ({taken}); choose another name.")
    refuse_missing(target)
    _registered[name] = target


def config_class(name: str) -> type:
    """The configuration dataclass of an algorithm.

    Raises:
        UserError: No such algorithm, the message names the nearest; or it cannot be imported.
    """
    there = REGISTRY if name in REGISTRY else available()
    if name not in there:
        raise UserError(
            f"There is no algorithm {name!r}; nearest: {', '.join(nearest(name, there))}; allowed: {', '.join(there)}. "
            "One of your own must be installed, or registered in this process with omad.register_algorithm."
        )
    module, _, cls = there[name].partition(":")
    try:
        found = getattr(importlib.import_module(module), cls)
    except (ImportError, AttributeError) as error:
        raise UserError(f"The algorithm {name!r} should be {there[name]}, but: {error}.") from error
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise UserError(f"The algorithm {name!r} should be {there[name]}, but that is no dataclass.")
    return found


def make(config: Any, spec: EnvSpec, obs_norm: ObsNorm = "none", updates_per_env_step: float = 1.0) -> Algorithm:
    """The algorithm that a configuration belongs to, for a task of the given sizes.

    Args:
        config: Hyperparameters; its module, or the one that its `program` names, has the `make` of the algorithm.
        spec: Sizes of the task.
        obs_norm: How observations are normalised before any function of the algorithm sees them.
        updates_per_env_step: Where `alpha_pace` is `env`, a gradient step moves the temperature the less, the more of
            them an env step has.

    Raises:
        UserError: The configuration does not fit the task, or `make` gives something else.
    """
    from omad.standardise import standardised
    from omad.types import Algorithm

    if getattr(config, "alpha_pace", "gradient") == "env":
        config = dataclasses.replace(config, alpha_lr=config.alpha_lr / updates_per_env_step)
    program = importlib.import_module(getattr(config, "program", type(config).__module__))

    def remade(hyperparameters: Mapping[str, Any]) -> Algorithm:
        made = program.make(_with(config, hyperparameters), spec)
        if not isinstance(made, Algorithm):
            raise UserError(
                f"The algorithm of {program.__name__}: make(config, spec) returned a {type(made).__name__}; it must "
                "return an omad.types.Algorithm."
            )
        return standardised(made, spec, obs_norm, getattr(config, "share_policy", False))

    algorithm = remade({})
    if not (names := getattr(config, "traced", ())):
        return algorithm
    hyperparameters = {name: float(value) for name in names if (value := getattr(config, name)) is not None}
    return algorithm._replace(hyperparameters=hyperparameters, remade=remade)


def _with(config: Any, hyperparameters: Mapping[str, Any]) -> Any:
    """The configuration with others, which may be tracers, and so are not checked again."""
    config = copy.copy(config)
    for name, value in hyperparameters.items():
        object.__setattr__(config, name, value)
    return config
