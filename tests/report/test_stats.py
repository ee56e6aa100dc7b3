"""Statistics of reports: worked examples, reference values, coverage of the intervals, what must not matter."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omad.report import stats, survival
from omad.report.marl_eval import Record, nested
from omad.report.stats import Evaluations
from omad.report.survival import Crossings

INF = math.inf


def run(steps: list[int], *means: float) -> Evaluations:
    """Two episodes an evaluation, with these means."""
    return Evaluations(tuple(steps), tuple((mean - 1.0, mean + 1.0) for mean in means))


# ------------------------------------------------------------------------------------------------ curves


def test_curves_stand_at_the_steps_that_all_runs_share() -> None:
    """A longer run is cut to the shorter one, which is told; nothing is filled in."""
    curves = stats.curves([run([10, 20, 30, 40], 0, 2, 4, 9), run([10, 30], 1, 3)])
    assert curves.steps.tolist() == [10, 30]
    assert curves.values.tolist() == [[0, 4], [1, 3]]


def test_final_return_and_area_by_hand() -> None:
    """(2 + 6) / 2 * 10 + (6 + 1) / 2 * 20 = 110 over 30 steps."""
    curves = stats.curves([run([10, 20, 40], 2, 6, 1), run([10, 20, 40], 5, 5, 5)])
    assert stats.final(curves).tolist() == [1, 5]
    assert stats.area(curves) == pytest.approx([110 / 30, 5])


def test_normalised_scores_by_hand() -> None:
    scores = stats.normalise({"a": [-60.0, -20.0, 0.0], "b": [1]}, {"a": (-60.0, -20.0), "b": (0.0, 4.0)})
    assert scores["a"].tolist() == [0, 1, 1.5]
    assert scores["b"].tolist() == [0.25]


# ------------------------------------------------------------------------------------------------ aggregates

X = {
    "a": [0.1405, 0.5442, 0.2832, 0.967, 0.8049, 0.601, 0.22],
    "b": [0.7311, 0.256, 0.1611, 1.239, 0.2413, 0.1528, 0.4916],
    "c": [0.6041, 0.4816, 0.3168, 2.4384, 0.7719, 0.4489, 0.2253],
}
Y = {
    "a": [0.2832, 0.6992, 0.547, 0.9405, 1.0037],
    "b": [0.8424, -0.0528, 1.3607, 0.2689, 0.4916],
    "c": [0.0708, 0.8751, -0.1606, 0.4816, 0.1404],
}
"""Gamma and normal scores, with a tie in every task.

