"""Physics of many robots at once behind one small interface.

`RolloutPhysics` steps MuJoCo's C engine on threads. Each control step starts its solver cold, so
that time, qpos, qvel and act are the whole integration state: what is saved and set again goes on
bit for bit, whatever the number of threads. `warp_physics` is the same on CUDA. Shapes: N robots.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import mujoco
import numpy as np
from mujoco.rollout import Rollout
from numpy.typing import NDArray

from ganglion.core.errors import SettingsError
from ganglion.tasks.motion.kinematics import Floats
from ganglion.tasks.motion.robot import Robot

_FULL = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)


class Physics(Protocol):
    """What tasks ask of a simulator. Arrays are NumPy on the CPU, torch tensors on a GPU."""

    @property
    def qpos(self) -> Any:
        """Generalised coordinates (N, nq); a view, may be written between steps."""
        ...

    @property
    def qvel(self) -> Any:
        """Generalised velocities (N, nv); a view, may be written between steps."""
        ...

    def reset(self, ids: Any, qpos: Any, qvel: Any) -> None:
        """Put robots `ids` (K,) into qpos (K, nq), qvel (K, nv), everything else as new."""
        ...

    def step(self, ctrl: Any) -> None:
        """Move all robots on by one control step with joint targets `ctrl` (N, A)."""
        ...

    def state(self) -> dict[str, Any]:
        """Return the full integration state."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Undo `state`, bit for bit."""
        ...


@dataclass(frozen=True)
class Rates:
    """Control rate in Hz, and physics steps per control step."""

    control_hz: float = 50.0
    substeps: int = 4

    @property
    def dt(self) -> float:
        """Seconds of a control step."""
        return 1.0 / self.control_hz


@dataclass(frozen=True)
class World:
    """How this world differs from the model: factors on friction and masses."""

    friction: float = 1.0
    mass: float = 1.0


class RolloutPhysics:
    """MuJoCo's C engine on `threads` threads (0: the calling one); a `Physics`.

    worlds gives each robot its own friction and masses (domain randomisation); one entry serves
    all. sensing keeps foot forces and torques of the last physics step.
    """

    def __init__(
        self,
        robot: Robot,
        count: int,
        rates: Rates,
        *,
        threads: int = 0,
        worlds: Sequence[World] = (World(),),
        sensing: bool = False,
    ) -> None:
        if len(worlds) not in (1, count):
            raise SettingsError(f"{len(worlds)} worlds were given for {count} robots.")
        self._models = [varied(robot, rates, world, sensing) for world in worlds]
        self._model = self._models[0]
        self._substeps = rates.substeps
        self._rollout = Rollout(nthread=threads)
        self._data = [mujoco.MjData(self._model) for _ in range(max(1, threads))]
        size = mujoco.mj_stateSize(self._model, _FULL)
        self._state = np.zeros((count, size))
        self._out = np.zeros((count, rates.substeps, size))
        self._sensed = np.zeros((count, rates.substeps, self._model.nsensordata))
        self._control = np.zeros((count, rates.substeps, self._model.nu))
        nq, nv = self._model.nq, self._model.nv
        self._at_qpos, self._at_qvel = slice(1, 1 + nq), slice(1 + nq, 1 + nq + nv)
        self._fresh = self._blank(robot)
        self._state[:] = self._fresh
        self._torque, self._force = _sensors(robot, self._model)

    def _blank(self, robot: Robot) -> Floats:
        data = mujoco.MjData(self._model)
        mujoco.mj_resetData(self._model, data)
        found = np.zeros(self._state.shape[1])
        mujoco.mj_getState(self._model, data, found, _FULL)
        return found

    @property
    def qpos(self) -> Floats:
        return self._state[:, self._at_qpos]

    @property
    def qvel(self) -> Floats:
        return self._state[:, self._at_qvel]

    def reset(self, ids: NDArray[Any], qpos: Floats, qvel: Floats) -> None:
        self._state[ids] = self._fresh
        self._state[ids, self._at_qpos] = qpos
        self._state[ids, self._at_qvel] = qvel

    def step(self, ctrl: Floats) -> None:
        self._control[:] = ctrl[:, None]
        models = self._models if len(self._models) > 1 else self._model
        self._rollout.rollout(
            models, self._data, self._state, self._control, state=self._out,
            sensordata=self._sensed,
        )  # fmt: skip
        self._state[:] = self._out[:, -1]

    @property
    def torque(self) -> Floats:
        """Torque (N, A) in N m of each actuator, 5 ms before now; zero without sensing."""
        return self._sensed[:, -1, self._torque]

    @property
    def foot_force(self) -> Floats:
        """Force (N, F) in N between each foot and what it touches; zero without sensing."""
        found: Floats = np.linalg.norm(self._sensed[:, -1, self._force], axis=-1)
        return found

    def state(self) -> dict[str, Any]:
        return {"full": self._state.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        self._state[:] = np.asarray(state["full"])

    def close(self) -> None:
        """Give the threads back."""
        self._rollout.close()


def varied(robot: Robot, rates: Rates, world: World, sensing: bool) -> mujoco.MjModel:
    """Return the robot's model at this rate, in this world."""
    model = copy.copy(robot.model)
    model.opt.timestep = rates.dt / rates.substeps
    off = int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)  # a robot that diverges is seen, not hidden
    if not sensing:
        off |= int(mujoco.mjtDisableBit.mjDSBL_SENSOR)
    model.opt.disableflags |= off
    model.geom_friction[:, 0] *= world.friction
    if world.mass != 1.0:
        model.body_mass[:] *= world.mass
        model.body_inertia[:] *= world.mass
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def _sensors(robot: Robot, model: mujoco.MjModel) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return where torques (A,) and foot forces (F, 3) lie among the sensors' numbers."""
    kind = int(mujoco.mjtSensor.mjSENS_ACTUATORFRC)
    own = [
        s for s in range(model.nsensor)
        if model.sensor_type[s] == kind and model.sensor(s).name.startswith("ganglion_torque")
    ]  # fmt: skip
    torque = model.sensor_adr[own]
    force = [
        int(model.sensor(f"ganglion_contact_{name}").adr[0]) + np.arange(3)
        for name in robot.foot_names
    ]
    return np.asarray(torque), np.array(force)
