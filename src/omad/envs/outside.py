"""From what a user's factory returns to an env for training: JAX envs of three styles, or envs on the host.

A JAX env's code runs in the learner's own process, for it is compiled into the loop; only envs on the host are kept
apart. What a registered path gives, another process looks at first. So a run folder's `jax:` name is imported only
where the user trusts it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from omad.envs import gymnax, host, jaxmarl, pettingzoo
from omad.envs.contract import Broken, guarded, padding_of, problem
from omad.envs.description import describe_spec
from omad.envs.foreign import OURS
from omad.envs.host_env import HostEnv
from omad.envs.imported import OWN, built, imported, takes
from omad.envs.isolated import apart
from omad.errors import UserError
from omad.tasks.outside import Entry, entry_of
from omad.tree import difference, key_in
from omad.types import JaxEnv, Observation, Outcome

_USABLE = "a JaxEnv, or an env in the style of JaxMARL or gymnax"
_handed: dict[str, JaxEnv] = {}


def hand_over(task: str, env: JaxEnv) -> None:
    """An env that was made already; the next who would make it gets this."""
    _handed[task] = env


def is_jax(made: Any) -> bool:
    """Whether something is a JAX env of a style that is read here."""
    return isinstance(made, JaxEnv) or jaxmarl.is_env(made) or gymnax.is_env(made)


def make(task: str, factory: str, arguments: Mapping[str, Any]) -> JaxEnv:
    """The env of `jax:package.module:factory?...`.

    Raises:
        UserError: It cannot be imported or called, or gives something that is no JAX env.
    """
    if task in _handed:
        return _handed.pop(task)
    made = imported(factory)
    given = built(factory, made, arguments, OURS)
    if isinstance(given, HostEnv):
        raise UserError(f"{factory} returned a HostEnv, which runs on the host; write host:{factory}.")
    if pettingzoo.is_env(given):
        raise UserError(f"{factory} returned a PettingZoo env, which runs on the host; write pettingzoo:{factory}.")
    if not is_jax(given):
        raise UserError(f"{factory} returned a {type(given).__name__}; it must return {_USABLE}.")
    return adopted(task, given, _ours(made, arguments))


def make_jaxmarl(task: str, env: str, arguments: Mapping[str, Any]) -> JaxEnv:
    """The env of `jaxmarl:NAME?...`.

    Raises:
        UserError: The package or the env is missing, or the env cannot be used.
    """
    return adopted(task, jaxmarl.named(task, env, arguments), {k: v for k, v in arguments.items() if k in OURS})


def _ours(made: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that omad reads."""
    return {key: value for key, value in arguments.items() if key in OURS and not takes(made, key)}


def make_entry(task: str, arguments: Mapping[str, Any]) -> JaxEnv | HostEnv:
    """The env of a name that was registered, installed, or given to an object.

    Raises:
        UserError: It cannot be made or used.
    """
    base = task.partition("?")[0]
    entry = entry_of(base)
    assert entry is not None
    if isinstance(entry.given, JaxEnv):
        if arguments:
            raise UserError(f"{task}: an env that was given as an object takes no arguments; change the object.")
        return entry.given
    if entry.given is None:
        asked = {"path": entry.path, "arguments": dict(arguments)}
        found = apart(task, "omad.envs.outside:looked_at", asked)
        if found["scheme"]:
            entry.scheme = found["scheme"]
            make_hosted = pettingzoo.make if entry.scheme == "pettingzoo" else host.make
            return make_hosted(task, entry.path, dict(arguments), found["description"])
    factory = entry.given if entry.given is not None else imported(entry.path)
    name = entry.path or getattr(factory, "__qualname__", base)
    if pettingzoo.is_class(factory):
        path, entry.scheme = _path(entry, base), "pettingzoo"
        return pettingzoo.make(task, path, dict(arguments))
    made = built(name, factory, arguments, OURS)
    if is_jax(made):
        return adopted(task, made, _ours(factory, arguments))
    if isinstance(made, HostEnv):
        env, path = host.checked(name, made), _path(entry, base)
        entry.scheme = "host"
        return host.make(task, path, dict(arguments), describe_spec(env.spec, env.exact, env.notes))
    if pettingzoo.is_env(made):
        path = _path(entry, base)
        description = pettingzoo.described(pettingzoo.parallel(path, made), path, arguments)
        entry.scheme = "pettingzoo"
        return pettingzoo.make(task, path, dict(arguments), description)
    raise _unusable(name, made)


