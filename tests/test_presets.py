"""Configurations: sourced, resolved in order, and the same after a round trip through JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from omad import envs, tasks
from omad.algos import REGISTRY, config_class
from omad.commands.report import command_of
from omad.commands.train import Options, parse
from omad.config import RunConfig, from_dict, resolve, sourced, sources, to_dict
from omad.errors import UserError
from omad.presets import OVER_THE_RUN, PRESETS, settings_of
from omad.presets.settings import Settings
from omad.tasks import outside
from omad.tasks.returns import RANDOM, REFERENCES

SNAPSHOT = Path(__file__).parent / "presets_snapshot.json"
"""Configurations of all tasks, many of their options, algorithms and presets; written by running this file."""


def every_task() -> list[str]:
    """All tasks; with options one at a time, and all together for three of them."""
    values = {
        "dynamics": ["v2"], "history": ["2"], "horizon": ["50"], "local_ratio": ["0.2"], "host": ["true"],
        "adversary": ["static", "follower"], "state": ["true", "full"],
    }  # fmt: skip
    found = set(tasks.TASKS) | {"pettingzoo:a.b:make?n=3", "mamujoco-obsk1/manysegmentswimmer-3x2"}
    for base in tasks.TASKS:
        known = tasks.OPTIONS.get(base.rpartition("-")[0] if "probe" not in base else base, {})
        choices = [[None, *(v for v in values[key] if v != "full" or "deception" in base)] for key in known]
        for one in itertools.product(*choices):
            given = [f"{key}={value}" for key, value in zip(known, one, strict=True) if value]
            if given and (len(given) == 1 or base in ("mpe/spread-3", "mpe/spread-4", "mpe/deception-2")):
                found.add(tasks.find(f"{base}?{'&'.join(given)}").name)
    return sorted(found)


def changed(config: RunConfig) -> dict[str, Any]:
    """What is not the default, so that a new field, whose default is what was done before, changes nothing."""
    plain, default = to_dict(config), to_dict(RunConfig(algo=config_class(config.algorithm)()))
    return {
        name: value
        for part, other in ((plain, default), (plain["algo"], default["algo"]))
        for name, value in part.items()
        if name != "algo" and value != other[name]
    }


def digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def snapshot(every: int = 1) -> dict[str, Any]:
    """A digest for each algorithm (in their order) of each task and preset, and some configurations as they are."""
    digests: dict[str, Any] = {}
    for preset in SNAPPED:
        digests[preset] = {
            task: " ".join(digest(changed(resolve(task, name, preset))) for name in ORDER)
            for task in every_task()[::every]
        }
    shown = [
        to_dict(resolve(task, name, preset))
        for task in ("mpe/spread-3", "mpe/deception-2?history=2", "mamujoco-full/ant-2x4", "games/islands-2")
        for preset in SNAPPED
        for name in ORDER
    ]
    return {"digests": digests, "configurations": shown}


SNAPPED = ("cpu", "efficient", "paper", "matched")
ORDER = ("omad", "hasac", "hatd3", "madpmd", "masdac")


@pytest.mark.parametrize("every", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_no_preset_has_moved(every: int):
    """Against the snapshot; after a change that is meant, run this file to write it anew, and read the difference."""
    kept, now = json.loads(SNAPSHOT.read_text(encoding="utf-8")), snapshot(every)
    for preset, rows in kept["digests"].items():
        moved = [task for task, row in now["digests"][preset].items() if rows.get(task) != row]
        assert not moved, f"{preset}: {moved[:10]}"
    for then, today in zip(kept["configurations"], now["configurations"], strict=True):
        assert today | then == today | {"algo": then["algo"]}, then["task"]
        assert today["algo"] | then["algo"] == today["algo"]


def test_every_value_of_every_preset_has_a_source_and_is_what_is_resolved():
    for preset, task, algorithm in itertools.product(PRESETS, list(tasks.TASKS)[::12], REGISTRY):
        config = resolve(task, algorithm, preset)
        for field, (value, source) in sourced(task, algorithm, preset).items():
            assert re.match(r"\[(A|S|D|X|H|R|I|M|\?)\]", source), (preset, task, field)
            held = getattr(config, field, None) if hasattr(config, field) else getattr(config.algo, field)
            derived = field == "buffer_size" or (field == "v_max" and config.reward_norm == "return")
            derived |= value == OVER_THE_RUN
            assert held == value or derived, (preset, task, field)


def test_what_changes_over_a_run_follows_from_its_length_unless_it_is_given():
    """On HalfCheetah with 2 gradient steps per env step: (100,000 - 2,500) x 2 in all, the last fifth for the limit."""
    task: Any = {"task": "mamujoco-full/halfcheetah-2x3", "preset": "efficient"}
    names = ("lr_decay_steps", "target_run_begin", "target_run_steps")
    cases: tuple[tuple[Any, tuple[int, int, int]], ...] = (
        ({"total_steps": 100_000}, (195_000, 156_000, 39_000)),
        ({"total_steps": 100_000, "updates_per_step": 4}, (97_500, 78_000, 19_500)),
        ({"total_steps": 100_000, "lr_decay_steps": 0}, (0, 156_000, 39_000)),
    )
    for fields, due in cases:
        given: dict[str, Any] = {**task, **fields}
        config = resolve(**given)
        assert tuple(getattr(config.algo, name) for name in names) == due
        found = sources(config)
        assert all(found[name].startswith("given" if name in fields else "derived: total_steps [M]") for name in names)
        read = from_dict(to_dict(config))
        assert read == config and sources(read)["target_run_begin"].startswith("derived: total_steps")
        words = command_of(config).split()
        assert ("--lr-decay-steps" in words) == ("lr_decay_steps" in fields) and "--target-run-begin" not in words
    steady = {"lr_decay_steps": 0, "target_run_end": None, "target_run_begin": 0, "target_run_steps": 0}
    still = resolve(**task, target_run_end=None).algo  # the limit stays, so it neither begins nor ends to move
    assert (still.target_run_begin, still.target_run_steps) == (0, 0)
    longer = dataclasses.replace(resolve(**task, target_run_end=None), total_steps=300_000)
    words = command_of(longer)
    assert "--lr-decay-steps 295000" in words and "--target-run-begin" not in words
    words = command_of(resolve(**task, **steady))  # as before there was the field
    assert parse(words.split()[2:], "omad train", Options())[0].algo == resolve(**task, **steady).algo
    assert resolve("mamujoco-full/ant-4x2", preset="efficient", total_steps=100_000).algo.lr_decay_steps == 195_000
    assert resolve("mamujoco-full/swimmer-2x1", preset="efficient").algo.lr_decay_steps == 0
    late = resolve(**task, total_steps=100_000, target_run_begin=100_000)  # what follows from it does
    assert late.algo.target_run_steps == 95_000
    for config in (late, from_dict(to_dict(late))):
        assert (sources(config)["target_run_begin"], config.algo.lr_decay_steps) == ("given", 195_000)
    assert sources(from_dict(to_dict(late)))["target_run_steps"] == "derived: target_run_begin"


@pytest.mark.parametrize(
    ("task", "fields", "due"),
    [
        ("mamujoco-full/ant-2x4", {}, 5.0),
        ("mamujoco-full/ant-2x4", {"reward_bound": 2.0}, 2.0),
        ("mamujoco-full/ant-2x4", {"gamma": 0.999}, 7.9),  # 5 / (1 - 0.999^1000) = 7.908
        ("mamujoco-full/ant-2x4", {"gamma": 0.9999}, 52.5),  # 5 / (1 - 0.9999^1000) = 52.54
        ("mamujoco-full/reacher-2x1", {}, 12.7),  # 50 steps: 5 / (1 - 0.99^50) = 12.66
        ("mpe/spread-3", {"gamma": 0.95}, 6.9),  # 25 steps: 5 / (1 - 0.95^25) = 6.92
        ("games/meeting-2", {}, 5.0),  # ends, so that nothing comes after
        ("mpe/spread-3", {"gamma": 0.95, "reward_bound": 0.01}, 0.0138),
        ("mamujoco-full/ant-2x4", {"gamma": 0.999, "v_max": 3.0}, 3.0),
    ],
)
def test_the_support_of_normalised_rewards_holds_what_comes_after_a_time_limit(
    task: str, fields: dict[str, Any], due: float
):
    assert resolve(task, preset="cpu", reward_norm="return", **fields).algo.v_max == due


@pytest.mark.parametrize("preset", ["cpu", "efficient", "matched", "paper"])
def test_supports_grow_with_the_teams_of_particle_tasks(preset: str):
    """Rewards are sums over the team: values of random actions, and of agents at their goals, keep within."""
    for n in range(2, 11):
        random = next(value for label, value, _ in REFERENCES[f"mpe/spread-{n}"] if label == RANDOM)
        algo: Any = resolve(f"mpe/spread-{n}", "omad", preset).algo
        fits = algo.v_max / (abs(random) / 25 / (1 - algo.gamma))
        assert (0.99 if preset == "paper" and n < 5 else 1.5) <= fits <= 3.1, n
        shared: Any = resolve(f"mpe/spread-{n}?local_ratio=0", "omad", preset).algo
        assert shared.v_max / (algo.v_max / fits) >= 2 * 1.55, n
    for options in ("", "?history=2", "?adversary=static&state=full"):
        two, five = (resolve(f"mpe/deception-{n}{options}", "omad", preset).algo for n in (2, 5))
        assert five.v_max == 2.5 * two.v_max


def test_swimmer_looks_further_ahead_where_rewards_are_normalised():
    """With horizon, returns of several steps and fewer gradient steps; else as other robots."""
    swimmer, quick = (resolve("mamujoco-full/swimmer-2x1", preset=name) for name in ("efficient", "cpu"))
    assert dataclasses.replace(quick, preset="efficient", eval_noise_free=True) == swimmer
    other = resolve("mamujoco-full/halfcheetah-2x3", preset="efficient")
    assert (swimmer.updates_per_env_step, swimmer.batch_size) == (0.5, 128)
    assert (swimmer.algo.gamma, swimmer.algo.n_step, swimmer.algo.v_max) == (0.999, 5, 7.9)
    for name in REGISTRY:  # so does every algorithm that has a horizon
        algo: Any = resolve("mamujoco-full/swimmer-2x1", name, "efficient").algo
        assert (algo.gamma, algo.n_step) == (0.999, 5)
    bare = [field.name for field in dataclasses.fields(RunConfig)]
    without = settings_of(tasks.find("mamujoco-full/swimmer-2x1"), "other", "efficient", bare)
    assert without["batch_size"][0] == 128 and without.keys().isdisjoint(("gamma", "n_step"))
    same = {name: getattr(other.algo, name) for name in ("gamma", "n_step", "v_max")}
    steady = {"lr_decay_steps": 0, "target_run_end": None, "target_run_begin": 0, "target_run_steps": 0}
    assert dataclasses.replace(swimmer.algo, **same) == dataclasses.replace(other.algo, **steady)
    assert resolve("mamujoco-full/swimmer-2x1", preset="matched").algo.gamma == 0.99


def test_a_misspelt_field_of_a_preset_is_an_error():
    settings = Settings(tasks.find("mpe/spread-3"), {"gamma"})
    with pytest.raises(TypeError, match="gama"):
        settings("[M]", gama=0.9)


def test_agents_with_frame_stacking_have_their_settings_whatever_the_adversary():
    """The longer name of an option's combination does not win over it."""
    both = resolve("mpe/deception-2?adversary=static&history=2&state=full")
    stacked = resolve("mpe/deception-2?history=2")
    assert both == dataclasses.replace(stacked, task=both.task)


