"""Episodes of a policy in physics, and what they are worth: one row per episode.

Deterministic policies, random starts; a robot that has fallen stays where it fell. Shapes: N
episodes, T control steps, J joints, A actuators, B bodies, F feet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ganglion.core.contracts import Arrays, Metric, Policy
from ganglion.tasks.motion import mdp, rotations
from ganglion.tasks.motion.config import EvaluationSettings
from ganglion.tasks.motion.kinematics import Floats, matrix_of
from ganglion.tasks.motion.mdp import Situation
from ganglion.tasks.motion.physics import Rates, RolloutPhysics
from ganglion.tasks.motion.physics import World as Surroundings
from ganglion.tasks.motion.reference import Pose, pose_of
from ganglion.tasks.motion.starts import Noise, sensor_noise, start
from ganglion.tasks.motion.world import World

_LOW_ROOT = 0.15  # m: a root below this has fallen (of a robot of the biped's size)
_CONTACT = 0.01  # m: a sole lower than this is on the ground in the reference
_PUSH_S = 2.0
_LOST = 1.0  # rad: what every joint counts for while the reference is lost

GOAL = Metric("tracking_error", "rad", "lower", help="Joint error over the whole episode; time "
              "after the robot lost the reference counts as 1 rad.")  # fmt: skip
TRACKING = (
    GOAL,
    Metric("survived", "%", "higher", percent=True, share=True,
           help="Episodes in which it never fell."),
    Metric("tracked", "%", "higher", percent=True, share=True,
           help="Episodes in which it never was further than 6 cm in height and 30 cm in place "
           "from the reference (scaled with the leg)."),
    Metric("joint_rmse", "rad", "lower", help="Joint error while it stood."),
    Metric("joint_velocity_rmse", "rad/s", "lower", help="Error of the joints' velocities."),
    Metric("r_mpjpe", "mm", "lower", help="Mean distance of bodies from the reference's, in the "
           "root's frame, heading and place aligned."),
    Metric("mpjpe", "mm", "lower", help="The same in the world, drift included."),
    Metric("contact_f1", "1", "higher", help="Agreement of foot contacts with the reference."),
    Metric("distance_error", "%", "lower", percent=True, help="Way along the reference's way, "
           "against it."),
    Metric("speed_error", "m/s", "lower", help="Error of the mean velocity."),
    Metric("action_rate", "rad/s", "lower", help="How fast joint targets change."),
    Metric("torque_rms", "N m", "lower", help="Effort of the motors."),
)  # fmt: skip
COMMAND = (
    Metric("command_error", "%", "lower", percent=True, help="Error of the mean velocity and turn "
           "against the command, as a share of it; a fall counts as 1."),
    *(m for m in TRACKING if m.name in ("survived", "contact_f1", "action_rate", "torque_rms")),
)  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """What happened: one entry per control step after the start.

    alive (T, N) until the fall; within (T, N) until the clip ends; the rest (T, N, ...).
    """

    qpos: Floats
    qvel: Floats
    targets: Floats
    force: Floats  # (T, N, F)
    torque: Floats  # (T, N, A)
    alive: NDArray[np.bool_]
    within: NDArray[np.bool_]


def case_arrays(
    world: World, count: int, factor: float, rng: np.random.Generator
) -> dict[str, Any]:
    """Draw `count` starts: clip, frame, and the noise on joints, tilt and speeds."""
    reference = world.reference
    clip = rng.integers(0, len(reference.clips), count)
    ends = np.where(reference.wraps, reference.lengths, np.maximum(1, reference.lengths // 2))
    frame = np.floor(rng.random(count) * ends[clip]).astype(np.int64)
    noise = Noise.draw(count, len(world.robot.joints), factor, rng)
    return {
        "clip": clip, "frame": frame, "joints": noise.joints.astype(np.float32),
        "tilt": noise.tilt.astype(np.float32), "speeds": noise.speeds.astype(np.float32),
    }  # fmt: skip


def score(
    policy: Policy, world: World, cases: Arrays, cfg: EvaluationSettings, rng: np.random.Generator
) -> dict[str, Any]:
    """Return the metrics' columns (N,) of one policy on the episodes that `cases` begin."""
    kinematic = bool(getattr(policy, "kinematic", False))
    trace = playback(world, cases, cfg) if kinematic else simulate(policy, world, cases, cfg, rng)
    if world.seen.commanded:
        return _command_rows(world, cases, trace, kinematic)
    return _rows(world, cases, trace, kinematic)


