"""A user's factory: imported by its path, checked before it is called, its errors put into one sentence.

Whoever names `package.module:factory` means a class or a function that is defined there, and nothing else is called.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import sys
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from omad import processes
from omad.envs import contract
from omad.envs.contract import Broken, guarded
from omad.errors import Stopped, UserError
from omad.extras import add_working_folder

OWN = "env."
"""Before the name of an argument: it goes to the factory only, as in `?env.team_reward=global`."""
_HELPERS = ("pettingzoo",)
"""Packages whose helpers make factories for others."""


def imported(named: str, kinds: tuple[type, ...] = (), what: str = "a class") -> Any:
    """Import what makes an env, and look at it before it is called.

    Args:
        named: `module:qualname`.
        kinds: Classes of which a class that is named must be one; any class of the module by default.
        what: These in words.

    Raises:
        UserError: It cannot be imported, or is nothing that makes an env of its own.
    """
    add_working_folder()
    module, _, function = named.partition(":")
    top = module.partition(".")[0]
    if top == "__main__":
        raise UserError(
            f"{named}: worker processes cannot import what a script or notebook defines; put the env into a file of "
            "its own and name that."
        )
    if _foreign(top):
        raise UserError(f"{named}: {top} is not a module of an env; name the module in which your env is defined.")
    try:
        there = importlib.import_module(module)
    except (Stopped, UserError):
        raise
    except ImportError as error:
        raise UserError(
            f"The env {named} cannot be imported: {error}. Install its package, or run from the folder of its file."
        ) from error
    except SystemExit as error:
        raise UserError(
            f"The env {named} cannot be imported: its module tried to end the process ({contract.place_of(error)}). "
            "Put what a script does under: if __name__ == '__main__'."
        ) from error
    except Exception as error:
        raise UserError(
            f"The env {named} cannot be imported: {contract.said_by(error)} ({contract.place_of(error)})."
        ) from error
    made = functools.reduce(lambda owner, name: getattr(owner, name, None), function.split("."), there)
    if made is None:
        raise UserError(f"The module {module} has no {function}; name what makes the env.")
    if isinstance(made, type):
        if issubclass(made, kinds) if kinds else (made.__module__ or "").partition(".")[0] == top:
            return made
    elif isinstance(made, types.FunctionType) and (made.__module__ or "").partition(".")[0] in (top, *_HELPERS):
        return made
    raise UserError(
        f"{named} {'is' if callable(made) else 'cannot be called: it is'} {_described(made)}, not {what} or a "
        f"function that is defined in {module}."
    )


def _foreign(top: str) -> bool:
    """Whether a package is none in which a user defines an env."""
    return top in sys.stdlib_module_names or top in ("builtins", "omad")


def _described(made: Any) -> str:
    home = getattr(made, "__module__", None)
    return f"a {type(made).__name__}" + (f" from {home}" if isinstance(home, str) else "")


def path_of(made: Any) -> str:
    """`module:qualname` by which other processes can import a class or function; empty where they cannot."""
    if not isinstance(made, type | types.FunctionType):
        return ""
    own = [(made.__module__ or "", made.__qualname__)]
    # What a package's helper has made is known by where it stands.
    for module, name in itertools.chain(own, _places(made)):
        top = module.partition(".")[0]
        if not top or top == "__main__" or _foreign(top) or "<" in name or module not in sys.modules:
            continue
        home = (made.__module__ or "").partition(".")[0]
        if home not in (top, *_HELPERS):
            continue
        if functools.reduce(lambda owner, key: getattr(owner, key, None), name.split("."), sys.modules[module]) is made:
            return f"{module}:{name}"
    return ""


def _places(made: Any) -> Iterator[tuple[str, str]]:
    """Where something stands among the modules that are imported, short names first."""
    for name in sorted(sys.modules, key=lambda name: (len(name), name)):
        for key, value in list(getattr(sys.modules.get(name), "__dict__", {}).items()):
            if value is made:
                yield name, key


def takes(made: Any, name: str) -> bool:
    """Whether a factory names an argument so."""
    try:
        found = inspect.signature(made).parameters.get(name)
    except (TypeError, ValueError):
        return False
    return found is not None and found.kind is not inspect.Parameter.VAR_KEYWORD


def built(
    named: str, made: Callable[..., Any], arguments: Mapping[str, Any], ours: Collection[str] = (), **more: Any
) -> Any:
    """What a factory gives.

    Args:
        named: It, in messages.
        made: The factory.
        arguments: As they stand in the task's name.
        ours: Names of arguments that omad reads; the factory gets them only if it takes arguments of these names.
        **more: Arguments that omad adds.

    Raises:
        UserError: It cannot be called so, or fails.
    """
    given = {key: value for key, value in arguments.items() if key not in ours or takes(made, key)}
    given = {key.removeprefix(OWN): value for key, value in given.items()} | more
    try:
        inspect.signature(made).bind(**given)
    except TypeError as error:
        raise UserError(f"{named} cannot be called with {given}: {error}.") from error
    except ValueError:  # its signature cannot be read
        pass
    try:
        with processes.env_code():
            return guarded("the constructor", made, **given)
    except Broken as error:
        raise UserError(f"{named}: {error}.") from error
