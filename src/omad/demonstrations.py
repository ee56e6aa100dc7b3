"""Transitions from a file: what `omad record` writes, and what training draws a share of every batch from.

A file is an `.npz` without pickles. Its arrays are the fields of `types.Step` with one leading axis, transition after
transition in the order of their episodes, and a header:

    obs, next_obs         (transition, agent, obs), zeros behind the rows of smaller agents
    state, next_state     (transition, state)
    action                (transition, agent, act) in [-1, 1], zeros likewise
    reward                (transition,)
    terminated, truncated (transition,) booleans: where an episode ends, by the task or by the clock
    format                1
    task                  name of the task
    obs_dims, act_dims    sizes of each agent's own rows
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from omad import files, schema
from omad.errors import UserError
from omad.spec import EnvSpec
from omad.types import Step

FORMAT = 1
"""Version of the layout."""
MOST = 1 << 31
"""Bytes that the arrays of a file may have: 2 GiB."""
_FLAGS = ("terminated", "truncated")
_HEADER = ("format", "task", "obs_dims", "act_dims")
_AGAIN = "record it again with omad record"


def _shapes(spec: EnvSpec) -> dict[str, tuple[int, ...]]:
    """Of each field of `Step`, without the leading axis."""
    obs, state = (spec.n_agents, spec.obs_dim), (spec.state_dim,)
    action = (spec.n_agents, spec.act_dim)
    return {
        "obs": obs, "state": state, "action": action, "reward": (), "terminated": (), "truncated": (),
        "next_obs": obs, "next_state": state,
    }  # fmt: skip


def row_bytes(spec: EnvSpec) -> int:
    """Bytes of one transition."""
    return sum((1 if name in _FLAGS else 4) * math.prod(shape) for name, shape in _shapes(spec).items())


# ---------------------------------------------------------------- writing


def save(path: Path, transitions: Mapping[str, np.ndarray], spec: EnvSpec) -> None:
    """Write complete episodes, one after another.

    Args:
        path: A new file.
        transitions: The fields of `Step`, each with a leading axis.
        spec: Sizes and name of the task.

    Raises:
        UserError: The file cannot be written.
    """
    header = {
        "format": np.asarray(FORMAT),
        "task": np.asarray(spec.name),
        "obs_dims": np.asarray(spec.obs_dims),
        "act_dims": np.asarray(spec.act_dims),
    }
    arrays = {name: np.asarray(array, bool if name in _FLAGS else "<f4") for name, array in transitions.items()}
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **header, **arrays)
    try:
        files.write_bytes(path, packed.getvalue())
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}); give another --out.") from None


# ---------------------------------------------------------------- reading


def load(path: str | Path, spec: EnvSpec) -> Step:
    """Demonstrations for a task, `(transition, 1, ...)`: the only column of a ring. The last one ends its episode.

    Raises:
        UserError: The file is not of this format, damaged, too large, or of agents of other sizes.
    """
    path = Path(path)
    arrays = _read(path)
    _check_header(path, arrays, spec)
    fields = _checked(path, arrays, spec)
    fields["truncated"][-1] |= not fields["terminated"][-1]  # what comes after it is not known
    return Step(**{name: jnp.asarray(array[:, None]) for name, array in fields.items()})


def remark(path: str | Path, spec: EnvSpec) -> str | None:
    """What to say of a file that `load` has read: that it was recorded on a task of another name, if it was."""
    with zipfile.ZipFile(path) as archive:
        recorded = str(_array(archive, archive.getinfo("task.npy")))[:200]
    if recorded == spec.name:
        return None
    return f"{path} was recorded on {recorded}, not on {spec.name}; rewards and dynamics must be the same."


def digest(path: str | Path) -> str:
    """SHA-256 of a file, for the manifest.

    Raises:
        UserError: There is no such file, or it cannot be read.
    """
    path, found = Path(path), hashlib.sha256()
    try:
        with schema.open_plain(path) as file:
            while piece := file.read(1 << 20):
                found.update(piece)
    except OSError as error:
        raise _unreadable(path, error) from None
    return found.hexdigest()


def unchanged(path: str | Path, recorded: object) -> None:
    """Refuse a file that is not the one that a run began with.

    Args:
        path: The file.
        recorded: What `digest` returned then.

    Raises:
        UserError: It has another digest.
    """
    if (now := digest(path)) != recorded:
        raise UserError(
            f"{path} is not the file that the run began with (SHA-256 {now[:12]}, then {str(recorded)[:12]}); put the "
            "old one back, or start a new run."
        )


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be read ({error.strerror or error}); give a file that omad record has written.")


def _read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file, none of which is larger than it says beforehand."""
    names = (*_HEADER, *Step.__dataclass_fields__)
    try:
        with schema.open_plain(path) as file, zipfile.ZipFile(file) as archive:
            there = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if missing := [name for name in names if name not in there]:
                raise UserError(f"{path} has no {', '.join(missing)}; demonstrations have {', '.join(names)}.")
            size = sum(there[name].file_size for name in names)
            if size > MOST:
                raise UserError(
                    f"{path} holds {size >> 20:,} MiB; at most {MOST >> 20:,} MiB are allowed: record less."
                )
            return {name: _array(archive, there[name]) for name in names}
    except UserError:
        raise
    except OSError as error:
        raise _unreadable(path, error) from None
    except Exception as error:  # noqa: BLE001 - a file that is no archive, or a damaged one, can raise anything
        said = str(error).strip().partition("\n")[0].rstrip(".")
        raise UserError(f"{path} is not a whole .npz file ({type(error).__name__}: {said}); {_AGAIN}.") from None


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others cannot be unpacked in part
        raise ValueError(f"{info.filename} is packed as NumPy does not pack")
    with archive.open(info) as member:
        raw = member.read(info.file_size)  # with a number, no more than that is ever unpacked
    file = io.BytesIO(raw)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, kind = read(file)
    if kind.kind not in "fbiuU":
        raise ValueError(f"{info.filename} is of type {kind}")
    data = memoryview(raw)[file.tell() :]
    if len(data) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{info.filename} has {len(data)} bytes for the shape {shape}")
    return np.frombuffer(data, kind).reshape(shape, order="F" if by_column else "C")


