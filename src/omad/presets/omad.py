"""OMAD's settings."""

from __future__ import annotations

import math

from omad.presets import common
from omad.presets.settings import OVER_THE_RUN, Settings, robot
from omad.tasks.returns import RANDOM, REFERENCES

_V_MAX = {
    "ant": (1600.0, "[D]"),
    "walker2d": (1600.0, "[D]"),
    "halfcheetah": (2000.0, "[I] 14.4 a step at the published return, times 100, and bonuses"),
    "swimmer": (100.0, "[?] 0.16 a step times 100, and bonuses"),
    "hopper": (1600.0, "[?] as walker2d"),
    "humanoid": (1600.0, "[?]"),
    "humanoidstandup": (20_000.0, "[?] about 150 a step"),
    "reacher": (100.0, "[?]"),
    "pusher": (200.0, "[?]"),
    "manysegmentswimmer": (100.0, "[?]"),
    "manysegmentant": (1600.0, "[?]"),
}
"""Half-width of the support by robot, for a discount of 0.99."""


def _support(settings: Settings) -> None:
    """Half-width of the support where the discount is the same in all presets."""
    if settings.on("probe/timeout"):
        settings("[I] a reward of 1 in every step, for ever", v_max=150.0)
    elif settings.on("probe/"):
        settings("[I]", v_max=20.0)
    elif settings.on("games/"):
        settings("[I] one reward of at most 1, nothing after it", v_max=2.0)
    elif name := robot(settings.task):
        v_max, source = _V_MAX[name.partition("-")[0]]
        settings(source, v_max=v_max)


def _larger_teams(settings: Settings, gamma: float) -> None:
    """The support where a particle task's rewards, which are sums over the team, are larger than where it was chosen.

    Args:
        settings: With the support that serves teams of four (`spread`) or two (`deception`).
        gamma: The discount.
    """
    n, ratio = settings.task.n_agents, float(settings.option("local_ratio") or 0.5)
    if settings.on("mpe/spread") and (n > 4 or ratio < 0.5):
        known = {label: value for label, value, _ in REFERENCES[f"mpe/spread-{n}"]}
        random = abs(known[RANDOM]) / 25 / (1 - gamma) * max(1.0, 2 * (1 - ratio))  # what is shared outweighs contacts
        settings("[I] 1.55 times what random actions pay, discounted", v_max=10.0 * math.ceil(0.155 * random))
    if settings.on("mpe/deception") and n > 2:
        settings("[I] in proportion to the team", v_max=settings.values["v_max"][0] * n / 2)


def paper(settings: Settings) -> None:
    """As published; else as DIME."""
    common.ten_episodes(settings)
    _support(settings)
    if settings.on("mpe/spread-4"):
        settings("[I] random actions pay -4.8 a step, so -480 discounted", v_max=500.0)
    elif settings.on("mpe/deception"):
        settings("[I] 300 leaves mass on the edge atoms", v_max=600.0)
    elif settings.on("mpe/"):
        settings("[I]", v_max=300.0)
    _larger_teams(settings, 0.99)


def matched(settings: Settings) -> None:
    """What all algorithms have in common, and what suits OMAD with that."""
    settings("[M]", actor_width=128, actor_layers=2, time_frequencies=64, time_width=64, critic_width=256, atoms=101)
    settings("[M] three times quicker than 3e-4", actor_lr=1e-3)
    settings("[M]", critic_lr=1e-3)
    settings("[M] keeps alpha's pace against the learning rates; 1e-2 commits too early", alpha_lr=3e-3)
    settings(
        "[M] a tenth of a run on particle tasks; batch statistics blur the critic: -23.7, not -26.6",
        renorm_warmup=5_000,
    )
    _support(settings)
    if settings.on("mpe/"):
        settings("[M] a fifth of what 0.99 wants, as 1 / (1 - gamma) is", v_max=100.0)
        settings("[M] alpha falls with the values' size", alpha_init=0.3)
    if settings.on("mpe/spread-4", "mpe/deception"):
        settings("[I]", v_max=150.0)
    _larger_teams(settings, 0.95)
    if settings.on("mamujoco-"):
        settings(
            "[M] HalfCheetah 2x3 at 150k: 6,580 over three seeds, 4,231 with 3e-3: docs/results/robots.md",
            alpha_lr=1e-3,
        )


def cpu(settings: Settings) -> None:
    """As `matched`, but for what a CPU run suits better otherwise."""
    _both_paces(settings)
    name = robot(settings.task)
    if settings.on("mpe/spread"):
        falling = 50_000 if settings.on("mpe/spread-4") else 100_000
        source = "[M] spread-3 at 100k env steps, three seeds: -20.1, not -21.8: docs/results/spread-3.md, spread-4.md"
        settings(source, actor_lr=3e-3, critic_lr=3e-3)
        settings("[M] those of 200k env steps; a fall over a short run costs it much", lr_decay_steps=falling)
    if name.startswith("walker2d"):
        settings("[M] 4,074 and 3,880 at 100k, not 1,007 and 1,736: docs/results/ten-tasks.md", n_step=3)
    if name.startswith("halfcheetah"):
        settings(
            "[M] 2x3, five seeds: 8,151 after 15 core minutes, not 7,860: docs/learning/robots.md", critic_reduce="mean"
        )


