"""Every example runs, by the same functions that its own `__main__` calls; only sizes are smaller."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import omad
from omad import algos, tasks

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY: dict[str, Any] = {"preset": "tiny"}


@pytest.fixture(autouse=True)
def _as_from_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(algos, "_registered", {})


def example(name: str) -> Any:
    return importlib.import_module(name)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_are_short_and_tested(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60
    assert f'example("{path.stem}")' in Path(__file__).read_text()


@pytest.mark.parametrize("name", ["own_jax_env", pytest.param("own_logger", marks=pytest.mark.slow), "early_stopping"])
def test_it_trains(name: str, tmp_path: Path) -> None:
    made = {"own_jax_env": example("own_jax_env"), "own_logger": example("own_logger"),
            "early_stopping": example("early_stopping")}[name]  # fmt: skip
    changes: dict[str, Any] = {"limit": 10.0} if name == "early_stopping" else {}
    run = made.main(tmp_path / "run", **TINY, **changes)
    if name == "early_stopping":
        assert run.stopped == "the temperature is below 10" and not run.complete
        assert [stop["reason"] for stop in omad.load_run(run).manifest["stops"]] == [run.stopped]
    else:
        assert run.complete and run.evaluations()["return"].shape == (1, 1)
    if name == "own_logger":
        best = run.evaluations()["return"].max()
        assert (run / "high-score.txt").read_text().startswith(f"{best:.2f} at env step")
        rows = (run / "evaluations.csv").read_text().splitlines()
        assert rows[0] == "step,seed,actions,episode,return" and len(rows) == 1 + 2 * 4
    if name == "own_jax_env":
        assert run.manifest["spec"]["obs_dims"] == [2, 2]


@pytest.mark.slow
def test_unequal_agents_of_a_pettingzoo_env_act_in_its_own_units(tmp_path: Path) -> None:
    run = example("own_pettingzoo_env").main(tmp_path / "run", **TINY)
    acts = run.policy().act({"arm": np.zeros(4), "winch": np.zeros(2)}, 3)
    assert acts["arm"].shape == (2,) and acts["winch"].shape == (1,)
    assert 0 <= acts["winch"][0] <= 0.5


def test_an_algorithm_of_ones_own(tmp_path: Path) -> None:
    run = example("own_algorithm").main(tmp_path / "run", preset="tiny", pace=0.5)
    assert np.isfinite(run.metrics()["policy/step"]).any()


@pytest.mark.slow
def test_a_search_prunes_and_remembers(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'omad[tune]'")
    study = example("optuna_search").main(tmp_path, trials=2, preset="tiny", total_steps=400)
    assert len(study.trials) == 2 and np.isfinite(study.best_value)


@pytest.mark.slow
def test_fine_tuning_takes_over_what_fits(tmp_path: Path) -> None:
    first, second = example("fine_tune").main(tmp_path / "first", tmp_path / "second", **TINY)
    facts = second.manifest["init_from"]
    assert facts["run"] == [str(first.path.resolve())] and facts["taken"] > 10 and facts["left"] == []
    returns = example("own_loop").main(second.path, episodes=1)
    assert len(returns) == 1 and np.isfinite(returns).all()


@pytest.mark.slow
def test_an_env_of_jaxmarl(tmp_path: Path) -> None:
    pytest.importorskip("jaxmarl", reason="JaxMARL is not installed: pip install 'omad[jaxmarl]'")
    run = example("jaxmarl_env").main(tmp_path / "run", **TINY)
    assert run.config.task in (example("jaxmarl_env").TASK, tasks.find(example("jaxmarl_env").TASK).name)
    assert run.manifest["spec"]["horizon"] == 26 or run.manifest["spec"]["horizon"] == 25
