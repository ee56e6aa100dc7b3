"""Where a result stands among reference returns, and the compilation cache."""

from __future__ import annotations

import os
from pathlib import Path

from rich.table import Table

from omad import tasks
from omad.console import row, table

__all__ = ["anchor_rows", "cached_compilation", "standing_table"]


def cached_compilation(use: bool = True) -> None:
    """Keep compiled programs in the user's cache folder, so that the second start of a command is quick.

    The folder is `$XDG_CACHE_HOME/omad` or `~/.cache/omad`; `--no-compilation-cache` and JAX's own environment
    variables take precedence.
    """
    import jax

    if not use:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if jax.config.values["jax_compilation_cache_dir"] is None:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(root / "omad" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def anchor_rows(task: tasks.Task) -> list[tuple[str, float, str]]:
    """Returns to hold a result against: label, return, source."""
    rows = list(task.anchors)
    rows += [
        (f"published: {label}" + (f" ± {std}" if std is not None else ""), mean, source)
        for label, mean, std, source in task.published
    ]
    return sorted(rows, key=lambda row: row[1])


def standing_table(task: tasks.Task, results: list[tuple[str, float, str]]) -> Table:
    """Results among the anchors and published numbers of a task, worst first."""
    made = table(f"{task.name}: team return of an episode", "policy", "return", "source", right=("return",))
    rows = [(anchor, False) for anchor in anchor_rows(task)] + [(result, True) for result in results]
    for (label, value, source), ours in sorted(rows, key=lambda item: item[0][1]):
        row(made, label, f"{value:.2f}", source, style="bold" if ours else None)
    return made
