"""The tables of a report, as rows of text; a template writes them as HTML, another as Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from omad.report.format import counts, duration, interval, number
from omad.report.records import Run
from omad.report.results import Across, Comparison, Results
from omad.report.series import Row, Series, TaskResults

Kind = Literal["text", "number", "code"]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text; the first column names the row."""

    name: str
    """Unique within a page."""
    caption: str
    head: Mapping[str, Kind]
    """Word and kind of each column."""
    rows: tuple[tuple[str, ...], ...]

    @property
    def kinds(self) -> list[Kind]:
        """Of the columns."""
        return list(self.head.values())


def _head(*words: str, code: str = "") -> dict[str, Kind]:
    """Columns of numbers, but for the first, those that end in `*`, which are text, and one of commands."""
    kinds: list[Kind] = ["text" if not i or word[-1] == "*" else "number" for i, word in enumerate(words)]
    head: dict[str, Kind] = dict(zip((word.rstrip("*") for word in words), kinds, strict=True))
    return {**head, code: "code"} if code else head


# ------------------------------------------------------------------------------------------------ of a task


def _counted(one: Series) -> str:
    """`3`, or `2 of 3, 1 diverged`; diverged runs that nothing can be said of are named."""
    states = [member.state for member in one.members]
    words = [f"{len(one.used)}" if len(one.used) == len(states) else f"{len(one.used)} of {len(states)}"]
    words += filter(None, [counts(state for state in states if state != "finished")])
    unseen = sum(m.state == "diverged" and all(m is not other for other in one.used) for m in one.members)
    words += [f"{unseen} diverged before any evaluation and not in these numbers"] if unseen else []
    return ", ".join(words)


def returns_table(one: TaskResults, name: str) -> Table:
    """Final return and area of each series, with each seed's final return, beside what is published."""
    rows = []
    for series in one.series:
        cells = ("none that all share" if series.used else "–", "–", "–", "–")
        if (curves := series.curves) is not None:
            seeds = [f"{m.seed}:\u00a0{number(v)}" for m, v in zip(series.used, series.final, strict=True)]
            steps = f"{curves.steps[0]:,}–{curves.steps[-1]:,}"
            cells = (steps, interval(series.end), interval(series.along), "; ".join(seeds))
        rows.append((series.label, _counted(series), cells[0], series.update_ratio, *cells[1:]))
    for label, value, std, source in one.task.published:
        spread = f" ± {number(std)}" if std is not None else ""
        runs = "5" if "5 seeds" in source else "–"
        rows.append((f"{label}, published", runs, "–", "–", number(value) + spread, "–", "–"))
    head = _head("algorithm", "runs*", "env steps", "gradient steps per env step", "final return", "area",
            "final return by seed*")  # fmt: skip
    caption = (
        f"{one.task.name}: return of the last common evaluation and area under the curve (mean return along the way) "
        "over these env steps; mean over runs with 95 % bootstrap interval. Published: ± standard deviation over seeds."
    )
    return Table(name, caption, head, tuple(rows))


def reference_table(one: TaskResults, name: str) -> Table | None:
    """Published results and policies without learning, with their sources."""
    rows = [(f"{label}, published", value, source) for label, value, _, source in one.task.published]
    ordered = sorted([*rows, *one.task.references], key=lambda row: -row[1])
    caption = f"{one.task.name}: reference returns and where they come from."
    texts = tuple((label, number(value), source) for label, value, source in ordered)
    return Table(name, caption, _head("policy", "return", "source*"), texts) if texts else None


def _reached(row: Row) -> str:
    found = row.crossings
    if found is None:
        return "–"
    early = f", {sum(found.early)} at the first evaluation" if any(found.early) else ""
    return f"{sum(found.reached)} of {len(found.reached)}{early}"


def steps_table(one: TaskResults, name: str) -> Table | None:
    """Env steps to the threshold, and their ratio to those of the baseline."""
    if one.threshold is None:
        return None
    rows = tuple(
        (row.series.label, _reached(row), interval(row.median), interval(row.ratio, "×"),
         row.baseline.label if row.baseline and row.ratio else "–")
        for row in one.rows
        if row.crossings
    )  # fmt: skip
    caption = (
        f"{one.task.name}: env steps until half of the runs have reached a return of {number(one.threshold)} "
        "(median of Kaplan and Meier), with 95 % bootstrap interval, and their ratio. Runs that did not reach it are "
        "censored, not left out."
    )
    return Table(name, caption, _head("algorithm", "runs that reached it*", "env steps", "ratio", "to that of*"), rows)


