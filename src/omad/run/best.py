"""`checkpoints/best/`: each seed's best policy so far, `seed-K-STEP.safetensors`, and `best.json`, which lists them."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from omad import files, schema
from omad.errors import UserError
from omad.run.records import BestEntry, BestIndex

if TYPE_CHECKING:
    from jaxtyping import PyTree

__all__ = ["BestPolicies"]


class BestPolicies:
    """The best policies of a run.

    Args:
        run: The run folder.
        seeds: Its training seeds; others are passed over.
    """

    def __init__(self, run: Path, seeds: Collection[int]) -> None:
        self._run, self.root, self._seeds = run, run / "checkpoints" / "best", seeds

    def entries(self) -> dict[int, BestEntry]:
        """Seed -> its best policy so far; a damaged index counts as none."""
        try:
            index = schema.read_json(self.root / "best.json", BestIndex)
        except (FileNotFoundError, UserError):
            return {}
        return {int(seed): one for seed, one in index.seeds.items() if seed in map(str, self._seeds)}

    def file(self, seed: int, entry: BestEntry) -> Path:
        """Where the arrays of a best policy are."""
        return self.root / f"seed-{seed}-{entry.env_steps}.safetensors"

    def save(self, seed: int, env_steps: int, mean: float, policy: PyTree) -> None:
        """Replace a seed's best policy; the one before is removed when the new one is on the disk.

        Raises:
            OSError: The disk is full, or the like; the one before stands.
        """
        from omad.run import arrays

        root, known = self.root, self.entries()
        try:
            files.make_folder(root.parent, self._run)
            files.make_folder(root, self._run)
            path = root / f"seed-{seed}-{env_steps}.safetensors"
            # A run that does not resume exactly may come to another policy at the same env step.
            if not (seed in known and (known[seed].env_steps, known[seed].mean) == (env_steps, mean)):
                files.remove(path, self._run)
                part = arrays.save(path, policy, self._run)
                files.sync_folder(root, self._run)
                known[seed] = BestEntry(env_steps, mean, part)
            self._write(known)
        except OSError as error:
            raise OSError(f"the best policy of seed {seed} could not be written: {error}") from error

    def cut(self, env_steps: int) -> None:
        """Forget those of later env steps, which a run that goes on from there comes to again."""
        known = self.entries()
        kept = {seed: one for seed, one in known.items() if one.env_steps <= env_steps}
        if kept != known:
            self._write(kept)

    def _write(self, known: dict[int, BestEntry]) -> None:
        """Replace the list, then remove files that are not on it."""
        index = BestIndex(1, {str(one): known[one] for one in sorted(known)})
        text = msgspec.json.format(msgspec.json.encode(index), indent=1)
        files.write_bytes(self.root / "best.json", text + b"\n", self._run)
        listed = {self.file(seed, entry).name for seed, entry in known.items()}
        for name in [entry.name for entry in self.root.iterdir()]:
            if re.fullmatch(r"seed-[0-9]+-[0-9]+\.safetensors", name) and name not in listed:
                files.remove(self.root / name, self._run)
