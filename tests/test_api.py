"""`load_policy`: the same words as the command line, needing neither critic nor env."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import omad
from omad.errors import UserError

SIZES: dict[str, Any] = {
    "preset": "tiny", "total_steps": 60, "warmup_steps": 20, "n_envs": 2, "batch_size": 4, "buffer_size": 120,
    "log_every": 20, "eval_every": 60, "eval_episodes": 3, "save_every": 60, "seeds": 2, "algorithm": "hatd3",
}  # fmt: skip
"""The programs are those of `test_experiment.py`."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> omad.Run:
    return omad.train("probe/push", run_dir=tmp_path_factory.mktemp("api") / "run", **SIZES)


def test_the_run_folder_is_complete(run: omad.Run):
    for name in ("config.json", "manifest.json", "metrics.jsonl", "episodes.jsonl", "checkpoints", "tb"):
        assert (run / name).exists(), name


def test_stacked_and_per_agent_observations_agree(run: omad.Run):
    policy = omad.load_policy(run, seed=1)
    rows = [np.full((7, 1), 0.3, np.float32), np.full((7, 2), -0.2, np.float32)]
    stacked = np.stack([np.pad(rows[0], ((0, 0), (0, 1))), rows[1]], axis=1)
    apart = policy.act(rows, jax.random.key(3))
    joint = np.asarray(policy.act(stacked, jax.random.key(3)))
    assert [a.shape for a in apart] == [(7, 1), (7, 2)]
    np.testing.assert_array_equal(apart[0], joint[:, 0, :1])
    np.testing.assert_array_equal(apart[1], joint[:, 1])
    assert np.all(np.abs(joint) <= 1)
    assert np.all(joint[:, 0, 1] == 0)


def test_without_a_key_actions_are_noise_free(run: omad.Run):
    policy = omad.load_policy(run)
    obs = np.zeros((2, 2), np.float32)
    np.testing.assert_array_equal(policy.act(obs), policy.act(obs))
    assert not np.array_equal(policy.act(obs, jax.random.key(0)), policy.act(obs, jax.random.key(1)))


def test_seeds_are_different_policies(run: omad.Run):
    first, second = (jax.tree.leaves(omad.load_policy(run, seed=s).policy) for s in (0, 1))
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_neither_critic_nor_env_is_needed(run: omad.Run, monkeypatch: pytest.MonkeyPatch):
    from omad import envs
    from omad.run import folder

    def refuse(*_: object) -> None:
        raise AssertionError("not needed to act")

    monkeypatch.setattr(envs, "make", refuse)
    restored = []
    real = folder.Checkpoint.restore
    monkeypatch.setattr(
        folder.Checkpoint,
        "restore",
        lambda self, part, like: restored.append(part) or real(self, part, like),
    )
    omad.load_policy(run).act(np.zeros((2, 2), np.float32))
    assert restored == ["policy"]


@pytest.mark.parametrize("obs", [np.zeros((3, 2)), np.zeros((2, 3)), [np.zeros(1), np.zeros(1)], [np.zeros(1)]])
def test_wrong_shapes_are_refused(run: omad.Run, obs):
    with pytest.raises(UserError, match="needs"):
        omad.load_policy(run).act(obs)


def test_unknown_seeds_are_refused(run: omad.Run):
    with pytest.raises(UserError, match="no seed 5; it has 0, 1"):
        omad.load_policy(run, seed=5)
