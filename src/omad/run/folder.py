"""The run folder: what training leaves behind, and the only thing that anything after it reads.

    config.json       the resolved configuration
    manifest.json     protocol, sizes, code and package versions, device, command line
    metrics.jsonl     one line a seed and log point
    episodes.jsonl    one line a seed, evaluation and kind of action: every episode's return
    tb/               the same for TensorBoard
    curve.png         the learning curve
    ended.json        how work on it ended last, unless it was stopped or killed
    checkpoints/      STEP/ (Orbax: policy, rest) and STEP.json (counters, file lengths, digests); the last two

A checkpoint exists once its STEP.json does, which is written last and atomically. It records how long the JSON-lines
files were, so that resuming cuts off exactly what came after it: no line is lost and none appears twice. Nothing
here ever executes what a folder contains.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from omad.errors import Refused
from omad.presets import RunConfig, from_dict, to_dict
from omad.types import EnvSpec

__all__ = [
    "FORMAT",
    "LINES",
    "Checkpoint",
    "Ended",
    "RunFolder",
    "members",
    "with_defaults",
    "write_json",
    "write_text",
]

FORMAT = 1
"""Version of the layout; a folder of another version is refused."""
LINES = ("metrics.jsonl", "episodes.jsonl")


def members(path: str | Path) -> list[Path]:
    """The runs of a folder: itself, or one `seed-K` folder a seed where seeds were trained side by side."""
    path = Path(path)
    found = [p.parent for p in path.glob("seed-*/config.json") if p.parent.name.removeprefix("seed-").isdigit()]
    if (path / "config.json").exists() or not found:
        return [path]
    return sorted(found, key=lambda run: int(run.name.removeprefix("seed-")))


def with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration that some version wrote, with the fields that came since at their defaults.

    Raises:
        Refused: A field or the algorithm is unknown here, or a value cannot work.
    """
    return to_dict(from_dict(config))


def write_json(path: Path, value: Any) -> None:
    """Write atomically, as `write_text`."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write atomically: the file is either the old one or the whole new one."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


class Ended(NamedTuple):
    """How work on a run ended."""

    how: Literal["finished", "diverged", "broken"]
    """It reached its end; a number was not finite; or something else failed, such as an env, a disk or the memory."""
    words: str = ""
    """What was said."""


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise Refused(f"{path.parent} is not a run folder: it has no {path.name}.") from None
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read ({error}); restore it from a copy or start a new run.") from None


def _digest(folder: Path) -> dict[str, int]:
    """CRC-32 of every file below a folder."""

    def crc(path: Path) -> int:
        value = 0
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                value = zlib.crc32(block, value)
        return value

    return {str(p.relative_to(folder)): crc(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def _named(tree: PyTree) -> dict[str, Any]:
    """Leaves by their path, which is all that is stored of a tree's structure."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _with_content(leaves: dict[str, Any]) -> dict[str, Any]:
    """Those leaves that have entries; Orbax cannot write the others, and there is nothing to write."""
    return {name: leaf for name, leaf in leaves.items() if leaf.size}


class Checkpoint:
    """One saved moment of a run."""

    def __init__(self, folder: Path, index: dict[str, Any]) -> None:
        self.folder, self.index = folder, index

    @property
    def row(self) -> int:
        """Vector steps done."""
        return self.index["row"]

    def restore(self, part: str, like: PyTree) -> PyTree:
        """Read one part (`policy` or `rest`) into the structure of `like` (arrays or shapes).

        Raises:
            Refused: A file is damaged, or the contents do not fit.
        """
        import orbax.checkpoint as ocp

        folder = self.folder / part
        if _digest(folder) != self.index["digest"][part]:
            raise Refused(f"the checkpoint {folder} is damaged: a file does not match its checksum")
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        named = {k: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=device) for k, v in _named(like).items()}
        wanted = _with_content(named)
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                found = checkpointer.restore(folder.resolve(), wanted)
        except (ValueError, KeyError, OSError) as error:
            raise Refused(f"the checkpoint {folder} does not fit this configuration: {error}") from error
        for name, leaf in wanted.items():
            if found[name].shape != leaf.shape or found[name].dtype != leaf.dtype:
                raise Refused(f"the checkpoint {folder} holds {name} as {found[name].shape}, not {leaf.shape}")
        # Copied, so that they are not bound to a device: programs of bound arrays are others than those the run began
        # with, and would be compiled anew.
        leaves = [
            jnp.array(np.asarray(found.pop(k))) if k in found else jnp.zeros(v.shape, v.dtype) for k, v in named.items()
        ]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)


