"""The pictures of a report. Each exists in a wide form and in a narrow one for small screens.

Curves differ in colour (Okabe and Ito's, which colour-blind readers can tell apart), line style and marker.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from omad import tasks
from omad.report.results import Across, Panel, Results, Series
from omad.report.words import bounded, drawable, interval, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Drawn", "draw_all"]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#8C564B")
_LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1, 1, 1, 1, 1)),
                           (0, (8, 3)), (0, (2, 3)), (0, (10, 1.5, 3, 1.5)))  # fmt: skip
_MARKERS = "osD^vPX*"
_PLACES = {"omad": 0, "hasac": 1, "hatd3": 2, "madpmd": 3, "masdac": 5}
_SIZES = {"wide": (7.6, 4.7), "narrow": (3.75, 5.0)}
_GREY = "0.35"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "omad",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}


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
    drawn: dict[str, list[Drawn]] = {"findings": [], "across": []}
    bases = set[str]()
    with matplotlib.rc_context(_STYLE):
        for one in results.tasks:
            base = _file_name(one.task.name, bases)
            drawn[one.task.name] = [
                _drawn(
                    f"curves_{base}" + (f"_{i + 1}" if len(one.panels) > 1 else ""),
                    _curve_caption(panel, results.actions),
                    _curve_words(panel, one.task),
                    lambda narrow, panel=panel, task=one.task: _learning_curves(panel, task, results.actions, narrow),
                )
                for i, panel in enumerate(one.panels)
            ]
        if any(row.ratio for one in results.tasks if one.threshold for row in one.threshold.rows):
            drawn["findings"].append(
                _drawn(
                    "ratios",
                    "Env steps to the threshold over those of OMAD: to the right of 1, OMAD needs fewer. Points are "
                    "ratios of medians, bars 95 % intervals, arrows say that a side is not bounded.",
                    _ratio_words(results),
                    lambda narrow: _ratios(results, narrow),
                )
            )
        for i, one in enumerate(results.across):
            tail = f"_{i + 1}" if len(results.across) > 1 else ""
            drawn["across"] += _of_across(one, tail)
    return drawn


def _file_name(task: str, taken: set[str]) -> str:
    """A task's name as part of a file's, unlike those that are taken already."""
    base = "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "-" for c in task)[:100]
    name = next(name for i in itertools.count(1) if (name := base if i == 1 else f"{base}--{i}") not in taken)
    taken.add(name)
    return name


def _drawn(name: str, caption: str, alt: str, draw: Callable[[bool], Figure]) -> Drawn:
    wide, narrow = draw(False), draw(True)
    for figure in (wide, narrow):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # places are kept, and not sought again by each of the drawings below
    return Drawn(name, caption, alt, _bytes(wide, "svg"), _bytes(narrow, "svg"), _bytes(wide, "png"))


def _bytes(figure: Figure, kind: str) -> bytes:
    """The same whenever it is written, and without an address inside."""
    out = io.BytesIO()
    nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type") if kind == "svg" else ("Software",))
    figure.savefig(out, format=kind, metadata=nothing, dpi=150)
    return out.getvalue()


def _blank(narrow: bool, height: float = 1.0) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    width, tall = _SIZES["narrow" if narrow else "wide"]
    figure = Figure(figsize=(width, tall * height), layout="constrained")
    return figure, figure.add_subplot()


def _label(text: str) -> str:
    """For a legend, which leaves out what begins with an underscore."""
    text = drawable(text)
    return f" {text}" if text.startswith("_") else text


def _styles(series: Sequence[Series]) -> list[dict[str, Any]]:
    """Colour and marker by algorithm, line by setting; by place where there is one algorithm, or one setting."""
    settings = list(dict.fromkeys(one.setting for one in series))
    algorithms = list(dict.fromkeys(one.algorithm for one in series))
    out = []
    for i, one in enumerate(series):
        at = _place(one.algorithm, algorithms)
        colour, line = (
            (i, i) if len(algorithms) == 1 else (at, settings.index(one.setting) if len(settings) > 1 else at)
        )
        out.append(_style(colour, line))
    return out


def _place(algorithm: str, algorithms: Sequence[str]) -> int:
    if algorithm in _PLACES:
        return _PLACES[algorithm]
    free = [i for i in range(len(_COLOURS)) if i not in _PLACES.values()]
    return free[[name for name in algorithms if name not in _PLACES].index(algorithm) % len(free)]


def _style(colour: int, line: int) -> dict[str, Any]:
    return {"color": _COLOURS[colour % 8], "ls": _LINES[line % 8], "marker": _MARKERS[colour % 8], "ms": 4.0, "lw": 1.7}


def _every(count: int) -> int:
    """Markers at about ten places."""
    return max(1, math.ceil(count / 10))


def _steps_axis(axes: Axes, label: str = "env steps") -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    def short(value: float, _: Any) -> str:
        if abs(value) >= 1e6:
            return f"{value / 1e6:g}M"
        return f"{value / 1e3:g}k" if abs(value) >= 1e3 else f"{value:g}"

    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(short))
    axes.set_xlabel(label)


def _legend(figure: Figure, axes: Axes, narrow: bool, more: Sequence[Any] = ()) -> None:
    handles = [*axes.get_legend_handles_labels()[0], *more]
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    columns = 1 if narrow and longest > 18 else 2 if narrow or longest > 26 else min(4, max(2, 80 // (longest + 8)))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(columns, max(1, len(handles))), fontsize=8.5,
        frameon=False, handlelength=3.2,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ learning curves


def _learning_curves(panel: Panel, task: tasks.Task, actions: str, narrow: bool) -> Figure:
    figure, axes = _blank(narrow, 1.0 + 0.04 * len(panel.series) * narrow)
    for one, style in zip(panel.series, _styles(panel.series), strict=True):
        band = one.band
        if band is None or one.curves is None:
            continue
        axes.fill_between(band.steps, band.low, band.high, color=style["color"], alpha=0.16, lw=0)
        if len(panel.series) <= 4 and 1 < len(one.used) <= 5:
            for run in one.curves.values:
                axes.plot(band.steps, run, color=style["color"], lw=0.7, alpha=0.35)
        runs = f"{len(one.used)} run" + "s" * (len(one.used) != 1)
        axes.plot(
            band.steps, band.value, markevery=_every(band.steps.size), label=_label(f"{one.label} ({runs})"), **style
        )
    _steps_axis(axes)
    axes.set_ylabel(f"team return, {actions.replace('_', '-')} actions")
    title = task.name if panel.title == "all settings" else f"{task.name}, {panel.title}"
    axes.set_title("\n".join(textwrap.wrap(drawable(title), 44 if narrow else 90)), fontsize=10)
    keys = _references(axes, task, narrow)
    _legend(figure, axes, narrow, keys)
    return figure


def _references(axes: Axes, task: tasks.Task, narrow: bool) -> list[Any]:
    """Published results dashed, scripted policies dotted, each named at the right; far ones by an arrow at the edge.

    Returns:
        Handles for the legend where there is no room for names, and letters stand for them.
    """
    from matplotlib.lines import Line2D

    levels = [(f"{label}, published", value, "--") for label, value, _, _ in task.published]
    levels += [
        (label, value, ":") for label, value, _ in task.anchors if label != "zero action" or len(task.anchors) < 3
    ]
    low, high = axes.get_ylim()
    reach = 1.2 * (high - low)
    near = [value for _, value, _ in levels if low - reach <= value <= high + reach]
    low, high = min([low, *near]), max([high, *near])
    low, high = low - 0.03 * (high - low), high + 0.03 * (high - low)
    axes.set_ylim(low, high)
    names, places = [], []
    for label, value, line in sorted(levels, key=lambda level: level[1]):
        inside = low <= value <= high
        if inside:
            axes.axhline(value, lw=1.0, ls=line, color=_GREY, zorder=0.5)
        arrow = "" if inside else ("↑ " if value > high else "↓ ")
        names.append(f"{arrow}{label} {number(value)}")
        places.append(min(max((value - low) / (high - low), 0.0), 1.0))
    letters = "abcdefghijklmnop"
    texts = (
        [letters[i] for i in range(len(names))] if narrow else ["\n".join(textwrap.wrap(name, 25)) for name in names]
    )
    line_height = 0.045 if narrow else 0.041
    spread = _apart(places, [line_height * (text.count("\n") + 1) for text in texts])
    right = 1.0 + (0.035 if narrow else 0.03)
    for text, place, at in zip(texts, places, spread, strict=True):
        axes.plot([1.0, right - 0.005], [place, at], transform=axes.transAxes, clip_on=False, color=_GREY, lw=0.6)
        axes.text(right, at, text, transform=axes.transAxes, fontsize=8, color="0.2", va="center", linespacing=1.0)
    if not narrow:
        return []
    styles = {f"{label} {number(value)}": line for label, value, line in levels}
    return [
        Line2D([], [], color=_GREY, lw=1.0, ls=styles[name.lstrip("↑↓ ")], label=f"{letter}  {name}")
        for letter, name in zip(letters, names, strict=False)
    ]


def _apart(places: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Centres in ascending order, moved as little as needed so that no two boxes overlap."""
    at = list(places)
    for i in range(1, len(at)):
        at[i] = max(at[i], at[i - 1] + (heights[i] + heights[i - 1]) / 2)
    top = 1.0
    for i in reversed(range(len(at))):
        at[i] = min(at[i], top)
        if i:
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
    words = []
    for one in panel.series:
        band = one.band
        if band is not None:
            value = band.value[-1]
            last = interval(value, band.low[-1], band.high[-1]) if band.resamples else number(value)
            words.append(f"{one.label} ends at {last} after {int(band.steps[-1]):,} env steps")
    published = [f"{label} published {number(value)}" for label, value, _, _ in task.published]
    return f"Learning curves on {task.name}: {'; '.join([*words, *published])}."


