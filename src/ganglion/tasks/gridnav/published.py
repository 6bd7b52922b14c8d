"""Published mazes: a CSV of puzzles and answers as strings, and the rule they are scored by.

Each row has a `question` and an `answer` of N * N characters, row by row: `#` wall, space free,
`S` start, `G` goal and, in the answer, `o` on the way. That is the form of the published 30 x 30
hard mazes. By their rule an answer is right only if every one of its characters is: the way must
be the one that the file shows, though another may be as short.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from ganglion.core.contracts import Array
from ganglion.core.errors import DataError
from ganglion.tasks.gridnav import packing, paths, records
from ganglion.tasks.gridnav.grids import Bools, Ints

CHARACTERS: Final = "# SGo"
_WALL, _FREE, _START, _GOAL, _WAY = (ord(c) for c in CHARACTERS)
_MOST_BYTES = 256 << 20
_MOST_SIDE = 128


def import_mazes(path: Path) -> dict[str, Array]:
    """Return the puzzles of a CSV file as `records.make`, and `answer`, the packed way of each.

    DataError names file, row and character of the first fault: columns that are missing, another
    character, not exactly one start and goal, an answer on another maze, or one whose way is
    broken. Whether a way is a shortest one is not asked: the file's own way is what it scores.
    """
    questions, answers = _read(path)
    free = questions != _WALL
    start, goal = (_only(path, questions == kind, c) for kind, c in ((_START, "S"), (_GOAL, "G")))
    way = _ways(path, questions, answers, start, goal)
    rows = np.arange(len(free))
    broken = paths.distances(way, goal)[rows, start[:, 0], start[:, 1]] < 0
    if broken.any():
        row = int(np.argmax(broken))
        raise DataError(f"{path}, row {row + 1}: the way of its answer does not lead from S to G.")
    found = records.make(free, goal, start)
    return {**found, "answer": packing.pack(way)}


def right(passed: Ints, steps: Ints, answer: Bools) -> Bools:
    """Say which walks are right by the published rule, (B,).

    passed (B, T + 1, 2) and steps (B,) as `paths.walk` returns them; answer (B, H, W) the cells
    of the file's way, start and goal included.
    """
    walked = np.zeros(answer.shape, bool)
    rows = np.arange(len(answer))[:, None]
    walked[rows, passed[..., 0], passed[..., 1]] = True
    length = answer.sum((1, 2)) - 1  # cells less one: a way that visits no cell twice
    return np.asarray((steps == length) & (walked == answer).all((1, 2)))


def _read(path: Path) -> tuple[Array, Array]:
    """Return questions and answers as character codes, (B, N, N) each."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} is larger than {_MOST_BYTES:,} bytes.")
        text = path.read_bytes().decode("ascii")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text file: byte {error.start} is no character.") from None
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from None
    found: dict[str, list[str]] = {"question": [], "answer": []}
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        _need_columns(path, reader.fieldnames)
        for row in reader:
            for name, strings in found.items():
                strings.append((row[name] or "").replace("\r", "").replace("\n", ""))
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file: {error}.") from None
    if not found["question"]:
        raise DataError(f"{path} holds no maze.")
    side = math.isqrt(len(found["question"][0]))
    if not 2 <= side <= _MOST_SIDE:
        raise DataError(f"{path}, row 1: a maze of {side} x {side} cells; 2 to {_MOST_SIDE} fit.")
    first, second = (_codes(path, name, strings, side) for name, strings in found.items())
    return first, second


def _need_columns(path: Path, names: object) -> None:
    held = list(names) if isinstance(names, list | tuple) else []
    if not {"question", "answer"} <= set(held):
        shown = ", ".join(str(n)[:30] for n in held[:6]) or "none"
        raise DataError(f"{path} has the columns {shown}; question and answer were expected.")


def _codes(path: Path, name: str, strings: list[str], side: int) -> Array:
    for number, text in enumerate(strings, start=1):
        if len(text) != side * side:
            wanted = (
                f"{side} x {side} were expected, as in row 1"
                if number > 1 or name == "answer"
                else "a square number was expected"
            )
            raise DataError(
                f"{path}, row {number}: its {name} has {len(text)} characters; {wanted}."
            )
    codes = np.frombuffer("".join(strings).encode("ascii"), np.uint8)
    codes = codes.reshape(len(strings), side, side)
    allowed = CHARACTERS if name == "answer" else CHARACTERS[:4]
    wrong = np.argwhere(~np.isin(codes, [ord(c) for c in allowed]))
    if wrong.size:
        i, row, column = (int(n) for n in wrong[0])
        raise DataError(
            f"{path}, row {i + 1}: its {name} has {chr(codes[i, row, column])!r} at ({row}, "
            f"{column}); known are {', '.join(map(repr, allowed))}."
        )
    return codes


def _only(path: Path, marked: Bools, character: str) -> Ints:
    number = marked.sum((1, 2))
    if (number != 1).any():
        row = int(np.argmax(number != 1))
        raise DataError(
            f"{path}, row {row + 1}: its question has {number[row]} {character!r}; one was "
            "expected."
        )
    flat = marked.reshape(len(marked), -1).argmax(1)
    return np.stack(np.divmod(flat, marked.shape[2]), 1)


def _ways(path: Path, questions: Array, answers: Array, start: Ints, goal: Ints) -> Bools:
    """Return the cells of the answers' ways, start and goal included, (B, N, N)."""
    rows = np.arange(len(questions))
    ends: Mapping[int, Ints] = {_START: start, _GOAL: goal}
    way = answers == _WAY
    for cell in ends.values():
        way[rows, cell[:, 0], cell[:, 1]] = True
    blank = np.where(answers == _WAY, _FREE, answers)
    for code, cell in ends.items():  # an answer may draw its way over start and goal
        held = answers[rows, cell[:, 0], cell[:, 1]]
        blank[rows, cell[:, 0], cell[:, 1]] = np.where(held == _WAY, code, held)
    off = np.argwhere(blank != questions)
    if off.size:
        i, row, column = (int(n) for n in off[0])
        raise DataError(
            f"{path}, row {i + 1}: its answer has {chr(answers[i, row, column])!r} at ({row}, "
            f"{column}), its question {chr(questions[i, row, column])!r}."
        )
    return np.asarray(way)
