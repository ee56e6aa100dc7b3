"""`omad bench`."""

from __future__ import annotations

import dataclasses
import os
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omad.algos.validate import check
from omad.commands.train import ConfigOptions, parse, print_config
from omad.config import to_dict
from omad.console import console, print_json, row, table
from omad.errors import UserError


@dataclasses.dataclass(frozen=True)
class Options(ConfigOptions):
    """How to measure and print."""

    seconds: float = 10.0
    """Time to spend on each measurement, compilation left out."""
    versus: str | None = None
    """Compare with another configuration, pair by pair: words of omad bench that change this one, as "--batch-size
    256"; nothing changes with ""."""
    versus_version: Path | None = None
    """Compare with another version: a Python interpreter that has it installed, or a folder with the package omad."""
    json: bool = False
    """Print JSON."""


def _best(call: Callable[[], Any], work: float, seconds: float) -> float:
    """Highest rate of work per second over repeated calls; the first call is not counted."""
    import jax

    jax.block_until_ready(call())
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end or best == 0.0:
        started = time.perf_counter()
        jax.block_until_ready(call())
        best = max(best, work / (time.perf_counter() - started))
    return best


def matmul_rate(seconds: float) -> tuple[float, int]:
    """Best float32 rate of a square matrix product, in operations per second, and the size that gave it."""
    import jax
    import jax.numpy as jnp

    product = jax.jit(lambda a, b: jnp.dot(a, b, precision="highest"))
    found = []
    random = np.random.default_rng(0)
    sizes = (512, 1024, 2048) if jax.default_backend() == "cpu" else (2048, 4096, 8192)
    for size in sizes:
        a = jnp.asarray(random.standard_normal((size, size)), jnp.float32)
        found.append((_best(lambda a=a: product(a, a), 2.0 * size**3, seconds / len(sizes)), size))
    return max(found)


def measure(config: Any, seconds: float) -> dict[str, Any]:
    """Speed of the training loop on this machine: acting, env steps, sampling and gradient steps together."""
    import jax
    import jax.numpy as jnp

    from omad.commands import flop_count, profiling
    from omad.experiment import Experiment

    smaller = dataclasses.replace(config, buffer_size=max(config.batch_size, min(config.buffer_size, 20_000)))
    built = Experiment(smaller, loggers=()).built
    seeds = jnp.asarray(config.all_seeds, jnp.int32)
    peak, size = matmul_rate(seconds)
    started = time.perf_counter()
    carry = built.loop.warm(built.loop.init(seeds), seeds, jnp.int32(0), jnp.int32(config.warmup_vector_steps))
    row = config.warmup_vector_steps
    carry = jax.block_until_ready(built.loop.chunk(carry, seeds, jnp.int32(row), jnp.int32(1)))
    compile_s = time.perf_counter() - started
    row += 1
    # A whole number of policy cadences, so that every timed call does the same work.
    cadence = getattr(config.algo, "actor_every", 1)
    rows = cadence
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end or best == 0.0:
        started = time.perf_counter()
        carry = jax.block_until_ready(built.loop.chunk(carry, seeds, jnp.int32(row), jnp.int32(rows)))
        elapsed = time.perf_counter() - started
        best = max(best, rows / elapsed)
        row += rows
        if elapsed < 0.5:
            rows += cadence
    gradient_steps = best * config.updates_per_step * config.seeds

    def chunk() -> Any:
        nonlocal carry, row
        carry = built.loop.chunk(carry, seeds, jnp.int32(row), jnp.int32(rows))
        row += rows
        return carry

    shares = profiling.shares(chunk)
    built.close()
    update = flop_count.update_jaxpr(built.algorithm, built.spec, config.batch_size)
    flops = flop_count.of_jaxpr(update, cadence)
    rehearsal, work = flop_count.rehearsal(flop_count.products(update, cadence))
    own = _best(rehearsal, work, seconds)
    device = jax.devices()[0]
    return {
        "task": config.task,
        "algorithm": config.algorithm,
        "preset": config.preset,
        "seeds": config.seeds,
        "batch_size": config.batch_size,
        "updates_per_env_step": config.updates_per_env_step,
        "flops_per_gradient_step": flops,
        "gradient_steps_per_s": gradient_steps,
        "env_steps_per_s": best * config.n_envs * config.seeds,
        "matmul_flops_per_s": peak,
        "matmul_size": size,
        "own_matmul_flops_per_s": own,
        "utilisation": flops * gradient_steps / peak,
        "own_utilisation": flops * gradient_steps / own,
        "shares": dict(shares),
        "compile_s": compile_s,
        "device": f"{device.platform} {device.device_kind}, {os.cpu_count()} cores",
    }


