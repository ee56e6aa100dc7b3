"""What may stand in config.json, and what numbers the command line takes: anything else gets one sentence."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

from omad.algos import REGISTRY, config_class
from omad.algos.validate import MOST, documented
from omad.cli import main
from omad.commands.train import Options, parse
from omad.config import RunConfig, from_dict, resolve, sources, to_dict
from omad.config_file import to_toml
from omad.errors import UserError

GOOD = to_dict(resolve("probe/push"))
DEEP: Any = []
for _ in range(5000):
    DEEP = [DEEP]

NO_COUNT: tuple[Any, ...] = (True, 1.5, 10**30, 10**5000, "3", None, [], {}, 0, -1, 2**31, float("nan"))
NO_NUMBER: tuple[Any, ...] = (True, "0.5", None, [0.5], {"a": 1}, float("nan"), float("inf"), 10**400, 1e39, 1e-50)
NO_WORD: tuple[Any, ...] = (3, True, None, ["omad"], {"a": 1}, "no such", "", DEEP)
WRONG: list[tuple[str, Any]] = [
    *((name, value) for name in ("seeds", "n_envs", "batch_size", "eval_episodes") for value in NO_COUNT),
    *((name, value) for name in ("first_seed", "eval_seed") for value in (-1, 2**31, True, 0.0, "0", None)),
    *(("env_timeout", value) for value in (*NO_NUMBER, 0, -1.0, 1e38)),
    *((name, value) for name in ("task", "algorithm", "preset", "obs_norm") for value in NO_WORD),
    *(("symmetry", value) for value in (0, 1, "true", None, [])),
    *(("env_workers", value) for value in (-1, 1.0, 10**9, None)),
    *(("algo", value) for value in (None, 3, "omad", [], [["v_max", 1]])),
    *((name, value) for name in ("algo.actor_width", "algo.n_step", "algo.atoms") for value in NO_COUNT),
    *((name, value) for name in ("algo.v_max", "algo.actor_lr", "algo.gamma") for value in (*NO_NUMBER, 0.0, -1.0)),
    *(("algo.adam_b1", value) for value in (1.0, 1 - 1e-12, -0.1, 2)),
    *(("algo.critic_kind", value) for value in NO_WORD),
    *(("algo.learn_step_size", value) for value in (0, "yes", None)),
    ("algo.renorm_warmup", 10**18), ("algo.renorm_warmup", -1), ("algo.v_max", 1e31), ("algo.v_max", 1e-37),
    ("algo.actor_layers", 10**6), ("algo.critic_width", 10**9), ("algo.denoising_steps", 10**9),
    ("updates_per_step", 10**8), ("total_steps", 2**31 - 1), ("buffer_size", 10**20), ("seeds", 10**6),
    ("colour", 1), ("algo.colour", 1), ("", 1), ("\x1b[31m", 1), ("algo.x" * 1000, 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{name[:30]}-{i}" for i, (name, _) in enumerate(WRONG)])
def test_a_wrong_field_is_named_with_what_was_found(name: str, value: Any):
    """One sentence on one line, however large or deep the value is."""
    field, below = name.removeprefix("algo."), name.startswith("algo.")
    values = GOOD | ({"algo": GOOD["algo"] | {field: value}} if below else {name: value})
    with pytest.raises(UserError) as refused:
        from_dict(values)
    said = str(refused.value)
    assert len(said) < 1000 and said.isprintable()
    words = {"task": ("task is ", "There is no task '"), "algorithm": ("algorithm is ", "names the algorithm '")}
    unknown = f"has the fields {field[:50]!r}"[:-1]
    default = (field,) if field in {*GOOD, *GOOD["algo"]} else (unknown,)
    assert any(one in said for one in words.get(name, default)), said


NO_OBJECT = [(None, "None"), (3, "3"), ("text", "'text'"), ([], "[]"), ([GOOD], "a list of 1"), (True, "True"),
             (DEEP, "a list of 1")]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "words"),
    [
        *((values, f"The configuration is {said}; it must be an object with the fields") for values, said in NO_OBJECT),
        ({}, "names the algorithm ''; allowed: omad, "),
        ({"algorithm": "omad", "algo": None}, "algo is None; it must be an object with the hyperparameters of omad"),
    ],
    ids=range(9),
)
def test_what_is_no_configuration_is_refused(values: Any, words: str):
    with pytest.raises(UserError, match=re.escape(words)):
        from_dict(values)


def test_a_configuration_survives_being_written_and_read():
    """Whole numbers stand for numbers, and NumPy's are taken; what is kept are plain Python numbers."""
    config = resolve("probe/push", v_max=20, seeds=np.int64(2), gamma=np.float32(0.5), symmetry=np.bool_(False))
    assert [type(v) for v in (config.algo.v_max, config.seeds, config.algo.gamma, config.symmetry)] == [
        float, int, float, bool,
    ]  # fmt: skip
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert resolve("probe/push", actor_lr=1e38).algo.actor_lr == 1e38


