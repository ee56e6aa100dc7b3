"""Reading files that somebody else may have written: bounded, typed, and answered in one sentence.

Every format is a `msgspec.Struct` (or a plain type that msgspec knows). What does not fit it is refused with the file,
the field, what was found and what is allowed. A damaged line of a JSON-lines file costs that line: it is counted and
named, never the whole file.
"""

from __future__ import annotations

import math
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import GenericAlias
from typing import IO, Annotated, Any, NamedTuple, TypeVar

import msgspec

from omad.errors import UserError

T = TypeVar("T")

MOST = 1 << 28
"""Bytes that a file may have, unpacked: 256 MiB."""
MOST_LINES = 1 << 31
"""Bytes that a file of lines may have, which grows with its run; unpacked from gzip at most `MOST`."""
LARGEST = 3.5e38
"""Of returns: as far as float32 goes, and a little beyond."""
Finite = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
Seed = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
_GZIP = b"\x1f\x8b"
"""How a packed file begins."""
_REPAIR = "restore it from a copy"


def read_bytes(path: Path, most: int = MOST, unpack: bool = True) -> bytes:
    """The content of a file, never more than `most` bytes of it.

    Args:
        path: The file.
        most: Bytes that it may have.
        unpack: Unpack it if it is packed with gzip. What is compared, or goes to another program, is taken as it is.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: It is not a plain file, cannot be read, is damaged, or is larger than that.
    """
    try:
        with open_plain(path) as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); {_REPAIR}.") from error
    if unpack and data.startswith(_GZIP):
        data = _unpacked(path, data, most := min(most, MOST))
    if len(data) > most:
        raise UserError(f"{path} holds more than {most >> 20} MiB, which no file of its kind does; {_REPAIR}.")
    return data


def open_plain(path: Path) -> IO[bytes]:
    """A plain file, open for reading.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: It is a folder, a pipe or the like.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe would make the open wait
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UserError(f"{path} is not a plain file; {_REPAIR}.")
    return os.fdopen(handle, "rb")


def _unpacked(path: Path, data: bytes, most: int) -> bytes:
    """All members of a gzip file, at most `most + 1` bytes of them."""
    out = bytearray()
    try:
        while data and len(out) <= most:
            unpack = zlib.decompressobj(wbits=31)
            out += unpack.decompress(data, most + 1 - len(out))
            if not unpack.eof and len(out) <= most:
                raise UserError(f"{path} is cut short; {_REPAIR}.")
            data = unpack.unused_data
    except zlib.error as error:
        raise UserError(f"{path} cannot be unpacked ({error}); {_REPAIR}.") from None
    return bytes(out)


def decode(data: bytes, kind: type[T] | GenericAlias, source: object) -> T:
    """JSON as a typed value.

    Args:
        data: The text, UTF-8.
        kind: What it must be.
        source: What to call it in the message, such as a path.

    Raises:
        UserError: It is not JSON, or not of that kind.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UserError(f"{source} cannot be used: {_words(error)}; {_REPAIR}.") from None


def convert(value: Any, kind: type[T] | GenericAlias, source: object) -> T:
    """A plain value as a typed one; as `decode`.

    Raises:
        UserError: It is not of that kind.
    """
    try:
        return msgspec.convert(value, type=kind)
    except (msgspec.ValidationError, RecursionError, ValueError) as error:
        raise UserError(f"{source} cannot be used: {_words(error)}.") from None


def _words(error: Exception) -> str:
    """What is wrong, and in which field."""
    if isinstance(error, RecursionError):
        return "its brackets are nested too deeply"
    return (
        str(error).rstrip(".").replace(" - at `$.", " in the field `").replace(" - at `$", " in `").replace("``", "`")
    )


def read_json(path: Path, kind: type[T] | GenericAlias, most: int = MOST) -> T:
    """A JSON file as a typed value.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: As `read_bytes` and `decode`.
    """
    return decode(read_bytes(path, most), kind, path)


def plain(value: Any) -> Any:
    """A value as JSON can hold it and `decode` reads it.

    Numbers that are not finite become `null`; lone surrogates, as names of files may have them, are written out.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {plain(key): plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


class Lines(NamedTuple):
    """What a JSON-lines file holds."""

    values: list[Any]
    damaged: list[str]
    """A sentence for every line that cannot be used, but for a last one that is cut short."""


def read_lines(path: Path, kind: type[Any] | GenericAlias, head: type[Any] | None = None) -> Lines:
    """The lines of a JSON-lines file as typed values; a file that is not there has none.

    A last line without its line break, as a killed run may leave it, is passed over in silence.

    Args:
        path: The file.
        kind: What each line must be.
        head: What it must be too, such as fields that a mapping must have.

    Raises:
        UserError: As `read_bytes`.
    """
    try:
        data = read_bytes(path, MOST_LINES)
    except FileNotFoundError:
        return Lines([], [])
    also = None if head in (None, kind) else msgspec.json.Decoder(head)
    decoder, found = msgspec.json.Decoder(kind), Lines([], [])
    for number, row, whole in _rows(data):
        try:
            if also is not None:
                also.decode(row)
            found.values.append(decoder.decode(row))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            if whole:
                found.damaged.append(f"{path}, line {number}: {_words(error)}")
    return found


def _rows(data: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Number, content and whether it ends in a line break, of every line that is not empty."""
    rows = data.split(b"\n")
    for number, row in enumerate(rows, 1):
        if row.strip():
            yield number, row, number < len(rows)
