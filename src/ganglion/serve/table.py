"""Which policy answers which request: by name, by share, and what takes over from what."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from ganglion.core.errors import SettingsError, unknown
from ganglion.serve.batching import Batcher
from ganglion.serve.metrics import SECONDS, Histogram, Metrics, labels
from ganglion.serve.models import Model
from ganglion.serve.problems import Headers, Problem
from ganglion.serve.reading import Reader
from ganglion.serve.settings import Limits, OutOfRange

DIGEST = b"ganglion-digest"


@dataclass(frozen=True)
class Served:
    """A model with its queue. headers go into every answer that is about it."""

    model: Model
    reader: Reader
    batcher: Batcher
    headers: Headers
    seconds: Histogram


class Table:
    """The models that are served now; replacing one is one assignment."""

    def __init__(
        self,
        limits: Limits,
        metrics: Metrics,
        out_of_range: OutOfRange = "refuse",
        split: tuple[int, ...] = (),
        alike: bool = False,
    ) -> None:
        self._limits, self._metrics, self._out_of_range = limits, metrics, out_of_range
        self._served: dict[str, Served] = {}
        self._shares = split
        self.alike = alike  # all policies must take and give the same
        self._first = ""

    def put(self, model: Model) -> None:
        """Serve `model` from now on; requests that wait for its older version still get that."""
        old = self._served.get(model.name)
        made = Served(
            model,
            reader := Reader(model, self._out_of_range),
            Batcher(model, reader, self._limits, self._metrics),
            [
                (DIGEST, f"sha256:{model.digest}".encode()),
                (b"ganglion-policy", f"{model.name}@{model.version}".encode()),
            ],
            self._metrics.histogram(
                "ganglion_request_seconds", labels(policy=model.name), SECONDS
            ),
        )  # fmt: skip
        self._served[model.name] = made
        self._first = self._first or model.name
        if old is not None:
            self._metrics.drop("ganglion_model_info", ("policy", model.name))
        info = labels(policy=model.name, version=model.version, digest=model.digest)
        self._metrics.set("ganglion_model_info", 1.0, info)

    @property
    def served(self) -> Mapping[str, Served]:
        """Return what is served, by name."""
        return self._served

    @property
    def first(self) -> Served:
        """Return the policy that answers where nothing else is said."""
        return self._served[self._first]

    @property
    def shared(self) -> bool:
        """Tell whether several policies share the requests that name none."""
        return bool(self._shares)

    @property
    def waiting(self) -> int:
        """Return how many requests wait for a run."""
        return sum(served.batcher.waiting for served in self._served.values())

    def route(self, request_id: str) -> Served:
        """Return the policy of a request that names none: its share follows from the id."""
        if not self._shares:
            return self.first
        place = zlib.crc32(request_id.encode(errors="replace")) % sum(self._shares)
        for served, share in zip(self._served.values(), self._shares, strict=True):
            place -= share
            if place < 0:
                return served
        raise SettingsError("The shares of a split must be positive.")

    def named(self, name: str, version: str | None = None) -> Served:
        """Return a policy by name; a Problem with status 404 names the nearest."""
        served = self._served.get(name)
        if served is None:
            raise Problem(404, "no_model", unknown("policy", name[:100], self._served))
        if version is not None and version != served.model.version:
            raise Problem(
                404, "no_version",
                f"Policy {name!r} is served in version {served.model.version!r}, "
                f"not {version[:100]!r}.", served.headers,
            )  # fmt: skip
        return served


def same_ends(models: Mapping[str, Model]) -> None:
    """Raise SettingsError unless all models take and give the same."""
    (first, one), *rest = models.items()
    for name, other in rest:
        if (one.signature.inputs, one.signature.outputs) != (
            other.signature.inputs, other.signature.outputs,
        ):  # fmt: skip
            raise SettingsError(
                f"{first} and {name} do not take and give the same, so that neither can answer "
                "for the other."
            )
