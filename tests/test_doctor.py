"""`omad doctor`: what it finds in packages, extras and the environment, and that its self-test trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from omad import extras
from omad.cli import main
from omad.commands import doctor

CPU = {"platform": "cpu", "kind": "cpu", "count": 1}
TOLD: dict[str, Any] = {"device": CPU, "flags": {}, "self_test_s": 1.5}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX is not started."""
    monkeypatch.setattr(doctor, "_start_jax", lambda test: (TOLD if test else {"device": CPU, "flags": {}}, ""))


def test_a_sound_installation(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == [] and found["device"] == CPU and found["self_test_s"] == 1.5
    assert found["cores"] >= 1 and 0 < found["memory_mib"]["free"] <= found["memory_mib"]["total"]
    assert found["packages"]["jax"] == metadata.version("jax") and "jaxlib" in found["packages"]
    assert found["extras"].keys() == extras.EXTRAS.keys()
    assert main(["doctor", "--no-self-test"]) == 0
    said = capsys.readouterr().out
    assert "all fine" in said and "self-test" not in said and "compilation cache: " in said


def test_what_is_broken_gives_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "_start_jax", lambda test: ({}, "RuntimeError: no such platform."))
    monkeypatch.setattr(extras, "installed", lambda module: module != "onnxruntime")
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "broken: JAX does not start: RuntimeError: no such platform." in said and "all fine" not in said
    assert "missing onnxruntime" in said and "pip install 'omad[EXTRA]'" in said
    monkeypatch.setattr(doctor, "_start_jax", lambda test: ({"device": CPU}, "killed by SIGSEGV: exit"))
    assert doctor.examine()["problems"] == ["The self-test failed: killed by SIGSEGV: exit."]


def test_requirements_that_are_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the package itself and of what it needs; of extras only those that are there; a circle ends."""
    needs = {
        "omad": ["a>=2", "b", "c>=1; extra == 'x'", "d>=1; extra == 'y'", "e; python_version < '3'", "omad[x]"],
        "a": ["b<3", "f[more]"],
        "f": ["omad", "g>=1; extra == 'more'"],
    }  # fmt: skip
    have = {"omad": "1", "a": "1.9", "b": "3.0", "c": "0.1", "f": "1"}
    monkeypatch.setattr(metadata, "requires", lambda name: needs.get(name))
    monkeypatch.setattr(extras, "version", have.get)
    assert sorted(doctor.unmet(["x"])) == [
        ("a 1.9 needs b<3, but 3.0 is installed.", False),
        ("f 1 needs g>=1, but it is not installed.", False),
        ("omad 1 needs a>=2, but 1.9 is installed.", True),
        ("omad 1 needs c>=1, but 0.1 is installed.", False),
    ]


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"pettingzoo": "1.27.0"}, "no waterworld"),
        ({"pettingzoo": "1.25.0", "pymunk": "7.3"}, "pymunk 7.3"),
        ({"jax-cuda13-plugin": "0.9.1", "jaxlib": "0.10.2"}, "does not fit jaxlib 0.10.2"),
        ({"pettingzoo": "1.25.0", "pymunk": "6.9", "jax-cuda13-plugin": "0.10.1", "jaxlib": "0.10.2"}, ""),
    ],
)
def test_known_conflicts(versions: dict[str, str], said: str) -> None:
    found = doctor.conflicts(versions)
    assert len(found) == bool(said) and all(said in sentence for sentence in found)


@pytest.mark.parametrize(
    ("environment", "gpu", "said"),
    [
        ({}, False, ""),
        ({}, True, "pip install 'omad[cuda]'"),
        ({"JAX_PLATFORMS": "cpu"}, True, "JAX_PLATFORMS is 'cpu'"),
        ({"XLA_FLAGS": "--xla_a=1"}, False, "XLA_FLAGS is '--xla_a=1'"),
        ({"JAX_DISABLE_JIT": "True"}, False, "nothing is compiled"),
        ({"JAX_ENABLE_X64": "1", "JAX_DISABLE_JIT": "0"}, False, "double precision"),
    ],
)
def test_what_the_environment_changes(environment: dict[str, str], gpu: bool, said: str) -> None:
    found = doctor.environment_notes(environment, CPU, gpu)
    assert len(found) == bool(said) and all(said in sentence for sentence in found)


def test_the_compilation_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "omad" / "jax"
    assert doctor._cache() == {"folder": str(folder), "programs": 0, "mib": 0.0, "writable": True}
    folder.mkdir(parents=True)
    (folder / "one-cache").write_bytes(bytes(1 << 20))
    assert (doctor._cache()["programs"], doctor._cache()["mib"]) == (1, 1.0)
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
    assert doctor._cache()["folder"] is None


def test_jax_is_started_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that XLA does not know ends the process that starts it; that is told, and not suffered."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    found, wrong = doctor._start_jax(False)
    assert wrong == "" and found["device"]["platform"] == "cpu" and "self_test_s" not in found
    monkeypatch.setenv("XLA_FLAGS", "--xla_no_such_flag=1")
    found, wrong = doctor._start_jax(False)
    assert found == {} and wrong


def test_it_starts_quickly() -> None:
    code = (
        "import sys, omad.commands.doctor; "
        "sys.exit(bool({'jax', 'numpy', 'tyro', 'rich', 'equinox', 'packaging'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.slow
def test_the_self_test_needs_nothing_that_only_linux_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It trains, saves, loads and acts, also where processes cannot be kept to cores."""
    for name in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    doctor.self_test(tmp_path)
    assert list((tmp_path / "run" / "checkpoints").iterdir())
