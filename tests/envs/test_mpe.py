"""The particle tasks against recorded transitions of `mpe2` 1.1.1, and what their protocol promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad import tasks
from omad.envs import make, mpe, particles
from omad.types import JaxEnv, Outcome

FIXTURES = Path(__file__).parents[1] / "fixtures"
RECORDED = ("spread-3", "spread-4", "deception-2")
OBSERVED_EVERY = 15


class Recorded:
    """The transitions of one task, one row each."""

    def __init__(self, task: str) -> None:
        with np.load(FIXTURES / f"mpe_{task}.npz") as file:
            self.raw = {key: file[key] for key in file.files}
        episodes, steps = self.raw["pos"].shape[0], self.raw["pos"].shape[1] - 1
        self.size = episodes * steps
        self.spread = task.startswith("spread")
        self.n_agents = int(task.split("-")[1])
        self.action = self.raw["action"]
        self.reward = self.raw["reward"]
        self.next_pos = self._rows("pos", 1)
        self.next_vel = self._rows("vel", 1)
        self.pos = self._rows("pos", 0)
        self.vel = self._rows("vel", 0)
        self.landmarks = np.repeat(self.raw["landmarks"], steps, 0)
        self.goal = np.repeat(self.raw["goal"], steps).astype(np.int32)
        self.time = np.tile(np.arange(steps, dtype=np.int32), episodes)

    def _rows(self, key: str, start: int) -> np.ndarray:
        steps = self.raw[key].shape[1] - 1
        return self.raw[key][:, start : start + steps].reshape(self.size, -1, 2)

    def worlds(self) -> particles.MpeState:
        """The states before the steps, in the default precision."""
        pos, vel, landmarks = (jnp.asarray(x, float) for x in (self.pos, self.vel, self.landmarks))
        return particles.MpeState(pos, vel, landmarks, jnp.asarray(self.goal), jnp.asarray(self.time))

    def step(self) -> tuple[particles.MpeState, Outcome]:
        """One step of the env, as a learner calls it, from every recorded state."""
        n = self.n_agents

        def one(world: particles.MpeState, action: Any) -> tuple[particles.MpeState, Outcome]:
            bad, good = (0.5 + 0.5 * action[0]).astype(jnp.float32), action[-n:]
            if self.spread:
                env = mpe.spread(n, state=True)
            else:
                env = mpe.deception(n, adversary=lambda world, key: bad.astype(world.pos.dtype), state=True)
            return env.step(world, good, jax.random.key(0))

        learner = jnp.asarray(2 * self.action.astype(np.float64) - 1, float)
        return jax.jit(jax.vmap(one))(self.worlds(), learner)

    def observed(self) -> np.ndarray:
        """Recorded observations in the order of our global state, which has the adversary last."""
        obs = self.raw["obs"]
        adversary = 0 if self.spread else 4 * self.n_agents
        return np.roll(obs, -adversary, axis=1)


@pytest.fixture(scope="module", params=RECORDED)
def recorded(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(request.param)


def worst(ours: Any, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(np.asarray(ours, np.float64) - theirs).max())


def test_one_step_equals_mpe2_in_double_precision(recorded: Recorded) -> None:
    with jax.enable_x64(True):
        world, outcome = recorded.step()
        assert outcome.reward.dtype == jnp.float64
        assert worst(world.pos, recorded.next_pos) < 1e-12
        assert worst(world.vel, recorded.next_vel) < 1e-12
        assert worst(outcome.reward, recorded.reward) < 1e-12
        # Against the scenario's own float64 observations; what mpe2 hands out are these, cast to float32.
        assert worst(outcome.next.state[::OBSERVED_EVERY], recorded.observed()) < 1e-12


def test_one_step_equals_mpe2_in_single_precision(recorded: Recorded) -> None:
    world, outcome = recorded.step()
    assert outcome.reward.dtype == jnp.float32
    assert worst(world.pos, recorded.next_pos) < 1e-5
    assert worst(world.vel, recorded.next_vel) < 1e-5
    assert worst(outcome.next.state[::OBSERVED_EVERY], recorded.observed()) < 1e-5
    wrong = np.abs(np.asarray(outcome.reward) - recorded.reward) > 1e-5
    if recorded.spread:  # a collision may be counted differently only where two agents just touch
        delta = recorded.next_pos[:, :, None] - recorded.next_pos[:, None]
        wrong &= np.abs(np.linalg.norm(delta, axis=-1) - 0.3).min((1, 2)) > 1e-5
    assert not wrong.any()


def test_recording_holds_contacts_and_collisions() -> None:
    for task in ("spread-3", "spread-4"):
        rec = Recorded(task)
        assert rec.size == 1500
        for pos in (rec.pos, rec.next_pos):  # the forces act before the move, collisions count after it
            gaps = np.linalg.norm(pos[:, :, None] - pos[:, None], axis=-1) + np.eye(rec.n_agents)
            assert (gaps.min((1, 2)) < 0.29).sum() > 50


def test_deception_replays_whole_episodes_of_mpe2() -> None:
    rec = Recorded("deception-2")
    with jax.enable_x64(True):
        actions = jnp.asarray(rec.action.reshape(60, 25, 3, 5)).astype(float)
        first = jax.tree.map(lambda leaf: leaf[::25], rec.worlds())

        def episode(world: particles.MpeState, actions: Any) -> tuple[Any, Any]:
            def step(world: particles.MpeState, action: Any) -> tuple[particles.MpeState, Any]:
                world = particles.move(world, particles.thrust_of(action))
                bad, good = mpe.deception_distances(world)
                return world, (world.pos, 2 * (bad - good))

            return jax.lax.scan(step, world, actions)[1]

        pos, reward = jax.vmap(episode)(first, actions)
        assert worst(pos.reshape(1500, 3, 2), rec.next_pos) < 1e-12
        assert worst(reward.reshape(1500), rec.reward) < 1e-12


def test_flags_equal_mpe2(recorded: Recorded) -> None:
    _, outcome = recorded.step()
    assert np.array_equal(outcome.truncated, recorded.raw["truncated"].all(1))
    assert np.array_equal(outcome.terminated, recorded.raw["terminated"].any(1))


def test_recording_is_what_mpe2_does_now(recorded: Recorded, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("mpe2")
    import record_mpe2

    name = request.node.callspec.params["recorded"]
    fresh = record_mpe2.record(name, episodes=3)
    for key, value in recorded.raw.items():
        np.testing.assert_allclose(fresh[key], value[: len(fresh[key])], rtol=0, atol=1e-12)


NAMES = (
    "mpe/spread-2",
    "mpe/spread-3",
    "mpe/spread-10",
    "mpe/spread-3-xy?state=true",
    "mpe/spread-3?dynamics=v2&horizon=7&local_ratio=0.25",
    "mpe/deception-1",
    "mpe/deception-2?adversary=static&state=true",
    "mpe/deception-3?adversary=landmark_mean",
    "mpe/deception-2-xy?adversary=follower",
)


def play(name: str, seed: int = 0) -> Outcome:
    """One episode of random actions and two steps more."""
    env = make(name)
    spec = env.spec

    def step(state: Any, key: Any) -> tuple[Any, Outcome]:
        act_key, env_key = jax.random.split(key)
        action = jax.random.uniform(act_key, (spec.n_agents, spec.act_dim), minval=-1, maxval=1)
        return env.step(state, action, env_key)

    reset_key, steps_key = jax.random.split(jax.random.key(seed))
    state, _ = env.reset(reset_key)
    return jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(steps_key, spec.horizon + 2))[1])(state)


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_those_of_the_task_table_and_types_hold(name: str) -> None:
    env, task = make(name), tasks.find(name)
    spec = env.spec
    assert (spec.name, spec.obs_dims, spec.act_dims, spec.state_dim, spec.horizon) == (
        task.name,
        task.obs_dims,
        task.act_dims,
        task.state_dim,
        task.horizon,
    )
    # Shapes and types only: nothing is computed.
    state, seen = jax.eval_shape(env.reset, jax.random.key(0))
    action = jnp.zeros((spec.n_agents, spec.act_dim))
    after, outcome = jax.eval_shape(env.step, state, action, jax.random.key(1))
    assert seen.obs.shape == outcome.next.obs.shape == (spec.n_agents, spec.obs_dim)
    assert seen.state.shape == outcome.next.state.shape == (spec.state_dim,)
    assert outcome.reward.shape == outcome.terminated.shape == outcome.truncated.shape == ()
    assert set(outcome.info) == set(spec.info_keys)
    # A scan over steps needs a state whose type does not change.
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), after)


@pytest.mark.parametrize("name", NAMES)
def test_episode_is_truncated_at_its_horizon_and_never_terminated(name: str) -> None:
    outcome, horizon = play(name), tasks.find(name).horizon
    assert not outcome.terminated.any()
    assert not outcome.truncated[: horizon - 1].any()
    assert outcome.truncated[horizon - 1]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outcome))


def test_horizon_is_25_steps_with_one_flag() -> None:
    flags = play("mpe/spread-3").truncated[:25]
    assert flags.sum() == 1
    assert flags[24]


def test_state_is_all_observations_and_in_deception_the_adversary_last() -> None:
    for name in ("mpe/spread-3?state=true", "mpe/deception-2?state=true"):
        world, seen = make(name).reset(jax.random.key(0))
        own = seen.obs.reshape(-1)
        assert np.array_equal(seen.state[: own.size], own)
    pos = np.asarray(world.pos)
    adversary = np.concatenate([np.asarray(world.landmarks) - pos[0], pos[1:] - pos[0]]).reshape(-1)
    np.testing.assert_allclose(seen.state[own.size :], adversary, atol=1e-6)


def test_resets_fill_the_square_and_draw_every_goal() -> None:
    world, _ = jax.jit(jax.vmap(mpe.deception(3).reset))(jax.random.split(jax.random.key(0), 3000))
    for points in (world.pos, world.landmarks):
        assert np.abs(points).max() <= 1.0
        np.testing.assert_allclose(points.mean((0, 1)), 0.0, atol=0.03)
        np.testing.assert_allclose(jnp.square(points).mean((0, 1)), 1 / 3, atol=0.02)
    np.testing.assert_allclose(np.bincount(world.goal, minlength=3) / 3000, 1 / 3, atol=0.04)
    assert not world.vel.any()
    # The goal says nothing about the places.
    corner = world.landmarks[jnp.arange(3000), world.goal].mean(0)
    np.testing.assert_allclose(corner, 0.0, atol=0.05)


def world_of(pos: Any, landmarks: Any, vel: Any = None, time: int = 0) -> particles.MpeState:
    pos = jnp.asarray(pos, float)
    vel = jnp.zeros_like(pos) if vel is None else jnp.asarray(vel, float)
    zero = jnp.zeros((), jnp.int32)
    return particles.MpeState(pos, vel, jnp.asarray(landmarks, float), zero, zero + time)


def once(env: JaxEnv, world: particles.MpeState, action: Any, seed: int = 0) -> tuple[particles.MpeState, Outcome]:
    return jax.jit(env.step)(world, action, jax.random.key(seed))


def test_reward_of_spread_by_hand_without_self_collision() -> None:
    apart = world_of([[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.5], [1.0, 0.0]])
    near, touches, covered = mpe.spread_terms(apart)
    assert (float(near), touches.tolist(), float(covered)) == (-0.5, [0.0, 0.0], 1.0)
    touching = world_of([[0.0, 0.0], [0.29, 0.0], [-0.29, 0.0]], [[3.0, 4.0]] * 3)
    _, touches, _ = mpe.spread_terms(touching)
    assert touches.tolist() == [2.0, 1.0, 1.0]
    # At rest the first step moves nothing in v3 dynamics: the reward is that of the places.
    _, outcome = once(mpe.spread(2, local_ratio=0.25), apart, jnp.zeros((2, 5)))
    np.testing.assert_allclose(outcome.reward, 2 * 0.75 * -0.5, rtol=1e-6)
    _, outcome = once(mpe.spread(3), touching, jnp.zeros((3, 5)))
    np.testing.assert_allclose(outcome.reward, 1.5 * outcome.info["global"] - 0.5 * 4, rtol=1e-6)
    assert float(outcome.info["collisions"]) == 4.0


def test_covered_landmarks_are_counted_at_the_last_step_only() -> None:
    env = mpe.spread(2)
    places = [[0.0, 0.0], [1.0, 0.0]]
    for time, count in ((0, 0.0), (23, 0.0), (24, 2.0)):
        _, outcome = once(env, world_of(places, places, time=time), jnp.zeros((2, 5)))
        assert float(outcome.info["covered_end"]) == count


def test_reward_of_deception_by_hand() -> None:
    world = world_of([[0.0, 3.0], [1.0, 0.0], [0.0, 0.5]], [[0.0, 0.0], [9.0, 9.0]])
    env = mpe.deception(2, adversary="static")
    _, outcome = once(env, world, jnp.zeros((2, 5)))
    assert (float(outcome.info["adversary_distance"]), float(outcome.info["team_distance"])) == (3.0, 0.5)
    np.testing.assert_allclose(outcome.reward, 5.0, rtol=1e-6)


def test_full_thrust_from_rest_in_both_dynamics() -> None:
    def path(dynamics: str) -> list[float]:
        world, seen = world_of([[0.0, 0.0]], [[0.0, 0.0]]), []
        for _ in range(10):
            world = particles.move(world, jnp.asarray([[1.0, 0.0]]), dynamics=dynamics)
            seen.append(float(world.pos[0, 0]))
        return seen

    v3 = [0.0, 0.05, 0.1375, 0.253125, 0.38984375]
    np.testing.assert_allclose(path("v3")[:5], v3, rtol=1e-5)
    # The same path one step earlier: the new velocity moves the body at once.
    np.testing.assert_allclose(path("v2")[:4], v3[1:], rtol=1e-5)


def test_five_numbers_push_left_right_down_up_and_the_first_does_nothing() -> None:
    pushes = particles.thrust_of(jnp.eye(5))
    assert pushes.tolist() == [[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]]


def test_two_numbers_are_an_exact_reparametrisation_of_five() -> None:
    five, two = mpe.spread(3), mpe.spread(3, xy=True)
    world, _ = five.reset(jax.random.key(0))
    thrust = jnp.asarray([[0.5, -1.0], [0.25, 0.0], [-0.75, 0.125]])
    action = jnp.stack([0 * thrust[:, 0], -thrust[:, 0], thrust[:, 0], -thrust[:, 1], thrust[:, 1]], 1)
    ours, _ = once(five, world, action, 1)
    theirs, _ = once(two, world, thrust, 1)
    assert np.array_equal(ours.vel, theirs.vel)


def test_actions_outside_the_box_are_clipped() -> None:
    for name in ("mpe/spread-2", "mpe/spread-2-xy"):
        env = make(name)
        world, _ = env.reset(jax.random.key(0))
        action = jnp.asarray([-3.0, 2.0, -5.0, 1.5, 9.0][: env.spec.act_dim])
        wide, _ = once(env, world, jnp.stack([action, -action]), 1)
        tight, _ = once(env, world, jnp.clip(jnp.stack([action, -action]), -1, 1), 1)
        assert np.array_equal(wide.vel, tight.vel)


@pytest.mark.parametrize("gap", [0.0, 1e-20, 1e-6, 0.1, 0.3])
@pytest.mark.parametrize("task", ["mpe/spread-3", "mpe/deception-2"])
def test_gradient_through_a_step_is_finite_where_bodies_meet(task: str, gap: float) -> None:
    env = make(task)
    pos = jnp.asarray([[0.2, 0.1], [0.2 + gap, 0.1], [0.2, 0.1]])
    landmarks = pos[: env.spec.n_agents]

    def loss(pos: Any, action: Any) -> Any:
        _, outcome = once(env, world_of(pos, landmarks), action)
        return outcome.reward + outcome.next.obs.sum()

    slopes = jax.jit(jax.grad(loss, argnums=(0, 1)))(pos, jnp.zeros((env.spec.n_agents, 5)))
    assert all(np.isfinite(slope).all() for slope in slopes)


def test_contact_pushes_apart_with_equal_and_opposite_forces() -> None:
    force = particles.contact_force(jnp.asarray([[0.0, 0.0], [0.2, 0.0], [5.0, 5.0]]), 0.15)
    np.testing.assert_allclose(force[0], [-10.0, 0.0], rtol=1e-5)  # 100 times the depth 0.1
    np.testing.assert_allclose(force.sum(0), 0.0, atol=1e-5)
    assert not force[2].any()


def test_adversaries_do_what_they_are_called() -> None:
    def final(adversary: Any) -> particles.MpeState:
        env = mpe.deception(2, adversary=adversary, horizon=40)
        world = world_of([[0.9, -0.9], [-0.5, 0.4], [3.0, 3.0]], [[1.0, 0.0], [-0.6, 0.6]])

        def step(world: particles.MpeState, key: Any) -> tuple[particles.MpeState, None]:
            return env.step(world, jnp.zeros((2, 5)), key)[0], None

        return jax.lax.scan(step, world, jax.random.split(jax.random.key(0), 40))[0]

    np.testing.assert_allclose(final("static").pos[0], [0.9, -0.9], atol=1e-6)
    np.testing.assert_allclose(final("landmark_mean").pos[0], [0.2, 0.3], atol=1e-3)
    np.testing.assert_allclose(final("follower").pos[0], [-0.6, 0.6], atol=1e-3)
    assert np.abs(final("random").pos[0] - np.asarray([0.9, -0.9])).max() > 0.05
    right = final(lambda world, key: jnp.asarray([0.0, 0.0, 1.0, 0.0, 0.0]))
    assert right.pos[0, 0] > 5.0


def test_callable_adversary_is_named_in_the_task() -> None:
    def flee(world: particles.MpeState, key: Any) -> Any:
        del key
        return jnp.zeros((5,), world.pos.dtype)

    assert mpe.deception(2, adversary=flee).spec.name == "mpe/deception-2?adversary=flee"


def test_python_arguments_are_checked_like_names() -> None:
    for call in (
        lambda: mpe.spread(1),
        lambda: mpe.spread(11),
        lambda: mpe.spread(3, dynamics="v4"),
        lambda: mpe.spread(3, local_ratio=1.5),
        lambda: mpe.spread(3, horizon=0),
        lambda: mpe.deception(2, adversary="statik"),
    ):
        with pytest.raises(tasks.UnknownTask):
            call()
