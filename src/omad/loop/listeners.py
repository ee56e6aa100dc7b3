"""Loggers and callbacks of a run: called in order, and what a failing one means."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Any

from omad.callbacks import Callback, Context
from omad.envs.contract import place_of, said_by
from omad.errors import CallbackFailed
from omad.loggers import JsonLines, Logger, Progress, RunInfo
from omad.processes import StopSignals, nobody_reads
from omad.run.folder import RunFolder
from omad.run.places import how_to_resume


class Listeners:
    """Who is told what a run does.

    A logger or callback that fails is not called again, and its run ends after the vector step that it came in.

    Args:
        run: The run, whose own lines are written first.
        loggers: Called in this order.
        callbacks: Called in this order.
        context: What callbacks are given; its counters are the run's.
        signals: Notes that nobody reads what is printed.
    """

    def __init__(
        self,
        run: RunFolder,
        loggers: Sequence[Logger],
        callbacks: Sequence[Callback],
        context: Context,
        signals: StopSignals,
    ) -> None:
        self._run, self._lines = run, JsonLines(run)
        self._loggers, self._callbacks = list(loggers), list(callbacks)
        self._broken: list[Logger] = []
        """Loggers that failed: not called again, but closed."""
        self._early: list[tuple[str, str]] | None = []
        """Events before loggers were started."""
        self._context, self._signals = context, signals
        self.failed: CallbackFailed | None = None
        """The first failure."""

    def start(self, info: RunInfo) -> None:
        """The run starts or continues."""
        for logger in tuple(self._loggers):
            self._guard(self._loggers, logger, "start", info)
        early, self._early = self._early or [], None
        for name, text in early:
            self.event(name, text)
        self.call("on_start")

    def close(self) -> None:
        """Nothing comes any more."""
        for logger in (*self._loggers, *self._broken):
            self._guard(self._loggers, logger, "close")

    def call(self, method: str) -> None:
        """Call a method of all callbacks."""
        for callback in tuple(self._callbacks):
            self._guard(self._callbacks, callback, method, self._context)

    def event(self, name: str, text: str) -> None:
        """Pass an event with a sentence to all loggers; those before the start follow it."""
        if self._early is not None:
            self._early.append((name, text))
            return
        for logger in tuple(self._loggers):
            self._guard(self._loggers, logger, "event", name, self._context.env_steps, text)

    def record(self, method: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Lines of all seeds: first those of the run folder, so that no other logger can lose one."""
        for row in rows:
            getattr(self._lines, method)(*row)
        self._run.flush()
        for logger in tuple(self._loggers):
            for row in rows:
                if logger in self._loggers:
                    self._guard(self._loggers, logger, method, *row)

    def progress(self, progress: Progress) -> None:
        """Pass the progress to all loggers, and to callbacks where there is any."""
        for logger in tuple(self._loggers):
            self._guard(self._loggers, logger, "progress", progress)
        if progress.event == "run":
            self.call("on_progress")

    def show(self, draw: Callable[[], Any]) -> None:
        """An episode by the first seed's policies, for loggers that take pictures; it is drawn if there are any."""
        takers = [logger for logger in self._loggers if type(logger).picture is not Logger.picture]
        if not takers:
            return
        try:
            image = draw()
        except Exception as error:  # noqa: BLE001 - a picture that cannot be drawn does not fail the run
            self.event("note", f"no picture of an episode could be drawn ({said_by(error)})")
            return
        for logger in takers:
            self._guard(self._loggers, logger, "picture", self._context.env_steps, self._context.seeds[0], image)

    def _guard(self, among: list[Any], one: Any, method: str, *given: Any) -> None:
        """Call a logger or callback."""
        try:
            getattr(one, method)(*given)
        except (Exception, SystemExit) as error:
            if nobody_reads(error):  # what is printed: save and end
                self._signals.note(signal.SIGPIPE)
                return
            if self._signals.again:
                raise KeyboardInterrupt from error
            if one in among:
                among.remove(one)
                self._broken += [one] if among is self._loggers else []
            step, path = self._context.env_steps, self._run.path
            words = f"{type(one).__name__}.{method}() failed at env step {step:,} with {said_by(error)}"
            again = how_to_resume(path, self._run.config.task)
            where = f"The run {path} has been saved; fix it, then: {again}"
            failed = CallbackFailed(f"{words} ({place_of(error)}). {where}")
            failed.__cause__ = error
            self.failed = self.failed or failed