@pytest.mark.parametrize("algorithm", REGISTRY)
def test_tiny_is_small(algorithm: str):
    config = resolve("mpe/spread-3", algorithm, "tiny")
    assert config.algo.actor_width == config.algo.critic_width == 16
    assert config.total_steps * config.updates_per_env_step <= 100
    assert from_dict(to_dict(config)) == config


def test_run_and_algorithm_fields_are_disjoint():
    run = {f.name for f in dataclasses.fields(RunConfig)}
    for name in REGISTRY:
        assert not run & {f.name for f in dataclasses.fields(config_class(name))}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("task", tasks.TASKS)
def test_every_task_resolves_and_survives_json(task: str, preset: str):
    for algorithm in REGISTRY:
        config = resolve(task, algorithm, preset)
        assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_given_fields_win_over_the_preset():
    config = resolve("mpe/spread-4", total_steps=9_000, v_max=77.0)
    assert (config.total_steps, config.algo.v_max) == (9_000, 77.0)
    assert resolve("mpe/spread-4").algo.v_max == 150.0
    with pytest.raises(UserError, match="total_steps"):
        resolve(total_step=5)


def test_paper_gives_all_algorithms_one_wrapper():
    for task in ("mamujoco-full/ant-2x4", "mpe/spread-3"):
        names = ("omad", "hasac", "hatd3", "madpmd", "masdac")
        assert len({resolve(task, name, "paper").obs_norm for name in names}) == 1


