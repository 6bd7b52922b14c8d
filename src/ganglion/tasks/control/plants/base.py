"""What a plant is: dynamics and cost, written once for NumPy and torch, batched.

Shapes: B cases, N = num_steps, n states, m controls. Every array keeps the type it comes in
(NumPy arrays are expected in float64), every formula works on either library because it uses
operators, and `stack` and the like from the library that the argument belongs to.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Components = tuple[Any, ...]  # the components of a vector, each an array (..., )


def namespace(x: Any) -> Any:
    """Return the module whose functions take `x`: numpy, or the library of a tensor."""
    return np if isinstance(x, np.ndarray) else sys.modules[type(x).__module__.partition(".")[0]]


class Course(NamedTuple):
    """A trajectory: states (B, N + 1, n) and the controls (B, N, m) on its way.

    They stay together, because replaying controls for seconds amplifies the last bit of a plant
    that falls over.
    """

    states: Floats
    controls: Floats


@dataclass(frozen=True)
class Plant(ABC):
    """One system with bounded actuators and a cost in its errors, at one time step.

    J = sum_{t<N} (Q . d(e_t) + R . (u_t - c)^2) + Q_f . d(e_N) with e = x - target, c the middle of
    the actuators' range, and d(e) = e^2, but 2 (1 - cos e) for angles: the squared chord, which is
    e^2 close to 0. gain is what the actuators make of a command (1 = as modelled); the cost counts
    the command.
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
    angles: ClassVar[tuple[int, ...]] = ()  # components that wrap at +-pi
    # Arrived: the 2-norm of each group of components is small, all through the last settle_s.
    arrival_groups: ClassVar[tuple[tuple[int, ...], ...]] = ()  # none: all in one
    settle_s: ClassVar[float] = 0.0
    # Further columns of an evaluation, judged as arrival is: name -> (groups, what it means).
    partial_arrivals: ClassVar[Mapping[str, tuple[tuple[tuple[int, ...], ...], str]]] = {}
    # How the optimum is found: see `oracle`. "exact" promises that a local solver always converges.
    method: ClassVar[Literal["exact", "grid", "best_known"]] = "best_known"

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
        """Largest distance of each control from `centre`, (m,), in control units."""

    @cached_property
    def centre(self) -> Floats:
        """Middle of each control's range, (m,); 0 unless a plant's range is one-sided."""
        return np.zeros(self.m)

    @property
    def low(self) -> Floats:
        """Least value of each control, (m,)."""
        return np.asarray(self.centre - self.bound)

    @property
    def high(self) -> Floats:
        """Largest value of each control, (m,)."""
        return np.asarray(self.centre + self.bound)

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
        """Return the state one time step later: x (..., n), u (..., m) -> (..., n)."""

    @abstractmethod
    def jacobians(self, x: Floats, u: Floats) -> tuple[Floats, Floats]:
        """Return d step / dx (B, n, n) and d step / du (B, n, m), NumPy only."""

    def matrices(self) -> tuple[Floats, Floats] | None:
        """Return (A, B) with step(x, u) = A x + B u where the plant is linear, else None.

        A linear plant has no angles and a range of controls about 0.
        """
        return None

    def rollout(self, x0: Any, u: Any) -> Any:
        """Return the states that follow from the controls: (B, n), (B, T, m) -> (B, T + 1, n)."""
        states = [x0]
        for t in range(u.shape[1]):
            states.append(self.step(states[-1], u[:, t]))
        return namespace(x0).stack(states, 1)

    def guesses(self, x0: Floats, target: Floats) -> list[Course]:
        """Return where a local solver may begin, instead of gentle LQR; within the bounds."""
        return []

    # ------------------------------------------------------------ cost

    def error(self, x: Any, target: Any) -> Any:
        """Return e = x - target, (..., n), angles in (-pi, pi]."""
        e = x - target
        if not self.angles:
            return e
        ceil, turn = namespace(e).ceil, 2.0 * math.pi
        return self._by_kind(e, lambda a: a, lambda a: a - turn * ceil((a - math.pi) / turn))

    def squares(self, e: Any) -> Any:
        """Return d(e), (..., n)."""
        if not self.angles:
            return e * e
        cos = namespace(e).cos
        return self._by_kind(e, lambda a: a * a, lambda a: 2.0 * (1.0 - cos(a)))

    def slopes(self, e: Any) -> Any:
        """Return d'(e) / 2, (..., n): e, or sin e."""
        return self._by_kind(e, lambda a: a, namespace(e).sin) if self.angles else e

    def bends(self, e: Any) -> Any:
        """Return half the Gauss-Newton curvature of d, (..., n): 1, or cos^2(e / 2) >= 0.

        The residual of an angle is 2 sin(e / 2), whose derivative is cos(e / 2).
        """
        cos = namespace(e).cos
        return self._by_kind(e, lambda a: 0.0 * a + 1.0, lambda a: 0.5 * (1.0 + cos(a)))

    def _by_kind(self, e: Any, plain: Callable[[Any], Any], angle: Callable[[Any], Any]) -> Any:
        parts = [(angle if i in self.angles else plain)(e[..., i]) for i in range(self.n)]
        return namespace(e).stack(parts, -1)

    def stage_cost(self, e: Any, u: Any) -> Any:
        """Return Q . d(e) + R . (u - c)^2: e (..., n), u (..., m) -> (...)."""
        return _weighted(self.squares(e), self.q) + self.control_cost(u)

    def control_cost(self, u: Any) -> Any:
        """Return R . (u - c)^2: u (..., m) -> (...)."""
        off = [u[..., i] - float(c) if c else u[..., i] for i, c in enumerate(self.centre)]
        return sum(float(r) * (a * a) for r, a in zip(self.r, off, strict=True))

    def final_cost(self, e: Any) -> Any:
        """Return Q_f . d(e): e (..., n) -> (...)."""
        return _weighted(self.squares(e), self.qf)

    def cost(self, x: Any, u: Any, target: Any) -> Any:
        """Return J of each case: x (B, T + 1, n), u (B, T, m), target (B, n) -> (B,)."""
        squares = self.squares(x - target[:, None])  # no need to wrap: d is periodic
        total = _weighted(squares[:, :-1], self.q).sum(1) + self.control_cost(u).sum(1)
        return total + _weighted(squares[:, -1], self.qf)

    # ------------------------------------------------------------ limits, arrival, draws

    def clip(self, u: Floats) -> Floats:
        """Return what the actuators do of a command: (..., m) within the bounds."""
        return np.clip(u, self.low, self.high)

    def excess(self, u: Floats) -> Floats:
        """Return how far each control (..., m) lies beyond its bound; negative within."""
        return np.asarray(np.abs(u - self.centre) - self.bound)

    def body(self, x: Floats) -> list[Floats]:
        """Return lines (K, 2) in m that draw the state x (n,) as one sees it; none for most."""
        return []

    def arrival(
        self, x: Floats, target: Floats, groups: tuple[tuple[int, ...], ...] | None = None
    ) -> Floats:
        """Return how far each case stays from its target over the last settle_s, (B,).

        x (B, T + 1, n), target (B, n). The largest 2-norm of a group's error, whatever its units.
        """
        e = self.error(x, target[:, None])[:, -1 - round(self.settle_s / self.dt) :]
        chosen = groups or self.arrival_groups or (tuple(range(self.n)),)
        norms = [np.linalg.norm(e[..., list(g)], axis=-1) for g in chosen]
        return np.asarray(np.max(norms, axis=(0, 2)))

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
class Rk4Plant(Plant):
    """A plant given by x' = f(x, u), stepped by the classical Runge-Kutta method of order 4.

    Source: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, table II.1.2.
    """

    @abstractmethod
    def derivative(self, x: Components, u: Components) -> Components:
        """Return the components of f, from the components of x and of the actuated u."""

    def tangent(self, x: Components, u: Components, dx: Components, du: Components) -> Components:
        """Return f_x dx + f_u du, component by component, NumPy only.

        Here by a complex step, exact to rounding where `derivative` is made of analytic functions
        (no abs, sign, where, angle of a quadrant); faster and free of that in closed form. Source:
        Squire and Trapp, Using complex variables to estimate derivatives, 1998.
        """
        moved = [tuple(a + 1e-30j * b for a, b in zip(*p, strict=True)) for p in ((x, dx), (u, du))]
        return tuple(np.imag(slope) * 1e30 for slope in self.derivative(*moved))

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
