"""The one generic export: a module and its signature become one self-contained ONNX file."""

from __future__ import annotations

import copy
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from ganglion.core.contracts import Arrays, Signature
from ganglion.core.errors import DataError, ExportError, GanglionError, OutputError, SettingsError
from ganglion.core.seeds import rng
from ganglion.export.graph import finish
from ganglion.export.inputs import batch_of, check, check_outputs, draw
from ganglion.export.inspection import Limits
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.export.parity import LIMIT, Parity, parity
from ganglion.export.precision import Precision, convert
from ganglion.export.sealing import CARD, MADE, SIGNATURE, seal
from ganglion.train.policy import TorchPolicy, call


@dataclass(frozen=True)
class Checks:
    """How the file is compared with the module before it is put in place.

    rows is how many inputs are asked (0: none). sizes are the sizes tried for each named axis.
    limit is the largest gap allowed in fp32; fp16 and int8 are measured, and refused above
    `lossy_limit` only.
    """

    rows: int = 1000
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    cases: Arrays | None = None
    limit: float = LIMIT
    lossy_limit: float = float("inf")


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    digest: str
    file_bytes: int
    parameters: int
    precision: Precision
    parity: Parity | None


def export(
    module: nn.Module,
    signature: Signature,
    path: Path | str,
    card: Mapping[str, Any],
    example: Arrays | None = None,
    *,
    opset: int = 20,
    precision: Precision = "fp32",
    checks: Checks | None = None,
) -> Exported:
    """Export `module` (called as `TorchPolicy` calls it) to `path`, checked and in one piece.

    The batch and the named axes stay open. `torch._higher_order_ops.while_loop` becomes a Loop,
    whose trips are bounded by `inspection.Limits`; a module that takes several of the steps it is
    asked for in one trip says so in an attribute `steps_per_trip`. example are inputs to trace
    with, of two rows or more and named axes of two or more; drawn where None. card is any JSON
    object. The bytes depend on nothing but the arguments and the library versions. Raises
    ExportError where the module cannot be exported or the file answers otherwise than the module,
    SettingsError where signature or card are not fit for a file, OutputError where `path` cannot
    be written.
    """
    checks = checks or Checks()
    _check_signature(signature, int(getattr(module, "steps_per_trip", 1)))
    module = copy.deepcopy(module).cpu().eval()
    inputs = _example(signature, example)
    with torch.random.fork_rng(devices=[]), _quiet():
        _check_answer(module, signature, inputs)
        model = finish(_trace(module, signature, inputs, opset), signature)
        model = finish(convert(model, precision), signature)
    made: dict[str, Any] = {
        "format": 1,
        "precision": precision,
        "opset": opset,
        "parameters": sum(p.numel() for p in module.parameters()),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
    }
    measured = None
    if checks.rows:
        policy = _load(_write(model, signature, card, made))
        measured = parity(
            TorchPolicy(module, signature),
            policy,
            checks.rows,
            rng(0, "parity"),
            sizes=checks.sizes,
            cases=checks.cases,
            limit=checks.limit if precision == "fp32" else checks.lossy_limit,
            steps=card.get("steps"),
        )
        made["parity"] = asdict(measured)
    data = _write(model, signature, card, made)
    inspection = _load(data).inspection
    _replace(Path(path), data)
    return Exported(
        Path(path), inspection.digest, len(data), inspection.parameters, precision, measured
    )


class _Positional(nn.Module):
    """`module` as a function of tensors in signature order to tensors in signature order."""

    def __init__(self, module: nn.Module, signature: Signature) -> None:
        super().__init__()
        self.module = module
        self.signature = signature

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        named = dict(zip(self.signature.inputs, tensors, strict=True))
        outputs = call(self.module, self.signature, named)
        # A copy where an output is an input or another output, so that each keeps its own name.
        seen: list[Tensor] = list(tensors)
        for name, tensor in outputs.items():
            outputs[name] = tensor.clone() if any(tensor is other for other in seen) else tensor
            seen.append(outputs[name])
        return tuple(outputs.values())


