"""The report: what it says, that nothing is left out, that it is one readable file, and what it refuses."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import json
import os
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from folders import write_run, write_study

from omad.api import load_run
from omad.cli import main
from omad.commands.report import command_of, write_report
from omad.commands.runs import list_runs
from omad.commands.train import Options, parse
from omad.config import RunConfig, from_dict, resolve
from omad.errors import UserError
from omad.report import page, records, results, stats, survival, tables
from omad.report.alike import NEUTRAL
from omad.report.format import duration, interval, number
from omad.report.marl_eval import export
from omad.report.read import _further, gather
from omad.report.summary import to_json
from omad.run.records import WITHOUT_EFFECT

ENDS = {
    "omad": (-24.0, 15e3),
    "hasac": (-30.0, 25e3),
    "hatd3": (-34.0, 30e3),
    "madpmd": (-38.0, 4e4),
    "masdac": (-32, 3e4),
}
FAILED = "diverged", "study/x: seed 2 met a non-finite number <b>after</b> env step 21000."


def listed() -> list[dict[str, Any]]:
    """Sixty runs: two tasks, five algorithms, two ablations; one failed, one stopped, one is missing."""
    runs: list[dict[str, Any]] = []
    for task, starts, factor in (("mpe/spread-3", -75.0, 1.0), ("mpe/spread-4", -118.0, 2.2)):
        for algorithm, (ends, pace) in ENDS.items():
            one = {"task": task, "algorithm": algorithm, "starts": starts, "ends": factor * ends, "pace": pace}
            runs += [one | {"seed": seed, "setting": "matched"} for seed in range(5)]
    for setting, field in (("2 steps", {"denoising_steps": 2}), ("one <policy> & more", {"share_policy": True})):
        runs += [{"seed": seed, "setting": setting, "ends": -27.0, "pace": 2e4} | field for seed in range(5)]
    runs[7] |= {"absent": True}
    runs[12] |= {"until": 20_000, "ended": FAILED}
    runs[24] |= {"until": 40_000}
    return runs


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_study(tmp_path_factory.mktemp("runs") / "study", listed(), "Sixty runs")
    (root / "sections").mkdir()
    (root / "sections" / "game.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"/>')
    section = {"title": "Modes <kept>", "text": "One.\n\nTwo & three.", "figure": "game.svg", "alt": 'Two "modes"'}
    (root / "sections" / "game.json").write_text(json.dumps(section))
    return root


@pytest.fixture(scope="module")
def report(study: Path) -> Path:
    out = study.parent / "report"
    assert main(["report", str(study), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def text(report: Path) -> str:
    return (report / "index.html").read_text()


@pytest.fixture(scope="module")
def found(study: Path) -> results.Results:
    return results.compute(gather([study], command_of))


VOID = {"meta", "link", "img", "source", "br", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, and the rows of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def html(text: str) -> Page:
    parsed = Page(text)
    assert not parsed.open
    return parsed


# ------------------------------------------------------------------------------------------------ the page


def test_the_page_is_small_and_asks_for_nothing(text: str, html: Page) -> None:
    assert len(text.encode()) < 3_000_000
    assert not html.all("script", "iframe", "object", "embed")
    for _, attributes in html.elements:
        for name in ("src", "href", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), value
    assert "url(" not in text and "@import" not in text and "http://" not in text and "https://" not in text
    assert "default-src 'none'" in text


def test_the_page_can_be_read_by_keyboard_and_by_screen_reader(html: Page) -> None:
    assert html.all("html") == [{"lang": "en"}]
    assert all(len(html.all(tag)) == 1 for tag in ("header", "main", "footer", "nav", "h1", "title"))
    links = [str(attributes["href"]) for attributes in html.all("a")]
    ids = [attributes["id"] for _, attributes in html.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert links[0] == "#content" and {link.removeprefix("#") for link in links} <= set(ids)
    levels = [int(tag[1]) for tag, _ in html.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(image.get("alt") for image in html.all("img"))
    assert len(html.all("table")) == len(html.all("caption"))
    assert all(cell.get("scope") in ("row", "col") for cell in html.all("th"))
    regions = [div for div in html.all("div") if div.get("class") == "scroll"]
    assert len(regions) == len(html.all("table"))
    assert all(region["tabindex"] == "0" and region["role"] == "region" for region in regions)
    assert {str(e["aria-labelledby"]) for _, e in html.elements if "aria-labelledby" in e} <= set(map(str, ids))


def test_every_picture_tells_its_finding_and_lies_beside_the_page(report: Path, html: Page, found: Any) -> None:
    alts = [str(image["alt"]) for image in html.all("img")]
    omad = found.tasks[0].series[0]
    assert any("OMAD, matched ends at " + interval(omad.band.last) in alt
               for alt in alts)  # fmt: skip
    assert 'Two "modes"' in alts
    stems = {path.stem for path in (report / "figures").glob("*.png")}
    assert stems == {path.stem for path in (report / "figures").glob("*.svg")}
    assert len(stems) == len(alts) - 1
    for path in (report / "figures").glob("*.svg"):
        assert set(re.findall(r"https?://[^\s\"]+", path.read_text())) <= {
            "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd"
        }  # fmt: skip


def test_every_run_is_in_the_table_whatever_became_of_it(html: Page, text: str) -> None:
    rows = {row[0]: row for row in html.rows if row[0].startswith("study/")}
    assert len(rows) == 60
    states = [row[5] for row in rows.values()]
    assert states.count("finished") == 57
    assert sum(state.startswith("diverged: study/x: seed 2 met a non-finite") for state in states) == 1
    assert states.count("stopped") == 1
    (missing,) = [row for row in rows.values() if row[5] == "missing"]
    assert missing[1:5] == ["mpe/spread-3", "hasac", "matched", "2"]
    assert "<b>after" not in text and "one <policy>" not in text and "Modes <kept>" not in text


def test_numbers_in_tables_are_those_of_the_statistics(html: Page, report: Path, found: Any) -> None:
    one = found.tasks[0]
    omad = next(s for s in one.series if (s.algorithm, s.setting) == ("omad", "matched"))
    other = next(s for s in one.series if s.algorithm == "madpmd")
    curves = stats.curves([m.evaluations for m in omad.members])
    end = stats.estimate({"mpe/spread-3": stats.final(curves)}, stats.mean)
    area = stats.estimate({"mpe/spread-3": stats.area(curves)}, stats.mean)
    (row,) = [row for row in html.rows if row[0] == "OMAD, matched" and len(row) == 7 and "mpe" not in row[0]][:1]
    assert row[4:6] == [interval(end), interval(area)]
    assert row[6].split("; ")[0] == f"0:\u00a0{curves.values[0, -1]:.2f}".replace("-", "−")
    value = one.threshold
    a, b = (survival.crossings([m.evaluations for m in s.members if m.evaluations], value) for s in (other, omad))
    ratio = survival.steps_ratio(a, b)
    assert [row.ratio for row in one.rows if row.series is other] == [ratio]
    markdown = (report / "tables.md").read_text()
    for said in (row[4], interval(ratio, "×")):
        assert said in markdown and any(said in cells for cells in html.rows)


def test_published_numbers_stand_beside_the_runs_with_their_source(html: Page) -> None:
    assert ["OMAD, published", "−23.90", "arXiv 2602.18291, 5 seeds, through secondary summaries; env version unknown, "
            "this protocol fits"] in html.rows  # fmt: skip
    assert any(row[:1] + row[4:5] == ["OMAD, published", "−23.90 ± 1.10"] for row in html.rows)


def test_tasks_are_put_together_by_normalised_returns(found: Any) -> None:
    (across,) = found.across
    assert across.tasks == ("mpe/spread-3", "mpe/spread-4") and across.setting == "matched"
    assert list(across.finals) == ["omad", "hasac", "hatd3", "madpmd", "masdac"]
    finals = {one.task.name: next(s for s in one.series if s.label.startswith("OMAD")).final for one in found.tasks}
    references = {"mpe/spread-3": (-75.5, -23.9), "mpe/spread-4": (-117.8, -57.9)}
    scores = stats.normalise(finals, references)
    # HASAC lacks a run on one task, so runs are not equally many.
    assert across.statistic == "mean" and across.notes
    assert across.finals["omad"] == stats.estimate(scores, stats.mean)
    assert across.improvements["hatd3"] == stats.probability_of_improvement(scores, across.scores["hatd3"])
    for name in ("omad", "hatd3"):
        series = {one.task.name: next(s for s in one.series if s.algorithm == name) for one in found.tasks}
        areas = {task: stats.area(one.curves) for task, one in series.items()}
        due, area = stats.estimate(stats.normalise(areas, references), stats.mean), across.areas[name]
        assert (area.value, area.low, area.high) == pytest.approx((due.value, due.low, due.high))
        assert area.value < across.finals[name].value
        assert across.bands[name].last.value == pytest.approx(across.finals[name].value)


def test_the_page_is_made_again_from_its_summary(report: Path, tmp_path: Path) -> None:
    assert main(["report", str(report / "summary.json"), "--out", str(tmp_path / "again")]) == 0
    for path in sorted(
        path.relative_to(report) for path in report.rglob("*") if path.suffix in (".html", ".json", ".md", ".svg")
    ):
        assert (tmp_path / "again" / path).read_bytes() == (report / path).read_bytes(), path


def test_the_summary_holds_every_episode(study: Path, report: Path) -> None:
    summary = json.loads((report / "summary.json").read_text())
    assert len(summary["runs"]) == 60
    for run in summary["runs"]:
        path = study.parent / run["folder"] / "episodes.jsonl"
        lines = [json.loads(row) for row in path.read_text().splitlines()] if path.exists() else []
        assert [line["returns"] for line in lines] == [line["returns"] for line in run["episodes"]]
    assert (report / "summary.json").stat().st_size < 3_000_000


def test_the_export_is_that_of_the_statistics(report: Path) -> None:
    """Numbers of runs differ, so every task is exported by itself, without the algorithms that have fewer."""
    found = json.loads((report / "marl-eval.json").read_text())
    assert set(found) == {"mpe/spread-3", "mpe/spread-4"}
    inside = found["mpe/spread-3"]["mpe/spread-3"]
    assert "omad, matched" in inside and "hasac, matched" not in inside
    assert set(inside["omad, matched"]) == {f"run_{i}" for i in range(5)}


def test_numbers_in_words() -> None:
    assert [number(x) for x in (-26.604, 0, 1234.5, float("inf"), float("nan"))] == [
        "−26.60",
        "0.00",
        "1,234",
        "∞",
        "–",
    ]
    assert interval(stats.Estimate(2.0, 1.0, 3.0)) == "2.00 [1.00, 3.00]" and interval(stats.Estimate(2.0)) == "2.00"
    kinds: list[Any] = ["exact", "lower bound", "undefined"]
    found = [stats.Estimate(2.0, 1.5, float("inf"), kind) for kind in kinds]
    assert [interval(one, "×") for one in found] == ["2.00× [1.50, ∞]", "at least 2.00× [1.50, ∞]", "not known"]
    assert [duration(s) for s in (None, 59.6, 60, 3720)] == ["–", "60 s", "1 min", "1 h 02 min"]


# ------------------------------------------------------------------------------------------------ what counts


def spread(root: Path, name: str, **given: Any) -> Path:
    return write_run(root / name, **given)


def compute(*paths: Path, **given: Any) -> results.Results:
    return results.compute(gather(paths, command_of), **given)


def test_settings_are_told_apart_by_the_fields_that_differ(tmp_path: Path) -> None:
    for seed in (0, 1):
        spread(tmp_path, f"a{seed}", seed=seed)
        spread(tmp_path, f"b{seed}", seed=seed, denoising_steps=4, log_every=500)
        spread(tmp_path, f"c{seed}", seed=seed, algorithm="hasac")
    labels = [(s.algorithm, s.setting, s.label, len(s.used)) for s in compute(tmp_path).tasks[0].series]
    assert sorted(labels) == [
        ("hasac", "matched", "HASAC, matched", 2),
        ("omad", "matched, denoising_steps=4", "OMAD, matched, denoising_steps=4", 2),
        ("omad", "matched, denoising_steps=8", "OMAD, matched, denoising_steps=8", 2),
    ]


def test_a_failed_run_keeps_its_last_return_and_does_not_arrive_later(tmp_path: Path) -> None:
    for seed in (0, 1):
        spread(tmp_path, str(seed), seed=seed)
    spread(tmp_path, "2", seed=2, until=20_000, ended=("diverged", "a number was not finite"))
    spread(tmp_path, "3", seed=3, until=0, ended=("diverged", "a number was not finite"))
    spread(tmp_path, "4", seed=4, until=30_000)
    (task,) = compute(tmp_path, thresholds={"mpe/spread-3": -40.0}).tasks
    (series,) = task.series
    assert [member.seed for member in series.used] == [0, 1, 2, 3]
    assert series.final[3] == pytest.approx(-75.5), "never evaluated: as good as random actions"
    assert series.curves is not None and series.curves.steps[-1] == 60_000
    evaluations = series.members[2].evaluations
    assert evaluations is not None and series.final[2] == pytest.approx(np.mean(evaluations.returns[-1]))
    assert task.threshold is not None
    crossings = task.rows[0].crossings
    assert crossings is not None
    assert crossings.reached.count(False) >= 2
    assert sorted(s for s, r in zip(crossings.steps, crossings.reached, strict=True) if not r)[-2:] == [60_000, 60_000]
    assert "4 of 5, 2 diverged, 1 stopped" in tables.returns_table(task, "t").rows[0]


def test_many_settings_are_drawn_in_several_pictures(tmp_path: Path) -> None:
    """What algorithms share first; then one algorithm's own settings, each time beside the shared one."""
    runs = [{"algorithm": name, "setting": "matched"} for name in ENDS]
    runs += [{"setting": f"gamma {i}", "gamma": 0.9 + i / 100} for i in range(9)]
    (task,) = compute(write_study(tmp_path / "s", runs)).tasks
    assert [(panel.title, len(panel.series)) for panel in task.panels] == [
        ("setting matched", 5), ("settings of OMAD, 1 of 2", 6), ("settings of OMAD, 2 of 2", 5)
    ]  # fmt: skip
    assert {panel.series[0].label for panel in task.panels} == {"OMAD, matched"}


