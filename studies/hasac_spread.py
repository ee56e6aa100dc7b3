"""What holds HASAC back on `mpe/spread-3`: one thing changed at a time from preset matched; one seed, 200k env steps.

omad sweep studies/hasac_spread.py
"""

from omad.study import Study, grid

MATCHED = {"preset": "matched"}

STUDY = Study(
    "hasac_spread",
    grid(
        ["mpe/spread-3"],
        ["hasac"],
        {
            "twice the updates": MATCHED | {"updates_per_step": 4},
            "one-step returns": MATCHED | {"n_step": 1},
            "alpha lr 3e-4": MATCHED | {"alpha_lr": 3e-4},
        },
        seeds=[0],
        total_steps=200_000,
        eval_every=10_000,
    ),
)
