"""Every block of README and docs holds: Python runs, commands are parsed, messages are those of the code.

A block that cannot run has `<!-- not run: REASON -->` on the line before it.
"""

from __future__ import annotations

import ast
import contextlib
import re
import runpy
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import tyro

import omad
from omad import algos, api, cli
from omad.config import resolve
from omad.experiment import Experiment

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / f"{name}.md" for name in ("README", "RESULTS", "DESIGN", "CONTRIBUTING", "CHANGELOG")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
TUTORIALS = sorted((ROOT / "examples" / "tutorials").glob("*.py"))
BLOCK = re.compile(r"(<!-- not run: .+ -->\n)?^```(\w*)\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`(omad (?:train|eval|bench|sweep|resume|report) [^`]+)`")
STUDIES = ("RESULTS.md", "docs/results/", "docs/learning/")
"""Pages whose commands between back quotes made their numbers."""
HOLES = {
    "RUN": "RUN",
    "K": "0",
    "TASK": "mpe/spread-3",
    "NAME": "mpe/spread-3",
    "DIR": "out",
    "ALGO": "omad",
    "STUDY": "out",
}
"""Placeholders in commands, and what stands there for the parser."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *kinds: str) -> list[str]:
    """Blocks of these languages that are not marked as not run."""
    return [text for skip, kind, text in BLOCK.findall(page.read_text()) if kind in kinds and not skip]


def commands(page: Path) -> Iterator[str]:
    """Lines of shell blocks, continued ones joined; where numbers are, also commands between back quotes."""
    for text in blocks(page, "sh", "bash", ""):
        lines = (line.removeprefix("$ ").strip() for line in text.replace("\\\n", " ").splitlines())
        yield from (line for line in lines if line.startswith(("omad ", ".venv/bin/omad ")))
    prose = BLOCK.sub("", page.read_text()) if name_of(page).startswith(STUDIES) else ""
    yield from (" ".join(found.split()) for found in INLINE.findall(prose) if "..." not in found and "…" not in found)


class Parsed(Exception):
    """A command line was understood."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> omad.Run:
    """The only training of these tests; it stands for every run that a block trains or loads."""
    path = tmp_path_factory.mktemp("docs") / "run"
    return omad.train("mpe/spread-3", preset="tiny", run_dir=path, loggers=[], eval_noise_free=False)


