"""A short memory for agents: what an agent saw and did before, behind what it sees now.

Where an observation hides what matters (nobody in `mpe/deception-N` sees a velocity, not even their own), a policy
without memory cannot do what one with it can. Policies stay what they are, functions of an observation; the observation
holds the last few. Adding one's own last action is common in multi-agent learning (PyMARL's `obs_last_action`, of
Samvelyan et al. 2019, arXiv 1902.04043), adding earlier observations in learning from pixels (Mnih et al. 2015).
Execution stays decentralised: an agent remembers only its own.
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from omad import tasks
from omad.types import EnvState, JaxEnv, Observation, Outcome, Symmetry

__all__ = ["StackedState", "env_state", "stack_frames"]


class StackedState(eqx.Module):
    """The env's own state, what the agents see in it, and what they saw and did before, the newest first."""

    state: EnvState
    obs: Float[Array, "agent obs"]
    past: Float[Array, "agent moment seen_and_done"]


def env_state(state: EnvState) -> EnvState:
    """The env's own state, whether its agents remember or not."""
    return state.state if isinstance(state, StackedState) else state


def stack_frames(env: JaxEnv, steps: int, name: str) -> JaxEnv:
    """The env, its agents seeing their last observations and own actions as well.

    An observation holds the present one, then for each earlier moment, the newest first, the observation and the action
    that followed it, in [-1, 1] as the learner gave it. Before the first step everything stood still: the first
    observation, and actions of zeros. The state for critics stays the env's.

    Args:
        env: agents must be of one size.
        steps: observations an agent holds, the present one included; with 1 the env comes back as it is.
        name: of the new task.

    Raises:
        ValueError: `steps` is below 1, or agents differ in size.
    """
    spec = env.spec
    if steps < 1 or len({*zip(spec.obs_dims, spec.act_dims, strict=True)}) > 1:
        raise ValueError(f"{name}: {steps} steps of agents of the sizes {spec.obs_dims}, {spec.act_dims}.")
    if steps == 1:
        return env

    def show(seen: Observation, past: Float[Array, "agent moment seen_and_done"]) -> Observation:
        return Observation(jnp.concatenate([seen.obs, past.reshape(spec.n_agents, -1)], axis=1), seen.state)

    def reset(key: Key[Array, ""]) -> tuple[StackedState, Observation]:
        state, seen = env.reset(key)
        idle = jnp.concatenate([seen.obs, jnp.zeros((spec.n_agents, spec.act_dim), seen.obs.dtype)], axis=1)
        past = jnp.repeat(idle[:, None], steps - 1, axis=1)
        return StackedState(state, seen.obs, past), show(seen, past)

    def step(was: StackedState, action: Float[Array, "agent act"], key: Key[Array, ""]) -> tuple[StackedState, Outcome]:
        state, outcome = env.step(was.state, action, key)
        newest = jnp.concatenate([was.obs, jnp.clip(action, -1, 1)], axis=1)
        past = jnp.concatenate([newest[:, None], was.past[:, :-1]], axis=1)
        shown = dataclasses.replace(outcome, next=show(outcome.next, past))
        return StackedState(state, outcome.next.obs, past), shown

    sizes = tasks.stacked_dims(spec.obs_dims, spec.act_dims, steps)
    longer = dataclasses.replace(spec, name=name, obs_dims=sizes)
    return JaxEnv(longer, reset, step, env.symmetry and _longer(env.symmetry, steps))


def _longer(symmetry: Symmetry, steps: int) -> Symmetry:
    """Every remembered observation and action turns as the present one does."""
    indices, signs = [symmetry.obs_index], [symmetry.obs_sign]
    offset = symmetry.obs_index.shape[1]
    for _ in range(steps - 1):
        for index, sign in ((symmetry.obs_index, symmetry.obs_sign), (symmetry.action_index, symmetry.action_sign)):
            indices.append(index + offset)
            signs.append(sign)
            offset += index.shape[1]
    return dataclasses.replace(symmetry, obs_index=np.concatenate(indices, 1), obs_sign=np.concatenate(signs, 1))
