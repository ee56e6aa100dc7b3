"""Exported teams act as the algorithms do in JAX, from their folders alone."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib.util
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))

from teams import ALGORITHMS, team

import omad
from omad import envs
from omad.cli import main
from omad.envs.host_env import HostEnv
from omad.envs.pool import Pool
from omad.errors import EnvFailed, UserError
from omad.export import bundle, play
from omad.export import distil as distilling
from omad.export.agent import VECTORS, runner
from omad.export.distil import Settings, distil, matching, observations
from omad.export.fold import fold, sample, squashed, unsquashed
from omad.export.runner import BadPolicy, Policy, read_tensors
from omad.export.team import Trained, boxes, compare, differences, export, folded_vectors, vectors
from omad.saved import policies_at
from omad.spec import EnvSpec, inward

UNEQUAL = "probe/push"


def fold_of(trained: Trained) -> Any:
    return fold(trained.policy, trained.config, trained.spec, "none")


EXACT = {"chain_kernel": "exact", "step_init": 1.0}
QUICK = [
    *((algorithm, UNEQUAL, "none") for algorithm in ALGORITHMS),
    ("omad", "mpe/deception-2?history=3", "running"),
    ("madpmd", "mamujoco-obsk0/halfcheetah-6x1", "harl"),
]
TASKS = ("mpe/spread-3", UNEQUAL, "mpe/deception-2?history=3", "mamujoco-obsk0/halfcheetah-6x1")
REST = [
    pytest.param(algorithm, task, obs_norm, marks=pytest.mark.slow)
    for algorithm in ALGORITHMS
    for task in TASKS
    for obs_norm in ("none", "running", "harl")
    if (algorithm, task, obs_norm) not in QUICK
]


@pytest.mark.parametrize(("algorithm", "task", "obs_norm"), [*QUICK, *REST])
def test_numpy_and_onnx_act_as_jax_does(algorithm: str, task: str, obs_norm: str, tmp_path: Path) -> None:
    """From the same noise, sampled and noise-free, within 1e-5; at loading, the runner checks its test vectors."""
    pytest.importorskip("onnxruntime")
    trained = team(algorithm, task, obs_norm)
    out = export(trained, tmp_path / "team")
    found = compare(out, trained, VECTORS)["difference"]
    assert set(found) == {"numpy", "onnx"} and max(found.values()) <= 1e-5, found


def test_exact_steps_are_exported(tmp_path: Path) -> None:
    """Their noise is no longer the root of twice the way along the drift; with fewer steps as well."""
    pytest.importorskip("onnxruntime")
    trained = team("omad", UNEQUAL, **EXACT)
    for steps in (None, 2):
        out = export(trained, tmp_path / str(steps), denoising_steps=steps)
        found = compare(out, trained, VECTORS)["difference"]
        assert set(found) == {"numpy", "onnx"} and max(found.values()) <= 1e-5, found
    one, euler = (fold(t.policy, t.config, t.spec, "none")[0].tensors for t in (trained, team("omad", UNEQUAL)))
    assert "jump" not in euler and (one["jump"] ** 2 < 2 * one["step"]).all()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A team of two agents of unequal sizes."""
    return export(team("omad", UNEQUAL), tmp_path_factory.mktemp("export") / "team", ["numpy"])


def test_the_folder_is_complete_and_small(out: Path) -> None:
    """Names, sizes and checksums; a cpu-sized agent takes less than 1 MB."""
    about = bundle.load(out)
    assert (about.obs_dims, about.act_dims, about.history, about.steps) == ([1, 2], [1, 2], 1, 4)
    assert {path.name for path in (out / "agent_0").iterdir()} == {"policy.json", "policy.safetensors", "runner.py"}
    wide = {"actor_width": 128, "denoising_steps": 8, "time_frequencies": 64, "time_width": 64}
    trained = team("omad", "mpe/spread-3", **wide)
    (one, *_) = fold(trained.policy, trained.config, trained.spec, "none")
    low, high = boxes(trained.spec)[0]
    assert (low.min(), high.max()) == (0, 1)
    tensors = sum(array.nbytes for array in one.tensors.values())
    assert 2 * tensors + (1 << 16) < 1_000_000  # as safetensors and inside the graph


ALONE = """
import importlib.util, sys
sys.path.append(sys.argv[1])
for name in ("jax", "equinox", "omad", "safetensors", "onnx", "msgspec"):
    assert importlib.util.find_spec(name) is None, name
sys.path.append(sys.argv[2])
import numpy as np, runner
policy = runner.Policy(seed=0)
action = policy.act(np.zeros(policy.obs_dim))
assert action.shape == (policy.act_dim,) and np.isfinite(action).all()
ours = {m.split(".")[0] for m in sys.modules} & {"jax", "equinox", "omad", "safetensors", "onnx"}
assert not ours, ours
"""


