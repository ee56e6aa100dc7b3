"""Names for your own envs: registered, or given as objects. Nothing heavy is imported before one is given."""

from __future__ import annotations

import re
from typing import Any

from omad import tasks
from omad.errors import UserError
from omad.extras import refuse_missing
from omad.tasks.outside import NAME, OBJECT, Entry, add, entry_of, reserved


def register(name: str, factory: Any) -> None:
    """Give an env of your own a name, for as long as the process runs; `name?key=value` gives the factory arguments.

    Args:
        name: As in `my/env`: letters, digits, / - _ and dots.
        factory: `module:qualname`, or the class or function itself. It gives a `JaxEnv`, a `HostEnv`, a PettingZoo
            `ParallelEnv`, or an env in the style of JaxMARL or gymnax. Worker processes import that of a host env.

    Raises:
        UserError: The name is taken or cannot be one, the factory is none, or its package is not there.
    """
    from omad.envs.imported import path_of

    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot name an env; use letters, digits, /, -, _ and dots.")
    if name in tasks.TASKS or reserved(name):
        raise UserError(f"{name!r} names a task of this package, or begins as these do; choose another name.")
    if isinstance(factory, str):
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", factory):
            raise UserError(f"{factory!r} does not say where an env is; write package.module:factory.")
        entry = Entry(factory)
    elif not callable(factory) or _is_env(factory):
        raise UserError(
            f"A {type(factory).__name__} was given as the factory of {name!r}; give a class or function that makes the "
            "env, or give the env itself as env=."
        )
    else:
        entry = Entry(path_of(factory), factory)
    before = entry_of(name)
    if before and not _same(before, entry):
        raise UserError(f"There is an env {name!r} already ({before.path or before.given}); choose another name.")
    if isinstance(factory, str):
        refuse_missing(factory)
    add(name, entry)


def _same(one: Entry, other: Entry) -> bool:
    """Whether two entries name one factory, perhaps defined again, as when a notebook cell is run again."""
    places = [
        entry.path or ".".join(getattr(entry.given, name, "") for name in ("__module__", "__qualname__"))
        for entry in (one, other)
    ]
    return one.given is other.given if one.given is not None and places[0] == "." else places[0] == places[1]


def _is_env(given: Any) -> bool:
    from omad.envs import outside, pettingzoo
    from omad.envs.host_env import HostEnv

    return outside.is_jax(given) or isinstance(given, HostEnv) or pettingzoo.is_env(given)


def of_object(env: Any, name: str | None = None) -> str:
    """The task's name under which a given env is known to this process from now on.

    What other processes can import is named by its path, so that its run can be resumed anywhere; all else is
    `object:...`, and has to be given again there.

    Args:
        env: A `JaxEnv`, an env in the style of JaxMARL or gymnax (also `(env, parameters)`), a class of PettingZoo's
            `ParallelEnv`, a `HostEnv` whose `create` can be imported, or a function without arguments that gives one of
            these or a PettingZoo env.
        name: The name that it must have, as the configuration of an earlier run has it.

    Raises:
        UserError: It cannot be used; the message says why.
    """
    task = _task_of(env, name)
    if name not in (None, task):
        raise UserError(f"The run's env is {name}, but {task} was given; give the env that the run began with.")
    return task


def _task_of(env: Any, wanted: str | None) -> str:
    from omad.envs import description, host, imported, outside, pettingzoo
    from omad.envs.host_env import HostEnv

    if isinstance(env, str):
        raise UserError(f"env is the text {env!r}; it takes an object, and a task's name goes to task=.")
    path = imported.path_of(env)
    if pettingzoo.is_class(env):
        return f"pettingzoo:{_importable(env, path)}"
    if outside.is_jax(env):
        return _keep(env, wanted)
    if isinstance(env, HostEnv):
        given, place = host.checked("env", env), _importable(env.create, imported.path_of(env.create))
        known = description.describe_spec(given.spec, given.exact, given.notes)
        entry = Entry(place, source=env, scheme="host", description=known)
        task = _name_for(env, given.spec.name, wanted)
        add(task, entry)
        return task
    if pettingzoo.is_env(env):
        raise UserError(
            "env is a running PettingZoo env, of which worker processes must make their own; give the function or "
            "class that makes it, from a file that they can import."
        )
    if not callable(env):
        raise UserError(f"env is a {type(env).__name__}; it may be {_USABLE}, or a function that gives one of these.")
    label = path or getattr(env, "__qualname__", type(env).__name__)
    made = imported.built(label, env, {})
    if outside.is_jax(made):
        if not path or (wanted or "").startswith(OBJECT):
            return _keep(made, wanted)
        outside.hand_over(f"jax:{path}", outside.adopted(f"jax:{path}", made, {}))
        return f"jax:{path}"
    if isinstance(made, HostEnv):
        task, given = f"host:{_importable(env, path)}", host.checked(label, made)
        description.hand_over(task, description.describe_spec(given.spec, given.exact, given.notes))
        return task
    if pettingzoo.is_env(made):
        task = f"pettingzoo:{_importable(env, path)}"
        description.hand_over(task, pettingzoo.described(pettingzoo.parallel(path, made), path, {}))
        return task
    raise UserError(f"{label} returned a {type(made).__name__}; it must return {_USABLE}.")


_USABLE = "a JaxEnv, an env in the style of JaxMARL or gymnax, a PettingZoo ParallelEnv (its class), or a HostEnv"


def _importable(made: Any, path: str) -> str:
    if not path:
        raise UserError(
            f"{getattr(made, '__qualname__', type(made).__name__)} makes an env that runs in worker processes, which "
            "cannot import it; put the class or function into a file of its own, at its top level (not a lambda, "
            "nothing that a script, a notebook or a function defines), or name it as "
            "pettingzoo:package.module:factory?key=value."
        )
    return path


def _keep(env: Any, wanted: str | None) -> str:
    """Register a JAX env under a name; what cannot be used is refused at once."""
    from omad.envs import outside
    from omad.types import JaxEnv

    label = env.spec if isinstance(env, JaxEnv) else type(env[0] if type(env) is tuple else env).__name__
    task = _name_for(env, str(getattr(label, "name", label)), wanted)
    add(task, Entry("", outside.adopted(task, env, {}), source=env))
    return task


def _name_for(env: Any, label: str, wanted: str | None) -> str:
    """A name for an object: its own, with a number where another object has that."""
    if wanted and wanted.startswith(OBJECT):
        return wanted
    first = OBJECT + (re.sub(r"[^\w./-]+", "-", label, flags=re.ASCII).strip("-") or "env")
    task, count = first, 1
    while (taken := entry_of(task)) is not None and taken.source is not env:
        count += 1
        task = f"{first}-{count}"
    return task
