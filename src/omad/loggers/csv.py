"""A table of metrics and one of evaluations, as comma-separated values."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

from omad import files, schema
from omad.loggers.base import Evaluation, Logger, RunInfo

__all__ = ["Csv"]

METRICS = ("step", "seed", "name", "value")
EVALUATIONS = ("step", "seed", "actions", "episode", "return")


class Csv(Logger):
    """`metrics.csv` (step, seed, name, value) and `evaluations.csv` (step, seed, actions, episode, return).

    The long form needs no agreement on columns. On resume, rows beyond the checkpoint are dropped first.
    """

    def start(self, run: RunInfo) -> None:
        """Open both tables."""
        self._root = run.path
        self._handles = {}
        for name, head in (("metrics.csv", METRICS), ("evaluations.csv", EVALUATIONS)):
            path = run.path / name
            files.write_text(path, self._kept(path, head, run.env_steps), run.path)
            self._handles[name] = files.open_append(path, run.path)

    @staticmethod
    def _kept(path: Path, head: tuple[str, ...], env_steps: int) -> str:
        """The rows up to the checkpoint."""
        try:
            rows = schema.read_bytes(path).decode().splitlines()[1:]
        except FileNotFoundError:
            rows = []
        kept = [row for row in rows if row.partition(",")[0].isdecimal() and int(row.partition(",")[0]) <= env_steps]
        return "\n".join([",".join(head), *kept]) + "\n"

    def _write(self, name: str, rows: list[tuple[object, ...]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        files.write(self._handles[name], text.getvalue().encode())

    def metrics(self, env_steps: int, seed: int, values: Mapping[str, float | int]) -> None:
        """One row a metric."""
        self._write("metrics.csv", [(env_steps, seed, name, value) for name, value in values.items()])

    def evaluation(self, evaluation: Evaluation) -> None:
        """One row an episode."""
        head = evaluation.env_steps, evaluation.seed, evaluation.actions
        self._write("evaluations.csv", [(*head, i, float(r)) for i, r in enumerate(evaluation.returns)])

    def close(self) -> None:
        """Close both tables."""
        for handle in getattr(self, "_handles", {}).values():
            os.close(handle)
