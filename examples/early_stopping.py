"""Stop a run on a condition of your own: here, when the temperature has fallen below a limit.

python examples/early_stopping.py
"""

import omad


class ColdEnough(omad.Callback):
    """A stopped run is saved and can be resumed; its manifest names the reason."""

    def __init__(self, limit):
        self.limit = limit

    def on_metrics(self, context):
        alpha = context.metrics.get("alpha/value")
        if alpha is not None and (alpha < self.limit).all():
            context.stop(f"the temperature is below {self.limit:g}")


def main(run_dir=None, preset="cpu", limit=0.1, **fields):
    """`EarlyStopping` watches returns, and comes with the package."""
    callbacks = [ColdEnough(limit), omad.EarlyStopping(patience=5)]
    return omad.train("mpe/spread-3", preset=preset, run_dir=run_dir, callbacks=callbacks, **fields)


if __name__ == "__main__":
    run = main(total_steps=50_000)
    print("stopped:", run.stopped)
