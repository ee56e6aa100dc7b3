"""The device that JAX computes on, chosen before JAX starts."""

from __future__ import annotations

import os

from omad.errors import UserError
from omad.tasks import nearest

DEVICES = {
    "cpu": ("cpu",),
    "gpu": ("gpu", "cuda", "rocm"),
    "cuda": ("gpu", "cuda"),
    "rocm": ("gpu", "rocm"),
    "tpu": ("tpu",),
}
"""What may be asked for, and what JAX calls it."""


SHARED = "XLA_PYTHON_CLIENT_PREALLOCATE"
"""The environment variable by which a process takes memory of a GPU as it needs it, not most of it at once."""


def share_device() -> None:
    """For a process that starts others on its GPU, before it computes; what a user has set stays."""
    os.environ.setdefault(SHARED, "false")


def refuse_unknown(name: str | None) -> None:
    """That there is such a kind of device; JAX is not asked.

    Raises:
        UserError: There is none.
    """
    if name is not None and name not in DEVICES:
        near = nearest(name, DEVICES, 1)[0]
        raise UserError(f"--device is {name!r}; nearest: {near}; allowed: {', '.join(DEVICES)}.")


def use_device(name: str | None) -> None:
    """Compute on one kind of device, in this process and in those that it starts; None leaves the choice to JAX.

    Raises:
        UserError: There is no such kind, this machine has none, or JAX computes on another already.
    """
    refuse_unknown(name)
    if name is None:
        return
    import jax

    before = jax.config.values["jax_platforms"]
    jax.config.update("jax_platforms", name)
    try:
        found = jax.devices()[0].platform
    except RuntimeError as error:
        jax.config.update("jax_platforms", before)
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UserError(
            f"--device is {name!r}, but JAX finds none here ({reason}); give another, or leave it out."
        ) from None
    if found not in DEVICES[name]:
        jax.config.update("jax_platforms", before)
        raise UserError(f"--device is {name!r}, but JAX computes on {found} in this process already; start a new one.")
    os.environ["JAX_PLATFORMS"] = name
