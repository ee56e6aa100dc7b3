"""A user's own env on the host, as a factory that returns a `HostEnv`: `host:package.module:factory`.

As with PettingZoo's envs, its code runs in processes of its own: in workers, and in one that describes it once.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from omad.envs.contract import Broken, guarded, observed, problem
from omad.envs.description import describe_spec, given_or_found
from omad.envs.host_env import EnvInstance, HostEnv
from omad.envs.imported import built, imported
from omad.errors import UserError


def checked(factory: str, env: Any) -> HostEnv:
    """The env, if it is one.

    Raises:
        UserError: It is something else, or does not declare its sizes.
    """
    if not isinstance(env, HostEnv):
        raise UserError(
            f"{factory} returned a {type(env).__name__}, not an omad.HostEnv; give HostEnv(spec, create), where "
            "create(render) returns an object with reset, step, save, load, render and close."
        )
    if words := problem(env.spec):
        raise UserError(f"{factory}: {words}.")
    if not callable(env.create):
        raise UserError(f"{factory}: create of its HostEnv is a {type(env.create).__name__}; it must be callable.")
    return env


def create(factory: str, arguments: Mapping[str, Any]) -> HostEnv:
    """Import and call the factory; in a worker's process, or in one that only describes it.

    Raises:
        UserError: It cannot be imported or called, or gives something else.
    """
    made = imported(factory)
    return checked(factory, built(factory, made, arguments))


def _started(env: HostEnv, factory: str, render: bool) -> EnvInstance:
    instance = env.create(render)
    if not isinstance(instance, EnvInstance):
        missing = [name for name in ("reset", "step", "save", "load", "render", "close") if not hasattr(instance, name)]
        raise UserError(f"{factory}: create() returned a {type(instance).__name__}, which has no {', '.join(missing)}.")
    return instance


def describe(factory: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Create one instance of an env and describe it; runs in a process that does only this.

    Raises:
        UserError: It cannot be made, or not be used; the message says why.
    """
    return described(create(factory, arguments), factory)


def described(env: HostEnv, factory: str) -> dict[str, Any]:
    """What an env is like, of which one instance is created and closed; raises as `describe`."""
    try:
        instance = guarded("create()", _started, env, factory, False)
        observed(guarded("its reset()", instance.reset, 0), env.spec, "reset()")
        exact = env.exact and guarded("save()", instance.save) is not None
        guarded("close()", instance.close)
    except Broken as error:
        raise UserError(f"{factory}: {error}; fix the env, or its spec.") from error
    return describe_spec(env.spec, exact, env.notes)


def make(
    task: str, factory: str, arguments: dict[str, Any], description: Mapping[str, Any] | None = None,
    creates_instance: bool = False,
) -> HostEnv:  # fmt: skip
    """The env of a user.

    Args:
        task: Its whole name.
        factory: `module:qualname`.
        arguments: Of the factory.
        description: What is known of it, so that no process is started to describe it.
        creates_instance: Whether the factory is the `create` of a `HostEnv`, which `description` describes.

    Raises:
        UserError: It cannot be made, or not be used; the message says why.
    """
    found = given_or_found(task, "omad.envs.host:describe", factory, arguments, description)

    @functools.cache
    def host_env() -> HostEnv:
        env = create(factory, arguments)
        if changed := found.spec.differences(env.spec):
            raise UserError(f"{task} is not what it was when it was first described: {'; '.join(changed)}.")
        return env

    def create_instance(render: bool) -> EnvInstance:
        env = HostEnv(found.spec, imported(factory)) if creates_instance else host_env()
        return _started(env, factory, render)

    return HostEnv(found.spec, create_instance, found.exact, found.notes)
