"""The entropy of trained policies beside its bound: against sampled chains, and along a run's checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))

from teams import team

import entropy_gap
from omad import cli, envs
from omad.config import resolve
from omad.errors import UserError
from omad.export.fold import fold
from omad.loop.build import build
from omad.policies import draw_noise, sample_chain
from omad.run.folder import RunFolder
from omad.tree import at

DRAWS = 20_000
TASK = "probe/push"
"""Its first agent has one action dimension, the second two."""


def command(*words: str) -> int:
    return cli.answer("entropy_gap", lambda: entropy_gap.main(words))


@pytest.mark.parametrize("kernel", ["euler", "exact"])
def test_bounds_are_those_of_sampled_chains(kernel: Any) -> None:
    """Of a random policy, whose gap is there to see; the entropy against a histogram of its actions."""
    made = team("omad", TASK, chain_kernel=kernel, step_init=0.3)
    (one, _) = fold(made.policy, made.config, made.spec, "none")
    obs = np.asarray([[0.4], [-1.3]], np.float32)
    noise = draw_noise(jax.random.key(0), 4, DRAWS, 2)
    mask = jnp.asarray([1.0, 0.0])
    sample = jax.jit(lambda row: sample_chain(at(made.policy, 0), row, noise, mask, 2.5, 1e4, kernel))
    for row, found in zip(obs, entropy_gap.at(one, obs), strict=True):
        out = sample(np.tile(np.append(row, 0.0), (DRAWS, 1)).astype(np.float32))
        cost = np.asarray(out.cost, float)
        assert found.bound == pytest.approx(-cost.mean(), abs=4 * cost.std() / math.sqrt(len(cost)))
        # Before tanh, bins of equal width resolve the whole line; tanh shifts entropy and cost alike.
        x = np.arctanh(np.clip(np.asarray(out.action[:, 0], float), -1 + 1e-7, 1 - 1e-7))
        counts, edges = np.histogram(x, 120)
        share = counts[counts > 0] / len(x)
        cost = cost + np.log1p(-(np.tanh(x) ** 2))
        gap = -(share * np.log(share / np.diff(edges)[0])).sum() + cost.mean()
        assert found.gap == pytest.approx(gap, abs=4 * cost.std() / math.sqrt(len(cost)) + 3e-3)
        assert found.gap > 0


def test_other_policies_are_refused() -> None:
    two, gaussian = team("omad", TASK), team("hasac", TASK)
    with pytest.raises(UserError, match="kind chain with 2 action dimensions"):
        entropy_gap.at(fold(two.policy, two.config, two.spec, "none")[1], np.zeros((1, 2)))
    with pytest.raises(UserError, match="kind gaussian"):
        entropy_gap.at(fold(gaussian.policy, gaussian.config, gaussian.spec, "none")[0], np.zeros((1, 1)))


def test_runs_without_agents_of_one_dimension_are_refused(tmp_path: Path) -> None:
    for name, (task, algorithm) in enumerate((("mpe/spread-2", "omad"), (TASK, "hasac"))):
        spec = dataclasses.asdict(envs.make(task).spec)
        RunFolder.create(tmp_path / str(name), resolve(task, algorithm), {"omad": "test", "spec": spec}).close()
        with pytest.raises(UserError, match="give a run of omad with agents of one"):
            entropy_gap.measure(tmp_path / str(name), 1)


@pytest.mark.slow
def test_a_run_is_measured_at_every_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row a seed, checkpoint and agent of one dimension; the start is the known one of a fresh policy."""
    small: dict[str, Any] = {
        "denoising_steps": 2, "actor_width": 8, "actor_layers": 1, "time_frequencies": 4, "time_width": 4,
        "critic_width": 8, "critic_layers": 1, "atoms": 11, "total_steps": 160, "warmup_steps": 80, "seeds": 2,
    }  # fmt: skip
    config = resolve(TASK, n_envs=4, batch_size=8, **small)
    built = build(config, envs.make(TASK))
    carry, run = built.loop.init(jnp.arange(2)), tmp_path / "run"
    with contextlib.closing(
        RunFolder.create(run, config, {"omad": "test", "spec": dataclasses.asdict(built.spec)})
    ) as kept:
        for row in (20, 40):  # as if it had been trained: nothing is compiled but the start
            kept.save(row, 4 * row, built.algorithm.policy(carry.learner), carry)
    rows = entropy_gap.measure(run, 4)
    assert [(row["env_steps"], row["seed"], row["agent"]) for row in rows] == [
        (80, 0, 0), (80, 1, 0), (160, 0, 0), (160, 1, 0)
    ]  # fmt: skip
    for row in rows:
        assert row["entropy"] == pytest.approx(-0.5196, abs=5e-3)
        assert 0 <= row["gap"] < 1e-4
    assert command(str(run), "--observations", "2", "--out", str(tmp_path), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["rows"]) == 4 and found["chain_kernel"] == "euler"
    section = json.loads((tmp_path / "sections" / "entropy-probe-push.json").read_text())
    assert (tmp_path / "sections" / section["figure"]).read_bytes().startswith(b"\x89PNG")
    assert command(str(run), "--observations", "3") == 0
    assert "true" not in capsys.readouterr().out
    assert command(str(run), "--observations", "0") == command(str(run), "--seed", "-1") == 2
    assert command(str(tmp_path / "sections")) == 2