def test_paper_sizes():
    config = resolve("mpe/spread-3", preset="paper")
    algo = config.algo
    assert (algo.denoising_steps, algo.atoms, algo.critic_width, algo.actor_width, algo.actor_layers) == (
        8, 100, 2048, 256, 3,
    )  # fmt: skip
    assert (config.batch_size, config.buffer_size, config.updates_per_env_step) == (256, 1_000_000, 2.0)


@pytest.mark.parametrize("name", ["gamesroom", "probe-arm", "mpe2/tag", "games.x/y"])
def test_an_env_whose_name_begins_alike_has_no_presets_of_ours(name: str, monkeypatch: pytest.MonkeyPatch):
    """A support of 2 would clip its values, a shared policy could not be learned."""
    monkeypatch.setattr(outside, "_entries", {})
    for other in (name, "another"):
        envs.register(other, lambda: None)
    for preset in SNAPPED:
        ours, plain = resolve(name, preset=preset), resolve("another", preset=preset)
        assert dataclasses.replace(ours, task="another") == plain


def test_a_configuration_of_another_version_is_refused():
    values = to_dict(resolve())
    with pytest.raises(UserError, match="colour"):
        from_dict(values | {"colour": "red"})


def test_a_field_that_an_earlier_version_did_not_have_takes_its_default():
    values = to_dict(resolve())
    del values["obs_norm"]
    assert from_dict(values).obs_norm == "none"


