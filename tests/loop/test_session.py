"""What a run writes and says of its numbers, with an algorithm whose numbers are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad import envs
from omad.config import RunConfig, resolve
from omad.evaluate import Episodes
from omad.keys import Stream, run_key, stream
from omad.loggers import Logger
from omad.loop import build as building
from omad.loop.build import Built, build
from omad.loop.session import Session
from omad.run.folder import RunFolder
from omad.types import Algorithm, Mean

LINES = (40, 60, 80, 100, 120)
"""Env steps of the lines after the warm-up, each of them 20 updates after the one before."""
EDGES = (0.02, 0.001, 0.02, 0.03, 0.04)
"""Mass on the edge atoms of each line: more than 1 % in the first one and in the last three."""
RETURNS = {"sampled": [[1.0, 3.0, 5.0], [7.0, 9.0, 14.0]], "noise_free": [[2.0, 2.0, 2.0], [3.0, 4.0, 5.0]]}


def counting() -> Algorithm:
    """Measures the count of each update, that of odd ones apart, what it began with, and mass on the edge atoms."""
    spec, masses = envs.make("probe/push").spec, jnp.asarray(EDGES)

    def act(policy: Any, obs: Any, key: Any, explore: bool) -> Any:
        del key, explore
        return jnp.tanh(policy) * jnp.ones((*obs.shape[:-1], spec.act_dim)) * spec.act_mask

    def update(learner: Any, batch: Any, key: Any, count: Any) -> Any:
        del batch, key
        odd = (count % 2).astype(float)
        return learner, {
            "toy/count": Mean.of(count),
            "toy/odd": Mean(odd * count, odd),
            "toy/never": Mean(jnp.zeros(()), jnp.zeros(())),
            "toy/own": Mean.of(learner),
            "critic/target_edge_mass": Mean.of(masses[(count - 1) // 20]),
        }

    return Algorithm(
        init=jax.random.normal, policy=lambda learner: learner, act=act, update=update, gamma=0.9, n_step=1
    )


def known(kind: str, asked: list[tuple[int, int]]) -> Any:
    """An evaluation that gives `RETURNS`, and notes for which seed and step it was asked."""

    def evaluate(policies: Any, eval_seed: Any, step: Any, stop: Any) -> Episodes:
        del stop
        asked.append((int(eval_seed), int(step)))
        returns = jnp.asarray(RETURNS[kind])[: policies.shape[0]]
        return Episodes(returns, jnp.ones(returns.shape, jnp.int32), {})

    return evaluate


def config_of(seeds: int) -> RunConfig:
    return resolve(
        "probe/push", "omad", "tiny", total_steps=120, warmup_steps=20, n_envs=2, updates_per_step=2, batch_size=4,
        buffer_size=60, log_every=20, eval_every=60, eval_episodes=3, eval_seed=5, save_every=120, seeds=seeds,
        v_max=8.0,
    )  # fmt: skip


class Notes(Logger):
    """What a run says, and when."""

    def __init__(self) -> None:
        self.said: list[tuple[int, str]] = []

    def event(self, name: str, env_steps: int, text: str) -> None:
        if name == "note":
            self.said.append((env_steps, text))


def begun(path: Path, config: RunConfig, asked: list[tuple[int, int]], notes: Notes) -> Session:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "make_algorithm", lambda *_: counting())
        built: Built = build(config, envs.make(config.task))
    built = built._replace(sampled=known("sampled", asked), noise_free=known("noise_free", asked))
    run = RunFolder.create(path, config, {"omad": "test", "spec": dataclasses.asdict(built.spec)})
    return Session(run, built, [notes])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, list[tuple[int, int]], Notes]:
    """A run of two seeds, for what its evaluations were asked, and what it said."""
    asked, notes = list[tuple[int, int]](), Notes()
    session = begun(tmp_path_factory.mktemp("whole") / "run", config_of(2), asked, notes)
    session.begin()
    assert session.go().env_steps == 120
    session.run.close()
    return session, asked, notes


def test_a_line_holds_the_means_since_the_line_before(whole: tuple[Session, list[tuple[int, int]], Notes]) -> None:
    """Of the updates in which something was measured; a line of the warm-up has none."""
    session = whole[0]
    lines, places = session.run.lines("metrics.jsonl"), [(step, seed) for step in (20, *LINES) for seed in (0, 1)]
    assert [(line["step"], line["seed"]) for line in lines] == places
    assert not any(name.startswith("toy/") for line in lines[:2] for name in line)
    own = [float(jax.random.normal(stream(run_key(seed), Stream.INIT, 0))) for seed in (0, 1)]
    for i, line in enumerate(lines[2:]):
        first = 1 + 20 * (i // 2)
        assert line["gradient_steps"] == first + 19
        assert line["toy/count"] == pytest.approx(first + 9.5)
        assert line["toy/odd"] == pytest.approx(first + 9.0)
        assert line["critic/target_edge_mass"] == pytest.approx(EDGES[i // 2])
        assert line["toy/own"] == pytest.approx(own[i % 2], rel=1e-5)
        assert "toy/never" not in line
    assert own[0] != pytest.approx(own[1], abs=0.01)
    assert session.last["toy/count"] == pytest.approx(90.5)
    assert session.last["toy/own"] == pytest.approx(sum(own) / 2, abs=1e-5)
    np.testing.assert_allclose(session.context.metrics["toy/own"], own, rtol=1e-5)


def test_a_support_that_is_too_narrow_is_said_once(whole: tuple[Session, list[tuple[int, int]], Notes]) -> None:
    """At the second line in a row with more than 1 %; the one before the last, here."""
    said = [(step, text) for step, text in whole[2].said if "edge atoms" in text]
    assert len(said) == 1
    step, text = said[0]
    assert step == 100 and text.startswith("3.0% of the targets' mass") and "raise --v-max, now 8, to 16" in text


def test_evaluations_are_asked_for_with_the_runs_own_seed(
    whole: tuple[Session, list[tuple[int, int]], Notes],
) -> None:
    """And with the vector step, which names their noise; each kind of actions once."""
    assert whole[1] == [(5, 30), (5, 30), (5, 60), (5, 60)]
    lines = whole[0].run.lines("episodes.jsonl")
    assert {line["eval_seed"] for line in lines} == {5}
    assert [line["returns"] for line in lines[:4]] == [*RETURNS["sampled"], *RETURNS["noise_free"]]


def test_the_return_is_the_mean_over_seeds_with_its_standard_error(
    whole: tuple[Session, list[tuple[int, int]], Notes], tmp_path: Path
) -> None:
    """Seeds of means 3 and 10, and 2 and 4; of a single seed the error is that of its episodes."""
    last = whole[0].last
    assert (last["eval/return"], last["eval/return_se"]) == pytest.approx((6.5, 3.5))
    assert (last["eval_noise_free/return"], last["eval_noise_free/return_se"]) == pytest.approx((3.0, 1.0))
    alone = begun(tmp_path / "run", config_of(1), [], Notes())
    carry: Any = SimpleNamespace(learner=jnp.zeros(1))
    alone.carry = carry
    alone._evaluate()
    alone.run.close()
    error = 2.0 / np.sqrt(3)
    assert (alone.last["eval/return"], alone.last["eval/return_se"]) == pytest.approx((3.0, error))
    assert alone.last["eval_noise_free/return_se"] == 0.0
