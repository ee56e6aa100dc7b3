"""What all tests share: shapes are checked at run time, a key used twice is an error."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import itertools
import os
import shutil
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping


def modules_with_shapes() -> list[str]:
    """Those whose annotations name shapes of arrays; the types of all others are left to pyright."""
    source = Path(__file__).parents[1] / "src"
    found = (path for path in sorted((source / "omad").rglob("*.py")) if "jaxtyping" in path.read_text("utf-8"))
    return [".".join(path.relative_to(source).with_suffix("").parts) for path in found]


# Before anything of `omad` is imported: every annotated function of theirs checks its arguments and its result. With
# the rest, as in `make test-slow`, presets take thirty times as long to resolve.
jaxtyping.install_import_hook(
    os.environ.get("CHECKED_MODULES", "").split() or modules_with_shapes(), "beartype.beartype"
)
os.environ["MPLBACKEND"] = "Agg"
# Compiling is most of the time of most tests. Code of the lowest optimisation level, by the older emitters of fused
# loops and in one piece, is several times faster to make. The processes that tests start take over the same flags.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1",
)

# Processes that tests start must not inherit that signals are ignored, as in a job of a script or under nohup.
with contextlib.suppress(ValueError):  # not in the main thread
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def programs_of_earlier_runs(folder: Path, most_bytes: int = 1 << 30) -> Path:
    """Without those that a killed process has left half written; with none once they take too much room."""
    size = 0
    for entry in folder.glob("*-cache"):
        data = entry.read_bytes()
        size += len(data)
        try:
            zlib.decompress(data)
        except zlib.error:
            entry.unlink()
    if size > most_bytes:
        shutil.rmtree(folder)
    return folder


# What one test has compiled, others, the processes they start and later test runs need not compile again.
if "PYTEST_XDIST_WORKER" not in os.environ:
    programs = Path(__file__).parents[1] / ".pytest_cache" / "jax"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(programs_of_earlier_runs(programs))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # to read the smallest is twice as quick as to make it

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402

jax.config.update("jax_debug_key_reuse", True)


def _share_contexts(programs: int = 500) -> None:
    """A context of the compiler for many programs: to make one takes longer than to lower a small program.

    It is a private name of JAX; where it is missing, each program has its own.
    """
    if make := getattr(mlir, "make_ir_context", None):
        count = itertools.count()
        of_block = functools.lru_cache(1)(lambda block: make())  # given up in time, for a context only grows
        mlir.make_ir_context = lambda: of_block(next(count) // programs)


_share_contexts()

hypothesis.settings.register_profile("omad", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("omad")


def pytest_collection_finish() -> None:
    """What is there now stays: the collector, which tracing keeps busy, need not look through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


COUNTS = (
    "preset", "seeds", "first_seed", "total_steps", "eval_every", "eval_seed", "log_every", "save_every",
    "keep_checkpoints", "keep_best", "init_from", "given",
)  # fmt: skip
"""Fields of a run that its programs do not depend on."""
OURS = ("probe/", "mpe/", "games/")


@pytest.fixture(scope="session", autouse=True)
def _programs_are_shared() -> Iterator[None]:
    """Runs of this process that differ only in how long they are or what they write share their compiled programs.

    Of this package's own tasks in JAX, whose parts hold no state. A patched `make_algorithm` gets its own programs.
    """
    from omad import experiment
    from omad.loop import build as building
    from omad.types import JaxEnv

    kept: dict[Any, building.Built] = {}

    def build(config: Any, env: Any, batch_seeds: bool | None = None) -> building.Built:
        if not isinstance(env, JaxEnv) or not config.task.startswith(OURS) or config.symmetry or config.demonstrations:
            return building.build(config, env, batch_seeds)
        fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in COUNTS}
        key = (repr(fields), config.updates_per_env_step, batch_seeds, building.make_algorithm, env.spec)
        if key not in kept:
            kept[key] = building.build(config, env, batch_seeds)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "build", build)
        yield
