"""Statistics of reports: curves, and aggregates with their intervals; `omad.report.survival` has the rest.

Everything here is NumPy. What is random is drawn from a generator made of the `seed` argument, and runs and tasks are
sorted first, so a report is the same whenever it is made. `docs/statistics.md` has the formulas and says when to use
which. A resample draws runs (seeds), with replacement and within their task; never evaluations or episodes, which are
not independent. What cannot be computed is refused (`omad.errors.UserError`) with a sentence. Shape words:
`resample step run`, runs last.
"""

from __future__ import annotations

import array
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from omad.errors import UserError

Floats = NDArray[np.float64]
Real = float | int
"""Both written out: what checks types at run time does not take an int for a float."""
Vector = Sequence[Any] | NDArray[Any]
"""One number a run."""
Scores = Mapping[str, Vector]
"""Of one algorithm: for each task, one score a run."""
Statistic = Callable[[Sequence[Floats]], Floats]
"""One array (*b, run) a task -> (*b)."""

CONFIDENCE = 0.95
"""Nominal coverage of every interval."""


@dataclass(frozen=True)
class Estimate:
    """A number, of the runs as they are, and its interval; NaN where there is none."""

    value: float
    """The number, or its bound; NaN if undefined."""
    low: float = math.nan
    high: float = math.nan
    kind: Literal["exact", "lower bound", "upper bound", "undefined"] = "exact"
    """`lower bound`: it is this or larger. `upper bound`: this or smaller (also between two finite bounds).
    `undefined`: nothing can be said."""


@dataclass(frozen=True, eq=False)
class Band:
    """An estimate at every step, or every score, with an interval at each (not for the curve as a whole)."""

    at: NDArray[Any]
    value: Floats
    low: Floats
    high: Floats

    @property
    def last(self) -> Estimate:
        """At the end."""
        return Estimate(float(self.value[-1]), float(self.low[-1]), float(self.high[-1]))


def checked(values: Any, what: str, ndim: int = 1) -> Floats:
    """As float64, or a sentence on what is wrong."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{what} must be numbers in {ndim} dimension(s), one row as long as the other.") from None
    if array.ndim != ndim:
        raise UserError(f"{what} must have {ndim} dimension(s), not shape {array.shape}.")
    if array.size == 0:
        raise UserError(f"{what} are empty; at least one is needed.")
    if not np.isfinite(array).all():
        raise UserError(f"{what} have {int((~np.isfinite(array)).sum())} entries that are NaN or infinite.")
    return array


def _tasks(scores: Scores, what: str = "scores") -> dict[str, Floats]:
    """Sorted by task, and by score within each: the order of runs says nothing, so it must change nothing."""
    if not scores:
        raise UserError(f"{what} are empty; give at least one task.")
    return {task: np.sort(checked(scores[task], f"{what} of {task!r}")) for task in sorted(scores)}


def two_runs(runs: Mapping[str, Any], resamples: int = 1) -> None:
    """Refuse runs of a task, by its name, from which no interval can be had.

    Raises:
        UserError: A task has one run only, or there are no resamples.
    """
    if resamples < 1:
        raise UserError(f"resamples must be 1 or more, not {resamples}.")
    for task, one in runs.items():
        if len(one) < 2:
            raise UserError(f"{task!r} has one run, which says nothing on spread; an interval needs two runs or more.")


# ------------------------------------------------------------------------------------------------ curves


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of one seed."""

    steps: tuple[int, ...]
    """Env steps of the evaluations, increasing."""
    returns: tuple[Vector, ...]
    """Returns of every episode of each; held as arrays of doubles."""

    def __post_init__(self) -> None:
        if not self.steps:
            raise UserError("a run has no evaluation; train it until the first one, or leave it out.")
        if len(self.steps) != len(self.returns):
            raise UserError(f"a run has {len(self.steps)} steps, but {len(self.returns)} lists of returns.")
        if self.steps[0] < 0 or any(b <= a for a, b in zip(self.steps, self.steps[1:], strict=False)):
            raise UserError(f"steps of a run must be 0 or more and increase, unlike {self.steps}.")
        held = []
        for step, episodes in zip(self.steps, self.returns, strict=True):
            returns = checked(episodes, f"returns at step {step}")
            held.append(episodes if isinstance(episodes, array.array) else array.array("d", returns.tolist()))
        object.__setattr__(self, "returns", tuple(held))

    @functools.cached_property
    def means(self) -> Floats:
        """Mean return of each evaluation."""
        return np.array([np.mean(episodes) for episodes in self.returns], np.float64)


