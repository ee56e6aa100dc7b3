"""`omad render RUN`: a video, an animation and a contact sheet of episodes."""

from __future__ import annotations

import contextlib
import ctypes.util
import dataclasses
import functools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import tyro
from PIL import Image

from omad import files
from omad.algos.validate import check
from omad.commands.computing import ANYWHERE, ComputingFlags
from omad.console import console
from omad.envs.contract import Broken, checked_result, guarded, observed, picture
from omad.errors import EnvFailed, UserError
from omad.extras import installed, require
from omad.run.records import standard_error

GIF_FRAMES = 200
"""A GIF holds at most about this many pictures; of a longer episode every n-th is taken."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Draw episodes by the policies of a run; no display is needed.

    Films are MP4; without the extra `render`, which brings their encoder, they are GIFs.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder, as printed by omad train."""
    episodes: int = 1
    """Episodes to draw, from the seeds K, K + 1, ..."""
    seed: int = 2_000_000
    """Seed K of the first episode's start and noise."""
    training_seed: int | None = None
    """Which training seed's policies; by default the first."""
    which: str = "last"
    """Checkpoint: last, best, or its env steps."""
    noise_free: bool = False
    """Noise-free actions instead of sampled ones."""
    max_steps: int | None = None
    """Stop an episode's film after so many steps."""
    out: Path | None = None
    """Folder to write into; by default the run's own, where only the same film as before is written over."""
    gif: bool = True
    """Write a GIF of the first episode."""
    trust: bool = False
    """Import the code of a user's env that the run folder names; only for folders that you trust."""
    computing: ComputingFlags = ANYWHERE


class Film(NamedTuple):
    """One episode in pictures."""

    frames: list[Image.Image]
    total: float
    """Undiscounted team return of what is shown."""
    fps: float
    name: str = "episode"
    """Of its files, without an ending: all that tells it from other films of the run."""


def _acting(policy: Any, options: Options, seed: int, tick: Callable[[], object]) -> Any:
    """(observations, step) -> actions; every step ticks."""
    from omad.keys import Stream, run_key, stream

    root = run_key(seed)

    def act(obs: Any, t: int) -> Any:
        tick()
        return policy.act(obs, None if options.noise_free else stream(root, Stream.EVAL_ACT, t))

    return act


def _jax_film(env: Any, act: Any, seed: int, steps: int) -> Film:
    from omad.envs.draw import play

    return Film(*play(env, act, seed, steps), 10.0)


def _host_film(env: Any, act: Any, seed: int, steps: int) -> Film:
    """As `_jax_film`, of an env on the host.

    Raises:
        Broken: The env fails, or draws no picture; the message names the task.
    """
    try:
        instance = guarded("create()", env.create, True)
        try:
            return _played(instance, env.spec, act, seed, steps)
        finally:
            guarded("close()", instance.close)
    except Broken as error:
        raise Broken(f"{env.spec.name}: {error}") from error.__cause__


def _played(instance: Any, spec: Any, act: Any, seed: int, steps: int) -> Film:
    from omad.envs.draw import labelled

    def drawn(t: int, total: float) -> Image.Image:
        return labelled(picture(guarded("render()", instance.render)), spec.name, t, total)

    seen = observed(guarded("reset()", instance.reset, seed), spec, "reset()")
    frames, total = [drawn(0, 0.0)], 0.0
    for t in range(steps):
        result = guarded("step()", instance.step, np.asarray(act(seen.obs, t), float), seed + t)
        reward, *over = checked_result(result, ())
        seen, total = observed(result.next, spec, "step()"), total + reward
        frames.append(drawn(t + 1, total))
        if any(over):
            break
    return Film(frames, total, 30.0)


_DRAWING = re.compile(r"(?i:opengl|osmesa|glfw|pyglet|gladload|mujoco_gl|\begl|\bglx)|\bgl[A-Z]")
"""In the errors of libraries that find nothing to draw with."""


