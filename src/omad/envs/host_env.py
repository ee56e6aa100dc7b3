"""Envs that are not written in JAX: one running env in NumPy, and what is known about it beforehand.

An `EnvInstance` never resets itself and gives the true successor, like a `JaxEnv`. This file imports NumPy only, for
every worker process reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from omad.spec import EnvSpec, Symmetry


class HostObservation(NamedTuple):
    """What agents and critics observe at one step."""

    obs: np.ndarray
    """`(agent, obs)`, zeros behind the short rows."""
    state: np.ndarray
    """`(state,)`, for critics only."""


class StepResult(NamedTuple):
    """The result of one step; never of a reset."""

    next: HostObservation
    reward: float
    """Team reward."""
    terminated: bool
    """The task ended: no bootstrap."""
    truncated: bool
    """The clock ended: bootstrap."""
    info: Mapping[str, float] = MappingProxyType({})
    """One number for each of the spec's `info_keys`."""


@runtime_checkable
class EnvInstance(Protocol):
    """One running env."""

    def reset(self, seed: int) -> HostObservation:
        """Begin an episode; its start is a function of the seed (at most 64 bits) alone."""
        ...

    def step(self, action: np.ndarray, seed: int) -> StepResult:
        """Act `(agent, act)` in [-1, 1]; padded entries are zero. The seed is for envs that draw in a step."""
        ...

    def save(self) -> np.ndarray | bytes | None:
        """All that the next step depends on, as uint8 or bytes, always as many; None where that cannot be had."""
        ...

    def load(self, data: np.ndarray) -> None:
        """Go on from what `save` returned, here an array of uint8."""
        ...

    def render(self) -> np.ndarray:
        """A picture `(height, width, 3)` of bytes."""
        ...

    def close(self) -> None:
        """Give up windows and files."""
        ...


class HostEnv(NamedTuple):
    """An env that runs on the host: its sizes, and how to create a running instance."""

    spec: EnvSpec
    create: Callable[[bool], EnvInstance]
    """(whether it will have to render) -> a running env."""
    exact: bool = True
    """Whether its instances can be saved; if not, a resumed run begins new episodes."""
    notes: tuple[str, ...] = ()
    """Sentences that a user should read before training."""
    symmetry: Callable[[], Symmetry] | None = None
    """Works out what leaves the task as it is; only this package's own robots are asked."""


def stack(rows: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Vectors of unequal size as rows, zeros behind the short ones."""
    table = np.zeros((len(rows), width))
    for place, row in zip(table, rows, strict=True):
        place[: row.shape[0]] = row
    return table


def scale(action: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """From [-1, 1] (clipped) to a box, affinely; the ends are met exactly and never passed."""
    part = np.minimum(np.maximum(action, -1.0), 1.0)
    return np.minimum(np.maximum((1.0 - part) * (0.5 * low) + (1.0 + part) * (0.5 * high), low), high)
