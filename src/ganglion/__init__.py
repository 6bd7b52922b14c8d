"""Train small policies for robots and prove what they are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ganglion.pipeline import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import `load` when it is asked for, so that `import ganglion` stays light."""
    if name == "load":
        from ganglion.pipeline import load

        return load
    raise AttributeError(f"module 'ganglion' has no attribute {name!r}")
