"""Options that every command has which computes with JAX."""

from __future__ import annotations

import dataclasses

import tyro

from omad.compilation import use_compilation_cache
from omad.device import use_device


@dataclasses.dataclass(frozen=True)
class Computing:
    """Where JAX computes, and what it keeps."""

    device: str | None = None
    """Device that JAX computes on: cpu, gpu, cuda, rocm or tpu; by default what JAX chooses."""
    compilation_cache: bool = True
    """Keep compiled programs in the user's cache folder for the next start."""

    def prepare(self) -> None:
        """Make it so, before anything is computed.

        Raises:
            UserError: There is no such device.
        """
        use_device(self.device)
        use_compilation_cache(self.compilation_cache)


ComputingFlags = tyro.conf.OmitArgPrefixes[Computing]
"""As a field of a command's options, the last one."""
ANYWHERE = Computing()
"""Its default."""
