"""Does a long run leak? Train a tiny hosted run for hours and plot memory, open files and threads of all processes.

    python tests/endurance/soak.py --hours 4 --out soak

Writes OUT.json and OUT.png. Flat means: after the first tenth, resident memory of the parent and of the workers grows
by less than 1 MB an hour (slope of a line through medians of windows), open files and threads not at all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent))
from kills import SIZES

LIMIT_MB_AN_HOUR = 1.0


def anonymous_mb(pid: int) -> float:
    """Anonymous memory of a process in MB; psutil.Error if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise psutil.NoSuchProcess(pid) from error
    kib = [int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "VmSwap:"))]
    return sum(kib) * 1024 / 1e6


def sample(process: psutil.Process) -> dict[str, Any]:
    """Memory in MB, open files and threads of a run's process and of its workers.

    `_mb` is anonymous memory, in RAM or swapped: what a leak grows. Resident memory also holds pages of libraries,
    which the kernel takes back and which come and go with other processes.
    """
    workers = process.children(recursive=True)
    row: dict[str, Any] = {"workers": len(workers)}
    for name, some in (("parent", [process]), ("worker", workers)):
        row[f"{name}_mb"] = sum(anonymous_mb(p.pid) for p in some)
        row[f"{name}_rss_mb"] = sum(p.memory_info().rss for p in some) / 1e6
        row[f"{name}_files"] = sum(p.num_fds() for p in some)
        row[f"{name}_threads"] = sum(p.num_threads() for p in some)
    return row


def slope_an_hour(seconds: np.ndarray, values: np.ndarray, windows: int = 20) -> float:
    """Of a least-squares line through the medians of equal windows."""
    parts = [part for part in np.array_split(np.arange(len(seconds)), windows) if len(part)]
    x = [float(np.median(seconds[part])) / 3600 for part in parts]
    return float(np.polyfit(x, [float(np.median(values[part])) for part in parts], 1)[0])


def main() -> int:
    """Train, watch, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=4.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between samples")
    parser.add_argument("--task", default="mamujoco-full/swimmer-2x1")
    parser.add_argument("--out", type=Path, default=Path("soak"))
    given = parser.parse_args()
    run = Path(tempfile.mkdtemp(prefix="omad-soak-")) / "run"
    sizes = SIZES | {"total_steps": 2_000_000_000, "save_every": 4_000, "eval_every": 8_000, "log_every": 4_000,
                     "buffer_size": 2_000}  # fmt: skip
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in sizes.items()]
    words = [sys.executable, "-m", "omad", "train", "--task", given.task, f"--run-dir={run}", *flags]
    rows: list[dict[str, Any]] = []
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as child:
        process, started = psutil.Process(child.pid), time.monotonic()
        try:
            while time.monotonic() - started < given.hours * 3600:
                time.sleep(given.every)
                if child.poll() is not None:
                    raise SystemExit(f"the run ended with exit code {child.returncode}")
                try:
                    rows.append({"s": time.monotonic() - started, **sample(process)})
                except psutil.Error:  # a worker of an evaluation has just gone
                    continue
        finally:
            child.terminate()
    judge(rows, given, run)
    return 0


def judge(rows: list[dict[str, Any]], given: argparse.Namespace, run: Path) -> None:
    """Slopes after the first tenth, written and drawn."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    seconds = np.asarray([row["s"] for row in rows])
    late = seconds > seconds[-1] / 10
    names = [name for name in rows[0] if name not in ("s",)]
    series = {name: np.asarray([row[name] for row in rows], float) for name in names}
    slopes = {name: slope_an_hour(seconds[late], values[late]) for name, values in series.items()}
    last = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    found = {
        "hours": seconds[-1] / 3600, "samples": len(rows), "task": given.task, "env_steps": json.loads(last)["step"],
        "slopes_an_hour": slopes, "limit_mb_an_hour": LIMIT_MB_AN_HOUR, "cores": os.cpu_count(),
        "series": {name: [round(float(v), 2) for v in values[:: max(1, len(rows) // 500)]]
                   for name, values in series.items()},
    }  # fmt: skip
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.with_suffix(".json").write_text(json.dumps(found) + "\n", encoding="utf-8")
    figure, axes = plt.subplots(3, 1, figsize=(8, 7), sharex=True, constrained_layout=True)
    for ax, kind, label in zip(
        axes, ("mb", "files", "threads"), ("anonymous memory, MB", "open files", "threads"), strict=True
    ):
        for who in ("parent", "worker"):
            name = f"{who}_{kind}"
            unit = " MB" if kind == "mb" else ""
            ax.plot(seconds / 3600, series[name], label=f"{who}: {slopes[name]:+.2f}{unit} an hour")
        ax.set_ylabel(label)
        ax.legend(loc="center right")
    axes[-1].set_xlabel("hours")
    figure.savefig(given.out.with_suffix(".png"), dpi=100)
    sys.stdout.write(json.dumps({"hours": found["hours"], "slopes_an_hour": slopes}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
