"""The memory forecast against what a run's process takes at its peak, with and without compiled programs at hand."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import omad
from omad import experiment as experiments
from omad.commands import resume
from omad.config import resolve
from omad.errors import UserError
from omad.experiment import Experiment
from omad.loop.build import forecast

ROBOT = "mamujoco-full/halfcheetah-2x3"
PROGRAM = """
import json, sys
from pathlib import Path
from omad.config import resolve
from omad.experiment import Experiment
from omad.loop.build import forecast

task, algorithm, path, fields = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
config = resolve(task, algorithm, **fields)
experiment = Experiment(config, loggers=())
need = forecast(config, experiment.built)
experiment.start(path)
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
print(json.dumps(need | {"peak": peak}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize(
    ("algorithm", "task", "steps"),
    [
        *((algorithm, "mpe/spread-3", 2_800) for algorithm in ("omad", "hasac", "hatd3", "madpmd", "masdac")),
        ("hatd3", "mpe/spread-3", 300_000),
        *((algorithm, ROBOT, 2_800) for algorithm in ("omad", "hasac", "hatd3", "madpmd", "masdac")),
    ],
)
def test_a_run_takes_what_was_forecast_within_a_quarter(tmp_path: Path, algorithm: str, task: str, steps: int) -> None:
    """Cold: with the compiler on top. Warm: the same run again, with the programs of the first."""
    if task == ROBOT:
        pytest.importorskip("mujoco")
    fields = {"total_steps": steps, "buffer_size": steps, "warmup_steps": steps - 300, "eval_every": steps}
    fields |= {"eval_episodes": 2} if task == ROBOT else {}
    for start in ("cold", "warm"):
        words = [task, algorithm, str(tmp_path / start), json.dumps(fields)]
        env = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
        # Peaks are those of programs as users compile them, whatever this run of tests compiles its own with.
        for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE", "XLA_FLAGS", "CHECKED_MODULES"):
            env.pop(name, None)
        made = subprocess.run([sys.executable, "-c", PROGRAM, *words], env=env, check=True, capture_output=True)
        found = json.loads(made.stdout.splitlines()[-1])
        need = found["total"] - found.get("workers", 0.0) + (found["compiler"] if start == "cold" else 0.0)
        assert need == pytest.approx(found["peak"], rel=0.25), (start, found)


def test_a_forecast_counts_every_process_and_the_compiler_apart() -> None:
    """Parts add up; processes side by side have a program each; workers are those of training and of evaluation."""
    config = resolve("probe/push?host=true", "hatd3", "tiny", env_workers=2)
    experiment = Experiment(config, loggers=())
    one, two = (forecast(dataclasses.replace(config, seeds=n), experiment.built, n) for n in (1, 2))
    parts = {name: value for name, value in one.items() if name not in ("total", "compiler")}
    assert one["total"] == pytest.approx(sum(parts.values()))
    assert two["program"] == 2 * one["program"] and two["compiler"] == 2 * one["compiler"] > 0
    assert one["workers"] == 70.0 * 4 and two["workers"] == 70.0 * 8
    said = experiment.forecast()
    assert f"{one['compiler']:,.0f} MiB more while it compiles" in said and "program 350 MiB" in said
    experiment.close()


def test_a_resume_that_cannot_fit_is_refused_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a smaller machine than the one that it began on; no size of the run can be chosen any more."""
    path = tmp_path / "run"
    omad.train("probe/push", "hatd3", "tiny", total_steps=48, warmup_steps=16, loggers=(), run_dir=path)
    written = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    monkeypatch.setattr(experiments, "available_mib", lambda: (1.0, "a small machine"))
    with pytest.raises(UserError, match="only 1 MiB are free on a small machine; end other programs") as refusal:
        omad.resume(path, total_steps=64)
    assert "--buffer-size" not in str(refusal.value)
    with pytest.raises(UserError, match="a small machine"):
        resume.main([str(path), "--total-steps", "64"])
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == written
    monkeypatch.undo()
    capsys.readouterr()
    assert resume.main([str(path), "--total-steps", "64"]) == 0
    assert "memory forecast" in capsys.readouterr().out
