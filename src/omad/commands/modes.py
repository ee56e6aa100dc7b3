"""`omad modes RUNS…`: how many of a game's equally good actions policies keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from omad.algos.validate import check
from omad.console import console, print_json, row, table
from omad.errors import Refused
from omad.report.records import SectionFile
from omad.report.whole import write_section

__all__ = ["main", "measure"]

_BYTES = 2048
"""Of one agent's draw: its action on the way through a policy of usual width."""
_MOST = 1 << 32
"""Bytes that the draws may take."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Sample joint actions of runs on a task games/..., count the good points they keep, and draw them."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders of one game, or folders that hold some at any depth (a study's)."""
    out: Path | None = None
    """Study folder in which to write sections/NAME.json and NAME.png, which omad report shows."""
    draws: int = 2000
    """Joint actions of each policy."""
    seed: int = 0
    """Of the draws."""
    json: bool = False
    """Print JSON."""


def measure(run: Path, seed: int, draws: int) -> tuple[Any, Any]:
    """Joint actions of a run's first training seed: at one observation, and at observations of their own.

    Returns:
        Two arrays `(draw, agent, 2)`.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from omad import api

    policy = api.load_policy(run)
    spec = policy.spec
    key, hint_key, other_key = jax.random.split(jax.random.key(seed), 3)
    still = jnp.zeros((draws, spec.n_agents, spec.obs_dim))
    hints = jnp.tile(jax.random.uniform(hint_key, (draws, 1, spec.obs_dim), minval=-1.0), (1, spec.n_agents, 1))
    return np.asarray(policy.act(still, key)), np.asarray(policy.act(hints, other_key))


def main(arguments: Sequence[str]) -> int:
    """Print the table; with --out, write the section."""
    options = tyro.cli(Options, prog="omad modes", args=list(arguments))
    check(options, counts=("draws",), not_negative=("seed",), most={"draws": 1_000_000}, flags=True)
    import numpy as np

    from omad import tasks
    from omad.report import modes
    from omad.run.folder import RunFolder

    folders = sorted({path.parent for given in options.runs for path in given.rglob("manifest.json")})
    runs = [RunFolder.open(folder) for folder in folders]
    games = sorted({run.config.task for run in runs})
    if len(games) != 1 or not games[0].startswith("games/"):
        held = ", ".join(games) or "no runs"
        raise Refused(f"The given folders hold {held}; give runs of one task, games/islands-N or games/meeting-N.")
    agents = max(run.spec.n_agents for run in runs)
    needed = options.draws * agents * _BYTES
    if needed > _MOST:
        raise Refused(
            f"--draws is {options.draws}; so many joint actions of {agents} agents need {needed / 2**30:,.1f} GiB of "
            f"memory, and {_MOST >> 30} GiB are allowed. Give fewer; 2000 is usual."
        )
    points = np.asarray(tasks.GAME_MODES)
    found: dict[str, dict[str, Any]] = {}
    pictures: dict[str, Any] = {}
    for folder, run in zip(folders, runs, strict=True):
        still, hinted = measure(folder, options.seed, options.draws)
        label = f"{run.config.algorithm}, {folder.parent.name}, seed {run.config.first_seed}"
        label = label if label not in found else f"{label} ({folder})"
        found[label] = {
            "folder": str(folder),
            "one observation": dataclasses.asdict(modes.count(still, points)),
            "all observations": dataclasses.asdict(modes.count(hinted, points)),
        }
        pictures[label] = still
    if options.json:
        print_json(found)
    else:
        console().print(_table(games[0], found))
    if options.out is not None:
        picture = modes.draw(pictures, points, f"{games[0]}: sampled actions")
        write_section(options.out, f"modes-{games[0].split('/')[1]}", _section(games[0], found), picture)
    return 0


def _row(one: dict[str, Any], everywhere: dict[str, Any]) -> list[str]:
    return [
        " and ".join(map(str, one["kept"])),
        str(one["joint"]),
        f"{one['hit']:.0%}",
        _share(one["missed"]),
        str(everywhere["joint"]),
        _share(everywhere["missed"]),
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


_HEAD = ("kept", "joint", "hit", "apart", "joint*", "apart*")
_CAPTION = (
    "kept: good points that each agent keeps; joint: joint choices kept; hit: draws with all agents at good points; "
    "apart: share of those that are not all at the same one; *: over all observations, not at a single one"
)


def _table(game: str, found: dict[str, dict[str, Any]]) -> Any:
    made = table(f"{game}: sampled actions", "policy", *_HEAD, caption=_CAPTION)
    for label, one in found.items():
        row(made, label, *_row(one["one observation"], one["all observations"]))
    return made


def _section(game: str, found: dict[str, dict[str, Any]]) -> SectionFile:
    """For the report."""
    told = [
        f"{label}: agents keep {row[0]} of 4 points and {row[1]} joint choices; {row[2]} of joint actions are at "
        f"points, {row[3]} of these not all at the same one; over all observations {row[4]} joint choices, {row[5]} "
        "not at the same one."
        for label, one in found.items()
        for row in [_row(one["one observation"], one["all observations"])]
    ]
    return SectionFile(
        title=f"Equally good actions: {game}",
        text="\n\n".join(told),
        alt=f"Sampled actions of every agent in {game}, a row a policy. " + " ".join(told),
    )
