"""Pictures of one episode: of a particle task, a game, or an env that draws itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from omad.envs import contract
from omad.envs.contract import Broken, guarded
from omad.envs.frame_stack import env_state
from omad.envs.mpe import COVER_RADIUS
from omad.envs.particles import AGENT_RADIUS, MpeState
from omad.errors import UserError
from omad.keys import Stream, run_key, stream
from omad.tasks import GAME_MODES
from omad.types import EnvState, JaxEnv

Colour = tuple[int, int, int]

FIELD = 480
"""Side of the drawn square, pixels."""
HEADER = 56
"""Height of the text above it, pixels."""
LEAST_WIDTH = 320
"""Width of the narrowest frame that has room for its line of text, pixels."""
SMOOTH = 3
"""Pixels are drawn this much finer and then averaged."""

PAPER: Colour = (250, 250, 247)
LINE: Colour = (229, 229, 223)
EDGE: Colour = (196, 196, 190)
INK: Colour = (38, 40, 46)
FAINT: Colour = (112, 115, 122)
LANDMARK: Colour = (70, 74, 82)
GOAL: Colour = (34, 153, 84)
ADVERSARY: Colour = (206, 52, 46)
TOUCH: Colour = (206, 52, 46)
AGENTS: tuple[Colour, ...] = (
    (43, 108, 176),
    (221, 132, 30),
    (122, 81, 176),
    (20, 148, 148),
    (199, 80, 138),
    (122, 134, 40),
    (92, 160, 214),
    (140, 94, 60),
    (88, 98, 190),
    (90, 164, 98),
)


class _Episode(NamedTuple):
    """An episode as plain arrays; time first."""

    pos: np.ndarray
    landmarks: np.ndarray
    goal: int
    returns: np.ndarray
    team: int
    """Index of the first body that learns: 1 where body 0 is the adversary."""
    extent: float
    """Half the side of the drawn square, world units."""
    title: str


def draws(env: JaxEnv) -> bool:
    """Whether an episode of a JAX env can be drawn."""
    return env.picture is not None or env.spec.name.startswith(("mpe/", "games/"))


def frames_of(
    env: JaxEnv, states: Sequence[EnvState], actions: Sequence[np.ndarray], rewards: Sequence[float]
) -> list[Image.Image]:
    """The pictures of an episode of an env that `draws`, one a state.

    Args:
        env: The env.
        states: The reset state first.
        actions: `(agent, act)` in [-1, 1], one fewer than states.
        rewards: Of the team, as many as actions.

    Raises:
        UserError: What the env draws is no picture.
    """
    totals = np.concatenate([[0.0], np.cumsum(np.asarray(rewards, float))])
    name = env.spec.name
    if env.picture is not None:
        try:
            pictures = [contract.picture(guarded("picture()", env.picture, state)) for state in states]
        except Broken as error:
            raise UserError(f"{name}: {error}.") from error
        return [labelled(image, name, t, totals[t]) for t, image in enumerate(pictures)]
    if name.startswith("games/"):
        return [labelled(_square(action), name, t, totals[t]) for t, action in enumerate([None, *actions])]
    stacked = jax.tree.map(lambda *rows: np.stack(rows), *states)
    return episode_frames(stacked, rewards, title=f"{name}, return {totals[-1]:.1f}")


def play(env: JaxEnv, act: Callable[[Any, int], Any], seed: int, steps: int) -> tuple[list[Image.Image], float]:
    """An episode of an env that `draws`, in pictures, and its undiscounted team return.

    Args:
        env: The env.
        act: (observations, step) -> actions in [-1, 1].
        seed: Of the initial state and the env's own draws.
        steps: At most so many.
    """
    root = run_key(seed)
    state, observation = jax.jit(env.reset)(stream(root, Stream.EVAL_RESET, 0))
    step = jax.jit(env.step)
    states, actions, rewards = [state], [], []
    for t in range(steps):
        action = act(observation.obs, t)
        state, outcome = step(state, action, stream(root, Stream.EVAL_ENV, t))
        observation = outcome.next
        states.append(state)
        actions.append(np.asarray(action))
        rewards.append(float(outcome.reward))
        if outcome.terminated or outcome.truncated:
            break
    return frames_of(env, states, actions, rewards), float(np.sum(rewards))


def contact_sheet(frames: Sequence[Image.Image], columns: int = 4, width: int = 320) -> Image.Image:
    """At most eight evenly spaced frames of an episode, the first and the last among them, as one picture."""
    times = sorted({round(t) for t in np.linspace(0, len(frames) - 1, 8)})
    first = frames[0]
    size = (width, round(width * first.height / first.width))
    columns = min(columns, len(times))
    rows = -(-len(times) // columns)
    sheet = Image.new("RGB", (columns * (size[0] + 8) + 8, rows * (size[1] + 8) + 8), (250, 250, 247))
    for place, time in enumerate(times):
        row, column = divmod(place, columns)
        tile = frames[time].resize(size, Image.Resampling.LANCZOS)
        sheet.paste(tile, (8 + column * (size[0] + 8), 8 + row * (size[1] + 8)))
    return sheet


def labelled(picture: np.ndarray, name: str, step: int, total: float) -> Image.Image:
    """A picture with a line of text above it; sides are even, as video encoders want them.

    A picture too narrow to read that line is magnified a whole number of times; a name too long for it is cut off.
    """
    drawn = Image.fromarray(picture)
    drawn = drawn.resize([side * -(-LEAST_WIDTH // drawn.width) for side in drawn.size], Image.Resampling.NEAREST)
    image = Image.new("RGB", (drawn.width + drawn.width % 2, drawn.height + drawn.height % 2 + 32), PAPER)
    image.paste(drawn, (0, 32))
    font, rest = ImageFont.load_default(14), f"   step {step}   return {total:.1f}"
    lengths = range(len(name), -1, -1)
    texts = (name[:kept] + "…" * (kept < len(name)) + rest for kept in lengths)
    text = next((text for text in texts if font.getlength(text) <= image.width - 16), rest)
    ImageDraw.Draw(image).text((8, 8), text, INK, font)
    return image


def _square(action: np.ndarray | None) -> np.ndarray:
    """A game's square with rings around its good points, and the point of each agent once it is chosen."""
    size, scale = FIELD * SMOOTH, FIELD * SMOOTH / 2.2
    image = Image.new("RGB", (size, size), PAPER)
    draw = ImageDraw.Draw(image)

    def disc(x: float, y: float, radius: float, fill: Colour | None, edge: Colour) -> None:
        middle = (size / 2 + scale * x, size / 2 - scale * y)
        corners = [part + sign * radius * scale for sign in (-1, 1) for part in middle]
        draw.ellipse(corners, fill, edge, 2 * SMOOTH)

    edge = size / 2 - scale, size / 2 + scale
    draw.rectangle((edge[0], edge[0], edge[1], edge[1]), outline=EDGE, width=SMOOTH)
    for x, y in GAME_MODES:
        disc(x, y, 0.12, None, GOAL)
    for i, row in enumerate([] if action is None else np.clip(np.asarray(action, float), -1, 1)):
        disc(row[0], row[1], 0.05, AGENTS[i % len(AGENTS)], INK)
    return np.asarray(image.resize((FIELD, FIELD), Image.Resampling.LANCZOS))


