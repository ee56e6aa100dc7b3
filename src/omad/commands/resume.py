"""`omad resume RUN`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from omad.commands.screen import Watcher, cached_compilation, console
from omad.commands.train import finish

__all__ = ["main"]


@dataclasses.dataclass(frozen=True)
class Options:
    """Continue a run from its newest checkpoint; a complete run is left as it is."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder, as printed by omad train."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache folder for the next start."""


def main(arguments: Sequence[str]) -> int:
    """Continue a run."""
    options = tyro.cli(Options, prog="omad resume", args=list(arguments))
    cached_compilation(options.compilation_cache)
    from omad.loop.train import continue_run
    from omad.runs import RunFolder

    out = console()
    with Watcher(out) as watch:
        result, passed = continue_run(RunFolder.open(options.run), watch, fresh=False)
    for sentence in passed:
        out.print(sentence)
    return finish(result)
