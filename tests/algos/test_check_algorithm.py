"""Mistakes in an algorithm of one's own are found before anything is compiled or made, and said in one sentence."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

import omad
from omad import algos
from omad.errors import UserError
from omad.types import Mean


def looks_at_a_number(learner: Any, *_: Any) -> Any:
    return (learner if learner.sum() > 0 else -learner), {}


def found(**metrics: Any) -> Any:
    return {"update": lambda learner, batch, key, count: (learner, metrics)}


def learned(function: Any) -> Any:
    return {"update": lambda learner, batch, key, count: (function(learner), {})}


MISTAKES = [
    (found(a=0.5), r"update\(\) returned the metric 'a' as float32\[\]; it must be a Mean.of\(one number\)"),
    (found(a=Mean.of(jnp.zeros(3))), r"the metric 'a' as a Mean of float32\[3\]"),
    (found(step=Mean.of(0.5)), "a metric called 'step'; it must have a name of its own"),
    (learned(lambda learner: {"x": learner}), r"learner of the structure \(\{'x': \*\}\); it must be \(\*\), as init"),
    (learned(lambda learner: learner[0]), r"learner as float32\[1\]; it must be float32\[2, 1\], as init"),
    (learned(lambda learner: learner.astype(int)), r"learner as int32\[2, 1\]; it must be float32\[2, 1\]"),
    ({"update": lambda learner, *_: learner}, r"update\(\) returned float32\[2, 1\]; it must return \(learner, dict"),
    ({"update": lambda learner, batch, key: None}, r"update does not take .* update\(learner, batch, key, count\)"),
    ({"update": looks_at_a_number}, r"update\(\) failed with TracerBoolConversionError.*test_check_algorithm.py"),
    ({"act": lambda policy, obs, key: policy}, r"act does not take .* act\(policy, obs, key, explore\)"),
    ({"act": lambda policy, *_: policy}, r"explore=True\) returned actions as float32\[2, 1\]; .*float32\[4, 2, 1\]"),
    ({"act": lambda policy, obs, key, explore: obs[0] if not explore else obs}, r"explore=False\) returned actions"),
    ({"init": lambda: 0.0}, r"init does not take what it is called with, init\(key\)"),
    ({"init": lambda key: {"k": key}}, r"init\(key\) returned learner\['k'\] as a random key"),
    ({"policy": lambda learner: None}, r"policy\(learner\) returned a NoneType without arrays"),
    ({"behaviour": lambda learner: learner[0]}, r"behaviour\(learner\) returned policy as .*, as policy\(\) gives it"),
    ({"gamma": 2.0}, "gamma is 2.0; it must be a number from 0 to 1"),
    ({"n_step": 0.5}, "n_step is 0.5; it must be a whole number"),
    ({"n_step": 10**6}, "n_step is 1000000, more than the [0-9]+ steps of each env"),
    (None, r"make\(config, spec\) returned a dict; it must return an omad.types.Algorithm"),
]


@pytest.mark.parametrize(("changed", "said"), MISTAKES)
def test_a_mistake_is_one_sentence_that_names_the_function(
    changed: dict[str, Any] | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("own_algorithm")
    monkeypatch.setattr(algos, "_registered", {"drift": "own_algorithm:DriftConfig"})
    right = module.make
    wrong = lambda config, spec: {} if changed is None else right(config, spec)._replace(**changed)  # noqa: E731
    monkeypatch.setattr(module, "make", wrong)
    with pytest.raises(UserError, match=said) as raised:
        omad.train("probe/relay", "drift", "tiny", tmp_path / "run")
    assert str(raised.value).startswith("The algorithm ") and "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_traced_field_that_is_looked_at_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it is JAX that says so, at length, once the loop compiles."""
    module = importlib.import_module("own_algorithm")
    monkeypatch.setattr(algos, "_registered", {"drift": "own_algorithm:DriftConfig"})
    monkeypatch.setattr(module.DriftConfig, "traced", ("gamma",), raising=False)
    right = module.make
    monkeypatch.setattr(module, "make", lambda config, spec: right(config, spec)._replace(gamma=config.gamma + 0.0))
    assert omad.train("probe/relay", "drift", "tiny", tmp_path / "run", loggers=()).complete

    def acting(config: Any, spec: Any) -> Any:
        made = right(config, spec)
        return made._replace(act=lambda *given: made.act(*given) if config.gamma > 0.5 else None)

    looking: list[Any] = [
        lambda config, spec: right(config, spec) if config.gamma > 0.5 else None,
        lambda config, spec: [right(config, spec)][0 if isinstance(config.gamma, float) else config.gamma.astype(int)],
        acting,
    ]
    for number, make in enumerate(looking):
        monkeypatch.setattr(module, "make", make)
        gamma = 0.8 + 0.01 * number  # a run of tests builds what is alike once
        with pytest.raises(UserError, match=r"asks for the value of a field .* \(gamma\).*test_check_algorithm.py"):
            omad.train("probe/relay", "drift", "tiny", tmp_path / "other", gamma=gamma)
        assert not (tmp_path / "other").exists()