@contextlib.contextmanager
def _headless(drawn_here: bool) -> Iterator[None]:
    """MuJoCo draws through EGL without a display, else through OSMesa; say what to install if neither works.

    Raises:
        UserError: Nothing can draw here.
        EnvFailed: The env is broken.
    """
    if not drawn_here and sys.platform == "linux" and "MUJOCO_GL" not in os.environ and "mujoco" not in sys.modules:
        can = ctypes.util.find_library
        os.environ["MUJOCO_GL"] = "egl" if can("EGL") or not can("OSMesa") else "osmesa"
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = (error.__cause__ or error) if isinstance(error, Broken) else error
        if drawn_here or not _DRAWING.search(f"{type(cause).__module__} {type(cause).__name__} {cause}"):
            if isinstance(error, Broken):
                raise EnvFailed(f"{error}.") from error
            raise
        raise UserError(
            f"Nothing can be drawn here without a display ({type(cause).__name__}: {cause}). Install a software "
            "renderer (Debian, Ubuntu: apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri, or libosmesa6) "
            "or set MUJOCO_GL."
        ) from error


def films(
    options: Options,
    tick: Callable[[], object] = lambda: None,
    begin: Callable[[list[str]], object] = lambda names: None,
) -> Iterator[Film]:
    """One film an episode.

    Args:
        options: What to draw.
        tick: Called before every step, for whoever shows progress.
        begin: Called with the films' names before anything is drawn.

    Raises:
        UserError: The run cannot be read, its task cannot be drawn, or there is nothing to draw with.
    """
    from omad import envs, tasks
    from omad.api import load_policy
    from omad.envs.draw import draws
    from omad.run.folder import RunFolder
    from omad.saved import which_of
    from omad.trust import refuse_changed, refuse_foreign
    from omad.types import JaxEnv

    if options.episodes < 1 or not 0 <= options.seed < 2**31 - options.episodes or (options.max_steps or 1) < 1:
        raise UserError("--episodes and --max-steps must be at least 1, and --seed from 0 to 2147483647 less episodes.")
    folder = RunFolder.open(options.run)
    refuse_foreign(folder.config.task, folder.path, options.trust)
    task = tasks.find(folder.config.task)
    ours = bool(task.obs_dims) and not task.hosted  # drawn by this package itself, without a renderer
    with _headless(ours):
        env = envs.make(task.name, folder.config.env_timeout)
        if isinstance(env, JaxEnv) and not draws(env):
            raise UserError(
                f"{task.name} draws nothing of itself, so there is nothing to see; tasks of mpe, games and mamujoco "
                "can be drawn, PettingZoo envs and HostEnvs that render, and a JaxEnv that has a picture."
            )
        refuse_changed(folder, env.spec)
        policy = load_policy(options.run, options.training_seed, which_of(options.which))
        steps = min(options.max_steps or env.spec.horizon, env.spec.horizon)
        names = [_name(options, seed, policy.team.facts, folder.config.first_seed) for seed in _seeds(options)]
        begin(names)
        play = _jax_film if isinstance(env, JaxEnv) else _host_film
        for seed, name in zip(_seeds(options), names, strict=True):
            yield play(env, _acting(policy, options, seed, tick), seed, steps)._replace(name=name)


def _seeds(options: Options) -> range:
    return range(options.seed, options.seed + options.episodes)


def _name(options: Options, seed: int, facts: Any, first_seed: int) -> str:
    """Of an episode's files: its seed, the env step of the policies, and what is not as by default."""
    parts = [f"episode-{seed}", f"step-{facts.env_steps}"]
    if facts.seed != first_seed:
        parts.append(f"training-seed-{facts.seed}")
    if options.noise_free:
        parts.append("noise-free")
    if options.max_steps is not None:
        parts.append(f"first-{options.max_steps}")
    return "-".join(parts)