@pytest.mark.parametrize("algorithm", REGISTRY)
def test_every_field_of_every_algorithm_is_checked(algorithm: str):
    """None takes a list, text is no number, true no count, and nothing overflows."""
    cls = config_class(algorithm)
    for name, kind in get_type_hints(cls).items():
        wrong: list[Any] = [[], {}]
        kind = float if (optional := kind == (float | None)) else kind
        wrong += [] if optional else [None]
        wrong += {int: [True, 1.5, 10**18, "3"], float: [True, "3", float("nan"), 1e39], bool: [1, "true"]}.get(
            kind, [3, "no such"]
        )
        for value in wrong:
            with pytest.raises(UserError, match=name):
                resolve("mpe/spread-3", algorithm, **{name: value})


NUMBERS = [
    ("train --updates-per-step 10000000000", "updates_per_step"),
    ("train --renorm-warmup 1000000000000000000", "renorm_warmup"),
    ("train --v-max 1e-50", "v_max"),
    ("train --v-max nan", "v_max"),
    ("train --actor-lr inf", "actor_lr"),
    ("train --eval-episodes 1000000000", "eval_episodes"),
    ("train --total-steps 99999999999", "total_steps"),
    ("train --updates-per-step 1000000", "updates_per_step"),
    ("train --parallel-seeds -1", "--parallel-seeds"),
    ("train --parallel-seeds 999999999", "--parallel-seeds"),
    ("train --total-steps -99999999999", "between -2147483647 and 2147483647"),
    ("bench --seconds -1", "--seconds"),
    ("bench --seconds 0", "--seconds"),
    ("bench --seconds nan", "--seconds"),
    ("bench --seconds 1e30", "--seconds"),
    ("eval /nowhere --episodes 0", "--episodes"),
    ("eval /nowhere --episodes 99999999999", "--episodes"),
    ("eval /nowhere --seed -1", "--seed"),
    ("eval /nowhere --seed 2147483648", "--seed"),
    ("render /nowhere --episodes 0", "--episodes"),
    ("render /nowhere --max-steps 0", "--max-steps"),
    ("render /nowhere --max-steps 99999999999", "--max-steps"),
    ("render /nowhere --training-seed -1", "--training-seed"),
    ("render /nowhere --seed 99999999999", "--seed"),
    ("check-env probe/push --steps 0", "--steps"),
    ("check-env probe/push --steps 1000000000", "--steps"),
    ("check-env probe/push --seed -1", "--seed"),
    ("check-env probe/push --seed 2147483647", "--seed"),
    ("resume /nowhere --parallel-seeds -1", "--parallel-seeds"),
    ("resume /nowhere --parallel-seeds 99999999999", "--parallel-seeds"),
    ("sweep /nowhere --workers -1", "--workers"),
    ("sweep /nowhere --cpus-per-run 0", "--cpus-per-run"),
    ("sweep /nowhere --cpus-per-run nan", "--cpus-per-run"),
    ("sweep /nowhere --gpus-per-run -1", "--gpus-per-run"),
    ("sweep /nowhere --time-limit 99999999999999999999h", "--time-limit"),
    ("sweep /nowhere --time-limit 0s", "--time-limit"),
    ("sweep /nowhere --json", "--json"),
    ("sweep /nowhere --launcher ray --workers 2", "--workers"),
    ("sweep /nowhere --cpus-per-run 2", "--cpus-per-run"),
    ("sweep /nowhere --gpus-per-run 0.5", "--gpus-per-run"),
    ("demo --minutes -1", "--minutes"),
    ("demo --minutes nan", "--minutes"),
    ("demo --total-steps 0", "--total-steps"),
]


@pytest.mark.parametrize(("words", "named"), NUMBERS)
def test_numbers_of_every_command_are_checked_in_words(words: str, named: str, capsys: pytest.CaptureFixture[str]):
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("omad: ") and said.count("\n") == 1 and named in said


def test_what_cannot_fit_is_refused_before_anything_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for given in ("--eval-episodes 80000000 --task probe/push", "--batch-size 2000000 --buffer-size 2000000"):
        folder = tmp_path / "run"
        assert main(["train", *given.split(), "--critic-width", "1000000", "--run-dir", str(folder)]) == 2
        assert "MiB are free" in capsys.readouterr().err and not folder.exists()


