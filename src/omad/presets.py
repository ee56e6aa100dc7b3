"""What a run is: its configuration, and the settings of each preset, every number with its source.

Source tags: [A] abstract of arXiv 2602.18291; [S] summaries of the full paper; [D] DIME's code; [H] HARL's code and
tuned configurations; [R] the code of DPMD and SDAC; [I] inferred; [M] measured with this project (RESULTS.md); [?]
assumed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, cast

import tyro

from omad import tasks
from omad.algos import available, config_class
from omad.algos.fields import MOST, check, shown, typed
from omad.errors import Refused
from omad.keys import LONGEST_HOLD
from omad.reward_norm import RewardNorm
from omad.standardise import ObsNorm

__all__ = ["PRESETS", "Preset", "RunConfig", "from_dict", "resolve", "sourced", "to_dict"]

Preset = Literal["cpu", "paper", "matched"]


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides the numbers of a run. Periods and lengths are in env steps."""

    task: str = "mpe/spread-3"
    """Task, protocol and options included; `omad tasks` lists them."""
    algorithm: str = "omad"
    """Name of the algorithm; on the command line it may also stand first, without the flag."""
    preset: Preset = "cpu"
    """The settings these values started from: tuned for a CPU; as published; or what all algorithms have in common, the
    same envs, gradient steps, batch and widths."""
    seeds: int = 1
    """Training seeds, all in one process."""
    first_seed: int = 0
    """First of the seeds; the others count up from it."""
    total_steps: int = 200_000
    """Env steps of each seed, over its parallel envs together."""
    n_envs: int = 4
    """Parallel envs of each seed."""
    updates_per_step: int = 2
    """Gradient steps after each step of all parallel envs."""
    batch_size: int = 256
    """Transitions of a gradient step."""
    buffer_size: int = 200_000
    """Transitions that the replay buffer keeps."""
    warmup_steps: int = 2_500
    """Env steps of uniform random actions before learning."""
    obs_norm: ObsNorm = "none"
    """Standardise observations and states: not at all, by running moments, or each vector by its own (HARL)."""
    reward_norm: RewardNorm = "none"
    """Divide the rewards that are learned from: not at all, or by the size of discounted returns so far (Lee et al.
    2025, SimbaV2). Values, `v_max` and the temperature are then in these units; reported returns are not."""
    reward_bound: float = 5.0
    """Bound on values in units of normalised rewards, and `v_max` unless that is given (SimbaV2)."""
    noise_hold: float = 1.0
    """Mean number of vector steps for which the noise of acting is held in training, at most 16; 1 draws anew at
    each (Kim et al. 2026, FlashSAC)."""
    symmetry: bool = False
    """Learn from a random turned or mirrored image of every sampled transition; for tasks that state their symmetries
    (the particle tasks). Not part of the published method [M]."""
    eval_every: int = 10_000
    """Env steps between evaluations; there is always one at the end."""
    eval_episodes: int = 500
    """Episodes of an evaluation, from fixed initial states."""
    eval_seed: int = 1_000_000
    """Seed of the initial states and of the action noise of evaluations."""
    log_every: int = 2_000
    """Env steps between lines of metrics."""
    save_every: int = 20_000
    """Env steps between checkpoints; there is always one at the end."""
    env_workers: int = 0
    """Processes that step a hosted task's envs; 0 for one a core. Does not change a result."""
    env_timeout: float = 60.0
    """Seconds after which a hosted env that does not answer is taken to hang. Does not change a result."""
    algo: tyro.conf.Suppress[tyro.conf.Fixed[Any]] = None
    """Hyperparameters of the algorithm."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, before anything is compiled.

        Raises:
            Refused: Names the field, what was given and what is allowed.
        """
        check(
            self,
            counts=("seeds", "total_steps", "n_envs", "updates_per_step", "batch_size", "buffer_size", "warmup_steps",
                    "eval_every", "eval_episodes", "log_every", "save_every"),
            positive=("env_timeout", "reward_bound"),
            not_negative=("env_workers",),
            most={"seeds": 10_000, "env_workers": 10_000, "env_timeout": 1_000_000.0},
        )  # fmt: skip
        horizon = tasks.find(self.task).horizon
        for name in ("first_seed", "eval_seed"):
            if not 0 <= getattr(self, name) < 2**31 - self.seeds:
                raise Refused(f"{name} is {getattr(self, name)}; it must lie between 0 and {MOST - self.seeds}.")
        if not 1 <= self.noise_hold <= LONGEST_HOLD:
            raise Refused(f"noise_hold is {self.noise_hold}; it must lie between 1 and {LONGEST_HOLD}.")
        if self.symmetry and not tasks.find(self.task).symmetric:
            raise Refused(
                f"symmetry is on, but {self.task} states no symmetries; allowed: tasks of mpe/. Give --no-symmetry."
            )
        if self.total_steps <= self.warmup_steps:
            raise Refused(
                f"total_steps is {self.total_steps} but warmup_steps is {self.warmup_steps}; nothing would be learned. "
                "Raise --total-steps above --warmup-steps."
            )
        if self.batch_size > self.buffer_size:
            raise Refused(
                f"batch_size is {self.batch_size} but buffer_size is {self.buffer_size}; "
                "a batch must fit into the buffer. Lower --batch-size or raise --buffer-size."
            )
        if self.total_rows * self.n_envs > MOST or self.total_rows * self.updates_per_step > MOST:
            raise Refused(
                f"total_steps is {self.total_steps} with n_envs {self.n_envs} and updates_per_step "
                f"{self.updates_per_step}; a run counts at most {MOST} env steps and as many gradient steps. Lower one "
                "of them."
            )
        if self.eval_episodes * max(horizon, 1) > MOST:
            raise Refused(
                f"eval_episodes is {self.eval_episodes}; an evaluation counts at most {MOST} env steps, so "
                f"{MOST // max(horizon, 1)} episodes of {self.task}."
            )
        if self.warmup_rows < getattr(self.algo, "n_step", 1):
            raise Refused(
                f"warmup_steps is {self.warmup_steps} with {self.n_envs} envs; it must cover the "
                f"{self.algo.n_step} steps of an n-step return in every env."
            )

    @property
    def warmup_rows(self) -> int:
        """Vector steps of warm-up."""
        return math.ceil(self.warmup_steps / self.n_envs)

    @property
    def total_rows(self) -> int:
        """Vector steps of the run."""
        return math.ceil(self.total_steps / self.n_envs)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds themselves."""
        return tuple(range(self.first_seed, self.first_seed + self.seeds))

    @property
    def updates_per_env_step(self) -> float:
        """Gradient steps per env step, to be stated with every result."""
        return self.updates_per_step / self.n_envs


Sourced = dict[str, tuple[Any, str]]

_V_MAX: Sourced = {
    "ant": (1600.0, "[D]"),
    "walker2d": (1600.0, "[D]"),
    "halfcheetah": (2000.0, "[I] 14.4 a step at the published return, times 100, and bonuses"),
    "swimmer": (100.0, "[?] 0.16 a step times 100, and bonuses"),
    "hopper": (1600.0, "[?] as walker2d"),
    "humanoid": (1600.0, "[?]"),
    "humanoidstandup": (20_000.0, "[?] about 150 a step"),
    "reacher": (100.0, "[?]"),
    "pusher": (200.0, "[?]"),
    "manysegmentswimmer": (100.0, "[?]"),
    "manysegmentant": (1600.0, "[?]"),
}
"""Half-width of the support by robot, for a discount of 0.99."""
_SUPPORTS: dict[str, Sourced] = {
    f"omad {scope}": {"v_max": sourced}
    for robot, sourced in _V_MAX.items()
    for scope in (f"mamujoco-{protocol}/{robot}" for protocol in tasks.PROTOCOLS)
    if any(name.startswith(scope) for name in tasks.TASKS)
}


def _as_harl(algorithm: str, row: Callable[..., Sourced], rows: dict[str, tuple[Any, ...]]) -> dict[str, Sourced]:
    """Scopes of an algorithm from rows by task; those of robots count for every protocol."""
    scopes: dict[str, Sourced] = {}
    for task, values in rows.items():
        whole = [task] if "/" in task else [f"mamujoco-{protocol}/{task}" for protocol in tasks.PROTOCOLS]
        for scope in whole:
            if any(name.startswith(scope) for name in tasks.TASKS):
                scopes[f"{algorithm} {scope}"] = row(*values)
    return scopes


def _hasac(source: str, batch: int, n_step: int, actor_lr: float, critic_lr: float, alpha: float | None) -> Sourced:
    """A row of HARL's settings; a temperature of None is tuned."""
    return {
        "batch_size": (batch, source),
        "n_step": (n_step, source),
        "actor_lr": (actor_lr, source),
        "critic_lr": (critic_lr, source),
        "alpha_mode": ("auto" if alpha is None else "fixed", source),
        "alpha_init": (1.0 if alpha is None else alpha, source),
    }


