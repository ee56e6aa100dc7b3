"""`omad latency RUN|DIR`."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from omad import files
from omad.algos.validate import check
from omad.commands.computing import ANYWHERE, ComputingFlags
from omad.console import console, print_json
from omad.errors import UserError
from omad.run.records import standard_error


@dataclasses.dataclass(frozen=True)
class Options:
    """Milliseconds per action of one agent by runtime and denoising steps, and the return beside it."""

    team: Annotated[Path, tyro.conf.Positional]
    """A run folder, or a team written by omad export or omad distil."""
    training_seed: int | None = None
    """Which training seed's policies of a run; by default the first."""
    which: str = "last"
    """Checkpoint of a run: last, best, or its env steps."""
    denoising_steps: str = ""
    """Denoising steps to try on a run, separated by commas; by default all of them, half of them, and so on to 1."""
    actions: int = 2000
    """Actions to time for each number."""
    episodes: int = 500
    """Episodes of each return, at least 2; 0 for none."""
    out: Path | None = None
    """A new PNG of the return over the latency."""
    trust: bool = False
    """Import the code of a user's env that the folder names; only for folders that you trust."""
    json: bool = False
    """Print JSON."""
    computing: ComputingFlags = ANYWHERE


def _timed(act: Callable[[], Any], count: int) -> dict[str, float]:
    """Median and 99 % of the milliseconds that a call takes."""
    import numpy as np

    for _ in range(min(count, 50)):
        act()
    spent = np.empty(count)
    for i in range(count):
        begin = time.perf_counter()
        act()
        spent[i] = time.perf_counter() - begin
    return {"median_ms": 1e3 * float(np.median(spent)), "p99_ms": 1e3 * float(np.quantile(spent, 0.99))}


