"""Statistics of reports: curves, aggregates with bootstrap intervals, env steps to a threshold.

Everything here is NumPy. What is random is drawn from a generator made of the `seed` argument, and runs and tasks are
sorted first, so a report is the same whenever it is made. `docs/statistics.md` has the formulas and says when to use
which. A resample draws runs (seeds), with replacement and within their task; never evaluations or episodes, which are
not independent. Shape words: `resample step run`, runs last.
"""

from __future__ import annotations

import array
import dataclasses
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
    "Crossings",
    "Curves",
    "Estimate",
    "Evaluations",
    "Scores",
    "Statistic",
    "area",
    "band",
    "crossings",
    "curves",
    "estimate",
    "final",
    "iqm",
    "kaplan_meier",
    "known",
    "mean",
    "median_steps",
    "normalise",
    "pooled_ratio",
    "probability_of_improvement",
    "profile",
    "read_evaluations",
    "steps_ratio",
]  # fmt: skip

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
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
_HALF = 0.5 + 1e-9
"""Survival that counts as one half; a product of fractions may miss it by a rounding."""


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


def _several(runs: Mapping[str, Any], resamples: int) -> None:
    if resamples < 1:
        raise Refused(f"resamples must be 1 or more, not {resamples}.")
    for task, one in runs.items():
        if len(one) < 2:
            raise Refused(f"{task!r} has one run, which says nothing on spread; an interval needs two runs or more.")


# ------------------------------------------------------------------------------------------------ curves


@dataclass(frozen=True)
class Evaluations:
    """The evaluations of one seed.

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
    """The evaluations of each seed in ascending order, of one kind of actions; the two kinds are never mixed.

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
    return {seed: Evaluations(*zip(*sorted(at.items()), strict=True)) for seed, at in sorted(found.items())}


@dataclass(frozen=True, eq=False)
class Curves:
    """Mean returns of several runs at common steps."""

    steps: NDArray[Any]
    """(step,) Env steps, increasing; or scores, in a profile."""
    values: Floats
    """(run, step) Finite everywhere."""

    def until(self, step: int) -> Curves:
        """Cut off after a step."""
        return Curves(self.steps[self.steps <= step], self.values[:, self.steps <= step])


def curves(runs: Sequence[Evaluations]) -> Curves:
    """Runs at the steps at which every one was evaluated; without a hole, and none goes beyond the shortest.

    Raises:
        Refused: There is no run or no common step.
    """
    if not runs:
        raise Refused("there is no run to draw a curve of.")
    steps = np.array(sorted(set.intersection(*(set(run.steps) for run in runs))), np.int64)
    if not steps.size:
        raise Refused("the runs share no step of evaluation.")
    return Curves(steps, np.stack([run.means[np.searchsorted(run.steps, steps)] for run in runs]))


def final(curves: Curves) -> Floats:
    """(run,) Return at the last common evaluation."""
    return curves.values[:, -1]


def area(curves: Curves) -> Floats:
    """(run,) Area under each curve over the range of steps, by trapezoids: the mean return along the way.

    Raises:
        Refused: There is one step only.
    """
    if curves.steps.size < 2:
        raise Refused("the area under a curve needs two common evaluations or more.")
    middle = (curves.values[:, 1:] + curves.values[:, :-1]) / 2
    return middle @ np.diff(curves.steps) / (curves.steps[-1] - curves.steps[0])


def normalise(scores: Scores, references: Mapping[str, tuple[Real, Real]]) -> dict[str, Floats]:
    """(score - low) / (high - low), with two reference returns a task. Nothing is clipped.

    Source: Agarwal et al. 2021, section 2.

    Raises:
        Refused: A task has no reference returns, or low is not below high.
    """
    out = {}
    for task in scores:
        if task not in references:
            known = ", ".join(sorted(references)) or "no task"
            raise Refused(f"{task!r} has no reference returns; there are some for {known}.")
        low, high = references[task]
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise Refused(f"reference returns of {task!r} must be finite, the first below the second: {low}, {high}.")
        out[task] = (_finite(scores[task], f"scores of {task!r}") - low) / (high - low)
    return out


