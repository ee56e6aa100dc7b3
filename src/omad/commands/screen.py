"""What commands print: live progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from omad import tasks
from omad.processes import Output

if TYPE_CHECKING:
    from omad.loop.train import Progress as TrainProgress

__all__ = [
    "Watcher", "anchor_rows", "console", "print_json", "row", "standing_table", "table",
    "visible",
]  # fmt: skip


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
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "--:--"
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}" if hours else f"{minutes}:{s:02d}"


def _summary(p: TrainProgress) -> str:
    """The numbers that tell how training goes."""
    words = [f"{p.steps_per_s:,.0f} steps/s", f"{p.updates_per_s:,.0f} updates/s", f"{_clock(p.seconds_left)} left"]
    last = p.last
    if "eval/return" in last:
        words.append(f"return {last['eval/return']:.2f} ± {last['eval/return_se']:.2f}")
    if "alpha/value" in last:
        words.append(f"alpha {last['alpha/value']:.3g}")
    if "policy/entropy_bound" in last:
        words.append(f"entropy bound {last['policy/entropy_bound']:+.2f}/dim")
    return ", ".join(words)


def _short(p: TrainProgress) -> str:
    """The same for the live line, which shares 80 columns with the count and the bar."""
    words = [f"{p.steps_per_s:,.0f}/s", f"{_clock(p.seconds_left)} left"]
    if "eval/return" in p.last:
        words.append(f"return {p.last['eval/return']:.4g} ± {p.last['eval/return_se']:.2g}")
    return ", ".join(words)


class Watcher:
    """Follows a run: a live line on a terminal, one plain line an evaluation elsewhere."""

    def __init__(self, out: Console) -> None:
        self.out = out
        self._live: Progress | None = None
        self._task: Any = None
        self._said = False
        if out.is_terminal:
            self._live = Progress(
                TextColumn("{task.completed:,.0f}/{task.total:,.0f}", markup=False),
                BarColumn(bar_width=8),
                TextColumn("{task.fields[words]}", markup=False, table_column=Column(no_wrap=True)),
                console=out,
            )

    def __enter__(self) -> Watcher:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            with contextlib.suppress(BrokenPipeError):
                self._live.stop()

    def __call__(self, p: TrainProgress) -> None:
        """Show one report of the training loop."""
        if self._live:
            words = "compiling ..." if p.event == "compile" else _short(p)
            if self._task is None:
                self._task = self._live.add_task("train", total=p.total_steps, words=words)
            self._live.update(self._task, completed=p.env_steps, words=words)
        if p.event == "note":
            self.out.print(p.note)
        elif p.event == "eval":
            self.out.print(f"{time.strftime('%H:%M:%S')} step {p.env_steps:,} of {p.total_steps:,}: {_summary(p)}")
        elif p.event == "compile" and not self._said:
            self._said = True
            self.out.print("compiling the training loop (kept for the next start) ...")


def anchor_rows(task: tasks.Task) -> list[tuple[str, float, str]]:
    """Returns to hold a result against: label, return, source."""
    rows = list(task.anchors)
    rows += [
        (f"published: {label}" + (f" ± {std}" if std is not None else ""), mean, source)
        for label, mean, std, source in task.published
    ]
    return sorted(rows, key=lambda row: row[1])


def standing_table(task: tasks.Task, results: list[tuple[str, float, str]]) -> Table:
    """Results among the anchors and published numbers of a task, worst first."""
    made = table(f"{task.name}: team return of an episode", "policy", "return", "source", right=("return",))
    rows = [(anchor, False) for anchor in anchor_rows(task)] + [(result, True) for result in results]
    for (label, value, source), ours in sorted(rows, key=lambda item: item[0][1]):
        row(made, label, f"{value:.2f}", source, style="bold" if ours else None)
    return made
