"""Worlds whose saves are of no use: found when training starts, and never a reason to lose a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omad.envs.pool import Pool
from omad.errors import EnvFailed, UnevenSaves
from omad.loop.fused import LoopConfig
from omad.loop.hosted import Hosted
from omad.spec import EnvSpec


class FakePool(Pool):
    """Stands for running envs: what each save gives, and what loading raises."""

    def __init__(self, saves: list[Any], fault: Exception | None = None) -> None:
        self.n_envs, self.saves, self.fault, self.closed = 2, saves, fault, False

    def save(self, number: int) -> np.ndarray:
        found = self.saves.pop(0)
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, np.ndarray) else np.full((2, found), 7, np.uint8)

    def load(self, table: np.ndarray, number: int) -> None:
        if self.fault:
            raise self.fault

    def send(self, actions: np.ndarray, seeds: np.ndarray, reset_seeds: np.ndarray, number: int) -> None:
        assert actions.shape == (2, 2, 1)

    def receive(self, number: int) -> Any:
        return None

    def close(self) -> None:
        self.closed = True


def loop(pool: Pool) -> Hosted:
    """A loop of which only the envs are there."""
    hosted = Hosted.__new__(Hosted)
    hosted.spec = EnvSpec("x", (1, 1), (1, 1), 0, 5)
    hosted.config = LoopConfig(n_envs=2, updates_per_step=1, batch_size=2, buffer_rows=4, warmup_vector_steps=1)
    hosted._pool, hosted._live, hosted.why_inexact, hosted._bytes_each = pool, None, "", None
    return hosted


def test_good_saves_are_kept() -> None:
    hosted = loop(FakePool([5, 5, 5, 5, 5]))
    assert hosted._try_saves(1)
    assert hosted._snapshot(1, 0).shape == (1, 2, 5)
    assert hosted._snapshot(1, 3).shape == (1, 2, 5)
    assert hosted.why_inexact == ""


@pytest.mark.parametrize(
    ("saves", "fault", "words", "ended"),
    [
        ([0], None, "nothing to save", False),
        ([5, 5, np.full((2, 5), 8, np.uint8)], None, "something else than what was loaded", False),
        ([5, 6, 5], None, "5 bytes, then 6", False),
        ([UnevenSaves("of two lengths.")], None, "of two lengths", True),
        ([5, EnvFailed("no disk.")], None, "no disk", True),
        ([5, 5], EnvFailed("it has no load_state."), "no load_state", True),
    ],
)
def test_bad_saves_are_found_at_the_start(saves: list[Any], fault: Any, words: str, ended: bool) -> None:
    """Worlds that raised something are gone, and new ones are started."""
    pool = FakePool(saves, fault)
    hosted = loop(pool)
    hosted._try_saves(1)
    assert words in hosted.why_inexact
    assert pool.closed == ended
    hosted._pool = FakePool([])
    assert hosted._snapshot(1, 0).shape == (1, 2, 0)


@pytest.mark.parametrize("later", [9, UnevenSaves("of two lengths.")])
def test_saves_that_change_later_are_given_up(later: Any) -> None:
    hosted = loop(FakePool([5, 5, 5, 5, later]))
    hosted._try_saves(1)
    assert hosted._snapshot(1, 0).shape == (1, 2, 5)
    assert hosted._snapshot(1, 8).shape == (1, 2, 0)
    assert hosted.why_inexact
    assert hosted._snapshot(1, 9).shape == (1, 2, 0)
