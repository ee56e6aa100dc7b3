"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from omad import files, schema
from omad.extras import require
from omad.loggers.base import Evaluation, Logger, RunInfo


class Wandb(Logger):
    """Metrics and returns for a Weights & Biases server, or offline (`mode="offline"`, then `wandb sync`).

    The id of its run is kept in the run folder, so that a resumed run continues there. What a killed run logged after
    its last checkpoint stays, for nothing can be taken back, and is not logged again; offline, where it is not known
    what a server will have, each part of a resumed run holds what it did. Env steps are also the server's own steps.
    Needs the extra `wandb`.

    Args:
        project: Name of the project.
        name: Name of the run; by default that of the run folder.
        **options: Anything else that `wandb.init` takes: `mode`, `entity`, `group`, `tags`, ...

    Raises:
        UserError: The package is missing.
    """

    def __init__(self, project: str = "omad", name: str | None = None, **options: Any) -> None:
        require("wandb", "The logger Wandb")
        import wandb

        self._wandb, self._project, self._name, self._options = wandb, project, name, options
        self._run: Any = None

    def start(self, run: RunInfo) -> None:
        """Start a run there, or continue the one that the run folder names."""
        kept = run.path / "wandb.json"
        try:
            known = schema.read_json(kept, dict[str, str]).get("id")
        except FileNotFoundError:
            known = None
        self._run = self._wandb.init(
            project=self._project, name=self._name or run.path.resolve().name, id=known, resume="allow",
            dir=str(run.path), config=dict(run.config), reinit="create_new", **self._options,
        )  # fmt: skip
        files.write_text(kept, f'{{"id": "{self._run.id}"}}\n', run.path)
        self._seeds, self._first = len(run.seeds), self._run.starting_step
        for prefix in ("*", "seed-*"):
            self._run.define_metric(prefix, step_metric="env_steps")

    def _log(self, env_steps: int, values: Mapping[str, Any]) -> None:
        if env_steps >= self._first:
            self._run.log({"env_steps": env_steps, **values}, step=env_steps)

    def metrics(self, env_steps: int, seed: int, values: Mapping[str, float | int]) -> None:
        """One value a metric over env steps."""
        prefix = "" if self._seeds == 1 else f"seed-{seed}/"
        self._log(env_steps, {f"{prefix}{name}": value for name, value in values.items()})

    def evaluation(self, evaluation: Evaluation) -> None:
        """The mean return and the env's extra numbers."""
        self.metrics(evaluation.env_steps, evaluation.seed, evaluation.values())

    def picture(self, env_steps: int, seed: int, image: np.ndarray) -> None:
        """As an image."""
        self._log(env_steps, {"episode": self._wandb.Image(image)})

    def event(self, name: str, env_steps: int, text: str) -> None:
        """Kept in the summary."""
        self._run.summary[name] = f"{env_steps}: {text}"

    def close(self) -> None:
        """Hand over what is waiting."""
        if self._run is not None:
            self._run.finish()
