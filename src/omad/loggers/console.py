"""Progress on standard output."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import time
from typing import Any

from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column

from omad.console import Plain, console
from omad.loggers.base import Logger, Progress, RunInfo


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "--:--"
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}" if hours else f"{minutes}:{s:02d}"


def _summary(p: Progress) -> str:
    """The main numbers of training."""
    words = [f"{p.steps_per_s:,.0f} steps/s", f"{p.updates_per_s:,.0f} updates/s", f"{_clock(p.seconds_left)} left"]
    last = p.last
    if "eval/return" in last:
        words.append(f"return {last['eval/return']:.2f} ± {last['eval/return_se']:.2f}")
    if "alpha/value" in last:
        words.append(f"alpha {last['alpha/value']:.3g}")
    if "policy/entropy_bound" in last:
        words.append(f"entropy bound {last['policy/entropy_bound']:+.2f}/dim")
    return ", ".join(words)


def _short(p: Progress) -> str:
    """The same for the live line, which shares 80 columns with the count and the bar."""
    words = [f"{p.steps_per_s:,.0f}/s", f"{_clock(p.seconds_left)} left"]
    if "eval/return" in p.last:
        words.append(f"return {p.last['eval/return']:.4g} ± {p.last['eval/return_se']:.2g}")
    return ", ".join(words)


class Console(Logger):
    """A live line on a terminal, one plain line an evaluation elsewhere.

    Args:
        out: Where to print; by default standard output.
    """

    def __init__(self, out: Plain | None = None) -> None:
        self.out = out or console()
        self._live: Bar | None = None
        self._task: Any = None
        self._printed = False

    def start(self, run: RunInfo) -> None:
        """Print where the run is, and start the live line."""
        board = f"; watch it with: tensorboard --logdir {run.path / 'tb'}"
        if importlib.util.find_spec("tensorboard") is None:
            board += " (pip install tensorboard)"
        self.out.print(f"run folder {run.path}{board if 'TensorBoard' in run.manifest.get('loggers', []) else ''}")
        if self.out.is_terminal:
            self._live = Bar(
                TextColumn("{task.completed:,.0f}/{task.total:,.0f}", markup=False),
                BarColumn(bar_width=8),
                TextColumn("{task.fields[words]}", markup=False, table_column=Column(no_wrap=True)),
                console=self.out,
            )
            self._live.start()

    def progress(self, progress: Progress) -> None:
        """Move the live line; print an evaluation."""
        p = progress
        if self._live:
            words = "compiling ..." if p.event == "compile" else _short(p)
            if self._task is None:
                self._task = self._live.add_task("train", total=p.total_steps, words=words)
            self._live.update(self._task, completed=p.env_steps, words=words)
        if p.event == "eval":
            self.out.print(f"{time.strftime('%H:%M:%S')} step {p.env_steps:,} of {p.total_steps:,}: {_summary(p)}")
        elif p.event == "compile" and not self._printed:
            self._printed = True
            self.out.print("compiling the training loop (kept for the next start) ...")

    def event(self, name: str, env_steps: int, text: str) -> None:
        """Print notes, and why a callback stopped the run."""
        if name in ("note", "stop"):
            self.out.print(text)

    def close(self) -> None:
        """End the live line."""
        if self._live:
            with contextlib.suppress(BrokenPipeError):
                self._live.stop()
