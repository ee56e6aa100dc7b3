"""Which folders are runs, from the names in them alone."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Collection
from pathlib import Path

from omad import tasks
from omad.run.records import LINES
from omad.tasks.outside import OBJECT, registered_here

_EARLY = {"lock", "checkpoints", "config.json", "config.json.partial", "manifest.json.partial", *LINES}
"""What a folder may hold before it has its manifest."""


def how_to_resume(path: str | os.PathLike[str], task: str) -> str:
    """What continues a run of a task."""
    name = task.partition("?")[0]
    if name.startswith(OBJECT):
        return f"omad.resume({str(path)!r}, env=...) in Python"
    if registered_here(name):
        return f"omad.resume({str(path)!r}, trust=True) in Python, after omad.envs.register({name!r}, ...)"
    return f"omad resume {shlex.quote(str(path))}{' --trust' if tasks.find(task).code else ''}"


def instead(path: Path) -> str:
    """What a folder that is no run is instead, as far as its names tell, and what can be done with it; else empty."""
    if (path / "team.json").exists():
        return " It is an exported team: omad run-bundle plays it, omad latency times it."
    run = _run_below(path)
    return f" It holds runs: give one, as {run}; omad runs {shlex.quote(str(path))} lists them." if run else ""


def _run_below(path: Path) -> Path | None:
    """The nearest run in a folder and the three levels below it; of thousands of entries only the first are seen."""
    level, left = [path], 5_000
    for _ in range(4):
        deeper = list[Path]()
        for folder in level:
            try:
                with os.scandir(folder) as entries:
                    few = itertools.islice(entries, left)
                    inside = sorted(Path(entry) for entry in few if entry.is_dir(follow_symlinks=False))
            except OSError:
                continue
            left -= len(inside)
            for one in inside:
                if (one / "config.json").exists() and (one / "manifest.json").exists():
                    return one
            deeper += inside
        level = deeper
    return None


def members(path: str | os.PathLike[str]) -> list[Path]:
    """The runs of a folder: itself, or one `seed-K` folder a seed where seeds were trained in parallel."""
    path = Path(path)
    found = [p.parent for p in path.glob("seed-*/config.json") if re.fullmatch(r"seed-[0-9]+", p.parent.name)]
    if (path / "config.json").exists() or not found:
        return [path]
    return sorted(found, key=lambda run: int(run.name.removeprefix("seed-")))


def holds_run(names: Collection[str]) -> bool:
    """Whether these are the files of a run, whole or damaged; a lone config.json or manifest.json may be anything's."""
    main = {"config.json", "manifest.json"} & set(names)
    return bool(main) and len(main | ({"lock", *LINES} & set(names))) > 1


def half_made(path: Path) -> bool:
    """Whether a folder holds at most what is made before the manifest, as when its making was cut off."""
    if not path.is_dir():
        return False
    for entry in path.iterdir():
        if entry.name not in _EARLY or entry.is_symlink():
            return False
        if entry.name == "checkpoints" and (not entry.is_dir() or any(entry.iterdir())):
            return False
        if entry.name in LINES and entry.stat().st_size:
            return False
    return True
