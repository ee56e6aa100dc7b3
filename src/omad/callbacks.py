"""Callbacks of a run: objects whose methods are called on its progress, and which may stop it or save from it.

A callback that fails ends the run with its checkpoint and a sentence that names it. Where a callback keeps anything
between calls, it rebuilds that in `on_start` from what the run folder holds, so that a resumed run does what an uncut
one would have done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from omad.algos.validate import fitted
from omad.config import RunConfig
from omad.errors import UserError
from omad.evaluate import Episodes
from omad.run.folder import RunFolder
from omad.run.records import EARLY, PLATEAU, rounded
from omad.spec import EnvSpec
from omad.tree import at


class Context:
    """The run as a callback sees it: its progress, policies and evaluations, and how to stop it."""

    def __init__(self, folder: RunFolder, spec: EnvSpec, policies: Callable[[], Any]) -> None:
        self.folder, self.spec, self._policies = folder, spec, policies
        self.env_steps = 0
        """Env steps of each seed so far."""
        self.gradient_steps = 0
        """Gradient steps of each seed so far."""
        self.metrics: Mapping[str, np.ndarray] = {}
        """Newest metrics, `(seed,)` each; not a number where a seed has none. Empty until this process has some."""
        self.evaluation: Mapping[str, Episodes] = {}
        """The newest evaluation: `sampled`, and `noise_free` where the run has it; `(seed, episode)` leads each.

        Empty until this process has evaluated; `evaluations()` has those before."""
        self.stopped: str | None = None
        """Why a callback stops the run."""

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return self.folder.config

    @property
    def seeds(self) -> tuple[int, ...]:
        """Training seeds, in the order of all leading axes."""
        return self.folder.config.all_seeds

    def policies(self) -> Any:
        """The current policies of all seeds: a pytree on the device with a leading seed axis."""
        return self._policies()

    def evaluations(self) -> list[dict[str, Any]]:
        """All evaluations so far, as the run folder holds them; a dict a seed, step and kind of actions."""
        return self.folder.evaluations()

    def stop(self, reason: str) -> None:
        """Save and end the run; it can be resumed. The manifest names the reason."""
        self.stopped = self.stopped or str(reason) or "a callback"


class Callback:
    """Base class: override what you need."""

    def on_start(self, context: Context) -> None:
        """The run starts, or continues from `context.env_steps`."""

    def on_progress(self, context: Context) -> None:
        """About once a second. What it decides depends on the clock, so it is not repeated by a resumed run."""

    def on_metrics(self, context: Context) -> None:
        """`context.metrics` is new."""

    def on_evaluation(self, context: Context) -> None:
        """`context.evaluation` is new."""

    def on_save(self, context: Context) -> None:
        """A checkpoint has been written."""

    def on_end(self, context: Context) -> None:
        """The run is complete, or was stopped; `context.stopped` says why if a callback stopped it.

        It is not called where training diverged or the env failed.
        """


class EarlyStopping(Callback):
    """Stop when the sampled return, averaged over seeds, has not risen for some evaluations.

    Args:
        patience: Evaluations without a rise of more than `min_delta` after which the run is stopped.
        min_delta: What counts as a rise, in units of the return.
        target: Stop as soon as the return reaches this, if given.

    Raises:
        UserError: A number cannot be.
    """

    def __init__(self, patience: int = 5, min_delta: float = 0.0, target: float | None = None) -> None:
        self.patience, self.min_delta = fitted("patience", patience, int), fitted("min_delta", min_delta, float)
        self.target = fitted("target", target, float | None)
        if self.patience < 1:
            raise UserError(f"patience is {patience!r}; it must be a whole number of evaluations, at least 1.")
        if self.min_delta < 0:
            raise UserError(f"min_delta is {min_delta!r}; it must be a number, at least 0.")

    def on_start(self, context: Context) -> None:
        """Count again what was evaluated before; after a stop of its own, the count starts at 0."""
        self._best, self._since = -np.inf, 0
        stops = context.folder.manifest.get("stops", [])
        after = max((stop["env_steps"] for stop in stops if stop["reason"].startswith(EARLY)), default=0)
        means: dict[int, list[float]] = {}
        for row in context.evaluations():
            if row["actions"] == "sampled" and after < row["step"] <= context.env_steps:
                means.setdefault(row["step"], []).append(row["mean"])
        for step in sorted(means):
            self._count(float(np.mean(means[step])))
        if means:  # killed between an evaluation that stops the run and the note of it
            self._judge(context, float(np.mean(means[max(means)])))

    def _count(self, value: float) -> None:
        if value > self._best + self.min_delta:
            self._best, self._since = value, 0
        else:
            self._since += 1

    def _judge(self, context: Context, value: float) -> None:
        if self.target is not None and value >= self.target:
            context.stop(f"{EARLY}: the return {value:.4g} has reached the target {self.target:g}")
        elif self._since >= self.patience:
            context.stop(f"{PLATEAU} {self._best:.4g} in {self._since} evaluations")

    def on_evaluation(self, context: Context) -> None:
        """Look at the newest return."""
        # Rounded as the run folder keeps them, so that a resumed run counts alike.
        returns = np.asarray([[rounded(r) for r in seed] for seed in context.evaluation["sampled"].returns])
        value = float(np.mean(returns.mean(1)))
        self._count(value)
        self._judge(context, value)


class BestPolicy(Callback):
    """Keep each seed's policy of the highest sampled evaluation return in `checkpoints/best`; on by default.

    The highest of many noisy evaluations is biased upwards: evaluate it again (`omad eval RUN --which best`).
    """

    def on_start(self, context: Context) -> None:
        """Save what an evaluation at this very env step found but could not be written, as when a disk was full."""
        rows = [row for row in context.folder.evaluations() if row["step"] == context.env_steps]
        found = {row["seed"]: row["mean"] for row in rows if row["actions"] == "sampled"}
        done = {seed for seed, one in context.folder.best.entries().items() if one.env_steps == context.env_steps}
        self._keep(context, {seed: mean for seed, mean in found.items() if seed not in done})

    def on_evaluation(self, context: Context) -> None:
        """Save the policies of those seeds whose return is the highest so far."""
        means = np.asarray(context.evaluation["sampled"].returns, float).mean(1)
        self._keep(context, dict(zip(context.seeds, map(float, means), strict=True)))

    def _keep(self, context: Context, means: Mapping[int, float]) -> None:
        known = context.folder.best.entries()
        better = [seed for seed, mean in means.items() if seed not in known or mean > known[seed].mean]
        if not better:
            return
        policies = jax.device_get(context.policies())
        for seed in better:
            policy = at(policies, context.seeds.index(seed))
            context.folder.best.save(seed, context.env_steps, means[seed], policy)


class TimeLimit(Callback):
    """Stop after a time of this process, wherever the run is.

    Args:
        seconds: How long.

    Raises:
        UserError: It is no number, or below 0.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = fitted("seconds", seconds, float)
        if self.seconds < 0:
            raise UserError(f"seconds is {seconds!r}; it must be a number, at least 0.")

    def on_start(self, context: Context) -> None:
        """The clock begins."""
        self._end = time.monotonic() + self.seconds

    def on_progress(self, context: Context) -> None:
        """Look at the clock."""
        if time.monotonic() > self._end:
            context.stop(f"TimeLimit: {self.seconds:g} s are over")