@pytest.fixture
def desk(run: omad.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the names of the pages are there: RUN, OTHER, runs/x, studies, results, a team."""
    monkeypatch.chdir(tmp_path)
    for name in ("RUN", "runs/x"):
        shutil.copytree(run, tmp_path / name)
    for name in ("studies", "results", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.fixture
def stand_in(run: omad.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`omad.train` checks everything that it is given, env and callbacks included, and gives the run that there is."""

    def train(task: str | None = None, algorithm: str = "omad", preset: str = "cpu", run_dir: Any = None, *,
              env: Any = None, callbacks: Any = (), loggers: Any = None, **fields: Any) -> omad.Run:  # fmt: skip
        assert env is None or task is None
        Experiment(resolve(task or "mpe/spread-3", algorithm, preset, **fields), env, callbacks, loggers)
        return run

    monkeypatch.setattr(api, "train", train)
    monkeypatch.setattr(algos, "_registered", {})


def test_blocks_have_a_language_and_reasons_are_given() -> None:
    known = {"python", "sh", "text", "toml", "json", ""}
    for page in PAGES:
        kinds = {kind for _, kind, _ in BLOCK.findall(page.read_text())}
        assert kinds <= known, f"{name_of(page)} has blocks of {kinds - known}"


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name_of)
def test_python_blocks_run(
    page: Path, desk: Path, run: omad.Run, stand_in: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a page in their order, in one namespace; a block's first comment may name its file."""
    if any("from runner import" in text for text in blocks(page, "python")):
        monkeypatch.syspath_prepend(str(run.policy().export(desk / "exported", formats=("numpy",)) / "agent_0"))
    monkeypatch.syspath_prepend(str(desk))
    names: dict[str, Any] = {"__name__": "docs"}
    for text in blocks(page, "python"):
        if file := re.match(r"# (\w+\.py)", text):
            (desk / file[1]).write_text(text)
            names |= runpy.run_path(str(desk / file[1]))
            continue
        exec(compile(text, name_of(page), "exec"), names)


@pytest.mark.parametrize(
    "script",
    [pytest.param(path, marks=pytest.mark.slow if path.stem == "own_env" else ()) for path in TUTORIALS],
    ids=lambda path: path.stem,
)
def test_tutorials_run(
    script: Path, desk: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the smallest settings; the pictures that they draw are those that their pages show."""
    if script.stem == "own_env":
        trained = api.train
        small = {"preset": "tiny", "total_steps": 400, "eval_every": 200, "loggers": []}
        monkeypatch.setattr(api, "train", lambda *args, **fields: trained(*args, **fields | small))
    else:
        request.getfixturevalue("stand_in")
    with mpl.rc_context():
        runpy.run_path(str(script))
    shown = re.findall(r"assets/tutorials/([\w.-]+)\)", script.read_text())
    assert shown and {path.name for path in desk.glob("*.png")} == set(shown)
    assert all((ROOT / "docs" / "assets" / "tutorials" / name).is_file() for name in shown)


def test_the_env_of_a_tutorial_can_be_checked_by_its_path(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Put into a file of its own with the imports, as the tutorial says."""
    source = ast.parse((ROOT / "examples" / "tutorials" / "own_env.py").read_text())
    kept: list[ast.stmt] = [node for node in source.body if isinstance(node, ast.Import | ast.FunctionDef)]
    (desk / "barge.py").write_text(ast.unparse(ast.Module(kept, [])))
    monkeypatch.syspath_prepend(str(desk))
    assert cli.main(["check-env", "jax:barge:tugs", "--steps", "50"]) == 0, capsys.readouterr().out


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Reads a command as `omad` does, and stops where it would begin to work."""
    original, seen = tyro.cli, set[str]()

    def parse(*args: Any, **more: Any) -> Any:
        original(*args, **more)
        raise Parsed

    monkeypatch.setattr(tyro, "cli", parse)

    def read(command: str) -> None:
        words = [HOLES.get(word, word) for word in shlex.split(command, comments=True)][1:]
        if (key := shlex.join(words)) not in seen:
            seen.add(key)
            with contextlib.suppress(Parsed):
                code = cli.main(words)
                raise AssertionError(f"omad {key} ended with {code} before it was read")

    return read


@pytest.mark.parametrize("page", [p for p in PAGES if any(commands(p))], ids=name_of)
def test_commands_are_understood(
    page: Path, desk: Path, parser: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in commands(page):
        try:
            parser(command)
        except (SystemExit, AssertionError) as stop:
            if getattr(stop, "code", None) != 0:  # --help ends with 0
                raise AssertionError(f"{command}: {capsys.readouterr().err}") from stop


SCRIPT = re.compile(r"python ((?:benchmarks|studies|docs|examples)/[\w/]+\.py)((?: [^`\n|#;]+)?)")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_of_scripts_are_theirs(page: Path) -> None:
    """The script is there, and has every option that its command names."""
    text = re.sub(r"\\?\n\s*", " ", page.read_text())
    for script, words in SCRIPT.findall(text):
        source = (ROOT / script).read_text()
        for option in re.findall(r"(?<!\S)--([a-z][a-z-]*)", words.partition(" && ")[0]):
            field = rf"^(    |def main\(.*\b){option.replace('-', '_')}: "
            assert f'"--{option}"' in source or re.search(field, source, re.MULTILINE), f"{script} has no --{option}"


def test_cheap_commands_run(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of README and quickstart that train and compile nothing."""
    assert cli.main(["tasks", "mpe/spread-3"]) == 0
    assert cli.main(["runs"]) == 0
    assert cli.main(["compare", "RUN", "runs/x"]) == 0
    assert cli.main(["train", "--preset", "matched", "--print-config"]) == 0
    assert cli.main(["train", "--config", "RUN", "--batch-size", "256", "--print-config"]) == 0
    assert "batch_size = 256" in capsys.readouterr().out


def test_errors_of_the_faq_are_those_of_the_code() -> None:
    """Every sentence of it, with `…` for what was given, is part of a message."""
    messages = set[str]()
    for path in Path(omad.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                messages.add(" ".join("".join(map(str, parts)).split()))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                messages.add(" ".join(node.value.split()))
    errors = [" ".join(text.split()) for text in blocks(ROOT / "docs" / "faq.md", "text")]
    assert len(errors) == 20
    for error in errors:
        assert any(error.strip("… ") in message for message in messages), f"no message of the code has: {error}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_fit_a_screen(page: Path) -> None:
    """No line over 160 characters, no table wider than eight columns."""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        assert len(line) <= 160, f"{name_of(page)}:{number} has {len(line)} characters"
        if re.fullmatch(r"\|[ :|-]+\|", line):
            assert line.count("|") <= 9, f"{name_of(page)}:{number}: a table of {line.count('|') - 1} columns"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_files_hold(page: Path) -> None:
    for target in re.findall(r"\]\((?!\w+:|#)([^)\s#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{name_of(page)} links to {target}"


def test_pictures_are_small() -> None:
    for path in (ROOT / "docs" / "assets").rglob("*"):
        if path.is_file():
            assert path.stat().st_size < (1_000_000 if path.suffix == ".gif" else 150_000), path.name
