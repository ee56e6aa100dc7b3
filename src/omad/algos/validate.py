"""Validation of configurations and options, with the same messages everywhere: annotations first, then ranges."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import math
import numbers
import struct
import textwrap
import typing
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast

from omad.errors import UserError
from omad.schema import plain

MOST = 2**31 - 1
"""The largest whole number: sizes and counters are int32 in compiled loops."""
_MOST_UNITS = 2**20
_MOST_UNROLLED = 1000
_LARGEST, _SMALLEST = 3.4028234663852886e38, 1.1754943508222875e-38
"""Of the normal float32 numbers, in which everything is computed."""


def shown(value: Any) -> str:
    """A value as it may stand in a message: short, on one line, whatever it is."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**30:
        return f"a whole number of about {max(1, int(value.bit_length() * 0.30103))} digits"
    if isinstance(value, dict | list | tuple | set) and value:
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:100]}... ({len(text)} characters)"


def float32(value: float) -> float:
    """A number as the computations see it."""
    return struct.unpack("f", struct.pack("f", value))[0]


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass; those of a class whose names cannot be looked up are not checked."""
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError):
        return {}


def fitted(name: str, value: Any, kind: Any) -> Any:
    """A value as its annotation wants it, in plain Python types; NumPy's numbers are taken too.

    Raises:
        UserError: It is of another kind, or too large.
    """
    options = typing.get_args(kind)
    if typing.get_origin(kind) in (Union, UnionType) and NoneType in options:
        return None if value is None else fitted(name, value, Union[tuple(o for o in options if o is not NoneType)])  # noqa: UP007
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if kind is bool:
        if type(value).__name__ in ("bool", "bool_"):
            return bool(value)
        raise UserError(f"{name} is {shown(value)}; it must be true or false.")
    if kind is int:
        if not number or not isinstance(value, numbers.Integral):
            raise UserError(f"{name} is {shown(value)}; it must be a whole number.")
        if abs(int(value)) > MOST:
            limit = f"at most {MOST}" if int(value) > 0 else f"between -{MOST} and {MOST}"
            raise UserError(f"{name} is {shown(int(value))}; it must be {limit}.")
        return int(value)
    if kind is float:
        if not number:
            raise UserError(f"{name} is {shown(value)}; it must be a number.")
        try:
            size = abs(float(cast(float, value)))
        except OverflowError:  # of a whole number with hundreds of digits
            size = math.inf
        if size and not _SMALLEST <= size <= _LARGEST:  # not a number compares as false
            raise UserError(
                f"{name} is {shown(value)}; it must be a finite number, 0 or between {_SMALLEST:.1e} and "
                f"{_LARGEST:.1e} in size, as float32 holds them."
            )
        return float(cast(float, value))
    if kind is str:
        if isinstance(value, str) and value == plain(value):
            return str(value)
        raise UserError(
            f"{name} is {shown(value)}; it must be {'text in UTF-8' if isinstance(value, str) else 'a word'}."
        )
    if typing.get_origin(kind) is Literal and not (isinstance(value, str) and value in options):
        raise UserError(f"{name} is {shown(value)}; allowed: {', '.join(map(str, options))}.")
    return value


def typed(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of fields of a dataclass, each of the type that its annotation says.

    A whole number counts as a number; true and false do not, nor does text.

    Raises:
        UserError: Names the field, what was given and what is allowed.
    """
    hints = _hints(cls)
    return {name: fitted(name, value, hints.get(name, Any)) for name, value in values.items()}


def may_be_none(cls: type, name: str) -> bool:
    """Whether the annotation of a field allows None."""
    return NoneType in typing.get_args(_hints(cls).get(name))


def documented(cls: type) -> dict[str, str]:
    """What stands below each field of a dataclass, those of its bases included; what cannot be read has nothing."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        try:
            body = cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]).body
        except (OSError, TypeError, SyntaxError, IndexError):
            continue
        for field, below in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                value = below.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found[field.target.id] = inspect.cleandoc(value.value).replace("\n", " ")
    return found


def check(
    config: Any,
    *,
    counts: Sequence[str] = (),
    units: Sequence[str] = (),
    unrolled: Sequence[str] = (),
    positive: Sequence[str] = (),
    fractions: Sequence[str] = (),
    decays: Sequence[str] = (),
    not_negative: Sequence[str] = (),
    finite: Sequence[str] = (),
    most: Mapping[str, int | float] | None = None,
    flags: bool = False,
) -> None:
    """Refuse fields of a dataclass that cannot work: all by their annotations, then those named here by their ranges.

    Args:
        config: The instance. Its numbers are made plain Python numbers, whole ones floats where that is their type.
        counts: Fields that must be at least 1.
        units: Widths and other sizes of arrays, from 1 to about a million.
        unrolled: What is written out in a compiled program, as layers are, from 1 to 1000.
        positive: Fields that must be finite and above 0.
        fractions: Fields that must lie in (0, 1].
        decays: Fields that must lie in [0, 1), also as float32.
        not_negative: Fields that must be finite and at least 0.
        finite: Fields that must be finite.
        most: Upper bounds of fields.
        flags: Name fields as the command line does.

    Raises:
        UserError: Names the field, what was given and what is allowed.
    """

    def named(name: str) -> str:
        return "--" + name.replace("_", "-") if flags else name

    def demand(names: Sequence[str], holds: Any, words: str) -> None:
        for name in names:
            value = getattr(config, name)
            if value is not None and not holds(value):
                raise UserError(f"{named(name)} is {shown(value)}; it must {words}.")

    names = {f.name for f in dataclasses.fields(config)}
    for field, kind in _hints(type(config)).items():
        if field in names:
            value = getattr(config, field)
            plain_value = fitted(named(field), value, kind)
            if type(plain_value) is not type(value):
                object.__setattr__(config, field, plain_value)
    demand((*counts, *units, *unrolled), lambda value: value >= 1, "be at least 1")
    demand(units, lambda value: value <= _MOST_UNITS, f"be at most {_MOST_UNITS}")
    demand(unrolled, lambda value: value <= _MOST_UNROLLED, f"be at most {_MOST_UNROLLED}")
    demand(positive, lambda value: value > 0 and math.isfinite(value), "be a positive number")
    demand(fractions, lambda value: 0 < value <= 1, "lie in (0, 1]")
    demand(decays, lambda value: 0 <= float32(value) < 1, "lie in [0, 1), and not so near to 1 that float32 holds 1")
    demand(not_negative, lambda value: value >= 0 and math.isfinite(value), "be a finite number of at least 0")
    demand(finite, math.isfinite, "be a finite number")
    for name, bound in (most or {}).items():
        demand((name,), lambda value, bound=bound: value <= bound, f"be at most {bound}")
