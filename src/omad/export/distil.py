"""Few-step policies that imitate a team of denoising policies, given the same noise.

A student is one network. It starts where the teacher's chain starts and reads all of the teacher's noise, a group of
rows a step, so that it can give the very action that the teacher gives, whichever of several good ones the noise picks.

With x what the student says before the squash f, a its action f(x) and b the teacher's, it descends the matching loss
of f, whose slope in x is a - b. The slope of (a - b)^2 is nought where f is flat, so that a student that is sure of the
wrong end of the box would stay there. What it is asked about comes from the teachers' episodes and the replay buffer
first and, round by round, from its own episodes as well, where its own mistakes lead.

Related: Luhman and Luhman 2021 (knowledge distillation of DDIM, from the starting noise alone); Auer, Herbster and
Warmuth 1995 (matching losses); Ross, Gordon and Bagnell 2011 (DAgger).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from omad.envs.host_env import HostEnv
from omad.episodes import played
from omad.errors import UserError
from omad.export.fold import Folded, sample, squashed, unsquashed
from omad.export.play import as_algorithm
from omad.types import JaxEnv


class Settings(NamedTuple):
    """How a student is trained."""

    steps: int = 1
    """Evaluations of the student's network for one action."""
    updates: int = 24_000
    """Gradient steps of each agent, rounded up to a multiple of 200 in every round."""
    batch: int = 256
    """Observations and noises of a gradient step; an eighth of the noises are zeros."""
    learning_rate: float = 3e-3
    """Of Adam at first; it falls to zero by a cosine."""
    reuse: int = 4
    """Times that an action of the teacher is learned from."""
    widen: int = 2
    """Width of the student's layers over that of the teacher's."""
    jitter: float = 0.1
    """Standard deviation of what half of the observations are moved by, over that of each entry: the teacher answers
    for states near those of the episodes, too."""
    rounds: int = 6
    """Equal parts of the training; between them, observations of the students' own episodes take the place of some."""


_CHUNK = 200
"""Gradient steps of one compiled call."""
MOST = 200_000
"""Observations of a round; of more, so many are taken, evenly spaced."""


def usual_episodes(env: JaxEnv | HostEnv) -> int:
    """Episodes of a round: 100,000 env steps where envs run in JAX, 25,000 where they run on the host; at least 16."""
    return max(16, (100_000 if isinstance(env, JaxEnv) else 25_000) // env.spec.horizon)


def observations(folded: Sequence[Folded], env: JaxEnv | HostEnv, episodes: int, seed: int) -> np.ndarray:
    """Observations in episodes of a team, half of them with noise-free actions, `(time, agent, obs)`.

    Args:
        folded: The team.
        env: The env.
        episodes: How many.
        seed: Of initial states and noise.
    """
    algorithm, tensors = as_algorithm(folded, env.spec), [one.tensors for one in folded]
    sampled = jax.jit(lambda obs, key: algorithm.act(tensors, obs, key, True))
    still = jax.jit(lambda obs, key: algorithm.act(tensors, obs, key, False))

    def act(obs: np.ndarray, key: Key[Array, ""]) -> np.ndarray:
        half, (first, second) = len(obs) // 2, jax.random.split(key)
        return np.concatenate([*([still(obs[:half], first)] if half else []), sampled(obs[half:], second)])

    return np.concatenate([moment.obs[moment.alive] for moment in played(env, act, episodes, seed)])


def distil(
    folded: Sequence[Folded],
    obs: np.ndarray,
    settings: Settings,
    seed: int,
    visit: Callable[[Sequence[Folded], int], np.ndarray] | None = None,
) -> tuple[list[Folded], list[float]]:
    """Students of every agent, and the root mean square difference of their actions from the teachers' at the end.

    Args:
        folded: The teachers.
        obs: What agents saw, in the teachers' episodes and while they were trained, `(time, agent, obs)`.
        settings: Of the training.
        seed: Of first weights, batches and noise.
        visit: Gives what agents see in the episodes of other teams, by the team and the number of the round.

    Raises:
        UserError: The teachers do not denoise, or have fewer steps than the students should have.
    """
    if folded[0].kind not in ("chain", "ddpm"):
        raise UserError(f"A team of {folded[0].kind} policies takes one step already; there is nothing to distil.")
    if not 1 <= settings.steps <= folded[0].steps:
        raise UserError(f"--denoising-steps is {settings.steps}; the teacher takes {folded[0].steps}; give 1 to that.")
    rounds = settings.rounds if visit else 1
    share = min(len(obs), MOST)
    obs = _thinned(obs, share)
    seen = np.resize(obs, (rounds * share, *obs.shape[1:]))
    calls = math.ceil(settings.updates / _CHUNK / rounds)
    fresh_key, train_key = jax.random.split(jax.random.key(seed))
    keys = jax.random.split(fresh_key, len(folded))
    students = [_fresh(teacher, settings, key) for teacher, key in zip(folded, keys, strict=True)]
    train_keys = iter(jax.random.split(train_key, rounds * len(folded) * calls))
    optimiser = optax.adam(optax.cosine_decay_schedule(settings.learning_rate, rounds * calls * _CHUNK))
    given = [{n: jnp.asarray(a) for n, a in teacher.tensors.items()} for teacher in folded]
    learned = [{n: jnp.asarray(a) for n, a in s.tensors.items() if not n.startswith("norm.")} for s in students]
    states = [jax.jit(optimiser.init)(tensors) for tensors in learned]
    chunks: dict[str, Any] = {}
    errors = [math.inf] * len(folded)
    for number in range(rounds):
        if number and visit:
            seen[(number - 1) * share : number * share] = np.resize(_thinned(visit(students, number), share), obs.shape)
        for i, (teacher, student) in enumerate(zip(folded, students, strict=True)):
            alike = repr((teacher.settings, [(name, array.shape) for name, array in teacher.tensors.items()]))
            if alike not in chunks:  # equal agents share one program
                chunks[alike] = _chunk(teacher, student, settings, optimiser)
            asked, carry, value = jnp.asarray(seen[:, i, : teacher.obs_dim]), (learned[i], states[i]), jnp.inf
            for _ in range(calls):
                carry, value = chunks[alike](carry, given[i], asked, next(train_keys))
            learned[i], states[i] = carry
            students[i] = student._replace(
                tensors=student.tensors | {name: np.asarray(array) for name, array in learned[i].items()}
            )
            errors[i] = math.sqrt(float(value))
    return students, errors


def _thinned(rows: np.ndarray, most: int) -> np.ndarray:
    """All rows, or so many of them, evenly spaced."""
    return rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int)]


