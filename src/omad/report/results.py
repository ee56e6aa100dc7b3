"""All that a report says of its runs, computed by `omad.report.stats`; tables, pictures and the page only write it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from omad import tasks
from omad.errors import UserError
from omad.report import stats, survival
from omad.report.alike import refuse_mixed
from omad.report.format import counts
from omad.report.records import Gathered, Options
from omad.report.series import (
    Row,
    Series,
    TaskResults,
    all_series,
    estimated,
    floor_of,
    over_one_range,
    published_of,
    task_of,
    task_results,
)
from omad.report.stats import Band, Curves, Estimate, Scores
from omad.report.survival import Crossings


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """One algorithm in one setting compared with the baseline on several tasks."""

    label: str
    rows: Mapping[str, Row]
    """By task."""
    ratio: Estimate
    """`survival.pooled_ratio` of them all."""
    better: Estimate | None

    def above(self, value: float) -> tuple[int, int]:
        """On how many tasks the ratio, or its lower bound, is above a number; and its whole interval."""
        ratios = [row.ratio for row in self.rows.values() if row.ratio]
        held = [one for one in ratios if one.kind in ("exact", "lower bound") and one.value > value]
        return len(held), sum(one.low > value for one in held)

    def below(self, value: float) -> tuple[int, int]:
        """On how many tasks the ratio, or its upper bound, is below a number; and its whole interval."""
        ratios = [row.ratio for row in self.rows.values() if row.ratio]
        held = [one for one in ratios if one.kind in ("exact", "upper bound") and one.value < value]
        return len(held), sum(one.high < value for one in held)


@dataclasses.dataclass(frozen=True, eq=False)
class Across:
    """Normalised returns of all tasks together, in one setting; by algorithm where nothing else is said."""

    setting: str
    tasks: tuple[str, ...]
    statistic: str
    """`IQM`, or `mean` where numbers of runs differ."""
    ends: Mapping[str, int]
    """By task: the last env step that all these algorithms have; without tasks on which they have none."""
    scores: Mapping[str, Scores]
    """Normalised final returns."""
    finals: Mapping[str, Estimate]
    areas: Mapping[str, Estimate]
    bands: Mapping[str, Band]
    improvements: Mapping[str, Estimate]
    """The baseline over each other algorithm, on the tasks of `ends`; of those with two runs or more on each."""
    profiles: Mapping[str, Band]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """All that a page says."""

    gathered: Gathered
    options: Options
    tasks: tuple[TaskResults, ...]
    comparisons: tuple[Comparison, ...]
    across: tuple[Across, ...]


def refuse_disagreed(
    gathered: Gathered, thresholds: Mapping[str, float], actions: str | None, baseline: str | None
) -> None:
    """Refuse summaries that say different things of a report, where nothing is given instead.

    Raises:
        UserError: They do; the message lists what, and how to decide.
    """
    given = {name for name, value in (("actions", actions), ("baseline", baseline)) if value}
    given |= {_canonical(task) for task in thresholds} | set(thresholds)
    unlike = [words for name, words in gathered.options.get("disagreed", {}).items() if name not in given]
    if unlike:
        raise UserError(f"{'; '.join(unlike)}. Decide with --threshold, --actions or --baseline.")


def compute(
    gathered: Gathered,
    thresholds: Mapping[str, float] | None = None,
    actions: Any = "sampled",
    baseline: str | None = None,
) -> Results:
    """All numbers of a report.

    Args:
        gathered: Of `omad.report.read`.
        thresholds: Return to reach by task, where neither the study's nor a summary's nor the rule is wanted.
        actions: Which evaluations: `sampled` or `noise_free`.
        baseline: The algorithm that the others are compared with; None takes what a summary says, else `omad`.

    Raises:
        UserError: Runs cannot stand together, none was evaluated yet, or a threshold is of an unknown task.
    """
    runs, study = gathered.runs, gathered.options.get("study_thresholds", {})
    compared = baseline or gathered.options.get("baseline", "omad")
    every, given = list(dict.fromkeys(run.task for run in runs if run.task)), dict[str, float]()
    for name, value in (thresholds or {}).items():
        task = name if name in every else _canonical(name)
        if task not in every:
            raise UserError(f"--threshold names the task {name!r}; the runs are of {', '.join(every)}.")
        given[task] = value
    options = Options(actions, {**gathered.options.get("thresholds", {}), **given}, study, compared)
    evaluated = [run for run in runs if any(line.actions == actions for line in run.episodes)]
    if not evaluated:
        why = " A run has them with --eval-noise-free." if actions == "noise_free" else ""
        why += next((f" {run.folder}: {run.note}" for run in runs if run.note), "")
        raise UserError(
            f"None of the {len(runs)} runs ({counts(run.state for run in runs)}) has an evaluation of {actions} "
            f"actions; train until the first one.{why}"
        )
    refuse_mixed(runs, actions)
    names = list(dict.fromkeys(run.task for run in evaluated))
    known = list(dict.fromkeys(run.algorithm for run in evaluated))
    if baseline and baseline not in known:
        raise UserError(f"--baseline is {baseline!r}; the runs are of {', '.join(known)}. Give one of these.")
    series = all_series(runs, actions, options.baseline)
    done = [task_results(task_of(name), [one for one in series if one.task == name], options) for name in names]
    across = tuple(_across(done, options.baseline))
    return Results(gathered, options, tuple(done), tuple(_comparisons(done)), across)


def _canonical(task: str) -> str:
    """A task's name as runs record it, whatever the order of its options; any other name as it is."""
    try:
        return tasks.find(task).name
    except UserError:
        return task


