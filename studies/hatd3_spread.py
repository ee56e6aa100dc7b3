"""What holds HATD3 back on `mpe/spread-3`: one thing changed at a time from preset matched; one seed, 100k env steps.

omad sweep studies/hatd3_spread.py
"""

from omad.study import Study, grid

MATCHED = {"preset": "matched"}

STUDY = Study(
    "hatd3_spread",
    grid(
        ["mpe/spread-3"],
        ["hatd3"],
        {
            "matched": MATCHED,
            "actor every step": MATCHED | {"actor_every": 1},
            "twice the updates": MATCHED | {"updates_per_step": 4},
            "lr 1e-3": MATCHED | {"actor_lr": 1e-3},
            "noise 0.3": MATCHED | {"explore_noise": 0.3},
            "target noise 0.05": MATCHED | {"target_noise": 0.05},
            "width 256": MATCHED | {"actor_width": 256, "critic_width": 256},
        },
        seeds=[0],
        total_steps=100_000,
    ),
)
