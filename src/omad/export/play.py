"""Episodes of a bundle: every agent in a process of its own that sees only its own observation, or all in JAX."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from omad import envs, processes, schema, tasks
from omad.envs.host_env import HostEnv
from omad.envs.pool import Pool
from omad.episodes import played
from omad.errors import EnvFailed, UserError
from omad.evaluate import Episodes, envs_for, make_evaluate, make_host_evaluate
from omad.export.bundle import RUNNER, Team
from omad.export.fold import Folded, draw_noise, sample, unscaled
from omad.export.team import boxes
from omad.types import Algorithm, EnvSpec, JaxEnv


class Agents:
    """One process an agent, each running the `runner.py` of its own folder; a context manager.

    Args:
        folder: The bundle.
        team: What it holds.
        seed: Of the action noise; each agent has its own.
        explore: Sampled actions, or noise-free ones.
        timeout_s: After which an agent that does not answer is late.
        trust: Run a `runner.py` that is not this version's own as well.

    Raises:
        UserError: There is no runner, or one that is not trusted.
    """

    def __init__(
        self, folder: Path, team: Team, seed: int, explore: bool, timeout_s: float = 10.0, trust: bool = False
    ) -> None:
        self.team, self.timeout_s = team, timeout_s
        self.processes: list[subprocess.Popen[bytes]] = []
        self._step = 0
        environment = {"PATH": os.environ.get("PATH", ""), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            for i, name in enumerate(team.agents):
                path = folder.resolve() / name
                try:
                    ours = schema.read_bytes(path / "runner.py", unpack=False) == RUNNER.read_bytes()
                except FileNotFoundError:
                    raise UserError(f"{path} has no runner.py; export the run with --formats numpy.") from None
                if not ours and not trust:
                    raise UserError(
                        f"{path / 'runner.py'} is not the runner of this version and would be executed. If you trust "
                        "it, give --trust, or export the run again."
                    )
                # Isolated: neither the working directory nor PYTHONPATH nor the user's packages are looked at.
                words = [sys.executable, "-I", str(path / "runner.py"), "--pipe", "--seed", str(seed + i)]
                with processes.blocked():
                    process = subprocess.Popen(
                        words if explore else [*words, "--noise-free"],
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True,
                    )  # fmt: skip
                self.processes.append(process)
                assert process.stdin is not None
                os.set_blocking(process.stdin.fileno(), False)  # one that does not read must not hold us up
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Agents:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reset(self) -> None:
        """Tell every agent that an episode begins."""
        for i in range(len(self.processes)):
            self._send(i, b"R")

    def act(self, obs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Actions of every agent in its own box, `(episode, act_i)`, for its own observations `(episode, obs_i)`.

        Raises:
            EnvFailed: An agent has died, or is late.
        """
        self._step += 1
        for i, rows in enumerate(obs):
            self._send(i, b"A" + struct.pack("<I", len(rows)) + np.ascontiguousarray(rows, "<f4").tobytes())
        return [
            np.frombuffer(self._receive(i, 4 * len(rows) * size), "<f4").reshape(-1, size)
            for i, (rows, size) in enumerate(zip(obs, self.team.act_dims, strict=True))
        ]

    def _send(self, agent: int, data: bytes) -> None:
        pipe: Any = self.processes[agent].stdin
        rest, end = memoryview(data), time.monotonic() + self.timeout_s
        while rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([], [pipe], [], left)[1]:
                raise self._late(agent)
            try:
                rest = rest[os.write(pipe.fileno(), rest) :]
            except BlockingIOError:
                continue
            except OSError:
                raise self._gone(agent) from None

    def _receive(self, agent: int, size: int) -> bytes:
        pipe: Any = self.processes[agent].stdout
        data, end = bytearray(), time.monotonic() + self.timeout_s
        while len(data) < size:
            left = end - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise self._late(agent)
            piece = os.read(pipe.fileno(), size - len(data))
            if not piece:
                raise self._gone(agent)
            data += piece
        return bytes(data)

    def _late(self, agent: int) -> EnvFailed:
        name = self.team.agents[agent]
        return EnvFailed(f"{name} did not answer within {self.timeout_s:g} s at step {self._step}; it hangs.")

    def _gone(self, agent: int) -> EnvFailed:
        process = self.processes[agent]
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2.0)
        code = process.poll()
        how = f"killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        return EnvFailed(f"{self.team.agents[agent]} died at step {self._step} ({how}).")

    def close(self) -> None:
        """End all processes; those that do not listen are killed."""
        for process in self.processes:
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError, AttributeError):
                    pipe.close()  # pyright: ignore[reportOptionalMemberAccess]
        end = time.monotonic() + 1.0
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.01, end - time.monotonic()))
            processes.end_family(process.pid)
            process.wait()
        self.processes.clear()