def improvement_table(one: TaskResults, name: str) -> Table | None:
    """How often the baseline ends above the others."""
    rows = tuple(
        (f"{row.baseline.label} over {row.series.label}", f"{row.step:,}", interval(row.better))
        for row in one.rows
        if row.better and row.baseline
    )
    caption = (
        f"{one.task.name}: probability that a run of the first is above a run of the second at the last env step at "
        "which all runs of both were evaluated, with 95 % interval."
    )
    return Table(name, caption, _head("pair", "env steps", "probability"), rows) if rows else None


# ------------------------------------------------------------------------------------------------ findings


def _ratio_sentence(row: Row) -> str:
    """What is said of a ratio."""
    pairs = [("its", "", row.crossings), ("the", f" of {row.baseline.label}" if row.baseline else "", row.reference)]
    tails = []
    for which, whose, found in pairs:
        if found and (missed := found.reached.count(False)):
            tails.append(f"; {missed} of {which} {len(found.reached)} runs{whose} did not reach it")
    label, other = row.series.label, row.baseline.label if row.baseline else ""
    if row.ratio and row.ratio.kind == "undefined":
        return f"{label} and {other}: the ratio is not known, for too few runs reached the threshold{''.join(tails)}."
    return f"{label} needs {interval(row.ratio, ' times')} the env steps of {other}{''.join(tails)}."


def findings(one: TaskResults, baseline: str) -> list[str]:
    """What a reader wants first, in sentences."""
    ended = [(float(s.final.mean()), s, int(s.curves.steps[-1])) for s in one.series if s.curves is not None]
    published = "".join(f"; published: {label} {number(value)}" for label, value, *_ in one.task.published)
    said = [f"No final return yet: runs of a setting share no env step at which all were evaluated{published}."]
    if ended:
        _, best, steps = max(ended, key=lambda found: found[0])
        said = [f"Best final return: {interval(best.end)} by {best.label} after {steps:,} env steps{published}."]
    algorithms = {series.algorithm for series in one.series}
    if len(algorithms) > 1 and baseline not in algorithms:
        said.append(f"Nothing is compared: there is no run of {baseline.upper()}. Give another with --baseline.")
    if one.threshold is None:
        return [*said, "No return to reach is known for this task; give one with --threshold."]
    others = [row for row in one.rows if row.ratio and row.series.algorithm != baseline]
    for row in one.rows:
        several = row.baseline is not None and min(len(row.series.used), len(row.baseline.used)) > 1
        if row.baseline and several and not row.finals:
            both = f"{row.series.label} and {row.baseline.label}"
            said.append(f"Returns of {both} are not compared: no env step is common to all of their evaluations.")
    return [*said, f"Return to reach: {number(one.threshold)}, {one.rule}.", *map(_ratio_sentence, others)]


def count_sentence(one: Comparison, baseline: str) -> str:
    """On how many tasks a ratio lies where."""
    above, far, below = one.above(1.0), one.above(2.5), one.below(1.0)
    rest = len(one.rows) - above[0] - below[0]
    sure = f"with the whole interval on {above[1]}, {far[1]} and {below[1]}"
    return (
        f"{one.label}: env steps to the threshold over those of {baseline} are above 1 on {above[0]} of "
        f"{len(one.rows)} tasks, above 2.5 on {far[0]}, below 1 on {below[0]}; {sure}"
        f"{f'; not known to be either on {rest}' if rest else ''}."
    )


# ------------------------------------------------------------------------------------------------ across tasks


def comparison_table(results: Results, name: str) -> Table | None:
    """Env steps to the thresholds over those of the baseline, task by task and together."""
    rows = []
    for one in results.comparisons:
        thresholds = {t.task.name: number(t.threshold) for t in results.tasks if t.threshold is not None}
        for task, row in one.rows.items():
            rows.append((one.label, task, thresholds[task], interval(row.ratio, "×"), interval(row.better)))
        rows.append((one.label, f"all {len(one.rows)} tasks", "–", interval(one.ratio, "×"), interval(one.better)))
    caption = (
        f"Env steps to the threshold over those of {results.options.baseline.upper()}, with 95 % bootstrap interval, "
        "and the probability that a run of it ends above one of the algorithm. All tasks: interquartile mean of the "
        "logarithms of the ratios, as a ratio, and mean of the probabilities."
    )
    head = _head("algorithm", "task*", "threshold", "ratio", f"P({results.options.baseline.upper()} is better)")
    return Table(name, caption, head, tuple(rows)) if rows else None


