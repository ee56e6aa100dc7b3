"""Where the numbers of a run go: values that are handed to `train`, `Experiment` and `resume`.

JSON lines in the run folder are always written, and first. TensorBoard is the default beside them. A logger that fails
ends the run with a checkpoint and a sentence; no local line is lost by it.
"""

from omad.loggers.base import Evaluation, Logger, Progress, RunInfo
from omad.loggers.console import Console
from omad.loggers.csv import Csv
from omad.loggers.json_lines import JsonLines
from omad.loggers.tensorboard import TensorBoard
from omad.loggers.wandb import Wandb

__all__ = ["Console", "Csv", "Evaluation", "JsonLines", "Logger", "Progress", "RunInfo", "TensorBoard", "Wandb"]
