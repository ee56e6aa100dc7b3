"""The table of tasks: what each is called, its protocol and sizes, and numbers to hold a return against.

A task's name holds its protocol: `mpe/deception-2?adversary=static&dynamics=v2`. Options that have their
default value are left out of the name, the others stand in alphabetical order. The name of a user's own env
says where to import it: `pettingzoo:package.module:factory?n=3`. Returns of differently named tasks are not
comparable, except that the options `state` and `history` and the suffix `-xy` change only what critics
or agents are given or how actions are written. This file imports nothing heavy.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from omad.errors import Refused

__all__ = [
    "GAME_MODES",
    "OPTIONS",
    "TASKS",
    "Anchor",
    "Published",
    "Task",
    "UnknownTask",
    "find",
    "nearest",
    "remembered",
    "spell",
]

Anchor = tuple[str, float, str]
"""Label, undiscounted return of an episode (mean), source."""
Published = tuple[str, float, float | None, str]
"""Label, mean, standard deviation over seeds (None where it is not known), source."""


class UnknownTask(Refused):
    """A task's name or one of its options is not one of those there are."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What is known about a task before anything is compiled."""

    name: str
    """Canonical name, options included."""
    protocol: str
    """One sentence that says what a return of this task means."""
    obs_dims: tuple[int, ...]
    """Observation size of each agent; empty where only the env itself knows (`pettingzoo:`)."""
    act_dims: tuple[int, ...]
    """Action size of each agent; empty likewise."""
    state_dim: int
    """Size of the global state for critics, 0 for none."""
    horizon: int
    """Steps until an episode is truncated (or has terminated); 0 where only the env itself knows."""
    factory: str
    """`module:function` that makes the env."""
    arguments: Mapping[str, Any]
    """Keyword arguments of the factory."""
    anchors: tuple[Anchor, ...] = ()
    """Returns of policies that need no learning, or of bounds on all policies."""
    published: tuple[Published, ...] = ()
    """Returns of learned policies in publications, on this protocol as far as can be told."""
    hosted: bool = False
    """Whether the env runs on the host, in worker processes, and not in JAX."""
    symmetric: bool = False
    """Whether the env says what leaves it as it is (`JaxEnv.symmetry`)."""

    @property
    def n_agents(self) -> int:
        """Number of learning agents."""
        return len(self.obs_dims)


