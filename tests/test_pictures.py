"""`omad demo` and `omad render`: one small run, and all that is drawn of it."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omad import api, config
from omad.cli import main
from omad.commands import demo, render
from omad.errors import EnvFailed, UserError

assert api and demo  # imported before `resolve` is patched, of which they would keep the patched one


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_a_demo_and_its_films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The demo trains, evaluates beside the references and draws; the run it leaves can be filmed."""
    pytest.importorskip("imageio_ffmpeg", reason="films need the extra render")
    run, resolve = tmp_path / "run", config.resolve
    monkeypatch.setattr(config, "resolve", lambda task, **fields: resolve("games/islands-2", "hatd3", "tiny"))
    assert main(["demo", "--run-dir", str(run)]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == str(run) and "random" in said and "memory forecast" in said
    assert min(size_of(run / "curve.png")) > 100 and min(size_of(run / "episode.gif")) > 100

    (tmp_path / "mine").write_text("mine")
    (run / "pictures").mkdir()
    at = f"step-{api.load_policy(run).team.facts.env_steps}"
    for ending in ("mp4", "png", "gif"):  # of somebody else's folder: not to be followed
        (run / "pictures" / f"episode-7-{at}.{ending}").symlink_to(tmp_path / "mine")
    assert main(["render", str(run), "--episodes", "2", "--seed", "7"]) == 0
    assert (tmp_path / "mine").read_text() == "mine"
    said = capsys.readouterr().out
    assert len(re.findall(r"episode [78]: return -?\d+\.\d\d, 1 steps, ", said)) == 2
    assert "mean return of 2 episodes" in said
    films = {path.name for path in (run / "pictures").iterdir()}
    assert films == {f"episode-{name}" for name in (f"7-{at}.mp4", f"8-{at}.mp4", f"7-{at}.png", f"7-{at}.gif")}
    first = (run / "pictures" / f"episode-7-{at}.mp4").read_bytes()
    assert b"ftyp" in first[:16]
    assert main(["render", str(run), "--noise-free", "--seed", "7", "--no-gif", "--which", "best"]) == 0
    assert main(["render", str(run), "--which", "17"]) == 2 and "step 17" in capsys.readouterr().err
    assert (run / "pictures" / f"episode-7-{at}.mp4").read_bytes() == first, "of other actions, so under another name"
    assert (run / "pictures" / f"episode-7-{at}-noise-free.mp4").exists()
    with Image.open(run / "pictures" / f"episode-7-{at}.gif") as film:
        assert getattr(film, "n_frames", 1) == 2

    out = tmp_path / "elsewhere"
    words = ["--max-steps", "1", "--noise-free", "--no-gif", "--out", str(out)]
    assert main(["render", str(run), *words]) == 0
    assert {path.suffix for path in out.iterdir()} == {".mp4", ".png"}
    assert main(["render", str(run), *words]) == 2
    assert f"episode-2000000-{at}-noise-free-first-1.mp4 exists already" in capsys.readouterr().err
    monkeypatch.setattr(render, "installed", lambda module: False)
    assert main(["render", str(run), *words[:-1], str(tmp_path / "third")]) == 0
    assert {path.suffix for path in (tmp_path / "third").iterdir()} == {".gif", ".png"}
    assert "pip install 'omad[render]'" in capsys.readouterr().out


def test_the_name_of_a_film_tells_it_from_others_of_the_run() -> None:
    options = render.Options(Path("run"))
    facts = SimpleNamespace(env_steps=60_000, seed=3)
    assert render._name(options, 5, facts, 3) == "episode-5-step-60000"
    others = dataclasses.replace(options, noise_free=True, max_steps=9)
    assert render._name(others, 5, facts, 0) == "episode-5-step-60000-training-seed-3-noise-free-first-9"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("no picture", r"^odd: render\(\) returned nothing, no picture \(height, width, 3\).*\.$"),
        ("float picture", r"^odd: render\(\) returned numbers of kind float64.*\.$"),
        ("tuple", r"^odd: step\(\) returned a tuple; it must return an omad StepResult\.$"),
        ("raises", r"^odd: step\(\) failed with ValueError: the motor is on fire \(odd_hosts.py, line \d+\)\.$"),
        ("late padding", r"^odd: step\(\) shows agent 0 the number 7 behind its own.*\.$"),
        ("no display", r"^Nothing can be drawn here without a display \(RuntimeError: an OpenGL platform"),
    ],
)
def test_an_env_on_the_host_that_cannot_be_drawn_is_named_in_a_sentence(
    kind: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "envs"))
    monkeypatch.setenv("MUJOCO_GL", "egl")
    odd_hosts = importlib.import_module("odd_hosts")

    def idle(obs: Any, t: int) -> np.ndarray:
        return np.zeros((2, 1))

    error = UserError if kind == "no display" else EnvFailed  # exit codes 2 and 1, as in every command
    with pytest.raises(error, match=said), render._headless(False):
        render._host_film(odd_hosts.odd(kind), idle, 0, 4)
    assert len(render._host_film(odd_hosts.odd(), idle, 0, 9).frames) == 5


@pytest.mark.parametrize("words", [["--episodes", "0"], ["--seed", "-1"], ["--max-steps", "0"]])
def test_what_cannot_be_drawn_is_refused(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["render", str(tmp_path), *words]) == 2
    assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "ours", "due"),
    [
        (RuntimeError("an OpenGL platform library has not been loaded"), False, UserError),
        (RuntimeError("invalid value for environment variable MUJOCO_GL: foo"), False, UserError),
        (AttributeError("'NoneType' object has no attribute 'glGetError'"), False, UserError),
        (ValueError("the global angle of agent 3 is not a number"), False, ValueError),
        (RuntimeError("OpenGL, said a picture of a task in JAX"), True, RuntimeError),
    ],
)
def test_only_errors_of_drawing_are_taken_for_these(
    error: Exception, ours: bool, due: type[Exception], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(Exception) as raised, render._headless(ours):
        raise error
    assert type(raised.value) is due
