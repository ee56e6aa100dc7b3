"""A worker process: steps its share of the envs of a run. Started by `omad.envs.pool`, never by hand.

Two pipes carry frames: a kind, a number, a length, and that many bytes. Requests are `reset`, `step`, `save`,
`load`, `exit`; answers are `done` with arrays of known shapes one after another, or `failed` with what happened as
JSON. Only plain numbers travel. JAX is not imported unless an env does so.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import pkgutil
import select
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from omad import processes
from omad.envs.contract import Broken, checked_result, numbers_of, place_of, said_by, saved, write_seen
from omad.envs.host_env import EnvInstance, HostEnv
from omad.spec import EnvSpec

_HEADER = struct.Struct("<BqQ")
RESET, STEP, SAVE, LOAD, EXIT, DONE, FAILED = range(7)
LINGER_S = 3e-4
"""How long to stay awake for the next request: waking a core that sleeps costs a tenth of a step of the physics."""


class Frame(NamedTuple):
    """One message."""

    kind: int
    number: int
    """Of a request, the vector step; of an answer, what the request said."""
    body: bytes


Wait = Callable[[], Any]
"""Returns when a pipe that does not block may be used again."""


def _give_up() -> None:
    raise BlockingIOError


def send(pipe: int, kind: int, number: int, *parts: np.ndarray | bytes, wait: Wait = _give_up) -> None:
    """Write one frame."""
    body = b"".join(part if isinstance(part, bytes) else part.tobytes() for part in parts)
    view = memoryview(_HEADER.pack(kind, number, len(body)) + body)
    while view:
        try:
            view = view[os.write(pipe, view) :]
        except BlockingIOError:
            wait()


def _exactly(pipe: int, size: int, wait: Wait) -> bytes:
    data = bytearray()
    while len(data) < size:
        try:
            piece = os.read(pipe, size - len(data))
        except BlockingIOError:
            wait()
            continue
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def receive(pipe: int, wait: Wait = _give_up) -> Frame:
    """Read one frame.

    Raises:
        EOFError: The other side has gone.
    """
    kind, number, size = _HEADER.unpack(_exactly(pipe, _HEADER.size, wait))
    return Frame(kind, number, _exactly(pipe, size, wait))


class _Stop(Exception):
    """An env cannot continue; args are the index of the env and what happened."""


def _complaints(spec: EnvSpec, stepped: bool) -> list[str]:
    """What to say of each number of an answer's row if it is not finite."""

    def seen(what: str) -> list[str]:
        sizes = (("an observation", spec.n_agents * spec.obs_dim), ("a state", spec.state_dim))
        return [f"{what} returned {name} that is not finite" for name, size in sizes for _ in range(size)]

    if not stepped:
        return seen("reset()")
    numbers = [f"step() returned the {name} {{}}" for name in numbers_of(spec.info_keys)]
    return [*seen("step()"), *numbers, *seen("reset()")]


def _checked(table: np.ndarray, spec: EnvSpec, first: int, stepped: bool) -> np.ndarray:
    """The rows, looked through at once, for that is ten times as fast as one by one.

    Raises:
        _Stop: A number is not finite in single precision.
    """
    good = np.isfinite(table)
    if not good.all():
        env = int(np.argmin(good.all(1)))
        place = int(np.argmin(good[env]))
        raise _Stop(first + env, _complaints(spec, stepped)[place].format(table[env, place]))
    return table


def _advance(
    instance: EnvInstance, action: np.ndarray, seed: int, reset_seed: int, row: np.ndarray, spec: EnvSpec, seen: int
) -> None:
    """Step one env and write its part of the answer; the successor first, for a reset may use its memory again.

    Raises:
        Broken: What it returned cannot be used.
    """
    moved = instance.step(action, seed)
    numbers = checked_result(moved, spec.info_keys)
    write_seen(row[:seen], moved.next, spec.obs_dims, spec.state_dim, "step()")
    row[seen : seen + len(numbers)] = numbers
    if any(numbers[1:3]):
        _begin(instance, reset_seed, row[row.size - seen :], spec)
    else:
        row[row.size - seen :] = row[:seen]


def _begin(instance: EnvInstance, seed: int, row: np.ndarray, spec: EnvSpec) -> None:
    """Reset one env and write its observation; raises as `_advance`."""
    write_seen(row, instance.reset(seed), spec.obs_dims, spec.state_dim, "reset()")


