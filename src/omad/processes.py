"""Signals, pipes and processes: how a process is asked to stop, what ends with it, and which cores it uses.

What only Linux has (affinity to cores, a signal when the parent dies) is used here alone, and replaced elsewhere.
"""

from __future__ import annotations

import contextlib
import contextvars
import errno
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any

from omad import cgroups
from omad.errors import Stopped, UserError

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a run to save and end."""
WORKER = "OMAD_WORKER"
"""Environment variable that marks a process which only runs an env, and all that it starts."""
_AGAIN_S = 1.0
"""One Ctrl-C may arrive twice, from the terminal and from a wrapper such as `timeout`; a later one is a second one."""


# ---------------------------------------------------------------- stopping


def interruption(number: int) -> BaseException:
    """What a process that is to stop raises: `KeyboardInterrupt` for SIGINT, else `Stopped`, a `SystemExit`."""
    return KeyboardInterrupt() if number == signal.SIGINT else Stopped(128 + number)


_innermost: StopSignals | None = None


class StopSignals:
    """Notes the first SIGINT, SIGTERM or SIGHUP while it is entered; the handlers from before come back after it.

    A second SIGINT raises `KeyboardInterrupt`. Signals that are ignored (nohup) stay ignored. Other threads than the
    main one cannot handle signals, so there nothing happens.

    Args:
        raising: Raise `interruption` at once instead, as long as nothing has to be saved. While a module is imported,
            it is raised right after: extension modules whose start is interrupted may abort the process.
    """

    def __init__(self, raising: bool = False) -> None:
        self.number: int | None = None
        """The signal that came first; also one that the surrounding `StopSignals` has noted."""
        self.again = False
        """Whether a second SIGINT has interrupted what was going on."""
        self._raising = raising
        self._depth = 0
        self._before: dict[int, Any] = {}
        self._outer: StopSignals | None = None
        self._last = -_AGAIN_S
        self._entered: FrameType | None = None

    def note(self, number: int) -> None:
        """Take this as a signal that came."""
        self.number = self.number or number

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        first = self.number is None
        self.note(number)
        if self._raising and self._importing(frame):
            later = threading.Timer(0.05, os.kill, (os.getpid(), number))
            later.daemon = True
            later.start()
        elif self._raising:
            if first or now - self._last > _AGAIN_S:
                self._last = now
                raise interruption(number)
        elif number == signal.SIGINT:
            before, self._last = self._last, now
            if before >= 0 and now - before > _AGAIN_S:
                self.again = True
                raise KeyboardInterrupt

    def _importing(self, frame: FrameType | None) -> bool:
        """Whether an import that began inside of this is going on."""
        while frame is not None and frame is not self._entered:
            if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
                return True
            frame = frame.f_back
        return False

    def __enter__(self) -> StopSignals:
        global _innermost
        self._depth += 1
        if self._depth > 1 or threading.current_thread() is not threading.main_thread():
            return self
        self._entered = sys._getframe(1)
        self._outer, _innermost = _innermost, self
        if self._outer is not None and self._outer.number is not None:
            self.note(self._outer.number)
        for number in STOPPING:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        global _innermost
        self._depth -= 1
        if self._depth or threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
        self._entered = None
        _innermost, self._outer = self._outer, None


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Finish what is inside before a signal is handled."""
    signals = StopSignals()
    with signals:
        known = signals.number
        yield
    if signals.number is not None and known is None:
        signal.raise_signal(signals.number)


class _ReaderGone(BrokenPipeError):
    """Of `Output`."""


class Output:
    """A stream whose reader may go away: that is one `BrokenPipeError`, and what is written later is dropped.

    A terminal that has been closed counts as well. In another thread than the main one nothing is raised there; the
    main thread hears of it when it writes next.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._gone = self._said = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, call: Any, *arguments: Any) -> Any:
        if not self._gone:
            try:
                return call(*arguments)
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EIO):
                    raise
                self._gone = True
                silence(self._stream)
        if not self._said and threading.current_thread() is threading.main_thread():
            self._said = True
            raise _ReaderGone(errno.EPIPE, os.strerror(errno.EPIPE))
        return None

    def write(self, text: str) -> int:
        """Write, or drop."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        self._try(self._stream.flush)


