"""What the entropy bound of policies is worth along training.

python studies/measures/entropy_gap.py RUN [--out STUDY]
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
import tyro

from density import Entropies, entropies
from omad.algos.validate import check
from omad.cli import answer
from omad.console import console, print_json, row, table
from omad.errors import UserError
from omad.export.fold import Folded, fold, normalised
from omad.export.runner import ACTIVATIONS
from omad.report.figures import COLOURS
from omad.report.records import Section
from sections import panels, write_section


@dataclasses.dataclass(frozen=True)
class Options:
    """Compare the entropy bound of OMAD's policies with their true entropy, for agents of one action dimension.

    Of every checkpoint that the run keeps (train with --keep-checkpoints), at observations that the run had seen by
    then, drawn from its replay buffer. Both numbers come from quadrature over the chain, so neither is a sample.
    """

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder, as printed by omad train."""
    out: Path | None = None
    """Study folder in which to write sections/NAME.json and NAME.png, which omad report shows."""
    observations: int = 32
    """Observations of each checkpoint."""
    seed: int = 0
    """Of which observations are drawn."""
    trust: bool = False
    """Import the code of a user's env that the run folder names; only for folders that you trust."""
    json: bool = False
    """Print JSON."""


def at(one: Folded, obs: np.ndarray) -> list[Entropies]:
    """True entropy and bound of one agent's actions at each observation `(time, obs)`.

    Raises:
        UserError: It is no chain of one action dimension, or its control is too steep.
    """
    if one.kind != "chain" or one.act_dim != 1:
        raise UserError(
            f"A policy of kind {one.kind} with {one.act_dim} action dimensions has no entropy by quadrature; OMAD's "
            "agents of one dimension do."
        )
    t, s = one.tensors, one.settings
    seen = np.asarray(normalised(one, t, jnp.asarray(obs, jnp.float32))) @ t["obs.weight"]
    names = [*(f"hidden.{i}" for i in range(len(s["activations"]) - 1)), "last"]
    # The runner's GELU is twice the GELU.
    layers = [
        (ACTIVATIONS[kind], t[f"{name}.weight"] * np.float32(0.5 if kind == "gelu" else 1.0), t[f"{name}.bias"])
        for kind, name in zip(s["activations"], names, strict=True)
    ]
    pull = np.asarray(t["step"], float)[:, 0]
    jump = np.asarray(t.get("jump", np.sqrt(2.0 * t["step"])), float)[:, 0]

    def of(projection: Any) -> Entropies:
        def control(k: int, x: np.ndarray) -> np.ndarray:
            h = x.astype(np.float32)[:, None] @ t["x.weight"] + projection + t["time"][k]
            for activation, weight, bias in layers:
                h = activation(h) @ weight + bias
            return np.clip(h[:, 0].astype(float), -s["control_clip"], s["control_clip"])

        return entropies(control, pull, jump, s["prior_scale"])

    try:
        return [of(projection) for projection in seen]
    except ValueError as error:
        raise UserError(f"The entropy of these policies cannot be computed: {error}.") from None


def measure(path: Path, count: int, seed: int = 0, trust: bool = False) -> list[dict[str, Any]]:
    """A row for every training seed, checkpoint and agent of one action dimension, means over the observations.

    Args:
        path: The run folder.
        count: Observations of each checkpoint.
        seed: Of which are drawn.
        trust: Whether code that the folder names may be imported.

    Raises:
        UserError: No such agent, no checkpoint, or the buffer has lost its first observations already.
    """
    from omad import tree
    from omad.algos import make as make_algorithm
    from omad.run.folder import RunFolder
    from omad.run.places import members
    from omad.saved import policies_at, replayed

    rows = []
    for folder in [RunFolder.open(inside) for inside in members(path)]:
        config, spec = folder.config, folder.spec
        agents = [i for i, size in enumerate(spec.act_dims) if size == 1]
        if config.algorithm != "omad" or not agents:
            raise UserError(
                f"{folder.path} has {config.algorithm} on {config.task}, with action dimensions {spec.act_dims}; give "
                "a run of omad with agents of one, such as mamujoco-full/swimmer-2x1."
            )
        seen = np.asarray(replayed(folder, trust).obs)
        algorithm = make_algorithm(config.algo, spec, config.obs_norm)
        for saved in sorted(folder.checkpoints(), key=lambda one: one.vector_steps):
            policies, _ = policies_at(folder, algorithm, saved.env_steps)
            for place, training_seed in enumerate(config.all_seeds):
                team = fold(tree.at(policies, place), config.algo, spec, config.obs_norm)
                known = seen[place, : saved.vector_steps].reshape(-1, *seen.shape[3:])
                drawn = known[np.random.default_rng(seed).integers(len(known), size=count)]
                for agent in agents:
                    found = at(team[agent], drawn[:, agent, : spec.obs_dims[agent]])
                    rows.append({
                        "seed": training_seed,
                        "env_steps": saved.env_steps,
                        "agent": agent,
                        "entropy": float(np.mean([one.true for one in found])),
                        "bound": float(np.mean([one.bound for one in found])),
                        "gap": float(np.mean([one.gap for one in found])),
                        "largest_gap": float(max(one.gap for one in found)),
                    })  # fmt: skip
    return rows