# ---------------------------------------------------------------- episodes


def simulate(
    policy: Policy, world: World, cases: Arrays, cfg: EvaluationSettings, rng: np.random.Generator
) -> Trace:
    """Run every episode in physics, disturbed as `cfg` says; `rng` draws the disturbances."""
    robot, reference, rules = world.robot, world.reference, world.seen
    rates = Rates(world.rates.control_hz, cfg.substeps or world.rates.substeps)
    count, steps = len(cases["clip"]), _steps(world, cfg)
    clip, frame = np.asarray(cases["clip"]), np.asarray(cases["frame"])
    surroundings = Surroundings(cfg.friction, cfg.mass)
    made = _physics(world, count, rates, surroundings, cfg)
    noise = Noise(*(np.asarray(cases[k], np.float64) for k in ("joints", "tilt", "speeds")))
    made.reset(np.arange(count), *start(reference, clip, frame, noise))
    trace = _blank(world, count, steps)
    rows, last = np.arange(count), np.zeros((count, len(robot.actuated)))
    for t in range(steps):
        noisy = None
        if cfg.sensor_noise:
            drawn = rng.uniform(-1.0, 1.0, (count, rules.layout.size))
            noisy = sensor_noise(rules, cfg.sensor_noise, drawn)
        _kick(made, cfg, rates, t, rng.uniform(0.0, 2.0 * np.pi, count)[rows], robot.root)
        goal, after, phase = reference.at(clip[rows], frame[rows] + t)
        now = pose_of(robot, made.qpos, made.qvel)
        command = reference.commands[clip[rows]]
        seen = mdp.observation(rules, Situation(now, goal, after, phase, last[rows], command))
        if noisy is not None:
            seen = seen + noisy[rows]
        target = policy.act({"observation": seen.astype(np.float32)})["target"]
        target = np.asarray(target, np.float64)
        last[rows] = mdp.action_of(rules, target, after)
        made.step(target)
        trace.qpos[t, rows], trace.qvel[t, rows] = made.qpos, made.qvel
        trace.targets[t, rows] = target
        trace.force[t, rows], trace.torque[t, rows] = made.foot_force, made.torque
        up = ~_fallen(world, pose_of(robot, made.qpos, made.qvel))
        trace.alive[t, rows] = up
        if not up.all():
            rows = rows[up]
            if not len(rows):
                break
            full = made.state()["full"][up]
            made.close()
            made = _physics(world, len(rows), rates, surroundings, cfg)
            made.set_state({"full": full})
    made.close()
    trace.within[:] = _within(world, cases, steps)
    return trace


def _physics(
    world: World, count: int, rates: Rates, surroundings: Surroundings, cfg: EvaluationSettings
) -> RolloutPhysics:
    return RolloutPhysics(
        world.robot, count, rates, threads=cfg.threads, worlds=(surroundings,), sensing=True
    )


def _steps(world: World, cfg: EvaluationSettings) -> int:
    return max(1, round(cfg.seconds * world.rates.control_hz))


def _blank(world: World, count: int, steps: int) -> Trace:
    robot, shape = world.robot, (steps, count)
    numbers = [robot.model.nq, robot.model.nv, len(robot.actuated), len(robot.feet)]
    arrays = [np.zeros((*shape, n)) for n in (*numbers, len(robot.actuated))]
    flags = [np.zeros(shape, bool), np.zeros(shape, bool)]
    return Trace(*arrays, *flags)


def _kick(
    physics: RolloutPhysics, cfg: EvaluationSettings, rates: Rates, t: int, turn: Floats, root: str
) -> None:
    every = round(_PUSH_S * rates.control_hz)
    if cfg.push and t and t % every == 0:
        physics.qvel[:, 0] += cfg.push * np.cos(turn)
        if root == "free":
            physics.qvel[:, 1] += cfg.push * np.sin(turn)


def _fallen(world: World, pose: Pose) -> NDArray[np.bool_]:
    low = _LOW_ROOT * world.judged.size
    found: NDArray[np.bool_] = mdp.fallen(pose) | ~(pose.position[:, 2] >= low)
    return found


def _within(world: World, cases: Arrays, steps: int) -> NDArray[np.bool_]:
    """Return (T, N) whether the clip still goes on after each step."""
    frames = np.asarray(cases["frame"]) + np.arange(1, steps + 1)[:, None]
    found: NDArray[np.bool_] = frames <= world.reference.last(np.asarray(cases["clip"]))
    return found


