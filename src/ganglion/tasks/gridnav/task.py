"""The task gridnav: where its maps come from, how a policy is judged. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ganglion.core.contracts import Array, Arrays, Claim, Learner, Policy, Ranks
from ganglion.core.errors import DataError, SettingsError
from ganglion.tasks.gridnav import checks, evaluation, formats, packing, records, references
from ganglion.tasks.gridnav.config import MOST_TRIPS, Config, MixerSettings
from ganglion.tasks.gridnav.evaluation import Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_CURVE_CELLS = (
    24_000  # of the maps on which numbers of steps are tried: 375 of 8 x 8, 26 of 30 x 30
)
_CLAIMS = (  # of the original's guide, for walls by chance on 8 x 8 cells
    Claim("success in closed loop", ">= 85 %", "success"),
    Claim("moves, in those of the shortest path", "<= 1.3", "path_ratio"),
    Claim("accuracy, 5,000 states (recipe1)", "75-85 %", "label_accuracy"),
    Claim("accuracy, 50,000 augmented (recipe2)", "90-95 %", "label_accuracy"),
    Claim("accuracy, 100,000 augmented (recipe3)", "95 % and more", "label_accuracy"),
    Claim("accuracy, its author's record, 60,000 states", "77 %", "label_accuracy"),
)
_PUBLISHED = (  # ours are of the kind of that file, and any shortest way is exact here
    Claim("exact, tiny recursive model, 7M parameters*", "85.3 %", "exact"),
    Claim("exact, hierarchical reasoning model*", "74.5 %", "exact"),
    Claim(
        "*on the published file, from 1,000 puzzles, by its own way only; ours: other mazes of its "
        "kind, any shortest way, trained with distances",
        "-",
        "none",
    ),
)


class GridNav:
    """The next move on an occupancy grid, for every cell at once, as the settings describe it."""

    metrics = evaluation.METRICS
    goal = evaluation.WRONG
    import_settings: ClassVar[Mapping[str, Any]] = {"labels": "imported"}  # of foreign data
    units: ClassVar[Mapping[str, str]] = records.UNITS
    scenario_note = (
        "Larger and other maps, without retraining; the steps follow from size and kind. Each "
        "scenario has fewer maps than the nominal one, as its maps have more cells. A policy that "
        "halts by itself takes no more steps in steps_x3 than it needs."
    )

    def __init__(self, settings: Config) -> None:
        self._settings = settings
        self.scenarios: Mapping[str, Mapping[str, Any]] = _scenarios(settings)
        self.importers: Mapping[str, Callable[[Path], Arrays]] = {
            name: self._of_size(read) for name, read in formats.IMPORTERS.items()
        }
        self.formats = formats.FORMATS

    @property
    def settings(self) -> Config:
        return self._settings

    @property
    def claims(self) -> Sequence[Claim]:
        """What others promise: the original's guide, and those who published hard mazes."""
        problem = self.settings.problem
        asked = problem.kind, problem.height, problem.width
        return {("density", 8, 8): _CLAIMS, ("hard", 30, 30): _PUBLISHED}.get(asked, ())

    @property
    def steps(self) -> Mapping[str, int]:
        """What an input of role "steps" gets where nobody says otherwise.

        A policy that halts by itself gets all that it can take, whatever the size of the map.
        """
        net, wanted = self.settings.model, self.settings.steps
        if isinstance(net, MixerSettings) or wanted is None:
            return {}
        by_itself = net.halting and self.settings.evaluation.steps is None
        return {"steps": MOST_TRIPS * net.stride if by_itself else wanted}

    def generate(self, count: int, split: str, rng: np.random.Generator) -> Arrays:
        """Draw `count` maps with goal, start and labels; see `records` for the arrays.

        No map is, up to symmetry, in two splits, or twice in a shard. Cases of other names than
        the three splits come from the share of maps that `test` has.
        """
        if self.settings.labels == "imported":
            raise SettingsError(
                "labels=imported is for data from a file (`ganglion data import`); choose "
                "labels=first to generate."
            )
        split = split if split in packing.SHARES else "test"
        share, seen, parts, kept = packing.SHARES[split], np.empty(0, np.uint64), [], 0
        for _ in range(1_000):
            if kept >= count:
                break
            cases = self.settings.problem.draw(int(1.2 * (count - kept) / share) + 4, rng)
            digests = packing.digests(cases.free)
            fine = packing.belongs(cases.free, split) & packing.firsts(digests)
            fine &= ~np.isin(digests, seen)
            chosen = np.flatnonzero(fine)[: count - kept]
            seen, kept = np.concatenate([seen, digests[chosen]]), kept + len(chosen)
            parts.append((cases.free[chosen], cases.goal[chosen], cases.start[chosen],
                          cases.distance[chosen]))  # fmt: skip
        if kept < count:
            raise SettingsError(
                f"There are too few different maps of these settings for {count} of {split}; "
                "choose larger ones."
            )
        return records.make(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def learner(self, data: Arrays | None, device: str, seed: int, ranks: Ranks) -> Learner:
        from ganglion.tasks.gridnav.learning import make  # torch begins here

        return make(self, data, device, seed, ranks)

    def references(self) -> Mapping[str, Policy]:
        """Return oracle, greedy and random."""
        return references.references()

    def evaluate(self, policy: Policy, cases: Arrays, rng: np.random.Generator) -> Arrays:
        """Score any policy on maps of any size; see `evaluation.score` for the columns."""
        return evaluation.score(policy, self.trial(cases), cases, rng)

    def trial(self, cases: Arrays) -> Trial:
        """Unpack the cases; steps by their own size and the kind of the settings."""
        height, width = np.shape(cases["moves"])[1:]
        problem = self.settings.problem.model_copy(update={"height": height, "width": width})
        return Trial.of(cases, self.settings.model_copy(update={"problem": problem}).steps)

    def inputs(self, cases: Arrays) -> dict[str, Array]:
        """Return the cases as a policy takes them."""
        held = records.read(cases)
        return references.inputs(held.free, held.goal)

    def decode(self, outputs: Arrays, inputs: Arrays) -> Arrays:
        return outputs

    def groups(self, arrays: Arrays) -> NDArray[np.uint64]:
        """Return a number for each row that those of one map share, however it is turned."""
        return packing.digests(records.read(arrays).free)

    def check(self, arrays: Arrays) -> None:
        """Re-derive sets of moves, labels and tokens; DataError names the first fault."""
        checks.check(arrays, first=self.settings.labels == "first")

    def curves(self, policy: Policy, cases: Arrays) -> Arrays:
        """Return what fewer and more recursion steps achieve; see `evaluation.over_steps`."""
        first = max(3, _CURVE_CELLS // cases["moves"][0].size)
        return evaluation.over_steps(policy, self.trial({k: v[:first] for k, v in cases.items()}))

    @property
    def captions(self) -> Mapping[str, str]:
        """What each picture shows, by its name."""
        from ganglion.tasks.gridnav import view

        return view.CAPTIONS

    def draw(
        self, policy: Policy, cases: Arrays, rng: np.random.Generator, curves: Arrays | None = None
    ) -> dict[str, Figure]:
        """Return pictures by name; see `view.draw`."""
        from ganglion.tasks.gridnav import view

        return view.draw(self, policy, cases, rng, curves)

    def animate(self, policy: Policy, cases: Arrays, rng: np.random.Generator) -> dict[str, bytes]:
        """Return GIFs by name: the policy walking and, where it recurs, its wave in a maze."""
        from ganglion.tasks.gridnav import animation

        return animation.animate(self, policy, cases, rng)

    def _of_size(self, read: Callable[[Path], Arrays]) -> Callable[[Path], Arrays]:
        """Wrap an importer: what it reads must be of the size that the settings say."""

        def checked(path: Path) -> Arrays:
            arrays = read(path)
            found = np.shape(arrays["moves"])[1:]
            wanted = self.settings.problem.height, self.settings.problem.width
            if found != wanted:
                raise DataError(
                    f"{path} holds maps of {found[0]} x {found[1]} cells, the settings say "
                    f"{wanted[0]} x {wanted[1]}. Give problem.height={found[0]} "
                    f"problem.width={found[1]}."
                )
            return arrays

        return checked


def _scenarios(cfg: Config) -> dict[str, Mapping[str, Any]]:
    """Return what else policies are tried on: for one that serves one size, other walls of it."""
    if isinstance(cfg.model, MixerSettings) or cfg.one_size:
        height, width = cfg.problem.height, cfg.problem.width
        return {
            "nominal": {},
            "denser": _maps("density", height, 200, width, density=0.35),
            "mazes": _maps("maze", height, 200, width),
        }
    if cfg.model.mixing == "attention":  # its cost grows with the square of the cells
        return {
            "nominal": {}, "size_12": _maps("density", 12, 50), "size_16": _maps("density", 16, 20),
            "rooms_16": _maps("rooms", 16, 20), "maze_15": _maps("maze", 15, 10),
        }  # fmt: skip
    return {
        "nominal": {},
        "size_16": _maps("density", 16, 200), "size_32": _maps("density", 32, 60),
        "size_64": _maps("density", 64, 12), "rooms_32": _maps("rooms", 32, 30),
        "hard": _maps("hard", 30, 30),
        "maze_64": _maps("maze", 64, 4, braid=[0.0, 1.0], openings=[0.0, 0.1]),
        "steps_x3": {"evaluation.factor": 3.0},
    }  # fmt: skip


def _maps(
    kind: str, height: int, count: int, width: int | None = None, **options: Any
) -> dict[str, Any]:
    chosen = {"kind": kind, "height": height, "width": width or height, **options}
    return {**{f"problem.{k}": v for k, v in chosen.items()}, "data.test": count}


TASK = GridNav
