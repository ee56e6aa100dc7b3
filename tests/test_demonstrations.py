"""Demonstrations: the file, what records it, and the second buffer that loops draw from."""

from __future__ import annotations

import dataclasses
import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omad import api, buffer, cli, demonstrations, envs
from omad.commands.record import main, record
from omad.config import resolve
from omad.envs.pool import Pool
from omad.errors import UserError
from omad.experiment import Experiment
from omad.keys import Stream, run_key, stream
from omad.loop import fused
from omad.loop.fused import LoopConfig
from omad.loop.hosted import Hosted
from omad.run.folder import RunFolder
from omad.spec import EnvSpec
from omad.types import Algorithm, Batch, Mean, Step

SPEC = EnvSpec("toy", (2, 1), (1, 2), 1, 5)
TASK = "probe/delay"


def episodes(lengths: tuple[int, ...] = (3, 1, 4), terminated: bool = False) -> dict[str, np.ndarray]:
    """Transitions whose observations count on within an episode, of rewards 1, 2, 3, ..."""
    n, rng = sum(lengths), np.random.default_rng(0)
    at = np.concatenate([np.arange(length) + 100.0 * i for i, length in enumerate(lengths)]).astype(np.float32)
    ends = np.zeros(n, bool)
    ends[np.cumsum(lengths) - 1] = True
    return {
        "obs": at[:, None, None] * SPEC.obs_mask.astype(np.float32),
        "state": at[:, None],
        "action": rng.uniform(-1, 1, (n, 2, 2)).astype(np.float32) * SPEC.act_mask.astype(np.float32),
        "reward": np.arange(1.0, n + 1, dtype=np.float32),
        "terminated": ends & terminated,
        "truncated": ends & (not terminated),
        "next_obs": (at + 1)[:, None, None] * SPEC.obs_mask.astype(np.float32),
        "next_state": (at + 1)[:, None],
    }


def write(path: Path, **changed: Any) -> Path:
    """A file of `episodes()`, with arrays of one's own; None leaves one out."""
    whole = path.with_name("whole.npz")
    demonstrations.save(whole, episodes(), SPEC)
    arrays = {**np.load(whole), **changed}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def edited(name: str, where: Any, value: Any) -> np.ndarray:
    array = episodes()[name]
    array[where] = value
    return array


# ---------------------------------------------------------------- the file


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    demonstrations.save(path, episodes(), SPEC)
    found = demonstrations.load(path, SPEC)
    for name, array in episodes().items():
        np.testing.assert_array_equal(np.asarray(getattr(found, name))[:, 0], array)
    assert np.load(path)["task"] == "toy"
    assert path.stat().st_size > len(episodes()["reward"]) * demonstrations.row_bytes(SPEC)
    assert demonstrations.row_bytes(SPEC) == sum(array[:1].nbytes for array in episodes().values())


