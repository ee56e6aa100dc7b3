"""Two multi-agent particle tasks: cooperative navigation (`spread`), physical deception (`deception`).

The tasks of Lowe et al. 2017, "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive Environments"
(arXiv 1706.02275), with the numbers of `simple_spread_v3` and `simple_adversary_v3` in the `mpe2` package,
against which every step is tested. Positions are in world units (agents and landmarks start in [-1, 1]^2),
one step is 0.1 s, an episode is truncated after 25 steps and never terminates.

Differences from `mpe2`:

- the reward is one number, the sum over the team (all agents of `spread`, the good agents of `deception`);
- the adversary of `deception` belongs to the env and follows a script;
- two agents at exactly the same place exert no force on each other (`mpe2` divides by zero);
- observations keep the precision of the state (`mpe2` casts them to float32);
- the random number generator is that of JAX, so equal seeds do not give equal episodes;
- an optional two-number action, the thrust itself (`xy=True`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from omad import tasks
from omad.envs import adapt
from omad.envs.frame_stack import stack_frames
from omad.envs.particles import (
    AGENT_RADIUS,
    MpeState,
    distance,
    move,
    others_from_each,
    points_from_each,
    pursue,
    thrust_of,
)
from omad.symmetry import plane
from omad.types import EnvSpec, JaxEnv, Observation, Outcome

COVER_RADIUS = 0.1

Adversary = Callable[[MpeState, Key[Array, ""]], Float[Array, " act"]]
"""(world before the step, key) -> five-number action in [0, 1]; the adversary is body 0."""


# Cooperative navigation


def spread_observe(world: MpeState) -> Float[Array, "agent obs"]:
    """Observations of `spread`.

    Own velocity, own position, landmarks and other agents relative to oneself, the others' silent messages
    (zeros).
    """
    others = others_from_each(world.pos)
    silence = jnp.zeros_like(others)
    return jnp.concatenate(
        [world.vel, world.pos, points_from_each(world.landmarks, world.pos), others, silence], axis=1
    )


def spread_terms(world: MpeState) -> tuple[Float[Array, ""], Float[Array, " agent"], Float[Array, ""]]:
    """What the reward of `spread` is made of.

    Returns:
        G, minus the sum over landmarks of the distance to the nearest agent; how many others each agent
        touches (closer than two radii); how many landmarks have an agent within 0.1.
    """
    nearest = distance(world.landmarks[:, None, :] - world.pos[None, :, :]).min(1)
    apart = distance(world.pos[:, None, :] - world.pos[None, :, :])
    touches = (apart < 2 * AGENT_RADIUS) & ~jnp.eye(world.pos.shape[0], dtype=bool)
    return -nearest.sum(), touches.sum(1).astype(float), (nearest < COVER_RADIUS).sum().astype(float)


def spread(
    n_agents: int = 3,
    *,
    local_ratio: float = 0.5,
    horizon: int = 25,
    dynamics: str = "v3",
    xy: bool = False,
    state: bool = False,
    history: int = 1,
) -> JaxEnv:
    """Cooperative navigation: N agents cover N landmarks and should not touch.

    Team reward of a step: the sum over agents i of (1 - r) G - r C_i, where r is `local_ratio`, G minus the
    sum over landmarks of the distance to the nearest agent, and C_i the number of other agents that i
    touches. That an agent does not touch itself makes returns incomparable with PettingZoo before 1.22.4,
    which counted it.

    Per-step info: `global` (G), `collisions` (sum of C_i, so each touching pair counts twice), `covered_end`
    (landmarks with an agent within 0.1 at the last step of the episode, 0 before).

    Args:
        n_agents: 2 to 10 agents, and as many landmarks.
        local_ratio: weight of the agents' own collisions.
        horizon: steps in an episode.
        dynamics: `v3` or `v2`, see `move`.
        xy: act by two numbers, the thrust, and not by five.
        state: give critics the concatenated observations as the global state.
        history: observations in a frame stack, see `omad.envs.frame_stack`.
    """
    name = f"mpe/spread-{n_agents}{'-xy' if xy else ''}"
    options = _checked(
        "mpe/spread",
        n_agents,
        range(2, 11),
        {"local_ratio": local_ratio, "horizon": horizon, "dynamics": dynamics, "state": state},
    )
    spec = EnvSpec(
        name=tasks.spell(name, options),
        obs_dims=(6 * n_agents,) * n_agents,
        act_dims=(2 if xy else 5,) * n_agents,
        state_dim=6 * n_agents**2 * bool(state),
        horizon=horizon,
        info_keys=("global", "collisions", "covered_end"),
        **_bounds(n_agents, xy),
    )

    def observe(world: MpeState) -> Observation:
        obs = spread_observe(world)
        return Observation(obs, obs.reshape(-1)[: spec.state_dim])

    def reset(key: Key[Array, ""]) -> tuple[MpeState, Observation]:
        world = _place(key, n_agents, n_agents)
        return world, observe(world)

    def step(world: MpeState, action: Float[Array, "agent act"], key: Key[Array, ""]) -> tuple[MpeState, Outcome]:
        del key
        world = move(world, thrust_of(action), radius=AGENT_RADIUS, dynamics=dynamics)
        near, touches, covered = spread_terms(world)
        truncated = world.time >= horizon
        outcome = Outcome(
            next=observe(world),
            reward=jnp.sum((1 - local_ratio) * near - local_ratio * touches),
            terminated=jnp.zeros_like(truncated),
            truncated=truncated,
            info={
                "global": near,
                "collisions": touches.sum(),
                "covered_end": jnp.where(truncated, covered, 0),
            },
        )
        return world, outcome

    symmetry = plane(spec.obs_dim, spec.state_dim, xy=xy)
    env = adapt.rescale(JaxEnv(spec, reset, step, symmetry), *_box(n_agents, xy))
    return stack_frames(env, history, tasks.spell(name, options | {"history": history}))


# Physical deception


def deception_observe(world: MpeState) -> tuple[Float[Array, "agent obs"], Float[Array, " adversary_obs"]]:
    """Observations of the good agents and of the adversary.

    A good agent sees the goal, the landmarks and the other bodies (the adversary first), all relative to
    itself; the adversary the same without the goal. Nobody sees an absolute position or a velocity.
    """
    seen = jnp.concatenate([points_from_each(world.landmarks, world.pos), others_from_each(world.pos)], axis=1)
    goal = world.landmarks[world.goal][None, :] - world.pos[1:]
    return jnp.concatenate([goal, seen[1:]], axis=1), seen[0]


def deception_distances(world: MpeState) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Distance to the goal of the adversary and of the nearest good agent."""
    to_goal = distance(world.landmarks[world.goal][None, :] - world.pos)
    return to_goal[0], to_goal[1:].min()


