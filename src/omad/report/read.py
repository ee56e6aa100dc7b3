"""Gather what a report is made of: run folders, studies, or the summary that an earlier report wrote.

A study is a folder with a `study.json`, `{"name": ..., "runs": [{"folder", "setting", "task", "algorithm", "seed"}]}`,
which tells all runs that were meant to be; those that are missing, unfinished or failed are gathered too.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import gzip
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omad.errors import Refused

__all__ = ["KIND", "Gathered", "Run", "Section", "gather", "refuse_mixed", "summary_of", "to_json"]

KIND = "omad report"
"""Marks a summary as one of ours."""
FORMAT = 1
"""Version of the summary's layout."""
_GZIP = b"\x1f\x8b"
"""How a packed file begins."""
NEUTRAL = frozenset(
    {"seeds", "first_seed", "eval_every", "log_every", "save_every", "env_workers", "env_timeout", "eval_seed",
     "eval_episodes", "task", "algorithm", "preset", "algo"}
)  # fmt: skip
"""Fields of a configuration that do not tell one setting from another."""
_MANIFEST = ("omad", "commit", "protocol", "resume", "started", "python", "packages", "device", "machine")
_PAUSE = 6.0
"""A time between two lines of metrics this many times the usual is a pause, not training."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run, whatever became of it."""

    folder: str
    """Where it lies, from the name of the given folder on."""
    task: str
    algorithm: str
    setting: str
    seeds: tuple[int, ...]
    state: str
    """`finished`, `running`, `stopped`, `failed` (diverged), `broken`, `not started`, `missing` or `unreadable`."""
    note: str = ""
    """Why it failed or cannot be read."""
    command: str = ""
    """What reproduces it; empty if that cannot be told."""
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    manifest: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The parts of it that a reader needs."""
    env_steps: int = 0
    """Of each seed, as far as was logged."""
    gradient_steps: int = 0
    train_s: float | None = None
    """From the first line of metrics to the last, pauses left out; evaluations are in it."""
    timed_steps: int = 0
    """Env steps of each seed in that time."""
    episodes: tuple[dict[str, Any], ...] = ()
    """All evaluations: `seed`, `step`, `actions`, `eval_seed`, `returns`."""

    @property
    def total_steps(self) -> int:
        """Env steps of each seed that were planned, in whole vector steps; 0 if not known."""
        if not self.config:
            return 0
        n_envs = self.config["n_envs"]
        return math.ceil(self.config["total_steps"] / n_envs) * n_envs


@dataclasses.dataclass(frozen=True)
class Section:
    """A section of a study's own, shown after the results."""

    title: str
    text: str
    """Paragraphs are parted by blank lines."""
    alt: str
    """What the figure shows, in words."""
    figure: str = ""
    """As a `data:` address; empty for none."""


@dataclasses.dataclass(frozen=True)
class Gathered:
    """All that a report is made of."""

    name: str
    runs: tuple[Run, ...]
    sections: tuple[Section, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """`actions` and `thresholds` of the report whose summary was read."""


# ------------------------------------------------------------------------------------------------ one run


def _json(path: Path) -> Any:
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if data.startswith(_GZIP) else data)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise Refused(f"{path} cannot be read ({error}); restore it from a copy.") from None


def _seconds(times: Sequence[float]) -> float | None:
    """Training time from the clock times of log lines."""
    passed = np.diff(np.array(times, np.float64))
    passed = passed[passed > 0]
    if not passed.size:
        return None
    usual = float(np.median(passed))
    return round(float(np.where(passed > _PAUSE * usual, usual, passed).sum()), 1)


