"""HalfCheetah 2x3 on a CPU: OMAD, HASAC and HATD3, two seeds.

omad sweep studies/mamujoco_cpu.py
"""

from omad.study import Study, grid

STUDY = Study(
    "mamujoco_cpu",
    grid(
        ["mamujoco-full/halfcheetah-2x3"],
        ["omad", "hasac", "hatd3"],
        ["matched"],
        seeds=range(2),
        total_steps=100_000,
    ),
)