# ------------------------------------------------------------------------------------------------ aggregates


def mean(tasks: Sequence[Floats]) -> Floats:
    """Mean over tasks of the mean over runs."""
    return np.asarray(sum(task.mean(-1) for task in tasks) / len(tasks))


def iqm(tasks: Sequence[Floats]) -> Floats:
    """Interquartile mean of all runs of all tasks together.

    Of n scores, the floor(n / 4) lowest and as many of the highest are left out; the rest count alike.

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


def _counts(rng: np.random.Generator, runs: int, resamples: int) -> Floats:
    """How often each run is drawn: (resample, run)."""
    return rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples).astype(np.float64)


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

    Raises:
        Refused: A task is empty or has one run only, or a score is not finite.
    """
    at = np.zeros(1, np.int64)
    one_step = {task: Curves(at, runs[:, None]) for task, runs in _tasks(scores).items()}
    return band(one_step, statistic, resamples=resamples, seed=seed).last


def band(tasks: Mapping[str, Curves], statistic: Statistic = iqm, *, resamples: int = 2_000, seed: int = 0) -> Band:
    """`estimate` at every step; one draw of runs serves all steps, since a run is drawn with its whole curve.

    Raises:
        Refused: Steps differ between tasks, or a task has one run only.
    """
    if not tasks:
        raise Refused("there is no task to draw a band of.")
    every = [tasks[task] for task in sorted(tasks)]
    steps = every[0].steps
    if any(not np.array_equal(one.steps, steps) for one in every):
        raise Refused("the tasks' curves stand at different steps; bring them to one grid first.")
    values = [_finite(one.values, "values of curves", 2) for one in every]
    found = statistic([one.T for one in values])
    _several(dict(zip(sorted(tasks), values, strict=True)), resamples)
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(len(one), size=(resamples, len(one))) for one in values]
    at = range(steps.size)
    samples = [statistic([one[:, i][index] for one, index in zip(values, drawn, strict=True)]) for i in at]
    return Band(steps, found, *_percentiles(np.stack(samples, axis=1)))


def profile(scores: Scores, taus: Vector, *, resamples: int = 2_000, seed: int = 0) -> Band:
    """Performance profile: at each tau the share of runs with score > tau, averaged over tasks.

    Source: Agarwal et al. 2021, section 4.2 (run-score distribution).

    Raises:
        Refused: As in `estimate`.
    """
    at = _finite(taus, "taus")
    above = {task: Curves(at, (runs[:, None] > at).astype(np.float64)) for task, runs in _tasks(scores).items()}
    return band(above, mean, resamples=resamples, seed=seed)


def probability_of_improvement(x: Scores, y: Scores, *, resamples: int = 10_000, seed: int = 0) -> Estimate:
    """P(X > Y): that a run of X beats a run of Y on the same task, ties counted half, averaged over tasks.

    It says how often, not by how much. Runs of X and Y are drawn independently. The value is U / (n m) of
    Mann and Whitney, averaged.

    Source: Agarwal et al. 2021, section 4.3.

    Raises:
        Refused: The two do not have the same tasks, or as in `estimate`.
    """
    xs, ys = _tasks(x, "scores of x"), _tasks(y, "scores of y")
    if xs.keys() != ys.keys():
        raise Refused(f"x has tasks {', '.join(xs)}, y has {', '.join(ys)}; compare on the same tasks.")
    wins = {task: (np.sign(xs[task][:, None] - ys[task][None, :]) + 1) / 2 for task in xs}
    for side in (xs, ys):
        _several(side, resamples)
    rng = np.random.default_rng(seed)
    samples = np.zeros(resamples)
    for won in wins.values():
        n, m = won.shape
        pairs = (_counts(rng, n, resamples) @ won) * _counts(rng, m, resamples)
        samples += pairs.sum(1) / (n * m * len(wins))
    return Estimate(float(np.mean([won.mean() for won in wins.values()])), *map(float, _percentiles(samples)))


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

    def arrays(self) -> tuple[Floats, Bools, Bools]:
        """Sorted, so that the order of runs changes nothing."""
        order = np.lexsort((self.early, self.reached, self.steps))
        steps, reached, early = np.array(self.steps, np.float64), np.array(self.reached), np.array(self.early)
        return steps[order], reached[order], early[order]


