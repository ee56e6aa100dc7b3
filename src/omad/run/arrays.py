"""The arrays of a checkpoint, as safetensors: leaves by their path in the tree, and nothing that could be executed.

They are written leaf by leaf, so that a large buffer is never held twice, and digested as they are written.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jaxtyping import PyTree

from omad import files
from omad.errors import UserError
from omad.run.records import Part, Unreadable, refuse_unreadable
from omad.schema import open_plain

_CODES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
}  # fmt: skip
"""Names of dtypes in the format."""
_AT_ONCE = 1 << 22


def leaves_of(tree: PyTree) -> dict[str, Any]:
    """Leaves by their path, which is all that is kept of a tree's structure.

    Raises:
        UserError: Two paths are written alike.
    """
    paths = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    leaves = dict(zip(names, jax.tree.leaves(tree), strict=True))
    if len(leaves) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(
            f"two arrays of the learner or of the env's state are both called {twice!r} in a checkpoint; give keys "
            "without dots, as they join the levels of a name."
        )
    return leaves


def _kept(tree: PyTree) -> dict[str, Any]:
    """Leaves that have entries, the widest dtypes first, so that all lie aligned."""
    full = [(name, leaf) for name, leaf in leaves_of(tree).items() if leaf.size]
    return dict(sorted(full, key=lambda item: -item[1].dtype.itemsize))


def _header(leaves: dict[str, Any]) -> bytes:
    entries, end = {}, 0
    for name, leaf in leaves.items():
        begin, end = end, end + leaf.size * leaf.dtype.itemsize
        entries[name] = {"dtype": _CODES[leaf.dtype.name], "shape": leaf.shape, "data_offsets": (begin, end)}
    text = msgspec.json.encode(entries)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def n_bytes(tree: PyTree) -> int:
    """Size of the file that `save` would write."""
    leaves = _kept(tree)
    return len(_header(leaves)) + sum(leaf.size * leaf.dtype.itemsize for leaf in leaves.values())


def save(path: Path, tree: PyTree, root: Path) -> Part:
    """Write a tree of arrays into a new file, and sync it.

    Args:
        path: The file.
        tree: Arrays, of NumPy or JAX.
        root: The run folder; below it, no link is followed.

    Raises:
        OSError: It cannot be written.
    """
    digest, size, leaves = hashlib.sha256(), 0, _kept(tree)

    def parts() -> Iterator[bytes | memoryview]:
        yield _header(leaves)
        for leaf in leaves.values():
            yield np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data

    def digested() -> Iterator[bytes | memoryview]:
        nonlocal size
        for part in parts():
            digest.update(part)
            size += len(part)
            yield part

    files.create(path, digested(), root)
    return Part(size, digest.hexdigest())


def load(path: Path, part: Part, like: PyTree, loose: Collection[str] = ()) -> PyTree:
    """Read what `save` wrote.

    Args:
        path: The file.
        part: What `save` said.
        like: Arrays or shapes of the same structure. Empty leaves are created again.
        loose: Leaves whose last axis may have any length.

    Raises:
        UserError: The file is damaged, or the contents do not fit.
    """
    leaves = []
    with _opened(path, part) as file:
        stored, named = set(file.keys()), leaves_of(like)
        for name, due in named.items():
            if name not in stored and not due.size:
                leaves.append(jnp.zeros(due.shape, due.dtype))
                continue
            if name not in stored and name in loose:
                leaves.append(jnp.zeros((*due.shape[:-1], 0), due.dtype))
                continue
            if name not in stored:
                raise UserError(f"the checkpoint {path} does not fit this configuration: it has no {name}.")
            found = file.get_slice(name)
            shape, code = tuple(found.get_shape()), found.get_dtype()
            fits = shape[:-1] == due.shape[:-1] if name in loose else shape == due.shape
            if not fits or code != _CODES[due.dtype.name]:
                raise UserError(
                    f"the checkpoint {path} does not fit this configuration: it holds {name} as {code} of shape "
                    f"{shape}, not {_CODES[due.dtype.name]} of {due.shape}."
                )
            # Not bound to a device: programs of bound arrays are others than those the run began with, and would be
            # compiled again. Nor copied, which would compile a program a shape.
            # Waited for, or the file's arrays would pile up beside those on the device.
            leaves.append(jax.block_until_ready(jnp.asarray(file.get_tensor(name))))
    if extra := sorted(stored - named.keys()):
        raise UserError(f"the checkpoint {path} does not fit this configuration: it holds {', '.join(extra[:3])} too.")
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def read(path: Path, part: Part, prefixes: str | tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays of a file whose names begin with a prefix, or one of several.

    Raises:
        UserError: The file is damaged.
    """
    with _opened(path, part) as file:
        return {k: file.get_tensor(k) for k in list(file.keys()) if k.startswith(prefixes)}


@contextlib.contextmanager
def _opened(path: Path, part: Part) -> Iterator[Any]:
    """A file whose checksum is right, to read from inside; an error of the disk or the format becomes a `UserError`."""
    import safetensors

    _verify(path, part)
    try:
        with safetensors.safe_open(path, "numpy") as file:
            yield file
    except OSError as error:  # its checksum is right
        raise Unreadable(path, error) from None
    except safetensors.SafetensorError as error:
        raise UserError(f"the checkpoint {path} cannot be read: {error}.") from None


def _verify(path: Path, part: Part) -> None:
    """That a file is the one that was written."""
    digest = hashlib.sha256()
    try:
        with open_plain(path) as file:
            size = file.seek(0, 2)
            file.seek(0)
            while size == part.size and (block := file.read(_AT_ONCE)):
                digest.update(block)
    except FileNotFoundError:
        raise UserError(f"the checkpoint {path} is damaged: there is no such file.") from None
    except OSError as error:
        refuse_unreadable(path, error)
        raise UserError(f"the checkpoint {path} is damaged: it cannot be read ({error.strerror}).") from None
    if digest.hexdigest() != part.sha256:
        raise UserError(f"the checkpoint {path} is damaged: it does not match its checksum.")
