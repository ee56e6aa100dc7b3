"""Runs as tasks on a Ray cluster, whose machines must all see the run folders.

A task does what the local launcher does for a run: one process with `omad resume FOLDER`. When a worker or a machine
dies, Ray starts the task again elsewhere, and the run continues from its newest checkpoint.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omad.extras import require
from omad.launch import OnUpdate, State, begin, finished, state_of, verdict
from omad.processes import available_cores
from omad.run.folder import RunFolder

__all__ = ["on_ray"]

_RETRIES = 20
"""Times that Ray starts a task whose worker has died."""
_AGAIN = 3
"""Times that a run is continued which a signal from elsewhere has stopped before it came any further."""
_POLL_S = 0.5


def _task(folder: str) -> tuple[str, str]:
    """Go on with a run until its process ends; runs inside a Ray worker."""
    process, logged = begin(Path(folder), set(available_cores()))
    try:
        while True:
            try:
                if (code := process.poll()) is not None:
                    return verdict(RunFolder.open(folder), code, logged)
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
    open_ = {i: remote.remote(str(run.path)) for i, run in enumerate(runs) if states[i].state != "finished"}
    left = {i: (_AGAIN, states[i].env_steps) for i in open_}
    stopping = False
    while open_:
        if not stopping and stop():
            stopping = True
            for task in open_.values():
                ray.cancel(task, recursive=False)
        ready, _ = ray.wait(list(open_.values()), num_returns=len(open_), timeout=_POLL_S)
        for i, task in list(open_.items()):
            if task in ready:
                states[i] = state_of(runs[i], *_ended(ray, task))
                del open_[i]
                if states[i].state == "stopped" and not stopping and left[i][0]:  # its machine is shut down
                    again, step = left[i]
                    moved = states[i].env_steps > step
                    left[i] = _AGAIN if moved else again - 1, states[i].env_steps
                    open_[i] = remote.remote(str(runs[i].path))
            else:
                states[i] = state_of(runs[i], "running" if RunFolder.busy(runs[i].path) else "waiting")
        on_update(states)
    return states


def _ended(ray: Any, task: Any) -> tuple[str, str]:
    """The state and message of a task that has ended."""
    try:
        return ray.get(task)
    except ray.exceptions.TaskCancelledError:
        return "stopped", ""
    except ray.exceptions.RayError as error:
        return "failed", f"Ray gave up on it: {str(error).splitlines()[0]}"
