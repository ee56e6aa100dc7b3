"""The plot of a run's learning curve, drawn when training ends."""

from __future__ import annotations

from omad.callbacks import Callback, Context

__all__ = ["LearningCurve"]


class LearningCurve(Callback):
    """Draws `curve.png`; a plot that cannot be drawn does not fail the run."""

    def on_end(self, context: Context) -> None:
        """Draw."""
        from omad.console import console
        from omad.report.curve import draw_curve

        path = context.folder.path
        try:
            draw_curve(path)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with fonts, disks or lines
            console().print(f"{path / 'curve.png'} could not be drawn ({type(error).__name__}: {error}).")
