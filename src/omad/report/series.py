"""What a report says of one task: its series of runs, how each compares with the baseline, the return to reach.

Which runs count. A setting's curve and returns are of its ended runs if these are two or more and one has not
diverged, else of all that were evaluated, up to the last step they share. Ended are those that finished, diverged, or
were stopped for their returns, all seeds of a run together; of the last two, a seed keeps its last return from then
on. For env steps to a threshold every run counts: one that was stopped is censored there, one that diverged or rose
no more at its full budget.
Returns of two algorithms are compared at the last step that both have.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omad import tasks
from omad.errors import UserError
from omad.report import stats, survival
from omad.report.format import number
from omad.report.records import Options, Run
from omad.report.stats import Band, Curves, Estimate, Evaluations, Scores
from omad.report.survival import Crossings

MOST = 8
"""Curves in a picture."""
_RANDOM = "uniformly random"


@dataclasses.dataclass(frozen=True)
class Member:
    """One seed of one run."""

    run: Run
    seed: int
    evaluations: Evaluations | None

    @property
    def state(self) -> str:
        """Of this seed: where others of its run have diverged, it was stopped by that."""
        others = self.run.state == "diverged" and self.run.diverged and self.seed not in self.run.diverged
        return "stopped" if others else self.run.state

    @property
    def decided(self) -> bool:
        """Whether it ended before its budget did, and that for how it learned."""
        return self.state == "diverged" or self.run.judged != ""

    @property
    def hopeless(self) -> bool:
        """Whether it is taken to reach nothing more than it has."""
        return self.state == "diverged" or self.run.judged == "plateau"


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
    evaluations: tuple[Evaluations, ...]
    """Of `used`, with diverged runs carried on."""

    @functools.cached_property
    def curves(self) -> Curves | None:
        """None if no run was evaluated, or there is no env step at which all were."""
        shared = [set(one.steps) for one in self.evaluations]
        return stats.curves(self.evaluations) if shared and set.intersection(*shared) else None

    @property
    def config(self) -> dict[str, Any]:
        """Of the first run that has one."""
        return next(member.run.config for member in self.members if member.run.config)

    @property
    def update_ratio(self) -> str:
        """Gradient steps per env step."""
        return f"{self.config['updates_per_step'] / self.config['n_envs']:g}"

    @property
    def final(self) -> NDArray[np.float64]:
        """(run,) Return at the last common evaluation."""
        return stats.final(self.curves) if self.curves is not None else np.array([])

    @functools.cached_property
    def end(self) -> Estimate:
        """Mean over runs of `final`."""
        return estimated({self.task: self.final})

    @functools.cached_property
    def along(self) -> Estimate | None:
        """Mean over runs of the area under their curves; None where there is one evaluation only."""
        one = self.curves
        return estimated({self.task: stats.area(one)}) if one is not None and one.steps.size > 1 else None

    @functools.cached_property
    def band(self) -> Band | None:
        """Mean over runs with its interval; with one of NaN where there is one run only."""
        if self.curves is None:
            return None
        if len(self.curves.values) > 1:
            return stats.band({self.task: self.curves}, stats.mean)
        only = self.curves.values[0]
        return Band(self.curves.steps, only, only * math.nan, only * math.nan)


class Panel(NamedTuple):
    """Series that are drawn together."""

    title: str
    series: tuple[Series, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One series compared with that of the baseline."""

    series: Series
    baseline: Series | None
    """None for the one that others are compared with."""
    crossings: Crossings | None
    """Of the threshold of the task; None where there is none, or nothing is known."""
    reference: Crossings | None
    """Of the baseline."""
    step: int
    """The last env step at which both were evaluated; 0 if there is none, or one has a single run."""
    finals: tuple[Scores, Scores] | None
    """Returns there, of the baseline and of this one, by task."""

    @functools.cached_property
    def median(self) -> Estimate | None:
        """Env steps to the threshold."""
        return survival.known(survival.median_steps, self.crossings) if self.crossings else None

    @functools.cached_property
    def ratio(self) -> Estimate | None:
        """`median`, over that of the baseline."""
        if self.crossings is None or self.reference is None:
            return None
        return survival.known(survival.steps_ratio, self.crossings, self.reference)

    @functools.cached_property
    def better(self) -> Estimate | None:
        """How often a run of the baseline is above one of this series."""
        return stats.probability_of_improvement(*self.finals) if self.finals else None


@dataclasses.dataclass(frozen=True, eq=False)
class TaskResults:
    """All that is said of one task."""

    task: tasks.Task
    series: tuple[Series, ...]
    panels: tuple[Panel, ...]
    threshold: float | None
    """The return to reach."""
    rule: str
    """Where it comes from, in words."""
    rows: tuple[Row, ...]


