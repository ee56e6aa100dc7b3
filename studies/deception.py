"""Physical deception without frame stacking: how near agents that see no velocity come to the best that they can do.

omad sweep studies/deception.py

They train against an adversary that stands still: the thrusts of a random one are noise in every return, no agent can
influence them, and they hide what an action is worth. Evaluate against the random one with

omad eval RUN --episodes 4000 --seed 1000000 --task "mpe/deception-2?state=full"
"""

from omad.study import Study, grid

TASK = "mpe/deception-2?adversary=static&state=full"

STUDY = Study(
    "deception",
    grid([TASK], ["omad"], {"recent": {}}, range(3), total_steps=200_000, eval_every=20_000, eval_episodes=4_000),
)
