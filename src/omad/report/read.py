"""Gather what a report is made of: run folders, studies, or the summary that an earlier report wrote.

A study is a folder with a `study.json`, `{"name": ..., "runs": [{"folder", "setting", "task", "algorithm", "seed"}]}`,
which tells all runs that were meant to be; those that are missing, unfinished or diverged are gathered too. Every file
may be somebody else's: it is read by `omad.schema` into the records of `omad.report.records`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from omad.errors import UserError
from omad.report.alike import differing, fields
from omad.report.records import (
    Evaluation,
    Gathered,
    MetricsLine,
    Run,
    RunManifest,
    RunSettings,
    Section,
    StudyFile,
    StudyRun,
    misplaced,
    settings_of,
)
from omad.report.sections import inside, read_section
from omad.report.summary import from_summary, summary_of
from omad.run.folder import RunFolder
from omad.run.places import holds_run
from omad.run.records import EARLY, PLATEAU, EpisodesLine, Manifest
from omad.schema import Lines, convert, read_json, read_lines

_LONGEST_NOTE = 10_000
"""Characters of what is said of a run; a summary takes ten times as many."""
_PAUSE = 6.0
"""A time between two lines of metrics this many times the usual one of its kind is a pause, not training."""


# ------------------------------------------------------------------------------------------------ one run


def _seconds(lines: Sequence[MetricsLine], settings: RunSettings) -> float | None:
    """Training time from the clock times of log lines.

    Compared with each other are times of random actions, of training, and of training with an evaluation.
    """
    steps, times = np.array([line.step for line in lines]), np.array([line.unix_s for line in lines], np.float64)
    passed = np.diff(times)
    evaluated = np.diff(-(-steps // settings.eval_every)) > 0  # an evaluation follows the line of its step
    kinds = np.where(steps[1:] <= settings.warmup_steps, 0, np.where(evaluated, 2, 1))
    total, kept = 0.0, passed > 0
    for kind in np.unique(kinds[kept]):
        some = passed[kept & (kinds == kind)]
        usual = float(np.median(some) if some.size > 3 else some.min())
        total += float(np.where(some > _PAUSE * usual, usual, some).sum())
    return round(total, 1) if kept.any() else None


def _lines(path: Path, kind: type[Any]) -> Lines:
    """The lines of a file. A run has each of its files from its beginning."""
    if path.is_symlink() or not path.exists():
        return Lines([], [f"{path} is {'a link' if path.is_symlink() else 'not there'}"])
    return read_lines(path, kind)


def _evaluations(path: Path, settings: RunSettings) -> tuple[list[Evaluation], set[int], list[str]]:
    """All that can be used, seeds with returns that were not finite, and a sentence for every damaged line."""
    lines, damaged = _lines(path, EpisodesLine)
    found: dict[tuple[int, int, str], Evaluation] = {}
    lossy = set[int]()
    for line in lines:
        key = line.seed, line.step, line.actions
        if words := misplaced(line, settings) or ("it is there twice" if key in found else ""):
            damaged.append(f"{path}, the evaluation of seed {line.seed} at step {line.step}: {words}")
            continue
        returns = [one for one in line.returns if one is not None]
        if len(returns) < len(line.returns):
            lossy.add(line.seed)
        else:
            found[key] = Evaluation(line.seed, line.step, line.actions, line.eval_seed, returns)
    return list(found.values()), lossy, damaged


def _metrics(path: Path, settings: RunSettings) -> tuple[list[MetricsLine], list[str]]:
    """Those of the first seed, and a sentence for every damaged line."""
    lines, damaged = _lines(path, MetricsLine)
    kept = []
    for line in lines:
        if line.seed not in settings.all_seeds or line.step > settings.last_step:
            damaged.append(
                f"{path}, the line of seed {line.seed} at step {line.step}: the run has no such seed or step"
            )
        elif line.seed == settings.first_seed and kept and line.step < kept[-1].step:
            damaged.append(f"{path}, the line of seed {line.seed} at step {line.step}: it follows step {kept[-1].step}")
        elif line.seed == settings.first_seed:
            kept.append(line)
    return kept, damaged


def _lost(name: str, damaged: Sequence[str]) -> list[str]:
    """What is said of the damaged lines of a file."""
    if not damaged:
        return []
    return [f"{name}: {len(damaged)} damaged and left out ({damaged[0]}{'; ...' if len(damaged) > 1 else ''})"]


def _blank(label: str, state: Any, listed: StudyRun | None, note: str = "") -> Run:
    """A run of which no more is known than its study says."""
    task, algorithm, setting = (listed.task, listed.algorithm, listed.setting) if listed else ("", "", "")
    seeds = (listed.seed,) if listed else ()
    return Run(label, task, algorithm, setting, seeds, state, note, "", {}, {}, 0, 0, None, 0, ())


def _read_run(path: Path, label: str, listed: StudyRun | None, command_of: Callable[[Any], str]) -> Run:
    """One run folder; what cannot be read becomes a run in that state."""
    if not path.is_dir():
        return _blank(label, "missing", listed)

    def hidden(words: str) -> str:
        return words.replace(str(path), label)

    try:
        folder = RunFolder.open(path)
        config = {k: v for k, v in dataclasses.asdict(folder.config).items() if k != "given"}
        manifest = {key: folder.manifest[key] for key in RunManifest.__struct_fields__ if key in folder.manifest}
        stops = convert(folder.manifest, Manifest, path / "manifest.json").stops
        msgspec.json.encode((config, manifest))  # half of a surrogate pair, say, could not be written
        ended, complete, saved = folder.ended, folder.complete, bool(folder.checkpoints())
    except UserError as error:
        return _blank(label, "unreadable", listed, hidden(str(error)))
    except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        return _blank(label, "unreadable", listed, hidden(f"{type(error).__name__}: {error}"))
    try:
        settings = settings_of(config)
        convert(manifest, RunManifest, path / "manifest.json")
        episodes, lossy, damaged = _evaluations(path / "episodes.jsonl", settings)
        metrics, broken = _metrics(path / "metrics.jsonl", settings)
    except UserError as error:
        return _blank(label, "unreadable", listed, hidden(str(error)))
    env_steps = max((line.step for line in (*metrics, *episodes)), default=0)
    last = max((line.step for line in episodes), default=0)
    state, note, diverged = "stopped" if env_steps or saved else "not started", "", sorted(lossy)
    if lossy:
        state, note = "diverged", "returns of an evaluation were not finite"
    elif complete or last >= settings.last_step:
        state = "finished"
    elif folder.busy(folder.path):
        state = "running"
    elif ended:
        state, note, diverged = ("diverged" if ended.how == "diverged" else "broken"), ended.words, ended.seeds
    judged = ""
    if state == "stopped" and stops and stops[-1].env_steps >= env_steps:
        note = stops[-1].reason
        judged = "plateau" if note.startswith(PLATEAU) else "target" if note.startswith(EARLY) else ""
    if state == "finished" and last < settings.last_step:
        note = f"it reached its end, but its evaluations beyond env step {last:,} are gone"
    said = [*filter(None, [note]), *_lost("episodes.jsonl", damaged), *_lost("metrics.jsonl", broken)]
    return Run(
        folder=label,
        task=settings.task,
        algorithm=settings.algorithm,
        setting=listed.setting if listed else "",
        seeds=tuple(settings.all_seeds),
        state=state,
        note=hidden("; ".join(said))[:_LONGEST_NOTE],
        command=command_of(folder.config),
        config=config,
        manifest=manifest,
        env_steps=env_steps,
        gradient_steps=metrics[-1].gradient_steps if metrics else 0,
        train_s=_seconds(metrics, settings),
        timed_steps=metrics[-1].step - metrics[0].step if metrics else 0,
        episodes=tuple(episodes),
        diverged=tuple(seed for seed in diverged if seed in settings.all_seeds) if state == "diverged" else (),
        named=listed is not None,
        judged=judged,
    )


# ------------------------------------------------------------------------------------------------ many


def _found(root: Path, name: str, closed: dict[Path, str]) -> list[Path]:
    """Folders at or below a root that hold a study.json, or as config.json a run's; what runs keep is passed over.

    `closed` takes what cannot be looked into.
    """

    def note(error: OSError) -> None:
        closed[Path(error.filename)] = f"it cannot be read: {error.strerror}"

    found = []
    for here, below, files in os.walk(root, onerror=note):
        below[:] = sorted(set(below) - {"checkpoints", "tb"})
        if name in files if name == "study.json" else holds_run(files):
            found.append(Path(here))
        for link in (Path(here, one) for one in below if Path(here, one).is_symlink()):
            if os.access(link / name, os.F_OK) and not link.resolve().is_relative_to(root):
                closed[link] = "it is a link, and links are not followed; give the folder that it leads to"
    return found


def gather(paths: Sequence[Path], command_of: Callable[[Any], str]) -> Gathered:
    """Everything below the given folders, and what given summaries hold.

    Args:
        paths: Run folders, folders with run folders at any depth, or summaries.
        command_of: From a run's configuration to the command that reproduces it.

    Raises:
        UserError: A path is not there or holds no run, a file of a study cannot be read, or two runs have one name.
    """
    if not paths:
        raise UserError("No run is given; name run folders, folders that hold some, or a summary.json.")
    names: list[str] = []
    runs: dict[str, Run] = {}
    sections: list[Section] = []
    options: dict[str, Any] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} is not there; give run folders, folders that hold some, or a summary.json.")
        live = path.is_dir()
        part = _from_folder(path, command_of) if live else from_summary(path)
        if not part.runs and live and (summary := summary_of(path)):
            part, live = from_summary(summary), False
        if not part.runs:
            raise UserError(
                f"{path} holds no run; give a folder that omad train or omad sweep wrote, or a report's summary.json."
            )
        names += [part.name] if part.name and part.name not in names else []
        for run in part.runs:
            known = runs.get(run.folder, run)
            runs[run.folder] = _further(known, run) if live else _further(run, known)
        sections += part.sections
        options = _joined(options, part.options, path)
    return Gathered(", ".join(names) or "Report", tuple(_labelled(list(runs.values()))), tuple(sections), options)


def _joined(one: dict[str, Any], other: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Options of two parts of a report; `disagreed` takes a sentence for what they say differently, by its name."""
    found = {**other, **one}
    unlike: dict[str, str] = {**other.get("disagreed", {}), **one.get("disagreed", {})}
    kinds = ("study_thresholds", "thresholds")
    mine, theirs = ({t: v for name in kinds for t, v in part.get(name, {}).items()} for part in (one, other))
    for task in mine.keys() & theirs.keys():
        if mine[task] != theirs[task]:
            unlike[task] = f"the return to reach on {task} is {mine[task]:g}, and {theirs[task]:g} in {path}"
    found |= {name: {**other.get(name, {}), **one.get(name, {})} for name in kinds}
    for name in one.keys() & other.keys() & {"actions", "baseline"}:
        if one[name] != other[name]:
            unlike[name] = f"{name} is {one[name]!r}, and {other[name]!r} in {path}"
    return {**found, "disagreed": unlike} if unlike else found


