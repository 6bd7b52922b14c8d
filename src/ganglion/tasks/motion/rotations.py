"""Rotations as unit quaternions (w, x, y, z), batched, for NumPy arrays and torch tensors alike.

Shapes: quaternions (..., 4), vectors (..., 3); leading axes broadcast. Sources: Sola, Quaternion
kinematics for the error-state Kalman filter, 2017 (product, rotation, Exp and Log: sections 1-4);
Shoemake, SIGGRAPH 1985 (slerp).
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

Values = Any  # a NumPy array or a torch tensor; both sides of an operation are of one kind


def namespace(values: Values) -> Any:
    """Return the module whose functions take `values`: torch for its tensors, else NumPy."""
    torch = sys.modules.get("torch")  # not imported here: evaluation works without it
    return torch if torch is not None and isinstance(values, torch.Tensor) else np


def multiply(a: Values, b: Values) -> Values:
    """Return the Hamilton product a b: the rotation b, then a."""
    xp = namespace(a)
    aw, ax, ay, az = a[..., 0], a[..., 1], a[..., 2], a[..., 3]
    bw, bx, by, bz = b[..., 0], b[..., 1], b[..., 2], b[..., 3]
    return xp.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def conjugate(q: Values) -> Values:
    """Return the inverse of unit quaternions."""
    xp = namespace(q)
    return xp.concatenate([q[..., :1], -q[..., 1:]], -1)


def cross(a: Values, b: Values) -> Values:
    """Return a x b."""
    xp = namespace(a)
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return xp.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


def rotate(q: Values, v: Values) -> Values:
    """Return v turned by q: v + 2 w (u x v) + 2 u x (u x v) with q = (w, u)."""
    w, u = q[..., :1], q[..., 1:]
    t = 2.0 * cross(u, v)
    return v + w * t + cross(u, t)


def rotate_back(q: Values, v: Values) -> Values:
    """Return v turned by the inverse of q: a world vector in the frame that q describes."""
    w, u = q[..., :1], q[..., 1:]
    t = 2.0 * cross(u, v)
    return v - w * t + cross(u, t)


def normalised(q: Values) -> Values:
    """Return q at length 1."""
    return q / (q * q).sum(-1)[..., None] ** 0.5


def exponential(rotation: Values) -> Values:
    """Return the quaternion of a rotation vector (axis times angle, rad)."""
    xp = namespace(rotation)
    half = 0.5 * ((rotation * rotation).sum(-1)[..., None]) ** 0.5
    # sin(h) / (2 h), by its series where h is tiny
    safe = xp.where(half > 1e-4, half, xp.ones_like(half))
    factor = xp.where(half > 1e-4, 0.5 * xp.sin(safe) / safe, 0.5 - half * half / 12.0)
    return xp.concatenate([xp.cos(half), factor * rotation], -1)


def logarithm(q: Values) -> Values:
    """Return the rotation vector (axis times angle in [0, pi], rad) of a unit quaternion."""
    xp = namespace(q)
    w, u = q[..., :1], q[..., 1:]
    sign = xp.where(w < 0.0, -xp.ones_like(w), xp.ones_like(w))  # q and -q are one rotation
    w, u = sign * w, sign * u
    length = ((u * u).sum(-1)[..., None]) ** 0.5
    safe = xp.where(length > 1e-6, length, xp.ones_like(length))
    factor = xp.where(length > 1e-6, 2.0 * xp.arctan2(safe, w) / safe, 2.0 * xp.ones_like(w))
    return factor * u


def angle_between(a: Values, b: Values) -> Values:
    """Return the angle (...) in [0, pi] rad that turns a into b."""
    rotation = logarithm(multiply(conjugate(a), b))
    return (rotation * rotation).sum(-1) ** 0.5


def slerp(a: Values, b: Values, share: Values) -> Values:
    """Return the rotation at `share` (..., 1) of the way from a to b, the short way round."""
    return multiply(a, exponential(share * logarithm(multiply(conjugate(a), b))))


def heading(q: Values) -> Values:
    """Return the angle (...) about the vertical at which q's forward axis points."""
    xp = namespace(q)
    w, x, y, z = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    return xp.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def about_z(angle: Values) -> Values:
    """Return the quaternion (..., 4) of a turn by `angle` (...) about the vertical."""
    xp = namespace(angle)
    zero = xp.zeros_like(angle)
    return xp.stack([xp.cos(0.5 * angle), zero, zero, xp.sin(0.5 * angle)], -1)


def about_y(angle: Values) -> Values:
    """Return the quaternion (..., 4) of a turn by `angle` (...) about the y axis."""
    xp = namespace(angle)
    zero = xp.zeros_like(angle)
    return xp.stack([xp.cos(0.5 * angle), zero, xp.sin(0.5 * angle), zero], -1)


def turn(angle: Values, v: Values) -> Values:
    """Return v (..., 3) turned by `angle` (...) about the vertical."""
    xp = namespace(v)
    c, s = xp.cos(angle), xp.sin(angle)
    x, y = v[..., 0], v[..., 1]
    return xp.stack([c * x - s * y, s * x + c * y, v[..., 2] + 0.0 * c], -1)


def up(q: Values) -> Values:
    """Return the world's up direction (..., 3) in the frame that q describes."""
    xp = namespace(q)
    w, x, y, z = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    return xp.stack([2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)], -1)


def wrapped(angle: Values) -> Values:
    """Return an angle in [-pi, pi]."""
    xp = namespace(angle)
    return xp.arctan2(xp.sin(angle), xp.cos(angle))


def angular_velocity(q: Values, dt: float, wrap: Values | None = None) -> Values:
    """Return the angular velocity (T, 3) in rad/s in the world by central differences of q (T, 4).

    w_t = Log(q_{t+1} q_{t-1}^-1) / (2 dt). Ends are one-sided, unless `wrap` gives the
    quaternions (2, 4) before the first and after the last frame.
    """
    xp = namespace(q)
    if wrap is None:
        before, after, span = xp.concatenate([q[:1], q[:-1]]), xp.concatenate([q[1:], q[-1:]]), 2.0
        found = logarithm(multiply(after, conjugate(before))) / (span * dt)
        ends = xp.ones_like(found[:, :1])
        ends[0], ends[-1] = 2.0, 2.0  # the two ends span one frame only
        return found * ends
    before = xp.concatenate([wrap[:1], q[:-1]])
    after = xp.concatenate([q[1:], wrap[1:]])
    return logarithm(multiply(after, conjugate(before))) / (2.0 * dt)
