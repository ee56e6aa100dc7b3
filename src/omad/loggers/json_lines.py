"""`metrics.jsonl` and `episodes.jsonl` of the run folder: the record that resuming, reports and `load_run` read."""

from __future__ import annotations

from collections.abc import Mapping

from omad.loggers.base import Evaluation, Logger
from omad.run.folder import RunFolder
from omad.run.records import EPISODES, METRICS, rounded


class JsonLines(Logger):
    """Always first; the lines are those of the run folder, which cuts off what a resumed run writes again.

    Args:
        run: The run folder, open for writing.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    def metrics(self, env_steps: int, seed: int, values: Mapping[str, float | int]) -> None:
        """One line a seed."""
        self.run.write(METRICS, {"step": env_steps, "seed": seed, **values})

    def evaluation(self, evaluation: Evaluation) -> None:
        """One line a seed and kind of actions, with every episode's return."""
        line = {
            "step": evaluation.env_steps, "seed": evaluation.seed, "actions": evaluation.actions,
            "eval_seed": evaluation.eval_seed, "returns": [rounded(r) for r in evaluation.returns],
            "info": dict(evaluation.info),
        }  # fmt: skip
        self.run.write(EPISODES, line)
