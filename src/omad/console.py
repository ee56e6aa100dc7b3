"""What is printed: text as it is, tables, JSON."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from omad.processes import Output
from omad.schema import plain


class Plain(Console):
    """Text as it is: no markup, no emoji, control characters written out, and no width where nobody looks.

    What the output's encoding does not have is written out too, so that no name ends a run.
    """

    def __init__(self) -> None:
        tty = sys.stdout.isatty()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        out: Any = Output(sys.stdout)
        super().__init__(
            file=out, markup=False, emoji=False, highlight=False, soft_wrap=not tty, width=None if tty else _WIDE
        )

    def on_broken_pipe(self) -> None:
        """Called while the error is handled: let the caller decide, where Rich would end the process."""
        raise

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich does, but text is taken literally, and its lines are never broken."""
        if all(isinstance(one, str) for one in objects):
            options.setdefault("soft_wrap", True)
        super().print(*(Text(visible(one)) if isinstance(one, str) else one for one in objects), **options)


_WIDE = 160
"""Columns of tables in files and pipes."""


def visible(text: str) -> str:
    """A text on one line, with control characters and lone surrogates written out."""
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode("ascii") for c in text)


def console() -> Console:
    """Standard output; plain where it is not a terminal. Where its reader has gone, one `BrokenPipeError` says so."""
    return Plain()


def table(title: str, *columns: str, caption: str | None = None, right: Sequence[str] = ()) -> Table:
    """An empty table whose title and head are text, not markup; its rows come by `row`.

    Args:
        title: Above it.
        *columns: Its head.
        caption: Below it.
        right: Columns of numbers.
    """
    made = Table(title=Text(visible(title)), caption=None if caption is None else Text(visible(caption)))
    for column in columns:
        made.add_column(Text(visible(column)), justify="right" if column in right else "left")
    return made


def row(into: Table, *cells: str, style: str | None = None) -> None:
    """A row of a table, its cells text, not markup."""
    into.add_row(*(Text(visible(cell)) for cell in cells), style=style)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(plain(value), indent=1, allow_nan=False) + "\n")
