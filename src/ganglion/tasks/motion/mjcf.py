"""MJCF files of others: looked through, compiled in a child process, taken as a compiled model.

What a file may refer to lies in its own folder; plug-ins, document types and entities are refused,
sizes are capped. The child also makes what the product adds: a floor where there is none, sensors
of foot contact and torque, and the planar root.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import mujoco
import numpy as np

from ganglion.core.errors import DataError
from ganglion.importers.confinement import Limits, confined

_LARGEST_XML = 4 << 20
_LARGEST_ASSETS = 128 << 20
_MOST_FILES = 300
_MOST = {"nbody": 300, "njnt": 200, "ngeom": 3_000, "nu": 200, "nmeshvert": 2_000_000}
_LARGEST_ARENA = 512 << 20
_SUFFIXES = {".xml", ".mjcf", ".stl", ".obj", ".msh", ".png", ".skn", ".hf"}
_FORBIDDEN = {"plugin", "extension", "attach", "model", "flexcomp", "composite"}
_FOLDERS = ("meshdir", "texturedir", "assetdir")


def compile_file(path: Path, planar: bool = False) -> mujoco.MjModel:
    """Compile an MJCF file of a user; DataError in one sentence where it is refused."""
    files = _gather(path)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.comment = json.dumps({"main": path.name, "planar": planar}).encode()
    limits = Limits(seconds=60, given=2 * _LARGEST_ASSETS, written=Limits.answer)
    made = confined("ganglion.tasks.motion.mjcf:compiled", packed.getvalue(), limits, str(path))
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "model.mjb"
        binary.write_bytes(made)
        return mujoco.MjModel.from_binary_path(str(binary))


def compile_own(path: Path, planar: bool = False) -> mujoco.MjModel:
    """Compile an MJCF file that comes with the product, in this process."""
    return finished(mujoco.MjSpec.from_file(str(path)), planar).compile()


# ---------------------------------------------------------------- looking through


def _gather(path: Path) -> dict[str, bytes]:
    """Return every file that `path` refers to, by its path inside the folder of `path`."""
    root = path.resolve().parent
    found: dict[str, bytes] = {}
    waiting = [(path.name, True)]
    while waiting:
        name, is_xml = waiting.pop()
        if name in found:
            continue
        found[name] = _read(root, name, path)
        if len(found) > _MOST_FILES or sum(map(len, found.values())) > _LARGEST_ASSETS:
            raise DataError(
                f"{path} refers to more than {_MOST_FILES} files or {_LARGEST_ASSETS:,} bytes."
            )
        if is_xml:
            waiting += _references(found[name], path, name)
    return found


def _read(root: Path, name: str, path: Path) -> bytes:
    try:
        whole = (root / name).resolve()
    except (OSError, RuntimeError, ValueError):  # links that lead in a circle
        raise DataError(f"{path} refers to {name!r}, which is no file.") from None
    if PurePosixPath(name).is_absolute() or not whole.is_relative_to(root):
        raise DataError(f"{path} refers to {name!r}, outside of its own folder.")
    if whole.suffix.lower() not in _SUFFIXES:
        raise DataError(f"{path} refers to {name!r}; only {_listed(_SUFFIXES)} are read.")
    try:
        if whole.stat().st_size > _LARGEST_ASSETS:
            raise DataError(f"{name} has over {_LARGEST_ASSETS:,} bytes.")
        return whole.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read {whole}: {error.strerror}.") from error


def _references(data: bytes, path: Path, name: str) -> list[tuple[str, bool]]:
    """Return (file, is it XML) for every reference of one XML file."""
    if len(data) > _LARGEST_XML:
        raise DataError(f"{name} has {len(data):,} bytes; at most {_LARGEST_XML:,} are read.")
    lowered = data.lower()
    if b"<!doctype" in lowered or b"<!entity" in lowered:
        raise DataError(f"{name} declares a document type or entities, which are not read.")
    try:
        tree = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise DataError(f"{name} is no XML: {error}.") from error
    if tree.tag not in ("mujoco", "mujocoinclude"):
        raise DataError(f"{name} is no MJCF: its root is <{tree.tag}>, not <mujoco>.")
    folders = {k: c.get(k) for c in tree.iter("compiler") for k in _FOLDERS if c.get(k)}
    found = []
    for element in tree.iter():
        if element.tag in _FORBIDDEN or element.get("plugin"):
            raise DataError(f"{path} uses <{element.tag}>, which is not allowed here.")
        files = [v for k, v in element.attrib.items() if k == "file" or k.startswith("file")]
        for file in files:
            base = ""
            if element.tag in ("mesh", "skin", "hfield"):
                base = folders.get("meshdir") or folders.get("assetdir") or ""
            elif element.tag == "texture":
                base = folders.get("texturedir") or folders.get("assetdir") or ""
            if ":" in file:
                raise DataError(f"{path} refers to {file!r}; only files of its folder are read.")
            found.append((str(PurePosixPath(base) / file), element.tag == "include"))
    return found


# ---------------------------------------------------------------- compiling (in the child)


def compiled(packed: bytes) -> bytes:
    """Return the compiled model (MJB) of a packed folder; ValueError where it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            about = json.loads(archive.comment)
            for name in archive.namelist():
                target = Path(folder) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
        try:
            spec = mujoco.MjSpec.from_file(str(Path(folder) / about["main"]))
            model = finished(spec, about["planar"]).compile()
        except ValueError as error:
            raise ValueError(str(error).replace(folder, "").strip()) from None
        _check_size(model)
        path = Path(folder) / "model.mjb"
        mujoco.mj_saveModel(model, str(path), None)
        return path.read_bytes()


