"""Multi-Agent MuJoCo's robots: sizes, protocols, and the chains of segments that are worked out."""

from __future__ import annotations

import re
from types import MappingProxyType

from omad.tasks.returns import ROBOTS_PUBLISHED, robot_references
from omad.tasks.rows import Task, UnknownTask

ROBOTS: dict[str, tuple[str, str, tuple[int, ...], tuple[int, ...], tuple[int, ...], int, int]] = {
    "ant-2x4": ("Ant", "2x4", (4, 4), (61, 61), (63, 63), 105, 1000),
    "ant-2x4d": ("Ant", "2x4d", (4, 4), (61, 61), (63, 63), 105, 1000),
    "ant-2x4diag": ("Ant", "2x4diag", (4, 4), (61, 61), (63, 63), 105, 1000),
    "ant-4x2": ("Ant", "4x2", (2,) * 4, (39,) * 4, (42,) * 4, 105, 1000),
    "halfcheetah-2x3": ("HalfCheetah", "2x3", (3, 3), (11, 11), (12, 12), 17, 1000),
    "halfcheetah-6x1": ("HalfCheetah", "6x1", (1,) * 6, (7,) * 6, (9, 9, 8, 9, 9, 8), 17, 1000),
    "walker2d-2x3": ("Walker2d", "2x3", (3, 3), (11, 11), (12, 12), 17, 1000),
    "swimmer-2x1": ("Swimmer", "2x1", (1, 1), (5, 5), (6, 6), 8, 1000),
    "hopper-3x1": ("Hopper", "3x1", (1,) * 3, (7,) * 3, (8, 9, 8), 11, 1000),
    "humanoid-9-8": ("Humanoid", "9|8", (9, 8), (236, 167), (242, 170), 348, 1000),
    "humanoidstandup-9-8": ("HumanoidStandup", "9|8", (9, 8), (236, 167), (242, 170), 348, 1000),
    "reacher-2x1": ("Reacher", "2x1", (1, 1), (5, 8), (7, 10), 10, 50),
    "pusher-3p": ("Pusher", "3p", (3, 1, 3), (), (), 23, 100),
}
"""Robot -> gymnasium-robotics' scenario and factorisation, action sizes, observation sizes with obsk 0 and 1, size of
the state, time limit. All measured, and checked by a test against the package. Pusher has only the protocol `full`: the
package orders its local observations differently in every process (several of its joints share a name). So has
manysegmentant: what the package shows its agents are entries of other joints than theirs."""

MIRRORED = ("Ant", "Walker2d", "Swimmer")
"""Scenarios of which `envs.mirror` knows the reflection."""

_SEGMENTS = re.compile(r"manysegment(swimmer|ant)-([1-9]\d?)x([1-9]\d?)")
PROTOCOLS = ("full", "obsk0", "obsk1")


def robot(name: str) -> tuple[str, str, tuple[int, ...], tuple[int, ...], tuple[int, ...], int, int]:
    """A row of the table, or one worked out for a chain of segments.

    Raises:
        KeyError: No such robot.
    """
    if not (found := _SEGMENTS.fullmatch(name)):
        return ROBOTS[name]
    kind, n, m = found[1], int(found[2]), int(found[3])
    if not 2 <= n * m <= 50:
        raise KeyError(name)
    size = f"{n}x{m}"
    if kind == "swimmer":
        near = [2 * m + (i > 0) + (i < n - 1) for i in range(n)]
        return "ManySegmentSwimmer", size, (m,) * n, (2 * m,) * n, tuple(near), 2 * n * m + 4, 1000
    return "ManySegmentAnt", size, (4 * m,) * n, (), (), 50 * n * m + 11, 1000


def mujoco(base: str) -> Task:
    """A robot in one of the three protocols."""
    protocol, _, name = base.removeprefix("mamujoco-").partition("/")
    scenario, parts, act_dims, none, one, state_dim, horizon = robot(name)
    n = len(act_dims)
    obs_dims = {"full": (state_dim + n,) * n, "obsk0": none, "obsk1": one}[protocol]
    seen = {
        "full": "each agent sees the whole state and a one-hot id",
        "obsk0": "each agent sees its own joints and the root",
        "obsk1": "each agent sees its own joints, the positions of joints next to them, and the root",
    }[protocol]
    return Task(
        name=base,
        protocol=(
            f"Undiscounted return of Gymnasium's {scenario}-v5, {n} agents ({parts}); {seen}; critics read "
            f"state(); {horizon} steps, then truncated."
        ),
        obs_dims=obs_dims,
        act_dims=act_dims,
        state_dim=state_dim,
        horizon=horizon,
        factory="omad.envs.mamujoco:make",
        arguments=MappingProxyType(
            {
                "task": base,
                "sizes": (obs_dims, act_dims, state_dim, horizon),
                "scenario": scenario,
                "parts": parts,
                "obsk": {"full": None, "obsk0": 0, "obsk1": 1}[protocol],
            }
        ),
        references=robot_references(name),
        published=ROBOTS_PUBLISHED.get(name, ()) if protocol == "full" else (),
        hosted=True,
        symmetric=scenario in MIRRORED,
    )


def is_segments(base: str) -> bool:
    """Whether a name is that of a chain of segments.

    Raises:
        UnknownTask: It is, and is not offered.
    """
    protocol, _, name = base.removeprefix("mamujoco-").partition("/")
    if not base.startswith("mamujoco-") or protocol not in PROTOCOLS or not _SEGMENTS.fullmatch(name):
        return False
    try:
        robot(name)
    except KeyError:
        raise UnknownTask(f"{base!r} has too few or too many segments; N times M may be from 2 to 50.") from None
    if protocol != "full" and "ant" in name:
        raise UnknownTask(f"{base!r}: this robot is offered as mamujoco-full/{name} only.")
    return True
