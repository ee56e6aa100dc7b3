"""What a container or a batch system leaves a process: the limits of its control groups on Linux, of both versions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

ROOT, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def _groups(controller: str, root: Path, own: Path) -> Iterator[Path]:
    """The folders of this process's group and of those around it; in a container they may lie at the root."""
    with contextlib.suppress(OSError, ValueError):
        for line in own.read_text("utf-8").splitlines():
            number, names, path = line.split(":", 2)
            if number == "0" and not names:
                top = root
            elif controller in names.split(","):
                top = root / names if (root / names).is_dir() else root / controller
            else:
                continue
            place = top / path.strip("/")
            yield from (folder for folder in (place, *place.parents) if folder == top or folder.is_relative_to(top))


def _number(path: Path, place: int = 0) -> int | None:
    """A number of a file, where there is one: `max` and -1 are no limit."""
    try:
        value = int(path.read_text("utf-8").split()[place])
    except (OSError, ValueError, IndexError):
        return None
    return value if 0 <= value < 1 << 60 else None


def _reclaimable(folder: Path) -> int:
    """Bytes of files that the kernel keeps in memory, and gives up for others."""
    with contextlib.suppress(OSError, ValueError):
        found = dict(line.split() for line in (folder / "memory.stat").read_text("utf-8").splitlines())
        # Version 1 has those of groups within it under names of their own.
        each = (int(found.get(f"total_{name}", found.get(name, 0))) for name in ("inactive_file", "active_file"))
        return sum(each)
    return 0


def memory_left(root: Path = ROOT, own: Path = OWN) -> int | None:
    """Bytes that may still be had; None where there is no limit."""
    left = []
    for folder in _groups("memory", root, own):
        for most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            limit, taken = _number(folder / most), _number(folder / used)
            if limit is not None and taken is not None:
                left.append(max(0, limit - taken + min(taken, _reclaimable(folder))))
    return min(left, default=None)


def core_share(root: Path = ROOT, own: Path = OWN) -> float | None:
    """Processor seconds a second; None where there is no limit beside the cores."""
    shares = []
    for folder in _groups("cpu", root, own):
        quota, period = _number(folder / "cpu.max"), _number(folder / "cpu.max", 1)
        if quota is None:
            quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota and period:
            shares.append(quota / period)
    return min(shares, default=None)