def estimated(scores: Scores, statistic: stats.Statistic = stats.mean) -> Estimate:
    """`stats.estimate`; a task with one run has a value, and an interval of NaN."""
    if min(len(runs) for runs in scores.values()) > 1:
        return stats.estimate(scores, statistic)
    return Estimate(float(statistic([np.asarray(scores[task], np.float64) for task in sorted(scores)])))


# ------------------------------------------------------------------------------------------------ series


def _evaluations(run: Run, actions: str) -> dict[int, Evaluations]:
    """Of each seed, of one kind of actions; the two kinds are never mixed."""
    found: dict[int, dict[int, Any]] = {}
    for line in run.episodes:
        if line.actions == actions:
            found.setdefault(line.seed, {})[line.step] = line.returns
    return {seed: Evaluations(*zip(*sorted(at.items()), strict=True)) for seed, at in found.items()}


def _carried_on(members: Sequence[Member], floor: float | None, grid: Sequence[int]) -> Iterator[Evaluations]:
    """Evaluations of each; of `decided` ones they go on with the last one, as far as others of the task go.

    One that diverged before its first evaluation has the return of random actions all along.
    """
    every = [member.evaluations for member in members if member.evaluations]
    for member in members:
        known = member.evaluations or Evaluations(tuple(grid[:1]), ((floor or 0.0,) * len(every[0].returns[0]),))
        ends = member.run.total_steps if member.decided else 0
        later = [step for step in grid if known.steps[-1] < step <= ends]
        yield Evaluations((*known.steps, *later), (*known.returns, *[known.returns[-1]] * len(later)))


def task_of(name: str) -> tasks.Task:
    """A task; of one that is not known here, as one that was registered elsewhere, only the name."""
    try:
        return tasks.find(name)
    except UserError:
        return tasks.Task(name, "", (), (), 0, 0, "", {})


def floor_of(task: tasks.Task) -> float | None:
    """The return of random actions, where it is known."""
    return next((value for label, value, _ in task.references if label == _RANDOM), None)


def published_of(task: tasks.Task, baseline: str) -> float | None:
    """The return published for the baseline, where there is one."""
    return next((mean for label, mean, *_ in task.published if label.split()[0] == baseline.upper()), None)


def all_series(runs: Sequence[Run], actions: str, baseline: str) -> list[Series]:
    """By setting as they come, the baseline first in each."""
    groups: dict[tuple[str, str, str], list[Member]] = {}
    for run in runs:
        found = _evaluations(run, actions)
        group = groups.setdefault((run.task, run.algorithm, run.setting), [])
        group += [Member(run, seed, found.get(seed)) for seed in run.seeds]
    grids: dict[str, set[int]] = {}
    for (task, *_), group in groups.items():
        grids.setdefault(task, set()).update(step for one in group if one.evaluations for step in one.evaluations.steps)
    series = []
    for (task, algorithm, setting), group in groups.items():
        members = sorted(group, key=lambda member: member.seed)
        if not any(member.run.config for member in members):
            continue
        floor = floor_of(task_of(task))
        seen = [m for m in members if m.evaluations or (m.state == "diverged" and floor is not None)]
        seen = seen if any(member.evaluations for member in seen) else []
        ended = [m for m in seen if m.run.state in ("finished", "diverged") or m.run.judged]
        whole = any(member.run.state != "diverged" for member in ended)
        used = ended if whole and len(ended) > 1 and any(member.evaluations for member in ended) else seen
        several = len({other for name, _, other in groups if name == task}) > 1
        label = algorithm.upper() + (f", {setting}" if several else "")
        evaluations = tuple(_carried_on(used, floor, sorted(grids[task])))
        series.append(Series(task, algorithm, setting, label, tuple(members), tuple(used), evaluations))
    settings = list(dict.fromkeys(one.setting for one in series))
    return sorted(series, key=lambda one: (settings.index(one.setting), one.algorithm != baseline, one.algorithm))


def _baseline_of(one: Series, series: Sequence[Series], baseline: str) -> Series | None:
    """What another is compared with: the baseline in its setting, else in the setting that most others share."""
    ours = [other for other in series if other.algorithm == baseline]
    best = next((other for other in ours if other.setting == one.setting), None)
    if one.algorithm == baseline or not best:
        best = max(ours, key=lambda mine: sum(other.setting == mine.setting for other in series), default=None)
    return None if best is one else best


