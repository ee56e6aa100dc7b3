"""The folder that an exported team is: written whole or not at all, checked when it is read.

team.json                  task, protocol, agents in order, code version, returns, checksums of all files
README.md                  how to run it
agent_I/policy.json        kind, sizes, action box, normaliser, settings, checksums
agent_I/policy.safetensors the numbers, and 16 test vectors
agent_I/policy.onnx        the same as a graph
agent_I/runner.py          runs it with NumPy alone
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from safetensors.numpy import save

import omad
from omad import schema
from omad.errors import UserError
from omad.export import graph
from omad.export.agent import Agent, Size, runner
from omad.export.fold import Folded
from omad.export.runner import FORMAT

FORMATS = ("numpy", "onnx")
_FILES = ("policy.json", "policy.safetensors", "policy.onnx", "runner.py")
"""What an agent's folder may hold."""
RUNNER = Path(__file__).with_name("runner.py")
"""What every exported agent is run by."""
TOLERANCE = 2e-5
"""How far a test vector may be off where it is run, in [-1, 1]: other machines sum in another order."""


class Facts(msgspec.Struct, frozen=True):
    """What is known of a team besides its numbers."""

    task: str
    protocol: str
    algorithm: str
    seed: int
    env_steps: int
    evaluation: dict[str, float]
    """Mean returns of the run's last evaluation up to then, by kind of action; none of policies of fewer steps."""
    run: str
    commit: str | None = None
    horizon: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Env steps of a whole episode; None in older teams."""


class Team(msgspec.Struct, frozen=True):
    """`team.json`."""

    format: int
    omad: str
    facts: Facts
    agents: list[str]
    """Folders, in the env's order of agents."""
    names: list[str]
    """What the env calls them."""
    kind: str
    steps: Size
    trained_steps: Size
    obs_dims: list[Size]
    """Raw observations."""
    act_dims: list[Size]
    history: Size
    action_low: list[list[float]]
    action_high: list[list[float]]
    files: dict[str, str]
    """SHA-256 by path."""


class Vectors(msgspec.Struct, frozen=True):
    """Observations (frames stacked), noise, and the actions in [-1, 1] that training code gives."""

    obs: np.ndarray
    noise: np.ndarray
    action: np.ndarray


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(
    out: Path,
    folded: Sequence[Folded],
    vectors: Sequence[Vectors],
    boxes: Sequence[tuple[np.ndarray, np.ndarray]],
    history: int,
    facts: Facts,
    formats: Sequence[str] = FORMATS,
    names: Sequence[str] = (),
) -> Path:
    """Write a team.

    Args:
        out: A new folder.
        folded: Policies, in the env's order of agents.
        vectors: Test vectors of each.
        boxes: Lower and upper ends of each agent's actions.
        history: Frames that an observation stacks.
        facts: Of the team.
        formats: `numpy`, `onnx` or both.
        names: What the env calls its agents.

    Raises:
        UserError: A format is unknown or its package is missing, the folder exists or cannot be made, or a policy
            is not finite.
    """
    check_new(out, formats)
    for i, one in enumerate(folded):
        if wrong := [name for name, array in one.tensors.items() if not np.isfinite(array).all()]:
            raise UserError(
                f"The policy of agent {i} holds numbers that are not finite ({wrong[0]}): its training diverged. "
                "Export an earlier checkpoint with --which."
            )
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        digests: dict[str, str] = {}
        for i, (one, seen, (low, high)) in enumerate(zip(folded, vectors, boxes, strict=True)):
            for name, data in _agent(i, one, seen, low, high, history, facts, formats, names).items():
                path = partial / f"agent_{i}" / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
                digests[f"agent_{i}/{name}"] = _sha(data)
        readme = _readme(facts, folded, boxes, history, formats, names).encode()
        (partial / "README.md").write_bytes(readme)
        digests["README.md"] = _sha(readme)
        kind, steps = folded[0].kind, folded[0].steps
        trained = folded[0].settings.get("trained_steps", 1)
        if kind == "distilled" or steps != trained:  # the returns are those of other policies
            facts = msgspec.structs.replace(facts, evaluation={})
        act_dims = [one.act_dim for one in folded]
        team = Team(
            format=FORMAT,
            omad=omad.__version__,
            facts=facts,
            agents=[f"agent_{i}" for i in range(len(folded))],
            names=list(names) or [f"agent_{i}" for i in range(len(folded))],
            kind=kind,
            steps=steps,
            trained_steps=trained,
            obs_dims=[raw_size(one, history) for one in folded],
            act_dims=act_dims,
            history=history,
            action_low=[low.astype(float).tolist() for low, _ in boxes],
            action_high=[high.astype(float).tolist() for _, high in boxes],
            files=digests,
        )
        (partial / "team.json").write_bytes(msgspec.json.format(msgspec.json.encode(team), indent=1) + b"\n")
        partial.rename(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror or error}); give another --out.") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _readme(
    facts: Facts, folded: Sequence[Folded], boxes: Sequence[tuple[np.ndarray, np.ndarray]], history: int,
    formats: Sequence[str], names: Sequence[str],
) -> str:  # fmt: skip
    """How to run the team; arguments as of `write`."""
    rows = zip(names or [f"agent_{i}" for i in range(len(folded))], folded, boxes, strict=True)
    agents = [
        f"| `agent_{i}` | {' '.join(name.split())} | {raw_size(one, history)} | {_ends(low)} | {_ends(high)} |"
        for i, (name, one, (low, high)) in enumerate(rows)
    ]
    words = {"task": facts.task, "kind": folded[0].kind, "n": len(folded), "agents": "\n".join(agents)}
    has = {"", *formats}
    if "numpy" in formats and not facts.task.startswith("object:"):  # of which no command knows the env
        has.add("team")
    return "".join(part.format(**words) for name, part in _README.items() if name in has)


