"""The policies of one training seed, ready to act."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from omad.errors import Refused
from omad.export.team import Trained
from omad.export.team import export as export_team

__all__ = ["TrainedPolicy"]


class TrainedPolicy:
    """The policies of one training seed: all that agents need to act.

    Args:
        team: The policies, and what is known of them.
    """

    def __init__(self, team: Trained) -> None:
        self.team, self.spec, self.policy = team, team.spec, team.policy
        act = team.act
        self._act = jax.jit(act, static_argnums=3)

    def act(self, obs: Any, key: Key[Array, ""] | None = None) -> Any:
        """Actions in [-1, 1].

        Args:
            obs: One stacked array `(..., agent, obs)`, or one array an agent `(..., obs_i)` of its own size.
            key: Randomness of the sampled actions, consumed; without one, actions are noise-free.

        Returns:
            `(..., agent, act)`, or a list of `(..., act_i)`, as `obs` came.

        Raises:
            Refused: A shape does not fit.
        """
        spec, given = self.spec, obs
        if isinstance(obs, Sequence):
            sizes = tuple(np.shape(o)[-1] if np.ndim(o) else None for o in obs)
            if sizes != spec.obs_dims:
                raise Refused(f"Observations of sizes {sizes} were given; {spec.name} needs {spec.obs_dims}.")
            padded = [
                jnp.pad(jnp.asarray(o, float), [(0, 0)] * (np.ndim(o) - 1) + [(0, spec.obs_dim - np.shape(o)[-1])])
                for o in obs
            ]
            obs = jnp.stack(padded, axis=-2)
        obs = jnp.asarray(obs, float)
        if obs.shape[-2:] != (spec.n_agents, spec.obs_dim):
            raise Refused(
                f"Observations of shape {obs.shape} were given; "
                f"{spec.name} needs (..., {spec.n_agents}, {spec.obs_dim})."
            )
        # Noise-free chains draw nothing, so any key will do.
        action = self._act(self.policy, obs, jax.random.key(np.uint32(0)) if key is None else key, key is not None)
        if isinstance(given, Sequence):
            return [action[..., i, :size] for i, size in enumerate(spec.act_dims)]
        return action

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
            Refused: The folder exists, a package is missing, or the policies cannot be exported like that.
        """
        return export_team(self.team, out, formats, denoising_steps)
