"""What training minimises, and what it counts beside it. No state, no randomness of its own.

Shapes: B maps, H x W cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ganglion.tasks.gridnav import symmetry
from ganglion.tasks.gridnav.grids import UNKNOWN
from ganglion.tasks.gridnav.model import StateMixer

Batch = dict[str, Tensor]
Terms = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class Labels:
    """What is right in each cell: parts (B, 5, H, W) sum to 1 where distance (B, H, W) >= 0.

    distance is -1 where there is no way; free (B, H, W) says which of those cells are not walls.
    """

    parts: Tensor
    distance: Tensor
    free: Tensor


def wave_front(
    logits: Tensor, labels: Labels, reach: Tensor, lag: int, near: float = 0.0
) -> Tensor:
    """Cross-entropy of the cells that the wave has passed, and of those that it cannot know yet.

    logits (B, 6, H, W); reach (B,) is how far a wave of that age has come. Cells with distance <=
    reach - lag answer their optimal moves; free cells beyond reach + lag, or without a way, answer
    UNKNOWN; those between are left alone. The mean is over all cells that are asked, each
    with weight 1 + near / (1 + distance) where it has a way, 1 elsewhere: what is wrong next to the
    goal ends all ways.
    """
    far = reach.view(-1, 1, 1)
    has_way = labels.distance >= 0
    known = has_way & (labels.distance <= far - lag)
    unknown = labels.free & (~has_way | (labels.distance > far + lag))
    weight = 1.0 + near * has_way / (1.0 + labels.distance.clamp(min=0))
    asked = ((known | unknown) * weight).sum().clamp(min=1)
    log = logits.float().log_softmax(1)
    entropy = (log[:, :UNKNOWN] * labels.parts).sum(1) * known + log[:, UNKNOWN] * unknown
    return -(weight * entropy).sum() / asked


@torch.no_grad()
def known_right(logits: Tensor, labels: Labels, reach: Tensor, lag: int) -> Tensor:
    """Share of the cells that the wave has passed whose move is optimal."""
    known = (labels.distance >= 0) & (labels.distance <= reach.view(-1, 1, 1) - lag)
    best = logits.argmax(1, keepdim=True)
    right = labels.parts.gather(1, best.clamp(max=UNKNOWN - 1)) * (best < UNKNOWN) > 0
    return (right.squeeze(1) & known).sum() / known.sum().clamp(min=1)


@dataclass(frozen=True)
class StateLoss:
    """Cross-entropy of the move at the robot's cell, for policies that see one state at a time.

    A batch has the arrays of `records.make`, maps unpacked to `open` (B, H, W). With augment each
    row is turned and mirrored by a symmetry drawn from the generator; square maps only.
    """

    augment: bool
    single: bool

    def __call__(self, module: nn.Module, batch: Batch, generator: torch.Generator) -> Terms:
        assert isinstance(module, StateMixer)
        free, start, goal, best, label = (
            batch[k] for k in ("open", "start", "goal", "best", "label")
        )
        if self.augment and module.training:
            turns = torch.randint(
                symmetry.COUNT, (len(free),), generator=generator, device=free.device
            )
            free, start, goal, best, label = turned(turns, free, start, goal, best, label)
        logits = module.logits(free, start.long(), goal.long())
        parts = nn.functional.one_hot(label, 5).float() if self.single else best / best.sum(
            1, keepdim=True
        )  # fmt: skip
        loss = -(logits.log_softmax(1) * parts).sum(1).mean()
        chosen = logits.argmax(1)
        terms = {
            "accuracy": (chosen == label).float().mean(),
            "optimal": best.gather(1, chosen[:, None]).mean(),
        }
        return loss, terms


def turned(
    turns: Tensor, free: Tensor, start: Tensor, goal: Tensor, best: Tensor, label: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return each state under its own symmetry `turns` (B,); see `symmetry` for their numbers.

    free (B, S, S), start and goal (B, 2), best (B, 5) of 0 and 1, label (B,).
    """
    side = free.shape[1]
    moves = torch.as_tensor(symmetry.MOVES, device=free.device)[turns]  # (B, 6)
    mirrored = (turns >= 4).view(-1, 1, 1)
    free = torch.where(mirrored, free.flip(2), free)
    cells = [torch.where(mirrored[:, 0], _mirror(c, side), c) for c in (start, goal)]
    for quarter in range(1, 4):
        again = (turns % 4 >= quarter).view(-1, 1, 1)
        free = torch.where(again, free.rot90(-1, (1, 2)), free)
        cells = [torch.where(again[:, 0], _quarter(c, side), c) for c in cells]
    best = torch.zeros_like(best).scatter(1, moves[:, :UNKNOWN], best)
    label = moves.gather(1, label[:, None]).squeeze(1)
    return free, cells[0], cells[1], best, label


def _mirror(cells: Tensor, side: int) -> Tensor:
    return torch.stack([cells[:, 0], side - 1 - cells[:, 1]], 1)


def _quarter(cells: Tensor, side: int) -> Tensor:
    """Clockwise: the top row becomes the last column."""
    return torch.stack([cells[:, 1], side - 1 - cells[:, 0]], 1)
