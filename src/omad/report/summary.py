"""The summary that a report leaves, from which the same report can be made again."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from omad.errors import UserError
from omad.report.records import FORMAT, KIND, Gathered, Options, Run, Summary, SummaryKind, contradiction
from omad.report.sections import wrong_figure
from omad.run.records import with_defaults
from omad.schema import decode, read_bytes


def to_json(gathered: Gathered, options: Options) -> Iterator[bytes]:
    """The summary piece by piece, one run a line; `gather` reads it back."""
    parts = {"kind": KIND, "format": FORMAT, "name": gathered.name, "options": options, "sections": gathered.sections}
    encoder = msgspec.json.Encoder(enc_hook=list)  # of arrays
    yield encoder.encode(parts)[:-1] + b',"runs":['
    for i, run in enumerate(gathered.runs):
        yield (b",\n" if i else b"\n") + encoder.encode(run)
    yield b"\n]}\n"


def from_summary(path: Path) -> Gathered:
    """What a summary holds.

    Raises:
        UserError: It is damaged, or fields that are possible by themselves do not fit together.
    """
    data = read_bytes(path)
    kind = decode(data, SummaryKind, path) if data.lstrip()[:1] == b"{" else SummaryKind()
    if kind.kind != KIND:
        raise UserError(f"{path} is not a summary; give the summary.json that omad report wrote, or run folders.")
    if kind.format != FORMAT:
        raise UserError(f"{path} has format {kind.format!r}; this version reads {FORMAT}. Use the one that wrote it.")
    found = decode(data, Summary, path)
    for i, section in enumerate(found.sections):
        if words := wrong_figure(section):
            raise UserError(f"{path}, sections[{i}]: {words}; restore it from a copy.")
    runs = tuple(_summarised(bytes(row), f"{path}, runs[{i}]") for i, row in enumerate(found.runs))
    folders = [run.folder for run in runs]
    for twice in {folder for folder in folders if folders.count(folder) > 1}:
        raise UserError(f"{path} has two runs called {twice!r}; restore it from a copy.")
    return Gathered(found.name, runs, tuple(found.sections), msgspec.to_builtins(found.options))


def _summarised(data: bytes, source: str) -> Run:
    """One run of a summary."""
    run = decode(data, Run, source)
    if run.config:
        run = msgspec.structs.replace(run, config=_known(run.config))
    if words := contradiction(run):
        raise UserError(f"{source} cannot be used: {words}; restore it from a copy.")
    return run


def _known(config: dict[str, Any]) -> dict[str, Any]:
    """With the fields that came since, at their defaults, as a run folder of that time is read."""
    try:
        return with_defaults(config)
    except (UserError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return config  # of an algorithm that is not installed here, say: it can still be shown


def summary_of(folder: Path) -> Path | None:
    """The summary in a folder that holds a report of ours, which may have been packed with gzip since."""
    for name in ("summary.json", "summary.json.gz"):
        if not (folder / name).is_file():  # a pipe would make the open wait
            continue
        try:
            with gzip.open(folder / name, "rb") if name.endswith(".gz") else (folder / name).open("rb") as file:
                if file.read(40).startswith(f'{{"kind":"{KIND}"'.encode()):
                    return folder / name
        except (OSError, EOFError, zlib.error):
            continue
    return None
