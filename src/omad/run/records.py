"""What the files of a run folder hold: names, versions and records. Arrays are in `arrays`."""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np

from omad import schema
from omad.config import from_dict, source_of, to_dict
from omad.errors import UserError

FORMAT = 3
"""Version of the layout; a folder of another version is refused."""
PARTS: tuple[str, ...] = ("policy", "rest")
METRICS, EPISODES = LINES = ("metrics.jsonl", "episodes.jsonl")
WITHOUT_EFFECT = ("env_workers", "env_timeout", "keep_checkpoints", "keep_best")
"""Settings that no result depends on."""
EARLY = "EarlyStopping"
"""How the reason begins for which that callback stops a run."""
PLATEAU = f"{EARLY}: no return above"
"""The same, where returns have not risen."""
_OF_FILES = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Errors that say what a file is; all others, as want of memory or of rights, say nothing of what it holds."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
T = TypeVar("T")


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
    earlier: dict[str, list[BestEntry]] = {}
    """Those before it, oldest first, that a run may need once more that continues from a checkpoint."""


class Stop(msgspec.Struct, frozen=True):
    """A callback stopped the run here; it may have been resumed since."""

    env_steps: Count
    reason: str


class Unreadable(UserError):
    """The system does not let a part of a checkpoint be read; nothing is known of what it holds."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"The checkpoint {path} cannot be read ({error.strerror}), though it may be whole. Fix that and try "
            "again, or move what begins with its step out of checkpoints/ to go on from the one before it."
        )


def refuse_unreadable(path: Path, error: BaseException | None) -> None:
    """Raise `Unreadable` where an error leaves it open what a file holds."""
    if isinstance(error, OSError) and error.errno not in _OF_FILES:
        raise Unreadable(path, error) from None


def read_index(path: Path, kind: type[T]) -> T | None:
    """What an index file holds; None where it is not there, or damaged.

    Raises:
        Unreadable: The system does not let it be read.
    """
    try:
        return schema.read_json(path, kind)
    except FileNotFoundError:
        return None
    except UserError as error:
        refuse_unreadable(path, error.__cause__)
        return None


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


class MetricsLine(msgspec.Struct):
    """What every line of `metrics.jsonl` has; metrics stand beside it."""

    step: Count
    seed: Count
    gradient_steps: Count = 0


def rounded(value: float) -> float:
    """A return as files keep it: to four decimals, below 1 to the seven digits of single precision."""
    value = float(value)
    return round(value, 4) if abs(value) >= 1 else float(f"{value:.7g}")


def standard_error(returns: Sequence[float] | np.ndarray) -> float:
    """Of their mean; 0 of a single one, which has none."""
    return float(np.std(returns, ddof=1) / np.sqrt(len(returns))) if len(returns) > 1 else 0.0


def with_defaults(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration that some version wrote, with the fields that came since at their defaults.

    Raises:
        UserError: A field or the algorithm is unknown here, or a value cannot work.
    """
    return to_dict(from_dict(config))


def source_run(init_from: str) -> str:
    """The folder of the run that another started from, whichever its seed is."""
    source = Path(source_of(init_from)[0])
    return str(source.parent if re.fullmatch(r"seed-[0-9]+", source.name) else source)