def _bundle(folder: Path, options: Options, env: Any = None) -> list[dict[str, Any]]:
    """A row a runtime for the first agent of an exported team; its env, where it is made already."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from omad.export import bundle, graph, play
    from omad.export.agent import runner
    from omad.export.fold import sample
    from omad.export.team import onnx_policy
    from omad.trust import refuse_foreign

    team = bundle.load(folder)
    folded = bundle.policies(folder, team)
    one, rng = folded[0], np.random.default_rng(0)
    row: dict[str, Any] = {"kind": team.kind, "denoising_steps": team.steps, "return": None, "se": None}
    if options.episodes:
        refuse_foreign(team.facts.task, folder, options.trust)
        env = play.env_of(team, team.facts.task) if env is None else env
        found = play.evaluate(folded, env, options.episodes, 2_000_000, explore=True)
        returns = np.asarray(found.returns[0], float)
        row |= {"return": float(returns.mean()), "se": standard_error(returns)}
    policy = runner(folder / team.agents[0])
    raw = rng.standard_normal(policy.obs_dim).astype(np.float32)
    rows = [row | {"runtime": "NumPy runner"} | _timed(lambda: policy.act(raw), options.actions)]
    stacked = rng.standard_normal((1, one.obs_dim)).astype(np.float32)
    shape = (1, one.noise_rows, one.act_dim)
    if f"{team.agents[0]}/policy.onnx" in team.files:
        low, high = (np.asarray(box[0], np.float32) for box in (team.action_low, team.action_high))
        made = graph.build(one, low, high, bundle.title_of(team.facts, 0))  # as the file's, which may be a stranger's
        infer = onnx_policy(made, folder / team.agents[0] / "policy.onnx")
        run = lambda: infer(stacked, rng.standard_normal(shape, np.float32))  # noqa: E731
        rows.append(row | {"runtime": "ONNX Runtime, 1 thread"} | _timed(run, options.actions))
    tensors = {name: jnp.asarray(array) for name, array in one.tensors.items()}
    fast = jax.jit(lambda obs, noise: sample(one, tensors, obs, noise))
    call = lambda: np.asarray(fast(stacked, rng.standard_normal(shape, np.float32)))  # noqa: E731
    rows.append(row | {"runtime": "JAX, jitted"} | _timed(call, options.actions))
    return rows


def measure(options: Options) -> list[dict[str, Any]]:
    """A row for each runtime and number of steps.

    Raises:
        UserError: Something given cannot work.
    """
    check(
        options,
        counts=("actions",),
        not_negative=("episodes",),
        most=dict.fromkeys(("actions", "episodes"), 10**6),
        flags=True,
    )
    if options.episodes == 1:
        raise UserError("--episodes is 1, which has no standard error; give at least 2, or 0 for no returns.")
    if (options.team / "team.json").exists():
        for name in ("training_seed", "which", "denoising_steps"):
            if getattr(options, name) != getattr(Options, name):
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"{options.team} is one exported team; leave {flag} out, or give its run folder.")
        return _bundle(options.team, options)
    import importlib.util

    import numpy as np

    from omad import api, envs
    from omad.export import bundle
    from omad.saved import which_of
    from omad.trained import Run
    from omad.trust import refuse_changed, refuse_foreign

    policy = api.load_policy(options.team, options.training_seed, which_of(options.which))
    env = None
    if options.episodes:
        refuse_foreign(policy.team.facts.task, options.team, options.trust)
        folder = Run(options.team).folders[0]
        env = envs.make(policy.team.facts.task, folder.config.env_timeout)
        refuse_changed(folder, env.spec)
    trained = getattr(policy.team.config, "denoising_steps", 1)
    halves = [max(1, trained >> i) for i in range(trained.bit_length())]
    try:
        steps = [int(word) for word in options.denoising_steps.split(",")] if options.denoising_steps else halves
    except ValueError:
        raise UserError(
            f"--denoising-steps is {options.denoising_steps!r}; give whole numbers, separated by commas."
        ) from None
    onnx = importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime")
    formats = [name for name in bundle.FORMATS if name != "onnx" or onnx]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="omad-latency-") as folder:
        for k in dict.fromkeys(steps):
            path = policy.export(Path(folder) / str(k), formats, k if k != trained else None)
            rows += _bundle(path, options, env)
    seeds = itertools.count(options.training_seed or 0)
    obs = np.zeros((policy.spec.n_agents, policy.spec.obs_dim), np.float32)
    spent = _timed(lambda: np.asarray(policy.act(obs, next(seeds))), options.actions)
    alike: dict[str, Any] = next((row for row in rows if row["denoising_steps"] == trained), {})
    same = {"kind": rows[0]["kind"], "return": alike.get("return"), "se": alike.get("se")}
    return [*rows, same | {"denoising_steps": trained, "runtime": "load_policy(run).act, all agents"} | spent]


def _draw(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for runtime in dict.fromkeys(row["runtime"] for row in rows):
        mine = [row for row in rows if row["runtime"] == runtime and row["return"] is not None]
        axes.errorbar(
            [row["median_ms"] for row in mine], [row["return"] for row in mine], [row["se"] for row in mine],
            marker="o", capsize=2, label=runtime,
        )  # fmt: skip
        for row in mine:
            axes.annotate(
                str(row["denoising_steps"]),
                (row["median_ms"], row["return"]),
                xytext=(4, 4),
                textcoords="offset points",
            )
    axes.set(xscale="log", xlabel="milliseconds per action (median); numbers: denoising steps", ylabel="team return")
    axes.legend()
    figure.savefig(path, dpi=130)


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    options = tyro.cli(Options, prog="omad latency", args=list(arguments))
    options.computing.prepare()
    if options.out is not None:  # what cannot be written is refused before anything is measured
        if not options.episodes:
            raise UserError("--out draws returns, but --episodes is 0; give at least 2.")
        if options.out.suffix.lower() != ".png":
            raise UserError(f"--out is {options.out}; it must end in .png.")
        files.check_new(options.out)
    rows = measure(options)
    if options.out is not None:
        _draw(rows, options.out)
    if options.json:
        print_json(rows)
        return 0
    from rich.table import Table

    table = Table("runtime", "steps", "median ms", "99 % ms", "team return")
    for row in rows:
        result = "–" if row["return"] is None else f"{row['return']:.2f} ± {row['se']:.2f}"
        table.add_row(
            row["runtime"], str(row["denoising_steps"]), f"{row['median_ms']:.3f}", f"{row['p99_ms']:.3f}", result
        )
    console().print(table)
    return 0
