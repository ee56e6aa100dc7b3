"""Studies: many runs, listed by a Python file, in one folder.

A study file holds a `STUDY`:

    from omad.study import Study, grid

    STUDY = Study("small", grid(tasks=["mpe/spread-3"], algorithms=["omad", "hasac"], seeds=range(3)))

Every run has one seed and a folder of its own, `TASK/ALGORITHM/SETTING/seed-K` below the study's. So the folders
alone show what is left to do: a run that is complete stays as it is, all others continue from their checkpoints.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import json
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omad import files, schema, tasks
from omad.algos.validate import shown
from omad.config import RunConfig, resolve, to_dict
from omad.errors import UserError
from omad.presets import PRESETS
from omad.run.folder import RunFolder
from omad.run.places import half_made
from omad.run.records import LINES, WITHOUT_EFFECT
from omad.schema import LARGEST
from omad.tasks import nearest


def _slug(words: str) -> str:
    """As a part of a path."""
    return "".join(c if c.isalnum() or c in "-_.=" else "-" for c in words)


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run of a study."""

    config: RunConfig
    """Of a single seed."""
    setting: str
    """What tells it from other runs of the same task and algorithm; the name it has in tables."""

    def __post_init__(self) -> None:
        """Refuse what cannot be shown.

        Raises:
            UserError: More than one seed, or a setting without a name.
        """
        if self.config.seeds != 1:
            raise UserError(
                f"A run of a study has one seed, not {self.config.seeds}; list one run a seed, as grid() does."
            )
        if not self.setting.strip(" ."):
            raise UserError("A run of a study needs a setting that names it, such as 'matched' or 'alpha 0.1'.")

    @property
    def folder(self) -> Path:
        """Relative to the study's folder."""
        config = self.config
        return Path(_slug(config.task), config.algorithm, _slug(self.setting), f"seed-{config.first_seed}")


@dataclasses.dataclass(frozen=True)
class Study:
    """Runs that belong together, in the order in which to take them."""

    name: str
    runs: Sequence[PlannedRun]
    thresholds: Mapping[str, float | int] = dataclasses.field(default_factory=dict)
    """By task: the return to which a report counts env steps, fixed before the runs."""

    def __post_init__(self) -> None:
        """Refuse runs that cannot be distinguished.

        Raises:
            UserError: No runs, two runs of one folder, a name that is not one word, or a threshold of no task of the
                study or that is not a finite number.
        """
        if not self.name.strip(".") or _slug(self.name) != self.name:
            raise UserError(f"A study's name names its folder: {self.name!r} must be letters, digits, '-', '_' or '.'.")
        object.__setattr__(self, "runs", self._listed())
        if not self.runs:
            raise UserError(f"The study {self.name} lists no runs.")
        seen: set[Path] = set()
        for run in self.runs:
            if run.folder in seen:
                raise UserError(
                    f"The study {self.name} lists {run.folder} twice; give one of the two runs another setting or seed."
                )
            seen.add(run.folder)
        known = {run.config.task for run in self.runs}
        for task, value in self.thresholds.items():
            if tasks.find(task).name not in known:
                raise UserError(
                    f"The study {self.name} has a threshold of {task}, but no run of it; name a task it has."
                )
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
                raise UserError(
                    f"The study {self.name} has the threshold {value!r} of {task}; it must be a return of at most "
                    f"{LARGEST:g} in size."
                )
        thresholds = {tasks.find(task).name: float(value) for task, value in self.thresholds.items()}
        object.__setattr__(self, "thresholds", thresholds)

    def _listed(self) -> tuple[PlannedRun, ...]:
        """The runs, which may have been given as anything that lists them once.

        Raises:
            UserError: Something else is among them.
        """
        runs = tuple(self.runs)
        if wrong := [run for run in runs if not isinstance(run, PlannedRun)]:
            hint = " Put a star before a list of them: [*grid(...), *grid(...)]." if isinstance(wrong[0], list) else ""
            raise UserError(f"The study {self.name} lists {shown(wrong[0])}; it must list runs, as grid() does.{hint}")
        return runs


_GRIDS = frozenset(("task", "algorithm", "seeds", "first_seed"))
"""Fields of which `grid` makes a run each."""


