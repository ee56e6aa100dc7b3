"""What the entropy bound of trained policies is worth: agents of one action dimension beside their true entropy."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from omad.diffusion.density import Entropies, entropies
from omad.errors import UserError
from omad.export.fold import Folded, normalised
from omad.export.runner import ACTIVATIONS

__all__ = ["at"]


def at(one: Folded, obs: np.ndarray) -> list[Entropies]:
    """True entropy and bound of one agent's actions at each observation `(time, obs)`.

    Raises:
        UserError: It is no chain of one action dimension, or its control is too steep.
    """
    if one.kind != "chain" or one.act_dim != 1:
        raise UserError(
            f"A policy of kind {one.kind} with {one.act_dim} action dimensions has no entropy by quadrature; OMAD's "
            "agents of one dimension do."
        )
    t, s = one.tensors, one.settings
    seen = np.asarray(normalised(one, t, jnp.asarray(obs, jnp.float32))) @ t["obs.weight"]
    names = [*(f"hidden.{i}" for i in range(len(s["activations"]) - 1)), "last"]
    # The runner's GELU is twice the GELU.
    layers = [
        (ACTIVATIONS[kind], t[f"{name}.weight"] * np.float32(0.5 if kind == "gelu" else 1.0), t[f"{name}.bias"])
        for kind, name in zip(s["activations"], names, strict=True)
    ]
    pull = np.asarray(t["step"], float)[:, 0]
    jump = np.asarray(t.get("jump", np.sqrt(2.0 * t["step"])), float)[:, 0]

    def of(projection: Any) -> Entropies:
        def control(k: int, x: np.ndarray) -> np.ndarray:
            h = x.astype(np.float32)[:, None] @ t["x.weight"] + projection + t["time"][k]
            for activation, weight, bias in layers:
                h = activation(h) @ weight + bias
            return np.clip(h[:, 0].astype(float), -s["control_clip"], s["control_clip"])

        return entropies(control, pull, jump, s["prior_scale"])

    try:
        return [of(projection) for projection in seen]
    except ValueError as error:
        raise UserError(f"The entropy of these policies cannot be computed: {error}.") from None
