"""Particle tasks at the paper's sizes: five seeds, a million env steps; made for an accelerator.

omad sweep studies/mpe_gpu.py --workers 1
"""

from omad.study import Study, grid

STUDY = Study(
    "mpe_gpu",
    grid(
        ["mpe/spread-3", "mpe/spread-4", "mpe/deception-2"],
        ["omad", "hasac", "hatd3", "madpmd", "masdac"],
        ["paper"],
        seeds=range(5),
        total_steps=1_000_000,
    ),
)