def episode_frames(
    states: EnvState, rewards: Sequence[float] | np.ndarray | None, *, title: str = ""
) -> list[Image.Image]:
    """The pictures of an episode of a particle task, one a state.

    Agents are coloured discs with the trail of where they were, landmarks are small dark discs. In `spread` a
    landmark that an agent covers has a white ring, and an agent that touches another a red edge; in
    `deception` the goal has a green ring and the adversary is red.

    Args:
        states: Env states stacked over time, the reset state first.
        rewards: Team rewards, one fewer than states; None to write no return.
        title: Above the picture.
    """
    episode = _episode(states, rewards, title)
    return [_with_header(_field(episode, time), episode, time) for time in range(len(episode.pos))]


def _episode(states: EnvState, rewards: Sequence[float] | np.ndarray | None, title: str) -> _Episode:
    world: MpeState = env_state(states)
    pos = np.asarray(world.pos, float)
    if pos.ndim != 3:
        raise ValueError(f"States must be stacked over time and of one episode; positions have shape {pos.shape}.")
    landmarks = np.asarray(world.landmarks, float)[0]
    returns = np.zeros(0)
    if rewards is not None:
        returns = np.concatenate([[0.0], np.cumsum(np.asarray(rewards, float))])
        if len(returns) != len(pos):
            raise ValueError(f"{len(pos)} states need {len(pos) - 1} rewards, {len(returns) - 1} were given.")
    # There are as many landmarks as learning agents, so one body more is an adversary.
    team = pos.shape[1] - len(landmarks)
    reach = max(float(np.abs(points).max()) for points in (pos, landmarks)) + AGENT_RADIUS
    return _Episode(
        pos=pos,
        landmarks=landmarks,
        goal=int(np.asarray(world.goal).reshape(-1)[0]) if team else -1,
        returns=returns,
        team=team,
        extent=max(1.2, reach + 0.05),
        title=title,
    )


