"""Which of several equally good actions do policies keep, and do agents agree on one?

Sampled actions are given to the nearest good point, if one is near; a point is kept by an agent if it takes a share of
its draws. Agents miss each other where all are at good points, but not at the same one.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omad.report.words import drawable

__all__ = ["Kept", "count", "draw", "nearest"]

RADIUS = 0.3
"""Farther than this from every good point, an action is at none: a quarter of the distance between two of them."""
LEAST = 0.05
"""Share of draws from which on a point counts as kept."""


def nearest(actions: NDArray[Any], modes: NDArray[Any], radius: float = RADIUS) -> NDArray[np.int64]:
    """Index of the good point that each action `(..., 2)` is at, -1 where it is at none. `modes` is `(mode, 2)`."""
    apart = np.linalg.norm(actions[..., None, :] - modes, axis=-1)
    return np.where(apart.min(-1) <= radius, apart.argmin(-1), -1)


@dataclasses.dataclass(frozen=True)
class Kept:
    """What sampled joint actions show."""

    draws: int
    shares: tuple[tuple[float, ...], ...]
    """Of each agent, the share of its draws at each good point."""
    kept: tuple[int, ...]
    """Of each agent, how many good points take at least a twentieth of its draws."""
    joint: int
    """How many combinations of points, one an agent, take at least a twentieth of their even share of the draws."""
    hit: float
    """Share of draws in which every agent is at a good point."""
    missed: float | None
    """Share of those in which the agents are not all at the same point; chance is 1 - modes^(1 - agents). None if there
    are none."""


def count(actions: NDArray[Any], modes: NDArray[Any]) -> Kept:
    """What joint actions `(draw, agent, 2)` keep of the good points `(mode, 2)`.

    Raises:
        ValueError: There are no draws.
    """
    if not len(actions):
        raise ValueError("there are no draws")
    at = nearest(actions, modes)
    shares = [[float((at[:, i] == k).mean()) for k in range(len(modes))] for i in range(at.shape[1])]
    good = (at >= 0).all(1)
    combinations, times = np.unique(at[good], axis=0, return_counts=True)
    even = len(at) / len(modes) ** at.shape[1]
    same = (at[good] == at[good][:, :1]).all(1)
    return Kept(
        draws=len(at),
        shares=tuple(map(tuple, shares)),
        kept=tuple(sum(share >= LEAST for share in row) for row in shares),
        joint=int((times >= LEAST * even).sum()) if len(combinations) else 0,
        hit=float(good.mean()),
        missed=float(1 - same.mean()) if good.any() else None,
    )


def draw(policies: Mapping[str, NDArray[Any]], modes: NDArray[Any], title: str) -> bytes:
    """A PNG: a row a policy, a column an agent, every sampled action a dot, rings around the good points.

    Args:
        policies: Label -> joint actions `(draw, agent, 2)`.
        modes: `(mode, 2)`.
        title: Above it all.
    """
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False}):
        return _drawn(policies, modes, drawable(title))


def _drawn(policies: Mapping[str, NDArray[Any]], modes: NDArray[Any], title: str) -> bytes:
    from matplotlib.figure import Figure

    agents = next(iter(policies.values())).shape[1]
    figure = Figure(figsize=(2.2 * agents + 1.6, 2.2 * len(policies) + 0.7), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(len(policies), agents, squeeze=False, sharex=True, sharey=True)
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
    for row, (label, actions) in zip(axes, policies.items(), strict=True):
        at = nearest(actions, modes)
        for i, one in enumerate(row):
            for k in range(-1, len(modes)):
                mine = actions[at[:, i] == k, i]
                colour = "#777777" if k < 0 else colours[k % len(colours)]
                one.scatter(mine[:, 0], mine[:, 1], s=4, alpha=0.4, color=colour, linewidths=0)
            one.scatter(modes[:, 0], modes[:, 1], s=160, facecolors="none", edgecolors="#222222", linewidths=0.8)
            one.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
            one.tick_params(labelsize=8)
        row[0].set_ylabel(drawable(label), fontsize=9)
    for i, one in enumerate(axes[0]):
        one.set_title(f"agent {i}", fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()