def _ends(ends: np.ndarray) -> str:
    """The ends of a box, one number where all are equal."""
    return ", ".join(f"{end:g}" for end in (ends if len(set(ends.tolist())) > 1 else ends[:1]))


def title_of(facts: Facts, agent: int) -> str:
    """What an agent's graph is called."""
    return f"{facts.algorithm} on {facts.task}, agent {agent}"


def parsed(words: str) -> list[str]:
    """The formats in a text such as `numpy,onnx`."""
    return [name.strip() for name in words.split(",") if name.strip()]


def check_new(out: Path, formats: Sequence[str]) -> None:
    """Refuse what cannot be written, before there is any work.

    Raises:
        UserError: A format is unknown or its package is missing, or the folder exists or cannot be made.
    """
    if isinstance(formats, str) or not formats or not set(formats) <= set(FORMATS):
        given = repr(formats) if isinstance(formats, str) else ", ".join(formats) or "none"
        raise UserError(f"The formats {given} were given; allowed: {', '.join(FORMATS)}, in a list.")
    if "onnx" in formats:
        graph.require("onnx")
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists already; give another --out, or remove it.")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        why = "cannot be written to" if above.is_dir() else "is not a folder"
        raise UserError(f"{out} cannot be made, for {above} {why}; give another --out.")


def raw_size(one: Folded, history: int) -> int:
    """Entries of an observation before frames are stacked."""
    return (one.obs_dim - (history - 1) * one.act_dim) // history


def _agent(
    i: int, one: Folded, seen: Vectors, low: np.ndarray, high: np.ndarray, history: int, facts: Facts,
    formats: Sequence[str], names: Sequence[str],
) -> dict[str, bytes]:  # fmt: skip
    """Content of one agent's folder by name."""
    found: dict[str, bytes] = {}
    tests = {"test.obs": seen.obs, "test.noise": seen.noise, "test.action": seen.action}
    tensors = save({name: np.ascontiguousarray(array, np.float32) for name, array in (one.tensors | tests).items()})
    if "onnx" in formats:
        found["policy.onnx"] = graph.build(one, low, high, title_of(facts, i))
    about = {
        "format": FORMAT,
        "agent": f"agent_{i}",
        "name": names[i] if names else f"agent_{i}",
        "task": facts.task,
        "algorithm": facts.algorithm,
        "kind": one.kind,
        "obs_dim": raw_size(one, history),
        "act_dim": one.act_dim,
        "history": history,
        "inputs": {
            "observation": "raw, as the env gives it; for history above 1, policy.onnx takes the stacked frames: the "
            "present observation, then for each earlier step, the newest first, its observation and action in [-1, 1]",
            "noise": "standard normal, noise_rows x act_dim; zeros for noise-free actions",
        },
        "noise_rows": one.noise_rows,
        "normaliser": one.normaliser,
        "action_low": low.astype(float).tolist(),
        "action_high": high.astype(float).tolist(),
        "settings": one.settings,
        "dtype": "float32",
        "tolerance": TOLERANCE,
        "onnx": {"opset": graph.OPSET} if "onnx" in formats else None,
        "tensors_sha256": _sha(tensors) if "numpy" in formats else None,
    }
    about["checksum"] = _sha(json.dumps(about, sort_keys=True).encode())
    found["policy.json"] = json.dumps(about, indent=1).encode() + b"\n"
    if "numpy" in formats:
        found["policy.safetensors"] = tensors
        found["runner.py"] = RUNNER.read_bytes()
    return found


