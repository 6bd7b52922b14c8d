"""Quality of gridnav's policies over the number of training states, beside the guide's claims.

    python benchmarks/gridnav_data.py --home /tmp/gridnav --sizes 1000,5000,10000 --png curve.png

trains the guide's mixer (recipe1, with and without augmentation) and the wave on so many states or
maps of 8 x 8, asks each exported file for every cell of fresh maps, and prints markdown. What is in
HOME/figures.jsonl already is not trained or measured again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gridnav_quality import append, lines, scored, trained
from machine import header, table

from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.report.figures import png
from ganglion.tasks.gridnav import view

MAPS = 2_000
# name -> preset and settings
KINDS: Mapping[str, tuple[str, Sequence[str]]] = {
    "mixer": ("recipe1", ()),
    "mixer, augmented": ("recipe1", ("model.augment=true",)),
    "wave": ("quick", ("data.fresh=false",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--sizes", default="1000,5000,10000", help="numbers of states, by commas")
    parser.add_argument("--kinds", help=f"of {', '.join(KINDS)}; by semicolons (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--png", type=Path, help="picture of label accuracy beside the claims")
    parser.add_argument("--home", type=Path, required=True, help="runs and figures stay here")
    args = parser.parse_args()
    kinds = args.kinds.split(";") if args.kinds else list(KINDS)
    found = {
        (kind, int(size)): measured(args.home, kind, int(size), args.seed)
        for kind in kinds
        for size in args.sizes.split(",")
    }
    print(header("gridnav, training states"))
    rows = [
        [kind, f"{size:,}", *(f"{100 * line[k]:.2f} %" for k in
         ("label_accuracy", "label_random_optimal", "optimal", "success")), f"{line['cpu_s']:.0f}"]
        for (kind, size), line in found.items()
    ]  # fmt: skip
    print(table(["policy", "states", "label accuracy", "of a random optimal move",
                 "optimal moves", "success", "CPU-s"], rows))  # fmt: skip
    if args.png:
        curves: dict[str, dict[int, float]] = {}
        for (kind, size), line in found.items():
            curves.setdefault(kind, {})[size] = line["label_accuracy"]
        args.png.write_bytes(png(view.learning_curve(curves)))


def measured(home: Path, kind: str, size: int, seed: int) -> dict[str, Any]:
    """Return the figures of one training: those of `home`, or new ones."""
    name = f"{kind.replace(', ', '-')}-{size}"
    for line in lines(home):
        if (line["name"], line["seed"], line["set"]) == (name, seed, "8x8 density"):
            return line
    preset, words = KINDS[kind]
    run = trained(home, preset, name, seed, [f"data.train={size}", *words])
    policy = OnnxPolicy(run.folder / "export" / "policy.onnx")
    command = next(x for x in lines(home) if (x["name"], x["set"]) == (name, "command"))
    figures = scored(run, policy, "8x8 density", MAPS, seed)
    line = {"name": name, "seed": seed, "set": "8x8 density", **figures, "cpu_s": command["cpu_s"]}
    append(home, line)
    return line


if __name__ == "__main__":
    main()
