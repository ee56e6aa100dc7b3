"""Which runs are of one setting, and whose returns can be compared."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omad.errors import UserError
from omad.report.records import Run
from omad.run.records import WITHOUT_EFFECT, source_run

NEUTRAL = frozenset(
    {"seeds", "first_seed", "eval_every", "log_every", "save_every", "eval_seed", "eval_episodes", "eval_noise_free",
     "task", "algorithm", "preset", "algo", *WITHOUT_EFFECT}
)  # fmt: skip
"""Fields of a configuration that do not tell one setting from another."""


def fields(run: Run) -> dict[str, Any]:
    """What tells settings apart: fields of the run and of the algorithm, side by side, wherever files of it lie."""
    found = {key: value for key, value in run.config.items() if key not in NEUTRAL} | (run.config.get("algo") or {})
    if file := found.get("demonstrations"):
        found["demonstrations"] = run.manifest.get("demonstrations", "")[:12] or Path(file).name
    if start := found.get("init_from"):
        found["init_from"] = source_run(start)
    return found


def refuse_mixed(runs: Sequence[Run], actions: str = "sampled") -> None:
    """Refuse returns that cannot be compared, or runs that cannot be counted as seeds of one setting.

    Raises:
        UserError: Runs of a task differ in what their returns mean; runs of a setting in their configuration; or a seed
            is there twice. The message lists what differs, and where.
    """
    said = []
    tasks: dict[str, list[Run]] = {}
    settings: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        if run.config:
            settings.setdefault((run.task, run.algorithm, run.setting), []).append(run)
        if run.episodes:
            tasks.setdefault(run.task, []).append(run)
    for task, same in tasks.items():
        differs = differing(same, functools.partial(_protocol, actions=actions))
        if differs:
            said.append(f"runs of {task} do not share one protocol: {differs}")
    for (task, algorithm, setting), same in settings.items():
        differs = differing(same, fields)
        if differs:
            said.append(f"runs of {algorithm} on {task} in the setting {setting!r} are not alike: {differs}")
        held: dict[int, str] = {}
        for run in same:
            for seed in run.seeds if run.episodes or run.state == "diverged" else ():
                if held.setdefault(seed, run.folder) != run.folder:
                    said.append(f"seed {seed} of {algorithm} on {task} is in {held[seed]} and in {run.folder}")
    if said:
        raise UserError(f"{'; '.join(said)}. Give runs that belong together, and make one report of each kind.")


def _protocol(run: Run, actions: str) -> dict[str, Any]:
    """What a return hangs on besides the policy."""
    lines = [line for line in run.episodes if line.actions == actions]
    return {
        "protocol": run.manifest.get("protocol"),
        "evaluation seed": ", ".join(map(str, sorted({line.eval_seed for line in lines}))),
        "evaluation episodes": ", ".join(map(str, sorted({len(line.returns) for line in lines}))),
        f"evaluation of {actions} actions": "there" if lines else "not there",
    }


def differing(runs: Sequence[Run], of: Callable[[Run], dict[str, Any]]) -> str:
    """`name is A in these and B in those`, for all that is not the same in all runs."""
    found = [(run.folder, of(run)) for run in runs]
    words = []
    for key in dict.fromkeys(key for _, values in found for key in values):
        by: dict[str, list[str]] = {}
        for folder, values in found:
            by.setdefault(json.dumps(values.get(key)), []).append(folder)
        if len(by) > 1:
            words.append(f"{key} is " + " and ".join(f"{value} in {_few(where)}" for value, where in by.items()))
    return ", ".join(words)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