def _check_signature(signature: Signature, steps_per_trip: int) -> None:
    clash = signature.inputs.keys() & signature.outputs.keys()
    if clash:
        raise SettingsError(f"{min(clash)!r} names an input and an output; rename one of them.")
    most = Limits().trips * steps_per_trip
    for name, spec in signature.inputs.items():
        if spec.role == "steps" and spec.high is None:
            raise SettingsError(f"Input {name!r} is a number of steps; declare its high.")
        if spec.role == "steps" and spec.high is not None and spec.high > most:
            raise SettingsError(
                f"Input {name!r} may be {spec.high:.0f}; "
                f"a Loop takes at most {Limits().trips} trips."
            )
    for output, name in signature.carried.items():
        if output not in signature.outputs or name not in signature.inputs:
            raise SettingsError(f"The signature carries {output!r} to {name!r}; one is unknown.")


def _example(signature: Signature, example: Arrays | None) -> Arrays:
    if example is not None:
        return check(example, signature, ranges=False)
    # No two sizes are equal, so that the tracer sees no equality that is not there.
    named = sorted({a for s in signature.inputs.values() for a in s.shape if isinstance(a, str)})
    sizes = {axis: 5 + 2 * index for index, axis in enumerate(named)}
    return draw(signature, 3, rng(0, "example"), sizes)


def _check_answer(module: nn.Module, signature: Signature, inputs: Arrays) -> None:
    """Ask the module itself first: what it says about its own fault is clearer than the tracer."""
    try:
        outputs = TorchPolicy(module, signature).act(inputs)
    except GanglionError:
        raise
    except Exception as problem:
        raise ExportError(
            f"The module fails on an example of its inputs: {_reason(problem)}"
        ) from problem
    try:
        check_outputs(outputs, signature, batch_of(inputs, signature), finite=False)
    except DataError as problem:
        raise ExportError(f"The module does not do what its signature says. {problem}") from None


def _trace(module: nn.Module, signature: Signature, example: Arrays, opset: int) -> onnx.ModelProto:
    dynamic = torch.export.Dim.DYNAMIC
    shapes = []
    for spec in signature.inputs.values():
        axes = ("batch", *spec.shape) if spec.batched else spec.shape
        shapes.append({i: dynamic for i, axis in enumerate(axes) if isinstance(axis, str)})
    tensors = tuple(torch.from_numpy(example[name].copy()) for name in signature.inputs)
    try:
        program = torch.onnx.export(
            _Positional(module, signature),
            tensors,
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=(tuple(shapes),),
            input_names=list(signature.inputs),
            output_names=list(signature.outputs),
            optimize=True,
            verbose=False,
        )
    except Exception as problem:
        # The exporter raises anything; all of it is told.
        raise ExportError(f"The policy cannot be exported to ONNX: {_reason(problem)}") from problem
    if program is None:
        raise ExportError("The policy cannot be exported to ONNX: the exporter gave no program.")
    return program.model_proto


def _reason(problem: BaseException) -> str:
    """Return the innermost cause in one line."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    text = " ".join(str(problem).split()) or "no reason given"
    return f"{type(problem).__name__}: {text[:400].rstrip('.:')}."


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's progress, advice and deprecation warnings; errors are raised."""
    loggers = [logging.getLogger(n) for n in ("torch", "torch.onnx", "torch.export", "onnxscript")]
    loggers += [
        logging.getLogger(name)
        for name in list(logging.root.manager.loggerDict)
        if name.startswith(("torch.onnx", "torch.export", "torch._dynamo", "onnxscript", "onnx_ir"))
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _load(data: bytes) -> OnnxPolicy:
    try:
        return OnnxPolicy(data)
    except DataError as problem:
        raise ExportError(
            f"The policy was exported, but its file would be refused. {problem} "
            "(Random numbers must be inputs: roles normal and uniform.)"
        ) from None


def _write(
    model: onnx.ModelProto, signature: Signature, card: Mapping[str, Any], made: Mapping[str, Any]
) -> bytes:
    del model.metadata_props[:]
    for key, value in ((SIGNATURE, signature.to_json()), (CARD, dict(card)), (MADE, made)):
        try:
            text = json.dumps(value, sort_keys=key != SIGNATURE, allow_nan=False)
        except (TypeError, ValueError) as problem:
            raise SettingsError(f"{key!r} cannot be written as JSON: {problem}.") from None
        model.metadata_props.add(key=key, value=text)
    return seal(model)


def _replace(path: Path, data: bytes) -> None:
    """Write beside `path`, sync and rename: whoever reads sees the old file or the new one."""
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"
        )
        with os.fdopen(handle, "wb") as file:  # mkstemp makes it 0600
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as problem:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)
        raise OutputError(f"{path} cannot be written: {problem.strerror or problem}.") from None
