"""`omad check-env TASK`: can an env be trained on, and what are its properties?"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import tyro

from omad import tasks
from omad.algos.validate import MOST, check
from omad.console import console, print_json
from omad.envs.contract import (
    Broken,
    beyond,
    checked_result,
    guarded,
    number,
    numbers_of,
    observed,
    padding_of,
    saved,
)
from omad.envs.host_env import HostEnv
from omad.envs.isolated import call
from omad.envs.patience import DESCRIBED_S, progress
from omad.envs.pool import MOST_ALONE
from omad.errors import UserError


@dataclasses.dataclass(frozen=True)
class Options:
    """Run an env with uniform random actions and report its properties and problems; nothing is trained."""

    task: Annotated[str, tyro.conf.Positional]
    """A task's name, most useful for an env of your own, as pettingzoo:package.module:factory or jax:..."""
    steps: int = 1000
    """Steps to take."""
    seed: int = 0
    """Seed of starts and actions."""
    env_timeout: float = 60.0
    """Seconds after which an env of the host is taken to hang that is being made, reset, stepped or closed; two minutes
    at least until it is described."""
    json: bool = False
    """Print JSON."""


def _trace(instance: Any, spec: Any, steps: int, seed: int, between: Callable[[int], None]) -> dict[str, Any]:
    """Results of a number of steps; `between` is called before each of them."""
    rng = np.random.default_rng(seed)
    mask = spec.act_mask
    found: dict[str, Any] = {"obs": [], "rewards": [], "lengths": [], "returns": [], "broken": "", "spent": 0.0}
    ends = {"terminated": 0, "truncated": 0, "cut": 0}
    length, total, t = 0, 0.0, 0

    def reset(at: int) -> None:
        progress(f"the reset before step {t}")
        found["obs"].append(observed(guarded("reset()", instance.reset, at), spec, "reset()").obs)

    try:
        reset(seed)
        for t in range(steps):
            action = mask * rng.uniform(-1, 1, mask.shape)
            between(t)
            progress(f"step {t}")
            started = time.perf_counter()
            result = guarded("step()", instance.step, action, seed + t)
            found["spent"] += (time.perf_counter() - started) * (t > 0)  # a JAX env is compiled in its first step
            reward, terminated, truncated = _numbers(result, spec)
            found["obs"].append(observed(result.next, spec, "step()").obs)
            found["rewards"].append(reward)
            length, total = length + 1, total + reward
            if length >= spec.horizon and not (terminated or truncated):
                raise Broken(beyond(spec.horizon))
            if terminated or truncated:
                ends["terminated" if terminated else "truncated"] += 1
                ends["cut"] += bool(getattr(instance, "cut", False))
                found["lengths"].append(length)
                found["returns"].append(total)
                length, total = 0, 0.0
                reset(seed + t + 1)
        progress("saving its state")
        try:
            found["saves"] = bool(guarded("saving its state", saved, instance))
        except Broken as error:  # a run whose env fails at that begins new episodes
            found["unsaved"] = str(error)
    except Broken as error:
        found["broken"] = f"at step {t}, {error}"
    found = {"saves": False, "unsaved": "", **found}
    shape = (0, spec.n_agents, spec.obs_dim)
    rewards = np.asarray(found["rewards"], float)
    obs = np.stack(found["obs"]) if found["obs"] else np.zeros(shape)
    speed = max(len(rewards) - 1, 1) / found["spent"] if found["spent"] else 0.0
    left = instance.left(obs) if hasattr(instance, "left") else ""
    return found | {"obs": obs, "left": left, "rewards": rewards, "ends": ends, "steps_per_s": speed}


def _numbers(result: Any, spec: Any) -> list[float]:
    """Reward and both flags of a step, of which every number is finite."""
    found = checked_result(result, spec.info_keys)
    for name, value in zip(numbers_of(spec.info_keys), found, strict=True):
        number(value, f"step() returned the {name}")
    return found[:3]


