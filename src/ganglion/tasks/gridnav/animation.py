"""GIFs: the policy walking beside the shortest path, and the wave of recursion filling a maze."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ganglion.core.contracts import Arrays, Policy
from ganglion.tasks.gridnav import evaluation, maps, records, view
from ganglion.tasks.gridnav.evaluation import Trial
from ganglion.tasks.gridnav.grids import UNKNOWN, Bools, Bytes, Ints

if TYPE_CHECKING:
    from ganglion.tasks.gridnav.task import GridNav

MAZE: Final = 31  # side of the maze that the wave fills
_FRAMES = 60  # at most
_HOLD = 14  # times that the last frame is repeated
_SIDE = {"walk": 220, "wave": 480}  # pixels along a map's longer side
_GAP, _TEXT = 16, 22


def animate(
    task: GridNav, policy: Policy, cases: Arrays, rng: np.random.Generator
) -> dict[str, bytes]:
    """Return GIFs by name: walk, and wave for policies with recursion steps.

    The wave fills a fresh maze where the policy takes any size, else the farthest of the maps that
    are walked.
    """
    trial = task.trial(cases)
    rows = view.spread(trial)
    found = {"walk": walk(trial, trial.moves(policy, rng), rows)}
    inputs = policy.signature.inputs
    steps = [spec for spec in inputs.values() if spec.role == "steps"]
    if steps:
        if all(isinstance(axis, str) for axis in inputs["free"].shape):
            drawn = maps.draw_cases("maze", 1, MAZE, MAZE, rng, braid=0.3)
            held = records.make(drawn.free, drawn.goal, drawn.start, drawn.distance)
        else:
            held = {name: np.asarray(array)[rows[-1:]] for name, array in cases.items()}
        one = task.trial(held)
        every = getattr(task.settings.model, "stride", 1)  # steps are rounded up to it
        most = int(steps[0].high or 1 << 16)
        found["wave"] = wave(lambda n: one.moves(policy, rng, n)[0], one, every, most)
    return found


# ---------------------------------------------------------------- walking


def walk(trial: Trial, moves: Ints, rows: Ints) -> bytes:
    """Return a GIF of policy and shortest path walking the drawn starts of some maps at once."""
    each = []
    for row in map(int, rows):
        start = trial.held.start[row]
        ours, end = view.walked(trial, moves, row, start)
        each.append((row, ours, end, view.shortest(trial, row, start)))
    longest = max(max(len(ours), len(best)) for _, ours, _, best in each) - 1
    every = max(1, -(-longest // _FRAMES))
    times = [*range(0, longest, every), longest]
    return _gif([_sheet(trial, each, time) for time in times], 1600 // max(8, len(times)) + 60)


def _sheet(trial: Trial, each: list[tuple[int, Ints, str, Ints]], time: int) -> Image.Image:
    cell = _cell("walk", trial.held.free[0])
    columns = min(3, len(each))
    height, width = trial.held.free.shape[1:]
    across, down = width * cell + _GAP, height * cell + _GAP + _TEXT
    bottom = -(-len(each) // columns) * down + _GAP // 2
    sheet = _blank(columns * across + _GAP, bottom + _TEXT)
    _write(sheet, (_GAP, bottom), "blue: the policy; dark: a shortest path")
    for i, (row, ours, end, best) in enumerate(each):
        picture = _tiles(_floor(trial.held.free[row]), cell)
        pen = ImageDraw.Draw(picture)
        _line(pen, ours[: time + 1], cell, view.COLOURS[0], 0.3)
        _line(pen, best[: time + 1], cell, view.INK, 0.1)
        _cross(pen, trial.held.goal[row], cell)
        _dot(pen, ours[min(time, len(ours) - 1)], cell, view.COLOURS[0], 0.38)
        _dot(pen, best[min(time, len(best) - 1)], cell, view.INK, 0.2)
        x, y = _GAP + i % columns * across, _GAP // 2 + i // columns * down
        sheet.paste(picture, (x, y + _TEXT))
        made, over = min(time, len(ours) - 1), time >= len(ours) - 1
        text = end if over and end != "arrives" else f"moves: {made}"
        _write(sheet, (x, y), f"{text}, shortest {len(best) - 1}")
    return sheet


# ---------------------------------------------------------------- the wave


def wave(
    moves_at: Callable[[int], Ints], trial: Trial, every: int = 1, most: int = 1 << 16
) -> bytes:
    """Return a GIF of the cells of one map learning their moves, step by step.

    moves_at(n) gives the moves (H, W) after n recursion steps; it is asked for multiples of
    `every`, up to `most` at the latest; trial holds one map. A cell that says an optimal move has
    the colour of the step at which it first did; one that says another move is orange, one that
    says UNKNOWN is white. Then the robot walks.
    """
    free, far = trial.held.free[0], trial.distance[0]
    turns = max(1, -(-min(int(far.max()) + 12, most) // every))
    last = turns * every
    first = np.zeros(free.shape, int)
    frames: list[Image.Image] = []
    said = np.full(free.shape, UNKNOWN)
    for turn in np.unique(np.linspace(1, turns, min(turns, _FRAMES)).astype(int)).tolist():
        step = min(turn * every, most)
        said = moves_at(step)
        right = evaluation.optimal(said[None], trial.held.moves)[0]
        first = np.where(right, np.where(first > 0, first, step), 0)
        colours = _floor(free)
        colours[free & ~right & (said != UNKNOWN)] = ImageColor.getrgb(view.COLOURS[1])
        shades = (colormaps["viridis"](0.1 + 0.9 * first / last)[..., :3] * 255).astype(np.uint8)
        colours[right] = shades[right]
        known = int((right & (far >= 0)).sum())
        text = f"step {step}: {known} of {int((far >= 0).sum())} cells know an optimal move"
        frames.append(_map(colours, trial, text))
    return _gif([*frames, *_walks(colours, trial, said)], 90)


def _walks(colours: Bytes, trial: Trial, said: Ints) -> list[Image.Image]:
    start = trial.held.start[0]
    cells, end = view.walked(trial, said[None], 0, start)
    shortest = int(trial.distance[0][tuple(start)])
    times = np.unique(np.linspace(1, len(cells), min(len(cells), _FRAMES // 2)).astype(int))
    last = f"the robot {end}" + (f" after {len(cells) - 1} moves" if end == "arrives" else "")
    frames = []
    for time in times.tolist():
        text = f"the robot walks: move {time - 1}"
        text = f"{last}; the shortest path has {shortest}" if time == len(cells) else text
        frames.append(_map(colours, trial, text, cells[:time]))
    return frames


def _map(colours: Bytes, trial: Trial, text: str, cells: Ints | None = None) -> Image.Image:
    cell = _cell("wave", trial.held.free[0])
    picture = _tiles(colours, cell)
    pen = ImageDraw.Draw(picture)
    if cells is not None:
        _line(pen, cells, cell, "#ffffff", 0.34)
    _cross(pen, trial.held.goal[0], cell)
    _dot(pen, trial.held.start[0] if cells is None else cells[-1], cell, "#ffffff", 0.42)
    _dot(pen, trial.held.start[0] if cells is None else cells[-1], cell, view.COLOURS[5], 0.32)
    sheet = _blank(picture.width + 2 * _GAP, picture.height + _TEXT + 2 * _GAP)
    sheet.paste(picture, (_GAP, _GAP + _TEXT))
    _write(sheet, (_GAP, _GAP // 2), text)
    return sheet


# ---------------------------------------------------------------- drawing


def _cell(kind: str, free: Bools) -> int:
    """Return the side of a cell in pixels."""
    return int(max(3, _SIDE[kind] // max(free.shape)))


def _blank(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), "white")


def _floor(free: Bools) -> Bytes:
    """Return the colours of walls and floor, (H, W, 3)."""
    wall, floor = (np.array(ImageColor.getrgb(c), np.uint8) for c in (view.WALL, view.FLOOR))
    return np.where(free[..., None], floor, wall)


def _tiles(colours: Bytes, cell: int) -> Image.Image:
    """Draw cells (H, W, 3) as squares with lines between where there is room for them."""
    pixels = colours.repeat(cell, 0).repeat(cell, 1)
    if cell >= 8:
        pixels[::cell], pixels[:, ::cell] = (ImageColor.getrgb(view.LINES),) * 2
    return Image.fromarray(pixels)


def _middle(cell: Ints, side: int) -> tuple[float, float]:
    return (float(cell[1]) + 0.5) * side, (float(cell[0]) + 0.5) * side


def _line(pen: ImageDraw.ImageDraw, cells: Ints, side: int, colour: str, share: float) -> None:
    if len(cells) > 1:
        width = max(1, round(share * side))
        pen.line([_middle(c, side) for c in cells], colour, width, joint="curve")


def _dot(pen: ImageDraw.ImageDraw, cell: Ints, side: int, colour: str, share: float) -> None:
    x, y = _middle(cell, side)
    r = max(1.5, share * side)
    pen.ellipse((x - r, y - r, x + r, y + r), colour)


def _cross(pen: ImageDraw.ImageDraw, cell: Ints, side: int) -> None:
    x, y = _middle(cell, side)
    r = max(2.0, 0.28 * side)
    for colour, width in (("#ffffff", 0.5), (view.INK, 0.2)):
        for slope in (1, -1):
            ends = [(x - r, y - slope * r), (x + r, y + slope * r)]
            pen.line(ends, colour, max(1, round(width * side)))


def _write(sheet: Image.Image, at: tuple[int, int], text: str) -> None:
    ImageDraw.Draw(sheet).text(at, text, view.INK, ImageFont.load_default(14))


def _gif(frames: Sequence[Image.Image], milliseconds: int) -> bytes:
    palette = _palette()
    held = [f.quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    held += [held[-1]] * _HOLD
    out = BytesIO()
    held[0].save(
        out, "GIF", save_all=True, append_images=held[1:], loop=0, duration=milliseconds,
        optimize=True,
    )  # fmt: skip
    return out.getvalue()


def _palette() -> Image.Image:
    """Return an image whose palette has all that is drawn: one for all frames, found at once."""
    named = (view.WALL, view.FLOOR, view.LINES, view.INK, *view.COLOURS)
    greys = [(n, n, n) for n in range(0, 255, 16)]  # of letters
    shades = (colormaps["viridis"](np.linspace(0.1, 1.0, 180))[:, :3] * 255).astype(int)
    colours = [*(ImageColor.getrgb(c) for c in named), *greys, *map(tuple, shades.tolist())]
    palette = Image.new("P", (1, 1))
    palette.putpalette([channel for colour in colours for channel in colour])
    return palette
