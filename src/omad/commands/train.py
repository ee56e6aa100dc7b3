"""`omad train [ALGO] --task T --preset P ...`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from omad.commands.screen import Watcher, cached_compilation, console
from omad.commands.together import Stop, work_on
from omad.errors import Refused
from omad.presets import RunConfig, resolve

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


def _value_of(words: list[str], flag: str, default: str) -> str:
    """The value of a flag that decides the defaults of all others."""
    for i, word in enumerate(words):
        if word == flag and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(flag + "="):
            return word.split("=", 1)[1]
    return default


def parse(arguments: Sequence[str], prog: str, options: Any) -> tuple[RunConfig, Any]:
    """Read `[ALGO] --task T --preset P` first, for they decide the defaults; then every other field.

    Args:
        arguments: Words of the command line after the command.
        prog: Name to show in help.
        options: Default instance of a dataclass with the command's own flags.

    Returns:
        The resolved configuration, and the options.
    """
    words = list(arguments)
    algorithm = words.pop(0) if words and not words[0].startswith("-") else "omad"
    task = _value_of(words, "--task", RunConfig.task)
    base = resolve(task, algorithm, _value_of(words, "--preset", RunConfig.preset))
    flat = tyro.conf.arg(name="")
    grouped = dataclasses.make_dataclass(
        "Arguments",
        [
            ("options", Annotated[type(options), flat], dataclasses.field(default=options)),
            ("run", Annotated[RunConfig, flat], dataclasses.field(default=dataclasses.replace(base, algo=None))),
            ("algo", Annotated[type(base.algo), flat], dataclasses.field(default=base.algo)),
        ],
        frozen=True,
    )
    description = (
        f"Defaults shown are those of algorithm {algorithm}, task {base.task} and preset {base.preset}; "
        "name another algorithm first, or give --task and --preset, to see theirs."
    )
    given: Any = tyro.cli(grouped, prog=prog, description=description, args=words)
    changed = {
        f.name: getattr(given.run, f.name)
        for f in dataclasses.fields(RunConfig)
        if f.name not in ("task", "algorithm", "preset", "algo") and getattr(given.run, f.name) != getattr(base, f.name)
    }
    algo_fields = {f.name: getattr(given.algo, f.name) for f in dataclasses.fields(given.algo)}
    return resolve(task, algorithm, base.preset, **changed, **algo_fields), given.options


def main(arguments: Sequence[str]) -> int:
    """Train from nothing."""
    config, options = parse(arguments, "omad train [ALGO]", Options())
    cached_compilation(options.compilation_cache)
    from omad import api
    from omad.launch import side_by_side

    out = console()
    out.print(
        f"{config.algorithm} on {config.task}, preset {config.preset}, seeds {', '.join(map(str, config.all_seeds))}, "
        f"{config.total_steps:,} env steps, {config.updates_per_env_step:g} gradient steps per env step"
    )
    if options.parallel_seeds < 1:
        raise Refused(f"parallel_seeds is {options.parallel_seeds}; it must be at least 1.")
    if options.parallel_seeds > 1 and config.seeds > 1:
        at_once = min(options.parallel_seeds, config.seeds)
        out.print(api.check_memory(config, at_once))
        folders = api.create_each(config, options.run_dir)
        code = work_on(functools.partial(side_by_side, folders, at_once), Stop())
        out.print(str(folders[0].parent))
        return code
    out.print(api.check_memory(config))
    with Watcher(out) as watch:
        result = api.start(config, options.run_dir, watch)
    return finish(result)


def finish(result: Any) -> int:
    """Say how a run ended; the last line is its folder."""
    with contextlib.suppress(BrokenPipeError):
        if result.signal is not None:
            console().print(
                f"stopped and saved at env step {result.env_steps:,}; continue with: omad resume {result.run_dir}"
            )
        console().print(str(result.run_dir))
    return 0 if result.signal is None else 128 + result.signal
