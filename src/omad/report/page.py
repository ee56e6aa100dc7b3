"""The page of a report: one HTML file that asks for nothing, and the same tables as Markdown."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any

from omad.report import tables
from omad.report.figures import Drawn
from omad.report.records import Section
from omad.report.results import Across, Results, TaskResults
from omad.report.tables import Table
from omad.report.words import escape, markdown, paragraph

__all__ = ["to_html", "to_markdown"]

_CSS = """
:root{color-scheme:light dark;--ink:#1a1a1a;--soft:#4a4a4a;--back:#fff;--panel:#f3f4f6;--line:#c9ccd1;--link:#0b5394}
@media(prefers-color-scheme:dark){:root{
--ink:#ececec;--soft:#bdbdbd;--back:#16181b;--panel:#23262b;--line:#4a4f57;--link:#8ab8ff}}
*{box-sizing:border-box}
body{margin:0;font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
color:var(--ink);background:var(--back)}
header,main,footer,nav{max-width:72rem;margin:0 auto;padding:0 1rem}
h1{font-size:1.7rem;line-height:1.25;margin:1.2rem 0 .3rem}
h2{font-size:1.35rem;margin:2.4rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line);overflow-wrap:anywhere}
h3{font-size:1.1rem;margin:1.6rem 0 .4rem}
p,li{max-width:68ch;overflow-wrap:anywhere}
a{color:var(--link)}
a:focus-visible,.scroll:focus-visible{outline:3px solid var(--link);outline-offset:2px}
.skip{position:absolute;left:-999rem}
.skip:focus{left:.5rem;top:.5rem;background:var(--back);padding:.5rem 1rem;z-index:1}
nav ul{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;list-style:none;padding:0;margin:.6rem 0}
nav a{display:inline-block;padding:.25rem 0}
.soft,figcaption,caption{color:var(--soft)}
figure{margin:1rem 0}
figure img{display:block;width:100%;max-width:46rem;height:auto;background:#fff;border:1px solid var(--line);
border-radius:4px;padding:4px}
figcaption{font-size:.9rem;max-width:68ch;margin-top:.3rem}
.scroll{overflow-x:auto;margin:1rem 0;border:1px solid var(--line);border-radius:4px}
table{border-collapse:collapse;font-size:.9rem;width:100%;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:.5rem .6rem;font-size:.9rem}
caption{max-width:68ch}
th,td{padding:.35rem .6rem;border-top:1px solid var(--line);text-align:right;vertical-align:top;white-space:nowrap}
thead th{background:var(--panel);white-space:normal;vertical-align:bottom}
th[scope=row],th.text,td.text,td.code{text-align:left}
th[scope=row]{font-weight:600;white-space:normal;min-width:8rem}
td.text{white-space:normal;min-width:6.5rem}
td.long,th.long{min-width:16rem}
code{font:.85em/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;overflow-wrap:anywhere}
td.code{white-space:normal;min-width:26rem}
pre{background:var(--panel);padding:.6rem .8rem;overflow-x:auto;border-radius:4px}
@media(max-width:600px){caption{max-width:calc(100vw - 3.4rem);position:sticky;left:0}}
@media print{nav,.skip{display:none}.scroll{overflow:visible}}
"""


def _paragraphs(text: str) -> str:
    return "\n".join(f"<p>{escape(part.strip())}</p>" for part in re.split(r"\r?\n\s*\n", text) if part.strip())


def _address(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _figure(drawn: Drawn) -> str:
    return (
        "<figure>\n<picture>\n"
        f'<source media="(max-width: 600px)" srcset="{_address(drawn.narrow)}">\n'
        f'<img src="{_address(drawn.wide)}" alt="{escape(drawn.alt)}">\n</picture>\n'
        f"<figcaption>{escape(drawn.caption)}</figcaption>\n</figure>"
    )


def _slug(i: int) -> str:
    return f"task-{i + 1}"


def _task_tables(one: TaskResults, i: int) -> dict[str, list[Table]]:
    """By heading."""
    slug = _slug(i)
    steps = [tables.steps_table(one, f"{slug}-steps")]
    returns = [
        tables.returns_table(one, f"{slug}-returns"),
        tables.improvement_table(one, f"{slug}-better"),
        tables.reference_table(one, f"{slug}-references") if one.task.published or one.task.anchors else None,
    ]
    return {"Returns": [t for t in returns if t], "Env steps to a return": [t for t in steps if t]}


def _task(one: TaskResults, i: int, drawn: Sequence[Drawn]) -> str:
    found = _task_tables(one, i)
    parts = [f'<section aria-labelledby="{_slug(i)}">', f'<h2 id="{_slug(i)}">{escape(one.task.name)}</h2>']
    parts += [f"<p>{escape(one.task.protocol)}</p>", "<h3>Learning curves</h3>", *map(_figure, drawn)]
    for title, own in found.items():
        if own:
            parts.append(f"<h3>{title}</h3>")
        if own and title != "Returns" and one.threshold:
            parts.append(f"<p>The return to reach is {escape(one.threshold.rule)}.</p>")
        parts += [tables.html(table) for table in own]
    if one.threshold is None:
        parts.append(f"<p>{_NO_THRESHOLD}</p>")
    return "\n".join([*parts, "</section>"])


_NO_THRESHOLD = (
    "Env steps to a return are not told: none is published, random actions were not measured or nothing ended above "
    "them. Give a return with --threshold TASK=VALUE."
)


def _across(several: Sequence[Across], drawn: Sequence[Drawn]) -> str:
    if not several:
        return ""
    parts = ['<section aria-labelledby="across">', '<h2 id="across">All tasks together</h2>']
    parts.append(
        "<p>Returns are normalised by task: uniformly random actions are 0, the published return of OMAD is 1. "
        "Nothing is clipped. Curves are over the env steps that the tasks share.</p>"
    )
    parts += [_figure(one) for one in drawn]
    for i, one in enumerate(several):
        parts.append(tables.html(tables.across_table(one, f"across-{i + 1}")))
        parts += [f"<p>{escape(note)}</p>" for note in one.notes]
    return "\n".join([*parts, "</section>"])


def _section(one: Section, i: int) -> str:
    figure = f'<figure>\n<img src="{escape(one.figure)}" alt="{escape(one.alt)}">\n</figure>' if one.figure else ""
    head = f'<section aria-labelledby="more-{i + 1}">\n<h2 id="more-{i + 1}">{escape(one.title)}</h2>'
    return "\n".join(part for part in (head, _paragraphs(one.text), figure, "</section>") if part)


def _differences(results: Results) -> list[str]:
    """Versions that differ between runs: returns may still be compared, but a reader should know."""
    said = []
    for title, of in (
        ("versions of omad", lambda m: f"{m.get('omad')}, commit {m.get('commit') or 'unknown'}"),
        ("versions of packages", lambda m: ", ".join(f"{k} {v}" for k, v in m.get("packages", {}).items())),
        ("devices", lambda m: str(m.get("device", {}).get("kind"))),
        ("machines", lambda m: str(m.get("machine"))),
    ):
        by_hosted: dict[str, set[str]] = {}
        for run in results.gathered.runs:
            if run.manifest:
                by_hosted.setdefault(run.task if title == "versions of packages" else "", set()).add(of(run.manifest))
        if any(len(values) > 1 for values in by_hosted.values()):
            said.append(title)
    return said


def _made(results: Results, notes: Sequence[str]) -> str:
    parts = [
        '<section aria-labelledby="made">\n<h2 id="made">How this page was made</h2>',
        "<p>Runs (training seeds) are the unit of all statistics; intervals are percentile bootstraps over runs with "
        "95 % nominal coverage, too narrow for few runs. A setting's curve and returns are of its finished runs if "
        "there are two or more, else of all that were evaluated, up to the last step they share. A run that failed "
        "keeps its last return from then on, and counts as not having reached a return it had not reached. For env "
        "steps to a return every run counts.</p>",
        f"<p>All returns are of {escape(results.actions.replace('_', '-'))} actions. Every evaluation episode of "
        "every run is in <code>summary.json</code>, beside this page; from it the page is made again with</p>",
        f"<pre><code>{escape(remake(results))}</code></pre>",
        "<p>The pictures are in <code>figures/</code>, the tables in <code>tables.md</code>, the returns for marl-eval "
        "in <code>marl-eval.json</code>.</p>",
    ]
    if notes:
        parts += ["<p>In <code>marl-eval.json</code>:</p>", _list(notes)]
    return "\n".join([*parts, "</section>"])


def remake(results: Results) -> str:
    """The command that makes the page again; actions and thresholds stand in the summary."""
    return "omad report summary.json --out DIR"


def _list(items: Sequence[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{escape(item)}</li>" for item in items) + "\n</ul>"


def _end_tables(results: Results) -> dict[str, tuple[str, list[Table]]]:
    return {
        "hardware": (
            "Hardware and wall clock",
            [tables.hardware_table(results.gathered.runs, "devices"), tables.time_table(results, "times")],
        ),
        "runs": ("All runs", [tables.runs_table(results, "every-run")]),
    }


def to_html(results: Results, drawn: dict[str, list[Drawn]], notes: Sequence[str]) -> str:
    """The whole page.

    Args:
        results: What it says.
        drawn: Pictures by task name.
        notes: On what the marl-eval export leaves out.
    """
    name = results.gathered.name
    ends = _end_tables(results)
    across = _across(results.across, drawn.get("across", []))
    sections = results.gathered.sections
    links = [("findings", "Findings"), *((_slug(i), one.task.name) for i, one in enumerate(results.tasks))]
    links += [("across", "All tasks together")] if across else []
    links += [(f"more-{i + 1}", one.title) for i, one in enumerate(sections)]
    links += [*((key, title) for key, (title, _) in ends.items()), ("made", "How this page was made")]
    body: list[str] = ['<section aria-labelledby="findings">\n<h2 id="findings">Findings</h2>']
    for task, said in tables.findings(results):
        body += [f"<h3>{escape(task)}</h3>", _list(said)]
    body += [*map(_figure, drawn.get("findings", [])), "</section>"]
    body += [_task(one, i, drawn.get(one.task.name, [])) for i, one in enumerate(results.tasks)]
    body += [across, *(_section(one, i) for i, one in enumerate(sections))]
    for key, (title, own) in ends.items():
        body.append(f'<section aria-labelledby="{key}">\n<h2 id="{key}">{title}</h2>')
        if key == "hardware" and (differ := _differences(results)):
            body.append(f"<p>Runs differ in {', '.join(differ)}.</p>")
        body += [*map(tables.html, own), "</section>"]
    body.append(_made(results, notes))
    menu = "\n".join(f'<li><a href="#{key}">{escape(title)}</a></li>' for key, title in links)
    states = [run.state for run in results.gathered.runs]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    parts: list[Any] = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
        f'<link rel="icon" href="data:,">\n<title>{escape(name)}</title>\n<style>{_CSS}</style>\n</head>\n<body>',
        '<a class="skip" href="#content">Skip to the findings</a>',
        f"<header>\n<h1>{escape(name)}</h1>",
        f'<p class="soft">{len(states)} runs: {escape(counted)}. '
        f"Returns are of {escape(results.actions.replace('_', '-'))} actions.</p>\n</header>",
        f'<nav aria-label="Sections">\n<ul>\n{menu}\n</ul>\n</nav>',
        '<main id="content" tabindex="-1">',
        *filter(None, body),
        '</main>\n<footer>\n<p class="soft">Made by omad report.</p>\n</footer>\n</body>\n</html>\n',
    ]
    return "\n".join(parts)


def to_markdown(results: Results) -> str:
    """All tables."""
    parts = [f"# {markdown(results.gathered.name)}"]
    for i, one in enumerate(results.tasks):
        parts += [f"## {markdown(one.task.name)}", paragraph(one.task.protocol)]
        for own in _task_tables(one, i).values():
            parts += [tables.markdown(table) for table in own]
        parts.append(paragraph(f"The return to reach is {one.threshold.rule}.") if one.threshold else _NO_THRESHOLD)
    if results.across:
        parts.append("## All tasks together")
        for i, one in enumerate(results.across):
            parts += [tables.markdown(tables.across_table(one, f"across-{i + 1}")), *map(paragraph, one.notes)]
    for title, own in _end_tables(results).values():
        parts += [f"## {title}", *map(tables.markdown, own)]
    return "\n\n".join(parts) + "\n"
