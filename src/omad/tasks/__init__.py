"""Tasks: their names, protocols, sizes and reference returns.

A task's name holds its protocol: `mpe/deception-2?adversary=static&dynamics=v2`. Options that have their
default value are left out of the name, the others stand in alphabetical order. The name of an env from outside this
package says where it comes from: `pettingzoo:package.module:factory?n=3`, `jaxmarl:NAME`, or a name that was
registered. Returns of differently named tasks are not comparable, except that the options `state` and `history` and
the suffix `-xy` change only what critics or agents are given or how actions are written. Nothing heavy is imported.
"""

from __future__ import annotations

from omad.tasks.grammar import OPTIONS, options_of, spell, stacked_dims
from omad.tasks.outside import find_outside, registered
from omad.tasks.robots import PROTOCOLS, is_segments
from omad.tasks.rows import Published, Reference, Task, UnknownTask, nearest
from omad.tasks.table import FORMS, GAME_MODES, TASKS, build

__all__ = [
    "GAME_MODES",
    "OPTIONS",
    "PROTOCOLS",
    "TASKS",
    "Published",
    "Reference",
    "Task",
    "UnknownTask",
    "find",
    "nearest",
    "options_of",
    "spell",
    "stacked_dims",
]


def find(name: str) -> Task:
    """The task of a name, options included.

    Raises:
        UnknownTask: with what was given, the nearest valid names, and what is allowed.
    """
    if (row := find_outside(name)) is not None:
        return row
    base, _, tail = name.partition("?")
    if base not in TASKS and not is_segments(base):
        near = ", ".join(nearest(base, [*TASKS, *registered()]))
        own = ", ".join(registered())
        raise UnknownTask(
            f"There is no task {base!r}; nearest: {near}; allowed: {FORMS}"
            + (f"; and as registered: {own}." if own else "; an env of another name is registered first.")
        )
    return build(base, options_of(base, tail))
