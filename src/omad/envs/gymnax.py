"""Single-agent envs in the style of gymnax, as teams of one: given as objects, or by a factory.

Source: Lange 2022, "gymnax: A JAX-based Reinforcement Learning Environment Library". As with JaxMARL's, `step_env` is
called and never `step`, and `?done=` says what an end means (`omad.envs.foreign`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from omad.envs.adapted import bounds_of, length_of
from omad.envs.contract import Broken, guarded
from omad.envs.foreign import Source, Stepped, as_team
from omad.errors import UserError
from omad.types import EnvState, JaxEnv


def is_env(made: Any) -> bool:
    """Whether something is used as gymnax's envs are; `(env, parameters)`, as `gymnax.make` gives, is too."""
    if type(made) is tuple and len(made) == 2:
        made = made[0]
    return not isinstance(made, type) and all(
        hasattr(made, name) for name in ("default_params", "reset", "step_env", "action_space")
    )


def adopted(task: str, made: Any, arguments: Mapping[str, Any]) -> JaxEnv:
    """An env of gymnax, or one that is used alike, as omad reads it.

    Raises:
        UserError: It cannot be used; the message says why.
    """
    env, params = made if type(made) is tuple else (made, made.default_params)
    try:
        space = guarded("action_space()", env.action_space, params)
    except Broken as error:
        raise UserError(f"{task}: it declares no space of actions ({error}).") from error
    hint = " A task of the same kind with continuous actions may exist, as MountainCarContinuous-v0 for MountainCar-v0."
    box = bounds_of(task, "0", space, hint)

    def reset(key: Any) -> tuple[EnvState, list[Array], Array]:
        obs, state = env.reset(key, params)
        return state, [obs], jnp.zeros(0)

    def step(state: EnvState, actions: list[Array], key: Any) -> tuple[EnvState, Stepped]:
        obs, state, reward, done, _ = env.step_env(key, state, actions[0], params)
        return state, Stepped([obs], jnp.zeros(0), [reward], [done], done)

    return as_team(task, Source((), [box], reset, step, length_of(params, env), "time"), arguments)
