"""What presets are written with: values with their sources, in the order in which they are said."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from omad.tasks import Task

OVER_THE_RUN = -1
"""In a preset, gradient steps that follow from how long the run will be; see `omad.derived`."""


class Settings:
    """The fields that a preset sets for one task; of a field set twice, the later value counts.

    `settings("[M] half the cost of 256", batch_size=128)` sets a field and says why. A field that neither the run nor
    the algorithm has is an error at once.
    """

    def __init__(self, task: Task, fields: Iterable[str]) -> None:
        self.task, self.values = task, dict[str, tuple[Any, str]]()
        self._fields = frozenset(fields)

    def __call__(self, source: str, /, **fields: Any) -> None:
        """Set fields that have one source.

        Raises:
            TypeError: There is no such field.
        """
        if unknown := sorted(set(fields) - self._fields):
            raise TypeError(f"a preset sets {', '.join(unknown)}, which is no field of the run or its algorithm")
        self.values |= {name: (value, source) for name, value in fields.items()}

    def on(self, *begins: str) -> bool:
        """Whether the task's name begins with one of these."""
        return self.task.name.startswith(begins)

    def has(self, *fields: str) -> bool:
        """Whether the run or the algorithm has all these fields; those of other packages may have any."""
        return self._fields.issuperset(fields)

    def option(self, name: str) -> str | None:
        """The text of an option in the task's name; None where it has its default."""
        parts = (part.partition("=") for part in self.task.name.partition("?")[2].split("&"))
        given = {key: text for key, _, text in parts}
        return given.get(name)


def robot(task: Task) -> str:
    """Robot and partition, as ant-2x4; empty for other tasks."""
    return task.name.partition("/")[2] if task.name.startswith("mamujoco-") else ""
