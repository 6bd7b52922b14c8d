"""Oracle and baselines of the lander as policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ganglion.core.contracts import Arrays, Policy, Signature, TensorSpec
from ganglion.tasks.control.rocket import oracle
from ganglion.tasks.control.rocket.world import (
    STATE_LABELS,
    STATE_UNITS,
    Floats,
    Rocket,
    magnitude,
)

_TRIED_S = np.linspace(30.0, 100.0, 29)


def references(rocket: Rocket) -> Mapping[str, Policy]:
    """Return oracle, zem_zev, zero and random."""
    return {
        "oracle": Oracle(rocket), "zem_zev": ZemZev(rocket), "zero": Zero(rocket),
        "random": Random(rocket),
    }  # fmt: skip


def signature(rocket: Rocket, more: Mapping[str, TensorSpec] | None = None) -> Signature:
    """Return what landing plans take and give."""
    state = TensorSpec((7,), unit=", ".join(STATE_UNITS), labels=STATE_LABELS)
    return Signature(
        {"state": state, **(more or {})},
        {
            "controls": TensorSpec((rocket.num_steps, 3), unit="m/s^2", labels=("x", "y", "z")),
            "final_time_s": TensorSpec((1,), unit="s", low=0.0),
        },
    )


def _plan(controls: Floats, final_time_s: Floats) -> Arrays:
    """Return what every planner gives; rounding moves thrust by a tenth of what is tolerated."""
    return {
        "controls": controls.astype(np.float32), "final_time_s": final_time_s.astype(np.float32)
    }  # fmt: skip


@dataclass(frozen=True)
class _Planner:
    rocket: Rocket

    @property
    def signature(self) -> Signature:
        return signature(self.rocket)


@dataclass(frozen=True)
class Oracle(_Planner):
    """The fuel optimum; where it finds none, whatever its last iterate is."""

    def act(self, inputs: Arrays) -> Arrays:
        found = oracle.remembered(self.rocket, inputs["state"])
        return _plan(found.controls, found.final_time_s)


@dataclass(frozen=True)
class ZemZev(_Planner):
    """Energy-optimal feedback, clipped: a = 6 ZEM / t^2 - 2 ZEV / t, t the time to go.

    ZEM and ZEV are the errors of position and velocity that coasting would end with. The final
    time is the one of 29 between 30 s and 100 s that lands with least fuel, or comes closest.
    Source: Ebrahimi, Bahrami, Roshanian, Optimal sliding-mode guidance with terminal velocity
    constraint for fixed-interval propulsive maneuvers, Acta Astronautica 62, 2008, eq. 22.
    """

    def act(self, inputs: Arrays) -> Arrays:
        state = np.asarray(inputs["state"], np.float64)
        count = len(state)
        many = np.repeat(state, len(_TRIED_S), 0)
        t = np.tile(_TRIED_S, count)[:, None]
        controls = self._feedback(many, t)
        flight = self.rocket.fly(many, controls, t)
        miss = magnitude(flight.position[:, -1]) + magnitude(flight.velocity[:, -1])
        bad = miss + np.maximum(-flight.position[:, :, 2].min(1), 0.0)
        fuel = self.rocket.fuel(many, controls, t)
        value = np.where(bad < 0.5, fuel, 1e6 + bad).reshape(count, -1)
        pick = np.arange(count) * len(_TRIED_S) + value.argmin(1)
        return _plan(controls[pick], t[pick])

    def _feedback(self, state: Floats, t: Floats) -> Floats:
        rocket, h = self.rocket, t / self.rocket.num_steps
        pull = np.array([0.0, 0.0, rocket.gravity])
        r, v, mass, out = state[:, :3], state[:, 3:6], state[:, 6:7], []
        for k in range(rocket.num_steps):
            go = t - k * h
            miss, speed = -(r + go * v - 0.5 * go**2 * pull), -(v - go * pull)
            # the last part can only choose its end's speed; before it, this is exact as h -> 0
            last = k == rocket.num_steps - 1
            a = speed / go if last else 6.0 * miss / go**2 - 2.0 * speed / go
            size = magnitude(a)[:, None] + 1e-12
            a = a * np.minimum(1.0, (1.0 - 1e-9) * rocket.thrust / mass / size)
            out.append(a)
            r = r + h * v + 0.5 * h**2 * (a - pull)
            v = v + h * (a - pull)
            mass = mass * np.exp(-h * magnitude(a)[:, None] / rocket.exhaust)
        return np.stack(out, 1)


@dataclass(frozen=True)
class Zero(_Planner):
    """No thrust: free fall until the ground."""

    def act(self, inputs: Arrays) -> Arrays:
        state = np.asarray(inputs["state"], np.float64)
        z, v, g = state[:, 2:3], state[:, 5:6], self.rocket.gravity
        t = (v + np.sqrt(np.maximum(v**2 + 2.0 * g * z, 0.0))) / g
        return _plan(np.zeros((len(state), self.rocket.num_steps, 3)), t)


@dataclass(frozen=True)
class Random(_Planner):
    """Thrust of any direction and size for a minute."""

    @property
    def signature(self) -> Signature:
        noise = TensorSpec((self.rocket.num_steps, 3), role="normal")
        return signature(self.rocket, {"noise": noise})

    def act(self, inputs: Arrays) -> Arrays:
        state, noise = (np.asarray(inputs[k], np.float64) for k in ("state", "noise"))
        t = np.full((len(state), 1), 60.0)
        wanted = noise * self.rocket.thrust / state[:, 6][:, None, None]
        return _plan(self.rocket.clip(state, wanted, t), t)