def nearest(word: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names most like a word, best first; at least one if there are any."""
    names = list(names)
    return difflib.get_close_matches(word, names, count, 0.6) or difflib.get_close_matches(word, names, 1, 0.0)


# Options: name -> (default, parser of text, what is allowed)


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"nearest: {nearest(text, allowed, 1)[0]}")
        return text

    return parse


def _flag(text: str) -> bool:
    return {"true": True, "false": False}[text]


def _seen_by_critics(text: str) -> bool | str:
    return {"false": False, "true": True, "full": "full"}[text]


def _ratio(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value


def _steps(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 10_000:
        raise ValueError(text)
    return value


def _moments(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 10:
        raise ValueError(text)
    return value


Option = tuple[Any, Callable[[str], Any], str]

_COMMON: dict[str, Option] = {
    "dynamics": ("v3", _one_of("v3", "v2"), "v3 or v2"),
    "history": (1, _moments, "a whole number from 1 to 10"),
    "horizon": (25, _steps, "a whole number from 1 to 10000"),
    "state": (False, _flag, "true or false"),
}
_SCRIPTS = ("random", "static", "landmark_mean", "follower")

OPTIONS: Mapping[str, Mapping[str, Option]] = MappingProxyType(
    {
        "mpe/spread": _COMMON | {"local_ratio": (0.5, _ratio, "a number from 0 to 1")},
        "mpe/deception": _COMMON
        | {
            "adversary": ("random", _one_of(*_SCRIPTS), ", ".join(_SCRIPTS)),
            "state": (False, _seen_by_critics, "true, false or full"),
        },
        **{
            f"probe/{kind}": {"host": (False, _flag, "true or false")}
            for kind in ("constant", "signal", "delay", "timeout", "push", "relay")
        },
    }
)
"""Options of each family of tasks: default, parser, and the words for what is allowed."""


def remembered(obs_dims: tuple[int, ...], act_dims: tuple[int, ...], moments: int) -> tuple[int, ...]:
    """Sizes of observations that hold several moments, and the own actions between them."""
    return tuple(obs + (moments - 1) * (obs + act) for obs, act in zip(obs_dims, act_dims, strict=True))


def _family(base: str) -> str:
    return re.sub(r"-\d+(-xy)?$", "", base) if base.startswith("mpe/") else base


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def spell(base: str, options: Mapping[str, Any]) -> str:
    """The canonical name of a task: its base and those options that are not at their default."""
    known = OPTIONS.get(_family(base), {})
    parts = [
        f"{key}={_text(value)}" for key, value in sorted(options.items()) if key not in known or value != known[key][0]
    ]
    return base + ("?" + "&".join(parts) if parts else "")


# Numbers to hold a return against

_RANDOM = "uniformly random"
_SCRIPTED = "measured with this project's scripted policies (omad.envs.scripted), 20,000 episodes"
_CEILING = "open-loop trajectory optimisation with full information, 300 episodes (s.e. < 0.6); code not included"
_BPTT = "decentralised networks without memory, trained by gradients through the simulator, one seed; code not included"
_PAPER = "arXiv 2602.18291, 5 seeds, through secondary summaries; env version unknown, this protocol fits"

_PAPER_V = (
    "arXiv 2602.18291, 5 seeds, through secondary summaries; Gymnasium version and observations unknown, most likely "
    "the whole state, standardised per vector"
)
_HARL = "HARL's published learning curves, read off with 5 % error; gym -v2"
_RANDOM_V5 = "omad check-env TASK --steps 50000"
_RANDOM_RETURNS = {
    "ant-2x4": -54.4,
    "ant-2x4d": -54.4,
    "ant-2x4diag": -54.4,
    "ant-4x2": -54.4,
    "halfcheetah-2x3": -290.8,
    "halfcheetah-6x1": -290.8,
    "walker2d-2x3": 1.6,
    "swimmer-2x1": -0.2,
    "hopper-3x1": 17.4,
    "humanoid-9-8": 113.6,
    "humanoidstandup-9-8": 33850.8,
    "reacher-2x1": -42.8,
    "pusher-3p": -150.2,
}
"""How a robot is shared out among agents makes no difference to random actions."""


def _row(**returns: float) -> tuple[Anchor, ...]:
    labels = {
        "zero": ("zero action", _SCRIPTED),
        "random": (_RANDOM, _SCRIPTED),
        "greedy": ("own nearest landmark", _SCRIPTED),
        "assign": ("optimal assignment + PD control", _SCRIPTED),
        "cover": ("nearest agent to the goal, others cover + PD control", _SCRIPTED),
        "bptt": ("networks trained through the simulator", _BPTT),
        "ceiling": ("ceiling", _CEILING),
    }
    return tuple((labels[key][0], value, labels[key][1]) for key, value in returns.items())


_ANCHORS: dict[str, tuple[Anchor, ...]] = {
    "mpe/spread-2": _row(zero=-39.1, random=-40.5, greedy=-24.6, assign=-9.0),
    "mpe/spread-3": _row(zero=-72.4, random=-75.5, greedy=-48.7, assign=-17.6, bptt=-24.05, ceiling=-15.4),
    "mpe/spread-4": _row(zero=-112.3, random=-117.8, greedy=-76.6, assign=-28.9, bptt=-53.0, ceiling=-25.7),
    "mpe/spread-5": _row(zero=-158.3, random=-167.0, greedy=-108.6, assign=-43.4),
    "mpe/spread-6": _row(zero=-210.1, random=-223.2, greedy=-142.6, assign=-61.3),
    "mpe/spread-7": _row(zero=-268.1, random=-286.0, greedy=-180.2),
    "mpe/spread-8": _row(zero=-332.9, random=-356.2, greedy=-219.8),
    "mpe/spread-9": _row(zero=-404.6, random=-433.3, greedy=-264.8),
    "mpe/spread-10": _row(zero=-484.4, random=-518.3, greedy=-311.9),
    "mpe/spread-3?dynamics=v2": _row(zero=-71.3, random=-74.5, greedy=-56.4, assign=-14.1, bptt=-19.4, ceiling=-12.5),
    "mpe/spread-4?dynamics=v2": _row(zero=-109.3, random=-114.9, greedy=-89.4, assign=-22.7, ceiling=-20.8),
    "mpe/deception-1": _row(zero=1.0, random=0.0, cover=21.4),
    "mpe/deception-2": _row(zero=15.2, random=14.0, cover=46.8),
    "mpe/deception-3": _row(zero=32.4, random=30.9, cover=72.5),
    "mpe/deception-4": _row(zero=51.9, random=50.1, cover=98.9),
    "mpe/deception-5": _row(zero=73.2, random=71.0, cover=126.1),
    "mpe/deception-6": _row(zero=93.6, random=91.0, cover=151.7),
    "mpe/deception-2?dynamics=v2": _row(zero=15.4, random=14.1, cover=48.6),
    "mpe/deception-2?adversary=static": _row(zero=13.2, random=12.0, bptt=41.9, cover=44.8),
    "mpe/deception-2?adversary=static&dynamics=v2": _row(zero=13.2, random=11.9, bptt=45.0, cover=46.4),
    "mpe/deception-2?adversary=landmark_mean": _row(zero=-8.5, random=-9.7, cover=23.1),
    "mpe/deception-2?adversary=follower": _row(zero=-8.0, random=-9.1, cover=19.4),
    # Uniform in two numbers is not uniform in five; all other policies do the same in both.
    "mpe/spread-2-xy": _row(random=-41.9),
    "mpe/spread-3-xy": _row(random=-78.3),
    "mpe/spread-4-xy": _row(random=-122.8),
    "mpe/spread-5-xy": _row(random=-174.3),
    "mpe/spread-6-xy": _row(random=-232.9),
    "mpe/spread-7-xy": _row(random=-298.4),
    "mpe/spread-8-xy": _row(random=-372.1),
    "mpe/spread-9-xy": _row(random=-452.9),
    "mpe/spread-10-xy": _row(random=-542.1),
    "mpe/deception-2-xy": _row(random=12.9),
}
"""Returns by protocol; standard errors of the scripted ones are 0.7 at most, and 0.25 for those named above
with 3 or 4 agents in `spread` and with 2 in `deception`."""

_PUBLISHED: dict[str, tuple[Published, ...]] = {
    "mpe/spread-3": (("OMAD", -23.9, 1.1, _PAPER), ("HASAC (best baseline)", -25.1, None, _PAPER)),
    "mpe/spread-4": (("OMAD", -57.9, 0.8, _PAPER), ("HATD3 (best baseline)", -63.0, None, _PAPER)),
    "mpe/deception-2": (
        ("OMAD", 45.1, 4.1, _PAPER + "; an adversary that stays still fits as well"),
        ("HASAC (best baseline)", 45.4, None, _PAPER + "; an adversary that stays still fits as well"),
    ),
}


# The tasks


def _build(base: str, given: Mapping[str, Any]) -> Task:
    """A task of the table with some of its options set."""
    if base.startswith("probe/"):
        task = _PROBES[base]
        if not given.get("host"):
            return task
        arguments = {"factory": task.factory, "arguments": dict(task.arguments)}
        return dataclasses.replace(
            task, name=spell(base, given), hosted=True, factory="omad.envs.hosted:make",
            arguments=MappingProxyType(arguments),
        )  # fmt: skip
    if base in _GAMES:
        return _GAMES[base]
    if base.startswith("mamujoco-"):
        return _mujoco(base)
    family, n, xy = _family(base), int(base.split("-")[1]), base.endswith("-xy")
    options = {key: default for key, (default, _, _) in OPTIONS[family].items()} | dict(given)
    physics = f"{options['horizon']} steps, then truncated, {options['dynamics']} dynamics"
    act_dims = (2 if xy else 5,) * n
    if family == "mpe/spread":
        ratio = options["local_ratio"]
        protocol = (
            f"Undiscounted return of the team, the sum over {n} agents of (1 - {ratio:g}) G - {ratio:g} C_i "
            f"without self-collision; {physics}."
        )
        obs_dims = (6 * n,) * n
        state_dim = sum(obs_dims)
        arguments = {"n_agents": n, "xy": xy} | options
    else:
        protocol = (
            f"Undiscounted return of the team, the sum over the {n} good agents of the adversary's distance "
            f"to the goal minus that of the nearest good agent; adversary: {options['adversary']}; {physics}."
        )
        obs_dims = (4 * n + 2,) * n
        state_dim = sum(obs_dims) + 4 * n + 2 * (n + 1) * (options["state"] == "full")
        arguments = {"n_good": n, "xy": xy} | options
    if options["history"] > 1:
        protocol += f" Agents hold their last {options['history']} observations and the own actions between them."
        obs_dims = remembered(obs_dims, act_dims, options["history"])
    plain = {**options, "state": False, "history": 1}
    compared = spell(base.removesuffix("-xy"), plain)
    anchors = _ANCHORS.get(compared, ())
    if xy:
        own = _ANCHORS.get(spell(base, plain), ())
        anchors = own + tuple(anchor for anchor in anchors if anchor[0] != _RANDOM)
    return Task(
        name=spell(base, options),
        protocol=protocol,
        obs_dims=obs_dims,
        act_dims=act_dims,
        state_dim=state_dim * bool(options["state"]),
        horizon=options["horizon"],
        factory=f"omad.envs.mpe:{family.removeprefix('mpe/')}",
        arguments=MappingProxyType(arguments),
        anchors=anchors,
        published=_PUBLISHED.get(compared, ()),
        symmetric=True,
    )


def _probe(
    kind: str, obs_dims: tuple[int, int], act_dims: tuple[int, int], horizon: int, best: float, protocol: str
) -> Task:
    return Task(
        name=f"probe/{kind}",
        protocol=protocol,
        obs_dims=obs_dims,
        act_dims=act_dims,
        state_dim=0,
        horizon=horizon,
        factory=f"omad.envs.probe:{kind}",
        arguments=MappingProxyType({}),
        anchors=(("best possible", best, "by construction"),),
    )


_PROBES = {
    task.name: task
    for task in (
        _probe("constant", (1, 1), (1, 1), 1, 1.0, "One step, reward 1, terminated."),
        _probe("signal", (1, 1), (1, 1), 1, 0.0, "One step, reward is the observed sign, terminated."),
        _probe("delay", (1, 1), (1, 1), 2, 1.0, "Two steps, reward 1 at the second, terminated."),
        _probe("timeout", (1, 1), (1, 1), 10, 10.0, "Reward 1 a step, truncated after 10 steps."),
        _probe("push", (1, 2), (1, 2), 1, 0.0, "One step, reward minus the squared distance to the observation."),
        _probe("relay", (1, 1), (1, 1), 1, 1.0, "One step, reward 1 at (0.6, -0.6) and at (-0.6, 0.6)."),
    )
}

GAME_MODES = ((0.6, 0.6), (-0.6, 0.6), (-0.6, -0.6), (0.6, -0.6))
"""The good points of the games."""


def _game(kind: str, n: int, protocol: str) -> Task:
    return Task(
        name=f"games/{kind}-{n}",
        protocol=protocol,
        obs_dims=(2,) * n,
        act_dims=(2,) * n,
        state_dim=0,
        horizon=1,
        factory=f"omad.envs.games:{kind}",
        arguments=MappingProxyType({"n_agents": n}),
        anchors=(("best possible", 1.0, "by construction"),),
    )


_GAMES = {
    task.name: task
    for n in range(2, 7)
    for task in (
        _game("islands", n, "One step, reward the mean over agents of how near each is to any of four points."),
        _game("meeting", n, "One step, reward how near all agents are to the same of four points."),
    )
}

_ROBOTS: dict[str, tuple[str, str, tuple[int, ...], tuple[int, ...], tuple[int, ...], int, int]] = {
    "ant-2x4": ("Ant", "2x4", (4, 4), (61, 61), (63, 63), 105, 1000),
    "ant-2x4d": ("Ant", "2x4d", (4, 4), (61, 61), (63, 63), 105, 1000),
    "ant-2x4diag": ("Ant", "2x4diag", (4, 4), (61, 61), (63, 63), 105, 1000),
    "ant-4x2": ("Ant", "4x2", (2,) * 4, (39,) * 4, (42,) * 4, 105, 1000),
    "halfcheetah-2x3": ("HalfCheetah", "2x3", (3, 3), (11, 11), (12, 12), 17, 1000),
    "halfcheetah-6x1": ("HalfCheetah", "6x1", (1,) * 6, (7,) * 6, (9, 9, 8, 9, 9, 8), 17, 1000),
    "walker2d-2x3": ("Walker2d", "2x3", (3, 3), (11, 11), (12, 12), 17, 1000),
    "swimmer-2x1": ("Swimmer", "2x1", (1, 1), (5, 5), (6, 6), 8, 1000),
    "hopper-3x1": ("Hopper", "3x1", (1,) * 3, (7,) * 3, (8, 9, 8), 11, 1000),
    "humanoid-9-8": ("Humanoid", "9|8", (9, 8), (236, 167), (242, 170), 348, 1000),
    "humanoidstandup-9-8": ("HumanoidStandup", "9|8", (9, 8), (236, 167), (242, 170), 348, 1000),
    "reacher-2x1": ("Reacher", "2x1", (1, 1), (5, 8), (7, 10), 10, 50),
    "pusher-3p": ("Pusher", "3p", (3, 1, 3), (), (), 23, 100),
}
"""Robot -> gymnasium-robotics' scenario and factorisation, action sizes, observation sizes with obsk 0 and 1, size of
the state, time limit. All measured, and checked by a test against the package. Pusher has only the protocol `full`: the
package orders its local observations differently in every process (several of its joints share a name). So has
manysegmentant: what the package shows its agents are entries of other joints than theirs."""

_SEGMENTS = re.compile(r"manysegment(swimmer|ant)-([1-9]\d?)x([1-9]\d?)")
PROTOCOLS = ("full", "obsk0", "obsk1")
_MUJOCO_PUBLISHED: dict[str, tuple[Published, ...]] = {
    "ant-2x4": (
        ("OMAD", 7517.0, 279.2, _PAPER_V),
        ("MASDAC (best baseline)", 7266.2, None, _PAPER_V),
    ),
    "halfcheetah-2x3": (
        ("OMAD", 14368.5, 1166.0, _PAPER_V),
        ("MASDAC (best baseline)", 10540.7, None, _PAPER_V),
        ("HATD3 after 3M steps", 5300.0, None, _HARL),
    ),
    "swimmer-2x1": (("OMAD", 162.0, 22.5, _PAPER_V), ("MASDAC (best baseline)", 149.3, None, _PAPER_V)),
    "ant-4x2": (("HATD3 after 3M steps", 5400.0, None, _HARL),),
    "walker2d-2x3": (("HATD3 after 3M steps", 4000.0, None, _HARL + "; its feet differ from -v5's"),),
}


def _robot(name: str) -> tuple[str, str, tuple[int, ...], tuple[int, ...], tuple[int, ...], int, int]:
    """A row of the table, or one worked out for a chain of segments.

    Raises:
        KeyError: No such robot.
    """
    if not (found := _SEGMENTS.fullmatch(name)):
        return _ROBOTS[name]
    kind, n, m = found[1], int(found[2]), int(found[3])
    if not 2 <= n * m <= 50:
        raise KeyError(name)
    size = f"{n}x{m}"
    if kind == "swimmer":
        near = [2 * m + (i > 0) + (i < n - 1) for i in range(n)]
        return "ManySegmentSwimmer", size, (m,) * n, (2 * m,) * n, tuple(near), 2 * n * m + 4, 1000
    return "ManySegmentAnt", size, (4 * m,) * n, (), (), 50 * n * m + 11, 1000


def _mujoco(base: str) -> Task:
    """A robot in one of the three protocols."""
    protocol, _, name = base.removeprefix("mamujoco-").partition("/")
    scenario, parts, act_dims, none, one, state_dim, horizon = _robot(name)
    n = len(act_dims)
    seen = {
        "full": "each agent sees the whole state and a one-hot id",
        "obsk0": "each agent sees its own joints and the root",
        "obsk1": "each agent sees its own joints, the positions of joints next to them, and the root",
    }[protocol]
    return Task(
        name=base,
        protocol=(
            f"Undiscounted return of Gymnasium's {scenario}-v5, {n} agents ({parts}); {seen}; critics read "
            f"state(); {horizon} steps, then truncated."
        ),
        obs_dims={"full": (state_dim + n,) * n, "obsk0": none, "obsk1": one}[protocol],
        act_dims=act_dims,
        state_dim=state_dim,
        horizon=horizon,
        factory="omad.envs.mamujoco:make",
        arguments=MappingProxyType(
            {
                "task": base,
                "scenario": scenario,
                "parts": parts,
                "obsk": {"full": None, "obsk0": 0, "obsk1": 1}[protocol],
            }
        ),
        anchors=tuple((_RANDOM, value, _RANDOM_V5) for robot, value in _RANDOM_RETURNS.items() if robot == name),
        published=_MUJOCO_PUBLISHED.get(name, ()) if protocol == "full" else (),
        hosted=True,
    )


def _pettingzoo(name: str) -> Task:
    """A user's own env: where to import it, and its keyword arguments as text."""
    base, _, tail = name.partition("?")
    words = base.split(":")
    if len(words) != 3 or not all(re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", word) for word in words[1:]):
        raise UnknownTask(
            f"{name!r} does not say where an env is; it must be pettingzoo:package.module:factory, "
            "with keyword arguments after ? as in ?n=3&continuous_actions=true."
        )
    arguments: dict[str, Any] = {}
    for part in filter(None, tail.split("&")):
        key, given, text = part.partition("=")
        if not key.removeprefix("env.").isidentifier() or not given or key in arguments:
            raise UnknownTask(f"{name!r}: {part!r} is not an argument; write key=value, each key once.")
        arguments[key] = _value(text)
    return Task(
        name=name,
        protocol="Undiscounted return of a user's own PettingZoo env.",
        obs_dims=(),
        act_dims=(),
        state_dim=0,
        horizon=0,
        factory="omad.envs.pettingzoo:make",
        arguments=MappingProxyType({"task": name, "factory": ":".join(words[1:]), "arguments": arguments}),
        hosted=True,
    )


def _value(text: str) -> Any:
    """true, false, none, a finite number, what Python writes with brackets or quotes, or the text itself.

    Digits in quotes are text: `?level='7'`.

    Raises:
        UnknownTask: It begins like a list, a dict or a quoted text, and is none.
    """
    if text[:1] in tuple("[{('\""):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise UnknownTask(
                f"The argument {text!r} begins like a list, a dict or a quoted text, but is none; write it as Python "
                "does, as in ?sizes=[64,64] or ?names=['red','blue'] or ?level='7'."
            ) from None
        if isinstance(value, tuple):
            value = list(value)
        if isinstance(value, bool | int | float | str | list | dict | None):
            return value
        raise UnknownTask(
            f"The argument {text!r} is a {type(value).__name__}; numbers, text, lists and dicts may be given."
        )
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text


TASKS: Mapping[str, Task] = MappingProxyType(
    {
        base: _build(base, {})
        for base in (
            *(f"mpe/spread-{n}{suffix}" for n in range(2, 11) for suffix in ("", "-xy")),
            *(f"mpe/deception-{n}{suffix}" for n in range(1, 7) for suffix in ("", "-xy")),
            *_PROBES,
            *_GAMES,
            *(
                f"mamujoco-{protocol}/{robot}"
                for protocol in PROTOCOLS
                for robot, row in _ROBOTS.items()
                if row[3] or protocol == "full"
            ),
            *(f"mamujoco-{protocol}/manysegmentswimmer-10x2" for protocol in PROTOCOLS),
            "mamujoco-full/manysegmentant-2x3",
        )
    }
)
"""All tasks with all their options at the default."""

_FORMS = (
    "mpe/spread-N (N from 2 to 10), mpe/deception-N (N from 1 to 6), both also with the suffix -xy; "
    f"mamujoco-PROTOCOL/ROBOT with {', '.join(PROTOCOLS)} and {', '.join(_ROBOTS)}, manysegmentswimmer-NxM, "
    f"manysegmentant-NxM; {', '.join(_PROBES)}; games/islands-N, games/meeting-N (N from 2 to 6); or "
    "pettingzoo:package.module:factory"
)


def _is_segments(base: str) -> bool:
    protocol, _, robot = base.removeprefix("mamujoco-").partition("/")
    if not base.startswith("mamujoco-") or protocol not in PROTOCOLS or not _SEGMENTS.fullmatch(robot):
        return False
    try:
        _robot(robot)
    except KeyError:
        raise UnknownTask(f"{base!r} has too few or too many segments; N times M may be from 2 to 50.") from None
    if protocol != "full" and "ant" in robot:
        raise UnknownTask(f"{base!r}: this robot is offered as mamujoco-full/{robot} only.")
    return True


def find(name: str) -> Task:
    """The task of a name, options included.

    Raises:
        UnknownTask: with what was given, the nearest valid names, and what is allowed.
    """
    if name.startswith("pettingzoo:"):
        return _pettingzoo(name)
    base, _, tail = name.partition("?")
    if base not in TASKS and not _is_segments(base):
        near = ", ".join(nearest(base, TASKS))
        raise UnknownTask(f"There is no task {base!r}; nearest: {near}; allowed: {_FORMS}.")
    known = OPTIONS.get(_family(base), {})
    given: dict[str, Any] = {}
    for part in filter(None, tail.split("&")):
        key, _, text = part.partition("=")
        if key not in known:
            allowed = ", ".join(sorted(known)) or "none"
            near = f"nearest: {nearest(key, known, 1)[0]}; " if known else ""
            raise UnknownTask(f"Task {base!r} has no option {key!r}; {near}allowed: {allowed}.")
        if key in given:
            raise UnknownTask(f"Task {base!r} is given option {key!r} twice, in {tail!r}; once is allowed.")
        try:
            given[key] = known[key][1](text)
        except (ValueError, KeyError) as error:
            hint = f"{error}; " if str(error).startswith("nearest") else ""
            raise UnknownTask(f"Task {base!r} cannot take {key}={text!r}; {hint}allowed: {known[key][2]}.") from None
    return _build(base, given)
