"""Physics on a CUDA device by MuJoCo Warp, behind the same interface as `physics.RolloutPhysics`.

Needs the package mujoco-warp; it is imported here only. Tested on Warp's CPU device, where it moves
as the C engine does; not run on CUDA yet. A control step is one captured graph there; coordinates
are torch views of the simulator's own memory. On CUDA resuming is not bit-exact: kernels sum in no
fixed order.
"""

from __future__ import annotations

from typing import Any

import mujoco

from ganglion.core.errors import ServiceError
from ganglion.tasks.motion.physics import Rates, World, varied
from ganglion.tasks.motion.robot import Robot

_KEPT = ("qpos", "qvel", "act", "qacc_warmstart", "time")


class WarpPhysics:
    """`count` robots in one simulation; a `Physics` whose arrays are torch tensors on `device`."""

    def __init__(self, robot: Robot, count: int, rates: Rates, device: str) -> None:
        try:
            import mujoco_warp
            import warp
        except ImportError as error:
            raise ServiceError(
                "physics.backend=warp needs the package mujoco-warp and a CUDA device (pip install "
                "mujoco-warp); physics.backend=rollout needs neither."
            ) from error
        self._warp, self._engine = warp, mujoco_warp
        model = varied(robot, rates, World(), sensing=False)
        model.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)  # unknown there
        with warp.ScopedDevice(device):
            self._model = mujoco_warp.put_model(model)
            self._data = mujoco_warp.make_data(model, nworld=count)
            self._views = {n: warp.to_torch(getattr(self._data, n)) for n in _KEPT}
            self._ctrl = warp.to_torch(self._data.ctrl)
            self._graph = self._captured(rates.substeps)
        self._device = device

    def _captured(self, substeps: int) -> Any:
        """Return the graph of one control step; None on a device that captures none."""
        if not self._warp.get_device().is_cuda:
            self._substeps = substeps
            return None
        with self._warp.ScopedCapture() as capture:
            for _ in range(substeps):
                self._engine.step(self._model, self._data)
        return capture.graph

    @property
    def qpos(self) -> Any:
        return self._views["qpos"]

    @property
    def qvel(self) -> Any:
        return self._views["qvel"]

    def reset(self, ids: Any, qpos: Any, qvel: Any) -> None:
        import torch

        rows = torch.as_tensor(ids, device=self.qpos.device)
        for name, view in self._views.items():
            if view.numel() and name not in ("qpos", "qvel"):
                view[rows] = 0.0
        for name, values in (("qpos", qpos), ("qvel", qvel)):
            view = self._views[name]
            view[rows] = torch.as_tensor(values, dtype=view.dtype, device=view.device)

    def step(self, ctrl: Any) -> None:
        import torch

        self._ctrl.copy_(torch.as_tensor(ctrl))
        with self._warp.ScopedDevice(self._device):
            if self._graph is not None:
                self._warp.capture_launch(self._graph)
                return
            for _ in range(self._substeps):
                self._engine.step(self._model, self._data)

    def state(self) -> dict[str, Any]:
        return {name: view.clone() for name, view in self._views.items()}

    def set_state(self, state: dict[str, Any]) -> None:
        for name, view in self._views.items():
            view.copy_(state[name])
