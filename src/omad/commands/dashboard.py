"""The dashboard of parallel runs: a live table on a terminal, one line an evaluation elsewhere."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.live import Live
from rich.table import Table

from omad.console import console, row, table
from omad.launch import OnUpdate, State
from omad.processes import StopSignals

_COLOURS = {"finished": "green", "failed": "red", "stopped": "yellow"}


class Stop(StopSignals):
    """Holds the first signal that asks to stop, and the time limit."""

    def __init__(self, time_limit_s: float | None = None) -> None:
        super().__init__()
        self._end = None if time_limit_s is None else time.monotonic() + time_limit_s

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.number is not None or (self._end is not None and time.monotonic() >= self._end)


def run_with_dashboard(work: Callable[[OnUpdate, Stop], list[State]], stop: Stop) -> int:
    """Run in parallel and show the progress.

    Args:
        work: Runs them; calls its first argument with the states of all runs, its second to ask whether to stop, and
            returns the last states.
        stop: Stops on signals and when time is up.

    Returns:
        The exit code: 0 all done, or stopped by the time limit; 1 some failed, or were stopped by others; 128 + n
        stopped by signal n.
    """
    out = console()
    printed: dict[Path, Any] = {}
    by_others: set[Path] = set()
    """Runs that were stopped before this process stopped any."""

    def note(states: list[State]) -> None:
        if not stop():
            by_others.clear()  # a run may have been started again
            by_others.update(state.folder for state in states if state.state == "stopped")

    def lines(states: list[State]) -> None:
        note(states)
        name = _names(states)
        for state in states:
            step = state.evaluation and state.evaluation[0]
            now = (_state(state), step)
            if printed.get(state.folder) != now and now[0] != "waiting":
                printed[state.folder] = now
                out.print(f"{time.strftime('%H:%M:%S')} {name[state.folder]}: {_format(state)}")

    ended: list[State] = []
    try:
        if not out.is_terminal:
            with stop:
                ended = work(lines, stop)
        else:
            with stop, Live(console=out, refresh_per_second=2) as live:

                def show(states: list[State]) -> None:
                    note(states)
                    live.update(status_table(states))

                ended = work(show, stop)
    except BrokenPipeError:  # whoever read what is printed has gone; the runs have been saved
        stop.note(signal.SIGPIPE)
    failed = [state for state in ended if state.state == "failed"]
    for state in failed:
        out.print(f"{state.folder} failed; {state.message}")
    if stop.number is not None:
        return 128 + stop.number
    note(ended)
    others = [state for state in ended if state.state == "stopped" and state.folder in by_others]
    for state in others:
        out.print(f"{state.folder} was stopped by a signal of its own; omad resume or the same omad sweep continues it")
    return 1 if failed or others else 0


def _state(state: State) -> str:
    """The word for it, and what a waiting run waits for."""
    return f"waiting: {state.message}" if state.state == "waiting" and state.message else state.state


def _format(state: State) -> str:
    words = [_state(state), f"step {state.env_steps:,} of {state.total_steps:,}"]
    if state.state == "running" and state.steps_per_s:
        words.append(f"{state.steps_per_s:,.0f} steps/s")
    if state.evaluation:
        words.append(f"return {state.evaluation[1]:.2f}")
    return ", ".join(words)


def _names(states: Sequence[State]) -> dict[Path, str]:
    """Run folders relative to what they have in common."""
    root = Path(os.path.commonpath([state.folder.parent for state in states]))
    return {state.folder: str(state.folder.relative_to(root)) for state in states}


def status_table(states: Sequence[State], rows: int = 30) -> Table:
    """The states of runs: those that are not done, at most so many."""
    counts = {kind: sum(state.state == kind for state in states) for kind in ("finished", "failed")}
    numbers = ("env steps", "steps/s", "return")
    title = f"{counts['finished']} of {len(states)} runs finished, {counts['failed']} failed"
    made = table(title, "run", *numbers, "state", right=numbers)
    name = _names(states)
    open_ = [state for state in states if state.state != "finished"]
    for state in states if len(states) <= rows else open_[:rows] or states[-rows:]:
        row(
            made,
            name[state.folder],
            f"{state.env_steps:,} / {state.total_steps:,}",
            f"{state.steps_per_s:,.0f}" if state.state == "running" else "",
            f"{state.evaluation[1]:.2f}" if state.evaluation else "",
            _state(state),
            style=_COLOURS.get(state.state),
        )
    return made