def grid(
    tasks: Sequence[str],
    algorithms: Sequence[str] = ("omad",),
    settings: Mapping[str, Mapping[str, Any]] | Sequence[str] = ("cpu",),
    seeds: Iterable[int] = range(3),
    **fields: Any,
) -> list[PlannedRun]:
    """Every task with every algorithm, setting and seed; seeds change slowest, so that early results compare.

    Args:
        tasks: Names of tasks.
        algorithms: Names of algorithms.
        settings: Name -> fields of `omad train`, with `preset` among them or the setting's own name being one, else
            `cpu`; or just names of presets.
        seeds: One run each.
        **fields: Fields of all runs.

    Raises:
        UserError: Something is unknown or cannot work.
    """
    listed = {"tasks": tasks, "algorithms": algorithms, "settings": settings, "seeds": seeds}
    for name, words in listed.items():
        if isinstance(words, str | int) or not isinstance(words, Iterable):
            raise UserError(f"{name} is {shown(words)}; give a list, as [{shown(words)}].")
    if isinstance(settings, Mapping) and (wrong := [name for name in settings if not isinstance(name, str)]):
        raise UserError(f"settings has the name {shown(wrong[0])}; names are texts, as {str(wrong[0])!r}.")
    named = settings if isinstance(settings, Mapping) else {name: {} for name in settings}
    if unknown := [name for name in named if name not in PRESETS and not isinstance(settings, Mapping)]:
        near = nearest(str(unknown[0]), PRESETS, 1)[0]
        raise UserError(
            f"settings lists {unknown[0]!r}, which is no preset; nearest: {near}. For a setting of another name give "
            "its fields: {name: {field: value}}."
        )
    runs = []
    for seed, task, (setting, changed), algorithm in itertools.product(seeds, tasks, named.items(), algorithms):
        given = {"preset": setting if setting in PRESETS else "cpu"} | dict(fields) | dict(changed)
        if taken := sorted(_GRIDS.intersection(given)):
            raise UserError(
                f"{taken[0]} is among the fields of runs; give grid() the lists tasks, algorithms and seeds instead."
            )
        preset = given.pop("preset")
        if setting in PRESETS and preset != setting:
            raise UserError(
                f"The setting {setting!r} has the preset {preset!r}; give the setting another name, as "
                f"settings={{'mine': {{'preset': {preset!r}}}}}, or settings=[{preset!r}]."
            )
        config = resolve(task, algorithm, preset, **given, seeds=1, first_seed=seed)
        runs.append(PlannedRun(config, setting))
    return runs


def load(path: str | Path) -> Study:
    """Run a study file, which is the user's own program, and take its `STUDY`.

    Raises:
        UserError: There is no such file, it fails, or it has no `STUDY`.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not a file; give a Python file that holds STUDY = Study(name, runs).")
    spec = importlib.util.spec_from_file_location(f"omad_study_{_slug(path.stem)}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file; its name must end in .py.")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # its dataclasses look themselves up there
    try:
        spec.loader.exec_module(module)
    except UserError as error:
        raise UserError(f"{path}{_line_in(path, error)}: {error}") from None
    except (Exception, SystemExit) as error:
        raise UserError(f"{path}{_line_in(path, error)}: {type(error).__name__}: {error}") from error
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        raise UserError(f"{path} has STUDY = {study!r}; it must hold STUDY = Study(name, runs), from omad.study.")
    return study


def _line_in(path: Path, error: BaseException) -> str:
    """Where in the study file something happened, as far as that is known."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    number = lines[-1] if lines else getattr(error, "lineno", None)
    return f", line {number}" if number else ""