def draw(rows: Sequence[dict[str, Any]], title: str) -> bytes:
    """A PNG: a panel an agent, its entropy and its bound over env steps, a line a seed."""
    agents = sorted({one["agent"] for one in rows})

    def fill(_: Any, axes: Any) -> None:
        for panel, agent in zip(axes[0], agents, strict=True):
            for seed in sorted({one["seed"] for one in rows}):
                mine = [one for one in rows if (one["agent"], one["seed"]) == (agent, seed)]
                line = sorted(mine, key=lambda one: one["env_steps"])
                for name, colour, marker in zip(("entropy", "bound"), COLOURS, "os", strict=False):
                    look = {"color": colour, "marker": marker, "markersize": 3, "linewidth": 1, "label": name}
                    panel.plot([one["env_steps"] for one in line], [one[name] for one in line], **look)
            panel.set_title(f"agent {agent}", fontsize=9)
            panel.set_xlabel("env steps", fontsize=9)
            panel.tick_params(labelsize=8)
            panel.grid(alpha=0.3)
        axes[0, 0].set_ylabel("nats", fontsize=9)
        axes[0, 0].legend(handles=axes[0, 0].get_lines()[:2], fontsize=8)

    return panels(title, (1, len(agents)), (3.0 * len(agents) + 0.8, 3.2), fill, sharey=True)


def main(arguments: Sequence[str]) -> int:
    """Print the table; with --out, write the section."""
    options = tyro.cli(Options, prog="entropy_gap.py", args=list(arguments))
    check(options, counts=("observations",), not_negative=("seed",), most={"observations": 100_000}, flags=True)
    from omad.run.folder import RunFolder
    from omad.run.places import members

    config = RunFolder.open(members(options.run)[0]).config
    found = measure(options.run, options.observations, options.seed, options.trust)
    title = f"{config.task}: entropy of actions and its bound"
    everything = {
        "task": config.task, "chain_kernel": config.algo.chain_kernel, "observations": options.observations,
        "rows": found,
    }  # fmt: skip
    if options.json:
        print_json(everything)
    else:
        made = table(
            title, "seed", "env steps", "agent", "entropy", "bound", "gap",
            right=("env steps", "entropy", "bound", "gap"), caption=f"nats, means over {options.observations} "
            "observations of the replay buffer; an action in [-1, 1] has at most 0.693",
        )  # fmt: skip
        for one in found:
            numbers = (f"{one[name]:.3f}" for name in ("entropy", "bound", "gap"))
            row(made, str(one["seed"]), f"{one['env_steps']:,}", str(one["agent"]), *numbers)
        console().print(made)
    if options.out is not None:
        write_section(options.out, f"entropy-{config.task}", _section(title, found), draw(found, title))
    return 0


def _section(title: str, found: Sequence[dict[str, Any]]) -> Section:
    """For the report."""
    last = max(one["env_steps"] for one in found)
    findings = " ".join(
        f"Seed {one['seed']}, agent {one['agent']}: entropy {one['entropy']:.3f}, bound {one['bound']:.3f}."
        for one in found
        if one["env_steps"] == last
    )
    return Section(
        title=title[:1].upper() + title[1:],
        text=f"After {last:,} env steps, in nats. {findings}",
        alt=f"Entropy and its bound over env steps, a panel an agent. {findings}",
    )


if __name__ == "__main__":
    sys.exit(answer("entropy_gap", lambda: main(sys.argv[1:])))