@contextlib.contextmanager
def _raised_not_logged() -> Iterator[None]:
    """What Orbax raises here its threads and tasks also log at length, some of them later; one sentence is enough.

    So their loggers stay silent once a save has failed.
    """
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


class RunFolder:
    """A run folder, open for reading or writing."""

    def __init__(self, path: Path, config: RunConfig, manifest: dict[str, Any]) -> None:
        self.path, self.config, self.manifest = path, config, manifest
        self._files: dict[str, IO[bytes]] = {}
        self._lock: IO[str] | None = None

    # ------------------------------------------------------------ making and opening

    @staticmethod
    def create(path: Path, config: RunConfig, manifest: dict[str, Any]) -> RunFolder:
        """A new folder, open for writing.

        Raises:
            Refused: There is something at the path already, or it cannot be made.
        """
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise Refused(
                f"{path} exists already; give another --run-dir, or continue it with: omad resume {path}"
            ) from None
        except OSError as error:
            raise Refused(f"{path} cannot be made ({error.strerror}); give another --run-dir.") from None
        run = RunFolder(path, config, {"format": FORMAT} | manifest)
        run.lock()
        (path / "checkpoints").mkdir()
        write_json(path / "config.json", to_dict(config))
        write_json(path / "manifest.json", run.manifest)
        run._open_lines()
        return run

    @staticmethod
    def open(path: str | Path) -> RunFolder:
        """An existing folder, for reading.

        Raises:
            Refused: It is not a run folder, or not one of this version.
        """
        path = Path(path)
        if not path.is_dir():
            raise Refused(f"{path} is not a run folder: there is no such folder. Give the path printed by omad train.")
        inside = members(path)
        if inside != [path]:
            raise Refused(f"{path} holds several runs; give one of {', '.join(str(run) for run in inside)}.")
        manifest = _read_json(path / "manifest.json")
        found = manifest.get("format") if isinstance(manifest, dict) else None
        if found != FORMAT:
            raise Refused(
                f"{path} has run-folder format {found!r}; this version reads {FORMAT}. "
                f"Use the version that wrote it ({manifest.get('omad') if isinstance(manifest, dict) else None})."
            )
        config = _read_json(path / "config.json")
        if not isinstance(config, dict):
            raise Refused(f"{path / 'config.json'} is not a configuration: it must be a JSON object.")
        return RunFolder(path, from_dict(config), manifest)

    @property
    def spec(self) -> EnvSpec:
        """Sizes of the task, as recorded when the run began; no env is made."""
        values = dict(self.manifest["spec"])
        for name in ("obs_dims", "act_dims", "info_keys"):
            values[name] = tuple(values[name])
        return EnvSpec(**values)

    def lock(self) -> None:
        """Claim the folder for writing until the process ends.

        Raises:
            Refused: Another process writes to it.
        """
        self._lock = (self.path / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refused(f"{self.path} is being written by another process; wait for it or stop it.") from None

    @staticmethod
    def busy(path: Path) -> bool:
        """Whether a process writes to a folder right now."""
        try:
            with (path / "lock").open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    @property
    def complete(self) -> bool:
        """Whether the run has reached its end and saved there; checkpoints may have been removed since."""
        ended, total = self.ended, self.config.total_rows
        return (ended is not None and ended.how == "finished") or any(c.row >= total for c in self.checkpoints())

    @property
    def ended(self) -> Ended | None:
        """How work on it ended last; None while it can be worked on, and where it was stopped or killed."""
        try:
            found = json.loads((self.path / "ended.json").read_text())
            return Ended(found["how"], str(found["words"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def note_end(self, ended: Ended) -> None:
        """Write down how work on it ended; where even that fails, as on a full disk, nothing is said."""
        with contextlib.suppress(OSError):
            write_json(self.path / "ended.json", ended._asdict())

    def rewind(self, checkpoint: Checkpoint | None) -> None:
        """Claim the folder and cut off every line that was written after a checkpoint (all lines, without one).

        Raises:
            Refused: Another process writes to it, a file is shorter than the checkpoint says, or checkpoints were
                removed.
        """
        self.lock()
        if checkpoint is None:
            self._refuse_if_saved_once()
        (self.path / "ended.json").unlink(missing_ok=True)
        lengths = checkpoint.index["lengths"] if checkpoint else dict.fromkeys(LINES, 0)
        for name, length in lengths.items():
            path = self.path / name
            size = path.stat().st_size if path.exists() else 0
            if size < length:
                raise Refused(
                    f"{path} has {size} bytes, but the checkpoint was made when it had {length}; "
                    "lines are missing. Restore the file from a copy."
                )
            if path.exists():
                os.truncate(path, length)
        self._open_lines()

    def _refuse_if_saved_once(self) -> None:
        """That lines go beyond the first checkpoint shows that there has been one."""
        first = -(-self.config.save_every // self.config.n_envs) * self.config.n_envs
        last = max((line["step"] for line in self.lines("metrics.jsonl")), default=0)
        if last > first or self.complete:
            raise Refused(
                f"{self.path} has lines up to env step {last}, but its checkpoints are gone; it cannot go on, and "
                "beginning again would delete the lines. Restore checkpoints/ from a copy, or start a new run."
            )

    # ------------------------------------------------------------ lines

    def _open_lines(self) -> None:
        for name in LINES:
            self._files[name] = (self.path / name).open("ab")

    def write(self, name: str, line: dict[str, Any]) -> None:
        """Append one JSON line."""
        self._files[name].write(json.dumps(line).encode() + b"\n")

    def flush(self) -> None:
        """Hand all lines to the operating system."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Close all files and give up the claim."""
        for file in (*self._files.values(), self._lock):
            if file is not None:
                file.close()
        self._files.clear()
        self._lock = None

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        """The lines of a file; a truncated last one, as a killed run may leave it, is passed over.

        Raises:
            Refused: Any other line is not JSON.
        """
        path = self.path / name
        if not path.exists():
            return
        rows = path.read_bytes().split(b"\n")
        for number, row in enumerate(rows, 1):
            if not row:
                continue
            try:
                yield json.loads(row)
            except ValueError:
                if number == len(rows):
                    return
                raise Refused(f"{path}, line {number} is not JSON; restore the file from a copy.") from None

    # ------------------------------------------------------------ checkpoints

    def save(self, row: int, env_steps: int, policy: PyTree, rest: PyTree) -> None:
        """Write a checkpoint; only when it is whole are older ones than the last two removed.

        Raises:
            OSError: The disk is full, or the like; nothing that was saved before is lost.
        """
        import orbax.checkpoint as ocp

        root = self.path / "checkpoints"
        folder = root / str(env_steps)
        (root / f"{env_steps}.json").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        try:
            with _raised_not_logged(), ocp.StandardCheckpointer() as checkpointer:
                for part, tree in (("policy", policy), ("rest", rest)):
                    checkpointer.save(folder.resolve() / part, _with_content(_named(tree)))
                    checkpointer.wait_until_finished()
            index = {
                "format": FORMAT,
                "row": row,
                "env_steps": env_steps,
                "lengths": {name: (self.path / name).stat().st_size for name in LINES},
                "digest": {part: _digest(folder / part) for part in ("policy", "rest")},
            }
            write_json(root / f"{env_steps}.json", index)
        except Exception as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise OSError(f"the checkpoint {folder} could not be written: {error}") from error
        for step in self._steps()[2:]:
            (root / f"{step}.json").unlink(missing_ok=True)
            shutil.rmtree(root / str(step), ignore_errors=True)

    def _steps(self) -> list[int]:
        """Env steps of all checkpoints, newest first."""
        root = self.path / "checkpoints"
        return sorted((int(p.stem) for p in root.glob("*.json") if p.stem.isdigit()), reverse=True)

    def checkpoints(self) -> list[Checkpoint]:
        """All readable checkpoints, newest first."""
        found = []
        for step in self._steps():
            path = self.path / "checkpoints" / f"{step}.json"
            try:
                index = _read_json(path)
            except Refused:
                continue
            if isinstance(index, dict) and index.get("format") == FORMAT:
                found.append(Checkpoint(path.with_suffix(""), index))
        return found

    def discard(self, checkpoint: Checkpoint) -> None:
        """Remove a checkpoint that turned out to be damaged."""
        checkpoint.folder.with_name(checkpoint.folder.name + ".json").unlink(missing_ok=True)
        shutil.rmtree(checkpoint.folder, ignore_errors=True)

    # ------------------------------------------------------------ evaluations

    def evaluations(self) -> list[dict[str, Any]]:
        """Every evaluation, with the mean return and its standard error beside the returns."""
        rows = []
        for line in self.lines("episodes.jsonl"):
            returns = np.asarray(line["returns"])
            spread = returns.std(ddof=1) / np.sqrt(len(returns)) if len(returns) > 1 else 0.0
            rows.append(line | {"mean": float(returns.mean()), "se": float(spread)})
        return rows
