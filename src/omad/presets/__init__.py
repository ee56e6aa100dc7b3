"""The settings of each preset, every value with its source.

A preset is a function of the task that says what it sets, in order: first what it sets for every algorithm, then what
it sets for this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from omad.presets import common, denoising, harl, omad
from omad.presets.settings import OVER_THE_RUN, Settings
from omad.tasks import Task

__all__ = ["LEGEND", "OVER_THE_RUN", "PRESETS", "Preset", "settings_of"]

Preset = Literal["cpu", "efficient", "paper", "matched", "tiny"]

LEGEND = (
    "Sources: [A] abstract of the OMAD paper (arXiv 2602.18291); [S] summaries of that paper; [D] DIME's code; [X] "
    "CrossQ's code or an ablation; [H] HARL's code and tuned configurations; [R] the code of DPMD and SDAC; "
    "[I] inferred; [M] measured with this project (RESULTS.md, docs/results/); [?] assumed."
)
"""What the tags beside values and in the documentation of fields mean."""

Sets = Callable[[Settings], None]

_ALGORITHMS = ("omad", "hasac", "hatd3", "madpmd", "masdac")
_TABLE: dict[str, tuple[Sets, ...]] = {
    "cpu": (common.cpu, omad.cpu, harl.hasac, harl.hatd3, denoising.matched, denoising.masdac_cpu),
    "efficient": (common.efficient, omad.efficient, harl.hasac, harl.hatd3, denoising.matched, denoising.masdac_cpu),
    "paper": (common.paper, omad.paper, harl.hasac_paper, harl.hatd3_paper, denoising.paper, denoising.paper),
    "matched": (common.matched, omad.matched, harl.hasac, harl.hatd3, denoising.matched, denoising.masdac_matched),
    "tiny": (common.tiny, omad.tiny, harl.hasac_tiny, harl.hatd3_tiny, denoising.tiny, denoising.masdac_tiny),
}
PRESETS: Mapping[str, tuple[Sets, Mapping[str, Sets]]] = MappingProxyType(
    {name: (for_all, dict(zip(_ALGORITHMS, each, strict=True))) for name, (for_all, *each) in _TABLE.items()}
)
"""Preset -> what it sets for all algorithms, and after that for each of this package's."""


def settings_of(task: Task, algorithm: str, preset: str, fields: Iterable[str]) -> dict[str, tuple[Any, str]]:
    """Field -> (value, source), for what a preset sets.

    Args:
        task: The task.
        algorithm: Name of the algorithm; one of another package has what is set for all.
        preset: One of `PRESETS`.
        fields: Names of all fields of the run and of the algorithm.
    """
    settings = Settings(task, fields)
    for_all, for_each = PRESETS[preset]
    for_all(settings)
    if algorithm in for_each:
        for_each[algorithm](settings)
    return settings.values