# ------------------------------------------------------------------------------------------------ ratios


def _ratio_rows(results: Results) -> list[tuple[str, Any, Series]]:
    """Those of other algorithms; where there is none, those of OMAD's own settings."""
    every = [
        (f"{one.task.name}: {row.series.label}", row.ratio, row.series)
        for one in results.tasks
        if one.threshold
        for row in one.threshold.rows
        if row.ratio
    ]
    return [row for row in every if row[2].algorithm != "omad"] or every


def _ratio_words(results: Results) -> str:
    words = [f"{label}: {bounded(ratio, ' times')}" for label, ratio, _ in _ratio_rows(results)]
    return "Env steps to the threshold over those of OMAD. " + "; ".join(words) + "."


def _ratios(results: Results, narrow: bool) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    rows = _ratio_rows(results)[::-1]
    width = _SIZES["narrow" if narrow else "wide"][0]
    figure = Figure(figsize=(width, 1.3 + (0.46 if narrow else 0.3) * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    ends = [x for _, r, _ in rows for x in (r.value, r.low, r.high) if math.isfinite(x) and x > 0]
    low, high = min([0.8, *(x / 1.25 for x in ends)]), max([1.25, *(x * 1.25 for x in ends)])
    algorithms = list(dict.fromkeys(one.algorithm for _, _, one in rows))
    for y, (_, ratio, one) in enumerate(rows):
        style = _style(_place(one.algorithm, algorithms), 0)
        colour = style["color"]
        if ratio.kind == "undefined":
            axes.text(1.02, y, " not known", va="center", fontsize=8, color=_GREY)
            continue
        left = ratio.low if ratio.low > low else low
        right = ratio.high if ratio.high < high else high
        if not math.isnan(ratio.low):
            axes.plot([left, right], [y, y], color=colour, lw=1.6)
            for open_end, at, marker in ((ratio.low < low, low, "<"), (ratio.high > high, high, ">")):
                if open_end:
                    axes.plot([at], [y], marker=marker, color=colour, ms=6, clip_on=False)
        face = colour if ratio.kind == "exact" else "white"
        axes.plot([ratio.value], [y], marker=style["marker"], color=colour, mfc=face, ms=7, zorder=3)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.axvline(1.0, color=_GREY, lw=1.0, ls="--")
    axes.set_yticks(
        range(len(rows)), ["\n".join(textwrap.wrap(drawable(label), 22 if narrow else 44)) for label, _, _ in rows]
    )
    axes.tick_params(axis="y", labelsize=8.5 if not narrow else 8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    shown = [x for x in (0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 50, 100) if low <= x <= high]
    axes.set_xticks(shown)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(
        "env steps / OMAD's (open: bound)" if narrow else "env steps to the threshold / OMAD's (open points are bounds)"
    )
    return figure


# ------------------------------------------------------------------------------------------------ across tasks


def _of_across(one: Across, tail: str) -> list[Drawn]:
    algorithms = list(one.finals)
    shown = ", ".join(f"{name.upper()} {interval(e.value, e.low, e.high)}" for name, e in one.finals.items())
    where = f"over {', '.join(one.tasks)} ({one.setting})"
    drawn = []

    def lines(narrow: bool) -> Figure:
        figure, axes = _blank(narrow)
        for name, band in one.bands.items():
            at = _place(name, algorithms)
            axes.fill_between(band.steps, band.low, band.high, color=_COLOURS[at], alpha=0.16, lw=0)
            axes.plot(
                band.steps, band.value, markevery=_every(band.steps.size), label=_label(name.upper()), **_style(at, at)
            )
        axes.axhline(0.0, color=_GREY, lw=1.0, ls=":")
        axes.axhline(1.0, color=_GREY, lw=1.0, ls="--")
        for value, words in ((1.0, "published OMAD"), (0.0, "random actions")):
            axes.annotate(
                words, (axes.get_xlim()[0], value), (5, 2), textcoords="offset points", fontsize=8, color="0.2"
            )
        _steps_axis(axes)
        axes.set_ylabel(f"{one.statistic} of normalised return")
        _legend(figure, axes, narrow)
        return figure

    def shares(narrow: bool) -> Figure:
        figure, axes = _blank(narrow)
        for name, profile in one.profiles.items():
            at = _place(name, algorithms)
            axes.fill_between(profile.taus, profile.low, profile.high, color=_COLOURS[at], alpha=0.16, lw=0)
            style = _style(at, at)
            axes.plot(
                profile.taus, profile.share, markevery=_every(profile.taus.size), label=_label(name.upper()), **style
            )
        axes.set_xlabel("normalised return τ")
        axes.set_ylabel("share of runs with return > τ")
        _legend(figure, axes, narrow)
        return figure

    if one.bands:
        drawn.append(
            _drawn(
                f"aggregate{tail}",
                f"{one.statistic.replace('mean', 'Mean')} of normalised returns {where}, with 95 % intervals: 0 is "
                "random actions, 1 the published OMAD.",
                f"Normalised learning curves {where}; at the end {one.statistic} is: {shown}.",
                lines,
            )
        )
    if one.profiles:
        drawn.append(
            _drawn(
                f"profile{tail}",
                f"Performance profile {where}: the share of runs that end above each normalised return, with 95 % "
                "intervals.",
                f"Performance profiles {where}; share of runs above half of the way to the published OMAD: "
                + ", ".join(
                    f"{name.upper()} {float(np.interp(0.5, p.taus, p.share)):.0%}" for name, p in one.profiles.items()
                )
                + ".",
                shares,
            )
        )
    return drawn