def _random(world: MpeState, key: Key[Array, ""]) -> Float[Array, " act"]:
    return jax.random.uniform(key, (5,), world.pos.dtype)


def _static(world: MpeState, key: Key[Array, ""]) -> Float[Array, " act"]:
    del key
    return jnp.zeros((5,), world.pos.dtype)


def _to(world: MpeState, target: Float[Array, " xy"]) -> Float[Array, " act"]:
    thrust = pursue(world.pos[0], world.vel[0], target)
    pushes = jnp.stack([-thrust, thrust], 1).reshape(4)  # left, right, down, up
    return jnp.concatenate([jnp.zeros((1,), thrust.dtype), jnp.maximum(pushes, 0)])


def _landmark_mean(world: MpeState, key: Key[Array, ""]) -> Float[Array, " act"]:
    del key
    return _to(world, world.landmarks.mean(0))


def _follower(world: MpeState, key: Key[Array, ""]) -> Float[Array, " act"]:
    del key
    held = distance(world.landmarks[:, None, :] - world.pos[None, 1:, :]).min(1)
    return _to(world, world.landmarks[jnp.argmin(held)])


ADVERSARIES: dict[str, Adversary] = {
    "random": _random,
    "static": _static,
    "landmark_mean": _landmark_mean,
    "follower": _follower,
}
"""The adversary's scripts: uniform in [0, 1]^5; no thrust; steers to the mean of the landmarks; steers to the
landmark that a good agent is closest to."""


