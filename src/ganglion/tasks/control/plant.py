"""The plants of the task: dynamics and cost, written once for NumPy and torch, batched.

Shapes: B cases, N = num_steps, n states, m controls. Every array keeps the type it comes in
(NumPy arrays are expected in float64), every formula works on either library because it uses
operators, and `stack` and the like from the library that the argument belongs to.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Components = tuple[Any, ...]  # the components of a vector, each an array (..., )


def namespace(x: Any) -> Any:
    """Return the module whose functions take `x`: numpy, or the library of a tensor."""
    return np if isinstance(x, np.ndarray) else sys.modules[type(x).__module__.partition(".")[0]]


@dataclass(frozen=True)
class Plant(ABC):
    """One system with bounded actuators and a quadratic cost, at one time step.

    J = sum_{t<N} (e_t' Q e_t + u_t' R u_t) + e_N' Q_f e_N with e = x - target and diagonal Q, R,
    Q_f. gain is what the actuators make of a command (1 = as modelled); the cost counts the
    command. A plant with angles overrides `error`, one with another cost `cost`.
    """

    num_steps: int
    dt: float  # s
    gain: float = 1.0

    name: ClassVar[str]
    state_labels: ClassVar[tuple[str, ...]]
    state_units: ClassVar[tuple[str, ...]]
    control_labels: ClassVar[tuple[str, ...]]
    control_units: ClassVar[tuple[str, ...]]
    start_box: ClassVar[tuple[float, ...]]  # starts are uniform in +- this
    uncertain: ClassVar[str | None] = None  # the parameter that a mismatch scales, if any

    @property
    def n(self) -> int:
        """Number of state components."""
        return len(self.state_labels)

    @property
    def m(self) -> int:
        """Number of controls."""
        return len(self.control_labels)

    @property
    def horizon_s(self) -> float:
        """Length of a whole task in s."""
        return self.num_steps * self.dt

    @property
    @abstractmethod
    def bound(self) -> Floats:
        """Largest magnitude of each control, (m,), in control units."""

    @property
    @abstractmethod
    def q(self) -> Floats:
        """Diagonal of Q, (n,)."""

    @property
    @abstractmethod
    def r(self) -> Floats:
        """Diagonal of R, (m,)."""

    @property
    @abstractmethod
    def qf(self) -> Floats:
        """Diagonal of Q_f, (n,)."""

    @abstractmethod
    def step(self, x: Any, u: Any) -> Any:
        """Return the state one time step later: x (B, n), u (B, m) -> (B, n)."""

    @abstractmethod
    def jacobians(self, x: Floats, u: Floats) -> tuple[Floats, Floats]:
        """Return d step / dx (B, n, n) and d step / du (B, n, m), NumPy only."""

    def matrices(self) -> tuple[Floats, Floats] | None:
        """Return (A, B) with step(x, u) = A x + B u where the plant is linear, else None."""
        return None

    def rollout(self, x0: Any, u: Any) -> Any:
        """Return the states that follow from the controls: (B, n), (B, T, m) -> (B, T + 1, n)."""
        states = [x0]
        for t in range(u.shape[1]):
            states.append(self.step(states[-1], u[:, t]))
        return namespace(x0).stack(states, 1)

    def error(self, x: Any, target: Any) -> Any:
        """Return e = x - target, (..., n)."""
        return x - target

    def cost(self, x: Any, u: Any, target: Any) -> Any:
        """Return J of each case: x (B, T + 1, n), u (B, T, m), target (B, n) -> (B,)."""
        e = self.error(x, target[:, None])
        squares = e * e
        total = _weighted(squares[:, :-1], self.q).sum(1) + _weighted(u * u, self.r).sum(1)
        return total + _weighted(squares[:, -1], self.qf)

    def clip(self, u: Floats) -> Floats:
        """Return what the actuators do of a command: (..., m) within the bounds."""
        return np.clip(u, -self.bound, self.bound)

    def sample_starts(self, rng: np.random.Generator, count: int, scale: float = 1.0) -> Floats:
        """Draw initial states uniformly from `scale` times the start box, (count, n)."""
        return np.asarray(rng.uniform(-1.0, 1.0, (count, self.n)) * self.start_box * scale)

    def sample_targets(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw target states, (count, n); the origin unless a plant says otherwise."""
        return np.zeros((count, self.n))


def _weighted(squares: Any, weights: Floats) -> Any:
    """Return sum_i weights_i squares[..., i] without handing NumPy arrays to another library."""
    return sum(float(w) * squares[..., i] for i, w in enumerate(weights))


