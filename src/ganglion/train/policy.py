"""A torch module as a policy: NumPy arrays in and out, nothing else changed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ganglion.core.contracts import Array, Arrays, Signature, TensorSpec
from ganglion.core.errors import SettingsError, unknown


class TorchPolicy:
    """The deployed form of a net, `module`, scored and exported like every other policy.

    The module's forward takes one tensor per input of `signature`: by keyword where the names of
    its parameters are the names of the inputs, else by position in the signature's order. It gives
    a tensor (one output), a sequence in the signature's order, or a mapping by name. Batched
    arrays are (B, *shape); an input with `batched=False` is passed as it is, (*shape). `steps` are
    the numbers of steps that a caller may leave out, by the names of their inputs.
    """

    def __init__(
        self, module: nn.Module, signature: Signature, device: str | torch.device = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self.module = module.to(self.device)
        self.steps: Mapping[str, int] = {}
        self._signature = signature

    @property
    def signature(self) -> Signature:
        return self._signature

    def act(self, inputs: Arrays) -> dict[str, Array]:
        """Answer one batch in evaluation mode; the modes of the module are put back afterwards.

        Raises SettingsError where names, ranks or sizes do not fit the signature.
        """
        known = {k: np.array([v]) for k, v in self.steps.items() if k in self._signature.inputs}
        arrays = _checked({**known, **inputs}, self._signature)
        training = [part for part in self.module.modules() if part.training]
        self.module.eval()
        try:
            with torch.inference_mode():
                tensors = {k: torch.from_numpy(a).to(self.device) for k, a in arrays.items()}
                outputs = call(self.module, self._signature, tensors)
        finally:
            for part in training:
                part.training = True
        return {name: tensor.cpu().numpy() for name, tensor in outputs.items()}


def call(
    module: nn.Module, signature: Signature, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Call `module` as `TorchPolicy` says; returns the outputs by name, in signature order.

    They have the declared dtypes (int64 to int32 is cast, a float to an integer is not). Raises
    SettingsError where the module gives other outputs than the signature declares.
    """
    names = list(signature.inputs)
    parameters = inspect.signature(module.forward).parameters
    if all(name in parameters for name in names):
        raw: Any = module(**{name: tensors[name] for name in names})
    else:
        raw = module(*(tensors[name] for name in names))
    outputs = _named(raw, list(signature.outputs))
    return {name: _typed(name, outputs[name], spec) for name, spec in signature.outputs.items()}


def _named(raw: Any, names: list[str]) -> dict[str, Tensor]:
    if isinstance(raw, Mapping):
        if set(raw) != set(names):
            raise SettingsError(
                f"The module gives {', '.join(sorted(raw))}; its signature says {', '.join(names)}."
            )
        return {name: raw[name] for name in names}
    parts = list(raw) if isinstance(raw, Sequence) else [raw]
    if len(parts) != len(names):
        raise SettingsError(
            f"The module gives {len(parts)} outputs; its signature names {len(names)}: "
            f"{', '.join(names)}."
        )
    return dict(zip(names, parts, strict=True))


def _typed(name: str, tensor: Tensor, spec: TensorSpec) -> Tensor:
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if tensor.is_floating_point() != dtype.is_floating_point:
        raise SettingsError(
            f"Output {name!r} of the module holds {str(tensor.dtype).removeprefix('torch.')}; "
            f"its signature says {spec.dtype}."
        )
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def _checked(inputs: Arrays, signature: Signature) -> dict[str, Array]:
    """Return contiguous, writable arrays of the declared dtypes, in signature order."""
    for name in inputs:
        if name not in signature.inputs:
            raise SettingsError(unknown("input", name, signature.inputs))
    sizes: dict[str, int] = {}
    arrays = {}
    for name, spec in signature.inputs.items():
        if name not in inputs:
            raise SettingsError(
                f"Input {name!r} is missing; this policy takes {', '.join(signature.inputs)}."
            )
        array = np.require(inputs[name], dtype=spec.dtype, requirements=["C", "W"])
        if array.ndim == 0 and spec.role == "steps" and spec.shape == (1,) and not spec.batched:
            array = array[None]
        _fit(name, array, spec, sizes)
        arrays[name] = array
    return arrays


def _fit(name: str, array: Array, spec: TensorSpec, sizes: dict[str, int]) -> None:
    axes = ("batch", *spec.shape) if spec.batched else spec.shape
    fits = array.ndim == len(axes) and all(
        size == (sizes.setdefault(axis, size) if isinstance(axis, str) else axis)
        for axis, size in zip(axes, array.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(
            f"{axis}={sizes[axis]}" if isinstance(axis, str) and axis in sizes else str(axis)
            for axis in axes
        )
        raise SettingsError(f"Input {name!r} has shape {array.shape}; expected ({wanted}).")
