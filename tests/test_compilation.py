"""The compilation cache: on by default, in a folder of the user's, and never against what JAX was told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from omad.compilation import use_compilation_cache

NAMES = ("jax_enable_compilation_cache", "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture(autouse=True)
def as_at_first(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that was told nothing; all is put back afterwards."""
    before = {name: jax.config.values[name] for name in NAMES}
    for name, value in zip(NAMES, (True, None, 1.0), strict=True):
        jax.config.update(name, value)
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def settings() -> tuple[bool, str | None, float]:
    return tuple(jax.config.values[name] for name in NAMES)


def test_programs_are_kept_in_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    use_compilation_cache()
    assert settings() == (True, str(tmp_path / "cache" / "omad" / "jax"), 0.3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    use_compilation_cache()
    assert settings()[1] == str(tmp_path / "cache" / "omad" / "jax")


def test_what_jax_was_told_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    use_compilation_cache()
    assert settings() == (True, str(tmp_path / "mine"), 1.0)
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    use_compilation_cache()
    assert settings() == (False, None, 1.0)
    jax.config.update("jax_enable_compilation_cache", True)
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1.0")
    use_compilation_cache()
    assert settings() == (True, str(tmp_path / "omad" / "jax"), 1.0)


def test_it_can_be_left_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    use_compilation_cache(False)
    assert settings() == (False, None, 1.0)


def test_without_a_folder_there_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    use_compilation_cache()
    assert settings() == (True, None, 1.0)


def test_it_also_works_once_something_was_compiled(tmp_path: Path) -> None:
    """As in a notebook that has used JAX before it trains."""
    code = (
        "import jax\nfrom omad.compilation import use_compilation_cache\n"
        "jax.block_until_ready(jax.jit(lambda x: x + 1)(1.0))\nuse_compilation_cache()\n"
        "jax.block_until_ready(jax.jit(lambda x: x + 2)(1.0))"
    )
    told = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    told |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    subprocess.run([sys.executable, "-c", code], env=told, timeout=120, check=True)
    assert list((tmp_path / "omad" / "jax").glob("jit__lambda*"))