def deception(
    n_good: int = 2,
    *,
    adversary: str | Adversary = "random",
    horizon: int = 25,
    dynamics: str = "v3",
    xy: bool = False,
    state: bool | str = False,
    history: int = 1,
) -> JaxEnv:
    """Physical deception: good agents know which of N landmarks is the goal, an adversary watches them.

    The team is the good agents. Team reward of a step: N times (the adversary's distance to the goal minus
    that of the nearest good agent), the sum of the good agents' equal rewards. Bodies pass through each
    other.

    Per-step info: `adversary_distance`, `team_distance` (of the nearest good agent), both to the goal.

    Args:
        n_good: 1 to 6 good agents, and as many landmarks.
        adversary: a key of `ADVERSARIES`, or a function (world, key) -> five-number action in [0, 1].
        horizon: steps in an episode.
        dynamics: `v3` or `v2`, see `move`.
        xy: the good agents act by two numbers, the thrust, and not by five.
        state: give critics a global state: the good agents' observations, then the adversary's (mpe2's `state()` has
            the same rows, but the adversary's first); with `full`, also all velocities, which no observation shows and
            without which the task is not Markov.
        history: observations in a frame stack, see `omad.envs.frame_stack`; 2 of them with the own action between
            determine an agent's velocity.
    """
    script = adversary if callable(adversary) else ADVERSARIES.get(adversary, _random)
    label = "random" if callable(adversary) else adversary
    name = f"mpe/deception-{n_good}{'-xy' if xy else ''}"
    options = _checked(
        "mpe/deception",
        n_good,
        range(1, 7),
        {"adversary": label, "horizon": horizon, "dynamics": dynamics, "state": state},
    )
    if callable(adversary):
        options |= {"adversary": getattr(adversary, "__name__", type(adversary).__name__)}
    spec = EnvSpec(
        name=tasks.spell(name, options),
        obs_dims=(4 * n_good + 2,) * n_good,
        act_dims=(2 if xy else 5,) * n_good,
        state_dim=((4 * n_good + 2) * n_good + 4 * n_good + 2 * (n_good + 1) * (state == "full")) * bool(state),
        horizon=horizon,
        info_keys=("adversary_distance", "team_distance"),
        **_bounds(n_good, xy),
    )

    def observe(world: MpeState) -> Observation:
        good, bad = deception_observe(world)
        return Observation(good, jnp.concatenate([good.reshape(-1), bad, world.vel.reshape(-1)])[: spec.state_dim])

    def reset(key: Key[Array, ""]) -> tuple[MpeState, Observation]:
        goal_key, place_key = jax.random.split(key)
        world = _place(place_key, n_good + 1, n_good)
        goal = jax.random.randint(goal_key, (), 0, n_good, dtype=world.goal.dtype)
        world = dataclasses.replace(world, goal=goal)
        return world, observe(world)

    def step(world: MpeState, action: Float[Array, "agent act"], key: Key[Array, ""]) -> tuple[MpeState, Outcome]:
        thrust = jnp.concatenate([thrust_of(script(world, key))[None, :], thrust_of(action)])
        world = move(world, thrust, dynamics=dynamics)
        bad, good = deception_distances(world)
        truncated = world.time >= horizon
        outcome = Outcome(
            next=observe(world),
            reward=n_good * (bad - good),
            terminated=jnp.zeros_like(truncated),
            truncated=truncated,
            info={"adversary_distance": bad, "team_distance": good},
        )
        return world, outcome

    # Of an adversary that is not one of ours nothing is known.
    symmetry = None if callable(adversary) else plane(spec.obs_dim, spec.state_dim, xy=xy)
    env = adapt.rescale(JaxEnv(spec, reset, step, symmetry), *_box(n_good, xy))
    return stack_frames(env, history, tasks.spell(name, options | {"history": history}))


def _checked(family: str, n: int, allowed: range, options: dict[str, Any]) -> dict[str, Any]:
    """The options, if all of them may be given.

    Raises:
        omad.tasks.UnknownTask: Says what was given and what is allowed.
    """
    if n not in allowed:
        raise tasks.UnknownTask(f"{family}-{n} has {n} agents; allowed: {allowed[0]} to {allowed[-1]}.")
    tail = tasks.spell(family, options).partition("?")[2]
    tasks.options_of(family, tail)
    return options


def _place(key: Key[Array, ""], n_bodies: int, n_landmarks: int) -> MpeState:
    """Everything at rest, uniformly in [-1, 1]^2."""
    points = jax.random.uniform(key, (n_bodies + n_landmarks, 2), minval=-1, maxval=1)
    pos = points[:n_bodies]
    zero = jnp.zeros((), jnp.int32)
    return MpeState(pos, jnp.zeros_like(pos), points[n_bodies:], zero, zero)


def _bounds(n_agents: int, xy: bool) -> dict[str, Any]:
    """The same for the spec, which leaves [-1, 1] out."""
    return {} if xy else {"act_low": ((0.0,) * 5,) * n_agents, "act_high": ((1.0,) * 5,) * n_agents}


def _box(n_agents: int, xy: bool) -> tuple[list[float], list[float]]:
    """The agents' action limits."""
    return [-1.0 if xy else 0.0] * n_agents, [1.0] * n_agents