@pytest.mark.parametrize("task", ["mpe/spread-3", "mpe/deception-2", "mamujoco-full/ant-4x2", "probe/push"])
def test_matched_settings_are_the_same_for_every_algorithm(task: str):
    """Envs, gradient steps, batch, widths, discount, and what is not the learner's: lengths, warm-up, evaluation."""
    matched = {name: resolve(task, name, "matched") for name in REGISTRY}
    first = matched["omad"]
    for name, config in matched.items():
        assert config == dataclasses.replace(first, algorithm=name, algo=config.algo)
        for field in ("gamma", "actor_width", "actor_layers", "critic_width", "critic_layers"):
            assert getattr(config.algo, field) == getattr(first.algo, field), (name, field)


def on_robots(task: str, cpu: RunConfig, matched: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Field of OMAD -> its value in `cpu` and in `matched`, where they differ on robots."""
    robot, whole = task.partition("/")[2], cpu.gradient_steps(cpu.total_vector_steps)
    gamma = 0.999 if robot.startswith("swimmer") else 0.99
    changed: dict[str, tuple[Any, Any]] = {
        "critic_net": ("xqc", "renorm"),
        "critic_reduce": ("min", "mean"),
        "policy_average": (0.98, 0.0),
        "alpha_init": (0.01, 1.0),
        "v_max": (round(5 / (1 - gamma ** tasks.find(task).horizon), 1), matched.algo.v_max),
    }
    if robot.startswith("swimmer"):
        changed |= {"gamma": (gamma, 0.99), "n_step": (5, 1)}
    if robot.startswith("walker2d-"):
        changed["n_step"] = (3, 1)
    if robot.startswith(("halfcheetah-", "walker2d-", "ant-")):
        changed |= {"lr_decay_steps": (whole, 0), "target_run_end": (5.5, None)}
        changed |= {"target_run_begin": (whole * 4 // 5, 0), "target_run_steps": (whole - whole * 4 // 5, 0)}
    if robot.startswith("halfcheetah-"):
        del changed["critic_reduce"]
    return changed


@pytest.mark.parametrize(
    "task", [*tasks.TASKS, "mpe/deception-2?history=2", "mpe/deception-3-xy?dynamics=v2&history=4"]
)
def test_omad_is_matched_as_it_is_on_a_cpu_but_for_what_helps_there(task: str):
    cpu, matched = resolve(task, "omad", "cpu"), resolve(task, "omad", "matched")
    assert not (matched.algo.share_policy or matched.symmetry)
    spread, stacks_frames = task.startswith("mpe/spread"), "history" in task
    assert cpu.symmetry == (spread or stacks_frames)
    changed: dict[str, Any] = {}
    if stacks_frames:
        n_agents = tasks.find(task).n_agents
        changed = {"gamma": (0.9, 0.95), "v_max": (40.0 * n_agents, 75.0 * n_agents)}
    elif task.startswith("mamujoco-"):
        assert (cpu.reward_norm, cpu.obs_norm, matched.reward_norm, matched.obs_norm) == (
            "return",
            "running",
            *["none"] * 2,
        )
        changed, cpu = on_robots(task, cpu, matched), dataclasses.replace(cpu, reward_norm="none", obs_norm="none")
    elif task.startswith("mpe/spread-4"):
        changed = {"actor_lr": (3e-3, 1e-3), "critic_lr": (3e-3, 1e-3), "lr_decay_steps": (50_000, 0)}
    elif task.startswith("mpe/"):
        assert (cpu.updates_per_env_step, matched.updates_per_env_step) == (0.5, 0.25)
        changed = {"share_policy": (True, False), "alpha_lr": (1.5e-3, 3e-3)}
        if spread:
            changed |= {"actor_lr": (3e-3, 1e-3), "critic_lr": (3e-3, 1e-3), "lr_decay_steps": (100_000, 0)}
        else:
            changed["n_step"] = (3, 1)
    for field, values in changed.items():
        assert (getattr(cpu.algo, field), getattr(matched.algo, field)) == values
    algo = dataclasses.replace(cpu.algo, **{field: values[1] for field, values in changed.items()})
    cpu = dataclasses.replace(cpu, updates_per_step=matched.updates_per_step, symmetry=False, algo=algo)
    assert dataclasses.replace(cpu, preset="matched") == matched


@pytest.mark.parametrize("algorithm", REGISTRY)
@pytest.mark.parametrize("task", [*list(tasks.TASKS)[::12], "mpe/deception-2?adversary=static&state=full"])
def test_efficient_is_as_on_a_cpu_but_for_gradient_steps(task: str, algorithm: str):
    """And for what is measured in them: the temperature's pace on particle tasks, what changes over the run."""
    cpu, efficient = resolve(task, algorithm, "cpu"), resolve(task, algorithm, "efficient")
    robot = task.startswith("mamujoco-")
    assert (efficient.updates_per_env_step, efficient.batch_size) == (2.0 if robot else 1.0, 256)
    assert efficient.n_envs == cpu.n_envs == (4 if robot else 8)
    for config in (cpu, efficient):
        assert (config.reward_norm, config.obs_norm) == (("return", "running") if robot else ("none", "none"))
    assert efficient.warmup_steps == 2_500 and efficient.eval_noise_free
    assert "env step" in sourced(task, algorithm, "efficient")["updates_per_step"][1]
    paced: dict[str, Any] = {}
    if algorithm == "omad":
        paced = {name: getattr(cpu.algo, name) for name in ("lr_decay_steps", "target_run_begin", "target_run_steps")}
        if "/walker2d-" in task:
            assert (cpu.algo.n_step, efficient.algo.n_step) == (3, 1)
            paced["n_step"] = 3
        if "/halfcheetah-" in task:
            assert (cpu.algo.critic_reduce, efficient.algo.critic_reduce) == ("mean", "min")
            paced["critic_reduce"] = "mean"
        if task.startswith("mpe/spread-"):  # measured with fewer of them only
            assert (efficient.algo.actor_lr, efficient.algo.critic_lr, efficient.algo.lr_decay_steps) == (1e-3, 1e-3, 0)
            paced |= {"actor_lr": 3e-3, "critic_lr": 3e-3}
        if robot and cpu.algo.lr_decay_steps:
            assert efficient.algo.lr_decay_steps == 4 * cpu.algo.lr_decay_steps
        elif task.startswith("mpe/"):  # the same pace per env step
            paced["alpha_lr"] = cpu.algo.alpha_lr
            assert efficient.algo.alpha_lr == pytest.approx(cpu.algo.alpha_lr * cpu.updates_per_env_step)
    assert dataclasses.replace(efficient.algo, **paced) == cpu.algo
    if algorithm == "omad" and robot:  # raw rewards have the support of the robot
        raw = resolve(task, "omad", "efficient", reward_norm="none").algo
        assert raw.v_max == resolve(task, "omad", "matched", gamma=raw.gamma).algo.v_max
    same: dict[str, Any] = {"updates_per_step": cpu.updates_per_step, "batch_size": cpu.batch_size}
    same["eval_noise_free"] = cpu.eval_noise_free
    assert dataclasses.replace(efficient, preset="cpu", algo=cpu.algo, **same) == cpu


def test_a_scope_may_ask_for_options_with_or_without_their_values():
    """Deception against an adversary that stands still, with critics that see velocities, has settings of its own."""
    names = ("state=full", "adversary=static", "adversary=static&state=full", "state=full&adversary=static&dynamics=v2")
    recent = {name: resolve(f"mpe/deception-2?{name}").buffer_size == 20_000 for name in names}
    assert list(recent.values()) == [False, False, True, True]
    assert resolve("mpe/deception-2?adversary=static&state=full", "hasac").buffer_size == 200_000
    assert resolve("mpe/deception-2?adversary=static&state=full", preset="matched").buffer_size == 200_000
    assert resolve("mpe/deception-2?history=2&state=full").algo.gamma == 0.9
    algo = resolve("mpe/deception-2?adversary=static&state=full").algo
    assert (algo.actor_every, algo.n_step, algo.gamma, algo.v_max) == (1, 1, 0.95, 120.0)


def test_another_packages_algorithm_has_what_all_have_in_common(monkeypatch: pytest.MonkeyPatch):
    """Envs, gradient steps, lengths and evaluations of a family of tasks are no matter of the algorithm."""
    monkeypatch.setitem(REGISTRY, "mine", REGISTRY["hatd3"])
    for task in ("mamujoco-full/halfcheetah-2x3", "mpe/spread-3", "mpe/spread-4"):
        for preset in ("matched", "efficient", "cpu"):
            mine, ours = resolve(task, "mine", preset), resolve(task, "hatd3", preset)
            assert mine == dataclasses.replace(ours, algorithm="mine", algo=mine.algo)
            assert mine.algo.gamma == ours.algo.gamma


def test_harl_settings():
    """Two rows of HARL's table for each algorithm, and its gradient steps an env step: 0.05 and 0.1."""
    ant = resolve("mamujoco-full/ant-2x4", "hasac", "paper")
    assert (ant.batch_size, ant.warmup_steps, ant.updates_per_env_step) == (2200, 10_000, 0.05)
    assert (ant.algo.n_step, ant.algo.actor_lr, ant.algo.critic_lr) == (5, 1e-3, 3e-4)
    assert (ant.algo.alpha_mode, ant.algo.alpha_init) == ("fixed", 0.2)
    spread = resolve("mpe/spread-3", "hasac", "paper")
    assert (spread.batch_size, spread.algo.n_step, spread.algo.alpha_mode) == (1000, 20, "auto")
    assert (ant.obs_norm, spread.obs_norm) == ("harl", "none")  # its wrapper of robots
    walker = resolve("mamujoco-full/walker2d-2x3", "hatd3", "paper")
    assert (walker.updates_per_env_step, walker.algo.n_step, walker.algo.actor_every) == (0.1, 20, 8)
    assert (walker.algo.actor_width, walker.algo.actor_lr, walker.algo.critic_lr) == (256, 5e-4, 1e-3)
    spread = resolve("mpe/spread-3", "hatd3", "paper")
    assert (spread.n_envs, spread.algo.n_step, spread.algo.actor_width, spread.algo.critic_width) == (20, 1, 128, 128)


@pytest.mark.parametrize("preset", PRESETS)
def test_hosted_envs_are_not_evaluated_twice_unless_asked(preset: Any):
    """Envs of other libraries, and envs in JAX that are stepped on the host; robots where training takes far longer."""
    for task in ("mamujoco-full/ant-2x4", "pettingzoo:a.b:make", "probe/push?host=true"):
        twice = preset == "efficient" and task.startswith("mamujoco-")
        assert resolve(task, "hasac", preset).eval_noise_free is twice
        assert resolve(task, "hasac", preset, eval_noise_free=True).eval_noise_free
    assert resolve("mpe/spread-3", "hasac", preset).eval_noise_free


@pytest.mark.parametrize("preset", ["cpu", "efficient", "matched"])
def test_evaluations_of_own_hosted_envs_are_short(preset: Any):
    """An episode may have 1,000 steps; envs in JAX, which are quick, are evaluated as long as before."""
    for task, episodes in (("pettingzoo:a.b:make", 20), ("host:a.b:make", 20), ("jax:a.b:make", 500)):
        assert resolve(task, "omad", preset).eval_episodes == episodes


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(snapshot(), indent=0) + "\n", encoding="utf-8")
