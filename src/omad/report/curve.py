"""The learning curve of one run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from omad import tasks
from omad.report.records import EvaluationLine, RunSettings
from omad.report.whole import write_whole
from omad.report.words import drawable
from omad.schema import read_json, read_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_curve"]


def draw_curve(run_dir: Path) -> Path | None:
    """Draw `curve.png` from `episodes.jsonl`: every seed thin, the mean over seeds thick, anchors dashed.

    Returns:
        The picture's path, or None if there was no evaluation yet.
    """
    import matplotlib

    matplotlib.use("Agg", force=False)
    config = read_json(run_dir / "config.json", RunSettings)
    points: dict[int, dict[int, float]] = {}
    for line in read_lines(run_dir / "episodes.jsonl", EvaluationLine).values:
        if line.actions == "sampled" and None not in line.returns:
            points.setdefault(line.seed, {})[line.step] = float(np.mean(line.returns))
    if not points:
        return None
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = _figure(config, points)
        out = io.BytesIO()
        figure.savefig(out, format="png")
    path = run_dir / "curve.png"
    write_whole(path, out.getvalue())
    return path


def _figure(config: RunSettings, points: dict[int, dict[int, float]]) -> Figure:
    from matplotlib.figure import Figure

    task = tasks.find(config.task)
    figure = Figure(figsize=(7, 4.4), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    for seed, curve in sorted(points.items()):
        steps, returns = zip(*sorted(curve.items()), strict=True)
        axes.plot(steps, returns, lw=1, alpha=0.55, label=f"seed {seed}" if len(points) < 6 else None)
    shared = sorted(set.intersection(*(set(curve) for curve in points.values())))
    if len(points) > 1 and shared:
        mean = [np.mean([curve[step] for curve in points.values()]) for step in shared]
        axes.plot(shared, mean, lw=2.2, color="black", label=f"mean of {len(points)} seeds")
    levels = [(label, value, ":") for label, value, _ in task.anchors if label != "zero action"]
    levels += [(f"published: {label}", value, "--") for label, value, _, _ in task.published[:1]]
    ends = [step for curve in points.values() for step in curve]
    for label, value, style in levels:
        axes.axhline(value, lw=0.9, ls=style, color="0.45")
        # Published results to the left, anchors to the right: they often lie close together.
        place, side = (min(ends), "left") if style == "--" else (max(ends), "right")
        axes.annotate(label, (place, value), fontsize=7, color="0.3", ha=side, va="bottom")
    axes.set_xlabel("env steps")
    axes.set_ylabel("team return, sampled actions")
    ratio = config.updates_per_step / config.n_envs
    title = f"{config.algorithm} on {config.task}, {ratio:g} gradient steps per env step"
    axes.set_title(drawable(title), fontsize=10)
    axes.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 0.08))
    axes.grid(alpha=0.2)
    return figure
