"""Settings, files as motions and robots, learners, exports and pictures of the task."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from ganglion import registry
from ganglion.core import metrics, seeds
from ganglion.core.contracts import Ranks
from ganglion.core.errors import DataError, ExportError, SettingsError
from ganglion.tasks.motion import mdp, motion_file, view
from ganglion.tasks.motion.task import Motion

SMALL: dict[str, Any] = {"evaluation": {"seconds": 0.5}, "train": {"batch_size": 96}}


def task(*layers: Mapping[str, Any], preset: str = "quick") -> Motion:
    return Motion(registry.resolve("motion", preset, [SMALL, *layers]))  # type: ignore[arg-type]


def trained(made: Motion, updates: int = 1) -> Any:
    learner = made.learner(None, "cpu", 0, Ranks())
    for _ in range(updates):
        learner.update()
    return learner


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"clip": "file"}, "clip.kind=file needs clip.path=FILE"),
        ({"robot": "mjcf"}, "robot.kind=mjcf needs robot.file=FILE"),
        ({"clip": {"kind": "file", "path": "x", "faults": "warn"}}, "they are only cloned"),
        ({"loss": {"style": {"on": True}}}, "belong together"),
        ({"problem": {"goal": "command", "action": "residual"}}, "no reference to add"),
        ({"problem": {"latency": 2}}, "problem.latency: input should be less than or equal to 1"),
        ({"train": {"ema": 0.99}}, "train.ema is for loss=cloning"),
        ({"train": {"precision": "bf16"}}, "train.precision is for loss=cloning"),
        ({"train": {"accumulate": 2}}, "train.accumulate is for loss=cloning"),
        ({"train": {"compile": True}}, "train.compile is for loss=cloning"),
        ({"optim": {"schedule": "cosine"}}, "need loss.kl=0"),
        ({"optim": {"warmup_steps": 3}}, "need loss.kl=0"),
        ({"optim": {"schedule": "plateau"}, "loss": {"kl": 0.0}}, "plateau is for loss=cloning"),
        ({"physics": {"backend": "warp"}, "problem": {"randomise": 0.1}}, "backend=rollout"),
        ({"clip": {"kind": "sweep", "forward_steps": 100, "turn_steps": 100}}, "10,000 gaits"),
        ({"clip": {"speed": 1.0}}, "Unknown setting 'clip.speed'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(layer: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        task(layer)


def test_a_clone_follows_no_commands() -> None:
    with pytest.raises(SettingsError, match="clones a reference; choose"):
        task({"problem": {"goal": "command"}}, preset="clone")


def test_variants_are_checked_as_the_motion_is() -> None:
    with pytest.raises(DataError, match="noisy"):
        task({"augment": {"noise": 0.5}}).world  # noqa: B018


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(SettingsError, match="There is no file"):
        task({"clip": {"kind": "file", "path": str(tmp_path / "pipe.npz")}}).world  # noqa: B018
    (tmp_path / "large.npz").touch()
    os.truncate(tmp_path / "large.npz", 2 << 30)
    with pytest.raises(SettingsError, match="has 2,147,483,648 bytes; at most 1,073,741,824"):
        task({"clip": {"kind": "file", "path": str(tmp_path / "large.npz")}}).world  # noqa: B018


def test_following_commands_brings_its_own_settings() -> None:
    cfg: Any = registry.resolve("motion", "quick", [{"problem": {"goal": "command"}}])
    assert (cfg.clip.kind, cfg.problem.action, cfg.loss.style.on) == ("sweep", "absolute", True)


def test_the_guide_s_form_is_kept() -> None:
    cfg = registry.resolve("motion", "guide")
    # epochs 100 = updates; batch 32 -> 4 * 32 environments of 24 steps; rate .001; width 256
    assert cfg.train.steps == 100
    assert cfg.environments == 4 * 32  # type: ignore[attr-defined]
    assert cfg.train.batch_size * cfg.train.steps == 307_200
    assert cfg.optim.lr == 1e-3
    assert cfg.model.hidden == (256, 256)  # type: ignore[attr-defined]


def test_a_starting_rate_beyond_the_bounds_widens_them() -> None:
    learner = trained(task({"optim": {"lr": 0.1}}), 0)
    assert learner._bounds == (1e-5, 0.1)
    assert trained(task({"optim": {"lr": 1e-6}}), 0)._bounds == (1e-6, 3e-3)


def test_the_number_of_environments_follows_from_batch_and_horizon() -> None:
    assert registry.resolve("motion", "quick").environments == 128  # type: ignore[attr-defined]
    assert task().settings.environments == 4
    assert task().learner(None, "cpu", 0, Ranks()).environment.count == 4  # type: ignore[attr-defined]


def test_a_motion_file_is_part_of_the_world_by_its_contents(tmp_path: Path) -> None:
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    motion_file.write(first, [layouts.walk()])
    second.write_bytes(first.read_bytes())
    worlds = [task({"clip": {"kind": "file", "path": str(p)}}).settings.world()
              for p in (first, second)]  # fmt: skip
    assert worlds[0] == worlds[1]
    assert str(tmp_path) not in json.dumps(worlds[0])
    motion_file.write(second, [layouts.walk(forward=0.1)])
    assert task({"clip": {"kind": "file", "path": str(second)}}).settings.world() != worlds[0]
    with pytest.raises(SettingsError, match="There is no file"):
        task({"clip": {"kind": "file", "path": str(tmp_path / "none")}}).settings.world()


# ---------------------------------------------------------------- motions and robots of others


def test_a_real_gait_as_a_plain_array_goes_through(tmp_path: Path) -> None:
    path = tmp_path / "gait.npy"
    np.save(path, layouts.walk().at(np.arange(97))[2])
    made = task({"clip": {"kind": "file", "path": str(path), "fps": 50.0, "loop": "wrap"}})
    assert made.world.clips[0].loop == "wrap"
    assert np.isfinite(trained(made).update()["loss"])


def test_a_random_array_is_only_cloned_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "random.npy"
    np.save(path, np.random.default_rng(0).standard_normal((1000, 10)))
    clip = {"kind": "file", "path": str(path), "fps": 50.0}
    with pytest.raises(DataError, match=r"frame 0, joint '\w+': .* beyond its range"):
        task({"clip": clip}).world  # noqa: B018
    made = task({"clip": {**clip, "faults": "warn"}}, preset="clone")
    assert "Kinematic only" in made.remarks[0]
    assert any("beyond its range" in r for r in made.remarks)
    assert made.world.reports[0].errors
    rows = made.generate(3, "test", seeds.rng(0, "t"))
    policy = trained(made).policy()
    assert len(made.evaluate(policy, rows, seeds.rng(0, "e"))["survived"]) == 3


def test_several_clips_and_variants_are_learned_at_once(tmp_path: Path) -> None:
    path = tmp_path / "two.npz"
    motion_file.write(path, [layouts.walk(), layouts.walk(turn=0.4)])
    clip = {"kind": "file", "path": str(path)}
    augment = {"mirror": True, "time_scale": 0.1, "noise": 0.01}
    made = task({"clip": clip, "augment": augment})
    # two clips, their mirror images, two speeds and one noisy form of each
    assert len(made.world.clips) == 10
    assert made.world.reference.commands[3] == pytest.approx([0.15, 0.0, -0.4])
    assert len(task({"clip": {**clip, "clip": "+0.40"}}).world.clips) == 1
    with pytest.raises(SettingsError, match="has no clip whose name holds 'dance'"):
        task({"clip": {**clip, "clip": "dance"}}).world  # noqa: B018


def test_another_robot_learns_from_a_generated_clip() -> None:
    clip = {"forward": 0.2, "period_s": 0.4, "foot_height": 0.02}
    made = task({"robot": "miniquad", "clip": clip})
    policy = trained(made).policy()
    assert policy.signature.outputs["target"].shape == (12,)
    rows = made.generate(4, "test", seeds.rng(0, "t"))
    found = made.evaluate(made.references()["open_loop"], rows, seeds.rng(0, "e"))
    assert found["survived"].all()  # four legs stand by themselves for half a second


# ---------------------------------------------------------------- learners


def test_cloning_learns_the_clip_in_a_few_hundred_steps() -> None:
    made = task({"train": {"batch_size": 256, "steps": 400, "eval_every": 400}}, preset="clone")
    learner = made.learner(None, "cpu", 0, Ranks())
    while learner.step < 400:
        learner.update()
    rmse = learner.loss({})["rmse"]
    assert rmse < 0.02
    world, seen = made.world, np.zeros((32, made.world.seen.layout.size), np.float32)
    turn = 2.0 * np.pi * np.arange(32) / 32
    seen[:, world.seen.layout.slice("phase")] = np.stack([np.sin(turn), np.cos(turn)], -1)
    found = learner.policy().act({"observation": seen})["target"]
    assert found == pytest.approx(np.roll(world.clips[0].joint_pos, -1, 0), abs=0.06)


def test_an_untrained_policy_is_the_open_loop() -> None:
    made = task()
    rows = made.generate(4, "test", seeds.rng(0, "t"))
    policies = {"untrained": trained(made, 0).policy(), **made.references()}
    scored = {
        n: metrics.mean(made.evaluate(p, rows, seeds.rng(0, "e")), made.goal)
        for n, p in policies.items()
    }
    assert scored["untrained"] == pytest.approx(scored["open_loop"], rel=0.1)


@pytest.mark.parametrize("action", ["residual", "absolute"])
def test_the_deployed_policy_is_the_actor_and_its_action_mapping(action: str) -> None:
    made = task({"problem": {"action": action}})
    learner = trained(made)
    world = made.world
    seen = np.random.default_rng(0).standard_normal((20, world.seen.layout.size))
    tensor = torch.as_tensor(seen, dtype=torch.float32)
    after = tensor[:, world.seen.layout.slice("next_reference")]
    wanted = mdp.target(world.seen, learner._parts.actor(tensor), after).detach().numpy()
    found = learner.policy().act({"observation": seen})["target"]
    assert found == pytest.approx(wanted, abs=1e-5)


def test_the_deployed_policy_stays_within_the_actuators_range() -> None:
    made = task()
    policy = trained(made).policy()
    wild = np.full((2, made.world.seen.layout.size), 50.0, np.float32)
    wild[1] *= -1.0
    target = policy.act({"observation": wild})["target"]
    low, high = made.world.robot.targets[:, 0], made.world.robot.targets[:, 1]
    assert (target >= low - 1e-6).all()
    assert (target <= high + 1e-6).all()


# ---------------------------------------------------------------- exports


def written(made: Motion, profile: str, tmp_path: Path) -> tuple[Any, Any, onnx.ModelProto]:
    policy = trained(made).policy()
    path = tmp_path / f"{profile}.onnx"
    result = made.exporters[profile](policy, path, {"run": "r"})
    assert result["parity"]["max_abs"] <= 1e-5
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return policy, session, onnx.load(path)


@pytest.mark.filterwarnings("ignore")  # of torch's exporters about themselves
def test_the_plain_profile_maps_input_to_output(tmp_path: Path) -> None:
    made = task()
    policy, session, model = written(made, "plain", tmp_path)
    seen = np.random.default_rng(0).standard_normal((5, made.world.seen.layout.size))
    (found,) = session.run(["output"], {"input": seen.astype(np.float32)})
    wanted = policy.act({"observation": seen.astype(np.float32)})["target"]
    assert found == pytest.approx(wanted, abs=1e-5)
    assert model.opset_import[0].version == 20


@pytest.mark.filterwarnings("ignore")
def test_the_mjlab_profile_has_seven_outputs_and_its_metadata(tmp_path: Path) -> None:
    made = task()
    policy, session, model = written(made, "mjlab", tmp_path)
    assert [i.name for i in session.get_inputs()] == ["obs", "time_step"]
    names = [o.name for o in session.get_outputs()]
    assert names == ["actions", "joint_pos", "joint_vel", "body_pos_w", "body_quat_w",
                     "body_lin_vel_w", "body_ang_vel_w"]  # fmt: skip
    seen = np.random.default_rng(0).standard_normal((1, made.world.seen.layout.size))
    feed = {"obs": seen.astype(np.float32), "time_step": np.array([[7.0]], np.float32)}
    found = dict(zip(names, session.run(None, feed), strict=True))
    clip, robot = made.world.clips[0], made.world.robot
    target = policy.act({"observation": feed["obs"]})["target"]
    # the runtime adds scale * action to the default pose
    assert robot.home + 0.25 * found["actions"][0] == pytest.approx(target[0], abs=1e-5)
    assert found["joint_pos"][0] == pytest.approx(clip.joint_pos[7], abs=1e-6)
    linear, angular, joint_vel = clip.velocities()
    assert found["joint_vel"][0] == pytest.approx(joint_vel[7], abs=1e-5)
    assert found["body_pos_w"][0, 0] == pytest.approx(clip.root_pos[7], abs=1e-6)
    assert found["body_quat_w"][0, 0] == pytest.approx(clip.root_quat[7], abs=1e-6)
    assert found["body_lin_vel_w"][0, 0] == pytest.approx(linear[7], abs=1e-5)
    assert found["body_ang_vel_w"][0, 0] == pytest.approx(angular[7], abs=1e-4)
    last = session.run(["joint_pos"], {**feed, "time_step": np.array([[999.0]], np.float32)})[0]
    assert last[0] == pytest.approx(clip.joint_pos[-1], abs=1e-6)
    meta = {p.key: p.value for p in model.metadata_props}
    assert meta["joint_names"].split(",") == list(robot.joints)
    for key, values in (("joint_stiffness", robot.stiffness), ("joint_damping", robot.damping),
                        ("default_joint_pos", robot.home)):  # fmt: skip
        stored = np.array([float(v) for v in meta[key].split(",")])
        assert stored == pytest.approx(values, rel=1e-6, abs=1e-9)
    assert meta["anchor_body_name"] == "trunk"
    assert {"action_scale", "observation_names", "command_names", "body_names"} <= meta.keys()
    assert model.opset_import[0].version == 18


@pytest.mark.filterwarnings("ignore")
def test_the_mjlab_profile_has_the_velocities_of_a_motion_that_ends(tmp_path: Path) -> None:
    path = tmp_path / "walk.npz"
    place, quat, joints = layouts.walk().at(np.arange(80))
    np.savez(path, qpos=np.concatenate([place, quat, joints], 1), fps=np.array(50.0))
    made = task({"clip": {"kind": "file", "path": str(path)}})
    _, session, _ = written(made, "mjlab", tmp_path)
    linear, angular, joint = made.world.clips[0].velocities()
    seen = np.zeros((1, made.world.seen.layout.size), np.float32)
    for t in (0, 7, 79):  # the ends are differences of one step
        told = dict(zip(
            [o.name for o in session.get_outputs()],
            session.run(None, {"obs": seen, "time_step": np.array([[t]], np.float32)}),
            strict=True,
        ))  # fmt: skip
        assert told["body_lin_vel_w"].reshape(-1, 3)[0] == pytest.approx(linear[t], abs=1e-4)
        assert told["body_ang_vel_w"].reshape(-1, 3)[0] == pytest.approx(angular[t], abs=1e-4)
        assert told["joint_vel"].reshape(-1) == pytest.approx(joint[t], abs=1e-4)


def duck(folder: Path) -> Path:
    """The built-in biped with four joints of a head: fourteen, as Open Duck Mini has."""
    text = (Path(view.__file__).parent / "robots" / "minibiped.xml").read_text()
    begin = text.index('<geom name="head"')
    head = text[begin : text.index("/>", begin) + 2]
    names = ("neck_pitch", "head_pitch", "head_yaw", "head_roll")
    axes = ("0 1 0", "0 1 0", "0 0 1", "1 0 0")
    chain = "".join(
        f'<body name="{n}_link" pos="0 0 {0.07 if i == 0 else 0.005}">'
        f'<joint name="{n}" axis="{a}" range="-0.5 0.5"/>'
        '<geom type="sphere" size="0.012" mass="0.03"/>'
        for i, (n, a) in enumerate(zip(names, axes, strict=True))
    )
    text = text.replace(head, chain + "</body>" * 4)
    servos = "".join(f'<position name="{n}" joint="{n}"/>' for n in names)
    text = text.replace("<actuator>", "<actuator>" + servos)
    before, _, rest = text.partition('<key name="home"')
    zeros = "0 0 0 0  "
    rest = rest.replace("1 0 0 0  0 0 -0.45", "1 0 0 0  " + zeros + "0 0 -0.45", 1)
    rest = rest.replace('ctrl="', 'ctrl="' + zeros, 1)
    path = folder / "duck.xml"
    path.write_text(before + '<key name="home"' + rest)
    return path


@pytest.mark.filterwarnings("ignore")
def test_the_openduck_profile_speaks_its_runtime(tmp_path: Path) -> None:
    robot = {"kind": "mjcf", "file": str(duck(tmp_path)), "feet": ["left_foot", "right_foot"]}
    made = task({"robot": robot, "problem": {"observation": "proprio"}})
    body = made.world.robot
    assert len(body.joints) == 14
    policy, session, model = written(made, "openduck", tmp_path)
    assert model.opset_import[0].version == 11
    assert session.get_inputs()[0].shape == [1, 101]
    assert session.get_outputs()[0].name == "continuous_actions"
    # a robot exactly on the reference at frame 8, seen by the runtime and by ourselves
    clip, layout = made.world.clips[0], made.world.seen.layout
    turn = 2 * np.pi * 8 / 32
    ours, theirs = np.zeros((1, layout.size), np.float32), np.zeros((1, 101), np.float32)
    now, after = clip.joint_pos[8], clip.joint_pos[9]
    parts = {"phase": [np.sin(turn), np.cos(turn)], "up": [0, 0, 1],
             "joint_from_mean": now - made.world.seen.mean, "next_reference": after}  # fmt: skip
    for name, values in parts.items():
        ours[0, layout.slice(name)] = values
    # the last action that kept the target at `now`: 0 for us, (now - home) / scale for them
    theirs[0, 5] = 9.81
    theirs[0, 13:27] = now - body.home
    theirs[0, 41:55] = (now - body.home) / 0.25
    theirs[0, 99:101] = [np.cos(turn), np.sin(turn)]
    (found,) = session.run(None, {"obs": theirs})
    target = policy.act({"observation": ours})["target"][0]
    within = np.abs((target - body.home) / 0.25) < 0.99
    assert body.home + 0.25 * found[0] == pytest.approx(
        np.where(within, target, body.home + 0.25 * found[0]), abs=0.02
    )
    assert within.sum() >= 10


def test_profiles_refuse_what_they_cannot_say(tmp_path: Path) -> None:
    policy = trained(task()).policy()
    with pytest.raises(SettingsError, match=r"problem\.observation=proprio"):
        task().exporters["openduck"](policy, tmp_path / "x.onnx", {})
    proprio = task({"problem": {"observation": "proprio"}})
    with pytest.raises(SettingsError, match="for robots of 14 joints; minibiped has 10"):
        proprio.exporters["openduck"](trained(proprio).policy(), tmp_path / "x.onnx", {})


def test_the_exported_file_in_physics_is_the_trained_policy(tmp_path: Path) -> None:
    from ganglion.export.onnx_export import Checks, export
    from ganglion.export.onnx_policy import OnnxPolicy

    made = task()
    policy = trained(made).policy()
    path = tmp_path / "policy.onnx"
    export(policy.module, policy.signature, path, {}, checks=Checks(rows=0))
    rows = made.generate(8, "test", seeds.rng(0, "t"))
    found = made.same_in_use(policy, OnnxPolicy(path), rows, seeds.rng(0, "u"))
    ours, theirs = found["joint_rmse"]
    assert theirs == pytest.approx(ours, rel=1e-3)
    with pytest.raises(ExportError, match="In physics the exported file has tracking_error"):
        made.same_in_use(policy, made.references()["standing"], rows, seeds.rng(0, "u"))


# ---------------------------------------------------------------- pictures


def test_pictures_show_policy_and_reference() -> None:
    made = task()
    rows = made.generate(2, "test", seeds.rng(0, "t"))
    policy = made.references()["standing"]
    drawn = made.draw(policy, rows, seeds.rng(0, "d"))
    assert set(drawn) == set(made.captions)
    film = Image.open(io.BytesIO(made.animate(policy, rows, seeds.rng(0, "d"))))
    assert film.n_frames == 13  # half a second at 25 Hz, and the first
    robot = made.world.robot
    pose = robot.to_qpos(
        np.array([[0, 0, robot.standing_height]]), np.array([[1.0, 0, 0, 0]]), robot.home[None]
    )[0]
    picture = np.asarray(view.film_frame(robot, pose, pose, (480, 300)), int)
    orange = (picture[..., 0] - picture[..., 2] > 100).any(-1)
    assert 40 < orange.sum() < 200  # the trunk of the policy's robot, in colour


def test_a_higher_point_is_drawn_higher_and_a_nearer_one_is_nearer() -> None:
    camera = view.Camera(-90.0, 0.0, 100.0, (200, 100), np.zeros(3))
    pixels, near = camera.project(np.array([[0.0, 0, 0], [0, 0, 0.2], [0.3, 0, 0], [0, -1, 0]]))
    # from -y, x is to the right, z up: 100 pixels a metre about the middle (100, 50)
    assert pixels[:3] == pytest.approx(np.array([[100.0, 50], [100, 30], [130, 50]]))
    assert near[3] == pytest.approx(1.0)
