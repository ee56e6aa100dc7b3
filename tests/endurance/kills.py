"""Kill real training processes at random moments, many times; what they leave must equal an undisturbed run.

    python tests/endurance/kills.py --kills 1000 --jobs 2 --out kills.json

Four kinds of work take turns: a JAX task, physics in worker processes, a user's own env, and a sweep of two runs. Each
round works on one run (or sweep) to its end, under SIGKILL at moments drawn from a fixed seed, start-up and saving
included. Then evaluations, metrics (clock times aside) and the last checkpoint's arrays are compared byte by byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
SIZES = {
    "total_steps": 4_000, "warmup_steps": 100, "n_envs": 2, "updates_per_step": 1, "batch_size": 8, "buffer_size": 500,
    "log_every": 100, "eval_every": 1_000, "eval_episodes": 2, "save_every": 100, "v_max": 10.0, "atoms": 11,
    "denoising_steps": 2, "actor_width": 8, "actor_layers": 1, "time_frequencies": 4, "time_width": 4,
    "critic_width": 8, "critic_layers": 1,
}  # fmt: skip
TASKS = {
    "probe": ("probe/push", {"total_steps": 12_000}),
    "robot": ("mamujoco-full/swimmer-2x1", {"total_steps": 2_400, "eval_every": 1_200, "eval_episodes": 1}),
    "own": ("pettingzoo:lift:Lift", {"total_steps": 4_000}),
}
STUDY = """from omad.study import Study, grid
STUDY = Study("kills", grid(tasks=["probe/push"], algorithms=["omad"], settings={{"tiny": {{"preset": "cpu"}}}},
              seeds=range(2), **{fields}))
"""


def command(kind: str, path: Path) -> list[str]:
    """What begins a run, and goes on with it."""
    if kind == "sweep":
        study = path.parent / "kills_study.py"
        study.write_text(STUDY.format(fields=SIZES | {"total_steps": 6_000}), encoding="utf-8")
        return [sys.executable, "-m", "omad", "sweep", str(study), "--out", str(path), "--workers", "2"]
    if (path / "manifest.json").exists():
        trust = ["--trust"] if kind == "own" else []
        return [sys.executable, "-m", "omad", "resume", str(path), *trust]
    task, changes = TASKS[kind]
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in (SIZES | changes).items()]
    return [sys.executable, "-m", "omad", "train", "--task", task, f"--run-dir={path}", *flags]


def fingerprint(path: Path) -> dict[str, str]:
    """Of every run at or below a folder: evaluations, metrics without clock times, and the newest checkpoint."""
    found = {}
    for config in sorted(path.rglob("config.json")):
        run = config.parent
        rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]
        digest = hashlib.sha256((run / "episodes.jsonl").read_bytes() + json.dumps(rows).encode())
        newest = max(int(entry.name) for entry in (run / "checkpoints").iterdir() if entry.name.isdigit())
        for part in sorted((run / "checkpoints" / str(newest)).rglob("*")):
            digest.update(part.read_bytes() if part.is_file() else b"")
        found[run.relative_to(path).as_posix()] = f"{newest} {digest.hexdigest()}"
    return found


class Round:
    """One run under fire."""

    def __init__(self, kind: str, number: int, root: Path, end: float, most: int) -> None:
        self.kind, self.root, self.end, self.most = kind, root / f"{kind}-{number}", end, most
        self.rng = random.Random(f"{kind} {number}")
        self.kills = 0
        self.said: list[str] = []

    def start(self) -> subprocess.Popen[str]:
        """One attempt."""
        return subprocess.Popen(
            command(self.kind, self.root / "run"), cwd=HERE, text=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def work(self, strike: bool) -> bool:
        """Whether the run came to its end; without strikes it may not be disturbed."""
        self.root.mkdir(parents=True, exist_ok=True)
        while time.monotonic() < self.end or not strike:
            process = self.start()
            delay = self.rng.uniform(0.2, 9.0) if strike and self.kills < self.most else 1e6
            try:
                _, error = process.communicate(timeout=delay)
            except subprocess.TimeoutExpired:
                victims = [process.pid]
                if self.kind == "sweep" and self.rng.random() < 0.5:  # a run, not the sweep
                    victims = [child.pid for child in psutil.Process(process.pid).children()][:1] or victims
                for pid in victims:
                    with_no_such_process(pid)
                self.kills += 1
                if victims != [process.pid]:
                    process.send_signal(signal.SIGTERM)
                process.communicate()
                continue
            if process.returncode not in (0, 1 if self.kind == "sweep" else 0):
                self.said.append(f"exit code {process.returncode}: {error[-600:]}")
                return False
            return True
        return False


def with_no_such_process(pid: int) -> None:
    """SIGKILL, if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def main() -> int:
    """Strike and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1e6, help="stop striking after this time")
    parser.add_argument("--kinds", nargs="+", default=["probe", "robot", "own", "sweep"])
    parser.add_argument("--first", type=int, default=0, help="number of the first round, which seeds its moments")
    parser.add_argument("--out", type=Path, default=Path("kills.json"))
    given = parser.parse_args()
    started, root = time.monotonic(), Path(tempfile.mkdtemp(prefix="omad-kills-"))
    os.environ["XDG_CACHE_HOME"] = str(root / "cache")
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"
    with ThreadPoolExecutor(len(given.kinds)) as pool:
        still = list(pool.map(lambda kind: undisturbed(kind, root), given.kinds))
    wanted = dict(zip(given.kinds, still, strict=True))
    lock, rounds, total = threading.Lock(), [0], [0]
    rows: list[dict[str, Any]] = []

    def one(_: int) -> None:
        while total[0] < given.kills and time.monotonic() - started < given.seconds:
            with lock:
                number, rounds[0] = rounds[0], rounds[0] + 1
            kind = given.kinds[number % len(given.kinds)]
            round_ = Round(kind, given.first + number, root, started + given.seconds, most=40)
            done = round_.work(strike=True)
            if not done and not round_.said:  # time is up: to its end, undisturbed
                done = round_.work(strike=False)
            same = done and fingerprint(round_.root / "run") == wanted[kind]
            with lock:
                total[0] += round_.kills
                rows.append({"kind": kind, "round": given.first + number, "kills": round_.kills, "same": same,
                             "said": round_.said})  # fmt: skip
                sys.stdout.write(f"{time.monotonic() - started:6.0f} s, {total[0]} kills: {rows[-1]}\n")
                sys.stdout.flush()
            if same:
                shutil.rmtree(round_.root, ignore_errors=True)

    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(one, range(given.jobs)))
    different = sum(not row["same"] for row in rows)
    counts = {kind: sum(row["kills"] for row in rows if row["kind"] == kind) for kind in given.kinds}
    found = {"kills": total[0], "by_kind": counts, "rounds": len(rows), "different": different,
             "seconds": round(time.monotonic() - started), "cores": os.cpu_count(), "each": rows}  # fmt: skip
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{total[0]} kills in {len(rows)} rounds, {different} differences\n")
    if not different:
        shutil.rmtree(root, ignore_errors=True)
    return 1 if different else 0


def undisturbed(kind: str, root: Path) -> dict[str, str]:
    """What a run that nobody touches leaves behind."""
    round_ = Round(kind, -1, root, 0.0, most=0)
    if not round_.work(strike=False):
        raise SystemExit(f"the undisturbed {kind} run failed: {round_.said}")
    return fingerprint(round_.root / "run")


if __name__ == "__main__":
    sys.exit(main())