def playback(world: World, cases: Arrays, cfg: EvaluationSettings) -> Trace:
    """Return the reference itself as if it had happened: no noise, no physics, no torque."""
    steps, robot = _steps(world, cfg), world.robot
    trace = _blank(world, len(cases["clip"]), steps)
    clip, frame = np.asarray(cases["clip"]), np.asarray(cases["frame"])
    for t in range(steps):
        goal, after, _ = world.reference.at(clip, frame + t + 1)
        trace.qpos[t] = robot.to_qpos(goal.position, goal.quat, goal.joint_pos)
        trace.qvel[t] = robot.to_qvel(goal.linear, goal.angular, goal.joint_vel)
        trace.targets[t] = after[:, robot.actuated]
        trace.force[t] = _soles_down(world, goal)
    trace.torque[:] = np.nan
    trace.alive[:] = True
    trace.within[:] = _within(world, cases, steps)
    return trace


def _soles_down(world: World, pose: Pose) -> NDArray[np.bool_]:
    frames = world.robot.foot_frames(pose.position, pose.quat, pose.joint_pos)
    found: NDArray[np.bool_] = world.robot.lowest(*frames) < _CONTACT
    return found


# ---------------------------------------------------------------- tracking metrics


def _rows(world: World, cases: Arrays, trace: Trace, kinematic: bool) -> dict[str, Any]:
    """Return the columns of TRACKING."""
    steps, count = trace.alive.shape
    clip, frame = np.asarray(cases["clip"]), np.asarray(cases["frame"])
    goals = [world.reference.at(clip, frame + t + 1)[0] for t in range(steps)]
    goal = Pose(**{k: np.stack([vars(g)[k] for g in goals]) for k in vars(goals[0])})
    flat = Pose(**{k: v.reshape(-1, *v.shape[2:]) for k, v in vars(goal).items()})
    now = pose_of(world.robot, *(a.reshape(steps * count, -1) for a in (trace.qpos, trace.qvel)))
    if kinematic:
        now = flat
    lost = mdp.lost(world.judged, now, flat).reshape(steps, count)
    counted = trace.alive & trace.within
    kept = np.logical_and.accumulate(~lost, 0) & trace.alive
    joint = ((now.joint_pos - flat.joint_pos) ** 2).mean(-1).reshape(steps, count)
    speed = ((now.joint_vel - flat.joint_vel) ** 2).mean(-1).reshape(steps, count)
    whole = np.where(kept, joint, _LOST**2)
    length = np.maximum(1, trace.within.sum(0))
    local, world_mm = _body_errors(world, now, flat)
    up = trace.alive | ~trace.within
    return {
        "tracking_error": np.sqrt((whole * trace.within).sum(0) / length),
        "survived": up.all(0).astype(float),
        "tracked": (kept | ~trace.within).all(0).astype(float),
        "joint_rmse": np.sqrt(_mean(joint, counted)),
        "joint_velocity_rmse": np.sqrt(_mean(speed, counted)),
        "r_mpjpe": _mean(local.reshape(steps, count), counted),
        "mpjpe": _mean(world_mm.reshape(steps, count), counted),
        "contact_f1": _contact_f1(world, goal, trace, counted),
        **_way(world, cases, trace, now, flat),
        **_effort(world, trace, counted),
    }


def _mean(values: Floats, counted: NDArray[np.bool_]) -> Floats:
    """Return the mean (N,) over the counted steps (T, N); NaN where there are none."""
    total = counted.sum(0)
    sums = np.where(counted, values, 0.0).sum(0)
    found: Floats = np.where(total > 0, sums / np.maximum(1, total), np.nan)
    return found