@dataclass(frozen=True, eq=False)
class Curves:
    """Mean returns of several runs at common steps."""

    steps: NDArray[Any]
    """(step,) Env steps, increasing; or scores, in a profile."""
    values: Floats
    """(run, step) Finite everywhere."""

    def between(self, first: int, last: int) -> Curves:
        """From one step to another, both included."""
        kept = (first <= self.steps) & (self.steps <= last)
        return Curves(self.steps[kept], self.values[:, kept])


def curves(runs: Sequence[Evaluations]) -> Curves:
    """Runs at the steps at which every one was evaluated; without a hole, and none goes beyond the shortest."""
    if not runs:
        raise UserError("there is no run to draw a curve of.")
    steps = np.array(sorted(set.intersection(*(set(run.steps) for run in runs))), np.int64)
    if not steps.size:
        raise UserError("the runs share no step of evaluation.")
    return Curves(steps, np.stack([run.means[np.searchsorted(run.steps, steps)] for run in runs]))


def final(curves: Curves) -> Floats:
    """(run,) Return at the last common evaluation."""
    return curves.values[:, -1]


def area(curves: Curves) -> Floats:
    """(run,) Area under each curve over the range of steps, by trapezoids: the mean return along the way."""
    if curves.steps.size < 2:
        raise UserError("the area under a curve needs two common evaluations or more.")
    middle = (curves.values[:, 1:] + curves.values[:, :-1]) / 2
    return middle @ np.diff(curves.steps) / (curves.steps[-1] - curves.steps[0])


def normalise(scores: Scores, references: Mapping[str, tuple[Real, Real]]) -> dict[str, Floats]:
    """(score - low) / (high - low), with two reference returns a task. Nothing is clipped.

    Source: Agarwal et al. 2021, section 2.
    """
    out = {}
    for task in scores:
        if task not in references:
            known = ", ".join(sorted(references)) or "no task"
            raise UserError(f"{task!r} has no reference returns; there are some for {known}.")
        low, high = references[task]
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UserError(f"reference returns of {task!r} must be finite, the first below the second: {low}, {high}.")
        out[task] = (checked(scores[task], f"scores of {task!r}") - low) / (high - low)
    return out


# ------------------------------------------------------------------------------------------------ aggregates


def mean(tasks: Sequence[Floats]) -> Floats:
    """Mean over tasks of the mean over runs."""
    return np.asarray(sum(task.mean(-1) for task in tasks) / len(tasks))


