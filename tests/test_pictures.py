"""`omad demo` and `omad render`: one small run, and all that is drawn of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from omad import api, config
from omad.cli import main
from omad.commands import demo, render
from omad.errors import UserError

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
    for name in ("episode-7.mp4", "episode-7.png", "episode-7.gif"):  # of somebody else's folder: not to be followed
        (run / "pictures" / name).symlink_to(tmp_path / "mine")
    assert main(["render", str(run), "--episodes", "2", "--seed", "7"]) == 0
    assert (tmp_path / "mine").read_text() == "mine"
    said = capsys.readouterr().out
    assert len(re.findall(r"episode [78]: return -?\d+\.\d\d, 1 steps, ", said)) == 2
    assert "mean return of 2 episodes" in said
    films = {path.name for path in (run / "pictures").iterdir()}
    assert films == {"episode-7.mp4", "episode-8.mp4", "episode-7.png", "episode-7.gif"}
    assert b"ftyp" in (run / "pictures" / "episode-7.mp4").read_bytes()[:16]
    with Image.open(run / "pictures" / "episode-7.gif") as film:
        assert getattr(film, "n_frames", 1) == 2

    out = tmp_path / "elsewhere"
    words = ["--max-steps", "1", "--noise-free", "--no-gif", "--out", str(out)]
    assert main(["render", str(run), *words]) == 0
    assert {path.suffix for path in out.iterdir()} == {".mp4", ".png"}
    monkeypatch.setattr(render, "installed", lambda module: False)
    assert main(["render", str(run), *words[:-1], str(tmp_path / "third")]) == 0
    assert {path.suffix for path in (tmp_path / "third").iterdir()} == {".gif", ".png"}
    assert "pip install 'omad[render]'" in capsys.readouterr().out


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
