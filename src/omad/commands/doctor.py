"""`omad doctor`: what is installed, what is missing for what, what is known not to fit, and a self-test.

JAX is started in a process of its own, since a broken installation of it may end the process that imports it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import omad
from omad import extras
from omad.compilation import cache_folder
from omad.processes import available_cores

_LIMIT_S = 600.0
"""A self-test that takes longer hangs; on a busy machine with an empty cache it may take a minute."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Check this installation; exit code 1 if something is broken. What is only missing or unusual is a note."""

    self_test: bool = True
    """Train OMAD for seconds on a probe, save, load and act, in a temporary folder."""
    json: bool = False
    """Print JSON."""


# ---------------------------------------------------------------- packages


def unmet(wanted: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Requirements of omad that what is installed does not meet, down to those of dependencies.

    Args:
        wanted: Extras that count too.

    Yields:
        A sentence, and whether omad itself cannot do without.
    """
    from packaging.requirements import Requirement

    queue: list[tuple[str, tuple[str, ...]]] = [("omad", tuple(wanted))]
    seen = {"omad"}
    while queue:
        name, chosen = queue.pop()
        for text in metadata.requires(name) or ():
            need = Requirement(text)
            always, *on = (need.marker is None or need.marker.evaluate({"extra": one}) for one in ("", *chosen))
            if need.name == "omad" or not (always or any(on)):
                continue
            found = extras.version(need.name)
            if found is None or not need.specifier.contains(found, prereleases=True):
                here = f"{found} is installed" if found else "it is not installed"
                asks = f"{name} {extras.version(name)} needs {need.name}{need.specifier}"
                yield f"{asks}, but {here}.", always and name == "omad"
            if found is not None and need.name not in seen:
                seen.add(need.name)
                queue.append((need.name, tuple(need.extras)))


def _packages() -> dict[str, str]:
    """Versions of what this package and its extras ask for, as far as it is installed."""
    from packaging.requirements import Requirement

    names = {Requirement(text).name for text in metadata.requires("omad") or ()} | {"jaxlib", "pymunk"}
    return {name: found for name in sorted(names - {"omad"}) if (found := extras.version(name))}


def conflicts(versions: Mapping[str, str]) -> list[str]:
    """Combinations of versions that are known not to work, and what to do.

    Args:
        versions: Of distributions.
    """
    from packaging.version import Version

    have = {name: Version(text) for name, text in versions.items()}
    said = []
    if "pettingzoo" in have and have["pettingzoo"] >= Version("1.26"):
        said.append(
            f"PettingZoo {have['pettingzoo']} has no waterworld any more; if you need it: "
            "pip install 'pettingzoo==1.25.*' 'pymunk<7'."
        )
    elif "pettingzoo" in have and have.get("pymunk", Version("0")) >= Version("7"):
        said.append(f"waterworld does not run with pymunk {have['pymunk']}; if you need it: pip install 'pymunk<7'.")
    plugin = have.get("jax-cuda13-plugin")
    if plugin is not None and "jaxlib" in have and plugin.release[:2] != have["jaxlib"].release[:2]:
        said.append(
            f"jax-cuda13-plugin {plugin} does not fit jaxlib {have['jaxlib']}, so JAX will not use the GPU: "
            "pip install --upgrade 'omad[cuda]'."
        )
    return said


# ---------------------------------------------------------------- environment


def environment_notes(environment: Mapping[str, str], device: Mapping[str, Any] | None, gpu: bool) -> list[str]:
    """What in the environment makes JAX do something else than a user may expect.

    Args:
        environment: Its variables.
        device: What JAX computes on, as in the manifest of a run; None where it does not start.
        gpu: Whether the machine has an NVIDIA GPU.
    """
    said = []
    if platforms := environment.get("JAX_PLATFORMS"):
        said.append(f"JAX_PLATFORMS is {platforms!r}, so JAX looks for no other devices.")
    elif gpu and device and device["platform"] == "cpu":
        said.append(
            "This machine has an NVIDIA GPU, but JAX computes on the CPU: pip install 'omad[cuda]', "
            "and see that the driver is new enough for CUDA 13."
        )
    if flags := environment.get("XLA_FLAGS"):
        said.append(f"XLA_FLAGS is {flags!r}; runs that began with other flags may go on with another rounding.")
    if _on(environment.get("JAX_DISABLE_JIT")):
        said.append("JAX_DISABLE_JIT is on, so nothing is compiled and training is very slow; unset it.")
    if _on(environment.get("JAX_ENABLE_X64")):
        said.append("JAX_ENABLE_X64 is on: double precision, twice the memory, and other numbers than without.")
    return said


def _on(text: str | None) -> bool:
    return (text or "").lower() in ("1", "true", "yes", "y", "on", "t")


def _cache() -> dict[str, Any]:
    """The compilation cache: its folder, how many programs it holds, their size, and whether more can be kept."""
    named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    folder = Path(named) if named else cache_folder()
    if folder is None or not _on(os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "true")):
        return {"folder": None, "programs": 0, "mib": 0.0, "writable": False}
    try:
        programs = list(folder.glob("*-cache"))
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        size = sum(path.stat().st_size for path in programs) / 2**20
    except OSError:  # below a folder that this user may not enter
        return {"folder": str(folder), "programs": 0, "mib": 0.0, "writable": False}
    return {"folder": str(folder), "programs": len(programs), "mib": size, "writable": os.access(nearest, os.W_OK)}


# ---------------------------------------------------------------- JAX, in a process of its own


def self_test(folder: Path) -> None:
    """Train OMAD on a probe with everything as small as it can be, then load the run and act.

    Args:
        folder: An empty one, for the run.
    """
    import numpy as np

    run = omad.train(
        "probe/push", preset="tiny", v_max=3.0, run_dir=folder / "run", loggers=[], total_steps=80, warmup_steps=40,
        eval_every=40, eval_episodes=1, eval_noise_free=False, log_every=40, save_every=40, denoising_steps=2,
    )  # fmt: skip
    policy = omad.load_policy(run.path)
    actions = policy.act([np.zeros(size) for size in policy.spec.obs_dims], 0)
    for action, size in zip(actions, policy.spec.act_dims, strict=True):
        if np.shape(action) != (size,) or not np.all(np.abs(action) <= 1):
            raise RuntimeError(f"a trained policy gave the action {action}, not {size} numbers in [-1, 1]")


def _in_child(test: bool) -> None:
    """Print one JSON line of what JAX computes on, and one of the self-test."""
    from omad.run.machine import facts

    found = facts()
    sys.stdout.write(json.dumps({"device": found["device"], "flags": found["flags"]}) + "\n")
    sys.stdout.flush()
    if test:
        import jax

        jax.config.update("jax_disable_most_optimizations", True)  # compiling is all that takes time here
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="omad-doctor-") as folder:
            self_test(Path(folder))
        sys.stdout.write(json.dumps({"self_test_s": time.perf_counter() - begun}) + "\n")


def _start_jax(test: bool) -> tuple[dict[str, Any], str]:
    """What the process said, and what went wrong."""
    code = f"from omad.commands.doctor import _in_child; _in_child({test})"
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], env=os.environ | {"PYTHONPATH": paths}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return _lines((error.stdout or b"").decode()), f"it did not end within {_LIMIT_S:.0f} s"
    found = _lines(done.stdout)
    said = [line for line in done.stderr.splitlines() if line.strip()]
    if not done.returncode:
        return found, ""
    how = f"killed by {signal.Signals(-done.returncode).name}: " if done.returncode < 0 else ""
    return found, how + (said[-1] if said else f"exit code {done.returncode}")


def _lines(text: str) -> dict[str, Any]:
    """What whole JSON lines say, all together."""
    return {key: value for line in text.splitlines() if line.startswith("{") for key, value in json.loads(line).items()}


# ---------------------------------------------------------------- the whole


def examine(test: bool = True) -> dict[str, Any]:
    """All that `omad doctor` tells, plain values.

    Args:
        test: Whether to run the self-test.
    """
    notes, problems = [], []
    available = {name: [m for m in extra.modules if not extras.installed(m)] for name, extra in extras.EXTRAS.items()}
    try:
        packages = _packages()
        for sentence, needed in unmet([name for name, missing in available.items() if not missing]):
            (problems if needed else notes).append(sentence)
    except metadata.PackageNotFoundError:
        packages = {name: found for name in ("jax", "jaxlib", "equinox") if (found := extras.version(name))}
        notes.append("omad is not installed, only found in a folder, so versions of packages were not checked.")
    notes += conflicts(packages)
    if (other := extras.version("omad")) not in (None, omad.__version__):
        where = Path(omad.__file__).parent
        notes.append(f"omad {omad.__version__} is imported from {where}, but {other} is installed.")
    started, wrong = _start_jax(test)
    device = started.get("device")
    if wrong:
        what = "JAX does not start" if device is None else "The self-test failed"
        problems.append(f"{what}: {wrong.rstrip('.')}.")
    gpu = Path("/proc/driver/nvidia/gpus").is_dir()  # not there on other systems than Linux
    notes += environment_notes(os.environ, device, gpu)
    cache = _cache()
    if cache["folder"] and not cache["writable"]:
        notes.append(f"Compiled programs cannot be kept in {cache['folder']}, so every start compiles anew.")
    return {
        "omad": omad.__version__,
        "folder": str(Path(omad.__file__).parent),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": len(available_cores()),
        "memory_mib": _memory(),
        "device": device,
        "packages": packages,
        "compilation_cache": cache,
        "extras": {
            name: {"installed": not missing, "missing": missing, "purpose": extras.EXTRAS[name].purpose}
            for name, missing in available.items()
        },
        "self_test_s": started.get("self_test_s"),
        "notes": notes,
        "problems": problems,
    }


def _memory() -> dict[str, float]:
    import psutil

    memory = psutil.virtual_memory()
    return {"free": memory.available / 2**20, "total": memory.total / 2**20}


def _show(found: Mapping[str, Any]) -> None:
    from omad.console import console, row, table

    out, device, cache, memory = console(), found["device"], found["compilation_cache"], found["memory_mib"]
    out.print(f"omad {found['omad']} in {found['folder']}")
    out.print(f"Python {found['python']}, {found['system']}")
    out.print(f"{found['cores']} cores, {memory['free']:,.0f} of {memory['total']:,.0f} MiB of memory free")
    if device:
        out.print(f"JAX computes on {device['count']} × {device['kind']} ({device['platform']})")
    kept = f"{cache['programs']} programs, {cache['mib']:,.0f} MiB, in {cache['folder']}" if cache["folder"] else "off"
    out.print(f"compilation cache: {kept}")
    out.print("packages: " + ", ".join(f"{name} {version}" for name, version in found["packages"].items()))
    made = table("extras", "extra", "", "for")
    for name, extra in found["extras"].items():
        missing = ", ".join(extra["missing"])
        row(made, name, "installed" if extra["installed"] else f"missing {missing}", extra["purpose"])
    out.print(made)
    if not all(extra["installed"] for extra in found["extras"].values()):
        out.print("Get a missing extra with: pip install 'omad[EXTRA]'")
    for note in found["notes"]:
        out.print(f"note: {note}")
    if found["self_test_s"] is not None:
        out.print(f"self-test: trained, saved, loaded and acted in {math.ceil(found['self_test_s'])} s")
    for problem in found["problems"]:
        out.print(f"broken: {problem}")
    if not found["problems"]:
        out.print("all fine")


_FIRST = ("tyro", "rich", "psutil", "packaging", "numpy", "msgspec")
"""Modules without which nothing can be said."""


def main(arguments: Sequence[str]) -> int:
    """Examine and report; exit code 1 if something is broken."""
    if missing := [name for name in _FIRST if importlib.util.find_spec(name) is None]:
        sys.stdout.write(f"broken: {', '.join(missing)} not installed; install omad again: pip install omad\n")
        return 1
    import tyro

    from omad.algos.validate import check
    from omad.console import print_json

    options = tyro.cli(Options, prog="omad doctor", args=list(arguments))
    check(options, flags=True)
    found = examine(options.self_test)
    if options.json:
        print_json(found)
    else:
        _show(found)
    return 1 if found["problems"] else 0
