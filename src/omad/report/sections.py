"""Sections of a study's own: a title, text and perhaps a picture, in files that may be somebody else's."""

from __future__ import annotations

import base64
import binascii
import contextlib
import zlib
from pathlib import Path
from xml.parsers import expat

import msgspec

from omad.errors import UserError
from omad.report.records import Section
from omad.schema import read_bytes, read_json

_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}
_LARGEST = 1 << 25
"""Bytes of a section's figure."""


def read_section(path: Path, study: Path) -> Section:
    """A file `sections/NAME.json`, with its figure as a `data:` address.

    Raises:
        UserError: It is damaged, or its figure is no picture inside the study.
    """
    found = read_json(path, Section)
    if not found.figure:
        return found
    if not found.alt.strip():
        raise UserError(f"{path} is not a section: it needs title and text, and alt if there is a figure.")
    beside = found.figure if found.figure.startswith("/") else f"{path.parent.name}/{found.figure}"
    file = inside(study, beside, f"{path} names the figure")
    kind, wrong = _TYPES.get(file.suffix), "it is not there"
    if kind and file.is_file():
        data = read_bytes(file, _LARGEST)
        wrong = _not_a_picture(data, kind)
        if not wrong:
            return msgspec.structs.replace(found, figure=f"data:{kind};base64,{base64.b64encode(data).decode()}")
    raise UserError(f"{path} names the figure {found.figure!r}; it must be a PNG or SVG file in {study}, but {wrong}.")


def wrong_figure(section: Section) -> str:
    """Why the figure of a summary's section cannot be shown; empty if it can."""
    if not section.figure:
        return ""
    start, _, text = section.figure.partition(";base64,")
    kind = start.removeprefix("data:")
    if not section.alt.strip():
        return "alt is empty, though there is a figure"
    if kind not in _TYPES.values() or not section.figure.startswith(f"data:{kind};base64,"):
        return f"figure begins with {section.figure[:40]!r}; it must be the data: address of a PNG or SVG"
    try:
        words = _not_a_picture(base64.b64decode(text, validate=True), kind)
    except (binascii.Error, ValueError) as error:
        words = f"is not in base64 ({error})"
    return f"figure cannot be shown: {words}" if words else ""


def inside(folder: Path, name: str, what: str) -> Path:
    """What lies below a folder under a relative name; links lead nowhere else.

    Raises:
        UserError: It would be outside, or the folder itself.
    """
    parts = Path(name).parts
    short = name.isprintable() and len(name) < 1000 and all(len(part.encode()) < 256 for part in parts)
    if short and ".." not in parts and not name.startswith(("/", "~")):
        with contextlib.suppress(OSError, RuntimeError):  # links in a circle
            found, root = (folder / name).resolve(), folder.resolve()
            if found != root and found.is_relative_to(root):
                return found
    raise UserError(f"{what} {name!r}; it must lie below {folder}, without '..' and without links that lead out of it.")


def _not_a_picture(data: bytes, kind: str) -> str:
    """Why bytes are no picture of a kind; empty if they are one."""
    if kind == "image/png":
        return "" if _whole_png(data) else "its content is no whole PNG"
    roots: list[str] = []
    reader = expat.ParserCreate(encoding="utf-8", namespace_separator=" ")
    reader.StartElementHandler = lambda name, _: roots.append(name) if not roots else None
    try:
        if b"<!ENTITY" in data:
            return "it declares entities"
        reader.Parse(data, True)
    except (expat.ExpatError, ValueError) as error:
        return f"its content is no SVG ({error})"
    return "" if roots == ["http://www.w3.org/2000/svg svg"] else f"its content is no SVG but <{roots[0]}>"


def _whole_png(data: bytes) -> bool:
    """Whether all chunks, from the header to the end, are there with their checksums."""
    at, kinds = 8, list[bytes]()
    while data.startswith(b"\x89PNG\r\n\x1a\n") and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if int.from_bytes(data[end : end + 4]) != zlib.crc32(data[at + 4 : end]):
            return False
        kinds.append(data[at + 4 : at + 8])
        at = end + 4
    return at == len(data) and kinds[:1] == [b"IHDR"] and kinds[-1:] == [b"IEND"] and b"IDAT" in kinds
