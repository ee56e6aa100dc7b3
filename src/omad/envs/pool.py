"""A vector of envs of one task, stepped in parallel by worker processes.

Processes, because most envs hold Python's lock while they step, and because a process that hangs or dies can be
named and ended, which a thread cannot. Stepping is split in `send` and `receive`, so that the caller's device computes
meanwhile.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from omad import processes, tasks
from omad.envs import worker
from omad.envs.description import describe_spec
from omad.errors import EnvFailed, UnevenSaves
from omad.spec import EnvSpec


class PoolStep(NamedTuple):
    """Results of one step of all envs, single precision; the leading axis is the env."""

    next_obs: np.ndarray
    next_state: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    info: dict[str, np.ndarray]
    obs: np.ndarray
    """What to act on next: the successor, or the first observation of the next episode."""
    state: np.ndarray
    table: np.ndarray
    """All of these, `(env, number)`, as the workers answered: see `loop.packing.Layout`."""


def seeds_of(words: Any) -> np.ndarray:
    """Pairs of 32-bit words, as random keys are made of, as 64-bit seeds, flat."""
    return np.ascontiguousarray(words, np.uint32).reshape(-1, 2).view(np.uint64).ravel()


def worker_count(n_envs: int, n_workers: int = 0, cores: int = 0) -> int:
    """Processes for a number of envs: as given, else one a core; never more than envs."""
    return max(1, min(n_envs, n_workers or cores or processes.cores_at_once()))


MOST_ALONE = 16
"""Processes at most that are started so that each instance of a user's env has its own."""


class _Worker(NamedTuple):
    process: subprocess.Popen[bytes]
    to: int
    back: int
    answer: select.poll
    """Waits for something to read there."""
    room: select.poll
    """Waits until more can be written."""
    first: int
    size: int


