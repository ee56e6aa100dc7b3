"""Particle tasks on a CPU: OMAD against its baselines, with equal and with own numbers of gradient steps per env step.

    omad sweep studies/mpe_cpu.py

`--only spread-3` takes the first part, `--time-limit 9m` a piece of it.
"""

from omad.study import Study, grid

SEEDS = range(3)
OURS = ["omad", "hasac", "hatd3"]
THREE_STEPS = {"matched, 3-step returns": {"preset": "matched", "n_step": 3}}  # HASAC has 5-step returns in matched
EVALUATED = {"eval_every": 10_000, "eval_episodes": 500}

STUDY = Study(
    "mpe_cpu",
    [
        *grid(["mpe/spread-3"], OURS, ["matched"], SEEDS, total_steps=200_000, **EVALUATED),
        *grid(["mpe/deception-2"], OURS, ["matched"], SEEDS, total_steps=100_000, **EVALUATED),
        *grid(["mpe/deception-2"], ["omad"], THREE_STEPS, SEEDS, total_steps=100_000, **EVALUATED),
        *grid(["mpe/spread-3"], ["masdac", "madpmd"], ["matched"], [0], total_steps=200_000, **EVALUATED),
        *grid(["mpe/spread-4"], OURS, ["matched"], SEEDS, total_steps=200_000, **EVALUATED),
        *grid(["mpe/spread-3"], ["madpmd", "masdac"], ["matched"], [1, 2], total_steps=200_000, **EVALUATED),
        *grid(["mpe/spread-3"], OURS, ["cpu"], SEEDS, total_steps=150_000, **EVALUATED),
    ],
)
