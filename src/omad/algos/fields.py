"""What configurations of algorithms refuse, in the same words everywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from omad.errors import Refused

__all__ = ["ALPHA_PACES", "check"]

ALPHA_PACES = ("gradient", "env")
"""What `alpha_pace` may be; `algos.make` acts on it."""


def check(
    config: Any,
    *,
    counts: Sequence[str] = (),
    positive: Sequence[str] = (),
    shares: Sequence[str] = (),
    not_negative: Sequence[str] = (),
    finite: Sequence[str] = (),
    choices: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Refuse the fields of a configuration that cannot work.

    Args:
        config: The configuration.
        counts: Fields that must be at least 1.
        positive: Fields that must be finite and above 0.
        shares: Fields that must lie in (0, 1].
        not_negative: Fields that must be finite and at least 0.
        finite: Fields that must be finite.
        choices: Fields of words, with the words that are allowed.

    Raises:
        Refused: Names the field, what was given and what is allowed.
    """

    def demand(names: Sequence[str], holds: Any, words: str) -> None:
        for name in names:
            value = getattr(config, name)
            if not holds(value):
                raise Refused(f"{name} is {value}; it must {words}")

    for name, allowed in (choices or {}).items():
        if getattr(config, name) not in allowed:
            raise Refused(f"{name} was given as {getattr(config, name)!r}; allowed: {', '.join(allowed)}")
    demand(counts, lambda value: value >= 1, "be at least 1")
    demand(positive, lambda value: value > 0 and math.isfinite(value), "be a positive number")
    demand(shares, lambda value: 0 < value <= 1, "lie in (0, 1]")
    demand(not_negative, lambda value: value >= 0 and math.isfinite(value), "be a finite number of at least 0")
    demand(finite, math.isfinite, "be a finite number")
