"""Runs as tasks on a Ray cluster, whose machines must all see the run folders.

A task does what the local launcher does for a run: one process with `omad resume FOLDER`. When a worker or a machine
dies, Ray starts the task again elsewhere, and the run continues from its newest checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omad import files
from omad.extras import require
from omad.launch import OnUpdate, State, as_begun, begin, finished, state_of, verdict
from omad.processes import available_cores
from omad.run.folder import RunFolder

_RETRIES = 20
"""Times that Ray starts a task whose worker has died."""
_AGAIN = 3
"""Times that a run is continued which a signal from elsewhere has stopped before it came any further."""
_POLL_S = 0.5


@contextlib.contextmanager
def _cores(count: float) -> Iterator[set[int]]:
    """Cores of this machine that no other run on it keeps to, as long as this is entered.

    Ray counts cores but hands none out, and every run would compute on all of them. Where too few are left, or less
    than a core is asked for, these are all that this process may use.
    """
    own, wanted, kept = available_cores(), math.ceil(count), set[int]()
    folder = Path(tempfile.gettempdir()) / f"omad-cores-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with contextlib.ExitStack() as held:
        mine = folder.lstat().st_uid == os.getuid()  # anybody may have made it, or a link, where all may write
        for core in own if mine and count >= 1 else ():
            if len(kept) == wanted or files.is_locked(folder / str(core), folder):
                continue
            if (claim := files.lock(folder / str(core), folder)) is not None:
                held.callback(os.close, claim)
                kept.add(core)
        if len(kept) < wanted:
            held.close()
        yield kept if len(kept) == wanted else set(own)


def _task(folder: str, cores: float) -> tuple[str, str]:
    """Go on with a run until its process ends; runs inside a Ray worker."""
    run = RunFolder.open(folder)
    with _cores(cores) as kept:
        process, logged = begin(run.path, as_begun(run, kept))
        try:
            while True:
                try:
                    if (code := process.poll()) is not None:
                        return verdict(run, code, logged)
                    time.sleep(_POLL_S)  # not process.wait(), which a cancellation does not interrupt
                except KeyboardInterrupt:  # the task is cancelled: let the run save
                    process.terminate()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def connect() -> Any:
    """Ray, connected to a cluster or to one of this machine's own; the connection ends with this process.

    Ray starts processes by forking, which JAX warns of once it computes, so call this first where both are used.

    Raises:
        UserError: Ray is not installed.
    """
    require("cluster", "--launcher ray")
    ray: Any = importlib.import_module("ray")
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)
    return ray


def on_ray(
    folders: Sequence[Path],
    resources: Mapping[str, float],
    on_update: OnUpdate,
    stop: Callable[[], bool] = lambda: False,
) -> list[State]:
    """Run on the cluster that this process is connected to, or on a local one.

    Args:
        folders: Run folders, begun or not, in the order in which to take them.
        resources: `num_cpus` and `num_gpus` that a run takes up.
        on_update: Called twice a second with the states of all runs.
        stop: Called as often; once it is true, running processes save and end, and nothing is started.

    Returns:
        The last state of every run.

    Raises:
        UserError: Ray is not installed.
    """
    ray = connect()
    runs = [RunFolder.open(folder.resolve()) for folder in folders]
    states = [state_of(run, "finished" if finished(run) else "waiting") for run in runs]
    remote: Any = ray.remote(max_retries=_RETRIES, **resources)(_task)
    start = functools.partial(remote.remote, cores=resources["num_cpus"])
    open_ = {i: start(str(run.path)) for i, run in enumerate(runs) if states[i].state != "finished"}
    left = {i: (_AGAIN, states[i].env_steps) for i in open_}
    stopping = False
    while open_:
        if not stopping and stop():
            stopping = True
            for task in open_.values():
                ray.cancel(task, recursive=False)
        want = _want(ray, resources) if any(state.state == "waiting" for state in states) else ""
        ready, _ = ray.wait(list(open_.values()), num_returns=len(open_), timeout=_POLL_S)
        for i, task in list(open_.items()):
            if task in ready:
                states[i] = state_of(runs[i], *_ended(ray, task))
                del open_[i]
                if states[i].state == "stopped" and not stopping and left[i][0]:  # its machine is shut down
                    again, step = left[i]
                    moved = states[i].env_steps > step
                    left[i] = _AGAIN if moved else again - 1, states[i].env_steps
                    open_[i] = start(str(runs[i].path))
            else:
                busy = RunFolder.busy(runs[i].path)
                states[i] = state_of(runs[i], "running") if busy else state_of(runs[i], "waiting", want)
        on_update(states)
    return states


def _want(ray: Any, resources: Mapping[str, float]) -> str:
    """What no machine of the cluster has as much of as a run takes up, in words; empty if one has all.

    Such a run waits, for machines may join.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = {"CPU": resources["num_cpus"], "GPU": resources["num_gpus"]}
    if any(all(machine.get(kind, 0.0) >= count for kind, count in asked.items()) for machine in machines):
        return ""
    largest = ", ".join(f"{max((m.get(kind, 0.0) for m in machines), default=0.0):g} {kind}" for kind in asked)
    wanted = ", ".join(f"{count:g} {kind}" for kind, count in asked.items())
    return f"no machine of the cluster has what a run takes up ({wanted}; at most {largest}); it waits for one"


def _ended(ray: Any, task: Any) -> tuple[str, str]:
    """The state and message of a task that has ended."""
    try:
        return ray.get(task)
    except ray.exceptions.TaskCancelledError:
        return "stopped", ""
    except ray.exceptions.RayError as error:
        return "failed", f"Ray gave up on it: {str(error).splitlines()[0]}"
