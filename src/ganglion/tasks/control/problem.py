"""What a problem's settings have in common, and the problems that other packages bring. No torch.

A package brings a problem by an entry point of the group `ganglion.plants`: the name is the
problem's kind, the value the class of its settings, `module:Class` (see docs/adding-a-plant.md).
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import sys
from collections.abc import Collection, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, ClassVar

from ganglion.core.settings import Settings, setting

if TYPE_CHECKING:
    from ganglion.tasks.control.plant import Plant

GROUP = "ganglion.plants"
_LOG = logging.getLogger(__name__)


class ProblemSettings(Settings):
    """What every problem has: the horizon and where cases start."""

    num_steps: int = setting(
        15, "Controls in a whole task. dt = horizon_s / num_steps everywhere: data, training and "
        "evaluation.", ge=1, le=1_000,
    )  # fmt: skip
    horizon_s: float = setting(
        5.0, "Length of a whole task. Change it with num_steps to keep dt.", unit="s", gt=0.0,
        le=1_000.0,
    )  # fmt: skip
    start_scale: float = setting(
        1.0, "Factor on the problem's box of initial states. Raise it to train for larger "
        "deviations.", gt=0.0, le=10.0,
    )  # fmt: skip

    # What presets of this problem say otherwise, as in a settings file; for installed problems.
    recipe: ClassVar[Mapping[str, Any]] = {}

    @property
    def dt(self) -> float:
        """Time step in s."""
        return self.horizon_s / self.num_steps

    def plant(self) -> Plant:
        """Return the plant as modelled."""
        raise NotImplementedError

    def source(self) -> str | None:
        """Return the SHA-256 of the file that an installed problem's settings are in, else None.

        It enters the digest of the data, as a change of that file may change the optimum.
        """
        if getattr(self, "kind", None) not in _FOUND:
            return None
        text = inspect.getsource(sys.modules[type(self).__module__])
        return hashlib.sha256(text.encode()).hexdigest()


_FOUND: dict[str, type[ProblemSettings]] = {}


def installed(taken: Collection[str]) -> Mapping[str, type[ProblemSettings]]:
    """Return kind -> settings of each installed problem; one that is no good is told and left out.

    taken are the kinds that no package can bring.
    """
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        try:
            _FOUND[entry.name] = _load(entry, taken)
        except Exception as problem:  # noqa: BLE001 - code of others; the rest has to go on
            reason = f"{type(problem).__name__}: {problem}"
            _LOG.warning("The installed plant %r is left out (%s).", entry.name, reason)
    return _FOUND


def _load(entry: EntryPoint, taken: Collection[str]) -> type[ProblemSettings]:
    found = entry.load()
    if not (isinstance(found, type) and issubclass(found, ProblemSettings)):
        raise TypeError(f"{entry.value} is no class of ProblemSettings")
    kind = found.model_fields["kind"].default if "kind" in found.model_fields else None
    if kind != entry.name:
        raise ValueError(f"its kind is {kind!r}; expected that of the entry point")
    if kind in taken:
        raise ValueError("a built-in problem has that kind")
    found.model_validate({}).plant()  # what cannot even be built is told here
    return found
