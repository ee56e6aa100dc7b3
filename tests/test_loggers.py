"""Loggers, called by hand: what is written, and what a resumed run writes again."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from omad import api
from omad.config import resolve, to_dict
from omad.loggers import Csv, Evaluation, Logger, Progress, RunInfo, TensorBoard, Wandb
from omad.loggers.console import Console
from omad.loggers.json_lines import JsonLines


def info(path: Path, env_steps: int = 0) -> RunInfo:
    return RunInfo(path, to_dict(resolve("probe/push", seeds=2)), {"loggers": ["TensorBoard"]}, (0, 1), env_steps)


def evaluation(env_steps: int, seed: int = 0) -> Evaluation:
    return Evaluation(env_steps, seed, "sampled", 7, np.asarray([1.0, 2.0]), {"hits": 0.5})


def log_to(logger: Logger, run: RunInfo, steps: tuple[int, ...]) -> None:
    logger.start(run)
    for step in steps:
        for seed in (0, 1):
            logger.metrics(step, seed, {"critic/loss": float(step + seed), "gradient_steps": step})
            logger.evaluation(evaluation(step, seed))
    logger.event("note", steps[-1], "said")
    logger.picture(steps[-1], 0, np.zeros((4, 6, 3), np.uint8))
    logger.close()


def test_tables_hold_every_row_once(tmp_path: Path) -> None:
    """Rows beyond the checkpoint are written again by a resumed run; a name with a comma stays one cell."""
    logger = Csv()
    log_to(logger, info(tmp_path), (10, 20, 30))
    log_to(Csv(), info(tmp_path, 20), (30, 40))
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert rows[0] == "step,seed,name,value"
    steps = [int(row.split(",")[0]) for row in rows[1:]]
    assert steps == sorted(steps) and {step: steps.count(step) for step in steps} == dict.fromkeys((10, 20, 30, 40), 4)
    assert "30,1,critic/loss,31.0" in rows
    rows = (tmp_path / "evaluations.csv").read_text().splitlines()
    assert rows[:3] == ["step,seed,actions,episode,return", "10,0,sampled,0,1.0", "10,0,sampled,1,2.0"]
    assert len(rows) == 1 + 4 * 2 * 2
    with (tmp_path / "metrics.csv").open("ab") as out:
        out.write(b"\xff,0,x\n20,0,critic/loss\n20")  # damaged, and cut off
    log_to(Csv(), info(tmp_path, 40), (50,))
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(step) for step in (10, 20, 30, 40, 50) for _ in range(4)]
    logger.start(info(tmp_path / ".."))
    logger.metrics(1, 0, {"a,b": 1.0})
    logger.close()
    assert '1,0,"a,b",1.0' in (tmp_path.parent / "metrics.csv").read_text()


@pytest.mark.parametrize(
    ("value", "kept"),
    [(-1234.56789, -1234.5679), (2e-5, 2e-5), (-3.1415927e-7, -3.141593e-7), (0.0, 0.0), (0.99999999, 1.0)],
)
def test_returns_are_kept_to_four_decimals_and_small_ones_to_seven_digits(value: float, kept: float) -> None:
    """Some envs pay per unit; whatever they return, single precision has no more digits."""
    written: list[dict[str, Any]] = []
    run: Any = MagicMock(write=lambda _, line: written.append(line))
    JsonLines(run).evaluation(Evaluation(0, 0, "sampled", 0, np.array([value]), {}))
    assert written[0]["returns"] == [kept]


def test_event_files_hold_scalars_configuration_and_hyperparameters(tmp_path: Path) -> None:
    make_event: Any = importlib.import_module("tensorboardX.proto.event_pb2")
    log_to(TensorBoard(), info(tmp_path), (10, 20))
    tags: set[str] = set()
    numbers: dict[tuple[str, int], float] = {}
    assert any(b"episode" in path.read_bytes() and b"PNG" in path.read_bytes() for path in tmp_path.glob("tb/seed-0/*"))
    for path in (tmp_path / "tb" / "seed-1").iterdir():
        data = path.read_bytes()
        while data:  # a length, its checksum, the record, its checksum
            size = int.from_bytes(data[:8], "little")
            record, data = make_event.Event.FromString(data[12 : 12 + size]), data[16 + size :]
            tags |= {value.tag for value in record.summary.value}
            numbers |= {
                (one.tag, record.step): one.simple_value
                for one in record.summary.value
                if one.WhichOneof("value") == "simple_value"
            }
    means = {("eval/return", 10): 1.5, ("eval/return", 20): 1.5, ("eval/hits", 10): 0.5, ("eval/hits", 20): 0.5}
    counts = {("gradient_steps", 10): 10.0, ("gradient_steps", 20): 20.0}
    losses = {("critic/loss", 10): 11.0, ("critic/loss", 20): 21.0}
    assert {at: numbers.get(at) for at in losses | counts | means} == losses | counts | means
    assert any(tag.startswith("config") for tag in tags) and any("hparams" in tag for tag in tags)


def test_what_was_saved_with_a_checkpoint_is_not_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points of the very step are complete, and not written again; TensorBoard drops those from the given step on."""
    given: list[int] = []
    monkeypatch.setattr(
        "tensorboardX.SummaryWriter", lambda *_, purge_step, **__: given.append(purge_step) or MagicMock()
    )
    for steps in (0, 20):
        TensorBoard().start(info(tmp_path, steps))
    assert given == [0, 0, 21, 21]


