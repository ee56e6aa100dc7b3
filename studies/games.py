"""Equally good joint actions: how many OMAD and HASAC keep at the same fixed temperatures, and with their own.

omad sweep studies/games.py
python studies/measures/mode_coverage.py runs/games/games-islands-2 --out runs/games
python studies/measures/mode_coverage.py runs/games/games-meeting-2 --out runs/games
"""

from omad.study import Study, grid

SMALL = {"total_steps": 20_000, "updates_per_step": 8, "actor_width": 64, "critic_width": 64}

STUDY = Study(
    "games",
    grid(
        ["games/islands-2", "games/meeting-2"],
        ["omad", "hasac"],
        {
            "alpha 0.02": {"alpha_mode": "fixed", "alpha_init": 0.02},
            "alpha 0.05": {"alpha_mode": "fixed", "alpha_init": 0.05},
            "automatic": {},
        },
        seeds=range(2),
        **SMALL,
    ),
)
