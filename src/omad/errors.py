"""Errors that the user can fix; the command line prints them as one sentence and exits with 2."""

from __future__ import annotations

from collections.abc import Sequence


class Stopped(SystemExit):
    """A signal asks this process to end; nobody's code raised it."""


class UserError(ValueError):
    """A request that cannot be met; the message says what was given, what is allowed and what to do."""


class NonFinite(RuntimeError):
    """Training met a number that is not finite; the message names run, step and metric.

    Args:
        words: What was met, and what is known besides.
        seeds: Training seeds that met it; empty where that is not known.
    """

    def __init__(self, *words: str, seeds: Sequence[int] = ()) -> None:
        super().__init__(*words)
        self.seeds = tuple(map(int, seeds))


class EnvFailed(RuntimeError):
    """An env raised, hung, died or returned unusable numbers; the message names the env and the step."""


class CallbackFailed(RuntimeError):
    """A user's callback or logger raised something; the run has been saved, and the message names it."""


class UnevenSaves(EnvFailed):
    """Saves of an env are not all of the same length; its instances still run."""
