"""Numbers that stand in reports: curves, aggregates with bootstrap intervals, env steps to a threshold.

Everything here is NumPy. What is random is drawn from a generator made of the `seed` argument, so a report is the
same whenever it is made; runs and tasks are sorted first where that is possible, so it does not hang on their
order either. `docs/statistics.md` has the formulas and says when to use which.

A resample always draws runs (seeds), with replacement and within their task; never evaluations or episodes, which
are not independent. Shape words: `resample step run`, runs last.
"""

from __future__ import annotations

import array
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from omad.errors import Refused

__all__ = [
    "Band",
    "Bounded",
    "Crossings",
    "Curves",
    "Estimate",
    "Evaluations",
    "Kind",
    "Profile",
    "Record",
    "Scores",
    "Statistic",
    "Survival",
    "area",
    "band",
    "crossings",
    "curves",
    "estimate",
    "final",
    "iqm",
    "marl_eval",
    "mean",
    "median_steps",
    "normalise",
    "probability_of_improvement",
    "profile",
    "read_evaluations",
    "restricted_mean_steps",
    "steps_ratio",
    "survival",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Real = float | int
"""Both written out: what checks types at run time does not take an int for a float."""
Vector = Sequence[Any] | NDArray[Any]
"""One number a run."""
Scores = Mapping[str, Vector]
"""Of one algorithm: for each task, one score a run."""
Statistic = Callable[[Sequence[Floats]], Floats]
"""What is said of an algorithm: one array (*b, run) a task -> (*b)."""
Kind = Literal["exact", "lower bound", "upper bound", "undefined"]

_HALF = 0.5 + 1e-9
"""Survival that counts as one half; a product of fractions may miss it by a rounding."""


# ------------------------------------------------------------------------------------------------ checks


def _finite(values: Any, what: str, ndim: int = 1) -> Floats:
    """As float64, or a sentence on what is wrong."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise Refused(f"{what} must be numbers in {ndim} dimension(s), one row as long as the other.") from None
    if array.ndim != ndim:
        raise Refused(f"{what} must have {ndim} dimension(s), not shape {array.shape}.")
    if array.size == 0:
        raise Refused(f"{what} are empty; at least one is needed.")
    if not np.isfinite(array).all():
        raise Refused(f"{what} have {int((~np.isfinite(array)).sum())} entries that are NaN or infinite.")
    return array


def _tasks(scores: Scores, what: str = "scores") -> dict[str, Floats]:
    """Sorted by task, and by score within each: the order of runs says nothing, so it must change nothing."""
    if not scores:
        raise Refused(f"{what} are empty; give at least one task.")
    return {task: np.sort(_finite(scores[task], f"{what} of {task!r}")) for task in sorted(scores)}


def _several(counts: Mapping[str, int]) -> None:
    for task, runs in counts.items():
        if runs < 2:
            raise Refused(f"{task!r} has one run, which says nothing on spread; an interval needs two runs or more.")


def _level(confidence: float, resamples: int) -> None:
    if not 0.0 < confidence < 1.0:
        raise Refused(f"confidence must lie between 0 and 1, not {confidence}.")
    if resamples < 1:
        raise Refused(f"resamples must be 1 or more, not {resamples}.")


# ------------------------------------------------------------------------------------------------ curves


@dataclass(frozen=True)
class Evaluations:
    """What one run's evaluations gave.

    Raises:
        Refused: Lengths differ, steps do not increase, an evaluation has no episode, or a return is not finite.
    """

    steps: tuple[int, ...]
    """Env steps of the evaluations, increasing."""
    returns: tuple[Vector, ...]
    """Returns of every episode of each; held as arrays of doubles."""

    def __post_init__(self) -> None:
        if not self.steps:
            raise Refused("a run has no evaluation; train it until the first one, or leave it out.")
        if len(self.steps) != len(self.returns):
            raise Refused(f"a run has {len(self.steps)} steps, but {len(self.returns)} lists of returns.")
        if self.steps[0] < 0 or any(b <= a for a, b in zip(self.steps, self.steps[1:], strict=False)):
            raise Refused(f"steps of a run must be 0 or more and increase, unlike {self.steps}.")
        held = []
        for step, episodes in zip(self.steps, self.returns, strict=True):
            returns = _finite(episodes, f"returns at step {step}")
            held.append(episodes if isinstance(episodes, array.array) else array.array("d", returns.tolist()))
        object.__setattr__(self, "returns", tuple(held))

    @functools.cached_property
    def means(self) -> Floats:
        """Mean return of each evaluation."""
        return np.array([np.mean(episodes) for episodes in self.returns], np.float64)


def read_evaluations(lines: Iterable[Any], actions: str = "sampled") -> dict[int, Evaluations]:
    """The evaluations of each seed, from the lines of `episodes.jsonl`.

    Args:
        lines: Records with `seed`, `step`, `actions` and `returns`, in any order.
        actions: Which kind to take, `sampled` or `noise_free`; the two are never mixed.

    Returns:
        By seed, in ascending order.

    Raises:
        Refused: There is no such line, a seed has two of one step, or a return is not finite.
    """
    found: dict[int, dict[int, Vector]] = {}
    for line in lines:
        if line.actions == actions:
            seed, step = line.seed, line.step
            if step in found.setdefault(seed, {}):
                raise Refused(f"seed {seed} has two evaluations of {actions} actions at step {step}; give one run.")
            _finite(line.returns, f"returns of seed {seed} at step {step}")
            found[seed][step] = line.returns
    if not found:
        more = " A run has them with --eval-noise-free." if actions == "noise_free" else ""
        raise Refused(f"there is no evaluation of {actions} actions.{more}")
    return {
        seed: Evaluations(tuple(sorted(at)), tuple(at[step] for step in sorted(at)))
        for seed, at in sorted(found.items())
    }


@dataclass(frozen=True, eq=False)
class Curves:
    """Mean returns of several runs at common steps."""

    steps: NDArray[np.int64]
    """(step,) Env steps, increasing."""
    values: Floats
    """(run, step) Finite everywhere."""
    ends: NDArray[np.int64]
    """(run,) Last evaluation of each run; what lies beyond the smallest of these is not in `values`."""


def curves(runs: Sequence[Evaluations], grid: Sequence[int] | None = None) -> Curves:
    """Bring runs to common steps, without a hole and without extrapolation.

    Without a grid, the steps are those at which every run was evaluated: numbers are evaluations as they are,
    and all runs end where the shortest one does (`ends` tells). With a grid, values between evaluations are
    interpolated linearly; a grid that leaves any run's range is refused.

    Raises:
        Refused: There is no run or no common step, or the grid does not increase or leaves a run's range.
    """
    if not runs:
        raise Refused("there is no run to draw a curve of.")
    ends = np.array([run.steps[-1] for run in runs], np.int64)
    if grid is None:
        steps = np.array(sorted(set.intersection(*(set(run.steps) for run in runs))), np.int64)
        if not steps.size:
            raise Refused("the runs share no step of evaluation; give a grid to interpolate on.")
    else:
        steps = np.array(grid, np.int64)
        if steps.ndim != 1 or not steps.size or (np.diff(steps) <= 0).any():
            raise Refused("the grid must be steps that increase.")
        first, last = max(run.steps[0] for run in runs), int(ends.min())
        if steps[0] < first or steps[-1] > last:
            raise Refused(
                f"the grid goes from {steps[0]} to {steps[-1]}, but only from {first} to {last} has every run "
                "evaluations; nothing is extrapolated."
            )
    values = np.stack([np.interp(steps, run.steps, run.means) for run in runs])
    return Curves(steps, values, ends)


def final(curves: Curves, last: int = 1) -> Floats:
    """Return at the end: the mean of each run's last common evaluations.

    Args:
        curves: Of several runs.
        last: How many; 1 takes the last alone, 5 is less noisy and a little early.

    Returns:
        (run,)

    Raises:
        Refused: There are fewer evaluations than that.
    """
    if not 1 <= last <= curves.steps.size:
        raise Refused(f"the mean of the last {last} evaluations needs 1 to {curves.steps.size} (all there are).")
    return curves.values[:, -last:].mean(1)


def area(curves: Curves) -> Floats:
    """Area under each curve over the range of steps, by trapezoids: the mean return along the way.

    Returns:
        (run,) In units of return.

    Raises:
        Refused: There is one step only.
    """
    if curves.steps.size < 2:
        raise Refused("the area under a curve needs two common evaluations or more.")
    width = np.diff(curves.steps)
    middle = (curves.values[:, 1:] + curves.values[:, :-1]) / 2
    return middle @ width / (curves.steps[-1] - curves.steps[0])


def normalise(scores: Scores, anchors: Mapping[str, tuple[Real, Real]]) -> dict[str, Floats]:
    """(score - low) / (high - low), with the anchors of each task: low becomes 0, high becomes 1. Nothing is clipped.

    Source: Agarwal et al. 2021, section 2.

    Raises:
        Refused: A task has no anchors, or low is not below high.
    """
    out = {}
    for task in scores:
        if task not in anchors:
            raise Refused(f"{task!r} has no anchors; there are some for {', '.join(sorted(anchors)) or 'no task'}.")
        low, high = anchors[task]
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise Refused(f"anchors of {task!r} must be finite, the first below the second, not {low} and {high}.")
        out[task] = (_finite(scores[task], f"scores of {task!r}") - low) / (high - low)
    return out


# ------------------------------------------------------------------------------------------------ aggregates


@dataclass(frozen=True)
class Estimate:
    """A number and its interval."""

    value: float
    """Of the runs as they are."""
    low: float
    high: float
    confidence: float
    """Nominal coverage of [low, high]."""
    resamples: int


def mean(tasks: Sequence[Floats]) -> Floats:
    """Mean over tasks of the mean over runs."""
    return np.asarray(sum(task.mean(-1) for task in tasks) / len(tasks))


def iqm(tasks: Sequence[Floats]) -> Floats:
    """Interquartile mean of all runs of all tasks together.

    Of n scores, the floor(n / 4) lowest and as many of the highest are left out; the rest count alike. There are no
    fractional weights: with n = 5, three scores are left, and with n < 4 it is the mean.

    Source: Agarwal et al. 2021, section 4.3; as in rliable, where it is `scipy.stats.trim_mean` with a cut of 0.25.

    Raises:
        Refused: Tasks have unequal numbers of runs; then a task with more would count for more.
    """
    counts = sorted({task.shape[-1] for task in tasks})
    if len(counts) > 1:
        raise Refused(
            f"the IQM pools all runs, so tasks need equally many; here they have {', '.join(map(str, counts))}. "
            "Train the missing runs, or take the mean."
        )
    pooled = np.sort(np.concatenate(tasks, axis=-1), axis=-1)
    n = pooled.shape[-1]
    return np.asarray(pooled[..., n // 4 : n - n // 4].mean(-1))


def _resampled(rng: np.random.Generator, runs: Floats, resamples: int) -> Floats:
    """(resample, run)."""
    return runs[rng.integers(runs.size, size=(resamples, runs.size))]


def _counts(rng: np.random.Generator, runs: int, resamples: int) -> Floats:
    """How often each run is drawn: (resample, run)."""
    return rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples).astype(np.float64)


def _percentiles(samples: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Ends of the percentile interval along the first axis."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail], axis=0)
    return np.asarray(low), np.asarray(high)


def estimate(
    scores: Scores,
    statistic: Statistic = iqm,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """A statistic of an algorithm's scores with its stratified percentile-bootstrap interval.

    Runs are drawn with replacement within each task, tasks are kept: what would another set of seeds on these very
    tasks give?

    Source: Agarwal et al. 2021, section 4.1.

    Args:
        scores: For each task, one score a run; normalised, if there are several tasks.
        statistic: `iqm`, `mean`, or a function of one array (*b, run) a task.
        confidence: Nominal coverage.
        resamples: How many.
        seed: Of the resamples.

    Raises:
        Refused: A task is empty or has one run only, or a score is not finite.
    """
    _level(confidence, resamples)
    tasks = _tasks(scores)
    value = float(statistic(list(tasks.values())))
    _several({task: runs.size for task, runs in tasks.items()})
    rng = np.random.default_rng(seed)
    samples = statistic([_resampled(rng, runs, resamples) for runs in tasks.values()])
    low, high = _percentiles(samples, confidence)
    return Estimate(value, float(low), float(high), confidence, resamples)


@dataclass(frozen=True, eq=False)
class Band:
    """A statistic at every step, with an interval at each (not for the curve as a whole)."""

    steps: NDArray[np.int64]
    value: Floats
    low: Floats
    high: Floats
    confidence: float
    resamples: int


def band(
    tasks: Mapping[str, Curves],
    statistic: Statistic = iqm,
    *,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Band:
    """`estimate` at every step; one draw of runs serves all steps, since a run is drawn with its whole curve.

    Args:
        tasks: Curves of one algorithm by task, all at the same steps.
        statistic: As in `estimate`.
        confidence: Nominal coverage at each step.
        resamples: How many.
        seed: Of the resamples.

    Raises:
        Refused: Steps differ between tasks, or a task has one run only.
    """
    _level(confidence, resamples)
    if not tasks:
        raise Refused("there is no task to draw a band of.")
    every = [tasks[task] for task in sorted(tasks)]
    if any(not np.array_equal(one.steps, every[0].steps) for one in every):
        raise Refused("the tasks' curves stand at different steps; bring them to one grid first.")
    values = [_finite(one.values, "values of curves", 2) for one in every]
    value = statistic([one.T for one in values])
    _several(dict(zip(sorted(tasks), (len(one) for one in values), strict=True)))
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(len(one), size=(resamples, len(one))) for one in values]
    samples = [
        statistic([one[:, at][index] for one, index in zip(values, drawn, strict=True)])
        for at in range(every[0].steps.size)
    ]
    low, high = _percentiles(np.stack(samples, axis=1), confidence)
    return Band(every[0].steps, value, low, high, confidence, resamples)


def probability_of_improvement(
    x: Scores, y: Scores, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """P(X > Y): that a run of X beats a run of Y on the same task, ties counted half, averaged over tasks.

    It says how often, not by how much. Runs of X and Y are drawn independently. The value is U / (n m) of
    Mann and Whitney, averaged.

    Source: Agarwal et al. 2021, section 4.3.

    Raises:
        Refused: The two do not have the same tasks, or as in `estimate`.
    """
    _level(confidence, resamples)
    xs, ys = _tasks(x, "scores of x"), _tasks(y, "scores of y")
    if xs.keys() != ys.keys():
        raise Refused(f"x has tasks {', '.join(xs)}, y has {', '.join(ys)}; compare on the same tasks.")
    wins = {task: (np.sign(xs[task][:, None] - ys[task][None, :]) + 1) / 2 for task in xs}
    value = float(np.mean([won.mean() for won in wins.values()]))
    for side in (xs, ys):
        _several({task: runs.size for task, runs in side.items()})
    rng = np.random.default_rng(seed)
    samples = np.zeros(resamples)
    for won in wins.values():
        n, m = won.shape
        pairs = (_counts(rng, n, resamples) @ won) * _counts(rng, m, resamples)
        samples += pairs.sum(1) / (n * m * len(wins))
    low, high = _percentiles(samples, confidence)
    return Estimate(value, float(low), float(high), confidence, resamples)


@dataclass(frozen=True, eq=False)
class Profile:
    """Share of runs with a score above each threshold, with an interval at each (not for the profile as a whole)."""

    taus: Floats
    share: Floats
    low: Floats
    high: Floats
    confidence: float
    resamples: int


def profile(
    scores: Scores, taus: Vector, *, confidence: float = 0.95, resamples: int = 2_000, seed: int = 0
) -> Profile:
    """Performance profile: the share of runs with score > tau, averaged over tasks.

    Source: Agarwal et al. 2021, section 4.2 (run-score distribution).

    Raises:
        Refused: As in `estimate`.
    """
    _level(confidence, resamples)
    at = _finite(taus, "taus")
    tasks = _tasks(scores)
    above = [(runs[:, None] > at[None, :]).astype(np.float64) for runs in tasks.values()]
    share = np.mean([one.mean(0) for one in above], axis=0)
    _several({task: runs.size for task, runs in tasks.items()})
    rng = np.random.default_rng(seed)
    samples = np.zeros((resamples, at.size))
    for one in above:
        samples += _counts(rng, len(one), resamples) @ one / (len(one) * len(above))
    low, high = _percentiles(samples, confidence)
    return Profile(at, share, low, high, confidence, resamples)


# ------------------------------------------------------------------------------------------------ steps to a threshold


@dataclass(frozen=True)
class Crossings:
    """When each run reached a threshold, as far as is known.

    A run that stopped because it diverged did not stop by chance: enter it as not reached at the full budget.

    Raises:
        Refused: Lengths differ, there is no run, a step is negative or not finite, or one that was early was not
            reached.
    """

    steps: tuple[Real, ...]
    """Env steps at which the threshold was reached; of runs that did not, their last evaluation."""
    reached: tuple[bool, ...]
    """False: right-censored, the true number is larger."""
    early: tuple[bool, ...] = ()
    """True: the first evaluation was above already, the true number is this or smaller. Empty: none was."""

    def __post_init__(self) -> None:
        if not self.early:
            object.__setattr__(self, "early", (False,) * len(self.steps))
        if not len(self.steps) == len(self.reached) == len(self.early):
            raise Refused(
                f"there are {len(self.steps)} steps, {len(self.reached)} entries of reached and {len(self.early)} of "
                "early; give one each a run."
            )
        if _finite(self.steps, "steps to the threshold").min() < 0:
            raise Refused("steps to the threshold must be 0 or more.")
        if any(early and not reached for early, reached in zip(self.early, self.reached, strict=True)):
            raise Refused("a run that was above the threshold early has reached it; say so in reached.")


def crossings(
    runs: Sequence[Evaluations], threshold: Real, *, interpolate: bool = True, running_max: bool = False
) -> Crossings:
    """Env steps until each run's mean return first reaches (>=) a threshold.

    Args:
        runs: Of one algorithm on one task.
        threshold: The return to reach; fix it before looking at the curves.
        interpolate: Linearly between the evaluation that reaches it and the one before; else the former's step.
        running_max: Interpolate from the best value so far rather than from the last one. Which evaluation reaches
            the threshold is the same.

    Raises:
        Refused: There is no run, or the threshold is not finite.
    """
    if not runs:
        raise Refused("there is no run that could reach a threshold.")
    if not math.isfinite(threshold):
        raise Refused(f"the threshold must be finite, not {threshold}.")
    found: list[tuple[float, bool, bool]] = []
    for run in runs:
        values = np.maximum.accumulate(run.means) if running_max else run.means
        above = np.flatnonzero(values >= threshold)
        if not above.size:
            found.append((float(run.steps[-1]), False, False))
            continue
        at = int(above[0])
        step = float(run.steps[at])
        if at and interpolate:
            missing = float((values[at] - threshold) / (values[at] - values[at - 1]))
            step -= missing * (run.steps[at] - run.steps[at - 1])
        found.append((step, True, at == 0))
    steps, reached, early = zip(*found, strict=True)
    return Crossings(steps, reached, early)


@dataclass(frozen=True, eq=False)
class Survival:
    """The Kaplan-Meier curve: the share of runs that have not reached the threshold yet."""

    steps: Floats
    """Where it falls, increasing."""
    alive: Floats
    """Its value from each of these steps on; before the first it is 1."""


def _kaplan_meier(steps: Floats, reached: Bools) -> tuple[Floats, Floats]:
    """Sorted steps and survival just after each, along the last axis.

    Tied runs are taken one after the other, those that reached first; the product is the same as for all at once.
    """
    order = np.lexsort((~reached, steps), axis=-1)
    steps, reached = np.take_along_axis(steps, order, -1), np.take_along_axis(reached, order, -1)
    at_risk = np.arange(steps.shape[-1], 0, -1)
    return steps, np.cumprod(np.where(reached, 1 - 1 / at_risk, 1.0), axis=-1, dtype=np.float64)


def survival(crossings: Crossings) -> Survival:
    """S(t) = product over steps t_i <= t of (1 - reached at t_i / not yet reached and still running before t_i).

    Source: Kaplan and Meier 1958.
    """
    steps, reached, _ = _runs(crossings)
    at, alive = _kaplan_meier(steps, reached)
    falls = np.unique(steps[reached])
    # Of tied runs, the last one's value is that after all.
    return Survival(falls, alive[np.searchsorted(at, falls, side="right") - 1])


def _runs(crossings: Crossings) -> tuple[Floats, Bools, Bools]:
    """As arrays, sorted, so that the order of runs changes nothing."""
    order = np.lexsort((crossings.early, crossings.reached, crossings.steps))
    return (
        np.array(crossings.steps, np.float64)[order],
        np.array(crossings.reached, np.bool_)[order],
        np.array(crossings.early, np.bool_)[order],
    )


def _median(steps: Floats, reached: Bools, early: Bools) -> tuple[Floats, Floats]:
    """Between which bounds the median lies, along the last axis; the same number twice where it is known."""

    def falls_to_half(steps: Floats) -> Floats:
        at, alive = _kaplan_meier(steps, reached)
        half = alive <= _HALF
        first = np.take_along_axis(at, half.argmax(-1)[..., None], -1)[..., 0]
        return np.asarray(np.where(half.any(-1), first, np.inf))

    high = falls_to_half(steps)
    soonest = np.where(early, 0.0, steps)
    low = falls_to_half(soonest)
    # Not reached by half: no run's number is below the step up to which it is known.
    known = np.sort(soonest, axis=-1)[..., (steps.shape[-1] - 1) // 2]
    return np.asarray(np.minimum(np.where(np.isinf(low), known, low), high)), high


@dataclass(frozen=True)
class Bounded:
    """A number that may be known from one side only, and its interval."""

    value: float
    """The number, or its bound; NaN if undefined."""
    kind: Kind
    """`lower bound`: it is this or larger. `upper bound`: this or smaller. `undefined`: nothing can be said.

    Between two finite bounds, the upper is given.
    """
    low: float
    """0 where no resample bounds it from below."""
    high: float
    """Infinite where it is not bounded from above."""
    confidence: float
    resamples: int


def _bounded(low: float, high: float, lows: Floats, highs: Floats, confidence: float) -> Bounded:
    """Value from its bounds; the interval from below by resamples of the lower, from above by those of the upper.

    Its ends are resamples themselves, the next ones outwards: between a number and infinity nothing is interpolated.
    """
    value, kind = _statement(low, high)
    tail = (1 - confidence) / 2 * (lows.size - 1)
    ends = np.sort(lows)[math.floor(tail)], np.sort(highs)[math.ceil(lows.size - 1 - tail)]
    return Bounded(value, kind, float(ends[0]), float(ends[1]), confidence, lows.size)


def _statement(low: float, high: float) -> tuple[float, Kind]:
    if low == high and math.isfinite(low):
        return low, "exact"
    if math.isfinite(high):
        return high, "upper bound"
    if low > 0:
        return low, "lower bound"
    return math.nan, "undefined"


def _draw(rng: np.random.Generator, runs: tuple[Floats, Bools, Bools], resamples: int) -> tuple[Floats, Bools, Bools]:
    """(resample, run) of each."""
    steps, reached, early = runs
    index = rng.integers(steps.size, size=(resamples, steps.size))
    return steps[index], reached[index], early[index]


def median_steps(crossings: Crossings, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Bounded:
    """Env steps by which half of the runs have reached the threshold: where the Kaplan-Meier curve falls to 1/2.

    Of an even number of runs without censoring it is the lower of the two in the middle. Where fewer than half
    reach the threshold it is a lower bound: the median of the steps up to which runs are known. Where half were above
    at their first evaluation it is an upper bound.

    Source: Kaplan and Meier 1958; the bootstrap of pairs (step, reached) as in Efron 1981.

    Raises:
        Refused: There is one run only.
    """
    _level(confidence, resamples)
    runs = _runs(crossings)
    _several({"the set": runs[0].size})
    low, high = _median(*runs)
    lows, highs = _median(*_draw(np.random.default_rng(seed), runs, resamples))
    return _bounded(float(low), float(high), lows, highs, confidence)


def restricted_mean_steps(
    crossings: Crossings, horizon: Real, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Mean of min(env steps to the threshold, horizon): the area under the Kaplan-Meier curve up to the horizon.

    It is defined whatever share of runs reaches the threshold. Runs that were early count with their first
    evaluation. Resamples whose last run is censored before the horizon keep their last survival up to it.

    Source: Irwin 1949; Royston and Parmar 2013.

    Args:
        crossings: Of one algorithm on one task.
        horizon: Where counting stops; the same for all that is compared, within the budget.
        confidence: Nominal coverage.
        resamples: How many.
        seed: Of the resamples.

    Raises:
        Refused: No run was followed up to the horizon, though not all reached the threshold; or there is one run.
    """
    _level(confidence, resamples)
    steps, reached, early = _runs(crossings)
    if not 0 < horizon < math.inf:
        raise Refused(f"the horizon must be a positive number of env steps, not {horizon}.")
    # Sorted by step, and of tied runs those that reached it come last.
    if not reached[-1] and horizon > steps[-1]:
        raise Refused(f"the horizon is {horizon}, but no run goes beyond {steps[-1]}; give one up to there.")
    _several({"the set": steps.size})

    def below(steps: Floats, reached: Bools) -> Floats:
        at, alive = _kaplan_meier(steps, reached)
        knots = np.minimum(at, horizon)
        stays = np.diff(knots, axis=-1, append=horizon)
        return np.asarray(knots[..., 0] + (alive * stays).sum(-1))

    drawn, ends, _ = _draw(np.random.default_rng(seed), (steps, reached, early), resamples)
    low, high = _percentiles(below(drawn, ends), confidence)
    return Estimate(float(below(steps, reached)), float(low), float(high), confidence, resamples)


def steps_ratio(
    numerator: Crossings, denominator: Crossings, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Bounded:
    """How many times as many env steps one algorithm needs as another: the ratio of their median steps.

    Both medians are intervals [low, high] of what is known; so is the ratio, [low / high, high / low]. If fewer
    than half of the numerator's runs reach the threshold it is a lower bound ("at least x times"); of the
    denominator's, an upper bound; of both, undefined. Runs of the two are drawn independently, and each resample
    keeps its own bounds, so the interval is no narrower than what is known.

    Raises:
        Refused: One of them has one run only.
    """
    _level(confidence, resamples)
    a, b = _runs(numerator), _runs(denominator)
    _several({"the numerator": a[0].size, "the denominator": b[0].size})
    rng = np.random.default_rng(seed)
    low, high = _divide(_median(*a), _median(*b))
    lows, highs = _divide(_median(*_draw(rng, a, resamples)), _median(*_draw(rng, b, resamples)))
    return _bounded(float(low), float(high), lows, highs, confidence)


def _divide(a: tuple[Floats, Floats], b: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Bounds of a quotient of two numbers within bounds; by zero, nothing is known."""
    low, high = np.zeros_like(a[0]), np.full_like(a[1], np.inf)
    np.divide(a[0], b[1], out=low, where=b[1] > 0)
    np.divide(a[1], b[0], out=high, where=b[0] > 0)
    return low, high


# ------------------------------------------------------------------------------------------------ export


@dataclass(frozen=True)
class Record:
    """All runs of one algorithm on one task."""

    environment: str
    """Family of tasks, as `mpe`."""
    task: str
    algorithm: str
    runs: tuple[Evaluations, ...]
    absolute: tuple[tuple[Real, ...], ...] = ()
    """For each run, returns of the best policy evaluated afresh. Empty: those of the last evaluation stand in."""


def marl_eval(
    records: Sequence[Record], metric: str = "return", held: Callable[[Vector], Any] = list
) -> dict[str, Any]:
    """The nested dictionary that marl-eval reads; write it with `json.dump`.

    Args:
        records: What to export.
        metric: What the returns are called.
        held: How those of an evaluation are held; lists are what `json.dump` can write, but large.

    Environment, task and metric become lower case, since marl-eval looks them up so. Runs are numbered `run_0`, ...,
    because there they must have the same names everywhere. `absolute_metrics` comes last, where it is looked for.
    Steps at which not all runs of a task were evaluated are left out.

    Source: Gorsane et al. 2022; the README of marl-eval has the format.

    Raises:
        Refused: There is no record or one appears twice; or within an environment, algorithms differ between tasks or
            numbers of runs or of evaluations differ, which marl-eval cannot read.
    """
    if not records:
        raise Refused("there is no record to export.")
    out: dict[str, Any] = {}
    named: dict[str, dict[tuple[str, str], Record]] = {}
    for record in records:
        environment, task = record.environment.lower(), record.task.lower()
        inside = named.setdefault(environment, {})
        if (task, record.algorithm) in inside:
            raise Refused(f"{record.algorithm} on {environment} {task} is there twice; join its runs to one record.")
        if not record.runs:
            raise Refused(f"{record.algorithm} on {environment} {task} has no run.")
        if record.absolute and len(record.absolute) != len(record.runs):
            raise Refused(f"{record.algorithm} on {environment} {task} has absolute returns of some runs only.")
        inside[task, record.algorithm] = record
    for environment, inside in named.items():
        tasks, algorithms = sorted({task for task, _ in inside}), sorted({name for _, name in inside})
        if len(inside) < len(tasks) * len(algorithms):
            raise Refused(f"in {environment}, not every algorithm has every task; marl-eval needs all of them.")
        shared = {
            task: sorted(set.intersection(*(set(run.steps) for a in algorithms for run in inside[task, a].runs)))
            for task in tasks
        }
        for what, numbers in (
            ("runs", {len(record.runs) for record in inside.values()}),
            ("common evaluations", {len(steps) for steps in shared.values()}),
        ):
            if len(numbers) > 1 or 0 in numbers:
                raise Refused(
                    f"in {environment}, numbers of {what} are {', '.join(map(str, sorted(numbers)))}; marl-eval "
                    "needs one number above 0 throughout."
                )
        out[environment] = {
            task: {name: _exported(inside[task, name], shared[task], metric.lower(), held) for name in algorithms}
            for task in tasks
        }
    return out


def _exported(record: Record, steps: Sequence[int], metric: str, held: Callable[[Vector], Any]) -> dict[str, Any]:
    """Runs of one record, at these steps."""
    out: dict[str, Any] = {}
    for number, run in enumerate(record.runs):
        at = dict(zip(run.steps, run.returns, strict=True))
        out[f"run_{number}"] = {
            f"step_{i}": {"step_count": step, metric: held(at[step])} for i, step in enumerate(steps)
        }
        absolute = record.absolute[number] if record.absolute else at[steps[-1]]
        _finite(absolute, f"absolute returns of run {number}")
        out[f"run_{number}"]["absolute_metrics"] = {metric: held(absolute)}
    return out