def _read_run(path: Path, label: str, listed: Mapping[str, Any], command_of: Callable[[Any], str]) -> Run:
    """One run folder; what cannot be read becomes a run in that state."""
    from omad.run.folder import RunFolder

    setting = str(listed.get("setting", ""))
    seeds = (int(listed["seed"]),) if "seed" in listed else ()
    named = Run(label, str(listed.get("task", "")), str(listed.get("algorithm", "")), setting, seeds, "missing")
    if not path.is_dir():
        return named
    try:
        folder = RunFolder.open(path)
        lines = list(folder.lines("episodes.jsonl"))
        metrics = [line for line in folder.lines("metrics.jsonl") if line["seed"] == folder.config.first_seed]
        episodes = tuple(
            {key: line[key] for key in ("seed", "step", "actions", "eval_seed", "returns")}
            for line in lines
            if np.isfinite(line["returns"]).all()
        )
    except (Refused, KeyError, TypeError) as error:
        words = str(error) if isinstance(error, Refused) else f"a line lacks {error}"
        return dataclasses.replace(named, state="unreadable", note=words.replace(str(path), label))
    config = folder.config
    run = Run(
        folder=label,
        task=config.task,
        algorithm=config.algorithm,
        setting=setting,
        seeds=config.all_seeds,
        state="",
        command=command_of(config),
        config=dataclasses.asdict(config),
        manifest={key: folder.manifest[key] for key in _MANIFEST if key in folder.manifest},
        env_steps=max([line["step"] for line in (*metrics, *lines)], default=0),
        gradient_steps=metrics[-1].get("gradient_steps", 0) if metrics else 0,
        train_s=_seconds([line["time/unix_s"] for line in metrics]),
        timed_steps=metrics[-1]["step"] - metrics[0]["step"] if metrics else 0,
        episodes=episodes,
    )
    state, note = _state(folder, run, lossy=len(episodes) < len(lines))
    return dataclasses.replace(run, state=state, note=note.replace(str(path), label))


def _state(folder: Any, run: Run, lossy: bool) -> tuple[str, str]:
    ended = folder.ended
    if lossy:
        return "failed", "returns of an evaluation were not finite"
    if folder.complete or max((line["step"] for line in run.episodes), default=0) >= run.total_steps:
        return "finished", ""
    if folder.busy(folder.path):
        return "running", ""
    if ended:
        return ("failed" if ended.how == "diverged" else "broken"), ended.words
    return ("stopped" if run.env_steps or folder.checkpoints() else "not started"), ""


# ------------------------------------------------------------------------------------------------ many


def _found(root: Path, name: str) -> list[Path]:
    """Folders at or below a root that hold a file, but not inside runs."""
    found = []
    for here, below, files in os.walk(root):
        below[:] = sorted(set(below) - {"checkpoints", "tb"})
        if name in files:
            found.append(Path(here))
    return found


def gather(paths: Sequence[Path], command_of: Callable[[Any], str]) -> Gathered:
    """Everything below the given folders, and what given summaries hold.

    Args:
        paths: Run folders, folders with run folders at any depth, or summaries.
        command_of: From a run's configuration to the command that reproduces it.

    Raises:
        Refused: A path is not there or holds no run, a file of a study cannot be read, or two runs have one name.
    """
    if not paths:
        raise Refused("No run is given; name run folders, folders that hold some, or a summary.json.")
    names: list[str] = []
    runs: dict[str, Run] = {}
    sections: list[Section] = []
    options: dict[str, Any] = {}
    for path in paths:
        if not path.exists():
            raise Refused(f"{path} is not there; give run folders, folders that hold some, or a summary.json.")
        part = _from_summary(path) if path.is_file() else _from_folder(path, command_of)
        if not part.runs and path.is_dir() and (summary := summary_of(path)):
            part = _from_summary(summary)
        if not part.runs:
            raise Refused(
                f"{path} holds no run; give a folder that omad train or omad sweep wrote, or a report's summary.json."
            )
        names += [part.name] if part.name and part.name not in names else []
        for run in part.runs:
            runs[run.folder] = _further(runs.get(run.folder, run), run)
        sections += part.sections
        options = {**part.options, **options}
    return Gathered(", ".join(names) or "Report", tuple(_labelled(list(runs.values()))), tuple(sections), options)


def _further(one: Run, other: Run) -> Run:
    """Of two records of one run, as in the summary of a study and in its folder later on, the one that holds more.

    Raises:
        Refused: Neither continues the other.
    """
    short, long = sorted((one, other), key=lambda run: len(run.episodes))
    alike = not short.config or not long.config or not _differing((short, long), _fields)
    if not alike or short.episodes != long.episodes[: len(short.episodes)]:
        raise Refused(f"Two runs are called {one.folder}, and neither continues the other; give them different names.")
    return long