def across_table(one: Across, name: str, baseline: str = "omad") -> Table:
    """Normalised returns, and how often the baseline is better."""
    rows = []
    for algorithm, end in one.finals.items():
        runs = ", ".join(sorted({str(len(np.asarray(runs))) for runs in one.scores[algorithm].values()}))
        area, better = one.areas.get(algorithm), one.improvements.get(algorithm)
        rows.append((algorithm.upper(), runs, interval(end), interval(area), interval(better)))
    ends = ", ".join(f"{step:,} on {task}" for task, step in one.ends.items())
    ends = f" All algorithms are taken up to one env step: {ends}." if ends else ""
    ours = baseline.upper()
    caption = (
        f"{', '.join(one.tasks)}, setting {one.setting}: {one.statistic} over all runs of normalised returns "
        f"(random actions 0, published {ours} 1), and the probability that a run of {ours} ends above a run of the "
        f"algorithm; 95 % intervals.{ends}"
    )
    head = _head("algorithm", "runs a task", "final return", "area", f"P({ours} is better)")
    return Table(name, caption, head, tuple(rows))


# ------------------------------------------------------------------------------------------------ runs


def _machine(run: Run) -> tuple[str, ...]:
    device, packages = run.manifest.get("device", {}), run.manifest.get("packages", {})
    return (
        f"{device.get('count', '?')} × {device.get('kind', '?')} ({device.get('platform', '?')})",
        ", ".join(map(str, run.manifest.get("machine", {}).values())),
        f"{run.manifest.get('omad', '?')}, commit {run.manifest.get('commit') or 'unknown'}",
        ", ".join(f"{k} {v}" for k, v in {"python": run.manifest.get("python", "?"), **packages}.items()),
    )


def hardware_table(runs: Iterable[Run], name: str) -> Table:
    """Devices and versions, and how many runs had each."""
    found = [_machine(run) for run in runs if run.manifest]
    rows = tuple((one[0], str(found.count(one)), *one[1:]) for one in dict.fromkeys(found))
    head = _head("device", "runs", "machine*", "omad*", "packages*")
    return Table(name, "Devices, machines and versions, as each run recorded them.", head, rows)


def time_table(results: Results, name: str) -> Table:
    """Wall clock by series, of all runs that have a time."""
    rows = []
    for series in (series for one in results.tasks for series in one.series):
        runs = {member.run.folder: member.run for member in series.members if member.run.train_s}.values()
        spent = sum(run.train_s or 0.0 for run in runs)
        timed = sum(run.timed_steps * len(run.seeds) for run in runs)
        steps, learned = (
            f"{sum(getattr(run, what) * len(run.seeds) for run in runs):,}" for what in ("env_steps", "gradient_steps")
        )
        rate = number(timed / spent) if spent else "–"
        rows.append(
            (f"{series.task}: {series.label}", str(len(runs)), duration(spent) if runs else "–", steps, rate, learned,
             series.update_ratio)
        )  # fmt: skip
    every = [run.train_s for run in results.gathered.runs if run.train_s]
    rows.append(("all", str(len(every)), duration(sum(every)), "", "", "", ""))
    head = _head("runs of", "runs", "training time", "env steps", "env steps/s", "gradient steps",
            "gradient steps per env step")  # fmt: skip
    caption = (
        "Wall clock of training with its evaluations, summed over runs, from the first line of metrics to the last; "
        "pauses are left out. Runs that shared a machine at the same time slowed each other."
    )
    return Table(name, caption, head, tuple(rows))


def _last_return(run: Run, actions: str) -> str:
    lines = sorted((line for line in run.episodes if line.actions == actions), key=lambda line: line.step)
    ends = {line.seed: line.returns for line in lines}
    return "; ".join(number(np.mean(ends[seed])) for seed in sorted(ends)) or "–"


def runs_table(results: Results, name: str) -> Table:
    """Every run, whatever became of it, with the command that reproduces it."""
    rows = []
    for run in results.gathered.runs:
        state = f"{run.state}: {run.note}" if run.note else run.state
        steps = f"{run.env_steps:,} of {run.total_steps:,}" if run.config else "–"
        last = _last_return(run, results.options.actions)
        rows.append(
            (run.folder, run.task, run.algorithm, run.setting, ", ".join(map(str, run.seeds)), state, steps, last,
             duration(run.train_s), run.command or ("" if run.config else "–"))
        )  # fmt: skip
    caption = f"All {len(rows)} runs: {counts(run.state for run in results.gathered.runs)}."
    head = _head("run", "task*", "algorithm*", "setting*", "seeds*", "state*", "env steps", "last return",
            "time", code="command")  # fmt: skip
    return Table(name, caption, head, tuple(rows))
