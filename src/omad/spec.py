"""Sizes of a task, and what both settings and programs say. Worker processes import it: NumPy only."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

ObsNorm = Literal["none", "running", "harl"]
"""How observations may be standardised (`standardise.py`)."""
RewardNorm = Literal["none", "return"]
"""How rewards may be normalised (`reward_norm.py`)."""
LONGEST_HOLD = 16
"""Steps after which held noise is renewed in any case (Kim et al. 2026, FlashSAC)."""


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """Sizes of a task, known before anything is compiled.

    Agents of unequal size are zero-padded to `obs_dim` and `act_dim`; `obs_dims` and `act_dims` keep the real sizes.
    """

    name: str
    """Full task name, protocol and options included, e.g. `mpe/spread-3`."""
    obs_dims: tuple[int, ...]
    """Real observation size of each agent."""
    act_dims: tuple[int, ...]
    """Real action size of each agent."""
    state_dim: int
    """Size of the global state, 0 where the env gives none (critics then read all observations)."""
    horizon: int
    """The most env steps that an episode can have; the env itself ends it, by then at the latest."""
    info_keys: tuple[str, ...] = ()
    """Names of the extra per-step numbers in `Outcome.info`; evaluation sums them over an episode."""
    agents: tuple[str, ...] = ()
    """Names of the agents in the order of their rows; empty where the env gives them none."""
    act_low: tuple[tuple[float, ...], ...] = ()
    """Lower bounds of each agent's actions in the env's own units; empty where those are [-1, 1]."""
    act_high: tuple[tuple[float, ...], ...] = ()
    """Upper bounds."""

    def __post_init__(self) -> None:
        """Make lists and arrays tuples, and their numbers Python's: a spec is hashed, compared and written down."""
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _plain(getattr(self, field.name)))

    def differences(self, other: EnvSpec) -> list[str]:
        """What another spec, of the same task at another time, has otherwise; the name and info numbers aside."""
        free = ("name", "info_keys")
        names = [field.name for field in dataclasses.fields(self) if field.name not in free]
        return [
            f"{name} {getattr(self, name)!r}, now {getattr(other, name)!r}"
            for name in names
            if getattr(self, name) != getattr(other, name)
        ]

    @property
    def n_agents(self) -> int:
        """Number of agents."""
        return len(self.obs_dims)

    @property
    def obs_dim(self) -> int:
        """Padded observation size."""
        return max(self.obs_dims)

    @property
    def act_dim(self) -> int:
        """Padded action size."""
        return max(self.act_dims)

    @property
    def seen_size(self) -> int:
        """Numbers that an env shows at one step: the padded observations of all agents, then the state."""
        return self.n_agents * self.obs_dim + self.state_dim

    @property
    def row_size(self) -> int:
        """Numbers in a worker's answer to a step: successor, reward, flags, info, and where the next episode begins."""
        return 2 * self.seen_size + 3 + len(self.info_keys)

    @property
    def joint_act_dim(self) -> int:
        """Real action dimensions of all agents together, the D of the paper."""
        return sum(self.act_dims)

    @property
    def act_mask(self) -> Any:
        """`(agent, act)`: 1 where an action dimension is real, 0 where it is padding."""
        return (np.arange(self.act_dim)[None, :] < np.asarray(self.act_dims)[:, None]).astype(float)

    @property
    def obs_mask(self) -> Any:
        """`(agent, obs)`: 1 where an observation entry is real, 0 where it is padding."""
        return (np.arange(self.obs_dim)[None, :] < np.asarray(self.obs_dims)[:, None]).astype(float)


def _plain(value: Any) -> Any:
    if callable(getattr(value, "tolist", None)):  # of NumPy and of JAX alike
        value = value.tolist()
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


@dataclasses.dataclass(frozen=True, eq=False)
class Symmetry:
    """A finite group of signed permutations under which a task is the same.

    Element g shows a vector x as `sign[g] * x[index[g]]`. For observations and actions that is every agent's row, all
    alike; or, with an axis of agents, each entry of the whole table, by its place in the table's rows one after
    another, so that agents may change places. If (o, s, a, r, o', s') can happen, then so can its image, with the same
    r and equally likely. Compared by identity, so that an env stays hashable.
    """

    obs_index: np.ndarray
    """`(element, obs)` or `(element, agent, obs)`."""
    obs_sign: np.ndarray
    state_index: np.ndarray
    """`(element, state)`."""
    state_sign: np.ndarray
    action_index: np.ndarray
    """`(element, act)` or `(element, agent, act)`, of actions in [-1, 1]."""
    action_sign: np.ndarray


def inward(low: Any, high: Any) -> tuple[np.ndarray, np.ndarray]:
    """Bounds as float32, rounded to within: a number between them is never beyond the ones given."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    least, most = low.astype(np.float32), high.astype(np.float32)
    least = np.where(least < low, np.nextafter(least, np.float32(np.inf)), least)
    return least, np.where(most > high, np.nextafter(most, np.float32(-np.inf)), most)
