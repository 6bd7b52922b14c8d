"""The deployed policies: map and goal in, a move for every cell out.

Shapes: B maps, H x W cells, D channels, L = H * W.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from ganglion.core.contracts import Signature, TensorSpec
from ganglion.nets.mixer import Mixer
from ganglion.nets.recurrence import Entered, Form, Latents, Recurrence
from ganglion.tasks.gridnav.config import MOST_TRIPS, MapSettings, MixerSettings, RecurrentSettings
from ganglion.tasks.gridnav.grids import MOVES, UNKNOWN
from ganglion.tasks.gridnav.references import signature


class Reasoner(nn.Module):
    """A recurrence over the map and a head that reads a move, or UNKNOWN, off every cell.

    Two planes enter: free, and goal. Blocked cells answer UNKNOWN.
    """

    def __init__(self, form: Form, stride: int = 8, halting: bool = True) -> None:
        super().__init__()
        self.core = Recurrence(form, 2)
        self.head = nn.Conv2d(form.width, len(MOVES) + 1, 1)
        self.stride, self.halting = stride, halting
        self.steps_per_trip = stride  # for the export's bound on trips

    def observe(self, free: Tensor, goal: Tensor) -> Tensor:
        """The two planes (B, 2, H, W) of a map and its goal, (B, H, W) each, as 0 and 1."""
        is_free = free > 0.5
        return torch.stack([is_free, is_free & (goal > 0.5)], 1).float()

    def enter(self, planes: Tensor) -> Entered:
        """What `core` takes of those planes; blocked cells are shut, as the world outside is."""
        return self.core.enter(planes, planes[:, :1] > 0.5)

    def logits(self, latents: Latents) -> Tensor:
        """UP DOWN LEFT RIGHT STAY UNKNOWN of every cell, (B, 6, H, W)."""
        out: Tensor = self.head(latents[0])
        return out

    def moves(self, latents: Latents, free: Tensor) -> Tensor:
        """The most likely of the six at every free cell, UNKNOWN elsewhere, (B, H, W) int64."""
        best = self.logits(latents).argmax(1)
        return torch.where(free > 0.5, best, UNKNOWN)

    def forward(self, free: Tensor, goal: Tensor, steps: Tensor) -> Tensor:
        """Return the moves (B, H, W) int64 after `steps` cycles, rounded up to the stride.

        free, goal (B, H, W), steps (1,) or () int64. With halting, a map of which a whole stride
        changed no move stays as it was before that stride, whatever the other maps do; and no more
        steps are taken than a map has cells, and a stride, since no way is longer.
        """
        x = self.observe(free, goal)
        entered = self.enter(x)
        moves = torch.full_like(free, UNKNOWN, dtype=torch.int64)
        going = torch.ones_like(free[:, :1, :1], dtype=torch.bool)
        carried = (torch.zeros_like(steps.reshape(())), going, moves, *self.core.initial(x))
        carried = (*carried[:3], *(z.clone() for z in carried[3:]))
        limit = steps.reshape(())
        if self.halting:
            cells = free.shape[1] * free.shape[2]
            limit = torch.minimum(limit, torch.full_like(limit, cells + self.stride))

        def more(i: Tensor, going: Tensor, *rest: Tensor) -> Tensor:
            return (i < limit) & going.any()

        def trip(i: Tensor, going: Tensor, moves: Tensor, *latents: Tensor) -> tuple[Tensor, ...]:
            new = latents
            for _ in range(self.stride):
                new = self.core(new, entered)
            if not self.halting:
                return (i + self.stride, going.clone(), moves.clone(), *new)
            found = self.moves(new, free)
            still = going & (found != moves).flatten(1).any(1).view(-1, 1, 1)
            moves = torch.where(going, found, moves)
            live = going.unsqueeze(1)
            kept = (torch.where(live, a, b) for a, b in zip(new, latents, strict=True))
            return (i + self.stride, still, moves, *kept)

        if torch.compiler.is_exporting():
            carried = while_loop(more, trip, carried)
        else:
            while bool(more(*carried)):
                carried = trip(*carried)
        return carried[2] if self.halting else self.moves(carried[3:], free)


class StateMixer(nn.Module):
    """The original's policy, asked for every cell at once: one state of 68 tokens per robot cell.

    Tokens as in `tokens.encode`; it serves maps of one size.
    """

    cells: Tensor

    def __init__(self, settings: MixerSettings, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width
        vocabulary = 3 + max(height, width)
        count = height * width + 4
        self.mixer = Mixer(
            vocabulary, count, settings.dim, settings.depth, len(MOVES), settings.dropout
        )
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        cells = torch.stack([rows.flatten(), columns.flatten()], 1)
        self.register_buffer("cells", cells, persistent=False)  # (L, 2)

    def logits(self, free: Tensor, start: Tensor, goal: Tensor) -> Tensor:
        """Return (B, 5) for maps (B, H, W), robots and goals (B, 2) int64."""
        cells = torch.where(free > 0.5, 1, 2).flatten(1)
        out: Tensor = self.mixer(torch.cat([cells, start + 3, goal + 3], 1))
        return out

    def forward(self, free: Tensor, goal: Tensor) -> Tensor:
        """Return the moves (B, H, W) int64 of a robot at each cell; UNKNOWN at blocked ones."""
        batch, count = free.shape[0], self.height * self.width
        place = self.cells[goal.flatten(1).argmax(1)]  # (B, 2)
        maps = free.unsqueeze(1).expand(-1, count, -1, -1).flatten(0, 1)
        robots = self.cells.unsqueeze(0).expand(batch, -1, -1).flatten(0, 1)
        goals = place.unsqueeze(1).expand(-1, count, -1).flatten(0, 1)
        best = self.logits(maps, robots, goals).argmax(1).view(-1, self.height, self.width)
        return torch.where(free > 0.5, best, UNKNOWN)


def build(settings: RecurrentSettings | MixerSettings, problem: MapSettings) -> nn.Module:
    """Build a policy; its initial weights come from torch's default generator."""
    if isinstance(settings, MixerSettings):
        return StateMixer(settings, problem.height, problem.width)
    form = Form(
        settings.dim, settings.latents, settings.update, settings.mixing, settings.depth,
        settings.inner, positions=settings.positions, sides=_sides(settings, problem),
    )  # fmt: skip
    return Reasoner(form, settings.stride, settings.halting)


def _sides(settings: RecurrentSettings, problem: MapSettings) -> tuple[int, int] | None:
    one_size = settings.mixing == "mlp" or settings.positions == "learned"
    return (problem.height, problem.width) if one_size else None


def signature_of(settings: RecurrentSettings | MixerSettings, problem: MapSettings) -> Signature:
    """Return the signature of the policy that `build` makes."""
    if isinstance(settings, RecurrentSettings):
        most = float(MOST_TRIPS * settings.stride)
        steps = TensorSpec((1,), "int64", low=1.0, high=most, role="steps", batched=False)
        open_sides = signature({"steps": steps})
        return open_sides if _sides(settings, problem) is None else _fixed(open_sides, problem)
    return _fixed(signature(), problem)


def _fixed(open_sides: Signature, problem: MapSettings) -> Signature:
    """Return the signature with the size of the maps in the place of named axes."""
    sizes = {"height": problem.height, "width": problem.width}

    def one(spec: TensorSpec) -> TensorSpec:
        shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.shape)
        return replace(spec, shape=shape)

    return Signature(
        {name: one(spec) for name, spec in open_sides.inputs.items()},
        {name: one(spec) for name, spec in open_sides.outputs.items()},
    )
