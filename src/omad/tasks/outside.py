"""Envs from outside this package: by import path, by JaxMARL's own names, registered, or given as objects.

What was registered or given is known to this process only; entry points of the group `omad.envs` are known to every
process of an installation. Nothing is imported here.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from omad.tasks.grammar import arguments_of
from omad.tasks.rows import Task, UnknownTask, nearest

GROUP = "omad.envs"
"""Entry points of this group, `name = "module:factory"`, are envs too."""
OBJECT = "object:"
"""Begins the names of envs that were given as objects."""
SCHEMES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "pettingzoo": ("omad.envs.pettingzoo:make", "Undiscounted return of a user's own PettingZoo env."),
        "host": ("omad.envs.host:make", "Undiscounted return of a user's own env on the host."),
        "jax": ("omad.envs.outside:make", "Undiscounted return of a user's own JAX env."),
        "jaxmarl": ("omad.envs.outside:make_jaxmarl", "Undiscounted return of the team in an env of JaxMARL."),
    }
)
"""Scheme -> what makes the env, and the protocol."""
_RESERVED = ("mpe", "probe", "games")
"""What this package's own tasks begin with."""
_ISOLATED = ("pettingzoo", "host")
"""Schemes whose code runs in processes of its own."""
NAME = re.compile(r"[A-Za-z0-9][\w./-]*", re.ASCII)
"""What an env may be called."""
_PATH = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"


@dataclasses.dataclass
class Entry:
    """An env that has a name in this process."""

    path: str
    """`module:factory`, empty where no other process can import it."""
    given: Any = None
    """The factory, or what it returned; None where the path says it all."""
    source: Any = None
    """The object from which that was made."""
    description: Mapping[str, Any] | None = None
    """Of an object on the host: its sizes, bounds and notes."""
    scheme: str = ""
    """`pettingzoo` or `host` once it is known that the path gives one."""


_entries: dict[str, Entry] = {}


@functools.cache
def _installed() -> Mapping[str, str]:
    """Envs of other installed packages, but none that would stand for a task of this one; nothing is imported yet."""
    from importlib import metadata  # as in `extras.version`

    points = metadata.entry_points(group=GROUP)
    return {point.name: point.value.replace(" ", "") for point in points if not reserved(point.name)}


def reserved(name: str) -> bool:
    """Whether a name begins as the tasks of this package do, or cannot be written as a task's."""
    first = name.partition("/")[0]
    return first in _RESERVED or first.startswith("mamujoco-") or not NAME.fullmatch(name)


def registered() -> list[str]:
    """Names of all envs that were registered or installed, objects aside."""
    return sorted({*(name for name in _entries if not name.startswith(OBJECT)), *_installed()})


def registered_here(name: str) -> bool:
    """Whether a name without options was registered in this process, so that no other one knows it."""
    return name in _entries and name not in _installed() and not name.startswith(OBJECT)


def entry_of(name: str) -> Entry | None:
    """What a name without options stands for in this process."""
    if name not in _entries and not name.startswith(OBJECT) and name in _installed():
        _entries[name] = Entry(_installed()[name])
    return _entries.get(name)


def add(name: str, entry: Entry) -> None:
    """Give an env a name for as long as the process runs."""
    _entries[name] = entry


def find_outside(name: str) -> Task | None:
    """The task of a name that says where its env comes from; None where it is none of these.

    Raises:
        UnknownTask: There is no such scheme, or what follows it does not say where an env is.
    """
    base, _, _ = name.partition("?")
    scheme, colon, place = base.partition(":")
    if entry := entry_of(base):
        return _entered(name, base, entry)
    if base.startswith(OBJECT):
        # Its folder can be read everywhere; only making the env needs it again.
        return _row(name, "omad.envs.outside:forgotten", "Undiscounted return of an env that was given as an object.")
    if not colon:
        return None
    if scheme not in SCHEMES:
        forms = ", ".join(f"{one}:{'NAME' if one == 'jaxmarl' else 'package.module:factory'}" for one in SCHEMES)
        raise UnknownTask(
            f"{name!r} begins with {scheme + ':'!r}, which says nothing; nearest: {nearest(scheme, SCHEMES, 1)[0]}:; "
            f"allowed: {forms}."
        )
    factory, protocol = SCHEMES[scheme]
    if scheme == "jaxmarl":
        if not re.fullmatch(r"[\w|.-]+", place):
            raise UnknownTask(f"{name!r} names no env of JaxMARL; write jaxmarl:NAME, as jaxmarl:MPE_simple_spread_v3.")
        return _row(name, factory, f"{protocol[:-1]}, {place}.", env=place, arguments=arguments_of(name))
    if not re.fullmatch(f"{_PATH}:{_PATH}", place):
        raise UnknownTask(
            f"{name!r} does not say where an env is; it must be {scheme}:package.module:factory, with keyword "
            "arguments after ? as in ?n=3&continuous=true."
        )
    row = _row(name, factory, protocol, factory=place, arguments=arguments_of(name))
    apart = scheme in _ISOLATED
    return dataclasses.replace(row, code=place, isolated=apart, hosted=apart, symmetric=not apart)


def _entered(name: str, base: str, entry: Entry) -> Task:
    protocol = (
        "Undiscounted return of an env that was given as an object."
        if base.startswith(OBJECT)
        else f"Undiscounted return of the env that is registered as {base}."
    )
    if not entry.scheme:
        return _row(name, "omad.envs.outside:make_entry", protocol, arguments=arguments_of(name))
    factory, _ = SCHEMES[entry.scheme]
    known = {} if entry.description is None else {"description": entry.description, "creates_instance": True}
    row = _row(name, factory, protocol, factory=entry.path, arguments=arguments_of(name), **known)
    # What a preset sets must not depend on whether a registered env was made before.
    return dataclasses.replace(row, isolated=True, hosted=base.startswith(OBJECT), symmetric=False)


def _row(name: str, maker: str, protocol: str, /, **arguments: Any) -> Task:
    return Task(
        name=name,
        protocol=protocol,
        obs_dims=(),
        act_dims=(),
        state_dim=0,
        horizon=0,
        factory=maker,
        arguments=MappingProxyType({"task": name, **arguments}),
        symmetric=True,
    )
