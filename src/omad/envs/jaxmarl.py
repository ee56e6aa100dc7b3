"""Envs of JaxMARL, by its registry (`jaxmarl:NAME?...`) or as objects.

Differs from JaxMARL's own use: `step_env` is called and never `step`, which resets; the team has one reward, the sum of
its agents' (`?team_reward=mean`); `?done=` says what an end means (`omad.envs.foreign`). Critics read
`get_world_state` where the env has one. Episodes are as long as the env has them: its particle tasks end in step 26.

Source: Rutherford et al. 2024, "JaxMARL: Multi-Agent RL Environments and Algorithms in JAX", arXiv 2311.10090.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from omad import extras
from omad.envs.adapted import bounds_of, length_of
from omad.envs.contract import Broken, guarded
from omad.envs.foreign import OURS, Source, Stepped, as_team
from omad.envs.imported import OWN
from omad.errors import UserError
from omad.tasks import nearest
from omad.types import EnvState, JaxEnv

_CONTINUOUS = (
    ("jaxmarl.environments.mpe", "action_type=Continuous"),
    ("jaxmarl.environments.smax", "action_type=continuous"),
    ("jaxmarl.environments.jaxnav", "act_type=Continuous"),
)
"""Where an env of the package is defined, and what asks for its continuous form."""


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """What the package prints when it is imported goes nowhere, and the streams stay what they were."""
    names = ("stdout", "stderr", "__stdout__", "__stderr__")
    streams = {name: getattr(sys, name) for name in names}
    try:
        for name in names:
            setattr(sys, name, io.StringIO())
        yield
    finally:
        for name, stream in streams.items():
            setattr(sys, name, stream)


def named(task: str, env: str, arguments: Mapping[str, Any]) -> Any:
    """An env of JaxMARL's registry, as the package gives it.

    Args:
        task: The task's whole name.
        env: As in `MPE_simple_spread_v3`.
        arguments: Of the env, and those of `foreign.OURS`.

    Raises:
        UserError: The package is missing, has no such env, or the env does not take the arguments.
    """
    extras.require("jaxmarl", task)
    with _silent():
        library = importlib.import_module("jaxmarl")
    if env not in library.registered_envs:
        near = ", ".join(nearest(env, library.registered_envs))
        raise UserError(f"JaxMARL has no env {env!r}; nearest: {near}; allowed: {', '.join(library.registered_envs)}.")
    given = {key.removeprefix(OWN): value for key, value in arguments.items() if key not in OURS}
    try:
        with _silent():
            made = guarded(f"jaxmarl.make({env!r})", library.make, env, **given)
    except Broken as error:
        raise UserError(f"{task}: {error}.") from error
    # Most of them swallow whatever they do not know.
    known = {name for cls in type(made).__mro__ for name in inspect.signature(cls.__init__).parameters}
    for key in given:
        if key not in known and not hasattr(made, key):
            near = ", ".join(nearest(key, known - {"self", "args", "kwargs"}))
            raise UserError(f"{task}: {env} has no argument {key!r}; nearest: {near}.")
    return made


def is_env(made: Any) -> bool:
    """Whether something is used as JaxMARL's envs are."""
    return not isinstance(made, type) and all(
        hasattr(made, name) for name in ("agents", "reset", "step_env", "action_space")
    )


def adopted(task: str, env: Any, arguments: Mapping[str, Any]) -> JaxEnv:
    """An env of JaxMARL, or one that is used alike, as omad reads it.

    Raises:
        UserError: It cannot be used; the message says why.
    """
    home = type(env).__module__
    hint = next((f" Its continuous form is ?{words}." for begins, words in _CONTINUOUS if home.startswith(begins)), "")
    agents = [str(agent) for agent in env.agents]
    if not agents or len(set(agents)) < len(agents):
        raise UserError(f"{task}: its agents are {', '.join(agents) or 'none'}; each needs a name of its own.")
    boxes = [bounds_of(task, agent, _space(task, env, agent), hint) for agent in agents]
    world_state = getattr(env, "get_world_state", None)

    def world(state: EnvState) -> Array:
        if world_state is None:
            return jnp.zeros(0)
        shown = world_state(state)
        parts = [shown[agent] for agent in agents] if isinstance(shown, Mapping) else [shown]
        return jnp.concatenate([jnp.ravel(part) for part in parts])

    def reset(key: Any) -> tuple[EnvState, list[Array], Array]:
        obs, state = env.reset(key)
        return state, [obs[agent] for agent in agents], world(state)

    def step(state: EnvState, actions: list[Array], key: Any) -> tuple[EnvState, Stepped]:
        obs, state, rewards, dones, _ = env.step_env(key, state, dict(zip(agents, actions, strict=True)))
        each = ([part[agent] for agent in agents] for part in (obs, rewards, dones))
        rows, paid, ended = each
        return state, Stepped(rows, world(state), paid, ended, dones["__all__"])

    return as_team(task, Source(tuple(agents), boxes, reset, step, length_of(env), "step"), arguments)


def _space(task: str, env: Any, agent: str) -> Any:
    try:
        return guarded("asking for its spaces", env.action_space, agent)
    except Broken as error:
        raise UserError(f"{task}: agent {agent} declares no space of actions ({error}).") from error