def load(folder: str | Path) -> Team:
    """Read and check a bundle.

    Raises:
        UserError: It is not a bundle, of another version, damaged, or incomplete.
    """
    folder = Path(folder)
    try:
        data = schema.read_bytes(folder / "team.json")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder} is not an exported team: it has no team.json. Give a folder of omad export."
        ) from None
    found = schema.decode(data, Version, folder / "team.json").format
    if found != FORMAT:
        raise UserError(f"{folder} is a bundle of format {found}; this version reads {FORMAT}. Export the run again.")
    team = schema.decode(data, Team, folder / "team.json")
    sizes = {len(row) for row in (team.obs_dims, team.act_dims, team.action_low, team.action_high, team.agents)}
    if len(sizes) != 1 or team.agents != [f"agent_{i}" for i in range(len(team.agents))]:
        raise UserError(f"{folder / 'team.json'} names {len(team.agents)} agents but sizes of others; export it again.")
    allowed = {"README.md", *(f"{agent}/{name}" for agent in team.agents for name in _FILES)}
    if strange := sorted(team.files.keys() - allowed):
        raise UserError(f"{folder / 'team.json'} names the file {strange[0]!r}, which no team has; export it again.")
    if missing := [f"{agent}/policy.json" for agent in team.agents if f"{agent}/policy.json" not in team.files]:
        raise UserError(f"{folder / 'team.json'} does not name {missing[0]}; export it again.")
    for name, digest in team.files.items():
        try:
            same = _sha(schema.read_bytes(folder / name, unpack=False)) == digest
        except FileNotFoundError:
            raise UserError(f"{folder / name} is missing; restore it from a copy or export the run again.") from None
        if not same:
            raise UserError(
                f"{folder / name} does not match its checksum; restore it from a copy or export the run again."
            )
    return team


def policies(folder: Path, team: Team) -> list[Folded]:
    """The policies of a bundle that has been loaded.

    Raises:
        UserError: It was exported without numpy, or an agent's files do not fit together.
    """
    found = []
    for i, name in enumerate(team.agents):
        if f"{name}/policy.safetensors" not in team.files:
            raise UserError(f"{folder / name} has no policy.safetensors; export the run with --formats numpy.")
        about = schema.read_json(folder / name / "policy.json", Agent)
        policy = runner(folder / name)
        box = (team.action_low[i], team.action_high[i])
        sizes = (team.obs_dims[i], team.act_dims[i], team.history, policy.t["test.noise"].shape[-2])
        if (policy.obs_dim, policy.act_dim, policy.history, about.noise_rows) != sizes or (
            about.action_low,
            about.action_high,
        ) != box:
            raise UserError(
                f"{folder / name} has other sizes or bounds than {folder / 'team.json'} says; export it again."
            )
        tensors = {key: array for key, array in policy.t.items() if not key.startswith("test.")}
        found.append(Folded(about.kind, about.settings, tensors, about.noise_rows, about.normaliser))
    return found


class Version(msgspec.Struct):
    """What every version's `team.json` holds."""

    format: Any


_README = {
    "": """# A team of {n} agents for {task}

Each folder `agent_I` is one agent, complete in itself ({kind}); copy it to that agent's computer.

| folder | agent | numbers observed | actions from | to |
| --- | --- | --- | --- | --- |
{agents}
""",
    "numpy": """
    python agent_0/runner.py                    # needs NumPy only: checks the files and measures itself

    from runner import Policy                   # in Python, from inside agent_0/
    policy = Policy()
    policy.reset()                              # at the start of every episode
    action = policy.act(observation)            # raw observation in, action within the bounds above out
    action = policy.act(observation, explore=False)         # the same without noise
""",
    "team": """
The whole team, an agent a process: `omad run-bundle . --task "{task}" --episodes 100`.
""",
    "onnx": """
`policy.onnx` takes `obs` (batch, obs), frames stacked, and `noise` (batch, rows, act), standard normal or zeros.
""",
}
"""What a bundle says of itself, by the formats it has."""
