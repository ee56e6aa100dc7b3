"""From a trained team to its folder, and the comparison of a folder with the team that it came from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from omad import schema, tasks
from omad.errors import UserError
from omad.export import bundle, graph
from omad.export.agent import VECTORS, runner
from omad.export.bundle import FORMATS, Facts, Team, Vectors
from omad.export.fold import Folded, draw_noise, fold, sample, unscaled
from omad.spec import ObsNorm, inward
from omad.types import EnvSpec

_SEED = 16
"""Of the test vectors' observations and noise."""


class Trained(NamedTuple):
    """A trained team, as it acts in JAX."""

    act: Callable[..., Any]
    """As `Algorithm.act`."""
    policy: Any
    """Of one seed."""
    spec: EnvSpec
    config: Any
    """Hyperparameters of the algorithm."""
    obs_norm: ObsNorm
    facts: Facts


def history_of(task: str) -> int:
    """Frames that an observation of a task stacks."""
    return int(tasks.find(task).arguments.get("history", 1))


def boxes(spec: EnvSpec) -> list[tuple[np.ndarray, np.ndarray]]:
    """Lower and upper ends of every agent's actions in the env's units, in float32; [-1, 1] where there are none."""
    low = spec.act_low or [[-1.0] * size for size in spec.act_dims]
    high = spec.act_high or [[1.0] * size for size in spec.act_dims]
    return [inward(below, above) for below, above in zip(low, high, strict=True)]


def _observations(one: Folded, count: int, rng: np.random.Generator) -> np.ndarray:
    """Of about the size that the policy is used to."""
    obs = rng.standard_normal((count, one.obs_dim))
    if one.normaliser == "running":
        obs = obs * one.tensors["norm.std"] + one.tensors["norm.mean"]
    return obs.astype(np.float32)


def _padded(rows: Sequence[np.ndarray], width: int) -> Float[Array, "batch agent obs"]:
    return jnp.asarray(np.stack([np.pad(row, ((0, 0), (0, width - row.shape[1]))) for row in rows], axis=1))


def vectors(team: Trained, folded: Sequence[Folded], count: int, seed: int = _SEED) -> list[Vectors]:
    """Random observations and noise of every agent, and the actions in [-1, 1] that the algorithm itself takes.

    The last quarter is noise-free.
    """
    spec, quiet = team.spec, count // 4
    rng = np.random.default_rng(seed)
    obs = [_observations(one, count, rng) for one in folded]
    rows = _padded(obs, spec.obs_dim)
    key = jax.random.key(seed)
    act = jax.jit(team.act, static_argnums=3)
    sampled = act(team.policy, rows, jax.random.clone(key), True)
    still = act(team.policy, rows, jax.random.clone(key), False)
    draw = jax.jit(partial(draw_noise, folded[0], spec.n_agents, spec.act_dim, count))
    noise = np.array(draw(key))
    noise[:, count - quiet :] = 0
    action = np.where(np.arange(count)[:, None, None] < count - quiet, sampled, still)
    return [Vectors(obs[i], noise[i, :, :, : one.act_dim], action[:, i, : one.act_dim]) for i, one in enumerate(folded)]


