"""Where a cartpole's solver begins: energy is pumped in, remembered policies swing up."""

from __future__ import annotations

import numpy as np

from ganglion.tasks.control import oracle
from ganglion.tasks.control.evaluation import ARRIVED
from ganglion.tasks.control.plant import Cartpole
from ganglion.tasks.control.plants import swings
from ganglion.tasks.control.riccati import tracking_gains

PLANT = Cartpole(120, 0.05)


def starts(count: int) -> np.ndarray:
    return PLANT.sample_starts(np.random.default_rng(2), count)


def test_pumping_lifts_a_hanging_pole() -> None:
    x0, gain = np.array([[0.0, np.pi, 0.0, 0.0]]), tracking_gains(PLANT, 200)[0][:, :4]
    controls = swings.pumped(PLANT, x0, gain, *swings.PUMPS[0])
    angle = PLANT.rollout(x0, controls)[0, :, 1]
    assert np.cos(angle).max() > 0.9
    assert (PLANT.excess(controls) <= 0).all()


def test_remembered_policies_swing_up_from_everywhere() -> None:
    x0 = starts(40)
    for controls in swings.recalled(PLANT, x0):
        states = PLANT.rollout(x0, controls)
        upright = PLANT.arrival(states, np.zeros_like(x0), ((1,), (3,)))
        assert (upright < ARRIVED).mean() >= 0.97
        assert (PLANT.excess(controls) <= 0).all()


def test_the_best_known_arrives_and_beats_every_guess() -> None:
    x0 = starts(4)
    target = np.zeros_like(x0)
    best = oracle.solve(PLANT, x0, target)
    assert (PLANT.arrival(best.states, target) < ARRIVED).all()
    for guess in PLANT.guesses(x0, target):
        assert (best.cost <= PLANT.cost(PLANT.rollout(x0, guess), guess, target)).all()
