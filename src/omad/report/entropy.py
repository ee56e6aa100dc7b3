"""Pictures of entropies and of their bound along training."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from omad.report.words import drawable

__all__ = ["draw"]

_TRUE, _BOUND = "#0072B2", "#D55E00"


def draw(rows: Sequence[dict[str, Any]], title: str) -> bytes:
    """A PNG: a panel an agent, its entropy and its bound over env steps, a line a seed.

    Args:
        rows: With `seed`, `agent`, `env_steps`, `entropy` and `bound`.
        title: Above it all.
    """
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": False}):
        return _drawn(rows, drawable(title))


def _drawn(rows: Sequence[dict[str, Any]], title: str) -> bytes:
    from matplotlib.figure import Figure

    agents = sorted({row["agent"] for row in rows})
    figure = Figure(figsize=(3.0 * len(agents) + 0.8, 3.2), layout="constrained")
    figure.suptitle(title, fontsize=11)
    for panel, agent in zip(figure.subplots(1, len(agents), squeeze=False, sharey=True)[0], agents, strict=True):
        mine = [row for row in rows if row["agent"] == agent]
        for seed in sorted({row["seed"] for row in mine}):
            line = sorted((row for row in mine if row["seed"] == seed), key=lambda row: row["env_steps"])
            steps = [row["env_steps"] for row in line]
            panel.plot(steps, [row["entropy"] for row in line], color=_TRUE, marker="o", markersize=3, linewidth=1)
            panel.plot(steps, [row["bound"] for row in line], color=_BOUND, marker="s", markersize=3, linewidth=1)
        panel.set_title(f"agent {agent}", fontsize=9)
        panel.set_xlabel("env steps", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
    first = figure.axes[0]
    first.set_ylabel("nats", fontsize=9)
    first.legend(first.get_lines()[:2], ["entropy", "bound"], fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return file.getvalue()