class Pool:
    """Running envs.

    Args:
        factory: `module:function` that gives a `HostEnv`.
        arguments: Its keyword arguments; plain values.
        spec: Sizes of the task.
        n_envs: How many.
        workers: Processes; 0 for one a core.
        timeout_s: A worker that takes longer for one answer is taken to hang.

    Raises:
        EnvFailed: An env cannot be created.
    """

    def __init__(
        self,
        factory: str,
        arguments: Mapping[str, Any],
        spec: EnvSpec,
        n_envs: int,
        workers: int = 0,
        timeout_s: float = 60.0,
    ) -> None:
        self.spec, self.n_envs, self.timeout_s = spec, n_envs, timeout_s
        self._workers: list[_Worker] = []
        self._waiting = 0
        bounds = np.linspace(0, n_envs, worker_count(n_envs, workers) + 1).round().astype(int)
        # The kernel likes to wake a worker on the core that this process runs on, and two of them then share it while
        # another core idles. With fewer workers than cores that does not happen, and other runs may use the same cores.
        cpus = processes.available_cores()
        try:
            for first, last in itertools.pairwise(bounds):
                order = {"factory": factory, "arguments": dict(arguments), "first": int(first)}
                cpu = cpus[len(self._workers) % len(cpus)] if len(cpus) < len(bounds) else None
                self._start(order | {"count": int(last - first)}, factory.startswith("omad.envs.mamujoco:"), cpu)
            self._gather(0)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def of(task: str, spec: EnvSpec, n_envs: int, workers: int = 0, timeout_s: float = 60.0) -> Pool:
        """Envs of a task of the table."""
        row = tasks.find(task)
        given = {**row.arguments, "description": describe_spec(spec)} if row.isolated else row.arguments
        return Pool(row.factory, given, spec, n_envs, Pool.processes(task, n_envs, workers), timeout_s)

    @staticmethod
    def processes(task: str, n_envs: int, workers: int = 0, cores: int = 0) -> int:
        """How many processes step that many envs of a task, on all cores or as many as are given."""
        # A user's envs may disturb each other in one process, so each has its own unless `workers` is given.
        alone = min(n_envs, MOST_ALONE) if tasks.find(task).isolated else 0
        return worker_count(n_envs, workers or alone, cores)

    def _start(self, order: dict[str, Any], quiet: bool, cpu: int | None) -> None:
        there, to = os.pipe()
        back, here = os.pipe()
        paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
        # Workers compute one env step at a time: threads of their own would only fight over the cores.
        environment = os.environ | {
            "PYTHONPATH": paths,
            "PYTHONSAFEPATH": "1",  # never import from the working directory just because it is that
            "OMP_NUM_THREADS": "1",
            "JAX_PLATFORMS": "cpu",
            processes.WORKER: "1",
        }
        with processes.blocked():
            process = subprocess.Popen(
                [sys.executable, "-m", "omad.envs.worker", str(os.getpid()), str(there), str(here)],
                pass_fds=(there, here),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if quiet else processes.descriptor(sys.stderr),
                stderr=subprocess.DEVNULL if quiet else None,
                cwd=tempfile.gettempdir() if quiet else None,  # MuJoCo logs into the working directory
                env=environment,
                start_new_session=True,  # signals to this process's group are not for it, and all of its own group ends
            )
        if cpu is not None:
            processes.keep_to_cores(process.pid, [cpu])
        os.close(there)
        os.close(here)
        for pipe in (to, back):  # it may stop, or die while something that it forked keeps the pipes open
            os.set_blocking(pipe, False)
        answer, room = select.poll(), select.poll()
        answer.register(back, select.POLLIN)
        room.register(to, select.POLLOUT)
        one = _Worker(process, to, back, answer, room, order["first"], order["count"])
        self._workers.append(one)
        self._ask(one, worker.RESET, 0, json.dumps(order).encode())

    # ------------------------------------------------------------ requests

    def _ask(self, one: _Worker, kind: int, number: int, *parts: np.ndarray | bytes) -> None:
        patience = processes.Patience(self.timeout_s)
        try:
            worker.send(one.to, kind, number, *parts, wait=lambda: self._wait(one, one.room, patience, number))
        except OSError:
            raise self._gone(one, number) from None
        self._waiting += 1

    def _wait(self, one: _Worker, ready: Any, patience: processes.Patience, number: int) -> None:
        """Wait until a worker's pipe can be used; while the worker itself is stopped, time does not count.

        Raises:
            EnvFailed: It hangs, or has died.
        """
        while not ready.poll(patience.slice_s * 1000):
            if one.process.poll() is not None:
                if ready.poll(0):
                    return
                raise self._gone(one, number)
            if not _stopped(one.process.pid):
                patience.spend()
            if not patience.slice_s:
                raise EnvFailed(
                    f"{self.spec.name}: {_name(one)} did not answer within {self.timeout_s:g} s at vector step "
                    f"{number}; it hangs, or --env-timeout is too short."
                )

    def _gather(self, number: int) -> list[bytes]:
        """The answers of all workers, in order; only those that have been asked."""
        answers: list[bytes] = []
        patience = processes.Patience(self.timeout_s)
        # One after another, for every wait for whoever comes first would wake this process once more.
        for one in self._workers:
            self._wait(one, one.answer, patience, number)
            try:
                frame = worker.receive(one.back, lambda one=one: self._wait(one, one.answer, patience, number))
            except (EOFError, OSError):
                raise self._gone(one, number) from None
            if frame.kind == worker.FAILED:
                failure = json.loads(frame.body)
                where = f"env {failure['env']} failed at vector step {number}"
                raise EnvFailed(f"{self.spec.name}: {where}: {failure['what']}.")
            answers.append(frame.body)
            self._waiting -= 1
        return answers

    def _gone(self, one: _Worker, number: int) -> EnvFailed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            one.process.wait(1.0)
        code = one.process.poll()
        how = f"killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        return EnvFailed(f"{self.spec.name}: {_name(one)} died at vector step {number} ({how}).")

    def reset(self, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Begin an episode everywhere: `(env, agent, obs)` and `(env, state)`."""
        for one in self._workers:
            self._ask(one, worker.RESET, 0, seeds[one.first : one.first + one.size].astype(np.uint64))
        seen = self.spec.seen_size
        return self._seen(np.concatenate([np.frombuffer(a, np.float32).reshape(-1, seen) for a in self._gather(0)]))

    def _seen(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        agents, obs = self.spec.n_agents, self.spec.obs_dim
        return rows[:, : agents * obs].reshape(-1, agents, obs), rows[:, agents * obs :]

    def send(self, actions: np.ndarray, seeds: np.ndarray, reset_seeds: np.ndarray, number: int) -> None:
        """Ask for one step.

        Args:
            actions: `(env, agent, act)` in [-1, 1].
            seeds: `(env,)` 64-bit seeds of this step's own draws.
            reset_seeds: `(env,)` seeds of the next episodes, used where one ends now.
            number: Vector step, for messages.
        """
        parts = np.asarray(actions, np.float32), np.asarray(seeds, np.uint64), np.asarray(reset_seeds, np.uint64)
        for one in self._workers:
            mine = slice(one.first, one.first + one.size)
            self._ask(one, worker.STEP, number, *(part[mine] for part in parts))

    def receive(self, number: int) -> PoolStep:
        """Wait for the step that was asked for.

        Raises:
            EnvFailed: A worker hangs or has died, or an env raised or returned unusable numbers; it is named.
        """
        seen, row = self.spec.seen_size, self.spec.row_size
        rows = np.concatenate([np.frombuffer(a, np.float32).reshape(-1, row) for a in self._gather(number)])
        numbers = rows[:, seen : -seen or None]
        return PoolStep(
            *self._seen(rows[:, :seen]),
            numbers[:, 0],
            numbers[:, 1] > 0,
            numbers[:, 2] > 0,
            {key: numbers[:, 3 + i] for i, key in enumerate(self.spec.info_keys)},
            *self._seen(rows[:, -seen:]),
            rows,
        )

    def save(self, number: int) -> np.ndarray:
        """Bytes of every env, `(env, byte)`; no bytes where an env cannot save."""
        for one in self._workers:
            self._ask(one, worker.SAVE, number)
        table, sizes = [], set()
        for one, answer in zip(self._workers, self._gather(number), strict=True):
            lengths = np.frombuffer(answer[: 8 * one.size], np.int64)
            sizes |= set(lengths.tolist())
            table.append(answer[8 * one.size :])
        if len(sizes) > 1:
            raise UnevenSaves(
                f"{self.spec.name}: save() returned {sorted(sizes)} bytes at vector step {number}; every save must be "
                "of the same length."
            )
        return np.frombuffer(b"".join(table), np.uint8).reshape(self.n_envs, -1)

    def load(self, table: np.ndarray, number: int) -> None:
        """Go on from what `save` returned."""
        for one in self._workers:
            self._ask(one, worker.LOAD, number, np.ascontiguousarray(table[one.first : one.first + one.size]))
        self._gather(number)

    def close(self) -> None:
        """End all workers and whatever they have started; those that do not listen are killed."""
        families = [processes.descendants(one.process.pid) for one in self._workers]
        for one in self._workers:
            with contextlib.suppress(OSError):
                worker.send(one.to, worker.EXIT, 0)
        for one in self._workers:
            for pipe in (one.to, one.back):
                with contextlib.suppress(OSError):
                    os.close(pipe)
        end = time.monotonic() + (2.0 if self._waiting == 0 else 0.1)
        for one, family in zip(self._workers, families, strict=True):
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.process.wait(max(0.05, end - time.monotonic()))
            processes.end_family(one.process.pid, family)
            one.process.wait()
        self._workers.clear()


def _stopped(pid: int) -> bool:
    """Whether a process is stopped, as by SIGSTOP."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def _name(one: _Worker) -> str:
    last = one.first + one.size - 1
    return f"env {one.first}" if one.size == 1 else f"one of envs {one.first} to {last}"
