"""Studies and summaries of somebody else's: damage is refused or named, text is text, nothing leaves its place."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import write_run, write_study

from mutate import mutations, snapshot
from omad import cli, files
from omad.commands.curve import draw_curve
from omad.commands.report import command_of, write_report
from omad.config import resolve
from omad.errors import UserError
from omad.report import page, results, survival, tables
from omad.report.format import code, drawable, markdown, paragraph, plain
from omad.report.read import gather
from omad.report.records import Options, Section
from omad.report.summary import to_json

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"/>'
SMALL: dict[str, Any] = {"total_steps": 30_000, "episodes": 3, "setting": "x"}


def small(root: Path) -> Path:
    """Two runs that are whole, one that is stopped, one that is missing, and a section with a picture."""
    runs = [{"seed": 0}, {"seed": 1}, {"seed": 2, "until": 20_000}, {"seed": 3, "absent": True}]
    write_study(root, [SMALL | run for run in runs], "small")
    (root / "sections").mkdir()
    (root / "sections" / "one.png").write_bytes(PNG)
    section = {"title": "One", "text": "Two.", "figure": "one.png", "alt": "Three"}
    (root / "sections" / "one.json").write_text(json.dumps(section))
    return root


def said(path: Path) -> str:
    """All that a report says, without its pictures."""
    found = results.compute(gather([path], lambda _: "omad train omad"), {"mpe/spread-3": -40.0})
    return page.to_html(found, {}, []) + page.to_markdown(found)


def refused(path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says."""
    assert cli.main(["report", str(path), "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("omad: ") and captured.err.count("\n") == 1 and captured.out == ""
    assert not out.exists()
    return captured.err


# ------------------------------------------------------------------------------------------------ every damage


MAY_LACK = {"figure", "alt", "symmetry", "gradient_steps", "study_thresholds", "baseline"}
"""Fields of the formats that may be left out, and those of a manifest, each of which is only shown."""
MAY_LACK |= {"omad", "commit", "protocol", "resume", "started", "python", "packages", "device", "machine"}
MAY_LACK |= {"platform", "kind", "count", "system", "processor", "jax", "numpy"}


def alike(one: Any, other: Any) -> bool:
    """Whether two JSON values are of one form, so that the second is as possible as the first."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() <= {*other, *MAY_LACK}:
            return all(alike(one[key], other[key]) or key == "train_s" for key in one.keys() & other.keys())
        return False
    if isinstance(one, list) and isinstance(other, list):
        return all(any(alike(was, entry) for was in one) for entry in other)
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return type(one) is type(other)
    return isinstance(other, str) if isinstance(one, str) else isinstance(other, int | float)


def possible(before: bytes, path: Path) -> bool:
    """Whether a damaged file says something that might as well be true."""
    if not path.is_file() or path.is_symlink():
        return path.name in ("study.json", "one.json") and not os.path.lexists(path)  # no study, no section
    after = path.read_bytes()
    if path.suffix == ".jsonl":  # lines that are gone without a trace, as when a run is killed
        return all(row in before.split(b"\n") for row in after.split(b"\n")[:-1]) or _rows_alike(before, after)
    try:
        return alike(json.loads(before), json.loads(after))
    except (ValueError, RecursionError):
        return False


def _rows_alike(before: bytes, after: bytes) -> bool:
    try:
        rows = [json.loads(row) for row in after.splitlines() if row]
        return all(alike(json.loads(before.splitlines()[0]), row) for row in rows)
    except (ValueError, RecursionError):
        return False


def survives(root: Path, read: Path, files: list[Path], seed: int, count: int) -> None:
    """Damage files below a root; reading is refused in a sentence, says the same, or names what is damaged."""
    outside = root.parent / "outside.json"
    outside.write_text('{"kind": "secret"}')
    whole, untouched = said(read), snapshot(root.parent)
    silent = []
    for damage in mutations(files, outside, seed, count):
        before = damage.path.read_bytes()
        with damage:
            there = snapshot(root.parent)
            try:
                now = said(read)
            except UserError as error:
                assert "\n" not in str(error) and str(error).endswith("."), (damage, str(error))
                assert "secret" not in str(error)
            else:
                assert "<script" not in now
                named = any(word in now for word in ("unreadable", "damaged and left out", "are gone", "not finite"))
                if now != whole and not named and not possible(before, damage.path):
                    silent.append(damage)
            assert snapshot(root.parent) == there, damage
        assert snapshot(root.parent).keys() == untouched.keys()
    assert not silent, silent
    assert said(read) == whole


def damage_to_a_study(tmp_path: Path, count: int) -> None:
    study = small(tmp_path / "study")
    files = [study / "study.json"] * 2 + [study / "sections" / "one.json"] * 2
    files += [study / "sections" / "one.png", *study.rglob("episodes.jsonl"), *study.rglob("metrics.jsonl")]
    survives(study, study, files, seed=1, count=count)


def damage_to_a_summary(tmp_path: Path, count: int) -> None:
    study = small(tmp_path / "study")
    (tmp_path / "lies").mkdir()
    summary = tmp_path / "lies" / "summary.json"
    summary.write_bytes(b"".join(to_json(gather([study], command_of), Options("sampled", {"mpe/spread-3": -40.0}))))
    shutil.rmtree(study)
    survives(tmp_path / "lies", summary, [summary], seed=2, count=count)


@pytest.mark.parametrize("times", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_damage_to_a_study_or_a_summary_is_refused_or_named(tmp_path: Path, times: int) -> None:
    """In a process without the type checker, which would take ten times as long."""
    here = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    code = (
        f"import sys; sys.path[:0] = {here}; from pathlib import Path; import test_damage\n"
        f"for name, count in (('study', {25 * times}), ('summary', {60 * times})):\n"
        f"    folder = Path({str(tmp_path)!r}, name); folder.mkdir()\n"
        f"    getattr(test_damage, 'damage_to_a_' + name)(folder, count)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------------ lines


def test_a_damaged_line_costs_that_line_and_is_counted(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "whole", total_steps=40_000)
    for name in ("flipped", "twice"):
        shutil.copytree(whole, tmp_path / name)
    lines = (whole / "episodes.jsonl").read_bytes().splitlines(keepends=True)
    flipped = [
        *lines[:2],
        lines[2].replace(b'"returns": [', b'"returns": {'),
        lines[3].replace(b", -", b", "),
        b"\xff\n",
    ]
    (tmp_path / "flipped" / "episodes.jsonl").write_bytes(b"".join([*flipped, *lines[4:]]))
    (tmp_path / "twice" / "episodes.jsonl").write_bytes(b"".join([*lines, lines[0], lines[1].replace(b"[", b"[1,", 1)]))
    runs = {run.folder.split("/")[-1]: run for run in gather([tmp_path], command_of).runs}
    assert runs["whole"].note == "" and len(runs["whole"].episodes) == 8
    assert len(runs["flipped"].episodes) == 7 and runs["flipped"].state == "finished"
    assert "episodes.jsonl: 2 damaged and left out (" in runs["flipped"].note
    assert "/flipped/episodes.jsonl, line 3: " in runs["flipped"].note and str(tmp_path) not in runs["flipped"].note
    assert runs["twice"].episodes == runs["whole"].episodes
    assert "2 damaged and left out" in runs["twice"].note and "it is there twice" in runs["twice"].note


def test_what_a_report_writes_it_can_read(tmp_path: Path) -> None:
    """Whatever stands in the folders: lines in the wrong order, and words without end."""
    run = write_run(tmp_path / "runs" / "a", until=20_000, ended=("broken", "?" * 120_000))
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join([*lines[5:], *lines[:5]]) + "\n")
    (found,) = gather([tmp_path / "runs"], command_of).runs
    assert len(found.note) == 10_000 and found.timed_steps == 8_000
    write_report([tmp_path / "runs"], tmp_path / "out", {})
    assert gather([tmp_path / "out" / "summary.json"], command_of).runs == (found,)


def test_returns_that_are_not_finite_are_a_failure_and_other_numbers_are_not(tmp_path: Path) -> None:
    """JSON has no word for them, so a run folder has null."""
    run = write_run(tmp_path / "run", until=20_000)
    lines = (run / "episodes.jsonl").read_text().splitlines()
    lines[-1] = json.dumps(json.loads(lines[-1]) | {"returns": [1.0, None, None, 2.0, 3.0]})
    (run / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    log = (run / "metrics.jsonl").read_text().splitlines()
    log[3] = json.dumps(json.loads(log[3]) | {"critic/loss": None})
    (run / "metrics.jsonl").write_text("\n".join(log) + "\n")
    (found,) = gather([run], command_of).runs
    assert (found.state, found.note, found.diverged) == ("diverged", "returns of an evaluation were not finite", (0,))
    assert (len(found.episodes), found.timed_steps, found.env_steps) == (3, 18_000, 20_000)


def test_a_finished_run_whose_last_evaluations_are_gone_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    lines = (run / "episodes.jsonl").read_bytes().splitlines(keepends=True)
    (run / "episodes.jsonl").write_bytes(b"".join(lines[:6]))
    (found,) = gather([run], command_of).runs
    assert found.note == "it reached its end, but its evaluations beyond env step 30,000 are gone"
    (run / "episodes.jsonl").unlink()
    (run / "episodes.jsonl").symlink_to(write_run(tmp_path / "other") / "episodes.jsonl")
    (found,) = gather([run], command_of).runs
    assert found.episodes == () and "run/episodes.jsonl is a link" in found.note


def test_a_diverged_run_has_failed_at_its_full_budget_and_a_broken_one_is_censored(tmp_path: Path) -> None:
    """What `ended.json` says decides it; a run that was good and then diverged is no success either."""
    for seed in (0, 1):
        write_run(tmp_path / str(seed), seed)
    write_run(tmp_path / "2", 2, until=20_000, starts=-75.0, ended=("diverged", "seed 2 met a non-finite number."))
    write_run(tmp_path / "3", 3, until=20_000, starts=-75.0, ended=("broken", "env 0 died."))
    write_run(tmp_path / "4", 4, until=0, ended=("diverged", "seed 4 met a non-finite number."))
    found = results.compute(gather([tmp_path], command_of), {"mpe/spread-3": -35.0})
    (series,) = found.tasks[0].series
    assert found.tasks[0].threshold is not None
    crossings = found.tasks[0].rows[0].crossings
    assert crossings is not None
    censored = [step for step, reached in zip(crossings.steps, crossings.reached, strict=True) if not reached]
    assert sorted(censored) == [20_000, 60_000, 60_000]
    assert [member.seed for member in series.used] == [0, 1, 2, 4]
    _, alive = survival.kaplan_meier(np.array(crossings.steps), np.array(crossings.reached))
    assert alive[-1] == pytest.approx(1 - 2 / 4), "of four at risk, the broken run is not one"
    assert tables.steps_table(found.tasks[0], "t").rows[0][1] == "2 of 5"  # type: ignore[union-attr]  # there is one


# ------------------------------------------------------------------------------------------------ studies


@pytest.mark.parametrize(
    ("folder", "words"),
    [
        ("../other", "must lie below"),
        ("/etc", "must lie below"),
        ("a/../../other", "must lie below"),
        ("~/runs", "must lie below"),
        (".", "must lie below"),
        ("way/out", "links that lead out"),
        ("a\x00b", "must lie below"),
        ("x" * 300, "must lie below"),
        ("", "length >= 1"),
        (7, "got `int` in the field `runs[0].folder`"),
    ],
)
def test_a_study_lists_only_what_lies_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: Any, words: str
) -> None:
    write_run(tmp_path / "other" / "seed-0")
    study = small(tmp_path / "study")
    (study / "way").mkdir()
    (study / "way" / "out").symlink_to(tmp_path / "other" / "seed-0")
    listed = json.loads((study / "study.json").read_text())
    listed["runs"][0]["folder"] = folder
    (study / "study.json").write_text(json.dumps(listed))
    assert words in refused(study, tmp_path / "out", capsys)


def test_a_folder_listed_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = small(tmp_path / "study")
    listed = json.loads((study / "study.json").read_text())
    listed["runs"][1]["folder"] = listed["runs"][0]["folder"]
    (study / "study.json").write_text(json.dumps(listed))
    assert "lists the folder 'mpe-spread-3-omad-x/seed-0' twice" in refused(study, tmp_path / "out", capsys)


@pytest.mark.parametrize(
    ("figure", "content", "words"),
    [
        ("../../outside.png", PNG, "must lie below"),
        ("https://example.org/a.png", PNG, "not there"),
        ("/etc/hostname", PNG, "must lie below"),
        ("link.png", PNG, "links that lead out"),
        ("one.jpg", PNG, "must be a PNG or SVG"),
        ("one.png", SVG, "no whole PNG"),
        ("one.png", PNG[:-4], "no whole PNG"),
        ("one.svg", PNG, "no SVG"),
        ("one.svg", b"<html xmlns='http://www.w3.org/1999/xhtml'/>", "no SVG but"),
        ("one.svg", b"<!DOCTYPE svg [<!ENTITY a 'b'>]>" + SVG, "declares entities"),
    ],
)
def test_a_figure_is_a_picture_in_the_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], figure: str, content: bytes, words: str
) -> None:
    study = small(tmp_path / "study")
    (tmp_path / "outside.png").write_bytes(PNG)
    (study / "sections" / "link.png").symlink_to(tmp_path / "outside.png")
    if figure.startswith("one"):
        (study / "sections" / figure).write_bytes(content)
    section = {"title": "One", "text": "Two.", "figure": figure, "alt": "Three"}
    (study / "sections" / "one.json").write_text(json.dumps(section))
    message = refused(study, tmp_path / "out", capsys)
    assert words in message and "one.json names the figure" in message


def test_figures_of_a_summary_are_looked_at_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, summary = small(tmp_path / "study"), tmp_path / "summary.json"
    whole = json.loads(b"".join(to_json(gather([study], command_of), Options("sampled", {}))))
    for figure, words in (
        ("https://example.org/a.png", "must be the data: address"),
        ("data:text/html;base64,PHNjcmlwdD4=", "must be the data: address"),
        ("data:image/png;base64,PHNjcmlwdD4=", "no whole PNG"),
        ("data:image/png;base64,%%%", "not in base64"),
        ('data:image/png;base64,iVBO" onerror="alert(1)', "not in base64"),
    ):
        section = whole["sections"][0] | {"figure": figure}
        summary.write_text(json.dumps(whole | {"sections": [section]}, separators=(",", ":")))
        assert words in refused(summary, tmp_path / "out", capsys)


def test_a_packed_summary_that_holds_gigabytes_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bomb = tmp_path / "summary.json.gz"
    bomb.write_bytes(gzip.compress(b" " * (1 << 24)) * 192)  # 3 GiB
    assert bomb.stat().st_size < 4_000_000
    assert "holds more than 256 MiB" in refused(bomb, tmp_path / "out", capsys)


@pytest.mark.parametrize(
    ("algorithm", "fields"),
    [("hasac", {"alpha_init": 1.0}), ("masdac", {"reward_scale": 0.2}), ("omad", {"alpha_init": 1.0, "v_max": 1600.0})],
)
def test_a_value_that_would_follow_from_others_stands_in_the_command(algorithm: str, fields: dict[str, Any]) -> None:
    """Though it is the preset's own, which normalised rewards change."""
    config = resolve("mamujoco-full/ant-2x4", algorithm, "matched", reward_norm="return", **fields)
    words = shlex.split(command_of(config))
    for name, value in fields.items():
        assert words[words.index(f"--{name.replace('_', '-')}") + 1] == str(value)


def test_a_command_of_a_summary_is_one_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reader may paste it."""
    summary = tmp_path / "summary.json"
    whole = json.loads(b"".join(to_json(gather([small(tmp_path / "study")], command_of), Options("sampled", {}))))
    for command in ("rm -rf ~", "omad train omad; rm -rf ~", "omad train $(id)", "omad train 'omad"):
        whole["runs"][0]["command"] = command
        summary.write_text(json.dumps(whole, separators=(",", ":")))
        assert "runs[0] cannot be used: the command" in refused(summary, tmp_path / "out", capsys)


# ------------------------------------------------------------------------------------------------ text


NASTY = (
    "<script>alert(1)</script> </title> $\\frac{x$ [red]:smile: `a`|b [x](javascript:1) \x1b[31m \u202egnirts\n"
    "# H 日本 &lt;"
)


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes = set[str](), set[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_text_of_others_is_text(tmp_path: Path) -> None:
    study = write_study(tmp_path / "$x_$ [b]", [SMALL | {"seed": seed} for seed in (0, 1)], NASTY)
    listed = json.loads((study / "study.json").read_text())
    listed["runs"][0]["setting"] = NASTY + '" onload="alert(1)'
    (study / "study.json").write_text(json.dumps(listed))
    (study / "sections").mkdir()
    section = {"title": NASTY, "text": NASTY, "figure": "a.png", "alt": NASTY + '"><img src=x onerror=alert(1)>'}
    (study / "sections" / "a.json").write_text(json.dumps(section))
    (study / "sections" / "a.png").write_bytes(PNG)
    (study / listed["runs"][0]["folder"] / "ended.json").write_text(json.dumps({"how": "diverged", "words": NASTY}))
    write_report([study], tmp_path / "out", {})
    html = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    markdown_text = (tmp_path / "out" / "tables.md").read_text(encoding="utf-8")
    tags = Tags(html)
    assert "script" not in tags.tags and not [name for name in tags.attributes if name.startswith("on")]
    for text in (html, markdown_text):
        assert "<script" not in text and "\x1b" not in text and "\u202e" not in text
        assert "\\u202egnirts" in text and "日本" in text
    assert "](javascript" not in markdown_text and "\n# H" not in markdown_text
    rows = [row for row in markdown_text.splitlines() if row.startswith("|") and "gnirts" in row]
    assert rows and all(row.endswith("|") for row in rows)
    svg = next((tmp_path / "out" / "figures").glob("curves*.svg")).read_text(encoding="utf-8")
    assert "<script" not in svg and "$\\frac{x$" in svg and "\x1b" not in svg


def test_escapes() -> None:
    assert plain("a\tb\r\nc\u2028d\x00\u200f\ud800 é") == "a b c d\\u0000\\u200f\\ud800 é"
    assert markdown("a|b`c*d_e _f_ [x](y) ![z][k] http://u a<b 1 < 2 <i> &amp; \\") == (
        "a\\|b\\`c\\*d_e \\_f\\_ [x]\\(y) ![z]\\[k] http:\\//u a&lt;b 1 < 2 &lt;i> &amp;amp; \\\\"
    )
    assert [paragraph(text) for text in ("# a", "- a", "> a", "1. a", "1.5 a", "a")] == [
        "\\# a", "\\- a", "\\> a", "1\\. a", "1.5 a", "a"
    ]  # fmt: skip
    assert (code("a|b"), code("a`<b>|")) == ("`a\\|b`", "<code>a\\`&lt;b>\\|</code>")
    assert drawable("a日\x07é") == "a\\u65e5\\u0007é"


def test_a_report_does_not_hang_on_the_locale(tmp_path: Path) -> None:
    """Not even for names that such a locale cannot write."""
    study = small(tmp_path / "größe – 日本")
    summary = tmp_path / "summary.json"
    summary.write_bytes(b"".join(to_json(gather([study], command_of), Options("sampled", {}))))
    environment = os.environ | {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = [sys.executable, "-m", "omad", "report", str(summary), "--out", str(tmp_path / "there")]
    done = subprocess.run(words, capture_output=True, env=environment, check=False)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    for name in ("index.html", "tables.md", "summary.json"):
        assert "größe – 日本/mpe-spread-3" in (tmp_path / "there" / name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------ whole or not at all


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omad.report.figures.draw_all", lambda _: {})  # they take long, and are files like others
    study, out = small(tmp_path / "study"), tmp_path / "out"
    write_report([study], out, {})
    (out / "mine.txt").write_text("mine")
    before = snapshot(tmp_path)
    real, calls = os.fsync, list[int]()

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    for target in (out, tmp_path / "new"):
        calls.clear()
        with pytest.raises(UserError, match="No space left on device"):
            write_report([study], target, {"mpe/spread-3": -50.0})
        assert snapshot(tmp_path) == before

    def interrupted(handle: int) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_report([study], out, {"mpe/spread-3": -50.0})
    assert snapshot(tmp_path) == before
    monkeypatch.setattr(os, "fsync", real)
    write_report([study], out, {"mpe/spread-3": -50.0})
    assert (out / "mine.txt").read_text() == "mine" and "−50.00" in (out / "index.html").read_text()


def test_no_link_in_a_report_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omad.report.figures.draw_all", lambda _: {})  # they take long, and are files like others
    study, out = small(tmp_path / "study"), tmp_path / "out"
    write_report([study], out, {})
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("old.png", "page.html"):
        (outside / name).write_text("mine")
    shutil.rmtree(out / "figures")
    (out / "figures").symlink_to(outside)
    for name in ("index.html", "tables.md", "marl-eval.json"):
        (out / name).unlink()
        (out / name).symlink_to(outside / "page.html")
    write_report([study], out, {})
    assert {path.read_text() for path in outside.iterdir()} == {"mine"} and len(list(outside.iterdir())) == 2
    assert not any(path.is_symlink() for path in out.rglob("*"))


def test_sections_are_written_into_the_study_or_refused(tmp_path: Path) -> None:
    from sections import write_section  # not where the process without the type checker looks

    section = Section(title="$x$", text="[b]", alt="A.")
    write_section(tmp_path / "new", "a/../b", section, PNG)
    assert sorted(snapshot(tmp_path / "new")) == ["sections", "sections/a----b.json", "sections/a----b.png"]
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "sections").symlink_to(tmp_path / "new")
    with pytest.raises(UserError, match="is a link"):
        write_section(tmp_path / "study", "a", section, PNG)
    target = tmp_path / "target"
    target.write_text("mine")
    (tmp_path / "link").symlink_to(target)
    files.write_bytes(tmp_path / "link", b"new")
    assert target.read_text() == "mine" and not (tmp_path / "link").is_symlink()


def test_the_curve_of_a_run_with_odd_lines(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", total_steps=30_000)
    with (run / "episodes.jsonl").open("ab") as file:
        file.write(b'{"seed": 0, "step": "x"}\n\xff\n')
    assert draw_curve(run) == run / "curve.png"
    assert (run / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_summary_says_which_field_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = json.loads(b"".join(to_json(gather([small(tmp_path / "study")], command_of), Options("sampled", {}))))
    packed = tmp_path / "summary.json.gz"

    def says(change: dict[str, Any], of_run: dict[str, Any]) -> str:
        runs = [whole["runs"][0] | of_run, *whole["runs"][1:]]
        packed.write_bytes(gzip.compress(json.dumps(whole | {"runs": runs} | change).encode()))
        return refused(packed, tmp_path / "out", capsys)

    assert "runs[0] cannot be used: Expected `int`, got `str` in the field `env_steps`" in says({}, {"env_steps": "1"})
    assert "Expected `int` >= 0 in the field `timed_steps`" in says({}, {"timed_steps": -1})
    assert "Invalid enum value 'won' in the field `state`" in says({}, {"state": "won"})
    assert "unknown field `more`" in says({}, {"more": 1})
    assert "task is 'mpe/spread-4', but 'mpe/spread-3' in its configuration" in says({}, {"task": "mpe/spread-4"})
    assert "has format 2; this version reads 1" in says({"format": 2}, {})
    assert "Expected `object`, got `array` in the field `options`" in says({"options": []}, {})
    episodes = [whole["runs"][0]["episodes"][0] | {"returns": [1.0]}]
    assert "1 returns, but 3 episodes in the configuration" in says({}, {"episodes": episodes})
    assert "two runs called" in says({"runs": [whole["runs"][0]] * 2}, {})