def _panels(series: Sequence[Series]) -> Iterator[Panel]:
    """At most `MOST` series each: settings that several algorithms share, then what is one algorithm's own."""
    if len(series) <= MOST:
        yield Panel("all settings", tuple(series))
        return
    shared: dict[str, list[Series]] = {}
    own: dict[str, list[Series]] = {}
    for one in series:
        several = sum(other.setting == one.setting for other in series) > 1
        (shared.setdefault(one.setting, []) if several else own.setdefault(one.algorithm, [])).append(one)
    for setting, same in shared.items():
        for i in range(0, len(same), MOST):
            yield Panel(f"setting {setting}", tuple(same[i : i + MOST]))
    for algorithm, rest in own.items():
        reference = [one for same in shared.values() for one in same if one.algorithm == algorithm][:1]
        count = math.ceil(len(rest) / (MOST - len(reference)))
        size = math.ceil(len(rest) / count)
        for i in range(count):
            title = f"settings of {algorithm.upper()}" + (f", {i + 1} of {count}" if count > 1 else "")
            yield Panel(title, (*reference, *rest[i * size : (i + 1) * size]))


# ------------------------------------------------------------------------------------------------ comparisons


def _crossings(series: Series, value: float) -> Crossings | None:
    """Of every run that says something: evaluated, or diverged before it was."""
    seen = [member for member in series.members if member.evaluations]
    found = survival.crossings([m.evaluations for m in seen if m.evaluations], value) if seen else None
    runs = list(zip(seen, found.steps, found.reached, found.early, strict=True)) if found else []
    runs += [(m, 0.0, False, False) for m in series.members if not m.evaluations and m.state == "diverged"]
    rows = [
        (float(m.run.total_steps) if m.hopeless and not reached else step, reached, early)
        for m, step, reached, early in runs
        if m.evaluations or m.run.total_steps
    ]
    return Crossings(*zip(*rows, strict=True)) if rows else None


def _reached(series: Sequence[Series], value: float, baseline: str) -> bool:
    """Whether most of the baseline's runs reach a return in each setting in which others are compared with it."""
    ours = [one for one in series if one.algorithm == baseline and one.curves is not None]
    shared = [one for one in ours if any(other.setting == one.setting for other in series if other is not one)]
    found = [_crossings(one, value) for one in shared or ours]
    return bool(found) and all(one is not None and 2 * sum(one.reached) > len(one.reached) for one in found)


def _threshold(task: tasks.Task, series: Sequence[Series], options: Options) -> tuple[float | None, str]:
    """The return to reach, and where it comes from."""
    for given, words in (
        (options.thresholds, "given with --threshold"),
        (options.study_thresholds, "fixed in the study"),
    ):
        if task.name in given:
            return float(given[task.name]), words
    name, published, floor = options.baseline.upper(), published_of(task, options.baseline), floor_of(task)
    if published is not None and _reached(series, published, options.baseline):
        reach = "which more than half of its runs reach in every shared setting"
        return published, f"the published return of {name}, {reach}"
    best = max((float(one.final.mean()) for one in series if one.curves is not None), default=-math.inf)
    if floor is None or best <= floor:
        return None, ""
    ours = any(one.algorithm == options.baseline for one in series)
    few = f"too few runs reach the published return of {name}" if ours else f"there is no run of {name}"
    why = f"no return of {name} is published" if published is None else few
    return (floor + best) / 2, (
        f"halfway between uniformly random actions ({number(floor)}) and the best final return here "
        f"({number(best)}), since {why}; so it was fixed after the runs"
    )


def _rows(series: Sequence[Series], threshold: float | None, baseline: str) -> Iterator[Row]:
    crossed = {id(one): None if threshold is None else _crossings(one, threshold) for one in series}
    for one in series:
        other = _baseline_of(one, series, baseline)
        step, finals = 0, None
        if other and len(one.used) > 1 and len(other.used) > 1 and (cut := over_one_range([other, one])):
            step, finals = int(cut[0].steps[-1]), ({one.task: stats.final(cut[0])}, {one.task: stats.final(cut[1])})
        yield Row(one, other, crossed[id(one)], crossed[id(other)] if other else None, step, finals)


def over_one_range(several: Sequence[Series]) -> list[Curves] | None:
    """Curves of several series, each from the first to the last step that all have; None if there is none."""
    curves = [one.curves for one in several if one.curves is not None]
    if len(curves) < len(several):
        return None
    shared = set.intersection(*(set(one.steps.tolist()) for one in curves))
    return [one.between(min(shared), max(shared)) for one in curves] if shared else None


def task_results(task: tasks.Task, series: Sequence[Series], options: Options) -> TaskResults:
    """All that is said of one task."""
    value, rule = _threshold(task, series, options)
    panels = _panels([one for one in series if one.curves is not None])
    return TaskResults(task, tuple(series), tuple(panels), value, rule, tuple(_rows(series, value, options.baseline)))
