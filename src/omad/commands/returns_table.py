"""The table of a result among reference returns."""

from __future__ import annotations

from rich.table import Table

from omad import tasks
from omad.console import row, table


def reference_rows(task: tasks.Task) -> list[tuple[str, float, str]]:
    """Returns to compare a result with: label, return, source."""
    rows = list(task.references)
    rows += [
        (f"published: {label}" + (f" ± {std}" if std is not None else ""), mean, source)
        for label, mean, std, source in task.published
    ]
    return sorted(rows, key=lambda row: row[1])


def returns_table(task: tasks.Task, results: list[tuple[str, float, str]]) -> Table:
    """Results among the reference and published returns of a task, worst first."""
    made = table(f"{task.name}: team return of an episode", "policy", "return", "source", right=("return",))
    rows = [(reference, False) for reference in reference_rows(task)] + [(result, True) for result in results]
    for (label, value, source), ours in sorted(rows, key=lambda item: item[0][1]):
        row(made, label, f"{value:.2f}", source, style="bold" if ours else None)
    return made
