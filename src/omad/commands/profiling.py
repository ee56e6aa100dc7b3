"""Where the time of a training loop goes: the operations of its compiled programs, under the profiler, by part."""

from __future__ import annotations

import collections
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

PARTS = ("acting", "env", "sampling", "target", "critic", "policy", "optimiser", "records")
"""Scopes that loop and algorithms name; an operation belongs to the innermost one that it stands in."""
_NAMED = re.compile(r'%([\w.\-]+) = .*metadata=\{[^}]*op_name="([^"]*)"')
_SCOPE = re.compile(rf"\b({'|'.join(PARTS)})\b")


def part_of(path: str) -> str:
    """The innermost scope in the name of an operation."""
    found = _SCOPE.findall(path)
    return found[-1] if found else "other"


def _programs() -> dict[str, list[dict[str, str]]]:
    """Module -> for each compiled program of that name, operation -> the part it belongs to."""
    found = collections.defaultdict[str, list[dict[str, str]]](list)
    for executable in jax.local_devices()[0].client.live_executables():
        for module in executable.hlo_modules():
            found[module.name].append({name: part_of(path) for name, path in _NAMED.findall(module.to_string())})
    return found


def own_times(events: Iterable[tuple[float, float, str]]) -> dict[str, float]:
    """Time of each name (start, end, name) without that of the events inside, as loops are around their bodies."""
    total = collections.defaultdict[str, float](float)
    open_: list[tuple[float, str]] = []
    for start, end, name in sorted(events, key=lambda event: (event[0], -event[1])):
        while open_ and open_[-1][0] <= start:
            open_.pop()
        if open_:
            total[open_[-1][1]] -= end - start
        total[name] += end - start
        open_.append((end, name))
    return dict(total)


def _traced(call: Callable[[], Any]) -> tuple[dict[str, dict[str, float]], float]:
    """Module -> operation -> its seconds in a call; and the seconds of all of it."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            started = time.perf_counter()
            jax.block_until_ready(call())
            elapsed = time.perf_counter() - started
        path = next(Path(folder).rglob("*.xplane.pb"))
        planes = jax.profiler.ProfileData.from_file(str(path)).planes
        spent = collections.defaultdict[str, dict[str, float]](lambda: collections.defaultdict(float))
        for line in (line for plane in planes for line in plane.lines):
            by_module = collections.defaultdict[str, list[tuple[float, float, str]]](list)
            for event in line.events:
                stats = dict(event.stats)
                if (name := stats.get("hlo_op")) and (module := stats.get("hlo_module")):
                    row = event.start_ns, event.start_ns + event.duration_ns, str(name)
                    by_module[str(module)].append(row)
            for module, events in by_module.items():
                for name, ns in own_times(events).items():
                    spent[module][name] += 1e-9 * ns
    return spent, elapsed


def shares(call: Callable[[], Any]) -> Mapping[str, float]:
    """Share of each part in the time of a call that has run before; they add up to 1.

    `other` is what stands in no scope; `waiting` is what is left of the time that passed: the starting of operations,
    and for a hosted task Python and the workers. The profiler itself makes small operations dearer, so a share is good
    to a few hundredths. Evaluations and checkpoints are no part of the loop.
    """
    spent, elapsed = _traced(call)
    programs = _programs()
    found = collections.defaultdict[str, float](float)
    for module, operations in spent.items():
        # Programs may share a name: that one is meant which has these operations.
        known = max(programs.get(module, [{}]), key=lambda names: len(names.keys() & operations.keys()))
        for name, seconds in operations.items():
            found[known.get(name, "other")] += seconds
    busy = sum(found.values())
    whole = max(elapsed, busy)
    return {part: found[part] / whole for part in (*PARTS, "other")} | {"waiting": 1.0 - busy / whole}