def iqm(tasks: Sequence[Floats]) -> Floats:
    """Interquartile mean of all runs of all tasks together.

    Of n scores, the floor(n / 4) lowest and as many of the highest are left out; the rest count alike.

    Source: Agarwal et al. 2021, section 4.3; as in rliable, where it is `scipy.stats.trim_mean` with a cut of 0.25.
    """
    counts = sorted({task.shape[-1] for task in tasks})
    if len(counts) > 1:
        raise UserError(
            f"the IQM pools all runs, so tasks need equally many; here they have {', '.join(map(str, counts))}. "
            "Train the missing runs, or take the mean."
        )
    pooled = np.sort(np.concatenate(tasks, axis=-1), axis=-1)
    n = pooled.shape[-1]
    return np.asarray(pooled[..., n // 4 : n - n // 4].mean(-1))


def _percentiles(samples: Floats) -> tuple[Any, Any]:
    """Ends of the percentile interval along the first axis."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(samples, [tail, 1 - tail], axis=0)
    return low, high


def estimate(scores: Scores, statistic: Statistic = iqm, *, resamples: int = 10_000, seed: int = 0) -> Estimate:
    """A statistic of an algorithm's scores with its stratified percentile-bootstrap interval.

    Runs are drawn with replacement within each task, tasks are kept: what would another set of seeds on these very
    tasks give?

    Source: Agarwal et al. 2021, section 4.1.
    """
    at = np.zeros(1, np.int64)
    one_step = {task: Curves(at, runs[:, None]) for task, runs in _tasks(scores).items()}
    return band(one_step, statistic, resamples=resamples, seed=seed).last


def band(tasks: Mapping[str, Curves], statistic: Statistic = iqm, *, resamples: int = 2_000, seed: int = 0) -> Band:
    """`estimate` at every step; one draw of runs serves all steps, since a run is drawn with its whole curve."""
    if not tasks:
        raise UserError("there is no task to draw a band of.")
    every = [tasks[task] for task in sorted(tasks)]
    steps = every[0].steps
    if any(not np.array_equal(one.steps, steps) for one in every):
        raise UserError("the tasks' curves stand at different steps; bring them to one grid first.")
    values = [checked(one.values, "values of curves", 2) for one in every]
    found = statistic([one.T for one in values])
    two_runs(dict(zip(sorted(tasks), values, strict=True)), resamples)
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(len(one), size=(resamples, len(one))) for one in values]
    at = range(steps.size)
    samples = [statistic([one[:, i][index] for one, index in zip(values, drawn, strict=True)]) for i in at]
    return Band(steps, found, *_percentiles(np.stack(samples, axis=1)))


def profile(scores: Scores, taus: Vector, *, resamples: int = 2_000, seed: int = 0) -> Band:
    """Performance profile: at each tau the share of runs with score > tau, averaged over tasks.

    Source: Agarwal et al. 2021, section 4.2 (run-score distribution).
    """
    at = checked(taus, "taus")
    above = {task: Curves(at, (runs[:, None] > at).astype(np.float64)) for task, runs in _tasks(scores).items()}
    return band(above, mean, resamples=resamples, seed=seed)


def probability_of_improvement(x: Scores, y: Scores) -> Estimate:
    """P(X > Y): that a run of X beats a run of Y on the same task, ties counted half, averaged over tasks.

    It says how often, not by how much. The value is U / (n m) of Mann and Whitney, averaged. The interval of a task is
    Newcombe's: all values whose standard error, at that value, reaches the one that was found. A bootstrap over runs
    has none where all runs of X beat all of Y, however few they are. Intervals of tasks are joined by their squares.

    Source: Agarwal et al. 2021, section 4.3; Newcombe 2006, "Confidence intervals for an effect size measure based on
    the Mann-Whitney statistic. Part 2", method 5; Zou and Donner 2008 for the mean of several.
    """
    xs, ys = _tasks(x, "scores of x"), _tasks(y, "scores of y")
    if xs.keys() != ys.keys():
        raise UserError(f"x has tasks {', '.join(xs)}, y has {', '.join(ys)}; compare on the same tasks.")
    for side in (xs, ys):
        two_runs(side)
    found = [_one_task(xs[task], ys[task]) for task in xs]
    value, low, high = (float(np.mean(each)) for each in zip(*found, strict=True))
    if len(found) > 1:
        low = value - math.hypot(*(value - low for value, low, _ in found)) / len(found)
        high = value + math.hypot(*(high - value for value, _, high in found)) / len(found)
    return Estimate(value, max(low, 0.0), min(high, 1.0))


def _one_task(x: Floats, y: Floats) -> tuple[float, float, float]:
    """P(X > Y) on one task, and the ends of its interval."""
    value = float(np.mean((np.sign(x[:, None] - y[None, :]) + 1) / 2))
    z, more = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), (x.size + y.size) / 2 - 1

    def end(outer: float) -> float:
        """Where the distance to the value is z standard errors, between it and 0 or 1, by halving."""
        inner = value
        for _ in range(60):
            middle = (inner + outer) / 2
            spread = 1 + more * (1 - middle) / (2 - middle) + more * middle / (1 + middle)
            if (value - middle) ** 2 > z * z * middle * (1 - middle) * spread / (x.size * y.size):
                outer = middle
            else:
                inner = middle
        return outer

    return value, end(0.0), end(1.0)