def test_the_runner_needs_numpy_alone(out: Path, tmp_path: Path) -> None:
    """Without site packages, but for a link to NumPy."""
    package = Path(np.__file__).parent
    for path in (package, package.with_name("numpy.libs")):
        if path.exists():
            (tmp_path / path.name).symlink_to(path)
    words = [sys.executable, "-S", "-I", "-c", ALONE, str(tmp_path), str(out / "agent_1")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert len((out / "agent_1" / "runner.py").read_text().splitlines()) <= 220


def test_the_runner_keeps_the_history_of_every_row(tmp_path: Path) -> None:
    """A batch of two acts as each row does alone, and as the network does on frames stacked by hand."""
    path = export(team("hatd3", "mpe/deception-2?history=3"), tmp_path / "team", ["numpy"]) / "agent_0"
    policy, rng = Policy(path), np.random.default_rng(0)
    obs = rng.standard_normal((3, 2, policy.obs_dim)).astype(np.float32)
    both = [policy.act(o, explore=False) for o in obs]
    policy.reset()
    alone = [policy.act(o[0], explore=False) for o in obs]
    np.testing.assert_allclose([b[0] for b in both], alone, atol=1e-6)
    before = [2 * a - 1 for a in alone]  # from the box [0, 1]
    stacked = np.concatenate([obs[2, 0], obs[1, 0], before[1], obs[0, 0], before[0]])
    by_hand = policy.policy(stacked, np.zeros((1, policy.act_dim), np.float32))
    np.testing.assert_allclose(by_hand, 2 * alone[2] - 1, atol=1e-5)


def test_bad_observations_are_refused(out: Path) -> None:
    policy = Policy(out / "agent_1")
    with pytest.raises(BadPolicy, match=r"shape \(3,\) was given; \(2,\) is needed"):
        policy.act(np.zeros(3))
    with pytest.raises(BadPolicy, match="entry 1 of the observation is not finite"):
        policy.act([0, np.nan])
    with pytest.raises(BadPolicy, match="noise of shape"):
        policy.act([0, 0], noise=np.zeros((2, 2)))
    for wrong in ({"x": 1.0}, "0 0", [[0.0], [0.0, 1.0]], [0j, 1j], [None, 0.0]):
        with pytest.raises(BadPolicy, match=r"an array of (real )?numbers is needed"):
            policy.act(wrong)
    with pytest.raises(BadPolicy, match="the action is not finite"):
        policy.act([0, 0], noise=np.full((policy.rows, policy.act_dim), np.nan))


def test_a_history_is_not_forgotten_in_silence(tmp_path: Path) -> None:
    """Not when a row is gone, nor after an observation that the network cannot take; `reset` begins anew."""
    path = export(team("hatd3", "mpe/deception-2?history=3"), tmp_path / "team", ["numpy"]) / "agent_0"
    policy = Policy(path)
    obs = np.zeros((3, policy.obs_dim), np.float32)
    policy.act(obs)
    before = policy.past
    with pytest.raises(BadPolicy, match="other rows than before; reset"):
        policy.act(obs[:2])
    with pytest.raises(BadPolicy, match="the action is not finite"):
        policy.act(obs, noise=np.full((3, policy.rows, policy.act_dim), np.nan))
    assert policy.past is before
    policy.reset()
    policy.act(obs[:2])


@pytest.mark.parametrize("words", [["--bogus"], ["--seed"], ["--seed", "x"], ["--help"]])
def test_the_runner_says_what_it_takes(out: Path, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, out / "agent_0" / "runner.py", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "Flags: --pipe, --noise-free, --seed N" in done.stderr and not done.stdout


@pytest.mark.parametrize("request_", [b"x\1\0\0\0", b"A\2\0\0\0\0\0", b"A"])
def test_a_request_that_is_none_ends_the_pipe_with_a_sentence(out: Path, request_: bytes) -> None:
    runner = [sys.executable, out / "agent_0" / "runner.py", "--pipe"]
    done = subprocess.run(runner, input=request_, capture_output=True, check=False)
    assert done.returncode == 1 and b"was given, or one cut short" in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["policy.json", "policy.safetensors", "runner.py"])
def test_damaged_files_are_refused(out: Path, tmp_path: Path, name: str) -> None:
    """By the runner and by the commands; a missing one is named."""
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    path = copy / "agent_0" / name
    data = path.read_bytes()
    path.write_bytes(data.replace(b"e", b"f", 1) if name != "policy.safetensors" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match="does not match its checksum"):
        bundle.load(copy)
    if name != "runner.py":
        with pytest.raises(BadPolicy, match=r"checksum|format"):
            Policy(copy / "agent_0")
    path.unlink()
    with pytest.raises(UserError, match="is missing"):
        bundle.load(copy)


def test_other_versions_and_wrong_agent_counts_are_refused(out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    about = json.loads((copy / "team.json").read_text())
    for change, words in (
        ({"format": 99}, "is a bundle of format 99; this version reads 1"),
        ({"agents": ["agent_0"]}, "names 1 agents"),
        ({"files": about["files"] | {"../../x": ""}}, r"the file '\.\./\.\./x', which no team has"),
        ({"files": about["files"] | {"a\0b": ""}}, "which no team has"),
        ({"files": {"README.md": about["files"]["README.md"]}}, r"does not name agent_0/policy\.json"),
        ({"steps": 0}, "steps"),
    ):
        (copy / "team.json").write_text(json.dumps(about | change))
        with pytest.raises(UserError, match=words):
            bundle.load(copy)
    with pytest.raises(UserError, match="not an exported team"):
        bundle.load(tmp_path)


def test_a_runner_of_another_make_is_not_executed(out: Path, tmp_path: Path) -> None:
    """Though the bundle's checksums are right."""
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    runner, about = copy / "agent_1" / "runner.py", json.loads((copy / "team.json").read_text())
    runner.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n{runner.read_text()}")
    about["files"]["agent_1/runner.py"] = hashlib.sha256(runner.read_bytes()).hexdigest()
    (copy / "team.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="would be executed"):
        play.Agents(copy, bundle.load(copy), 0, True)
    assert not (tmp_path / "executed").exists()
    with play.Agents(copy, bundle.load(copy), 0, True, timeout_s=60.0, trust=True) as agents:
        agents.act([np.zeros((1, 1), np.float32), np.zeros((1, 2), np.float32)])
    assert (tmp_path / "executed").exists()


def test_what_unpacks_to_our_runner_is_not_our_runner(out: Path, tmp_path: Path) -> None:
    """Python would run a program that hides in a packed copy; files are compared as they are."""
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    runner, about = copy / "agent_1" / "runner.py", json.loads((copy / "team.json").read_text())
    runner.write_bytes(gzip.compress(runner.read_bytes()))
    with pytest.raises(UserError, match="does not match its checksum"):
        bundle.load(copy)
    about["files"]["agent_1/runner.py"] = hashlib.sha256(runner.read_bytes()).hexdigest()
    (copy / "team.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="would be executed"):
        play.Agents(copy, bundle.load(copy), 0, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"settings": {}}, "agent_0 cannot be used .*activations"),
        ({"settings": [1]}, r"policy\.json cannot be used: .* `settings`"),
        ({"settings": {"activations": ["gelu"]}}, r"hidden\.0\.bias has the shape \(16,\), as no policy has"),
        ({"noise_rows": 1}, "agent_0 has other sizes or bounds than"),
        ({"obs_dim": 2}, r"obs\.weight has the shape \(1, 16\), as no policy has"),
        ({"history": "x"}, r"policy\.json cannot be used: .* `history`"),
        ({"action_high": [{}]}, r"policy\.json cannot be used: .* `action_high\[0\]`"),
        ({"action_high": [7.0]}, "agent_0 has other sizes or bounds than"),
        ({"tolerance": "x"}, "agent_0 cannot be used .*less_equal"),
        ({"kind": "distilled"}, "agent_0 cannot be used .*group"),
        ("header", "agent_0 cannot be used .*decode byte"),
        ("offsets", "agent_0 cannot be used .*'str' and 'int'"),
        ("short", "agent_0 cannot be used .*buffer size"),
        ("twice", "time is not float32, or out of place"),
        ("type", "time is not float32, or out of place"),
    ],
)
def test_files_that_agree_in_checksums_alone_are_refused(
    out: Path, tmp_path: Path, change: Any, words: str | None
) -> None:
    """Each for what is wrong with it; the same files are read where nothing was changed."""
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    folder, team_json = copy / "agent_0", json.loads((copy / "team.json").read_text())
    about, data = json.loads((folder / "policy.json").read_text()), (folder / "policy.safetensors").read_bytes()
    if isinstance(change, dict):
        about |= change
    else:
        size = int.from_bytes(data[:8], "little")
        head = json.loads(data[8 : 8 + size])
        others = {
            "offsets": {"data_offsets": ["0", None]},
            "twice": {"data_offsets": head["obs.weight"]["data_offsets"], "shape": head["obs.weight"]["shape"]},
            "type": {"dtype": "I32"},
        }
        head["time"] |= others.get(change, {})
        text = json.dumps(head).encode()
        changed = len(text).to_bytes(8, "little") + text + data[8 + size :]
        data = {"header": b"\xff" * 8 + data[8:], "short": data[:-3]}.get(change, changed)
    about["tensors_sha256"] = hashlib.sha256(data).hexdigest()
    del about["checksum"]
    about["checksum"] = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    (folder / "policy.json").write_text(json.dumps(about))
    (folder / "policy.safetensors").write_bytes(data)
    for name in team_json["files"]:
        team_json["files"][name] = hashlib.sha256((copy / name).read_bytes()).hexdigest()
    (copy / "team.json").write_text(json.dumps(team_json))
    if words is None:
        assert len(bundle.policies(copy, bundle.load(copy))) == 2
        return
    with pytest.raises(UserError, match=words):
        bundle.policies(copy, bundle.load(copy))


def test_no_tensor_is_held_twice(out: Path) -> None:
    """A few bytes of a file must not become gigabytes by being named often."""
    data = (out / "agent_0" / "policy.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    head |= {f"x{i}": head["obs.weight"] for i in range(3)}
    text = json.dumps(head).encode()
    with pytest.raises(BadPolicy, match="out of place"):
        read_tensors(len(text).to_bytes(8, "little") + text + data[8 + size :])


@pytest.mark.parametrize("name", ["test.obs", "obs.weight", "last.weight", "step", "hidden.0.weight", "strange"])
def test_shapes_that_ask_for_much_memory_are_refused(out: Path, tmp_path: Path, name: str) -> None:
    """More test vectors than there are, empty, further and broadcast axes make products that no file holds."""
    from safetensors.numpy import load, save

    copy = tmp_path / "copy"
    shutil.copytree(out / "agent_0", copy)
    tensors = load((copy / "policy.safetensors").read_bytes())
    shape = {"test.obs": (4000, 1), "obs.weight": (0, 10**6), "last.weight": (1, 4, 4)}.get(name, (1, 1))
    tensors[name] = np.zeros(shape, np.float32)
    data, about = save(tensors), json.loads((copy / "policy.json").read_text())
    about["tensors_sha256"] = hashlib.sha256(data).hexdigest()
    del about["checksum"]
    about["checksum"] = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    (copy / "policy.json").write_text(json.dumps(about))
    (copy / "policy.safetensors").write_bytes(data)
    with pytest.raises(UserError, match=rf"{name} has the shape .*, as no policy has"):
        runner(copy)


@pytest.mark.parametrize(
    ("field", "wrong", "words"),
    [
        ("obs_dim", 9, "obs.weight has the shape"),
        ("history", 10_000, "obs.weight has the shape"),
        ("act_dim", 3, "bounds of actions have not 3 entries"),
        ("action_low", [-1.0, -1.0, -1.0], "bounds of actions have not"),
        ("settings", {}, "cannot be used"),
    ],
)
def test_sizes_that_the_numbers_do_not_have_are_refused(
    out: Path, tmp_path: Path, field: str, wrong: Any, words: str
) -> None:
    """They say how much an observation holds, before anything is known to fit."""
    copy = tmp_path / "copy"
    shutil.copytree(out / "agent_0", copy)
    about = json.loads((copy / "policy.json").read_text()) | {field: wrong}
    del about["checksum"]
    about["checksum"] = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    (copy / "policy.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=words):
        runner(copy)


def test_a_graph_of_another_form_is_not_loaded(tmp_path: Path) -> None:
    """Other values of the same constants are; what a graph asks for while it is loaded is not bounded."""
    onnx = pytest.importorskip("onnx")
    trained = team("hatd3", UNEQUAL)
    out = export(trained, tmp_path / "team")
    path = out / "agent_0" / "policy.onnx"
    model = onnx.load_model(path)
    for change in ("values", "node"):
        if change == "node":
            model.graph.node.append(onnx.helper.make_node("Identity", ["obs"], ["more"]))
        else:
            weights = onnx.numpy_helper.to_array(model.graph.initializer[0])
            model.graph.initializer[0].raw_data = (weights * 1.5).astype(weights.dtype).tobytes()
        path.write_bytes(model.SerializeToString())
        about = json.loads((out / "team.json").read_text())
        about["files"]["agent_0/policy.onnx"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (out / "team.json").write_text(json.dumps(about))
        if change == "node":
            with pytest.raises(UserError, match="is not the graph of these policies"):
                compare(out, trained, VECTORS)
        else:
            assert compare(out, trained, VECTORS)["difference"]["onnx"] > 1e-3


def test_actions_stay_in_their_box(tmp_path: Path) -> None:
    """Also where float32 rounds beyond its end, and with bounds whose difference is more than float32 holds."""
    trained = team("hatd3", UNEQUAL)
    wide = float(np.finfo(np.float32).max)
    for low, high in ((-2.9, -0.62), (-1.13, 0.07), (-wide, wide), (295.0, 300.0), (100.0, 101.0)):
        spec = dataclasses.replace(trained.spec, act_low=((low,), (low,) * 2), act_high=((high,), (high,) * 2))
        out = export(trained._replace(spec=spec), tmp_path / f"{low}")
        policy = Policy(out / "agent_1")
        policy.policy = lambda obs, noise: np.asarray([1.0, -1.0], np.float32)  # type: ignore[method-assign]
        with np.errstate(over="raise"):
            action = policy.act(np.zeros(policy.obs_dim))
        np.testing.assert_array_equal(action, inward(low, high)[::-1])
        assert low <= float(action.min()) and float(action.max()) <= high
        found = differences(out, bundle.load(out), fold_of(trained), vectors(trained, fold_of(trained), 16))
        assert max(found.values()) <= 1e-5, found


def test_numbers_that_are_not_finite_are_neither_written_nor_called_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = team("omad", UNEQUAL)
    broken = trained._replace(policy=jax.tree.map(lambda leaf: leaf * jnp.nan, trained.policy))
    with pytest.raises(UserError, match=r"agent 0 holds numbers that are not finite .* earlier checkpoint"):
        export(broken, tmp_path / "broken")
    assert not (tmp_path / "broken").exists()
    out = export(trained, tmp_path / "team", ["numpy"])
    tests = vectors(trained, fold_of(trained), 16)
    nothing = types.SimpleNamespace(policy=lambda *_: np.full(1, np.nan, np.float32))
    monkeypatch.setattr("omad.export.team.runner", lambda folder: nothing)
    assert differences(out, bundle.load(out), fold_of(trained), tests) == {"numpy": math.inf}


def test_a_bundle_says_what_it_has(tmp_path: Path) -> None:
    """The formats that are there, and no returns of policies that are others."""
    trained = team("omad", UNEQUAL)
    for formats, named, missing in (("numpy", "runner.py", "onnx"), ("onnx", "policy.onnx", "runner.py")):
        out = export(trained, tmp_path / formats, [formats])
        words = (out / "README.md").read_text()
        assert named in words and missing not in words
        assert "| `agent_1` | agent_1 | 2 | -1 | 1 |" in words
        assert bundle.load(out).facts.evaluation == {"sampled": -1.0}
        about = json.loads((out / "agent_0" / "policy.json").read_text())
        assert (about["tensors_sha256"] is None) == (formats == "onnx")
    assert bundle.load(export(trained, tmp_path / "few", ["numpy"], 1)).facts.evaluation == {}


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folder exists, a format or a package is missing, there are too many steps, or writing fails."""
    trained = team("omad", UNEQUAL)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists already"):
        export(trained, tmp_path / "there", ["numpy"])
    with pytest.raises(UserError, match="allowed: numpy, onnx"):
        export(trained, tmp_path / "new", ["torch"])
    with pytest.raises(UserError, match="give 1 to 4"):
        export(trained, tmp_path / "new", ["numpy"], denoising_steps=5)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(UserError, match=r"pip install 'omad\[onnx\]'"):
            export(trained, tmp_path / "new", ["numpy", "onnx"])
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(Path, "write_bytes", fail)
        with pytest.raises(UserError, match="No space left"):
            export(trained, tmp_path / "new", ["numpy"])
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be made, for .*file is not a folder"):
        bundle.check_new(tmp_path / "file" / "below" / "it", ["numpy"])


@pytest.mark.parametrize("algorithm", ["omad", "madpmd"])
def test_fewer_denoising_steps(algorithm: str, tmp_path: Path) -> None:
    """All of them are the schedule itself; fewer run in every runtime alike."""
    trained = team(algorithm, UNEQUAL)
    all_steps = fold(trained.policy, trained.config, trained.spec, "none")[0]
    given = fold(trained.policy, trained.config, trained.spec, "none", trained.config.denoising_steps)[0]
    for name, array in all_steps.tensors.items():
        np.testing.assert_array_equal(array, given.tensors[name])
    path = export(trained, tmp_path / "team", denoising_steps=2)
    assert bundle.load(path).steps == 2 and bundle.load(path).trained_steps > 2
    found = compare(path, trained, VECTORS)["difference"]
    assert max(found.values()) <= 1e-5, found


def test_fewer_steps_of_a_chain_go_just_as_far() -> None:
    """The way along the drift is the same in all, and each stretch begins where the one before it has ended."""
    trained = team("omad", UNEQUAL)
    every = [fold(trained.policy, trained.config, trained.spec, "none", steps)[1].tensors for steps in range(1, 5)]
    (all_steps, all_times) = every[-1]["step"], every[-1]["time"]
    for tensors in every:
        np.testing.assert_allclose(tensors["step"].sum(0), all_steps.sum(0), rtol=1e-6)
        before = np.cumsum(tensors["step"], 0) - tensors["step"]
        starts = [int(np.argmin(np.abs(np.cumsum(all_steps, 0) - all_steps - way).sum(1))) for way in before]
        np.testing.assert_allclose((np.cumsum(all_steps, 0) - all_steps)[starts], before, atol=1e-6)
        np.testing.assert_array_equal(tensors["time"], all_times[starts])


@pytest.mark.parametrize("steps", range(1, 6))
def test_fewer_steps_of_a_denoising_model_lead_from_level_to_level(steps: int) -> None:
    """Given x_0, from the noising model's own x at one kept level to its x at the one before.

    They begin at the highest level, and all but a single one end below the lowest.
    """
    trained = team("madpmd", UNEQUAL)
    table = fold(trained.policy, trained.config, trained.spec, "none", steps)[0].tensors["coefficients"].astype(float)
    kept = 1.0 / table[:, 0] ** 2
    levels = [math.prod(1 - 0.8 * b for b in np.linspace(1e-4, 0.999, 5)[: t + 1]) for t in range(5)]
    used = [int(np.argmin(np.abs(np.log(levels) - np.log(share)))) for share in kept]
    assert used[-1] == 4 and (steps == 1 or used[0] == 0) and used == sorted(set(used))
    np.testing.assert_allclose(kept, [levels[t] for t in used], rtol=1e-5)
    kept = np.asarray([levels[t] for t in used])
    below = np.asarray([1.0, *(levels[t] for t in used[:-1])])
    _, from_noise, mean_x0, mean_x, std = table.T
    np.testing.assert_allclose(from_noise**2, 1 / kept - 1, rtol=1e-4)
    np.testing.assert_allclose(mean_x0 + mean_x * np.sqrt(kept), np.sqrt(below), rtol=1e-5)
    np.testing.assert_allclose(mean_x**2 * (1 - kept) + std**2, 1 - below, atol=1e-6)


# ---------------------------------------------------------------- one process an agent


def test_agents_in_processes_do_as_well(out: Path) -> None:
    """Noise-free, the same episodes give the same returns as in JAX."""
    with play.Agents(out, bundle.load(out), seed=0, explore=False) as agents:
        apart = play.play(agents, envs.make(UNEQUAL), 8, 5)
    together = play.evaluate(bundle.policies(out, bundle.load(out)), envs.make(UNEQUAL), 8, 5, explore=False).returns[0]
    np.testing.assert_allclose(apart, together, atol=1e-4)
    with pytest.raises(UserError, match="give a task of these sizes"):
        play.env_of(bundle.load(out), "mpe/spread-3")


def test_a_team_is_not_played_where_its_actions_mean_something_else(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where its agents are others by now; another task of the same sizes may call them otherwise."""
    team, spec = bundle.load(out), envs.make(UNEQUAL).spec
    facts = msgspec.structs.replace(team.facts, horizon=spec.horizon)
    team = msgspec.structs.replace(team, facts=facts)
    longer = dataclasses.replace(spec, horizon=spec.horizon + 1)
    wide = dataclasses.replace(
        spec,
        act_low=tuple((-1.0,) * size for size in spec.act_dims),
        act_high=tuple((1.0,) * (size - 1) + (40.0,) for size in spec.act_dims),
    )
    named = dataclasses.replace(spec, agents=("left", "right"))
    cases = (
        (wide, "takes actions of agent_0 from"),
        (named, "has the agents left, right"),
        (longer, "trained on those"),
    )
    for found, words in cases:
        monkeypatch.setattr(play.envs, "make", lambda task, found=found: HostEnv(found, lambda render: None))  # type: ignore[arg-type]
        with pytest.raises(UserError, match=words):
            play.env_of(team, UNEQUAL)
    assert play.env_of(team, "another").spec == longer
    monkeypatch.undo()
    assert play.env_of(team, UNEQUAL).spec == spec


def test_an_agent_that_dies_or_is_late_is_named(out: Path) -> None:
    """And no process is left."""
    obs = [np.zeros((1, 1), np.float32), np.zeros((1, 2), np.float32)]
    with play.Agents(out, bundle.load(out), 0, True, timeout_s=60.0) as agents:
        assert [a.shape for a in agents.act(obs)] == [(1, 1), (1, 2)]
        agents.processes[1].kill()
        agents.processes[1].wait()
        with pytest.raises(EnvFailed, match=r"agent_1 died at step 2 \(killed by signal 9\)"):
            agents.act(obs)
    with play.Agents(out, bundle.load(out), 0, True, timeout_s=60.0) as agents:
        agents.act(obs)
        agents.processes[0].send_signal(signal.SIGSTOP)
        agents.timeout_s = 0.05
        with pytest.raises(EnvFailed, match=r"agent_0 did not answer within 0\.05 s at step 2"):
            agents.act(obs)
        many = [np.zeros((1 << 16, 1), np.float32), np.zeros((1 << 16, 2), np.float32)]  # more than a pipe holds
        with pytest.raises(EnvFailed, match=r"agent_0 did not answer within 0\.05 s at step 3"):
            agents.act(many)
        pids = [process.pid for process in agents.processes]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


# ---------------------------------------------------------------- distillation, commands

SIZES = {
    "total_steps": 60, "warmup_steps": 20, "n_envs": 2, "updates_per_step": 1, "batch_size": 4, "buffer_size": 60,
    "log_every": 20, "eval_every": 60, "eval_episodes": 2, "save_every": 60, "v_max": 8.0, "atoms": 5,
    "denoising_steps": 2, "actor_width": 4, "actor_layers": 1, "time_frequencies": 2, "time_width": 2,
    "critic_width": 4, "critic_layers": 1,
}  # fmt: skip


def test_every_episode_of_a_visit_is_driven_by_its_own_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first half without noise, the second half with it, each from what that very episode shows."""
    trained = team("omad", UNEQUAL)
    teachers = fold_of(trained)
    spec = dataclasses.replace(trained.spec, horizon=3)
    shown, given = list[np.ndarray](), list[np.ndarray]()

    def act(_: Any, obs: Any, key: Any, explore: bool) -> Any:
        del key
        return jnp.tanh(obs[..., : spec.act_dim]) * (1.0 if explore else 0.5)

    class Episodes(Pool):
        """Five instances that show fresh numbers at every step."""

        def __init__(self, *_: Any) -> None:
            self.rng = np.random.default_rng(0)

        def see(self) -> np.ndarray:
            shown.append(self.rng.standard_normal((5, spec.n_agents, spec.obs_dim)).astype(np.float32))
            return shown[-1]

        def reset(self, seeds: Any) -> Any:
            return self.see(), None

        def send(self, actions: Any, seeds: Any, reset_seeds: Any, number: int) -> None:
            given.append(np.asarray(actions))

        def receive(self, number: int) -> Any:
            seen, zeros = self.see(), np.zeros(5)
            return types.SimpleNamespace(
                next_obs=seen, next_state=seen, reward=zeros, terminated=zeros > 0, truncated=zeros == number - 2
            )

        def close(self) -> None:
            pass

    algorithm = distilling.as_algorithm(teachers, spec)._replace(act=act)
    monkeypatch.setattr(distilling, "as_algorithm", lambda *_: algorithm)
    env = envs.make(f"{UNEQUAL}?host=true")._replace(spec=spec)
    monkeypatch.setattr(Pool, "of", lambda *_: Episodes())
    observations(teachers, env, 5, 0)
    assert len(given) == 3
    for obs, action in zip(shown, given, strict=False):
        factor = np.where(np.arange(5) < 2, 0.5, 1.0)[:, None, None]
        np.testing.assert_allclose(action, factor * np.tanh(obs[..., : spec.act_dim]), atol=1e-6)


def test_a_long_visit_is_thinned_and_not_cut_off() -> None:
    rows = np.arange(1_000)
    assert distilling._thinned(rows, 100)[[0, -1]].tolist() == [0, 999]
    assert distilling._thinned(rows[:50], 100).tolist() == list(range(50))


@pytest.mark.slow
def test_a_student_gives_the_teachers_action_from_the_same_noise(tmp_path: Path) -> None:
    """Closer after training than before it; with groups that do not divide the noise; exported like any team."""
    trained = team("omad", UNEQUAL)
    teachers = fold(trained.policy, trained.config, trained.spec, "none")
    obs = observations(teachers, envs.make(UNEQUAL), 4, 0)
    assert obs.shape[1:] == (2, 2) and np.isfinite(obs).all()
    before = distil(teachers, obs, Settings(steps=3, updates=1, batch=16, learning_rate=0.0), 0)[1]
    played: list[tuple[int, int]] = []

    def visit(players: Any, number: int) -> np.ndarray:
        played.append((number, len(players)))
        return observations(players, envs.make(UNEQUAL), 4, number)

    students, after = distil(teachers, obs, Settings(steps=3, updates=400, batch=64, rounds=2), 0, visit)
    assert played == [(1, 2)]
    assert all(late < 0.6 * early for early, late in zip(before, after, strict=True)), (before, after)
    path = bundle.write(
        tmp_path / "team", students, folded_vectors(students, 16), boxes(trained.spec), 1, trained.facts
    )
    assert bundle.load(path).kind == "distilled" and bundle.load(path).steps == 3
    found = differences(path, bundle.load(path), students, folded_vectors(students, 16, seed=3))
    assert max(found.values()) <= 1e-5, found
    with pytest.raises(UserError, match="a distilled team"):
        compare(path, trained)
    with pytest.raises(UserError, match="give 1 to"):
        distil(teachers, obs, Settings(steps=5), 0)
    one_step = team("hatd3", UNEQUAL)
    with pytest.raises(UserError, match="nothing to distil"):
        distil(fold(one_step.policy, one_step.config, one_step.spec, "none"), obs, Settings(), 0)


@pytest.mark.parametrize("algorithm", ["omad", "madpmd"])
def test_a_student_that_is_sure_of_the_wrong_end_of_the_box_is_put_right(algorithm: str) -> None:
    """Where tanh and clipping are flat, the square of the difference of actions has no slope; the matching loss has."""
    trained = team(algorithm, UNEQUAL)
    (teacher, _) = fold(trained.policy, trained.config, trained.spec, "none")
    obs, noise = jnp.zeros((4, teacher.obs_dim)), jnp.zeros((4, teacher.noise_rows, teacher.act_dim))

    def square(x: Any) -> Any:
        return jnp.square(squashed(teacher, x, noise) + 1.0).mean()

    x = jnp.full((4, teacher.act_dim), 50.0)
    assert not np.any(jax.grad(square)(x))
    assert np.all(jax.grad(lambda x: matching(teacher, x, noise, -jnp.ones_like(x))[0])(x) > 0)
    np.testing.assert_allclose(
        sample(teacher, teacher.tensors, obs, noise),
        squashed(teacher, unsquashed(teacher, teacher.tensors, obs, noise), noise),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> omad.Run:
    """One that was trained, for a moment."""
    return omad.train(UNEQUAL, run_dir=tmp_path_factory.mktemp("trained") / "run", loggers=[], **SIZES)


@pytest.mark.slow
def test_each_seed_of_a_run_adds_noise_of_its_own_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As policies of other env steps do, which are each seed's best.

    With the denoising steps of training an evaluation by folded policies is the usual one.
    """

    def uneven(*arguments: Any) -> Any:
        policies, steps = policies_at(*arguments)
        factor = jnp.array([[1.0], [3.0]])
        return eqx.tree_at(lambda policy: policy.noise_std, policies, factor * policies.noise_std), steps

    monkeypatch.setattr("omad.trained.policies_at", uneven)
    sizes: dict[str, Any] = {n: v for n, v in SIZES.items() if n not in ("v_max", "atoms", "time_frequencies")}
    sizes["time_width"] = 4
    run = omad.train("probe/push", "madpmd", "tiny", tmp_path / "run", seeds=2, loggers=[], **sizes)
    usual, folded = run.evaluate(4), run.evaluate(4, denoising_steps=2)
    for kind, returns in usual.returns.items():
        np.testing.assert_allclose(folded.returns[kind], returns, atol=1e-3)


def test_commands(run: omad.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a run to a bundle and its episodes; what does not exist is refused with exit code 2."""
    out = tmp_path / "team"
    assert main(["export", str(run), "--out", str(out), "--check", "--json"]) == 0
    assert max(json.loads(capsys.readouterr().out)["difference"].values()) <= 1e-5
    facts = bundle.load(out).facts
    assert facts.evaluation.keys() == {"sampled", "noise_free"} and facts.horizon == envs.make(facts.task).spec.horizon
    assert main(["run-bundle", str(out), "--episodes", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["processes"]["returns"]) == len(found["jax"]["returns"]) == 4
    assert main(["eval", str(run), "--episodes", "4", "--denoising-steps", "2", "--json"]) == 0
    fewer = json.loads(capsys.readouterr().out)["results"]
    assert main(["eval", str(run), "--episodes", "4", "--json"]) == 0
    for one, other in zip(fewer, json.loads(capsys.readouterr().out)["results"], strict=True):
        np.testing.assert_allclose(one["returns"], other["returns"], atol=1e-3)
    for arguments, words in (
        (["export", str(run), "--out", "x", "--training-seed", "7"], "no seed 7"),
        (["export", str(run), "--out", "x", "--which", "17"], "no checkpoint of env step 17; it has 60"),
        (["export", str(run), "--out", "x", "--which", "first"], "must be last, best, or the env step"),
        (["export", str(run), "--out", str(out)], "exists already"),
        (["run-bundle", str(run)], "not an exported team"),
        (["run-bundle", str(out), "--task", "mpe/spread-3"], "give a task of these sizes"),
        (["distil", str(run), "--out", str(out)], "exists already"),
        (["latency", str(out), "--which", "best"], "is one exported team; leave --which out"),
        (["eval", str(out)], "It is an exported team: omad run-bundle plays it"),
        (["eval", str(run.path.parent)], f"It holds runs: give one, as {run.path}; omad runs"),
        (["eval", str(run), "--denoising-steps", "3"], "give 1 to 2"),
    ):
        assert main(arguments) == 2
        assert words in capsys.readouterr().err


def test_an_evaluation_says_more_than_returns(run: omad.Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Lengths of episodes too; on the task itself there is no difference to name."""
    assert main(["eval", str(run), "--episodes", "4"]) == 0
    said = capsys.readouterr().out
    assert "not as in training" not in said and re.search(r"env steps *│ *1 │ *1 │", said), said


def test_a_comparison_that_fails_says_so(
    run: omad.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omad.export.team.compare", lambda *_: {"observations": 4, "difference": {"numpy": 0.5}})
    assert main(["export", str(run), "--out", str(tmp_path / "team"), "--formats", "numpy", "--check"]) == 1
    assert "not the run's policies: numpy beyond 1e-05; export the run again" in capsys.readouterr().out


@pytest.mark.slow
def test_commands_for_fewer_steps(run: omad.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A student of one step, and what each number of steps costs."""
    fast = tmp_path / "fast"
    assert main(["distil", str(run), "--out", str(fast), "--updates", "1", "--episodes", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["teacher_denoising_steps"], said["observations"]) == (2, 2 * envs.make(UNEQUAL).spec.horizon + 60)
    assert bundle.load(fast).steps == 1
    words = ["latency", str(run), "--actions", "5", "--episodes", "4", "--denoising-steps", "1,2", "--json"]
    assert main([*words, "--out", str(tmp_path / "a.png")]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["denoising_steps"] for row in rows} == {1, 2} and all(row["median_ms"] <= row["p99_ms"] for row in rows)
    of_two = {row["return"] for row in rows if row["denoising_steps"] == 2}
    assert len(of_two) == 1 and not of_two & {row["return"] for row in rows if row["denoising_steps"] == 1}
    assert (tmp_path / "a.png").stat().st_size > 1000
    for more, said in (
        (["--out", str(tmp_path / "a.png")], "exists already"),
        (["--out", str(tmp_path / "a.xyz")], "must end in .png"),
        (["--out", str(tmp_path / "no" / "a.png")], "lies in no folder"),
        (["--episodes", "1"], "no standard error"),
    ):
        assert main([*words, *more]) == 2
        assert said in capsys.readouterr().err


def test_boxes_are_within_the_bounds_that_the_env_states() -> None:
    """Rounded to the nearest, half of all bounds would be exceeded in float32."""
    low, high = (-0.1, -0.3), (0.7, 0.3)
    ((least, most),) = boxes(EnvSpec("crane", (2,), (2,), 0, 9, act_low=(low,), act_high=(high,)))
    assert all(a.item() >= b and a.dtype == np.float32 for a, b in zip(least, low, strict=True))
    assert all(a.item() <= b for a, b in zip(most, high, strict=True))
    np.testing.assert_allclose([least, most], [low, high], atol=1e-7)


def test_a_team_of_an_env_object_ships_no_command_that_cannot_work(tmp_path: Path) -> None:
    trained = team("hatd3", UNEQUAL)
    for task, there in ((UNEQUAL, True), ("object:meet", False)):
        facts = msgspec.structs.replace(trained.facts, task=task)
        out = export(trained._replace(facts=facts), tmp_path / str(there), ["numpy"])
        words = (out / "README.md").read_text()
        assert ("omad run-bundle" in words) == there and "policy.reset()" in words
