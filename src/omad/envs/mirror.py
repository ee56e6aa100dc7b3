"""The reflection symmetry of robots that run along x: y becomes -y, and the image of a transition is a transition.

Rotations about x and z change their sign, those about y do not; left and right legs swap, and so do the agents that
drive them. Rewards are equal, for they ask for speed along x. So a robot with equal left and right sides, on a plane,
has a group of two elements: the identity and the reflection.

Quarter rotations of Ant leave its physics as it is, but not its reward: rotated, it would run along y. HalfCheetah and
Hopper lie within the plane of reflection, so nothing of theirs swaps.

Everything is a signed permutation of numbers, and checked by simulation (tests): a MuJoCo step from the image of a
state under the image of an action gives the image of the step from the state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from omad.errors import UserError
from omad.spec import EnvSpec, Symmetry


@dataclasses.dataclass(frozen=True, eq=False)
class Map:
    """A signed permutation: the image of x is `sign * x[index]`."""

    index: np.ndarray
    sign: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The image of a vector."""
        return self.sign * x[self.index]

    def then(self, other: Map) -> Map:
        """Of two vectors one after the other."""
        return Map(np.concatenate([self.index, len(self.index) + other.index]), np.append(self.sign, other.sign))

    def tail(self, start: int) -> Map:
        """Of a vector without its first entries, which are their own images."""
        return Map(self.index[start:] - start, self.sign[start:])


class Mirror(NamedTuple):
    """The reflection of a robot's numbers."""

    qpos: Map
    qvel: Map
    control: Map
    hidden: int
    """Positions that the state leaves out: x, and y where there is one."""
    forces: Map = Map(np.empty(0, int), np.empty(0))
    """External forces on each body but the world: torque and force, six numbers a body."""

    @property
    def state(self) -> Map:
        """Of the observation of Gymnasium's env."""
        return self.qpos.tail(self.hidden).then(self.qvel).then(self.forces)


def _map(index: Sequence[int], sign: Sequence[int]) -> Map:
    return Map(np.asarray(index, int), np.asarray(sign, float))


def _same(*signs: int) -> Map:
    """Nothing changes places."""
    return _map(range(len(signs)), signs)


def _blocks(order: Sequence[int], *signs: int) -> Map:
    """Blocks of equal size that change places, all with the same signs."""
    size = len(signs)
    return _map([size * block + i for block in order for i in range(size)], signs * len(order))


_LEGS = (3, 2, 1, 0)
"""Ant's legs in the order of their numbers: 1 and 4 are in front, 2 and 3 behind; 1 and 2 on the left."""
_LEG_BODIES = [0, *(1 + 3 * leg + part for leg in _LEGS for part in range(3))]
_HIP, _ANKLE = -1, 1  # a hip turns about the upright; an ankle's axis becomes that of the ankle across

BODIES = MappingProxyType(
    {
        "Ant": Mirror(
            qpos=_same(1, -1, 1, 1, -1, 1, -1).then(_blocks(_LEGS, _HIP, _ANKLE)),  # x, y, z, quaternion
            qvel=_same(1, -1, 1, -1, 1, -1).then(_blocks(_LEGS, _HIP, _ANKLE)),
            control=_blocks((1, 0, 3, 2), _HIP, _ANKLE),  # motors are in the order of legs 4, 1, 2, 3
            hidden=2,
            forces=_blocks(_LEG_BODIES, -1, 1, -1, 1, -1, 1),
        ),
        "Walker2d": Mirror(
            qpos=_same(1, 1, 1).then(_blocks((1, 0), 1, 1, 1)),
            qvel=_same(1, 1, 1).then(_blocks((1, 0), 1, 1, 1)),
            control=_blocks((1, 0), 1, 1, 1),
            hidden=1,
        ),
        "Swimmer": Mirror(
            qpos=_same(1, -1, -1, -1, -1),
            qvel=_same(1, -1, -1, -1, -1),
            control=_same(-1, -1),
            hidden=2,
        ),
    }
)
"""Robots with reflection symmetry."""


def mirrored(
    spec: EnvSpec, scenario: str, routes: Sequence[np.ndarray], shown: Sequence[np.ndarray] | None
) -> Symmetry:
    """The two elements, for the tables of observations and actions.

    Args:
        spec: Sizes.
        scenario: One of `BODIES`.
        routes: Actuators of each agent, in the order of its action.
        shown: Entries of the state that each agent sees; None for all of them and a one-hot id.

    Raises:
        UserError: The image of an agent's observation is no agent's observation.
    """
    body = BODIES[scenario]
    state = body.state
    if shown is None:
        ids = np.arange(spec.state_dim, spec.obs_dim)
        rows = [Map(np.append(state.index, ids), np.append(state.sign, np.ones(len(ids))))] * spec.n_agents
        obs = _table([np.arange(spec.obs_dim)] * spec.n_agents, rows, spec.obs_dim)
    else:
        obs = _table(shown, [state] * spec.n_agents, spec.obs_dim)
        if obs is None:
            raise UserError(
                f"symmetry is on, but the reflection of an agent's observation in {spec.name} is no agent's "
                f"observation. Give --no-symmetry, or train on the protocol mamujoco-full."
            )
    action = _table(routes, [body.control] * spec.n_agents, spec.act_dim)
    assert obs is not None and action is not None  # agents of `full` see everything, and drive every actuator
    both = [(np.stack([np.arange(m.index.size).reshape(m.index.shape), m.index]),
             np.stack([np.ones(m.sign.shape), m.sign])) for m in (obs, state, action)]  # fmt: skip
    return Symmetry(*both[0], *both[1], *both[2])


def _table(entries: Sequence[np.ndarray], maps: Sequence[Map], width: int) -> Map | None:
    """The map of a table of rows, `(agent, entry)`, that hold the given entries of a vector.

    The image of an entry is taken from the row that holds the most of this row's images, which is the agent's own or
    that of the agent it swaps with. Padding is its own image. None if a row lacks one.
    """
    index = np.arange(len(entries) * width).reshape(len(entries), width)
    sign = np.ones(index.shape)
    for agent, (row, seen_as) in enumerate(zip(entries, maps, strict=True)):
        wanted = seen_as.index[row]
        others = sorted(range(len(entries)), key=lambda i: (-np.isin(wanted, entries[i]).sum(), i != agent))
        where = list(entries[others[0]])
        if not np.isin(wanted, where).all():
            return None
        index[agent, : len(row)] = [others[0] * width + where.index(entry) for entry in wanted]
        sign[agent, : len(row)] = seen_as.sign[row]
    return Map(index, sign)