def nobody_reads(error: BaseException) -> bool:
    """Whether an error says that whoever read what this process prints has gone, as at the end of `| head`.

    Any other pipe, such as one to a service, may break with the same error.
    """
    if not isinstance(error, BrokenPipeError) or isinstance(error, _ReaderGone):
        return isinstance(error, _ReaderGone)
    for stream in (sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            writable = select.poll()
            writable.register(stream.fileno(), select.POLLOUT)  # pyright: ignore[reportOptionalMemberAccess]
            if any(found & (select.POLLERR | select.POLLHUP) for _, found in writable.poll(0)):
                return True
    return False


def silence(stream: Any) -> None:
    """Send what is still written to a stream nowhere, so that no later flush of it fails."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def descriptor(stream: Any) -> int | None:
    """A stream's number for processes that are to write to it; None where it has none, as in a notebook."""
    try:
        return stream.fileno()
    except (AttributeError, OSError, ValueError):
        return None


class Patience:
    """A time to wait in which only this process's own time counts: not while it was stopped or paused.

    Wait in slices of `slice_s` and `spend` each that was in vain.
    """

    def __init__(self, limit_s: float, longest_slice_s: float = 0.5) -> None:
        self.left_s, self._longest_s = limit_s, longest_slice_s

    @property
    def slice_s(self) -> float:
        """How long to wait next; 0 once time is up."""
        return max(0.0, min(self._longest_s, self.left_s))

    def spend(self) -> None:
        """A slice has passed, however long it took."""
        self.left_s -= self.slice_s


# ---------------------------------------------------------------- env code

_in_env_code: contextvars.ContextVar[bool] = contextvars.ContextVar("in_env_code", default=False)


@contextlib.contextmanager
def env_code() -> Iterator[None]:
    """An env's module is imported inside: training must not be asked for."""
    token = _in_env_code.set(True)
    try:
        yield
    finally:
        _in_env_code.reset(token)


def refuse_inside_env() -> None:
    """Refuse to train while an env's module is imported, or in a process that only runs an env.

    Raises:
        UserError: A script that trains without a main guard is imported for its env.
    """
    if _in_env_code.get() or os.environ.get(WORKER):
        raise UserError(
            "Training was asked for while the module of an env is being imported, which every env process does; put "
            'what trains under `if __name__ == "__main__":` in that script.'
        )


# ---------------------------------------------------------------- worker processes


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """A process that is started inside begins with the stop signals blocked, until it has chosen what to do."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def outlive_signals() -> None:
    """Do nothing on stop signals: the parent decides. Processes that are started or forked from here end as usual."""
    for number in STOPPING:
        signal.signal(number, _do_nothing)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def _do_nothing(number: int, frame: Any) -> None:
    del number, frame


def _as_usual() -> None:
    for number in STOPPING:
        if signal.getsignal(number) is _do_nothing:
            signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_as_usual)


def descendants(pid: int) -> list[Any]:
    """Processes below one, as far as they are still known."""
    import psutil

    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def end_family(pid: int, below: list[Any] | None = None) -> None:
    """Kill a process that leads its own group, its whole group, and its descendants in other groups.

    Args:
        pid: Of the process, ended or not.
        below: Its descendants, if they were asked for before it ended.
    """
    import psutil

    for process in descendants(pid) if below is None else below:
        with contextlib.suppress(psutil.Error):  # it checks that the number has not gone to another process
            process.kill()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def end_with(parent: int, pipe: int) -> None:
    """Kill this process and its family soon after its parent has gone, also in the middle of a step.

    Args:
        parent: Process id.
        pipe: Its other end is open in the parent, so it wakes this when the parent ends.
    """
    gone = select.poll()
    gone.register(pipe, 0)
    while os.getppid() == parent:
        if gone.poll(1000):  # hung up: the parent has ended, or it closes this worker in its own time
            time.sleep(0.05)
    end_family(os.getpid())
    os._exit(0)


def stop_with(parent: int) -> None:
    """Ask this process to stop (SIGTERM) when its parent ends; at once if it has ended.

    Linux sends the signal itself. Elsewhere a thread looks twice a second.

    Args:
        parent: Process id.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


# ---------------------------------------------------------------- cores


def available_cores() -> list[int]:
    """The cores that this process may use; all of the machine's where the system has no affinity (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores_at_once() -> int:
    """How many processes can compute at a time: one a core, or fewer where a container has a smaller share."""
    cores, share = len(available_cores()), cgroups.core_share()
    return cores if share is None else max(1, min(cores, math.ceil(share)))


def keep_to_cores(pid: int, chosen: Iterable[int]) -> None:
    """Let a process run on these cores only; nothing happens where the system has no affinity (macOS).

    Args:
        pid: Of the process; 0 for this one.
        chosen: Numbers of cores, as `available_cores` gives them.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, set(chosen))