def write_mp4(film: Film, path: Path) -> None:
    """An H.264 film.

    Raises:
        UserError: The package with the encoder is not installed.
    """
    require("render", "A film")
    import imageio_ffmpeg

    width, height = film.frames[0].size
    even = (width - width % 2, height - height % 2)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{even[0]}x{even[1]}", "-r", f"{film.fps:g}", "-i", "-"]
    coded = ["-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", "-movflags", "+faststart", str(path)]
    encoder = imageio_ffmpeg.get_ffmpeg_exe()
    with subprocess.Popen([encoder, "-y", "-loglevel", "error", *raw, *coded], stdin=subprocess.PIPE) as process:
        pipe = process.stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended; its exit code says so
            for frame in film.frames:
                pipe.write(np.ascontiguousarray(np.asarray(frame.crop((0, 0, *even)))).tobytes())
            pipe.close()
    if process.returncode:
        raise OSError(f"the video encoder ended with {process.returncode} while it wrote {path}")


def write_gif(film: Film, path: Path) -> None:
    """An animation of the same, thinned if it is long."""
    every = -(-len(film.frames) // GIF_FRAMES)
    frames = [frame.quantize(128, dither=Image.Dither.NONE) for frame in film.frames[::every]]
    duration = max(20, round(1000 * every / film.fps))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=duration, loop=0)


def main(arguments: Sequence[str]) -> int:
    """Draw, write, and print each episode's return."""
    options = tyro.cli(Options, prog="omad render", args=list(arguments))
    check(options, counts=("episodes", "max_steps"), not_negative=("seed", "training_seed"), flags=True)
    options.computing.prepare()
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    out = console()
    folder = options.out or options.run / "pictures"
    columns = TextColumn("drawing step", markup=False), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        steps = progress.add_task("draw", total=None)
        return _write_all(options, folder, out, lambda: progress.advance(steps))


def _put(write: Callable[[Path], object], path: Path, root: Path | None) -> None:
    """Have a file written elsewhere and put it in its place."""
    with tempfile.TemporaryDirectory(prefix="omad-render-") as place:
        made = Path(place, path.name)
        write(made)
        files.write_bytes(path, made.read_bytes(), root)


def _write_all(options: Options, folder: Path, out: Any, tick: Callable[[], object]) -> int:
    from omad.envs.draw import contact_sheet

    # No link of a run folder is followed; a folder of the user's choice is his own.
    root = None if options.out else options.run
    returns = []
    coded = installed("imageio_ffmpeg")
    kind, write = (".mp4", write_mp4) if coded else (".gif", write_gif)

    def begin(names: list[str]) -> None:
        for path in (folder / f"{name}{ending}" for name in names for ending in (".mp4", ".gif", ".png")):
            if options.out is not None and path.exists():
                raise UserError(f"{path} exists already; give another --out or --seed.")
        if not coded:
            out.print("films are GIFs, for there is no encoder of MP4: pip install 'omad[render]'")

    for i, film in enumerate(films(options, tick, begin)):
        if root is None:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            files.make_folder(folder, root)
        seed = options.seed + i
        path = folder / f"{film.name}{kind}"
        _put(functools.partial(write, film), path, root)
        out.print(f"episode {seed}: return {film.total:.2f}, {len(film.frames) - 1} steps, {path}")
        if i == 0:
            sheet = path.with_suffix(".png")
            _put(functools.partial(contact_sheet(film.frames).save, optimize=True), sheet, root)
            out.print(f"contact sheet: {sheet}")
            if options.gif and coded:
                animation = path.with_suffix(".gif")
                _put(functools.partial(write_gif, film), animation, root)
                out.print(f"animation: {animation}")
        returns.append(film.total)
    if len(returns) > 1:
        out.print(f"mean return of {len(returns)} episodes: {np.mean(returns):.2f} ± {standard_error(returns):.2f}")
    return 0
