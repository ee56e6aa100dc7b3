"""What a report says of its runs: everything is computed here, by `omad.report.stats`, and only written elsewhere.

Which runs count. A setting's curve and returns are of its finished runs if there are two or more, else of all that were
evaluated, up to the last step they share. A run that failed counts too: it keeps its last return from then on. For
env steps to a threshold every run counts: one that was stopped is censored there, one that failed at its full budget.
Returns of two algorithms are compared at the last step that both have.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omad import tasks
from omad.errors import Refused
from omad.report import stats
from omad.report.read import Gathered, refuse_mixed
from omad.report.records import Run
from omad.report.stats import Band, Bounded, Crossings, Curves, Estimate, Evaluations, Profile, Scores
from omad.report.words import number

__all__ = ["Across", "Better", "Member", "Panel", "Results", "Row", "Series", "TaskResults", "Threshold", "compute",
           "exported"]  # fmt: skip

MOST = 8
"""Curves in a picture."""
OURS = "omad"
_ORDER = (OURS, "hasac", "hatd3", "madpmd", "masdac")
_RANDOM = "uniformly random"


@dataclasses.dataclass(frozen=True)
class Member:
    """One seed of one run."""

    run: Run
    seed: int
    evaluations: Evaluations | None


@dataclasses.dataclass(frozen=True, eq=False)
class Series:
    """All runs of one algorithm on one task in one setting."""

    task: str
    algorithm: str
    setting: str
    label: str
    members: tuple[Member, ...]
    used: tuple[Member, ...]
    """Those that count for curve and returns."""
    curves: Curves | None
    """Of `used`; None if none was evaluated."""

    @property
    def config(self) -> dict[str, Any]:
        """Of the first run that has one."""
        return next(member.run.config for member in self.members if member.run.config)

    @property
    def final(self) -> NDArray[np.float64]:
        """(run,) Return at the last common evaluation."""
        return stats.final(self.curves) if self.curves is not None else np.array([])

    @property
    def area(self) -> NDArray[np.float64] | None:
        """(run,) Mean return along the way; None where there is one evaluation only."""
        return stats.area(self.curves) if self.curves is not None and self.curves.steps.size > 1 else None

    @functools.cached_property
    def band(self) -> Band | None:
        """Mean over runs with its interval; without one where there is one run only."""
        if self.curves is None:
            return None
        if len(self.curves.values) > 1:
            return stats.band({self.task: self.curves}, stats.mean)
        only = self.curves.values[0]
        return Band(self.curves.steps, only, only, only, 0.95, 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """Env steps of one series to the threshold of its task."""

    series: Series
    crossings: Crossings
    median: Bounded
    against: Series | None
    """The OMAD series it is held against; None for that one itself."""
    ratio: Bounded | None
    """Median env steps, over those of `against`."""
    reference: Crossings | None
    """Of `against`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Threshold:
    """The return to reach."""

    value: float
    rule: str
    """Where it comes from, in words."""
    rows: tuple[Row, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Better:
    """How often a run of one series is above a run of another, at a step that both have."""

    ours: Series
    other: Series
    step: int
    probability: Estimate


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """Series that are drawn together."""

    title: str
    series: tuple[Series, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class TaskResults:
    """All that is said of one task."""

    task: tasks.Task
    series: tuple[Series, ...]
    panels: tuple[Panel, ...]
    threshold: Threshold | None
    improvements: tuple[Better, ...]
    """A series of OMAD against each of the others."""


@dataclasses.dataclass(frozen=True, eq=False)
class Across:
    """All tasks together, in one setting."""

    setting: str
    tasks: tuple[str, ...]
    statistic: str
    """`IQM`, or `mean` where numbers of runs differ."""
    ends: Mapping[str, int]
    """By task: the last env step that all these algorithms have, where they are compared."""
    scores: Mapping[str, Scores]
    """By algorithm: normalised final returns."""
    finals: Mapping[str, Estimate]
    areas: Mapping[str, Estimate]
    bands: Mapping[str, Band]
    improvements: Mapping[str, Estimate]
    """OMAD over each other algorithm."""
    profiles: Mapping[str, Profile]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """All that a page says."""

    gathered: Gathered
    actions: str
    thresholds: Mapping[str, float]
    """As given by the user."""
    tasks: tuple[TaskResults, ...]
    across: tuple[Across, ...]


def _unbounded(value: float) -> Estimate:
    return Estimate(float(value), math.nan, math.nan, 0.95, 0)


def estimated(scores: Scores, statistic: stats.Statistic) -> Estimate:
    """`stats.estimate`; a task with one run has a value, and an interval of NaN."""
    if min(len(runs) for runs in scores.values()) > 1:
        return stats.estimate(scores, statistic)
    return _unbounded(float(statistic([np.asarray(scores[task], np.float64) for task in sorted(scores)])))


def _twice(crossings: Crossings) -> Crossings:
    """One run counted twice has the same median, and can be asked for it."""
    return Crossings(crossings.steps * 2, crossings.reached * 2, crossings.early * 2)


def _without_interval(bounded: Bounded) -> Bounded:
    return dataclasses.replace(bounded, low=math.nan, high=math.nan, resamples=0)


def _median(crossings: Crossings) -> Bounded:
    if len(crossings.steps) > 1:
        return stats.median_steps(crossings)
    return _without_interval(stats.median_steps(_twice(crossings), resamples=1))


def _ratio(a: Crossings, b: Crossings) -> Bounded:
    if min(len(a.steps), len(b.steps)) > 1:
        return stats.steps_ratio(a, b)
    return _without_interval(stats.steps_ratio(_twice(a), _twice(b), resamples=1))


# ------------------------------------------------------------------------------------------------ series


def _evaluations(run: Run, actions: str) -> dict[int, Evaluations]:
    if not any(line.actions == actions for line in run.episodes):
        return {}
    try:
        return stats.read_evaluations(run.episodes, actions)
    except Refused as error:
        raise Refused(f"{run.folder}: {error}") from None


def _carried_on(members: Sequence[Member]) -> list[Evaluations]:
    """Evaluations of each; those of a failed run go on with its last one as far as the others go.

    One that failed before its first evaluation has the return of random actions all along.
    """
    every = [member.evaluations for member in members if member.evaluations]
    steps = sorted({step for one in every for step in one.steps})
    floor = _floor(tasks.find(members[0].run.task)) or 0.0
    nothing = Evaluations(tuple(steps[:1]), ((floor,) * len(every[0].returns[0]),))
    out = []
    for member in members:
        known = member.evaluations or nothing
        later = [step for step in steps if step > known.steps[-1]] if member.run.state == "failed" else []
        out.append(Evaluations((*known.steps, *later), (*known.returns, *[known.returns[-1]] * len(later))))
    return out


def _floor(task: tasks.Task) -> float | None:
    """The return of random actions, where it is known."""
    return next((value for label, value, _ in task.anchors if label == _RANDOM), None)


def _counts(member: Member) -> bool:
    """Whether anything is known of its returns."""
    failed = member.run.state == "failed" and _floor(tasks.find(member.run.task)) is not None
    return failed or member.evaluations is not None


def _series(runs: Sequence[Run], actions: str) -> list[Series]:
    """In order: OMAD first, and settings as they come."""
    groups: dict[tuple[str, str, str], list[Member]] = {}
    for run in runs:
        found = _evaluations(run, actions)
        for seed in run.seeds:
            member = Member(run, seed, found.get(seed))
            groups.setdefault((run.task, run.algorithm, run.setting), []).append(member)
    several: dict[str, set[str]] = {}
    for task, _, setting in groups:
        several.setdefault(task, set()).add(setting)
    series = []
    for (task, algorithm, setting), group in groups.items():
        members = sorted(group, key=lambda member: member.seed)
        if not any(member.run.config for member in members):
            continue
        seen = [member for member in members if _counts(member)]
        seen = seen if any(member.evaluations for member in seen) else []
        ended = [member for member in seen if member.run.state in ("finished", "failed")]
        used = ended if len(ended) > 1 and any(member.evaluations for member in ended) else seen
        label = algorithm.upper() + (f", {setting}" if len(several[task]) > 1 else "")
        curves = stats.curves(_carried_on(used)) if used else None
        series.append(Series(task, algorithm, setting, label, tuple(members), tuple(used), curves))
    settings = list(dict.fromkeys(one.setting for one in series))
    return sorted(series, key=lambda one: (settings.index(one.setting), _place(one.algorithm), one.algorithm))


def _place(algorithm: str) -> int:
    return _ORDER.index(algorithm) if algorithm in _ORDER else len(_ORDER)


def _against(one: Series, series: Sequence[Series]) -> Series | None:
    """The OMAD series that another is held against: of its setting, else the one whose setting most others share."""
    ours = [other for other in series if other.algorithm == OURS]
    best = next((other for other in ours if other.setting == one.setting), None)
    if one.algorithm != OURS and best:
        return best
    shared = [sum(other.setting == mine.setting for other in series) for mine in ours]
    best = ours[int(np.argmax(shared))] if ours else None
    return None if best is one else best


def _panels(series: Sequence[Series]) -> list[Panel]:
    """At most `MOST` series each: settings that several algorithms share, then what is one algorithm's own."""
    if len(series) <= MOST:
        return [Panel("all settings", tuple(series))]
    by: dict[str, list[Series]] = {}
    for one in series:
        by.setdefault(one.setting, []).append(one)
    shared = {setting: same for setting, same in by.items() if len(same) > 1}
    panels: list[Panel] = []
    for setting, same in shared.items():
        for i in range(0, len(same), MOST):
            panels.append(Panel(f"setting {setting}", tuple(same[i : i + MOST])))
    own: dict[str, list[Series]] = {}
    for one in series:
        if one.setting not in shared:
            own.setdefault(one.algorithm, []).append(one)
    for algorithm, rest in own.items():
        reference = next((one for same in shared.values() for one in same if one.algorithm == algorithm), None)
        room = MOST - bool(reference)
        count = math.ceil(len(rest) / room)
        size = math.ceil(len(rest) / count)
        for i in range(count):
            part = rest[i * size : (i + 1) * size]
            title = f"settings of {algorithm.upper()}" + (f", {i + 1} of {count}" if count > 1 else "")
            panels.append(Panel(title, (*([reference] if reference else []), *part)))
    return panels


# ------------------------------------------------------------------------------------------------ thresholds


def _crossings(series: Series, value: float) -> Crossings | None:
    """Of every run that says something: evaluated, or failed before it was."""
    seen = [member for member in series.members if member.evaluations]
    steps, reached, early = list[float](), list[bool](), list[bool]()
    if seen:
        found = stats.crossings([member.evaluations for member in seen if member.evaluations], value)
        steps, reached, early = list(found.steps), list(found.reached), list(found.early)
        for i, member in enumerate(seen):
            if member.run.state == "failed" and not reached[i]:
                steps[i] = float(member.run.total_steps)
    for member in series.members:
        if member.run.state == "failed" and not member.evaluations and member.run.total_steps:
            steps.append(float(member.run.total_steps))
            reached.append(False)
            early.append(False)
    return Crossings(tuple(steps), tuple(reached), tuple(early)) if steps else None


def _reached(series: Sequence[Series], value: float) -> bool:
    """Whether half of OMAD's runs reach a return in each setting in which others are held against it."""
    ours = [one for one in series if one.algorithm == OURS and one.curves is not None]
    shared = [one for one in ours if any(other.setting == one.setting for other in series if other is not one)]
    found = [_crossings(one, value) for one in shared or ours]
    return bool(found) and all(one is not None and 2 * sum(one.reached) >= len(one.reached) for one in found)


def _rule(task: tasks.Task, series: Sequence[Series]) -> tuple[float, str] | None:
    """The threshold of a task where the user names none."""
    published = next((mean for label, mean, _, _ in task.published if label == OURS.upper()), None)
    if published is not None and _reached(series, published):
        return published, "the published return of OMAD, which at least half of its runs reach in every shared setting"
    floor = _floor(task)
    ends = [float(one.final.mean()) for one in series if one.curves is not None]
    if floor is None or not ends or max(ends) <= floor:
        return None
    why = (
        "too few runs reach the published return of OMAD" if published is not None else "no return of OMAD is published"
    )
    return (floor + max(ends)) / 2, (
        f"halfway between uniformly random actions ({number(floor)}) and the best final return here "
        f"({number(max(ends))}), since "
        f"{why}; so it was fixed after the runs"
    )


def _threshold(task: tasks.Task, series: Sequence[Series], given: float | None) -> Threshold | None:
    chosen = _rule(task, series) if given is None else (float(given), "given with --threshold")
    if chosen is None:
        return None
    value, rule = chosen
    crossed = {id(one): _crossings(one, value) for one in series}
    rows = []
    for one in series:
        own = crossed[id(one)]
        if own is None:
            continue
        against = _against(one, series)
        other = crossed[id(against)] if against is not None else None
        rows.append(Row(one, own, _median(own), against, _ratio(own, other) if other is not None else None, other))
    return Threshold(value, rule, tuple(rows))


# ------------------------------------------------------------------------------------------------ all


def compute(gathered: Gathered, thresholds: Mapping[str, float] | None = None, actions: str = "sampled") -> Results:
    """All numbers of a report.

    Args:
        gathered: Of `omad.report.read`.
        thresholds: Return to reach by task, where the rule is not wanted.
        actions: Which evaluations: `sampled` or `noise_free`.

    Raises:
        Refused: Runs cannot stand together, none was evaluated yet, or a threshold is of an unknown task.
    """
    runs, given = gathered.runs, dict(thresholds or {})
    evaluated = [run for run in runs if any(line.actions == actions for line in run.episodes)]
    if not evaluated:
        raise Refused(
            f"None of the {len(runs)} runs has an evaluation of {actions} actions yet; train until the first one."
        )
    refuse_mixed(runs, actions)
    names = list(dict.fromkeys(run.task for run in evaluated))
    for name in given:
        if name not in names:
            raise Refused(f"--threshold names the task {name!r}; the runs are of {', '.join(names)}.")
    series = _series(runs, actions)
    done = []
    for name in names:
        task, own = tasks.find(name), [one for one in series if one.task == name]
        drawn = [one for one in own if one.curves is not None]
        improvements = []
        for one in drawn:
            against = _against(one, own)
            if against is not None and len(one.used) > 1 and len(against.used) > 1:
                cut = _together_up_to([against, one])
                if cut is not None:
                    finals = [{name: stats.final(curves)} for curves in cut]
                    p = stats.probability_of_improvement(*finals)
                    improvements.append(Better(against, one, int(cut[0].steps[-1]), p))
        done.append(
            TaskResults(
                task, tuple(own), tuple(_panels(drawn)), _threshold(task, own, given.get(name)), tuple(improvements)
            )
        )
    return Results(gathered, actions, given, tuple(done), tuple(_across(done)))


def _anchors(task: tasks.Task) -> tuple[float, float] | None:
    """Random actions and the published OMAD, if both are known."""
    low = _floor(task)
    high = next((mean for label, mean, _, _ in task.published if label == OURS.upper()), None)
    return (low, high) if low is not None and high is not None and low < high else None


def _across(done: Sequence[TaskResults]) -> Iterable[Across]:
    """One for each setting that several tasks share, by family of tasks where a family has several."""
    known = {one.task.name: anchors for one in done if (anchors := _anchors(one.task))}
    families: dict[str, list[TaskResults]] = {}
    for one in done:
        if one.task.name in known:
            families.setdefault(one.task.name.partition("/")[0], []).append(one)
    several = [group for group in families.values() if len(group) > 1]
    if not several:
        several = [[one for one in done if one.task.name in known]]
    for group in several:
        yield from _of_family(group, known)


def _of_family(done: Sequence[TaskResults], known: Mapping[str, tuple[float, float]]) -> Iterable[Across]:
    """One for each setting in which an algorithm was run on all tasks that have the setting."""
    settings = dict.fromkeys(series.setting for one in done for series in one.series)
    for setting in settings:
        by: dict[str, dict[str, Series]] = {}
        for one in done:
            for series in one.series:
                if series.setting == setting and series.curves is not None:
                    by.setdefault(series.algorithm, {})[one.task.name] = series
        names = sorted({task for have in by.values() for task in have})
        full = {algorithm: have for algorithm, have in by.items() if len(have) == len(names)}
        if len(names) < 2 or len(full) < 1 or (len(full) == 1 and len(by) == 1 and len(settings) > 1):
            continue
        yield _together(setting, names, full, sorted(by.keys() - full.keys()), known)


def _together(
    setting: str,
    names: Sequence[str],
    full: Mapping[str, Mapping[str, Series]],
    partial: Sequence[str],
    anchors: Mapping[str, tuple[float, float]],
) -> Across:
    notes = []
    if partial:
        notes.append(f"{', '.join(name.upper() for name in partial)} left out: not run on all of these tasks.")
    equal = all(len({len(one.used) for one in have.values()}) == 1 for have in full.values())
    statistic, word = (stats.iqm, "IQM") if equal else (stats.mean, "mean")
    if not equal:
        notes.append("The mean is taken instead of the IQM, for numbers of runs differ between tasks.")
    order = sorted(full, key=lambda name: (_place(name), name))
    cut: dict[str, dict[str, Curves]] = {name: {} for name in order}
    for task in names:
        curves = _together_up_to([full[name][task] for name in order])
        if curves is None:
            notes.append(f"{task}: no step of evaluation is common to all; each algorithm is taken at its own end.")
            curves = [one for name in order if (one := full[name][task].curves) is not None]
        for name, one in zip(order, curves, strict=True):
            cut[name][task] = one
    ends = {task: min(int(cut[name][task].steps[-1]) for name in order) for task in names}
    scores = {name: stats.normalise({t: stats.final(one) for t, one in cut[name].items()}, anchors) for name in order}
    areas = {
        name: estimated(stats.normalise({task: stats.area(one) for task, one in have.items()}, anchors), statistic)
        for name, have in cut.items()
        if all(one.steps.size > 1 for one in have.values())
    }
    lengths = {len(one.used) for have in full.values() for one in have.values()}
    several = min(lengths) > 1
    taus = np.linspace(*_ends(scores), 101)
    return Across(
        setting=setting,
        tasks=tuple(names),
        statistic=word,
        ends=ends,
        scores=scores,
        finals={name: estimated(scores[name], statistic) for name in order},
        areas=areas,
        bands={name: found for name in order if (found := _band(full[name], anchors, statistic))} if several else {},
        improvements={
            name: stats.probability_of_improvement(scores[OURS], scores[name])
            for name in order
            if several and OURS in scores and name != OURS
        },
        profiles={name: stats.profile(scores[name], taus) for name in order} if several else {},
        notes=tuple(notes),
    )


def _together_up_to(several: Sequence[Series]) -> list[Curves] | None:
    """Curves of several series, each cut off after the last step that all have; None if there is none."""
    curves = [one.curves for one in several if one.curves is not None]
    shared = set.intersection(*(set(one.steps.tolist()) for one in curves))
    if not shared or len(curves) < len(several):
        return None
    kept = [one.steps <= max(shared) for one in curves]
    return [
        dataclasses.replace(one, steps=one.steps[keep], values=one.values[:, keep])
        for one, keep in zip(curves, kept, strict=True)
    ]


def _ends(scores: Mapping[str, Scores]) -> tuple[float, float]:
    """Round numbers around all scores."""
    every = np.concatenate([np.asarray(runs) for by in scores.values() for runs in by.values()])
    return math.floor(min(every.min(), 0.0) * 10) / 10, math.ceil(max(every.max(), 1.0) * 10) / 10


def _band(
    have: Mapping[str, Series], anchors: Mapping[str, tuple[float, float]], statistic: stats.Statistic
) -> Band | None:
    """Normalised curve of one algorithm over the steps that all its tasks share."""
    curves = {task: one.curves for task, one in have.items() if one.curves is not None}
    shared = sorted(set.intersection(*(set(one.steps.tolist()) for one in curves.values())))
    if len(shared) < 2:
        first = max(int(one.steps[0]) for one in curves.values())
        last = min(int(one.steps[-1]) for one in curves.values())
        if last <= first:
            return None
        shared = sorted({int(step) for step in np.linspace(first, last, 20)})
    normal = {}
    for task, one in curves.items():
        low, high = anchors[task]
        values = np.stack([np.interp(shared, one.steps, run) for run in one.values])
        normal[task] = Curves(np.array(shared, np.int64), (values - low) / (high - low), one.ends)
    return stats.band(normal, statistic)


def _as_is(returns: stats.Vector) -> stats.Vector:
    return returns


def exported(results: Results) -> tuple[dict[str, object], list[str]]:
    """The marl-eval dictionary with arrays of returns, and what had to be left out or changed for it, in words."""

    def record(one: Series, environment: str) -> stats.Record:
        return stats.Record(environment, one.task, f"{one.algorithm}, {one.setting}", tuple(_carried_on(one.used)))

    families: dict[str, list[TaskResults]] = {}
    for one in results.tasks:
        families.setdefault(one.task.name.partition("/")[0], []).append(one)
    out, notes = dict[str, object](), list[str]()
    for family, members in families.items():
        drawn = [one for each in members for one in each.series if one.curves is not None]
        try:
            out |= stats.marl_eval([record(one, family) for one in drawn], held=_as_is)
            continue
        except Refused:
            notes.append(
                f"{family}: each task is an environment of its own, for runs, evaluations or algorithms differ."
            )
        for each in members:
            own = [one for one in each.series if one.curves is not None]
            counts = [len(one.used) for one in own]
            usual = max(counts, key=lambda count: (counts.count(count), count))
            kept = [one for one in own if len(one.used) == usual]
            gone = [one.label for one in own if len(one.used) != usual]
            if gone:
                notes.append(f"{each.task.name}: left out {'; '.join(gone)}, with another number of runs than {usual}.")
            try:
                out |= stats.marl_eval([record(one, each.task.name) for one in kept], held=_as_is)
            except Refused as error:
                notes.append(f"{each.task.name} is left out: {error}")
    return out, notes
