"""What all tests share: shapes and types are checked at run time, a key used twice is an error."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import tempfile

import jaxtyping

# Before anything of `omad` is imported: every annotated function checks its arguments and its result.
jaxtyping.install_import_hook("omad", "beartype.beartype")
os.environ["MPLBACKEND"] = "Agg"
# Compiling is most of the time of most tests. Code of the lowest optimisation level, and by the older emitters of fused
# loops, is several times faster to make.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false",
)

# Processes that tests start must not inherit that SIGINT is ignored, as in a job of a script.
with contextlib.suppress(ValueError):  # not in the main thread
    signal.signal(signal.SIGINT, signal.default_int_handler)
# What one test has compiled, others and the processes they start need not compile again; nothing is left behind.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="omad-tests-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

import hypothesis  # noqa: E402
import jax  # noqa: E402

jax.config.update("jax_debug_key_reuse", True)

hypothesis.settings.register_profile("omad", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("omad")