def serve(instances: list[EnvInstance], spec: EnvSpec, first: int, request: Frame) -> list[np.ndarray | bytes]:
    """The answer to one request.

    Raises:
        _Stop: An env raised something, or returned numbers that cannot be used.
    """
    n, seen = len(instances), spec.seen_size
    if request.kind == RESET:
        seeds = np.frombuffer(request.body, np.uint64)
        table = np.empty((n, seen), np.float32)
        with np.errstate(over="ignore"):  # what single precision cannot hold becomes infinite and is found below
            for i, (instance, seed) in enumerate(zip(instances, seeds, strict=True)):
                _guarded(first + i, _begin, instance, int(seed), table[i], spec)
        return [_checked(table, spec, first, stepped=False)]
    if request.kind == STEP:
        shape = n, spec.n_agents, spec.act_dim
        split = math.prod(shape) * 4
        actions = np.frombuffer(request.body[:split], np.float32).reshape(shape).astype(float)
        seeds = np.frombuffer(request.body[split:], np.uint64).reshape(2, n)
        table = np.empty((n, spec.row_size), np.float32)
        with np.errstate(over="ignore"):
            for i, one in enumerate(instances):
                asked = actions[i], int(seeds[0, i]), int(seeds[1, i])
                _guarded(first + i, _advance, one, *asked, table[i], spec, seen)
        return [_checked(table, spec, first, stepped=True)]
    if request.kind == SAVE:
        states = [_guarded(first + i, saved, instance) for i, instance in enumerate(instances)]
        return [np.asarray([len(data) for data in states], np.int64), *states]
    if request.kind == LOAD:
        table = np.frombuffer(request.body, np.uint8).reshape(n, -1)
        for i, (instance, row) in enumerate(zip(instances, table, strict=True)):
            _guarded(first + i, instance.load, row)
        return []
    raise _Stop(first, f"an unknown request {request.kind} came")


def _guarded(env: int, call: Any, *arguments: Any) -> Any:
    """Whatever an env raises is reported to the parent, with the place it came from."""
    try:
        return call(*arguments)
    except Broken as error:
        raise _Stop(env, str(error)) from error
    except SystemExit as error:
        raise _Stop(env, f"it tried to end the process with sys.exit({error.code!r}) ({place_of(error)})") from error
    except BaseException as error:  # no signal raises anything here
        raise _Stop(env, f"{said_by(error)} ({place_of(error)})") from error


def _close(pipe: int) -> None:
    with contextlib.suppress(OSError):
        os.close(pipe)


def _awaited(pipe: int, asked: Any) -> Frame:
    """The next request. While it may come at once, stay awake and let others run; then sleep."""
    end = time.monotonic() + LINGER_S
    while not asked.poll(0) and time.monotonic() < end:
        os.sched_yield()
    return receive(pipe)


def main() -> None:
    """Serve until the parent goes. Arguments: its process id and the two pipes, as numbers."""
    parent, inward, outward = map(int, sys.argv[1:])
    processes.outlive_signals()
    threading.Thread(target=processes.end_with, args=(parent, inward), daemon=True).start()
    for pipe in (inward, outward):  # neither for what the env starts, nor for what it forks
        os.set_inheritable(pipe, False)
        os.register_at_fork(after_in_child=functools.partial(_close, pipe))
    first = 0
    number = 0
    try:
        order = json.loads(receive(inward).body)
        first = order["first"]
        env: HostEnv = _guarded(first, lambda: pkgutil.resolve_name(order["factory"])(**order["arguments"]))
        instances = [_guarded(first + i, lambda: env.create(False)) for i in range(order["count"])]
        processes.outlive_signals()  # again, for what was imported may handle them
        send(outward, DONE, 0)
        asked = select.poll()
        asked.register(inward, select.POLLIN)
        while (request := _awaited(inward, asked)).kind != EXIT:
            number = request.number
            send(outward, DONE, number, *serve(instances, env.spec, first, request))
        for instance in instances:
            instance.close()
    except (EOFError, BrokenPipeError):
        processes.end_family(os.getpid())  # the parent has gone, and cannot do that
    except _Stop as stop:
        with contextlib.suppress(BrokenPipeError):  # the parent may know of another failure already
            send(outward, FAILED, number, json.dumps({"env": stop.args[0], "what": stop.args[1]}).encode())


if __name__ == "__main__":
    main()
