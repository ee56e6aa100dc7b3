"""`checkpoints/best/`: each seed's best policies, `seed-K-STEP.safetensors`, and `best.json`, which lists them."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from omad import files
from omad.run.checkpoints import Checkpoints
from omad.run.records import BestEntry, BestIndex, read_index

if TYPE_CHECKING:
    from jaxtyping import PyTree


class BestPolicies:
    """The best policies of a run.

    Args:
        run: The run folder.
        seeds: Its training seeds; others are passed over.
        checkpoints: Its checkpoints. What was the best one at one of them is kept as long as it, for a run that
            continues from there.
    """

    def __init__(self, run: Path, seeds: Collection[int], checkpoints: Checkpoints) -> None:
        self._run, self.root, self._seeds, self._checkpoints = run, run / "checkpoints" / "best", seeds, checkpoints

    def entries(self) -> dict[int, BestEntry]:
        """Seed -> its best policy so far; a damaged index counts as none.

        Raises:
            Unreadable: The system does not let the index be read.
        """
        return {seed: ones[-1] for seed, ones in self._known().items()}

    def _known(self) -> dict[int, list[BestEntry]]:
        """Seed -> its best policies, the newest last.

        Raises:
            Unreadable: The system does not let the index be read.
        """
        if (index := read_index(self.root / "best.json", BestIndex)) is None:
            return {}
        ours = {int(seed): one for seed, one in index.seeds.items() if seed in map(str, self._seeds)}
        return {seed: [*index.earlier.get(str(seed), []), one] for seed, one in ours.items()}

    def file(self, seed: int, entry: BestEntry) -> Path:
        """Where the arrays of a best policy are."""
        return self.root / f"seed-{seed}-{entry.env_steps}.safetensors"

    def save(self, seed: int, env_steps: int, mean: float, policy: PyTree) -> None:
        """A seed's best policy; those before that no checkpoint needs are removed when the new one is on the disk.

        Raises:
            OSError: The disk is full, or the like; the one before stands.
        """
        from omad.run import arrays

        root, known = self.root, self._known()
        before = known.get(seed, [])
        try:
            files.make_folder(root.parent, self._run)
            files.make_folder(root, self._run)
            path = root / f"seed-{seed}-{env_steps}.safetensors"
            # A run that does not resume exactly may come to another policy at the same env step.
            if not (before and (before[-1].env_steps, before[-1].mean) == (env_steps, mean)):
                files.remove(path, self._run)
                part = arrays.save(path, policy, self._run)
                files.sync_folder(root, self._run)
                kept = [one for one in before if one.env_steps < env_steps]
                known[seed] = [*kept, BestEntry(env_steps, mean, part)]
            self._write(known)
        except OSError as error:
            raise OSError(f"the best policy of seed {seed} could not be written: {error}") from error

    def cut(self, env_steps: int) -> None:
        """Forget those of later env steps, which a run that goes on from there comes to again."""
        known = self._known()
        kept = {seed: [one for one in ones if one.env_steps <= env_steps] for seed, ones in known.items()}
        if kept != known:
            self._write({seed: ones for seed, ones in kept.items() if ones})

    def tidy(self) -> None:
        """Remove those that no checkpoint needs any more."""
        known = self._known()
        if any(len(ones) > 1 for ones in known.values()):
            self._write(known)

    def _needed(self, ones: list[BestEntry]) -> list[BestEntry]:
        """From the one that was the best at the oldest checkpoint on."""
        oldest = min((one.env_steps for one in self._checkpoints.all()), default=ones[-1].env_steps)
        first = max((i for i, one in enumerate(ones) if one.env_steps <= oldest), default=0)
        return ones[first:]

    def _write(self, known: dict[int, list[BestEntry]]) -> None:
        """Replace the list, without those that are not needed, then remove files that are not on it."""
        known = {seed: self._needed(ones) for seed, ones in known.items()}
        earlier = {str(seed): known[seed][:-1] for seed in sorted(known) if known[seed][1:]}
        index = BestIndex(1, {str(seed): known[seed][-1] for seed in sorted(known)}, earlier)
        text = msgspec.json.format(msgspec.json.encode(index), indent=1)
        files.write_bytes(self.root / "best.json", text + b"\n", self._run)
        listed = {self.file(seed, entry).name for seed, entries in known.items() for entry in entries}
        for name in [entry.name for entry in self.root.iterdir()]:
            if re.fullmatch(r"seed-[0-9]+-[0-9]+\.safetensors", name) and name not in listed:
                files.remove(self.root / name, self._run)
