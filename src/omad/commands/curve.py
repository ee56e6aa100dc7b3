"""The plot of a run's learning curve, drawn when training ends."""

from __future__ import annotations

from pathlib import Path

from omad import files
from omad.callbacks import Callback, Context
from omad.errors import UserError


def draw_curve(run_dir: Path) -> Path | None:
    """Draw `curve.png`: the mean over seeds with its interval, every seed thin, reference returns.

    Returns:
        The picture's path, or None if there was no evaluation yet.
    """
    from omad.report.figures import draw_curves
    from omad.report.read import gather
    from omad.report.results import compute

    try:
        results = compute(gather([run_dir], lambda _: ""))
    except UserError:
        return None
    path = run_dir / "curve.png"
    files.write_bytes(path, draw_curves(results))
    return path


class LearningCurve(Callback):
    """Draws `curve.png`; a plot that cannot be drawn does not fail the run."""

    def on_end(self, context: Context) -> None:
        """Draw."""
        from omad.console import console

        path = context.folder.path
        try:
            draw_curve(path)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with fonts, disks or lines
            console().print(f"{path / 'curve.png'} could not be drawn ({type(error).__name__}: {error}).")
