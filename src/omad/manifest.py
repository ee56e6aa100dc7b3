"""What the manifest of a run says of its code, its env and its machine."""

from __future__ import annotations

import dataclasses
import datetime
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import omad
from omad import tasks
from omad.config import RunConfig, sources
from omad.envs.host_env import HostEnv
from omad.extras import version
from omad.loop.session import AT_A_BOUNDARY, EXACT
from omad.run import machine
from omad.types import JaxEnv

_PACKAGES = ("jax", "jaxlib", "equinox", "optax", "safetensors", "numpy")
_HOSTED = ("mujoco", "gymnasium", "gymnasium-robotics", "pettingzoo")


def _commit() -> str | None:
    """The commit of the source tree, if there is one and this file is of it: not of a project that omad is used in."""
    # Without optional locks, so not by `describe --dirty`, which takes one: a kill would leave it behind.
    git = ["git", "--no-optional-locks", "-C", str(Path(__file__).resolve().parent)]
    said, own = list[str](), ["ls-files", "--error-unmatch", Path(__file__).name]
    for words in (own, ["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            done = subprocess.run(
                git + words, capture_output=True, text=True, timeout=5, check=True, start_new_session=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        said.append(done.stdout.strip())
    return said[1] + ("-dirty" if said[2] else "")


def manifest_of(config: RunConfig, env: JaxEnv | HostEnv) -> dict[str, Any]:
    """The manifest of a run that begins.

    Args:
        config: Of the run.
        env: Its env, of which only what it says of itself is read.
    """
    task = tasks.find(config.task)
    packages = [*_PACKAGES, *(() if isinstance(env, JaxEnv) else _HOSTED)]
    return {
        "omad": omad.__version__,
        "commit": _commit(),
        "protocol": task.protocol,
        "spec": dataclasses.asdict(env.spec),
        "obs_norm": config.obs_norm,
        "resume": EXACT if getattr(env, "exact", True) else AT_A_BOUNDARY,
        "sources": sources(config),
        "updates_per_env_step": config.updates_per_env_step,
        "command": sys.argv,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: found for name in packages if (found := version(name))},
        **machine.facts(),
    }