def _both_paces(settings: Settings) -> None:
    """What suits both few gradient steps per env step and many."""
    matched(settings)
    if settings.on("mpe/spread-4"):
        _spread_4(settings)
    elif settings.on("mpe/"):
        settings("[M] 0.5 gradient steps per env step: see share_policy", updates_per_step=4)
        settings("[M] the same pace per env step as 3e-3 with half as many gradient steps", alpha_lr=1.5e-3)
        settings("[M] roles by geometry, not by number: docs/learning/roles-and-symmetry.md", share_policy=True)
    if settings.on("mpe/spread") and not settings.on("mpe/spread-4"):
        settings(
            "[M] spread-3 at 200k env steps, three seeds: -19.9, not -22.4: docs/results/exploration.md", symmetry=True
        )
    if settings.on("mpe/deception"):
        settings("[M] matched, three seeds at 100k: 37.4 to 38.6, not 32.9 to 36.9; learns at once", n_step=3)
        if settings.option("history"):
            _deception_with_history(settings)
            _larger_teams(settings, 0.9)
        elif settings.option("adversary") == "static" and settings.option("state") == "full":
            _still_adversary_seen_whole(settings)
            _larger_teams(settings, 0.95)
    if robot(settings.task):
        _robots(settings)


def _robots(settings: Settings) -> None:
    """The critics, the average of actors and the noise that serve robots."""
    settings("[M] docs/learning/robots.md, HalfCheetah 2x3 and Ant 2x4", critic_net="xqc")
    settings("[M] best at 15k env steps on both; one seed", critic_reduce="min")
    settings("[M] snapshots of the policy fall, their average walks: docs/learning/robots.md", policy_average=0.98)
    name = robot(settings.task)
    if name.startswith("swimmer"):
        settings("[I] 0.31 a step times 1,000, and bonuses", v_max=400.0)
    elif name.startswith(("halfcheetah", "walker2d", "ant-")):
        settings("[M] over three seeds: docs/learning/robots.md", lr_decay_steps=OVER_THE_RUN)
        settings("[M] less noise at the end: docs/learning/robots.md", target_run_end=5.5)
        settings("[M] the last fifth of the run", target_run_begin=OVER_THE_RUN, target_run_steps=OVER_THE_RUN)


def efficient(settings: Settings) -> None:
    """As `cpu`, but for what is best per env step; on robots what was not tried with more gradient steps stays."""
    _both_paces(settings)
    _same_pace(settings)
    if settings.values.get("lr_decay_steps") and not robot(settings.task):
        settings("[?] the gradient steps of 200k env steps", lr_decay_steps=200_000)


def _same_pace(settings: Settings) -> None:
    """More gradient steps, on particle tasks with the temperature's pace per env step as it was."""
    rate = lambda: settings.values["updates_per_step"][0] / settings.values["n_envs"][0]  # noqa: E731
    before = rate()
    common.more_updates(settings)
    if settings.on("mpe/"):
        pace = settings.values["alpha_lr"][0] * before / rate()
        settings("[I] the pace of `cpu` per env step", alpha_lr=round(pace, 9))


def _spread_4(settings: Settings) -> None:
    settings("[M] as matched", updates_per_step=2)
    settings(
        "[M] no preference of left or right: -48 at 100k env steps, near -79 without: docs/results/spread-4.md",
        symmetry=True,
    )
    settings(
        "[M] quicker: -50 at 80k env steps, a shared one -62; for a GPU see docs/results/spread-4.md",
        share_policy=False,
    )


def _deception_with_history(settings: Settings) -> None:
    """With history the state is Markov, so that a short horizon is no mistake and one step is enough."""
    settings("[M] 44.0 at 160k env steps, 41.8 without: docs/learning/hidden-velocity.md", symmetry=True)
    settings("[M] 45.4 at 100k env steps; 44.9 with 0.95, 44.1 with 0.97", gamma=0.9)
    settings("[M]", v_max=80.0)
    settings("[M] 45.1 at 160k env steps; 44.3 with 3", n_step=1)
    settings("[M] as matched", updates_per_step=2)
    settings("[M] keeps alpha's pace against the learning rates; 1e-2 commits too early", alpha_lr=3e-3)
    settings("[M] 45.1 at 160k env steps, 45.3 shared", share_policy=False)


def _still_adversary_seen_whole(settings: Settings) -> None:
    """Without a random adversary the critic has little noise: follow it closely, on data of recent policies."""
    settings("[I] as with frame stacking", symmetry=True)
    settings("[I] half the time of 512", batch_size=256)
    settings("[M] velocities at a position are those of recent policies", buffer_size=20_000)
    settings("[M] no mass on the edge atoms", v_max=120.0)
    settings("[I] these critics see velocities", n_step=1)
    settings(
        "[M] 40.7 at 100k env steps, 40.1 with 3, whose policies stay noisy: docs/results/deception-2.md", actor_every=1
    )
    settings("[M] 43.8; 43.5 with half as many gradient steps", updates_per_step=2)
    settings("[M] the pace of 3e-3 with actor_every 3", alpha_lr=1e-3)
    settings("[I] different gains keep two agents from oscillating together", share_policy=False)
    settings("[I]", renorm_warmup=1_500)
    settings("[I] the gradient steps of 200k env steps", lr_decay_steps=50_000)


def tiny(settings: Settings) -> None:
    """Small in everything."""
    _support(settings)
    settings("[?] a few seconds", actor_width=16, actor_layers=1, critic_width=16, critic_layers=1, atoms=11)
    settings("[?] a few seconds", denoising_steps=2, time_frequencies=8, time_width=8, renorm_warmup=50)
