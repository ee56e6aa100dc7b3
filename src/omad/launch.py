"""Runs in parallel: one process a run, each on cores of its own.

Every run folder exists before its process starts, and a process does nothing but `omad resume FOLDER`. So beginning,
going on after a cut, and beginning again what failed are one and the same, and a folder is all that is needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from omad import files, schema
from omad.compilation import inherited
from omad.device import SHARED
from omad.errors import UserError
from omad.processes import STOPPING, available_cores
from omad.run.folder import RunFolder
from omad.run.records import EPISODES, METRICS, Count, Ended, EpisodesLine

_POLL_S = 0.2
_PATIENCE_S = 120.0
"""How long to wait for a process of an earlier, killed launch that is still saving."""


@dataclasses.dataclass(frozen=True)
class State:
    """The state of one run."""

    folder: Path
    state: str
    """`waiting`, `running`, `finished`, `stopped` or `failed`."""
    env_steps: int
    total_steps: int
    steps_per_s: float
    evaluation: tuple[int, float] | None
    """Env step and mean return of the newest evaluation with sampled actions."""
    message: str = ""
    """The last message of a failed run, or what a waiting one waits for."""


OnUpdate = Callable[[list[State]], None]
"""Called a few times a second with the states of all runs."""


class _Progress(msgspec.Struct):
    """A line of metrics, as far as it says how far a run is."""

    step: Count = 0
    steps_per_s: schema.Finite = msgspec.field(name="time/steps_per_s", default=0.0)


def last_line(path: Path, kind: Any = dict[str, Any], wanted: Callable[[Any], bool] = lambda _: True) -> Any:
    """The last whole JSON line of a file that is of a kind and satisfies a condition, read from its end; else None."""
    for row in reversed(_last_rows(path)):
        with contextlib.suppress(UserError):
            if wanted(line := schema.decode(row, kind, path)):
                return line
    return None


def _last_rows(path: Path, begin: int = 0) -> list[bytes]:
    """The rows at the end of a file of any size, from a byte on; none if it cannot be read."""
    try:
        with schema.open_plain(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(begin, size - (1 << 18)))
            return file.read().split(b"\n")
    except (OSError, UserError):
        return []


def state_of(run: RunFolder, state: str = "", message: str = "") -> State:
    """Read a run's progress from its folder; without a given state, that too."""
    total = run.config.total_vector_steps * run.config.n_envs
    metrics = last_line(run.path / METRICS, _Progress) or _Progress()
    whole = lambda line: line.actions == "sampled" and None not in line.returns  # noqa: E731
    episodes = last_line(run.path / EPISODES, EpisodesLine, whole)
    seen = (episodes.step, sum(episodes.returns) / len(episodes.returns)) if episodes else None
    if not state:
        try:
            ended = run.ended
            open_ = "running" if run.busy(run.path) else "failed" if ended else "waiting"
            state = "finished" if run.complete else open_
            message = ended.words if ended and state == "failed" else message
        except UserError as error:
            state, message = "failed", str(error)
    return State(run.path, state, metrics.step, total, metrics.steps_per_s, seen, message)


def finished(run: RunFolder) -> bool:
    """Whether a run is; one whose files are damaged is not, and its own process says why."""
    try:
        return run.complete
    except UserError:
        return False


def cores_for(slots: int) -> list[set[int]]:
    """This process's cores in as many shares as there are slots; with more slots than cores, all cores for each."""
    own = available_cores()
    if slots > len(own):
        return [set(own)] * slots
    return [set(own[i::slots]) for i in range(slots)]


def as_begun(run: RunFolder, cores: set[int]) -> set[int]:
    """A run continues on as many cores as it began on, if there are as many, for rounding depends on their number."""
    return set(sorted(cores)[: run.manifest.get("cores")]) if run.checkpoints() else cores


