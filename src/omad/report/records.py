"""The formats that a report reads and writes, as typed records: what does not fit one is refused, field by field."""

from __future__ import annotations

import array
import dataclasses
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from omad.errors import UserError
from omad.run.records import EpisodesLine
from omad.schema import Finite, Seed, convert

KIND = "omad report"
"""Marks a summary as one of ours."""
FORMAT = 1
"""Version of the summary's layout, to be raised once another version would misread it. A new field whose default is
what was done before is no reason: newer versions read older summaries by it, and older ones refuse unknown fields."""

Count = Annotated[int, Meta(ge=0, le=10**15)]
Positive = Annotated[int, Meta(ge=1, le=10**15)]
Seconds = Annotated[float, Meta(ge=0, le=1e15)]
Name = Annotated[str, Meta(min_length=1, max_length=1000)]
Short = Annotated[str, Meta(max_length=1000)]
Text = Annotated[str, Meta(max_length=100_000)]
Scalar = bool | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | float | Text | None
Actions = Literal["sampled", "noise_free"]
State = Literal["finished", "running", "stopped", "diverged", "broken", "not started", "missing", "unreadable"]


# ------------------------------------------------------------------------------------------------ of a run folder


class MetricsLine(msgspec.Struct):
    """A line of `metrics.jsonl`, as far as a report needs it."""

    seed: Seed
    step: Count
    unix_s: Seconds = msgspec.field(name="time/unix_s")
    gradient_steps: Count = 0


class RunSettings(msgspec.Struct):
    """Fields of a configuration that a report counts with; the others are the algorithm's, or only shown."""

    task: Name
    algorithm: Name
    preset: Name
    total_steps: Positive
    n_envs: Positive
    updates_per_step: Positive
    seeds: Annotated[int, Meta(ge=1, le=100_000)] = 1
    first_seed: Seed = 0
    eval_seed: Seed = 1_000_000
    eval_episodes: Positive = 500
    batch_size: Positive = 1
    buffer_size: Positive = 1
    warmup_steps: Positive = 1
    eval_every: Positive = 1
    log_every: Positive = 1
    save_every: Positive = 1
    env_workers: Count = 0
    env_timeout: Seconds = 60.0
    obs_norm: Name = "none"
    symmetry: bool = False
    algo: dict[str, Scalar | list[Scalar]] | None = None

    @property
    def last_step(self) -> int:
        """Env steps of each seed, in whole vector steps."""
        return math.ceil(self.total_steps / self.n_envs) * self.n_envs

    @property
    def all_seeds(self) -> range:
        """The seeds themselves."""
        return range(self.first_seed, self.first_seed + self.seeds)


class Values(msgspec.Struct):
    """What a configuration may hold; its algorithm's fields are one level down."""

    config: dict[str, Scalar | list[Scalar] | dict[str, Scalar | list[Scalar]]]


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a run computed on."""

    platform: Text = ""
    kind: Text = ""
    count: Count = 0


class RunManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parts of a manifest that a reader needs."""

    omad: Text = ""
    commit: Text | None = None
    protocol: Text = ""
    resume: Text = ""
    demonstrations: Text = ""
    """Digest of their file."""
    started: Text = ""
    python: Text = ""
    packages: dict[str, Text] = {}
    device: Device = msgspec.field(default_factory=Device)
    machine: dict[str, Text] = {}


# ------------------------------------------------------------------------------------------------ of a study


class StudyRun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run that was meant to be."""

    folder: Name
    """Below the study's."""
    task: Name
    algorithm: Name
    setting: Name
    seed: Seed
    config: dict[str, Any] = {}


class StudyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`study.json`."""

    name: Name
    runs: Annotated[list[StudyRun], Meta(min_length=1)]
    thresholds: dict[str, Finite] = {}
    """Return to reach by task, fixed before the runs."""


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A section of a study's own, shown after the results: `sections/NAME.json`, or a part of a summary."""

    title: Name
    text: Text
    """Paragraphs are parted by blank lines."""
    figure: str = ""
    """Of a file, the name of a PNG or SVG beside it; of a summary, its `data:` address; empty for none."""
    alt: Text = ""
    """What the figure shows, in words."""


# ------------------------------------------------------------------------------------------------ of a summary


