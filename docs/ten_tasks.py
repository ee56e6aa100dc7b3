"""The paper's ten tasks at equal settings: two tables and two figures, from the summaries in results/.

python docs/ten_tasks.py  # writes the tables of docs/results/ten-tasks.md and docs/assets/{ten-tasks,ratios}.png
"""

from __future__ import annotations

import dataclasses
import math
import operator

import matplotlib.pyplot as plt
import numpy as np
from figures import BLUE, GREEN, GREY, ORANGE, ROOT, save
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from omad.report import stats
from omad.report.format import interval, number
from omad.report.read import gather
from omad.report.results import compute
from omad.report.series import Row, Series, TaskResults, floor_of, published_of
from omad.report.stats import Estimate

SUMMARIES = [ROOT / "results" / study / "summary.json.gz" for study in ("mpe_cpu", "robots_matched")]
PAGE = ROOT / "docs" / "results" / "ten-tasks.md"
MARKS = [(f"<!-- {name} by docs/ten_tasks.py -->", f"<!-- end of {name} -->") for name in ("returns", "ratios")]
SETTING = "matched"
COLORS = {"omad": BLUE, "hasac": ORANGE, "hatd3": GREEN}
RIVALS = ("hasac", "hatd3")
TASKS = (
    "mpe/spread-3", "mpe/spread-4", "mpe/deception-2", "mamujoco-full/halfcheetah-2x3", "mamujoco-full/halfcheetah-6x1",
    "mamujoco-full/ant-2x4", "mamujoco-full/ant-2x4d", "mamujoco-full/ant-4x2", "mamujoco-full/walker2d-2x3",
    "mamujoco-full/swimmer-2x1",
)  # fmt: skip


def series_of(task: TaskResults, algorithm: str) -> Series | None:
    """The runs of an algorithm at equal settings; None before one was evaluated."""
    return next((one for one in task.series if (one.algorithm, one.setting) == (algorithm, SETTING) and one.used), None)


def short(task: str) -> str:
    """The name without what all robots share."""
    return task.removeprefix("mamujoco-full/")


def _interval(estimate: Estimate) -> str:
    if math.isnan(estimate.low):
        return number(estimate.value)
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def _cell(one: Series | None, end: int) -> str:
    """Says at which env step, if that is not the row's."""
    if not one or not one.curves:
        return "–"
    last = int(one.curves.steps[-1])
    return f"{_interval(one.end)} ({len(one.final)})" + (f" at {last:,}" if last != end else "")


