"""The record of a task, and the error for an unknown one."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from omad.errors import UserError

Reference = tuple[str, float, str]
"""Label, undiscounted return of an episode (mean), source."""
Published = tuple[str, float, float | None, str]
"""Label, mean, standard deviation over seeds (None where it is not known), source."""


class UnknownTask(UserError):
    """A task's name or one of its options is not one of those there are."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What is known about a task before anything is compiled."""

    name: str
    """Canonical name, options included."""
    protocol: str
    """One sentence that says what a return of this task means."""
    obs_dims: tuple[int, ...]
    """Observation size of each agent; empty where only the env itself knows (those from outside this package)."""
    act_dims: tuple[int, ...]
    """Action size of each agent; empty likewise."""
    state_dim: int
    """Size of the global state for critics, 0 for none."""
    horizon: int
    """Steps until an episode is truncated (or has terminated); 0 where only the env itself knows."""
    factory: str
    """`module:function` that makes the env."""
    arguments: Mapping[str, Any]
    """Keyword arguments of the factory."""
    references: tuple[Reference, ...] = ()
    """Returns of policies that need no learning, or of bounds on all policies."""
    published: tuple[Published, ...] = ()
    """Returns of learned policies in publications, on this protocol as far as is known."""
    hosted: bool = False
    """Whether the name says that the env runs on the host, in worker processes, and not in JAX. Of a registered name
    only making the env says it."""
    symmetric: bool = False
    """Whether the env says what leaves it as it is (`JaxEnv.symmetry`, `HostEnv.symmetry`). A user's env in JAX may;
    only making it says whether it does."""
    code: str = ""
    """`module:function` that the name itself says to import; from a run folder only where that is trusted."""
    isolated: bool = False
    """Whether the env's code runs in processes of its own only: one describes it, workers step it."""

    @property
    def n_agents(self) -> int:
        """Number of learning agents."""
        return len(self.obs_dims)


def nearest(word: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names most like a word, best first; at least one if there are any."""
    names = list(names)
    return difflib.get_close_matches(word, names, count, 0.6) or difflib.get_close_matches(word, names, 1, 0.0)
