"""What a user's env must return, checked in one place: by workers, `check-env`, evaluation and pictures alike.

Every function takes what an env returned and returns it in the form that the rest of omad reads, or raises with one
sentence: what was returned and what must be.

Source: PettingZoo's parallel API.
"""

from __future__ import annotations

import functools
import itertools
import math
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from omad.envs.host_env import HostObservation, StepResult
from omad.errors import Stopped, UserError
from omad.spec import EnvSpec

T = TypeVar("T")

RETURN = "return/"
"""Begins the info keys under which evaluations have each agent's own return."""

TAKEN = ("return", "reward_scale")
"""What omad itself measures of an episode, beside the info numbers."""

_RESET = "reset() must return two dicts by agent: observations and infos"
_STEP = "step() must return five dicts by agent: observations, rewards, terminations, truncations and infos"


class Broken(Exception):
    """What an env returned or did cannot be used; the message is one sentence without a full stop."""


def place_of(error: BaseException) -> str:
    """The file and line of a user's code in which something was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename:
        return f"{Path(error.filename).name}, line {error.lineno}"
    ours = str(Path(__file__).resolve().parents[1])
    frame = next((f for f in reversed(frames) if not f.filename.startswith((ours, "<frozen"))), None) or frames[-1]
    return f"{Path(frame.filename).name}, line {frame.lineno}"


def guarded(what: str, call: Callable[..., T], *given: Any, **named: Any) -> T:
    """Call into a user's code; whatever it raises, an attempt to end the process among it, becomes one sentence.

    Raises:
        Broken: Says which call failed, with what, and where.
    """
    try:
        return call(*given, **named)
    except (KeyboardInterrupt, MemoryError, Broken, Stopped, UserError):
        raise
    except SystemExit as error:
        raise Broken(f"{what} tried to end the process with sys.exit({error.code!r}) ({place_of(error)})") from error
    except BaseException as error:
        # JAX explains at length; the first line says it.
        said = said_by(error).partition("\n")[0].rstrip(".")
        raise Broken(f"{what} failed with {said} ({place_of(error)})") from error


def said_by(error: BaseException) -> str:
    """Kind and message of what a user's code raised, of which even the message may fail."""
    try:
        said = str(error).strip()
    except Exception:  # noqa: BLE001 - it is code of a user as well
        said = ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def problem(spec: Any) -> str:
    """What is wrong with the sizes that an env declares, without a full stop; empty where they can be used."""
    if not isinstance(spec, EnvSpec):
        return f"spec is a {type(spec).__name__}, not an omad.EnvSpec; an env declares its sizes there"
    for name in ("obs_dims", "act_dims"):
        sizes = getattr(spec, name)
        if not isinstance(sizes, tuple) or not sizes or not all(_whole(size, 1) for size in sizes):
            return f"spec.{name} is {sizes!r}; it must be a tuple of one size an agent, each at least 1"
    if len(spec.obs_dims) != len(spec.act_dims):
        return f"spec has {len(spec.obs_dims)} observation sizes and {len(spec.act_dims)} action sizes; one an agent"
    if not _whole(spec.state_dim, 0):
        return f"spec.state_dim is {spec.state_dim!r}; it must be a whole number, 0 where there is no state"
    if not _whole(spec.horizon, 1):
        return f"spec.horizon is {spec.horizon!r}; it must be a whole number of steps, at least 1"
    keys = spec.info_keys
    if not isinstance(keys, tuple) or not all(isinstance(key, str) and key for key in keys):
        return f"spec.info_keys is {keys!r}; it must be a tuple of names"
    for key in keys:
        if keys.count(key) > 1 or key in TAKEN:
            why = "twice" if keys.count(key) > 1 else "which is a metric of omad's own; give that number another name"
            return f"spec.info_keys has {key!r}, {why}"
    if not isinstance(spec.agents, tuple) or not all(isinstance(name, str) and name for name in spec.agents):
        return f"spec.agents is {spec.agents!r}; it must be a tuple of names"
    if spec.agents and not len(set(spec.agents)) == len(spec.agents) == spec.n_agents:
        return f"spec.agents is {spec.agents!r}; it must name each of the {spec.n_agents} agents"
    for name in ("act_low", "act_high"):
        rows = getattr(spec, name)
        if not isinstance(rows, tuple) or not all(isinstance(row, tuple) for row in rows):
            return f"spec.{name} is {_kind(rows)}; it must be a tuple of one row of numbers an agent"
        if rows and tuple(map(len, rows)) != spec.act_dims:
            return (
                f"spec.{name} has rows of {', '.join(str(len(row)) for row in rows)} numbers; act_dims {spec.act_dims}"
            )
    if bool(spec.act_low) != bool(spec.act_high):
        return "spec has only one of act_low and act_high; give both, or neither for actions in [-1, 1]"
    for low, high in zip(itertools.chain(*spec.act_low), itertools.chain(*spec.act_high), strict=True):
        if finite(low) is None or finite(high) is None or not low < high:
            return f"spec has an action from {low!r} to {high!r}; bounds must be finite, the lower one below the other"
    return ""


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= least


