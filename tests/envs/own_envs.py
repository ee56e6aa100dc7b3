"""JAX envs as users write them, in three styles; some cannot be used."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from omad import EnvSpec, HostEnv, JaxEnv, Observation, Outcome

# ---------------------------------------------------------------- JAX


def reach(n: int = 2, horizon: int = 4, **wrong: Any) -> JaxEnv:
    """Agent i sees i + 1 numbers, which it should repeat; `wrong` replaces parts of the spec."""
    sizes = tuple(range(1, n + 1))
    spec = EnvSpec("reach", sizes, sizes, 0, horizon, ("far",))
    mask = jnp.asarray(spec.act_mask, float)

    def seen(state: Any) -> Observation:
        return Observation(state[0], jnp.zeros(0))

    def reset(key: Any) -> Any:
        state = mask * jax.random.uniform(key, mask.shape), jnp.zeros((), jnp.int32)
        return state, seen(state)

    def step(state: Any, action: Any, key: Any) -> Any:
        far = jnp.sum(jnp.square((action - state[0]) * mask))
        state = state[0], state[1] + 1
        over = state[1] >= horizon
        return state, Outcome(seen(state), -far, jnp.zeros_like(over), over, {"far": far})

    def picture(state: Any) -> np.ndarray:
        return np.full((8, 8, 3), 10 * int(state[1]), np.uint8)

    return JaxEnv(dataclasses.replace(spec, **wrong), reset, step, picture=picture)


def undeclared() -> JaxEnv:
    nothing: Any = None
    return reach()._replace(spec=nothing)


def misdeclared() -> JaxEnv:
    return reach(obs_dims=(3, 3))


def changing() -> JaxEnv:
    env = reach()
    return env._replace(step=lambda state, action, key: ((state[0], 1.0 * state[1]), env.step(state, action, key)[1]))


def vector() -> JaxEnv:
    """Its info has a number an agent."""
    env = reach(info_keys=("far",))

    def step(state: Any, action: Any, key: Any) -> Any:
        state, outcome = env.step(state, action, key)
        object.__setattr__(outcome, "info", {"far": jnp.zeros(2)})  # past the checks of types, which only tests have
        return state, outcome

    return env._replace(step=step)


def taken() -> JaxEnv:
    return reach(info_keys=("return",))


def twice() -> JaxEnv:
    return reach(info_keys=("lit", "lit"))


def flagged() -> JaxEnv:
    """Its flags are whole numbers."""
    env = reach()

    def step(state: Any, action: Any, key: Any) -> Any:
        state, outcome = env.step(state, action, key)
        return state, eqx.tree_at(lambda made: made.terminated, outcome, outcome.terminated.astype(jnp.int32))

    return env._replace(step=step)


def failing() -> JaxEnv:
    raise ZeroDivisionError("no ground to stand on")


def number() -> int:
    return 3


def hosted() -> HostEnv:
    import own_hosts

    return own_hosts.lamp()


def box(size: int, low: float = -1.0, high: float = 1.0) -> Any:
    return SimpleNamespace(low=low, high=high, shape=(size,), dtype=jnp.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Clock:
    step: Any
    push: Any


class Team:
    """In the style of JaxMARL: two agents of unequal sizes.

    `short` ends by the task, all by the clock after `late` more steps than it says. What it pays is the step, and ten
    times the step.
    """

    agents = ("short", "long")

    def __init__(self, ends: int = 0, max_steps: int = 5, late: int = 1, discrete: bool = False, state: bool = True):
        self.ends, self.late, self.discrete = ends, late, discrete
        if max_steps:
            self.max_steps = max_steps
        self.last = (max_steps or 5) + late
        if state:
            self.get_world_state = lambda state: jnp.stack([state.step * 1.0, *state.push])

    def action_space(self, agent: str) -> Any:
        space = box(1, 0.0, 4.0) if agent == "short" else box(2)
        return SimpleNamespace(n=5, shape=(), dtype=jnp.int32) if self.discrete else space

    def _seen(self, state: Clock) -> dict[str, Any]:
        return {"short": 1.0 + state.push[:1], "long": 1.0 + state.step + jnp.zeros((1, 3))}

    def reset(self, key: Any) -> Any:
        state = Clock(0, jax.random.uniform(key, (2,)))
        return self._seen(state), state

    def step(self, key: Any, state: Any, actions: Any) -> Any:
        raise AssertionError("the step that resets must not be called")

    def step_env(self, key: Any, state: Clock, actions: dict[str, Any]) -> Any:
        state = Clock(state.step + 1, state.push + actions["short"])
        paid = {"short": 1.0 * state.step, "long": 10.0 * state.step}
        clock = state.step >= self.last
        early = (state.step >= self.ends) & (self.ends > 0)
        dones = {"short": clock | early, "long": clock, "__all__": clock | (early & (self.ends == 2))}
        return self._seen(state), state, paid, dones, {}


class Alone:
    """In the style of gymnax."""

    default_params = SimpleNamespace(max_steps_in_episode=3)

    def __init__(self, discrete: bool = False) -> None:
        self.discrete = discrete

    def action_space(self, params: Any) -> Any:
        return SimpleNamespace(n=2, shape=(), dtype=jnp.int32) if self.discrete else box(1, -2.0, 2.0)

    def reset(self, key: Any, params: Any) -> Any:
        return jnp.ones(2), {"time": 0, "at": jax.random.uniform(key)}

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        state = {"time": state["time"] + 1, "at": state["at"] + action[0]}
        done = (state["time"] >= params.max_steps_in_episode) | (state["at"] > 3)
        return jnp.ones(2) * state["at"], state, -jnp.abs(state["at"]), done, {}
