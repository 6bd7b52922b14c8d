"""`train` and `resume`. The handlers call `pipeline.train` themselves: no frame in between."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganglion import registry
from ganglion.commands.common import console, home, layers, resolved
from ganglion.commands.output import figure, table, write, write_json
from ganglion.core import run as runs
from ganglion.core.errors import Preempted, SettingsError
from ganglion.core.run import Run
from ganglion.sources import settings_of
from ganglion.train.settings import TaskSettings


def train(args: Namespace) -> int:
    """Train one run, or one for each of --seeds; --dry-run only says what would be done."""
    cfg = resolved(args)
    _check(args)
    if args.dry_run:
        from ganglion.commands.plan import show

        return show(args, cfg)

    from ganglion import pipeline

    parent = _warm_parent(args)
    older = runs.named(home(args), args.name) if args.name else None
    outcomes = []
    for number in range(args.seeds):
        mine = registry.override(args.task, cfg, {"seed": cfg.seed + number})
        shown = console(args, registry.make(args.task, mine).goal)
        run = pipeline.begin(
            args.task, mine, _place(args, number), preset=args.preset, parent=parent,
            workers=args.workers, progress=shown.counting("rows generated"),
        )  # fmt: skip
        shown.say(f"Run {run.id} in {run.folder} on {run.manifest['device']}")
        if older is not None:
            shown.say(f"{args.name!r} was the name of {older.id}; from now on it means this run.")
        try:
            outcome = pipeline.train(run, shown, strict=args.strict)
        except Preempted as stop:
            raise _paused(stop, run, args) from stop
        outcomes.append(outcome)
        if args.seeds > 1 and not args.json:
            write(f"seed {mine.seed}: {_line(outcome)}")
    if args.seeds == 1:
        _tell(outcomes[0], args)
    else:
        from ganglion.commands.seeds import tell

        tell(args, cfg, outcomes)
    return 0


def resume(args: Namespace) -> int:
    """Go on with a run, or (--from) open a new one from one of its checkpoints."""
    from ganglion import pipeline

    root = home(args)
    run = runs.find(root, args.run)
    task, cfg = settings_of(run)
    changes = layers(args, task)
    if args.start is None:
        for flag, value in _only_new(args):
            if value is not None:
                raise SettingsError(f"{flag} is for a new run; give --from best, last or step=N.")
        pipeline.reopen(run, [c for c in changes if c])
    else:
        run = _branch(args, root, run, task, cfg, changes)
    shown = console(args, registry.make(task, cfg).goal)
    shown.say(f"Run {run.id} in {run.folder}")
    try:
        outcome = pipeline.train(run, shown, strict=args.strict)
    except Preempted as stop:
        raise _paused(stop, run, args) from stop
    _tell(outcome, args)
    return 0


# ---------------------------------------------------------------- where from, where to


def _check(args: Namespace) -> None:
    if args.seeds > 1 and args.out is not None:
        raise SettingsError("--out names one run folder; with --seeds give --home instead.")
    if args.name is not None:
        runs.check_name(args.name)


def _only_new(args: Namespace) -> list[tuple[str, object]]:
    return [("--name", args.name), ("--out", args.out), ("--device", args.device)]


def _place(args: Namespace, number: int) -> Any:
    from ganglion.pipeline import Place

    name = args.name
    if name is not None and args.seeds > 1:
        name = f"{name}-{number}"
    return Place(
        home=home(args), data=args.data, val_data=args.val_data, out=args.out, name=name,
        device=args.device,
    )  # fmt: skip


def _warm_parent(args: Namespace) -> Any:
    """Return the parent that --from names: its best weights, nothing else of its state."""
    if args.parent is None:
        return None
    from ganglion.pipeline import Parent
    from ganglion.session import chosen_checkpoint

    old = runs.find(home(args), args.parent)
    if old.config.get("task") != args.task:
        raise SettingsError(
            f"{old.id} is a run of the task {old.config.get('task')!r}, not of {args.task!r}."
        )
    return Parent(old.id, chosen_checkpoint(old, "best").path)


def _branch(
    args: Namespace,
    root: Path,
    old: Run,
    task: str,
    cfg: TaskSettings,
    changes: list[Mapping[str, Any]],
) -> Run:
    """Open a new run that begins with the whole state of one of `old`'s checkpoints."""
    from ganglion import pipeline
    from ganglion.session import chosen_checkpoint

    found = chosen_checkpoint(old, args.start)
    preset = old.config.get("preset")
    new = registry.resolve(task, preset, [cfg.model_dump(mode="json"), *changes])
    manifest = old.manifest
    val_data = manifest.get("val_data")
    place = pipeline.Place(
        home=root, data=Path(manifest["data"]["folder"]),
        val_data=Path(val_data["folder"]) if val_data else None,
        out=args.out, name=args.name, device=args.device or manifest["device"],
    )  # fmt: skip
    parent = pipeline.Parent(old.id, found.path, whole=True)
    return pipeline.begin(task, new, place, preset=preset, parent=parent)


# ---------------------------------------------------------------- telling


def _paused(stop: Preempted, run: Run, args: Namespace) -> Preempted:
    listed = run.folder.resolve() == runs.folder_of(
        home(args), str(run.config["task"]), run.id
    ).resolve()  # fmt: skip
    place = f"--home {args.home} " if args.home is not None and listed else ""
    name = run.id if listed else str(run.folder)
    return Preempted(f"{str(stop).rstrip('.')}. `ganglion {place}resume {name}` goes on.")


def _tell(outcome: Mapping[str, Any], args: Namespace) -> None:
    if args.json:
        write_json(outcome, one_line=True)
        return
    policies = outcome.get("policies") or []
    if policies:
        names = list(outcome["metrics"])
        goal = outcome.get("goal", names[0])
        names = [goal, *[n for n in names if n != goal]][:6]
        rows = [[str(p["name"]), *[figure(p["metrics"].get(n)) for n in names]] for p in policies]
        write(table(["policy", *names], rows))
    write(f"run     {outcome['run']}")
    if outcome.get("export"):
        write(f"export  {outcome['export']['path']}")
    if outcome.get("report"):
        write(f"report  {outcome['report']}")


def _line(outcome: Mapping[str, Any]) -> str:
    goal = outcome.get("goal") or next(iter(outcome["metrics"]))
    return f"{goal} {figure(outcome['metrics'][goal])}  {outcome['run']}"
