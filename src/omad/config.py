"""What a run is: its configuration, resolved from defaults, preset and what was given."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import tyro

from omad import derived, tasks
from omad.algos import available, config_class
from omad.algos.validate import MOST, check, documented, shown, typed
from omad.errors import UserError
from omad.presets import PRESETS, Preset, settings_of
from omad.spec import LONGEST_HOLD, ObsNorm, RewardNorm

TAG = re.compile(r" ?\[(?:A|S|D|X|H|R|I|M|\?)(?:[^\]]*)\](?=[\s.;,:\[]|$)")
"""The source of a default value, as documentation of fields has it; `presets.LEGEND` says what the letters mean."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides the numbers of a run. Periods and lengths are in env steps."""

    task: str = "mpe/spread-3"
    """Task, protocol and options included; `omad tasks` lists them."""
    algorithm: str = "omad"
    """Name of the algorithm; on the command line it may also stand first, without the flag."""
    preset: Preset = "cpu"
    """The settings these values started from: best per minute of a CPU core; best per env step; as published; what all
    algorithms have in common, the same envs, gradient steps, batch and widths; or small enough to end in seconds."""
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
    """Transitions that the replay buffer keeps; by default no more than `total_steps`; a resume never changes it."""
    warmup_steps: int = 2_500
    """Env steps of uniform random actions before learning."""
    obs_norm: ObsNorm = "none"
    """Standardise observations and states: not at all, by running statistics, or each vector by its own (HARL)."""
    reward_norm: RewardNorm = "none"
    """Divide the rewards that are learned from: not at all, or by the size of discounted returns so far (Lee et al.
    2025, SimbaV2). Values, `v_max` and the temperature are then in these units; reported returns are not."""
    reward_bound: float = 5.0
    """Bound on returns of episodes in units of normalised rewards (SimbaV2); `v_max` follows unless it is given."""
    noise_hold: float = 1.0
    """Mean number of vector steps for which the noise of acting is held in training, at most 16; 1 draws new noise
    at each (Kim et al. 2026, FlashSAC)."""
    symmetry: bool = False
    """Symmetry augmentation: learn from a random rotated or reflected image of every sampled transition; for tasks that
    state their symmetries (the particle tasks; ant, walker2d and swimmer). Not part of the published method [M]."""
    demonstrations: str = ""
    """An .npz of transitions, as omad record writes it, of which every batch takes a share; none by default."""
    demonstration_share: float = 0.25
    """Share of every batch that is drawn from the demonstrations, rounded to whole transitions."""
    eval_every: int = 10_000
    """Env steps between evaluations, once there were gradient steps; there is always one at the end."""
    eval_episodes: int = 500
    """Episodes of an evaluation, from fixed initial states."""
    eval_noise_free: bool = True
    """Evaluate with noise-free actions too, beside sampled ones; presets leave it out where envs are hosted, which
    would step twice as often. `omad eval` plays both in any case."""
    eval_seed: int = 1_000_000
    """Seed of the initial states and of the action noise of evaluations."""
    log_every: int = 2_000
    """Env steps between lines of metrics."""
    save_every: int = 20_000
    """Env steps between checkpoints; there is always one at the end."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep. Does not change a result."""
    keep_best: bool = True
    """Keep each seed's best policy by sampled evaluation return, in checkpoints/best. Does not change a result."""
    init_from: str = ""
    """Start actors, critics and temperatures from those of another run, RUN or RUN@SEED, where names and shapes fit;
    optimisers are initialised. Without @SEED, each seed starts from the one of its number, else from the first."""
    env_workers: int = 0
    """Processes that step a hosted task's envs; 0 for one a core, or for one an env (at most 16) where they are a
    user's own. Does not change a result."""
    env_timeout: float = 60.0
    """Seconds after which a hosted env that does not answer is taken to hang. Does not change a result."""
    algo: tyro.conf.Suppress[tyro.conf.Fixed[Any]] = None
    """Hyperparameters of the algorithm."""
    given: tyro.conf.Suppress[tyro.conf.Fixed[Mapping[str, str]]] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )
    """Fields that a user gave, and where; neither compared nor kept in files."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, before anything is compiled.

        Raises:
            UserError: Names the field, what was given and what is allowed.
        """
        check(
            self,
            counts=("seeds", "total_steps", "n_envs", "updates_per_step", "batch_size", "buffer_size", "warmup_steps",
                    "eval_every", "eval_episodes", "log_every", "save_every", "keep_checkpoints"),
            positive=("env_timeout", "reward_bound"),
            not_negative=("env_workers", "demonstration_share"),
            most={"seeds": 10_000, "env_workers": 10_000, "env_timeout": 1_000_000.0, "demonstration_share": 1.0},
        )  # fmt: skip
        horizon = tasks.find(self.task).horizon
        for name in ("first_seed", "eval_seed"):
            if not 0 <= getattr(self, name) < 2**31 - self.seeds:
                raise UserError(f"{name} is {getattr(self, name)}; it must lie between 0 and {MOST - self.seeds}.")
        if not 1 <= self.noise_hold <= LONGEST_HOLD:
            raise UserError(f"noise_hold is {self.noise_hold}; it must lie between 1 and {LONGEST_HOLD}.")
        if self.symmetry and not tasks.find(self.task).symmetric:
            raise UserError(
                f"symmetry is on, but {self.task} states no symmetries; allowed: tasks of mpe/, the robots ant, "
                "walker2d, swimmer, envs in JAX with JaxEnv.symmetry. Give --no-symmetry."
            )
        if self.demonstrations:
            # A run may be resumed from another folder.
            object.__setattr__(self, "demonstrations", str(Path(self.demonstrations).absolute()))
            if not self.demonstrated:
                raise UserError(
                    f"demonstration_share is {self.demonstration_share}, which is no transition of a batch of "
                    f"{self.batch_size}; raise it to at least {0.5 / self.batch_size:.2g}, or give no demonstrations."
                )
        if self.init_from:  # the same
            object.__setattr__(self, "init_from", str(Path(self.init_from).absolute()))
        if self.total_vector_steps <= self.warmup_vector_steps:
            raise UserError(
                f"total_steps is {self.total_steps} but warmup_steps is {self.warmup_steps}; nothing would be learned. "
                f"Raise --total-steps above --warmup-steps, with n_envs {self.n_envs} to at least "
                f"{self.warmup_vector_steps * self.n_envs + 1}."
            )
        if self.batch_size > self.buffer_size:
            raise UserError(
                f"batch_size is {self.batch_size} but buffer_size is {self.buffer_size}; "
                "a batch must fit into the buffer. Lower --batch-size or raise --buffer-size."
            )
        if self.total_vector_steps * self.n_envs > MOST or self.total_vector_steps * self.updates_per_step > MOST:
            raise UserError(
                f"total_steps is {self.total_steps} with n_envs {self.n_envs} and updates_per_step "
                f"{self.updates_per_step}; a run counts at most {MOST} env steps and as many gradient steps. Lower one "
                "of them."
            )
        if self.eval_episodes * max(horizon, 1) > MOST:
            raise UserError(
                f"eval_episodes is {self.eval_episodes}; an evaluation counts at most {MOST} env steps, so "
                f"{MOST // max(horizon, 1)} episodes of {self.task}."
            )
        n_step, rows = getattr(self.algo, "n_step", 1), math.ceil(self.buffer_size / self.n_envs)
        if rows < n_step:
            raise UserError(
                f"buffer_size is {self.buffer_size} with {self.n_envs} envs, which is {rows} steps of each; it must "
                f"hold the {n_step} steps of an n-step return in every env. Raise --buffer-size or lower --n-step."
            )
        if self.warmup_vector_steps < n_step:
            raise UserError(
                f"warmup_steps is {self.warmup_steps} with {self.n_envs} envs; it must cover the "
                f"{n_step} steps of an n-step return in every env."
            )

    @staticmethod
    def of(task: str = "mpe/spread-3", algorithm: str = "omad", preset: str = "cpu", **fields: Any) -> RunConfig:
        """The configuration of a run: defaults, then the preset's values, then the given fields; see `resolve`."""
        return resolve(task, algorithm, preset, **fields)

    @property
    def warmup_vector_steps(self) -> int:
        """Vector steps of warm-up."""
        return math.ceil(self.warmup_steps / self.n_envs)

    @property
    def total_vector_steps(self) -> int:
        """Vector steps of the run."""
        return math.ceil(self.total_steps / self.n_envs)

    def gradient_steps(self, vector_steps: int) -> int:
        """Gradient steps of each seed after so many vector steps."""
        return max(0, vector_steps - self.warmup_vector_steps) * self.updates_per_step

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds themselves."""
        return tuple(range(self.first_seed, self.first_seed + self.seeds))

    @property
    def demonstrated(self) -> int:
        """Transitions of every batch from demonstrations: their share, rounded to the nearest; 0 without any."""
        return math.floor(self.demonstration_share * self.batch_size + 0.5) if self.demonstrations else 0

    @property
    def updates_per_env_step(self) -> float:
        """Gradient steps per env step, to be stated with every result."""
        return self.updates_per_step / self.n_envs


def source_of(init_from: str) -> tuple[str, str]:
    """Folder and seed of `RUN` or `RUN@SEED`; a folder whose name is all of it has no seed behind it."""
    path, _, seed = init_from.rpartition("@")
    return (path, seed) if path and seed.isdecimal() and not os.path.exists(init_from) else (init_from, "")  # noqa: PTH110 - never raises


RUN_FIELDS = tuple(
    f.name for f in dataclasses.fields(RunConfig) if f.name not in ("task", "algorithm", "preset", "algo", "given")
)
"""Settings of a run, beside task, algorithm and preset."""


def sourced(task: str, algorithm: str, preset: str) -> dict[str, tuple[Any, str]]:
    """Field -> (value, source), for what a preset sets."""
    fields = {f.name for cls in (RunConfig, config_class(algorithm)) for f in dataclasses.fields(cls)}
    return settings_of(tasks.find(task), algorithm, preset, fields)


def resolve(task: str = "mpe/spread-3", algorithm: str = "omad", preset: str = "cpu", **fields: Any) -> RunConfig:
    """The configuration of a run: defaults, then the preset's values, then the given fields.

    Args:
        task: Name of the task.
        algorithm: Name of the algorithm.
        preset: `cpu`, `efficient`, `paper`, `matched` or `tiny`.
        **fields: Any field of `RunConfig` or of the algorithm's configuration.

    Raises:
        UserError: Something is unknown or cannot work; the message names the nearest valid names.
    """
    name = tasks.find(_word("task", task)).name
    if _word("preset", preset) not in PRESETS:
        raise UserError(f"There is no preset {preset!r}; allowed: {', '.join(PRESETS)}.")
    cls = config_class(_word("algorithm", algorithm))
    preset_values = sourced(name, algorithm, preset)
    values = {field: value for field, (value, _) in preset_values.items()}
    run_fields = set(RUN_FIELDS)
    defaults = {field: getattr(RunConfig, field) for field in RUN_FIELDS}
    algo_fields = {f.name for f in dataclasses.fields(cls)}
    for field in fields:
        if field not in run_fields | algo_fields:
            near = ", ".join(tasks.nearest(field, run_fields | algo_fields))
            raise UserError(f"There is no field {field!r} in a run of {algorithm}; nearest: {near}.")
    values |= typed(RunConfig, {k: v for k, v in fields.items() if k in run_fields})
    values |= typed(cls, {k: v for k, v in fields.items() if k in algo_fields})
    found = derived.normalised(name, algorithm, defaults | values, getattr(cls, "gamma", 0.0))
    values |= {field: value for field, (value, _) in found.items() if field in algo_fields - set(fields)}
    found = derived.over_the_run(preset_values, defaults | values, fields.get("target_run_begin"))
    values |= {k: v for k, (v, _) in found.items() if k not in fields}
    algo = cls(**{k: v for k, v in values.items() if k in algo_fields})
    run = {k: v for k, v in values.items() if k in run_fields}
    # A buffer larger than the run would only cost memory.
    if "buffer_size" not in fields and "total_steps" in run:
        run["buffer_size"] = min(run.get("buffer_size", RunConfig.buffer_size), max(run["total_steps"], 1))
    given = dict.fromkeys(fields, "given")
    config = RunConfig(task=name, algorithm=algorithm, preset=cast(Preset, preset), algo=algo, given=given, **run)
    _refuse_hopeless(config)
    return config


def _refuse_hopeless(config: RunConfig) -> None:
    """Refuse a new run that could not learn; one that was begun can still be read."""
    every, done = getattr(config.algo, "actor_every", 1), config.gradient_steps(config.total_vector_steps)
    if every > done:
        raise UserError(
            f"actor_every is {every}, but the run has {done} gradient steps; its policies would never be updated. "
            "Lower --actor-every or raise --total-steps."
        )
    if config.batch_size == 1 and getattr(config.algo, "target_network", False):
        raise UserError(
            "batch_size is 1 with target networks; critics normalise a batch by its own mean, and one row less its "
            "mean is 0. Raise --batch-size."
        )
    if words := getattr(config.algo, "hopeless", ""):
        raise UserError(words)


def sources(config: RunConfig) -> dict[str, str]:
    """Where every value of a configuration comes from, by field; hyperparameters stand beside the fields of the run.

    A value is given, of the preset (with the preset's own source), or a default (with the source that the field's
    documentation names). Of a configuration that was read from a file it is not known what was given: there, what
    neither preset nor default explains counts as given.
    """
    preset = sourced(config.task, config.algorithm, config.preset)
    values = {**vars(config), **vars(config.algo)}
    follow = derived.normalised(config.task, config.algorithm, values, 0.0) | derived.over_the_run(preset, values)
    if "target_run_begin" in follow and follow["target_run_begin"][0] != values["target_run_begin"]:
        steps, _ = derived.over_the_run(preset, values, values["target_run_begin"])["target_run_steps"]
        follow["target_run_steps"] = steps, "derived: target_run_begin"
    found = {}
    for part in (config, config.algo):
        documents = documented(type(part))
        for field in dataclasses.fields(part):
            name, value = field.name, getattr(part, field.name)
            if name in config.given:
                found[name] = config.given[name]
            elif name in preset and preset[name][0] == value:
                found[name] = f"preset {config.preset}: {preset[name][1]}"
            elif name not in preset and value == field.default:
                found[name] = "".join(["default", *TAG.findall(documents.get(name, ""))])
            elif name == "buffer_size" and value == config.total_steps:
                found[name] = "derived: no larger than total_steps"
            elif name in follow and value == follow[name][0]:
                found[name] = follow[name][1]
            else:
                found[name] = "given"
    return {name: source for name, source in found.items() if name not in ("algo", "given")}


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Plain values, ready for JSON."""
    values = dataclasses.asdict(config)
    del values["given"]
    return values


