"""Hot replacement: a new file, or a new version folder, takes over once it is verified and warm.

What is refused is named once, and the version before keeps answering.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ganglion.core.errors import DataError, GanglionError, SettingsError
from ganglion.serve.metrics import Metrics, labels
from ganglion.serve.models import Model, Stamp, load, stamp, versions
from ganglion.serve.settings import ProbeLimits
from ganglion.serve.table import Table, same_ends

Say = Callable[[str], None]


@dataclass
class Source:
    """Where a policy comes from, and what is known of its files."""

    name: str
    path: Path
    limits: ProbeLimits
    served: Stamp | None = None
    seen: dict[Path, Stamp] = field(default_factory=dict)
    refused: set[Stamp] = field(default_factory=set)

    def first(self, say: Say) -> Model:
        """Load the newest version that is in order; DataError where none is."""
        problem: DataError | None = None
        for path, version in versions(self.path):
            try:
                found = stamp(path)
                model = load(self.name, path, version, self.limits)
            except DataError as error:
                problem = problem or error
                self.refused |= {found} if path.exists() else set()
                continue
            if problem is not None:
                say(f"{problem} Version {model.version} is served instead.")
            self.served = found
            return model
        raise problem or DataError(f"{self.path} holds no policy.")

    def newer(self, forced: bool) -> list[tuple[Path, str | None, Stamp]]:
        """Return what may take over, best first.

        A file counts once it has stayed the same for two looks, or at once where `forced`.
        """
        found = []
        for path, version in versions(self.path):
            mark = stamp(path)
            if mark == self.served:
                break
            settled = self.seen.get(path) == mark
            self.seen[path] = mark
            if forced or (settled and mark not in self.refused):
                found.append((path, version, mark))
        return found


class Watcher:
    """Looks at the sources from time to time, and at once when it is kicked."""

    def __init__(self, sources: list[Source], table: Table, metrics: Metrics, say: Say) -> None:
        self._sources, self._table, self._metrics, self._say = sources, table, metrics, say
        self._kicked = asyncio.Event()
        self._told: dict[str, str] = {}

    def kick(self) -> None:
        """Look now."""
        self._kicked.set()

    async def run(self, every_s: float) -> None:
        """Look for ever."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._kicked.wait(), every_s)
            forced = self._kicked.is_set()
            self._kicked.clear()
            for source in self._sources:
                try:
                    await self._look(source, forced)
                except (DataError, SettingsError, OSError) as problem:
                    self._refuse(source, problem)

    async def _look(self, source: Source, forced: bool) -> None:
        for path, version, mark in source.newer(forced):
            try:
                model = await asyncio.to_thread(load, source.name, path, version, source.limits)
                self._replace(source, model)
            except GanglionError as problem:
                source.refused.add(mark)
                self._told.pop(source.name, None)
                self._refuse(source, problem)
                continue
            source.served = mark
            self._told.pop(source.name, None)
            return

    def _replace(self, source: Source, model: Model) -> None:
        old = self._table.named(source.name).model
        if (model.digest, model.version) == (old.digest, old.version):
            return
        others = {n: s.model for n, s in self._table.served.items() if n != source.name}
        if self._table.alike and others:
            same_ends({model.name: model, **others})
        self._table.put(model)
        self._metrics.add("ganglion_replacements_total", labels(policy=source.name))
        self._say(f"{source.name}: version {model.version} took over from {old.version}.")

    def _refuse(self, source: Source, problem: Exception) -> None:
        """Say what is wrong, once."""
        text = f"{problem} The version before keeps answering."
        if self._told.get(source.name) != text:
            self._told[source.name] = text
            self._metrics.add("ganglion_refusals_total", labels(policy=source.name))
            self._say(text)
