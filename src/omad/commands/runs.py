"""`omad runs [DIR]`."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from omad.console import console, print_json, row, table
from omad.errors import UserError
from omad.run.folder import RunFolder
from omad.run.places import holds_run
from omad.run.records import LINES


@dataclasses.dataclass(frozen=True)
class Options:
    """List the runs below a folder: what was trained, how far, with which returns, and whether it still runs."""

    dir: Annotated[Path, tyro.conf.Positional] = Path("runs")
    """Folder to look in, at any depth."""
    json: bool = False
    """Print JSON."""


def _folders(root: Path, damaged: list[str]) -> Iterator[Path]:
    """Folders with a run's files, in the order of their names; links are not followed.

    `damaged` takes a sentence for each folder that cannot be looked into.
    """
    for where, inside, names in os.walk(
        root, onerror=lambda error: damaged.append(f"{error.filename}: {error.strerror}")
    ):
        inside.sort()
        if holds_run(names):
            inside.clear()
            yield Path(where)


def _described(path: Path) -> dict[str, Any]:
    """A row of the list.

    Raises:
        UserError: The folder is damaged, or of another version.
    """
    run = RunFolder.open(path)
    config, ended = run.config, run.ended
    state = ended.how if ended and ended.how != "finished" else "finished" if run.complete else "stopped"
    means: dict[int, list[float]] = {}
    for line in run.evaluations():
        if line["actions"] == "sampled" and math.isfinite(line["mean"]):
            means.setdefault(line["step"], []).append(line["mean"])
    returns = [sum(row) / len(row) for _, row in sorted(means.items())]
    lines = [path / name for name in (*LINES, "manifest.json")]
    changed = max(file.stat().st_mtime for file in lines if file.is_file())
    steps = max([line["step"] for line in run.lines(LINES[0])] + list(means), default=0)
    return {
        "run": str(path),
        "task": config.task,
        "algorithm": config.algorithm,
        "preset": config.preset,
        "seeds": list(config.all_seeds),
        "env_steps": steps,
        "total_steps": config.total_steps,
        "last_return": returns[-1] if returns else None,
        "best_return": max(returns, default=None),
        "state": "running" if RunFolder.busy(path) else state,
        "age_s": max(time.time() - changed, 0.0),
    }


def list_runs(root: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """All runs below a folder, and a sentence for each that cannot be read.

    Returns are the mean over seeds of evaluations with sampled actions; ages are those of the last change, in seconds.

    Raises:
        UserError: There is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"There is no folder {root}; give the folder in which runs are, such as runs/.")
    rows, damaged = [], list[str]()
    for path in _folders(root, damaged):
        try:
            rows.append(_described(path))
        except (UserError, OSError, ValueError, KeyError, TypeError) as error:
            words = " ".join(str(error).split())
            damaged.append(words if str(path) in words else f"{path}: {words}")
    return rows, damaged


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _seeds(seeds: list[int]) -> str:
    return str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]}-{seeds[-1]}"


def main(arguments: Sequence[str]) -> int:
    """List and print."""
    options = tyro.cli(Options, prog="omad runs", args=list(arguments))
    rows, damaged = list_runs(options.dir)
    if options.json:
        print_json({"runs": rows, "damaged": damaged})
        return 0
    out = console()
    right = ("env steps", "last", "best", "age")
    caption = "last and best: mean return over seeds, sampled actions; age: since the last change"
    made = table(
        f"runs in {options.dir}", "run", "task", "algorithm", "preset", "seeds", *right[:3], "state", right[3],
        right=right, caption=caption,
    )  # fmt: skip
    for one in rows:
        last, best = ("" if one[key] is None else f"{one[key]:.2f}" for key in ("last_return", "best_return"))
        name = os.path.relpath(one["run"], options.dir)
        row(
            made, name, one["task"], one["algorithm"], one["preset"], _seeds(one["seeds"]),
            f"{one['env_steps']:,} of {one['total_steps']:,}", last, best, one["state"], _age(one["age_s"]),
        )  # fmt: skip
    if rows:
        out.print(made)
    elif not damaged:
        out.print(f"There are no runs in {options.dir}.")
    for sentence in damaged:
        out.print(f"not readable: {sentence}")
    return 0
