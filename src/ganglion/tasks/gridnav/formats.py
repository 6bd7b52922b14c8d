"""Foreign files that the task reads and writes, by the ending of their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from ganglion.core.contracts import Array, Arrays
from ganglion.core.errors import DataError
from ganglion.importers.tensors import read_tensors
from ganglion.tasks.gridnav import moving_ai, published, records, tokens
from ganglion.tasks.gridnav.grids import MOVES


def read_tokens(path: Path) -> dict[str, Array]:
    """Return the states of one `.pt` file of the original as `records.make`, a row for each.

    It holds {tokens, actions}, see `tokens`. label is the file's action. DataError names file,
    array and index of the first fault.
    """
    found = read_tensors(path, "tokens", "actions")
    states, actions = found["tokens"], found["actions"]
    try:
        free, start, goal = tokens.decode(states)
        if actions.shape != (len(states),) or actions.dtype.kind not in "iu" or not len(actions):
            raise DataError(
                f"actions are {actions.dtype}{actions.shape}; whole numbers ({len(states)},), one "
                "of each state and at least one, were expected."
            )
        known = (actions >= 0) & (actions < len(MOVES))
        if not known.all():
            row = int(np.argmin(known))
            raise DataError(f"actions[{row}] is {actions[row]}; 0 to {len(MOVES) - 1} are moves.")
        return records.make(free, goal, start, label=actions)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def write_tokens(arrays: Arrays, path: Path) -> None:
    """Write each row's state and label as the original's `.pt` file, {tokens, actions} in int64."""
    import torch  # the file's format is torch's own

    found = records.read(arrays)
    if found.free.shape[1] != found.free.shape[2]:
        raise DataError("Tokens are for square maps; these are not.")
    states = tokens.encode(found.free, found.start, found.goal)
    torch.save({"tokens": torch.tensor(states), "actions": torch.tensor(found.label)}, path)


IMPORTERS: Final[Mapping[str, Callable[[Path], Arrays]]] = {
    "pt": read_tokens,
    "map": moving_ai.import_map,
    "scen": moving_ai.import_scenarios,
    "csv": published.import_mazes,
}
FORMATS: Final[Mapping[str, Callable[[Arrays, Path], None]]] = {
    "pt": write_tokens,
    "map": moving_ai.write_map,
    "scen": moving_ai.write_scenarios,
}
