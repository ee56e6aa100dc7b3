"""Particle tasks on a CPU: OMAD against its baselines, with equal and with own numbers of gradient steps per env step.

    omad sweep studies/mpe_cpu.py

`--only spread-3` takes the first part, `--time-limit 9m` a piece of it.
"""

from omad.study import Study, grid

SEEDS = range(3)
OURS = ["omad", "hasac", "hatd3"]
THREE_STEPS = {"matched, 3-step returns": {"preset": "matched", "n_step": 3}}  # HASAC has 5-step returns in matched
# Parallel envs, gradient steps after a step of all of them, and batch as each method's authors have them: 2 gradient
# steps per env step for OMAD, 0.05 for the others. OMAD's learning rates belong to its number of gradient steps, so
# they are the published ones; it ends after as many gradient steps as matched makes in 140k. All else is as in matched.
HARL = {"preset": "matched", "n_envs": 20, "updates_per_step": 1, "batch_size": 1000}
OWN = {
    "omad": {"preset": "matched", "n_envs": 1, "updates_per_step": 2, "batch_size": 256}
    | {"actor_lr": 3e-4, "critic_lr": 3e-4, "alpha_lr": 1e-3}
    | {"total_steps": 20_000, "eval_every": 4_000},
    "hasac": HARL,
    "hatd3": HARL,
}
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
        *(
            run
            for seed in SEEDS
            for algorithm, own in OWN.items()
            for run in grid(
                ["mpe/spread-3"], [algorithm], {"own update ratio": own}, [seed], total_steps=150_000, **EVALUATED
            )
        ),
    ],
)
