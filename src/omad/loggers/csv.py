"""A table of metrics and one of evaluations, as comma-separated values."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from omad import files, schema
from omad.loggers.base import Evaluation, Logger, RunInfo

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
            files.write_bytes(path, self._kept(path, head, run.env_steps), run.path)
            self._handles[name] = files.open_append(path, run.path)

    @staticmethod
    def _kept(path: Path, head: tuple[str, ...], env_steps: int) -> Iterator[bytes]:
        """The head and the rows up to the checkpoint, one by one; what is no whole row is dropped."""
        yield f"{','.join(head)}\n".encode()
        if not path.exists():
            return
        with schema.open_plain(path) as old:
            for row in old:
                step = row.partition(b",")[0]
                whole = row.endswith(b"\n") and row.count(b",") >= len(head) - 1
                if whole and step.isdigit() and int(step) <= env_steps:
                    yield row

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
