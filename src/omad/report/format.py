"""Numbers and text as they are written in a report. Text of others is text: never markup, never hidden."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable
from typing import Any

from omad.report.stats import Estimate


def number(value: Any) -> str:
    """Two decimals, none from 1,000 on, and two digits of what is smaller than a tenth."""
    value = float(value)
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    kind = ".2g" if 0 < abs(value) < 0.1 else ".2f" if abs(value) < 999.995 else ",.0f"
    return f"{value:{kind}}".replace("-", "−")


_BOUNDS = {"exact": "", "lower bound": "at least ", "upper bound": "at most "}


def interval(found: Estimate | None, unit: str = "") -> str:
    """The value, the side from which it is known, and [low, high] if there is such an interval."""
    if found is None:
        return "–"
    if found.kind == "undefined":
        return "not known"
    text = f"{_BOUNDS[found.kind]}{number(found.value)}{unit}"
    return text if math.isnan(found.low) else f"{text} [{number(found.low)}, {number(found.high)}]"


def duration(seconds: float | int | None) -> str:
    """Hours and minutes."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def counts(words: Iterable[str]) -> str:
    """How often each word is there: `3 finished, 1 diverged`."""
    words = list(words)
    return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))


_SPACE = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufffe\uffff]"
)
"""Control characters, marks that turn or hide what follows, and halves of characters."""


def plain(text: str) -> str:
    """On one line, with characters that cannot be seen written out."""
    return _UNSEEN.sub(lambda found: _written_out(found[0]), _SPACE.sub(" ", text))


def _written_out(character: str) -> str:
    return f"\\u{ord(character):04x}" if ord(character) < 1 << 16 else f"\\U{ord(character):08x}"


@functools.cache
def _glyphs() -> frozenset[int]:
    from matplotlib import font_manager

    return frozenset(font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap())


def drawable(text: str) -> str:
    """For a picture: `plain`, and what its font lacks is written out too."""
    return "".join(c if ord(c) in _glyphs() else _written_out(c) for c in plain(text))


_MARKUP = re.compile(
    r"""[\\`*~|] | <(?=[a-z/!?]) | &(?=\#?\w+;) | (?<=\])[(\[:] | (?<!\w)_ | _(?!\w) | (?<=:)// | (?<=www)\.""",
    re.VERBOSE | re.IGNORECASE,
)
_BLOCK = re.compile(r"^(?:[#>+=-]|\d{1,9}(?=[.)](?:\s|$)))")
_ENTITIES = {"<": "&lt;", "&": "&amp;"}


def markdown(text: str) -> str:
    """For a cell or a heading of Markdown: neither markup nor HTML nor links."""
    return _MARKUP.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), plain(text).strip())


def paragraph(text: str) -> str:
    """For Markdown, as a paragraph of its own: `markdown`, and no heading, list or quotation."""
    return _BLOCK.sub(lambda f: f"{f[0]}\\" if f[0].isdigit() else f"\\{f[0]}", markdown(text))


def code(text: str) -> str:
    """For a cell of Markdown, as code."""
    if not re.search(r"[`<]", text):
        return f"`{plain(text)}`".replace("|", "\\|")
    return f"<code>{markdown(text)}</code>"