def test_an_episode_that_is_cut_off_ends_with_the_file(tmp_path: Path) -> None:
    """What would come next is not known, so n-step sums stop there; the successor is."""
    path = write(tmp_path / "d.npz", truncated=edited("truncated", -1, False))
    assert np.asarray(demonstrations.load(path, SPEC).truncated)[-1, 0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"reward": None}, "has no reward"),
        ({"format": np.asarray(2)}, "format 2"),
        ({"format": np.asarray([1, 2])}, r"format \[1, 2\]"),
        ({"obs_dims": np.asarray([2, 2])}, r"observations \(2, 2\).*\(2, 1\)"),
        ({"act_dims": np.asarray(["a"])}, r"actions \('a',\)"),
        ({"reward": np.zeros(7, np.float32)}, "obs of shape"),
        ({"reward": np.zeros(0, np.float32)}, "no transitions"),
        ({"terminated": np.zeros(8)}, "true or false"),
        ({"action": episodes()["action"].astype(int)}, "floating point"),
        ({"reward": np.full(8, 1e300)}, "not finite, at transition 0"),
        ({"next_obs": edited("next_obs", (5, 0, 0), np.nan)}, "next_obs that is not finite, at transition 5"),
        ({"action": edited("action", (2, 1, 1), 1.5)}, r"outside \[-1, 1\], at transition 2"),
        ({"action": edited("action", (2, 0, 1), 0.5)}, "in action where smaller agents have none"),
        ({"next_obs": edited("next_obs", (5, 0, 0), 7.0)}, "next_obs of transition 5.*obs of transition 6"),
        ({"truncated": edited("truncated", 2, False)}, "obs of transition 2"),
        ({"task": np.asarray(["toy", None], object)}, "not a whole .npz"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    """With the file, what was found and what to do, in one sentence."""
    path = write(tmp_path / "d.npz", **changed)
    with pytest.raises(UserError, match=words) as refused:
        demonstrations.load(path, SPEC)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


def test_files_that_are_no_archives_are_refused(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("obs")
    whole = write(tmp_path / "d.npz").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    for name, words in (
        ("words", "not a whole"),
        ("cut", "not a whole"),
        ("none", "No such file"),
        (".", "plain file"),
    ):
        with pytest.raises(UserError, match=words):
            demonstrations.load(tmp_path / name, SPEC)
    with pytest.raises(UserError, match="No such file"):
        demonstrations.digest(tmp_path / "none")


def test_sizes_are_bounded_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the archive's own list, and a head that promises more than there is makes nothing large."""
    path = write(tmp_path / "d.npz")
    with monkeypatch.context() as patched:
        patched.setattr(demonstrations, "MOST", 100)
        with pytest.raises(UserError, match="at most"):
            demonstrations.load(path, SPEC)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (1 << 60,)})
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "huge.npz", "w") as new:
        for name in old.namelist():
            new.writestr(name, head.getvalue() if name == "reward.npy" else old.read(name))
    with pytest.raises(UserError, match=r"reward\.npy has 0 bytes"):
        demonstrations.load(tmp_path / "huge.npz", SPEC)


def test_no_member_is_unpacked_beyond_its_size(tmp_path: Path) -> None:
    """Packings that can only be unpacked whole are refused; of deflate no more is read than the list says."""
    path = write(tmp_path / "d.npz")
    for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "bomb.npz", "w") as new:
            for name in old.namelist():
                new.writestr(name, old.read(name), kind if name == "reward.npy" else zipfile.ZIP_DEFLATED)
        with pytest.raises(UserError, match=r"reward\.npy is packed as NumPy does not pack"):
            demonstrations.load(tmp_path / "bomb.npz", SPEC)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) + (b"\0" * (64 << 20) if name == "reward.npy" else b""))
        size = len(old.read("reward.npy"))
    data = bytearray((tmp_path / "bomb.npz").read_bytes())
    at = data.index(b"PK\x01\x02")
    while data[at + 46 : at + 56] != b"reward.npy":
        at = data.index(b"PK\x01\x02", at + 4)
    data[at + 24 : at + 28] = size.to_bytes(4, "little")
    (tmp_path / "bomb.npz").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(UserError, match="not a whole"):  # its checksum is that of all
        demonstrations.load(tmp_path / "bomb.npz", SPEC)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_a_hundred_agents_and_another_name(tmp_path: Path) -> None:
    """All sizes are compared, however many; a task of another name is remarked on, for its rewards may differ."""
    many = EnvSpec("many", (1,) * 120, (1,) * 120, 1, 5)
    zeros = {"obs": (2, 120, 1), "state": (2, 1), "action": (2, 120, 1), "reward": (2,)}
    fields = {name: np.zeros(shape, np.float32) for name, shape in zeros.items()}
    ends = np.asarray([False, True])
    fields |= {"terminated": ends, "truncated": ~ends & False}
    fields |= {"next_obs": fields["obs"], "next_state": fields["state"]}
    path = tmp_path / "d.npz"
    demonstrations.save(path, fields, many)
    assert demonstrations.load(path, many).reward.shape == (2, 1)
    with pytest.raises(UserError, match="give demonstrations of this task"):
        demonstrations.load(path, dataclasses.replace(many, obs_dims=(1,) * 119 + (2,)))
    assert demonstrations.remark(path, many) is None
    said = demonstrations.remark(path, dataclasses.replace(many, name="other"))
    assert said is not None and "was recorded on many, not on other" in said


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "d.npz")
    before = demonstrations.digest(path)
    demonstrations.unchanged(path, before)
    write(path, reward=edited("reward", 0, 9.0))
    for recorded in (before, None):
        with pytest.raises(UserError, match="not the file that the run began with"):
            demonstrations.unchanged(path, recorded)


