"""How the cost of training grows with agents, denoising steps, batch, atoms, seeds and parallel envs.

Starting from preset `matched` with one policy for all agents on spread-3, one thing at a time is changed. The changed
run and the one it is compared with take turns in one process, and the ratio is that of their processor times, the
median over the turns: other work on the machine then hardly matters. Costs are of a vector step (a step of every env
and the gradient steps that belong to it) of all seeds together.

    taskset -c 0 python benchmarks/growth.py --out results/growth          # 20 minutes of one core
    python benchmarks/growth.py --out results/growth --draw docs/assets/growth.png
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from hosted_seeds import Side

from omad.config import resolve

BASE: dict[str, Any] = {"task": "mpe/spread-3", "buffer_size": 20_000, "share_policy": True}
CHANGES: dict[str, tuple[str, list[Any]]] = {
    "agents, one policy": ("task", [f"mpe/spread-{n}" for n in (2, 4, 6, 8, 10)]),
    "agents, a policy each": ("task", [f"mpe/spread-{n}" for n in (2, 3, 4, 6, 8, 10)]),
    "denoising steps": ("denoising_steps", [2, 4, 16]),
    "batch": ("batch_size", [64, 256, 512, 1024, 2048]),
    "atoms": ("atoms", [25, 51, 201]),
    "seeds": ("seeds", [2, 3, 4]),
    "parallel envs": ("n_envs", [1, 16, 64]),
}
"""What is changed, by which field, to what."""
VECTOR_STEPS = 6
"""Of a turn; a whole number of steps of the actors."""


def side(**changed: Any) -> Side:
    """A run that differs from the base in these fields, compiled and past its warm-up."""
    fields = BASE | changed
    return Side(resolve(fields.pop("task"), "omad", "matched", **fields), None)


def number(value: Any) -> int:
    """The count that a value stands for: of a task, its agents."""
    return int(value.rpartition("-")[2]) if isinstance(value, str) else value


def measure(out: Path, turns: int) -> None:
    """Write a row for each change to `growth.json`, as it is measured; rows that are there already are kept."""
    path = out / "growth.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    done = {(row["what"], row["value"]) for row in rows}
    base = side()
    for what, (field, values) in CHANGES.items():
        more = {"share_policy": False} if what == "agents, a policy each" else {}
        for value in values:
            if (what, number(value)) in done:
                continue
            other = side(**more, **{field: value})
            base.cpu_s.clear()
            for _ in range(turns):
                base.measure(VECTOR_STEPS)
                other.measure(VECTOR_STEPS)
            ratios = [b / a for a, b in zip(base.cpu_s, other.cpu_s, strict=True)]
            other.built.close()
            rows.append(
                {
                    "what": what,
                    "value": number(value),
                    "base_ms": round(1e3 * statistics.median(base.cpu_s), 3),
                    "ms": round(1e3 * statistics.median(other.cpu_s), 3),
                    "ratio": round(statistics.median(ratios), 3),
                }
            )
            out.mkdir(parents=True, exist_ok=True)
            path.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
            sys.stdout.write(json.dumps(rows[-1]) + "\n")
            sys.stdout.flush()


def draw(out: Path, picture: Path) -> None:
    """One panel a change; both axes logarithmic, the dashed line is cost in proportion."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = json.loads((out / "growth.json").read_text())
    panels = {
        "agents": ({"agents, one policy": "one policy", "agents, a policy each": "a policy each"}, 3),
        "denoising steps": ({"denoising steps": ""}, 8),
        "batch": ({"batch": ""}, 128),
        "atoms": ({"atoms": ""}, 101),
        "seeds in one process": ({"seeds": ""}, 1),
        "parallel envs": ({"parallel envs": ""}, 4),
    }
    figure, axes = plt.subplots(2, 3, figsize=(8, 4.4), constrained_layout=True, sharey=True)
    for axis, (title, (names, base)) in zip(axes.flat, panels.items(), strict=True):
        marks = set()
        for (name, label), colour in zip(names.items(), ("#0072B2", "#D55E00"), strict=False):
            points = {row["value"]: row["ratio"] for row in rows if row["what"] == name} | (
                {} if name == "agents, a policy each" else {base: 1.0}
            )
            at = sorted(points)
            axis.plot(at, [points[x] for x in at], "o-", color=colour, label=label or None, markersize=4)
            marks |= set(at)
        at = sorted(marks)
        axis.plot(at, [x / base for x in at], "--", color="#767676", linewidth=1)
        axis.set(xscale="log", yscale="log", title=title)
        axis.set_xticks(at, [str(x) if x < 1000 else f"{x // 1024}k" for x in at])
        axis.set_yticks([0.25, 0.5, 1, 2, 4, 8, 16], ["1/4", "1/2", "1", "2", "4", "8", "16"])
        axis.minorticks_off()
        if len(names) > 1:
            axis.legend(frameon=False, fontsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("cost of a vector step")
    figure.savefig(picture, dpi=150)


def main() -> None:
    """Measure, or draw what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/growth"), help="folder of growth.json")
    parser.add_argument("--turns", type=int, default=7, help="turns of each pair")
    parser.add_argument("--draw", type=Path, help="draw the figure there instead of measuring")
    given = parser.parse_args()
    if given.draw:
        draw(given.out, given.draw)
    else:
        measure(given.out, given.turns)


if __name__ == "__main__":
    main()