def _body_errors(world: World, now: Pose, goal: Pose) -> tuple[Floats, Floats]:
    """Return the mean distance (T N,) of bodies in mm: in the root's frame, and in the world."""
    local, wide = [], []
    for part in np.array_split(np.arange(len(now.quat)), max(1, len(now.quat) // 8192)):
        own = _bodies(world, now, part)
        other = _bodies(world, goal, part)
        wide.append(np.linalg.norm(own - other, axis=-1).mean(-1))
        pair = []
        for pose, bodies in ((now, own), (goal, other)):
            back = -rotations.heading(pose.quat[part])
            away = bodies - pose.position[part][:, None]
            pair.append(rotations.turn(back[:, None], away))
        local.append(np.linalg.norm(pair[0] - pair[1], axis=-1).mean(-1))
    return 1e3 * np.concatenate(local), 1e3 * np.concatenate(wide)


def _bodies(world: World, pose: Pose, rows: NDArray[np.int64]) -> Floats:
    place, quat = pose.position[rows], pose.quat[rows]
    found: Floats = world.robot.kinematics(place, matrix_of(quat), pose.joint_pos[rows])[0]
    return found


def _contact_f1(world: World, goal: Pose, trace: Trace, counted: NDArray[np.bool_]) -> Floats:
    """Return 2 TP / (2 TP + FP + FN) of foot contacts (N,) over steps and feet."""
    steps, count = trace.alive.shape
    flat = Pose(**{k: v.reshape(-1, *v.shape[2:]) for k, v in vars(goal).items()})
    wanted = _soles_down(world, flat).reshape(steps, count, -1)
    found = (trace.force > 0.0) & counted[..., None]
    wanted = wanted & counted[..., None]
    both = (found & wanted).sum((0, 2))
    either = found.sum((0, 2)) + wanted.sum((0, 2))
    return np.where(either > 0, 2.0 * both / np.maximum(1, either), np.nan)


def _way(world: World, cases: Arrays, trace: Trace, now: Pose, goal: Pose) -> dict[str, Floats]:
    """Return the error of the way along the reference's, and of the mean velocity.

    A robot that fell has gone as far as it had then; a reference that ends near its start (less
    than 10 cm) has no way, NaN.
    """
    steps, count = trace.alive.shape
    clip, frame = np.asarray(cases["clip"]), np.asarray(cases["frame"])
    begin = world.reference.at(clip, frame)[0].position[:, :2]
    upto = np.maximum(0, (trace.alive & trace.within).sum(0) - 1)
    last = np.maximum(0, trace.within.sum(0) - 1)
    columns = np.arange(count)
    ours = now.position.reshape(steps, count, 3)[upto, columns, :2] - begin
    theirs = goal.position.reshape(steps, count, 3)[last, columns, :2] - begin
    far = np.linalg.norm(theirs, axis=-1)
    along = (ours * theirs).sum(-1) / np.maximum(far, 1e-9)
    seconds = (last + 1) / world.rates.control_hz
    off = np.linalg.norm(ours - theirs, axis=-1) / seconds
    error = np.abs(along - far) / np.maximum(far, 1e-9)
    return {"distance_error": np.where(far > 0.1, error, np.nan), "speed_error": off}


def _effort(world: World, trace: Trace, counted: NDArray[np.bool_]) -> dict[str, Floats]:
    change = np.abs(np.diff(trace.targets, axis=0)).mean(-1) * world.rates.control_hz
    torque = np.sqrt(_mean((trace.torque**2).mean(-1), counted))
    return {"action_rate": _mean(change, counted[1:]), "torque_rms": torque}


# ---------------------------------------------------------------- command metrics


def _command_rows(world: World, cases: Arrays, trace: Trace, kinematic: bool) -> dict[str, Any]:
    """Return the columns of COMMAND; the first second, in which speed is gained, is left out."""
    steps, count = trace.alive.shape
    flat = (a.reshape(steps * count, -1) for a in (trace.qpos, trace.qvel))
    now = pose_of(world.robot, *flat)
    own = rotations.turn(-rotations.heading(now.quat), now.linear)[:, :2].reshape(steps, count, 2)
    spin = now.angular[:, 2].reshape(steps, count)
    later = (
        trace.alive & (np.arange(steps) >= min(steps // 2, round(world.rates.control_hz)))[:, None]
    )
    command = world.reference.commands[np.asarray(cases["clip"])]
    speed = np.stack([_mean(own[..., i], later) for i in (0, 1)], -1)
    off = np.linalg.norm(speed - command[:, :2], axis=-1)
    turn = np.abs(_mean(spin, later) - command[:, 2])
    size = np.linalg.norm(command[:, :2], axis=-1) + world.robot.leg_length * np.abs(command[:, 2])
    error = (off + world.robot.leg_length * turn) / np.maximum(size, 0.05)
    survived = trace.alive.all(0)
    counted = trace.alive & trace.within
    goals = [
        world.reference.at(np.asarray(cases["clip"]), np.asarray(cases["frame"]) + t + 1)[0]
        for t in range(steps)
    ]
    goal = Pose(**{k: np.stack([vars(g)[k] for g in goals]) for k in vars(goals[0])})
    return {
        "command_error": np.where(survived, np.minimum(error, 1.0), 1.0),
        "survived": survived.astype(float),
        "contact_f1": _contact_f1(world, goal, trace, counted),
        **_effort(world, trace, counted),
    }
