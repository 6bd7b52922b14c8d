"""MuJoCo Warp behind the same interface; runs where the package is, on Warp's CPU device too."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from layouts import BIPED

from ganglion.core.errors import ServiceError
from ganglion.tasks.motion.physics import Rates, RolloutPhysics


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ganglion.tasks.motion.warp_physics import WarpPhysics

    monkeypatch.setitem(sys.modules, "mujoco_warp", None)
    with pytest.raises(ServiceError, match="pip install mujoco-warp"):
        WarpPhysics(BIPED, 2, Rates(), "cpu")


def test_warp_moves_as_the_c_engine_does_and_goes_on_from_a_state() -> None:
    pytest.importorskip("mujoco_warp")
    from ganglion.tasks.motion.warp_physics import WarpPhysics

    ours, theirs = WarpPhysics(BIPED, 4, Rates(), "cpu"), RolloutPhysics(BIPED, 4, Rates())
    place = np.tile([0.0, 0.0, BIPED.standing_height], (4, 1))
    home = np.tile(BIPED.home, (4, 1))
    qpos = BIPED.to_qpos(place, np.tile([1.0, 0, 0, 0], (4, 1)), home)
    for physics in (ours, theirs):
        physics.reset(np.arange(4), qpos, np.zeros((4, BIPED.model.nv)))  # type: ignore[attr-defined]
        for t in range(20):
            physics.step(home + 0.05 * np.sin(0.3 * t))  # type: ignore[attr-defined]
    assert ours.qpos.numpy() == pytest.approx(theirs.qpos, abs=1e-4)  # float32 against float64
    kept = ours.state()
    ours.step(home)
    after = ours.qpos.clone()
    ours.set_state(kept)
    ours.step(home)
    assert (ours.qpos == after).all()
