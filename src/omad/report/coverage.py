"""How much of the state space methods have visited, on one projection and one grid for all.

States of all methods, equally many of each, are standardised entry by entry and projected on their first two
principal components; a grid lies over what all of them reach. A method's coverage is its share of the bins that any
method visited.

Source: the exploration figure of arXiv 2602.18291, as far as it can be told: the same number of states a method, one
projection, and a denominator that is not a square number, hence most likely the union of visited bins.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from omad.report.words import drawable

__all__ = ["Coverage", "cover", "draw", "memory"]

Points = NDArray[np.float64]


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


def cover(states: Mapping[str, Points], bins: int = 40) -> Coverage:
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
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False}):
        return _drawn(coverage, drawable(title))


def _drawn(coverage: Coverage, title: str) -> bytes:
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    names = list(coverage.visited)
    figure = Figure(figsize=(3.1 * len(names), 4.4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    union = np.logical_or.reduce(list(coverage.visited.values()))
    colours = ("#FFFFFF", "#D9D9D9", "#0072B2", "#D55E00")
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        mine = coverage.visited[name]
        others = [seen for other, seen in coverage.visited.items() if other != name]
        alone = mine & ~np.logical_or.reduce(others) if others else np.zeros_like(mine)
        level = union.astype(int) + mine + alone
        axis.imshow(
            level.T,
            origin="lower",
            cmap=ListedColormap(colours),
            vmin=-0.5,
            vmax=3.5,
            interpolation="nearest",
            aspect="auto",
        )
        axis.set(xticks=(), yticks=(), xlabel="first component", ylabel="second component")
        axis.set_title(f"{drawable(name)}\n{coverage.share(name):.0%} of {coverage.union} bins", fontsize=9)
    words = ("visited by another only", "visited", "visited by no other")
    patches = [Patch(facecolor=c, edgecolor="#888888", label=w) for c, w in zip(colours[1:], words, strict=True)]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()