def _kind(value: Any) -> str:
    """A value by its kind and size, in a few words."""
    if isinstance(value, Mapping | list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return f"{value!r}" if isinstance(value, bool | int | float | None) else f"a {type(value).__name__}"


def checked_reset(given: Any, agents: Iterable[Any]) -> Mapping[Any, Any]:
    """Observations by agent, of all agents.

    Raises:
        Broken: It is not what `reset()` must return.
    """
    if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], Mapping)):
        raise Broken(f"reset() returned {_kind(given)}; {_RESET}")
    _known(given[0], agents, "reset()", "observations")
    return given[0]


def checked_step(
    given: Any, agents: Iterable[Any], acted: Iterable[Any]
) -> tuple[Mapping[Any, Any], dict[Any, float], dict[Any, bool], dict[Any, bool], Mapping[Any, Any]]:
    """Observations, rewards, terminations and truncations by agent, infos.

    Args:
        given: What `step()` returned.
        agents: All agents.
        acted: Those that had not ended; each must have a reward and both flags.

    Raises:
        Broken: It is not what `step()` must return.
    """
    if not (isinstance(given, tuple) and len(given) == 5 and all(isinstance(part, Mapping) for part in given)):
        words = ", ".join(_kind(part) for part in given) if isinstance(given, tuple) else _kind(given)
        raise Broken(f"step() returned {words}; {_STEP}")
    acted = list(acted)
    seen, rewards, terminations, truncations, infos = given
    for name, part in zip(("observations", "rewards", "terminations", "truncations"), given[:4], strict=True):
        _known(part, agents, "step()", name)
    for name, part in (("rewards", rewards), ("terminations", terminations), ("truncations", truncations)):
        if missing := [agent for agent in acted if agent not in part]:
            raise Broken(f"step() returned no {name} for {', '.join(map(str, missing))}, who acted")
    paid = {agent: number(value, f"step() returned agent {agent} the reward") for agent, value in rewards.items()}
    flags = [{a: _flag(v, f"step() returned agent {a} a {name}") for a, v in part.items()}
             for name, part in (("termination", terminations), ("truncation", truncations))]  # fmt: skip
    return seen, paid, flags[0], flags[1], infos


def _known(part: Mapping[Any, Any], agents: Iterable[Any], what: str, name: str) -> None:
    """That all keys are agents."""
    known = list(agents)
    if strange := [key for key in part if key not in known]:
        raise Broken(
            f"{what} returned {name} for {strange[0]!r}, which is no agent; the agents are {', '.join(map(str, known))}"
        )


def beyond(horizon: int) -> str:
    """What is wrong with an episode that goes on after its declared horizon, without a full stop."""
    return (
        f"its spec declares a horizon of {horizon} steps, but an episode goes on after that; declare the most steps "
        "that an episode can have, or end it there as truncated"
    )


@functools.cache
def padding_of(obs_dims: tuple[int, ...]) -> np.ndarray | None:
    """Places behind agents' own numbers, in all rows one after another; None where all agents see equally many."""
    if len(set(obs_dims)) == 1:
        return None
    return np.flatnonzero(np.arange(max(obs_dims)) >= np.asarray(obs_dims)[:, None])


def write_seen(row: np.ndarray, seen: Any, obs_dims: tuple[int, ...], state_dim: int, what: str) -> None:
    """Write what an env on the host shows, in the row's precision; whether it is finite is not looked at.

    Args:
        row: `(agents * obs + state,)`, written to.
        seen: A `HostObservation`.
        obs_dims: Declared sizes.
        state_dim: Likewise.
        what: The call that gave it.

    Raises:
        Broken: It is something else, has other shapes, or has numbers behind an agent's own.
    """
    due = len(obs_dims), max(obs_dims)
    split = due[0] * due[1]
    if not (hasattr(seen, "obs") and hasattr(seen, "state")):
        raise Broken(f"{what} returned {_kind(seen)}; it must return an omad HostObservation")
    for name, found, shape, part in (
        ("an observation", seen.obs, due, row[:split]),
        ("a state", seen.state, (state_dim,), row[split:]),
    ):
        try:
            if np.shape(found) != shape:
                raise Broken(f"{what} returned {name} of shape {np.shape(found)}; {shape} was declared")
            part[:] = np.ravel(found)
        except (TypeError, ValueError) as error:
            said = said_by(error).partition("\n")[0].rstrip(".")
            raise Broken(f"{what} returned {name} that is no array of real numbers ({said})") from error
    if (padding := padding_of(obs_dims)) is not None and np.count_nonzero(spare := row[padding]):
        at = np.flatnonzero(spare)[0]
        agent = int(padding[at]) // due[1]
        raise Broken(
            f"{what} shows agent {agent} the number {spare[at]:g} behind its own; spec.obs_dims gives it "
            f"{obs_dims[agent]}, and the rest of its row must be zeros"
        )


