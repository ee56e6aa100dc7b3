"""`omad coverage RUNS…`: how much of the state space runs have visited while they trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from omad.algos.validate import MOST
from omad.console import console, print_json, row, table
from omad.errors import Refused
from omad.report import coverage
from omad.report.records import SectionFile
from omad.report.whole import write_section

__all__ = ["main", "visited_states"]

_MOST = 1 << 30
"""Bytes that a grid may take."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare the states that methods visited, on one projection and one grid.

    States are read from the replay buffers of the newest checkpoints, warm-up included. Runs of one algorithm in one
    folder SETTING/seed-K, as a study has them, are one method.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders of one task, or folders that hold some at any depth."""
    out: Path | None = None
    """Study folder in which to write sections/NAME.json and NAME.png, which omad report shows."""
    first: int | None = None
    """Only the first so many states of each seed, one an env step; by default as many as the shortest run has."""
    bins: int = 40
    """Bins along each of the two components."""
    trust: bool = False
    """Import the code of a user's env that the run folder names; only for folders that you trust."""
    json: bool = False
    """Print JSON."""


def newest_step(run: Any) -> int:
    """Env steps of each seed up to a run's newest checkpoint.

    Raises:
        Refused: There is none.
    """
    checkpoints = run.checkpoints()
    if not checkpoints:
        raise Refused(f"{run.path} has no checkpoint yet; resume it until it has saved once.")
    return checkpoints[0].row * run.config.n_envs


def visited_states(run: Any, first: int | None = None, trust: bool = False) -> Any:
    """States of a run's first env steps, of all its seeds.

    Args:
        run: An open run folder.
        first: How many of each seed; all of them by default.
        trust: Whether code that the folder names may be imported.

    Returns:
        `(state, entry)` in the order of visits; the joint observation where the task has no state.

    Raises:
        Refused: There is no checkpoint, or the buffer has lost its first states already.
    """
    import numpy as np

    from omad.trained import replayed

    ring = replayed(run, trust)
    kept = np.asarray(ring.state if run.spec.state_dim else ring.obs)
    flat = kept.reshape(kept.shape[0], kept.shape[1] * run.config.n_envs, -1)
    return np.concatenate([seed[:first] for seed in flat]).astype(float)


def main(arguments: Sequence[str]) -> int:
    """Print the table; with --out, write the section."""
    options = tyro.cli(Options, prog="omad coverage", args=list(arguments))
    for name in ("first", "bins"):
        value = getattr(options, name)
        if value is not None and not 2 <= value <= MOST:
            raise Refused(f"--{name} is {value}; it must be at least 2 and at most {MOST}.")
    needed = coverage.memory(options.bins, methods=1)
    if needed > _MOST:
        raise Refused(
            f"--bins is {options.bins}; a grid of that many by that many needs {needed / 2**30:,.1f} GiB of memory, "
            f"and {_MOST >> 30} GiB are allowed. Give fewer; 40 is usual."
        )
    import numpy as np

    from omad.run.folder import RunFolder

    folders = sorted({path.parent for given in options.runs for path in given.rglob("manifest.json")})
    runs = [RunFolder.open(folder) for folder in folders]
    tasks = sorted({run.config.task for run in runs})
    if len(tasks) != 1:
        raise Refused(f"The given folders hold {', '.join(tasks) or 'no runs'}; give runs of one task.")
    first = options.first or min(newest_step(run) for run in runs)
    methods: dict[str, list[Any]] = {}
    for run in runs:
        setting = run.path.parent.name if run.path.name.startswith("seed-") else run.path.name
        methods.setdefault(f"{run.config.algorithm}, {setting}", []).append(visited_states(run, first, options.trust))
    # Every run of a method counts alike.
    states = {
        name: np.concatenate([rows[: min(map(len, several))] for rows in several]) for name, several in methods.items()
    }
    try:
        found = coverage.cover(states, options.bins)
    except ValueError as error:
        raise Refused(f"The states of these runs cannot be compared: {error}.") from None
    told = {
        name: {
            "runs": len(methods[name]),
            "bins": int(found.visited[name].sum()),
            "share": found.share(name),
            "alone": found.alone(name),
        }
        for name in found.visited
    }
    everything = {
        "task": tasks[0], "env steps": first, "states": found.states, "bins": found.union,
        "explained": found.explained, "methods": told,
    }  # fmt: skip
    if options.json:
        print_json(everything)
    else:
        console().print(_table(everything))
    if options.out is not None:
        picture = coverage.draw(found, f"{tasks[0]}: visited states")
        write_section(options.out, f"coverage-{tasks[0]}", _section(everything), picture)
    return 0


def _table(found: dict[str, Any]) -> Any:
    made = table(
        f"{found['task']}: visited states", "method", "runs", "bins", "share", "alone",
        caption=f"{found['states']:,} states a method, up to env step {found['env steps']:,}; share of the "
        f"{found['bins']:,} bins that any visited; the projection keeps {found['explained']:.0%} of the variance",
    )  # fmt: skip
    for name, one in found["methods"].items():
        row(made, name, str(one["runs"]), f"{one['bins']:,}", f"{one['share']:.1%}", str(one["alone"]))
    return made


def _section(found: dict[str, Any]) -> SectionFile:
    """For the report."""
    told = " ".join(
        f"{method} visited {one['bins']} of {found['bins']} bins ({one['share']:.1%}), {one['alone']} of them alone."
        for method, one in found["methods"].items()
    )
    how = (
        f"{found['states']:,} states a method, up to env step {found['env steps']:,}, standardised, on their common "
        f"first two principal components ({found['explained']:.0%} of the variance), in one grid; bins are counted "
        "that any method visited."
    )
    return SectionFile(
        title=f"Visited states: {found['task']}",
        text=f"{told}\n\n{how}",
        alt=f"Grids of visited states in {found['task']}, a panel a method. {told}",
    )