def _hatd3(source: str, n_envs: int, n_step: int, actor_every: int, width: int) -> Sourced:
    """A row of HARL's settings."""
    return {
        "n_envs": (n_envs, source),
        "n_step": (n_step, source),
        "actor_every": (actor_every, source),
        "actor_width": (width, source),
        "critic_width": (width, source),
    }


_HARL_RUN: Sourced = {
    "n_envs": (20, "[H]"),
    "updates_per_step": (1, "[H] 50 gradient steps after every 50 steps of the parallel envs"),
    "batch_size": (1000, "[H]"),
    "warmup_steps": (10_000, "[H]"),
}
_AS_CHEETAH = "[?] as halfcheetah, the nearest row known"
_AS_ANT = "[?] as another ant, the nearest row known"
_AS_SPREAD = "[?] as spread-3, the nearest row known"
_HARL: dict[str, Sourced] = {
    "hasac": _HARL_RUN,
    **_as_harl("hasac", _hasac, {
        "mpe/": (_AS_SPREAD, 1000, 20, 5e-4, 5e-4, None),
        "mpe/spread-3": ("[H]", 1000, 20, 5e-4, 5e-4, None),
        "": (_AS_CHEETAH, 1000, 10, 1e-3, 1e-3, None),
        "ant-": (_AS_ANT, 2200, 5, 1e-3, 3e-4, 0.2),
        "ant-2x4": ("[H]", 2200, 5, 1e-3, 3e-4, 0.2),
        "ant-2x4d": (_AS_ANT, 2200, 5, 1e-3, 3e-4, 0.2),
        "ant-4x2": ("[H]", 1000, 5, 1e-3, 3e-4, 0.2),
        "halfcheetah-": ("[H]", 1000, 10, 1e-3, 1e-3, None),
        "walker2d-": ("[H]", 1000, 20, 5e-4, 1e-3, 0.2),
        "swimmer-": ("[?] as manysegmentswimmer, the nearest row known", 1000, 10, 1e-3, 1e-3, None),
        "manysegmentswimmer-": ("[H]", 1000, 10, 1e-3, 1e-3, None),
    }),
    "hatd3": _HARL_RUN,
    **_as_harl("hatd3", _hatd3, {
        "mpe/": (_AS_SPREAD, 20, 1, 2, 128),
        "mpe/spread-3": ("[H]", 20, 1, 2, 128),
        "": (_AS_CHEETAH, 10, 10, 2, 256),
        "ant-": (_AS_ANT, 10, 5, 2, 256),
        "ant-4x2": ("[H]", 10, 5, 2, 256),
        "halfcheetah-2x3": ("[H]", 10, 10, 2, 256),
        "walker2d-": ("[H]", 10, 20, 8, 256),
    }),
}  # fmt: skip
"""HASAC and HATD3 as HARL tunes them; the nearest row where it does not."""