The reference values below are those of rliable 1.2.0 (SciPy 1.17.1) on these numbers as (run, task) matrices: values
of `metrics.aggregate_iqm`, `aggregate_mean`, `probability_of_improvement` and `library.create_performance_profile`;
intervals of `library.get_interval_estimates` (percentile, after `np.random.seed(0)`) with 50000 resamples for IQM and
mean, 5000 for the probability and 20000 for the profile.
"""


def arrays(scores: dict[str, list[float]]) -> list[Any]:
    return [np.array(runs) for runs in scores.values()]


def test_iqm_cuts_whole_scores() -> None:
    """Of 4: one at each end. Of 5: one at each end, no fractions. Of 8: two. Of 3: none."""
    for scores, value in (
        ([9, 1, 2, 3], 2.5),
        ([100, 3, 1, 2, -50], 2),
        ([0, 1, 2, 3, 4, 5, 6, 99], 3.5),
        ([1, 2, 6], 3),
    ):
        assert float(stats.iqm([np.array(scores, float)])) == value


@pytest.mark.parametrize(
    ("scores", "iqm", "mean"),
    [
        (X, 0.45452727272727267, 0.5771761904761905),
        (Y, 0.5143777777777777, 0.5194466666666667),
        ({"a": X["a"][:5]}, 0.5440999999999999, None),
        ({"a": X["a"][:6]}, 0.558325, None),
        ({"a": X["a"][:3]}, 0.3226333333333333, None),
    ],
)
def test_iqm_and_mean_are_those_of_rliable(scores: dict[str, list[float]], iqm: float, mean: float | None) -> None:
    assert float(stats.iqm(arrays(scores))) == pytest.approx(iqm, abs=1e-6)
    if mean is not None:
        assert float(stats.mean(arrays(scores))) == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "statistic", "low", "high"),
    [
        (X, stats.iqm, 0.31414477, 0.63716477),
        (X, stats.mean, 0.39396583, 0.80512488),
        (Y, stats.iqm, 0.28345472, 0.74493333),
        (Y, stats.mean, 0.33091333, 0.71514133),
    ],
)
def test_intervals_are_those_of_rliable(
    scores: dict[str, list[float]], statistic: Any, low: float, high: float
) -> None:
    """Up to what the draws make of it."""
    found = stats.estimate(scores, statistic, resamples=20_000)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)
    assert found.low < found.value < found.high


def test_probability_of_improvement_is_that_of_rliable() -> None:
    found = stats.probability_of_improvement(X, Y)
    assert found.value == pytest.approx(0.47142857142857136, abs=1e-6)
    # rliable's bootstrap has about the same interval with that many runs.
    assert (found.low, found.high) == pytest.approx((0.27619048, 0.66666667), abs=0.05)


def test_probability_of_improvement_by_hand() -> None:
    """Task a: of 6 pairs 3 won, 1 tied: 3.5 / 6. Task b: all won. Tasks count alike: (3.5 / 6 + 1) / 2."""
    x, y = {"a": [1, 2, 3], "b": [5, 5]}, {"b": [0, 1, 2, 3], "a": [1.5, 2]}
    assert stats.probability_of_improvement(x, y).value == pytest.approx((3.5 / 6 + 1) / 2)
    same = stats.probability_of_improvement({"a": [1, 1]}, {"a": [1, 1, 1]})
    assert same.value == 0.5 and same.low < 0.2 and same.high > 0.8


@pytest.mark.parametrize(("runs", "low"), [(2, 0.3856), (3, 0.5010), (5, 0.6427), (10, 0.8002)])
def test_a_few_runs_that_all_win_do_not_settle_it(runs: int, low: float) -> None:
    """Where 1 - low is z standard errors at low: (1 - low)^2 = z^2 low (1 - low) (...) / n^2, solved apart."""
    found = stats.probability_of_improvement({"a": range(10, 10 + runs)}, {"a": range(runs)})
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(low, abs=1e-4)
    spread = 1 + (runs - 1) * (1 - low) / (2 - low) + (runs - 1) * low / (1 + low)
    assert (1 - low) ** 2 == pytest.approx(1.959964**2 * low * (1 - low) * spread / runs**2, rel=1e-2)


@pytest.mark.parametrize(("x", "y", "low"), [(2, 10, 0.5461), (10, 2, 0.5461), (3, 5, 0.5662)])
def test_unlike_numbers_of_runs_that_all_win_count_by_their_mean(x: int, y: int, low: float) -> None:
    """Low solves n m (1 - low) = z^2 low (1 + ((n + m) / 2 - 1) ((1 - low) / (2 - low) + low / (1 + low)))."""
    found = stats.probability_of_improvement({"a": range(10, 10 + x)}, {"a": range(y)})
    assert (found.value, found.low, found.high) == (1.0, pytest.approx(low, abs=1e-4), 1.0)
    spread = 1 + ((x + y) / 2 - 1) * ((1 - low) / (2 - low) + low / (1 + low))
    assert x * y * (1 - low) == pytest.approx(1.959964**2 * low * spread, rel=1e-3)


@pytest.mark.parametrize(
    ("tasks", "runs", "held", "most"),
    [
        (1, 2, 0.93, 1.0), (1, 3, 0.89, 0.98), (1, 5, 0.93, 0.98), (1, 10, 0.93, 0.98), (4, 3, 0.86, 0.98),
        (4, 10, 0.90, 0.98),
    ],
)  # fmt: skip
def test_intervals_of_equal_algorithms_hold_one_half(tasks: int, runs: int, held: float, most: float) -> None:
    """How often, of 1,000 pairs of equal algorithms; docs/statistics.md has the measured shares."""
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((1_000, 2, tasks, runs))
    found = [
        stats.probability_of_improvement(*({str(t): one[t] for t in range(tasks)} for one in pair)) for pair in draws
    ]
    assert held <= np.mean([one.low <= 0.5 <= one.high for one in found]) <= most


def test_profile_is_that_of_rliable() -> None:
    found = stats.profile(X, [0.0, 0.25, 0.5, 0.75, 1.0, 1.5], resamples=20_000)
    assert found.value == pytest.approx([1, 15 / 21, 9 / 21, 5 / 21, 2 / 21, 1 / 21], abs=1e-6)
    assert found.low == pytest.approx([1, 11 / 21, 5 / 21, 2 / 21, 0, 0], abs=0.05)
    assert found.high == pytest.approx([1, 19 / 21, 13 / 21, 9 / 21, 5 / 21, 3 / 21], abs=0.05)


def test_profile_counts_scores_above_not_at_the_threshold() -> None:
    assert stats.profile({"a": [1, 2], "b": [2, 3, 4]}, [2]).value == pytest.approx([(0 + 2 / 3) / 2])


def test_band_is_the_estimate_at_each_step() -> None:
    """One task with the same draws; a run is drawn whole, so a constant shift between steps shifts the band."""
    rng = np.random.default_rng(5)
    scores = np.sort(rng.normal(size=8))
    runs = [run([1, 2, 3], score, score + 7, -score) for score in scores.tolist()]
    found = stats.band({"a": stats.curves(runs)}, resamples=500)
    single = stats.estimate({"a": scores}, resamples=500)
    assert found.at.tolist() == [1, 2, 3]
    assert found.value == pytest.approx([single.value, single.value + 7, -single.value])
    assert found.low == pytest.approx([single.low, single.low + 7, -single.high])
    assert found.high == pytest.approx([single.high, single.high + 7, -single.low])


@pytest.mark.parametrize("statistic", [stats.mean, stats.iqm])
def test_intervals_cover_what_they_promise(statistic: Any) -> None:
    """Four tasks of ten runs each, symmetric about a known centre: 95 % intervals hold it 90 to 98 times in 100."""
    rng, repetitions, centre = np.random.default_rng(11), 400, 3.0
    draws = rng.standard_normal((repetitions, 4, 10)) * [[1.0], [0.5], [2.0], [1.0]] + centre
    held = 0
    for number, tasks in enumerate(draws):
        scores = {str(task): runs for task, runs in enumerate(tasks)}
        found = stats.estimate(scores, statistic, resamples=400, seed=number)
        held += found.low <= centre <= found.high
    assert 0.90 <= held / repetitions <= 0.98


finite = st.floats(-1e3, 1e3, allow_nan=False).map(lambda value: round(value, 3))
matrices = st.integers(2, 6).flatmap(
    lambda runs: st.lists(st.lists(finite, min_size=runs, max_size=runs), min_size=1, max_size=3)
)


@given(matrices, st.randoms(use_true_random=False))
def test_order_of_runs_and_tasks_changes_nothing(rows: list[list[float]], random: Any) -> None:
    scores = {str(task): runs for task, runs in enumerate(rows)}
    names = list(scores)
    random.shuffle(names)
    shuffled = {task: random.sample(scores[task], len(scores[task])) for task in names}
    for statistic in (stats.mean, stats.iqm):
        assert stats.estimate(scores, statistic, resamples=20) == stats.estimate(shuffled, statistic, resamples=20)
    one, other = (stats.probability_of_improvement(s, {t: [0, 1] for t in s}) for s in (scores, shuffled))
    assert one == other


@given(matrices)
def test_iqm_and_its_interval_lie_between_the_extremes(rows: list[list[float]]) -> None:
    found = stats.estimate({str(task): runs for task, runs in enumerate(rows)}, resamples=50)
    low, high = min(map(min, rows)) - 1e-9, max(map(max, rows)) + 1e-9
    assert low <= found.low <= found.high <= high
    assert low <= found.value <= high


@given(matrices, st.lists(finite, min_size=1, max_size=5))
def test_profile_falls(rows: list[list[float]], taus: list[float]) -> None:
    found = stats.profile({str(task): runs for task, runs in enumerate(rows)}, sorted(taus), resamples=50)
    for values in (found.value, found.low, found.high):
        assert (np.diff(values) <= 1e-12).all() and 0 <= values.min() <= values.max() <= 1 + 1e-12
    assert (found.low <= found.high).all()


@given(st.lists(st.integers(0, 5), min_size=2, max_size=6), st.lists(st.integers(0, 5), min_size=2, max_size=6))
def test_better_and_worse_add_up_to_one(x: list[int], y: list[int]) -> None:
    both = [stats.probability_of_improvement({"a": p}, {"a": q}).value for p, q in ((x, y), (y, x))]
    assert sum(both) == pytest.approx(1)


def test_the_seed_decides_the_interval() -> None:
    assert stats.estimate(X, seed=1, resamples=99) == stats.estimate(X, seed=1, resamples=99)
    assert stats.estimate(X, seed=1, resamples=99) != stats.estimate(X, seed=2, resamples=99)


# ------------------------------------------------------------------------------------------------ steps to a threshold


def test_crossings_by_hand() -> None:
    """Means 0, 4, 2, 6 at 10, 20, 30, 40."""
    runs = [run([10, 20, 30, 40], 0, 4, 2, 6)]
    assert survival.crossings(runs, 3.0) == Crossings((17.5,), (True,))
    assert survival.crossings(runs, 5.0) == Crossings((37.5,), (True,))
    assert survival.crossings(runs, 6.0) == Crossings((40.0,), (True,))
    assert survival.crossings(runs, 6.5) == Crossings((40.0,), (False,))
    assert survival.crossings(runs, -1.0) == Crossings((10.0,), (True,), (True,))


TREATED = Crossings(
    (6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35),
    (True, True, True, False, True, False, True, False, False, True, True, *(False,) * 3, True, True, *(False,) * 5),
)
CONTROL = Crossings((1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23), (True,) * 21)
"""Weeks of remission of leukaemia patients, the textbook example: Freireich et al. 1963, as in Cox 1972, table 1."""


def test_survival_of_the_textbook() -> None:
    reached = np.array(TREATED.reached)
    steps, alive = survival.kaplan_meier(np.array(TREATED.steps, float), reached)
    falls = sorted({step for step, there in zip(TREATED.steps, TREATED.reached, strict=True) if there})
    assert falls == [6, 7, 10, 13, 16, 22, 23]
    found = alive[[int(np.flatnonzero(steps == step)[-1]) for step in falls]]
    assert found == pytest.approx(np.cumprod([18 / 21, 16 / 17, 14 / 15, 11 / 12, 10 / 11, 6 / 7, 5 / 6]))
    assert found == pytest.approx([0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], abs=6e-4)
    assert survival.kaplan_meier(np.array([5.0, 5.0]), np.array([False, False]))[1].tolist() == [1, 1]


def test_medians_and_their_ratio_of_the_textbook() -> None:
    assert (survival.median_steps(TREATED).value, survival.median_steps(TREATED).kind) == (23, "exact")
    assert (survival.median_steps(CONTROL).value, survival.median_steps(CONTROL).kind) == (8, "exact")
    found = survival.steps_ratio(TREATED, CONTROL)
    assert (found.value, found.kind) == (23 / 8, "exact")
    assert 1 < found.low < 23 / 8 < found.high


@pytest.mark.parametrize(
    ("crossings", "value", "kind"),
    [
        (Crossings((30, 10, 20), (True,) * 3), 20, "exact"),
        (Crossings((40, 30, 10, 20), (True,) * 4), 25, "exact"),
        (Crossings((10, 20), (True, True)), 15, "exact"),
        (Crossings((10, 50), (True, False)), 30, "lower bound"),
        (Crossings((10, 20, 20, 20), (True,) * 4), 20, "exact"),
        (Crossings((10, 10, 20, 30), (True,) * 4, (True, True, False, False)), 15, "upper bound"),
        (Crossings((40, 10, 20), (False, True, True)), 20, "exact"),
        (Crossings((60, 10, 20, 30, 60, 60), (False, True, True, True, False, False)), 45, "lower bound"),
        (Crossings((60, 10, 20, 30, 60, 40), (False, True, True, True, False, True)), 35, "exact"),
        (Crossings((40, 10, 40), (False, True, False)), 40, "lower bound"),
        (Crossings((30, 40, 10, 20), (False, False, True, False)), 25, "lower bound"),
        (Crossings((100, 5, 8, 6, 7), (False, True, False, True, False)), 7, "lower bound"),
        (Crossings((10, 10, 20), (True,) * 3, (True, True, False)), 10, "upper bound"),
        (Crossings((10, 15, 20), (True,) * 3, (True, False, False)), 15, "exact"),
        (Crossings((0, 0), (False, False)), math.nan, "undefined"),
    ],
)
def test_what_is_known_of_the_median(crossings: Crossings, value: float, kind: str) -> None:
    found = survival.median_steps(crossings, resamples=50)
    assert (found.value, found.kind) == (pytest.approx(value, nan_ok=True), kind)


SOME, NONE = Crossings((10, 20, 30), (True,) * 3), Crossings((80, 80, 80), (False,) * 3)
SOON = Crossings((5, 5, 5), (True,) * 3, (True,) * 3)


@pytest.mark.parametrize(
    ("numerator", "denominator", "value", "kind", "low", "high"),
    [
        (NONE, SOME, 4, "lower bound", 80 / 30, INF),
        (SOME, NONE, 1 / 4, "upper bound", 0, 30 / 80),
        (NONE, NONE, math.nan, "undefined", 0, INF),
        (SOON, SOME, 1 / 4, "upper bound", 0, 1 / 2),
        (SOME, SOON, 4, "lower bound", 2, INF),
        (NONE, SOON, 16, "lower bound", 16, INF),
        (SOON, NONE, 1 / 16, "upper bound", 0, 1 / 16),
        (SOON, SOON, math.nan, "undefined", 0, INF),
        (SOME, SOME, 1, "exact", 1 / 3, 3),
        (SOME, Crossings((0, 0), (True, True), (True, True)), math.nan, "undefined", 0, INF),
    ],
)
def test_what_is_known_of_the_ratio(
    numerator: Crossings, denominator: Crossings, value: float, kind: str, low: float, high: float
) -> None:
    """Of three runs each, medians of resamples reach the extremes in 7 of 27 cases, beyond any 95 % interval."""
    found = survival.steps_ratio(numerator, denominator, resamples=500)
    assert (found.value, found.kind) == (pytest.approx(value, nan_ok=True), kind)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_an_interval_may_be_open_where_the_value_is_known() -> None:
    """Two of three reach it: the median is known, but in 7 of 27 resamples it is not bounded from above."""
    found = survival.median_steps(Crossings((10, 20, 50), (True, True, False)))
    assert (found.value, found.kind, found.low, found.high) == (20, "exact", 10, INF)


def test_ends_of_an_interval_are_resamples_outwards() -> None:
    """Of 1 to 40 the quantiles are 1.975 and 39.025, so the ends are 1 and 40; of 1 to 44, 2.075 and 42.925."""
    for count, ends in ((40, (1, 40)), (44, (2, 43))):
        resamples = np.random.default_rng(0).permutation(np.arange(1.0, count + 1))
        found = survival._bounded(20.0, 20.0, resamples, resamples[::-1])
        assert (found.value, found.low, found.high, found.kind) == (20.0, *ends, "exact")


def test_intervals_of_the_median_cover_it() -> None:
    """Exponential steps with mean 100 000, budget 150 000: median 69 315; 15 runs, a fifth of them censored."""
    rng, repetitions, true = np.random.default_rng(3), 300, 1e5 * math.log(2)
    held = 0
    for number in range(repetitions):
        steps = rng.exponential(1e5, 15)
        reached = tuple((steps <= 1.5e5).tolist())
        runs = Crossings(tuple(np.minimum(steps, 1.5e5).tolist()), reached)
        found = survival.median_steps(runs, resamples=300, seed=number)
        held += found.low <= true <= found.high
    assert 0.90 <= held / repetitions <= 0.98


sets = st.lists(st.tuples(st.integers(1, 99), st.booleans()), min_size=2, max_size=6)


def crossed(runs: list[tuple[int, bool]], factor: float = 1.0) -> Crossings:
    return Crossings(tuple(factor * step for step, _ in runs), tuple(reached for _, reached in runs))


@given(sets, sets, st.sampled_from([0.25, 2.0, 8.0]))
def test_scaling_of_steps_scales_the_ratio(a: Any, b: Any, factor: float) -> None:
    """Powers of two, so without a rounding; bounds stay bounds."""
    one, other = (survival.steps_ratio(crossed(a, by), crossed(b), resamples=30) for by in (1.0, factor))
    assert other.kind == one.kind
    for name in ("value", "low", "high"):
        assert getattr(other, name) == pytest.approx(factor * getattr(one, name), nan_ok=True)


@given(sets, sets)
def test_the_inverse_ratio_is_bounded_from_the_other_side(a: Any, b: Any) -> None:
    one, other = (survival.steps_ratio(crossed(p), crossed(q), resamples=10) for p, q in ((a, b), (b, a)))
    opposite = {"exact": "exact", "undefined": "undefined", "lower bound": "upper bound", "upper bound": "lower bound"}
    assert other.kind == opposite[one.kind]
    if one.kind != "undefined":
        assert other.value == pytest.approx(1 / one.value)


@given(sets, st.randoms(use_true_random=False))
def test_order_of_runs_does_not_change_steps(a: Any, random: Any) -> None:
    shuffled = crossed(random.sample(a, len(a)))
    assert survival.median_steps(crossed(a), resamples=20) == survival.median_steps(shuffled, resamples=20)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8), st.floats(-12, 12))
def test_a_crossing_lies_between_the_evaluation_that_reaches_it_and_the_one_before(
    means: list[float], threshold: float
) -> None:
    runs = [Evaluations(tuple(range(10, 10 * len(means) + 1, 10)), tuple((mean,) for mean in means))]
    found = survival.crossings(runs, threshold)
    assert found.reached == (max(means) >= threshold,)
    first = next((i for i, mean in enumerate(means, 1) if mean >= threshold), len(means))
    assert max(10, 10 * first - 10) - 1e-9 <= found.steps[0] <= 10 * first + 1e-9


def test_pooled_ratios_by_hand() -> None:
    """Twice as many steps on one task and half as many on another make one; of four tasks, the outer two are left."""
    two = {"a": (crossed([(20, True)] * 2), crossed([(10, True)] * 2)), "b": (crossed([(5, True)] * 2),) * 2}
    half = {"a": two["a"], "b": (two["a"][1], two["a"][0])}
    assert survival.pooled_ratio(half, resamples=20).value == pytest.approx(1)
    assert survival.pooled_ratio(two, resamples=20).value == pytest.approx(math.sqrt(2))
    never = crossed([(40, False)] * 2)
    found = survival.pooled_ratio({"c": (never, two["a"][1]), "d": (two["a"][1], never), **half}, resamples=20)
    assert (found.value, found.kind) == (pytest.approx(1), "exact")
    found = survival.pooled_ratio({"c": (never, two["a"][1]), "b": half["a"]}, resamples=20)
    assert (found.value, found.kind, found.high) == (pytest.approx(math.sqrt(8)), "lower bound", INF)


def test_each_task_has_resamples_of_its_own() -> None:
    """Two tasks with the same runs have the ratio of one, and a narrower interval."""
    rng = np.random.default_rng(1)
    first, second = (Crossings(tuple(rng.exponential(1e5, 8).tolist()), (True,) * 8) for _ in range(2))
    one, two = (survival.pooled_ratio(dict.fromkeys(names, (first, second)), resamples=400) for names in ("a", "ab"))
    assert two.value == pytest.approx(one.value)
    assert one.low < two.low < two.high < one.high


# ------------------------------------------------------------------------------------------------ export


def test_export_by_hand() -> None:
    runs = (Evaluations((10, 20), ((1.0, 2.0), (3.0, 4.0))), Evaluations((10, 15, 20), ((5.0,), (6.0,), (7.0,))))
    found = nested([Record("MPE", "Spread-3", "omad", runs)])
    assert json.loads(msgspec.json.encode(found, enc_hook=list)) == {
        "mpe": {
            "spread-3": {
                "omad": {
                    "run_0": {
                        "step_0": {"step_count": 10, "return": [1.0, 2.0]},
                        "step_1": {"step_count": 20, "return": [3.0, 4.0]},
                        "absolute_metrics": {"return": [3.0, 4.0]},
                    },
                    "run_1": {
                        "step_0": {"step_count": 10, "return": [5.0]},
                        "step_1": {"step_count": 20, "return": [7.0]},
                        "absolute_metrics": {"return": [7.0]},
                    },
                }
            }
        }
    }
    assert list(found["mpe"]["spread-3"]["omad"]["run_0"])[-1] == "absolute_metrics"


def test_without_absolute_returns_the_last_evaluation_stands_in() -> None:
    found = nested([Record("mpe", "spread-3", "omad", (run([10, 20], 0, 5),))])
    assert found["mpe"]["spread-3"]["omad"]["run_0"]["absolute_metrics"]["return"].tolist() == [4.0, 6.0]


def test_algorithms_on_a_task_are_exported_at_the_steps_they_share() -> None:
    found = nested([Record("e", "t", "a", (run([10, 20], 0, 5),)), Record("e", "t", "b", (run([20, 30], 1, 2),))])
    for name, value in (("a", 5), ("b", 1)):
        exported = found["e"]["t"][name]["run_0"]
        assert list(exported) == ["step_0", "absolute_metrics"]
        assert exported["step_0"]["step_count"] == 20 and list(exported["step_0"]["return"]) == [value - 1, value + 1]


ONE, TWO = run([10, 20], 0, 5), run([10], 0)


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([], "no record"),
        ([("t", "a", (ONE,)), ("T", "a", (ONE,))], "twice"),
        ([("t", "a", (ONE,)), ("u", "b", (ONE,))], "every algorithm"),
        ([("t", "a", (ONE,)), ("t", "b", (ONE, ONE))], "numbers of runs are 1, 2"),
        ([("t", "a", (ONE,)), ("u", "a", (TWO,))], "numbers of common evaluations are 1, 2"),
        ([("t", "a", ())], "no run"),
    ],
)
def test_what_marl_eval_cannot_read_is_refused(records: list[Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        nested([Record("mpe", *record) for record in records])


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Evaluations((), ()), "no evaluation"),
        (lambda: Evaluations((1, 2), ((0.0,),)), "2 steps, but 1"),
        (lambda: Evaluations((2, 2), ((0.0,), (0.0,))), "increase"),
        (lambda: Evaluations((1,), ((),)), "empty"),
        (lambda: Evaluations((1,), ((math.nan,),)), "NaN"),
        (lambda: stats.curves([]), "no run"),
        (lambda: stats.curves([run([1], 0), run([2], 0)]), "share no step"),
        (lambda: stats.area(stats.curves([TWO])), "two common"),
        (lambda: stats.normalise({"a": [1]}, {}), "no reference returns"),
        (lambda: stats.normalise({"a": [1]}, {"a": (1.0, 1.0)}), "below"),
        (lambda: stats.estimate({}), "empty"),
        (lambda: stats.estimate({"a": []}), "empty"),
        (lambda: stats.estimate({"a": [1]}), "two runs"),
        (lambda: stats.estimate({"a": [1, math.nan]}), "NaN"),
        (lambda: stats.estimate({"a": [[1, 2]]}), "shape"),
        (lambda: stats.estimate({"a": [[1, 2], [3]]}), "numbers"),
        (lambda: stats.estimate({"a": ["x"]}), "numbers"),
        (lambda: stats.estimate({"a": [1, 2], "b": [1, 2, 3]}), "equally many"),
        (lambda: stats.estimate({"a": [1, 2]}, resamples=0), "resamples"),
        (lambda: stats.band({}), "no task"),
        (lambda: stats.band({"a": stats.curves([ONE, ONE]), "b": stats.curves([TWO, TWO])}), "different steps"),
        (lambda: stats.probability_of_improvement({"a": [1, 2]}, {"b": [1, 2]}), "same tasks"),
        (lambda: stats.profile({"a": [1, 2]}, []), "taus are empty"),
        (lambda: survival.crossings([], 1.0), "no run"),
        (lambda: survival.crossings([ONE], math.nan), "finite"),
        (lambda: Crossings((), ()), "empty"),
        (lambda: Crossings((1,), (True, True)), "one each"),
        (lambda: Crossings((-1,), (True,)), "0 or more"),
        (lambda: Crossings((1,), (False,), (True,)), "early"),
        (lambda: survival.median_steps(Crossings((1,), (True,))), "two runs"),
        (lambda: survival.pooled_ratio({}), "no task"),
    ],
)
def test_refusals_are_sentences(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        call()
    assert str(caught.value).endswith(".")
