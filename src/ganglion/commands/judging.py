"""`evaluate`, `compare`, `export`, `verify`, `act`, `view`: verbs on finished policies."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganglion import pipeline
from ganglion.commands.common import home
from ganglion.commands.output import policies, size, table, write, write_json
from ganglion.commands.parsing import layer
from ganglion.console import number
from ganglion.core import files
from ganglion.core.errors import SettingsError, unknown


def evaluate(args: Namespace) -> int:
    """Score one policy and print its figures."""
    files.ensure_replaceable(args.out, ".json")
    result = pipeline.evaluate(
        args.source, task=args.task, layers=_layers(args.settings), data=args.data,
        cases=args.cases, seed=args.seed, scenarios=args.scenarios, home=home(args),
    )  # fmt: skip
    if args.out is not None:
        files.write_out(args.out, result)
    _tell(result, args.json)
    return 0


def compare(args: Namespace) -> int:
    """Score several policies on the same cases and print one table."""
    words = [w for w in args.sources if "=" in w and not Path(w).exists()]
    names = [w for w in args.sources if w not in words]
    if not names:
        raise SettingsError("`ganglion compare` needs at least one run, file or reference.")
    result = pipeline.compare(
        names, task=args.task, layers=_layers(words),
        data=args.data, cases=args.cases, seed=args.seed, scenarios=args.scenarios,
        policy_cmd=args.policy_cmd, policy_url=args.policy_url, recorded=args.recorded,
        claims=args.claims, html=args.html, out=args.out, home=home(args),
    )  # fmt: skip
    _tell(result, args.json)
    if args.json:
        return 0
    _tell_more(result)
    return 0


def export(args: Namespace) -> int:
    """Export a run's policy; `format=`, `precision=` and `checkpoint=` may be given as words."""
    words = {k: str(v) for k, v in layer(args.settings, _EXPORT).items()}
    for name in words:
        if name not in _EXPORT:
            raise SettingsError(unknown("export option", name, _EXPORT))
    chosen: str | int = words.get("checkpoint", args.checkpoint)
    if isinstance(chosen, str) and chosen.removeprefix("step=").isdecimal():
        chosen = int(chosen.removeprefix("step="))
    result = pipeline.export(
        args.run, format=words.get("format", args.format or "onnx"),
        precision=words.get("precision", args.precision or "fp32"), out=args.out,
        checkpoint=chosen, home=home(args),
    )  # fmt: skip
    if args.json:
        write_json(result)
        return 0
    write(f"{result['path']}  {size(result.get('bytes') or 0)}")
    if result.get("parity"):
        worst = number(result["parity"]["max_abs"])
        write(
            f"largest difference to the trained policy: {worst} (of numbers in an output's own "
            "unit; of choices, the share that differs)"
        )
        if result["precision"] != "fp32":
            _aside(
                args, "This file is not held to a tolerance; `ganglion evaluate "
                f"{result['path']}` says what it is worth."
            )  # fmt: skip
    return 0


_EXPORT = ("format", "precision", "checkpoint")


def verify(args: Namespace) -> int:
    """Check digests, parity and latency; exit code 1 where anything failed."""
    result = pipeline.verify(args.source, home=home(args))
    if args.json:
        write_json(result)
        return 0 if result["ok"] else 1
    rows = [[name, str(found)[:16]] for name, found in result["digests"].items()]
    if rows:
        write(table(["verified", "SHA-256"], rows))
    if result.get("parity"):
        parity = result["parity"]
        write(f"parity   {number(parity['max_abs'])} at most, on {parity['inputs']} inputs")
    if result.get("latency_us"):
        timed = result["latency_us"]
        write(f"latency  {timed['p50']:.0f} us p50, {timed['p99']:.0f} us p99")
    for problem in result.get("problems", []):
        write(f"fail     {problem}")
    write("ok" if result["ok"] else "not ok")
    return 0 if result["ok"] else 1


def act(args: Namespace) -> int:
    """Make one decision; the answer is JSON."""
    answer = pipeline.act(args.source, _inputs(args.input), home=home(args))
    if args.input is None:
        _aside(args, "No --input, so this answers an example; `--input -` reads standard input.")
    write_json(answer, one_line=True)
    return 0


def view(args: Namespace) -> int:
    """Draw what a policy does; the answer is the files written."""
    written = pipeline.view(args.run, out=args.out, home=home(args))
    if args.json:
        write_json({"files": [str(p) for p in written]})
    else:
        write("\n".join(map(str, written)))
    return 0


# ---------------------------------------------------------------- reading and telling


def _layers(words: list[str]) -> list[Mapping[str, Any]]:
    found = layer(words)
    return [found] if found else []


def _inputs(text: str | None) -> Mapping[str, Any] | None:
    """Read `--input`: JSON, @FILE or - for stdin."""
    if text is None:
        return None
    import orjson

    if text == "-":
        raw = sys.stdin.buffer.read(1 << 24)
    elif text.startswith("@"):
        try:
            raw = Path(text[1:]).read_bytes()
        except OSError as error:
            raise SettingsError(f"Cannot read {text[1:]}: {error.strerror}.") from error
    else:
        raw = text.encode()
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise SettingsError(f"--input is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise SettingsError('--input must be a JSON object: {"name of an input": [numbers]}.')
    return found


def _tell(result: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        write_json(result)
        return
    if result["data"] is None:
        drawn = f"({result['problem']}), {result['cases']} cases, seed {result['seed']}"
    else:
        drawn = f"{result['cases']} cases of {result['data']}"
    write(f"{result['task']} {drawn}\n")
    write(policies(result["policies"]))
    for scenario in result.get("scenarios") or []:
        write(f"\n{scenario['name']}  {dict(scenario.get('overrides') or {})}")
        write(policies(scenario["policies"]))


def _tell_more(result: Mapping[str, Any]) -> None:
    """Print efficiency, validation values and the settings that differ."""
    rows = []
    for policy in result["policies"]:
        cost = policy.get("efficiency") or {}
        trained = policy.get("training") or {}
        timed = cost.get("latency_us") or {}
        if cost or trained:
            rows.append(
                [str(policy["name"]), f"{cost.get('parameters') or 0:,}",
                 size(cost.get("file_bytes") or 0), size(cost.get("peak_memory_bytes") or 0),
                 number(timed.get("p50")), number(timed.get("p99")), number(trained.get("best")),
                 number(trained.get("last"))]
            )  # fmt: skip
    if rows:
        head = ["policy", "parameters", "file", "peak memory", "p50 us", "p99 us",
                "best validation", "last validation"]  # fmt: skip
        write("\n" + table(head, rows))
    differs: Mapping[str, Mapping[str, Any]] = result.get("differences") or {}
    if differs:
        who = list(dict.fromkeys(name for row in differs.values() for name in row))
        cells = [[k, *[str(row.get(w, "-")) for w in who]] for k, row in differs.items()]
        write("\n" + table(["setting", *who], cells))
    claims = result.get("claims")
    if claims:
        write("\n" + table(claims["header"], claims["rows"]))


def _aside(args: Namespace, text: str) -> None:
    """Tell a person something beside the answer."""
    if not args.quiet:
        sys.stderr.write(text + "\n")