def looked_at(path: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a registered path gives, in plain values; for a process of its own.

    Returns:
        `scheme`, `pettingzoo` or `host`, and the env's `description`; an empty scheme for a JAX env.

    Raises:
        UserError: It cannot be made or used.
    """
    factory = imported(path)
    if pettingzoo.is_class(factory):
        return {"scheme": "pettingzoo", "description": pettingzoo.describe(path, dict(arguments))}
    made = built(path, factory, arguments, OURS)
    if isinstance(made, HostEnv):
        return {"scheme": "host", "description": host.described(host.checked(path, made), path)}
    if is_jax(made):
        return {"scheme": ""}
    if not pettingzoo.is_env(made):
        raise _unusable(path, made)
    description = pettingzoo.described(pettingzoo.parallel(path, made), path, arguments)
    return {"scheme": "pettingzoo", "description": description}


def _unusable(name: str, made: Any) -> UserError:
    return UserError(
        f"{name} returned a {type(made).__name__}; it must return {_USABLE}, a HostEnv, or a PettingZoo ParallelEnv."
    )


def _path(entry: Entry, base: str) -> str:
    """Where worker processes import the env from.

    Raises:
        UserError: They cannot.
    """
    if not entry.path:
        raise UserError(
            f"{base}: this env runs on the host, in worker processes, which must be able to import what makes it; put "
            "the class or function into a file of its own, at its top level, and give it from there (not a lambda, "
            "nothing that a script, a notebook or a function defines)."
        )
    return entry.path


def forgotten(task: str) -> JaxEnv:
    """An env that was given as an object to another process.

    Raises:
        UserError: Always.
    """
    raise UserError(
        f"{task} is an env that was given as an object, which this process does not have; give it again: env= in "
        "Python, as in omad.resume(run, env=my_env)."
    )


def adopted(task: str, made: Any, arguments: Mapping[str, Any]) -> JaxEnv:
    """A JAX env of any style under a task's name.

    Raises:
        UserError: It cannot be used; the message says why.
    """
    if not isinstance(made, JaxEnv):
        adopt = jaxmarl.adopted if jaxmarl.is_env(made) else gymnax.adopted
        try:
            return _checked(task, guarded("looking at it", adopt, task, made, arguments))
        except Broken as error:
            raise UserError(f"{task}: {error}.") from error
    if extra := [key for key in arguments if key in OURS]:
        raise UserError(
            f"{task}: {extra[0]} is no argument of its factory; a JaxEnv says itself what it pays and when it ends. An "
            f"argument of the factory's own may be written {OWN}{extra[0]}."
        )
    named = made.spec if problem(made.spec) else dataclasses.replace(made.spec, name=task)
    return _padded(_checked(task, made._replace(spec=named)))


class _ZeroPadded:
    """An env's `reset` or `step`, with zeros behind each agent's own numbers. Hashed by identity, as functions are."""

    def __init__(self, given: Callable[..., Any], padding: np.ndarray) -> None:
        self.given, self.padding = given, padding

    def __call__(self, *arguments: Any) -> Any:
        state, found = self.given(*arguments)
        seen = found.next if isinstance(found, Outcome) else found
        seen = dataclasses.replace(seen, obs=jnp.where(self.padding, 0.0, seen.obs))
        return state, dataclasses.replace(found, next=seen) if isinstance(found, Outcome) else seen


def _padded(env: JaxEnv) -> JaxEnv:
    """A user's env, of which no policy learns from numbers that no agent observes."""
    if padding_of(env.spec.obs_dims) is None:
        return env
    padding = env.spec.obs_mask == 0
    return env._replace(reset=_ZeroPadded(env.reset, padding), step=_ZeroPadded(env.step, padding))


def unpadded(env: JaxEnv) -> JaxEnv | None:
    """The env as the user wrote it, where padding is set to zero; else None."""
    if not (isinstance(env.reset, _ZeroPadded) and isinstance(env.step, _ZeroPadded)):
        return None
    return env._replace(reset=env.reset.given, step=env.step.given)


def _checked(task: str, env: JaxEnv) -> JaxEnv:
    """The env, if what it gives is what it declares; found from shapes alone, nothing is compiled.

    Raises:
        UserError: It is not.
    """
    spec = env.spec
    if words := problem(spec):
        raise UserError(f"{task}: {words}.")
    key = jax.eval_shape(lambda: jax.random.key(0))
    due = {"obs": (spec.n_agents, spec.obs_dim), "state": (spec.state_dim,)}
    try:
        given = guarded("reset()", jax.eval_shape, env.reset, key)
        if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Observation)):
            raise Broken(f"reset() returned {_kind(given)}; it must return (env state, Observation)")
        state = given[0]
        if words := key_in("a state", state):
            raise Broken(f"reset() returned {words}")
        _sized("reset()", given[1], due)
        action = jax.ShapeDtypeStruct((spec.n_agents, spec.act_dim), jnp.zeros(()).dtype)
        moved = guarded("step()", jax.eval_shape, env.step, state, action, key)
        if not (isinstance(moved, tuple) and len(moved) == 2 and isinstance(moved[1], Outcome)):
            raise Broken(f"step() returned {_kind(moved)}; it must return (env state, Outcome)")
        if words := difference("a state", state, moved[0]):
            raise Broken(f"step() returned {words}, as reset() gives it")
        outcome = moved[1]
        _sized("step()", outcome.next, due)
        for name in ("reward", "terminated", "truncated"):
            if (shape := jnp.shape(getattr(outcome, name))) != ():
                raise Broken(f"step() returned {name} of shape {shape}; the team has one")
        for name in ("terminated", "truncated"):
            if (kind := jnp.result_type(getattr(outcome, name))) != jnp.bool_:
                raise Broken(f"step() returned {name} of {kind}; it must be true or false, as a comparison is")
        if set(outcome.info) != set(spec.info_keys):
            raise Broken(f"step() returned info {sorted(outcome.info)}; spec.info_keys is {sorted(spec.info_keys)}")
        for name, value in outcome.info.items():
            if (shape := jnp.shape(value)) != ():
                raise Broken(f"step() returned the info {name!r} of shape {shape}; it must be one number")
    except Broken as error:
        raise UserError(f"{task}: {error}.") from error
    return env


def _kind(value: Any) -> str:
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else f"a {type(value).__name__}"


def _sized(what: str, seen: Any, due: Mapping[str, tuple[int, ...]]) -> None:
    for name, size in due.items():
        part = getattr(seen, name)
        if jnp.shape(part) != size:
            raise Broken(f"{what} returned {name} of shape {jnp.shape(part)}; its spec declares {size}")
        if not jnp.issubdtype(part.dtype, jnp.floating):
            raise Broken(f"{what} returned {name} of {part.dtype}; it must be made of real numbers")
