"""Reference returns, by protocol: of scripted policies, of bounds, and of publications."""

from __future__ import annotations

from omad.tasks.rows import Published, Reference

RANDOM = "uniformly random"
_SCRIPTED = "measured with this project's scripted policies (studies/measures/scripted.py), 20,000 episodes"
_CEILING = "open-loop trajectory optimisation with full information, 300 episodes (s.e. < 0.6); code not included"
_BPTT = "decentralised feed-forward networks, trained by gradients through the simulator, one seed; code not included"
_PAPER = "arXiv 2602.18291, 5 seeds, through secondary summaries; env version unknown, this protocol fits"

_PAPER_V = (
    "arXiv 2602.18291, 5 seeds, through secondary summaries; Gymnasium version and observations unknown, most likely "
    "the whole state, standardised per vector"
)
_HARL = "HARL's published learning curves, read off with 5 % error; gym -v2"
_RANDOM_V5 = "omad check-env TASK --steps 50000"
_RANDOM_RETURNS = {
    "ant-2x4": -54.4,
    "ant-2x4d": -54.4,
    "ant-2x4diag": -54.4,
    "ant-4x2": -54.4,
    "halfcheetah-2x3": -290.8,
    "halfcheetah-6x1": -290.8,
    "walker2d-2x3": 1.6,
    "swimmer-2x1": -0.2,
    "hopper-3x1": 17.4,
    "humanoid-9-8": 113.6,
    "humanoidstandup-9-8": 33850.8,
    "reacher-2x1": -42.8,
    "pusher-3p": -150.2,
}
"""How a robot is shared out among agents makes no difference to random actions."""


def _row(**returns: float) -> tuple[Reference, ...]:
    labels = {
        "zero": ("zero action", _SCRIPTED),
        "random": (RANDOM, _SCRIPTED),
        "greedy": ("own nearest landmark", _SCRIPTED),
        "assign": ("optimal assignment + PD control", _SCRIPTED),
        "cover": ("nearest agent to the goal, others cover + PD control", _SCRIPTED),
        "bptt": ("networks trained through the simulator", _BPTT),
        "ceiling": ("ceiling", _CEILING),
    }
    return tuple((labels[key][0], value, labels[key][1]) for key, value in returns.items())


REFERENCES: dict[str, tuple[Reference, ...]] = {
    "mpe/spread-2": _row(zero=-39.1, random=-40.5, greedy=-24.6, assign=-9.0),
    "mpe/spread-3": _row(zero=-72.4, random=-75.5, greedy=-48.7, assign=-17.6, bptt=-24.05, ceiling=-15.4),
    "mpe/spread-4": _row(zero=-112.3, random=-117.8, greedy=-76.6, assign=-28.9, bptt=-53.0, ceiling=-25.7),
    "mpe/spread-5": _row(zero=-158.3, random=-167.0, greedy=-108.6, assign=-43.4),
    "mpe/spread-6": _row(zero=-210.1, random=-223.2, greedy=-142.6, assign=-61.3),
    "mpe/spread-7": _row(zero=-268.1, random=-286.0, greedy=-180.2),
    "mpe/spread-8": _row(zero=-332.9, random=-356.2, greedy=-219.8),
    "mpe/spread-9": _row(zero=-404.6, random=-433.3, greedy=-264.8),
    "mpe/spread-10": _row(zero=-484.4, random=-518.3, greedy=-311.9),
    "mpe/spread-3?dynamics=v2": _row(zero=-71.3, random=-74.5, greedy=-56.4, assign=-14.1, bptt=-19.4, ceiling=-12.5),
    "mpe/spread-4?dynamics=v2": _row(zero=-109.3, random=-114.9, greedy=-89.4, assign=-22.7, ceiling=-20.8),
    "mpe/deception-1": _row(zero=1.0, random=0.0, cover=21.4),
    "mpe/deception-2": _row(zero=15.2, random=14.0, cover=46.8),
    "mpe/deception-3": _row(zero=32.4, random=30.9, cover=72.5),
    "mpe/deception-4": _row(zero=51.9, random=50.1, cover=98.9),
    "mpe/deception-5": _row(zero=73.2, random=71.0, cover=126.1),
    "mpe/deception-6": _row(zero=93.6, random=91.0, cover=151.7),
    "mpe/deception-2?dynamics=v2": _row(zero=15.4, random=14.1, cover=48.6),
    "mpe/deception-2?adversary=static": _row(zero=13.2, random=12.0, bptt=41.9, cover=44.8),
    "mpe/deception-2?adversary=static&dynamics=v2": _row(zero=13.2, random=11.9, bptt=45.0, cover=46.4),
    "mpe/deception-2?adversary=landmark_mean": _row(zero=-8.5, random=-9.7, cover=23.1),
    "mpe/deception-2?adversary=follower": _row(zero=-8.0, random=-9.1, cover=19.4),
    # Uniform in two numbers is not uniform in five; all other policies do the same in both.
    "mpe/spread-2-xy": _row(random=-41.9),
    "mpe/spread-3-xy": _row(random=-78.3),
    "mpe/spread-4-xy": _row(random=-122.8),
    "mpe/spread-5-xy": _row(random=-174.3),
    "mpe/spread-6-xy": _row(random=-232.9),
    "mpe/spread-7-xy": _row(random=-298.4),
    "mpe/spread-8-xy": _row(random=-372.1),
    "mpe/spread-9-xy": _row(random=-452.9),
    "mpe/spread-10-xy": _row(random=-542.1),
    "mpe/deception-2-xy": _row(random=12.9),
}
"""Returns by protocol; standard errors of the scripted ones are 0.7 at most, and 0.25 for those named above
with 3 or 4 agents in `spread` and with 2 in `deception`."""

PUBLISHED: dict[str, tuple[Published, ...]] = {
    "mpe/spread-3": (("OMAD", -23.9, 1.1, _PAPER), ("HASAC (best baseline)", -25.1, None, _PAPER)),
    "mpe/spread-4": (("OMAD", -57.9, 0.8, _PAPER), ("HATD3 (best baseline)", -63.0, None, _PAPER)),
    "mpe/deception-2": (
        ("OMAD", 45.1, 4.1, _PAPER + "; an adversary that stays still fits as well"),
        ("HASAC (best baseline)", 45.4, None, _PAPER + "; an adversary that stays still fits as well"),
    ),
}
ROBOTS_PUBLISHED: dict[str, tuple[Published, ...]] = {
    "ant-2x4": (
        ("OMAD", 7517.0, 279.2, _PAPER_V),
        ("MASDAC (best baseline)", 7266.2, None, _PAPER_V),
    ),
    "halfcheetah-2x3": (
        ("OMAD", 14368.5, 1166.0, _PAPER_V),
        ("MASDAC (best baseline)", 10540.7, None, _PAPER_V),
        ("HATD3 after 3M steps", 5300.0, None, _HARL),
    ),
    "swimmer-2x1": (("OMAD", 162.0, 22.5, _PAPER_V), ("MASDAC (best baseline)", 149.3, None, _PAPER_V)),
    "ant-4x2": (("HATD3 after 3M steps", 5400.0, None, _HARL),),
    "walker2d-2x3": (("HATD3 after 3M steps", 4000.0, None, _HARL + "; its feet differ from -v5's"),),
}


def robot_references(name: str) -> tuple[Reference, ...]:
    """What random actions give with a robot, as in `ant-2x4`."""
    return tuple((RANDOM, value, _RANDOM_V5) for robot, value in _RANDOM_RETURNS.items() if robot == name)
