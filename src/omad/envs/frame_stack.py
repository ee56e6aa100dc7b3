"""Frame stacking: an agent's earlier observations and actions, behind its present observation.

Where an observation hides what matters (nobody in `mpe/deception-N` sees a velocity, not even their own), a reactive
policy of one observation cannot do what one of several can. Policies stay functions of an observation; the observation
holds the last few. Adding one's own last action is common in multi-agent learning (PyMARL's `obs_last_action`, of
Samvelyan et al. 2019, arXiv 1902.04043), adding earlier observations in learning from pixels (Mnih et al. 2015).
Execution stays decentralised: an agent's stack holds only its own.
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from omad import tasks
from omad.types import EnvState, JaxEnv, Observation, Outcome, Symmetry


class StackedState(eqx.Module):
    """The env's own state, the agents' present observations, and earlier observations and actions, the newest first."""

    state: EnvState
    obs: Float[Array, "agent obs"]
    past: Float[Array, "agent time obs_act"]


def env_state(state: EnvState) -> EnvState:
    """The env's own state, with or without frame stacking."""
    return state.state if isinstance(state, StackedState) else state


def stack_frames(env: JaxEnv, history_length: int, name: str) -> JaxEnv:
    """The env with frame stacking: agents also observe their last observations and own actions.

    An observation holds the present one, then for each earlier step, the newest first, the observation and the action
    that followed it, in [-1, 1] as the learner chose it. Before the first step everything stood still: the first
    observation, and actions of zeros. The state for critics stays the env's.

    Args:
        env: agents must be of one size.
        history_length: observations in the stack, the present one included; with 1 the env is returned as it is.
        name: of the new task.

    Raises:
        ValueError: `history_length` is below 1, or agents differ in size.
    """
    spec = env.spec
    if history_length < 1 or len({*zip(spec.obs_dims, spec.act_dims, strict=True)}) > 1:
        raise ValueError(
            f"{name}: a history of {history_length} for agents of the sizes {spec.obs_dims}, {spec.act_dims}."
        )
    if history_length == 1:
        return env

    def stacked(present: Observation, past: Float[Array, "agent time obs_act"]) -> Observation:
        return Observation(jnp.concatenate([present.obs, past.reshape(spec.n_agents, -1)], axis=1), present.state)

    def reset(key: Key[Array, ""]) -> tuple[StackedState, Observation]:
        state, first = env.reset(key)
        idle = jnp.concatenate([first.obs, jnp.zeros((spec.n_agents, spec.act_dim), first.obs.dtype)], axis=1)
        past = jnp.repeat(idle[:, None], history_length - 1, axis=1)
        return StackedState(state, first.obs, past), stacked(first, past)

    def step(was: StackedState, action: Float[Array, "agent act"], key: Key[Array, ""]) -> tuple[StackedState, Outcome]:
        state, outcome = env.step(was.state, action, key)
        newest = jnp.concatenate([was.obs, jnp.clip(action, -1, 1)], axis=1)
        past = jnp.concatenate([newest[:, None], was.past[:, :-1]], axis=1)
        outcome_stacked = dataclasses.replace(outcome, next=stacked(outcome.next, past))
        return StackedState(state, outcome.next.obs, past), outcome_stacked

    sizes = tasks.stacked_dims(spec.obs_dims, spec.act_dims, history_length)
    longer = dataclasses.replace(spec, name=name, obs_dims=sizes)
    return JaxEnv(longer, reset, step, env.symmetry and _stacked_symmetry(env.symmetry, history_length))


def _stacked_symmetry(symmetry: Symmetry, history_length: int) -> Symmetry:
    """Every stacked observation and action is transformed as the present one is."""
    indices, signs = [symmetry.obs_index], [symmetry.obs_sign]
    offset = symmetry.obs_index.shape[1]
    for _ in range(history_length - 1):
        for index, sign in ((symmetry.obs_index, symmetry.obs_sign), (symmetry.action_index, symmetry.action_sign)):
            indices.append(index + offset)
            signs.append(sign)
            offset += index.shape[1]
    return dataclasses.replace(symmetry, obs_index=np.concatenate(indices, 1), obs_sign=np.concatenate(signs, 1))
