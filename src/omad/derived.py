"""Settings that follow from others where they are not given: from the normalisation of rewards, and a run's length."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from omad import tasks
from omad.presets import OVER_THE_RUN

OF_REWARDS = frozenset({"v_max", "alpha_init", "reward_scale"})
"""Fields in the units of rewards, which follow from these where they are normalised."""
FOLLOWING = ("buffer_size", *sorted(OF_REWARDS), "lr_decay_steps", "target_run_begin", "target_run_steps")
"""Fields that follow from others where they are not given."""


def normalised(task: str, algorithm: str, values: Mapping[str, Any], gamma: float) -> dict[str, tuple[Any, str]]:
    """Field -> (value, why), for what is in the units of rewards, where these are normalised.

    Args:
        task: Its full name.
        algorithm: Its name.
        values: Fields of the run, all of them, and of the algorithm, those that are set.
        gamma: The discount where it is not set.
    """
    if values["reward_norm"] != "return":
        return {}
    bound, gamma = values["reward_bound"], values.get("gamma", gamma)
    cut_off = task.startswith(("mpe/", "mamujoco-", "probe/timeout"))
    support = support_of(bound, gamma, tasks.find(task).horizon if cut_off else 0)
    # A bound that cannot be is refused under its own name.
    found = {"v_max": (support, "derived: reward_bound")} if bound > 0 else {}
    # A bonus for entropy in raw units would outweigh all rewards; HASAC's presets choose what they fix.
    if algorithm == "omad" or (algorithm == "hasac" and values.get("alpha_mode", "auto") == "auto"):
        found["alpha_init"] = (0.01, "derived: reward_norm [M]")
    if algorithm == "masdac":  # weights are exponentials of values
        found["reward_scale"] = (20.0, "derived: reward_norm [I] raw returns are about a hundred times as large")
    return found


def over_the_run(
    preset: Mapping[str, tuple[Any, str]], values: Mapping[str, Any], begin: int | None = None
) -> dict[str, tuple[int, str]]:
    """Field -> (gradient steps, why), for what a preset says changes over the run, or from a step on: 4/5 of it.

    Args:
        preset: Field -> (value, source).
        values: As `normalised` takes them.
        begin: That step, where it is given.
    """
    names = [name for name, (value, _) in preset.items() if isinstance(value, int) and value == OVER_THE_RUN]
    if not names:
        return {}
    total, warmup, n_envs, updates = (
        values[name] for name in ("total_steps", "warmup_steps", "n_envs", "updates_per_step")
    )
    whole = max(1, (math.ceil(total / max(1, n_envs)) - math.ceil(warmup / max(1, n_envs))) * updates)
    begin = 4 * whole // 5 if begin is None else min(begin, whole - 1)
    steps = {"lr_decay_steps": whole, "target_run_begin": begin, "target_run_steps": whole - begin}
    if values.get("target_run_end") is None:  # the limit stays as it is
        steps |= {"target_run_begin": 0, "target_run_steps": 0}
    return {name: (steps[name], f"derived: total_steps {preset[name][1]}") for name in names}


def support_of(bound: float, gamma: float, horizon: int = 0) -> float:
    """Half-width of the support for normalised rewards, to one decimal, or to three digits below 1.

    By that division the running discounted return of an episode keeps to the bound; values, which look ahead, may pass
    it, by half where rewards fall off quickly. Where episodes are cut off after H steps and their values go on, values
    reach 1 / (1 - gamma^H) of the bound: nothing more on robots with 0.99, 1.6 times with 0.999.

    Args:
        bound: The run's `reward_bound`.
        gamma: The discount.
        horizon: Steps after which episodes are cut off; 0 where they end by themselves, or are not known.
    """
    if not (horizon and 0 < gamma < 1):
        return bound
    widest = bound / (1 - gamma**horizon)
    return round(widest, 1) if widest >= 1 else float(f"{widest:.3g}")