def observed(seen: Any, spec: EnvSpec, what: str) -> HostObservation:
    """What an env on the host shows, as arrays of its own in single precision, in which everything is learned from.

    Raises:
        Broken: As `write_seen`, or a number is not finite.
    """
    split = spec.n_agents * spec.obs_dim
    row = np.empty(split + spec.state_dim, np.float32)
    with np.errstate(over="ignore"):
        write_seen(row, seen, spec.obs_dims, spec.state_dim, what)
    for name, part in (("an observation", row[:split]), ("a state", row[split:])):
        if not np.isfinite(part).all():
            raise Broken(f"{what} returned {name} that is not finite in single precision")
    return HostObservation(row[:split].reshape(spec.n_agents, spec.obs_dim), row[split:])


def numbers_of(info_keys: Sequence[str]) -> tuple[str, ...]:
    """Names, in messages, of what `checked_result` gives."""
    return ("reward", "terminated", "truncated", *(f"info {key}" for key in info_keys))


def checked_result(moved: Any, info_keys: Sequence[str]) -> list[float]:
    """The reward, both flags as 0 or 1, and the info numbers, of a step on the host; any may be not finite.

    Raises:
        Broken: It is no `StepResult`, lacks an info number, or has something else in the place of a number.
    """
    if not isinstance(moved, StepResult):
        raise Broken(f"step() returned a {type(moved).__name__}; it must return an omad StepResult")
    info = moved.info
    if missing := [key for key in info_keys if not isinstance(info, Mapping) or key not in info]:
        raise Broken(f"step() returned info without {missing[0]!r}, which spec.info_keys has")
    given = [moved.reward, moved.terminated, moved.truncated, *(info[key] for key in info_keys)]
    for place, value in enumerate(given):
        if type(value) not in _PLAIN:
            given[place] = _one(value, place, info_keys)
    given[1:3] = bool(given[1]), bool(given[2])
    return given


_PLAIN = (float, bool, np.float64, np.float32, np.bool_)


def _one(value: Any, place: int, info_keys: Sequence[str]) -> float:
    """One number of a step that is of no plain kind."""
    try:
        if not (isinstance(value, str | bytes) or np.ndim(value)):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    name = numbers_of(info_keys)[place]
    raise Broken(f"step() returned the {name} {value!r}; it must be one number, or true or false")


def number(value: Any, what: str) -> float:
    """One finite real number, as a number or an array of one.

    Raises:
        Broken: It is not.
    """
    found = np.asarray(value)
    if found.size != 1 or found.dtype.kind not in "buif":
        raise Broken(f"{what} {_kind(value)}; it must be one number")
    single = float(found.reshape(()))
    if not abs(single) < 3.4e38:  # not a number compares as false
        raise Broken(f"{what} {single:g}, which is not finite in single precision")
    return single


def finite(value: Any) -> float | None:
    """A finite real number, also as an array of one or as true and false; None for anything else."""
    try:
        return number(value, "")
    except (Broken, TypeError, ValueError, OverflowError):
        return None


def _flag(value: Any, what: str) -> bool:
    found = np.asarray(value)
    if found.size != 1 or found.dtype.kind not in "bui" or int(found.reshape(())) not in (0, 1):
        raise Broken(f"{what} of {_kind(value)}; it must be True or False")
    return bool(found.reshape(()))


def row_of(value: Any, size: int, what: str, agent: Any) -> np.ndarray:
    """An observation as a flat row of its declared size.

    Raises:
        Broken: It has another size, or is not made of real numbers.
    """
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise Broken(f"{what} shows agent {agent} something that is no array: {error}") from error
    if found.dtype.kind not in "buif":
        raise Broken(f"{what} shows agent {agent} {_kind(value)} of {found.dtype}; its space has real numbers")
    if found.size != size:
        numbers = "1 number" if found.size == 1 else f"{found.size} numbers"
        raise Broken(f"{what} shows agent {agent} {numbers}; its space has {size}")
    return found.ravel().astype(float)


def saved(instance: Any) -> bytes:
    """What a running env saves of itself, nothing where that cannot be had.

    Raises:
        Broken: It is something else.
    """
    data = instance.save()
    if data is None or isinstance(data, bytes | bytearray | memoryview):
        return bytes(data or b"")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
        raise Broken(f"save() returned {_kind(data)}; it must return an array of uint8, or bytes, or None")
    return data.tobytes()


def picture(value: Any) -> np.ndarray:
    """A picture `(height, width, 3)` of bytes.

    Raises:
        Broken: It is not.
    """
    found = np.asarray(value) if value is not None else np.zeros(0)
    shape = tuple(found.shape)
    if len(shape) != 3 or shape[-1] not in (3, 4) or not min(shape) or math.prod(shape) > 1 << 28:
        said = "nothing" if value is None else _kind(found)
        raise Broken(
            f"render() returned {said}, no picture (height, width, 3); the env must support render_mode='rgb_array'"
        )
    if found.dtype.kind == "f":
        raise Broken(f"render() returned numbers of kind {found.dtype}; a picture is made of bytes from 0 to 255")
    return np.clip(found[..., :3], 0, 255).astype(np.uint8)