def crossings(runs: Sequence[Evaluations], threshold: Real) -> Crossings:
    """Env steps until each run's mean return first reaches (>=) a threshold, interpolated from the evaluation before.

    Raises:
        Refused: There is no run, or the threshold is not finite.
    """
    if not runs:
        raise Refused("there is no run that could reach a threshold.")
    if not math.isfinite(threshold):
        raise Refused(f"the threshold must be finite, not {threshold}.")
    found: list[tuple[float, bool, bool]] = []
    for run in runs:
        values, above = run.means, np.flatnonzero(run.means >= threshold)
        if not above.size:
            found.append((float(run.steps[-1]), False, False))
            continue
        at = int(above[0])
        missing = float((values[at] - threshold) / (values[at] - values[at - 1])) if at else 0.0
        step = float(run.steps[at]) - missing * (run.steps[at] - run.steps[at - 1])
        found.append((step, True, at == 0))
    return Crossings(*zip(*found, strict=True))


def kaplan_meier(steps: Floats, reached: Bools) -> tuple[Floats, Floats]:
    """Sorted steps, and the share of runs that are not there yet just after each, along the last axis.

    S(t) = product over steps t_i <= t of (1 - reached at t_i / not yet reached and still running before t_i). Tied runs
    are taken one after the other, those that reached first; the product is the same as for all at once.

    Source: Kaplan and Meier 1958.
    """
    order = np.lexsort((~reached, steps), axis=-1)
    steps, reached = np.take_along_axis(steps, order, -1), np.take_along_axis(reached, order, -1)
    at_risk = np.arange(steps.shape[-1], 0, -1)
    return steps, np.cumprod(np.where(reached, 1 - 1 / at_risk, 1.0), axis=-1, dtype=np.float64)


