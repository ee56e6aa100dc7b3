"""How long an env's own process may take, and what it is doing; for both sides of `isolated`."""

from __future__ import annotations

import contextlib
import contextvars
import os
from collections.abc import Iterator
from pathlib import Path

DESCRIBED_S = 120.0
"""Seconds in which an env is made and described, at least."""
PROGRESS = "OMAD_PROGRESS"
"""Environment variable with the file into which the process writes what it is doing."""
_waits: contextvars.ContextVar[float] = contextvars.ContextVar("waits", default=DESCRIBED_S)


@contextlib.contextmanager
def waiting(timeout_s: float) -> Iterator[None]:
    """Within it an env may take so long to be made and described, where that is longer than it may without."""
    token = _waits.set(max(timeout_s, _waits.get()))
    try:
        yield
    finally:
        _waits.reset(token)


def allowed_s() -> float:
    """Seconds that `waiting` gives."""
    return _waits.get()


def progress(doing: str) -> None:
    """Say what the env does next, in its process: the time that it may take begins again."""
    if path := os.environ.get(PROGRESS):
        Path(path).write_text(doing, encoding="utf-8")