def test_a_run_ends_with_a_picture_for_those_who_take_one(tmp_path: Path) -> None:
    class Album(Logger):
        def picture(self, env_steps: int, seed: int, image: np.ndarray) -> None:
            found.append((env_steps, seed, image))

    found: list[tuple[int, int, np.ndarray]] = []
    api.train("games/islands-2", "hatd3", "tiny", loggers=[Album(), Logger()], run_dir=tmp_path / "run")
    [(env_steps, seed, image)] = found
    assert (env_steps, seed) == (resolve("games/islands-2", "hatd3", "tiny").total_steps, 0)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and len(np.unique(image)) > 20


def test_weights_and_biases_goes_on_with_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a module that notes what it is asked for: the id is kept, seeds do not mix, nothing is there twice."""

    class Fake:
        calls: list[Any] = []  # noqa: RUF012
        id, summary, starting_step = "abc123", {}, 0

        def init(self, **options: Any) -> Fake:
            self.calls.append(options)
            return self

        def define_metric(self, *names: Any, **options: Any) -> None:
            del names, options

        def log(self, values: dict[str, Any], step: int) -> None:
            assert step == values["env_steps"]
            self.calls.append(values)

        def Image(self, image: Any) -> str:
            return f"a picture {image.shape}"

        def finish(self) -> None:
            self.calls.append("finish")

    fake = Fake()
    monkeypatch.setitem(__import__("sys").modules, "wandb", fake)
    log_to(Wandb(project="p", mode="offline"), info(tmp_path), (10,))
    fake.starting_step = 11  # killed after 10 env steps, whose checkpoint was at 0
    log_to(Wandb(project="p", mode="offline"), info(tmp_path), (10, 20))
    begun = [call for call in fake.calls if isinstance(call, dict) and "project" in call]
    assert [call["id"] for call in begun] == [None, "abc123"] and begun[0]["mode"] == "offline"
    assert json.loads((tmp_path / "wandb.json").read_text()) == {"id": "abc123"}
    assert {"env_steps": 10, "seed-1/critic/loss": 11.0, "seed-1/gradient_steps": 10} in fake.calls
    assert {"env_steps": 20, "episode": "a picture (4, 6, 3)"} in fake.calls
    logged = [call["env_steps"] for call in fake.calls if isinstance(call, dict) and "seed-1/critic/loss" in call]
    assert logged == [10, 20]
    assert fake.calls.count("finish") == 2 and fake.summary["note"] == "20: said"


@pytest.mark.slow
def test_weights_and_biases_itself_offline(tmp_path: Path) -> None:
    """In a process of its own, for the package keeps one running for as long as its user lives."""
    pytest.importorskip("wandb", reason="Weights & Biases is not installed: pip install 'omad[wandb]'")
    program = (
        "import sys; from pathlib import Path; from test_loggers import info, log_to; from omad.loggers import Wandb\n"
        "path = Path(sys.argv[1])\n"
        "log_to(Wandb(project='p', mode='offline'), info(path), (10,)); first = (path / 'wandb.json').read_text()\n"
        "log_to(Wandb(project='p', mode='offline'), info(path, 10), (20,))\n"
        "assert (path / 'wandb.json').read_text() == first\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = os.environ | {"WANDB_SILENT": "true", "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=120, env=environment)
    kept = json.loads((tmp_path / "wandb.json").read_text())["id"]
    assert list((tmp_path / "wandb").glob(f"offline-run-*-{kept}"))


def test_the_console_names_the_folder_and_fits_eighty_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = Console()
    logger.start(info(tmp_path))
    last = {"eval/return": -1234.5678, "eval/return_se": 12.345, "alpha/value": 0.123}
    logger.progress(Progress(10_000, 1_000_000, 1234.5, 617.2, 3600.0, last, "eval"))
    logger.event("note", 10_000, "a note")
    logger.close()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"run folder {tmp_path}; watch it with: tensorboard --logdir {tmp_path / 'tb'}")
    assert said[0].endswith(" (pip install tensorboard)") == (importlib.util.find_spec("tensorboard") is None)
    assert "return -1234.57 ± 12.35" in said[1] and said[2] == "a note"
    from omad.loggers.console import _short

    live = _short(Progress(2_999_000, 3_000_000, 12_345.6, 0.0, 36_000.0, last, "run"))
    assert len("2,999,000/3,000,000 ") + 8 + 1 + len(live) <= 80
