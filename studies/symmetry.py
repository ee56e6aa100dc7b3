"""What learning from rotated and reflected transitions is worth, to OMAD and to its baselines.

omad sweep studies/symmetry.py

Without it: `studies/mpe_cpu.py`, setting matched; OMAD's preset cpu for spread-4 is matched with symmetry.
"""

from omad.study import Study, grid

SYMMETRY = {"preset": "matched", "symmetry": True}
HOVER = SYMMETRY | {"updates_per_step": 1, "batch_size": 256, "renorm_warmup": 1_500, "v_max": 120.0, "n_step": 1}
HOVER |= {"alpha_lr": 6e-3, "actor_lr": 3e-4, "lr_decay_steps": 12_000}
EVALUATED = {"eval_every": 20_000, "eval_episodes": 500}

STUDY = Study(
    "symmetry",
    [
        *grid(["mpe/spread-4"], ["omad"], ["cpu"], range(3), total_steps=200_000, **EVALUATED),
        *grid(["mpe/spread-4"], ["hasac", "hatd3"], {"symmetry": SYMMETRY}, [0], total_steps=200_000, **EVALUATED),
        *grid(
            ["mpe/spread-4"],
            ["omad"],
            {"one policy for all": {"preset": "cpu", "share_policy": True}},
            [0],
            total_steps=120_000,
            **EVALUATED,
        ),
        *grid(
            ["mpe/deception-2?state=full"],
            ["omad"],
            {"discount 0.95": HOVER, "discount 0.95, small buffer": HOVER | {"buffer_size": 40_000}},
            [0],
            total_steps=100_000,
            eval_every=20_000,
            eval_episodes=4_000,
        ),
    ],
)
