"""The table of a result among reference returns."""

from __future__ import annotations

from rich.table import Table

from omad import tasks
from omad.console import row, table


def returns_table(task: tasks.Task, results: list[tuple[str, float, str]]) -> Table:
    """Results among the reference and published returns of a task, worst first."""
    made = table(f"{task.name}: team return of an episode", "policy", "return", "source", right=("return",))
    published = [
        (f"published: {label}" + (f" ± {std}" if std is not None else ""), mean, source)
        for label, mean, std, source in task.published
    ]
    rows = [(one, False) for one in (*task.references, *published)] + [(result, True) for result in results]
    for (label, value, source), ours in sorted(rows, key=lambda item: item[0][1]):
        row(made, label, f"{value:.2f}", source, style="bold" if ours else None)
    return made
