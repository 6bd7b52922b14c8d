"""The landing plan: a net proposes, a few Newton steps inside the module make it land.

The net gives the final time and a primer vector for each part; throttle and direction follow from
it, so the thrust bound holds by construction. Newton steps move the six numbers that shift and tilt
the primer until the accelerations meet the terminal constraints, and a projection in closed form
removes the rest. Where the net's final time leads to no landing, a longer one is taken. Shapes:
B cases, N parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from ganglion.nets.mlp import Mlp
from ganglion.tasks.control.rocket.world import START_BOX, Rocket, magnitude

_CLEARANCE = 3e-4  # share of the thrust bound kept free for the last projection
_TRIED = (1.0, 1.04, 1.15, 1.3)  # final times, in the net's own; the first that lands is taken
_SMALL_M_S = 0.02  # what the projection may move within the clearance
_GUESS, _PROFILE = 1.2, 1.2  # bounds of the net's guess, and of its profile as a share of that
_LARGEST = 4.0  # of the six numbers; they grow beyond where the final time is too short
_TRUST = 0.5  # longest Newton step
_TILT = math.sqrt(12.0)  # gives the second row of the basis a mean square of 1
_REACH = 1.5  # states are clamped to this many start boxes
_LIGHTEST, _HEAVIEST = 1_200.0, 2_800.0  # kg


class Plan(nn.Module):
    """state (B, 7) -> controls (B, N, 3) in m/s^2, final_time_s (B, 1).

    newton is the number of corrections; sharpness how steeply the throttle opens as the primer
    vector grows beyond 1.
    """

    unit: Tensor
    middle: Tensor
    low: Tensor
    high: Tensor
    basis: Tensor
    shares: Tensor

    def __init__(
        self, rocket: Rocket, hidden: Sequence[int], newton: int, sharpness: float
    ) -> None:
        super().__init__()
        self.rocket, self.newton, self.sharpness = rocket, newton, sharpness
        steps = rocket.num_steps
        self.net = Mlp((6, *hidden, 7 + 3 * steps), output_gain=0.1)
        box = START_BOX
        half = 0.5 * (box[:, 1] - box[:, 0])
        low = box.mean(1) - _REACH * half
        high = box.mean(1) + _REACH * half
        low[2], low[6], high[6] = 0.0, _LIGHTEST, _HEAVIEST
        shares = rocket.shares()
        tilt = _TILT * (shares - 0.5)
        for name, value in {
            "low": low, "high": high, "unit": half, "middle": box.mean(1), "shares": shares,
            "basis": np.stack([np.ones(steps), tilt]),
        }.items():  # fmt: skip
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32))

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the plan; see the class."""
        state = torch.minimum(torch.maximum(state, self.low), self.high)
        t, y, profile = self.propose(state)
        tries = len(_TRIED)
        many = state.repeat(tries, 1), torch.cat([t * f for f in _TRIED]), y.repeat(tries, 1, 1)
        plans, landed = self.plan(*many, profile.repeat(tries, 1, 1))[:2]
        # where none lands, what the net says is flown as far as it goes: Newton's end is arbitrary
        controls, final_time_s = self._thrust(state, t, y, profile).controls, t
        plans, landed = (x.unflatten(0, (tries, -1)) for x in (plans, landed))
        for i in reversed(range(tries)):
            controls = torch.where(landed[i].unsqueeze(-1), plans[i], controls)
            final_time_s = torch.where(landed[i], _TRIED[i] * t, final_time_s)
        return self.limit(state, final_time_s, controls), final_time_s

    def plan(
        self, state: Tensor, t: Tensor, y: Tensor, profile: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Make a proposal land: controls (B, N, 3), whether they do (B, 1), what the projection

        had to move (B,) in m/s, and the corrected y.
        """
        moved = self.correct(state, t, y, profile)
        controls = self._thrust(state, t, moved, profile).controls
        missing = self.residual(state, t, controls).abs().sum((1, 2))
        controls = self.project(state, t, controls)
        lowest = self.rocket.fly(state, controls, t).position[:, 1:-1, 2].amin(1)
        landed = (missing < _SMALL_M_S) & (lowest > 0.0)
        return controls, landed.unsqueeze(-1), missing, moved

    def propose(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ask the net: final_time_s (B, 1), y (B, 2, 3), profile (B, N, 3).

        In the frame that has the start above the x axis, with the sideways components in proportion
        to the sideways speed: landings turn and mirror with their starts, so the net need not learn
        it.
        """
        xy, v = state[:, :2], state[:, 3:5]
        away = magnitude(xy).unsqueeze(-1)
        east = torch.tensor([1.0, 0.0], device=xy.device)
        forward = torch.where(away > 1.0, xy / away.clamp(min=1.0), east)  # (B, 2)
        left = torch.stack([-forward[:, 1], forward[:, 0]], -1)
        speed = (v * forward).sum(-1, keepdim=True) / self.unit[3]
        across = (v * left).sum(-1, keepdim=True) / self.unit[3]
        rest = (state - self.middle) / self.unit
        seen = torch.cat(
            [away / self.unit[0], speed, across * across, rest[:, 2:3], rest[:, 5:7]], -1
        )
        out = self.net(seen)
        first_guess_s = 25.0 + state[:, 2:3] / 90.0
        final_time_s = first_guess_s * torch.exp(out[:, :1].clamp(-1.5, 1.0))
        primer = _GUESS * torch.tanh(out[:, 1:]).unflatten(-1, (-1, 3))
        primer = torch.stack([primer[..., 0], primer[..., 1] * across, primer[..., 2]], -1)
        flat = forward.unsqueeze(1) * primer[..., :1] + left.unsqueeze(1) * primer[..., 1:2]
        turned = torch.cat([flat, primer[..., 2:]], -1)
        up = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]], device=xy.device)
        return final_time_s, turned[:, :2] + up, _PROFILE * turned[:, 2:]

    def steepness(self, y: Tensor, profile: Tensor) -> Tensor:
        """Return the length of each case's longest primer vector, (B,)."""
        return self._primer(y, profile)[1].amax(1)

    def correct(self, state: Tensor, t: Tensor, y: Tensor, profile: Tensor) -> Tensor:
        """Move y by Newton steps towards the terminal constraints; gradients as at the solution.

        Only the last step carries a gradient, with its matrix held constant: at the solution that
        is the implicit function theorem's derivative.
        """
        if torch.compiler.is_exporting():  # one Loop instead of thousands of nodes
            return self._loop(state, t, y, profile)
        with torch.no_grad():
            for _ in range(self.newton - 1):
                y = self._step(state, t, y, profile)
        return self._step(state, t, y.detach(), profile)

    def _loop(self, state: Tensor, t: Tensor, y: Tensor, profile: Tensor) -> Tensor:
        def more(i: Tensor, y: Tensor) -> Tensor:
            return i < self.newton

        def body(i: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return i + 1, self._step(state, t, y, profile)

        zero = torch.zeros((), dtype=torch.int64, device=y.device)
        last: Tensor = while_loop(more, body, (zero, y.clone()))[1]
        return last

    def project(self, state: Tensor, t: Tensor, controls: Tensor) -> Tensor:
        """Return the nearest accelerations that land, in closed form.

        The basis is orthogonal, so least squares adds (residual / t_f) along each of its rows.
        """
        norms = (self.basis * self.basis).mean(1)[:, None]
        shift = self.residual(state, t, controls) / (t[:, :, None] * norms)
        return controls + torch.einsum("ik,bix->bkx", self.basis, shift)

    def residual(self, state: Tensor, t: Tensor, controls: Tensor) -> Tensor:
        """Return what is missing to land, (B, 2, 3) in m/s, along the rows of the basis."""
        required = self.rocket.terminal(state, t)
        tilt = _TILT * (required[:, 1] - 0.5 * required[:, 0])
        wanted = torch.stack([required[:, 0], tilt], 1)
        return wanted - (t[:, :, None] / self.rocket.num_steps) * (self.basis @ controls)

    def limit(self, state: Tensor, t: Tensor, controls: Tensor) -> Tensor:
        """Shorten accelerations beyond the thrust bound: only plans that cannot land have any."""
        wanted = magnitude(controls).unsqueeze(-1) + 1e-12
        limited = controls
        for _ in range(4):  # shorter accelerations leave more mass; the bounds fall to their limit
            mass = self.rocket.masses(state, limited, t)[:, :-1, None]
            share = (1.0 - 1e-6) * self.rocket.thrust / (mass * wanted)
            limited = controls * share.clamp(max=1.0)
        return limited

    def _thrust(self, state: Tensor, t: Tensor, y: Tensor, profile: Tensor) -> _Burn:
        primer, size = self._primer(y, profile)
        throttle = torch.sigmoid((size - 1.0) * self.sharpness)
        most = (1.0 - _CLEARANCE) * self.rocket.thrust / state[:, 6:7]
        spent = t / (self.rocket.num_steps * self.rocket.exhaust)
        used = throttle * most * spent
        mass = 1.0 - (used.cumsum(1) - used)  # to first order in a part
        for _ in range(2):
            drop = used / mass
            mass = torch.exp(drop - drop.cumsum(1))
        return _Burn(most / mass, throttle, primer / size.unsqueeze(-1), size, mass)

    def _primer(self, y: Tensor, profile: Tensor) -> tuple[Tensor, Tensor]:
        primer = torch.einsum("ik,bix->bkx", self.basis, y) + profile
        return primer, (primer * primer).sum(-1).add(1e-8).sqrt()

    def _step(self, state: Tensor, t: Tensor, y: Tensor, profile: Tensor) -> Tensor:
        burn = self._thrust(state, t, y, profile)
        residual = (self.residual(state, t, burn.controls) / t[:, :, None]).flatten(1)
        with nullcontext() if torch.compiler.is_exporting() else torch.no_grad():
            damping = 1e-3 + 0.05 * residual.abs().sum(-1)
            damped = damping[:, None, None] * torch.eye(6, device=t.device)
            inverse = _inverse(self._jacobian(t, burn) + damped)
        step = (inverse @ residual.unsqueeze(-1)).squeeze(-1)
        long = (step.detach().square().sum(-1, keepdim=True) + 1e-12).sqrt()
        share = (_TRUST / long).clamp(max=1.0)
        return (y + (share * step).reshape(-1, 2, 3)).clamp(-_LARGEST, _LARGEST)

    def _jacobian(self, t: Tensor, burn: _Burn) -> Tensor:
        """Return what the mean acceleration along the basis gains from y, (B, 6, 6).

        A longer burn also lightens the lander for all later parts, d|a_k| = s_k u_k.dp_k +
        |a_k| (h / c) sum_{j<k} d|a_j|, whose sum is q_k = sum_{j<k} m_{j+1} s_j u_j.dp_j / m_k.
        Without that term the final times that training finds are a tenth too short.
        """
        steps, length = self.rocket.num_steps, burn.bound * burn.throttle
        along = length * (1.0 - burn.throttle) * self.sharpness
        across = length / burn.size
        eye = torch.eye(3, device=t.device)
        outer = burn.unit.unsqueeze(-1) * burn.unit.unsqueeze(-2)
        j = (along - across)[..., None, None] * outer + across[..., None, None] * eye
        tilt = self.basis[1]
        powers = torch.stack([tilt * 0.0 + 1.0, tilt, tilt * tilt]) / steps
        m = torch.einsum("pk,bkx->bpx", powers, j.flatten(2)).unflatten(-1, (3, 3))
        top = torch.cat([m[:, 0], m[:, 1]], 2)
        straight = torch.cat([top, torch.cat([m[:, 1], m[:, 2]], 2)], 1)
        flow = t / (steps * self.rocket.exhaust)
        units = torch.cat([burn.unit, tilt[:, None] * burn.unit], -1)  # (B, N, 6)
        next_mass = burn.mass * torch.exp(-flow * length)
        gained = (next_mass * along).unsqueeze(-1) * units
        lighter = (gained.cumsum(1) - gained) / burn.mass.unsqueeze(-1)
        later = (flow * length).unsqueeze(-1) * units
        return straight + torch.einsum("bki,bkj->bij", later, lighter) / steps


@dataclass(frozen=True)
class _Burn:
    """Each part's largest acceleration, throttle, direction; |p| and mass over the start's."""

    bound: Tensor  # (B, N) in m/s^2
    throttle: Tensor  # (B, N) in 0..1
    unit: Tensor  # (B, N, 3)
    size: Tensor  # (B, N)
    mass: Tensor  # (B, N)

    @property
    def controls(self) -> Tensor:
        return (self.throttle * self.bound).unsqueeze(-1) * self.unit


def _inverse(matrix: Tensor) -> Tensor:
    """Invert positive definite matrices (B, n, n) by elimination without pivots, in plain ops."""
    size = matrix.shape[-1]
    eye = torch.eye(size, device=matrix.device)
    wide = torch.cat([matrix, eye.expand_as(matrix)], 2)
    for i in range(size):
        row = wide[:, i : i + 1] / wide[:, i : i + 1, i : i + 1]
        others = 1.0 - eye[:, i : i + 1]
        wide = others * (wide - wide[:, :, i : i + 1] * row) + eye[:, i : i + 1] * row
    return wide[:, :, size:]
