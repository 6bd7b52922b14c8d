"""Scores by hand, references that do what they are for, and disturbances that disturb."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from ganglion import registry
from ganglion.core import metrics, seeds
from ganglion.core.contracts import Arrays
from ganglion.tasks.motion import evaluation, rotations
from ganglion.tasks.motion.task import Motion


def task(*layers: Mapping[str, Any], seconds: float = 2.0) -> Motion:
    base = {"evaluation": {"seconds": seconds}}
    return Motion(registry.resolve("motion", "quick", [base, *layers]))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def walk() -> Motion:
    return task()


def cases(made: Motion, count: int = 8) -> Arrays:
    return made.generate(count, "test", seeds.rng(0, "test", 0))


def scores(made: Motion, name: str, rows: Arrays) -> dict[str, float]:
    found = made.evaluate(made.references()[name], rows, seeds.rng(0, "evaluate"))
    return {m.name: metrics.mean(found, m) for m in made.metrics}


def test_the_reference_itself_is_perfect(walk: Motion) -> None:
    found = scores(walk, "oracle", cases(walk))
    for name in ("tracking_error", "joint_rmse", "r_mpjpe", "mpjpe", "distance_error"):
        assert found[name] == pytest.approx(0.0, abs=1e-12)
    for name in ("survived", "tracked", "contact_f1"):
        assert found[name] == 1.0


def test_open_loop_and_cloning_fall_and_standing_does_not_move(walk: Motion) -> None:
    longer = task(seconds=5.0)
    rows = cases(longer)
    open_loop, cloning = scores(longer, "open_loop", rows), scores(longer, "cloning", rows)
    assert open_loop["survived"] == cloning["survived"] == 0.0
    assert open_loop["tracking_error"] == pytest.approx(cloning["tracking_error"], rel=0.1)
    standing = scores(longer, "standing", rows)
    assert standing["survived"] == 1.0
    assert standing["tracked"] == 0.0
    assert standing["distance_error"] == pytest.approx(1.0, abs=0.05)
    assert standing["speed_error"] == pytest.approx(0.15, rel=0.05)


def test_cloning_knows_the_clip_by_heart(walk: Motion) -> None:
    clone = walk.references()["cloning"]
    world = walk.world
    seen = np.zeros((32, world.seen.layout.size), np.float32)
    turn = 2.0 * np.pi * np.arange(32) / 32
    seen[:, world.seen.layout.slice("phase")] = np.stack([np.sin(turn), np.cos(turn)], -1)
    wanted = np.roll(world.clips[0].joint_pos, -1, 0)  # of the step that follows
    assert clone.act({"observation": seen})["target"] == pytest.approx(wanted, abs=0.02)


def test_errors_of_a_trace_by_hand(walk: Motion) -> None:
    world, rows = walk.world, cases(walk, 2)
    cfg = walk.settings.evaluation
    trace = evaluation.playback(world, rows, cfg)
    # one joint of ten off by .1 in the first episode: rmse sqrt(.01 / 10); the second falls at half
    trace.qpos[:, 0, 7] += 0.1
    trace.alive[50:, 1] = False
    trace.targets[:] = 0.0
    trace.torque[:] = 2.0
    found = evaluation._rows(world, rows, trace, kinematic=False)
    assert found["joint_rmse"] == pytest.approx([np.sqrt(0.001), 0.0], abs=1e-9)
    assert found["tracking_error"] == pytest.approx([np.sqrt(0.001), np.sqrt(0.5)])
    assert found["survived"].tolist() == [1.0, 0.0]
    assert found["tracked"].tolist() == [1.0, 0.0]
    assert found["torque_rms"] == pytest.approx([2.0, 2.0])
    assert found["action_rate"] == pytest.approx([0.0, 0.0])
    # a yaw joint turns the hip's links in place and moves knee and foot by little
    assert 0.0 < found["r_mpjpe"][0] < 5.0
    # it fell at 1 s of 2: half of the way, .15 of .3 m
    assert found["distance_error"] == pytest.approx([0.0, 0.5], abs=0.03)


def test_a_drift_is_in_the_world_s_error_and_not_in_the_root_s(walk: Motion) -> None:
    world, rows = walk.world, cases(walk, 1)
    trace = evaluation.playback(world, rows, walk.settings.evaluation)
    trace.qpos[:, 0, 1] += 0.2  # 200 mm to the left
    found = evaluation._rows(world, rows, trace, kinematic=False)
    assert found["mpjpe"] == pytest.approx([200.0])
    assert found["r_mpjpe"] == pytest.approx([0.0], abs=1e-6)
    assert found["tracked"].tolist() == [1.0]
    trace.qpos[50:, 0, 1] += 0.11
    assert evaluation._rows(world, rows, trace, kinematic=False)["tracked"].tolist() == [0.0]


def test_contacts_agree_by_hand(walk: Motion) -> None:
    world, rows = walk.world, cases(walk, 1)
    trace = evaluation.playback(world, rows, walk.settings.evaluation)
    down = trace.force[:, 0] > 0
    trace.force[:, 0, 1] = 0.0  # the right foot is never felt
    found = evaluation._rows(world, rows, trace, kinematic=False)["contact_f1"][0]
    left, right = down[:, 0].sum(), down[:, 1].sum()
    assert found == pytest.approx(2 * left / (2 * left + right))


def test_episodes_are_the_same_on_the_same_stream_and_on_threads(walk: Motion) -> None:
    rows, policy = cases(walk, 4), walk.references()["open_loop"]
    first = walk.evaluate(policy, rows, seeds.rng(0, "e"))
    other = task({"evaluation": {"threads": 0}})
    again = other.evaluate(policy, rows, seeds.rng(0, "e"))
    for name, column in first.items():
        assert np.array_equal(column, again[name], equal_nan=True)


class Leaning:
    """The open loop, and a knee that follows what is seen of up: a policy that noise disturbs."""

    def __init__(self, made: Motion) -> None:
        self._open = made.references()["open_loop"]
        self.signature = self._open.signature

    def act(self, inputs: Arrays) -> Arrays:
        target = np.array(self._open.act(inputs)["target"])
        target[:, 3] += inputs["observation"][:, 2]
        return {"target": target}


@pytest.mark.parametrize("name", ["timestep_2ms", "friction_0.7", "mass_1.1", "push_0.3",
                                  "sensor_noise"])  # fmt: skip
def test_every_disturbance_changes_what_happens(name: str, walk: Motion) -> None:
    from ganglion.core.settings import dotted

    rows = cases(walk, 4)
    changed = task(dotted(walk.scenarios[name]), seconds=2.5)
    plain = task(seconds=2.5)
    assert changed.settings.world() == plain.settings.world()  # the same cases

    def policy(made: Motion) -> Any:  # a kick comes after two seconds: who leans lies by then
        return made.references()["standing"] if name.startswith("push") else Leaning(made)

    before = plain.evaluate(policy(plain), rows, seeds.rng(0, "e"))
    after = changed.evaluate(policy(changed), rows, seeds.rng(0, "e"))
    assert not np.array_equal(before["mpjpe"], after["mpjpe"])


def test_a_push_has_the_speed_that_was_asked(walk: Motion) -> None:
    from ganglion.tasks.motion.physics import Rates, RolloutPhysics

    cfg = walk.settings.evaluation.model_copy(update={"push": 0.3})
    physics = RolloutPhysics(walk.world.robot, 3, Rates())
    turn = np.array([0.0, np.pi / 2, np.pi])
    for t in (0, 50, 99, 101):  # kicks come every two seconds
        evaluation._kick(physics, cfg, Rates(), t, turn, "free")
        assert (physics.qvel == 0.0).all()
    evaluation._kick(physics, cfg, Rates(), 100, turn, "free")
    assert physics.qvel[:, :2] == pytest.approx(np.array([[0.3, 0.0], [0.0, 0.3], [-0.3, 0.0]]))


def test_a_robot_that_hovers_low_has_fallen(walk: Motion) -> None:
    from ganglion.tasks.motion.reference import pose_of

    robot = walk.world.robot
    for height, fallen in ((0.16, False), (0.14, True)):
        place = np.array([[0.0, 0.0, height]])
        qpos = robot.to_qpos(place, np.array([[1.0, 0, 0, 0]]), robot.home[None])
        pose = pose_of(robot, qpos, np.zeros((1, 16)))
        assert evaluation._fallen(walk.world, pose).tolist() == [fallen]


def test_a_commanded_reference_follows_its_own_command() -> None:
    made = task({
        "problem": {"goal": "command", "action": "absolute"}, "loss": {"style": {"on": True}},
        "clip": {"kind": "sweep", "forward_steps": 2, "turn_steps": 3},
    })  # fmt: skip
    rows = cases(made, 12)
    assert made.goal.name == "command_error"
    assert len(made.world.clips) == 6
    # the mean over a second of a swaying gait is not quite that over whole cycles
    assert scores(made, "oracle", rows)["command_error"] < 0.2
    assert scores(made, "standing", rows)["command_error"] > 0.4


def test_turning_headings_are_seen_from_the_robot(walk: Motion) -> None:
    made = task({"clip": {"turn": 0.6}})
    found = scores(made, "oracle", cases(made, 4))
    assert found["mpjpe"] == 0.0
    trace = evaluation.playback(made.world, cases(made, 1), made.settings.evaluation)
    quat = made.world.robot.of_qpos(trace.qpos[:, 0])[1]
    assert rotations.heading(quat[-1]) - rotations.heading(quat[0]) == pytest.approx(0.6 * 99 / 50)
