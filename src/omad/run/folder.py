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
import hashlib
import json
import math
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np

from omad import files, schema
from omad.config import RunConfig, from_dict, to_dict
from omad.envs.contract import problem
from omad.errors import UserError
from omad.spec import EnvSpec

if TYPE_CHECKING:
    from jaxtyping import PyTree

__all__ = [
    "EPISODES",
    "FORMAT",
    "LINES",
    "METRICS",
    "PASSING",
    "WITHOUT_EFFECT",
    "Checkpoint",
    "Ended",
    "EpisodesLine",
    "RunFolder",
    "Unreadable",
    "half_made",
    "members",
    "with_defaults",
]

FORMAT = 3
"""Version of the layout; a folder of another version is refused."""
PARTS: tuple[str, ...] = ("policy", "rest")
METRICS, EPISODES = LINES = ("metrics.jsonl", "episodes.jsonl")
WITHOUT_EFFECT = ("env_workers", "env_timeout", "keep_checkpoints", "keep_best")
"""Settings that no result depends on."""
_EARLY = {"lock", "checkpoints", "config.json", "config.json.partial", "manifest.json.partial", *LINES}
"""What a folder may hold before it has its manifest."""
_SLACK = 1 << 14
"""Bytes that a checkpoint takes beside its arrays: index, folders, rounding up to blocks."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of arrays."""

    size: Count
    sha256: str


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`checkpoints/STEP.json`: what binds arrays and lines to one moment."""

    format: Literal[2]
    vector_steps: Count = msgspec.field(name="row")
    """Vector steps done."""
    env_steps: Count
    folder: str
    """Of the arrays: STEP, or `STEP.again` where an earlier checkpoint of the same step was still needed."""
    lengths: dict[str, Count]
    parts: dict[str, Part]
    checksum: str = ""
    """SHA-256 of all the others."""

    def digest(self) -> str:
        """What `checksum` must be."""
        bare = msgspec.structs.replace(self, checksum="")
        return hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()


class BestEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One seed's best policy so far."""

    env_steps: Count
    mean: float
    """Mean return of the evaluation with sampled actions by which it was chosen."""
    part: Part


class BestIndex(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`checkpoints/best/best.json`."""

    format: Literal[1]
    seeds: dict[str, BestEntry]


class Stop(msgspec.Struct, frozen=True):
    """A callback stopped the run here; it may have been resumed since."""

    env_steps: Count
    reason: str


PASSING = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT)
"""Errors that say nothing of a file itself."""


class Unreadable(UserError):
    """The system does not let a part of a checkpoint be read; nothing is known of what it holds."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"The checkpoint {path} cannot be read ({error.strerror}), though it may be whole. Mend that and try "
            "again, or move what begins with its step out of checkpoints/ to go on from the one before it."
        )


class Ended(msgspec.Struct, frozen=True):
    """How training of a run ended."""

    how: Literal["finished", "diverged", "broken"]
    """It reached its end; a number was not finite; or something else failed, such as an env, a disk or the memory."""
    words: str = ""
    """What was said."""
    seeds: list[schema.Seed] = []
    """Training seeds that diverged; empty where that is not known."""


class Manifest(msgspec.Struct):
    """`manifest.json`, as far as it is read; all of it is kept."""

    omad: str | None = None
    commit: str | None = None
    protocol: str | None = None
    spec: dict[str, Any] = {}
    resume: str | None = None
    started: str | None = None
    python: str | None = None
    packages: dict[str, str] = {}
    device: dict[str, str | int] = {}
    machine: dict[str, str] = {}
    cores: int | None = None
    flags: dict[str, str] = {}
    stops: list[Stop] = []
    init_from: dict[str, Any] = {}
    sources: dict[str, str] = {}
    demonstrations: str = ""
    loggers: list[str] = []
    callbacks: list[str] = []


