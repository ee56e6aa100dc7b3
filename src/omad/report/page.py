"""The page of a report: one document, written by two templates as HTML that asks for nothing and as Markdown."""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2

from omad.report import tables
from omad.report.figures import Drawn
from omad.report.format import code, counts, markdown, paragraph, plain
from omad.report.records import Run
from omad.report.results import Results
from omad.report.series import TaskResults

Block = tuple[str, Any]
"""`heading`, `text`, `list`, `code`, `table`, `figure` (drawn here) or `image` (of a section), and its value."""


class Part(NamedTuple):
    """A section of the page."""

    id: str
    title: str
    blocks: Sequence[Block]


@functools.cache
def _templates() -> jinja2.Environment:
    """Whatever a template writes is `plain`, and in HTML escaped too."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("omad.report"), autoescape=lambda name: str(name).endswith(".html.j2"),
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True,
        finalize=lambda value: plain(value) if isinstance(value, str) else value,
    )  # fmt: skip
    made.filters |= {"markdown": markdown, "paragraph": paragraph, "code": code}
    made.filters["address"] = lambda svg: "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    return made


def to_html(results: Results, drawn: Mapping[str, Sequence[Drawn]], notes: Sequence[str]) -> str:
    """The whole page.

    Args:
        results: What it says.
        drawn: Pictures by task name.
        notes: On what the marl-eval export leaves out.
    """
    return _written("page.html.j2", results, [*_parts(results, drawn), _made(results, notes)])


def to_markdown(results: Results) -> str:
    """The same without pictures."""
    return _written("tables.md.j2", results, list(_parts(results, {})))


def _written(template: str, results: Results, parts: Sequence[Part]) -> str:
    runs, kind = results.gathered.runs, results.options.actions.replace("_", "-")
    summary = f"{len(runs)} runs: {counts(run.state for run in runs)}. Returns are of {kind} actions."
    return _templates().get_template(template).render(title=results.gathered.name, summary=summary, parts=parts)


def _parts(results: Results, drawn: Mapping[str, Sequence[Drawn]]) -> Iterator[Part]:
    found: list[Block] = _figures(drawn, "findings")
    if results.comparisons:
        said = [tables.count_sentence(one, results.options.baseline.upper()) for one in results.comparisons]
        found = [("list", said), *_tables(tables.comparison_table(results, "comparisons")), *found]
    for one in results.tasks:
        found += [("heading", one.task.name), ("list", tables.findings(one, results.options.baseline))]
    yield Part("findings", "Findings", found)
    for i, one in enumerate(results.tasks):
        yield Part(f"task-{i + 1}", one.task.name, list(_task(one, f"task-{i + 1}", drawn)))
    if results.across:
        words = (
            f"Returns are normalised by task: uniformly random actions are 0, the published return of "
            f"{results.options.baseline.upper()} is 1. Nothing is clipped. Curves are over the env steps that the "
            "tasks share."
        )
        together: list[Block] = [("text", words), *_figures(drawn, "across")]
        for i, one in enumerate(results.across):
            together += _tables(tables.across_table(one, f"across-{i + 1}", results.options.baseline))
            together += [("text", note) for note in one.notes]
        yield Part("across", "All tasks together", together)
    for i, one in enumerate(results.gathered.sections):
        texts = [("text", words.strip()) for words in re.split(r"\r?\n\s*\n", one.text) if words.strip()]
        yield Part(f"more-{i + 1}", one.title, texts + ([("image", one)] if one.figure else []))
    differ = _differences(results.gathered.runs)
    machines: list[Block] = [("text", f"Runs differ in {', '.join(differ)}.")] if differ else []
    machines += _tables(tables.hardware_table(results.gathered.runs, "devices"), tables.time_table(results, "times"))
    yield Part("hardware", "Hardware and wall clock", machines)
    yield Part("runs", "All runs", _tables(tables.runs_table(results, "every-run")))


def _tables(*several: tables.Table | None) -> list[Block]:
    return [("table", one) for one in several if one]


def _figures(drawn: Mapping[str, Sequence[Drawn]], name: str) -> list[Block]:
    return [("figure", one) for one in drawn.get(name, ())]


def _task(one: TaskResults, name: str, drawn: Mapping[str, Sequence[Drawn]]) -> Iterator[Block]:
    yield "text", one.task.protocol
    if pictures := _figures(drawn, one.task.name):
        yield from [("heading", "Learning curves"), *pictures]
    yield "heading", "Returns"
    yield from _tables(
        tables.returns_table(one, f"{name}-returns"),
        tables.improvement_table(one, f"{name}-better"),
        tables.reference_table(one, f"{name}-references"),
    )
    yield "heading", "Env steps to a return"
    no = (
        "No sample-efficiency threshold: none is published, random actions were not measured or nothing ended above "
        "them. Give a return with --threshold TASK=VALUE."
    )
    yield "text", no if one.threshold is None else f"The return to reach is {one.rule}."
    yield from _tables(tables.steps_table(one, f"{name}-steps"))


def _differences(runs: Sequence[Run]) -> Iterator[str] | list[str]:
    """Versions that differ between runs: returns may still be compared, but a reader should know."""
    seen: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        if made := run.manifest:
            seen.setdefault(("versions of omad", ""), set()).add(f"{made.get('omad')}, {made.get('commit')}")
            # Hosted tasks list packages of their own.
            seen.setdefault(("versions of packages", run.task), set()).add(str(made.get("packages")))
            seen.setdefault(("devices", ""), set()).add(str(made.get("device", {}).get("kind")))
            seen.setdefault(("machines", ""), set()).add(str(made.get("machine")))
    return list(dict.fromkeys(what for (what, _), values in seen.items() if len(values) > 1))


def _made(results: Results, notes: Sequence[str]) -> Part:
    blocks: list[Block] = [
        ("text",
         "Runs (training seeds) are the unit of all statistics; intervals are percentile bootstraps over runs, and of "
         "probabilities those of Newcombe, with 95 % nominal coverage; the former are too narrow for few runs. A "
         "setting's curve and returns are of its ended runs (those that finished, diverged, or were stopped for "
         "their returns) if these are two or more and one has not diverged, else of all that were evaluated, up to the "
         "last step they share. A run that diverged, or was stopped for its returns, keeps its last return from then "
         "on. For env steps to a return every run counts; one that diverged, or rose no more, as not having reached "
         "what it had not reached."),
        ("text",
         f"All returns are of {results.options.actions.replace('_', '-')} actions. Every evaluation episode of every "
         "run is in summary.json, beside this page; from it the page is made again with"),
        ("code", "omad report summary.json --out DIR"),
        ("text",
         "The pictures are in the folder figures, the tables in tables.md, the returns for marl-eval in "
         "marl-eval.json."),
    ]  # fmt: skip
    if notes:
        blocks += [("text", "In marl-eval.json:"), ("list", notes)]
    return Part("made", "How this page was made", blocks)