_DENOISING_RUN: Sourced = {
    "n_envs": (5, "[R]"),
    "updates_per_step": (1, "[R]"),
    "batch_size": (256, "[R]"),
    "warmup_steps": (30_000, "[R]"),
}
"""A run of MADPMD or MASDAC as DPMD and SDAC are run; their other settings are the defaults."""

_SMALL: Sourced = {
    "actor_width": (128, "[?] as omad's"),
    "actor_layers": (2, "[?] as omad's"),
    "critic_width": (256, "[?] as omad's"),
    "critic_layers": (2, "[?] as omad's"),
}
_MPE: Sourced = {"gamma": (0.95, "[M] for omad: -26.6 on spread-3 at 200k env steps, near -30 with 0.99; one seed")}
_LONG_MPE: Sourced = {"total_steps": (300_000, "[I]")}
_SHORT: Sourced = {"total_steps": (40_000, "[M] a game is learned by then")}
_MAMUJOCO: Sourced = {
    "n_envs": (4, "[M]"),
    "eval_episodes": (10, "[S] ten episodes"),
    "eval_every": (10_000, "[?]"),
    "total_steps": (150_000, "[?]"),
}
_SHORT_DENOISING: Sourced = {
    "actor_lr": (1e-3, "[?] as omad's"),
    "critic_lr": (1e-3, "[?] as omad's"),
    "actor_decay_steps": (0, "[?] a run has fewer policy updates than the published decay waits for"),
    "alpha_every": (50, "[?] alpha arrives after a quarter of 50k gradient steps, not never"),
}
_BASELINES = ("hasac", "hatd3", "madpmd", "masdac")
_MATCHED: dict[str, Sourced] = {
    "": {
        "n_envs": (8, "[M]"),
        "updates_per_step": (2, "[M] 0.25 gradient steps per env step"),
        "batch_size": (128, "[M] half the cost of 256, no worse per gradient step"),
    },
    "omad": {
        "actor_width": (128, "[M]"),
        "actor_layers": (2, "[M]"),
        "time_frequencies": (64, "[M]"),
        "time_width": (64, "[M]"),
        "critic_width": (256, "[M]"),
        "atoms": (101, "[M]"),
        "actor_lr": (1e-3, "[M] three times quicker than 3e-4"),
        "critic_lr": (1e-3, "[M]"),
        "alpha_lr": (3e-3, "[M] keeps alpha's pace against the learning rates; 1e-2 commits too early"),
        "renorm_warmup": (5_000, "[M] a tenth of a run; batch statistics blur the critic: -23.7, not -26.6"),
    },
    "omad mpe": _MPE | {
        "v_max": (100.0, "[M] a fifth of what 0.99 wants, as 1 / (1 - gamma) is"),
        "alpha_init": (0.3, "[M] alpha falls with the values' size"),
    },
    "omad mpe/spread-4": _LONG_MPE | {"v_max": (150.0, "[I]")},
    "omad mpe/deception": {"v_max": (150.0, "[I]")},
    "omad probe": {"v_max": (20.0, "[I]")},
    "omad games": _SHORT | {"v_max": (2.0, "[I] one reward of at most 1, nothing after it")},
    **{f"{name} games": _SHORT for name in _BASELINES},
    **_SUPPORTS,
    "hasac": _SMALL | {
        "actor_lr": (1e-3, "[?] as omad's"),
        "critic_lr": (1e-3, "[?] as omad's"),
        "alpha_lr": (1e-3, "[?] keeps alpha's pace in short runs"),
        "n_step": (5, "[?] between SAC's 1 and HARL's 20, for old data are kept"),
    },
    "hatd3": _SMALL | {
        "actor_lr": (5e-4, "[H]"),
        "critic_lr": (1e-3, "[H]"),
    },
    **dict.fromkeys(("madpmd", "masdac"), _SMALL | _SHORT_DENOISING),
    **{f"{name} mpe": _MPE for name in _BASELINES},
    **{f"{name} mpe/spread-4": _LONG_MPE for name in _BASELINES},
    **{f"{name} mamujoco-": _MAMUJOCO for name in _BASELINES},
    "omad mamujoco-": _MAMUJOCO | {
        "alpha_lr": (1e-3, "[M] HalfCheetah 2x3 at 150k: 6,580 over three seeds, 4,231 with 3e-3: RESULTS.md"),
    },
}  # fmt: skip
"""Envs, gradient steps, batch, widths and discount that all algorithms have in common; the rest suits each."""

