"""`omad report RUNS… --out DIR`."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import secrets
import shlex
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import tyro

from omad.config import RunConfig, resolve
from omad.console import console
from omad.derived import FOLLOWING
from omad.errors import UserError
from omad.schema import LARGEST


@dataclasses.dataclass(frozen=True)
class Options:
    """One page, with pictures and tables, of what runs have shown: it opens offline and asks for nothing."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders, folders that hold some at any depth (a study's), or the summary of an earlier report."""
    out: Path
    """Folder to write; an earlier report there is replaced."""
    threshold: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """TASK=RETURN, once for each task: the return that env steps are counted to. By default the one fixed in the study,
    else the published one of the baseline if more than half of its runs reach it, else halfway between random actions
    and the best final return."""
    baseline: str | None = None
    """The algorithm that the others are compared with; omad, unless a given summary says otherwise."""
    actions: Literal["sampled", "noise_free"] | None = None
    """Which evaluations to show; sampled, unless a given summary says otherwise."""


def command_of(config: RunConfig) -> str:
    """The command that trains with a configuration, as today's presets stand.

    Returns:
        Empty if no command gives this configuration.
    """

    def made(given: Mapping[str, Any]) -> RunConfig | None:
        try:
            return resolve(config.task, config.algorithm, config.preset, **given)
        except UserError:
            return None

    if (base := made({})) is None:
        return ""
    every = _given(config, base)
    given = {name: value for name, value in every.items() if name not in FOLLOWING}
    if (bare := made(given)) != config:  # what follows from others does so unless it is given
        rest = _given(config, bare) if bare else every
        given |= {name: value for name, value in rest.items() if name in FOLLOWING}
    if made(given) != config:
        return ""
    words = ["omad", "train", config.algorithm, "--task", config.task, "--preset", config.preset]
    for name, value in given.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, list | tuple) else [value])]
    return shlex.join(words)


def _given(config: RunConfig, base: RunConfig) -> dict[str, Any]:
    """The fields of run and algorithm that are not the preset's."""
    found = {}
    for mine, other in ((config, base), (config.algo, base.algo)):
        for field in dataclasses.fields(mine):
            value = getattr(mine, field.name)
            if field.name not in ("algo", "given") and value != getattr(other, field.name):
                found[field.name] = value
    return found


def _thresholds(words: Sequence[str]) -> dict[str, float]:
    found = {}
    for word in words:
        task, given, text = word.rpartition("=")
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not given or not task or not abs(value) <= LARGEST:  # not a number compares as false
            raise UserError(
                f"--threshold is {word!r}; it must be TASK=RETURN, as in mpe/spread-3=-30, with a return of at most "
                f"{LARGEST:g} in size."
            )
        if task in found:
            raise UserError(f"--threshold names the task {task!r} twice; give it one return.")
        found[task] = value
    return found


def _free(out: Path) -> None:
    """Refuse a place where something other than a report lies."""
    from omad.report.summary import summary_of

    if out.is_dir() and (summary_of(out) or all(entry.name.startswith(_UNFINISHED) for entry in out.iterdir())):
        return
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists and is not a report of ours; give another --out, or remove it.")


_UNFINISHED = ".report-"
"""How the folder is called in which a report is written before it is whole."""
_PICTURES = re.compile(r"(curves_.+|ratios|(aggregate|profile)(_[0-9]+)?)\.(png|svg)")
"""Files that an earlier report may have left among the pictures."""
_ABANDONED = 3600.0
"""Seconds after which such a folder is nobody's any more."""


def write_report(
    paths: Sequence[Path],
    out: Path,
    thresholds: Mapping[str, float],
    actions: str | None = None,
    baseline: str | None = None,
) -> Path:
    """Make all files of a report; each is there whole or not at all.

    Args:
        paths: Run folders, folders that hold some, or summaries.
        out: Folder to write.
        thresholds: Return to reach, by task.
        actions: `sampled` or `noise_free`; None takes what a given summary says, else sampled.
        baseline: The algorithm that the others are compared with; None takes what a given summary says, else omad.

    Returns:
        The page.

    Raises:
        UserError: As `omad.report.read.gather` and `omad.report.results.compute`, something else is at `out`, or it
            cannot be written.
    """
    from omad.report.figures import draw_all
    from omad.report.marl_eval import export
    from omad.report.page import to_html, to_markdown
    from omad.report.read import gather
    from omad.report.results import compute, refuse_disagreed
    from omad.report.summary import to_json

    _free(out)
    gathered = gather(paths, command_of)
    refuse_disagreed(gathered, thresholds, actions, baseline)
    kind = actions or gathered.options.get("actions", "sampled")
    results = compute(gathered, thresholds, kind, baseline)
    drawn = draw_all(results)
    exported, notes = export(results)
    files: dict[str, Iterable[bytes]] = {}
    for one in (one for several in drawn.values() for one in several):
        files |= {f"figures/{one.name}.png": [one.png], f"figures/{one.name}.svg": [one.wide]}
    files |= {
        "tables.md": [to_markdown(results).encode()],
        "marl-eval.json": _as_json(exported),
        "summary.json": to_json(gathered, results.options),
        "index.html": [to_html(results, drawn, notes).encode()],
    }
    try:
        _replace(out, files)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror or error}); give another --out, or make room."
        ) from None
    return out / "index.html"


def _as_json(export: Mapping[str, Any]) -> Iterator[bytes]:
    """Env by env and task by task, since the whole is large."""
    yield b"{"
    for i, (env, tasks) in enumerate(export.items()):
        yield f"{',' if i else ''}{json.dumps(env)}:{{".encode()
        for j, (task, inside) in enumerate(tasks.items()):
            yield f"{',' if j else ''}{json.dumps(task)}:".encode()
            yield msgspec.json.encode(inside, enc_hook=list)
        yield b"}"
    yield b"}\n"


def _replace(out: Path, files: Mapping[str, Iterable[bytes]]) -> None:
    """Write files beside where they belong, then put them all in place, the last one last; links are not followed."""
    fresh = not out.exists()
    (out.parent if fresh else out).mkdir(parents=True, exist_ok=True)
    if not fresh:
        for left in out.glob(f"{_UNFINISHED}*"):
            if left.lstat().st_mtime < time.time() - _ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
        for name in files:
            if (out / name).is_dir() and not (out / name).is_symlink():
                raise IsADirectoryError(errno.EISDIR, f"{name} is a folder")
    stage = (out.parent if fresh else out) / f"{_UNFINISHED}{secrets.token_hex(8)}"
    stage.mkdir()
    try:
        (stage / "figures").mkdir()
        for name, parts in files.items():
            with (stage / name).open("wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
        if fresh:
            stage.rename(out)
            return
        pictures = out / "figures"
        if pictures.is_symlink() or not pictures.is_dir():
            pictures.unlink(missing_ok=True)
            pictures.mkdir()
        for name in files:
            (stage / name).replace(out / name)
        (out / "summary.json.gz").unlink(missing_ok=True)
        for old in pictures.iterdir():
            if _PICTURES.fullmatch(old.name) and f"figures/{old.name}" not in files:
                old.unlink()
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def main(arguments: Sequence[str]) -> int:
    """Write the report; the last line printed is the page."""
    options = tyro.cli(Options, prog="omad report", args=list(arguments))
    page = write_report(options.runs, options.out, _thresholds(options.threshold), options.actions, options.baseline)
    console().print(str(page))
    return 0
