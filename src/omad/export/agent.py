"""One agent's folder of an exported team, as it is read: no tensor may have a shape that no policy has."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from omad import schema
from omad.errors import UserError
from omad.export.fold import Kind
from omad.export.runner import BadPolicy, Policy, read_tensors
from omad.spec import ObsNorm

VECTORS = 16
"""Test vectors of an agent; the last four are noise-free."""
_MOST_ENTRIES = 2**26
"""Of what a layer gives for the test vectors, all steps together."""
Size = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class Agent(msgspec.Struct):
    """What is read again of `policy.json`."""

    kind: Kind
    settings: dict[str, Any]
    noise_rows: Size
    normaliser: ObsNorm
    obs_dim: Size
    act_dim: Size
    history: Size
    action_low: list[float]
    action_high: list[float]


def runner(folder: Path) -> Policy:
    """An agent's policy as its own runner has it, which is not executed from its folder.

    Raises:
        UserError: Its files are damaged, or do not fit together.
    """
    try:
        _check_shapes(folder)
        with np.errstate(all="ignore"):
            return Policy(folder)
    except BadPolicy as error:
        raise UserError(str(error)) from None
    except Exception as error:  # noqa: BLE001 - files that somebody else wrote can raise anything
        raise UserError(f"{folder} cannot be used ({type(error).__name__}: {error}); export it again.") from None


def _check_shapes(folder: Path) -> None:
    """Refuse tensors that no policy has: by empty, further or broadcast axes a small file could ask for any memory."""
    about = schema.read_json(folder / "policy.json", Agent)
    found = read_tensors(schema.read_bytes(folder / "policy.safetensors", unpack=False))
    if {len(about.action_low), len(about.action_high)} != {about.act_dim}:
        raise BadPolicy(f"{folder}: the bounds of actions have not {about.act_dim} entries; export it again.")
    layers = [f"hidden.{i}" for i in range(len(about.settings["activations"]) - 1)]
    for name in ("time", *(f"{layer}.bias" for layer in layers)):
        if name not in found or found[name].ndim != 1 + (name == "time"):
            raise BadPolicy(f"{folder}: there is no {name} as a policy has it; export it again.")
    steps, widths = len(found["time"]), [found["time"].shape[1], *(len(found[f"{layer}.bias"]) for layer in layers)]
    due = _shapes(about, steps, widths) | ({"jump": (steps, about.act_dim)} if "jump" in found else {})
    for name in sorted(due.keys() | found.keys()):
        shape = found[name].shape if name in found else None
        if shape is None or shape != due.get(name) or 0 in shape:
            raise BadPolicy(f"{folder}: {name} has the shape {shape}, as no policy has; export it again.")
    if VECTORS * max(steps * widths[0], *widths) > _MOST_ENTRIES:
        raise BadPolicy(f"{folder}: a policy of {steps} steps and widths {widths} is too large to be checked.")


def _shapes(about: Agent, steps: int, widths: list[int]) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a policy, given the widths of its layers but the last."""
    act, out = about.act_dim, about.act_dim * (2 if about.kind == "gaussian" else 1)
    obs = about.obs_dim * about.history + act * (about.history - 1)
    rows = {"gaussian": 1, "deterministic": 1, "distilled": about.noise_rows}.get(about.kind, steps + 1)
    shapes: dict[str, tuple[int, ...]] = {
        "obs.weight": (obs, widths[0]),
        "time": (1 if about.kind in ("gaussian", "deterministic") else steps, widths[0]),
        "last.weight": (widths[-1], out),
        "last.bias": (out,),
        "test.obs": (VECTORS, obs),
        "test.noise": (VECTORS, rows, act),
        "test.action": (VECTORS, act),
    }
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        shapes |= {f"hidden.{i}.weight": (n_in, n_out), f"hidden.{i}.bias": (n_out,)}
    if about.kind in ("chain", "ddpm", "distilled"):
        read = act * (1 + about.settings["group"]) if about.kind == "distilled" else act
        shapes["x.weight"] = (read, widths[0])
    shapes |= {"chain": {"step": (steps, act)}, "ddpm": {"coefficients": (steps, 5)}}.get(about.kind, {})
    if about.normaliser == "running":
        shapes |= {"norm.mean": (obs,), "norm.std": (obs,)}
    return shapes
