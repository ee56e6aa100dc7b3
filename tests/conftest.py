"""What all tests share: shapes and types are checked at run time, a key used twice is an error."""

from __future__ import annotations

import os

import jaxtyping

# Before anything of `omad` is imported: every annotated function checks its arguments and its result.
jaxtyping.install_import_hook("omad", "beartype.beartype")
os.environ["MPLBACKEND"] = "Agg"
# Compiling is most of the time of most tests. Code of the lowest optimisation level is several times faster to make.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import hypothesis  # noqa: E402
import jax  # noqa: E402

jax.config.update("jax_enable_compilation_cache", False)
jax.config.update("jax_debug_key_reuse", True)

hypothesis.settings.register_profile("omad", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("omad")