def test_the_return_to_reach_is_the_published_one_where_half_of_omad_reaches_it(tmp_path: Path) -> None:
    for seed in (0, 1):
        spread(tmp_path / "good", str(seed), seed=seed, ends=-22.0, pace=9e3)
        spread(tmp_path / "bad", str(seed), seed=seed, ends=-40.0, pace=9e3)
    thresholds = [compute(tmp_path / name).tasks[0] for name in ("good", "bad")]
    assert thresholds[0].threshold == -23.9
    final = compute(tmp_path / "bad").tasks[0].series[0].final.mean()
    assert thresholds[1].threshold == pytest.approx((-75.5 + final) / 2)
    assert "fixed after the runs" in thresholds[1].rule


def test_a_threshold_fixed_in_a_study_is_kept_and_used_for_ratios_over_all_tasks(tmp_path: Path) -> None:
    """The other needs over 2.5 times the env steps on one task, fewer on the second, and never arrives on the third."""
    paces = {"mpe/spread-3": (5e3, 2e4), "mpe/spread-4": (2e4, 1e4), "mpe/spread-5": (5e3, 9e5)}
    runs = [
        {"task": task, "algorithm": name, "seed": seed, "setting": "x", "pace": pace, "noise": 0.1, "every": 1_000}
        for task, both in paces.items()
        for name, pace in zip(("omad", "hasac"), both, strict=True)
        for seed in range(3)
    ]
    study = write_study(tmp_path / "s", runs)
    listed, fixed = json.loads((study / "study.json").read_text()), dict.fromkeys(paces, -50.0)
    (study / "study.json").write_text(json.dumps(listed | {"thresholds": fixed}))
    gathered = gather([study], command_of)
    found = results.compute(gathered)
    assert [(one.threshold, one.rule) for one in found.tasks] == [(-50.0, "fixed in the study")] * 3
    (one,) = found.comparisons
    assert (one.above(1.0), one.above(2.5), one.below(1.0)) == ((2, 2), (2, 2), (1, 1))
    assert (
        one.ratio.kind == "lower bound"
        and one.better is not None
        and one.better.value == pytest.approx(2 / 3, abs=0.34)
    )
    said = page.to_markdown(found)
    assert "HASAC, x: env steps to the threshold over those of OMAD are above 1 on 2 of 3 tasks, above 2.5 on 2" in said
    assert interval(one.ratio, "×") in said
    (tmp_path / "summary.json").write_bytes(b"".join(to_json(gathered, found.options)))
    again = gather([tmp_path / "summary.json"], command_of)
    assert again.options["study_thresholds"] == fixed
    assert page.to_markdown(results.compute(again)) == said
    assert results.compute(again, {"mpe/spread-3": -45.0}).tasks[0].rule == "given with --threshold"


