"""HASAC and HATD3: as HARL tunes them, or the nearest row where it does not; and what suits them in short runs."""

from __future__ import annotations

from omad.presets import common
from omad.presets.settings import Settings, robot

_AS_CHEETAH = "[?] as halfcheetah, the nearest row known"
_AS_ANT = "[?] as another ant, the nearest row known"
_AS_SPREAD = "[?] as spread-3, the nearest row known"
_AS_SEGMENTS = "[?] as manysegmentswimmer, the nearest row known"


def _run(settings: Settings) -> None:
    settings("[H]", n_envs=20)
    settings("[H] 50 gradient steps after every 50 steps of the parallel envs", updates_per_step=1)
    settings("[H]", batch_size=1000, warmup_steps=10_000)
    common.ten_episodes(settings)


def hasac_paper(settings: Settings) -> None:
    """As HARL tunes it."""
    _run(settings)

    def row(
        source: str, n_step: int, actor_lr: float, critic_lr: float, alpha: float | None = None, batch: int = 1000
    ) -> None:
        """A row of HARL's settings; a temperature of None is tuned."""
        settings(source, batch_size=batch, n_step=n_step, actor_lr=actor_lr, critic_lr=critic_lr)
        settings(source, alpha_mode="auto" if alpha is None else "fixed", alpha_init=1.0 if alpha is None else alpha)

    name = robot(settings.task)
    if settings.on("mpe/"):
        row("[H]" if settings.on("mpe/spread-3") else _AS_SPREAD, 20, 5e-4, 5e-4)
    elif name.startswith("ant-4x2"):
        row("[H]", 5, 1e-3, 3e-4, 0.2)
    elif name.startswith("ant-"):
        row("[H]" if name == "ant-2x4" else _AS_ANT, 5, 1e-3, 3e-4, 0.2, batch=2200)
    elif name.startswith("walker2d-"):
        row("[H]", 20, 5e-4, 1e-3, 0.2)
    elif name.startswith(("halfcheetah-", "manysegmentswimmer-")):
        row("[H]", 10, 1e-3, 1e-3)
    elif name:
        row(_AS_SEGMENTS if name.startswith("swimmer-") else _AS_CHEETAH, 10, 1e-3, 1e-3)


def hatd3_paper(settings: Settings) -> None:
    """As HARL tunes it."""
    _run(settings)

    def row(source: str, n_envs: int, n_step: int, actor_every: int, width: int) -> None:
        """A row of HARL's settings."""
        settings(source, n_envs=n_envs, n_step=n_step, actor_every=actor_every, actor_width=width, critic_width=width)

    name = robot(settings.task)
    if settings.on("mpe/"):
        row("[H]" if settings.on("mpe/spread-3") else _AS_SPREAD, 20, 1, 2, 128)
    elif name.startswith("ant-"):
        row("[H]" if name.startswith("ant-4x2") else _AS_ANT, 10, 5, 2, 256)
    elif name.startswith("walker2d-"):
        row("[H]", 10, 20, 8, 256)
    elif name:
        row("[H]" if name.startswith("halfcheetah-2x3") else _AS_CHEETAH, 10, 10, 2, 256)


def hasac(settings: Settings) -> None:
    """What all algorithms have in common, and what suits HASAC with that."""
    common.small(settings)
    settings("[?] as omad's", actor_lr=1e-3, critic_lr=1e-3)
    settings("[?] keeps alpha's pace in short runs", alpha_lr=1e-3)
    settings("[?] between SAC's 1 and HARL's 20, for old data are kept", n_step=5)


def hatd3(settings: Settings) -> None:
    """What all algorithms have in common, and what suits HATD3 with that."""
    common.small(settings)
    settings("[H]", actor_lr=5e-4, critic_lr=1e-3)


def hasac_tiny(settings: Settings) -> None:
    """Small in everything."""
    hatd3_tiny(settings)
    settings("[?] a few seconds", n_step=2)


def hatd3_tiny(settings: Settings) -> None:
    """Small in everything."""
    settings("[?] a few seconds", actor_width=16, actor_layers=1, critic_width=16, critic_layers=1)
