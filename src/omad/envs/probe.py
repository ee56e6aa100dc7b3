"""Two-agent tasks that each isolate one thing a learner must get right, with the true value known.

In the manner of the probe environments of Jones 2021, "Debugging RL, Without the Agonizing Pain"
(https://andyljones.com/posts/rl-debugging.html). Where one of them fails while those before it pass, the
fault is in what it isolates. Values are of the team; gamma is the learner's discount.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from omad.envs.adapt import pad
from omad.types import EnvSpec, JaxEnv, Observation, Outcome


class ProbeState(eqx.Module):
    """The env state of every probe."""

    hint: Float[Array, "*b agent obs"]
    """What was drawn at the reset, as it is shown (or hidden)."""
    time: Int[Array, "*b"]
    """Steps done in this episode."""


SampleHint = Callable[[Key[Array, ""]], Float[Array, "agent obs"]]
ObserveHint = Callable[[ProbeState], Float[Array, "agent obs"]]
Reward = Callable[[ProbeState, Float[Array, "agent act"]], Float[Array, ""]]
"""(state before the step, actions) -> team reward."""


def constant() -> JaxEnv:
    """One step, reward 1, terminated: can the critic learn a constant?

    True value: 1 for every observation and action. No bootstrapping, no dependence on anything.
    """
    return probe_env("probe/constant", sample_hint=_ones, reward=lambda state, action: jnp.ones(()))


def signal() -> JaxEnv:
    """One step, both agents see the same random sign, which is the reward: does the critic read observations?

    True value: the observed sign, +1 or -1, whatever the actions.
    """

    def sample_hint(key: Key[Array, ""]) -> Float[Array, "agent obs"]:
        return jnp.full((2, 1), jax.random.rademacher(key, (), float))

    return probe_env("probe/signal", sample_hint=sample_hint, reward=lambda state, action: state.hint[0, 0])


def delay() -> JaxEnv:
    """Two steps, the observation says which, reward 1 at the second, terminated: does the critic bootstrap?

    True values: gamma at observation 0 (first step), 1 at observation 1 (second step).
    """
    return probe_env(
        "probe/delay",
        horizon=2,
        sample_hint=_ones,
        observe_hint=lambda state: state.hint * state.time,
        reward=lambda state, action: (state.time == 1).astype(float),
    )


def timeout() -> JaxEnv:
    """Reward 1 at every step, constant observation, truncated after 10 steps: is a truncation bootstrapped?

    True value: 1 / (1 - gamma) with the bootstrap. A learner that takes a truncation for an end learns about
    the mean over t < 10 of (1 - gamma^(10 - t)) / (1 - gamma), 5.3 for gamma 0.99 and not 100.
    """
    return probe_env(
        "probe/timeout", horizon=10, sample_hint=_ones, reward=lambda state, action: jnp.ones(()), ends=False
    )


def push() -> JaxEnv:
    """One step, each agent must take the action it observes: do policies move, each by its own row?

    Agent 0 observes one target and has one action, agent 1 two of each, targets uniform in [-0.8, 0.8], so
    that padding and masks matter. Reward: minus the sum of the squared differences. True value: 0 at the best
    actions, which are the observed targets; -0.64 in expectation for actions 0.
    """
    mask = jnp.asarray([[1.0, 0.0], [1.0, 1.0]])

    def sample_hint(key: Key[Array, ""]) -> Float[Array, "agent obs"]:
        one, two = jax.random.split(key)
        rows = [jax.random.uniform(k, (n,), minval=-0.8, maxval=0.8) for k, n in ((one, 1), (two, 2))]
        return pad(rows, 2)

    def reward(state: ProbeState, action: Float[Array, "agent act"]) -> Float[Array, ""]:
        return -jnp.sum(mask * jnp.square(action - state.hint))

    return probe_env("probe/push", (1, 2), sample_hint=sample_hint, reward=reward)


def relay() -> JaxEnv:
    """One step, the agents must do different things and there are two ways: is the joint action coordinated?

    Reward: the sum over both modes m of exp(-|a - m|^2 / 0.3), where a is the joint action and m is (0.6,
    -0.6) or (-0.6, 0.6). True value: 1 at a mode; 0.18 at (0, 0), the mean of the modes, where a policy that
    averages them ends; 0.02 at (0.6, 0.6), where each agent follows a mode, but not the same one.
    """

    def reward(state: ProbeState, action: Float[Array, "agent act"]) -> Float[Array, ""]:
        mode = jnp.asarray([0.6, -0.6])
        a = action[:, 0]
        return jnp.exp(-jnp.sum(jnp.square(a - mode)) / 0.3) + jnp.exp(-jnp.sum(jnp.square(a + mode)) / 0.3)

    return probe_env("probe/relay", sample_hint=_ones, reward=reward)


def _ones(key: Key[Array, ""]) -> Float[Array, "agent obs"]:
    del key
    return jnp.ones((2, 1))


def probe_env(
    name: str,
    sizes: tuple[int, ...] = (1, 1),
    *,
    sample_hint: SampleHint,
    reward: Reward,
    observe_hint: ObserveHint = lambda state: state.hint,
    horizon: int = 1,
    ends: bool = True,
) -> JaxEnv:
    """A probe env from a sampled hint, its observation and a reward.

    Args:
        name: Of the task.
        sizes: Numbers that each agent sees, and as many that it gives.
        sample_hint: Samples the hint at a reset.
        reward: The team reward.
        observe_hint: What is observed of the hint.
        horizon: Steps of an episode.
        ends: Whether it terminates at the horizon, or is truncated there.
    """
    spec = EnvSpec(name, sizes, sizes, 0, horizon)

    def observe(state: ProbeState) -> Observation:
        return Observation(observe_hint(state), jnp.zeros((0,)))

    def reset(key: Key[Array, ""]) -> tuple[ProbeState, Observation]:
        state = ProbeState(sample_hint(key), jnp.zeros((), jnp.int32))
        return state, observe(state)

    def step(state: ProbeState, action: Float[Array, "agent act"], key: Key[Array, ""]) -> tuple[ProbeState, Outcome]:
        del key
        paid = reward(state, jnp.clip(action, -1, 1) * spec.act_mask)
        state = ProbeState(state.hint, state.time + 1)
        over: Bool[Array, ""] = state.time >= spec.horizon
        never = jnp.zeros_like(over)
        return state, Outcome(
            next=observe(state),
            reward=paid,
            terminated=over if ends else never,
            truncated=never if ends else over,
        )

    return JaxEnv(spec, reset, step)
