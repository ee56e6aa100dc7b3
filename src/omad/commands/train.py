"""`omad train [ALGO] --task T --preset P ...`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from omad.algos.fields import check, documented
from omad.commands.together import Stop, work_on
from omad.compilation import use_compilation_cache
from omad.config import RunConfig, resolve, sourced
from omad.console import console

__all__ = ["main", "parse"]


@dataclasses.dataclass(frozen=True)
class Options:
    """Where and how a run is written; these do not change its numbers."""

    run_dir: Path | None = None
    """New folder of the run; by default one below runs/ named after task, algorithm, preset and time."""
    parallel_seeds: int = 1
    """Processes at a time, one a seed, each on its own share of the cores and in a folder seed-K of the run folder;
    with 1, all seeds are trained in one process and one folder."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache folder for the next start."""


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Task, preset and algorithm, which decide the defaults of all others, and the other words.

    The algorithm may stand first, without its flag. Of an option given twice the last one counts, as for all others.
    """
    words, chosen, rest = list(arguments), dict[str, str](), list[str]()
    if words and not words[0].startswith("-"):
        words.insert(0, "--algorithm")
    while words:
        word = words.pop(0)
        name, given, value = word.partition("=")
        if name not in ("--task", "--preset", "--algorithm"):
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


def _form(cls: type, values: Any, sources: Mapping[str, str], preset: str) -> type:
    """A dataclass with a configuration's fields, the values that hold unless others are given, and their sources."""
    hints, documents = get_type_hints(cls, include_extras=True), documented(cls)
    rows = []
    for field in dataclasses.fields(cls):
        words = documents.get(field.name, "")
        if field.name in sources:
            words = f"{_TAG.sub('', words)} Value of preset {preset}: {sources[field.name]}."
        # A per cent sign would begin a format.
        kind = Annotated[hints[field.name], tyro.conf.arg(help=words.replace("%", "%%"))]
        rows.append((field.name, kind, dataclasses.field(default=getattr(values, field.name))))
    return dataclasses.make_dataclass(cls.__name__, rows, frozen=True)


_TAG = re.compile(r" ?\[(?:A|S|D|X|H|R|I|M|\?)(?:[^\]]*)\](?=[\s.;,:\[]|$)")
"""The source of a default value, as documentation of fields has it."""


def parse(arguments: Sequence[str], prog: str, options: Any) -> tuple[RunConfig, Any]:
    """The words of a command line that begin with task, algorithm and preset or have them anywhere.

    Of the same option given twice the last one counts. A field is given if its flag was typed, whatever its value.

    Args:
        arguments: Words of the command line after the command.
        prog: Name to show in help.
        options: Default instance of a dataclass with the command's own flags.

    Returns:
        The resolved configuration, and the options.
    """
    chosen, words = _split(arguments)
    base = resolve(**chosen)
    sources = {name: source for name, (_, source) in sourced(base.task, base.algorithm, base.preset).items()}
    run = _form(RunConfig, dataclasses.replace(base, algo=None), sources, base.preset)
    algo = _form(type(base.algo), base.algo, sources, base.preset)
    flat = tyro.conf.arg(name="")
    grouped = dataclasses.make_dataclass(
        "Arguments",
        [
            ("options", Annotated[type(options), flat], dataclasses.field(default=options)),
            ("run", Annotated[run, flat], dataclasses.field(default=run())),
            ("algo", Annotated[algo, flat], dataclasses.field(default=algo())),
        ],
        frozen=True,
    )
    description = (
        f"Defaults shown are those of algorithm {base.algorithm}, task {base.task} and preset {base.preset}; "
        "name another algorithm first, or give --task and --preset, to see theirs."
    )
    given: Any = tyro.cli(grouped, prog=prog, description=description, args=words)
    fields: dict[str, Any] = {}
    for cls, part in ((RunConfig, given.run), (type(base.algo), given.algo)):
        hints = get_type_hints(cls)
        for name in _typed(words, {f.name: hints[f.name] is bool for f in dataclasses.fields(cls)}):
            fields[name] = getattr(part, name)
    return resolve(**chosen, **fields), given.options


def main(arguments: Sequence[str]) -> int:
    """Train from nothing."""
    config, options = parse(arguments, "omad train [ALGO]", Options())
    check(options, counts=("parallel_seeds",), most={"parallel_seeds": 10_000}, flags=True)
    use_compilation_cache(options.compilation_cache)
    from omad.commands.curve import LearningCurve
    from omad.experiment import Experiment
    from omad.launch import side_by_side

    experiment = Experiment(config, callbacks=[LearningCurve()])
    out = console()
    out.print(
        f"{config.algorithm} on {config.task}, preset {config.preset}, seeds {', '.join(map(str, config.all_seeds))}, "
        f"{config.total_steps:,} env steps, {config.updates_per_env_step:g} gradient steps per env step"
    )
    if options.parallel_seeds > 1 and config.seeds > 1:
        at_once = min(options.parallel_seeds, config.seeds)
        out.print(experiment.forecast(at_once))
        folders = experiment.create_each(options.run_dir)
        code = work_on(functools.partial(side_by_side, folders, at_once), Stop())
        out.print(str(folders[0].parent))
        return code
    out.print(experiment.forecast())
    return finish(experiment.start(options.run_dir))


def finish(result: Any) -> int:
    """Say how a run ended; the last line is its folder."""
    with contextlib.suppress(BrokenPipeError):
        for sentence in result.passed:
            console().print(sentence)
        if result.signal is not None or result.stopped is not None:
            console().print(
                f"stopped and saved at env step {result.env_steps:,}; continue with: omad resume {result.run_dir}"
            )
        console().print(str(result.run_dir))
    return 0 if result.signal is None else 128 + result.signal