def _across(done: Sequence[TaskResults], baseline: str) -> Iterator[Across]:
    """One for each setting that several tasks share, by family of tasks where a family has several."""
    known: dict[str, tuple[float, float]] = {}
    families: dict[str, list[TaskResults]] = {}
    for one in done:
        low, high = floor_of(one.task), published_of(one.task, baseline)
        if low is not None and high is not None and low < high:
            known[one.task.name] = low, high
            families.setdefault(one.task.name.partition("/")[0], []).append(one)
    several = [group for group in families.values() if len(group) > 1]
    for group in several or [[one for one in done if one.task.name in known]]:
        settings = dict.fromkeys(series.setting for one in group for series in one.series)
        for setting in settings:
            by: dict[str, dict[str, Series]] = {}
            for series in (series for one in group for series in one.series):
                if series.setting == setting and series.curves is not None:
                    by.setdefault(series.algorithm, {})[series.task] = series
            if not by or (len(by) == 1 and len(settings) > 1):
                continue
            names = _shared_tasks(by, baseline)
            full = {name: {t: have[t] for t in names} for name, have in by.items() if have.keys() >= set(names)}
            if len(names) > 1:
                rest = sorted({task for have in by.values() for task in have} - set(names))
                notes = [f"{', '.join(rest)} left out: too few algorithms have runs there."] if rest else []
                if partial := sorted(by.keys() - full.keys()):
                    notes.append(f"{', '.join(map(str.upper, partial))} left out: not run on all of these tasks.")
                yield _together(setting, names, full, known, baseline, notes)


def _shared_tasks(by: Mapping[str, Mapping[str, Series]], baseline: str) -> list[str]:
    """The tasks that the baseline, or else who has most, shares with the algorithm that has most of its tasks."""
    ours = by[baseline] if baseline in by else max(by.values(), key=len)
    shared = max((sorted(ours.keys() & have.keys()) for have in by.values() if have is not ours), key=len, default=[])
    return shared if len(shared) > 1 else sorted(ours)


