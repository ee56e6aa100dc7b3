"""Send numbers wherever you like: here, the best return so far to a text file. JSON lines are always written as well.

python examples/own_logger.py
"""

from pathlib import Path

import omad


class HighScore(omad.Logger):
    """Override what you need of `start`, `metrics`, `evaluation`, `event`, `progress` and `close`."""

    def start(self, run):
        self.file, self.best = Path(run.path) / "high-score.txt", float("-inf")

    def evaluation(self, evaluation):
        mean = evaluation.returns.mean()
        if evaluation.actions == "sampled" and mean > self.best:
            self.best = mean
            self.file.write_text(f"{mean:.2f} at env step {evaluation.env_steps}, seed {evaluation.seed}\n")


def main(run_dir=None, preset="cpu", **fields):
    """Several loggers may be given; omad.loggers has TensorBoard, Console, Csv and Wandb."""
    loggers = [HighScore(), omad.loggers.Csv()]
    return omad.train("mpe/spread-3", preset=preset, run_dir=run_dir, loggers=loggers, **fields)


if __name__ == "__main__":
    run = main(total_steps=20_000)
    print((run / "high-score.txt").read_text())