@pytest.mark.parametrize(
    ("words", "due"),
    [
        ("--task probe/push --preset paper --task mpe/spread-4 --preset cpu", ("mpe/spread-4", "cpu", "omad")),
        ("hasac --task=probe/push --algorithm hatd3 --preset=matched", ("probe/push", "matched", "hatd3")),
        ("--algorithm hatd3 --algorithm=masdac", ("mpe/spread-3", "cpu", "masdac")),
        ("hasac --seeds 3 --task probe/push --seeds 1", ("probe/push", "cpu", "hasac")),
    ],
)
def test_of_an_option_given_twice_the_last_counts(words: str, due: tuple[str, str, str]):
    task, preset, algorithm = due
    config, _ = parse(words.split(), "omad train", Options())
    assert config == resolve(task, algorithm, preset)


def test_what_was_typed_counts_as_given():
    """Also where it equals the default; underscores, = and --no- are the same as ever."""
    config, options = parse(
        ["--total-steps", "100000", "--buffer-size", "200000", "--no-symmetry", "--symmetry", "--run-dir", "a=b"],
        "omad train",
        Options(),
    )
    assert (config.buffer_size, config.symmetry, options.run_dir) == (200_000, True, Path("a=b"))
    assert parse(["--total_steps=100000"], "omad train", Options())[0].buffer_size == 100_000
    assert parse(["--total_steps=100000", "--buffer_size=200000"], "omad train", Options())[0].buffer_size == 200_000
    assert not parse(["--symmetry", "--no-symmetry"], "omad train", Options())[0].symmetry
    with pytest.raises(SystemExit):
        parse(["--seeds", "2", "--task"], "omad train", Options())


def test_values_that_follow_from_others_follow_in_a_file_too(tmp_path: Path):
    """What is in rewards' units from their normalisation, the buffer from the length; the file's own values stay."""
    task = "mamujoco-full/halfcheetah-2x3"
    for name, fields in (
        ("plain", {}),
        ("own", {"v_max": 7.0, "buffer_size": 3_000, "total_steps": 4_000, "alpha_init": 0.5}),
    ):
        (tmp_path / name).write_text(to_toml(resolve(task, preset="matched", **fields)))

    def of(name: str, *words: str) -> tuple[float, int, float]:
        config = parse(["--config", str(tmp_path / name), *words], "omad train", Options())[0]
        return config.algo.v_max, config.buffer_size, config.algo.alpha_init

    assert of("plain") == (2000.0, 150_000, 1.0)
    assert of("plain", "--reward-norm", "return", "--total-steps", "9000") == (5.0, 9_000, 0.01)
    assert of("own", "--reward-norm", "return", "--total-steps", "9000") == (7.0, 3_000, 0.5)
    (tmp_path / "hasac").write_text(to_toml(resolve("mamujoco-full/ant-2x4", "hasac", "matched")))
    config = parse(["--config", str(tmp_path / "hasac"), "--preset", "paper"], "omad train", Options())[0]
    assert (config.algo.alpha_mode, config.algo.alpha_init) == ("auto", 1.0)  # not the preset's of a fixed one


def test_policies_that_would_never_be_updated_are_refused():
    brief: dict[str, Any] = {"preset": "tiny", "total_steps": 400, "warmup_steps": 200, "n_envs": 4}
    done = resolve(**brief).gradient_steps(100)
    assert done == 50 * resolve(**brief).updates_per_step
    resolve(**brief, actor_every=done)
    with pytest.raises(UserError, match=f"actor_every is {done + 1}, but the run has {done} gradient steps"):
        resolve(**brief, actor_every=done + 1)
    with pytest.raises(UserError, match=r"target_run_per_dim is 1\.5; with prior_scale 2\.5 it must be above 1\.64"):
        resolve(target_run_per_dim=1.5)
    old = to_dict(resolve())  # one that was begun can still be read
    assert from_dict(old | {"algo": old["algo"] | {"target_run_per_dim": 1.5}}).algo.target_run_per_dim == 1.5


def test_raw_rewards_have_the_temperature_of_raw_rewards():
    """`efficient` normalises rewards on robots; without that, entropy is weighed as in the other presets."""
    robot: dict[str, Any] = {"task": "mamujoco-full/halfcheetah-2x3", "preset": "efficient"}
    assert (resolve(**robot).algo.alpha_init, resolve(**robot).algo.v_max) == (0.01, 5.0)
    assert resolve(**robot, alpha_mode="fixed").algo.alpha_init == 0.01
    raw = resolve(**robot, reward_norm="none").algo
    assert (raw.alpha_init, raw.v_max) == (1.0, 2000.0)


