"""A section of a study's report: its picture, and the files it is kept in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import msgspec
from matplotlib.figure import Figure

from omad import files
from omad.errors import UserError
from omad.report.figures import to_bytes
from omad.report.format import drawable
from omad.report.records import Section


def panels(
    title: str,
    shape: tuple[int, int],
    size: tuple[float, float],
    fill: Callable[[Figure, Any], None],
    **shared: Any,
) -> bytes:
    """A PNG with rows and columns of axes, on which `fill(figure, axes)` draws."""
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(drawable(title), fontsize=11)
        fill(figure, figure.subplots(*shape, squeeze=False, **shared))
        return to_bytes(figure)


def write_section(study: Path, name: str, section: Section, picture: bytes) -> None:
    """Add a section with its picture, `NAME.png`, to what `omad report` shows of a study.

    Args:
        study: Its folder; made if it is not there.
        name: Of the two files; what is no letter, digit or `-` becomes `-`.
        section: Without the figure's name, which is set here.
        picture: A PNG.

    Raises:
        UserError: The files cannot be written there.
    """
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in name)[:100]
    folder = study / "sections"
    if folder.is_symlink():
        raise UserError(f"{folder} is a link; remove it, or give another --out: sections are written inside the study.")
    section = msgspec.structs.replace(section, figure=f"{name}.png")
    text = msgspec.json.format(msgspec.json.encode(section), indent=1) + b"\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_bytes(folder / f"{name}.png", picture, study)
        files.write_bytes(folder / f"{name}.json", text, study)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}); give another --out.") from None
