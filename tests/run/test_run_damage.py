"""Every file of a run folder damaged in every way: refused in words, or the same result, or the damage is named."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1]))

from test_checkpoint import save, tree

from mutate import mutations, snapshot
from omad.config import resolve
from omad.errors import UserError
from omad.run.folder import RunFolder
from omad.run.records import Ended

MANIFEST = {
    "omad": "0", "protocol": "a test", "spec": {"name": "probe/push", "obs_dims": [1, 2], "act_dims": [1, 2],
                                                "state_dim": 0, "horizon": 1, "info_keys": []},
}  # fmt: skip


def a_run(path: Path) -> RunFolder:
    """A folder with two checkpoints and some lines."""
    run = RunFolder.create(path, resolve("probe/push", preset="tiny"), MANIFEST)
    for moment in (1, 2):
        run.write("metrics.jsonl", {"step": 10 * moment, "seed": 0, "critic/loss": 0.5 / moment})
        line = {
            "step": 10 * moment,
            "seed": 0,
            "actions": "sampled",
            "eval_seed": 1,
            "returns": [1.0, -2.0],
            "info": {},
        }
        run.write("episodes.jsonl", line)
        save(run, moment)
    run.note_end(Ended("broken", "a test"))
    run.close()
    return RunFolder.open(path)


def read(path: Path) -> dict[str, Any]:
    """All that anybody reads of a run folder, as far as it is whole."""
    run = RunFolder.open(path)
    found: dict[str, Any] = {"config": run.config, "spec": run.spec, "ended": run.ended, "complete": run.complete}
    found["manifest"] = {k: v for k, v in run.manifest.items() if k in MANIFEST}
    found["busy"] = RunFolder.busy(path)
    for name in ("metrics.jsonl", "episodes.jsonl"):
        found[name] = list(run.lines(name))
    found["evaluations"] = run.evaluations()
    found["moments"] = []
    for checkpoint in run.checkpoints():
        parts: tuple[tuple[Any, Any], ...] = (("policy", {"w": tree(0)["net"]["w"]}), ("rest", tree(0)))
        for part, like in parts:
            try:
                restored = checkpoint.restore(part, like)
            except UserError as error:
                found["moments"].append(str(error))
            else:
                found["moments"].append([np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(restored)])
    return found


def survives(tmp_path: Path, count: int, seed: int) -> None:
    """Nothing but a sentence, no byte changed anywhere, and arrays are never others than those that were saved."""
    run = a_run(tmp_path / "home" / "run")
    outside = tmp_path / "home" / "outside.txt"
    outside.write_text("secret")
    whole = read(run.path)
    saved = [moment for moment in whole["moments"] if isinstance(moment, list)]
    files = [p for p in sorted(run.path.rglob("*")) if p.is_file() and p.name != "lock"]
    files += [p for p in files if p.suffix == ".json"]  # values have more ways to be wrong
    tried = refused = 0
    for damage in mutations(files, outside, seed, count):
        with damage:
            there = snapshot(tmp_path)
            try:
                now = read(run.path)
            except UserError as error:
                refused += 1
                assert "\n" not in str(error) and "secret" not in str(error), (damage, str(error))
            else:
                for moment in now["moments"]:
                    assert not isinstance(moment, list) or moment in saved, damage
            assert snapshot(tmp_path) == there, damage
            tried += 1
    assert tried == count and refused > count // 20
    assert read(run.path) == whole


def test_a_damaged_run_folder_is_refused_in_words_or_read_as_it_was(tmp_path: Path) -> None:
    survives(tmp_path, 150, seed=3)


@pytest.mark.slow
def test_two_thousand_damages(tmp_path: Path) -> None:
    """With those of studies and summaries, more than two thousand in all."""
    survives(tmp_path, 2000, seed=4)
