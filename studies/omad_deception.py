"""OMAD on `mpe/deception-2` with critics that read velocities: how far values look ahead; 200k env steps.

omad sweep studies/omad_deception.py
"""

from omad.study import Study, grid

LARGE = {"preset": "matched", "batch_size": 512, "updates_per_step": 1, "alpha_lr": 6e-3, "renorm_warmup": 1_500}
DECAY = {"actor_lr": 3e-4, "lr_decay_steps": 25_000}

STUDY = Study(
    "omad_deception",
    grid(
        ["mpe/deception-2?state=full"],
        ["omad"],
        {
            "discount 0.9": LARGE | DECAY | {"gamma": 0.9, "v_max": 60.0},
            "discount 0.95": LARGE | DECAY | {"gamma": 0.95, "v_max": 120.0},
            "discount 0.8": LARGE | DECAY | {"gamma": 0.8, "v_max": 40.0},
        },
        range(3),
        total_steps=200_000,
        eval_every=20_000,
        eval_episodes=4_000,
    ),
)