def test_studies_below_one_folder_must_fix_one_return_a_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed, fixed in (("s0", 0, -35.0), ("s1", 1, -20.0)):
        study = write_study(tmp_path / "all" / name, [{"seed": seed, "setting": "x"}], name)
        listed = json.loads((study / "study.json").read_text())
        (study / "study.json").write_text(json.dumps(listed | {"thresholds": {"mpe/spread-3": fixed}}))
    said = refused(capsys, tmp_path / "all", "--out", tmp_path / "out")
    assert "the return to reach on mpe/spread-3 is -35, and -20 in" in said and "s1/study.json" in said
    given = ("--threshold", "mpe/spread-3=-30")
    assert main(["report", str(tmp_path / "all"), "--out", str(tmp_path / "out"), *given]) == 0


def test_any_algorithm_may_be_the_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        spread(tmp_path / "runs", f"o{seed}", seed=seed, pace=1e4)
        spread(tmp_path / "runs", f"h{seed}", seed=seed, algorithm="hasac", pace=2e4)
    both = [compute(tmp_path / "runs", thresholds={"mpe/spread-3": -40.0}, baseline=name) for name in ("omad", "hasac")]
    ratios = [next(row.ratio for row in found.tasks[0].rows if row.ratio) for found in both]
    assert ratios[0] and ratios[1] and ratios[0].value == pytest.approx(1 / ratios[1].value) and ratios[0].value > 1
    assert both[1].tasks[0].series[0].algorithm == "hasac"
    assert "OMAD needs" in page.to_html(both[1], {}, [])
    message = refused(capsys, tmp_path / "runs", "--out", tmp_path / "out", "--baseline", "masdac")
    assert "--baseline is 'masdac'; the runs are of hasac, omad." in message


def test_one_run_is_shown_without_an_interval(tmp_path: Path) -> None:
    spread(tmp_path, "a", seeds=1)
    spread(tmp_path, "b", algorithm="hasac", pace=5e4)
    found = compute(tmp_path, thresholds={"mpe/spread-3": -50.0})
    rows = tables.returns_table(found.tasks[0], "t").rows
    assert "[" not in rows[0][4] + rows[0][5]
    assert found.tasks[0].threshold is not None
    ratio = found.tasks[0].rows[1].ratio
    assert ratio is not None and ratio.kind == "exact" and ratio.value > 1 and np.isnan(ratio.low)
    assert "the ratio" not in tables.findings(found.tasks[0], "omad")[2]


def test_a_run_of_several_seeds_counts_as_that_many(tmp_path: Path) -> None:
    spread(tmp_path, "run", seeds=3, seed=4)
    (task,) = compute(tmp_path / "run").tasks
    assert [member.seed for member in task.series[0].used] == [4, 5, 6]


def test_a_task_without_known_returns_has_no_threshold(tmp_path: Path) -> None:
    spread(tmp_path, "run", task="pettingzoo:package.module:factory", seeds=2)
    found = compute(tmp_path)
    assert found.tasks[0].threshold is None
    assert "--threshold TASK=VALUE" in page.to_html(found, {}, [])


def test_noise_free_actions_on_request(tmp_path: Path) -> None:
    spread(tmp_path, "run", seeds=2)
    both = [compute(tmp_path, actions=kind).tasks[0].series[0].final.mean() for kind in ("sampled", "noise_free")]
    assert both[0] < both[1]


def test_pauses_are_not_training_time(tmp_path: Path) -> None:
    path = spread(tmp_path, "run")
    lines = [json.loads(row) for row in (path / "metrics.jsonl").read_text().splitlines()]
    for line in lines[10:]:
        line["time/unix_s"] += 50_000
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert gather([path], command_of).runs[0].train_s == pytest.approx(580)


def test_evaluations_and_slow_learning_are_training_time(tmp_path: Path) -> None:
    """Random actions are quicker than learning, and intervals with an evaluation longer than those without."""
    path = spread(tmp_path, "run", warmup_steps=12_000)
    lines = [json.loads(row) for row in (path / "metrics.jsonl").read_text().splitlines()]
    clock, passed = 0.0, []
    for line in lines:
        before = line["step"] - 2_000
        passed.append(1.0 if line["step"] <= 12_000 else 900.0 if before % 10_000 == 0 else 60.0)
        clock += passed[-1]
        line["time/unix_s"] = clock
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert gather([path], command_of).runs[0].train_s == pytest.approx(sum(passed[1:]))
    for line in lines[21:]:  # a pause in one of a few intervals with an evaluation
        line["time/unix_s"] += 50_000
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:25]))
    assert gather([path], command_of).runs[0].train_s == pytest.approx(sum(passed[1:25]), rel=0.05)


