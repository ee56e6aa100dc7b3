"""Run folders as training leaves them, written without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from omad import tasks
from omad.config import resolve, to_dict
from omad.run.records import LINES, PARTS, Index, Part


def write_run(
    path: Path,
    seed: int = 0,
    task: str = "mpe/spread-3",
    algorithm: str = "omad",
    preset: str = "matched",
    ends: float = -26.0,
    starts: float = -75.0,
    pace: float = 30_000.0,
    until: int | None = None,
    ended: tuple[str, str] | tuple[str, str, list[int]] | None = None,
    manifest: dict[str, Any] | None = None,
    every: int = 10_000,
    episodes: int = 5,
    noise: float = 0.5,
    **fields: Any,
) -> Path:
    """One run whose return goes from `starts` to `ends`, like 1 - exp(-step / pace).

    Args:
        path: Where.
        seed: Of training.
        task: Its name.
        algorithm: Its name.
        preset: Its name.
        ends: Return at the end of time.
        starts: Return at step 0.
        pace: Env steps.
        until: Env step at which the run was cut; None for a run that is complete.
        ended: How work on it ended, what was said, and which seeds diverged where that is known.
        manifest: Entries that replace the usual ones.
        every: Env steps between evaluations.
        episodes: Of an evaluation.
        noise: Standard deviation of a run's evaluations.
        **fields: Of the configuration.
    """
    fields = {"total_steps": 60_000, "eval_every": every, "eval_episodes": episodes, "first_seed": seed} | fields
    config = resolve(task, algorithm, preset, **fields)
    rng = np.random.default_rng([seed, len(algorithm), int(abs(ends) * 10)])
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(to_dict(config)))
    known = tasks.find(config.task)
    whole = {
        "format": 3,
        "omad": "0.1.0",
        "commit": "0123456789ab",
        "protocol": known.protocol,
        "spec": {"name": known.name, "horizon": known.horizon},
        "started": "2026-01-01T00:00:00+00:00",
        "python": "3.11.7",
        "packages": {"jax": "0.10.2", "numpy": "2.4.6"},
        "device": {"platform": "cpu", "kind": "cpu", "count": 1},
        "machine": {"system": "Linux", "processor": "x86_64"},
    }
    (path / "manifest.json").write_text(json.dumps(whole | (manifest or {})))
    end = config.total_vector_steps * config.n_envs
    last = end if until is None else until
    with (path / "metrics.jsonl").open("w") as out:
        for step in range(2_000, last + 1, 2_000):
            for one in config.all_seeds:
                line = {"step": step, "seed": one, "gradient_steps": step // 4, "time/unix_s": 1e9 + step * 0.01}
                out.write(json.dumps(line) + "\n")
    with (path / "episodes.jsonl").open("w") as out:
        for one in config.all_seeds:
            shift = rng.normal(0, noise)
            for step in range(every, last + 1, every):
                for actions, better in (("sampled", 0.0), ("noise_free", 0.7)):
                    mean = ends + (starts - ends) * np.exp(-step / pace) + shift + rng.normal(0, noise) + better
                    returns = [round(float(r), 4) for r in rng.normal(mean, 2.0, episodes)]
                    line = {"step": step, "seed": one, "actions": actions, "eval_seed": config.eval_seed,
                            "returns": returns, "info": {}}  # fmt: skip
                    out.write(json.dumps(line) + "\n")
    (path / "checkpoints").mkdir()
    if until is None:
        parts = dict.fromkeys(PARTS, Part(0, ""))
        index = Index(2, config.total_vector_steps, end, f"{end}", dict.fromkeys(LINES, 0), parts)
        index = msgspec.structs.replace(index, checksum=index.digest())
        (path / "checkpoints" / f"{end}.json").write_bytes(msgspec.json.encode(index))
    if ended:
        (path / "ended.json").write_text(json.dumps(dict(zip(("how", "words", "seeds"), ended, strict=False))))
    return path


def write_study(root: Path, runs: list[dict[str, Any]], name: str = "a study") -> Path:
    """A study's folder: `study.json` and those of its runs that have no `absent`.

    Args:
        root: Where.
        runs: Arguments of `write_run`, with `setting`.
        name: Of the study.
    """
    listed = []
    for run in runs:
        run = {"task": "mpe/spread-3", "algorithm": "omad", "seed": 0} | run
        setting, absent = run.pop("setting"), run.pop("absent", False)
        slug = "".join(c if c.isalnum() else "-" for c in f"{run['task']}/{run['algorithm']}/{setting}")
        folder = f"{slug}/seed-{run['seed']}"
        listed.append({"folder": folder, "setting": setting} | {k: run[k] for k in ("task", "algorithm", "seed")})
        if not absent:
            write_run(root / folder, **run)
    root.mkdir(parents=True, exist_ok=True)
    (root / "study.json").write_text(json.dumps({"name": name, "runs": listed}))
    return root