def test_a_limit_that_would_not_change_as_asked_is_refused():
    """Half of a change is a mistake; a limit of its own stays where it is."""
    end: dict[str, Any] = {"target_run_end": 5.5}
    steps: dict[str, Any] = {"target_run_steps": 9}
    with pytest.raises(UserError, match=r"target_run_end is 5\.5 and target_run_steps 0; give both"):
        resolve(**end)
    with pytest.raises(UserError, match="target_run_end is None and target_run_steps 9; give both"):
        resolve(target_run_per_dim=5.0, **steps)
    with pytest.raises(UserError, match="target_run_begin is 7, but the limit does not change"):
        resolve(target_run_begin=7)
    resolve(target_run_per_dim=5.0)
    assert resolve(target_run_end=4.0).algo.target_run_end is None
    old = to_dict(resolve(target_run_per_dim=5.0))  # as earlier versions wrote it
    old["algo"] |= {"target_run_end": 4.0, "target_run_steps": 0}
    assert from_dict(old).algo == resolve(target_run_per_dim=5.0).algo
    resolve(**end, **steps)


def test_what_is_in_the_units_of_rewards_follows_their_normalisation():
    """Else an entropy bonus in raw units outweighs all rewards, and weights of values in [-5, 5] are all alike."""
    raw, normalised = ({"reward_norm": kind} for kind in ("none", "return"))
    for algorithm, name, values in (
        ("omad", "alpha_init", (1.0, 0.01)),
        ("hasac", "alpha_init", (1.0, 0.01)),
        ("masdac", "reward_scale", (0.2, 20.0)),
        ("madpmd", "reward_scale", (0.2, 0.2)),  # it standardises values
        ("madpmd", "alpha_init", (5.0, 5.0)),
    ):
        for fields, value in zip((raw, normalised), values, strict=True):
            config = resolve("mamujoco-full/ant-2x4", algorithm, "matched", **fields)
            assert getattr(config.algo, name) == value
            assert sources(config)[name].startswith("derived: reward_norm") == (value != values[0])
    assert resolve("mpe/spread-3", reward_norm="return", alpha_init=0.3).algo.alpha_init == 0.3
    assert resolve("mamujoco-full/ant-2x4", "hasac", "paper", reward_norm="return").algo.alpha_init == 0.2  # fixed
    assert resolve("mamujoco-full/swimmer-2x1", preset="efficient", reward_norm="none").algo.v_max == 400.0
    assert resolve("mamujoco-full/swimmer-2x1", preset="efficient").algo.v_max == 7.9


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"n_envs": 500, "buffer_size": 5_000, "n_step": 20, "warmup_steps": 10_000}, r"10 steps of each; .* the 20"),
        ({"n_envs": 8, "warmup_steps": 2_500, "total_steps": 2_501}, "n_envs 8 to at least 2505"),
    ],
)
def test_what_would_learn_nothing_or_from_wrong_returns_is_refused(fields: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        resolve("mpe/spread-3", "hasac", **fields)
    close: dict[str, Any] = {"buffer_size": 10_000} if "n_step" in fields else {"total_steps": 2_505}
    assert resolve("mpe/spread-3", "hasac", **(fields | close))


def test_help_shows_the_source_of_the_value_shown(capsys: pytest.CaptureFixture[str]):
    """What the preset sets has the preset's source, and only that; the rest has the default's."""
    with pytest.raises(SystemExit):
        main(["train", "--task", "mpe/spread-3", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())

    def of(flag: str) -> str:
        return text[text.index(f" {flag} ") :].split("(default: ")[0]

    assert "three seeds: -20.1, not -21.8" in of("--actor-lr FLOAT") and "[D]" not in of("--actor-lr FLOAT")
    assert "preset" not in of("--prior-scale FLOAT") and "[D]" in of("--prior-scale FLOAT")


def test_every_field_is_documented():
    for cls in (RunConfig, *map(config_class, REGISTRY)):
        assert {f.name for f in dataclasses.fields(cls)} <= set(documented(cls))
    assert np.iinfo(np.int32).max == MOST


TEXT = """
from omad.console import console, row, table
for name in ("runs/lr[small]", "a[/b]", "t:warning:x", "bell\\x07 line\\n end\\u2028", "\\xe9" + "x" * 300, "\\udcff"):
    made = table(name, name, caption=name)
    row(made, name[:40])
    console().print(made)
    console().print(name)
"""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_are_printed_as_they_are(encoding: str):
    """In every locale: no markup, no emoji, control characters written out, lines whole."""
    env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding, "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", TEXT], capture_output=True, timeout=60, check=True, env=env)
    lines = done.stdout.decode(encoding).splitlines()
    assert {"runs/lr[small]", "a[/b]", "t:warning:x", "bell\\x07 line\\n end\\u2028", "\\udcff"} <= set(lines)
    assert any(line.endswith("x" * 300) for line in lines)


def test_a_file_error_advises_resume_only_where_a_run_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from omad import cli

    error = FileExistsError(17, "File exists", str(tmp_path / "FILE"))
    assert "omad resume" not in cli._file_error(error, "render")
    for command in ("render", "train"):
        assert "FILE" in cli._file_error(error, command) and "Errno" not in cli._file_error(error, command)
    assert "omad resume" in cli._file_error(error, "train")
