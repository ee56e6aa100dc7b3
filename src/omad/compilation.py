"""The persistent compilation cache: a program that was compiled once is read from disk at the next start."""

from __future__ import annotations

import os
from pathlib import Path

_SHORTEST_S = 0.3
"""Programs that take less to compile are not kept."""


def cache_folder() -> Path | None:
    """Where programs are kept unless JAX is configured otherwise; None where the user has no home. It is not made."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "omad" / "jax"
    except RuntimeError:
        return None


def inherited() -> dict[str, str]:
    """Environment variables by which a process that is started here keeps no programs either, if this one does not."""
    import jax

    return {} if jax.config.values["jax_enable_compilation_cache"] else {"JAX_ENABLE_COMPILATION_CACHE": "false"}


def use_compilation_cache(use: bool = True) -> None:
    """Keep compiled programs in the user's cache folder; may be called at any time, and again.

    The folder is `$XDG_CACHE_HOME/omad/jax` or `~/.cache/omad/jax`. What JAX's own environment variables or settings
    say takes precedence: another folder, or no cache at all. Where no folder can be made, nothing is kept.

    Args:
        use: Whether to; if not, neither this cache nor another one is read or written.
    """
    import jax

    if not use:
        jax.config.update("jax_enable_compilation_cache", False)
    settings = jax.config.values
    if not settings["jax_enable_compilation_cache"] or settings["jax_compilation_cache_dir"] is not None:
        return
    if (folder := cache_folder()) is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _SHORTEST_S)
