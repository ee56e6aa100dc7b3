"""The table of tasks: particle tasks, probes and games, each with its protocol and sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from omad.tasks.grammar import OPTIONS, family, spell, stacked_dims, text_of
from omad.tasks.returns import PUBLISHED, RANDOM, REFERENCES
from omad.tasks.robots import PROTOCOLS, ROBOTS, mujoco
from omad.tasks.rows import Task


def build(base: str, given: Mapping[str, Any]) -> Task:
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
        return mujoco(base)
    kind, n, xy = family(base), int(base.split("-")[1]), base.endswith("-xy")
    options = {key: default for key, (default, _, _) in OPTIONS[kind].items()} | dict(given)
    physics = f"{options['horizon']} steps, then truncated, {options['dynamics']} dynamics"
    act_dims = (2 if xy else 5,) * n
    if kind == "mpe/spread":
        ratio = text_of(options["local_ratio"])
        protocol = (
            f"Undiscounted return of the team, the sum over {n} agents of (1 - {ratio}) G - {ratio} C_i "
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
        obs_dims = stacked_dims(obs_dims, act_dims, options["history"])
    plain = {**options, "state": False, "history": 1}
    compared = spell(base.removesuffix("-xy"), plain)
    references = REFERENCES.get(compared, ())
    if xy:
        own = REFERENCES.get(spell(base, plain), ())
        references = own + tuple(reference for reference in references if reference[0] != RANDOM)
    return Task(
        name=spell(base, options),
        protocol=protocol,
        obs_dims=obs_dims,
        act_dims=act_dims,
        state_dim=state_dim * bool(options["state"]),
        horizon=options["horizon"],
        factory=f"omad.envs.mpe:{kind.removeprefix('mpe/')}",
        arguments=MappingProxyType(arguments),
        references=references,
        published=PUBLISHED.get(compared, ()),
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
        references=(("best possible", best, "by construction"),),
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
        references=(("best possible", 1.0, "by construction"),),
    )


_GAMES = {
    task.name: task
    for n in range(2, 7)
    for task in (
        _game("islands", n, "One step, reward the mean over agents of how near each is to any of four points."),
        _game("meeting", n, "One step, reward how near all agents are to the same of four points."),
    )
}

TASKS: Mapping[str, Task] = MappingProxyType(
    {
        base: build(base, {})
        for base in (
            *(f"mpe/spread-{n}{suffix}" for n in range(2, 11) for suffix in ("", "-xy")),
            *(f"mpe/deception-{n}{suffix}" for n in range(1, 7) for suffix in ("", "-xy")),
            *_PROBES,
            *_GAMES,
            *(
                f"mamujoco-{protocol}/{robot}"
                for protocol in PROTOCOLS
                for robot, row in ROBOTS.items()
                if row[3] or protocol == "full"
            ),
            *(f"mamujoco-{protocol}/manysegmentswimmer-10x2" for protocol in PROTOCOLS),
            "mamujoco-full/manysegmentant-2x3",
        )
    }
)
"""All tasks with all their options at the default."""

FORMS = (
    "mpe/spread-N (N from 2 to 10), mpe/deception-N (N from 1 to 6), both also with the suffix -xy; "
    f"mamujoco-PROTOCOL/ROBOT with {', '.join(PROTOCOLS)} and {', '.join(ROBOTS)}, manysegmentswimmer-NxM, "
    f"manysegmentant-NxM; {', '.join(_PROBES)}; games/islands-N, games/meeting-N (N from 2 to 6); or "
    "pettingzoo:package.module:factory, jax:package.module:factory, host:package.module:factory, jaxmarl:NAME"
)
