"""The interface of loggers, and the records that they get."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np


class RunInfo(NamedTuple):
    """The run that a logger is opened for."""

    path: Path
    """The run folder."""
    config: Mapping[str, Any]
    """The configuration as plain values, hyperparameters below `algo`."""
    manifest: Mapping[str, Any]
    seeds: tuple[int, ...]
    env_steps: int
    """Env steps of each seed done before: 0, or where the run continues. What was logged beyond it is logged again."""


class Evaluation(NamedTuple):
    """One evaluation of one training seed."""

    env_steps: int
    seed: int
    actions: Literal["sampled", "noise_free"]
    eval_seed: int
    """Seed of initial states and action noise."""
    returns: np.ndarray
    """`(episode,)` undiscounted team returns."""
    info: Mapping[str, float]
    """The env's extra numbers, summed over an episode, mean over episodes."""

    def values(self) -> dict[str, float]:
        """The mean return and the extra numbers under the names of metrics."""
        label = "eval" if self.actions == "sampled" else "eval_noise_free"
        extra = {f"{label}/{name}": value for name, value in self.info.items()}
        return {f"{label}/return": float(self.returns.mean())} | extra


class Progress(NamedTuple):
    """The progress of a run, about once a second."""

    env_steps: int
    total_steps: int
    steps_per_s: float
    """Env steps of one seed per second, evaluations and checkpoints left out."""
    updates_per_s: float
    """Gradient steps per second, all seeds together."""
    seconds_left: float
    last: dict[str, float]
    """Newest metrics and evaluation, averaged over seeds."""
    event: str
    """`compile` (begins), `run`, `log`, `eval` or `save` (has just been done)."""


class Logger:
    """Base class: override what you need. All numbers are host values; `env_steps` counts those of one seed.

    A run calls `start` once, then the others, then `close`, also when it is stopped or fails.
    """

    def start(self, run: RunInfo) -> None:
        """The run starts, or continues from `run.env_steps`."""

    def metrics(self, env_steps: int, seed: int, values: Mapping[str, float | int]) -> None:
        """Means of one seed's metrics since the last call."""

    def evaluation(self, evaluation: Evaluation) -> None:
        """One seed has been evaluated with one kind of actions."""

    def picture(self, env_steps: int, seed: int, image: np.ndarray) -> None:
        """An episode of one seed's policies, `(height, width, 3)` bytes: of JAX envs that draw, at a run's end."""

    def event(self, name: str, env_steps: int, text: str) -> None:
        """An event with a sentence: `note`, `stop` or `end`."""

    def progress(self, progress: Progress) -> None:
        """About once a second; for live displays."""

    def close(self) -> None:
        """The run has ended or stopped."""
