"""The practising robots: rewards of perfect motion, starts, ends, disturbances, and their state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from layouts import BIPED, walk

from ganglion import registry
from ganglion.tasks.motion import learning, style
from ganglion.tasks.motion.environment import Practice, TrackingEnvironment
from ganglion.tasks.motion.mdp import Rules
from ganglion.tasks.motion.physics import Rates, RolloutPhysics
from ganglion.tasks.motion.reference import Reference, pose_of
from ganglion.tasks.motion.starts import Noise, sensor_noise, start
from ganglion.train import checkpoint

REFERENCE = Reference(BIPED, [walk()], 30)
RULES = Rules(BIPED, REFERENCE.mean, True)
COUNT = 16


def environment(
    reference: Reference = REFERENCE, rules: Rules = RULES, seen: Rules | None = None, **how: Any
) -> TrackingEnvironment:
    physics = RolloutPhysics(BIPED, COUNT, Rates())
    rng = np.random.default_rng(0)
    return TrackingEnvironment(physics, reference, rules, Practice(**how), seen or rules, rng)


def run(made: TrackingEnvironment, steps: int, first: int = 0) -> list[Any]:
    draw = torch.Generator().manual_seed(1)
    noise = torch.randn(first + steps, COUNT, made.actions, generator=draw)[first:]
    return [made.step(0.3 * noise[t], np.random.default_rng(first + t)) for t in range(steps)]


def test_a_start_without_noise_is_the_reference() -> None:
    clip, frame = np.zeros(5, np.int64), np.arange(0, 25, 5)
    qpos, qvel = start(REFERENCE, clip, frame, Noise.draw(5, 10, 0.0, np.random.default_rng(0)))
    found, goal = pose_of(BIPED, qpos, qvel), REFERENCE.at(clip, frame)[0]
    for name, value in vars(goal).items():
        # tilted soles reach 2 mm into the ground in the reference; starts are lifted out of it
        assert vars(found)[name] == pytest.approx(value, abs=3e-3)
    low = BIPED.lowest(*BIPED.foot_frames(found.position, found.quat, found.joint_pos))
    assert low.min() >= -1e-9


def test_noise_at_starts_is_as_large_as_asked() -> None:
    noise = Noise.draw(4000, 10, 2.0, np.random.default_rng(0))
    assert np.abs(noise.joints).max() == pytest.approx(0.1, rel=0.01)
    assert np.abs(noise.tilt[:, :2]).max() == pytest.approx(0.1, rel=0.01)
    assert (noise.tilt[:, 2] == 0.0).all()
    assert np.abs(noise.speeds).max() == pytest.approx(0.2, rel=0.01)


def test_starts_are_off_the_place_of_the_reference_by_as_much_as_asked() -> None:
    made = environment(start=0.0, offset=0.05)
    off = made.observe()[1][:, RULES.layout.slice("position_error")]
    wide = off[:, :2].abs().max()
    assert 0.03 < wide <= 0.05 * RULES.size + 1e-6
    assert off[:, 2].abs().max() < 3e-3
    none = environment(start=0.0).observe()[1][:, RULES.layout.slice("position_error")]
    assert none[:, :2].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("problem", "off"),
    [({}, True), ({"start_offset": 0.0}, False), ({"observation": "proprio"}, False)],
)
def test_only_who_sees_its_place_starts_off_it(problem: dict[str, Any], off: bool) -> None:
    cfg: Any = registry.resolve("motion", "quick", [{"problem": problem}])
    made: Any = learning.environment(registry.make("motion", cfg).world, cfg, 0, "cpu")  # type: ignore[attr-defined]
    place = made.observe()[1][:, RULES.layout.slice("position_error")][:, :2]
    assert (float(place.abs().max()) > 0.01) == off


def test_the_first_steps_of_the_open_loop_are_nearly_perfect() -> None:
    made = environment(start=0.0)
    step = made.step(torch.zeros(COUNT, 10), np.random.default_rng(0))
    assert step.reward.min() > 0.8
    assert not (step.terminated | step.truncated).any()
    assert set(step.terms) == {"joints", "place", "tilt", "velocity", "spin", "feet", "smoothness"}
    assert sum(step.terms.values()).numpy() == pytest.approx(step.reward.numpy())


def test_robots_that_are_left_alone_lose_the_reference_and_begin_anew() -> None:
    made = environment()
    steps = [made.step(torch.zeros(COUNT, 10), np.random.default_rng(t)) for t in range(220)]
    ended = torch.stack([s.terminated | s.truncated for s in steps])
    assert ended.any(0).all()  # the open loop falls within 4.4 s
    assert sum(int(s.truncated.sum()) for s in steps) < 0.5 * int(ended.sum())
    assert all(torch.isfinite(s.observation).all() for s in steps)


def test_time_ends_episodes_without_ending_what_they_are_worth() -> None:
    made = environment(steps=3, start=0.0)
    made._age[:] = 0
    steps = run(made, 3)
    assert not any(s.truncated.any() for s in steps[:2])
    last = steps[2]
    assert last.truncated.all()
    assert last.final.shape == (COUNT, RULES.layout.size)
    # what was seen at the end is not what is seen after beginning anew
    assert (last.final - last.observation).abs().max() > 1e-3
    assert (made._age == 0).all()


def test_a_clamped_clip_ends_in_time() -> None:
    clamped = Reference(BIPED, [replace(walk(), loop="clamp", offset=(0.0, 0.0, 0.0))], 3)
    made = environment(clamped, start=0.0)
    made._frame[:] = 29
    steps = run(made, 2)
    assert not steps[0].truncated.any()
    assert (steps[1].truncated | steps[1].terminated).all()


def test_long_clips_are_practised_where_they_are_failed() -> None:
    place, quat, joints = walk().at(np.arange(400))
    long = replace(walk(), root_pos=place, root_quat=quat, joint_pos=joints, loop="clamp",
                   contacts=None, offset=(0.0, 0.0, 0.0))  # fmt: skip
    made = environment(Reference(BIPED, [long], 3))
    assert made._bins[:, 3].all()
    made._failures[:] = 1.0
    made._failures[7] = 50.0
    _, frame = made._draw_starts(4000, np.random.default_rng(0))
    share = ((frame >= 175) & (frame < 200)).mean()
    # .3 evenly over 16 bins, .7 by 50 / (50 + 15)
    assert share == pytest.approx(0.3 / 16 + 0.7 * 50 / 65, abs=0.05)


@pytest.mark.parametrize(
    "how", [{}, {"sensor": 1.0, "latency": 1, "push": 0.5, "push_steps": 3}], ids=["calm", "rough"]
)
def test_a_state_that_is_loaded_goes_on_bit_for_bit(how: dict[str, Any], tmp_path: Any) -> None:
    seen = replace(RULES, privileged=False)
    whole = environment(seen=seen, **how)
    run(whole, 12)
    part = environment(seen=seen, **how)
    run(part, 5)
    path = checkpoint.save(tmp_path, 5, part.state_dict(), {})
    again = environment(seen=seen, **how)
    run(again, 2)  # elsewhere
    again.load_state_dict(checkpoint.load(path).state)
    run(again, 7, first=5)
    digests = [checkpoint.state_digest(x.state_dict()) for x in (again, whole)]
    assert digests[0] == digests[1]


def test_the_actor_may_see_less_and_noisier_than_the_critic() -> None:
    seen = replace(RULES, privileged=False)
    made = environment(seen=seen, sensor=1.0)
    observation, privileged = made.observe()
    assert observation.shape == (COUNT, seen.layout.size)
    assert privileged.shape == (COUNT, RULES.layout.size)
    off = observation - privileged[:, : seen.layout.size]
    scale = torch.as_tensor(sensor_noise(seen, 1.0, np.ones((1, seen.layout.size))))
    assert (off.abs() <= scale + 1e-6).all()
    error, angle = (off[:, seen.layout.slice(n)] for n in ("joint_error", "joint_from_mean"))
    assert error == pytest.approx(angle, abs=1e-6)  # one encoder, one error
    assert off[:, seen.layout.slice("gyro")].abs().max() > 0.05
    assert off[:, seen.layout.slice("phase")].abs().max() == 0.0


def test_late_targets_are_those_of_the_step_before() -> None:
    made = environment(latency=1, start=0.0)
    made._delay[:] = 1
    first, second = torch.full((COUNT, 10), 0.1), torch.full((COUNT, 10), 0.2)
    made._delivered(first)
    assert made._delivered(second) == pytest.approx(first.numpy())
    made._delay[:] = 0
    assert made._delivered(second) == pytest.approx(second.numpy())


def test_the_style_is_the_same_wherever_the_robot_is_and_heads() -> None:
    clip, frame = np.zeros(4, np.int64), np.array([3, 35, 67, 99])
    turning = Reference(BIPED, [walk(turn=0.5)], 20)
    found = style.features(turning.at(clip, frame)[0])
    assert found == pytest.approx(np.tile(found[0], (4, 1)))
    pairs = style.transitions(turning)
    assert pairs.shape == (32, 2 * found.shape[1])
    assert pairs[3, : found.shape[1]] == pytest.approx(found[0])
    assert pairs[3, found.shape[1] :] == pytest.approx(pairs[4, : found.shape[1]])


def test_transitions_do_not_reach_across_a_new_beginning() -> None:
    rules = replace(RULES, commanded=True, residual=False)
    made = environment(rules=rules, steps=4)
    steps = run(made, 8)
    sizes = [float((s.style[:, 10:20] - s.style[:, 46:56]).abs().max()) for s in steps]
    assert steps[0].style.shape[1] == 2 * style.features(made._situation(slice(None)).now).shape[1]
    assert max(sizes) < 0.6  # joints move by up to 25 rad/s * .02 s, not from pose to pose


def test_a_commanded_episode_is_paid_for_its_speed() -> None:
    rules = replace(RULES, commanded=True, residual=False)
    made = environment(rules=rules)
    steps = [made.step(torch.zeros(COUNT, 10), np.random.default_rng(t)) for t in range(60)]
    assert all(set(s.terms) == {"speed", "turn", "smoothness"} for s in steps)
