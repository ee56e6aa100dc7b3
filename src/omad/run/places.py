"""Which folders are runs, from the names in them alone."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from omad.run.records import LINES

_EARLY = {"lock", "checkpoints", "config.json", "config.json.partial", "manifest.json.partial", *LINES}
"""What a folder may hold before it has its manifest."""


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
