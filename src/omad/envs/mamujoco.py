"""Multi-Agent MuJoCo: gymnasium-robotics' factorisations of Gymnasium's -v5 robots, in three protocols.

`full`: every agent sees the whole state and a one-hot id. `obsk0`, `obsk1`: what gymnasium-robotics shows each agent,
its own joints (and the positions of joints one graph edge away) with the root's. The critics' state is always
`state()`, the observation of the single-agent env, and there is one reward, the single-agent env's.

gymnasium-robotics says who drives and sees what; the physics is stepped in Gymnasium directly, and local observations
are cut out of the state by index. Both give exactly its numbers (tests).
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import importlib
import importlib.util
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omad import extras
from omad.envs.host_env import HostEnv, HostObservation, StepResult, scale, stack
from omad.envs.mirror import BODIES, mirrored
from omad.errors import UserError
from omad.spec import EnvSpec, Symmetry

_DIAGONAL = (("hip1", "ankle1", "hip3", "ankle3"), ("hip2", "ankle2", "hip4", "ankle4"))
"""Ant's legs 1 and 3, 2 and 4: what gymnasium-robotics calls 2x4d is front against back."""


def factored(scenario: str, parts: str, obsk: int, render: bool = False) -> Any:
    """The PettingZoo env of gymnasium-robotics.

    Args:
        scenario: As in `Ant`.
        parts: As in `2x4`; `2x4diag` is our own, the true diagonal.
        obsk: Distance in joints up to which an agent sees; never None, which would mean a single agent.
        render: Whether pictures will be asked for.

    Raises:
        UserError: The packages are not installed.
    """
    extras.require("mujoco", "Multi-Agent MuJoCo")
    with contextlib.redirect_stderr(io.StringIO()):  # a notice at import
        from gymnasium_robotics import mamujoco_v1
    # Named, for otherwise Gymnasium takes a free camera that most robots soon leave behind.
    drawn: dict[str, Any] = {"render_mode": "rgb_array", "camera_name": "track"} if render else {}
    if scenario.startswith("ManySegment"):
        # The package writes the robot's file into its own folder, reads and deletes it: one process at a time.
        with (Path(tempfile.gettempdir()) / f"omad-{os.getuid()}-manysegment.lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return mamujoco_v1.parallel_env(scenario, parts, agent_obsk=obsk, **drawn)
    if parts != "2x4diag":
        return mamujoco_v1.parallel_env(scenario, parts, agent_obsk=obsk, **drawn)
    legs, edges, roots = mamujoco_v1.get_parts_and_edges(scenario, "4x2")
    nodes = {node.label: node for leg in legs for node in leg}
    groups = tuple(tuple(nodes[label] for label in group) for group in _DIAGONAL)
    factorization = {"partition": groups, "edges": edges, "globals": roots}
    return mamujoco_v1.parallel_env(scenario, "2x4", obsk, factorization, **drawn)


def _routes(factored: Any) -> list[np.ndarray]:
    """Actuators of each agent, in the order of its action."""
    return [np.asarray([node.act_ids for node in part]) for part in factored.agent_action_partitions]


def _mirror(spec: EnvSpec, scenario: str, parts: str, obsk: int | None) -> Symmetry:
    """The robot and its reflection."""
    env = factored(scenario, parts, obsk or 0)
    rows = env.observation_factorization
    shown = None if obsk is None else [np.asarray(rows[agent]) for agent in env.possible_agents]
    env.close()
    return mirrored(spec, scenario, _routes(env), shown)


_LIMITS = {"Humanoid": 0.4, "HumanoidStandup": 0.4, "Pusher": 2.0}
"""Largest control of the robots whose actions do not lie in [-1, 1]."""


class MujocoInstance:
    """One robot, driven by several agents.

    Args:
        spec: Sizes, as in the table of tasks.
        scenario: As in `Ant`.
        parts: As in `2x4`.
        obsk: Distance in joints up to which agents see; None for the whole state and a one-hot id.
        render: Whether pictures will be asked for.
    """

    def __init__(self, spec: EnvSpec, scenario: str, parts: str, obsk: int | None, render: bool = False) -> None:
        self.spec, self.obsk = spec, obsk
        self.factored = factored(scenario, parts, obsk or 0, render)
        self.single = self.factored.single_agent_env.unwrapped
        self.routes = _routes(self.factored)
        """Actuators of each agent."""
        if len(self.routes) != spec.n_agents or self.single.action_space.shape[0] != spec.joint_act_dim:
            raise UserError(
                f"{spec.name}: {len(self.routes)} agents drive {self.single.action_space.shape[0]} actuators here, "
                f"but {spec.n_agents} and {spec.joint_act_dim} are expected; check the version of gymnasium-robotics."
            )
        box = self.single.action_space
        self.low, self.high = np.asarray(box.low, float), np.asarray(box.high, float)
        self.index = self.factored.observation_factorization if obsk is not None else None
        self.gather = np.empty(spec.joint_act_dim, int)
        """Where each actuator's number stands in the flat table of all agents' actions."""
        for agent, route in enumerate(self.routes):
            self.gather[route] = agent * spec.act_dim + np.arange(len(route))
        self.rows = np.zeros((spec.n_agents, spec.obs_dim))
        """Observations of the whole state, still without it: the one-hot ids."""
        if obsk is None:
            self.rows[:, spec.obs_dim - spec.n_agents :] = np.eye(spec.n_agents)
        self.time = 0

    def reset(self, seed: int) -> HostObservation:
        """As Gymnasium resets from this seed."""
        state, _ = self.single.reset(seed=seed)
        self.time = 0
        return self._see(state)

    def step(self, action: np.ndarray, seed: int) -> StepResult:
        """Drive every actuator once, by the joint it moves."""
        del seed
        return self.drive(scale(action.ravel()[self.gather], self.low, self.high))

    def drive(self, joint: np.ndarray) -> StepResult:
        """One step by a joint action in the units of the robot, in the order of its actuators."""
        state, reward, terminated, _, _ = self.single.step(joint)
        self.time += 1
        return StepResult(self._see(state), float(reward), bool(terminated), self.time >= self.spec.horizon)

    def _see(self, state: np.ndarray) -> HostObservation:
        """From the state to one row an agent."""
        if self.obsk is None:
            rows = self.rows.copy()
            rows[:, : len(state)] = state
            return HostObservation(rows, state)
        if self.index is None:
            shown = self.factored._get_obs()
            rows = [shown[agent] for agent in self.factored.possible_agents]
        else:
            whole = state
            if self.clips:  # the state holds clipped velocities; agents are shown the true ones
                velocity = self.single.data.qvel
                whole = np.concatenate([state[: len(state) - velocity.size], velocity])
            rows = [whole[self.index[agent]] for agent in self.factored.possible_agents]
        return HostObservation(stack(rows, self.spec.obs_dim), state)

    @property
    def clips(self) -> bool:
        """Whether the state's velocities are clipped while local observations are not."""
        return self.single.spec.id.startswith("Walker2d")

    # ------------------------------------------------------------ exact resume

    def _parts(self) -> tuple[np.ndarray, ...]:
        """What a step reads besides MuJoCo's integration state: positions from which velocities are taken."""
        data = self.single.data
        return data.xpos, data.xipos

    def save(self) -> np.ndarray:
        """MuJoCo's integration state, Cartesian positions, and the clock."""
        mujoco: Any = importlib.import_module("mujoco")
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(self.single.model, kind))
        mujoco.mj_getState(self.single.model, self.single.data, state, kind)
        row = np.concatenate([state, *(part.ravel() for part in self._parts()), [float(self.time)]])
        return row.view(np.uint8)

    def load(self, data: np.ndarray) -> None:
        """Go on from there, bit for bit."""
        mujoco: Any = importlib.import_module("mujoco")
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        row = np.frombuffer(data.tobytes(), float)
        size = mujoco.mj_stateSize(self.single.model, kind)
        mujoco.mj_setState(self.single.model, self.single.data, row[:size].copy(), kind)
        for part in self._parts():
            part[:] = row[size : size + part.size].reshape(part.shape)
            size += part.size
        self.time = int(row[-1])

    def render(self) -> np.ndarray:
        """What the robot's own camera sees."""
        return np.asarray(self.single.render())

    def close(self) -> None:
        """Close the renderer."""
        self.factored.close()


def make(task: str, sizes: Sequence[Any], scenario: str, parts: str, obsk: int | None) -> HostEnv:
    """The env of a task; nothing of MuJoCo is imported before an instance is created.

    Args:
        task: Its name.
        sizes: Observation sizes, action sizes, size of the state, horizon.
        scenario: As in `Ant`.
        parts: As in `2x4`.
        obsk: Distance in joints up to which agents see; None for the whole state and a one-hot id.
    """
    obs_dims, act_dims, state_dim, horizon = sizes
    spec = EnvSpec(task, tuple(obs_dims), tuple(act_dims), state_dim, horizon)
    if limit := _LIMITS.get(scenario):
        high = tuple((limit,) * size for size in spec.act_dims)
        spec = dataclasses.replace(spec, act_low=tuple(tuple(-x for x in row) for row in high), act_high=high)
    mirror = (lambda: _mirror(spec, scenario, parts, obsk)) if scenario in BODIES else None
    return HostEnv(spec, lambda render: MujocoInstance(spec, scenario, parts, obsk, render), symmetry=mirror)
