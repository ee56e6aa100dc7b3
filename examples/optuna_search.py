"""Search for hyperparameters with Optuna; trials that fall behind are stopped early by a callback.

pip install 'omad[tune]' && python examples/optuna_search.py
"""

from pathlib import Path

import optuna

import omad


class Prune(omad.Callback):
    """Reports every evaluation to a trial, and stops its run when Optuna says so."""

    def __init__(self, trial):
        self.trial, self.last = trial, float("-inf")

    def on_evaluation(self, context):
        self.last = float(context.evaluation["sampled"].returns.mean())
        self.trial.report(self.last, context.env_steps)
        if self.trial.should_prune():
            context.stop("pruned")


def main(root="runs/search", trials=20, preset="cpu", **fields):
    """Returns the study; the runs lie below `root`, one folder a trial."""

    def objective(trial):
        rate = trial.suggest_float("actor_lr", 1e-4, 3e-3, log=True)
        alpha = trial.suggest_float("alpha_init", 0.05, 1.0, log=True)
        prune = Prune(trial)
        run = omad.train(
            "mpe/spread-3", preset=preset, run_dir=Path(root) / f"trial-{trial.number}", callbacks=[prune],
            loggers=[], actor_lr=rate, alpha_init=alpha, **fields,
        )  # fmt: skip
        if run.stopped:
            raise optuna.TrialPruned
        return prune.last

    pruner = optuna.pruners.MedianPruner(n_startup_trials=3)
    study = optuna.create_study(direction="maximize", pruner=pruner, sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=trials)
    return study


if __name__ == "__main__":
    print(main(total_steps=20_000).best_params)