def test_a_run_goes_on_with_demonstrations_that_were_moved(tmp_path: Path) -> None:
    """Only with the same ones; a run that is refused still looks where it did."""
    path, other = tmp_path / "d.npz", tmp_path / "other.npz"
    for out, episodes in ((path, "8"), (other, "9")):
        assert main([TASK, "--out", str(out), "--episodes", episodes, "--no-compilation-cache"]) == 0
    made = Experiment(resolve(TASK, "hatd3", "tiny", demonstrations=str(path)), loggers=())
    made.create(tmp_path / "run").close()
    group = tmp_path / "group"
    both = resolve(TASK, "hatd3", "tiny", demonstrations=str(path), seeds=2)
    seeds = Experiment(both, loggers=()).create_each(group)
    moved = path.rename(tmp_path / "moved.npz")
    with pytest.raises(UserError, match="cannot be read"):
        api.resume(tmp_path / "run", loggers=())
    with pytest.raises(UserError, match="not the file that the run began with"):
        api.resume(tmp_path / "run", demonstrations=other, loggers=())
    assert RunFolder.open(tmp_path / "run").config.demonstrations == str(path)
    assert cli.main(["resume", str(group), "--demonstrations", str(other)]) == 2
    assert [RunFolder.open(folder).config.demonstrations for folder in seeds] == [str(path)] * 2
    run = api.resume(tmp_path / "run", demonstrations=moved, loggers=())
    assert run.complete and run.config.demonstrations == str(moved)
    bare = Experiment(resolve(TASK, "hatd3", "tiny"), loggers=()).create(tmp_path / "bare")
    bare.close()
    with pytest.raises(UserError, match="began without any"):
        api.resume(bare.path, demonstrations=moved)


# ---------------------------------------------------------------- the configuration


def test_the_share_is_rounded_to_whole_transitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for share, count in ((0.25, 4), (0.1, 2), (0.05, 1), (1.0, 16), (1 / 32, 1)):
        config = resolve(TASK, "hasac", "tiny", batch_size=16, demonstrations="d.npz", demonstration_share=share)
        assert config.demonstrated == count
        assert config.demonstrations == str(tmp_path / "d.npz")
    assert resolve(TASK, "hasac", "tiny", demonstration_share=0.5).demonstrated == 0
    for share, words in ((0.01, "no transition of a batch of 16"), (1.5, "at most 1"), (-0.5, "at least 0")):
        with pytest.raises(UserError, match=f"demonstration_share is {share}.*{words}"):
            resolve(TASK, "hasac", "tiny", batch_size=16, demonstrations="d.npz", demonstration_share=share)


# ---------------------------------------------------------------- recording


def test_recorded_episodes_are_complete_and_have_their_true_successors() -> None:
    """The same ones from an env in JAX and from its form on the host, in rounds where there are fewer worlds."""
    env = envs.make(TASK)

    def decide(obs: Any, key: Any) -> Any:
        del key
        return np.full((len(obs), env.spec.n_agents, env.spec.act_dim), 0.5) * env.spec.act_mask

    found = record(env, decide, 20, 3)
    ends = found["terminated"] | found["truncated"]
    assert ends.sum() == 20 and ends[-1]
    goes_on = ~ends[:-1]
    assert goes_on.any()
    np.testing.assert_array_equal(found["obs"][1:][goes_on], found["next_obs"][:-1][goes_on])
    host = record(envs.make(f"{TASK}?host=true"), decide, 20, 3)
    assert set(host) == set(found) == set(Step.__dataclass_fields__)
    for name, array in found.items():
        np.testing.assert_allclose(host[name], array, rtol=1e-6, err_msg=name)


