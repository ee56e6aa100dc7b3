"""What an algorithm from outside this package must give, found from shapes alone before anything is compiled.

The package's own are held to the same by its tests: tracing their updates takes seconds.
"""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp

from omad import buffer
from omad.algos import make
from omad.algos.validate import shown
from omad.config import RunConfig
from omad.envs.contract import Broken, finite, guarded, place_of
from omad.errors import UserError
from omad.loop.fused import episode_metrics
from omad.tree import difference, key_in
from omad.types import Algorithm, EnvSpec, Mean

_LOOKED_AT = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""What JAX raises where the value of a tracer is asked for."""
_KEPT = ("step", "seed", "gradient_steps")
"""Names in `metrics.jsonl` that are no metrics."""


def check_algorithm(config: RunConfig, spec: EnvSpec) -> None:
    """Refuse an algorithm whose functions do not fit together, or do not fit the task.

    Raises:
        UserError: Names the algorithm, the function, what it returned and what is needed.
    """
    try:
        algorithm = guarded("make(config, spec)", make, config.algo, spec)
        _check(algorithm, spec, config.n_envs, config.batch_size)
        _check_traced(algorithm, spec, config.batch_size)
        rows = min(buffer.rows_for(config.buffer_size, config.n_envs), config.warmup_vector_steps)
        if algorithm.n_step > rows:
            raise Broken(
                f"n_step is {algorithm.n_step}, more than the {rows} steps of each env that the replay buffer holds "
                "when learning begins; raise --warmup-steps and --buffer-size, or lower it"
            )
    except Broken as error:
        raise UserError(f"The algorithm {config.algorithm}: {error}.") from error


def _check(algorithm: Algorithm, spec: EnvSpec, n_envs: int, batch_size: int) -> None:
    gamma, n_step = finite(algorithm.gamma), algorithm.n_step
    if gamma is None or not 0 <= gamma <= 1:
        raise Broken(f"gamma is {shown(algorithm.gamma)}; it must be a number from 0 to 1")
    if not isinstance(n_step, int) or n_step < 1:
        raise Broken(f"n_step is {shown(n_step)}; it must be a whole number of at least 1")
    key, count = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((), jnp.int32)
    learner = _shapes("init(key)", algorithm.init, key)
    if words := key_in("learner", learner):
        raise Broken(f"init(key) returned {words}")
    policy = _shapes("policy(learner)", algorithm.policy, learner)
    if not jax.tree.leaves(policy):
        raise Broken(f"policy(learner) returned {_kind(policy)} without arrays; it must return what act() needs")
    if algorithm.behaviour is not None:
        behaviour = _shapes("behaviour(learner)", algorithm.behaviour, learner)
        if words := difference("policy", policy, behaviour):
            raise Broken(f"behaviour(learner) returned {words}, as policy() gives it")
    for explore, axes in ((True, (n_envs,)), (False, ())):
        obs = jax.ShapeDtypeStruct((*axes, spec.n_agents, spec.obs_dim), jnp.result_type(float))
        action = _shapes("act(policy, obs, key, explore)", algorithm.act, policy, obs, key, explore)
        due = jax.ShapeDtypeStruct((*axes, spec.n_agents, spec.act_dim), obs.dtype)
        if words := difference("actions", due, action):
            raise Broken(f"act(policy, obs, key, explore={explore}) returned {words} (obs is {list(obs.shape)})")
    batch = buffer.batch_shapes(spec, batch_size)
    given = _shapes("update(learner, batch, key, count)", algorithm.update, learner, batch, key, count)
    if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], dict)):
        raise Broken(f"update() returned {_kind(given)}; it must return (learner, dict of metrics)")
    if words := difference("learner", learner, given[0]):
        raise Broken(f"update() returned {words}, as init() gives it")
    for name, value in given[1].items():
        if not isinstance(name, str) or name in (*_KEPT, *episode_metrics(spec)):
            raise Broken(f"update() returned a metric called {name!r}; it must have a name of its own, as policy/loss")
        if not isinstance(value, Mean) or jnp.shape(value.total) or jnp.shape(value.weight):
            raise Broken(f"update() returned the metric {name!r} as {_kind(value)}; it must be a Mean.of(one number)")


def _check_traced(algorithm: Algorithm, spec: EnvSpec, batch_size: int) -> None:
    """Loops hand over the fields that a configuration calls `traced` when a program runs: no value is known before."""
    remade = algorithm.remade
    if remade is None:
        return

    def use(given: dict[str, Any], key: Any, batch: Any, count: Any) -> Any:
        made, (first, second, *third) = remade(given), jax.random.split(key, 4)
        learner, _ = made.update(made.init(first), batch, second, count)
        acted = [made.act(made.policy(learner), batch.obs, one, bool(i)) for i, one in enumerate(third)]
        return learner, made.behaviour_policy(learner), acted

    numbers = {name: jax.ShapeDtypeStruct((), jnp.float32) for name in algorithm.hyperparameters}
    key, count = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((), jnp.int32)
    try:
        jax.eval_shape(use, numbers, key, buffer.batch_shapes(spec, batch_size), count)
    except _LOOKED_AT as error:
        raise Broken(
            f"make() or one of its functions asks for the value of a field that its configuration calls traced "
            f"({', '.join(numbers)}) while a program is traced ({place_of(error)}); use jnp.where() or jax.lax.cond(), "
            "or leave that field out of traced"
        ) from error


def _shapes(call: str, function: Any, *given: Any) -> Any:
    """What a function gives, as shapes; an argument that is a bool is static."""
    name = call.partition("(")[0]
    try:
        inspect.signature(function).bind(*given)
    except TypeError as error:
        raise Broken(f"{name} does not take what it is called with, {call}: {error}") from error
    except ValueError:  # its signature cannot be read
        pass
    traced = [one for one in given if not isinstance(one, bool)]
    return guarded(f"{name}()", jax.eval_shape, lambda *those: function(*those, *given[len(traced) :]), *traced)


def _kind(value: Any) -> str:
    if isinstance(value, jax.ShapeDtypeStruct):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, Mean):
        return f"a Mean of {_kind(value.total)} with weight {_kind(value.weight)}"
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else f"a {type(value).__name__}"