def _from_folder(root: Path, command_of: Callable[[Any], str]) -> Gathered:
    name, absolute = root.resolve().name, root.resolve()
    listed: dict[Path, Mapping[str, Any]] = {}
    names, sections = list[str](), list[Section]()
    for folder in _found(absolute, "study.json"):
        study = _json(folder / "study.json")
        try:
            names.append(str(study["name"]))
            listed |= {(folder / str(entry["folder"])).resolve(): entry for entry in study["runs"]}
        except (KeyError, TypeError) as error:
            raise Refused(f"{folder / 'study.json'} is not a study: it lacks {error}.") from None
        sections += [_section(file) for file in sorted((folder / "sections").glob("*.json"))]
    folders = dict.fromkeys([*listed, *_found(absolute, "config.json")])

    def label(path: Path) -> str:
        below = path.relative_to(absolute) if path.is_relative_to(absolute) else Path(path.name)
        return name if below == Path() else f"{name}/{below}"

    def hidden(run: Run) -> Run:
        """Without where on this machine the folders lie."""
        return dataclasses.replace(run, note=run.note.replace(f"{absolute.parent}/", ""))

    runs = (hidden(_read_run(path, label(path), listed.get(path, {}), command_of)) for path in folders)
    return Gathered(", ".join(names), tuple(runs), tuple(sections))