def test_the_command_writes_what_training_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "d.npz"
    assert main([TASK, "--out", str(path), "--episodes", "3", "--no-compilation-cache"]) == 0
    assert f"--demonstrations {path}" in capsys.readouterr().out
    assert len(demonstrations.load(path, envs.make(TASK).spec).reward) == 3 * envs.make(TASK).spec.horizon
    with pytest.raises(UserError, match="exists already"):
        main([TASK, "--out", str(path)])
    with pytest.raises(UserError, match=r"neither a run folder \(there is no such folder\) nor a task") as caught:
        main([str(tmp_path / "runs" / "none"), "--out", str(tmp_path / "e.npz")])
    assert len(str(caught.value)) < 250 + len(str(tmp_path))
    with pytest.raises(UserError, match=r"There is no task 'mpe/spraed-3'; nearest: mpe/spread-3"):
        main(["mpe/spraed-3", "--out", str(tmp_path / "e.npz")])
    with pytest.raises(UserError, match="--noise-free is of policies"):
        main([TASK, "--out", str(tmp_path / "e.npz"), "--noise-free"])
    with pytest.raises(UserError, match="fewer --episodes"):
        main([TASK, "--out", str(tmp_path / "e.npz"), "--episodes", "2000000000"])


# ---------------------------------------------------------------- the second buffer


@pytest.mark.parametrize("terminated", [False, True])
@pytest.mark.parametrize("n_step", [1, 3])
def test_sums_of_rewards_end_with_their_episodes(tmp_path: Path, n_step: int, terminated: bool) -> None:
    """Every transition is drawn, the last ones of the file too, against sums by hand."""
    lengths = (3, 1, 4)
    demonstrations.save(tmp_path / "d.npz", episodes(lengths, terminated), SPEC)
    kept = demonstrations.load(tmp_path / "d.npz", SPEC)
    batch = jax.tree.map(np.asarray, buffer.sample_complete(kept, jax.random.key(jnp.uint32(1)), 64, 0.5, n_step))
    left = np.concatenate([np.arange(length, 0, -1) for length in lengths])
    drawn = set()
    for i, at in enumerate(np.asarray(batch.state)[:, 0]):
        first = int(np.flatnonzero(episodes(lengths)["state"][:, 0] == at)[0])
        m = min(n_step, left[first])
        drawn.add(first)
        assert float(batch.ret[i]) == sum(0.5**k * (first + k + 1) for k in range(m))
        ended = terminated and m == left[first]
        assert float(batch.discount[i]) == (0.0 if ended else 0.5**m)
        assert float(batch.next_state[i, 0]) == at + m
    assert drawn == set(range(8))


SEEDS = jnp.arange(2, dtype=jnp.int32)
SIZES = LoopConfig(n_envs=3, updates_per_step=2, batch_size=8, buffer_rows=16, warmup_vector_steps=4, demonstrated=3)


def keeper(spec: EnvSpec) -> Algorithm:
    """Its learner is the last batch that it has seen."""

    def init(key: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), buffer.batch_shapes(spec, SIZES.batch_size))

    def act(policy: Any, obs: Any, key: Any, explore: bool) -> Any:
        del policy, explore
        return spec.act_mask * jnp.round(jax.random.uniform(key, (*obs.shape[:-1], spec.act_dim), minval=-1.0), 1)

    return Algorithm(
        init=init, policy=lambda learner: learner.ret, act=act, gamma=0.5, n_step=2,
        update=lambda learner, batch, key, count: (batch, {"toy/count": Mean.of(count)}),
    )  # fmt: skip


def play(loop: Any, cuts: tuple[int, ...]) -> Batch:
    carry, row = loop.warm(loop.init(SEEDS), SEEDS, jnp.int32(0), jnp.int32(4)), 4
    for count in cuts:
        carry, row = loop.chunk(carry, SEEDS, jnp.int32(row), jnp.int32(count)), row + count
    return jax.tree.map(np.asarray, carry.learner)


