"""What the entropy bound is worth along training, with either kind of chain steps; agents of one action dimension.

omad sweep studies/entropy.py
python studies/measures/entropy_gap.py runs/entropy/mamujoco-full-swimmer-2x1/omad/euler/seed-0 --out results/entropy
"""

from omad.study import Study, grid

KEPT = {"save_every": 5_000, "keep_checkpoints": 1_000}

STUDY = Study(
    "entropy",
    grid(
        ["mamujoco-full/swimmer-2x1", "mamujoco-full/halfcheetah-6x1"],
        ["omad"],
        {kernel: {"preset": "efficient", "chain_kernel": kernel} for kernel in ("euler", "exact")},
        [0],
        total_steps=100_000,
        **KEPT,
    ),
)
