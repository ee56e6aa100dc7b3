"""The command line: what it refuses and how, and what it prints for scripts."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from omad.cli import COMMANDS, answer, main
from omad.console import print_json


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("tain", ("'tain'", "train")),
        ("train omd", ("'omd'", "omad")),
        ("train --task mpe/spred-3", ("'mpe/spred-3'", "mpe/spread-3")),
        ("train --task mpe/spread-11", ("'mpe/spread-11'", "mpe/spread-10")),
        ("train --task mpe/deception-2?adversary=sttic", ("sttic", "static")),
        ("train --preset cpus", ("'cpus'", "cpu, efficient, paper")),
        ("train --batch-size -3", ("batch_size is -3", "at least 1")),
        ("train --n-envs 0", ("n_envs is 0", "at least 1")),
        ("train --total-steps 100", ("total_steps is 100", "warmup_steps is 2500", "--total-steps")),
        ("train --batch-size 500 --buffer-size 400", ("batch_size is 500", "buffer_size is 400")),
        ("train --v-max -1", ("v_max is -1", "positive")),
        ("train --atoms 1", ("atoms is 1", "at least 2")),
        ("train --gamma 1.5", ("gamma is 1.5", "(0, 1]")),
        ("train --critic-input state", ("critic_input", "mpe/spread-3", "auto")),
        ("eval /nowhere", ("/nowhere", "no such folder")),
        ("resume /nowhere", ("/nowhere", "no such folder")),
        ("latency /nowhere --actions 99999999999", ("--actions is 99999999999", "at most")),
        ("run-bundle /nowhere --timeout inf", ("--timeout is inf",)),
        ("run-bundle /nowhere --episodes 99999999999", ("--episodes is 99999999999", "at most")),
        ("distil /nowhere --out x --updates 99999999999", ("--updates is 99999999999", "at most")),
        ("distil /nowhere --out x --rounds 99999", ("--rounds is 99999", "at most")),
        ("bench --versus '", ("--versus is", "No closing quotation")),
        ("tasks mpe/spred", ("'mpe/spred'", "mpe/spread-")),
    ],
)
def test_bad_input_gets_one_sentence(words: str, said: tuple[str, ...], capsys: pytest.CaptureFixture[str]):
    assert main([*words.split(), *(["--run-dir", "/nowhere/run"] if words.startswith("train") else [])]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" or words.startswith("train --critic-input")
    assert captured.err.startswith("omad: ")
    assert captured.err.count("\n") == 1
    for part in said:
        assert part in captured.err


def test_memory_that_does_not_suffice_is_one_sentence(capsys: pytest.CaptureFixture[str]):
    def fail() -> int:
        raise MemoryError("Unable to allocate 728. TiB")

    assert answer("latency", fail) == 2
    assert capsys.readouterr().err.startswith("omad: There is not enough memory (Unable to allocate 728. TiB)")


def test_an_unknown_field_names_the_nearest(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--tota-steps", "5"])
    assert stop.value.code == 2
    assert "--total-steps" in capsys.readouterr().err


def test_every_default_is_visible_in_help(capsys: pytest.CaptureFixture[str]):
    """The values of task and preset, not those of the dataclass."""
    with pytest.raises(SystemExit) as stop:
        main(["train", "--task", "mpe/spread-4", "--preset", "paper", "--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    text = text[text.index("--help") :]
    for flag, default in (
        ("--task", "mpe/spread-4"), ("--critic-width", "2048"), ("--v-max", "500.0"), ("--total-steps", "3000000"),
        ("--denoising-steps", "8"), ("--seeds", "1"), ("--run-dir", "None"),
    ):  # fmt: skip
        assert text[text.index(f"{flag} ") :].split("(default: ", 1)[1].startswith(f"{default})"), flag


def test_help_is_light():
    """No heavy package is imported to print help."""
    code = (
        "import sys; from omad.cli import main; code = main(['--help']); "
        "heavy = {'jax', 'numpy', 'tyro', 'rich', 'equinox', 'matplotlib'} & set(sys.modules); "
        "sys.exit(code or bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert all(name in done.stdout for name in COMMANDS)


def test_tasks_as_json(capsys: pytest.CaptureFixture[str]):
    assert main(["tasks", "mpe/spread-3", "--json"]) == 0
    (task,) = json.loads(capsys.readouterr().out)
    assert (task["agents"], task["horizon"]) == (3, 25)
    assert {row["policy"]: row["return"] for row in task["published"]}["OMAD"] == -23.9
    assert main(["tasks"]) == 0
    assert "mpe/deception-2" in capsys.readouterr().out


def test_a_run_folder_that_exists_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["train", "--task", "probe/push", "--v-max", "5", "--run-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path} is there, and empty" in error
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["train", "--task", "probe/push", "--v-max", "5", "--run-dir", str(tmp_path)]) == 2
    assert f"continue it with: omad resume {tmp_path}" in capsys.readouterr().err


def test_a_hyperparameter_of_another_algorithm_is_said_to_be_that(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "hatd3", "--task", "probe/push", "--v-max", "5"]) == 2
    assert "hatd3 has no --v-max, which is a hyperparameter of omad; leave it out" in capsys.readouterr().err


READING = {"check-env", "compare", "doctor", "report", "runs", "tasks"}
"""Commands that do not compute with policies."""


@pytest.mark.parametrize("command", sorted({*COMMANDS} - READING))
def test_commands_that_compute_do_so_where_one_asks(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "--device" in said and "--no-compilation-cache" in said


@pytest.mark.parametrize("words", [["--help"], ["tasks"]])
def test_readers_that_have_gone_and_closed_outputs_are_no_failure(words: list[str]):
    """As `omad ... | head` and `omad ... >&-`."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "omad", *words], stdout=write, stderr=subprocess.PIPE, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")
    closed = shlex.join([sys.executable, "-m", "omad", *words]) + " >&-"
    done = subprocess.run(closed, shell=True, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_json_has_no_word_for_numbers_that_are_not_finite(capsys: pytest.CaptureFixture[str]):
    print_json({"mean": float("nan"), "returns": (1.0, float("inf"))})
    assert json.loads(capsys.readouterr().out) == {"mean": None, "returns": [1.0, None]}