class EpisodesLine(msgspec.Struct):
    """A line of `episodes.jsonl`: an evaluation of one seed."""

    step: Count
    seed: schema.Seed
    actions: Literal["sampled", "noise_free"]
    eval_seed: schema.Seed
    returns: Annotated[list[schema.Finite | None], msgspec.Meta(min_length=1)]
    """Nothing where a return was not finite."""
    info: dict[str, float | None] = {}


class _MetricsLine(msgspec.Struct):
    step: Count
    seed: Count
    gradient_steps: Count = 0


_Number = dict[str, int | float | None]


def members(path: str | os.PathLike[str]) -> list[Path]:
    """The runs of a folder: itself, or one `seed-K` folder a seed where seeds were trained in parallel."""
    path = Path(path)
    found = [p.parent for p in path.glob("seed-*/config.json") if re.fullmatch(r"seed-[0-9]+", p.parent.name)]
    if (path / "config.json").exists() or not found:
        return [path]
    return sorted(found, key=lambda run: int(run.name.removeprefix("seed-")))


def with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration that some version wrote, with the fields that came since at their defaults.

    Raises:
        UserError: A field or the algorithm is unknown here, or a value cannot work.
    """
    return to_dict(from_dict(config))


def half_made(path: Path) -> bool:
    """Whether a folder holds at most what is made before the manifest, as when its making was cut off."""
    if not path.is_dir():
        return False
    for entry in path.iterdir():
        if entry.name not in _EARLY or entry.is_symlink():
            return False
        if entry.name == "checkpoints" and (not entry.is_dir() or any(entry.iterdir())):
            return False
        if entry.name in LINES and entry.stat().st_size:
            return False
    return True


def _read_json(path: Path, kind: Any) -> Any:
    try:
        return schema.read_json(path, kind)
    except FileNotFoundError:
        raise UserError(f"{path.parent} is not a run folder: it has no {path.name}.") from None


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
        from omad.run import checkpoint

        return checkpoint.load(self.file(part), self.index.parts[part], like, loose)


class RunFolder:
    """A run folder, open for reading or writing."""

    def __init__(self, path: Path, config: RunConfig, manifest: dict[str, Any]) -> None:
        self.path, self.config, self.manifest = path, config, manifest
        self._kept = config
        """The configuration as it is in the folder."""
        self._files: dict[str, int] = {}
        self._waiting: dict[str, list[bytes]] = {}
        self._lock: int | None = None

    # ------------------------------------------------------------ making and opening

    @staticmethod
    def create(path: Path, config: RunConfig, manifest: dict[str, Any]) -> RunFolder:
        """A new folder, open for writing; one that was only partly created is completed.

        It appears with its lock in it, so an empty folder is somebody else's.

        Raises:
            UserError: There is something at the path already, another process makes it, or it cannot be made.
        """
        path = path if path.name else path.resolve()
        taken = UserError(f"{path} exists already; give another --run-dir, or continue it with: omad resume {path}")
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
            run._open_lines()
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
        """Write what `lengthen` and `look_for_demonstrations` have changed; for whoever holds the claim.

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
        self._open_lines()
        for name in LINES:
            self._check_length(name, lengths[name])
        self.write_changes()
        for later in self.checkpoints() if checkpoint else []:
            if later.vector_steps > (checkpoint.vector_steps if checkpoint else 0):
                self._remove(later.env_steps)
        files.remove(self.path / "ended.json", self.path)
        for name in LINES:
            files.truncate(self._files[name], lengths[name])

    def _check_length(self, name: str, length: int) -> None:
        """That a file has what the checkpoint says it had, up to the end of a line."""
        handle, path = self._files[name], self.path / name
        size = os.fstat(handle).st_size
        if size < length:
            raise UserError(
                f"{path} has {size} bytes, but the checkpoint was made when it had {length}; "
                "lines are missing. Restore the file from a copy."
            )
        if length and os.pread(handle, 1, length - 1) != b"\n":
            raise UserError(f"{path} was changed: no line ends at byte {length}. Restore the file from a copy.")

    def refuse_if_saved_once(self) -> None:
        """That lines go beyond the first checkpoint shows that there has been one."""
        if broken := self.damaged():
            raise UserError(
                f"{self.path} cannot continue: {self.path / 'checkpoints' / f'{broken[0]}.json'} is damaged, and there "
                "is no checkpoint before it; starting again would delete what was written. Restore checkpoints/ from a "
                "copy, or start a new run."
            )
        first = -(-self.config.save_every // self.config.n_envs) * self.config.n_envs
        last = max((line["step"] for line in self.lines(METRICS)), default=0)
        if last > first or self.complete:
            raise UserError(
                f"{self.path} has lines up to env step {last}, but its checkpoints are gone; it cannot continue, and "
                "starting again would delete the lines. Restore checkpoints/ from a copy, or start a new run."
            )

    # ------------------------------------------------------------ lines

    def _open_lines(self) -> None:
        for name in LINES:
            if name not in self._files:
                self._files[name] = files.open_append(self.path / name, self.path)

    def write(self, name: str, line: dict[str, Any]) -> None:
        """Append one JSON line, at the next `flush`."""
        try:
            text = json.dumps(line, allow_nan=False)
        except ValueError:
            text = json.dumps(schema.plain(line))
        self._waiting.setdefault(name, []).append(text.encode() + b"\n")

    def flush(self) -> None:
        """Hand all lines to the operating system.

        Raises:
            OSError: The disk is full, or the like.
        """
        for name, lines in self._waiting.items():
            data = b"".join(lines)
            lines.clear()
            try:
                files.write(self._files[name], data)
            except OSError as error:
                raise OSError(f"{self.path / name} could not be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Close all files and give up the claim."""
        with contextlib.suppress(OSError):  # said already where it matters
            self.flush()
        for handle in (*self._files.values(), self._lock):
            if handle is not None:
                os.close(handle)
        self._files.clear()
        self._waiting.clear()
        self._lock = None

    def records(self, name: str) -> schema.Lines:
        """The lines of `metrics.jsonl` or `episodes.jsonl`, and a sentence for every damaged one.

        `null` is read as a number that is not finite. A last line that is cut short, as a killed run may leave it, is
        passed over.

        Raises:
            UserError: The file cannot be read.
        """
        path = self.path / name
        head: Any = _MetricsLine if name == METRICS else EpisodesLine
        found = schema.read_lines(path, _Number if name == METRICS else EpisodesLine, head=head)
        if name == METRICS:
            return found._replace(values=[_with_nan(line) for line in found.values])
        return found._replace(values=[_with_nan(msgspec.structs.asdict(line)) for line in found.values])

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The lines of a file that can be read; as `records`."""
        return self.records(name).values

    # ------------------------------------------------------------ checkpoints

    def save(self, vector_steps: int, env_steps: int, policy: PyTree, rest: PyTree) -> None:
        """Write a checkpoint; only when it is whole and on the disk are those removed that are too many.

        Raises:
            OSError: The disk is full, or the like; nothing that was saved before is lost.
        """
        from omad.run import checkpoint

        root, before = self.path / "checkpoints", self._index(env_steps)
        name = f"{env_steps}.again" if before and before.folder == f"{env_steps}" else f"{env_steps}"
        folder, parts = root / name, {"policy": policy, "rest": rest}
        try:
            self.flush()
            files.make_folder(root, self.path)
            self._tidy()
            self._refuse_if_full(root, sum(checkpoint.n_bytes(tree) for tree in parts.values()))
            for handle in self._files.values():
                files.sync(handle)
            files.remove(folder, self.path)
            files.make_folder(folder, self.path)
            written = {
                part: checkpoint.save(folder / f"{part}.safetensors", tree, self.path) for part, tree in parts.items()
            }
            files.sync_folder(folder, self.path)
            lengths = {line: os.fstat(handle).st_size for line, handle in self._files.items()}
            index = Index(2, vector_steps, env_steps, name, lengths, written)
            index = msgspec.structs.replace(index, checksum=index.digest())
            text = msgspec.json.format(msgspec.json.encode(index), indent=1)
            files.write_bytes(root / f"{env_steps}.json", text + b"\n", self.path)
        except OSError as error:
            with contextlib.suppress(OSError, UserError):
                self._tidy()
            raise OSError(f"the checkpoint {folder} could not be written: {error}") from error
        good, keep = self.checkpoints(), self.config.keep_checkpoints
        for step in self._steps():
            if len(good) >= keep and step < good[keep - 1].env_steps:
                self._remove(step)
        self._tidy()

    def _refuse_if_full(self, root: Path, needed: int) -> None:
        """Before anything is written."""
        free = files.free_bytes(root)
        if free is not None and free < needed + _SLACK:
            raise OSError(
                f"No space left on device: it needs {needed + _SLACK:,} bytes, {free:,} are free; nothing was written"
            )

    def _steps(self) -> list[int]:
        """Env steps of all indices, newest first; only names that `save` gives."""
        try:
            names = [entry.name for entry in (self.path / "checkpoints").iterdir()]
        except OSError:
            return []
        found = (re.fullmatch(r"(0|[1-9][0-9]{0,18})\.json", name) for name in names)
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def _index(self, step: int) -> Index | None:
        """The index of a checkpoint, if it is whole.

        Raises:
            Unreadable: The system does not let it be read.
        """
        try:
            index = schema.read_json(self.path / "checkpoints" / f"{step}.json", Index)
        except FileNotFoundError:
            return None
        except UserError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in PASSING:
                raise Unreadable(self.path / "checkpoints" / f"{step}.json", error.__cause__) from None
            return None
        named = index.env_steps == step and index.folder in (f"{step}", f"{step}.again")
        whole = (set(index.lengths), set(index.parts)) == (set(LINES), set(PARTS))
        return index if named and whole and index.checksum == index.digest() else None

    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints whose index is whole, newest first."""
        found = (self._index(step) for step in self._steps())
        return [Checkpoint(self.path / "checkpoints", index) for index in found if index]

    def damaged(self) -> list[int]:
        """Env steps of the checkpoints whose index is not whole, newest first."""
        return [step for step in self._steps() if self._index(step) is None]

    def _remove(self, step: int) -> None:
        """Remove a checkpoint: first its index, so that no half of it ever counts as one."""
        root = self.path / "checkpoints"
        for name in (f"{step}.json", f"{step}", f"{step}.again"):
            files.remove(root / name, self.path)

    def _tidy(self) -> None:
        """Remove what a save that was cut off has left: arrays that no index names."""
        root = self.path / "checkpoints"
        indices: dict[int, Index | None] = {}
        for step in self._steps():
            indices[step] = None
            with contextlib.suppress(Unreadable):
                indices[step] = self._index(step)
        for name in [entry.name for entry in root.iterdir()]:
            match = re.fullmatch(r"(0|[1-9][0-9]{0,18})(\.again|\.json\.partial)?", name)
            if match is None:
                continue
            index = indices.get(int(match[1]))
            damaged = index is None and int(match[1]) in indices  # not to be judged here
            if (not damaged or match[2] == ".json.partial") and (index is None or index.folder != name):
                files.remove(root / name, self.path)

    # ------------------------------------------------------------ best policies

    def best(self) -> dict[int, BestEntry]:
        """Seed -> its best policy so far; a damaged index counts as none."""
        try:
            index = schema.read_json(self.path / "checkpoints" / "best" / "best.json", BestIndex)
        except (FileNotFoundError, UserError):
            return {}
        return {int(seed): one for seed, one in index.seeds.items() if seed in map(str, self.config.all_seeds)}

    def best_file(self, seed: int, entry: BestEntry) -> Path:
        """Where the arrays of a best policy are."""
        return self.path / "checkpoints" / "best" / f"seed-{seed}-{entry.env_steps}.safetensors"

    def save_best(self, seed: int, env_steps: int, mean: float, policy: PyTree) -> None:
        """Replace a seed's best policy; the one before is removed when the new one is on the disk.

        Raises:
            OSError: The disk is full, or the like; the one before stands.
        """
        from omad.run import checkpoint

        root = self.path / "checkpoints" / "best"
        known = self.best()
        try:
            files.make_folder(root.parent, self.path)
            files.make_folder(root, self.path)
            path = root / f"seed-{seed}-{env_steps}.safetensors"
            # A run that does not resume exactly may come to another policy at the same env step.
            if not (seed in known and (known[seed].env_steps, known[seed].mean) == (env_steps, mean)):
                files.remove(path, self.path)
                part = checkpoint.save(path, policy, self.path)
                files.sync_folder(root, self.path)
                known[seed] = BestEntry(env_steps, mean, part)
            index = BestIndex(1, {str(one): known[one] for one in sorted(known)})
            text = msgspec.json.format(msgspec.json.encode(index), indent=1)
            files.write_bytes(root / "best.json", text + b"\n", self.path)
        except OSError as error:
            raise OSError(f"the best policy of seed {seed} could not be written: {error}") from error
        listed = {f"seed-{one}-{entry.env_steps}.safetensors" for one, entry in known.items()}
        for name in [entry.name for entry in root.iterdir()]:
            if re.fullmatch(r"seed-[0-9]+-[0-9]+\.safetensors", name) and name not in listed:
                files.remove(root / name, self.path)

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
        if longer != self.config:
            self.config = longer

    def look_for_demonstrations(self, path: str | os.PathLike[str]) -> None:
        """They lie elsewhere now, once `write_changes` is called.

        Raises:
            UserError: The run has none.
        """
        if not self.config.demonstrations:
            raise UserError(f"--demonstrations is {path}, but {self.path} began without any; leave it out.")
        self.config = dataclasses.replace(self.config, demonstrations=str(path))

    @property
    def as_it_began(self) -> str:
        """What to know of a run that was made longer and keeps what followed from its length; else empty."""
        config, sources = self.config, self.manifest.get("sources", {})
        derived = {name for name, source in sources.items() if str(source).startswith("derived")}
        said = []
        if config.buffer_size < config.total_steps and "buffer_size" in derived:
            said.append(
                f"The replay buffer still keeps {config.buffer_size:,} transitions, as when the run began; a run that "
                f"had {config.total_steps:,} env steps from the beginning would have a larger buffer_size."
            )
        whole = (config.total_vector_steps - config.warmup_vector_steps) * config.updates_per_step
        begin = getattr(config.algo, "target_run_begin", 0)
        ends = {"lr_decay_steps": 0, "target_run_steps": begin}
        moved = [n for n, start in ends.items() if n in derived and start + getattr(config.algo, n, 0) < whole]
        if moved:
            said.append(
                f"What changes over the run has ended where the run was first to end ({', '.join(moved)} of then); the "
                "rest is trained with the last step sizes and limits."
            )
        return " ".join(said)

    # ------------------------------------------------------------ evaluations

    def evaluations(self) -> list[dict[str, Any]]:
        """Every evaluation, with the mean return and its standard error beside the returns."""
        rows = []
        for line in self.lines(EPISODES):
            returns = np.asarray(line["returns"])
            error = returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else 0.0
            rows.append(line | {"mean": float(returns.mean()), "se": float(error)})
        return rows


def _with_nan(value: Any) -> Any:
    """With what `schema.plain` took away."""
    if isinstance(value, dict):
        return {key: _with_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [math.nan if one is None else one for one in value]
    return math.nan if value is None else value