def env_of(team: Team, task: str) -> JaxEnv | HostEnv:
    """The env of the task that a team is to play.

    Raises:
        UserError: It has other sizes or bounds of actions than the team, or, as the team's own task, other agents or
            another horizon.
    """
    env = envs.make(task)
    spec: EnvSpec = env.spec
    act = tuple(team.act_dims)
    obs = tasks.stacked_dims(tuple(team.obs_dims), act, team.history)
    if (spec.obs_dims, spec.act_dims) != (obs, act):
        raise UserError(
            f"{spec.name} has {spec.n_agents} agents with observations {spec.obs_dims} and actions {spec.act_dims}, "
            f"but the team has {len(act)}, of {obs} and {act}; give a task of these sizes."
        )
    own = task == team.facts.task
    remedy = "restore the env, or export a team that was trained in this one" if own else "give a task with its bounds"
    if own and spec.agents and list(spec.agents) != team.names:
        raise UserError(
            f"{spec.name} has the agents {', '.join(spec.agents)}, but the team was trained as "
            f"{', '.join(team.names)}; {remedy}."
        )
    if own and team.facts.horizon not in (None, spec.horizon):
        raise UserError(
            f"Episodes of {spec.name} have {spec.horizon} env steps, but the team was trained on those of "
            f"{team.facts.horizon}; {remedy}."
        )
    for name, box, due in zip(
        team.names, boxes(spec), zip(team.action_low, team.action_high, strict=True), strict=True
    ):
        if not np.array_equal(box, np.asarray(due, np.float32)):
            raise UserError(
                f"{spec.name} takes actions of {name} from {box[0].tolist()} to {box[1].tolist()}, but the team's are "
                f"from {due[0]} to {due[1]}; {remedy}."
            )
    return env


def play(agents: Agents, env: JaxEnv | HostEnv, episodes: int, seed: int) -> np.ndarray:
    """Team returns of episodes that start where those of an evaluation with the same seed do."""
    team, spec = agents.team, env.spec
    low, high = ([np.asarray(row, np.float32) for row in box] for box in (team.action_low, team.action_high))

    def act(obs: np.ndarray, _: object) -> np.ndarray:
        """From padded rows to each agent's own, and from its box back to the learner's [-1, 1]."""
        given = agents.act([obs[:, i, :size] for i, size in enumerate(team.obs_dims)])
        joint = np.zeros((len(obs), spec.n_agents, spec.act_dim), np.float32)
        for i, (action, below, above) in enumerate(zip(given, low, high, strict=True)):
            joint[:, i, : action.shape[1]] = unscaled(action, below, above)
        return joint

    moments = itertools.groupby(played(env, act, episodes, seed, agents.reset), lambda moment: moment.round)
    found = [sum(np.where(one.alive, one.reward, 0.0).astype(float) for one in of_a_round) for _, of_a_round in moments]
    return np.concatenate(found)[:episodes]


# ---------------------------------------------------------------- in JAX


def tensors_of(folded: Sequence[Folded]) -> list[dict[str, Any]]:
    """The numbers of all agents, with a leading seed axis of one."""
    return [{name: jnp.asarray(array[None]) for name, array in one.tensors.items()} for one in folded]


def as_algorithm(folded: Sequence[Folded], spec: EnvSpec) -> Algorithm:
    """An algorithm that can do nothing but act, by policies of these kinds; its policy is a list of tensors."""

    def act(
        tensors: Any, obs: Float[Array, "*b agent obs"], key: Key[Array, ""], explore: bool
    ) -> Float[Array, "*b agent act"]:
        flat = obs.reshape(-1, *obs.shape[-2:])
        noise = draw_noise(folded[0], spec.n_agents, spec.act_dim, flat.shape[0], key)
        noise = noise if explore else jnp.zeros_like(noise)
        rows = []
        for i, (one, numbers) in enumerate(zip(folded, tensors, strict=True)):
            size = one.act_dim
            action = sample(one, numbers, flat[:, i, : one.obs_dim], noise[i, ..., :size])
            rows.append(jnp.pad(action, ((0, 0), (0, spec.act_dim - size))))
        return jnp.stack(rows, axis=1).reshape(*obs.shape[:-1], spec.act_dim)

    def nothing(*_: Any) -> Any:
        raise NotImplementedError("these policies can only act")

    fields: dict[str, Any] = dict.fromkeys(Algorithm._fields, nothing)
    return Algorithm(**fields | {"gamma": 1.0, "n_step": 1, "act": act})


def evaluate(
    folded: Sequence[Folded], env: JaxEnv | HostEnv, episodes: int, seed: int, explore: bool, tensors: Any = None
) -> Episodes:
    """Episodes `(seed, episode)` of all policies in this process, as `omad eval` plays them.

    Args:
        folded: Kinds of policies, and the numbers of one seed.
        env: The env.
        episodes: How many.
        seed: Of initial states and noise.
        explore: Sampled actions, or noise-free ones.
        tensors: Numbers of several seeds instead, with a leading seed axis.
    """
    algorithm = as_algorithm(folded, env.spec)
    return run_episodes(algorithm, tensors_of(folded) if tensors is None else tensors, env, episodes, seed, explore)


def run_episodes(
    algorithm: Algorithm, policies: Any, env: JaxEnv | HostEnv, episodes: int, seed: int, explore: bool = True
) -> Episodes:
    """The same for anything that acts; `policies` have a leading seed axis."""
    when = jnp.int32(seed), jnp.int32(0)
    if isinstance(env, JaxEnv):
        return jax.device_get(make_evaluate(algorithm, env, episodes, explore)(policies, *when))
    with contextlib.closing(Pool.of(env.spec.name, env.spec, envs_for(episodes))) as pool:
        run = make_host_evaluate(algorithm, env.spec, lambda: pool, episodes, explore)
        return run(policies, *when)
