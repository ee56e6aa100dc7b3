"""How much of its experience a HalfCheetah collected lying on its back, from the replay buffers of runs.

python studies/measures/on_its_back.py RUN...  # of which the newest checkpoint still holds the first env steps
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path

import numpy as np

from omad import load_run

_TORSO = 1
"""Place of the torso's angle among what every agent observes in `mamujoco-full/halfcheetah-*`."""
EDGES = (0, 5_000, 8_000, 12_000, 16_000, 20_000, 30_000, 40_000)
"""Env steps between which the share is taken."""


def on_its_back(angle: np.ndarray) -> np.ndarray:
    """Whether the torso is turned over, from its angle in radians, which counts whole turns."""
    return np.abs((angle + np.pi) % (2 * np.pi) - np.pi) > np.pi / 2


def shares(angle: np.ndarray) -> list[float]:
    """Shares of env steps on the back between the edges that the run has reached."""
    turned = on_its_back(angle)
    return [round(float(turned[a:b].mean()), 2) for a, b in itertools.pairwise(EDGES) if b <= len(turned)]


def main() -> None:
    """Print a line of JSON a run and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    for path in parser.parse_args().runs:
        run = load_run(path)
        if not run.config.task.startswith("mamujoco-full/halfcheetah"):
            parser.error(f"{path} is of {run.config.task}; give runs of mamujoco-full/halfcheetah-*")
        for seed in run.seeds:
            row = {
                "run": str(path),
                "seed": seed,
                "edges": EDGES,
                "share": shares(run.buffered_obs(seed)[:, 0, _TORSO]),
            }
            sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
