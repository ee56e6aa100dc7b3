"""Gradient steps a second of this project's HASAC and of the same update written straightforwardly in PyTorch.

Both sides compute the same at HARL's sizes for spread-3 (three agents, 18 observations, 5 actions, state 54, two hidden
layers of 256, batch 1000): sampled next actions, twin critics with Polyak copies, one policy step an agent in a fresh
random order with resampling, and all temperatures. Each side runs in a process of its own, in turn, on the same cores,
on batches that lie in memory; compilation and first steps are not counted. With `--device gpu` both compute on the
first CUDA device, in single precision without TF32.

    python benchmarks/hasac_torch.py [--seconds 10] [--repeats 3] [--batch 1000] [--cores 2] [--device gpu]

PyTorch is no dependency of this project: `pip install torch`. Without it, our side is measured alone.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

AGENTS, OBS, ACT, STATE, WIDTH = 3, 18, 5, 54, 256
GAMMA, TAU, LR, ALPHA_LR = 0.99, 0.005, 5e-4, 3e-4
BATCHES = 8
"""Different batches in memory, used in turn."""


def data(batch: int) -> dict[str, np.ndarray]:
    """Random transitions of the right sizes, `(BATCHES, batch, ...)`."""
    rng = np.random.default_rng(0)
    shapes = {"obs": (AGENTS, OBS), "state": (STATE,), "next_obs": (AGENTS, OBS), "next_state": (STATE,), "ret": ()}
    rows = {name: rng.standard_normal((BATCHES, batch, *shape)) for name, shape in shapes.items()}
    rows["action"] = rng.uniform(-1, 1, (BATCHES, batch, AGENTS, ACT))
    rows["discount"] = np.full((BATCHES, batch), GAMMA)
    return {name: value.astype(np.float32) for name, value in rows.items()}


def ours(batch: int, device: str) -> Callable[[int], float]:
    """Steps of `omad.algos.hasac` in one compiled loop: (how many) -> critic loss of the last."""
    import jax
    import jax.numpy as jnp

    from omad import algos
    from omad.algos.hasac import HasacConfig
    from omad.types import Batch, EnvSpec

    if jax.default_backend() != device:
        raise SystemExit(f"JAX computes on {jax.default_backend()}, not on {device}; install jax[cuda13] for a GPU.")
    jax.config.update("jax_default_matmul_precision", "highest")
    config = HasacConfig(actor_width=WIDTH, critic_width=WIDTH, tau=TAU, actor_lr=LR, critic_lr=LR, alpha_lr=ALPHA_LR)
    algorithm = algos.make(config, EnvSpec("benchmark", (OBS,) * AGENTS, (ACT,) * AGENTS, STATE, 25))
    batches = Batch(**{name: jnp.asarray(value) for name, value in data(batch).items()})

    @jax.jit
    def run(learner: Any, first: Any, steps: Any) -> tuple[Any, Any]:
        def step(i: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            key = jax.random.fold_in(jax.random.key(1), i)
            one = jax.tree.map(lambda rows: rows[i % BATCHES], batches)
            learner, metrics = algorithm.update(carry[0], one, key, i)
            return learner, metrics["critic/loss"].total

        return jax.lax.fori_loop(first, first + steps, step, (learner, jnp.zeros(())))

    learner, done = jax.jit(algorithm.init)(jax.random.key(0)), 1

    def go(steps: int) -> float:
        nonlocal learner, done
        learner, loss = run(learner, jnp.asarray(done), jnp.asarray(steps))
        done += steps
        return float(loss)

    return go


def theirs(batch: int, device: str) -> Callable[[int], float]:
    """The same steps in PyTorch, module by module: (how many) -> critic loss of the last."""
    # By name, for type checkers need not have it.
    torch: Any = importlib.import_module("torch")
    nn, functional = torch.nn, torch.nn.functional
    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_default_device("cuda" if device == "gpu" else "cpu")
    batches = {name: torch.tensor(value.tolist()) for name, value in data(batch).items()}

    class Actor(nn.Module):
        """A squashed Gaussian."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(OBS, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.mean, self.log_std = nn.Linear(WIDTH, ACT), nn.Linear(WIDTH, ACT)

        def forward(self, obs: Any) -> tuple[Any, Any]:
            """(actions, their log densities)."""
            features = torch.tanh(self.two(functional.relu(self.one(obs))))
            mean, log_std = self.mean(features), self.log_std(features).clamp(-20, 2)
            noise = torch.randn_like(mean)
            x = mean + log_std.exp() * noise
            log_prob = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi)
            log_prob = log_prob - 2 * (math.log(2) - x - functional.softplus(-2 * x))
            return torch.tanh(x), log_prob.sum(-1)

    def critic() -> Any:
        sizes = (STATE + AGENTS * ACT, WIDTH, WIDTH)
        layers = [part for i in (0, 1) for part in (nn.Linear(sizes[i], sizes[i + 1]), nn.ReLU())]
        return nn.Sequential(*layers, nn.Linear(WIDTH, 1))

    actors: list[Any] = [Actor() for _ in range(AGENTS)]
    critics, targets = nn.ModuleList([critic(), critic()]), nn.ModuleList([critic(), critic()])
    targets.load_state_dict(critics.state_dict())
    targets.requires_grad_(False)
    log_alpha = [torch.zeros((), requires_grad=True) for _ in range(AGENTS)]
    log_critic = torch.zeros((), requires_grad=True)
    actor_opt = [torch.optim.Adam(actor.parameters(), lr=LR) for actor in actors]
    critic_opt = torch.optim.Adam(critics.parameters(), lr=LR)
    alpha_opt = [torch.optim.Adam([one], lr=ALPHA_LR) for one in (*log_alpha, log_critic)]

    def lower(pair: Any, state: Any, joint: Any) -> Any:
        x = torch.cat([state, *joint], -1)
        return torch.minimum(pair[0](x), pair[1](x)).squeeze(-1)

    def tune(i: int, parameter: Any, excess: Any) -> None:
        alpha_opt[i].zero_grad()
        (-parameter * excess).backward()
        alpha_opt[i].step()

    def step(b: dict[str, Any]) -> Any:
        with torch.no_grad():
            drawn = [actor(b["next_obs"][:, i]) for i, actor in enumerate(actors)]
            bonus = log_critic.exp() * sum(log_prob for _, log_prob in drawn)
            goal = b["ret"] + b["discount"] * (lower(targets, b["next_state"], [a for a, _ in drawn]) - bonus)
        x = torch.cat([b["state"], b["action"].flatten(1)], -1)
        loss: Any = sum(0.5 * functional.mse_loss(one(x).squeeze(-1), goal) for one in critics)
        critic_opt.zero_grad()
        loss.backward()
        critic_opt.step()
        with torch.no_grad():
            for target, online in zip(targets.parameters(), critics.parameters(), strict=True):
                target.lerp_(online, TAU)
            joint = [actor(b["obs"][:, i])[0] for i, actor in enumerate(actors)]
        critics.requires_grad_(False)
        total: Any = 0.0
        for i in torch.randperm(AGENTS, device="cpu").tolist():
            action, log_prob = actors[i](b["obs"][:, i])
            q = lower(critics, b["state"], [*joint[:i], action, *joint[i + 1 :]])
            actor_opt[i].zero_grad()
            (log_alpha[i].detach().exp() * log_prob - q).mean().backward()
            actor_opt[i].step()
            mean = log_prob.detach().mean()
            tune(i, log_alpha[i], mean - ACT)
            total = total + mean
            with torch.no_grad():
                joint[i] = actors[i](b["obs"][:, i])[0]
        critics.requires_grad_(True)
        tune(AGENTS, log_critic, total - AGENTS * ACT)
        return loss.detach()

    rows = [{name: value[i] for name, value in batches.items()} for i in range(BATCHES)]

    def go(steps: int) -> float:
        loss: Any = 0.0
        for i in range(steps):
            loss = step(rows[i % BATCHES])
        return float(loss)

    return go


