"""Physics: a state that is whole, threads that change nothing, worlds that differ."""

from __future__ import annotations

import numpy as np
import pytest
from layouts import BIPED, walk

from ganglion.core.errors import SettingsError
from ganglion.tasks.motion import rotations
from ganglion.tasks.motion.physics import Rates, RolloutPhysics, World

COUNT = 12
RATES = Rates()


def started(**how: object) -> RolloutPhysics:
    physics = RolloutPhysics(BIPED, COUNT, RATES, **how)  # type: ignore[arg-type]
    frames = np.arange(COUNT)
    place, quat, joints = walk().at(frames)
    linear, angular, joint_vel = (v[frames % 32] for v in walk().velocities())
    local = rotations.rotate_back(quat, angular)
    physics.reset(
        frames, BIPED.to_qpos(place, quat, joints), BIPED.to_qvel(linear, local, joint_vel)
    )
    return physics


def move(physics: RolloutPhysics, first: int, last: int) -> RolloutPhysics:
    for t in range(first, last):
        physics.step(walk().at(np.arange(COUNT) + t + 1)[2])
    return physics


def test_a_state_that_is_set_again_goes_on_bit_for_bit() -> None:
    whole = move(started(), 0, 30)
    part = move(started(), 0, 13)
    again = RolloutPhysics(BIPED, COUNT, RATES)
    again.set_state(part.state())
    assert move(again, 13, 30).state()["full"].tobytes() == whole.state()["full"].tobytes()


def test_threads_and_sensors_change_no_bit() -> None:
    alone = move(started(), 0, 20).state()["full"].tobytes()
    assert move(started(threads=2), 0, 20).state()["full"].tobytes() == alone
    assert move(started(sensing=True), 0, 20).state()["full"].tobytes() == alone


def test_a_robot_does_not_depend_on_the_others() -> None:
    together = move(started(), 0, 15)
    alone = RolloutPhysics(BIPED, 1, RATES)
    alone.set_state({"full": started().state()["full"][5:6]})
    for t in range(15):
        alone.step(walk().at(np.array([5 + t + 1]))[2])
    assert (alone.qpos[0] == together.qpos[5]).all()


def test_a_falling_body_falls_by_half_g_t_squared() -> None:
    # semi-implicit Euler of 40 steps of 5 ms: z = -g dt^2 (1 + ... + 40) = -9.81 * 2.5e-5 * 820
    physics = RolloutPhysics(BIPED, 1, RATES)
    start = BIPED.to_qpos(np.array([[0.0, 0.0, 5.0]]), np.array([[1.0, 0, 0, 0]]), BIPED.home[None])
    physics.reset(np.array([0]), start, np.zeros((1, 16)))
    for _ in range(10):
        physics.step(BIPED.home[None])
    assert physics.qpos[0, 2] == pytest.approx(5.0 - 9.81 * 2.5e-5 * 820, abs=1e-4)


def test_resetting_some_leaves_the_others() -> None:
    physics = move(started(), 0, 5)
    before = physics.state()["full"].copy()
    physics.reset(np.array([3]), np.asarray(BIPED.model.qpos0)[None], np.zeros((1, 16)))
    assert (np.delete(physics.state()["full"], 3, 0) == np.delete(before, 3, 0)).all()
    assert physics.state()["full"][3, 0] == 0.0  # its time begins anew


def test_worlds_differ_in_weight_and_friction() -> None:
    worlds = [World(mass=1.0 + 0.1 * i, friction=1.0) for i in range(COUNT)]
    heavy = started(worlds=worlds)
    move(heavy, 0, 10)
    assert not np.array_equal(heavy.qpos, move(started(), 0, 10).qpos)
    assert (heavy.qpos[0] == move(started(), 0, 10).qpos[0]).all()
    with pytest.raises(SettingsError, match="2 worlds were given for 12 robots"):
        started(worlds=worlds[:2])


def test_substeps_are_shorter_steps_of_the_same_time() -> None:
    fine = RolloutPhysics(BIPED, COUNT, Rates(50.0, 10))
    fine.set_state(started().state())
    move(fine, 0, 10)
    coarse = move(started(), 0, 10)
    assert fine.state()["full"][:, 0] == pytest.approx(coarse.state()["full"][:, 0])  # time
    assert fine.qpos == pytest.approx(coarse.qpos, abs=0.03)
