"""Shell completion: commands, their options, and the values of options that have few."""

from __future__ import annotations

import dataclasses
import importlib
import shlex
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from omad import tasks
from omad.algos import REGISTRY, config_class
from omad.cli import COMMANDS
from omad.config import RunConfig
from omad.device import DEVICES
from omad.errors import UserError
from omad.presets import PRESETS

_CONFIGURED = ("train", "bench")
"""Commands that take the fields of a run and of its algorithm as options."""
_VALUES: dict[str, tuple[str, ...]] = {
    "task": tuple(tasks.TASKS),
    "preset": tuple(PRESETS),
    "algorithm": tuple(REGISTRY),
    "device": tuple(DEVICES),
}

_Options = dict[str, tuple[str, ...]]
"""Option -> the values it may have; none where these are free or where it is a switch."""


def _literals(kind: Any) -> tuple[str, ...]:
    """The words of a `Literal`, also inside of a union."""
    if get_origin(kind) is Literal:
        return tuple(map(str, get_args(kind)))
    return tuple(word for part in get_args(kind) for word in _literals(part)) if get_origin(kind) is not None else ()


def _positional(kind: Any) -> bool:
    return get_origin(kind) is Annotated and any("POSITIONAL" in str(part).upper() for part in kind.__metadata__)


def _of_class(cls: type) -> Iterator[tuple[str, tuple[str, ...]]]:
    hints, bare = get_type_hints(cls, include_extras=True), get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if field.name in ("algo", "given") or _positional(hints[field.name]):
            continue
        name, kind = field.name.replace("_", "-"), bare[field.name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            yield from _of_class(kind)
            continue
        yield f"--{name}", _VALUES.get(field.name, _literals(kind) if get_origin(kind) in (Literal, Union) else ())
        if kind is bool:
            yield f"--no-{name}", ()


def _commands() -> dict[str, _Options]:
    """All commands with their options; of `train` and `bench`, those of every algorithm of this package."""
    found: dict[str, _Options] = {}
    for command, (module, _) in COMMANDS.items():
        classes = [importlib.import_module(module).Options]
        if command in _CONFIGURED:
            classes += [RunConfig, *map(config_class, REGISTRY)]
        found[command] = {"--help": ()} | {name: values for cls in classes for name, values in _of_class(cls)}
    return found


def _bash(commands: dict[str, _Options]) -> str:
    branches, values = [], []
    for command, options in commands.items():
        first = f" {' '.join(REGISTRY)}" * (command in _CONFIGURED)
        branches.append(f"    {command}) words={shlex.quote(' '.join(options))}; first={shlex.quote(first.strip())} ;;")
        for name, allowed in options.items():
            if allowed:
                line = f"    '{command} {name}') values={shlex.quote(' '.join(allowed))} ;;"
                values.append(line)
    return f"""# Completion of omad for bash: eval "$(omad --print-completion bash)"
_omad() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" command="${{COMP_WORDS[1]}}"
  local words='' first='' values=''
  COMPREPLY=()
  if (( COMP_CWORD == 1 )); then
    COMPREPLY=($(compgen -W '{" ".join(commands)} --help --version --print-completion' -- "$current"))
    return
  fi
  case "$command" in
{chr(10).join(branches)}
    --print-completion) first='{" ".join(SHELLS)}' ;;
  esac
  case "$command $previous" in
{chr(10).join(values)}
  esac
  if [[ -n "$values" ]]; then
    COMPREPLY=($(compgen -W "$values" -- "$current"))
  elif [[ "$current" == -* ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
  elif (( COMP_CWORD == 2 )) && [[ -n "$first" ]]; then
    COMPREPLY=($(compgen -W "$first" -- "$current"))
  fi
}}
complete -o default -F _omad omad
"""


def _zsh(commands: dict[str, _Options]) -> str:
    body = _bash(commands).partition("\n")[2]
    return (
        f'# Completion of omad for zsh: eval "$(omad --print-completion zsh)"\nautoload -U +X compinit && compinit\n'
        f"autoload -U +X bashcompinit && bashcompinit\n{body}"
    )


def _fish(commands: dict[str, _Options]) -> str:
    lines = ["# Completion of omad for fish: omad --print-completion fish | source"]
    for command, options in commands.items():
        about = shlex.quote(COMMANDS[command][1])
        lines.append(f"complete -c omad -n __fish_use_subcommand -f -a {command} -d {about}")
        seen = f"-n '__fish_seen_subcommand_from {command}'"
        if command in _CONFIGURED:
            lines.append(f"complete -c omad {seen} -f -a {shlex.quote(' '.join(REGISTRY))}")
        for name, allowed in options.items():
            values = f" -x -a {shlex.quote(' '.join(allowed))}" if allowed else ""
            lines.append(f"complete -c omad {seen} -l {name[2:]}{values}")
    return "\n".join(lines) + "\n"


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
"""Shell -> what writes its script."""


def script(shell: str) -> str:
    """The script that a shell reads.

    Raises:
        UserError: The shell is not one of those there are.
    """
    if shell not in SHELLS:
        raise UserError(f"--print-completion is {shell!r}; allowed: {', '.join(SHELLS)}.")
    return SHELLS[shell](_commands())
