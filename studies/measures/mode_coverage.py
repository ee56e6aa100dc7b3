"""How many of a game's equally good actions policies keep, and whether agents agree on one.

    python studies/measures/mode_coverage.py RUNS... [--out STUDY]

Sampled actions are given to the nearest mode, one of the equally good actions, if one is near. An agent covers a mode
that takes a share of its draws. Agents are miscoordinated where all are at modes, but not at the same one.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from omad.algos.validate import check
from omad.cli import answer
from omad.console import console, print_json, row, table
from omad.errors import UserError
from omad.report.figures import COLOURS
from omad.report.format import drawable
from omad.report.records import Section
from sections import panels, write_section

RADIUS = 0.3
"""Farther than this from every mode, an action is at none: a quarter of the distance between two of them."""
LEAST = 0.05
"""Share of draws from which on a mode counts as covered."""

_BYTES = 2048
"""Of one agent's draw: its action on the way through a policy of usual width."""
_MOST = 1 << 32
"""Bytes that the draws may take."""


def nearest(actions: NDArray[Any], modes: NDArray[Any], radius: float = RADIUS) -> NDArray[np.int64]:
    """Index of the mode that each action `(..., 2)` is at, -1 where it is at none. `modes` is `(mode, 2)`."""
    apart = np.linalg.norm(actions[..., None, :] - modes, axis=-1)
    return np.where(apart.min(-1) <= radius, apart.argmin(-1), -1)


@dataclasses.dataclass(frozen=True)
class ModeCoverage:
    """What sampled joint actions show."""

    draws: int
    shares: tuple[tuple[float, ...], ...]
    """Of each agent, the share of its draws at each mode."""
    modes_per_agent: tuple[int, ...]
    """Of each agent, how many modes take at least a twentieth of its draws."""
    joint_modes: int
    """How many combinations of modes, one an agent, take at least a twentieth of their even share of the draws."""
    success_rate: float
    """Share of draws in which every agent is at a mode."""
    miscoordination_rate: float | None
    """Share of those in which the agents are not all at the same mode; chance is 1 - modes^(1 - agents). None if there
    are none."""


def count(actions: NDArray[Any], modes: NDArray[Any]) -> ModeCoverage:
    """What joint actions `(draw, agent, 2)` cover of the modes `(mode, 2)`.

    Raises:
        ValueError: There are no draws.
    """
    if not len(actions):
        raise ValueError("there are no draws")
    at = nearest(actions, modes)
    shares = [[float((at[:, i] == k).mean()) for k in range(len(modes))] for i in range(at.shape[1])]
    good = (at >= 0).all(1)
    _, times = np.unique(at[good], axis=0, return_counts=True)
    even = len(at) / len(modes) ** at.shape[1]
    same = (at[good] == at[good][:, :1]).all(1)
    return ModeCoverage(
        draws=len(at),
        shares=tuple(map(tuple, shares)),
        modes_per_agent=tuple(sum(share >= LEAST for share in row) for row in shares),
        joint_modes=int((times >= LEAST * even).sum()),
        success_rate=float(good.mean()),
        miscoordination_rate=float(1 - same.mean()) if good.any() else None,
    )


def draw(policies: Mapping[str, NDArray[Any]], modes: NDArray[Any], title: str) -> bytes:
    """A PNG: a row a policy, a column an agent, every sampled action a dot, rings around the modes.

    Args:
        policies: Label -> joint actions `(draw, agent, 2)`.
        modes: `(mode, 2)`.
        title: Above it all.
    """
    agents = next(iter(policies.values())).shape[1]

    def fill(_: Any, axes: Any) -> None:
        for cells, (label, actions) in zip(axes, policies.items(), strict=True):
            at = nearest(actions, modes)
            for i, one in enumerate(cells):
                for k in range(-1, len(modes)):
                    mine = actions[at[:, i] == k, i]
                    colour = "#777777" if k < 0 else COLOURS[k % len(COLOURS)]
                    one.scatter(mine[:, 0], mine[:, 1], s=4, alpha=0.4, color=colour, linewidths=0)
                one.scatter(modes[:, 0], modes[:, 1], s=160, facecolors="none", edgecolors="#222222", linewidths=0.8)
                one.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
                one.tick_params(labelsize=8)
            cells[0].set_ylabel(drawable(label), fontsize=9)
        for i, one in enumerate(axes[0]):
            one.set_title(f"agent {i}", fontsize=9)

    size = 2.2 * agents + 1.6, 2.2 * len(policies) + 0.7
    return panels(title, (len(policies), agents), size, fill, sharex=True, sharey=True)


