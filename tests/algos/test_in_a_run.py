"""Every algorithm in a whole run: two seeds, trained, evaluated, saved, gone on with, loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad import load_policy, resume
from omad.algos import REGISTRY
from omad.callbacks import Callback, Context
from omad.config import resolve
from omad.experiment import Experiment
from omad.run.folder import RunFolder

RUN: dict[str, Any] = {
    "total_steps": 120, "warmup_steps": 20, "n_envs": 2, "batch_size": 4, "buffer_size": 120, "seeds": 2,
    "eval_every": 60, "eval_episodes": 3, "log_every": 60, "save_every": 60,
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "hatd3" else [pytest.mark.slow]) for name in REGISTRY]
)
def test_a_run_from_the_first_step_to_a_loaded_policy(name: str, tmp_path: Path) -> None:
    """What is stored of two seeds is what the second one acts by; cut at half-time, the run goes on."""
    config = resolve("probe/push", name, "tiny", **RUN, **({"v_max": 8.0} if name == "omad" else {}))

    class Stop(Callback):
        def on_progress(self, context: Context) -> None:
            if context.env_steps >= 60:
                context.stop("half-time")

    assert Experiment(config, callbacks=[Stop()]).start(tmp_path / "run").stopped == "half-time"
    assert not RunFolder.open(tmp_path / "run").complete
    run = RunFolder.open(resume(tmp_path / "run"))
    assert run.complete
    returns = [line for line in run.lines("episodes.jsonl") if line["actions"] == "sampled"]
    assert [(line["seed"], line["step"]) for line in returns] == [(0, 60), (1, 60), (0, 120), (1, 120)]
    obs = jnp.ones((2, run.spec.obs_dim))
    first, second = (np.asarray(load_policy(run.path, seed).act(obs, jax.random.key(0))) for seed in (0, 1))
    assert first.shape == (2, 2) and np.abs(first).max() <= 1
    assert not np.array_equal(first, second)