def table(found: dict[str, TaskResults]) -> list[str]:
    """Lines of Markdown: mean, 95 % interval and number of seeds."""
    lines = [
        "| task | OMAD | HASAC | HATD3 | env steps | gradient steps per env step | published: OMAD | best baseline |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in TASKS:
        task = found.get(name)
        ours = series_of(task, "omad") if task else None
        if not (task and ours and ours.curves):
            lines.append(f"| `{short(name)}` |" + " – |" * 7)
            continue
        end = int(ours.curves.steps[-1])
        cells = [_cell(series_of(task, algorithm), end) for algorithm in COLORS]
        words = [
            *cells,
            f"{end:,}",
            ours.update_ratio,
            *(_published(task, label) for label in ("OMAD", "best baseline")),
        ]
        lines.append(f"| `{short(name)}` | {' | '.join(words)} |")
    return lines


def _published(task: TaskResults, label: str) -> str:
    """What the paper gives: OMAD's return or that of its best baseline."""
    return next((number(value) for name, value, *_ in task.task.published if label in name), "–")


def against(found: dict[str, TaskResults], every: dict[str, TaskResults]) -> list[str]:
    """Lines of Markdown: env steps to each threshold over those of OMAD, how often it needs fewer, and all together."""
    ran = [name for name in TASKS if name in found and series_of(found[name], "omad")]
    rows = {(name, key): _row(every[name], key) for name in ran for key in RIVALS}
    lines = ["| task | return to reach | HASAC over OMAD | HATD3 over OMAD |", "| --- | --- | --- | --- |"]
    for name in ran:
        ratios = (row.ratio if (row := rows[name, key]) else None for key in RIVALS)
        lines.append(f"| `{short(name)}` | {number(found[name].threshold)} | {' | '.join(map(interval, ratios))} |")
    scores = {key: [_score(found[name], key) for name in ran] for key in COLORS}
    lines += ["", f"| of {len(ran)} tasks | HASAC | HATD3 |", "| --- | --- | --- |"]
    for label, holds in (
        ("more env steps than OMAD (ratio above 1)", lambda ratio: ratio.value > 1 and ratio.kind != "upper bound"),
        ("of those, more than 2.5 times as many", lambda ratio: ratio.value > 2.5 and ratio.kind != "upper bound"),
        ("fewer (below 1)", lambda ratio: ratio.value < 1 and ratio.kind != "lower bound"),
    ):
        known = {key: [row.ratio for name in ran if (row := rows[name, key]) and row.ratio] for key in RIVALS}
        lines.append(f"| {label} | {' | '.join(str(sum(map(holds, known[key]))) for key in RIVALS)} |")
    wins = (sum(map(operator.lt, scores[key], scores["omad"])) for key in RIVALS)
    lines.append(f"| OMAD ends higher | {' | '.join(map(str, wins))} |")
    together = {key: float(stats.iqm([np.asarray([score]) for score in scores[key]])) for key in COLORS}
    words = (f"{together[key]:.2f}" for key in RIVALS)
    lines.append(f"| IQM of normalised returns; OMAD {together['omad']:.2f} | {' | '.join(words)} |")
    return lines


def _score(task: TaskResults, algorithm: str) -> float:
    """Mean return, 0 that of random actions, 1 OMAD's as published (particles) or public SAC's at 200k (robots)."""
    one, low, name = series_of(task, algorithm), floor_of(task.task), task.task.name
    high = published_of(task.task, "omad") if name.startswith("mpe/") else 2 * (task.threshold or math.nan)
    if one is None or low is None or high is None:
        return math.nan
    return (one.end.value - low) / (high - low)


def ten(found: dict[str, TaskResults]) -> None:
    """Ten panels of learning curves; published returns dashed, or named where they are far above."""
    figure, panels = plt.subplots(2, 5, figsize=(13, 5.6), layout="constrained")
    for axes, name in zip(panels.flat, TASKS, strict=True):
        drawn = [(key, series_of(found[name], key)) for key in COLORS] if name in found else []
        seeds = sorted({len(one.final) for _, one in drawn if one})
        axes.set_title(
            f"{short(name)}\n{' to '.join(map(str, seeds))} seed{'s' * (seeds != [1])}" if seeds else short(name)
        )
        if not seeds:
            axes.set_axis_off()
            axes.text(0.5, 0.5, "not run yet", ha="center", transform=axes.transAxes, color=GREY)
            continue
        for algorithm, one in drawn:
            if one and one.band:
                steps, band = one.band.at / 1000, one.band
                axes.plot(steps, band.value, color=COLORS[algorithm], linewidth=1.8)
                axes.fill_between(steps, band.low, band.high, color=COLORS[algorithm], alpha=0.2, linewidth=0)
        _dashes(axes, found[name])
        axes.set_xlabel("thousand env steps")
    for axes in panels[:, 0]:
        axes.set_ylabel("team return")
    lines = [Line2D([], [], color=color, linewidth=1.8, label=name.upper()) for name, color in COLORS.items()]
    lines.append(Line2D([], [], color=GREY, linestyle="--", label="published, OMAD"))
    figure.legend(handles=lines, loc="outside upper center", ncols=4, fontsize=10)
    save(figure, "ten-tasks")


def _dashes(axes: Axes, task: TaskResults) -> None:
    """At the return published for OMAD, if there is one."""
    low, high = axes.get_ylim()
    value = published_of(task.task, "omad")
    if value is None:
        return
    if value < high + 0.6 * (high - low):
        axes.axhline(value, color=GREY, linestyle="--", linewidth=1.2)
    else:
        text = f"published: {number(value)} ↑"
        axes.annotate(text, (0.03, 0.97), xycoords="axes fraction", va="top", fontsize=9, color=GREY)


def ratios(found: dict[str, TaskResults]) -> None:
    """Env steps to the threshold over those of OMAD, by task."""
    figure, axes = plt.subplots(figsize=(7, 5.2), layout="constrained")
    names = [name for name in TASKS if name in found]
    for shift, algorithm in ((-0.12, "hasac"), (0.12, "hatd3")):
        for at, name in enumerate(names):
            row = _row(found[name], algorithm)
            if row and row.ratio and math.isfinite(row.ratio.value):
                bound, color = row.ratio.kind, COLORS[algorithm]
                marker = {"exact": "o", "lower bound": ">", "upper bound": "<"}[bound]
                low, high = (max(row.ratio.low, 0.05), min(row.ratio.high, 20.0))
                if not math.isnan(row.ratio.low):
                    axes.plot([low, high], [at + shift] * 2, color=color, linewidth=1.2)
                axes.plot(min(row.ratio.value, 20.0), at + shift, marker, color=color)
        axes.plot([], [], "o", color=COLORS[algorithm], label=f"{algorithm.upper()} over OMAD")
    axes.plot([], [], ">", color=GREY, label="at least")
    axes.plot([], [], "<", color=GREY, label="at most")
    for value, style in ((1.0, "-"), (2.5, "--"), (5.0, "--")):
        axes.axvline(value, color=GREY, linewidth=0.9, linestyle=style)
    axes.set(xscale="log", xlim=(0.1, 20), xlabel="env steps to the threshold, over those of OMAD")
    axes.set_xticks([0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20], ["0.1", "0.25", "0.5", "1", "2.5", "5", "10", "20"])
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=4)
    save(figure, "ratios")


def _row(task: TaskResults, algorithm: str) -> Row | None:
    series = series_of(task, algorithm)
    return next((row for row in task.rows if row.series is series), None)


def results(every: bool) -> dict[str, TaskResults]:
    """Of all summaries that are there, by task: every run, or finished ones alone where an algorithm has one."""
    found = gather([path for path in SUMMARIES if path.exists()], lambda config: "")
    ended = {(run.task, run.algorithm, run.setting) for run in found.runs if run.state == "finished"}
    runs = [
        run
        for run in found.runs
        if every or run.state == "finished" or (run.task, run.algorithm, run.setting) not in ended
    ]
    return {one.task.name: one for one in compute(dataclasses.replace(found, runs=runs)).tasks}


if __name__ == "__main__":
    finished, every = results(every=False), results(every=True)  # of a ratio, a run that was stopped is a bound
    page = PAGE.read_text()
    for (begin, end), lines in zip(MARKS, (table(finished), against(finished, every)), strict=True):
        before, _, after = page.partition(begin)
        page = "\n".join([before + begin, "", *lines, "", end + after.partition(end)[2]])
    PAGE.write_text(page)
    ten(finished)
    ratios(every)
