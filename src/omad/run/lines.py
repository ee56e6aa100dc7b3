"""The JSON-lines files of a run folder: `metrics.jsonl` and `episodes.jsonl`, appended to and never written anew."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import msgspec

from omad import files, schema
from omad.errors import UserError
from omad.run.records import LINES, METRICS, EpisodesLine, MetricsLine

_Number = dict[str, int | float | None]


class LineFiles:
    """The files of a run, for whoever holds its claim."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._files: dict[str, int] = {}
        self._waiting: dict[str, list[bytes]] = {}

    def open(self) -> None:
        """Open all, and make those that are not there."""
        for name in LINES:
            if name not in self._files:
                self._files[name] = files.open_append(self._run / name, self._run)

    def write(self, name: str, line: dict[str, Any]) -> None:
        """Append one JSON line, at the next `flush`."""
        try:
            text = json.dumps(line, allow_nan=False)
        except ValueError:
            text = json.dumps(schema.plain(line))
        self._waiting.setdefault(name, []).append(text.encode() + b"\n")

    def flush(self) -> None:
        """Hand all lines to the operating system.

        Raises:
            OSError: The disk is full, or the like.
        """
        for name, lines in self._waiting.items():
            data = b"".join(lines)
            lines.clear()
            try:
                files.write(self._files[name], data)
            except OSError as error:
                raise OSError(f"{self._run / name} could not be written: {error.strerror or error}") from error

    def sync(self) -> dict[str, int]:
        """Wait until what was flushed is on the disk; the bytes of each file.

        Raises:
            OSError: The disk is full, or the like.
        """
        for handle in self._files.values():
            files.sync(handle)
        return {name: os.fstat(handle).st_size for name, handle in self._files.items()}

    def check(self, name: str, length: int) -> None:
        """That a file has what a checkpoint says it had, up to the end of a line.

        Raises:
            UserError: It has not.
        """
        handle, path = self._files[name], self._run / name
        size = os.fstat(handle).st_size
        if size < length:
            raise UserError(
                f"{path} has {size} bytes, but the checkpoint was made when it had {length}; "
                "lines are missing. Restore the file from a copy."
            )
        if length and os.pread(handle, 1, length - 1) != b"\n":
            raise UserError(f"{path} was changed: no line ends at byte {length}. Restore the file from a copy.")

    def cut(self, name: str, length: int) -> None:
        """Keep the first bytes of a file."""
        files.truncate(self._files[name], length)

    def close(self) -> None:
        """Close all; lines that wait are lost unless they were flushed."""
        for handle in self._files.values():
            os.close(handle)
        self._files.clear()
        self._waiting.clear()


def read(run: Path, name: str) -> schema.Lines:
    """The lines of a file, and a sentence for every damaged one.

    `null` is read as a number that is not finite. A last line that is cut short, as a killed run may leave it, is
    passed over.

    Raises:
        UserError: The file cannot be read.
    """
    path = run / name
    head: Any = MetricsLine if name == METRICS else EpisodesLine
    found = schema.read_lines(path, _Number if name == METRICS else EpisodesLine, head=head)
    if name == METRICS:
        return found._replace(values=[_with_nan(line) for line in found.values])
    return found._replace(values=[_with_nan(msgspec.structs.asdict(line)) for line in found.values])


def _with_nan(value: Any) -> Any:
    """With what `schema.plain` took away."""
    if isinstance(value, dict):
        return {key: _with_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [math.nan if one is None else one for one in value]
    return math.nan if value is None else value