def _field(episode: _Episode, time: int) -> Image.Image:
    """The drawn square at one step."""
    size = FIELD * SMOOTH
    image = Image.new("RGB", (size, size), PAPER)
    draw = ImageDraw.Draw(image)
    scale = size / (2 * episode.extent)

    def pixel(point: np.ndarray) -> tuple[float, float]:
        return size / 2 + scale * float(point[0]), size / 2 - scale * float(point[1])

    def disc(
        point: np.ndarray, radius: float, fill: Colour | None, edge: Colour | None = None, width: float = 0
    ) -> None:
        x, y = pixel(point)
        r = radius * scale
        draw.ellipse((x - r, y - r, x + r, y + r), fill, edge, round(width * SMOOTH))

    most = int(episode.extent / 0.5)
    for tick in 0.5 * np.arange(-most, most + 1):
        x, y = pixel(np.asarray([tick, tick]))
        draw.line((x, 0, x, size), LINE, SMOOTH)
        draw.line((0, y, size, y), LINE, SMOOTH)
    (left, top), (right, bottom) = pixel(np.asarray([-1, 1])), pixel(np.asarray([1, -1]))
    draw.rectangle((left, top, right, bottom), outline=EDGE, width=SMOOTH)  # where everything starts

    pos = episode.pos[time]
    n = len(pos)
    colours = [ADVERSARY if body < episode.team else AGENTS[(body - episode.team) % len(AGENTS)] for body in range(n)]
    for body in range(n):
        for t in range(time):
            fade = 0.18 + 0.5 * (t + 1) / time
            a, b = pixel(episode.pos[t, body]), pixel(episode.pos[t + 1, body])
            width = 3 * SMOOTH
            tint = _mix(PAPER, colours[body], fade)
            draw.line((*a, *b), tint, width)
            draw.ellipse((b[0] - width / 2, b[1] - width / 2, b[0] + width / 2, b[1] + width / 2), tint)

    # Discs are translucent, so that what they cover stays visible.
    layer = image.copy()
    draw = ImageDraw.Draw(layer)
    for body in reversed(range(n)):
        disc(pos[body], AGENT_RADIUS, colours[body])
    image = Image.blend(image, layer, 0.72)
    draw = ImageDraw.Draw(image)
    apart = np.linalg.norm(pos[:, None] - pos[None], axis=-1) + np.eye(n)
    for body in range(n):
        touching = episode.team == 0 and apart[body].min() < 2 * AGENT_RADIUS
        edge = TOUCH if touching else _mix(colours[body], INK, 0.35)
        disc(pos[body], AGENT_RADIUS, None, edge, 3.0 if touching else 1.5)

    to_agents = np.linalg.norm(episode.landmarks[:, None] - pos[None, episode.team :], axis=-1).min(1)
    for index in sorted(range(len(episode.landmarks)), key=lambda index: index == episode.goal):
        mark = episode.landmarks[index]
        is_goal = index == episode.goal
        if is_goal:
            disc(mark, 0.13, None, GOAL, 4.0)
        elif to_agents[index] < COVER_RADIUS and episode.team == 0:
            disc(mark, 0.085, None, PAPER, 2.0)
        disc(mark, 0.08 if episode.team else 0.05, GOAL if is_goal else LANDMARK, PAPER, 1.5)
    return image.resize((FIELD, FIELD), Image.Resampling.LANCZOS)


def _with_header(field: Image.Image, episode: _Episode, time: int) -> Image.Image:
    image = Image.new("RGB", (FIELD, FIELD + HEADER), PAPER)
    image.paste(field, (0, HEADER))
    draw = ImageDraw.Draw(image)
    last = len(episode.pos) - 1
    clock = f"step {time} of {last}  ({time * 0.1:.1f} s)"
    value = f"return {episode.returns[time]:.1f}" if len(episode.returns) else ""
    draw.text((14, 8), episode.title, INK, ImageFont.load_default(18))
    draw.text((14, 32), clock, FAINT, ImageFont.load_default(14))
    draw.text((image.width - 14, 32), value, INK, ImageFont.load_default(14), anchor="ra")
    draw.line((0, HEADER - 1, image.width, HEADER - 1), EDGE)
    return image


def _mix(one: Colour, other: Colour, weight: float) -> Colour:
    """The colour that is `weight` of the way from one to the other."""
    r, g, b = (round(a + weight * (c - a)) for a, c in zip(one, other, strict=True))
    return r, g, b
