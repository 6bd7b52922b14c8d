"""`generate` and `data check|show|import|export`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import numpy as np

from ganglion import data_verbs
from ganglion.commands.common import console, home, resolved
from ganglion.commands.output import size, table, write, write_json
from ganglion.commands.parsing import layer
from ganglion.core.dataset import Dataset
from ganglion.core.errors import DataError, SettingsError


def generate(args: Namespace) -> int:
    """Generate the dataset that the settings ask for."""
    from ganglion import pipeline

    cfg = resolved(args)
    shown = console(args)
    try:
        found = pipeline.generate(
            args.task, cfg, args.out, home=home(args), workers=args.workers,
            progress=shown.counting("rows generated"),
        )  # fmt: skip
    finally:
        shown.close()
    _tell(found, args)
    return 0


def check(args: Namespace) -> int:
    """Validate a dataset folder, or a foreign file of --task."""
    report = data_verbs.check(args.path, args.task, args.format, _layers(args))
    if args.json:
        write_json(report)
        return 0 if report["ok"] else DataError.exit_code
    if not report["ok"]:
        faults = report["faults"]
        more = f" And {len(faults) - 1} more fault(s); --json lists them." if faults[1:] else ""
        raise DataError(f"{faults[0]}{more}")
    for split, rows in report["splits"].items():
        write(f"{split}: {rows:,} rows")
    write(f"ok: {', '.join(report['checked'])}")
    return 0


def show(args: Namespace) -> int:
    """Print a dataset's card and its first rows; --out draws pictures."""
    shown = data_verbs.show(
        args.path, args.task, args.format, _layers(args), rows=args.rows, out=args.out
    )
    if args.json:
        write_json(shown)
        return 0
    write(f"{args.path}: task {shown['task']}, {size(shown['bytes'])}, digest {shown['digest']}")
    arrays = [
        [f"{split}/{name}", str(e["shape"]), str(e["dtype"]), str(e["unit"])]
        for split, entries in shown["splits"].items()
        for name, e in entries.items()
    ]
    write(table(["array", "shape", "dtype", "unit"], arrays))
    for name, values in shown["rows"].items():
        write(f"\n{name}")
        write("\n".join(f"  {_numbers(value)}" for value in values))
    for path in shown["pictures"]:
        write(path)
    return 0


def imported(args: Namespace) -> int:
    """Make a dataset of a foreign file."""
    if args.task is None:
        raise SettingsError("`ganglion data import` needs --task T: whose format it is.")
    found = data_verbs.import_file(
        args.path, args.task, args.format, _layers(args),
        out=args.out, home=home(args), shares=_shares(args), seed=args.seed,
    )  # fmt: skip
    _tell(found, args)
    return 0


def exported(args: Namespace) -> int:
    """Write one split of a dataset in a foreign format."""
    if args.out is None:
        raise SettingsError("`ganglion data export` needs --out FILE.")
    path = data_verbs.export_file(args.path, args.format, args.out, args.split, _layers(args))
    if args.json:
        write_json({"path": str(path), "bytes": path.stat().st_size})
    else:
        write(f"{path}  {size(path.stat().st_size)}")
    return 0


def _numbers(value: Any) -> str:
    if isinstance(value, str):
        return value
    return np.array2string(np.asarray(value), precision=5, separator=", ", max_line_width=1 << 20)


def _layers(args: Namespace) -> list[Mapping[str, Any]]:
    found = layer(args.settings)
    return [found] if found else []


def _shares(args: Namespace) -> dict[str, float]:
    """Return split -> share of the rows."""
    if args.split is not None:
        return {args.split: 1.0}
    try:
        parts = [float(p) for p in args.fractions.split(",")]
    except ValueError:
        parts = []
    good = len(parts) == 3 and all(0 <= p <= 1 for p in parts) and abs(sum(parts) - 1) < 1e-6
    if not good:
        raise SettingsError(
            f"--fractions wants three shares that sum to 1, e.g. 0.8,0.1,0.1; got "
            f"{args.fractions!r}."
        )
    return {s: p for s, p in zip(("train", "validation", "test"), parts, strict=True) if p}


def _tell(found: Dataset, args: Namespace) -> None:
    rows = {split: found.rows(split) for split in found.card["splits"]}
    held = sum(p.stat().st_size for p in found.folder.rglob("*.npy"))
    if args.json:
        write_json(
            {"folder": str(found.folder), "task": found.task, "digest": found.digest,
             "rows": rows, "bytes": held}
        )  # fmt: skip
        return
    counts = ", ".join(f"{n:,} {s}" for s, n in rows.items())
    write(f"{found.folder}  {counts} rows, {size(held)}, digest {found.digest[:16]}")