SIDES = {"omad": ours, "torch": theirs}


def measure(side: str, batch: int, seconds: float, device: str) -> dict[str, float]:
    """Steps a second of wall time and milliseconds of CPU a step, of one side in this process."""
    began = time.perf_counter()
    go = SIDES[side](batch, device)
    go(2)
    ready = time.perf_counter() - began
    began = time.perf_counter()
    go(8)
    steps = max(8, int(8 * seconds / (time.perf_counter() - began)))
    began, cpu = time.perf_counter(), time.process_time()
    loss = go(steps)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"steps_per_s": steps / wall, "cpu_ms": 1e3 * cpu / steps, "steps": steps, "ready_s": ready, "loss": loss}


def main() -> None:
    """Measure both sides in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="timed seconds of each measurement")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each side")
    parser.add_argument("--batch", type=int, default=1000, help="transitions of a gradient step")
    parser.add_argument("--cores", type=int, default=0, help="cores to use; 0 for all there are")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="where both sides compute")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side, args.batch, args.seconds, args.device)))  # noqa: T201
        return

    cores = sorted(os.sched_getaffinity(0))[: args.cores or None]
    sides = [side for side in SIDES if side == "omad" or importlib.util.find_spec("torch")]
    taken: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(args.repeats):
        for side in sides:
            command = [
                sys.executable,
                __file__,
                "--side",
                side,
                "--batch",
                str(args.batch),
                "--seconds",
                str(args.seconds),
                "--device",
                args.device,
            ]
            done = subprocess.run(
                command,
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"JAX_PLATFORMS": "cpu" if args.device == "cpu" else "cuda"},
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
            taken[side].append(json.loads(done.stdout.splitlines()[-1]))
    place = "one GPU" if args.device == "gpu" else f"{len(cores)} cores"
    lines = [f"HASAC, batch {args.batch}, {place}, {args.repeats} measurements, median (lowest to highest)"]
    for side, runs in taken.items():
        rate, cpu, ready = ([run[key] for run in runs] for key in ("steps_per_s", "cpu_ms", "ready_s"))
        lines.append(
            f"{side:>6}  {statistics.median(rate):7.1f} gradient steps/s ({min(rate):.1f} to {max(rate):.1f})  "
            f"{statistics.median(cpu):6.1f} ms of CPU a step  ready after {statistics.median(ready):.0f} s"
        )
    if len(sides) == 2:
        ratio = {key: statistics.median(run[key] for run in taken["omad"]) / statistics.median(
            run[key] for run in taken["torch"]) for key in ("steps_per_s", "cpu_ms")}  # fmt: skip
        lines.append(
            f"omad against torch: {ratio['steps_per_s']:.2f} by wall time, {1 / ratio['cpu_ms']:.2f} by CPU time"
        )
    else:
        lines.append("PyTorch is not installed, so there is nothing to compare with: pip install torch")
    print("\n".join(lines))  # noqa: T201
    if args.json:
        found = {"batch": args.batch, "device": args.device, "cores": len(cores), "runs": taken}
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
