"""A run that has been trained, as one object: its numbers, its policies, new evaluations."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from omad import envs, tasks
from omad.algos import make as make_algorithm
from omad.config import RunConfig
from omad.errors import UserError
from omad.experiment import Experiment
from omad.export.bundle import Facts
from omad.export.team import Trained
from omad.extras import require
from omad.policy import TrainedPolicy
from omad.run.folder import RunFolder, of_one_run
from omad.run.places import members
from omad.run.records import METRICS
from omad.saved import Which, policies_at, replayed
from omad.tasks.returns import RANDOM
from omad.tree import at
from omad.trust import refuse_changed, refuse_foreign

RENAMED_METRICS = {
    "policy/update_share": "policy/update_fraction",
    "policy/effective_share": "policy/ess_fraction",
}
"""Names in `metrics.jsonl` of older runs -> today's; `Run.metrics` takes both and gives the latter."""


class Records(Mapping[str, np.ndarray]):
    """Numbers of a run by name: arrays `(seed, step)` or `(seed, step, episode)`, not a number where there is none."""

    def __init__(self, seeds: Sequence[int], steps: Sequence[int], values: Mapping[str, np.ndarray]) -> None:
        self.seeds, self.steps = np.asarray(seeds, np.int64), np.asarray(steps, np.int64)
        """Training seeds, and env steps of each seed."""
        self._values = dict(values)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self:
            near = ", ".join(tasks.nearest(str(name), self._values)) or "there are none"
            raise KeyError(f"{name!r} is not there; nearest: {near}")
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def to_frame(self) -> Any:
        """A pandas table, one row a seed and env step; what has an axis of episodes is left out.

        Raises:
            UserError: pandas is not installed.
        """
        require("frames", "to_frame()")
        import pandas

        flat = {name: value.reshape(-1) for name, value in self.items() if value.ndim == 2}
        index = pandas.MultiIndex.from_product([self.seeds.tolist(), self.steps.tolist()], names=["seed", "step"])
        return pandas.DataFrame(flat, index=index)


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """Returns of every episode of an evaluation, for each training seed."""

    task: str
    seeds: tuple[int, ...]
    env_steps: tuple[int, ...]
    """At which each seed's policy had been saved."""
    eval_seed: int
    returns: dict[str, np.ndarray]
    """`sampled` and `noise_free` -> `(seed, episode)` undiscounted team returns."""
    random: np.ndarray | None
    """`(episode,)` returns of uniformly random actions, where the task has no reference return of these."""
    lengths: dict[str, np.ndarray]
    """The same of the episodes' env steps."""
    info: dict[str, dict[str, np.ndarray]]
    """The same of the env's extra numbers, by their names; sums over an episode."""
    differences: tuple[str, ...] = ()
    """In which the task is not what the policies were trained on, where another one was given."""

    def mean(self, actions: str = "sampled") -> np.ndarray:
        """`(seed,)` mean returns."""
        return self.returns[actions].mean(1)