def folded_vectors(folded: Sequence[Folded], count: int, seed: int = _SEED) -> list[Vectors]:
    """The same for policies that are not the algorithm's own: of fewer steps, or distilled."""
    rng = np.random.default_rng(seed)
    found = []
    for one in folded:
        obs = _observations(one, count, rng)
        noise = rng.standard_normal((count, one.noise_rows, one.act_dim)).astype(np.float32)
        noise[count - count // 4 :] = 0
        found.append(Vectors(obs, noise, np.asarray(jax.jit(partial(sample, one))(one.tensors, obs, noise))))
    return found


def _both(team: Trained, steps: int | None, count: int, seed: int = _SEED) -> tuple[list[Folded], list[Vectors]]:
    folded = fold(team.policy, team.config, team.spec, team.obs_norm, steps)
    if folded[0].settings.get("trained_steps", 1) != folded[0].settings.get("steps", 1):
        return folded, folded_vectors(folded, count, seed)
    return folded, vectors(team, folded, count, seed)


def export(
    team: Trained, out: str | Path, formats: Sequence[str] = FORMATS, denoising_steps: int | None = None
) -> Path:
    """Write a trained team.

    Args:
        team: The team.
        out: A new folder.
        formats: `numpy`, `onnx` or both.
        denoising_steps: Steps of an action; by default those that it was trained with.

    Raises:
        UserError: See `bundle.write` and `fold`.
    """
    folded, tests = _both(team, denoising_steps, VECTORS)
    task, spec = team.facts.task, team.spec
    return bundle.write(Path(out), folded, tests, boxes(spec), history_of(task), team.facts, formats, spec.agents)


def compare(folder: str | Path, team: Trained, count: int = 256, seed: int = 1) -> dict[str, Any]:
    """A bundle beside the team in JAX: the largest difference of actions in [-1, 1], by runtime, on fresh observations.

    Raises:
        UserError: The bundle cannot be read, or is not of this team.
    """
    folder = Path(folder)
    about = bundle.load(folder)
    mine, theirs = ((f.task, f.seed, f.env_steps) for f in (team.facts, about.facts))
    if mine != theirs:
        raise UserError(
            f"{folder} holds seed {about.facts.seed} of {about.facts.task} after {about.facts.env_steps} env steps, "
            f"not seed {team.facts.seed} of {team.facts.task} after {team.facts.env_steps}; give the run it came from."
        )
    if len(about.agents) != team.spec.n_agents:
        raise UserError(f"{folder} has {len(about.agents)} agents, the run {team.spec.n_agents}; export it again.")
    if about.kind == "distilled":
        raise UserError(f"{folder} holds a distilled team, which is not meant to act exactly as its teacher does.")
    folded, tests = _both(team, about.steps if about.steps != about.trained_steps else None, count, seed)
    return {"observations": count, "difference": differences(folder, about, folded, tests)}


def differences(folder: Path, about: Team, folded: Sequence[Folded], tests: Sequence[Vectors]) -> dict[str, float]:
    """Largest difference of actions in [-1, 1] by runtime, over all agents.

    Raises:
        UserError: A file is damaged, or a graph is not of the form that these policies have.
    """
    worst: dict[str, float] = {}
    for i, (name, one, test) in enumerate(zip(about.agents, folded, tests, strict=True)):
        low, high = (np.asarray(box[i], np.float32) for box in (about.action_low, about.action_high))

        def note(runtime: str, action: np.ndarray, test: Vectors = test, rounding: Any = 0.0) -> None:
            gap = float(np.maximum(np.abs(action - test.action) - rounding, 0.0).max())
            worst[runtime] = max(worst.get(runtime, 0.0), math.inf if math.isnan(gap) else gap)

        if f"{name}/policy.safetensors" in about.files:
            note("numpy", runner(folder / name).policy(test.obs, test.noise))
        if f"{name}/policy.onnx" in about.files:
            path = folder / name / "policy.onnx"
            data, title = schema.read_bytes(path, unpack=False), bundle.title_of(about.facts, i)
            if not graph.alike(data, graph.build(one, low, high, title)):
                raise UserError(f"{path} is not the graph of these policies; export the run again.")
            # Far from zero the env's units are coarse: two single-precision steps there, as part of half the box.
            step = np.finfo(np.float32).eps * np.maximum(np.abs(low), np.abs(high)).astype(float)
            coarse = 4.0 * step / (high.astype(float) - low)
            note("onnx", unscaled(onnx_policy(data, path)(test.obs, test.noise), low, high), rounding=coarse)
    return worst


def onnx_policy(data: bytes, path: Path) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """(stacked observations, noise) -> actions, in an ONNX Runtime session of one thread.

    Args:
        data: The graph, of our own making or like it: loading a stranger's may take any memory.
        path: What to call it.

    Raises:
        UserError: The package is missing, or the file is no such graph; the function raises that too.
    """
    ort = graph.require("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    unusable = f"{path} is no graph of a policy; export the run again."
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(unusable) from error

    def act(obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
        try:
            (action,) = session.run(None, {"obs": obs, "noise": noise})
        except Exception as error:
            raise UserError(unusable) from error
        return action

    return act