def _fresh(teacher: Folded, how: Settings, key: Key[Array, ""]) -> Folded:
    """A student before training."""
    steps, act, width = how.steps, teacher.act_dim, how.widen * teacher.tensors["time"].shape[1]
    chain_rows = teacher.noise_rows - 1 - (teacher.kind == "ddpm")
    group = math.ceil(chain_rows / steps)
    depth = len(teacher.settings["activations"])
    settings = {
        "activations": ["gelu"] * depth,
        "steps": steps,
        "trained_steps": teacher.settings["trained_steps"],
        "group": group,
        "rows": chain_rows,
        "prior_scale": teacher.settings["prior_scale"],
        "squash": teacher.settings["squash"],
        "explore_std": teacher.settings.get("explore_std", 0.0),
    }
    shapes = {
        "x.weight": ((group + 1) * act, width),
        "obs.weight": (teacher.obs_dim, width),
        "time": (steps, width),
        **{f"hidden.{i}.weight": (width, width) for i in range(depth - 1)},
        **{f"hidden.{i}.bias": (width,) for i in range(depth - 1)},
        "last.weight": (width, act),
        "last.bias": (act,),
    }
    tensors: dict[str, np.ndarray] = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    inputs = {"x.weight": (group + 1) * act + teacher.obs_dim, "obs.weight": (group + 1) * act + teacher.obs_dim}
    for one, (name, shape) in zip(jax.random.split(key, len(shapes)), shapes.items(), strict=True):
        if name.endswith("weight"):
            tensors[name] = np.asarray(
                jax.random.normal(one, shape) / math.sqrt(inputs.get(name) or shape[0]), np.float32
            )
    tensors |= {name: array for name, array in teacher.tensors.items() if name.startswith("norm.")}
    return Folded("distilled", settings, tensors, 1 + steps * group + (teacher.kind == "ddpm"), teacher.normaliser)


def matching(
    student: Folded, x: Float[Array, "*b act"], noise: Float[Array, "*b row act"], target: Float[Array, "*b act"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """A number with the matching loss's slope in x, which is action minus target, and the mean square of that."""
    wrong = jax.lax.stop_gradient(squashed(student, x, noise) - target)
    return jnp.mean(wrong * x), jnp.mean(jnp.square(wrong))


def _chunk(teacher: Folded, student: Folded, settings: Settings, optimiser: optax.GradientTransformation) -> Any:
    """Gradient steps of one compiled call, for any numbers of agents like these."""
    rows, extra = student.settings["rows"], teacher.kind == "ddpm"
    fresh = _CHUNK * settings.batch // settings.reuse

    @jax.jit
    def chunk(
        carry: tuple[Any, Any], numbers: dict[str, Any], seen: Float[Array, "time obs"], key: Key[Array, ""]
    ) -> tuple[tuple[Any, Any], Float[Array, ""]]:
        """Ask the teacher, then learn from its answers in several orders."""
        fixed = {name: array for name, array in numbers.items() if name.startswith("norm.")}
        place_key, near_key, move_key, noise_key, zero_key, order_key = jax.random.split(key, 6)
        asked = seen[jax.random.randint(place_key, (fresh,), 0, len(seen))]
        move = settings.jitter * seen.std(0) * jax.random.normal(move_key, asked.shape)
        asked = asked + jnp.where(jax.random.bernoulli(near_key, 0.5, (fresh, 1)), move, 0.0)
        noise = jax.random.normal(noise_key, (fresh, student.noise_rows, teacher.act_dim))
        noise = jnp.where(jax.random.bernoulli(zero_key, 0.125, (fresh, 1, 1)), 0.0, noise)
        if teacher.kind == "ddpm":
            noise = noise.at[:, -1].set(0.0)  # what is added to actions when exploring is added by the runner
        given_noise = jnp.concatenate([noise[:, : 1 + rows], noise[:, -1:]], axis=1) if extra else noise[:, : 1 + rows]
        target = sample(teacher, numbers, asked, given_noise)
        orders = jax.vmap(lambda k: jax.random.permutation(k, fresh))(jax.random.split(order_key, settings.reuse))

        def loss(params: Any, place: Array) -> tuple[Float[Array, ""], Float[Array, ""]]:
            x = unsquashed(student, params | fixed, asked[place], noise[place])
            return matching(student, x, noise[place], target[place])

        def step(carry: tuple[Any, Any], place: Array) -> tuple[tuple[Any, Any], Array]:
            params, state = carry
            grads, value = jax.grad(loss, has_aux=True)(params, place)
            updates, state = optimiser.update(grads, state)
            return (optax.apply_updates(params, updates), state), value

        carry, values = jax.lax.scan(step, carry, orders.reshape(-1, settings.batch))
        return carry, values.mean()

    return chunk