def _median(steps: Floats, reached: Bools, early: Bools) -> tuple[Floats, Floats]:
    """Between which bounds the median lies, along the last axis; the same number twice where it is known."""

    def falls_to_half(steps: Floats) -> Floats:
        at, alive = kaplan_meier(steps, reached)
        half = alive <= _HALF
        first = np.take_along_axis(at, half.argmax(-1)[..., None], -1)[..., 0]
        return np.asarray(np.where(half.any(-1), first, np.inf))

    high = falls_to_half(steps)
    soonest = np.where(early, 0.0, steps)
    low = falls_to_half(soonest)
    # Not reached by half: no run's number is below the step up to which it is known.
    known = np.sort(soonest, axis=-1)[..., (steps.shape[-1] - 1) // 2]
    return np.asarray(np.minimum(np.where(np.isinf(low), known, low), high)), high


def _resampled(crossings: Crossings, rng: np.random.Generator, resamples: int) -> tuple[Floats, Floats]:
    """Bounds of the median of each resample; step and censoring of a run are drawn together (Efron 1981)."""
    runs = crossings.arrays()
    index = rng.integers(runs[0].size, size=(resamples, runs[0].size))
    return _median(*(one[index] for one in runs))


def _bounded(low: Any, high: Any, lows: Floats, highs: Floats) -> Estimate:
    """Value from its bounds; the interval from below by resamples of the lower, from above by those of the upper.

    Its ends are resamples themselves, the next ones outwards: between a number and infinity nothing is interpolated.
    """
    low, high = float(low), float(high)
    tail = (1 - CONFIDENCE) / 2 * (lows.size - 1)
    ends = float(np.sort(lows)[math.floor(tail)]), float(np.sort(highs)[math.ceil(lows.size - 1 - tail)])
    if math.isfinite(high):
        return Estimate(high, *ends, "exact" if low == high else "upper bound")
    return Estimate(low, *ends, "lower bound") if low > 0 else Estimate(math.nan, *ends, "undefined")


def median_steps(crossings: Crossings, *, resamples: int = 10_000, seed: int = 0) -> Estimate:
    """Env steps by which half of the runs have reached the threshold: where the Kaplan-Meier curve falls to 1/2.

    Of an even number of runs without censoring it is the lower of the two in the middle. Where fewer than half
    reach the threshold it is a lower bound: the median of the steps up to which runs are known. Where half were above
    at their first evaluation it is an upper bound.

    Source: Kaplan and Meier 1958.

    Raises:
        Refused: There is one run only.
    """
    _several({"the set": crossings.steps}, resamples)
    return _bounded(*_median(*crossings.arrays()), *_resampled(crossings, np.random.default_rng(seed), resamples))


def _ratio_bounds(
    numerator: Crossings, denominator: Crossings, resamples: int, seed: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Bounds of a ratio, of the runs as they are and of each resample."""
    _several({"the numerator": numerator.steps, "the denominator": denominator.steps}, resamples)
    rng = np.random.default_rng(seed)
    known = _divide(_median(*numerator.arrays()), _median(*denominator.arrays()))
    return *known, *_divide(_resampled(numerator, rng, resamples), _resampled(denominator, rng, resamples))


def steps_ratio(numerator: Crossings, denominator: Crossings, *, resamples: int = 10_000, seed: int = 0) -> Estimate:
    """How many times as many env steps one algorithm needs as another: the ratio of their median steps.

    Both medians are intervals [low, high] of what is known; so is the ratio, [low / high, high / low]. If fewer
    than half of the numerator's runs reach the threshold it is a lower bound ("at least x times"); of the
    denominator's, an upper bound; of both, undefined. Runs of the two are drawn independently, and each resample
    keeps its own bounds, so the interval is no narrower than what is known.

    Raises:
        Refused: One of them has one run only.
    """
    return _bounded(*_ratio_bounds(numerator, denominator, resamples, seed))


def pooled_ratio(
    pairs: Mapping[str, tuple[Crossings, Crossings]], *, resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Interquartile mean, over tasks, of the logarithms of their `steps_ratio`, as a ratio again.

    So 2 on one task and 1/2 on another make 1. It grows with each of the ratios; bounds of theirs are therefore
    bounds of it, and a task whose ratio is not bounded may be among the quarter that is left out.

    Raises:
        Refused: There is no task, or as in `steps_ratio`.
    """
    if not pairs:
        raise Refused("there is no task to pool ratios of.")
    found = [_ratio_bounds(*pairs[task], resamples, seed + i) for i, task in enumerate(sorted(pairs))]
    with np.errstate(divide="ignore"):
        pooled = [np.exp(iqm([np.log(one)[..., None] for one in several])) for several in zip(*found, strict=True)]
    return _bounded(*pooled)


def _divide(a: tuple[Floats, Floats], b: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """Bounds of a quotient of two numbers within bounds; by zero, nothing is known."""
    low, high = np.zeros_like(a[0]), np.full_like(a[1], np.inf)
    np.divide(a[0], b[1], out=low, where=b[1] > 0)
    np.divide(a[1], b[0], out=high, where=b[0] > 0)
    return low, high


def known(statistic: Callable[..., Estimate], *sets: Crossings) -> Estimate:
    """`median_steps` or `steps_ratio`; of sets with one run the value alone, for a run counted twice has the same."""
    if min(len(one.steps) for one in sets) > 1:
        return statistic(*sets)
    twice = [Crossings(one.steps * 2, one.reached * 2, one.early * 2) for one in sets]
    return dataclasses.replace(statistic(*twice, resamples=1), low=math.nan, high=math.nan)
