"""The pictures of a report. Each exists in a wide form and in a narrow one for small screens.

Curves differ in colour (Okabe and Ito's, which colour-blind readers can tell apart), line style and marker.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from omad import tasks
from omad.report.format import drawable, interval, number
from omad.report.results import Across, Results
from omad.report.series import Panel, Row, Series
from omad.report.stats import Band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9", "#8C564B")
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1, 1, 1, 1, 1)),
                           (0, (8, 3)), (0, (2, 3)), (0, (10, 1.5, 3, 1.5)))  # fmt: skip
_MARKERS = "osD^vPX*"
_WIDE, _NARROW = (7.6, 4.7), (3.75, 5.0)
_GREY = "0.35"
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "omad", "text.parse_math": False, "font.size": 9.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Drawn:
    """One picture."""

    name: str
    """Of its files."""
    caption: str
    alt: str
    """A sentence with what it shows."""
    wide: bytes
    """SVG."""
    narrow: bytes
    """SVG."""
    png: bytes


def draw_all(results: Results) -> dict[str, list[Drawn]]:
    """Pictures by task name; the ratios under `findings`, those of all tasks together under `across`."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    algorithms = list(dict.fromkeys(series.algorithm for one in results.tasks for series in one.series))
    drawn: dict[str, list[Drawn]] = {"findings": [], "across": []}
    bases = set[str]()
    with matplotlib.rc_context(_STYLE):
        for one in results.tasks:
            base = _file_name(one.task.name, bases)
            drawn[one.task.name] = [
                _drawn(
                    f"curves_{base}" + (f"_{i + 1}" if len(one.panels) > 1 else ""),
                    _curve_caption(panel, results.options.actions),
                    _curve_words(panel, one.task),
                    lambda size, panel=panel, task=one.task: learning_curves(
                        panel, task, algorithms, results.options.actions, size
                    ),
                )
                for i, panel in enumerate(one.panels)
            ]
        ours = results.options.baseline.upper()
        every = [row for one in results.tasks for row in one.rows if row.ratio]
        rows = [row for row in every if row.series.algorithm != results.options.baseline] or every
        if rows:
            said = "; ".join(f"{row.series.task}: {row.series.label}: {interval(row.ratio, ' times')}" for row in rows)
            drawn["findings"].append(
                _drawn(
                    "ratios",
                    f"Env steps to the threshold over those of {ours}: to the right of 1, {ours} needs fewer. Points "
                    "are ratios of medians, bars 95 % intervals, arrows say that a side is not bounded.",
                    f"Env steps to the threshold over those of {ours}. {said}.",
                    lambda size: _ratios(rows, ours, algorithms, size),
                )
            )
        for i, one in enumerate(results.across):
            drawn["across"] += _of_across(one, f"_{i + 1}" if len(results.across) > 1 else "", ours, algorithms)
    return drawn


def draw_curves(results: Results) -> bytes:
    """The learning curves of the first task, as a PNG."""
    import matplotlib

    one = results.tasks[0]
    algorithms = [series.algorithm for series in one.series]
    with matplotlib.rc_context(_STYLE):
        return to_bytes(learning_curves(one.panels[0], one.task, algorithms, results.options.actions))


def _file_name(task: str, taken: set[str]) -> str:
    """A task's name as part of a file's, unlike those that are taken already."""
    base = "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "-" for c in task)[:100]
    name = next(name for i in itertools.count(1) if (name := base if i == 1 else f"{base}--{i}") not in taken)
    taken.add(name)
    return name


def _drawn(name: str, caption: str, alt: str, draw: Callable[[tuple[float, float]], Figure]) -> Drawn:
    wide, narrow = draw(_WIDE), draw(_NARROW)
    for figure in (wide, narrow):
        figure.draw_without_rendering()
        figure.set_layout_engine(None)  # places are kept, and not sought again by each of the drawings below
    return Drawn(name, caption, alt, to_bytes(wide, "svg"), to_bytes(narrow, "svg"), to_bytes(wide))


def to_bytes(figure: Figure, kind: str = "png") -> bytes:
    """A picture that is the same whenever it is written, and without an address inside."""
    out = io.BytesIO()
    nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type") if kind == "svg" else ("Software",))
    figure.savefig(out, format=kind, metadata=nothing, dpi=150)
    return out.getvalue()


