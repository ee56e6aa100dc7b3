"""Draw the figures of README, RESULTS and docs/learning from what is committed in results/.

python docs/figures.py          # writes docs/assets/*.png
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from PIL import Image

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "docs" / "assets"
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#767676"

mpl.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "svg.fonttype": "none",
    }
)


def curves(study: str, task: str, algorithm: str, setting: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and mean returns (seed, step) of a study's runs, sampled actions, at the steps that all seeds share."""
    summary = json.loads(gzip.decompress((ROOT / "results" / study / "summary.json.gz").read_bytes()))
    seeds: list[dict[int, float]] = []
    for run in summary["runs"]:
        if (run["task"], run["algorithm"], run["setting"]) == (task, algorithm, setting):
            by_seed: dict[int, dict[int, float]] = {}
            for line in run["episodes"]:
                if line["actions"] == "sampled":
                    by_seed.setdefault(line["seed"], {})[line["step"]] = float(np.mean(line["returns"]))
            seeds += by_seed.values()
    return _together(seeds)


def robots(task: str, setting: str) -> tuple[np.ndarray, np.ndarray]:
    """The same for a run of `results/robots`."""
    by_seed: dict[int, dict[int, float]] = {}
    for run in json.loads((ROOT / "results" / "robots" / "evaluations.json").read_text()):
        if (run["task"], run["setting"]) == (task, setting):
            for line in run["evaluations"]:
                if line["actions"] == "sampled":
                    by_seed.setdefault(line["seed"], {})[line["step"]] = float(np.mean(line["returns"]))
    return _together(list(by_seed.values()))