def _traces(task: str, steps: int, seed: int) -> tuple[Any, list[dict[str, Any]]]:
    """The env, and the results of its steps: alone, alone again, and interleaved with a second instance."""
    from omad import envs

    env = envs.make(task)

    made = itertools.count(1)

    def create() -> Any:
        progress(f"making instance {next(made)}")
        if isinstance(env, HostEnv):  # such envs need no JAX, which takes longer to import than they to step
            return env.create(False)
        from omad.envs.hosted import JaxInstance

        return JaxInstance(env)

    runs: list[dict[str, Any]] = []
    for _ in range(2):
        with _closed(create()) as instance:
            runs.append(_trace(instance, env.spec, steps, seed, lambda t: None))
        if runs[0]["broken"]:
            return env, runs
    with _closed(create()) as instance, _closed(create()) as other:
        rng = np.random.default_rng(seed + 1)
        progress("the reset of a second instance")
        guarded("reset()", other.reset, seed + 1)

        def between(t: int) -> None:
            progress(f"step {t} of a second instance")
            result = guarded("step()", other.step, env.spec.act_mask * rng.uniform(-1, 1, env.spec.act_mask.shape), t)
            if any(checked_result(result, ())[1:]):
                guarded("reset()", other.reset, t)

        runs.append(_trace(instance, env.spec, min(steps, _INTERLEAVED), seed, between))
    return env, runs


def _spilt(env: Any, seed: int) -> str:
    """What to say of a JAX env that writes behind an agent's own numbers, found in a reset and a step."""
    from omad.envs.hosted import JaxInstance
    from omad.envs.outside import unpadded

    padding = padding_of(env.spec.obs_dims)
    if padding is None or (raw := unpadded(env)) is None:
        return ""
    instance = JaxInstance(raw)
    first = instance.reset(seed).obs
    if not any(
        obs.ravel()[padding].any() for obs in (first, instance.step(np.zeros(env.spec.act_mask.shape), seed).next.obs)
    ):
        return ""
    return (
        f"Observations have numbers behind an agent's own, of which spec.obs_dims declares {env.spec.obs_dims}; omad "
        "sets them to zero. Declare them if agents observe them."
    )


_INTERLEAVED = 200
"""Steps in which two instances step alternately."""


@contextlib.contextmanager
def _closed(instance: Any) -> Iterator[Any]:
    try:
        yield instance
    finally:
        progress("close()")
        guarded("close()", instance.close)


