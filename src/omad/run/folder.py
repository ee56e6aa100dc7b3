"""The run folder: what training leaves behind, and the only thing that anything after it reads.

    config.json       the resolved configuration
    manifest.json     protocol, sizes, code and package versions, machine, command line
    metrics.jsonl     one line a seed and log point
    episodes.jsonl    one line a seed, evaluation and kind of action: every episode's return
    tb/               the same for TensorBoard
    curve.png         the learning curve
    ended.json        how training ended last, unless it was stopped or killed
    checkpoints/      STEP/ (policy.safetensors, rest.safetensors) and STEP.json (counters, file lengths, digests); the
                      last two, or as many as the configuration says
    checkpoints/best/ seed-K-STEP.safetensors, each seed's best policy so far, and best.json, which lists them

A folder is a run once it has its manifest, and a checkpoint exists once its STEP.json does; both are written last and
atomically. The index records how long the JSON-lines files were, so that resuming cuts off exactly what came after it:
no line is lost and none appears twice. Nothing here ever executes what a folder contains, opens a name that is not
listed above, or follows a link below the folder to write or remove something.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from omad import files, schema
from omad.config import RunConfig, from_dict, to_dict
from omad.envs.contract import problem
from omad.errors import UserError
from omad.run import lines
from omad.run.best import BestPolicies
from omad.run.checkpoints import Checkpoint, Checkpoints
from omad.run.places import half_made, how_to_resume, instead, members
from omad.run.records import EPISODES, FORMAT, LINES, WITHOUT_EFFECT, Ended, Manifest, standard_error
from omad.spec import EnvSpec

if TYPE_CHECKING:
    from jaxtyping import PyTree


def of_one_run(runs: list[RunFolder], path: str | os.PathLike[str]) -> list[RunFolder]:
    """The runs of a folder, which differ in their seeds only, and in what a resume that was cut off has changed.

    Raises:
        UserError: They differ in more, or share a seed.
    """
    own = {"seeds", "first_seed", "total_steps", "demonstrations", *WITHOUT_EFFECT}
    first, held = to_dict(runs[0].config), dict[int, Path]()
    for run in runs:
        unlike = [name for name, value in to_dict(run.config).items() if name not in own and value != first.get(name)]
        if unlike:
            raise UserError(f"{path} is no run of several seeds: {', '.join(unlike)} differ in its folders; give one.")
        for seed in run.config.all_seeds:
            if held.setdefault(seed, run.path) != run.path:
                raise UserError(f"{path} has seed {seed} twice, in {held[seed]} and {run.path}; move one of them away.")
    return runs


def _read_json(path: Path, kind: Any) -> Any:
    try:
        return schema.read_json(path, kind)
    except FileNotFoundError:
        folder = path.parent
        raise UserError(f"{folder} is not a run folder: it has no {path.name}.{instead(folder)}") from None


class RunFolder:
    """A run folder, open for reading or writing."""

    def __init__(self, path: Path, config: RunConfig, manifest: dict[str, Any]) -> None:
        self.path, self.config, self.manifest = path, config, manifest
        self._kept = config
        """The configuration as it is in the folder."""
        self._lock: int | None = None
        self._lines = lines.LineFiles(path)
        self._checkpoints = Checkpoints(path)
        self.best = BestPolicies(path, config.all_seeds, self._checkpoints)

    # ------------------------------------------------------------ making and opening

    @staticmethod
    def create(path: Path, config: RunConfig, manifest: dict[str, Any]) -> RunFolder:
        """A new folder, open for writing; one that was only partly created is completed.

        It appears with its lock in it, so an empty folder is somebody else's.

        Raises:
            UserError: There is something at the path already, another process makes it, or it cannot be made.
        """
        path = path if path.name else path.resolve()
        again = how_to_resume(path, config.task)
        taken = UserError(f"{path} exists already; give another --run-dir, or continue it with: {again}")
        if not path.name:
            raise taken
        early = path.with_name(f"{path.name}.{os.getpid()}{files.PARTIAL}")
        try:
            if not os.path.lexists(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                early.mkdir()
                (early / "lock").touch()
                early.rename(path)
            elif path.is_dir() and not any(path.iterdir()):
                raise UserError(f"{path} is there, and empty; give a --run-dir that is not yet, as {path / 'run'}.")
            elif not half_made(path):
                raise taken
        except OSError as error:
            files.remove(early)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) and path.exists():
                raise taken from None
            raise UserError(f"{path} cannot be made ({error.strerror}); give another --run-dir.") from None
        run = RunFolder(path, config, {"format": FORMAT} | manifest)
        run.lock()
        try:
            if not half_made(path):  # another process has made it meanwhile
                raise taken
            files.make_folder(path / "checkpoints", path)
            run._write_config()
            run._lines.open()
            run._write_manifest()
            files.sync_folder(path.absolute().parent)
        except BaseException:
            run.close()
            raise
        return run

    @staticmethod
    def open(path: str | os.PathLike[str]) -> RunFolder:
        """An existing folder, for reading.

        Raises:
            UserError: It is not a run folder, or not one of this version.
        """
        path = Path(path)
        if not path.is_dir():
            raise UserError(
                f"{path} is not a run folder: there is no such folder. Give the path printed by omad train."
            )
        inside = members(path)
        if inside != [path]:
            raise UserError(f"{path} holds several runs; give one of {', '.join(str(run) for run in inside)}.")
        if (path / "lock").exists() and half_made(path):
            raise UserError(
                f"{path} was only partly created; create it again with: omad train --run-dir {path}, and its options."
            )
        manifest = _read_json(path / "manifest.json", dict[str, Any])
        found = manifest.get("format")
        if found != FORMAT or isinstance(found, bool):
            raise UserError(
                f"{path} has run-folder format {found!r}; this version reads {FORMAT}. "
                f"Use the version that wrote it ({manifest.get('omad')})."
            )
        schema.convert(manifest, Manifest, path / "manifest.json")
        return RunFolder(path, from_dict(_read_json(path / "config.json", dict[str, Any])), manifest)

    @property
    def spec(self) -> EnvSpec:
        """Sizes of the task, as recorded when the run began; no env is made.

        Raises:
            UserError: The manifest does not hold them.
        """
        source = f"{self.path / 'manifest.json'}, field `spec`,"
        spec = schema.convert(self.manifest.get("spec"), EnvSpec, source)
        if said := problem(spec):
            raise UserError(f"{source} cannot be used: {said.removeprefix('spec')}; restore it from a copy.")
        if max(*spec.obs_dims, *spec.act_dims, spec.horizon, spec.state_dim) > 2**31:
            raise UserError(f"{source} has a size that cannot be; restore it from a copy.")
        return spec

    def _write_manifest(self) -> None:
        files.write_text(
            self.path / "manifest.json", json.dumps(schema.plain(self.manifest), indent=1) + "\n", self.path
        )

    def amend(self, **entries: Any) -> None:
        """Change entries of the manifest; for whoever holds the claim."""
        if any(self.manifest.get(key) != value for key, value in entries.items()):
            self.manifest |= entries
            self._write_manifest()

    def lock(self) -> None:
        """Claim the folder for writing until it is closed or the process ends; the manifest is read anew.

        Raises:
            UserError: Another process writes to it.
        """
        if self._lock is not None:
            return
        self._lock = files.lock(self.path / "lock", self.path)
        if self._lock is None:
            raise self._busy()
        if (self.path / "manifest.json").exists():  # another process may have written it since
            self.manifest = _read_json(self.path / "manifest.json", dict[str, Any])

    def write_changes(self) -> None:
        """Write what `lengthen`, `look_for_demonstrations` and `adjust` have changed; for whoever holds the claim.

        Raises:
            UserError: Another process has changed the configuration since the folder was opened.
        """
        if to_dict(from_dict(_read_json(self.path / "config.json", dict[str, Any]))) != to_dict(self._kept):
            raise UserError(f"{self.path} was made longer or changed by another process just now; resume it again.")
        if self.config is not self._kept:
            # In this order: after a kill in between no run counts as complete that is not.
            files.remove(self.path / "ended.json", self.path)
            self._write_config()

    def _write_config(self) -> None:
        text = json.dumps(to_dict(self.config), indent=1) + "\n"
        files.write_text(self.path / "config.json", text, self.path)
        self._kept = self.config

    def _busy(self) -> UserError:
        return UserError(f"{self.path} is being written by another process; wait for it or stop it.")

    def refuse_if_busy(self) -> None:
        """That no process writes to it right now.

        Raises:
            UserError: One does.
        """
        if self.busy(self.path):
            raise self._busy()

    @staticmethod
    def busy(path: Path) -> bool:
        """Whether a process writes to a folder right now."""
        return files.is_locked(path / "lock", path)

    @property
    def complete(self) -> bool:
        """Whether the run has reached its end and saved there; checkpoints may have been removed since."""
        ended, total = self.ended, self.config.total_vector_steps
        finished = ended is not None and ended.how == "finished" and self.config is self._kept
        return finished or any(c.vector_steps >= total for c in self.checkpoints())

    @property
    def ended(self) -> Ended | None:
        """How training ended last; None while it can continue, and where it was stopped or killed.

        Raises:
            UserError: What is written there cannot be read.
        """
        try:
            return schema.read_json(self.path / "ended.json", Ended)
        except FileNotFoundError:
            return None

    def note_end(self, ended: Ended) -> None:
        """Record how training ended; an error in that, as on a full disk, is ignored."""
        known = {"how": ended.how, "words": ended.words} | ({"seeds": ended.seeds} if ended.seeds else {})
        text = json.dumps(schema.plain(known), indent=1) + "\n"
        with contextlib.suppress(OSError, UserError):
            files.write_text(self.path / "ended.json", text, self.path)

    def rewind(self, checkpoint: Checkpoint | None) -> None:
        """Claim the folder and cut off every line that was written after a checkpoint (all lines, without one).

        Changes of the configuration are written then too. Nothing is cut unless all files are good. Later checkpoints,
        which turned out to be damaged, are removed.

        Raises:
            UserError: Another process writes to it, a file is not as the checkpoint says, or checkpoints were removed.
        """
        self.lock()
        if checkpoint is None:
            self.refuse_if_saved_once()
        lengths = checkpoint.index.lengths if checkpoint else dict.fromkeys(LINES, 0)
        self._lines.open()
        for name in LINES:
            self._lines.check(name, lengths[name])
        self.write_changes()
        for later in self.checkpoints() if checkpoint else []:
            if later.vector_steps > (checkpoint.vector_steps if checkpoint else 0):
                self._checkpoints.remove(later.env_steps)
        files.remove(self.path / "ended.json", self.path)
        self.best.cut(checkpoint.env_steps if checkpoint else 0)
        for name in LINES:
            self._lines.cut(name, lengths[name])

    def refuse_if_saved_once(self) -> None:
        """That lines go beyond the first checkpoint shows that there has been one."""
        if broken := self.damaged():
            raise UserError(
                f"{self.path} cannot continue: {self.path / 'checkpoints' / f'{broken[0]}.json'} is damaged, and there "
                "is no checkpoint before it; starting again would delete what was written. Restore checkpoints/ from a "
                "copy, or start a new run."
            )
        first = -(-self.config.save_every // self.config.n_envs) * self.config.n_envs
        last = max((line["step"] for name in LINES for line in self.lines(name)), default=0)
        if last > first or self.complete:
            raise UserError(
                f"{self.path} has lines up to env step {last}, but its checkpoints are gone; it cannot continue, and "
                "starting again would delete the lines. Restore checkpoints/ from a copy, or start a new run."
            )

    # ------------------------------------------------------------ lines and checkpoints

    def write(self, name: str, line: dict[str, Any]) -> None:
        """Append one JSON line, at the next `flush`."""
        self._lines.write(name, line)

    def flush(self) -> None:
        """Hand all lines to the operating system.

        Raises:
            OSError: The disk is full, or the like.
        """
        self._lines.flush()

    def close(self) -> None:
        """Close all files and give up the claim."""
        with contextlib.suppress(OSError):  # said already where it matters
            self._lines.flush()
        self._lines.close()
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None

    def records(self, name: str) -> schema.Lines:
        """The lines of `metrics.jsonl` or `episodes.jsonl`, and a sentence for every damaged one.

        Raises:
            UserError: The file cannot be read.
        """
        return lines.read(self.path, name)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The lines of a file that can be read; as `records`."""
        return self.records(name).values

    def save(self, vector_steps: int, env_steps: int, policy: PyTree, rest: PyTree) -> None:
        """Write a checkpoint; only when it is whole and on the disk are those removed that are too many.

        Raises:
            OSError: The disk is full, or the like; nothing that was saved before is lost.
        """
        moment, keep = (vector_steps, env_steps), self.config.keep_checkpoints
        self._checkpoints.save(moment, policy, rest, self._lines, keep)
        self.best.tidy()

    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints whose index is whole, newest first."""
        return self._checkpoints.all()

    def damaged(self) -> list[int]:
        """Env steps of the checkpoints whose index is not whole, newest first."""
        return self._checkpoints.damaged()

    # ------------------------------------------------------------ longer runs

    def lengthen(self, total_steps: int) -> None:
        """Give a run more env steps, once `write_changes` is called. It is no longer complete then.

        Raises:
            UserError: They are fewer than it has, or it has done them.
        """
        done = self.checkpoints()[0].env_steps if self.checkpoints() else 0
        longer = dataclasses.replace(self.config, total_steps=total_steps)
        if longer.total_vector_steps * longer.n_envs <= done or total_steps < self.config.total_steps:
            raise UserError(
                f"--total-steps is {total_steps}, but {self.path} has {self.config.total_steps} and has done {done} of "
                "them; give more."
            )
        self.adjust(total_steps=total_steps)

    def look_for_demonstrations(self, path: str | os.PathLike[str]) -> None:
        """They lie elsewhere now, once `write_changes` is called.

        Raises:
            UserError: The run has none.
        """
        if not self.config.demonstrations:
            raise UserError(f"--demonstrations is {path}, but {self.path} began without any; leave it out.")
        self.adjust(demonstrations=str(path))

    def adjust(self, **fields: Any) -> None:
        """Change fields that no result depends on, once `write_changes` is called."""
        changed = dataclasses.replace(self.config, **fields)
        if changed != self.config:
            self.config = changed

    # ------------------------------------------------------------ evaluations

    def evaluations(self) -> list[dict[str, Any]]:
        """Every evaluation, with the mean return and its standard error beside the returns."""
        rows = []
        for line in self.lines(EPISODES):
            returns = np.asarray(line["returns"])
            rows.append(line | {"mean": float(returns.mean()), "se": standard_error(returns)})
        return rows