class Run(os.PathLike[str]):
    """A run folder, or a folder of runs `seed-K`; usable wherever a path is.

    Args:
        path: The folder.

    Raises:
        UserError: It is not a run folder, or not one of this version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.folders = of_one_run([RunFolder.open(inside) for inside in members(path)], self.path)
        self.trusted = False
        """Whether this process has trained the run, and so imported the env that its folder names."""

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        config, state = self.config, "complete" if self.complete else "not complete"
        return f"Run({str(self.path)!r}: {config.algorithm} on {config.task}, seeds {self.seeds}, {state})"

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str | os.PathLike) and Path(other) == self.path

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def config(self) -> RunConfig:
        """The configuration; of several runs that of the first, with the seeds of all if these are consecutive."""
        first, seeds = self.folders[0].config, sorted(self.seeds)
        if len(self.folders) == 1 or seeds != list(range(seeds[0], seeds[0] + len(seeds))):
            return first
        return dataclasses.replace(first, seeds=len(seeds), first_seed=seeds[0])

    @property
    def manifest(self) -> dict[str, Any]:
        """Code, env and machine; of several runs, of the first."""
        return self.folders[0].manifest

    @property
    def seeds(self) -> tuple[int, ...]:
        """All training seeds."""
        return tuple(seed for folder in self.folders for seed in folder.config.all_seeds)

    @property
    def complete(self) -> bool:
        """Whether all of it has reached its end."""
        return all(folder.complete for folder in self.folders)

    @property
    def stopped(self) -> str | None:
        """Why a callback stopped the run where it stands; None if it is complete, goes on, or ended otherwise."""
        for folder in self.folders:
            stops, saved = folder.manifest.get("stops", []), folder.checkpoints()
            here = stops and saved and stops[-1]["env_steps"] == saved[0].env_steps
            if here and folder.ended is None and not folder.complete and not folder.busy(folder.path):
                return stops[-1]["reason"]
        return None

    # ------------------------------------------------------------ numbers

    def metrics(self) -> Records:
        """What `metrics.jsonl` holds: means since the line before, `(seed, step)`."""
        rows = [line for folder in self.folders for line in folder.lines(METRICS)]
        return self._records([{RENAMED_METRICS.get(name, name): line[name] for name in line} for line in rows])

    def evaluations(self) -> Records:
        """All evaluations, by seed, env step and, where it says so, episode.

        `return` and `return_noise_free` are means; `returns` and `returns_noise_free` `(seed, step, episode)` are those
        of every episode; noise-free ones are there where the run has them (`eval_noise_free`). The env's extra numbers
        have the names that the env gives them.
        """
        rows: dict[tuple[int, int], dict[str, Any]] = {}
        for folder in self.folders:
            for line in folder.evaluations():
                tail = "" if line["actions"] == "sampled" else "_noise_free"
                row = rows.setdefault((line["seed"], line["step"]), {"seed": line["seed"], "step": line["step"]})
                row |= {f"return{tail}": line["mean"], f"returns{tail}": np.asarray(line["returns"], float)}
                row |= {f"{name}{tail}": value for name, value in line["info"].items()}
        return self._records(list(rows.values()))

    def _records(self, rows: list[dict[str, Any]]) -> Records:
        """One array a name, from rows that each have a seed and a step."""
        names = sorted({name for row in rows for name in row} - {"step", "seed"})
        steps = sorted({row["step"] for row in rows})
        place = {seed: i for i, seed in enumerate(self.seeds)}, {step: j for j, step in enumerate(steps)}
        values: dict[str, np.ndarray] = {}
        for name in names:
            having = [row for row in rows if name in row and row["seed"] in place[0]]
            cells = [(place[0][row["seed"]], place[1][row["step"]], row[name]) for row in having]
            longest = max((np.size(value) for *_, value in cells if np.ndim(value)), default=0)
            table = np.full((len(self.seeds), len(steps), *([longest] if longest else [])), np.nan)
            for i, j, value in cells:
                if longest and np.ndim(value):
                    table[i, j, : np.size(value)] = value
                elif not longest:
                    table[i, j] = np.nan if value is None else value
            values[name] = table
        return Records(self.seeds, steps, values)

    # ------------------------------------------------------------ policies

    def _folder_of(self, seed: int | None) -> tuple[RunFolder, int]:
        if seed is None:
            return self.folders[0], self.folders[0].config.first_seed
        for folder in self.folders:
            if seed in folder.config.all_seeds:
                return folder, seed
        raise UserError(f"{self.path} has no seed {seed}; it has {', '.join(map(str, self.seeds))}.")

    def policy(self, seed: int | None = None, which: Which = "last") -> TrainedPolicy:
        """The policies of one training seed. Neither critic nor env is made, and nothing is executed.

        Args:
            seed: Which training seed; by default the first.
            which: `last`, `best`, or the env step of a checkpoint.

        Raises:
            UserError: There is no such seed or checkpoint, or it cannot be read.
        """
        folder, seed = self._folder_of(seed)
        config, spec = folder.config, folder.spec
        algorithm = make_algorithm(config.algo, spec, config.obs_norm)
        policies, steps = policies_at(folder, algorithm, which)
        place = config.all_seeds.index(seed)
        rows = [row for row in folder.evaluations() if row["seed"] == seed and row["step"] <= steps[place]]
        facts = Facts(
            task=config.task,
            protocol=str(folder.manifest.get("protocol", "")),
            algorithm=config.algorithm,
            seed=seed,
            env_steps=steps[place],
            evaluation={row["actions"]: row["mean"] for row in rows},  # the last of each kind
            run=folder.path.resolve().name,
            commit=folder.manifest.get("commit"),
            horizon=spec.horizon,
        )
        policy = jax.tree.map(jnp.asarray, at(jax.device_get(policies), place))
        return TrainedPolicy(Trained(algorithm.act, policy, spec, config.algo, config.obs_norm, facts))

    def buffered_obs(self, seed: int | None = None, trust: bool = False) -> np.ndarray:
        """`(time, agent, obs)` of the replay buffer of one training seed's newest checkpoint; raw, padded.

        Args:
            seed: Which training seed; by default the first.
            trust: Import the code of a user's env that the run folder names; needless after `train` or `resume`.

        Raises:
            UserError: There is no such seed, no checkpoint can be read, or the env may not be imported or is another.
        """
        folder, seed = self._folder_of(seed)
        obs = np.asarray(replayed(folder, trust or self.trusted, whole=False).obs[folder.config.all_seeds.index(seed)])
        return obs.reshape(-1, *obs.shape[-2:])

    def evaluate(
        self,
        episodes: int = 500,
        seed: int = 2_000_000,
        task: str | None = None,
        which: Which = "last",
        trust: bool = False,
        denoising_steps: int | None = None,
        env: Any = None,
    ) -> Evaluated:
        """Play episodes with the policies of every training seed, with sampled and with noise-free actions.

        Args:
            episodes: Of each seed and kind of actions.
            seed: Of initial states and action noise; not the one that training evaluated on.
            task: Another task of the same sizes.
            which: `last`, `best`, or the env step of a checkpoint.
            trust: Import the code of a user's env that the run folder names; needless after `train` or `resume`.
            denoising_steps: Of an action; by default those of training.
            env: The env, where the run began with one that was given as an object.

        Raises:
            UserError: The run cannot be read, the env is not what it was, or the other task has other sizes.
        """
        if episodes < 1 or not 0 <= seed < 2**31:
            raise UserError(
                f"episodes is {episodes} and seed is {seed}; the first must be at least 1, the second 0 to 2^31 - 1."
            )
        parts = []
        for one in self.folders:
            name = task if env is None else envs.of_object(env, one.config.task)
            parts.append(_evaluate(one, episodes, seed, name, which, trust or self.trusted, denoising_steps))
        kinds = parts[0].returns
        return dataclasses.replace(
            parts[0],
            seeds=tuple(seed for part in parts for seed in part.seeds),
            env_steps=tuple(steps for part in parts for steps in part.env_steps),
            returns={kind: np.concatenate([part.returns[kind] for part in parts]) for kind in kinds},
            lengths={kind: np.concatenate([part.lengths[kind] for part in parts]) for kind in kinds},
            info={
                kind: {name: np.concatenate([part.info[kind][name] for part in parts]) for name in parts[0].info[kind]}
                for kind in kinds
            },
        )


def _evaluate(
    folder: RunFolder, episodes: int, seed: int, task: str | None, which: Which, trust: bool, steps: int | None
) -> Evaluated:
    """Of one run folder; as `Run.evaluate`."""
    from omad.export.fold import fold
    from omad.export.play import evaluate

    spec = folder.spec
    refuse_foreign(folder.config.task, folder.path, trust or task is not None)
    task_name = task or folder.config.task
    # What only learning needs, another task need not have.
    changes: dict[str, Any] = {"demonstrations": "", "symmetry": False, "eval_episodes": episodes}
    config = dataclasses.replace(folder.config, task=task_name, **changes)
    experiment = Experiment(config, loggers=())
    built = experiment.built
    if task is None:
        refuse_changed(folder, built.spec)
    if (built.spec.obs_dims, built.spec.act_dims) != (spec.obs_dims, spec.act_dims):
        raise UserError(
            f"{built.spec.name} has observations {built.spec.obs_dims} and actions {built.spec.act_dims}, but the "
            f"run's policies were trained for {spec.obs_dims} and {spec.act_dims}."
        )
    experiment.check_evaluation()
    algorithm = make_algorithm(config.algo, spec, config.obs_norm)
    policies, env_steps = policies_at(folder, algorithm, which)
    with contextlib.closing(experiment):
        if steps is None:
            kinds = {"sampled": built.sampled, "noise_free": built.noise_free}
            found = {
                kind: jax.device_get(play(policies, jnp.int32(seed), jnp.int32(0))) for kind, play in kinds.items()
            }
        else:
            places = range(len(config.all_seeds))
            host = jax.device_get(policies)
            teams = [fold(at(host, i), config.algo, spec, config.obs_norm, steps) for i in places]
            # Numbers that are no tensors, as the size of the added noise, are part of the program.
            alike = all([one.settings for one in team] == [one.settings for one in teams[0]] for team in teams)
            found, groups = {}, []
            for group in [teams] if alike else [[team] for team in teams]:
                rows = [[one.tensors for one in team] for team in group]
                groups.append((group[0], jax.tree.map(lambda *rows: np.stack(rows), *rows)))
            for kind in ("sampled", "noise_free"):
                parts = [evaluate(one, experiment.env, episodes, seed, kind == "sampled", many) for one, many in groups]
                found[kind] = jax.tree.map(lambda *rows: np.concatenate(rows), *parts)
        known = any(label == RANDOM for label, *_ in tasks.find(built.spec.name).references)
        first = jax.tree.map(lambda leaf: leaf[:1], policies)
        random = None if known else np.asarray(built.random(first, jnp.int32(seed), jnp.int32(0)).returns[0], float)
    return Evaluated(
        task=built.spec.name,
        random=random,
        seeds=config.all_seeds,
        env_steps=env_steps,
        eval_seed=seed,
        returns={kind: np.asarray(one.returns, float) for kind, one in found.items()},
        lengths={kind: np.asarray(one.lengths) for kind, one in found.items()},
        info={kind: {name: np.asarray(v, float) for name, v in one.info.items()} for kind, one in found.items()},
        differences=tuple(spec.differences(built.spec)),
    )
