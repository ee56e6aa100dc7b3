"""`omad compare A B`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from omad.config import RUN_FIELDS, RunConfig, resolve, sources
from omad.config_file import read
from omad.console import console, print_json, row, table
from omad.errors import UserError
from omad.run.folder import RunFolder, of_one_run
from omad.run.places import members


@dataclasses.dataclass(frozen=True)
class Options:
    """Show how two configurations differ: values, and where each comes from."""

    a: Annotated[Path, tyro.conf.Positional]
    """A run folder, or a file as for omad train --config."""
    b: Annotated[Path, tyro.conf.Positional]
    """Another."""
    json: bool = False
    """Print JSON."""


def _settings(path: Path) -> dict[str, tuple[Any, str]]:
    """Field -> (value, source); hyperparameters as `algo.NAME`."""
    recorded: Mapping[str, Any] = {}
    all_of_it: dict[str, Any] = {}
    if path.is_dir():
        runs = of_one_run([RunFolder.open(inside) for inside in members(path)], path)
        config = runs[0].config
        all_of_it = {"seeds": sum(run.config.seeds for run in runs)}
        lengths = sorted({run.config.total_steps for run in runs})
        if len(lengths) > 1:  # a resume with more steps was cut off
            all_of_it["total_steps"] = lengths
        kept = runs[0].manifest.get("sources")
        recorded = kept if isinstance(kept, dict) else {}
    elif not path.exists():
        raise UserError(f"There is no {path}; give a run folder, or a file as for omad train --config.")
    else:
        values = read(path)
        config = resolve(**values)
        config = dataclasses.replace(config, given=dict.fromkeys(values, "given"))
    rows = _rows(config, sources(config) | {k: v for k, v in recorded.items() if isinstance(v, str)})
    return rows | {name: (value, rows[name][1]) for name, value in all_of_it.items()}


def _rows(config: RunConfig, found: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    rows = {n: (getattr(config, n), found[n]) for n in ("task", "algorithm", "preset", *RUN_FIELDS)}
    algo = [field.name for field in dataclasses.fields(config.algo)]
    return rows | {f"algo.{name}": (getattr(config.algo, name), found[name]) for name in algo}


def differences(a: Path, b: Path) -> list[dict[str, Any]]:
    """Fields of two configurations that differ or that only one of them has, in the order of the fields.

    Raises:
        UserError: One of the two cannot be read.
    """
    mine, other = _settings(a), _settings(b)
    found = []
    for name in dict.fromkeys([*mine, *other]):
        if name not in mine or name not in other or mine[name][0] != other[name][0]:
            sides = {
                side: {"value": has[name][0], "source": has[name][1]} if name in has else None
                for side, has in (("a", mine), ("b", other))
            }
            found.append({"field": name, **sides})
    return found


def main(arguments: Sequence[str]) -> int:
    """Compare and print."""
    options = tyro.cli(Options, prog="omad compare", args=list(arguments))
    found = differences(options.a, options.b)
    if options.json:
        print_json({"a": str(options.a), "b": str(options.b), "differences": found})
        return 0
    if not found:
        console().print("The two configurations are the same.")
        return 0
    made = table("differences", "field", f"A: {options.a}", "source of A", f"B: {options.b}", "source of B")
    for one in found:
        cells = []
        for side in (one["a"], one["b"]):
            cells += ["absent", ""] if side is None else [str(side["value"]), side["source"]]
        row(made, one["field"], *cells)
    console().print(made)
    return 0
