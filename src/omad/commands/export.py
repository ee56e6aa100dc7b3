"""`omad export RUN --out DIR`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from omad.commands.computing import ANYWHERE, ComputingFlags
from omad.console import console, print_json
from omad.errors import UserError


@dataclasses.dataclass(frozen=True)
class Options:
    """Write the policies of a run as one folder an agent: a NumPy runner and an ONNX graph, neither needs JAX."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder, as printed by omad train."""
    out: Path
    """New folder of the team; with --check it may be there, and is then compared only."""
    training_seed: int | None = None
    """Which training seed's policies; by default the first."""
    which: str = "last"
    """Checkpoint: last, best, or its env steps."""
    formats: str = "numpy,onnx"
    """numpy, onnx or both, separated by a comma."""
    denoising_steps: int | None = None
    """Denoising steps of an action, at most those of training; fewer are quicker and less exact."""
    check: bool = False
    """Compare what was written with the run in JAX on fresh observations; exit code 1 beyond 1e-5."""
    json: bool = False
    """Print JSON."""
    computing: ComputingFlags = ANYWHERE


LIMIT = 1e-5
"""Largest difference of an action in [-1, 1] that counts as equal."""


def main(arguments: Sequence[str]) -> int:
    """Export, compare, print."""
    options = tyro.cli(Options, prog="omad export", args=list(arguments))
    options.computing.prepare()
    from omad.api import load_policy
    from omad.export import bundle, team
    from omad.saved import which_of

    policy = load_policy(options.run, options.training_seed, which_of(options.which))
    if options.check and options.out.exists():
        if options.denoising_steps is not None or options.formats != Options.formats:
            raise UserError(f"{options.out} exists and is compared only; leave out --denoising-steps and --formats.")
    else:
        policy.export(options.out, bundle.parsed(options.formats), options.denoising_steps)
    found = team.compare(options.out, policy.team) if options.check else {}
    far = [runtime for runtime, worst in found.get("difference", {}).items() if worst > LIMIT]
    if options.json:
        print_json({"out": str(options.out)} | found)
    else:
        out = console()
        for runtime, worst in found.get("difference", {}).items():
            out.print(f"{runtime}: within {worst:.1e} of JAX on {found['observations']} observations of each agent")
        if far:
            out.print(f"not the run's policies: {', '.join(far)} beyond {LIMIT:g}; export the run again")
        out.print(str(options.out))
    return int(bool(far))
