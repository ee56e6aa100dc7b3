"""What presets set for every algorithm, those from outside this package included."""

from __future__ import annotations

from omad.presets.settings import Settings, robot


def _evaluations(settings: Settings) -> None:
    """Evaluations of tasks whose envs are hosted."""
    if settings.task.hosted:
        settings("[?] hosted envs would step twice as often", eval_noise_free=False)


def paper(settings: Settings) -> None:
    """As published for OMAD, and its code's lengths where they are not."""
    _evaluations(settings)
    settings("[S] 3e6 steps on most tasks", total_steps=3_000_000)
    settings("[D]", n_envs=1, updates_per_step=2)
    settings("[S][D]", batch_size=256, buffer_size=1_000_000)
    settings("[D]", warmup_steps=5_000)
    settings("[?] interval unknown", eval_every=25_000)
    settings("[M] ten episodes, as in the paper, scatter by 3 on spread-3", eval_episodes=500)
    settings("[?]", log_every=5_000, save_every=50_000)
    _own(settings)
    if settings.on("mamujoco-"):
        settings("[H] its wrapper, for all alike, standardises each vector by its own moments", obs_norm="harl")


def matched(settings: Settings) -> None:
    """Envs, gradient steps and batch that all algorithms have in common."""
    _evaluations(settings)
    settings("[M]", n_envs=8)
    settings("[M] 0.25 gradient steps per env step", updates_per_step=2)
    settings("[M] half the cost of 256, no worse per gradient step", batch_size=128)
    _families(settings)


def cpu(settings: Settings) -> None:
    """As `matched`, and on robots with the units and the horizon that serve them."""
    matched(settings)
    if settings.on("mamujoco-"):
        settings("[M] docs/learning/robots.md", reward_norm="return", obs_norm="running")
    if robot(settings.task).startswith("swimmer") and settings.has("gamma", "n_step"):
        settings("[M] a stroke pays over hundreds of steps: docs/learning/robots.md", gamma=0.999, n_step=5)


def efficient(settings: Settings) -> None:
    """What is best per env step: more gradient steps, on more transitions each."""
    cpu(settings)
    more_updates(settings)


def more_updates(settings: Settings) -> None:
    """The gradient steps and batches of `efficient`."""
    settings("[?] 1 gradient step per env step; not measured", n_envs=8, updates_per_step=8, batch_size=256)
    if settings.on("mamujoco-"):
        settings("[M] 2 gradient steps per env step: docs/learning/robots.md", n_envs=4, updates_per_step=8)
        settings("[M] at most 2 % of the time, and noise costs robots much", eval_noise_free=True)
        settings("[M] docs/learning/robots.md", batch_size=256)
    if robot(settings.task).startswith("swimmer"):
        settings("[M] 0.5 gradient steps per env step: docs/learning/robots.md", updates_per_step=2, batch_size=128)


def tiny(settings: Settings) -> None:
    """Seconds on any machine: everything happens, nothing is learned."""
    _evaluations(settings)
    settings("[?] a few seconds", total_steps=400, n_envs=4, updates_per_step=1, batch_size=16, buffer_size=400)
    settings("[?] a few seconds", warmup_steps=200, eval_every=200, eval_episodes=4, log_every=100, save_every=200)


def small(settings: Settings) -> None:
    """The networks that all algorithms have in common."""
    settings("[?] as omad's", actor_width=128, actor_layers=2, critic_width=256, critic_layers=2)


def _robots(settings: Settings) -> None:
    """Runs on robots."""
    if settings.on("mamujoco-"):
        settings("[M] 0.5 gradient steps per env step", n_envs=4, updates_per_step=2)
        settings("[S] ten episodes", eval_episodes=10)
        settings("[?]", eval_every=10_000, total_steps=150_000)


def _particles(settings: Settings) -> None:
    """Discount and lengths on the particle tasks."""
    if settings.on("mpe/") and settings.has("gamma"):
        settings("[M] for omad: -26.6 on spread-3 at 200k env steps, near -30 with 0.99; one seed", gamma=0.95)
    if settings.on("mpe/spread-4"):
        settings("[I]", total_steps=300_000)


def _games(settings: Settings) -> None:
    """Length of runs on games."""
    if settings.on("games/"):
        settings("[M] a game is learned by then", total_steps=40_000)


def _own(settings: Settings) -> None:
    """Evaluations of a user's envs on the host."""
    if settings.task.hosted and not settings.task.obs_dims:
        settings("[?] with 500, evaluations would step such envs far more than training does", eval_episodes=20)


def _families(settings: Settings) -> None:
    """What all algorithms have in common on a family of tasks."""
    _own(settings)
    _games(settings)
    _particles(settings)
    _robots(settings)


def ten_episodes(settings: Settings) -> None:
    """Evaluations on robots as published."""
    if settings.on("mamujoco-"):
        settings("[S] ten episodes", eval_episodes=10)
