"""What rounding depends on besides the seeds: machine, cores, versions, flags of precision."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from omad.processes import available_cores

_FLAGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl", "jax_threefry_partitionable")


def _processor() -> str:
    """Its model, as far as the system tells."""
    try:
        rows = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((row.partition(":")[2].strip() for row in rows if row.startswith("model name")), platform.processor())


def facts() -> dict[str, Any]:
    """Entries of the manifest, as they are for this process."""
    device = jax.devices()[0]
    flags = {name: str(getattr(jax.config, name, None)) for name in _FLAGS}
    return {
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "machine": {"system": platform.platform(), "processor": platform.machine(), "model": _processor()},
        "cores": len(available_cores()),
        "flags": flags | {"XLA_FLAGS": os.environ.get("XLA_FLAGS", "")},
    }


def differences(manifest: Mapping[str, Any]) -> list[str]:
    """How this process differs from the one that began a run, in what may change rounding.

    Args:
        manifest: Of the run; what it does not hold is not compared.
    """
    now = _flat(facts() | {"packages": {name: metadata.version(name) for name in ("jax", "jaxlib")}})
    then = _flat(manifest)
    return [f"{key} was {then[key]!r}, now {now[key]!r}" for key in now if key in then and then[key] != now[key]]


def _flat(entries: Mapping[str, Any]) -> dict[str, Any]:
    found = {"cores": entries["cores"]} if "cores" in entries else {}
    parts = {"device": None, "machine": ("processor", "model"), "packages": ("jax", "jaxlib"), "flags": None}
    for group, names in parts.items():
        values = entries.get(group) or {}
        found |= {f"{group} {name}": values[name] for name in names or values if name in values}
    return found
