"""`checkpoints/`: STEP/ with its arrays, and STEP.json, without which it does not count."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from omad import files
from omad.errors import UserError
from omad.run.lines import LineFiles
from omad.run.records import LINES, PARTS, Index, Unreadable, read_index

if TYPE_CHECKING:
    from jaxtyping import PyTree

_SLACK = 1 << 14
"""Bytes that a checkpoint takes beside its arrays: index, folders, rounding up to blocks."""


class Checkpoint:
    """One saved moment of a run."""

    def __init__(self, root: Path, index: Index) -> None:
        self.index, self.folder = index, root / index.folder
        self.vector_steps, self.env_steps = index.vector_steps, index.env_steps

    def file(self, part: Literal["policy", "rest"]) -> Path:
        """Where the arrays of a part are."""
        return self.folder / f"{part}.safetensors"

    def restore(self, part: Literal["policy", "rest"], like: PyTree, loose: Collection[str] = ()) -> PyTree:
        """Read one part into the structure of `like` (arrays or shapes); the last axis of `loose` leaves is free.

        Raises:
            UserError: A file is damaged, or the contents do not fit.
        """
        from omad.run import arrays

        return arrays.load(self.file(part), self.index.parts[part], like, loose)


class Checkpoints:
    """The checkpoints of a run.

    Args:
        run: The run folder.
    """

    def __init__(self, run: Path) -> None:
        self._run, self.root = run, run / "checkpoints"

    def save(self, moment: tuple[int, int], policy: PyTree, rest: PyTree, lines: LineFiles, keep: int) -> None:
        """Write a checkpoint; only when it is whole and on the disk are those removed that are too many.

        Args:
            moment: Vector steps and env steps done.
            policy: Arrays of what acts.
            rest: Arrays of all else.
            lines: Files that belong to it.
            keep: Checkpoints that stay.

        Raises:
            OSError: The disk is full, or the like; nothing that was saved before is lost.
        """
        from omad.run import arrays

        root, (vector_steps, env_steps) = self.root, moment
        before = self._index(env_steps)
        name = f"{env_steps}.again" if before and before.folder == f"{env_steps}" else f"{env_steps}"
        folder, parts = root / name, {"policy": policy, "rest": rest}
        try:
            lines.flush()
            files.make_folder(root, self._run)
            self._tidy()
            self._refuse_if_full(sum(arrays.n_bytes(tree) for tree in parts.values()))
            lengths = lines.sync()
            files.remove(folder, self._run)
            files.make_folder(folder, self._run)
            written = {
                part: arrays.save(folder / f"{part}.safetensors", tree, self._run) for part, tree in parts.items()
            }
            files.sync_folder(folder, self._run)
            index = Index(2, vector_steps, env_steps, name, lengths, written)
            index = msgspec.structs.replace(index, checksum=index.digest())
            text = msgspec.json.format(msgspec.json.encode(index), indent=1)
            files.write_bytes(root / f"{env_steps}.json", text + b"\n", self._run)
        except OSError as error:
            with contextlib.suppress(OSError, UserError):
                self._tidy()
            raise OSError(f"the checkpoint {folder} could not be written: {error}") from error
        good = self.all()
        for step in self._steps():
            if len(good) >= keep and step < good[keep - 1].env_steps:
                self.remove(step)
        self._tidy()

    def _refuse_if_full(self, needed: int) -> None:
        """Before anything is written."""
        free = files.free_bytes(self.root)
        if free is not None and free < needed + _SLACK:
            raise OSError(
                f"No space left on device: it needs {needed + _SLACK:,} bytes, {free:,} are free; nothing was written"
            )

    def _steps(self) -> list[int]:
        """Env steps of all indices, newest first; only names that `save` gives."""
        try:
            names = [entry.name for entry in self.root.iterdir()]
        except OSError:
            return []
        found = (re.fullmatch(r"(0|[1-9][0-9]{0,18})\.json", name) for name in names)
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def _index(self, step: int) -> Index | None:
        """The index of a checkpoint, if it is whole.

        Raises:
            Unreadable: The system does not let it be read.
        """
        if (index := read_index(self.root / f"{step}.json", Index)) is None:
            return None
        named = index.env_steps == step and index.folder in (f"{step}", f"{step}.again")
        whole = (set(index.lengths), set(index.parts)) == (set(LINES), set(PARTS))
        return index if named and whole and index.checksum == index.digest() else None

    def all(self) -> list[Checkpoint]:
        """All checkpoints whose index is whole, newest first."""
        found = (self._index(step) for step in self._steps())
        return [Checkpoint(self.root, index) for index in found if index]

    def damaged(self) -> list[int]:
        """Env steps of the checkpoints whose index is not whole, newest first."""
        return [step for step in self._steps() if self._index(step) is None]

    def remove(self, step: int) -> None:
        """Remove a checkpoint: first its index, so that no half of it ever counts as one."""
        for name in (f"{step}.json", f"{step}", f"{step}.again"):
            files.remove(self.root / name, self._run)

    def _tidy(self) -> None:
        """Remove what a save that was cut off has left: arrays that no index names."""
        indices: dict[int, Index | None] = {}
        for step in self._steps():
            indices[step] = None
            with contextlib.suppress(Unreadable):
                indices[step] = self._index(step)
        for name in [entry.name for entry in self.root.iterdir()]:
            match = re.fullmatch(r"(0|[1-9][0-9]{0,18})(\.again|\.json\.partial)?", name)
            if match is None:
                continue
            index = indices.get(int(match[1]))
            damaged = index is None and int(match[1]) in indices  # not to be judged here
            if (not damaged or match[2] == ".json.partial") and (index is None or index.folder != name):
                files.remove(self.root / name, self._run)
