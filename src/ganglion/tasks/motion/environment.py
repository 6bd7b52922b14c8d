"""Many robots that practise a motion, as a vectorised environment for reinforcement learning.

Episodes begin at random frames of the reference, more often where clips of some length are failed;
they end when the robot no longer tracks, when a clamped clip ends, or by time. Shapes: N robots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ganglion.rl.environment import Step
from ganglion.tasks.motion import mdp, style
from ganglion.tasks.motion.mdp import Rules, Situation
from ganglion.tasks.motion.physics import Physics
from ganglion.tasks.motion.reference import Pose, Reference, pose_of
from ganglion.tasks.motion.starts import Noise, sensor_noise, start

_BINS_S = 0.5  # length of a bin of starts
_FADE = 0.995  # of a bin's failures per step of the environments
_LONG_S = 4.0  # clips longer than this are practised where they fail
_STOCK = 128  # beginnings that are prepared at once
_UNIFORM = 0.3  # share of starts that are spread evenly all the same


@dataclass(frozen=True)
class Practice:
    """How episodes go: their length in steps, and what disturbs them.

    start and sensor are factors on the noise of starts and of what is seen; offset is how far in m
    a start is off the reference's place; latency is the steps by which a target may come late; push
    is the speed in m/s of kicks, one about every `push_steps`.
    """

    steps: int = 500
    start: float = 1.0
    sensor: float = 0.0
    latency: int = 0
    push: float = 0.0
    push_steps: int = 200
    offset: float = 0.0


class TrackingEnvironment:
    """N robots and their places in the reference; a `VectorEnvironment`."""

    def __init__(
        self, physics: Physics, reference: Reference, rules: Rules, practice: Practice,
        seen: Rules, rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self._physics, self._reference, self._practice = physics, reference, practice
        self._rules, self._seen = rules, seen  # what the critic and what the actor sees
        self.count = len(physics.qpos)
        self._device = getattr(physics.qpos, "device", torch.device("cpu"))
        self._resident = isinstance(physics.qpos, Tensor)  # else NumPy arrays on the CPU
        self.observations, self.privileged = seen.layout.size, rules.layout.size
        self.actions = len(rules.robot.actuated)
        self._clip = torch.zeros(self.count, dtype=torch.int64, device=self._device)
        self._frame = torch.zeros_like(self._clip)
        self._age = torch.zeros_like(self._clip)
        self._last = torch.zeros(self.count, self.actions, device=self._device)
        self._late = torch.zeros_like(self._last)
        self._delay = torch.zeros_like(self._clip)
        self._bins = _bins(reference)
        self._failures = np.ones(len(self._bins))
        self._stock: dict[str, Any] = {}
        self._used = 0
        self._after = torch.zeros(self.count, len(rules.robot.joints), device=self._device)
        self._before = torch.zeros(self.count, 0, device=self._device)
        if rules.commanded:
            size = style.transitions(reference).shape[1] // 2
            self._before = torch.zeros(self.count, size, device=self._device)
        self._begin(np.arange(self.count), rng)
        self._age[:] = self._sent(rng.integers(0, practice.steps, self.count))
        self._draw_noise(rng)

    # ------------------------------------------------------------ acting

    def observe(self) -> tuple[Tensor, Tensor]:
        return self._both(self._situation(slice(None)), slice(None))

    def step(self, action: Tensor, rng: np.random.Generator) -> Step:
        """Act, score, and begin anew where an episode ended."""
        wanted = mdp.target(self._rules, action, self._after)
        done_action = mdp.action_of(self._rules, wanted, self._after)
        self._push(rng)
        self._physics.step(self._delivered(wanted))
        self._frame += 1
        self._age += 1
        situation = self._situation(slice(None))
        parts = self._reward(situation, done_action)
        failed = self._failed(situation)
        over = ~failed & ((self._age >= self._practice.steps) | self._at_end())
        moved = self._moved(situation.now)
        self._last = done_action
        self._draw_noise(rng)
        total = sum(parts.values())
        assert isinstance(total, Tensor)
        final = self._final(situation, over)
        self._count_failures(failed)
        ended = np.flatnonzero((failed | over).cpu().numpy())
        self._after = situation.next_joints
        observation, privileged = self._both(replace(situation, last=self._last), slice(None))
        if len(ended):
            anew = self._begin(ended, rng)
            same = observation is privileged
            observation[ended], privileged[ended] = (
                self._noised(anew["seen"], ended),
                anew["judged"],
            )
            observation = privileged if same else observation
        reward = torch.nan_to_num(total, nan=0.0)
        return Step(observation, privileged, reward, failed, over, final, moved, parts)

    def _reward(self, situation: Situation, action: Tensor) -> dict[str, Tensor]:
        if self._rules.commanded:
            return mdp.command_reward(self._rules, situation, action)
        return mdp.reward(self._rules, situation, action)

    def _failed(self, situation: Situation) -> Tensor:
        if self._rules.commanded:
            found: Tensor = mdp.fallen(situation.now)
        else:
            found = mdp.lost(self._rules, situation.now, situation.goal)
        return found

    def _at_end(self) -> Tensor:
        last = self._reference.last(self._clip.cpu().numpy())
        return self._frame >= self._sent(last)

    def _final(self, situation: Situation, over: Tensor) -> Tensor:
        """Return what the critic sees of the episodes that time ended, before they begin anew."""
        if not over.any():
            return torch.zeros(0, self.privileged, device=self._device)
        parts = {k: v for k, v in vars(situation).items() if not isinstance(v, Pose)}
        chosen = {k: v[over] for k, v in parts.items()}
        poses = {
            k: Pose(**{n: v[over] for n, v in vars(getattr(situation, k)).items()})
            for k in ("now", "goal")
        }
        found: Tensor = mdp.observation(
            self._rules, Situation(**{**chosen, **poses, "last": self._last[over]})
        )
        return found

    def _situation(self, rows: Any) -> Situation:
        clip, frame = self._clip[rows], self._frame[rows]
        goal, after, phase = self._reference.at(clip, frame)
        qpos, qvel = self._read(self._physics.qpos, rows), self._read(self._physics.qvel, rows)
        now = pose_of(self._rules.robot, qpos, qvel)
        command = self._commands(clip)
        return Situation(now, goal, after, phase.float(), self._last[rows], command)

    def _commands(self, clip: Tensor) -> Tensor:
        return self._sent(self._reference.commands)[clip]

    def _both(self, situation: Situation, rows: Any) -> tuple[Tensor, Tensor]:
        judged = mdp.observation(self._rules, situation)
        same = self._seen is self._rules
        seen = judged if same else mdp.observation(self._seen, situation)
        return self._noised(seen, rows), judged

    def _noised(self, seen: Tensor, rows: Any) -> Tensor:
        return seen + self._noise[rows] if self._practice.sensor else seen

    # ------------------------------------------------------------ disturbances

    def _delivered(self, wanted: Tensor) -> Any:
        """Return the targets that reach the motors, some of them those of the step before."""
        if self._practice.latency:
            late = self._delay > 0
            sent = torch.where(late[:, None], self._late, wanted)
            self._late = wanted
            wanted = sent
        return wanted if self._resident else wanted.double().numpy()

    def _push(self, rng: np.random.Generator) -> None:
        if not self._practice.push:
            return
        hit = np.flatnonzero(rng.random(self.count) < 1.0 / self._practice.push_steps)
        turn = rng.uniform(0.0, 2.0 * np.pi, len(hit))
        kick = self._practice.push * np.stack([np.cos(turn), np.sin(turn)], -1)
        planar = self._rules.robot.root == "planar"
        kick = kick[:, :1] if planar else kick
        qvel = self._physics.qvel
        qvel[hit, : kick.shape[1]] += self._sent(kick) if self._resident else kick

    def _draw_noise(self, rng: np.random.Generator) -> None:
        if not self._practice.sensor:
            return
        drawn = rng.uniform(-1.0, 1.0, (self.count, self.observations))
        self._noise = self._sent(sensor_noise(self._seen, self._practice.sensor, drawn))

    # ------------------------------------------------------------ beginning

    def _begin(self, ids: NDArray[np.int64], rng: np.random.Generator) -> dict[str, Any]:
        """Let robots `ids` begin anew; returns what of the stock they took."""
        if not self._stock or self._used + len(ids) > len(self._stock["qpos"]):
            self._stock, self._used = self._fill(max(_STOCK, len(ids)), rng), 0
        rows = slice(self._used, self._used + len(ids))
        taken = {name: values[rows] for name, values in self._stock.items()}
        self._used += len(ids)
        for name in ("clip", "frame", "after", "before", "delay", "late"):
            getattr(self, f"_{name}")[ids] = taken[name]
        self._age[ids] = 0
        self._last[ids] = 0.0
        self._physics.reset(ids, taken["qpos"], taken["qvel"])
        return taken

    def _fill(self, count: int, rng: np.random.Generator) -> dict[str, Any]:
        """Prepare `count` beginnings at once: one alone would cost as much, in most steps."""
        clip, frame = self._draw_starts(count, rng)
        joints = len(self._rules.robot.joints)
        noise = Noise.draw(count, joints, self._practice.start, rng)
        if self._practice.offset:
            reach = self._practice.offset * self._rules.size
            noise = replace(noise, place=rng.uniform(-reach, reach, (count, 2)))
        qpos, qvel = start(self._reference, clip, frame, noise)
        delay = rng.integers(0, self._practice.latency + 1, count)
        place = self._sent(clip), self._sent(frame)
        goal, after, phase = self._reference.at(*place)
        now = pose_of(self._rules.robot, self._sent(qpos), self._sent(qvel))
        none = torch.zeros(count, self.actions, device=self._device)
        situation = Situation(now, goal, after, phase.float(), none, self._commands(place[0]))
        judged = mdp.observation(self._rules, situation)
        same = self._seen is self._rules
        return {
            "clip": place[0], "frame": place[1], "qpos": qpos, "qvel": qvel, "after": after,
            "seen": judged if same else mdp.observation(self._seen, situation), "judged": judged,
            "before": style.features(now) if self._rules.commanded else none[:, :0],
            "delay": self._sent(delay), "late": mdp.base(self._rules, now.joint_pos),
        }  # fmt: skip

    def _draw_starts(
        self, count: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return clips and frames (count,), drawn from bins by how often they are failed."""
        weights = np.where(self._bins[:, 3] > 0, self._failures / self._failures.mean(), 1.0)
        sizes = self._bins[:, 2] - self._bins[:, 1]
        even = sizes / sizes.sum()
        hard = even * weights / (even * weights).sum()
        chance = _UNIFORM * even + (1.0 - _UNIFORM) * hard
        chosen = self._bins[rng.choice(len(self._bins), count, p=chance)]
        span = chosen[:, 2] - chosen[:, 1]
        frame = chosen[:, 1] + np.floor(rng.random(count) * span).astype(np.int64)
        return chosen[:, 0], frame

    def _count_failures(self, failed: Tensor) -> None:
        self._failures = 1.0 + _FADE * (self._failures - 1.0)
        if not self._bins[:, 3].any():
            return
        rows = np.flatnonzero(failed.cpu().numpy())
        clip, frame = self._clip.cpu().numpy()[rows], self._frame.cpu().numpy()[rows]
        for c, f in zip(clip, frame % self._reference.lengths[clip], strict=True):
            here = (self._bins[:, 0] == c) & (self._bins[:, 1] <= f) & (f < self._bins[:, 2])
            self._failures[here] += 1.0

    # ------------------------------------------------------------ state

    def _sent(self, array: Any) -> Tensor:
        """Return a NumPy array as a tensor on the device, float32 where it is of floats."""
        dtype = torch.float32 if array.dtype == np.float64 else None
        return torch.as_tensor(array, dtype=dtype, device=self._device)

    def _read(self, array: Any, rows: Any) -> Tensor:
        """Return rows of the physics' coordinates as a float32 tensor."""
        found: Tensor = array[rows].float() if self._resident else self._sent(array[rows])
        return found

    def _held(self, value: Any) -> Tensor:
        return torch.as_tensor(value).to(self._device).clone()

    def state_dict(self) -> dict[str, Any]:
        held = {n: getattr(self, f"_{n}") for n in _HELD}
        noise = self._noise if self._practice.sensor else torch.zeros(0)
        stock = {"stock": self._stock, "used": self._used}
        return {"physics": self._physics.state(), **held, "noise": noise, **stock}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._physics.set_state(state["physics"])
        for name in _HELD:
            value = state[name]
            own = np.array(value) if name == "failures" else self._held(value)
            setattr(self, f"_{name}", own)
        if self._practice.sensor:
            self._noise = self._held(state["noise"])
        self._used = state["used"]
        self._stock = {
            k: np.array(v) if k in ("qpos", "qvel") else self._held(v)
            for k, v in state["stock"].items()
        }

    # ------------------------------------------------------------ style

    def _moved(self, now: Pose) -> Tensor | None:
        """Return the transition (N, 2 S) that the motion prior judges, where there is one."""
        if not self._rules.commanded:
            return None
        after = style.features(now)
        found = torch.cat([self._before, after], -1)
        self._before = after
        return found


_HELD = ("clip", "frame", "age", "last", "late", "delay", "failures", "before", "after")


def _bins(reference: Reference) -> NDArray[np.int64]:
    """Return bins of starts (B, 4): clip, first frame, end, and whether it adapts."""
    found = []
    for c, clip in enumerate(reference.clips):
        end = clip.frames if clip.loop == "wrap" else max(1, clip.frames - 2)
        long = clip.duration_s > _LONG_S
        width = max(1, round(_BINS_S * clip.fps)) if long else end
        found += [[c, b, min(b + width, end), int(long)] for b in range(0, end, width)]
    return np.array(found, np.int64)