def side_by_side(
    folders: Sequence[Path],
    at_once: int,
    on_update: OnUpdate,
    stop: Callable[[], bool] = lambda: False,
) -> list[State]:
    """Run until each run is done, has failed, or was stopped; complete ones are skipped.

    Args:
        folders: Run folders, begun or not, in the order in which to take them.
        at_once: Processes at a time.
        on_update: Called a few times a second with the state of all runs.
        stop: Called as often; once it is true, running processes are asked to save and end, and nothing is started.

    Returns:
        The last state of every run.
    """
    runs = [RunFolder.open(folder) for folder in folders]
    states = [state_of(run, "finished" if finished(run) else "waiting") for run in runs]
    queue = [i for i, state in enumerate(states) if state.state != "finished"]
    at_once = max(1, min(at_once, len(queue)))  # fewer runs have more cores each
    waited_s = 0.0  # in this process's own time: not while it is stopped
    free = list(range(at_once))
    cores = cores_for(at_once)
    busy: dict[int, tuple[int, Started]] = {}
    stopping = False
    try:
        while queue or busy:
            if not stopping and stop():
                stopping = True
                for _, started in busy.values():
                    started.process.send_signal(signal.SIGTERM)
            if stopping:
                queue.clear()
            while free and (i := next((i for i in queue if not RunFolder.busy(runs[i].path)), None)) is not None:
                queue.remove(i)
                if finished(runs[i]):  # another process has done it meanwhile
                    states[i] = state_of(runs[i])
                    continue
                slot = free.pop(0)
                busy[i] = slot, begin(runs[i].path, as_begun(runs[i], cores[slot]))
            waited_s = 0.0 if busy else waited_s + _POLL_S
            if queue and waited_s > _PATIENCE_S:
                for i in queue:
                    states[i] = state_of(runs[i], "failed", "another process has been writing to it")
                queue.clear()
            for i, (slot, started) in list(busy.items()):
                code = started.process.poll()
                if code is None:
                    states[i] = state_of(runs[i], "running")
                    continue
                del busy[i]
                free.append(slot)
                states[i] = state_of(runs[i], *verdict(runs[i], code, started.logged))
            on_update(states)
            if queue or busy:
                time.sleep(_POLL_S)
    finally:
        for _, started in busy.values():
            started.process.send_signal(signal.SIGTERM)
        for _, started in busy.values():
            started.process.wait()
    return states


def verdict(run: RunFolder, code: int, logged: int) -> tuple[str, str]:
    """The state of a run after its process has ended: `finished`, `stopped` or `failed`, and its last message.

    Args:
        run: The run.
        code: Exit code of its process.
        logged: Bytes of its `log.txt` that are of earlier processes.
    """
    if finished(run):
        return "finished", ""
    if code in (*(128 + n for n in STOPPING), *(-n for n in STOPPING)):  # the latter: before it could listen
        return "stopped", ""
    rows = [row.decode(errors="replace") for row in _last_rows(run.path / "log.txt", logged) if row.strip()]
    said = next((row for row in reversed(rows) if row.startswith("omad: ")), rows[-1] if rows else "")
    how = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
    words = f"{how}: {said.removeprefix('omad: ')}" if said else how
    with contextlib.suppress(UserError):  # which it has then said itself
        if run.ended is None and not run.busy(run.path):  # it could not write that down itself
            run.note_end(Ended("broken", words))
    return "failed", words


LAUNCHED = "OMAD_LAUNCHED"
"""Environment variable of a run's process: that all runs at a time fit into memory was looked at before."""

_CHILD = """
import sys
from omad.processes import keep_to_cores, stop_with
parent, cores, folder = int(sys.argv[1]), map(int, sys.argv[2].split(",")), sys.argv[3]
keep_to_cores(0, cores)
stop_with(parent)
from omad.cli import main
sys.exit(main(["resume", folder, "--trust"]))
"""
"""What a run's process does: keep to its cores, save and end should the launching process die, resume the run.

Whoever launches has seen to it that the user named the run's env himself, or trusts its folder."""


class Started(NamedTuple):
    """The process of a run."""

    process: subprocess.Popen[bytes]
    logged: int
    """Bytes of the run's `log.txt` before it."""


def begin(folder: Path, cores: set[int]) -> Started:
    """Start the process of a run on some cores; it saves and ends when this process dies."""
    _await_writer(folder)
    words = [sys.executable, "-P", "-c", _CHILD, str(os.getpid()), ",".join(map(str, cores)), str(folder)]
    with os.fdopen(files.open_append(folder / "log.txt", folder), "ab") as log:
        logged = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env={SHARED: "false"} | os.environ | inherited() | {LAUNCHED: "1"},
        )  # fmt: skip
    return Started(process, logged)


def _await_writer(folder: Path) -> None:
    """Wait until no other process writes to a folder, for a while; then its own process will refuse in words."""
    for _ in range(round(_PATIENCE_S / _POLL_S)):
        if not RunFolder.busy(folder):
            return
        time.sleep(_POLL_S)