def _labelled(runs: Sequence[Run]) -> Iterable[Run]:
    """Name the settings of runs that no study names: the preset, and the fields in which such runs differ."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run in runs:
        if not run.setting and run.config:
            groups.setdefault((run.task, run.algorithm, run.config["preset"]), []).append(_fields(run))
    for run in runs:
        if run.setting or not run.config:
            yield run
            continue
        others, own = groups[run.task, run.algorithm, run.config["preset"]], _fields(run)
        differ = [key for key in own if any(other[key] != own[key] for other in others)]
        if "total_steps" in differ and "buffer_size" in differ:
            differ.remove("buffer_size")
        words = [run.config["preset"], *(f"{key}={own[key]}" for key in differ)]
        yield dataclasses.replace(run, setting=", ".join(words))


def _fields(run: Run) -> dict[str, Any]:
    """What tells settings apart: fields of the run and of the algorithm, side by side."""
    return {key: value for key, value in run.config.items() if key not in NEUTRAL} | (run.config.get("algo") or {})


_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


def _section(path: Path) -> Section:
    """A section of a study: `title`, `text`, and perhaps `figure` (a PNG or SVG file beside it) with `alt`."""
    found = _json(path)
    needed = {"title", "text", "alt"} if isinstance(found, dict) and found.get("figure") else {"title", "text"}
    if not isinstance(found, dict) or not needed <= found.keys():
        raise Refused(f"{path} is not a section: it needs title and text, and alt if there is a figure.")
    figure = ""
    if found.get("figure"):
        file = path.parent / str(found["figure"])
        if file.suffix not in _TYPES or not file.is_file():
            raise Refused(f"{path} names the figure {found['figure']!r}; it must be a PNG or SVG file beside it.")
        figure = f"data:{_TYPES[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"
    return Section(str(found["title"]), str(found["text"]), str(found.get("alt", "")), figure)


# ------------------------------------------------------------------------------------------------ the summary


def to_json(gathered: Gathered, actions: str, thresholds: Mapping[str, float]) -> str:
    """The summary, one run a line; `gather` reads it back."""
    parts = {
        "kind": KIND,
        "format": FORMAT,
        "name": gathered.name,
        "options": {"actions": actions, "thresholds": dict(thresholds)},
        "sections": [dataclasses.asdict(section) for section in gathered.sections],
    }
    head = json.dumps(parts, separators=(",", ":"))
    rows = ",\n".join(json.dumps(dataclasses.asdict(run), separators=(",", ":")) for run in gathered.runs)
    return f'{head[:-1]},"runs":[\n{rows}\n]}}\n'


def _from_summary(path: Path) -> Gathered:
    found = _json(path)
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise Refused(f"{path} is not a summary; give the summary.json that omad report wrote, or run folders.")
    if found.get("format") != FORMAT:
        raise Refused(
            f"{path} has format {found.get('format')!r}; this version reads {FORMAT}. Use the one that wrote it."
        )
    try:
        runs = tuple(
            Run(**row | {"seeds": tuple(row["seeds"]), "episodes": tuple(row["episodes"])} | _known(row["config"]))
            for row in found["runs"]
        )
        sections = tuple(Section(**row) for row in found["sections"])
        return Gathered(found["name"], runs, sections, found["options"])
    except (KeyError, TypeError) as error:
        raise Refused(f"{path} is not a whole summary ({error}); restore it from a copy.") from None


def _known(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """With the fields that came since, at their defaults, as a run folder of that time is read."""
    from omad.run.folder import with_defaults

    try:
        return {"config": with_defaults(config)} if config else {}
    except Refused:  # of an algorithm that is not installed here, say: it can still be shown
        return {}


def summary_of(folder: Path) -> Path | None:
    """The summary in a folder that holds a report of ours, which may have been packed with gzip since."""
    for name, opened in (("summary.json", Path.open), ("summary.json.gz", gzip.open)):
        try:
            with opened(folder / name, "rb") as file:
                if file.read(40).startswith(f'{{"kind":"{KIND}"'.encode()):
                    return folder / name
        except (OSError, EOFError, zlib.error):
            continue
    return None


# ---------------------------------------------------------------------------------------------- mixtures


def refuse_mixed(runs: Sequence[Run], actions: str = "sampled") -> None:
    """Refuse returns that cannot be compared, or runs that cannot be counted as seeds of one setting.

    Raises:
        Refused: Runs of a task differ in what their returns mean; runs of a setting in their configuration; or a seed
            is there twice. The message lists what differs, and where.
    """
    said = []
    tasks: dict[str, list[Run]] = {}
    settings: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        if run.config:
            settings.setdefault((run.task, run.algorithm, run.setting), []).append(run)
        if run.episodes:
            tasks.setdefault(run.task, []).append(run)
    for task, same in tasks.items():
        differs = _differing(same, functools.partial(_protocol, actions=actions))
        if differs:
            said.append(f"runs of {task} do not share one protocol: {differs}")
    for (task, algorithm, setting), same in settings.items():
        differs = _differing(same, _fields)
        if differs:
            said.append(f"runs of {algorithm} on {task} in the setting {setting!r} are not alike: {differs}")
        held: dict[int, str] = {}
        for run in same:
            for seed in run.seeds if run.episodes else ():
                if held.setdefault(seed, run.folder) != run.folder:
                    said.append(f"seed {seed} of {algorithm} on {task} is in {held[seed]} and in {run.folder}")
    if said:
        raise Refused(f"{'; '.join(said)}. Give runs that belong together, and make one report of each kind.")


def _protocol(run: Run, actions: str) -> dict[str, Any]:
    """What a return hangs on besides the policy."""
    lines = [line for line in run.episodes if line["actions"] == actions]
    return {
        "protocol": run.manifest.get("protocol"),
        "evaluation seed": ", ".join(map(str, sorted({line["eval_seed"] for line in lines}))),
        "evaluation episodes": ", ".join(map(str, sorted({len(line["returns"]) for line in lines}))),
        f"evaluation of {actions} actions": "there" if lines else "not there",
    }


def _differing(runs: Sequence[Run], of: Callable[[Run], dict[str, Any]]) -> str:
    """`name is A in these and B in those`, for all that is not the same in all runs."""
    found = [(run.folder, of(run)) for run in runs]
    words = []
    for key in dict.fromkeys(key for _, values in found for key in values):
        by: dict[str, list[str]] = {}
        for folder, values in found:
            by.setdefault(json.dumps(values.get(key)), []).append(folder)
        if len(by) > 1:
            words.append(f"{key} is " + " and ".join(f"{value} in {_few(where)}" for value, where in by.items()))
    return ", ".join(words)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
