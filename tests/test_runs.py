"""`omad runs` and `omad compare`: lists and differences from files alone, without JAX, whatever lies there."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from omad.cli import main
from omad.commands.runs import list_runs
from omad.config import resolve, sources
from omad.run.folder import RunFolder
from omad.run.records import Ended

CONFIG = resolve("probe/push", preset="tiny", seeds=2, v_max=3.0)
SPEC = {"name": "probe/push", "obs_dims": [1, 2], "act_dims": [1, 2], "state_dim": 0, "horizon": 5}


def make(path: Path, means: tuple[float, ...] = (), how: str | None = None, seeds: int = 2) -> Path:
    """A run with evaluations every 200 env steps, whose mean over seeds is as given; the second is one higher."""
    config = dataclasses.replace(CONFIG, seeds=seeds)
    run = RunFolder.create(path, config, {"omad": "0", "spec": SPEC, "protocol": "p", "sources": sources(config)})
    lines = [
        {"step": 200 * (i + 1), "seed": seed, "actions": actions, "returns": [mean + seed] * config.eval_episodes}
        for i, mean in enumerate(means)
        for seed in range(seeds)
        for actions in ("sampled", "noise_free")
    ]
    lines = [line | {"eval_seed": config.eval_seed, "info": {}} for line in lines]
    (path / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if how:
        run.note_end(Ended(how))  # pyright: ignore[reportArgumentType] - one of three words
    run.close()
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running run, and some that are complete, diverged, stopped, half made, damaged, or no runs at all."""
    root = tmp_path_factory.mktemp("runs")
    make(root / "a", (-3.0, -1.0, -2.0), "finished")
    make(root / "b" / "seed-0", seeds=1)
    make(root / "c", (1.0,), "diverged")
    make(root / "d" / "e")
    busy = RunFolder.open(make(root / "f"))
    busy.lock()
    (root / "a" / "checkpoints" / "junk").mkdir()
    (make(root / "x1") / "config.json").write_text("{")
    (make(root / "x2") / "manifest.json").unlink()
    (make(root / "x3") / "config.json").write_text(json.dumps({"algorithm": "nobody's\n"}))
    (make(root / "x4") / "ended.json").write_text("[]")
    (root / "notes").mkdir()
    (root / "notes" / "text.txt").write_text("nothing")
    yield root
    busy.close()


def test_runs_are_listed_with_their_states(root: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["runs", str(root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    runs = {str(Path(run["run"]).relative_to(root)): run for run in found["runs"]}
    states = {name: run["state"] for name, run in runs.items()}
    assert states == {"a": "finished", "b/seed-0": "stopped", "c": "diverged", "d/e": "stopped", "f": "running"}
    first = runs["a"]
    assert (first["last_return"], first["best_return"], first["env_steps"], first["seeds"]) == (-1.5, -0.5, 600, [0, 1])
    assert (first["task"], first["algorithm"], first["preset"]) == ("probe/push", "omad", "tiny")
    assert runs["f"]["last_return"] is None and 0 <= first["age_s"] < 600
    assert len(found["damaged"]) == 4
    for name, sentence in zip(("x1", "x2", "x3", "x4"), found["damaged"], strict=True):
        assert str(root / name) in sentence and "\n" not in sentence


def test_the_table_has_a_line_for_what_cannot_be_read(root: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["runs", str(root)]) == 0
    out = capsys.readouterr().out
    assert out.count("not readable:") == 4 and "600 of 400" in out and "diverged" in out
    assert main(["runs", str(root / "notes")]) == 0
    assert "There are no runs" in capsys.readouterr().out
    assert main(["runs", str(root / "nowhere")]) == 2
    assert "There is no folder" in capsys.readouterr().err
    assert list_runs(root / "d")[1] == []


def test_two_configurations_are_compared(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["compare", str(root / "a"), str(root / "c")]) == 0
    assert "are the same" in capsys.readouterr().out
    file = tmp_path / "other.toml"
    file.write_text('task = "probe/push"\nalgorithm = "hatd3"\npreset = "tiny"\nn_envs = 2\n')
    assert main(["compare", str(root / "a"), str(file), "--json"]) == 0
    rows = {row["field"]: row for row in json.loads(capsys.readouterr().out)["differences"]}
    assert rows["algorithm"]["b"] == {"value": "hatd3", "source": "given"}
    assert rows["n_envs"] == {
        "field": "n_envs", "a": {"value": 4, "source": "preset tiny: [?] a few seconds"},
        "b": {"value": 2, "source": "given"},
    }  # fmt: skip
    assert rows["algo.v_max"]["a"] == {"value": 3.0, "source": "given"} and rows["algo.v_max"]["b"] is None
    assert "total_steps" not in rows and "algo.gamma" not in rows
    assert main(["compare", str(root / "a"), str(file)]) == 0
    assert "absent" in capsys.readouterr().out
    for wrong, said in ((root / "x1", "x1"), (root / "nowhere", "There is no"), (root / "notes", "not a run folder")):
        assert main(["compare", str(root / "a"), str(wrong)]) == 2
        assert said in capsys.readouterr().err


LIGHT = """
import sys
from omad.cli import main
code = main(sys.argv[1:])
heavy = {"jax", "jaxlib", "equinox"} & set(sys.modules)
assert not heavy, heavy
sys.exit(code)
"""


@pytest.mark.parametrize(
    "words",
    [
        ("runs", "{}"),
        ("compare", "{}/a", "{}/c"),
        ("report", "{}/a", "--out", "{}/../report"),
        ("tasks",),
        ("train", "--print-config"),
    ],
    ids=lambda words: words[0],
)
def test_what_only_reads_starts_without_jax(words: tuple[str, ...], root: Path):
    call = [sys.executable, "-c", LIGHT, *(word.format(root) for word in words)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
