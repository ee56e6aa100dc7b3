"""The grammar of tasks' names: which options there are, how they are read and how they are written."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from omad.tasks.rows import UnknownTask, nearest

# Options: name -> (default, parser of text, what is allowed)


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"nearest: {nearest(text, allowed, 1)[0]}")
        return text

    return parse


def _within(kind: Callable[[str], float], low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return parse


_flag = {"true": True, "false": False}.__getitem__

Option = tuple[Any, Callable[[str], Any], str]

_COMMON: dict[str, Option] = {
    "dynamics": ("v3", _one_of("v3", "v2"), "v3 or v2"),
    "history": (1, _within(int, 1, 10), "a whole number from 1 to 10"),
    "horizon": (25, _within(int, 1, 10_000), "a whole number from 1 to 10000"),
    "state": (False, _flag, "true or false"),
}
_SCRIPTS = ("random", "static", "landmark_mean", "follower")

OPTIONS: Mapping[str, Mapping[str, Option]] = MappingProxyType(
    {
        "mpe/spread": _COMMON | {"local_ratio": (0.5, _within(float, 0, 1), "a number from 0 to 1")},
        "mpe/deception": _COMMON
        | {
            "adversary": ("random", _one_of(*_SCRIPTS), ", ".join(_SCRIPTS)),
            "state": (False, {"true": True, "false": False, "full": "full"}.__getitem__, "true, false or full"),
        },
        **{
            f"probe/{kind}": {"host": (False, _flag, "true or false")}
            for kind in ("constant", "signal", "delay", "timeout", "push", "relay")
        },
    }
)
"""Options of each family of tasks: default, parser, and the words for what is allowed."""


def stacked_dims(obs_dims: tuple[int, ...], act_dims: tuple[int, ...], history_length: int) -> tuple[int, ...]:
    """Sizes of observations with frame stacking: several observations, and the own actions between them."""
    return tuple(obs + (history_length - 1) * (obs + act) for obs, act in zip(obs_dims, act_dims, strict=True))


def family(base: str) -> str:
    """A task's name without its number of agents."""
    return re.sub(r"-\d+(-xy)?$", "", base) if base.startswith("mpe/") else base


def text_of(value: Any) -> str:
    """An option's value as a task's name has it; numbers are exact."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def spell(base: str, options: Mapping[str, Any]) -> str:
    """The canonical name of a task: its base and those options that are not at their default."""
    known = OPTIONS.get(family(base), {})
    parts = [
        f"{key}={text_of(value)}"
        for key, value in sorted(options.items())
        if key not in known or value != known[key][0]
    ]
    return base + ("?" + "&".join(parts) if parts else "")


def value_of(text: str) -> Any:
    """true, false, none, a finite number, what Python writes with brackets or quotes, or the text itself.

    Digits in quotes are text: `?level='7'`.

    Raises:
        UnknownTask: It begins like a list, a dict or a quoted text, and is none.
    """
    if text[:1] in tuple("[{('\""):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise UnknownTask(
                f"The argument {text!r} begins like a list, a dict or a quoted text, but is none; write it as Python "
                "does, as in ?sizes=[64,64] or ?names=['red','blue'] or ?level='7'."
            ) from None
        if isinstance(value, tuple):
            value = list(value)
        if isinstance(value, bool | int | float | str | list | dict | None):
            return value
        raise UnknownTask(
            f"The argument {text!r} is a {type(value).__name__}; numbers, text, lists and dicts may be given."
        )
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text


def options_of(base: str, tail: str) -> dict[str, Any]:
    """The options after a `?`, of a task of the table.

    Raises:
        UnknownTask: With what was given, the nearest valid names, and what is allowed.
    """
    known = OPTIONS.get(family(base), {})
    given: dict[str, Any] = {}
    for part in filter(None, tail.split("&")):
        key, _, text = part.partition("=")
        if key not in known:
            allowed = ", ".join(sorted(known)) or "none"
            near = f"nearest: {nearest(key, known, 1)[0]}; " if known else ""
            raise UnknownTask(f"Task {base!r} has no option {key!r}; {near}allowed: {allowed}.")
        if key in given:
            raise UnknownTask(f"Task {base!r} is given option {key!r} twice, in {tail!r}; once is allowed.")
        try:
            given[key] = known[key][1](text)
        except (ValueError, KeyError) as error:
            hint = f"{error}; " if str(error).startswith("nearest") else ""
            raise UnknownTask(f"Task {base!r} cannot take {key}={text!r}; {hint}allowed: {known[key][2]}.") from None
    return given


def arguments_of(name: str) -> dict[str, Any]:
    """The keyword arguments after a `?`, of an env from outside this package; a leading `env.` stays.

    Raises:
        UnknownTask: One is not key=value, or is given twice.
    """
    arguments: dict[str, Any] = {}
    for part in filter(None, name.partition("?")[2].split("&")):
        key, given, text = part.partition("=")
        if not key.removeprefix("env.").isidentifier() or not given or key in arguments:
            raise UnknownTask(f"{name!r}: {part!r} is not an argument; write key=value, each key once.")
        arguments[key] = value_of(text)
    return arguments