def _check_header(path: Path, arrays: Mapping[str, np.ndarray], spec: EnvSpec) -> None:
    if (found := arrays["format"]).tolist() != FORMAT:
        raise UserError(f"{path} has format {str(found.tolist())[:20]}; this version reads {FORMAT}: {_AGAIN}.")
    sizes = [tuple(np.ravel(arrays[name])[: spec.n_agents + 1].tolist()) for name in ("obs_dims", "act_dims")]
    if sizes != [spec.obs_dims, spec.act_dims]:
        obs, act = (str(row)[:200] for row in sizes)
        raise UserError(
            f"{path} has agents with observations {obs} and actions {act}, but {spec.name} has {spec.obs_dims} and "
            f"{spec.act_dims}; give demonstrations of this task."
        )


def _checked(path: Path, arrays: Mapping[str, np.ndarray], spec: EnvSpec) -> dict[str, np.ndarray]:
    """The fields of `Step`, in single precision."""
    n, fields = arrays["reward"].size, dict[str, Any]()
    if not n:
        raise UserError(f"{path} holds no transitions; {_AGAIN}.")
    for name, shape in _shapes(spec).items():
        array, flag = arrays[name], name in _FLAGS
        if array.shape != (n, *shape) or array.dtype.kind != ("b" if flag else "f"):
            raise UserError(
                f"{path} has {name} of shape {array.shape} and type {array.dtype}; {spec.name} needs {(n, *shape)}, "
                f"{'true or false' if flag else 'floating point'}."
            )
        with np.errstate(over="ignore"):
            fields[name] = array.astype(bool if flag else np.float32)
        finite = np.isfinite(fields[name]).reshape(n, -1).all(1)
        if not finite.all():
            raise UserError(f"{path} has a number in {name} that is not finite, at transition {finite.argmin()}.")
    _check_rows(path, fields, spec)
    return fields


def _check_rows(path: Path, fields: Mapping[str, np.ndarray], spec: EnvSpec) -> None:
    """Bounds of actions, padding, and that one transition begins where the last one ended."""
    inside = (np.abs(fields["action"]) <= 1.0).all((1, 2))
    if not inside.all():
        raise UserError(f"{path} has an action outside [-1, 1], at transition {inside.argmin()}; scale actions to it.")
    for name, mask in (("obs", spec.obs_mask), ("action", spec.act_mask), ("next_obs", spec.obs_mask)):
        if fields[name][:, mask == 0].any():
            raise UserError(f"{path} has numbers in {name} where smaller agents have none; write zeros there.")
    goes_on = ~(fields["terminated"] | fields["truncated"])[:-1]
    for name, following in (("obs", "next_obs"), ("state", "next_state")):
        same = (fields[name][1:] == fields[following][:-1]).reshape(len(goes_on), -1).all(1)
        if (torn := goes_on & ~same).any():
            at = int(torn.argmax())
            raise UserError(
                f"{path} is not in the order of its episodes: {following} of transition {at}, which ends none, is not "
                f"{name} of transition {at + 1}; mark it as truncated if its episode is not complete."
            )
