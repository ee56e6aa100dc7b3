"""Runs that were made longer than they began."""

from __future__ import annotations

from omad.run.folder import RunFolder


def kept_of_length(run: RunFolder) -> str:
    """What to know of a run that was made longer and keeps what followed from its length; else empty."""
    config, sources = run.config, run.manifest.get("sources", {})
    derived = {name for name, source in sources.items() if str(source).startswith("derived")}
    said = []
    if config.buffer_size < config.total_steps and "buffer_size" in derived:
        said.append(
            f"The replay buffer still keeps {config.buffer_size:,} transitions, as when the run began; a run that "
            f"had {config.total_steps:,} env steps from the beginning would have a larger buffer_size."
        )
    whole = config.gradient_steps(config.total_vector_steps)
    begin = getattr(config.algo, "target_run_begin", 0)
    ends = {"lr_decay_steps": 0, "target_run_steps": begin}
    moved = [n for n, start in ends.items() if n in derived and start + getattr(config.algo, n, 0) < whole]
    if moved:
        said.append(
            f"What changes over the run has ended where the run was first to end ({', '.join(moved)} of then); the "
            "rest is trained with the last step sizes and limits."
        )
    return " ".join(said)
