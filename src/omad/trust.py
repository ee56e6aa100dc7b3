"""What a run folder may ask for: its own env, as it was, and no code that the user does not trust."""

from __future__ import annotations

from pathlib import Path

from omad import tasks
from omad.errors import UserError
from omad.run.folder import RunFolder
from omad.spec import EnvSpec

_TRUST = "give --trust (trust=True in Python), or name the task yourself where --task is offered"


def refuse_foreign(task: str, path: Path, trust: bool, remedy: str = _TRUST) -> None:
    """A folder may name a user's env; its code is imported only if the user says so, by the remedy.

    Raises:
        UserError: It names one, and the user has not said so.
    """
    if (code := tasks.find(task).code) and not trust:
        raise UserError(
            f"{path} names an env of its own: the module {code.partition(':')[0]} would be imported and "
            f"{code.partition(':')[2]} called. If you trust it, {remedy}."
        )


def refuse_changed(run: RunFolder, spec: EnvSpec) -> None:
    """A run is resumed only in the env that it began in.

    Raises:
        UserError: Agents, sizes or bounds are not those of the manifest.
    """
    if changed := run.spec.differences(spec):
        raise UserError(
            f"{spec.name} is not what it was when {run.path} began: {'; '.join(changed)}. Restore the env, or start a "
            "new run."
        )
