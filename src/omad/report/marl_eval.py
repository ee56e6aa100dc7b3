"""The returns as marl-eval reads them: environment, task, algorithm, run, `step_i`.

Environment and task become lower case, since marl-eval looks them up so. Runs are numbered `run_0`, ..., because
there they must have the same names everywhere. `absolute_metrics` comes last, where it is looked for; returns of the
last evaluation stand in it. Steps at which not all runs of a task were evaluated are left out. Runs that diverged, or
were stopped for their returns, keep their last returns from then on, which is noted.

Source: Gorsane et al. 2022; the README of marl-eval has the format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from omad.errors import UserError
from omad.report.results import Results
from omad.report.stats import Evaluations


class Record(NamedTuple):
    """All runs of one algorithm on one task."""

    environment: str
    """Family of tasks, as `mpe`."""
    task: str
    algorithm: str
    runs: Sequence[Evaluations]


def nested(records: Sequence[Record]) -> dict[str, Any]:
    """The nested dictionary, with arrays of returns.

    Raises:
        UserError: There is no record or one appears twice; or within an environment, algorithms differ between tasks or
            numbers of runs or of evaluations differ, which marl-eval cannot read.
    """
    if not records:
        raise UserError("there is no record to export.")
    named: dict[str, dict[tuple[str, str], Sequence[Evaluations]]] = {}
    for environment, task, algorithm, runs in records:
        inside = named.setdefault(environment.lower(), {})
        if (task.lower(), algorithm) in inside:
            raise UserError(f"{algorithm} on {environment} {task} is there twice; join its runs to one record.")
        if not runs:
            raise UserError(f"{algorithm} on {environment} {task} has no run.")
        inside[task.lower(), algorithm] = runs
    out: dict[str, Any] = {}
    for environment, inside in named.items():
        tasks, algorithms = (sorted(set(names)) for names in zip(*inside, strict=True))
        if len(inside) < len(tasks) * len(algorithms):
            raise UserError(f"in {environment}, not every algorithm has every task; marl-eval needs all of them.")
        shared = {
            task: sorted(set.intersection(*(set(run.steps) for name in algorithms for run in inside[task, name])))
            for task in tasks
        }
        for what, numbers in (
            ("runs", {len(runs) for runs in inside.values()}),
            ("common evaluations", {len(steps) for steps in shared.values()}),
        ):
            if len(numbers) > 1 or 0 in numbers:
                raise UserError(
                    f"in {environment}, numbers of {what} are {', '.join(map(str, sorted(numbers)))}; marl-eval "
                    "needs one number above 0 throughout."
                )
        out[environment] = {
            task: {
                name: {f"run_{i}": _run(run, shared[task]) for i, run in enumerate(inside[task, name])}
                for name in algorithms
            }
            for task in tasks
        }
    return out


def _run(run: Evaluations, steps: Sequence[int]) -> dict[str, Any]:
    at = dict(zip(run.steps, run.returns, strict=True))
    out: dict[str, Any] = {f"step_{i}": {"step_count": step, "return": at[step]} for i, step in enumerate(steps)}
    return out | {"absolute_metrics": {"return": at[steps[-1]]}}


def export(results: Results) -> tuple[dict[str, Any], list[str]]:
    """What of the results marl-eval can read, and what had to be left out or changed for it, in words."""
    families: dict[str, list[list[Record]]] = {}
    for one in results.tasks:
        family = one.task.name.partition("/")[0]
        records = [Record(family, s.task, f"{s.algorithm}, {s.setting}", s.evaluations) for s in one.series if s.used]
        families.setdefault(family, []).append(records)
    out, notes = dict[str, Any](), list[str]()
    for series in (series for one in results.tasks for series in one.series):
        for member, held in zip(series.used, series.evaluations, strict=True):
            known = member.evaluations.steps if member.evaluations else ()
            if later := sorted(set(held.steps) - set(known)):
                what = "its last returns" if known else "the returns of random actions"
                notes.append(
                    f"{series.task}, {series.label}, seed {member.seed}: {what} stand at {later[0]:,} to {later[-1]:,} "
                    "env steps, where it was not evaluated."
                )
    for family, members in families.items():
        try:
            out |= nested([record for records in members for record in records])
            continue
        except UserError:
            notes.append(
                f"{family}: each task is an environment of its own, for runs, evaluations or algorithms differ."
            )
        for records in filter(None, members):
            counts = [len(record.runs) for record in records]
            usual = max(counts, key=lambda count: (counts.count(count), count))
            kept = [record._replace(environment=record.task) for record in records if len(record.runs) == usual]
            gone = [record.algorithm for record in records if len(record.runs) != usual]
            if gone:
                notes.append(
                    f"{records[0].task}: left out {'; '.join(gone)}, with another number of runs than {usual}."
                )
            try:
                own = nested(kept)
            except UserError as error:
                notes.append(f"{records[0].task} is left out: {error}")
                continue
            if twice := sorted(own.keys() & out.keys()):
                notes.append(f"{records[0].task} is left out: {twice[0]} is there already, for names are lower-cased.")
                continue
            out |= own
    return out, notes
