"""Damage to files that somebody else may have written: every way once, in an order that hangs on a seed alone.

    for damage in mutations(folder, names, seed=0, count=700):
        with damage:            # the folder is damaged
            ...                 # look at what reads it
                                # and is as it was again

A damage is to one file: a value of its JSON, some of its bytes, its name, or what lies in its place.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ABSURD: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**30, -(10**30), 1e308, float("nan"), float("inf"), "", "x", "²³", "-5", "../..",
    "/etc/passwd",
    "a\x00b", "\u202e<script>alert(1)</script>|`$x_$", "x" * 20_000, [], [[]], {}, {"a": 1}, [None], ["x", 1],
)  # fmt: skip
"""What takes the place of a value."""
BYTES = ("flip", "cut", "double", "zero", "insert", "empty", "nest")
PLACES = ("missing", "folder", "link out", "link to itself", "pipe", "other encoding", "gzip")


class Damage(contextlib.AbstractContextManager["Damage"]):
    """One damage; inside the `with`, it is there."""

    def __init__(self, path: Path, what: str, do: Callable[[Path], None]) -> None:
        self.path, self.what, self._do = path, what, do

    def __repr__(self) -> str:
        return f"{self.path.name}: {self.what}"

    def __enter__(self) -> Damage:
        self._kept = self.path.read_bytes()
        self._do(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        remove(self.path)
        self.path.write_bytes(self._kept)


def remove(path: Path) -> None:
    """Whatever is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def places(value: Any, at: tuple[Any, ...] = (), most: int = 3) -> Iterator[tuple[Any, ...]]:
    """The path to every value within a JSON value; of a long list, the first few and the last."""
    yield at
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key), most)
    elif isinstance(value, list):
        for i in sorted({*range(min(most, len(value))), len(value) - 1} - {-1}):
            yield from places(value[i], (*at, i), most)


def changed(value: Any, at: Sequence[Any], new: Callable[[Any, Any], Any]) -> Any:
    """A copy in which `new(parent, key)` was done to what is at a path, or `new(root, None)` to the whole."""
    root = [copy.deepcopy(value)]
    parent: Any = root
    for key in (0, *at)[:-1]:
        parent = parent[key]
    new(parent, (0, *at)[-1])
    return root[0] if root else None


def _put(instead: Any) -> Callable[[Any, Any], None]:
    def put(parent: Any, key: Any) -> None:
        parent[key] = instead

    return put


def _drop(parent: Any, key: Any) -> None:
    del parent[key]


def _more(parent: Any, key: Any) -> None:
    """Another field, or an entry twice."""
    if isinstance(parent, dict):
        parent[f"{key}²"] = parent[key]
    else:
        parent.append(copy.deepcopy(parent[key]))


def of_value(value: Any, rng: random.Random) -> tuple[str, Any]:
    """A JSON value with one change to type, value, or presence, and what it was."""
    at = rng.choice(list(places(value)))
    kind = rng.choice(("put", "put", "put", "put", "drop", "more"))
    instead = rng.choice(ABSURD)
    do = {"put": _put(instead), "drop": _drop, "more": _more}[kind]
    where = "".join(f"[{key!r}]" for key in at) or "all"
    return f"{kind} {instead!r:.40} at {where}" if kind == "put" else f"{kind} {where}", changed(value, at, do)


def of_bytes(data: bytes, rng: random.Random, kind: str) -> bytes:
    """Bytes with one change."""
    i = rng.randrange(len(data)) if data else 0
    match kind:
        case "flip":
            return data[:i] + bytes([data[i] ^ 1 << rng.randrange(8)]) + data[i + 1 :] if data else b"\x01"
        case "cut":
            return data[:i]
        case "double":
            return data[:i] + data[i // 2 :]
        case "zero":
            return data[:i] + bytes(len(data[i : i + 64])) + data[i + 64 :]
        case "insert":
            return data[:i] + rng.randbytes(8) + data[i:]
        case "nest":
            return b"[" * 100_000
        case _:
            return b""


def in_place(path: Path, kind: str, outside: Path) -> None:
    """Put something else where a file was."""
    data = path.read_bytes()
    remove(path)
    match kind:
        case "folder":
            path.mkdir()
        case "link out":
            path.symlink_to(outside)
        case "link to itself":
            path.symlink_to(path.name)
        case "pipe":
            os.mkfifo(path)
        case "other encoding":
            path.write_bytes(b"\xff\xfe" + data)
        case "gzip":
            path.write_bytes(b"\x1f\x8b" + data)
        case _:
            pass


def _damage(path: Path, outside: Path, rng: random.Random) -> Damage:
    kind = rng.choice(("value",) * 8 + ("bytes",) * 3 + ("place",))
    if kind == "value" and path.suffix in (".json", ".jsonl"):
        rows = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        i = rng.randrange(len(rows))
        what, new = of_value(json.loads(rows[i]), rng)
        rows[i] = json.dumps(new)
        text = "\n".join(rows) + "\n"
        return Damage(path, f"line {i + 1}: {what}", lambda path: void(path.write_text(text)))
    if kind != "place":
        how = rng.choice(BYTES)
        data = of_bytes(path.read_bytes(), rng, how)
        return Damage(path, f"bytes: {how}", lambda path: void(path.write_bytes(data)))
    how = rng.choice(PLACES)
    return Damage(path, f"place: {how}", lambda path: in_place(path, how, outside))


def void(_: object) -> None:
    """Nothing comes of it."""


def mutations(paths: Sequence[Path], outside: Path, seed: int, count: int) -> Iterator[Damage]:
    """So many damages to files, each undone before the next.

    Args:
        paths: The files; JSON and JSON lines are damaged value by value too.
        outside: A file that links lead to, which must stay as it is.
        seed: Of all that is drawn.
        count: How many.
    """
    rng = random.Random(seed)
    for _ in range(count):
        yield _damage(rng.choice(paths), outside, rng)


def snapshot(root: Path) -> dict[str, bytes]:
    """What lies below a folder: links by where they lead, files by their bytes, the rest by name."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = str(path.readlink()).encode()
        else:
            found[name] = path.read_bytes() if path.is_file() else b""
    return found
