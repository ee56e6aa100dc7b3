"""Numbers as they are written in a report."""

from __future__ import annotations

import math
from typing import Any

from omad.report.stats import Bounded

__all__ = ["bounded", "duration", "interval", "number"]


def number(value: Any) -> str:
    """Two decimals, none from 1,000 on."""
    value = float(value)
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
    return text.replace("-", "−")


def interval(value: Any, low: Any, high: Any) -> str:
    """The value, and [low, high] if there is such an interval."""
    if math.isnan(low) or math.isnan(high):
        return number(value)
    return f"{number(value)} [{number(low)}, {number(high)}]"


_WORDS = {"exact": "", "lower bound": "at least ", "upper bound": "at most "}


def bounded(value: Bounded, unit: str = "") -> str:
    """With the side from which it is known."""
    if value.kind == "undefined":
        return "not known"
    text = f"{_WORDS[value.kind]}{number(value.value)}{unit}"
    return text if math.isnan(value.low) else f"{text} [{number(value.low)}, {number(value.high)}]"


def duration(seconds: float | int | None) -> str:
    """Hours and minutes."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