def _together(
    setting: str,
    names: Sequence[str],
    full: Mapping[str, Mapping[str, Series]],
    references: Mapping[str, tuple[float, float]],
    baseline: str,
    notes: list[str],
) -> Across:
    equal = all(len({len(one.used) for one in have.values()}) == 1 for have in full.values())
    if not equal:
        notes.append("The mean is taken instead of the IQM, for numbers of runs differ between tasks.")
    statistic = stats.iqm if equal else stats.mean
    order = sorted(full, key=lambda name: (name != baseline, name))
    cut: dict[str, dict[str, Curves]] = {name: {} for name in order}
    ends: dict[str, int] = {}
    for task in names:
        found = over_one_range([full[name][task] for name in order])
        if found is None:
            notes.append(f"{task}: no step of evaluation is common to all; each algorithm is taken at its own end.")
            found = [one for name in order if (one := full[name][task].curves) is not None]
        else:
            ends[task] = int(found[0].steps[-1])
        for name, one in zip(order, found, strict=True):
            cut[name][task] = one

    def normal(of: Any, have: Mapping[str, Curves]) -> dict[str, Any]:
        return stats.normalise({task: of(one) for task, one in have.items()}, references)

    scores = {name: normal(stats.final, cut[name]) for name in order}
    several = [name for name in order if min(len(one.used) for one in full[name].values()) > 1]
    paired = {name: {task: scores[name][task] for task in ends} for name in several if ends}
    every = np.concatenate([runs for by in scores.values() for runs in by.values()])
    taus = np.linspace(math.floor(min(every.min(), 0.0) * 10) / 10, math.ceil(max(every.max(), 1.0) * 10) / 10, 101)
    bands = {name: _band(full[name].values(), references, statistic) for name in several}
    return Across(
        setting=setting,
        tasks=tuple(names),
        statistic="IQM" if equal else "mean",
        ends=ends,
        scores=scores,
        finals={name: estimated(scores[name], statistic) for name in order},
        areas={
            name: estimated(normal(stats.area, have), statistic)
            for name, have in cut.items()
            if all(one.steps.size > 1 for one in have.values())
        },
        bands={name: band for name, band in bands.items() if band},
        improvements={
            name: stats.probability_of_improvement(paired[baseline], runs)
            for name, runs in paired.items()
            if baseline in paired and name != baseline
        },
        profiles={name: stats.profile(scores[name], taus) for name in several},
        notes=tuple(notes),
    )


def _band(
    have: Iterable[Series], references: Mapping[str, tuple[float, float]], statistic: stats.Statistic
) -> Band | None:
    """Normalised curve of one algorithm over the steps that all its tasks share."""
    curves = {one.task: one.curves for one in have if one.curves is not None}
    shared = sorted(set.intersection(*(set(one.steps.tolist()) for one in curves.values())))
    if len(shared) < 2:
        first = max(int(one.steps[0]) for one in curves.values())
        last = min(int(one.steps[-1]) for one in curves.values())
        if last <= first:
            return None
        shared = sorted({int(step) for step in np.linspace(first, last, 20)})
    normal = {}
    for task, one in curves.items():
        (low, high), values = references[task], np.stack([np.interp(shared, one.steps, run) for run in one.values])
        normal[task] = Curves(np.array(shared, np.int64), (values - low) / (high - low))
    return stats.band(normal, statistic)


def _comparisons(done: Sequence[TaskResults]) -> Iterator[Comparison]:
    """Of all that is compared with the baseline on two tasks or more."""
    groups: dict[tuple[str, str], dict[str, Row]] = {}
    for one in done:
        for row in one.rows:
            if row.crossings and row.reference:
                groups.setdefault((row.series.algorithm, row.series.setting), {})[one.task.name] = row
    for (algorithm, setting), rows in groups.items():
        if len(rows) < 2:
            continue
        names = sorted(rows)
        sets = [one for name in names for one in (rows[name].crossings, rows[name].reference) if one]

        def pooled(*sets: Crossings, names: Sequence[str] = names, **given: Any) -> Estimate:
            return survival.pooled_ratio(
                dict(zip(names, zip(sets[::2], sets[1::2], strict=True), strict=True)), **given
            )

        finals = [row.finals for row in rows.values() if row.finals]
        both = [{task: runs for pair in finals for task, runs in pair[side].items()} for side in (0, 1)]
        better = stats.probability_of_improvement(*both) if len(finals) == len(rows) else None
        yield Comparison(f"{algorithm.upper()}, {setting}", rows, survival.known(pooled, *sets), better)