PRESETS: dict[str, dict[str, Sourced]] = {
    "paper": {
        "": {
            "total_steps": (3_000_000, "[S] 3e6 steps on most tasks"),
            "n_envs": (1, "[D]"),
            "updates_per_step": (2, "[D]"),
            "batch_size": (256, "[S][D]"),
            "buffer_size": (1_000_000, "[S][D]"),
            "warmup_steps": (5_000, "[D]"),
            "eval_every": (25_000, "[?] interval unknown"),
            "eval_episodes": (500, "[M] ten episodes, as in the paper, scatter by 3 on spread-3"),
            "log_every": (5_000, "[?]"),
            "save_every": (50_000, "[?]"),
        },
        "omad mpe": {"v_max": (300.0, "[I]")},
        "omad mpe/spread-4": {"v_max": (500.0, "[I]")},
        "omad mpe/deception": {"v_max": (600.0, "[I] 300 leaves mass on the edge atoms")},
        "omad probe": {"v_max": (20.0, "[I]")},
        "omad games": {"v_max": (2.0, "[I] one reward of at most 1, nothing after it")},
        "omad mamujoco-": {"eval_episodes": (10, "[S] ten episodes")},
        **_SUPPORTS,
        **_HARL,
        **dict.fromkeys(("madpmd", "masdac"), _DENOISING_RUN),
        **{f"{name} mamujoco": {"eval_episodes": (10, "[S] ten episodes")} for name in _BASELINES},
    },
    # An algorithm that a CPU run suits better otherwise than it is matched has its own entries after these.
    "cpu": {
        **_MATCHED,
        "omad mpe": _MATCHED["omad mpe"]
        | {
            "updates_per_step": (4, "[M] 0.5 gradient steps per env step: see share_policy"),
            "alpha_lr": (1.5e-3, "[M] the same pace per env step as 3e-3 with half as many gradient steps"),
            "share_policy": (True, "[M] roles by geometry, not by number: RESULTS.md, docs/learning-notes.md"),
        },
        "omad mpe/spread": {
            "symmetry": (True, "[M] spread-3 at 200k env steps, three seeds: -19.9, not -22.4; RESULTS.md"),
        },
        "omad mpe/spread-4": _MATCHED["omad mpe"]
        | _MATCHED["omad mpe/spread-4"]
        | {
            "updates_per_step": (2, "[M] as matched"),
            "symmetry": (True, "[M] no habits of left and right: -48 at 100k env steps, near -79 without; RESULTS.md"),
            "alpha_lr": _MATCHED["omad"]["alpha_lr"],
            "share_policy": (False, "[M] quicker: -50 at 80k env steps, a shared one -62; for a GPU see RESULTS.md"),
        },
        "omad mpe/deception": _MATCHED["omad mpe/deception"]
        | {"n_step": (3, "[M] matched, three seeds at 100k: 37.4 to 38.6, not 32.9 to 36.9; learns at once")},
        # Who remembers knows velocities, so that a short horizon is no mistake and one step is enough.
        "omad mpe/deception history": {
            "symmetry": (True, "[M] 44.0 at 160k env steps, 41.8 without: docs/learning-notes.md"),
            "gamma": (0.9, "[M] 45.4 at 100k env steps; 44.9 with 0.95, 44.1 with 0.97"),
            "v_max": (80.0, "[M]"),
            "n_step": (1, "[M] 45.1 at 160k env steps; 44.3 with 3"),
            "updates_per_step": (2, "[M] as matched"),
            "alpha_lr": _MATCHED["omad"]["alpha_lr"],
            "share_policy": (False, "[M] 45.1 at 160k env steps, 45.3 shared"),
        },
        # A critic without the noise of a random adversary is worth following closely, on what the newest policies saw.
        "omad mpe/deception adversary=static state=full": {
            "symmetry": (True, "[I] as with a memory"),
            "batch_size": (256, "[I] half of 512 in time"),
            "buffer_size": (20_000, "[M] speeds that go with a place are those of today's policies"),
            "gamma": _MPE["gamma"],
            "v_max": (120.0, "[M] no mass on the edge atoms"),
            "n_step": (1, "[I] these critics see velocities"),
            "actor_every": (1, "[M] 40.7 at 100k env steps, 40.1 with 3, whose policies stay noisy; RESULTS.md"),
            "updates_per_step": (2, "[M] 43.8; 43.5 with half as many gradient steps"),
            "alpha_lr": (1e-3, "[M] the pace of 3e-3 with actor_every 3"),
            "share_policy": (False, "[I] unlike gains keep two agents from swinging in step"),
            "renorm_warmup": (1_500, "[I]"),
            "lr_decay_steps": (50_000, "[I] the gradient steps of 200k env steps"),
        },
        "masdac": _MATCHED["masdac"] | {"reconstructions": (16, "[M] 29 ms of CPU a gradient step, 81 with 64")},
    },
    "matched": _MATCHED,
}
"""Preset -> scope -> field -> (value, source).

A scope is empty (all runs), an algorithm, or an algorithm and the beginning of a task's name, then perhaps options
that the name must give, with their values or with any; longer scopes win.
Fields of the run and of the algorithm may stand side by side, for their names are disjoint.
"""


