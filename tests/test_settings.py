"""Settings from files and where every value comes from; devices, extras and completion on the command line."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from omad import extras
from omad.algos import REGISTRY
from omad.cli import COMMANDS, main
from omad.commands import bench
from omad.commands.train import Options, parse
from omad.config import resolve, sources, to_dict
from omad.config_file import read, to_toml
from omad.device import use_device
from omad.errors import UserError

TOML = """
task = "probe/push"
preset = "tiny"
seeds = 3
[algo]
v_max = 7
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my.toml"
    path.write_text(TOML)
    return path


def test_defaults_then_preset_then_file_then_options(file: Path):
    config, options = parse(["--config", str(file), "--seeds", "2"], "omad train", Options())
    assert config == resolve("probe/push", preset="tiny", seeds=2, v_max=7)
    assert options.config == file
    found = sources(config)
    assert (found["seeds"], found["v_max"], found["task"]) == ("given", str(file), str(file))
    assert found["batch_size"].startswith("preset tiny: [?]") and found["prior_scale"] == "default [D]"


def test_options_may_mend_what_a_file_has_wrong(tmp_path: Path):
    """The file alone would learn nothing."""
    path = tmp_path / "short.toml"
    path.write_text("total_steps = 100\n")
    config, _ = parse(["--config", str(path), "--warmup-steps", "50", "--batch-size", "50"], "omad train", Options())
    assert (config.total_steps, config.warmup_steps, config.buffer_size) == (100, 50, 100)
    with pytest.raises(UserError, match="warmup_steps is 2500"):
        parse(["--config", str(path)], "omad train", Options())


