"""How much of the state space runs have visited while they trained.

    python studies/measures/state_coverage.py RUNS... [--out STUDY]

States of all methods, equally many of each, are standardised entry by entry and projected on their first two
principal components; a grid lies over what all of them reach. A method's coverage is its share of the bins that any
method visited.

Source: the exploration figure of arXiv 2602.18291, as far as it is known: the same number of states a method, one
projection, and a denominator that is not a square number, hence most likely the union of visited bins.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from omad.algos.validate import MOST
from omad.cli import answer
from omad.console import console, print_json, row, table
from omad.errors import UserError
from omad.report.format import drawable
from omad.report.records import Section
from sections import panels, write_section

_MOST = 1 << 30
"""Bytes that a grid may take."""


@dataclasses.dataclass(frozen=True)
class Coverage:
    """What methods have visited."""

    states: int
    """Of each method."""
    union: int
    """Bins that any method visited."""
    explained: float
    """Share of the standardised states' variance that the projection keeps."""
    visited: dict[str, NDArray[np.bool_]]
    """Method -> `(bins, bins)`, whether it visited a bin; first component first."""

    def share(self, method: str) -> float:
        """Of the union."""
        return float(self.visited[method].sum() / self.union)

    def alone(self, method: str) -> int:
        """Bins that no other method visited."""
        others = [seen for name, seen in self.visited.items() if name != method]
        return int((self.visited[method] & ~np.logical_or.reduce(others)).sum()) if others else 0


def memory(bins: int, methods: int) -> int:
    """Bytes that the grids take: counts of one method, which bins each visited, and the picture's levels."""
    return bins * bins * (24 + 4 * methods)


def cover(states: Mapping[str, NDArray[np.float64]], bins: int = 40) -> Coverage:
    """Project and count.

    Args:
        states: Method -> `(state, entry)`, in the order in which they were visited. Of each, as many are taken as the
            one with the fewest has, evenly spaced.
        bins: Along each of the two components.

    Raises:
        ValueError: No methods, no states, or states of unequal or too small size.
    """
    widths = {rows.shape[1] for rows in states.values()}
    if len(widths) != 1 or min(widths) < 2:
        raise ValueError(f"states have {sorted(widths)} entries; all must have the same number, at least 2")
    least = min(len(rows) for rows in states.values())
    if not all(np.isfinite(rows).all() for rows in states.values()):
        raise ValueError("some states are not finite")
    if least < 2 or bins < 1:
        raise ValueError(f"{least} states and {bins} bins; there must be at least 2 states of every method, and 1 bin")
    taken = {name: rows[np.linspace(0, len(rows) - 1, least).astype(int)] for name, rows in states.items()}
    pooled = np.concatenate(list(taken.values()))
    mean, deviation = pooled.mean(0), pooled.std(0)
    scale = np.where(deviation > 1e-9, deviation, np.inf)  # what never changes says nothing
    _, singular, axes = np.linalg.svd((pooled - mean) / scale, full_matrices=False)
    points = {name: (rows - mean) / scale @ axes[:2].T for name, rows in taken.items()}
    everywhere = np.concatenate(list(points.values()))
    edges = [
        np.linspace(low, high + 1e-9, bins + 1) for low, high in zip(everywhere.min(0), everywhere.max(0), strict=True)
    ]
    visited = {name: np.histogram2d(one[:, 0], one[:, 1], bins=edges)[0] > 0 for name, one in points.items()}
    return Coverage(
        states=least,
        union=int(np.logical_or.reduce(list(visited.values())).sum()),
        explained=float(np.sum(singular[:2] ** 2) / np.sum(singular**2)) if singular.any() else 1.0,
        visited=visited,
    )