def _word(name: str, value: Any) -> str:
    return typed(RunConfig, {name: value})[name]


def from_dict(values: Any) -> RunConfig:
    """The configuration that `to_dict` wrote, now or in an earlier version.

    A field that is missing has its default: a new field's default is always what was done before there was the field.

    Args:
        values: Whatever JSON gave.

    Raises:
        UserError: It is no configuration, a field is unknown, or a value cannot work.
    """
    if not isinstance(values, dict):
        raise UserError(f"The configuration is {shown(values)}; it must be an object with the fields of a run.")
    values = dict(values)
    algorithm, algo = _word("algorithm", values.get("algorithm", "")), values.pop("algo", {})
    if isinstance(algo, dict) and algo.get("target_run_steps") == 0:
        # Earlier versions wrote where a limit ends that never begins to move.
        algo = {name: value for name, value in algo.items() if name != "target_run_end"}
    if algorithm not in available():
        raise UserError(
            f"The configuration names the algorithm {shown(algorithm)}; allowed: {', '.join(available())}. "
            "If it is not of this package, install the package that has it, or register it first."
        )
    if not isinstance(algo, dict):
        raise UserError(f"algo is {shown(algo)}; it must be an object with the hyperparameters of {algorithm}.")
    built: list[Any] = []
    for cls, given in ((config_class(algorithm), algo), (RunConfig, values)):
        known = {f.name for f in dataclasses.fields(cls)} - {"algo", "given"}
        if wrong := sorted(shown(name) for name in given if name not in known):
            raise UserError(
                f"The configuration has the fields {', '.join(wrong[:5])}{' and more' * (len(wrong) > 5)}, which this "
                "version does not know; read the run with the version that wrote it (manifest.json names it)."
            )
        given = typed(cls, given)
        built.append(cls(**given) if not built else cls(**given, algo=built[0]))
    return built[1]
