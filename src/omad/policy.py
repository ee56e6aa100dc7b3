"""Trained policies, as users call them: agents by name, by number or all in one array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Key

from omad.envs.host_env import scale
from omad.errors import UserError
from omad.export.team import Trained
from omad.export.team import export as export_team
from omad.spec import inward
from omad.tasks import nearest

Randomness = int | Key[Array, ""] | None
"""A seed, a JAX key, or None for noise-free actions."""


class TrainedPolicy:
    """The policies of one training seed: all that the agents need to act.

    Args:
        team: The policies, and what is known about them.
    """

    def __init__(self, team: Trained) -> None:
        self.team, self.spec, self.policy = team, team.spec, team.policy
        act = team.act
        self._by_key = jax.jit(act, static_argnums=3)
        # The key is made inside the compiled call: one dispatch instead of two.
        self._by_seed = jax.jit(
            lambda policy, obs, seed, explore: act(policy, obs, jax.random.key(seed), explore), static_argnums=3
        )
        self._low, self._high, self._least, self._most = _bounds(self.spec)
        self._places = {name: i for i, name in enumerate(self.spec.agents)}

    def act(self, obs: Any, seed: Randomness = None) -> Any:
        """Actions for observations, in the form in which these come.

        | `obs` | actions |
        | --- | --- |
        | dict by agent name, of arrays `(..., obs_i)` | dict of `(..., act_i)` in the env's own units |
        | one stacked array `(..., agent, obs)` | `(..., agent, act)` in [-1, 1] |
        | list with one array `(..., obs_i)` per agent | list of `(..., act_i)` in [-1, 1] |

        A dict may leave agents out; they are absent from the answer too. Observations are in the env's own units.

        Args:
            obs: As above.
            seed: An integer seed or a JAX key for sampled actions; without it, actions are noise-free. The same
                seed gives an agent the same action in all three forms.

        Raises:
            UserError: A shape, a name or a number does not fit.
        """
        if isinstance(obs, Mapping):
            places = [self._place(name) for name in obs]
            action = self._in_units(self._of_rows(places, [_array(row) for row in obs.values()], seed))
            return {name: action[..., i, : self.spec.act_dims[i]] for name, i in zip(obs, places, strict=True)}
        if isinstance(obs, Sequence):
            rows = [_array(row) for row in obs]
            sizes = tuple(row.shape[-1] if row.ndim else None for row in rows)
            if sizes != self.spec.obs_dims:
                raise UserError(
                    f"Observations of sizes {sizes} were given; {self.spec.name} needs {self.spec.obs_dims}."
                )
            action = self._of_rows(range(len(rows)), rows, seed)
            return [action[..., i, :size] for i, size in enumerate(self.spec.act_dims)]
        if not isinstance(obs, Tracer):  # inside a compiled function, numbers are not known yet
            obs = _array(obs)
            _finite(obs)
        if obs.shape[-2:] != (self.spec.n_agents, self.spec.obs_dim):
            raise UserError(
                f"Observations of shape {obs.shape} were given; "
                f"{self.spec.name} needs (..., {self.spec.n_agents}, {self.spec.obs_dim})."
            )
        return self._sample(obs, seed)

    def agent(self, agent: str | int) -> AgentPolicy:
        """One agent alone.

        Args:
            agent: Its name, or its place in the order of the agents.

        Raises:
            UserError: There is no such agent.
        """
        return AgentPolicy(self, self._place(agent) if isinstance(agent, str) else self._numbered(agent))

    def export(
        self, out: str | Path, formats: Sequence[str] = ("numpy", "onnx"), denoising_steps: int | None = None
    ) -> Path:
        """Write one folder an agent, which acts without JAX; see docs/export.md.

        Args:
            out: A new folder.
            formats: `numpy` (a runner in one file), `onnx`, or both.
            denoising_steps: Steps of an action; by default those that it was trained with.

        Returns:
            The folder.

        Raises:
            UserError: The folder exists, a package is missing, or the policies cannot be exported like that.
        """
        return export_team(self.team, out, formats, denoising_steps)

    def _place(self, name: Any) -> int:
        if (place := self._places.get(name)) is not None:
            return place
        agents = self.spec.agents
        if not agents:
            raise UserError(
                f"{name!r} was given as an agent's name, but {self.spec.name} has no names for its agents; give one "
                f"stacked array, a list, or a number from 0 to {self.spec.n_agents - 1}."
            )
        near = ", ".join(nearest(str(name), agents))
        raise UserError(f"There is no agent {name!r}; nearest: {near}; allowed: {', '.join(agents)}.")

    def _numbered(self, number: Any) -> int:
        if not isinstance(number, int | np.integer) or isinstance(number, bool) or not 0 <= number < self.spec.n_agents:
            raise UserError(
                f"There is no agent {number!r}; {self.spec.name} has agents 0 to {self.spec.n_agents - 1}"
                f"{': ' * bool(self.spec.agents)}{', '.join(self.spec.agents)}."
            )
        return int(number)

    def _named(self, place: int) -> str:
        return self.spec.agents[place] if self.spec.agents else str(place)

    def _of_rows(self, places: Sequence[int], rows: Sequence[np.ndarray], seed: Randomness) -> np.ndarray:
        """Actions `(..., agent, act)` in [-1, 1] for the observations of some agents; all others see zeros."""
        spec = self.spec
        if not rows:
            raise UserError(f"No observations were given; {spec.name} needs those of at least one agent.")
        batch = rows[0].shape[:-1]
        padded = np.zeros((*batch, spec.n_agents, spec.obs_dim), np.float32)
        for place, row in zip(places, rows, strict=True):
            due = (*batch, spec.obs_dims[place])
            if row.shape != due:
                raise UserError(
                    f"An observation of shape {row.shape} was given for agent {self._named(place)}; {spec.name} needs "
                    f"(..., {spec.obs_dims[place]}), with the same leading axes for all agents."
                )
            padded[..., place, : row.shape[-1]] = row
        _finite(padded)
        return np.asarray(self._sample(padded, seed))

    def _sample(self, obs: Any, seed: Randomness) -> Any:
        if seed is None:  # noise-free chains draw nothing, so any seed will do
            return self._by_seed(self.policy, obs, np.uint32(0), False)
        if isinstance(seed, int | np.integer) and not isinstance(seed, bool) and 0 <= seed < 2**32:
            return self._by_seed(self.policy, obs, np.uint32(seed), True)
        if isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key) and not seed.shape:
            return self._by_key(self.policy, obs, seed, True)
        raise UserError(
            f"The seed is {str(seed)[:100]!r}; it must be a whole number from 0 to {2**32 - 1} or one key of "
            "jax.random.key."
        )

    def _in_units(self, action: np.ndarray) -> np.ndarray:
        """Actions of all agents in the env's own units, within its bounds also as float32."""
        found = scale(action.astype(float), self._low, self._high).astype(np.float32)
        return np.minimum(np.maximum(found, self._least), self._most)


