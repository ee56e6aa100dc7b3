"""Train, record, evaluate, save; stop on signals and on numbers that are not finite.

Which chunk of the compiled loop runs when is decided here, and never changes a result: metrics add up inside the
carry, so a run that was cut anywhere and resumed writes the same lines as one that was not.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from omad import buffer, demonstrations, envs, files
from omad.algos import make as make_algorithm
from omad.config import RunConfig
from omad.envs.pool import Pool
from omad.errors import EnvFailed, NonFinite, Refused
from omad.evaluate import make_evaluate, make_host_evaluate
from omad.loop import fused
from omad.loop.hosted import Hosted
from omad.processes import StopSignals, interruption
from omad.run import machine
from omad.run.folder import EPISODES, METRICS, Ended, RunFolder
from omad.symmetry import symmetric
from omad.types import Algorithm, EnvSpec, JaxEnv, Mean, is_mean

__all__ = [
    "AT_A_BOUNDARY", "EXACT", "Progress", "Result", "Session", "build", "continue_run", "forecast", "refuse_changed",
    "refuse_foreign",
]  # fmt: skip

EXACT, AT_A_BOUNDARY = "exact", "resumed at an episode boundary"
"""What the manifest says of a resume: all goes on where it was, or all envs begin new episodes."""
_PIECE_S = 1.0
"""Aim for compiled calls of about this length, so that progress is live and signals are answered soon."""
_EDGE = 0.01
"""Share of target mass on the edge atoms above which the support is too narrow."""
_HUGE = 1e6
"""Observations of this size are what makes numbers overflow, rather than learning rates."""


class Progress(NamedTuple):
    """What a watcher is told after every compiled call."""

    env_steps: int
    total_steps: int
    steps_per_s: float
    """Env steps of one seed per second, evaluations and checkpoints left out."""
    updates_per_s: float
    """Gradient steps per second, all seeds together."""
    seconds_left: float
    last: dict[str, float]
    """Newest metrics and evaluation, averaged over seeds."""
    event: str
    """`compile`, `run`, `log`, `eval` or `save`: what has just been done (or, for `compile`, begins); `note`."""
    note: str = ""
    """A sentence for the user, said once a run."""


class Result(NamedTuple):
    """How a run ended."""

    run_dir: Path
    env_steps: int
    signal: int | None
    """The signal that stopped it early, if one did."""


class Built(NamedTuple):
    """The parts of a run, made from its configuration."""

    spec: EnvSpec
    algorithm: Algorithm
    loop: fused.Fused | Hosted
    sampled: Callable[..., Any]
    noise_free: Callable[..., Any]
    close: Callable[[], None]
    """End whatever runs beside this process."""
    notes: tuple[str, ...] = ()
    """Sentences about the env that a user should read before training."""


def build(config: RunConfig, batch_seeds: bool | None = None) -> Built:
    """Everything a run needs; nothing is compiled, allocated or started yet.

    Args:
        config: The run.
        batch_seeds: Whether seeds are one batch, or run one after the other; by default the former on accelerators.
    """
    env = envs.make(config.task)
    algorithm = make_algorithm(config.algo, env.spec, config.obs_norm, config.updates_per_env_step)
    if config.symmetry:
        algorithm = symmetric(algorithm, env.symmetry)
    sizes = fused.LoopConfig(
        n_envs=config.n_envs,
        updates_per_step=config.updates_per_step,
        batch_size=config.batch_size,
        buffer_rows=buffer.rows_for(config.buffer_size, config.n_envs),
        warmup_rows=config.warmup_rows,
        reward_norm=config.reward_norm,
        reward_bound=config.reward_bound,
        noise_hold=config.noise_hold,
        demonstrated=config.demonstrated,
    )
    shown = demonstrations.load(config.demonstrations, env.spec) if config.demonstrations else None
    if isinstance(env, JaxEnv):
        loop = fused.make(algorithm, env, sizes, batch_seeds, shown)
        evaluate = [make_evaluate(algorithm, env, config.eval_episodes, explore) for explore in (True, False)]
        return Built(env.spec, algorithm, loop, *evaluate, close=lambda: None)

    def start(worlds: int) -> Pool:
        return Pool.of(config.task, env.spec, worlds, config.env_workers, config.env_timeout)

    hosted = Hosted(algorithm, env, sizes, start, batch_seeds, shown)
    bench = EvaluationWorlds(start, config.eval_episodes)
    evaluate = [
        make_host_evaluate(algorithm, env.spec, bench, config.eval_episodes, explore) for explore in (True, False)
    ]

    def close() -> None:
        hosted.close()
        bench.close()

    return Built(env.spec, algorithm, hosted, *evaluate, close=close, notes=env.notes)


class EvaluationWorlds:
    """Worlds of their own for evaluations, started when first asked for."""

    most = 16
    """Episodes beyond this many go through the same worlds in rounds."""

    def __init__(self, start: Callable[[int], Pool], episodes: int) -> None:
        self._start, self._count = start, min(episodes, self.most)
        self._pool: Pool | None = None

    def __call__(self) -> Pool:
        """The running worlds."""
        if self._pool is None:
            self._pool = self._start(self._count)
        return self._pool

    def close(self) -> None:
        """End the worker processes."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def forecast(config: RunConfig, built: Built) -> dict[str, float]:
    """Memory that a run will take, in MiB, from shapes alone: `buffer`, `learner`, `work`, `evaluation`, `total`.

    `work` is what one gradient step keeps for its backward pass, taken as the matrix products of the update with one
    float each per multiply-add chain; it is an upper estimate. `evaluation` is a step of all its episodes at once.
    """
    rows = buffer.rows_for(config.buffer_size, config.n_envs)
    learner = jax.eval_shape(built.algorithm.init, jax.eval_shape(lambda: jax.random.key(0)))
    mib = {
        "buffer": buffer.n_bytes(built.spec, rows, config.n_envs) * config.seeds / 2**20,
        "learner": sum(v.size * v.dtype.itemsize for v in jax.tree.leaves(learner)) * config.seeds / 2**20,
        "work": 64.0 + 4.0 * config.seeds * _activations(config.algo, built.spec.n_agents, config.batch_size) / 2**20,
        "evaluation": evaluation_mib(config, built),
    }
    return mib | {"total": sum(mib.values())}