@dataclasses.dataclass(frozen=True)
class Options:
    """Sample joint actions of runs on a task games/..., count the modes they cover, and draw them."""

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

    from omad import api

    policy = api.load_policy(run)
    spec = policy.spec
    key, hint_key, other_key = jax.random.split(jax.random.key(seed), 3)
    still = jnp.zeros((draws, spec.n_agents, spec.obs_dim))
    hints = jnp.tile(jax.random.uniform(hint_key, (draws, 1, spec.obs_dim), minval=-1.0), (1, spec.n_agents, 1))
    return np.asarray(policy.act(still, key)), np.asarray(policy.act(hints, other_key))


def main(arguments: Sequence[str]) -> int:
    """Print the table; with --out, write the section."""
    options = tyro.cli(Options, prog="mode_coverage.py", args=list(arguments))
    check(options, counts=("draws",), not_negative=("seed",), most={"draws": 1_000_000}, flags=True)
    from omad import tasks
    from omad.run.folder import RunFolder

    folders = sorted({path.parent for given in options.runs for path in given.rglob("manifest.json")})
    runs = [RunFolder.open(folder) for folder in folders]
    games = sorted({run.config.task for run in runs})
    if len(games) != 1 or not games[0].startswith("games/"):
        held = ", ".join(games) or "no runs"
        raise UserError(f"The given folders hold {held}; give runs of one task, games/islands-N or games/meeting-N.")
    agents = max(run.spec.n_agents for run in runs)
    needed = options.draws * agents * _BYTES
    if needed > _MOST:
        raise UserError(
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
            "one observation": dataclasses.asdict(count(still, points)),
            "all observations": dataclasses.asdict(count(hinted, points)),
        }
        pictures[label] = still
    if options.json:
        print_json(found)
    else:
        console().print(_table(games[0], found))
    if options.out is not None:
        picture = draw(pictures, points, f"{games[0]}: sampled actions")
        write_section(options.out, f"modes-{games[0].split('/')[1]}", _section(games[0], found), picture)
    return 0


def _row(one: dict[str, Any], everywhere: dict[str, Any]) -> list[str]:
    return [
        " and ".join(map(str, one["modes_per_agent"])),
        str(one["joint_modes"]),
        f"{one['success_rate']:.0%}",
        _share(one["miscoordination_rate"]),
        str(everywhere["joint_modes"]),
        _share(everywhere["miscoordination_rate"]),
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


_HEAD = ("modes per agent", "joint modes", "success", "miscoordination", "joint modes*", "miscoordination*")
_CAPTION = (
    "modes per agent: how many each agent covers; joint modes: combinations covered; success: draws with all agents at "
    "modes; miscoordination: share of those that are not all at the same one; *: over all observations, not at one"
)


def _table(game: str, found: dict[str, dict[str, Any]]) -> Any:
    made = table(f"{game}: sampled actions", "policy", *_HEAD, caption=_CAPTION)
    for label, one in found.items():
        row(made, label, *_row(one["one observation"], one["all observations"]))
    return made


def _section(game: str, found: dict[str, dict[str, Any]]) -> Section:
    """For the report."""
    findings = [
        f"{label}: agents cover {row[0]} of 4 modes and {row[1]} joint modes; success rate {row[2]}, miscoordination "
        f"rate {row[3]}; over all observations {row[4]} joint modes, miscoordination rate {row[5]}."
        for label, one in found.items()
        for row in [_row(one["one observation"], one["all observations"])]
    ]
    return Section(
        title=f"Equally good actions: {game}",
        text="\n\n".join(findings),
        alt=f"Sampled actions of every agent in {game}, a row a policy. " + " ".join(findings),
    )


if __name__ == "__main__":
    sys.exit(answer("mode_coverage", lambda: main(sys.argv[1:])))