def test_metrics_of_older_runs_have_the_names_of_today(tmp_path: Path) -> None:
    path = spread(tmp_path, "run")
    lines = [json.loads(row) for row in (path / "metrics.jsonl").read_text().splitlines()]
    for i, name in enumerate(("policy/update_share", "policy/update_fraction", "policy/effective_share")):
        lines[i][name] = 0.25
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = load_run(path).metrics()
    assert found["policy/update_fraction"][0, :3].tolist() == pytest.approx([0.25, 0.25, np.nan], nan_ok=True)
    assert "policy/ess_fraction" in found and not [name for name in found if name.endswith("_share")]


def test_a_note_does_not_tell_where_the_folders_lie(tmp_path: Path) -> None:
    spread(tmp_path / "runs", "a", until=20_000, ended=("diverged", f"{tmp_path}/runs/a: seed 0 met it."))
    (run,) = gather([tmp_path / "runs"], command_of).runs
    assert (run.folder, run.state, run.note) == ("runs/a", "diverged", "runs/a: seed 0 met it.")


@pytest.mark.parametrize(
    ("ended", "state"),
    [
        (None, "stopped"),
        (("diverged", "seed 0 met a number that is not finite"), "diverged"),
        (("broken", "MemoryError: too much"), "broken"),
    ],
)
def test_a_failure_is_told_from_a_stop(tmp_path: Path, ended: tuple[str, str] | None, state: str) -> None:
    (run,) = gather([spread(tmp_path, "a", until=20_000, ended=ended)], command_of).runs
    assert (run.state, run.note) == (state, ended[1] if ended else "")


def test_a_run_that_something_else_broke_is_no_failure_of_its_algorithm(tmp_path: Path) -> None:
    """It counts as one that was stopped."""
    for seed in (0, 1):
        spread(tmp_path, str(seed), seed=seed)
    spread(tmp_path, "2", seed=2, until=20_000, ended=("broken", "OSError: the disk is full"))
    (task,) = compute(tmp_path, thresholds={"mpe/spread-3": -30.0}).tasks
    assert [member.seed for member in task.series[0].used] == [0, 1]
    assert task.threshold is not None and (found := task.rows[0].crossings) is not None and found.steps[2] == 20_000


def test_a_failed_run_of_which_nothing_is_known_is_said_to_be_missing(tmp_path: Path) -> None:
    name = "pettingzoo:package.module:factory"
    for seed in (0, 1):
        spread(tmp_path, str(seed), seed=seed, task=name)
    spread(tmp_path, "2", seed=2, until=0, task=name, ended=("diverged", "a number was not finite"))
    (task,) = compute(tmp_path).tasks
    counted = tables.returns_table(task, "t").rows[0][1]
    assert counted == "2 of 3, 1 diverged, 1 diverged before any evaluation and not in these numbers"


def test_runs_of_unequal_length_are_compared_where_both_have_been(tmp_path: Path) -> None:
    """Equal runs, but those of one algorithm were stopped early: neither is better, however much longer one is."""
    for seed in range(3):
        spread(tmp_path, f"o{seed}", seed=seed, noise=0.0)
        spread(tmp_path, f"h{seed}", seed=seed, algorithm="hasac", noise=0.0, until=20_000)
        spread(tmp_path, f"p{seed}", task="mpe/spread-4", seed=seed, noise=0.0)
        spread(tmp_path, f"q{seed}", task="mpe/spread-4", seed=seed, algorithm="hasac", noise=0.0)
    found = compute(tmp_path)
    (better,) = [row for row in found.tasks[0].rows if row.better]
    ours, others = (series.curves for series in found.tasks[0].series)
    assert ours is not None and others is not None and ours.steps[-1] == 60_000
    assert better.step == others.steps[-1] == 20_000
    shared = ours.values[:, ours.steps.tolist().index(20_000)]
    assert better.better == stats.probability_of_improvement({"t": shared}, {"t": others.values[:, -1]})
    assert tables.improvement_table(found.tasks[0], "t").rows[0][1] == "20,000"  # type: ignore[union-attr]
    (across,) = found.across
    assert across.ends == {"mpe/spread-3": 20_000, "mpe/spread-4": 60_000}
    low, high = -75.5, -23.9
    assert list(across.scores["omad"]["mpe/spread-3"]) == pytest.approx(list((shared - low) / (high - low)))
    assert "20,000 on mpe/spread-3" in tables.across_table(across, "t").caption


def test_what_cannot_be_read_is_listed(tmp_path: Path) -> None:
    spread(tmp_path, "a")
    path = spread(tmp_path, "b", seed=1)
    (path / "manifest.json").write_text('{"format": 99}')
    assert [run.state for run in gather([tmp_path], command_of).runs] == ["finished", "unreadable"]
    assert len(compute(tmp_path).tasks[0].series[0].used) == 1


def test_an_algorithm_whose_runs_all_diverge_is_compared_where_the_others_end(tmp_path: Path) -> None:
    """And drags none of them to where it died."""
    for task in ("mpe/spread-3", "mpe/spread-4"):
        for seed in (0, 1):
            at = {"task": task, "seed": seed, "noise": 0.0}
            spread(tmp_path, f"o{task[-1]}{seed}", **at)
            spread(tmp_path, f"t{task[-1]}{seed}", algorithm="hatd3", ends=-60.0, **at)
            ended = ("diverged", "a number was not finite")
            spread(tmp_path, f"h{task[-1]}{seed}", algorithm="hasac", until=10_000, ended=ended, **at)
    found = compute(tmp_path)
    (row,) = [row for row in found.tasks[0].rows if row.series.algorithm == "hasac"]
    assert row.step == 60_000 and row.better is not None and row.better.value == 1
    (across,) = found.across
    assert across.ends == {"mpe/spread-3": 60_000, "mpe/spread-4": 60_000}
    assert across.improvements["hatd3"].value == across.improvements["hasac"].value == 1


def test_one_seed_that_diverged_does_not_make_failures_of_the_others_of_its_run(tmp_path: Path) -> None:
    ended = ("diverged", "seed 2 met a non-finite number", [2])
    (run,) = gather([spread(tmp_path, "a", seeds=3, until=30_000, ended=ended)], command_of).runs
    assert (run.state, run.diverged) == ("diverged", (2,))
    (task,) = compute(tmp_path / "a", thresholds={"mpe/spread-3": 0.0}).tasks
    assert [member.state for member in task.series[0].members] == ["stopped", "stopped", "diverged"]
    crossings = task.rows[0].crossings
    assert crossings is not None and crossings.steps == (30_000, 30_000, 60_000)
    assert "3, 2 stopped, 1 diverged" in tables.returns_table(task, "t").rows[0]
    whole = json.loads(b"".join(to_json(gather([tmp_path / "a"], command_of), records.Options("sampled", {}))))
    whole["runs"][0]["diverged"] = [7]
    (tmp_path / "summary.json").write_text(json.dumps(whole, separators=(",", ":")))
    with pytest.raises(UserError, match=r"diverged is \[7\]; the run has the seeds \[0, 1, 2\]"):
        gather([tmp_path / "summary.json"], command_of)