def evaluation_mib(config: RunConfig, built: Built) -> float:
    """Memory that a step of all episodes of an evaluation takes, in MiB: what agents see and do, and a hidden layer.

    Episodes of a hosted env go through few worlds, so only their results are kept.
    """
    spec, hidden = built.spec, 2 * getattr(config.algo, "actor_width", 0)
    floats = 4 + len(spec.info_keys)
    if isinstance(built.loop, fused.Fused):
        floats += 3 * spec.n_agents * (spec.obs_dim + spec.act_dim) + 2 * spec.state_dim + spec.n_agents * hidden
    return 4.0 * config.seeds * config.eval_episodes * floats / 2**20


def _activations(algo: Any, n_agents: int, batch: int) -> float:
    """Hidden activations of an update, in floats, for any algorithm with the usual field names."""
    steps = getattr(algo, "denoising_steps", 1)
    actors = n_agents * batch * steps * getattr(algo, "actor_width", 0) * getattr(algo, "actor_layers", 0)
    critics = 4 * batch * getattr(algo, "critic_width", 0) * (getattr(algo, "critic_layers", 0) + 1)
    return 4.0 * (actors + critics)


class Session:
    """One process's work on a run: from nothing, or from the newest good checkpoint, to the end or a stop."""

    def __init__(
        self,
        run: RunFolder,
        built: Built,
        watch: Callable[[Progress], None],
        stop: Callable[[], bool] = lambda: False,
        signals: StopSignals | None = None,
    ) -> None:
        self.run, self.built, self.watch, self.stop = run, built, watch, stop
        self.signals = signals or StopSignals()
        self.config = config = run.config
        self.seeds = jnp.asarray(config.all_seeds, jnp.int32)
        self.row = 0
        self.last: dict[str, float] = {}
        self._rate = 0.0
        """Vector steps per second of the compiled loop."""
        self._piece = {False: 16, True: 2}
        self._calls = {False: 0, True: 0}
        self._board: dict[int, Any] = {}
        self._saved = True
        """Nothing has been done since the last checkpoint, or since the beginning."""
        self._noted = False
        self._told = False
        self.carry: fused.Carry

    # ------------------------------------------------------------ start

    def begin(self) -> None:
        """A fresh carry. Its machine is that of the run from now on."""
        self.carry = self.built.loop.init(self.seeds)
        self.run.amend(**machine.facts())
        self._note_boundaries()

    def _note_boundaries(self) -> None:
        """Say it, once, if envs cannot be saved and loaded."""
        loop = self.built.loop
        if not isinstance(loop, Hosted) or not loop.why_inexact or self._told:
            return
        self._told = True
        self.run.amend(resume=AT_A_BOUNDARY)
        self._tell("note", f"{self.config.task}: {loop.why_inexact}; a resumed run begins new episodes.")

    def restore(self) -> list[str]:
        """Continue from the newest checkpoint that is whole; damaged ones are removed. Nothing is cut before that.

        Returns:
            One sentence for every checkpoint that had to be passed over.

        Raises:
            Refused: Another process works on the run, or all checkpoints are damaged.
        """
        self.run.lock()  # before anything is read that another process may be changing
        passed: list[str] = []
        loop, loose = self.built.loop, ()
        if isinstance(loop, Hosted) and self.run.manifest.get("resume") == AT_A_BOUNDARY:
            loop.give_up_saves("envs cannot be saved")
            loose, self._told = (("env_state",), True)
        shapes = loop.shapes(self.seeds)
        found = self.run.checkpoints()
        for checkpoint in found:
            try:
                rest = checkpoint.restore("rest", shapes, loose)
            except Refused as error:
                passed.append(f"{error}; falling back to the one before.")
                continue
            self.run.rewind(checkpoint)
            self.carry, self.row = rest, checkpoint.row
            if other := machine.differences(self.run.manifest):
                self._tell("note", f"What follows may differ from an uncut run in rounding: {', '.join(other)}.")
            break
        else:
            if found:
                raise Refused(
                    f"No checkpoint of {self.run.path} can be read: {passed[-1]} Start a new run with "
                    "the configuration in config.json."
                )
            # Killed before its first checkpoint: the run begins again, from nothing, in the same folder.
            self.run.rewind(None)
            self.begin()
        return passed

    # ------------------------------------------------------------ the run

    def go(self) -> Result:
        """Work until the end or a signal. Saves before it returns.

        Raises:
            NonFinite: A metric or parameter is not finite; the last good checkpoint stands.
        """
        config = self.config
        rows = {name: max(1, -(-getattr(config, name) // config.n_envs)) for name in _PERIODS}
        total = config.total_rows
        with self.signals, self._named(), contextlib.ExitStack() as stack:
            stack.callback(self._close_boards)
            while self.row < total and not self._stopping():
                before = self.row
                self._advance(min(*((self.row // p + 1) * p for p in rows.values()), total))
                if self.row == before:
                    break
                self._saved = False
                done = self.row == total
                at = {name: done or self.row % period == 0 for name, period in rows.items()}
                if at["log_every"]:
                    self._log()
                if at["eval_every"] and self.row > config.warmup_rows:
                    self._evaluate()
                if at["save_every"]:
                    self._save()
            if self.row < total and not self._saved:
                self._save()
        return Result(self.run.path, self.env_steps, self.signals.number if self.row < total else None)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Say which run has failed, and from where to go on."""
        try:
            yield
        except NonFinite as error:
            what, *more = error.args
            where = ", ".join([f"{self.run.path}: {what} after env step {self.env_steps}", *more])
            raise NonFinite(f"{where}; {self._kept()}. {self._advice()}") from error
        except EnvFailed as error:
            near = f"{error} The run is {self.run.path}, after env step {self.env_steps}; {self._kept()}."
            raise EnvFailed(f"{near} Mend the env, then: omad resume {self.run.path}") from error

    def _kept(self) -> str:
        found = self.run.checkpoints()
        return f"the last good checkpoint is {found[0].folder}" if found else "there was no checkpoint yet"

    def _stopping(self) -> bool:
        return self.signals.number is not None or self.stop()

    @property
    def env_steps(self) -> int:
        """Env steps of each seed so far."""
        return self.row * self.config.n_envs

    def _advance(self, until: int) -> None:
        """Vector steps up to row `until`, in calls of about a second, unless a signal comes first."""
        warm = self.config.warmup_rows
        while self.row < until and not self._stopping():
            learn = self.row >= warm
            step = self.built.loop.chunk if learn else self.built.loop.warm
            count = min(self._piece[learn], (until if learn else min(until, warm)) - self.row)
            if not self._calls[learn]:
                self._tell("compile")
            started = time.perf_counter()
            self.carry = step(self.carry, self.seeds, jnp.int32(self.row), jnp.int32(count))
            self._check()
            elapsed = time.perf_counter() - started
            self._calls[learn] += 1
            self.row += count
            if self._calls[learn] > 1:  # the first call compiles
                rate = count / elapsed
                self._piece[learn] = max(1, min(int(rate * _PIECE_S), 4 * self._piece[learn]))
                if learn:
                    self._rate = rate if not self._rate else 0.8 * self._rate + 0.2 * rate
            self._tell("run")

    def _check(self) -> None:
        """Stop at the first chunk that leaves something non-finite behind."""
        healthy = np.asarray(self.built.loop.healthy(self.carry))
        if healthy.all():
            return
        place = int(np.argmin(healthy))
        wrong = [k for k, v in self.carry.sums.items() if not np.isfinite(np.asarray(v.total)[place])]
        where = f"first seen in {', '.join(wrong) or 'the parameters'}"
        raise NonFinite(f"seed {self.config.all_seeds[place]} met a non-finite number", where)

    def _advice(self) -> str:
        """What to change in a run whose numbers are not finite."""
        obs = self.carry.observation.obs
        largest = 0.0 if obs.is_deleted() else float(np.max(np.abs(np.asarray(obs)), initial=0.0))
        if largest >= _HUGE:
            norm = "" if self.config.obs_norm == "running" else "give --obs-norm running, or "
            return f"Observations reach {largest:.3g}: {norm}use smaller units in the env."
        return "Lower the learning rates, or look at critic/target_edge_mass and raise --v-max."

    def _tell(self, event: str, note: str = "") -> None:
        config = self.config
        learning_rows = config.total_rows - max(self.row, config.warmup_rows)
        progress = Progress(
            env_steps=self.env_steps,
            total_steps=config.total_rows * config.n_envs,
            steps_per_s=self._rate * config.n_envs,
            updates_per_s=self._rate * config.updates_per_step * config.seeds,
            seconds_left=learning_rows / self._rate if self._rate else float("nan"),
            last=self.last,
            event=event,
            note=note,
        )
        try:
            self.watch(progress)
        except BrokenPipeError:  # whoever read what is printed has gone: save and end
            self.signals.note(signal.SIGPIPE)

    def note(self, sentence: str) -> None:
        """Tell the watcher something in words."""
        self._tell("note", sentence)

    # ------------------------------------------------------------ records

    def _record(self, name: str, line: dict[str, Any], values: dict[str, float]) -> None:
        """One line of a seed, and its numbers on the board."""
        self.run.write(name, line)
        board = self._boards()[line["seed"]]
        for key, value in values.items():
            board.add_scalar(key, value, line["step"])

    def _log(self) -> None:
        """Write the metrics since the last line and start anew."""
        sums = jax.device_get(self.carry.sums)
        zeros = jax.tree.map(jnp.zeros_like, self.carry.sums)
        self.carry = eqx.tree_at(lambda c: c.sums, self.carry, zeros)
        learned = max(0, self.row - self.config.warmup_rows) * self.config.updates_per_step
        for i, seed in enumerate(self.config.all_seeds):
            values = {
                name: float(mean.total[i] / mean.weight[i])
                for name, mean in sums.items()
                if isinstance(mean, Mean) and mean.weight[i] > 0
            }
            timing = {
                "time/steps_per_s": self._rate * self.config.n_envs,
                "time/unix_s": time.time(),
            }
            line = {"step": self.env_steps, "seed": seed, "gradient_steps": learned} | values | timing
            self._record(METRICS, line, values | timing)
        self.last |= {
            name: float(np.sum(mean.total) / np.sum(mean.weight))
            for name, mean in sums.items()
            if is_mean(mean) and np.sum(mean.weight) > 0
        }
        self.run.flush()
        self._tell("log")
        edge = self.last.get("critic/target_edge_mass", 0.0)
        if edge > _EDGE and not self._noted:
            self._noted = True
            v_max = getattr(self.config.algo, "v_max", float("nan"))
            self._tell(
                "note",
                f"{edge:.1%} of the targets' mass lies on the edge atoms at env step {self.env_steps:,} (more than "
                f"{_EDGE:.0%} distorts values); raise --v-max, now {v_max:g}, to {2 * v_max:g}.",
            )

    def _evaluate(self) -> None:
        """Evaluate every seed's policy with sampled and with noise-free actions."""
        policy = jax.vmap(self.built.algorithm.policy)(self.carry.learner)
        for kind, function in (("sampled", self.built.sampled), ("noise_free", self.built.noise_free)):
            episodes = jax.device_get(function(policy, jnp.int32(self.config.eval_seed), jnp.int32(self.row)))
            if not np.isfinite(episodes.returns).all():
                place = int(np.argmin(np.isfinite(episodes.returns).all(1)))
                raise NonFinite(f"seed {self.config.all_seeds[place]} met a non-finite return in an evaluation")
            label = "eval" if kind == "sampled" else "eval_noise_free"
            for i, seed in enumerate(self.config.all_seeds):
                returns = episodes.returns[i]
                line = {"step": self.env_steps, "seed": seed, "actions": kind, "eval_seed": self.config.eval_seed}
                values = {f"{label}/return": float(returns.mean())} | {
                    f"{label}/{name}": float(total[i].mean()) for name, total in episodes.info.items()
                }
                line |= {"returns": [round(float(r), 4) for r in returns]}
                line |= {"info": {name: float(total[i].mean()) for name, total in episodes.info.items()}}
                self._record(EPISODES, line, values)
            means = episodes.returns.mean(1)
            self.last[f"{label}/return"] = float(means.mean())
            pooled = episodes.returns.std() / np.sqrt(episodes.returns.shape[1])
            spread = means.std(ddof=1) if len(means) > 1 else pooled * np.sqrt(len(means))
            self.last[f"{label}/return_se"] = float(spread / np.sqrt(len(means)))
        self.run.flush()
        self._tell("eval")

    def _save(self) -> None:
        self._note_boundaries()
        policy = jax.vmap(self.built.algorithm.policy)(self.carry.learner)
        self.run.save(self.row, self.env_steps, policy, self.carry)
        self._saved = True
        self._tell("save")

    def _boards(self) -> dict[int, Any]:
        if not self._board:
            from tensorboardX import SummaryWriter

            files.make_folder(self.run.path / "tb", self.run.path)
            for seed in self.config.all_seeds:
                folder = self.run.path / "tb" / f"seed-{seed}"
                files.make_folder(folder, self.run.path)
                self._board[seed] = SummaryWriter(str(folder), purge_step=self.env_steps, flush_secs=10)
        return self._board

    def _close_boards(self) -> None:
        for board in self._board.values():
            board.close()


_PERIODS = ("log_every", "eval_every", "save_every")


def refuse_foreign(task: str, path: Path, trust: bool) -> None:
    """A folder may name a user's env; its code is imported only if the user says so.

    Raises:
        Refused: It names one, and the user has not said so.
    """
    if task.startswith("pettingzoo:") and not trust:
        named = task.partition("?")[0].removeprefix("pettingzoo:")
        raise Refused(
            f"{path} names an env of its own: the module {named.partition(':')[0]} would be imported and "
            f"{named.partition(':')[2]} called. If you trust it, give --trust (trust=True in Python), or name the task "
            "yourself where --task is offered."
        )


def refuse_changed(run: RunFolder, spec: EnvSpec) -> None:
    """A run goes on only in the env that it began in.

    Raises:
        Refused: Agents, sizes or bounds are not those of the manifest.
    """
    if changed := run.spec.differences(spec):
        raise Refused(
            f"{spec.name} is not what it was when {run.path} began: {'; '.join(changed)}. Restore the env, or start a "
            "new run."
        )


def continue_run(
    run: RunFolder,
    watch: Callable[[Progress], None],
    fresh: bool,
    stop: Callable[[], bool] = lambda: False,
    trust: bool = False,
) -> tuple[Result, list[str]]:
    """Work on an opened run folder until its end or a signal, then draw its curve.

    Args:
        run: A folder that was just created (`fresh`), or one to resume.
        watch: Told of progress.
        fresh: Whether to start from nothing.
        stop: Asked about once a second whether to save and return early.
        trust: Whether code that a folder to be resumed names may be imported.

    Returns:
        How it ended, and a sentence for every damaged checkpoint that was passed over.
    """
    if not fresh:
        refuse_foreign(run.config.task, run.path, trust)
    signals = StopSignals()
    with signals:
        return _continue(run, watch, fresh, stop, signals)


def _continue(
    run: RunFolder, watch: Callable[[Progress], None], fresh: bool, stop: Callable[[], bool], signals: StopSignals
) -> tuple[Result, list[str]]:
    from omad.report.curve import draw_curve

    passed: list[str] = []
    built: Built | None = None
    try:
        built = build(run.config)
        refuse_changed(run, built.spec)
        session = Session(run, built, watch, stop, signals)
        for note in built.notes if fresh else ():
            session.note(note)
        if fresh:
            session.begin()
        else:
            passed = session.restore()
        result = session.go()
        if session.row == run.config.total_rows:
            run.note_end(Ended("finished"))
        try:
            draw_curve(run.path)
        except Exception as error:  # noqa: BLE001 - a run is not the worse for a picture that could not be drawn
            session.note(f"{run.path / 'curve.png'} could not be drawn ({type(error).__name__}: {error}).")
    except Refused:
        raise
    except Exception as error:
        if signals.again:  # what was interrupted may have raised anything
            raise KeyboardInterrupt from error
        if signals.number is not None and isinstance(error, EnvFailed):
            # What an env needs may have been told to stop as well: that is no fault, and the last checkpoint stands.
            raise interruption(signals.number) from error
        words = str(error) if isinstance(error, NonFinite | EnvFailed) else f"{type(error).__name__}: {error}"
        run.note_end(Ended("diverged" if isinstance(error, NonFinite) else "broken", words))
        raise
    finally:
        if built is not None:
            built.close()
        run.close()
    return result, passed