def place(study: Study, root: Path, create: Any, chosen: Sequence[PlannedRun] | None = None) -> list[Path]:
    """Make the folders that are not there yet, and `study.json`, which lists all runs of the study.

    Args:
        study: The runs.
        root: The study's folder.
        create: `(config, path) -> RunFolder`, as `Experiment.create`.
        chosen: Those whose folders are made; by default all.

    Returns:
        Their folders, in that order.

    Raises:
        UserError: A folder that is there holds a run of another configuration, or cannot be read.
    """
    listed = [
        {
            "folder": run.folder.as_posix(),
            "task": run.config.task,
            "algorithm": run.config.algorithm,
            "setting": run.setting,
            "seed": run.config.first_seed,
            "config": to_dict(run.config),
        }
        for run in study.runs
    ]
    chosen = study.runs if chosen is None else chosen
    _refuse_another(study.name, root / "study.json")
    for run in study.runs:  # all, as study.json is to say what they hold
        _fits(run, root, run in chosen)
    root.mkdir(parents=True, exist_ok=True)
    whole = {"name": study.name, "runs": listed, "thresholds": study.thresholds}
    files.write_text(root / "study.json", json.dumps(whole, indent=1) + "\n", root)
    for run in chosen:
        path = root / run.folder
        if not path.exists():
            above = root
            for part in run.folder.parent.parts:
                above = above / part
                files.make_folder(above, root)
            create(run.config, path).close()
    return [root / run.folder for run in chosen]


def _fits(run: PlannedRun, root: Path, chosen: bool) -> None:
    """That what lies at a run's place, if anything, is that run; of chosen ones what never trained is removed."""
    path = root / run.folder
    if not path.exists():
        return
    if half_made(path) and not RunFolder.busy(path):
        if chosen:
            files.remove(path, root)
        return
    try:
        folder = RunFolder.open(path)
    except UserError:
        if chosen:
            raise
        return
    due = run.config
    if _moved(folder, due):
        folder.adjust(demonstrations=due.demonstrations, init_from=due.init_from)
    found, wanted = _flat(to_dict(folder.config)), _flat(to_dict(due))
    names = [name for name in wanted if found.get(name) != wanted[name]]
    changed = [f"{name} {found.get(name)!r}, now {wanted[name]!r}" for name in names]
    if changed and not RunFolder.busy(path) and not _trained(path):
        if chosen:
            files.remove(path, root)
    elif changed:
        raise UserError(
            f"{path} was begun with {'; '.join(changed)}. Give the changed setting another name, sweep into another "
            "--out, or move that folder away."
        )
    elif chosen and not RunFolder.busy(path) and not folder.complete:
        folder.adjust(**{name: getattr(due, name) for name in WITHOUT_EFFECT})
        with contextlib.closing(folder):
            folder.lock()
            folder.write_changes()


def _moved(folder: RunFolder, due: RunConfig) -> bool:
    """Whether a run's demonstrations, or the run that it started from, only lie elsewhere now."""
    was = folder.config
    places = (was.demonstrations, due.demonstrations), (was.init_from, due.init_from)
    if all(old == new for old, new in places) or any(bool(old) != bool(new) for old, new in places):
        return False
    from omad import demonstrations
    from omad.run import warm_start

    try:
        if was.demonstrations != due.demonstrations:
            demonstrations.unchanged(due.demonstrations, folder.manifest.get("demonstrations"))
        if was.init_from != due.init_from:
            warm_start.find(due.init_from, folder.manifest.get("init_from") or {"sha256": None})
    except UserError:
        return False
    return True


def _refuse_another(name: str, path: Path) -> None:
    """That a folder holds no other study, whose list of runs and thresholds would be replaced.

    Raises:
        UserError: It does, or its list cannot be read, or is something else's.
    """
    try:
        found = schema.read_json(path, dict[str, Any])
    except FileNotFoundError:
        return
    if not isinstance(before := found.get("name"), str):
        raise UserError(f"{path} is not a study's list of runs; sweep into another --out.")
    if before != name:
        raise UserError(f"{path} is of the study {shown(before)}, not {name}; sweep into another --out.")


def _trained(path: Path) -> bool:
    """Whether a run has left anything worth keeping behind, or anything else lies in its folder."""
    made = {"lock", "checkpoints", "config.json", "manifest.json", "log.txt", "ended.json", *LINES}
    return (
        any(entry.name not in made for entry in path.iterdir())
        or any(path.glob("checkpoints/*"))
        or any((path / name).exists() and (path / name).stat().st_size for name in LINES)
    )


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Without what does not change a result."""
    return {k: v for k, v in (config | config.get("algo", {})).items() if k not in ("algo", *WITHOUT_EFFECT)}
