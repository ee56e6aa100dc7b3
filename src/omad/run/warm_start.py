"""Start a run from the parameters of another one.

All leaves of the learner are taken over whose path and shape fit: actors, critics, targets, their statistics and
temperatures, and with them the scale of normalised rewards, in whose units critics are. A Polyak copy that the other
run did not keep begins as what it is a copy of. Optimisers (leaves below a field that is called `opt` or ends in
`_opt`) are initialised. So are critics whose values would mean something else, for the discount, the support or the
factor on rewards is another one, or rewards are normalised in one of the runs only (then the temperature as well, and
wherever it is fixed); and critics of which a part does not fit, for layers that were not trained together know nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from omad.config import RunConfig, source_of
from omad.errors import UserError
from omad.run import arrays
from omad.run.checkpoints import Checkpoint
from omad.run.folder import RunFolder
from omad.run.places import members
from omad.run.records import Part

_ANEW = re.compile(r"^learner\.(.*[._])?opts?(\.|$)|^returns\.running$")
"""Optimisers, and the returns of episodes that are not gone on with."""
_VALUES = re.compile(r"^learner\.(inner\.)?(critics|stats|value_stats)")
_TEMPERATURE = re.compile(r"^learner\.(inner\.)?(temperatures?|log_alpha)\b")
_COPY = re.compile(r"^(learner\.(?:inner\.)?)(actors|critics)_(?:average|target)\.((?:[01]\.)?)")
"""Polyak copies: of actors or critics, or of critics and their running statistics, which are a pair."""


class Learned(NamedTuple):
    """What a run may take over from another one: a part of its carry."""

    learner: PyTree
    returns: PyTree
    """The statistics that rewards are divided by; None where they are not."""


class Source(NamedTuple):
    """Where parameters come from."""

    runs: tuple[RunFolder, ...]
    """One, or one a seed."""
    seed: int | None
    """The seed that was asked for."""

    def of_seed(self, seed: int) -> tuple[RunFolder, int]:
        """The run and the place in it that a training seed starts from."""
        every = [(run, i, own) for run in self.runs for i, own in enumerate(run.config.all_seeds)]
        wanted = seed if self.seed is None else self.seed
        found = next((one for one in every if one[2] == wanted), every[0])
        return found[:2]


def find(text: str, facts: Mapping[str, Any] | None = None) -> Source:
    """The run that `RUN` or `RUN@SEED` names.

    Args:
        text: As in the configuration.
        facts: What the manifest says of it, if the run had begun before.

    Raises:
        UserError: There is no such run, seed or checkpoint, or it has changed since the run began.
    """
    path, number = source_of(text)
    runs = tuple(RunFolder.open(inside) for inside in members(Path(path)))
    seeds = [seed for run in runs for seed in run.config.all_seeds]
    if number and int(number) not in seeds:
        raise UserError(f"init_from is {text!r}, but {path} has no seed {number}; it has {', '.join(map(str, seeds))}.")
    source = Source(runs, int(number) if number else None)
    if facts and facts.get("sha256") != [_newest(run).index.parts["rest"].sha256 for run in runs]:
        raise UserError(f"init_from is {text!r}, which has other checkpoints than when this run began; restore them.")
    return source


def _newest(run: RunFolder) -> Checkpoint:
    found = run.checkpoints()
    if not found:
        raise UserError(f"init_from: {run.path} has no checkpoint yet; resume it until it has saved once.")
    return found[0]


@functools.lru_cache(maxsize=1)
def _read(parts: tuple[tuple[Path, Part], ...]) -> list[dict[str, np.ndarray]]:
    """What checkpoints hold of it, kept: what the making of a run's folder looks at is what the run starts from."""
    return [arrays.read(path, part, tuple(f"{name}." for name in Learned._fields)) for path, part in parts]


def other_units(old: RunConfig, new: RunConfig) -> list[str]:
    """The settings by which values of one run mean something else in the other, with both."""
    pairs: list[tuple[str, Any, Any]] = [("reward_norm", old.reward_norm, new.reward_norm)]
    if old.reward_norm == new.reward_norm == "return":
        pairs.append(("reward_bound", old.reward_bound, new.reward_bound))
    pairs.append(("gamma", getattr(old.algo, "gamma", None), getattr(new.algo, "gamma", None)))
    scalar = "scalar" == getattr(old.algo, "critic_kind", "") == getattr(new.algo, "critic_kind", "")
    for name in ("reward_scale",) if scalar else ("v_max", "reward_scale"):
        pairs.append((name, getattr(old.algo, name, None), getattr(new.algo, name, None)))
    return [f"{name} is {now}, there {then}" for name, then, now in pairs if then != now]


