"""Pictures of an episode: frames, what they show, and what cannot be shown."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad.envs import draw, make, particles
from omad.errors import UserError


def episode(name: str, steps: int = 4) -> tuple[particles.MpeState, np.ndarray]:
    env = make(name)
    first, _ = env.reset(jax.random.key(0))
    action = jnp.ones((env.spec.n_agents, env.spec.act_dim))

    def step(world: particles.MpeState, key: Any) -> tuple[particles.MpeState, Any]:
        world, outcome = env.step(world, action, key)
        return world, (world, outcome.reward)

    keys = jax.random.split(jax.random.key(1), steps)
    _, (rest, rewards) = jax.jit(lambda world: jax.lax.scan(step, world, keys))(first)
    states = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, rest)
    return states, np.asarray(rewards)


@pytest.mark.parametrize("name", ["mpe/spread-3", "mpe/deception-2"])
def test_there_is_a_frame_a_state(name: str) -> None:
    frames = draw.episode_frames(*episode(name))
    assert [frame.size for frame in frames] == [(draw.FIELD, draw.FIELD + draw.HEADER)] * 5
    pictures = [np.asarray(frame, int) for frame in frames]
    assert all((one != other).any() for one, other in itertools.pairwise(pictures))
    red = np.abs(pictures[0] - np.asarray(draw.ADVERSARY)).max(-1) < 60
    green = np.abs(pictures[0] - np.asarray(draw.GOAL)).max(-1) < 20
    assert (red.sum() > 500) == (green.sum() > 100) == name.startswith("mpe/deception")


def test_a_contact_sheet_is_a_grid_of_frames() -> None:
    frames = draw.episode_frames(*episode("mpe/spread-3"), title="a title")
    sheet = draw.contact_sheet(frames, columns=2, width=332)
    height = round(332 * (draw.FIELD + draw.HEADER) / draw.FIELD)
    assert sheet.size == (2 * 340 + 8, 3 * (height + 8) + 8)  # five states in rows of two


def test_bodies_far_away_stay_in_the_picture() -> None:
    states, _ = episode("mpe/spread-2", steps=1)
    far = particles.MpeState(states.pos + 5, states.vel, states.landmarks, states.goal, states.time)
    frame = draw.episode_frames(far, None)[0]
    seen = np.asarray(frame, int)[draw.HEADER :]
    for colour in draw.AGENTS[:2]:
        assert (np.abs(seen - np.asarray(colour)).max(-1) < 70).sum() > 20


@pytest.mark.parametrize("width", [1, 64, 321, 480])
def test_the_line_above_a_picture_fits_and_the_picture_is_whole(width: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (33, width, 3), np.uint8)
    image = draw.labelled(picture, "a-name-that-is-much-longer-than-any-picture-is-wide" * 3, 1000, -123456.7)
    scale = -(-draw.LEAST_WIDTH // width)
    assert image.width % 2 == image.height % 2 == 0 and scale * width <= image.width <= scale * width + 1
    pixels = np.asarray(image)
    np.testing.assert_array_equal(pixels[32 : 32 + 33 * scale : scale, : scale * width : scale], picture)
    assert (pixels[:32, -8:] == draw.PAPER).all() and (pixels[:32, -60:-8] != draw.PAPER).any()
    short = np.asarray(draw.labelled(picture, "short", 1000, -123456.7))
    assert (short[:32] != pixels[:32]).any()


def test_what_cannot_be_drawn_is_an_error() -> None:
    states, rewards = episode("mpe/spread-2")
    with pytest.raises(ValueError, match="5 states need 4 rewards, 3 were given"):
        draw.episode_frames(states, rewards[:-1])
    with pytest.raises(ValueError, match="stacked over time"):
        draw.episode_frames(jax.tree.map(lambda leaf: leaf[0], states), None)


@pytest.mark.parametrize(("name", "agents"), [("games/islands-2", 2), ("games/meeting-6", 6)])
def test_a_game_shows_its_good_points_and_what_was_chosen(name: str, agents: int) -> None:
    env = make(name)
    state = env.reset(jax.random.key(0))[0]
    action = np.linspace(-0.9, 0.9, 2 * agents).reshape(agents, 2)
    first, second = draw.frames_of(env, [state, state], [action], [0.5])
    assert first.size == second.size == (draw.FIELD, draw.FIELD + 32)
    before, after = (np.asarray(frame, int) for frame in (first, second))
    assert (np.abs(before - np.asarray(draw.GOAL)).max(-1) < 40).sum() > 200
    for colour in draw.AGENTS[:agents]:
        assert (
            (np.abs(after - np.asarray(colour)).max(-1) < 10).sum() > 50 > (np.abs(before - colour).max(-1) < 10).sum()
        )


def test_an_env_draws_itself_where_it_has_a_picture() -> None:
    env = make("probe/constant")
    assert not draw.draws(env)
    state = env.reset(jax.random.key(0))[0]
    shown = env._replace(picture=lambda state: np.full((7, 9, 3), 3, np.uint8))
    assert draw.draws(shown)
    assert [frame.size for frame in draw.frames_of(shown, [state, state], [np.zeros((2, 1))], [1.0])] == [
        (324, 252 + 32)
    ] * 2
    with pytest.raises(UserError, match="no picture"):
        draw.frames_of(env._replace(picture=lambda state: np.zeros(3)), [state], [], [])