def test_of_a_run_that_diverged_no_seed_is_left_out(tmp_path: Path) -> None:
    """Also beside one that finished: those that diverged alone would be taken for all."""
    spread(tmp_path, "a", seeds=3, until=30_000, ended=("diverged", "seed 2 met a non-finite number", [2]))
    spread(tmp_path, "b", seed=3)
    (series,) = compute(tmp_path).tasks[0].series
    assert [member.seed for member in series.used] == [0, 1, 2, 3]
    assert series.curves is not None and series.curves.steps[-1] == 30_000


@pytest.mark.parametrize(
    ("reason", "judged"),
    [
        ("EarlyStopping: the return -20 has reached the target -20", "target"),
        ("EarlyStopping: no return above -20 in 5 evaluations", "plateau"),
        ("TimeLimit: 60 s are over", ""),
    ],
)
def test_runs_that_were_stopped_for_their_returns_count_as_ended(tmp_path: Path, reason: str, judged: str) -> None:
    """Without those that reached a target the rest would be worse than all are; a time limit knows nothing of it.

    Only of those that rose no more is it known that they reach nothing further.
    """
    stops = {"stops": [{"env_steps": 30_000, "reason": reason}]}
    for seed in (0, 1, 2):
        spread(tmp_path, f"{seed}", seed=seed, until=30_000, ends=-15.0, pace=1e3, manifest=stops)
    for seed in (3, 4):
        spread(tmp_path, f"{seed}", seed=seed, ends=-60.0)
    gathered = gather([tmp_path], command_of)
    assert [(run.state, run.judged, run.note) for run in gathered.runs][:1] == [("stopped", judged, reason)]
    (task,) = results.compute(gathered, {"mpe/spread-3": 0.0}).tasks
    (series,) = task.series
    assert [member.seed for member in series.used] == ([0, 1, 2, 3, 4] if judged else [3, 4])
    crossings = task.rows[0].crossings
    assert series.curves is not None and series.curves.steps[-1] == 60_000 and crossings is not None
    assert crossings.steps == ((60_000,) * 5 if judged == "plateau" else (30_000,) * 3 + (60_000,) * 2)
    assert "5, 3 stopped" in tables.returns_table(task, "t").rows[0] or not judged
    stops["stops"][0]["env_steps"] = 20_000  # it was resumed since
    spread(tmp_path, "5", seed=5, until=30_000, manifest=stops)
    assert not gather([tmp_path / "5"], command_of).runs[0].judged


