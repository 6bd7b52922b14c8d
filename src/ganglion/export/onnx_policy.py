"""An exported file as a policy. Needs ONNX Runtime and NumPy, never torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ganglion.core.contracts import Array, Arrays, Signature
from ganglion.core.errors import DataError
from ganglion.export.inputs import check
from ganglion.export.inspection import Inspection, Limits, inspect_bytes, read


class StoppedError(DataError):
    """A run that was ended from outside, as it took too long."""


class OnnxPolicy:
    """One exported policy, run by ONNX Runtime on one thread.

    source is a file or its bytes; it is read once, inspected (`inspection.inspect`) and only then
    given to ONNX Runtime. digest, where given, is the SHA-256 that the file must have. Raises
    DataError with one sentence where the file is not in order.
    """

    def __init__(
        self,
        source: Path | str | bytes,
        *,
        digest: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        data, name = read(source, limits)
        inspection = inspect_bytes(data, name, limits)
        if digest is not None and digest != inspection.digest:
            raise DataError(f"{name} has digest {inspection.digest}; expected {digest}.")
        self.path = None if isinstance(source, bytes) else Path(source)
        self._load(data, name, inspection)

    @classmethod
    def inspected(cls, data: bytes, name: str, inspection: Inspection) -> OnnxPolicy:
        """Load bytes that were inspected elsewhere, e.g. by a child process with limits."""
        if hashlib.sha256(data).hexdigest() != inspection.digest:
            raise DataError(f"{name} is not the file that was inspected.")
        policy = cls.__new__(cls)
        policy.path = None
        policy._load(data, name, inspection)
        return policy

    def _load(self, data: bytes, name: str, inspection: Inspection) -> None:
        self.inspection = inspection
        self.session = _session(data, name)
        self._outputs = list(inspection.signature.outputs)

    @property
    def signature(self) -> Signature:
        return self.inspection.signature

    @property
    def card(self) -> Mapping[str, Any]:
        """The policy card that was given at export."""
        return self.inspection.card

    @property
    def digest(self) -> str:
        """SHA-256 of the file."""
        return self.inspection.digest

    @property
    def precision(self) -> str:
        """How the weights are stored: "fp32", "fp16" or "int8"."""
        return str(self.inspection.made.get("precision", "fp32"))

    def act(self, inputs: Arrays) -> dict[str, Array]:
        """Answer one batch. Declared ranges are left to the server (`inputs.check`), but for steps.

        Numbers of steps may be left out where the policy card has them. Raises SettingsError where
        the inputs do not fit the signature.
        """
        known: Mapping[str, Any] = self.card.get("steps") or {}
        left_out = {
            name: np.array([known[name]])
            for name, spec in self.signature.inputs.items()
            if spec.role == "steps" and name not in inputs and name in known
        }
        return self.run(check({**inputs, **left_out}, self.signature, ranges=False))

    def run(self, feeds: dict[str, Array], options: Any = None) -> dict[str, Array]:
        """Answer a batch that was checked before: the raw run, nothing around it.

        options are ONNX Runtime's; setting their `terminate` from another thread ends the run.
        """
        try:
            answers = self.session.run(self._outputs, feeds, options)
        except _Failures as problem:
            if options is not None and options.terminate:
                raise StoppedError("The policy was stopped.") from None
            raise DataError(f"The exported policy failed on this input: {_line(problem)}") from None
        return dict(zip(self._outputs, answers, strict=True))


_state: Any = onnxruntime.capi.onnxruntime_pybind11_state
_Failures: tuple[type[Exception], ...] = tuple(
    kind for kind in vars(_state).values() if isinstance(kind, type) and issubclass(kind, Exception)
)


def _session(data: bytes, name: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except _Failures as problem:
        raise DataError(f"{name} cannot be loaded by ONNX Runtime: {_line(problem)}") from None


def _line(problem: Exception) -> str:
    """Return ONNX Runtime's reason in one line, ended by a full stop."""
    text = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
    return f"{text.removeprefix('[ONNXRuntimeError] : ')[:300].rstrip('.')}."