def test_rewards_are_divided_by_what_demonstrations_return(tmp_path: Path) -> None:
    """Both loops begin with their statistics: sums of 0.5^k r by hand."""
    demonstrations.save(tmp_path / "d.npz", episodes((3,)), SPEC)
    shown = demonstrations.load(tmp_path / "d.npz", SPEC)
    sizes = dataclasses.replace(SIZES, reward_norm="return", reward_bound=5.0)
    stats = fused.no_returns(keeper(SPEC), sizes, shown)
    assert stats is not None
    returns = np.asarray([1.0, 2.5, 4.25])  # rewards 1, 2, 3
    assert float(stats.scale()) == pytest.approx(max(returns.std(), 4.25 / 5.0))
    assert (float(stats.count), stats.running.shape) == (3.0, (3,))
    env = envs.make(TASK)
    main([TASK, "--out", str(tmp_path / "e.npz"), "--episodes", "2", "--no-compilation-cache"])
    theirs = demonstrations.load(tmp_path / "e.npz", env.spec)
    expected = fused.no_returns(keeper(env.spec), sizes, theirs)
    assert expected is not None and float(expected.count) == theirs.reward.size
    carry = fused.make(keeper(env.spec), env, sizes, demonstrations=theirs).init(SEEDS)
    host = envs.make(f"{TASK}?host=true")
    hosted = Hosted(
        keeper(env.spec), host, sizes, lambda n: Pool.of(f"{TASK}?host=true", host.spec, n, 1), False, theirs
    )
    try:
        for begun in (carry, hosted.init(SEEDS)):
            assert begun.returns is not None
            np.testing.assert_array_equal(begun.returns.highest, [float(expected.highest)] * 2)
    finally:
        hosted.close()


def test_the_last_rows_of_every_batch_are_drawn_from_the_file(tmp_path: Path) -> None:
    """Anew for every gradient step; each seed has its own."""
    path = tmp_path / "d.npz"
    main([TASK, "--out", str(path), "--episodes", "5", "--no-compilation-cache"])
    env = envs.make(TASK)
    shown = demonstrations.load(path, env.spec)
    found = play(fused.make(keeper(env.spec), env, SIZES, demonstrations=shown), (5,))
    for seed in (0, 1):
        key = stream(run_key(seed), Stream.DEMONSTRATION, 10)  # five vector steps of two updates
        given = buffer.sample_complete(shown, key, SIZES.demonstrated, 0.5, 2)
        for whole, last in zip(jax.tree.leaves(found), jax.tree.leaves(given), strict=True):
            np.testing.assert_array_equal(whole[seed, -SIZES.demonstrated :], last)
    assert not np.array_equal(found.action[0], found.action[1])


@pytest.mark.slow
def test_both_loops_draw_the_same_demonstrations(tmp_path: Path) -> None:
    """Cut in any way."""
    path = tmp_path / "d.npz"
    main([TASK, "--out", str(path), "--episodes", "5", "--no-compilation-cache"])
    env, host = envs.make(TASK), envs.make(f"{TASK}?host=true")
    algorithm, shown = keeper(env.spec), demonstrations.load(path, env.spec)
    expected = play(fused.make(algorithm, env, SIZES, demonstrations=shown), (5,))
    hosted = Hosted(
        algorithm, host, SIZES, lambda worlds: Pool.of(f"{TASK}?host=true", host.spec, worlds, 1), demonstrations=shown
    )
    try:
        found = play(hosted, (2, 3))
    finally:
        hosted.close()
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_goes_on_with_the_same_file_only(tmp_path: Path) -> None:
    """Its digest stands in the manifest; the file itself is no part of the run, and evaluations do without it."""
    path = tmp_path / "d.npz"
    main([TASK, "--out", str(path), "--episodes", "5", "--no-compilation-cache"])
    config = resolve(TASK, "hasac", "tiny", demonstrations=str(path))
    folder = Experiment(config, loggers=()).create(tmp_path / "run")
    folder.close()
    assert folder.manifest["demonstrations"] == demonstrations.digest(path)
    Experiment.of_run(RunFolder.open(tmp_path / "run"), loggers=()).close()
    path.unlink()
    main([TASK, "--out", str(path), "--episodes", "4", "--no-compilation-cache"])
    with pytest.raises(UserError, match="not the file that the run began with"):
        Experiment.of_run(RunFolder.open(tmp_path / "run"), loggers=())
