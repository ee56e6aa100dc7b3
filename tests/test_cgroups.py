"""Limits of control groups, from files as the kernel has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from omad import cgroups, processes

FREE = 1 << 30


def written(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_version_two_with_the_groups_around(tmp_path: Path) -> None:
    """The tightest group counts; what the kernel gives up for others is free."""
    root, own = tmp_path / "fs", tmp_path / "own"
    written(root, {
        "memory.stat": "anon 5\n",
        "slurm/memory.max": f"{8 * FREE}\n", "slurm/memory.current": f"{5 * FREE}\n",
        "slurm/memory.stat": f"anon 1\ninactive_file {FREE}\nactive_file {FREE}\n",
        "slurm/cpu.max": "400000 100000\n",
        "slurm/job/memory.max": "max\n", "slurm/job/memory.current": "7\n", "slurm/job/cpu.max": "150000 100000\n",
    })  # fmt: skip
    own.write_text("0::/slurm/job\n")
    assert cgroups.memory_left(root, own) == 5 * FREE
    assert cgroups.core_share(root, own) == 1.5
    written(root, {"slurm/job/cpu.max": "max 100000\n"})
    assert cgroups.core_share(root, own) == 4.0


def test_version_one_in_a_container(tmp_path: Path) -> None:
    """The group that is named is the host's, and not there; that of the container is the root."""
    root, own = tmp_path / "fs", tmp_path / "own"
    written(root, {
        "memory/memory.limit_in_bytes": f"{4 * FREE}\n", "memory/memory.usage_in_bytes": f"{2 * FREE}\n",
        "memory/memory.stat": f"active_file 1\ninactive_file 1\ntotal_active_file 1\ntotal_inactive_file {FREE - 1}\n",
        "cpu,cpuacct/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    })  # fmt: skip
    own.write_text("5:memory:/docker/4a72\n2:cpu,cpuacct:/docker/4a72\n1:name=systemd:/\n0::/\n")
    assert cgroups.memory_left(root, own) == 3 * FREE
    assert cgroups.core_share(root, own) == 2.5
    written(root, {"memory/memory.limit_in_bytes": "9223372036854771712\n", "cpu,cpuacct/cpu.cfs_quota_us": "-1\n"})
    assert cgroups.memory_left(root, own) is None and cgroups.core_share(root, own) is None


def test_without_groups(tmp_path: Path) -> None:
    assert cgroups.memory_left(tmp_path, tmp_path / "none") is None
    assert cgroups.core_share(tmp_path, tmp_path / "none") is None


@pytest.mark.parametrize(("share", "due"), [(None, 3), (0.5, 1), (1.2, 2), (9.0, 3)])
def test_no_more_processes_at_a_time_than_can_compute(
    share: float | None, due: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "available_cores", lambda: [0, 2, 5])
    monkeypatch.setattr(cgroups, "core_share", lambda: share)
    assert processes.cores_at_once() == due