def _check_size(model: mujoco.MjModel) -> None:
    for name, most in _MOST.items():
        if getattr(model, name) > most:
            raise ValueError(f"the model has {name} = {getattr(model, name)}; at most {most}.")
    if model.narena > _LARGEST_ARENA:
        raise ValueError(f"the model asks for {model.narena:,} bytes of memory.")


def finished(spec: Any, planar: bool) -> Any:
    """Return `spec` with floor, sensors and, where wanted, a root that moves in x and z only."""
    if not any(g.type == mujoco.mjtGeom.mjGEOM_PLANE for g in spec.worldbody.geoms):
        spec.worldbody.add_geom(
            name="ganglion_floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05],
            contype=1, conaffinity=1,
        )  # fmt: skip
    for i, actuator in enumerate(spec.actuators):
        actuator.name = actuator.name or f"actuator_{i}"
        spec.add_sensor(
            name=f"ganglion_torque_{actuator.name}", type=mujoco.mjtSensor.mjSENS_ACTUATORFRC,
            objtype=mujoco.mjtObj.mjOBJ_ACTUATOR, objname=actuator.name,
        )  # fmt: skip
    for body in _leaves(spec.worldbody):
        sensor = spec.add_sensor(
            name=f"ganglion_contact_{body.name}", type=mujoco.mjtSensor.mjSENS_CONTACT,
            objtype=mujoco.mjtObj.mjOBJ_BODY, objname=body.name,
        )  # fmt: skip
        sensor.intprm = [2, 3, 1]  # force; net force of all contacts; one slot
    if planar:
        _make_planar(spec)
    return spec


def _leaves(body: Any) -> Sequence[Any]:
    """Return the named bodies without children below `body`, those that can be feet."""
    if body.bodies:
        return [leaf for child in body.bodies for leaf in _leaves(child)]
    return [body] if body.name and body.name != "world" else []


def _make_planar(spec: Any) -> None:
    free = [j for j in spec.joints if j.type == mujoco.mjtJoint.mjJNT_FREE]
    if len(free) != 1:
        raise ValueError(f"a planar robot needs one free root; the model has {len(free)}.")
    body = free[0].parent
    spec.delete(free[0])
    for key in spec.keys:  # a free root has seven coordinates, this one x, z and pitch
        q = np.asarray(key.qpos)
        key.qpos = [q[0], q[2], 0.0, *q[7:]] if q.size else []
        key.qvel = []
    body.pos = [0.0, 0.0, 0.0]
    slide, hinge = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
    for name, kind, axis in (
        ("root_x", slide, [1, 0, 0]), ("root_z", slide, [0, 0, 1]), ("root_pitch", hinge, [0, 1, 0])
    ):  # fmt: skip
        joint = body.add_joint(name=f"ganglion_{name}", type=kind, axis=axis)
        for drag in ("damping", "armature", "frictionloss", "stiffness"):  # not the default's
            setattr(joint, drag, np.zeros_like(getattr(joint, drag)))


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def digest(path: Path) -> str:
    """Return the SHA-256 over an MJCF file and all it refers to."""
    total = hashlib.sha256()
    for name, data in sorted(_gather(path).items()):
        total.update(name.encode() + b"\0" + hashlib.sha256(data).digest())
    return total.hexdigest()
