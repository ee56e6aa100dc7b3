"""What each part of OMAD is worth on `mpe/spread-3`: two seeds, 100k env steps, everything else as in preset matched.

omad sweep studies/ablations.py
"""

from omad.study import Study, grid

MATCHED = {"preset": "matched"}
V = 100.0  # the preset's

STUDY = Study(
    "ablations",
    grid(
        ["mpe/spread-3"],
        ["omad"],
        {
            "matched": MATCHED,
            **{f"alpha {a:g}": MATCHED | {"alpha_mode": "fixed", "alpha_init": a} for a in (0.1, 0.01, 0.001)},
            **{f"steps {k}": MATCHED | {"denoising_steps": k} for k in (2, 4, 16)},
            "scalar critic": MATCHED | {"critic_kind": "scalar"},
            "sequential": MATCHED | {"policy_update": "sequential"},
            "independent critics": MATCHED | {"critic_scope": "independent"},
            **{f"V x {f:g}": MATCHED | {"v_max": f * V} for f in (0.125, 0.5, 2.0)},
            **{f"atoms {n}": MATCHED | {"atoms": n} for n in (25, 51, 201)},
        },
        seeds=range(2),
        total_steps=100_000,
    ),
)
