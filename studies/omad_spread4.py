"""OMAD on `mpe/spread-4`, from preset matched: how far values look ahead and how fast policies move; 300k env steps.

omad sweep studies/omad_spread4.py
"""

from omad.study import Study, grid

MATCHED = {"preset": "matched"}
LONG = {"gamma": 0.99, "v_max": 500.0}
SLOW = {"actor_lr": 3e-4}
GIVEN = {"total_steps": 300_000, "eval_every": 20_000, "eval_episodes": 500}

STUDY = Study(
    "omad_spread4",
    [
        *grid(["mpe/spread-4"], ["omad"], {"long horizon, slow actors": MATCHED | LONG | SLOW}, range(3), **GIVEN),
        *grid(
            ["mpe/spread-4"],
            ["omad"],
            {
                "slow actors": MATCHED | SLOW,
                "long horizon, slower actors": MATCHED | LONG | {"actor_lr": 1e-4},
                "long horizon, slow actors, shared": MATCHED | LONG | SLOW | {"share_policy": True},
            },
            [0],
            **GIVEN,
        ),
    ],
)
