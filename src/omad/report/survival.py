"""Env steps until a return is reached, which some runs never do: medians of Kaplan and Meier, and their ratios."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omad.errors import UserError
from omad.report.stats import CONFIDENCE, Estimate, Evaluations, Floats, Real, checked, iqm, two_runs

Bools = NDArray[np.bool_]
_ROUNDING = 1e-9
"""By which a product of fractions may miss one half."""


@dataclass(frozen=True)
class Crossings:
    """When each run reached a threshold, as far as is known.

    A run that stopped because it diverged did not stop by chance: enter it as not reached at the full budget.
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
            raise UserError(
                f"there are {len(self.steps)} steps, {len(self.reached)} entries of reached and {len(self.early)} of "
                "early; give one each a run."
            )
        if checked(self.steps, "steps to the threshold").min() < 0:
            raise UserError("steps to the threshold must be 0 or more.")
        if any(early and not reached for early, reached in zip(self.early, self.reached, strict=True)):
            raise UserError("a run that was above the threshold early has reached it; say so in reached.")

    def arrays(self) -> tuple[Floats, Bools, Bools]:
        """Sorted, so that the order of runs changes nothing."""
        order = np.lexsort((self.early, self.reached, self.steps))
        steps, reached, early = np.array(self.steps, np.float64), np.array(self.reached), np.array(self.early)
        return steps[order], reached[order], early[order]


def crossings(runs: Sequence[Evaluations], threshold: Real) -> Crossings:
    """Env steps until each run's mean return first is >= a threshold, interpolated from the evaluation before."""
    if not runs:
        raise UserError("there is no run that could reach a threshold.")
    if not math.isfinite(threshold):
        raise UserError(f"the threshold must be finite, not {threshold}.")
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

    def first(at: Floats, holds: Bools) -> Floats:
        """The first step at which something holds; infinite where it never does."""
        found = np.take_along_axis(at, holds.argmax(-1)[..., None], -1)[..., 0]
        return np.where(holds.any(-1), found, np.inf)

    def halfway(steps: Floats) -> Floats:
        """Between the steps at which one half is reached and passed, which are the same unless it is met exactly."""
        at, alive = kaplan_meier(steps, reached)
        return np.asarray((first(at, alive <= 0.5 + _ROUNDING) + first(at, alive < 0.5 - _ROUNDING)) / 2)

    high = halfway(steps)
    soonest = np.where(early, 0.0, steps)
    low = halfway(soonest)
    # Not passed by half: no run's number is below the step up to which it is known.
    return np.asarray(np.minimum(np.where(np.isinf(low), np.median(soonest, axis=-1), low), high)), high


def _resampled(crossings: Crossings, rng: np.random.Generator, resamples: int) -> tuple[Floats, Floats]:
    """Bounds of the median of each resample; step and censoring of a run are drawn together (Efron 1981)."""
    steps, reached, early = crossings.arrays()
    index = rng.integers(steps.size, size=(resamples, steps.size))
    return _median(steps[index], reached[index], early[index])


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
    """Env steps by which half of the runs have reached the threshold: where the Kaplan-Meier curve passes 1/2.

    Where it stays at 1/2 for a while, as of an even number of runs without censoring, it is the middle of that while.
    Where the curve does not pass 1/2 it is a lower bound: the median of the steps up to which runs are known. Where
    half were above at their first evaluation it is an upper bound.

    Source: Kaplan and Meier 1958.
    """
    two_runs({"the set": crossings.steps}, resamples)
    return _bounded(*_median(*crossings.arrays()), *_resampled(crossings, np.random.default_rng(seed), resamples))


def _ratio_bounds(
    numerator: Crossings, denominator: Crossings, resamples: int, seed: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Bounds of a ratio, of the runs as they are and of each resample."""
    two_runs({"the numerator": numerator.steps, "the denominator": denominator.steps}, resamples)
    rng = np.random.default_rng(seed)
    known = _divide(_median(*numerator.arrays()), _median(*denominator.arrays()))
    return *known, *_divide(_resampled(numerator, rng, resamples), _resampled(denominator, rng, resamples))


def steps_ratio(numerator: Crossings, denominator: Crossings, *, resamples: int = 10_000, seed: int = 0) -> Estimate:
    """How many times as many env steps one algorithm needs as another: the ratio of their median steps.

    Both medians are intervals [low, high] of what is known; so is the ratio, [low / high, high / low]. If half or
    fewer of the numerator's runs reach the threshold it is a lower bound ("at least x times"); of the
    denominator's, an upper bound; of both, undefined. Runs of the two are drawn independently, and each resample
    keeps its own bounds, so the interval is no narrower than what is known.
    """
    return _bounded(*_ratio_bounds(numerator, denominator, resamples, seed))


def pooled_ratio(
    pairs: Mapping[str, tuple[Crossings, Crossings]], *, resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Interquartile mean, over tasks, of the logarithms of their `steps_ratio`, as a ratio again.

    So 2 on one task and 1/2 on another make 1. It grows with each of the ratios; bounds of theirs are therefore
    bounds of it, and a task whose ratio is not bounded may be among the quarter that is left out.
    """
    if not pairs:
        raise UserError("there is no task to pool ratios of.")
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
