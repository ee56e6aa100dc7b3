"""Online multi-agent reinforcement learning with diffusion policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_policy", "resume", "train"]

if TYPE_CHECKING:
    from omad.api import load_policy, resume, train


def __getattr__(name: str) -> Any:
    """Import the interface on first use, so that `import omad` stays light."""
    if name in __all__:
        from omad import api

        return getattr(api, name)
    raise AttributeError(f"module 'omad' has no attribute {name!r}")