def blank(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """A figure of a size in inches, with one set of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def _style(colour: int, line: int) -> dict[str, Any]:
    return {"color": COLOURS[colour % 8], "ls": _LINES[line % 8], "marker": _MARKERS[colour % 8], "ms": 4.0, "lw": 1.7}


def _styles(series: Sequence[Series], algorithms: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Colour and marker by algorithm, line by setting; by place where there is one algorithm, or one setting."""
    settings = list(dict.fromkeys(one.setting for one in series))
    for i, one in enumerate(series):
        if len({other.algorithm for other in series}) == 1:
            yield _style(i, i)
        else:
            at = algorithms.index(one.algorithm)
            yield _style(at, settings.index(one.setting) if len(settings) > 1 else at)


def _line(axes: Axes, band: Band, label: str, style: dict[str, Any]) -> None:
    """With its interval, and markers at about ten places."""
    axes.fill_between(band.at, band.low, band.high, color=style["color"], alpha=0.16, lw=0)
    every = max(1, math.ceil(band.at.size / 10))
    label = drawable(label)
    label = f" {label}" if label.startswith("_") else label  # a legend leaves out what begins so
    axes.plot(band.at, band.value, markevery=every, label=label, **style)


def _steps_axis(axes: Axes) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("env steps")


def _legend(figure: Figure, axes: Axes, narrow: bool, more: Sequence[Any] = ()) -> None:
    handles = [*axes.get_legend_handles_labels()[0], *more]
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    columns = 1 if narrow and longest > 18 else 2 if narrow or longest > 26 else min(4, max(2, 80 // (longest + 8)))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(columns, max(1, len(handles))), fontsize=8.5,
        frameon=False, handlelength=3.2,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ learning curves


def learning_curves(
    panel: Panel, task: tasks.Task, algorithms: Sequence[str], actions: str, size: tuple[float, float] = _WIDE
) -> Figure:
    """Mean of every series with its interval, few runs thin, and the reference returns of the task."""
    narrow = size == _NARROW
    figure, axes = blank((size[0], size[1] * (1.0 + 0.04 * len(panel.series) * narrow)))
    for one, style in zip(panel.series, _styles(panel.series, algorithms), strict=True):
        if one.band is None or one.curves is None:
            continue
        if len(panel.series) <= 4 and 1 < len(one.used) <= 5:
            axes.plot(one.curves.steps, one.curves.values.T, color=style["color"], lw=0.7, alpha=0.35)
        _line(axes, one.band, f"{one.label} ({len(one.used)} run{'s' * (len(one.used) != 1)})", style)
    _steps_axis(axes)
    axes.set_ylabel(f"team return, {actions.replace('_', '-')} actions")
    title = task.name if panel.title == "all settings" else f"{task.name}, {panel.title}"
    axes.set_title("\n".join(textwrap.wrap(drawable(title), 44 if narrow else 90)), fontsize=10)
    _legend(figure, axes, narrow, _references(axes, task, narrow))
    return figure


def _references(axes: Axes, task: tasks.Task, narrow: bool) -> list[Any]:
    """Published results dashed, scripted policies dotted, each named at the right; far ones by an arrow at the edge.

    Returns:
        Handles for the legend where there is no room for names, and letters stand for them.
    """
    from matplotlib.lines import Line2D

    levels = [(value, f"{label}, published", "--") for label, value, *_ in task.published]
    levels += [
        (value, label, ":") for label, value, _ in task.references if label != "zero action" or len(task.references) < 3
    ]
    levels.sort()
    low, high = axes.get_ylim()
    near = [value for value, *_ in levels if low - 1.2 * (high - low) <= value <= high + 1.2 * (high - low)]
    low, high = min([low, *near]), max([high, *near])
    low, high = low - 0.03 * (high - low), high + 0.03 * (high - low)
    axes.set_ylim(low, high)
    names, places = [], []
    for value, label, line in levels:
        if low <= value <= high:
            axes.axhline(value, lw=1.0, ls=line, color=_GREY, zorder=0.5)
        names.append(("↑ " if value > high else "↓ " if value < low else "") + f"{label} {number(value)}")
        places.append(min(max((value - low) / (high - low), 0.0), 1.0))
    letters = "abcdefghijklmnop"[: len(names)]
    texts = list(letters) if narrow else ["\n".join(textwrap.wrap(name, 25)) for name in names]
    line_height, right = (0.045, 1.035) if narrow else (0.041, 1.03)
    spread = _apart(places, [line_height * (text.count("\n") + 1) for text in texts])
    for text, place, at in zip(texts, places, spread, strict=False):
        axes.plot([1.0, right - 0.005], [place, at], transform=axes.transAxes, clip_on=False, color=_GREY, lw=0.6)
        axes.text(right, at, text, transform=axes.transAxes, fontsize=8, color="0.2", va="center", linespacing=1.0)
    keys = [
        Line2D([], [], color=_GREY, lw=1.0, ls=line, label=f"{letter}  {name}")
        for letter, name, (*_, line) in zip(letters, names, levels, strict=False)
    ]
    return keys if narrow else []


def _apart(places: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Centres in ascending order, moved as little as needed so that no two boxes overlap."""
    at, top = list(places), 1.0
    for i in range(1, len(at)):
        at[i] = max(at[i], at[i - 1] + (heights[i] + heights[i - 1]) / 2)
    for i in reversed(range(len(at))):
        at[i] = min(at[i], top)
        top = at[i] - (heights[i] + heights[i - 1]) / 2
    return at


def _curve_caption(panel: Panel, actions: str) -> str:
    thin = " Thin lines are single runs." if len(panel.series) <= 4 else ""
    return (
        f"Learning curves ({panel.title}), {actions.replace('_', '-')} actions: mean over runs, with pointwise 95 % "
        f"bootstrap intervals.{thin} Dashed: published; dotted: policies without learning. Their sources are in the "
        "table of reference returns."
    )


def _curve_words(panel: Panel, task: tasks.Task) -> str:
    words = [
        f"{one.label} ends at {interval(one.band.last)} after {int(one.band.at[-1]):,} env steps"
        for one in panel.series
        if one.band
    ]
    published = [f"{label} published {number(value)}" for label, value, *_ in task.published]
    return f"Learning curves on {task.name}: {'; '.join([*words, *published])}."


# ------------------------------------------------------------------------------------------------ ratios


def _ratios(rows: Sequence[Row], ours: str, algorithms: Sequence[str], size: tuple[float, float]) -> Figure:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    narrow = size == _NARROW
    figure, axes = blank((size[0], 1.3 + (0.46 if narrow else 0.3) * len(rows)))
    found = [(row.ratio, row.series) for row in reversed(rows) if row.ratio]
    ends = [x for r, _ in found for x in (r.value, r.low, r.high) if math.isfinite(x) and x > 0]
    low, high = min([0.8, *(x / 1.25 for x in ends)]), max([1.25, *(x * 1.25 for x in ends)])
    for y, (ratio, one) in enumerate(found):
        at = algorithms.index(one.algorithm)
        colour = COLOURS[at % 8]
        if ratio.kind == "undefined":
            axes.text(1.02, y, " not known", va="center", fontsize=8, color=_GREY)
            continue
        if not math.isnan(ratio.low):
            axes.plot([max(ratio.low, low), min(ratio.high, high)], [y, y], color=colour, lw=1.6)
            for is_open, end, marker in ((ratio.low < low, low, "<"), (ratio.high > high, high, ">")):
                if is_open:
                    axes.plot([end], [y], marker=marker, color=colour, ms=6, clip_on=False)
        face = colour if ratio.kind == "exact" else "white"
        axes.plot([ratio.value], [y], marker=_MARKERS[at % 8], color=colour, mfc=face, ms=7, zorder=3)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.axvline(1.0, color=_GREY, lw=1.0, ls="--")
    labels = [drawable(f"{one.task}: {one.label}") for _, one in found]
    axes.set_yticks(range(len(found)), ["\n".join(textwrap.wrap(label, 22 if narrow else 44)) for label in labels])
    axes.tick_params(axis="y", labelsize=8.5 if not narrow else 8)
    axes.set_ylim(-0.6, len(found) - 0.4)
    axes.set_xticks([x for x in (0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 50, 100) if low <= x <= high])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(drawable(f"env steps{' to the threshold' * (not narrow)} / {ours}'s (open: bound)"))
    return figure


# ------------------------------------------------------------------------------------------------ across tasks


def _of_across(one: Across, tail: str, ours: str, algorithms: Sequence[str]) -> Iterator[Drawn]:
    where = f"over {', '.join(one.tasks)} ({one.setting})"

    def lines(bands: dict[str, Band], size: tuple[float, float]) -> tuple[Figure, Axes]:
        figure, axes = blank(size)
        for name, band in bands.items():
            at = algorithms.index(name)
            _line(axes, band, name.upper(), _style(at, at))
        _legend(figure, axes, size == _NARROW)
        return figure, axes

    def curves(size: tuple[float, float]) -> Figure:
        figure, axes = lines(dict(one.bands), size)
        for value, line, words in ((1.0, "--", f"published {ours}"), (0.0, ":", "random actions")):
            axes.axhline(value, color=_GREY, lw=1.0, ls=line)
            at = axes.get_xlim()[0], value
            axes.annotate(drawable(words), at, (5, 2), textcoords="offset points", fontsize=8, color="0.2")
        _steps_axis(axes)
        axes.set_ylabel(f"{one.statistic} of normalised return")
        return figure

    def shares(size: tuple[float, float]) -> Figure:
        figure, axes = lines(dict(one.profiles), size)
        axes.set(xlabel="normalised return τ", ylabel="share of runs with return > τ")
        return figure

    if one.bands:
        ends = ", ".join(f"{name.upper()} {interval(e)}" for name, e in one.finals.items())
        yield _drawn(
            f"aggregate{tail}",
            f"{one.statistic.replace('mean', 'Mean')} of normalised returns {where}, with 95 % intervals: 0 is "
            f"random actions, 1 the published {ours}.",
            f"Normalised learning curves {where}; at the end {one.statistic} is: {ends}.",
            curves,
        )
    if one.profiles:
        shares_of = {
            name: [np.mean(np.asarray(runs) > 0.5) for runs in one.scores[name].values()] for name in one.profiles
        }
        above = ", ".join(f"{name.upper()} {np.mean(found):.0%}" for name, found in shares_of.items())
        yield _drawn(
            f"profile{tail}",
            f"Performance profile {where}: the share of runs that end above each normalised return, with 95 % "
            "intervals.",
            f"Performance profiles {where}; share of runs above half of the way to the published {ours}: {above}.",
            shares,
        )
