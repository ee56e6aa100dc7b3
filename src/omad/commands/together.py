"""How runs that are worked on side by side are shown: a live table on a terminal, a line an evaluation elsewhere."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.live import Live
from rich.table import Table

from omad.commands.screen import console
from omad.launch import State, side_by_side

__all__ = ["Stop", "work_on"]

_COLOURS = {"done": "green", "failed": "red", "stopped": "yellow"}


class Stop:
    """Remembers the first SIGINT or SIGTERM, and when time is up."""

    def __init__(self, time_limit_s: float | None = None) -> None:
        self.signal: int | None = None
        self._end = None if time_limit_s is None else time.monotonic() + time_limit_s
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.signal is not None or (self._end is not None and time.monotonic() >= self._end)

    def __enter__(self) -> Stop:
        def handle(number: int, frame: Any) -> None:
            self.signal = self.signal or number

        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def work_on(folders: Sequence[Path], at_once: int, stop: Stop) -> int:
    """Work on runs side by side and show how they go.

    Returns:
        The exit code: 0 all done; 1 some failed; 128 + n stopped by signal n; 0 stopped by the time limit.
    """
    out = console()
    root = Path(os.path.commonpath([folder.parent for folder in folders]))
    told: dict[Path, Any] = {}

    def name(state: State) -> str:
        return str(state.folder.relative_to(root))

    def lines(states: list[State]) -> None:
        for state in states:
            step = state.evaluation and state.evaluation[0]
            now = (state.state, step)
            if told.get(state.folder) != now and state.state != "waiting":
                told[state.folder] = now
                out.print(f"{time.strftime('%H:%M:%S')} {name(state)}: {_words(state)}")

    if not out.is_terminal:
        with stop:
            ended = side_by_side(folders, at_once, lines, stop)
    else:
        with stop, Live(console=out, refresh_per_second=2) as live:
            ended = side_by_side(folders, at_once, lambda states: live.update(_table(states, name)), stop)
    failed = [state for state in ended if state.state == "failed"]
    for state in failed:
        out.print(f"{state.folder} failed; {state.message}")
    if stop.signal is not None:
        return 128 + stop.signal
    return 1 if failed else 0


def _words(state: State) -> str:
    words = [state.state, f"step {state.env_steps:,} of {state.total_steps:,}"]
    if state.state == "running" and state.steps_per_s:
        words.append(f"{state.steps_per_s:,.0f} steps/s")
    if state.evaluation:
        words.append(f"return {state.evaluation[1]:.2f}")
    return ", ".join(words)


def _table(states: list[State], name: Any) -> Table:
    counts = {kind: sum(state.state == kind for state in states) for kind in ("done", "failed")}
    table = Table(title=f"{counts['done']} of {len(states)} runs done, {counts['failed']} failed")
    table.add_column("run")
    for title in ("env steps", "steps/s", "return"):
        table.add_column(title, justify="right")
    table.add_column("state")
    shown = [state for state in states if state.state != "done"][:30] or states[-30:]
    for state in shown:
        table.add_row(
            name(state),
            f"{state.env_steps:,} / {state.total_steps:,}",
            f"{state.steps_per_s:,.0f}" if state.state == "running" else "",
            f"{state.evaluation[1]:.2f}" if state.evaluation else "",
            state.state,
            style=_COLOURS.get(state.state),
        )
    return table
