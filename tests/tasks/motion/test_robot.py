"""Robots: kinematics against MuJoCo, coordinates, feet, and what is refused."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from ganglion.core.errors import DataError, SettingsError
from ganglion.tasks.motion import robot, rotations
from ganglion.tasks.motion.kinematics import matrix_of

BIPED = robot.builtin("minibiped")
HEAD = '<mujoco model="m"><worldbody><body name="b" pos="0 0 1"><freejoint/>'
LINK = (
    '<geom size=".1"/><body name="leg"><joint name="j" axis="0 1 0" range="-1 1" limited="true"/>'
    '<geom type="capsule" fromto="0 0 0 0 0 -.4" size=".02"/></body></body></worldbody>'
)
SERVO = '<actuator><position name="a" joint="j" kp="5" ctrlrange="-1 1"/></actuator></mujoco>'


BOX = '<body name="box" pos="2 0 .1"><geom type="box" size=".1 .1 .1"/></body></worldbody>'
DOOR = (
    '<body name="door" pos="2 0 1"><joint name="hinge" axis="0 0 1"/><geom size=".1"/></body>'
    "</worldbody>"
)


def with_part(part: str) -> str:
    return HEAD.replace("<world", part + "<world") + LINK + SERVO


def states(made: robot.Robot, count: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    place = rng.normal(size=(count, 3))
    quat = rotations.normalised(rng.normal(size=(count, 4)))
    if made.root == "planar":
        place[:, 1] = 0.0
        quat = rotations.about_y(rng.uniform(-3.0, 3.0, count))
    return place, quat, rng.uniform(-1.0, 1.0, (count, len(made.joints)))


@pytest.mark.parametrize("name", ["minibiped", "miniquad"])
@pytest.mark.parametrize("planar", [False, True])
def test_kinematics_are_those_of_mujoco(name: str, planar: bool) -> None:
    made = robot.builtin(name, planar)
    place, quat, joints = states(made)
    found, turned = made.kinematics(place, matrix_of(quat), joints)
    data = mujoco.MjData(made.model)
    for i, q in enumerate(made.to_qpos(place, quat, joints)):
        data.qpos[:] = q
        mujoco.mj_kinematics(made.model, data)
        assert found[i] == pytest.approx(data.xpos[list(made.bodies)], abs=1e-12)
        wanted = data.xmat[list(made.bodies)].reshape(-1, 3, 3)
        assert turned[i] == pytest.approx(wanted, abs=1e-12)


def test_kinematics_follow_slides_anchors_and_turned_bodies(tmp_path: Path) -> None:
    xml = (
        HEAD + '<geom size=".1"/><body name="c" pos=".1 .2 .3" euler="20 40 60">'
        '<joint name="s" type="slide" axis="0 1 1"/><joint name="h" axis="1 1 0" pos=".1 0 .2"/>'
        '<geom size=".05"/><body name="d" pos="0 .1 0" euler="0 0 30"><geom size=".02"/>'
        '<body name="e"><joint name="k" axis="0 0 1" ref="10"/><geom size=".02" pos="0 0 -.3"/>'
        '</body></body></body></body></worldbody><actuator><position joint="s"/>'
        '<position joint="h"/><position joint="k"/></actuator></mujoco>'
    )
    (tmp_path / "odd.xml").write_text(xml)
    made = robot.of_file(tmp_path / "odd.xml")
    place, quat, joints = states(made)
    found, _ = made.kinematics(place, matrix_of(quat), joints)
    data = mujoco.MjData(made.model)
    for i, q in enumerate(made.to_qpos(place, quat, joints)):
        data.qpos[:] = q
        mujoco.mj_kinematics(made.model, data)
        assert found[i] == pytest.approx(data.xpos[list(made.bodies)], abs=1e-12)


def test_torch_and_numpy_agree_on_feet() -> None:
    place, quat, joints = states(BIPED)
    numbers = BIPED.foot_frames(place, quat, joints)
    tensors = BIPED.foot_frames(*(torch.from_numpy(a) for a in (place, quat, joints)))
    assert tensors[0].numpy() == pytest.approx(numbers[0])
    assert BIPED.lowest(*tensors).numpy() == pytest.approx(BIPED.lowest(*numbers))
    assert BIPED.sole_centres(*tensors).numpy() == pytest.approx(BIPED.sole_centres(*numbers))


def test_coordinates_and_velocities_come_back() -> None:
    for planar in (False, True):
        made = robot.builtin("minibiped", planar)
        place, quat, joints = states(made)
        back = made.of_qpos(made.to_qpos(place, quat, joints))
        assert back[0] == pytest.approx(place)
        assert rotations.angle_between(back[1], quat) == pytest.approx(np.zeros(20), abs=1e-7)
        linear, angular = place * [1.0, 1.0 - planar, 1.0], np.zeros((20, 3))
        angular[:, 1] = 0.3
        again = made.of_qvel(made.to_qvel(linear, angular, joints))
        assert again[0] == pytest.approx(linear)
        assert again[1] == pytest.approx(angular)


def test_the_biped_is_what_its_page_says() -> None:
    # trunk .93, per leg hip .06 + .06, thigh .15, shin .14, foot .11: .93 + 2 * .52 = 1.97 kg
    assert BIPED.model.body_mass.sum() == pytest.approx(1.97)
    assert BIPED.foot_names == ("left_foot", "right_foot")
    # hip .06 below the root, legs of .1 + .1 bent to .18, soles .035 below the ankle
    assert BIPED.standing_height == pytest.approx(0.06 + 0.18 + 0.035, abs=1e-6)
    assert BIPED.stiffness == pytest.approx(np.full(10, 17.8))
    assert BIPED.damping == pytest.approx(np.full(10, 0.6))
    assert BIPED.sole_middle[0] == pytest.approx([0.012, 0.0, -0.035], abs=1e-6)


def test_a_standing_biped_stays_on_its_feet() -> None:
    from ganglion.tasks.motion.physics import Rates, RolloutPhysics

    physics = RolloutPhysics(BIPED, 1, Rates(), sensing=True)
    start = BIPED.to_qpos(
        np.array([[0.0, 0.0, BIPED.standing_height]]), np.array([[1.0, 0, 0, 0]]), BIPED.home[None]
    )
    physics.reset(np.array([0]), start, np.zeros((1, BIPED.model.nv)))
    for _ in range(100):
        physics.step(BIPED.home[None])
    assert rotations.up(BIPED.of_qpos(physics.qpos)[1])[0, 2] > 0.99
    # weight 1.97 * 9.81 = 19.3 N on two soles
    assert physics.foot_force.sum() == pytest.approx(1.97 * 9.81, rel=0.05)


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        ("<mujoco>", "is no XML"),
        ("<robot/>", "its root is <robot>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><mujoco/>', "document type or entities"),
        (HEAD + LINK + "</mujoco>", "no position actuators"),
        (HEAD.replace("<freejoint/>", "") + LINK + SERVO, "0 free joints"),
        (HEAD + LINK + SERVO.replace("position", "motor").replace(' kp="5"', ""),
         "no position actuator"),
        (HEAD + LINK + SERVO.replace('kp="5"', 'kp="5" gear="2"'), "no position actuator"),
        (HEAD + LINK + SERVO.replace('range="-1 1"/>', 'range="-1 1"/><position joint="j"/>'),
         "two actuators"),
        (HEAD + '<include file="/etc/passwd"/>' + LINK + SERVO, "outside of its own folder"),
        (HEAD + '<include file="../up.xml"/>' + LINK + SERVO, "outside of its own folder"),
        (with_part('<asset><mesh file="http://x/y.stl"/></asset>'), "only files of its folder"),
        (with_part('<asset><mesh file="y.txt"/></asset>'), r"only .*stl.* are read"),
        (with_part('<asset><mesh file="no.stl"/></asset>'), r"Cannot read .*no\.stl"),
        (with_part('<extension><plugin plugin="p"/></extension>'), "uses <extension>"),
        (with_part('<size memory="9G"/>'), "memory"),
        (HEAD + LINK.replace('axis="0 1 0" range="-1 1" limited="true"', 'type="ball"') + SERVO,
         "no hinge and no slide"),
        (HEAD + LINK.replace('name="leg"', 'name="leg" colour="red"') + SERVO, "colour"),
        (with_part('<option gravity="nan 0 0"/>'), "no finite number|nan"),
        (HEAD + LINK.replace("</worldbody>", DOOR) + SERVO, "'hinge' is no part of the robot"),
        (HEAD.replace("<freejoint/>", '<freejoint name="f"/>') + LINK + SERVO.replace(
            'range="-1 1"/>', 'range="-1 1"/><position joint="f" kp="1"/>'), "drives the root"),
    ],
)  # fmt: skip
def test_what_is_no_robot_is_refused_in_one_sentence(xml: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "up.xml").write_text("<mujocoinclude/>")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "bad.xml").write_text(xml)
    with pytest.raises(DataError, match=said):
        robot.of_file(inner / "bad.xml")


def test_what_physics_says_of_a_file_is_not_logged_into_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.xml").write_text(with_part('<option gravity="nan 0 0"/>'))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError):
        robot.of_file(Path("bad.xml"))
    assert [p.name for p in tmp_path.iterdir()] == ["bad.xml"]


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.xml").write_text("<mujocoinclude/>")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "link.xml").symlink_to(tmp_path / "secret.xml")
    (inner / "bad.xml").write_text(HEAD + '<include file="link.xml"/>' + LINK + SERVO)
    with pytest.raises(DataError, match="outside of its own folder"):
        robot.of_file(inner / "bad.xml")


def test_a_good_file_becomes_a_robot_with_a_floor_and_its_own_digest(tmp_path: Path) -> None:
    path = tmp_path / "good.xml"
    path.write_text(HEAD + LINK + SERVO)
    made = robot.of_file(path)
    assert made.joints == ("j",)
    assert made.foot_names == ("leg",)
    planes = made.model.geom_type == int(mujoco.mjtGeom.mjGEOM_PLANE)
    assert planes.sum() == 1
    before = made.digest
    path.write_text(HEAD + LINK.replace("-.4", "-.5") + SERVO)
    assert robot.of_file(path).digest != before


def test_an_unknown_robot_or_foot_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="minibiped"):
        robot.builtin("minibipet")
    (tmp_path / "good.xml").write_text(HEAD + LINK + SERVO)
    with pytest.raises(SettingsError, match="Did you mean 'leg'"):
        robot.of_file(tmp_path / "good.xml", feet=("legs",))


def test_what_stands_in_the_scene_is_no_foot(tmp_path: Path) -> None:
    (tmp_path / "scene.xml").write_text(HEAD + LINK.replace("</worldbody>", BOX) + SERVO)
    assert robot.of_file(tmp_path / "scene.xml").foot_names == ("leg",)
    with pytest.raises(SettingsError, match="Unknown foot 'box'"):
        robot.of_file(tmp_path / "scene.xml", feet=("box",))
    with pytest.raises(SettingsError, match="Unknown foot 'world'"):
        robot.of_file(tmp_path / "scene.xml", feet=("world",))


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").symlink_to(tmp_path / "b.xml")
    (tmp_path / "b.xml").symlink_to(tmp_path / "a.xml")
    (tmp_path / "bad.xml").write_text(HEAD + '<include file="a.xml"/>' + LINK + SERVO)
    with pytest.raises(DataError, match=r"refers to 'a\.xml', which is no file|Cannot read"):
        robot.of_file(tmp_path / "bad.xml")
