"""Call a function on a user's env in a process of its own, so that its code never runs in the learner's.

The process may print (to standard error), change its working directory, parse a command line, end, or hang: here only
an answer in JSON arrives, or one sentence. Started by `call`, never by hand.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pkgutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omad import processes, schema
from omad.envs.patience import PROGRESS, allowed_s
from omad.errors import UserError

_MOST = 1 << 26
_POLL_S = 0.02


def call(
    task: str,
    function: str,
    arguments: Mapping[str, Any],
    timeout_s: float,
    then_s: float = math.inf,
    environment: Mapping[str, str] | None = None,
    what: str = "making the env and its first reset",
    advice: str = "it hangs, or the --env-timeout of omad train is too short",
) -> dict[str, Any]:
    """Call one of omad's functions, `module:function`, in a process in which a user's code may run.

    Args:
        task: For messages.
        function: Takes keyword arguments of plain values and gives a dict of plain values.
        arguments: These.
        timeout_s: How long it may take, or how long until its first `progress`.
        then_s: How long it may take after each `progress`.
        environment: Variables set for it.
        what: What takes the time before the first `progress`, for the message that it took too long.
        advice: What may be wrong then, or be done.

    Raises:
        UserError: The function refused, the process ended, or it took too long.
    """
    paths = os.pathsep.join(str(Path(path).absolute()) for path in sys.path)
    marked = {processes.WORKER: "1", "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", "JAX_PLATFORMS": "cpu"}
    with tempfile.TemporaryDirectory(prefix="omad-isolated-") as folder:
        answer, doing = Path(folder) / "answer.json", Path(folder) / "progress"
        doing.write_text(what, encoding="utf-8")
        words = [sys.executable, "-m", "omad.envs.isolated", str(answer)]
        request = json.dumps({"function": function, "arguments": dict(arguments)}).encode() + b"\n"
        printed = processes.descriptor(sys.stderr)
        with processes.blocked():
            child = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL if printed is None else printed,
                start_new_session=True, env={**os.environ, **marked, PROGRESS: str(doing), **(environment or {})},
            )  # fmt: skip
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(request)
            child.stdin.flush()
        try:
            patience = processes.Patience(timeout_s, _POLL_S)  # a stopped process counts no time
            while not answer.exists() and child.poll() is None:
                if not patience.slice_s:
                    raise UserError(f"{task}: {what} took longer than {timeout_s:g} s; {advice}.")
                time.sleep(patience.slice_s)
                patience.spend()
                if (now := doing.read_text(encoding="utf-8")) not in (what, ""):
                    what, timeout_s = now, then_s
                    patience = processes.Patience(timeout_s, _POLL_S)
        finally:
            # It still lives where it has answered, so that all that the env has started can be found.
            processes.end_family(child.pid, processes.descendants(child.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5.0)
            with contextlib.suppress(OSError):
                child.stdin.close()
        try:
            result = schema.read_json(answer, dict[str, Any], _MOST)
        except FileNotFoundError:
            code = child.returncode
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise UserError(f"{task}: the process that made the env {how} before it could answer.") from None
    if "refused" in result:
        raise UserError(str(result["refused"]))
    return result


def apart(task: str, function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """As `call`, for as long as `waiting` says; in this process where it is one in which a user's code runs anyway."""
    if os.environ.get(processes.WORKER) is None:
        return call(task, function, arguments, allowed_s())
    return pkgutil.resolve_name(function)(**arguments)


def main() -> None:
    """Run the request on standard input and write its result to the file that is named."""
    answer = Path(sys.argv[1])
    request = json.loads(sys.stdin.buffer.readline())
    sys.argv = sys.argv[:1]
    try:
        result = pkgutil.resolve_name(request["function"])(**request["arguments"])
    except UserError as error:
        result = {"refused": str(error)}
    answer.with_suffix(".partial").write_text(json.dumps(schema.plain(result)), encoding="utf-8")
    answer.with_suffix(".partial").replace(answer)
    sys.stdin.buffer.read()  # until the process that asked ends this one, or is gone


if __name__ == "__main__":
    main()
