"""MADPMD and MASDAC: as DPMD and SDAC are run, and what suits them in short runs."""

from __future__ import annotations

from omad.presets import common
from omad.presets.settings import Settings


def paper(settings: Settings) -> None:
    """As DPMD and SDAC are run; their other settings are the defaults."""
    settings("[R]", n_envs=5, updates_per_step=1, batch_size=256, warmup_steps=30_000)
    common.ten_episodes(settings)


def matched(settings: Settings) -> None:
    """What all algorithms have in common, and what suits these two with that."""
    common.small(settings)
    settings("[?] as omad's", actor_lr=1e-3, critic_lr=1e-3)
    settings("[?] a run has fewer policy updates than the published decay waits for", actor_decay_steps=0)
    settings("[?] alpha arrives after a quarter of 50k gradient steps, not never", alpha_every=50)


def masdac_matched(settings: Settings) -> None:
    """As `matched`; on robots with weights that tell actions apart, for no critic chooses the best of many."""
    matched(settings)
    if settings.on("mamujoco-"):
        settings("[M] 3,879, not 2,341, in normalised rewards, one seed: docs/results/robots.md", weight_scale=25.0)


def masdac_cpu(settings: Settings) -> None:
    """As `masdac_matched`, with fewer reconstructions."""
    masdac_matched(settings)
    settings("[M] 29 ms of CPU a gradient step, 81 with 64", reconstructions=16)


def tiny(settings: Settings) -> None:
    """Small in everything."""
    settings("[?] a few seconds", actor_width=16, actor_layers=1, critic_width=16, critic_layers=1)
    settings("[?] a few seconds", denoising_steps=4, time_width=8, alpha_every=10)


def masdac_tiny(settings: Settings) -> None:
    """Small in everything."""
    tiny(settings)
    settings("[?] a few seconds", reconstructions=4)