def _further(summarised: Run, found: Run) -> Run:
    """Of two records of one run, as in the summary of a study and in its folder later on, the one that holds more.

    Raises:
        UserError: Neither continues the other.
    """
    short, long = sorted((summarised, found), key=lambda run: (len(run.episodes), run.env_steps))
    alike = not short.config or not long.config or not differing((short, long), _unlengthened)
    alike = alike and (not short.seeds or not long.seeds or short.seeds == long.seeds)
    alike = alike and (not short.task or not long.task or (short.task, short.algorithm) == (long.task, long.algorithm))
    alike = alike and (short.state != "diverged" or long.state == "diverged" or bool(short.episodes))
    if not alike or short.episodes != long.episodes[: len(short.episodes)]:
        raise UserError(
            f"Two runs are called {found.folder}, and neither continues the other; give them different names, or give "
            "one folder that holds both."
        )
    return long


def _unlengthened(run: Run) -> dict[str, Any]:
    """The preset and what tells settings apart, but for what changes as a run is lengthened or moved."""
    free = ("total_steps", "demonstrations", "init_from")
    return {"preset": run.config["preset"]} | {k: v for k, v in fields(run).items() if k not in free}


def _from_folder(root: Path, command_of: Callable[[Any], str]) -> Gathered:
    name, absolute = _writable(root.resolve().name), root.resolve()
    listed: dict[Path, StudyRun] = {}
    names, sections, options = list[str](), list[Section](), dict[str, Any]()
    for folder in _found(absolute, "study.json", {}):
        study = read_json(folder / "study.json", StudyFile)
        names.append(study.name)
        options = _joined(options, {"study_thresholds": study.thresholds}, folder / "study.json")
        for entry in study.runs:
            path = inside(folder, entry.folder, f"{folder / 'study.json'} lists the run")
            if path in listed:
                raise UserError(
                    f"{folder / 'study.json'} lists the folder {entry.folder!r} twice; each run has its own."
                )
            listed[path] = entry
        for file in sorted((folder / "sections").glob("*.json")):
            inside(folder, f"sections/{file.name}", f"{folder} has the section")
            sections.append(read_section(file, folder))
    closed: dict[Path, str] = {}
    folders = dict.fromkeys([*listed, *_found(absolute, "config.json", closed)])

    def label(path: Path) -> str:
        below = path.relative_to(absolute) if path.is_relative_to(absolute) else Path(path.name)
        return name if below == Path() else f"{name}/{_writable(str(below))}"

    def hidden(run: Run) -> Run:
        """Without where on this machine the folders lie."""
        return msgspec.structs.replace(run, note=run.note.replace(f"{absolute.parent}/", ""))

    runs = [hidden(_read_run(path, label(path), listed.get(path), command_of)) for path in folders]
    runs += [_blank(label(path), "unreadable", None, why) for path, why in closed.items() if path not in folders]
    return Gathered(", ".join(names), tuple(runs), tuple(sections), options)


def _writable(name: str) -> str:
    """A name of a file, whose bytes may be no text, as text."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _labelled(runs: Sequence[Run]) -> Iterable[Run]:
    """Name the settings of runs that no study names: the preset, and the fields in which such runs differ."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run in runs:
        if not run.named and run.config:
            groups.setdefault((run.task, run.algorithm, run.config["preset"]), []).append(fields(run))
    for run in runs:
        if run.named or not run.config:
            yield run
            continue
        others, own = groups[run.task, run.algorithm, run.config["preset"]], fields(run)
        differ = [key for key in own if any(other.get(key) != own[key] for other in others)]
        if "total_steps" in differ and "buffer_size" in differ:
            differ.remove("buffer_size")
        words = [run.config["preset"], *(f"{key}={own[key]}" for key in differ)]
        yield msgspec.structs.replace(run, setting=", ".join(words))