def _together(seeds: list[dict[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    steps = sorted(set.intersection(*map(set, seeds)))
    return np.array(steps), np.array([[seed[step] for step in steps] for seed in seeds])


def draw(axes: Axes, steps: np.ndarray, returns: np.ndarray, label: str, color: str, style: str = "-") -> None:
    """The mean over seeds as a line, and the range of the seeds as a band."""
    label = f"{label} ({len(returns)} seed{'s' * (len(returns) > 1)})"
    axes.plot(steps / 1000, returns.mean(0), style, color=color, label=label, linewidth=1.8)
    axes.fill_between(steps / 1000, returns.min(0), returns.max(0), color=color, alpha=0.2, linewidth=0)


def level(axes: Axes, value: float, text: str, right: bool = True, below: bool = False, at: float = 0.0) -> None:
    """A reference return, as a dotted line with its name: at the right or left end, or from the fraction `at` on."""
    axes.axhline(value, color=GREY, linestyle=":", linewidth=1.2)
    axes.annotate(
        text,
        (at or (0.99 if right else 0.01), value),
        xycoords=("axes fraction", "data"),
        ha="right" if right and not at else "left",
        va="top" if below else "bottom",
        fontsize=7.5,
        color=GREY,
    )


def spread_3(axes: Axes) -> None:
    """OMAD with its own preset and, at equal settings, beside HASAC and HATD3."""
    draw(axes, *curves("spread_cpu", "mpe/spread-3", "omad", "cpu"), "OMAD, preset cpu", BLUE)
    draw(axes, *curves("mpe_cpu", "mpe/spread-3", "omad", "matched"), "OMAD, matched", BLUE, "--")
    draw(axes, *curves("mpe_cpu", "mpe/spread-3", "hasac", "matched"), "HASAC, matched", ORANGE, "--")
    draw(axes, *curves("mpe_cpu", "mpe/spread-3", "hatd3", "matched"), "HATD3, matched", GREEN, "--")
    level(axes, -23.9, "OMAD, published", right=False)
    axes.set(title="mpe/spread-3", ylim=(-80, -15), ylabel="team return")


def spread_4(axes: Axes) -> None:
    """The same with four agents."""
    draw(axes, *curves("symmetry", "mpe/spread-4", "omad", "cpu"), "OMAD, preset cpu", BLUE)
    draw(axes, *curves("symmetry", "mpe/spread-4", "hasac", "symmetry"), "HASAC, same symmetry", ORANGE)
    draw(axes, *curves("mpe_cpu", "mpe/spread-4", "omad", "matched"), "OMAD, matched", BLUE, "--")
    draw(axes, *curves("mpe_cpu", "mpe/spread-4", "hasac", "matched"), "HASAC, matched", ORANGE, "--")
    draw(axes, *curves("mpe_cpu", "mpe/spread-4", "hatd3", "matched"), "HATD3, matched", GREEN, "--")
    level(axes, -57.9, "OMAD, published")
    axes.set(title="mpe/spread-4", ylim=(-165, -40))


def deception(axes: Axes) -> None:
    """OMAD, HASAC and HATD3 with a history of two observations."""
    task = "mpe/deception-2?history=2&state=full"
    draw(axes, *curves("memory", task, "omad", "cpu"), "OMAD, preset cpu", BLUE)
    draw(axes, *curves("memory", task, "hasac", "symmetry"), "HASAC, same settings", ORANGE)
    draw(axes, *curves("memory", task, "hatd3", "symmetry"), "HATD3, same settings", GREEN)
    level(axes, 45.1, "OMAD, published", right=False)
    axes.set(title="mpe/deception-2, frame stacking", ylim=(38, 47))


def particles() -> None:
    """README and RESULTS: three particle tasks."""
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.3), layout="constrained")
    for panel, of in zip(axes, (spread_3, spread_4, deception), strict=True):
        of(panel)
        panel.set_xlabel("thousand env steps")
        panel.legend(loc="lower right")
    save(figure, "particles")


def symmetry() -> None:
    """RESULTS and the note on roles and symmetry: four agents."""
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    draw(axes, *curves("symmetry_gpu", "mpe/spread-4", "omad", "cpu"), "one policy, symmetry, batch 512", PINK)
    draw(axes, *curves("symmetry", "mpe/spread-4", "omad", "cpu"), "OMAD, symmetry", BLUE)
    draw(axes, *curves("symmetry", "mpe/spread-4", "hasac", "symmetry"), "HASAC, symmetry", ORANGE)
    draw(axes, *curves("mpe_cpu", "mpe/spread-4", "omad", "matched"), "OMAD, without", BLUE, "--")
    draw(axes, *curves("mpe_cpu", "mpe/spread-4", "hasac", "matched"), "HASAC, without", ORANGE, "--")
    level(axes, -57.9, "OMAD, published")
    level(axes, -28.9, "optimal assignment, scripted")
    level(axes, -76.6, "nearest landmark, scripted", at=0.27)
    axes.set(xlabel="thousand env steps", ylabel="team return", title="mpe/spread-4", ylim=(-135, -22))
    axes.legend(loc="lower right", ncols=2)
    save(figure, "symmetry")


def cheetah() -> None:
    """RESULTS: HalfCheetah at 2 and at 0.5 gradient steps per env step."""
    task = "mamujoco-full/halfcheetah-2x3"
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    draw(axes, *robots(task, CHEETAH), "OMAD, xqc, normalised rewards, 2 updates", PINK)
    draw(axes, *curves("mamujoco_cpu", task, "omad", "matched"), "OMAD, matched, 0.5 updates", BLUE, "--")
    draw(axes, *curves("mamujoco_cpu", task, "hasac", "matched"), "HASAC, matched, 0.5 updates", ORANGE, "--")
    draw(axes, *curves("mamujoco_cpu", task, "hatd3", "matched"), "HATD3, matched, 0.5 updates", GREEN, "--")
    axes.set(xlabel="thousand env steps", ylabel="team return", title=task)
    axes.legend(loc="upper left")
    axes.set_ylim(-500, 10_500)
    save(figure, "halfcheetah")


def horizon() -> None:
    """Learning note; numbers of its table."""
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    names = ["γ 0.99\nV 300", "γ 0.99\nV 120", "γ 0.99, V 300\n5-step returns", "γ 0.95\nV 60", "γ 0.9\nV 30",
             "γ 0.95, V 60\n24,000 updates"]  # fmt: skip
    values = [0.11, 0.19, 0.38, 0.48, 0.58, 0.72]
    bars = axes.bar(names, values, color=[GREY, GREY, GREY, BLUE, BLUE, BLUE])
    axes.bar_label(bars, fmt="%.2f")
    axes.set(ylabel="correlation", ylim=(0, 0.85), title="Effect of one agent's action: critic and simulation")
    axes.tick_params(axis="x", labelsize=7.5)
    save(figure, "horizon")


def batch_statistics() -> None:
    """Learning note; numbers of its table."""
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.plot([0, 12, 24, 36], [-26.3, -26.0, -25.7, -25.8], "o--", color=GREY, label="batch statistics, as before")
    axes.plot([0, 12], [-26.3, -25.7], "s--", color=ORANGE, label="batch statistics, four times the updates")
    axes.plot([0, 12, 24, 36], [-26.3, -24.8, -24.5, -24.3], "o-", color=BLUE, label="running statistics")
    axes.set(xlabel="thousand further env steps", ylabel="team return", title="A finished run on mpe/spread-3 goes on")
    axes.legend()
    save(figure, "batch-statistics")


def hidden_velocity() -> None:
    """Learning note: Physical Deception with and without history."""
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    with_history = "mpe/deception-2?history=2&state=full"
    draw(axes, *curves("memory", with_history, "omad", "cpu"), "history 2, critics read velocities", BLUE)
    without = curves("mpe_cpu", "mpe/deception-2", "omad", "matched, 3-step returns")
    draw(axes, *without, "no history, 3-step returns", ORANGE)
    draw(axes, *curves("mpe_cpu", "mpe/deception-2", "omad", "matched"), "no history, 1-step returns", GREY)
    level(axes, 45.1, "OMAD, published", right=False)
    level(axes, 43.9, "trained through the simulator, no history", below=True)
    axes.set(xlabel="thousand env steps", ylabel="team return", title="mpe/deception-2", ylim=(20, 48))
    axes.legend(loc="lower right")
    save(figure, "hidden-velocity")


CHEETAH = "gpu_cheetah_norm"
FIGURES: tuple[Callable[[], None], ...] = (
    particles, symmetry, cheetah, horizon, batch_statistics, hidden_velocity
)  # fmt: skip


def save(figure: Any, name: str) -> None:
    """Write one figure, with at most 256 colours."""
    path = ASSETS / f"{name}.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    ASSETS.mkdir(exist_ok=True)
    for one in FIGURES:
        one()
