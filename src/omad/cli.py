"""The command line. Only the command that runs is imported, so `omad --help` answers at once."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from omad.errors import CallbackFailed, EnvFailed, NonFinite, UserError
from omad.processes import StopSignals, silence

COMMANDS = {
    "train": ("omad.commands.train", "train a team; the last line printed is the run folder"),
    "resume": ("omad.commands.resume", "continue a run from its newest checkpoint"),
    "sweep": ("omad.commands.sweep", "run a study: all its runs in parallel; continues where it was"),
    "eval": ("omad.commands.evaluate", "evaluate the policies of a run"),
    "export": ("omad.commands.export", "write policies as one folder an agent that needs no JAX: NumPy and ONNX"),
    "distil": ("omad.commands.distil", "train policies of few denoising steps to act as a run's do, and export them"),
    "latency": ("omad.commands.latency", "milliseconds per action by runtime and denoising steps, beside the return"),
    "run-bundle": ("omad.commands.run_bundle", "play with an exported team, one process an agent"),
    "record": ("omad.commands.record", "write episodes of a run's policies, or of random actions, as demonstrations"),
    "runs": ("omad.commands.runs", "list runs: what was trained, how far, with which returns, and their state"),
    "compare": ("omad.commands.compare", "show how two configurations differ, values and their sources"),
    "report": ("omad.commands.report", "report on runs as one page: learning curves, tables, sample efficiency"),
    "tasks": ("omad.commands.tasks", "list the tasks, their protocols, reference returns and published results"),
    "doctor": ("omad.commands.doctor", "check this installation: versions, devices, extras, conflicts, a self-test"),
    "bench": ("omad.commands.bench", "measure speed and utilisation of a task and preset"),
    "check-env": ("omad.commands.check", "check whether an env, your own or one of ours, can be trained on"),
    "render": ("omad.commands.render", "video, animation and contact sheet of episodes of a run's policies"),
    "demo": ("omad.commands.demo", "a few minutes of OMAD, an evaluation beside reference returns, and pictures"),
}
"""Command -> (module with `main(arguments) -> exit code`, one line of help)."""

_HELP = """usage: omad COMMAND [options]

Online multi-agent reinforcement learning with diffusion policies.

commands:
{commands}

`omad COMMAND --help` shows every option with its default. `omad --version` prints the version;
`omad --print-completion bash|zsh|fish` prints a script that completes commands and options in that shell.
Exit codes: 0 done; 1 training diverged, or an env, callback or logger failed, or `doctor` or `export --check` found a
fault; 2 something given cannot work, or `check-env` refuses the env. Stopped, after saving: 130 by Ctrl-C, 143 by
SIGTERM, 129 by SIGHUP, 141 because the reader of the output has gone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit code: 0 done; 1 training met a non-finite number, or an env, a callback or a logger failed, or `doctor`
        or `export --check` found a fault; 2 something given, an env of `check-env` too, cannot work; 128 + n stopped
        by signal n (SIGPIPE: the reader of the output has gone), after saving.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for name in ("stdout", "stderr"):  # closed by whoever started this
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open to the end
    if not words or words[0] in ("-h", "--help", "help"):
        return answer("help", lambda: _print_help() or (0 if words else 2))
    if words[0] in ("-V", "--version"):
        return answer("version", _print_version)
    if words[0].partition("=")[0] == "--print-completion":
        return answer("completion", lambda: _print_completion(words))
    if words[0] not in COMMANDS:
        from omad.tasks import nearest

        near = ", ".join(nearest(words[0], COMMANDS))
        return _fail(f"There is no command {words[0]!r}; nearest: {near}; allowed: {', '.join(COMMANDS)}.", 2)
    return answer(words[0], lambda: importlib.import_module(COMMANDS[words[0]][0]).main(words[1:]))


def answer(name: str, command: Callable[[], int]) -> int:
    """Run a command: its exit code, and a sentence on standard error for what it raises.

    Args:
        name: Of the command.
        command: Returns an exit code.
    """
    try:
        return _run(command)
    except UserError as error:
        return _fail(str(error), 2)
    except (NonFinite, EnvFailed, CallbackFailed) as error:
        return _fail(str(error), 1)
    except BrokenPipeError:
        silence(sys.stdout)
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _fail(_file_error(error, name), 2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        said = str(error).strip().partition("\n")[0].rstrip(".") or "out of memory"
        return _fail(f"There is not enough memory ({said}); ask for less: fewer episodes, steps, seeds or envs.", 2)
    except KeyboardInterrupt:
        return _fail("Interrupted.", 130)


def _print_help() -> int:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {line}" for name, (_, line) in COMMANDS.items())
    sys.stdout.write(_HELP.format(commands=rows) + "\n")
    return 0


def _print_version() -> int:
    from omad import __version__

    sys.stdout.write(f"omad {__version__}\n")
    return 0


def _print_completion(words: Sequence[str]) -> int:
    from omad.commands.completion import script

    shell = words[0].partition("=")[2] or "".join(words[1:2])
    sys.stdout.write(script(shell))
    return 0


def _run(command: Callable[[], int]) -> int:
    """Run a command; a signal ends it at once, except where the command handles signals itself."""
    signals = StopSignals(raising=True)
    try:
        with signals:
            code = command()
            sys.stdout.flush()
            return code
    except BaseException:  # an import that is interrupted may raise anything
        if signals.number is None:
            raise
        return _fail(f"stopped by {signal.Signals(signals.number).name}.", 128 + signals.number)


_WRITING = ("train", "resume", "demo", "sweep")
"""Commands that write a run, which can be resumed."""


def _file_error(error: OSError, command: str) -> str:
    """A sentence that names the file and the cause, and what to do."""
    cause = error.strerror or str(error) or type(error).__name__
    names = " and ".join(repr(os.fsdecode(name)) for name in (error.filename, error.filename2) if name is not None)
    said = f"{names}: {cause}" if names else cause
    if command in _WRITING:
        return f"{said}. What was written before is kept; fix the cause (free space, rights), then: omad resume RUN."
    return f"{said}. Fix the cause (name, free space, rights) and run the command again."


def _fail(message: str, code: int) -> int:
    sys.stderr.write(f"omad: {message}\n")
    return code