class AgentPolicy:
    """One agent of a team: what a single robot runs."""

    def __init__(self, team: TrainedPolicy, place: int) -> None:
        self._team, self.place = team, place

    def act(self, obs: Any, seed: Randomness = None) -> np.ndarray:
        """The agent's action on its own observation, in the env's own units.

        Args:
            obs: `(..., obs_i)`, as the env gives it.
            seed: As for `TrainedPolicy.act`.

        Returns:
            `(..., act_i)`.

        Raises:
            UserError: A shape or a number does not fit.
        """
        action = self._team._in_units(self._team._of_rows([self.place], [_array(obs)], seed))
        return action[..., self.place, : self._team.spec.act_dims[self.place]]


def _array(obs: Any) -> np.ndarray:
    if isinstance(obs, np.ndarray) and obs.dtype == np.float32:
        return obs
    try:
        with np.errstate(over="ignore"):
            return np.asarray(obs, np.float32)
    except (TypeError, ValueError):
        raise UserError(
            f"An observation is {type(obs).__name__} {str(obs)[:100]!r}; it must be an array of numbers."
        ) from None


def _finite(obs: np.ndarray) -> None:
    if not np.isfinite(obs).all():
        raise UserError("An observation holds a number that is not finite as float32; give finite numbers only.")


def _bounds(spec: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Bounds of all agents' actions `(agent, act)`, and the float32 numbers next to them that lie within."""
    low, high = -np.ones((spec.n_agents, spec.act_dim)), np.ones((spec.n_agents, spec.act_dim))
    for bound, rows in ((low, spec.act_low), (high, spec.act_high)):
        for i, row in enumerate(rows):
            bound[i, : len(row)] = row
    return low, high, *inward(low, high)
