"""The persistent compilation cache: a program that was compiled once is read from disk at the next start."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["use_compilation_cache"]

_SHORTEST_S = 0.3
"""Programs that take less to compile are not kept."""


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
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "omad" / "jax"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home, or a read-only one
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _SHORTEST_S)
