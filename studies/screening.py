"""What makes learning robots more sample-efficient: one change at a time, then several; one seed, equal gradient steps.

Two updates per env step, 40k gradient steps in all, batch 128, so that a run takes one core seven to eight minutes.
The first sixteen runs are the main questions, the other sixteen refine them. One seed ranks, it does not prove.

omad sweep studies/screening.py --workers 16
"""

from omad.study import Study, grid

TASKS = ["mamujoco-full/halfcheetah-2x3", "mamujoco-full/ant-2x4"]
XQC = {"critic_net": "xqc"}
# Today's recipe has half an update per env step at a step size of 1e-3; this keeps that pace over env steps.
PACE = {"alpha_pace": "env", "alpha_lr": 5e-4}
NORM = {"reward_norm": "return", "alpha_init": 0.01}  # the support follows: +-5
FAST, SLOW = NORM | {"alpha_lr": 1e-3}, NORM | {"alpha_lr": 3e-4}
SHORT = {"denoising_steps": 4}

MAIN = {
    "baseline": {},
    "xqc": XQC,
    "alpha by env steps": PACE,
    "rewards normalised, alpha lr 1e-3": FAST,
    "rewards normalised, alpha lr 3e-4": SLOW,
    "4 denoising steps": SHORT,
    "xqc, alpha by env steps": XQC | PACE,
    "xqc, rewards normalised, alpha lr 1e-3, 4 denoising steps": XQC | FAST | SHORT,
}
REFINED = {
    "xqc, rewards normalised, alpha lr 1e-3": XQC | FAST,
    "xqc, rewards normalised, alpha lr 3e-4": XQC | SLOW,
    "xqc, rewards normalised, alpha lr 1e-3, minimum of twins": XQC | FAST | {"critic_reduce": "min"},
    "xqc, rewards normalised, alpha lr 1e-3, critic lr 3e-4": XQC | FAST | {"critic_lr": 3e-4},
    "xqc with 1 block, rewards normalised, alpha lr 1e-3": XQC | FAST | {"critic_blocks": 1},
    "xqc, rewards normalised, alpha lr 1e-3, noise held 2 steps": XQC | FAST | {"noise_hold": 2.0},
    "rewards normalised, alpha lr 1e-3, 4 denoising steps": FAST | SHORT,
    "xqc, rewards normalised, alpha lr 1e-3, rates falling": XQC | FAST | {"lr_decay_steps": 40_000},
}

STUDY = Study(
    "screening",
    [
        run
        for name, setting in (MAIN | REFINED).items()
        for run in grid(
            TASKS,
            ["omad"],
            {name: {"preset": "matched"} | setting},
            seeds=[0],
            n_envs=4,
            updates_per_step=8,
            batch_size=128,
            warmup_steps=2_500,
            total_steps=22_500,
            eval_every=5_000,
            eval_episodes=5,
            env_workers=1,
        )
    ],
)