def load(source: Source, fresh: Learned, config: RunConfig) -> tuple[Learned, dict[str, Any]]:
    """A learner with the parameters of another run.

    Args:
        source: From `find`.
        fresh: Arrays or shapes with a leading seed axis.
        config: Of the new run.

    Returns:
        The same with what was taken over (shapes stay shapes), and what was and was not, for the manifest.

    Raises:
        UserError: Nothing fits, or a checkpoint is damaged.
    """
    seeds, before = config.all_seeds, source.runs[0].config
    if before.obs_norm != config.obs_norm:
        raise UserError(
            f"init_from: obs_norm is {config.obs_norm}, but {before.obs_norm} in {source.runs[0].path}; its networks "
            f"would see other inputs. Give --obs-norm {before.obs_norm}."
        )
    units = other_units(before, config)
    fixed = getattr(config.algo, "alpha_mode", "") == "fixed"
    scaled = any(word.startswith(("reward_norm", "reward_bound")) for word in units)
    newest = [_newest(run) for run in source.runs]
    found = _read(tuple((one.file("rest"), one.index.parts["rest"]) for one in newest))
    stored = {run.path: rows for run, rows in zip(source.runs, found, strict=True)}
    places = [source.of_seed(seed) for seed in seeds]
    named = arrays.leaves_of(fresh)
    rows_of = {name: [_array(stored[run.path], name) for run, _ in places] for name in named}

    def fits(name: str, leaf: Any) -> bool:
        due = leaf.shape[1:], leaf.dtype
        return bool(leaf.size) and all(row is not None and (row.shape[1:], row.dtype) == due for row in rows_of[name])

    values = [fits(n, leaf) for n, leaf in named.items() if leaf.size and _VALUES.search(n)]
    parts = any(values) and not all(values)
    began = {"critics": _VALUES} if units or parts else {}
    began |= {"temperature": _TEMPERATURE} if fixed or scaled else {}
    anew = [_ANEW, *began.values()]
    leaves, taken, left = [], [], []
    for name, leaf in named.items():
        rows = rows_of[name]
        if any(pattern.search(name) for pattern in anew):
            leaves.append(leaf)
        elif fits(name, leaf):
            chosen = [row[place] for row, (_, place) in zip(rows, places, strict=True) if row is not None]
            leaves.append(leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(np.stack(chosen)))
            taken.append(name)
        else:
            leaves.append(leaf)
            left.append(name)
    origin = ", ".join(str(run.path) for run in source.runs)
    if not any(name.startswith("learner.") for name in taken):
        raise UserError(
            f"init_from: nothing of {origin} ({source.runs[0].config.algorithm} on {source.runs[0].config.task}) fits "
            "this run; algorithm, agents' sizes, network widths and obs_norm must agree at least in part."
        )
    facts = {
        "run": [str(run.path.resolve()) for run in source.runs],
        "seeds": [run.config.all_seeds[place] for run, place in places],
        "env_steps": [one.env_steps for one in newest],
        "sha256": [one.index.parts["rest"].sha256 for one in newest],
        "taken": len(taken),
        "left": [name.removeprefix("learner.") for name in left],
        "anew": list(began),
        "units": units,
    }
    return jax.tree.unflatten(jax.tree.structure(fresh), leaves), facts


def _array(stored: Mapping[str, np.ndarray], name: str) -> np.ndarray | None:
    """What is stored by a name; of a copy that is not there, what it is a copy of."""
    if name in stored or not (copy := _COPY.match(name)):
        return stored.get(name)
    before, kept, part = copy.groups()
    return stored.get(f"{before}{'stats' if part == '1.' else kept}.{name[copy.end() :]}")


def said(facts: Mapping[str, Any]) -> str:
    """One sentence about what was taken over."""
    left = facts["left"]
    rest = f"; not taken over, for names or shapes differ: {', '.join(left[:6])}" if left else ""
    more = f" and {len(left) - 6} more" if len(left) > 6 else ""
    began, units = facts.get("anew"), facts.get("units")
    values = f"; {' and '.join(began)} anew" if began else ""
    values += f", for values mean something else: {'; '.join(units)}" if units else ""
    values += ", for not all arrays of critics fit" if "critics" in (began or ()) and not units else ""
    return f"Started from {', '.join(facts['run'])}: {facts['taken']} arrays of the learner{rest}{more}{values}."
