"""Writing into folders that somebody else may have filled: no link below the folder is ever followed.

Every path is given with its `root`, which may itself be reached through a link. Below it, each folder is opened from
the one above without following links, and the last name is used relative to that folder, so a link put anywhere in
between cannot send a write or a removal elsewhere. Without a root, the folder of the path is the root.

What is written is on the disk before the call returns: files and the folders that name them are synced.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from omad.errors import UserError

PARTIAL = ".partial"
"""Ends the name of a file or folder that is being written."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # opening a pipe would wait otherwise
_NOT_PLAIN = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO}
_DEEPEST = 16
"""Folders within folders that `remove` goes down."""
_AT_ONCE = 1 << 24
"""Bytes handed to the operating system at a time."""
_LOCK_S = 0.5
"""How long to try for a lock: who asks whether it is held holds it for a moment."""


def _not_plain(path: Path) -> UserError:
    return UserError(f"{path} is not a plain file or folder of its own, but a link or the like; remove it or copy it.")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors with the whole path; what is a link, or not of the expected kind, is refused."""
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_PLAIN:
            raise _not_plain(path) from None
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextlib.contextmanager
def _folder_of(path: Path, root: Path | None) -> Iterator[tuple[int, str]]:
    """An open descriptor of the folder that a path is in, and the path's last name."""
    root = path.parent if root is None else root
    *above, name = path.relative_to(root).parts
    if ".." in (*above, name):
        raise _not_plain(path)
    folder = os.open(root, _FOLDER)
    try:
        for part in above:
            below = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = below
        yield folder, name
    finally:
        os.close(folder)


def _open_plain(path: Path, flags: int, root: Path | None) -> int:
    """A plain file with this one name.

    Raises:
        UserError: It is a link or not a plain file, or has a second name elsewhere, whose content would change too.
    """
    with _named(path), _folder_of(path, root) as (folder, name):
        handle = os.open(name, flags | _PLAIN, 0o666, dir_fd=folder)
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(handle)
        raise _not_plain(path)
    return handle


# ------------------------------------------------------------ files


def write(handle: int, data: bytes | memoryview) -> None:
    """Hand all of some bytes to the operating system."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest[:_AT_ONCE]) :]


def create(path: Path, parts: Iterable[bytes | memoryview], root: Path | None = None) -> None:
    """Write a new file and sync it; its name is on the disk once its folder is synced.

    Raises:
        FileExistsError: Something has that name.
        OSError: It cannot be written; what there was of it is removed.
    """
    with _named(path), _folder_of(path, root) as (folder, name):
        _create(folder, name, parts)


def _create(folder: int, name: str, parts: Iterable[bytes | memoryview]) -> None:
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN, 0o666, dir_fd=folder)
    try:
        for part in parts:
            write(handle, part)
        os.fsync(handle)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)
        raise
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes | Iterable[bytes], root: Path | None = None) -> None:
    """Write a file atomically: it is either the old one or the whole new one. A link of that name is replaced.

    Data come at once or in parts, which may be read from the old one.

    Raises:
        UserError: Something on the way is not a plain folder.
        OSError: It cannot be written; the old one is still there.
    """
    with _named(path), _folder_of(path, root) as (folder, name):
        partial = name + PARTIAL
        _remove(folder, partial, path)
        _create(folder, partial, [data] if isinstance(data, bytes) else data)
        os.replace(partial, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def write_text(path: Path, text: str, root: Path | None = None) -> None:
    """Write a text file in UTF-8, as `write_bytes`."""
    write_bytes(path, text.encode(), root)


def open_append(path: Path, root: Path | None = None) -> int:
    """A descriptor that writes to the end of a file, which is made if it is not there.

    Raises:
        UserError: It is not a plain file, or has a second name.
    """
    return _open_plain(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, root)


def sync(handle: int) -> None:
    """See to it that what was written to an open file is on the disk."""
    os.fsync(handle)


def truncate(handle: int, length: int) -> None:
    """Cut an open file to a length, and sync it."""
    os.ftruncate(handle, length)
    os.fsync(handle)


def remove(path: Path, root: Path | None = None) -> None:
    """Remove a file, a link (never what it points to) or a folder with all that is in it; nothing is fine too.

    Raises:
        UserError: Folders are nested too deeply.
    """
    try:
        with _named(path), _folder_of(path, root) as (folder, name):
            if _remove(folder, name, path):
                os.fsync(folder)
    except FileNotFoundError:
        return


def _remove(folder: int, name: str, path: Path, depth: int = 0) -> bool:
    """Whether there was something."""
    if depth > _DEEPEST:
        raise UserError(f"{path} holds folders nested more than {_DEEPEST} deep; remove it by hand.")
    try:
        kind = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(kind):
        os.unlink(name, dir_fd=folder)
        return True
    inside = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    try:
        for entry in [found.name for found in os.scandir(inside)]:
            _remove(inside, entry, path, depth + 1)
    finally:
        os.close(inside)
    os.rmdir(name, dir_fd=folder)
    return True


# ------------------------------------------------------------ folders


def make_folder(path: Path, root: Path | None = None) -> None:
    """Make a folder unless it is there.

    Raises:
        UserError: Something else has that name, a link to a folder among it.
    """
    with _named(path), _folder_of(path, root) as (folder, name):
        try:
            os.mkdir(name, dir_fd=folder)
        except FileExistsError:
            os.close(os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder))
        os.fsync(folder)


def sync_folder(path: Path, root: Path | None = None) -> None:
    """See to it that the names in a folder are on the disk."""
    with _named(path), _folder_of(path / "x", root) as (folder, _):
        os.fsync(folder)


def free_bytes(path: Path) -> int | None:
    """What can still be written where a path lies; None where the file system does not tell."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize if found.f_blocks else None


# ------------------------------------------------------------ locks

# flock, by itself: the claim ends with the process, whatever ended it. The package filelock was looked at; where a file
# system knows no flock it falls back to a file that a killed process leaves behind, it changes the file's mode, and who
# only wants to know whether a folder is busy would have to claim it.


def lock(path: Path, root: Path | None = None) -> int | None:
    """Claim a file, which is made if it is not there, until the descriptor is closed or the process ends.

    Returns:
        The descriptor; None if another process holds the claim.

    Raises:
        UserError: It is not a plain file.
    """
    handle, end = _open_plain(path, os.O_RDWR | os.O_CREAT, root), time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < end:
                time.sleep(0.01)
                continue
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        return handle


def is_locked(path: Path, root: Path | None = None) -> bool:
    """Whether another process, or this one, claims a file right now; nothing is written."""
    try:
        with _folder_of(path, root) as (folder, name):
            handle = os.open(name, os.O_RDONLY | _PLAIN, dir_fd=folder)
    except OSError as error:
        return error.errno not in {errno.ENOENT, *_NOT_PLAIN}
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def check_new(path: Path) -> None:
    """Refuse the place of a file that is to be written later, before there is any work.

    Raises:
        UserError: It exists, or its folder does not.
    """
    if path.exists() or not path.absolute().parent.is_dir():
        there = "exists already" if path.exists() else "lies in no folder that there is"
        raise UserError(f"{path} {there}; give another --out.")
