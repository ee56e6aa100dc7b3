"""`omad modes RUNS…`: how many of a game's equally good actions policies keep."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from omad.commands.screen import console, print_json
from omad.errors import Refused

__all__ = ["main", "measure"]


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
    if options.draws < 1:
        raise Refused(f"--draws is {options.draws}; it must be at least 1.")
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
        _write(options.out / "sections", games[0], found, modes.draw(pictures, points, f"{games[0]}: sampled actions"))
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
    from rich.table import Table

    table = Table("policy", *_HEAD, title=f"{game}: sampled actions", caption=_CAPTION)
    for label, one in found.items():
        table.add_row(label, *_row(one["one observation"], one["all observations"]))
    return table


def _write(folder: Path, game: str, found: dict[str, dict[str, Any]], picture: bytes) -> None:
    """A section for the report."""
    name = f"modes-{game.split('/')[1]}"
    told = [
        f"{label}: agents keep {row[0]} of 4 points and {row[1]} joint choices; {row[2]} of joint actions are at "
        f"points, {row[3]} of these not all at the same one; over all observations {row[4]} joint choices, {row[5]} "
        "not at the same one."
        for label, one in found.items()
        for row in [_row(one["one observation"], one["all observations"])]
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.png").write_bytes(picture)
    section = {
        "title": f"Equally good actions: {game}",
        "text": "\n\n".join(told),
        "figure": f"{name}.png",
        "alt": f"Sampled actions of every agent in {game}, a row a policy. " + " ".join(told),
    }
    (folder / f"{name}.json").write_text(json.dumps(section, indent=1) + "\n")
