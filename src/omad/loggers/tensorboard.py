"""Event files for TensorBoard, below `tb/` of the run folder, one a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from omad import files
from omad.loggers.base import Evaluation, Logger, RunInfo


class TensorBoard(Logger):
    """Metrics, returns, the configuration as text and as hyperparameters; pictures of an episode where JAX envs draw.

    Look at them with `pip install tensorboard` and `tensorboard --logdir RUN/tb`.
    """

    def start(self, run: RunInfo) -> None:
        """Open a writer a seed; what was written beyond the point of resuming is dropped by TensorBoard."""
        from tensorboardX import SummaryWriter

        root = run.path / "tb"
        files.make_folder(root, run.path)
        self._writers: dict[int, Any] = {}
        for seed in run.seeds:
            folder = root / f"seed-{seed}"
            files.make_folder(folder, run.path)
            # What is of the very step was written before it was saved, and is not written again.
            first = run.env_steps + 1 if run.env_steps else 0
            self._writers[seed] = SummaryWriter(str(folder), purge_step=first, flush_secs=10)
        if run.env_steps == 0:
            text = json.dumps(run.config, indent=1)
            for writer in self._writers.values():
                writer.add_text("config", f"```\n{text}\n```", 0)
                self._add_hyperparameters(writer, run.config)

    @staticmethod
    def _add_hyperparameters(writer: Any, config: Mapping[str, Any]) -> None:
        """For the page HPARAMS, in the writer's own file; the metric shown is the mean return."""
        from tensorboardX.summary import hparams

        flat = {**config, **(config.get("algo") or {})}
        plain = {k: v for k, v in flat.items() if isinstance(v, bool | int | float | str)}
        for summary in hparams(plain, {"eval/return": float("nan")}):
            writer.file_writer.add_summary(summary)

    def metrics(self, env_steps: int, seed: int, values: Mapping[str, float | int]) -> None:
        """One scalar a metric."""
        for name, value in values.items():
            self._writers[seed].add_scalar(name, value, env_steps)

    def evaluation(self, evaluation: Evaluation) -> None:
        """The mean return and the env's extra numbers."""
        self.metrics(evaluation.env_steps, evaluation.seed, evaluation.values())

    def picture(self, env_steps: int, seed: int, image: np.ndarray) -> None:
        """As an image."""
        self._writers[seed].add_image("episode", image, env_steps, dataformats="HWC")

    def event(self, name: str, env_steps: int, text: str) -> None:
        """As text of every seed."""
        for writer in self._writers.values():
            writer.add_text(name, text, env_steps)

    def close(self) -> None:
        """Write what is waiting."""
        for writer in getattr(self, "_writers", {}).values():
            writer.close()
