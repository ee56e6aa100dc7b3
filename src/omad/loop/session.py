"""Train, record, evaluate, save; stop on signals, callbacks and numbers that are not finite.

Which chunk of the compiled loop runs when is decided here, and never changes a result: metrics add up inside the
carry, so a run that was cut anywhere and resumed writes the same lines as one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from omad.callbacks import Callback, Context
from omad.config import to_dict
from omad.errors import EnvFailed, NonFinite, UserError
from omad.evaluate import EvaluationStopped
from omad.loggers import Evaluation, Logger, Progress, RunInfo
from omad.loop import fused
from omad.loop.build import Built
from omad.loop.hosted import Hosted
from omad.loop.listeners import Listeners
from omad.processes import StopSignals
from omad.run import machine, warm_start
from omad.run.folder import RunFolder
from omad.run.longer import kept_of_length
from omad.run.places import how_to_resume
from omad.run.records import EPISODES, Unreadable, standard_error
from omad.tree import all_finite, at

EXACT, AT_A_BOUNDARY = "exact", "resumed at an episode boundary"
"""`resume` of the manifest: all continues where it was, or all envs begin new episodes."""
_PERIODS = ("log_every", "eval_every", "save_every")
_PIECE_S = 1.0
"""Aim for compiled calls of about this length, so that progress is live and signals are answered soon."""
_EDGE = 0.01
"""Share of target mass on the edge atoms above which the support is too narrow."""
_HUGE = 1e6
"""Observations of this size are what makes numbers overflow, rather than learning rates."""


class Result(NamedTuple):
    """How a run ended."""

    run_dir: Path
    task: str
    env_steps: int
    signal: int | None
    """The signal that stopped it early, if one did."""
    stopped: str | None = None
    """Why a callback stopped it early, if one did."""


class Session:
    """One process that trains a run: from scratch, or from the newest good checkpoint, to the end or a stop."""

    def __init__(
        self,
        run: RunFolder,
        built: Built,
        loggers: Sequence[Logger] = (),
        callbacks: Sequence[Callback] = (),
        signals: StopSignals | None = None,
    ) -> None:
        self.run, self.built = run, built
        self.signals = signals or StopSignals()
        self.context = Context(run, built.spec, lambda: jax.vmap(built.algorithm.policy)(self.carry.learner))
        self.listeners = Listeners(run, loggers, callbacks, self.context, self.signals)
        self.config = config = run.config
        self.seeds = jnp.asarray(config.all_seeds, jnp.int32)
        self.vector_steps = 0
        self.last: dict[str, float] = {}
        self._rate = 0.0
        """Vector steps per second of the compiled loop."""
        self._piece = {False: 16, True: 2}
        self._calls = {False: 0, True: 0}
        self._saved = True
        """Nothing has been done since the last checkpoint, or since the beginning."""
        self._noted_edge, self._edges = False, 0
        self._noted_boundaries = False
        self._owed = False
        """A stop came into the evaluation at which the run now stands."""
        self.carry: fused.Carry

    # ------------------------------------------------------------ start

    def begin(self) -> None:
        """A fresh carry. Its machine is that of the run from now on."""
        self.carry = self.built.loop.init(self.seeds)
        if self.config.init_from:
            source = warm_start.find(self.config.init_from, self.run.manifest.get("init_from"))
            fresh = warm_start.Learned(self.carry.learner, self.carry.returns)
            started, facts = warm_start.load(source, fresh, self.config)
            taken = not any(name.startswith("returns.") for name in facts["left"])
            if self.config.demonstrations and started.returns is not None and taken:
                started = started._replace(returns=fresh.returns.merged(started.returns))
            self.carry = dataclasses.replace(self.carry, **started._asdict())
            self.run.amend(init_from=facts)
            self.note(warm_start.said(facts))
        self.run.amend(**machine.facts())
        self._note_boundaries()

    def _note_boundaries(self) -> None:
        """Say it, once, if envs cannot be saved and loaded."""
        loop = self.built.loop
        if not isinstance(loop, Hosted) or not loop.why_inexact or self._noted_boundaries:
            return
        self._noted_boundaries = True
        self.run.amend(resume=AT_A_BOUNDARY)
        self.note(f"{self.config.task}: {loop.why_inexact}; a resumed run begins new episodes.")

    def restore(self) -> None:
        """Continue from the newest checkpoint that is whole; damaged ones are removed. Nothing is cut before that.

        Every checkpoint that has to be passed over is noted.

        Raises:
            UserError: Another process trains the run, or all checkpoints are damaged.
        """
        self.run.lock()  # before anything is read that another process may be changing
        passed: list[str] = []
        config, loop, loose = self.config, self.built.loop, ()
        if isinstance(loop, Hosted) and self.run.manifest.get("resume") == AT_A_BOUNDARY:
            loop.give_up_saves("envs cannot be saved")
            loose, self._noted_boundaries = (("env_state",), True)
        found = self.run.checkpoints()
        shapes: Any = loop.shapes(self.seeds) if found else None  # envs that were never tried may not be saved
        for checkpoint in found:
            try:
                rest = checkpoint.restore("rest", shapes, loose)
            except Unreadable:
                raise
            except UserError as error:
                passed.append(f"{str(error).rstrip('.')}; falling back to the one before.")
                continue
            self.run.rewind(checkpoint)
            self.carry = rest
            self._move_to(checkpoint.vector_steps)
            broken = [step for step in self.run.damaged() if step > self.env_steps]
            passed += [f"the checkpoint of env step {step} has a damaged index; falling back." for step in broken]
            for sentence in passed:
                self.note(sentence)
            stops = [stop for stop in self.run.manifest.get("stops", []) if stop["env_steps"] <= self.env_steps]
            if stops != self.run.manifest.get("stops", []):
                self.run.amend(stops=stops)
            if other := machine.differences(self.run.manifest):
                self.note(f"What follows may differ from an uncut run in rounding: {', '.join(other)}.")
            if words := kept_of_length(self.run):
                self.note(words)
            due = self._due("eval_every") and config.warmup_vector_steps < self.vector_steps < config.total_vector_steps
            self._owed = due and all(line["step"] != self.env_steps for line in self.run.lines(EPISODES))
            break
        else:
            if found:
                raise UserError(
                    f"No checkpoint of {self.run.path} can be read: {passed[-1]} Start a new run with "
                    "the configuration in config.json."
                )
            # Killed before its first checkpoint: the run begins again, from nothing, in the same folder.
            self.run.rewind(None)
            self.begin()

    # ------------------------------------------------------------ the run

    def go(self) -> Result:
        """Work until the end, a signal, or a callback that stops the run. Saves before it returns.

        Raises:
            NonFinite: A metric or parameter is not finite; the last good checkpoint stands.
            CallbackFailed: A user's callback or logger failed; the run has been saved.
        """
        config, total = self.config, self.config.total_vector_steps
        with self.signals, self._named(), contextlib.ExitStack() as stack:
            stack.callback(self.listeners.close)
            known = to_dict(config), self.run.manifest, config.all_seeds
            self.listeners.start(RunInfo(self.run.path, *known, self.env_steps))
            if self._owed:
                self._evaluate()
            while self.vector_steps < total and not self._stopping():
                before = self.vector_steps
                periods = [self._period(name) for name in _PERIODS]
                self._advance(min(*((self.vector_steps // p + 1) * p for p in periods), total))
                if self.vector_steps == before:
                    break
                self._saved = False
                done = self.vector_steps == total
                due = {name: done or self._due(name) for name in _PERIODS}
                if due["log_every"]:
                    self._log()
                if due["eval_every"] and self.vector_steps > config.warmup_vector_steps:
                    self._evaluate(to_the_end=done)
                if due["save_every"]:
                    self._save()
            self._end(total)
        if self.listeners.failed:
            raise self.listeners.failed
        if self.vector_steps == total:
            return Result(self.run.path, self.config.task, self.env_steps, None)
        return Result(self.run.path, self.config.task, self.env_steps, self.signals.number, self.context.stopped)

    def _end(self, total: int) -> None:
        """Save what has not been saved, and say how it ended."""
        reason = self.context.stopped
        if self.vector_steps < total and reason:
            stops = [*self.run.manifest.get("stops", []), {"env_steps": self.env_steps, "reason": reason}]
            self.run.amend(stops=stops)
            self.listeners.event("stop", reason)
        if self.vector_steps < total and not self._saved:
            self._save()
        draw = self.built.picture
        if draw and self.signals.number is None and not self.listeners.failed:  # else whoever stopped it waits
            self.listeners.show(lambda: draw(at(self.context.policies(), 0), self.config.eval_seed))
        self.listeners.call("on_end")
        if self.vector_steps == total:
            self.listeners.event("end", "complete")

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Name the run that failed, and where it can be resumed."""
        try:
            yield
        except NonFinite as error:
            what, *more = error.args
            where = ", ".join([f"{self.run.path}: {what} after env step {self.env_steps}", *more])
            raise NonFinite(f"{where}; {self._kept()}. {self._advice()}", seeds=error.seeds) from error
        except EnvFailed as error:
            near = f"{error} The run is {self.run.path}, after env step {self.env_steps}; {self._kept()}."
            again = how_to_resume(self.run.path, self.config.task)
            raise EnvFailed(f"{near} Fix the env, then: {again}") from error

    def _kept(self) -> str:
        found = self.run.checkpoints()
        return f"the last good checkpoint is {found[0].folder}" if found else "there was no checkpoint yet"

    def _period(self, name: str) -> int:
        """Vector steps between two of what `name` counts in env steps."""
        return max(1, -(-getattr(self.config, name) // self.config.n_envs))

    def _due(self, name: str) -> bool:
        return self.vector_steps % self._period(name) == 0

    def _stopping(self) -> bool:
        return any(why is not None for why in (self.signals.number, self.context.stopped, self.listeners.failed))

    @property
    def env_steps(self) -> int:
        """Env steps of each seed so far."""
        return self.vector_steps * self.config.n_envs

    def _move_to(self, vector_steps: int) -> None:
        self.vector_steps = vector_steps
        self.context.env_steps, self.context.gradient_steps = self.env_steps, self.config.gradient_steps(vector_steps)

    def _advance(self, until: int) -> None:
        """Advance to vector step `until`, in calls of about a second, unless a signal comes first."""
        warm = self.config.warmup_vector_steps
        while self.vector_steps < until and not self._stopping():
            learn = self.vector_steps >= warm
            step = self.built.loop.chunk if learn else self.built.loop.warm
            count = min(self._piece[learn], (until if learn else min(until, warm)) - self.vector_steps)
            if not self._calls[learn]:
                self._report_progress("compile")
            started = time.perf_counter()
            self.carry = step(self.carry, self.seeds, jnp.int32(self.vector_steps), jnp.int32(count))
            self._check()
            elapsed = time.perf_counter() - started
            self._calls[learn] += 1
            self._move_to(self.vector_steps + count)
            if self._calls[learn] > 1:  # the first call compiles
                rate = count / elapsed
                self._piece[learn] = max(1, min(int(rate * _PIECE_S), 4 * self._piece[learn]))
                if learn:
                    self._rate = rate if not self._rate else 0.8 * self._rate + 0.2 * rate
            self._report_progress("run")

    def _check(self) -> None:
        """Stop at the first chunk after which a number is not finite."""
        healthy = np.asarray(self.built.loop.healthy(self.carry))
        if healthy.all():
            return
        index = int(np.argmin(healthy))
        wrong = [k for k, v in self.carry.sums.items() if not np.isfinite(np.asarray(v.total)[index])]
        learner = at(self.carry.learner, index)
        if wrong and all(name.startswith("train/") for name in wrong) and bool(all_finite(learner)):
            raise EnvFailed(
                f"{self.config.task} returned a number that is not finite: seed {self.config.all_seeds[index]}, in "
                f"{', '.join(wrong)}; the policies' parameters are finite."
            )
        where = f"first seen in {', '.join(wrong) or 'the parameters'}"
        seeds = np.array(self.config.all_seeds)[~healthy]
        raise NonFinite(f"seed {self.config.all_seeds[index]} met a non-finite number", where, seeds=seeds.tolist())

    def _advice(self) -> str:
        """What to change in a run whose numbers are not finite."""
        obs = self.carry.observation.obs
        largest = 0.0 if obs.is_deleted() else float(np.max(np.abs(np.asarray(obs)), initial=0.0))
        if largest >= _HUGE:
            norm = "" if self.config.obs_norm == "running" else "give --obs-norm running, or "
            return f"Observations reach {largest:.3g}: {norm}use smaller units in the env."
        support = ", or look at critic/target_edge_mass and raise --v-max" if hasattr(self.config.algo, "v_max") else ""
        return f"Lower the learning rates{support}."

    def _report_progress(self, event: str) -> None:
        config = self.config
        learning_vector_steps = config.total_vector_steps - max(self.vector_steps, config.warmup_vector_steps)
        progress = Progress(
            env_steps=self.env_steps,
            total_steps=config.total_vector_steps * config.n_envs,
            steps_per_s=self._rate * config.n_envs,
            updates_per_s=self._rate * config.updates_per_step * config.seeds,
            seconds_left=learning_vector_steps / self._rate if self._rate else float("nan"),
            last=self.last,
            event=event,
        )
        self.listeners.progress(progress)

    def note(self, sentence: str) -> None:
        """A sentence for the user, said once a run."""
        self.listeners.event("note", sentence)

    # ------------------------------------------------------------ records

    def _log(self) -> None:
        """Write the means of the metrics since the last line, and reset them."""
        sums = jax.device_get(self.carry.sums)
        zeros = jax.tree.map(jnp.zeros_like, self.carry.sums)
        self.carry = eqx.tree_at(lambda c: c.sums, self.carry, zeros)
        learned = self.config.gradient_steps(self.vector_steps)
        timing = {"time/steps_per_s": self._rate * self.config.n_envs, "time/unix_s": time.time()}
        rows = []
        for i, seed in enumerate(self.config.all_seeds):
            values = {n: float(m.total[i] / m.weight[i]) for n, m in sums.items() if m.weight[i] > 0}
            rows.append((self.env_steps, seed, {"gradient_steps": learned} | values | timing))
        self.listeners.record("metrics", rows)
        means = {name: mean for name, mean in sums.items() if np.sum(mean.weight) > 0}
        self.last |= {name: float(np.sum(mean.total) / np.sum(mean.weight)) for name, mean in means.items()}
        with np.errstate(invalid="ignore", divide="ignore"):
            newest = {name: np.asarray(mean.total) / np.asarray(mean.weight) for name, mean in means.items()}
        self.context.metrics = newest
        self._report_progress("log")
        self.listeners.call("on_metrics")
        edge = self.last.get("critic/target_edge_mass", 0.0)
        self._edges = self._edges + 1 if edge > _EDGE else 0
        if self._edges == 2 and not self._noted_edge:  # the first may pass with the entropy of the first policies
            self._noted_edge = True
            v_max = getattr(self.config.algo, "v_max", float("nan"))
            first = "lower --alpha-init, or " if self.config.reward_norm == "return" else ""
            self.note(
                f"{edge:.1%} of the targets' mass lies on the edge atoms at env step {self.env_steps:,} (more than "
                f"{_EDGE:.0%} distorts values); {first}raise --v-max, now {v_max:g}, to {2 * v_max:g}.",
            )

    def _evaluate(self, to_the_end: bool = False) -> None:
        """Evaluate every seed's policy with sampled actions, and with noise-free ones where the run says so.

        A stop ends it, and it is made again when the run is resumed; the run's last one is made `to_the_end`.
        """
        policy, config = self.context.policies(), self.config
        found, rows = {}, []
        kinds: tuple[tuple[Literal["sampled", "noise_free"], Any], ...] = (
            ("sampled", self.built.sampled),
            *((("noise_free", self.built.noise_free),) if config.eval_noise_free else ()),
        )
        stop = (lambda: False) if to_the_end else (lambda: self.signals.number is not None)
        for kind, function in kinds:
            asked = policy, jnp.int32(config.eval_seed), jnp.int32(self.vector_steps)
            try:
                episodes = jax.device_get(function(*asked, stop))
            except EvaluationStopped:
                return
            if not np.isfinite(episodes.returns).all():
                seeds = np.array(config.all_seeds)[~np.isfinite(episodes.returns).all(1)].tolist()
                raise NonFinite(f"seed {seeds[0]} met a non-finite return in an evaluation", seeds=seeds)
            found[kind] = episodes
            for i, seed in enumerate(config.all_seeds):
                info = {name: float(total[i].mean()) for name, total in episodes.info.items()}
                rows.append((Evaluation(self.env_steps, seed, kind, config.eval_seed, episodes.returns[i], info),))
            label, means = "eval" if kind == "sampled" else "eval_noise_free", episodes.returns.mean(1)
            self.last[f"{label}/return"] = float(means.mean())
            self.last[f"{label}/return_se"] = standard_error(means if len(means) > 1 else episodes.returns[0])
        self.listeners.record("evaluation", rows)
        self.context.evaluation = found
        self._report_progress("eval")
        self.listeners.call("on_evaluation")

    def _save(self) -> None:
        self._note_boundaries()
        self.run.save(self.vector_steps, self.env_steps, self.context.policies(), self.carry)
        self._saved = True
        self._report_progress("save")
        self.listeners.call("on_save")