@pytest.mark.parametrize("algorithm", REGISTRY)
def test_what_is_printed_can_be_read(algorithm: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", algorithm, "--preset", "tiny", "--seeds", "2", "--print-config"]) == 0
    path = tmp_path / "printed.toml"
    path.write_text(capsys.readouterr().out)
    config, _ = parse(["--config", str(path)], "omad train", Options())
    assert config == resolve(algorithm=algorithm, preset="tiny", seeds=2)
    assert "seeds = 2  # given\n" in path.read_text() and list(tmp_path.iterdir()) == [path]


def test_a_run_is_a_file_too(tmp_path: Path):
    config = resolve("probe/push", "hasac", "tiny", buffer_size=300)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    for path in (tmp_path, tmp_path / "config.json"):
        assert parse(["--config", str(path)], "omad bench", bench.Options())[0] == config
    assert "given" not in to_dict(config) and config.given == {"buffer_size": "given"}


def test_a_runs_file_asks_for_no_code_and_is_no_preset(tmp_path: Path):
    """Somebody else's folder may name a module that lies in the working folder."""
    (tmp_path / "config.json").write_text(json.dumps(to_dict(resolve("jax:evil:make", "hasac", "tiny"))))
    for path in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(UserError, match=r"the module evil would be imported and make called.* with --task"):
            parse(["--config", str(path)], "omad train", Options())
    own, _ = parse(["--config", str(tmp_path), "--task", "jax:evil:make"], "omad train", Options())
    assert own.task == "jax:evil:make"
    with pytest.raises(UserError, match="--preset is 'paper', which changes nothing"):
        parse(["--config", str(tmp_path), "--task", "probe/push", "--preset", "paper"], "omad train", Options())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sedes = 3", "there is no field 'sedes'; nearest: seeds"),
        ("v_max = 3.0", "there is no field 'v_max'; nearest: algo.v_max"),
        ("[algo]\nv_mx = 3.0", "there is no field 'algo.v_mx'; nearest: algo.v_max"),
        ("[algo]\nseeds = 3", "there is no field 'algo.seeds'"),
        ("given = 3", "there is no field 'given'"),
        ("seeds = '3'", "seeds is '3'; it must be a whole number"),
        ("seeds = 1979-05-27", "seeds is .*; it must be a whole number"),
        ("algo = 3", "algo is 3; it must be a table"),
        ("algorithm = 'omd'", "no algorithm 'omd'; nearest: omad"),
        ("algorithm = 3", "algorithm is 3; it must be a word"),
        ("seeds = ", "is not TOML"),
        ("[a.b\n", "is not TOML"),
        pytest.param(f"seeds = {'1' * 5000}", "is not TOML", id="thousands of digits"),
    ],
)
def test_a_wrong_file_gets_one_sentence(text: str, said: str, file: Path):
    file.write_text(text)
    with pytest.raises(UserError, match=said) as error:
        read(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_a_file_of_another_algorithm_says_so(file: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", "hatd3", "--config", str(file)]) == 2
    assert "there is no field 'algo.v_max'" in capsys.readouterr().err
    assert main(["train", "--config", "/nowhere.toml"]) == 2
    assert "There is no file /nowhere.toml" in capsys.readouterr().err
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not TOML"):
        read(file)
    file.with_suffix(".json").write_text("[1]")
    with pytest.raises(UserError, match="cannot be used"):
        read(file.with_suffix(".json"))


@pytest.mark.parametrize(
    ("fields", "due"),
    [
        ({}, {"symmetry": "preset cpu: [M] spread-3 at 200k env steps", "gamma": "preset cpu", "tau": "default [?]"}),
        ({"total_steps": 5_000, "reward_norm": "return"}, {
            "buffer_size": "derived: no larger than total_steps", "v_max": "derived: reward_bound",
        }),
        ({"total_steps": 100_000, "buffer_size": 200_000}, {"buffer_size": "given"}),
        ({"batch_size": 128}, {"batch_size": "given"}),
    ],
)  # fmt: skip
def test_every_value_has_its_source(fields: dict[str, Any], due: dict[str, str]):
    config = resolve("mpe/spread-3", **fields)
    found = sources(config)
    assert set(found) == {*to_dict(config)} - {"algo"} | {*to_dict(config)["algo"]}
    for name, begin in due.items():
        assert found[name].startswith(begin), (name, found[name])
    # What was given is not known of a configuration from a file, but what neither preset nor default explains is.
    bare = sources(dataclasses.replace(config, given={}))
    assert all(bare[name].startswith(begin) for name, begin in due.items() if name not in ("batch_size", "buffer_size"))
    assert read_back(config) == config


def read_back(config: Any) -> Any:
    import tomllib

    values = tomllib.loads(to_toml(config))
    plain = {k: v for k, v in (values | values["algo"]).items() if k != "algo" and v != "none"}
    return resolve(**plain | {k: v for k, v in values.items() if k in ("obs_norm", "reward_norm")})


def test_a_field_that_is_none_is_written_as_it_is_read(tmp_path: Path):
    """A preset would set it otherwise."""
    task = "mamujoco-full/halfcheetah-2x3"
    config = resolve(task, preset="efficient", target_run_end=None)
    assert config.algo.target_run_end is None and resolve(task, preset="efficient").algo.target_run_end == 5.5
    (tmp_path / "a.toml").write_text(to_toml(config))
    given = read(tmp_path / "a.toml")
    assert given["target_run_end"] is None and given["obs_norm"] == "running"
    assert resolve(**given) == config
    (tmp_path / "b.toml").write_text('gamma = "none"\n')
    with pytest.raises(UserError, match="there is no field 'gamma'"):
        read(tmp_path / "b.toml")
    (tmp_path / "b.toml").write_text('[algo]\ngamma = "none"\n')
    with pytest.raises(UserError, match="gamma is 'none'; it must be a number"):
        read(tmp_path / "b.toml")


def test_help_has_groups_and_a_legend(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["train", "--preset", "tiny", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    groups = ("computing", "run", "evaluation", "records", "env", "algorithm")
    places = [text.index(f" {group} options ") for group in groups]
    assert places == sorted(places)
    assert places[2] < text.index("--eval-every INT") < places[3] < text.index("--save-every INT") < places[4]
    assert "[D] DIME's code" in text[: places[0]] and "%%" not in text


@pytest.mark.parametrize("words", ["train --preset tiny --run-dir {}", "bench --preset tiny", "eval {}", "resume {}"])
def test_an_unknown_device_is_refused_before_anything_is_made(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([*words.format(tmp_path / "run").split(), "--device", "gpus"]) == 2
    assert "--device is 'gpus'; nearest: gpu; allowed: cpu, gpu, cuda, rocm, tpu" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch):
    import jax

    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    here = jax.default_backend()
    other = "tpu" if here != "tpu" else "cpu"
    with pytest.raises(UserError, match=f"--device is '{other}', but JAX"):
        use_device(other)
    use_device(None)
    assert jax.default_backend() == here


def test_a_missing_extra_is_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(extras, "installed", lambda module: False)
    folder = str(tmp_path / "run")
    for words, extra in (
        (["train", "--task", "mamujoco-full/ant-2x4", "--preset", "tiny", "--run-dir", folder], "mujoco"),
        (["train", "--task", "pettingzoo:a:b", "--preset", "tiny", "--v-max", "3", "--run-dir", folder], "pettingzoo"),
    ):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert f"pip install 'omad[{extra}]'" in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_completion(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for shell in ("bash", "zsh", "fish"):
        assert main(["--print-completion", shell]) == 0
        text = capsys.readouterr().out
        assert all(command in text for command in COMMANDS)
        options = ("total-steps", "v-max", "print-config", "actor-width", "device", "no-compilation-cache")
        assert all(option in text for option in options) and "computing" not in text
    assert main(["--print-completion", "ksh"]) == 2
    assert "allowed: bash, zsh, fish" in capsys.readouterr().err
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    main(["--print-completion=bash"])
    script = tmp_path / "omad.bash"
    script.write_text(capsys.readouterr().out)
    subprocess.run(["bash", "-n", str(script)], check=True)

    def completed(*words: str) -> list[str]:
        typed = " ".join(f"'{word}'" for word in words)
        code = f'. {script}; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _omad; echo "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("omad", "tr") == ["train"]
    assert completed("omad", "train", "ha") == ["hasac", "hatd3"]
    assert completed("omad", "train", "--total") == ["--total-steps"]
    assert completed("omad", "train", "--preset", "") == ["cpu", "efficient", "paper", "matched", "tiny"]
    assert "mpe/spread-3" in completed("omad", "bench", "--task", "mpe/sp")
    assert completed("omad", "eval", "--whi") == ["--which"]
