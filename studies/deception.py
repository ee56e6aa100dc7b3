"""Physical deception without a memory: how near agents that see no velocity come to the best that such agents can do.

omad sweep studies/deception.py

They train against an adversary that stands still: the thrusts of a random one are noise in every return, no agent can
influence them, and they hide what an action is worth. Evaluate against the random one with

omad eval RUN --episodes 4000 --seed 1000000 --task "mpe/deception-2?state=full"
"""

from omad.study import Study, grid

TASK = "mpe/deception-2?adversary=static&state=full"
RECENT = {
    "preset": "matched",
    "symmetry": True,
    "batch_size": 256,
    "buffer_size": 20_000,
    "actor_every": 1,
    "alpha_lr": 1e-3,
    "v_max": 120.0,
    "renorm_warmup": 1_500,
    "lr_decay_steps": 50_000,
}

STUDY = Study(
    "deception",
    grid([TASK], ["omad"], {"recent": RECENT}, range(3), total_steps=200_000, eval_every=20_000, eval_episodes=4_000),
)
