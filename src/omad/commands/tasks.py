"""`omad tasks`."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Annotated

import tyro

from omad import tasks
from omad.console import console, print_json, row, table


@dataclasses.dataclass(frozen=True)
class Options:
    """List the tasks: agents, sizes, horizon, protocol, reference returns and published results."""

    task: Annotated[str | None, tyro.conf.Positional] = None
    """Show one task (options after ? allowed) instead of the table."""
    json: bool = False
    """Print JSON."""


def _plain(task: tasks.Task) -> dict[str, object]:
    sizes = {
        "agents": task.n_agents, "obs_dims": task.obs_dims, "act_dims": task.act_dims, "state_dim": task.state_dim,
        "horizon": task.horizon,
    }  # fmt: skip
    return {
        "name": task.name,
        **(sizes if task.obs_dims else dict.fromkeys(sizes)),
        "protocol": task.protocol,
        "references": [dict(zip(("policy", "return", "source"), row, strict=True)) for row in task.references],
        "published": [dict(zip(("policy", "return", "std", "source"), row, strict=True)) for row in task.published],
    }


def _sizes(dims: tuple[int, ...]) -> str:
    if not dims:
        return "–"
    return str(dims[0]) if len(set(dims)) == 1 else ",".join(map(str, dims))


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    options = tyro.cli(Options, prog="omad tasks", args=list(arguments))
    chosen = [tasks.find(options.task)] if options.task else list(tasks.TASKS.values())
    if options.json:
        print_json([_plain(task) for task in chosen])
        return 0
    out = console()
    made = table(
        "tasks", "task", "agents", "obs", "act", "horizon", "references", "published", right=("agents", "horizon"),
        caption="`omad tasks NAME` prints a task's protocol and the source of every number",
    )  # fmt: skip
    for task in chosen:
        references = "; ".join(f"{label} {value:g}" for label, value, _ in task.references)
        published = "; ".join(f"{label} {value:g}" for label, value, _, _ in task.published)
        row(
            made, task.name, str(task.n_agents or "–"), _sizes(task.obs_dims), _sizes(task.act_dims),
            str(task.horizon or "–"), references, published,
        )  # fmt: skip
    out.print(made)
    if options.task:
        out.print(chosen[0].protocol)
        if not chosen[0].obs_dims:
            hint = f"only the env itself knows its sizes: omad check-env {shlex.quote(chosen[0].name)}"
            out.print(hint)
        for label, value, source in chosen[0].references:
            out.print(f"{label}: {value:g} ({source})")
        for label, value, std, source in chosen[0].published:
            out.print(f"{label}: {value:g}{'' if std is None else f' ± {std:g}'} ({source})")
    return 0