def draw(coverage: Coverage, title: str) -> bytes:
    """A PNG: a panel a method; grey what any visited, blue what it visited too, orange what it alone visited."""
    names = list(coverage.visited)
    colours = ("#FFFFFF", "#D9D9D9", "#0072B2", "#D55E00")

    def fill(figure: Any, axes: Any) -> None:
        from matplotlib.colors import ListedColormap
        from matplotlib.patches import Patch

        look: dict[str, Any] = {"cmap": ListedColormap(colours), "vmin": -0.5, "vmax": 3.5, "interpolation": "nearest"}
        for axis, name in zip(axes[0], names, strict=True):
            times = np.sum(list(coverage.visited.values()), axis=0)
            mine = coverage.visited[name]
            level = (times > 0).astype(int) + mine + (mine & (times == 1) & (len(names) > 1))
            axis.imshow(level.T, origin="lower", aspect="auto", **look)
            axis.set(xticks=(), yticks=(), xlabel="first component", ylabel="second component")
            axis.set_title(f"{drawable(name)}\n{coverage.share(name):.0%} of {coverage.union} bins", fontsize=9)
        words = ("visited by another only", "visited", "visited by no other")
        patches = [Patch(facecolor=c, edgecolor="#888888", label=w) for c, w in zip(colours[1:], words, strict=True)]
        figure.legend(handles=patches, loc="outside lower center", ncols=3, fontsize=8)

    return panels(title, (1, len(names)), (3.1 * len(names), 4.4), fill)


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
        UserError: There is none.
    """
    checkpoints = run.checkpoints()
    if not checkpoints:
        raise UserError(f"{run.path} has no checkpoint yet; resume it until it has saved once.")
    return checkpoints[0].vector_steps * run.config.n_envs


def visited_states(run: Any, first: int | None = None, trust: bool = False) -> Any:
    """States of a run's first env steps, of all its seeds.

    Args:
        run: An open run folder.
        first: How many of each seed; all of them by default.
        trust: Whether code that the folder names may be imported.

    Returns:
        `(state, entry)` in the order of visits; the joint observation where the task has no state.

    Raises:
        UserError: There is no checkpoint, or the buffer has lost its first states already.
    """
    from omad.saved import replayed

    ring = replayed(run, trust)
    kept = np.asarray(ring.state if run.spec.state_dim else ring.obs)
    flat = kept.reshape(kept.shape[0], kept.shape[1] * run.config.n_envs, -1)
    return np.concatenate([seed[:first] for seed in flat]).astype(float)


def main(arguments: Sequence[str]) -> int:
    """Print the table; with --out, write the section."""
    options = tyro.cli(Options, prog="state_coverage.py", args=list(arguments))
    for name in ("first", "bins"):
        value = getattr(options, name)
        if value is not None and not 2 <= value <= MOST:
            raise UserError(f"--{name} is {value}; it must be at least 2 and at most {MOST}.")
    needed = memory(options.bins, methods=1)
    if needed > _MOST:
        raise UserError(
            f"--bins is {options.bins}; a grid of that many by that many needs {needed / 2**30:,.1f} GiB of memory, "
            f"and {_MOST >> 30} GiB are allowed. Give fewer; 40 is usual."
        )
    from omad.run.folder import RunFolder

    folders = sorted({path.parent for given in options.runs for path in given.rglob("manifest.json")})
    runs = [RunFolder.open(folder) for folder in folders]
    tasks = sorted({run.config.task for run in runs})
    if len(tasks) != 1:
        raise UserError(f"The given folders hold {', '.join(tasks) or 'no runs'}; give runs of one task.")
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
        found = cover(states, options.bins)
    except ValueError as error:
        raise UserError(f"The states of these runs cannot be compared: {error}.") from None
    coverages = {
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
        "explained": found.explained, "methods": coverages,
    }  # fmt: skip
    if options.json:
        print_json(everything)
    else:
        console().print(_table(everything))
    if options.out is not None:
        picture = draw(found, f"{tasks[0]}: visited states")
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


def _section(found: dict[str, Any]) -> Section:
    """For the report."""
    findings = " ".join(
        f"{method} visited {one['bins']} of {found['bins']} bins ({one['share']:.1%}), {one['alone']} of them alone."
        for method, one in found["methods"].items()
    )
    how = (
        f"{found['states']:,} states a method, up to env step {found['env steps']:,}, standardised, on their common "
        f"first two principal components ({found['explained']:.0%} of the variance), in one grid; bins are counted "
        "that any method visited."
    )
    return Section(
        title=f"Visited states: {found['task']}",
        text=f"{findings}\n\n{how}",
        alt=f"Grids of visited states in {found['task']}, a panel a method. {findings}",
    )


if __name__ == "__main__":
    sys.exit(answer("state_coverage", lambda: main(sys.argv[1:])))