@dataclass(frozen=True)
class DoubleIntegrator(Plant):
    """x'' = u under zero-order hold, exactly discretised: A = [[1, h], [0, 1]], B = [h^2/2, h]."""

    limit: float = 4.0  # m/s^2
    cost_kind: Literal["terminal", "original"] = "terminal"
    target_kind: Literal["rest", "moving"] = "rest"

    name = "double_integrator"
    state_labels = ("position", "velocity")
    state_units = ("m", "m/s")
    control_labels = ("acceleration",)
    control_units = ("m/s^2",)
    start_box = (2.0, 2.0)

    @cached_property
    def bound(self) -> Floats:
        """Largest acceleration, (1,), m/s^2."""
        return np.array([self.limit])

    @cached_property
    def q(self) -> Floats:
        """Diagonal of Q, (2,)."""
        return np.array([10.0, 5.0] if self.cost_kind == "terminal" else [1.0, 1.0])

    @cached_property
    def r(self) -> Floats:
        """Diagonal of R, (1,)."""
        return np.array([0.1])

    @cached_property
    def qf(self) -> Floats:
        """Diagonal of Q_f, (2,): 20 Q, or 0 for the original cost."""
        return 20.0 * self.q if self.cost_kind == "terminal" else np.zeros(2)

    def step(self, x: Any, u: Any) -> Any:
        h, a = self.dt, self.gain * u[..., 0]
        p, v = x[..., 0], x[..., 1]
        return namespace(x).stack([p + h * v + (0.5 * h * h) * a, v + h * a], -1)

    def matrices(self) -> tuple[Floats, Floats]:
        h, k = self.dt, self.gain
        return np.array([[1.0, h], [0.0, 1.0]]), np.array([[0.5 * h * h * k], [h * k]])

    def jacobians(self, x: Floats, u: Floats) -> tuple[Floats, Floats]:
        a, b = self.matrices()
        return np.broadcast_to(a, (len(x), 2, 2)), np.broadcast_to(b, (len(x), 2, 1))

    def sample_targets(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw a position in U(-2, 2), and a velocity in U(-2, 2) where targets move."""
        targets = rng.uniform(-2.0, 2.0, (count, 2))
        if self.target_kind == "rest":
            targets[:, 1] = 0.0
        return targets


@dataclass(frozen=True)
class Rk4Plant(Plant):
    """A plant given by x' = f(x, u), stepped by the classical Runge-Kutta method of order 4.

    Source: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, table II.1.2.
    """

    @abstractmethod
    def derivative(self, x: Components, u: Components) -> Components:
        """Return the components of f, from the components of x and of the actuated u."""

    @abstractmethod
    def tangent(self, x: Components, u: Components, dx: Components, du: Components) -> Components:
        """Return f_x dx + f_u du, component by component (the derivative of `derivative`)."""

    def step(self, x: Any, u: Any) -> Any:
        xs, us = self._components(x, u)
        h, slopes = self.dt, [self.derivative(xs, us)]
        for share in (0.5, 0.5, 1.0):
            slopes.append(self.derivative(_along(xs, slopes[-1], share * h), us))
        return namespace(x).stack(_combine(xs, slopes, h), -1)

    def jacobians(self, x: Floats, u: Floats) -> tuple[Floats, Floats]:
        """Differentiate the step in closed form: all n + m unit directions pushed through it."""
        xs, us = self._components(x, u)
        h, unit = self.dt, np.eye(self.n + self.m)[..., None]  # component, direction, case
        dxs, dus = tuple(unit[: self.n]), tuple(self.gain * unit[self.n :])
        slopes, tangents = [self.derivative(xs, us)], [self.tangent(xs, us, dxs, dus)]
        for share in (0.5, 0.5, 1.0):
            at = _along(xs, slopes[-1], share * h)
            moved = _along(dxs, tangents[-1], share * h)
            tangents.append(self.tangent(at, us, moved, dus))
            slopes.append(self.derivative(at, us))
        shape = (self.n + self.m, len(x))
        columns = [np.broadcast_to(c, shape) for c in _combine(dxs, tangents, h)]
        full = np.stack(columns).transpose(2, 0, 1)
        return full[:, :, : self.n], full[:, :, self.n :]

    def _components(self, x: Any, u: Any) -> tuple[Components, Components]:
        xs = tuple(x[..., i] for i in range(self.n))
        return xs, tuple(self.gain * u[..., i] for i in range(self.m))


def _along(x: Components, slope: Components, h: float) -> Components:
    return tuple(a + h * b for a, b in zip(x, slope, strict=True))


def _combine(x: Components, slopes: list[Components], h: float) -> list[Any]:
    """Return x + h/6 (k1 + 2 k2 + 2 k3 + k4)."""
    rows = zip(x, *slopes, strict=True)
    return [a + (h / 6.0) * (k1 + 2.0 * (k2 + k3) + k4) for a, k1, k2, k3, k4 in rows]


@dataclass(frozen=True)
class VanDerPol(Rk4Plant):
    """x'' = mu (1 - x^2) x' - x + u (Van der Pol, Phil. Mag. 2, 1926, eq. 2, with a control)."""

    mu: float = 1.0
    limit: float = 2.0  # 1/s^2

    name = "vanderpol"
    state_labels = ("x", "x'")
    state_units = ("1", "1/s")
    control_labels = ("force",)
    control_units = ("1/s^2",)
    start_box = (2.0, 2.0)
    uncertain = "mu"

    @cached_property
    def bound(self) -> Floats:
        """Largest force, (1,)."""
        return np.array([self.limit])

    @cached_property
    def q(self) -> Floats:
        """Diagonal of Q, (2,)."""
        return np.array([10.0, 5.0])

    @cached_property
    def r(self) -> Floats:
        """Diagonal of R, (1,)."""
        return np.array([0.1])

    @cached_property
    def qf(self) -> Floats:
        """Diagonal of Q_f, (2,): 20 Q."""
        return 20.0 * self.q

    def derivative(self, x: Components, u: Components) -> Components:
        (p, v), (force,) = x, u
        return v, self.mu * (1.0 - p * p) * v - p + force

    def tangent(self, x: Components, u: Components, dx: Components, du: Components) -> Components:
        (p, v), (dp, dv), (dforce,) = x, dx, du
        stiffness = -2.0 * self.mu * p * v - 1.0
        return dv, stiffness * dp + self.mu * (1.0 - p * p) * dv + dforce


PLANTS: Mapping[str, type[Plant]] = {p.name: p for p in (DoubleIntegrator, VanDerPol)}
