"""What frame stacking (two observations) is worth on physical deception, where no observation shows a velocity.

omad sweep studies/memory.py

The critics read the velocities in every setting, or, where the setting says so, what the agents see.
"""

from omad.study import Study, grid

TASK = "mpe/deception-2?history=2&state=full"
LENGTH = {"total_steps": 200_000, "eval_every": 20_000, "eval_episodes": 4_000}
SHARED = {"preset": "matched", "symmetry": True, "gamma": 0.9, "n_step": 1}

STUDY = Study(
    "memory",
    [
        *grid([TASK], ["omad"], ["cpu"], range(3), **LENGTH),
        *grid(["mpe/deception-2?history=2"], ["omad"], ["cpu"], [0], **LENGTH),
        *grid(["mpe/deception-2?state=full"], ["omad"], {"without": SHARED | {"v_max": 80.0}}, [0], **LENGTH),
        *grid([TASK], ["hasac", "hatd3"], {"symmetry": SHARED}, [0], **LENGTH),
    ],
)