_WORDS = {
    "env": "env steps",
    "target": "actions and values for targets",
    "records": "replay buffer and metrics",
    "waiting": "between operations",
}
"""What stands for a part in the table, if not its name. `waiting` holds a hosted task's Python and workers too."""


def side_of(config: Any) -> dict[str, Any]:
    """What another process needs to make the same configuration."""
    values = to_dict(config)
    fields = {name: values[name] if name in values else values["algo"][name] for name in config.given}
    chosen = {name: getattr(config, name) for name in ("task", "algorithm", "preset")}
    return chosen | {"fields": {name: value for name, value in fields.items() if name not in chosen}}


def _versus(arguments: Sequence[str], config: Any, options: Options) -> int:
    from omad.commands.versus import Side, compare

    try:
        words = shlex.split(options.versus or "")
    except ValueError as error:
        raise UserError(f"--versus is {options.versus!r}, which is no command line: {error}.") from None
    other, theirs = parse([*arguments, *words], "omad bench [ALGO]", Options())
    if dataclasses.replace(theirs, config=options.config) != options:
        raise UserError(f"--versus is {options.versus!r}; it takes options of a run, not of omad bench itself.")
    label = " ".join(part for part in (options.versus, str(options.versus_version or "")) if part) or "the same again"
    one, two = Side("this", side_of(config)), Side(label, side_of(other), options.versus_version)
    found = compare(one, two, options.seconds, options.computing.compilation_cache)
    if options.json:
        print_json(found)
        return 0
    title = f"{config.algorithm} on {config.task}, preset {config.preset}, versus {label}, {found['pairs']} pairs"
    columns = ("clock", "this", "other", "ratio", "middle half of the pairs")
    made = table(title, *columns, right=columns[1:])
    for clock, words in (("wall", "gradient steps per s"), ("cpu", "gradient steps per s of processor time")):
        of = found[clock]
        quartiles = f"{of['low']:.3f} to {of['high']:.3f}"
        row(made, words, f"{of['one']:.2f}", f"{of['other']:.2f}", f"{of['ratio']:.3f}", quartiles)
    console().print(made)
    return 0


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    config, options = parse(arguments, "omad bench [ALGO]", Options())
    check(options, positive=("seconds",), most={"seconds": 3600.0}, flags=True)
    if options.print_config:
        return print_config(config)
    options.computing.prepare()
    if options.versus is not None or options.versus_version is not None:
        return _versus(arguments, config, options)
    found = measure(config, options.seconds)
    if options.json:
        print_json(found)
        return 0
    title = f"{found['algorithm']} on {found['task']}, preset {found['preset']}, {found['device']}"
    made = table(title, "quantity", "value", right=("value",))
    for label, value in (
        ("seeds in one process", f"{found['seeds']}"),
        (
            "operations per gradient step",
            f"{found['flops_per_gradient_step'] / 1e9:.3f} G",
        ),
        ("gradient steps per s, all seeds", f"{found['gradient_steps_per_s']:.2f}"),
        ("env steps per s, all seeds", f"{found['env_steps_per_s']:.1f}"),
        (f"float32 matrix product, {found['matmul_size']}^3", f"{found['matmul_flops_per_s'] / 1e9:.1f} G/s"),
        ("utilisation", f"{found['utilisation']:.3f}"),
        ("matrix products of the update's own shapes", f"{found['own_matmul_flops_per_s'] / 1e9:.1f} G/s"),
        ("utilisation of that", f"{found['own_utilisation']:.3f}"),
        *((f"share of time: {_WORDS.get(part, part)}", f"{share:.1%}") for part, share in found["shares"].items()),
        ("start-up and compilation", f"{found['compile_s']:.1f} s"),
    ):
        row(made, label, value)
    console().print(made)
    return 0