def test_two_runs_of_one_name_are_not_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that diverged at once does not vanish in one that went on, nor one of another task."""
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"until": 0, "ended": ("diverged", "a number was not finite")}, {}),
        ({"until": 0, "task": "mpe/spread-3?dynamics=v2"}, {}),
        ({"until": 0, "preset": "cpu"}, {"preset": "matched"}),
    ]
    for i, (one, other) in enumerate(cases):
        paths = spread(tmp_path, f"{i}/a/seed-0", **one), spread(tmp_path, f"{i}/b/seed-0", **other)
        assert "Two runs are called seed-0" in refused(capsys, *paths, "--out", tmp_path / "out")


def test_a_run_that_failed_and_went_on_is_one_run(tmp_path: Path) -> None:
    """Its summary of then and its folder of today: resuming ends what made it a failure."""
    early = spread(tmp_path, "then/a", until=20_000, ended=("diverged", "a number was not finite"), noise=0.0)
    summary = tmp_path / "summary.json"
    summary.write_bytes(b"".join(to_json(gather([early], command_of), records.Options("sampled", {}))))
    today = spread(tmp_path, "today/a", noise=0.0)
    kept = (early / "episodes.jsonl").read_text().splitlines(keepends=True)
    rest = (today / "episodes.jsonl").read_text().splitlines(keepends=True)
    (today / "episodes.jsonl").write_text("".join(kept + rest[len(kept) :]))
    for paths in ((summary, today), (today, summary)):
        assert [run.state for run in gather(paths, command_of).runs] == ["finished"]


def test_settings_that_no_study_names_are_named_anew_with_other_runs(tmp_path: Path) -> None:
    def summarised(name: str, *seeds: int, **given: Any) -> Path:
        for seed in seeds:
            spread(tmp_path, f"{name}/{name}{seed}", seed=seed, **given)
        path = tmp_path / f"{name}.json"
        path.write_bytes(b"".join(to_json(gather([tmp_path / name], command_of), records.Options("sampled", {}))))
        return path

    four, eight = summarised("four", 0, 1, denoising_steps=4), summarised("eight", 0, 1, denoising_steps=8)
    new = [spread(tmp_path, f"new/{seed}", seed=seed, denoising_steps=4) for seed in (2, 3)]
    (task,) = compute(four, eight, *new).tasks
    found = {one.setting: [member.seed for member in one.members] for one in task.series}
    assert found == {"matched, denoising_steps=4": [0, 1, 2, 3], "matched, denoising_steps=8": [0, 1]}
    with pytest.raises(UserError, match="seed 0 of omad on mpe/spread-3 is in"):
        compute(four, spread(tmp_path, "copy", seed=0, denoising_steps=4))


def test_where_files_lie_makes_no_setting(tmp_path: Path) -> None:
    """Seeds that start from their own seeds of one run are one setting, as are those of one file at two places."""
    digests = {"demonstrations": "12345678" * 8}
    for seed in (0, 1):
        start, file = f"/runs/pre/seed-{seed}", f"/{seed}/d.npz"
        spread(tmp_path, f"{seed}", seed=seed, init_from=start, demonstrations=file, manifest=digests)
    (series,) = compute(tmp_path).tasks[0].series
    assert len(series.used) == 2
    other = {"demonstrations": "9" * 64}
    spread(tmp_path, "2", seed=2, init_from="/runs/pre@3", demonstrations="/d.npz", manifest=other)
    spread(tmp_path, "3", seed=3, init_from="/other/pre", demonstrations="/d.npz", manifest=other)
    labels = sorted(one.setting for one in compute(tmp_path).tasks[0].series)
    assert labels == [
        "matched, demonstrations=123456781234, init_from=/runs/pre",
        "matched, demonstrations=999999999999, init_from=/other/pre",
        "matched, demonstrations=999999999999, init_from=/runs/pre",
    ]


def test_what_summaries_say_differently_must_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def summary(name: str, options: records.Options, **given: Any) -> Path:
        path = tmp_path / f"{name}.json"
        gathered = gather([spread(tmp_path, name, **given)], command_of)
        path.write_bytes(b"".join(to_json(gathered, options)))
        return path

    one = summary("one", records.Options("sampled", {"mpe/spread-3": -50.0}))
    other = summary("other", records.Options("sampled", {"mpe/spread-4": -44.0}), task="mpe/spread-4")
    assert compute(one, other).options.thresholds == {"mpe/spread-3": -50.0, "mpe/spread-4": -44.0}
    study = records.Options("sampled", {}, {"mpe/spread-3": -40.0}, baseline="hasac")
    third = summary("third", study, seed=1)
    said = refused(capsys, one, third, "--out", tmp_path / "out")
    assert "the return to reach on mpe/spread-3 is -50, and -40 in" in said and "baseline is 'omad'" in said
    found = write_report([one, third], tmp_path / "out", {"mpe/spread-3": -45.0}, baseline="omad")
    assert "a return of −45.00" in found.read_text()


def test_a_summary_with_a_task_that_is_not_known_here_is_shown(tmp_path: Path) -> None:
    """As of an env that was registered where it was trained."""
    spread(tmp_path, "runs/a")
    spread(tmp_path, "runs/b", seed=1)
    text = b"".join(to_json(gather([tmp_path / "runs"], command_of), records.Options("sampled", {})))
    (tmp_path / "summary.json").write_bytes(text.replace(b"mpe/spread-3", b"my/env"))
    (task,) = compute(tmp_path / "summary.json", spread(tmp_path, "c")).tasks[:1]
    assert task.task.name == "my/env" and len(task.series[0].used) == 2 and task.threshold is None


def test_a_lone_configuration_is_no_run(tmp_path: Path) -> None:
    path = spread(tmp_path, "a")
    for name in ("export", ".git"):
        (path / name).mkdir()
        (path / name / "config.json").write_text("{}")
    assert [run.folder for run in gather([tmp_path], command_of).runs] == [f"{tmp_path.name}/a"]
    assert len(list_runs(tmp_path)[0]) == 1


def test_returns_that_were_carried_on_are_noted_for_marl_eval(tmp_path: Path) -> None:
    spread(tmp_path, "a")
    spread(tmp_path, "b", seed=1, until=20_000, ended=("diverged", "a number was not finite"))
    spread(tmp_path, "c", seed=2, until=0, ended=("diverged", "a number was not finite"))
    notes = export(compute(tmp_path))[1]
    assert len(notes) == 2 and "seed 1: its last returns stand at 30,000 to 60,000 env steps" in notes[0]
    assert "seed 2: the returns of random actions stand" in notes[1]


def test_that_nothing_is_compared_for_want_of_a_common_step_is_said(tmp_path: Path) -> None:
    for seed in (0, 1):
        spread(tmp_path, f"o{seed}", seed=seed, every=10_000)
        spread(tmp_path, f"h{seed}", seed=seed, algorithm="hasac", every=7_000, total_steps=56_000)
    assert "HASAC and OMAD are not compared: no env step is common" in page.to_markdown(compute(tmp_path))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0034, "0.0034"), (-0.001, "−0.001"), (999.996, "1,000"), (0, "0.00"), (0.5, "0.50"), (-1234.5, "−1,234")],
)
def test_small_numbers_keep_their_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_seeds_that_others_of_their_run_have_stopped_still_count(tmp_path: Path) -> None:
    """Else a setting would be judged by those that diverged alone."""
    spread(tmp_path, "a", seeds=5, until=30_000, ended=("diverged", "two seeds met a non-finite number", [3, 4]))
    (task,) = compute(tmp_path / "a").tasks
    assert [member.seed for member in task.series[0].used] == [0, 1, 2, 3, 4]
    assert "5, 3 stopped, 2 diverged" in tables.returns_table(task, "t").rows[0]


def test_a_task_without_a_common_step_is_left_out_of_what_is_compared(tmp_path: Path) -> None:
    for seed in (0, 1):
        for task, every in (("mpe/spread-3", 7_000), ("mpe/spread-4", 10_000)):
            spread(tmp_path, f"o{task[-1]}{seed}", seed=seed, task=task)
            spread(tmp_path, f"h{task[-1]}{seed}", seed=seed, task=task, algorithm="hasac", every=every, until=50_000)
    (across,) = compute(tmp_path).across
    assert across.ends == {"mpe/spread-4": 50_000}
    runs = [{"mpe/spread-4": across.scores[name]["mpe/spread-4"]} for name in ("omad", "hasac")]
    assert across.improvements["hasac"] == stats.probability_of_improvement(*runs)
    assert "each algorithm is taken at its own end" in across.notes[0]
    caption = tables.across_table(across, "t").caption
    assert "up to one env step: 50,000 on mpe/spread-4." in caption and "on mpe/spread-3" not in caption


@pytest.mark.parametrize("extra", ["omad", "masdac"])
def test_a_task_that_one_algorithm_has_alone_hides_no_comparison(tmp_path: Path, extra: str) -> None:
    for seed in (0, 1):
        for task in ("mpe/spread-3", "mpe/spread-4"):
            for name in ("omad", "hasac"):
                spread(tmp_path, f"{name}{task[-1]}{seed}", seed=seed, task=task, algorithm=name)
    (before,) = compute(tmp_path).across
    for seed in (0, 1):
        spread(tmp_path, f"{extra}2{seed}", seed=seed, task="mpe/deception-2", algorithm=extra)
    (across,) = compute(tmp_path).across
    assert across.tasks == before.tasks and across.improvements == before.improvements
    assert across.notes[0] == "mpe/deception-2 left out: too few algorithms have runs there."


def test_an_algorithm_with_single_runs_takes_nothing_from_the_others(tmp_path: Path) -> None:
    for task in ("mpe/spread-3", "mpe/spread-4"):
        for name, seeds in (("omad", (0, 1)), ("hasac", (0, 1)), ("hatd3", (0,))):
            for seed in seeds:
                spread(tmp_path, f"{name}{task[-1]}{seed}", seed=seed, task=task, algorithm=name)
    (across,) = compute(tmp_path).across
    assert set(across.improvements) == {"hasac"}
    assert set(across.bands) == set(across.profiles) == {"omad", "hasac"} and "hatd3" in across.finals


def test_of_a_summary_and_its_folder_the_folder_says_how_a_run_ended_and_how_long_it_is(tmp_path: Path) -> None:
    def summarised(name: str, **fields: Any) -> tuple[Path, Path]:
        path = spread(tmp_path, f"{name}/a", **fields)
        summary = tmp_path / f"{name}.json"
        summary.write_bytes(b"".join(to_json(gather([path], command_of), records.Options("sampled", {}))))
        return path, summary

    path, summary = summarised("stopped", until=20_000)
    (path / "ended.json").write_text('{"how": "diverged", "words": "it diverged"}')
    for paths in ((path, summary), (summary, path)):
        assert [run.state for run in gather(paths, command_of).runs] == ["diverged"]
    path, summary = summarised("long", total_steps=20_000, buffer_size=60_000, noise=0.0)
    longer = spread(tmp_path, "longer/a", total_steps=60_000, buffer_size=60_000, noise=0.0)
    episodes = (path / "episodes.jsonl").read_text() + "".join(
        line + "\n"
        for line in (longer / "episodes.jsonl").read_text().splitlines()
        if json.loads(line)["step"] > 20_000
    )
    (longer / "episodes.jsonl").write_text(episodes)
    for paths in ((longer, summary), (summary, longer)):
        assert [run.total_steps for run in gather(paths, command_of).runs] == [60_000]


def test_runs_that_share_no_step_make_a_page_that_says_so(tmp_path: Path) -> None:
    spread(tmp_path, "runs/a", until=7_000, every=7_000)
    spread(tmp_path, "runs/b", seed=1, until=10_000)
    page = write_report([tmp_path / "runs"], tmp_path / "out", {})
    assert "share no env step at which all were evaluated" in page.read_text()
    assert "none that all share" in page.read_text()


def test_what_is_left_without_evaluations_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = spread(tmp_path, "b")
    (path / "manifest.json").write_text('{"format": 99}')
    said = refused(capsys, path, "--out", tmp_path / "out")
    assert "None of the 1 runs (1 unreadable)" in said and "format 99" in said


def test_links_and_closed_folders_are_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spread(tmp_path, "runs/a")
    (tmp_path / "runs" / "b").symlink_to(spread(tmp_path, "elsewhere/b", seed=1))
    (tmp_path / "runs" / "latest").symlink_to(tmp_path / "runs" / "a")
    (tmp_path / "runs" / "closed").mkdir()
    scandir = os.scandir

    def closed(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    found = {run.folder: (run.state, run.note) for run in gather([tmp_path / "runs"], command_of).runs}
    assert found["runs/a"] == ("finished", "") and set(found) == {"runs/a", "runs/b", "runs/closed"}
    assert found["runs/b"][0] == "unreadable" and "give the folder that it leads to" in found["runs/b"][1]
    assert found["runs/closed"] == ("unreadable", "it cannot be read: Permission denied")
    rows, damaged = list_runs(tmp_path / "runs")
    assert len(rows) == 1 and damaged == [f"{tmp_path / 'runs' / 'closed'}: Permission denied"]


def test_whether_noise_free_actions_are_evaluated_tells_no_settings_apart(tmp_path: Path) -> None:
    for seed in (0, 1):
        spread(tmp_path, f"a{seed}", seed=seed, eval_noise_free=bool(seed))
    (series,) = compute(tmp_path).tasks[0].series
    assert len(series.used) == 2


def test_what_is_said_where_the_baseline_is_not_there(tmp_path: Path) -> None:
    for seed in (0, 1):
        for name in ("hasac", "hatd3"):
            spread(tmp_path, f"{name}{seed}", seed=seed, algorithm=name)
    (task,) = compute(tmp_path).tasks
    assert "there is no run of OMAD" in task.rule
    assert any("Nothing is compared" in words and "--baseline" in words for words in tables.findings(task, "omad"))


def test_a_threshold_is_known_by_any_spelling_of_its_task_and_kept_by_a_summary(tmp_path: Path) -> None:
    run = spread(tmp_path, "run", task="mpe/deception-2?adversary=static&state=full")
    (task,) = compute(run, thresholds={"mpe/deception-2?state=full&adversary=static": 3.0}).tasks
    assert task.threshold == 3.0
    other = {"mpe/spread-3": -40.0}
    gathered = dataclasses.replace(gather([run], command_of), options={"thresholds": other})
    assert results.compute(gathered).options.thresholds == other


def test_time_of_all_runs_is_of_all_runs(tmp_path: Path) -> None:
    """Also of those whose task has no evaluation yet."""
    spread(tmp_path, "a")
    spread(tmp_path, "b", task="mpe/spread-4", until=8_000)
    spent = [run.train_s or 0.0 for run in gather([tmp_path], command_of).runs]
    assert tables.time_table(compute(tmp_path), "t").rows[-1][:3] == ("all", "2", duration(sum(spent)))


# ------------------------------------------------------------------------------------------------ commands


@pytest.mark.parametrize(
    "config",
    [
        resolve(),
        resolve("mpe/deception-2?adversary=static&state=true", "hasac", "matched", first_seed=3, seeds=2),
        resolve("mpe/spread-3", "omad", "cpu", share_policy=False, alpha_mode="fixed", alpha_init=1e-3),
        resolve("mpe/spread-4", "omad", "paper", total_steps=40_000, v_max=125.5),
        resolve("mpe/spread-3", "masdac", "cpu", total_steps=300_000, buffer_size=100_000, obs_norm="running"),
    ],
)  # fmt: skip
def test_the_command_gives_the_configuration_back(config: RunConfig) -> None:
    words = shlex.split(command_of(config))
    assert words[:2] == ["omad", "train"]
    assert parse(words[2:], "omad train", Options())[0] == config


def test_commands_name_what_differs_from_the_preset_and_no_more() -> None:
    assert command_of(resolve("mpe/spread-3", "omad", "matched", total_steps=150_000, first_seed=2)) == (
        "omad train omad --task mpe/spread-3 --preset matched --first-seed 2 --total-steps 150000"
    )


def test_commands_on_the_page_are_those_of_the_runs(report: Path, html: Page) -> None:
    shown = {row[0]: row[9] for row in html.rows if row[0].startswith("study/")}
    runs = json.loads((report / "summary.json").read_text())["runs"]
    for run in runs:
        if run["config"]:
            assert shown[run["folder"]] == command_of(from_dict(run["config"])) != ""
    for run in (runs[0], runs[-1]):
        assert parse(shlex.split(shown[run["folder"]])[2:], "omad train", Options())[0] == from_dict(run["config"])


# ------------------------------------------------------------------------------------------------ refusals


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What the command line says; one sentence or a few, on one line, with exit code 2."""
    assert main(["report", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("omad: ") and captured.err.count("\n") == 1 and captured.out == ""
    return captured.err


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"episodes": 7}, ('evaluation episodes is "5" in runs/a and "7" in runs/b',)),
        ({"eval_seed": 5}, ('evaluation seed is "1000000" in runs/a and "5" in runs/b',)),
        ({"manifest": {"protocol": "Another."}}, ("protocol is", '"Another." in runs/b')),
        ({"episodes": 7, "eval_seed": 5}, ("evaluation seed", "evaluation episodes")),
        ({"seed": 0}, ("seed 0 of omad on mpe/spread-3 is in runs/a and in runs/b",)),
        (
            {"seed": 0, "until": 0, "ended": ("diverged", "seed 0 met a non-finite number")},
            ("seed 0 of omad on mpe/spread-3 is in runs/a and in runs/b",),
        ),
    ],
)
def test_mixed_protocols_are_refused_with_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: dict[str, Any], said: tuple[str, ...]
) -> None:
    spread(tmp_path / "runs", "a")
    spread(tmp_path / "runs", "b", **({"seed": 1} | other))
    message = refused(capsys, tmp_path / "runs", "--out", tmp_path / "out")
    assert "mpe/spread-3" in message
    for part in said:
        assert part in message
    assert not (tmp_path / "out").exists()


