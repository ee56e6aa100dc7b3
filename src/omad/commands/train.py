"""`omad train [ALGO] --task T --preset P ...`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from omad.algos import REGISTRY, config_class
from omad.algos.validate import check, documented
from omad.commands.computing import ANYWHERE, ComputingFlags
from omad.commands.dashboard import Stop, run_with_dashboard
from omad.config import RUN_FIELDS, TAG, RunConfig, resolve, sources
from omad.config_file import read, to_toml
from omad.console import console
from omad.derived import FOLLOWING, OF_REWARDS
from omad.device import share_device
from omad.errors import UserError
from omad.presets import LEGEND
from omad.processes import cores_at_once
from omad.run.places import how_to_resume
from omad.trust import refuse_foreign


@dataclasses.dataclass(frozen=True)
class ConfigOptions:
    """Where settings come from and what runs them; of all that is given, options on the command line count most."""

    config: Path | None = None
    """Settings from a TOML file with the layout of config.json (fields of the run at the top, hyperparameters in the
    table algo), from a run's config.json or from its folder. They count more than the preset, less than options."""
    print_config: bool = False
    """Print the resolved configuration as TOML, every value with its source, and exit; nothing is made."""
    computing: ComputingFlags = ANYWHERE


@dataclasses.dataclass(frozen=True)
class Options(ConfigOptions):
    """Where and how a run is written; these do not change its numbers."""

    run_dir: Path | None = None
    """New folder of the run; by default one below runs/ named after task, algorithm, preset and time."""
    parallel_seeds: int = 1
    """Processes at a time, one a seed, each on its own share of the cores and in a folder seed-K of the run folder;
    with 1, all seeds are trained in one process and one folder; 0 for one a core, which on one core is 1."""


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Task, preset, algorithm and file, which decide the defaults of all others, and the other words.

    The algorithm may stand first, without its flag. Of an option given twice the last one counts, as for all others.
    """
    words, chosen, rest = list(arguments), dict[str, str](), list[str]()
    if words and not words[0].startswith("-"):
        words.insert(0, "--algorithm")
    while words:
        word = words.pop(0)
        name, given, value = word.partition("=")
        if name not in ("--task", "--preset", "--algorithm", "--config"):
            rest.append(word)
        elif given:
            chosen[name[2:]] = value
        elif words and not words[0].startswith("-"):
            chosen[name[2:]] = words.pop(0)
        else:
            rest.append(word)  # its value is missing, which the parser says
    return chosen, rest


def _typed(words: Sequence[str], flags: Mapping[str, bool]) -> set[str]:
    """The fields that the words of a command line name.

    Args:
        words: What was typed.
        flags: Every field there is, and whether it is switched on and off without a value.
    """
    names = {word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--")}
    off = {name.removeprefix("no_") for name in names - set(flags) if name.startswith("no_")}
    return {name for name in names if name in flags} | {name for name in off if flags.get(name)}


GROUPS = {
    "run": ("What is trained, and for how long.", RUN_FIELDS),
    "evaluation": (
        "How policies are evaluated during training.",
        ("eval_every", "eval_episodes", "eval_seed", "eval_noise_free"),
    ),
    "records": ("What is written, and how often.", ("log_every", "save_every", "keep_checkpoints", "keep_best")),
    "env": ("How envs are stepped.", ("n_envs", "env_workers", "env_timeout")),
}
"""Fields of a run as `--help` groups them; `run` has what no other group has."""


def _form(name: str, about: str, config: Any, fields: Sequence[str], found: Mapping[str, str], given: Any) -> Any:
    """A group of options: fields with the values that hold unless others are given, and their sources."""
    hints, documents = get_type_hints(type(config), include_extras=True), documented(type(config))
    rows = []
    for field in fields:
        words = documents.get(field, "")
        if field in given or found[field].startswith("preset"):
            where = f"from {found[field]}" if field in given else f"of {found[field]}"
            words = f"{TAG.sub('', words)} Value {where}."
        kind = Annotated[hints[field], tyro.conf.arg(help=words)]
        rows.append((field, kind, dataclasses.field(default=getattr(config, field))))
    made = dataclasses.make_dataclass(name, rows, frozen=True, namespace={"__doc__": about})
    return name, tyro.conf.OmitArgPrefixes[made], dataclasses.field(default=made())


def _forms(base: RunConfig) -> list[Any]:
    """All groups of a configuration."""
    found, algo = sources(base), [f.name for f in dataclasses.fields(base.algo)]
    elsewhere = {name for group, (_, names) in GROUPS.items() if group != "run" for name in names}
    forms = []
    for group, (about, names) in GROUPS.items():
        names = ("task", "algorithm", "preset", *(n for n in names if n not in elsewhere)) if group == "run" else names
        forms.append(_form(group, about, base, names, found, base.given))
    about = f"Hyperparameters of {base.algorithm}."
    return [*forms, _form("algorithm", about, base.algo, algo, found, base.given)]


def _as_it_follows(file: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """Without the values that follow from a file's others, so that they follow from what flags change, too.

    What is in the units of rewards follows where they are normalised, or where a flag says whether they are.
    """
    normalised = file.get("reward_norm") == "return" or any(
        w.replace("_", "-").startswith("--reward-norm") for w in words
    )
    for name in file.keys() & (set(FOLLOWING) - (set() if normalised else OF_REWARDS)):
        rest = {field: value for field, value in file.items() if field != name}
        with contextlib.suppress(UserError):
            config = resolve(**rest)
            if file[name] == getattr(config, name, getattr(config.algo, name, None)):
                file = rest
    return file


def _refuse_of_run(path: str, file: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    """What a run's own configuration, perhaps somebody else's, cannot ask for, and what changes nothing beside it.

    Raises:
        UserError: It names a user's env, whose code would be imported, or a preset is given too.
    """
    if "task" in file:
        refuse_foreign(file["task"], Path(path), "task" in chosen, "name the task yourself with --task")
    whole = Path(path).is_dir() or Path(path).name == "config.json"
    if whole and chosen.get("preset", file.get("preset")) != file.get("preset"):
        raise UserError(
            f"--preset is {chosen['preset']!r}, which changes nothing beside {path}: a run's configuration sets every "
            "field. Leave it out, or give a TOML file with the fields to keep."
        )


def _refuse_of_others(words: Sequence[str], base: RunConfig) -> None:
    """Say of a hyperparameter that only other algorithms have it.

    Raises:
        UserError: One was typed.
    """
    fields = {name: {field.name for field in dataclasses.fields(config_class(name))} for name in REGISTRY}
    own = {field.name for part in (base, base.algo) for field in dataclasses.fields(part)}
    for name in sorted(_typed(words, dict.fromkeys(set().union(*fields.values()) - own, True))):
        having = [algorithm for algorithm, names in fields.items() if name in names]
        raise UserError(
            f"{base.algorithm} has no --{name.replace('_', '-')}, which is a hyperparameter of {', '.join(having)}; "
            "leave it out, or name such an algorithm first."
        )


def parse(arguments: Sequence[str], prog: str, options: Any) -> tuple[RunConfig, Any]:
    """The words of a command line that begin with task, algorithm and preset or have them anywhere.

    Of the same option given twice the last one counts. A field is given if its flag was typed, whatever its value.
    What a file gives counts more than the preset and less than flags.

    Args:
        arguments: Words of the command line after the command.
        prog: Name to show in help.
        options: Default instance of the command's own `ConfigOptions`.

    Returns:
        The resolved configuration, and the options.
    """
    chosen, words = _split(arguments)
    path = chosen.pop("config", None)
    file = {} if path is None else _as_it_follows(read(path, chosen.get("algorithm")), words)
    if path is not None and (Path(path).is_dir() or Path(path).suffix == ".json"):
        _refuse_of_run(path, file, chosen)
    try:
        base = resolve(**(file | chosen))
    except UserError:
        # Options may still make sense of the file; if they do not, the last lines say so.
        base = resolve(**({k: v for k, v in file.items() if k in ("task", "algorithm", "preset")} | chosen))
    base = dataclasses.replace(
        base, given={name: where for name in file if (where := str(path)) and name not in chosen}
    )
    _refuse_of_others(words, base)
    own = type(options)
    command = (
        "command",
        Annotated[tyro.conf.OmitArgPrefixes[own], tyro.conf.arg(name="")],
        dataclasses.field(default=options),
    )
    grouped = dataclasses.make_dataclass("Arguments", [command, *_forms(base)], frozen=True)
    description = (
        f"Defaults shown are those of algorithm {base.algorithm}, task {base.task} and preset {base.preset}; "
        f"name another algorithm first, or give --task and --preset, to see theirs. {LEGEND}"
    )
    parsed: Any = tyro.cli(grouped, prog=prog, description=description, args=words)
    fields: dict[str, Any] = {}
    for cls, groups in ((RunConfig, GROUPS), (type(base.algo), ("algorithm",))):
        hints = get_type_hints(cls)
        for name in _typed(words, {f.name: hints[f.name] is bool for f in dataclasses.fields(cls)}):
            part = next(part for group in groups if hasattr(part := getattr(parsed, group), name))
            fields[name] = getattr(part, name)
    config = resolve(**(file | chosen | fields))
    given = dict.fromkeys(file, str(path)) | dict.fromkeys((*chosen, *fields), "given")
    return dataclasses.replace(config, given=given), dataclasses.replace(
        parsed.command, config=None if path is None else Path(path)
    )


def print_config(config: RunConfig) -> int:
    """Print a configuration as a file for `--config`."""
    sys.stdout.write(to_toml(config))
    return 0


def main(arguments: Sequence[str]) -> int:
    """Train from nothing."""
    config, options = parse(arguments, "omad train [ALGO]", Options())
    check(options, not_negative=("parallel_seeds",), most={"parallel_seeds": 10_000}, flags=True)
    at_once = min(options.parallel_seeds or cores_at_once(), config.seeds)
    if options.print_config:
        return print_config(config)
    if at_once > 1:
        share_device()
    options.computing.prepare()
    from omad.commands.curve import LearningCurve
    from omad.experiment import Experiment
    from omad.launch import side_by_side

    experiment = Experiment(config, callbacks=[LearningCurve()])
    out = console()
    out.print(
        f"{config.algorithm} on {config.task}, preset {config.preset}, seeds {', '.join(map(str, config.all_seeds))}, "
        f"{config.total_steps:,} env steps, {config.updates_per_env_step:g} gradient steps per env step"
    )
    if at_once > 1:
        out.print(experiment.forecast(at_once))
        folders = experiment.create_each(options.run_dir)
        code = run_with_dashboard(functools.partial(side_by_side, folders, at_once), Stop())
        out.print(str(folders[0].parent))
        return code
    out.print(experiment.forecast())
    return finish(experiment.start(options.run_dir))


def finish(result: Any) -> int:
    """Say how a run ended; the last line is its folder."""
    with contextlib.suppress(BrokenPipeError):
        if result.signal is not None or result.stopped is not None:
            again = how_to_resume(result.run_dir, result.task)
            console().print(f"stopped and saved at env step {result.env_steps:,}; continue with: {again}")
        console().print(str(result.run_dir))
    return 0 if result.signal is None else 128 + result.signal
