"""The tables of a report, written as HTML and as Markdown from one record."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from omad.report import stats, words
from omad.report.records import Run
from omad.report.results import Across, Results, Row, Series, TaskResults, estimated
from omad.report.words import bounded, duration, escape, interval, number

__all__ = ["Table", "across_table", "findings", "hardware_table", "html", "improvement_table", "markdown",
           "reference_table", "returns_table", "runs_table", "steps_table", "time_table"]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text; the first column names the row."""

    name: str
    """Unique within a page."""
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: tuple[int, ...] = ()
    """Columns of words rather than numbers, besides the first."""
    code: tuple[int, ...] = ()
    """Columns of commands."""


def html(table: Table) -> str:
    """In a region that scrolls sideways and can be focused for that."""

    def cell(i: int, text: str) -> str:
        inner = f"<code>{escape(text)}</code>" if i in table.code and text else escape(text)
        if i == 0:
            return f'<th scope="row"{" class=long" if len(text) > 30 else ""}>{inner}</th>'
        wide = " long" if len(text) > 40 else ""
        kind = ' class="code"' if i in table.code else f' class="text{wide}"' if i in table.text else ""
        return f"<td{kind}>{inner}</td>"

    left = {0, *table.text, *table.code}
    kinds = [' class="text"' if i in left else "" for i in range(len(table.head))]
    head = "".join(f'<th scope="col"{kind}>{escape(word)}</th>' for kind, word in zip(kinds, table.head, strict=True))
    body = "\n".join(f"<tr>{''.join(cell(i, text) for i, text in enumerate(row))}</tr>" for row in table.rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{table.name}">\n<table>\n'
        f'<caption id="{table.name}">{escape(table.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def markdown(table: Table) -> str:
    """With the caption above."""

    def safe(i: int, text: str) -> str:
        return words.code(text) if i in table.code and text else words.markdown(text)

    marks = ["---" if i in (0, *table.text, *table.code) else "---:" for i in range(len(table.head))]
    rows = [
        [words.markdown(word) for word in table.head],
        marks,
        *([safe(i, text) for i, text in enumerate(row)] for row in table.rows),
    ]
    return words.paragraph(table.caption) + "\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows)


# ------------------------------------------------------------------------------------------------ of a task


def _counted(one: Series) -> str:
    """`3`, or `2 of 3, 1 failed`; failed runs that nothing can be said of are named."""
    states = [member.run.state for member in one.members]
    words = [f"{len(one.used)}" if len(one.used) == len(states) else f"{len(one.used)} of {len(states)}"]
    words += [f"{states.count(state)} {state}" for state in dict.fromkeys(states) if state != "finished"]
    unseen = [m for m in one.members if m.run.state == "failed" and all(m is not other for other in one.used)]
    words += [f"{len(unseen)} failed before any evaluation and not in these numbers"] if unseen else []
    return ", ".join(words)


def returns_table(one: TaskResults, name: str) -> Table:
    """Final return and area of each series, with each seed's final return, beside what is published."""
    rows = []
    for series in one.series:
        config = series.config
        ratio = f"{config['updates_per_step'] / config['n_envs']:g}"
        if series.curves is None:
            rows.append((series.label, _counted(series), "–", ratio, "–", "–", "–"))
            continue
        end = estimated({series.task: series.final}, stats.mean)
        area = series.area
        along = estimated({series.task: area}, stats.mean) if area is not None else None
        seeds = "; ".join(f"{m.seed}:\u00a0{number(v)}" for m, v in zip(series.used, series.final, strict=True))
        rows.append(
            (
                series.label, _counted(series), f"{series.curves.steps[0]:,}–{series.curves.steps[-1]:,}", ratio,
                interval(end.value, end.low, end.high),
                interval(along.value, along.low, along.high) if along else "–", seeds,
            )
        )  # fmt: skip
    for label, value, std, source in one.task.published:
        seeds = "5" if "5 seeds" in source else "–"
        spread = f" ± {number(std)}" if std is not None else ""
        rows.append((f"{label}, published", seeds, "–", "–", number(value) + spread, "–", "–"))
    head = (
        "algorithm",
        "runs",
        "env steps",
        "gradient steps per env step",
        "final return",
        "area",
        "final return by seed",
    )
    caption = (
        f"{one.task.name}: return of the last common evaluation and area under the curve (mean return along the way) "
        "over these env steps; mean over runs with 95 % bootstrap interval. Published: ± standard deviation over seeds."
    )
    return Table(name, caption, head, tuple(rows), text=(1, 6))


def reference_table(one: TaskResults, name: str) -> Table:
    """Published results and policies without learning, with their sources."""
    rows = [(f"{label}, published", value, source) for label, value, _, source in one.task.published]
    rows += list(one.task.anchors)
    ordered = sorted(rows, key=lambda row: -row[1])
    return Table(
        name,
        f"{one.task.name}: reference returns and where they come from.",
        ("policy", "return", "source"),
        tuple((label, number(value), source) for label, value, source in ordered),
        text=(2,),
    )


def steps_table(one: TaskResults, name: str) -> Table | None:
    """Env steps to the threshold, and their ratio to those of OMAD."""
    if one.threshold is None:
        return None
    rows = []
    for row in one.threshold.rows:
        reached, early = sum(row.crossings.reached), sum(row.crossings.early)
        count = f"{reached} of {len(row.crossings.reached)}" + (f", {early} at the first evaluation" if early else "")
        against = row.against.label if row.against is not None and row.ratio else ""
        ratio = bounded(row.ratio, "×") if row.ratio else "–"
        rows.append((row.series.label, count, bounded(row.median), ratio, against or "–"))
    caption = (
        f"{one.task.name}: env steps until half of the runs have reached a return of {number(one.threshold.value)} "
        "(median of Kaplan and Meier), with 95 % bootstrap interval, and their ratio. Runs that did not reach it are "
        "censored, not left out."
    )
    head = ("algorithm", "runs that reached it", "env steps", "ratio", "to that of")
    return Table(name, caption, head, tuple(rows), text=(1, 4))


def improvement_table(one: TaskResults, name: str) -> Table | None:
    """How often OMAD ends above the others."""
    if not one.improvements:
        return None
    rows = tuple(
        (f"{better.ours.label} over {better.other.label}", f"{better.step:,}", interval(p.value, p.low, p.high))
        for better in one.improvements
        for p in [better.probability]
    )
    caption = (
        f"{one.task.name}: probability that a run of the first is above a run of the second at the last env step at "
        "which all runs of both were evaluated, with 95 % interval."
    )
    return Table(name, caption, ("pair", "env steps", "probability"), rows)


def ratio_sentence(one: TaskResults, row: Row) -> str:
    """What is said of a ratio."""
    against = row.against.label if row.against else ""
    what = bounded(row.ratio, " times") if row.ratio else ""
    censored = len(row.crossings.reached) - sum(row.crossings.reached)
    tail = f"; {censored} of its {len(row.crossings.reached)} runs did not reach it" if censored else ""
    if row.reference is not None and not all(row.reference.reached):
        missed = len(row.reference.reached) - sum(row.reference.reached)
        tail += f"; {missed} of the {len(row.reference.reached)} runs of {against} did not reach it"
    if row.ratio and row.ratio.kind == "undefined":
        return (
            f"{row.series.label} and {against}: the ratio is not known, for too few runs reached the threshold{tail}."
        )
    return f"{row.series.label} needs {what} the env steps of {against}{tail}."


def findings(results: Results) -> list[tuple[str, list[str]]]:
    """What a reader wants first: by task, sentences."""
    out = []
    for one in results.tasks:
        drawn = [series for series in one.series if series.curves is not None]
        best = max(drawn, key=lambda series: float(series.final.mean()))
        end = estimated({one.task.name: best.final}, stats.mean)
        steps = int(best.curves.steps[-1]) if best.curves is not None else 0
        said = [
            f"Best final return: {interval(end.value, end.low, end.high)} by {best.label} after {steps:,} env steps"
            + "".join(f"; published: {label} {number(value)}" for label, value, _, _ in one.task.published)
            + "."
        ]
        if one.threshold:
            said.append(f"Return to reach: {number(one.threshold.value)}, {one.threshold.rule}.")
            said += [
                ratio_sentence(one, row) for row in one.threshold.rows if row.ratio and row.series.algorithm != "omad"
            ]
        else:
            said.append("No return to reach is known for this task; give one with --threshold.")
        out.append((one.task.name, said))
    return out


# ------------------------------------------------------------------------------------------------ across tasks


def across_table(one: Across, name: str) -> Table:
    """Normalised returns, and how often OMAD is better."""
    rows = []
    for algorithm, end in one.finals.items():
        area = one.areas.get(algorithm)
        better = one.improvements.get(algorithm)
        rows.append(
            (
                algorithm.upper(),
                ", ".join(sorted({str(len(np.asarray(runs))) for runs in one.scores[algorithm].values()})),
                interval(end.value, end.low, end.high),
                interval(area.value, area.low, area.high) if area else "–",
                interval(better.value, better.low, better.high) if better else "–",
            )
        )
    upto = ", ".join(f"{step:,} on {task}" for task, step in one.ends.items())
    caption = (
        f"{', '.join(one.tasks)}, setting {one.setting}: {one.statistic} over all runs of normalised returns "
        "(random actions 0, published OMAD 1), and the probability that a run of OMAD ends above a run of the "
        f"algorithm; 95 % intervals. On each task all algorithms are taken up to one env step: {upto}."
    )
    head = ("algorithm", "runs a task", "final return", "area", "P(OMAD is better)")
    return Table(name, caption, head, tuple(rows))


# ------------------------------------------------------------------------------------------------ runs


def _machine(run: Run) -> tuple[str, ...]:
    device, machine = run.manifest.get("device", {}), run.manifest.get("machine", {})
    packages = {"python": run.manifest.get("python", "?"), **run.manifest.get("packages", {})}
    return (
        f"{device.get('count', '?')} × {device.get('kind', '?')} ({device.get('platform', '?')})",
        ", ".join(str(value) for value in machine.values()),
        f"{run.manifest.get('omad', '?')}, commit {run.manifest.get('commit') or 'unknown'}",
        ", ".join(f"{package} {version}" for package, version in packages.items()),
    )


def hardware_table(runs: Sequence[Run], name: str) -> Table:
    """Devices and versions, and how many runs had each."""
    groups: dict[tuple[str, ...], int] = {}
    for run in runs:
        if run.manifest:
            groups[_machine(run)] = groups.get(_machine(run), 0) + 1
    rows = tuple((device, str(count), *rest) for (device, *rest), count in groups.items())
    head = ("device", "runs", "machine", "omad", "packages")
    return Table(name, "Devices, machines and versions, as each run recorded them.", head, rows, text=(2, 3, 4))


def time_table(results: Results, name: str) -> Table:
    """Wall clock by series, of all runs that have a time."""
    rows = []
    total = 0.0
    for one in results.tasks:
        for series in one.series:
            runs = {member.run.folder: member.run for member in series.members if member.run.train_s}
            config = series.config
            spent = sum(run.train_s or 0.0 for run in runs.values())
            steps = sum(run.env_steps * len(run.seeds) for run in runs.values())
            learned = sum(run.gradient_steps * len(run.seeds) for run in runs.values())
            timed = sum(run.timed_steps * len(run.seeds) for run in runs.values())
            total += spent
            rows.append(
                (
                    f"{one.task.name}: {series.label}", str(len(runs)), duration(spent) if runs else "–", f"{steps:,}",
                    number(timed / spent) if spent else "–", f"{learned:,}",
                    f"{config['updates_per_step'] / config['n_envs']:g}",
                )
            )  # fmt: skip
    rows.append(("all", str(sum(bool(run.train_s) for run in results.gathered.runs)), duration(total), "", "", "", ""))
    head = (
        "runs of",
        "runs",
        "training time",
        "env steps",
        "env steps/s",
        "gradient steps",
        "gradient steps per env step",
    )
    caption = (
        "Wall clock of training with its evaluations, summed over runs, from the first line of metrics to the last; "
        "pauses are left out. Runs that shared a machine at the same time slowed each other."
    )
    return Table(name, caption, head, tuple(rows))


def _last_return(run: Run, actions: str) -> str:
    ends: dict[int, tuple[int, float]] = {}
    for line in run.episodes:
        if line.actions == actions and line.step >= ends.get(line.seed, (-1, 0.0))[0]:
            ends[line.seed] = line.step, float(np.mean(line.returns))
    return "; ".join(number(value) for _, (_, value) in sorted(ends.items())) or "–"


def runs_table(results: Results, name: str) -> Table:
    """Every run, whatever became of it, with the command that reproduces it."""
    rows = []
    for run in results.gathered.runs:
        state = f"{run.state}: {run.note}" if run.note else run.state
        steps = f"{run.env_steps:,} of {run.total_steps:,}" if run.config else "–"
        command = run.command or ("–" if not run.config else "")
        rows.append(
            (
                run.folder, run.task, run.algorithm, run.setting, ", ".join(map(str, run.seeds)), state, steps,
                _last_return(run, results.actions), duration(run.train_s), command,
            )
        )  # fmt: skip
    states = [run.state for run in results.gathered.runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    head = ("run", "task", "algorithm", "setting", "seeds", "state", "env steps", "last return", "time", "command")
    return Table(
        name, f"All {len(states)} runs: {counts}.", head, tuple(rows), text=(1, 2, 3, 4, 5), code=(9,)
    )  # fmt: skip