def test_runs_of_one_setting_must_be_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study(tmp_path / "s", [{"seed": 0, "setting": "x"}, {"seed": 1, "setting": "x", "atoms": 25}])
    message = refused(capsys, tmp_path / "s", "--out", tmp_path / "out")
    assert "atoms is 101 in s/mpe-spread-3-omad-x/seed-0 and 25 in s/mpe-spread-3-omad-x/seed-1" in message


def test_versions_and_machines_may_differ_and_are_told(tmp_path: Path) -> None:
    spread(tmp_path, "a")
    spread(tmp_path, "b", seed=1, manifest={"commit": "other", "packages": {"jax": "0.11"}})
    assert "Runs differ in versions of omad, versions of packages." in page.to_html(compute(tmp_path), {}, [])


def test_bad_input_gets_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = spread(tmp_path, "run"), tmp_path / "out"
    early = spread(tmp_path, "early", until=0)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.json").write_text("{}")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    for words, said in (
        (("--out", out), "No run is given"),
        ((tmp_path / "nowhere", "--out", out), "is not there"),
        ((tmp_path / "empty", "--out", out), "holds no run"),
        ((tmp_path / "other.json", "--out", out), "is not a summary"),
        ((early, "--out", out), "None of the 1 runs (1 not started) has an evaluation of sampled actions"),
        ((run, "--out", out, "--threshold", "mpe/spread-4=-3"), "the runs are of mpe/spread-3"),
        ((run, "--out", out, "--threshold", "mpe/spread-3"), "must be TASK=RETURN"),
        ((run, "--out", out, "--threshold", "mpe/spread-3=1e308"), "with a return of at most 3.5e+38 in size"),
        ((run, "--out", taken), "is not a report of ours"),
        ((run, "--out", run), "is not a report of ours"),
    ):
        assert said in refused(capsys, *words)
    assert not out.exists() and (taken / "thesis.txt").read_text() == "mine"


