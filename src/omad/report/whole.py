"""Files that appear whole or not at all, and the sections of a study among them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from omad.errors import Refused
from omad.report.records import SectionFile

__all__ = ["write_section", "write_whole"]


def write_whole(path: Path, data: bytes) -> None:
    """Write beside where the file belongs, then put it in place; a link there is replaced, not followed.

    Raises:
        OSError: It cannot be written; what was there is as it was.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_section(study: Path, name: str, section: SectionFile, picture: bytes) -> None:
    """Add a section with its picture, `NAME.png`, to what `omad report` shows of a study.

    Args:
        study: Its folder; made if it is not there.
        name: Of the two files; what is no letter, digit or `-` becomes `-`.
        section: Without the figure's name, which is set here.
        picture: A PNG.

    Raises:
        Refused: The files cannot be written there.
    """
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in name)[:100]
    folder = study / "sections"
    if folder.is_symlink():
        raise Refused(f"{folder} is a link; remove it, or give another --out: sections are written inside the study.")
    section = msgspec.structs.replace(section, figure=f"{name}.png")
    text = msgspec.json.format(msgspec.json.encode(section), indent=1) + b"\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"{name}.png", picture)
        write_whole(folder / f"{name}.json", text)
    except OSError as error:
        raise Refused(f"{folder} cannot be written ({error.strerror or error}); give another --out.") from None
