"""What holds MADPMD back on `mpe/spread-3`: the joint critic chooses among more samples in training; one seed.

omad sweep studies/madpmd_spread.py
"""

from omad.study import Study, grid

MATCHED = {"preset": "matched"}

STUDY = Study(
    "madpmd_spread",
    grid(
        ["mpe/spread-3"],
        ["madpmd"],
        {"best of 8 in training": MATCHED | {"target_samples": 8}},
        seeds=[0],
        total_steps=100_000,
    ),
)