class Evaluation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One evaluation of one seed."""

    seed: Seed
    step: Count
    actions: Actions
    eval_seed: Seed
    returns: Annotated[Sequence[Finite], Meta(min_length=1)]
    """Of every episode; held as an array of doubles, in an eighth of the room."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "returns", array.array("d", self.returns))


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run, whatever became of it."""

    folder: Name
    """Where it lies, from the name of the given folder on."""
    task: Short
    algorithm: Short
    setting: Short
    seeds: tuple[Seed, ...]
    state: State
    """`diverged`: a number in its training was not finite. `broken`: an error ended it."""
    note: Text
    """Why it ended or cannot be read, and what of it is damaged."""
    command: Text
    """What reproduces it; empty if that is unknown."""
    config: dict[str, Any]
    manifest: dict[str, Any]
    """The parts of it that a reader needs."""
    env_steps: Count
    """Of each seed, as far as was logged."""
    gradient_steps: Count
    train_s: Seconds | None
    """From the first line of metrics to the last, pauses left out; evaluations are in it."""
    timed_steps: Count
    """Env steps of each seed in that time."""
    episodes: tuple[Evaluation, ...]
    """All evaluations."""
    diverged: tuple[Seed, ...] = ()
    """Of a diverged run, the seeds that did; empty where that is not known, which counts as all."""
    named: bool = True
    """Whether a study has named the setting; else it follows from how the runs of a report differ."""
    judged: Literal["", "target", "plateau"] = ""
    """Of a run that `EarlyStopping` has stopped, whether it reached its target or rose no more."""

    @property
    def total_steps(self) -> int:
        """Env steps of each seed that were planned, in whole vector steps; 0 if not known."""
        return math.ceil(self.config["total_steps"] / (n := self.config["n_envs"])) * n if self.config else 0


class SummaryKind(msgspec.Struct):
    """What a JSON file says that it is."""

    kind: Any = None
    format: Any = None


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a report, kept in its summary."""

    actions: Actions
    thresholds: dict[str, Finite]
    """Return to reach by task, from the command line."""
    study_thresholds: dict[str, Finite] = {}
    """The same, fixed in the study."""
    baseline: Name = "omad"
    """The algorithm that the others are compared with."""


class Summary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`summary.json`; its runs are read one by one, since each is large."""

    kind: str
    format: int
    name: Name
    options: Options
    sections: list[Section]
    runs: list[msgspec.Raw]


@dataclasses.dataclass(frozen=True)
class Gathered:
    """All that a report is made of."""

    name: str
    runs: tuple[Run, ...]
    sections: tuple[Section, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of `Options`: of the report whose summary was read, and `study_thresholds`, which the study has fixed."""


def settings_of(config: dict[str, Any]) -> RunSettings:
    """A configuration's fields, checked.

    Raises:
        UserError: One lacks, or is of another type or size.
    """
    convert({"config": config}, Values, "its configuration")
    return convert(config, RunSettings, "its configuration")


def contradiction(run: Run) -> str:
    """Where the fields of a run, each possible by itself, do not fit together; empty if they do."""
    try:
        if run.command and (run.command[:11] != "omad train " or shlex.join(shlex.split(run.command)) != run.command):
            return f"the command {run.command!r} is not one that reproduces a run"
    except ValueError as error:
        return f"the command {run.command!r} cannot be split into words ({error})"
    try:
        convert(run.manifest, RunManifest, "its manifest")
        settings = settings_of(run.config) if run.config else None
    except UserError as error:
        return str(error).removesuffix(".")
    if settings is None:
        return f"it is {run.state} and has evaluations, but no configuration" if run.episodes else ""
    for name in ("task", "algorithm"):
        if getattr(run, name) != getattr(settings, name):
            return f"{name} is {getattr(run, name)!r}, but {getattr(settings, name)!r} in its configuration"
    if not set(run.diverged) <= set(run.seeds):
        return f"diverged is {list(run.diverged)}; the run has the seeds {list(run.seeds)}"
    if run.seeds != tuple(settings.all_seeds):
        return f"its seeds are not the {settings.seeds} from {settings.first_seed} on of its configuration"
    if not run.timed_steps <= run.env_steps <= settings.last_step:
        return f"env_steps is {run.env_steps}; it must lie between {run.timed_steps} and {settings.last_step}"
    seen = set[tuple[int, int, str]]()
    for i, one in enumerate(run.episodes):
        if (one.seed, one.step, one.actions) in seen:
            return f"episodes[{i}] is a second evaluation of seed {one.seed} at step {one.step}"
        seen.add((one.seed, one.step, one.actions))
        if words := misplaced(one, settings) or ("" if one.step <= run.env_steps else f"step {one.step} is too large"):
            return f"episodes[{i}]: {words}"
    return ""


def misplaced(one: Evaluation | EpisodesLine, settings: RunSettings) -> str:
    """Why an evaluation cannot be of a run; empty if it can."""
    if one.seed not in settings.all_seeds:
        return f"seed {one.seed} is not one of the run's"
    if one.step > settings.last_step:
        return f"step {one.step} is beyond the run's end, {settings.last_step}"
    if one.eval_seed != settings.eval_seed:
        return f"eval_seed is {one.eval_seed}, but {settings.eval_seed} in the configuration"
    if len(one.returns) != settings.eval_episodes:
        return f"{len(one.returns)} returns, but {settings.eval_episodes} episodes in the configuration"
    return ""