def _applies(scope: str, algorithm: str, task: str) -> bool:
    of, begins, *options = (*scope.split(), "", "")
    given = task.partition("?")[2].split("&")
    allowed = {"", *given, *(option.partition("=")[0] for option in given)}
    return of in ("", algorithm) and task.startswith(begins) and allowed.issuperset(options)


def sourced(task: str, algorithm: str, preset: str) -> Sourced:
    """Field -> (value, source), for what a preset sets."""
    values: Sourced = {}
    for scope, fields in sorted(PRESETS[preset].items(), key=lambda item: len(item[0])):
        if _applies(scope, algorithm, task):
            values |= fields
    return values


def resolve(task: str = "mpe/spread-3", algorithm: str = "omad", preset: str = "cpu", **fields: Any) -> RunConfig:
    """The configuration of a run: defaults, then the preset's values, then the given fields.

    Args:
        task: Name of the task.
        algorithm: Name of the algorithm.
        preset: `cpu`, `paper` or `matched`.
        **fields: Any field of `RunConfig` or of the algorithm's configuration.

    Raises:
        Refused: Something is unknown or cannot work; the message names the nearest valid names.
    """
    name = tasks.find(_word("task", task)).name
    if _word("preset", preset) not in PRESETS:
        raise Refused(f"There is no preset {preset!r}; allowed: {', '.join(PRESETS)}.")
    cls = config_class(_word("algorithm", algorithm))
    values = {field: value for field, (value, _) in sourced(name, algorithm, preset).items()}
    run_fields = {f.name for f in dataclasses.fields(RunConfig)} - {"algo", "task", "algorithm", "preset"}
    algo_fields = {f.name for f in dataclasses.fields(cls)}
    for field in fields:
        if field not in run_fields | algo_fields:
            near = ", ".join(tasks.nearest(field, run_fields | algo_fields))
            raise Refused(f"There is no field {field!r} in a run of {algorithm}; nearest: {near}.")
    values |= typed(RunConfig, {k: v for k, v in fields.items() if k in run_fields})
    values |= typed(cls, {k: v for k, v in fields.items() if k in algo_fields})
    if values.get("reward_norm") == "return" and "v_max" in algo_fields - set(fields):
        values["v_max"] = values.get("reward_bound", RunConfig.reward_bound)
    algo = cls(**{k: v for k, v in values.items() if k in algo_fields})
    run = {k: v for k, v in values.items() if k in run_fields}
    # A buffer larger than the run would only cost memory.
    if "buffer_size" not in fields and "total_steps" in run:
        run["buffer_size"] = min(run.get("buffer_size", RunConfig.buffer_size), max(run["total_steps"], 1))
    return RunConfig(task=name, algorithm=algorithm, preset=cast(Preset, preset), algo=algo, **run)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Plain values, ready for JSON."""
    return dataclasses.asdict(config)


def _word(name: str, value: Any) -> str:
    return typed(RunConfig, {name: value})[name]


def from_dict(values: Any) -> RunConfig:
    """The configuration that `to_dict` wrote, now or in an earlier version.

    A field that is missing has its default: a new field's default is always what was done before there was the field.

    Args:
        values: Whatever JSON gave.

    Raises:
        Refused: It is no configuration, a field is unknown, or a value cannot work.
    """
    if not isinstance(values, dict):
        raise Refused(f"The configuration is {shown(values)}; it must be an object with the fields of a run.")
    values = dict(values)
    algorithm, algo = _word("algorithm", values.get("algorithm", "")), values.pop("algo", {})
    if algorithm not in available():
        raise Refused(
            f"The configuration names the algorithm {shown(algorithm)}; allowed: {', '.join(available())}. "
            "If it is not of this package, install the package that has it, or register it first."
        )
    if not isinstance(algo, dict):
        raise Refused(f"algo is {shown(algo)}; it must be an object with the hyperparameters of {algorithm}.")
    built: list[Any] = []
    for cls, given in ((config_class(algorithm), algo), (RunConfig, values)):
        known = {f.name for f in dataclasses.fields(cls)} - {"algo"}
        if wrong := sorted(shown(name) for name in given if name not in known):
            raise Refused(
                f"The configuration has the fields {', '.join(wrong[:5])}{' and more' * (len(wrong) > 5)}, which this "
                "version does not know; read the run with the version that wrote it (manifest.json names it)."
            )
        given = typed(cls, given)
        built.append(cls(**given) if not built else cls(**given, algo=built[0]))
    return built[1]