def _digest(run: dict[str, Any]) -> str:
    return hashlib.sha256(run["obs"].tobytes() + run["rewards"].tobytes()).hexdigest()


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two traces agree as far as the shorter goes."""
    return all(
        np.array_equal(one[name][:n], other[name][:n], equal_nan=True)
        for name in ("obs", "rewards")
        for n in [min(len(one[name]), len(other[name]))]
    )


def fingerprint(task: str, steps: int, seed: int) -> dict[str, Any]:
    """Agents in order, and a digest of what steps returned; for a comparison with another process."""
    env, runs = _traces(task, steps, seed)
    return {"agents": list(env.spec.agents), "digest": _digest(runs[0])}


def inspect(task: str, steps: int = 1000, seed: int = 0, env_timeout: float = 60.0) -> dict[str, Any]:
    """An env's properties, as plain values; `problems` is empty where it can be trained on.

    A user's env on the host is run in two processes of its own, with unlike hash seeds, which are compared. There it
    may take `env_timeout` seconds to be made, reset, stepped or closed.

    Raises:
        UserError: The env cannot be made, or not be used at all.
    """
    row = tasks.find(task)
    if not row.isolated:
        return _inspect(task, steps, seed)
    given = {"task": row.name, "steps": steps, "seed": seed}
    slow, first_s = "the env hangs, or --env-timeout is too short", max(env_timeout, DESCRIBED_S)

    def apart(function: str, hash_seed: str) -> dict[str, Any]:
        environment = {"PYTHONHASHSEED": hash_seed}
        return call(row.name, function, given, first_s, env_timeout, environment, advice=slow)

    found = apart("omad.commands.check:_inspect", "0")
    digest = found.pop("digest")
    found |= {name: tuple(found[name]) for name in ("obs_dims", "act_dims")}
    if found["problems"]:
        return found
    other = apart("omad.commands.check:fingerprint", "1")
    if sorted(other["agents"]) != sorted(found["agents_named"]):
        found["problems"].append(
            f"Cannot be trained on: another process has the agents {', '.join(other['agents'])}, not "
            f"{', '.join(found['agents_named'])}."
        )
    elif other["agents"] != found["agents_named"]:
        found["notes"].append(
            "Another process lists the agents in another order; omad keeps to the order of the first, but the env may "
            "also behave otherwise there."
        )
    elif found["deterministic"] and other["digest"] != digest:
        found["notes"].append("Not the same in another process: the same seed and actions gave another result there.")
    return found


def _inspect(task: str, steps: int, seed: int) -> dict[str, Any]:
    """As `inspect`, in this process."""
    row = tasks.find(task)
    try:
        env, runs = _traces(row.name, steps, seed)
    except Broken as error:
        raise UserError(f"{row.name}: {error}.") from error
    first = runs[0]
    same = len(runs) < 2 or (_alike(first, runs[1]) and len(first["rewards"]) == len(runs[1]["rewards"]))
    apart = len(runs) < 3 or not same or (_alike(first, runs[2]) and not runs[2]["broken"])
    spec = env.spec
    seen = first["obs"][np.isfinite(first["obs"])]
    notes = _notes(env, runs, steps, seed, same, apart)
    rewards = first["rewards"] if first["rewards"].size else np.zeros(1)
    worth = float(np.abs(rewards).mean()) * 100
    found = {
        "task": spec.name,
        "protocol": row.protocol,
        "agents": spec.n_agents,
        "agents_named": list(spec.agents),
        "act_low": spec.act_low,
        "act_high": spec.act_high,
        "digest": _digest(first),
        "isolated": apart,
        "obs_dims": spec.obs_dims,
        "act_dims": spec.act_dims,
        "state_dim": spec.state_dim,
        "horizon": spec.horizon,
        "steps": len(first["rewards"]),
        "episodes": len(first["lengths"]),
        "episode_length": float(np.mean(first["lengths"])) if first["lengths"] else None,
        "random_return": float(np.mean(first["returns"])) if first["returns"] else None,
        "terminated": first["ends"]["terminated"],
        "truncated": first["ends"]["truncated"],
        "cut_by_omad": first["ends"]["cut"],
        "reward_min": float(rewards.min()),
        "reward_mean": float(rewards.mean()),
        "reward_max": float(rewards.max()),
        "obs_min": float(seen.min()) if seen.size else None,
        "obs_max": float(seen.max()) if seen.size else None,
        "deterministic": same,
        "saves": first["saves"],
        "steps_per_s": first["steps_per_s"],
        "suggested_v_max": float(np.ceil(max(2 * worth, 10.0))),
        "notes": notes,
        "problems": [],
    }
    if first["broken"]:  # what was seen until then says nothing about the env
        found |= dict.fromkeys(_MEASURED) | {
            "notes": [*getattr(env, "notes", ())],
            "problems": [f"Cannot be trained on: {first['broken']}."],
        }
    return found


def _notes(env: Any, runs: list[dict[str, Any]], steps: int, seed: int, same: bool, apart: bool) -> list[str]:
    """What a user should know of the env: its own notes, then what its steps have shown."""
    first, spec = runs[0], env.spec
    seen = first["obs"][np.isfinite(first["obs"])]
    notes = [*getattr(env, "notes", ())]
    if not apart:
        notes.append(
            "Instances in one process disturb each other: interleaved with a second instance, the same seed and "
            "actions gave another result. Training runs each instance in its own process unless --env-workers is "
            f"given, but in at most {MOST_ALONE} processes: keep envs times seeds of a run below that."
        )
    notes += filter(None, (first["left"], "" if isinstance(env, HostEnv) else _spilt(env, seed)))
    if not same:
        notes.append("Not deterministic: the same seed and actions gave another result the second time.")
    lengths, own = first["lengths"], not tasks.find(spec.name).obs_dims  # envs of this package have theirs listed
    if own and len(lengths) > 1 and first["ends"]["terminated"] == len(lengths) and {*lengths} == {max(lengths[0], 2)}:
        notes.append(
            f"All {len(lengths)} episodes terminated after exactly {lengths[0]} steps. If a clock ends them, flag that "
            "as truncated: what follows a termination is learned to be worth nothing."
        )
    if own and not spec.act_low:
        notes.append(
            "Its spec declares no bounds of actions, so exported policies act in [-1, 1]; if the env maps that to "
            "units of its own, declare act_low and act_high."
        )
    if seen.size and np.abs(seen).max() > 100:
        notes.append(
            f"Observations reach {np.abs(seen).max():.3g}; consider --obs-norm running, or smaller units in the env."
        )
    if not sum(first["ends"].values()):
        notes.append(
            f"No episode ended in {steps} steps; its horizon is {spec.horizon}, after which no episode may go on."
        )
    if not first["saves"] and not any("cannot be saved" in note for note in notes):
        why = first["unsaved"] or "offer save_state and load_state, in an instance of a HostEnv save and load"
        notes.append(f"Its state cannot be saved: {why}. A resumed run begins new episodes.")
    if first["rewards"].size and np.ptp(first["rewards"]) == 0:
        notes.append(
            f"The reward was {first['rewards'][0]:g} at every step: random actions find nothing to learn from."
        )
    return notes


_MEASURED = ("isolated", "episode_length", "random_return", "reward_min", "reward_mean", "reward_max", "obs_min",
             "obs_max", "deterministic", "saves", "steps_per_s", "suggested_v_max")  # fmt: skip


def _bounds(found: dict[str, Any]) -> str:
    """The bounds of actions, agent by agent where they differ."""
    boxes = [
        ", ".join(dict.fromkeys(f"{low:g} to {high:g}" for low, high in zip(*rows, strict=True)))
        for rows in zip(found["act_low"], found["act_high"], strict=True)
    ]
    if not boxes:
        return "from -1 to 1"
    if len(set(boxes)) == 1:
        return f"from {boxes[0]}"
    names = found["agents_named"] or [f"agent {i}" for i in range(len(boxes))]
    return "from " + "; ".join(f"{box} ({name})" for name, box in zip(names, boxes, strict=True))


def _sentences(found: dict[str, Any]) -> list[str]:
    ends = found["terminated"] + found["truncated"]
    declared = [
        f"{found['task']}: {found['agents']} agents{''.join(f', {name}' for name in found['agents_named'])}.",
        found["protocol"],
        f"Observations: {', '.join(map(str, found['obs_dims']))} numbers an agent"
        + ("." if found["obs_min"] is None else f", from {found['obs_min']:.3g} to {found['obs_max']:.3g} here."),
        f"Actions: {', '.join(map(str, found['act_dims']))} numbers an agent, {_bounds(found)}; policies write "
        "[-1, 1], mapped to the bounds of envs of other libraries; a JaxEnv or HostEnv of your own maps them itself.",
        f"State for critics: {found['state_dim']} numbers."
        if found["state_dim"]
        else "There is no state; critics read all observations.",
    ]
    if found["problems"]:
        return found["problems"] + declared + found["notes"]
    measured = [
        f"Episodes: horizon {found['horizon']}; {ends} ended in {found['steps']} steps, "
        f"{found['terminated']} by the task and {found['truncated']} by the clock"
        + (f" ({found['cut_by_omad']} of them by omad's own)" if found["cut_by_omad"] else "")
        + (f", after {found['episode_length']:.1f} steps on average." if ends else "."),
        f"Team reward of a step: from {found['reward_min']:.4g} to {found['reward_max']:.4g}, mean "
        f"{found['reward_mean']:.4g}"
        + (f"; an episode of random actions returns {found['random_return']:.4g}." if ends else "."),
        f"A first --v-max to try with a discount of 0.99: {found['suggested_v_max']:g} (twice 100 steps of "
        "the mean size of a reward); watch critic/target_edge_mass.",
        "Deterministic: the same seed and actions give the same." if found["deterministic"] else "",
        f"Speed: {found['steps_per_s']:,.0f} steps/s in one process.",
    ]
    return [line for line in declared + measured if line] + found["notes"]


def main(arguments: Sequence[str]) -> int:
    """Run and report; exit code 2 where the env cannot be trained on."""
    options = tyro.cli(Options, prog="omad check-env", args=list(arguments))
    check(options, counts=("steps",), not_negative=("seed",), positive=("env_timeout",),
          most={"steps": 100_000_000, "env_timeout": 1_000_000.0}, flags=True)  # fmt: skip
    if options.seed + options.steps > MOST:
        raise UserError(f"--seed is {options.seed}; with --steps {options.steps} at most {MOST - options.steps}.")
    found = inspect(options.task, options.steps, options.seed, options.env_timeout)
    found.pop("digest", None)
    if options.json:
        print_json(found)
    else:
        for line in _sentences(found):
            console().print(line)
    return 2 if found["problems"] else 0