def test_a_report_is_replaced_and_keeps_its_options(tmp_path: Path) -> None:
    run, out = spread(tmp_path, "run", seeds=2, total_steps=30_000), tmp_path / "out"
    write_report([run], out, {"mpe/spread-3": -45.0}, "noise_free")
    for name in ("curves_old.svg", "photo.png"):
        (out / "figures" / name).write_text("")
    write_report([out], out, {})
    assert not (out / "figures" / "curves_old.svg").exists() and (out / "figures" / "photo.png").exists()
    text = (out / "index.html").read_text()
    assert "reached a return of −45.00" in text and "noise-free actions" in text


def test_a_packed_summary_is_as_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omad.report.figures.draw_all", lambda _: {})  # they take long, and are drawn elsewhere
    run, out = spread(tmp_path, "run", seeds=2, total_steps=30_000), tmp_path / "out"
    write_report([run], out, {})
    plain, packed = out / "summary.json", out / "summary.json.gz"
    whole = plain.read_bytes()
    packed.write_bytes(gzip.compress(whole))
    plain.unlink()
    for given in (packed, out):
        write_report([given], tmp_path / "again", {})
        assert (tmp_path / "again" / "summary.json").read_bytes() == whole
    write_report([out], out, {})
    assert plain.read_bytes() == whole and not packed.exists()
    for broken in (gzip.compress(whole)[:-20], gzip.compress(whole)[:200] + b"x" * 100):
        (tmp_path / "broken.gz").write_bytes(broken)
        message = refused(capsys, tmp_path / "broken.gz", "--out", tmp_path / "new")
        assert "is cut short" in message or "cannot be unpacked" in message


def test_nothing_is_written_into_runs(study: Path, report: Path) -> None:
    assert not list(study.rglob("*.html")) and not list(study.rglob("*.partial"))


def test_summaries_and_runs_may_be_given_together(tmp_path: Path) -> None:
    old = gather([spread(tmp_path, "old")], command_of)
    (tmp_path / "summary.json").write_bytes(b"".join(to_json(old, records.Options("sampled", {"mpe/spread-3": -40.0}))))
    both = gather([tmp_path / "summary.json", spread(tmp_path, "new", seed=1)], command_of)
    assert [one.folder for one in both.runs] == ["old", "new"] and both.runs[0] == old.runs[0]
    assert both.options == {
        "actions": "sampled", "thresholds": {"mpe/spread-3": -40.0}, "study_thresholds": {}, "baseline": "omad"
    }  # fmt: skip
    assert len(results.compute(both).tasks[0].series[0].used) == 2


def test_a_summary_from_before_a_field_was_there_has_its_default(tmp_path: Path) -> None:
    """As a run folder of that time has; so its runs are of one setting with later ones that are left at the default."""
    run, summary = spread(tmp_path, "run"), tmp_path / "summary.json"
    whole = json.loads(b"".join(to_json(gather([run], command_of), records.Options("sampled", {}))))
    before = whole["runs"][0]["config"] | {"algo": dict(whole["runs"][0]["config"]["algo"])}
    del before["symmetry"], before["algo"]["share_policy"]
    summary.write_text(json.dumps(whole | {"runs": [whole["runs"][0] | {"config": before}]}, separators=(",", ":")))
    assert gather([summary], command_of).runs == gather([run], command_of).runs
    assert len(gather([summary, run], command_of).runs) == 1


def test_runs_of_two_seeds_are_two_runs_whatever_their_folders_are_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `out/0/run` and `out/1/run` of an array job, of which one has not been evaluated yet."""
    for seed, fields in ((0, {}), (1, {"until": 0})):
        write_study(tmp_path / str(seed) / "s", [{"setting": "x", "seed": 0} | fields])
    one = gather([tmp_path / "0" / "s"], command_of).runs[0]
    early = gather([tmp_path / "1" / "s"], command_of).runs[0]
    assert _further(one, early) == one
    with pytest.raises(UserError, match="Two runs are called"):
        _further(one, msgspec.structs.replace(early, seeds=(1,)))
    assert set(WITHOUT_EFFECT) <= NEUTRAL


def test_areas_are_taken_over_one_range() -> None:
    """Of one straight line, whether evaluated often or seldom."""
    steps = {often: np.arange(often, 101, often) for often in (1, 50)}
    curves = {often: stats.Curves(at, at[None].astype(float)) for often, at in steps.items()}
    cut = {often: one.between(50, 100) for often, one in curves.items()}
    assert [float(stats.area(one)[0]) for one in cut.values()] == [75.0, 75.0]


def test_of_two_records_of_one_run_the_longer_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A study that went on after its summary was written, in part elsewhere."""
    early, summary = tmp_path / "then", tmp_path / "summary.json"
    x = {"setting": "x"}
    write_study(early / "s", [x | {"seed": 0}, x | {"seed": 1, "until": 30_000}, x | {"seed": 2, "until": 0}])
    summary.write_bytes(b"".join(to_json(gather([early / "s"], command_of), records.Options("sampled", {}))))
    write_study(tmp_path / "s", [x | {"seed": 0, "until": 0}, x | {"seed": 1}, x | {"seed": 2}])
    for paths in ((summary, tmp_path / "s"), (tmp_path / "s", summary)):
        both = gather(paths, command_of)
        assert [(one.seeds, one.state) for one in both.runs] == [((seed,), "finished") for seed in range(3)]
    shuffled = results.compute(dataclasses.replace(both, runs=both.runs[::-1]))
    assert [member.seed for member in shuffled.tasks[0].series[0].used] == [0, 1, 2]
    other = tmp_path / "other"
    write_study(other / "s", [x | {"seed": 0, "until": 30_000, "ends": -50.0}])
    message = refused(capsys, summary, other / "s", "--out", tmp_path / "out")
    assert "Two runs are called s/mpe-spread-3-omad-x/seed-0, and neither continues the other" in message
    write_study(tmp_path / "changed" / "s", [x | {"seed": 2, "until": 0, "atoms": 25}])
    assert len(gather([summary], command_of).runs) == 3
    assert "neither continues" in refused(capsys, summary, tmp_path / "changed" / "s", "--out", tmp_path / "out")
