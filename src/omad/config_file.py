"""Configurations in files: TOML as a user writes it, or the `config.json` of a run; the layout is the same.

Fields of the run stand at the top, with `task`, `algorithm` and `preset`; the table `algo` has the hyperparameters.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omad import schema
from omad.algos import config_class
from omad.algos.validate import may_be_none, shown, typed
from omad.config import RUN_FIELDS, RunConfig, sources
from omad.errors import UserError
from omad.tasks import nearest

_NONE = "none"


def read(path: str | Path, algorithm: str | None = None) -> dict[str, Any]:
    """What a file gives, as arguments of `resolve`.

    Args:
        path: A TOML file, a JSON file as `config.json`, or a run folder.
        algorithm: That the run will have, where it is not the file's.

    Raises:
        UserError: There is no such file, it cannot be read, or a field is unknown or of the wrong type.
    """
    path = Path(path)
    path = path / "config.json" if path.is_dir() else path
    if not path.exists() and (seeds := sorted(path.parent.glob("seed-*/config.json"))):
        raise UserError(
            f"{path.parent} holds a run for each seed; give one of them, such as {seeds[0].parent}, with --seeds and "
            "--parallel-seeds as wanted."
        )
    values = _content(path)
    algo = values.pop("algo", {})
    if not isinstance(algo, dict):
        raise UserError(f"{path}: algo is {shown(algo)}; it must be a table with the hyperparameters of the algorithm.")
    top = (*RUN_FIELDS, "task", "algorithm", "preset")
    try:
        cls = config_class(algorithm or typed(RunConfig, {"algorithm": values.get("algorithm", "omad")})["algorithm"])
        inside = [f.name for f in dataclasses.fields(cls)]
        for name in [*values, *(f"algo.{name}" for name in algo)]:
            every = [*top, *(f"algo.{field}" for field in inside)]
            if name not in every:
                # A hyperparameter at the top is most likely meant for the table.
                near = [f"algo.{name}"] if name in inside else nearest(name, every)
                raise UserError(f"there is no field {shown(name)}; nearest: {', '.join(near)}.")
        return typed(RunConfig, _with_none(RunConfig, values)) | typed(cls, _with_none(cls, algo))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _with_none(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """With None where a field that may be None has the word for it, as TOML has no such value."""
    return {name: None if value == _NONE and may_be_none(cls, name) else value for name, value in values.items()}


def _content(path: Path) -> dict[str, Any]:
    try:
        data = schema.read_bytes(path)
    except FileNotFoundError:
        raise UserError(f"There is no file {path}; give a TOML file, a run's config.json or a run folder.") from None
    if path.suffix == ".json":
        return schema.decode(data, dict[str, Any], path)
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, or a number with thousands of digits
        raise UserError(f"{path} is not TOML: {str(error).rstrip('.')}.") from None


def to_toml(config: RunConfig) -> str:
    """A configuration as TOML that `read` takes, every value with its source beside it."""
    found = sources(config)
    rows = [(name, getattr(config, name), found[name]) for name in ("task", "algorithm", "preset", *RUN_FIELDS)]
    lines = [_line(*row) for row in rows]
    algo = [(f.name, getattr(config.algo, f.name), found[f.name]) for f in dataclasses.fields(config.algo)]
    return "\n".join([*lines, "", "[algo]", *(_line(*row) for row in algo)]) + "\n"


def _line(name: str, value: Any, source: str) -> str:
    value = _NONE if value is None else value
    text = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # which TOML does not allow
    return f"{name} = {text}  # {' '.join(source.split())}"
