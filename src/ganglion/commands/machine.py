"""`doctor`, `chaos`, `init` and `completion`."""

from __future__ import annotations

import shutil
import tempfile
from argparse import Namespace
from pathlib import Path

from ganglion.commands.output import table, write, write_json


def doctor(args: Namespace) -> int:
    """Examine this machine; exit code 1 where something fails."""
    from ganglion.core import run as runs
    from ganglion.doctor import examine

    found = examine(runs.home(args.home))
    ok = all(f.level != "fail" for f in found)
    if args.json:
        write_json({"ok": ok, "findings": [f.to_json() for f in found]})
        return 0 if ok else 1
    write(table(["", "", ""], [[f.level, f.name, f.text] for f in found]).lstrip())
    for finding in found:
        if finding.mend:
            write(f"{finding.level} {finding.name}: {finding.mend}")
    return 0 if ok else 1


def chaos(args: Namespace) -> int:
    """Prove on these settings that a killed run ends as an undisturbed one; exit code 0 or 1."""
    from ganglion.chaos import prove
    from ganglion.commands.common import console, resolved
    from ganglion.core.files import ensure_writable
    from ganglion.core.settings import read_file

    resolved(args)  # a wrong setting is told before anything starts
    shown = console(args)
    if args.home is not None:
        ensure_writable(args.home)
    home = Path(tempfile.mkdtemp(prefix="ganglion-chaos-", dir=args.home))
    words = [*_words(read_file(args.config) if args.config else {}), *args.settings]
    threads = next((int(w[14:]) for w in words if w.startswith("train.threads=")), 1)
    verdict = prove(
        args.task, words, args.kills, args.seed, home, threads, count=args.runs,
        preset=args.preset, tell=shown.stage,
    )  # fmt: skip
    if verdict.ok:
        shutil.rmtree(home, ignore_errors=True)
    if args.json:
        write_json({**verdict.to_json(), "home": None if verdict.ok else str(home)})
        return 0 if verdict.ok else 1
    write("\n".join(verdict.faults) or (
        f"ok: {verdict.runs} run(s) of {verdict.steps} steps, {verdict.kills} times kill -9, "
        f"{verdict.resumes} resumes, all bit-identical to the undisturbed run "
        f"(state {verdict.state[:12]}, {verdict.seconds:.0f} s)"
    ))  # fmt: skip
    if not verdict.ok:
        write(f"The runs are kept in {home}.")
    return 0 if verdict.ok else 1


def init(args: Namespace) -> int:
    """Write an installable folder with a task that trains at once."""
    from ganglion.scaffold import make

    written = make(args.name, Path(args.name))
    if args.json:
        write_json({"folder": args.name, "files": [str(p) for p in written]})
        return 0
    write("\n".join(map(str, written)))
    write(f"\npip install -e {args.name} && ganglion train {args.name} --preset quick")
    return 0


def completion(args: Namespace) -> int:
    """Print a completion script."""
    from ganglion.commands.completion import script

    write(script(args.shell))
    return 0


def _words(layer: dict[str, object]) -> list[str]:
    """Return a settings file as `name=value` words."""
    import json

    from ganglion.commands.describing import flat

    return [f"{name}={json.dumps(value)}" for name, value in flat(layer).items()]
