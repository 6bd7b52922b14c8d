"""The verbs on one finished policy: export, verify, act, view."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ganglion import registry, scoring, sources
from ganglion.core import files, seeds
from ganglion.core import run as runs
from ganglion.core.contracts import Policy, Signature, Task
from ganglion.core.errors import (
    GanglionError,
    SettingsError,
    unknown,
)
from ganglion.sources import Source


def export(
    source: str,
    *,
    format: str = "onnx",
    precision: str = "fp32",
    out: Path | None = None,
    checkpoint: str | int = "best",
    home: Path = Path(),
) -> dict[str, Any]:
    """Export a run's checkpoint; ExportError where the file would not answer as the policy does.

    Returns {"path", "digest", "bytes", "parameters", "precision", "parity"}. An fp16 or int8 file
    states its error instead of being held to the tolerance.
    """
    from ganglion import finish
    from ganglion.session import trained

    if precision not in ("fp32", "fp16", "int8"):
        raise SettingsError(f"Unknown precision {precision!r}. Known: fp32, fp16, int8.")
    files.ensure_replaceable(out, ".onnx")
    run = runs.find(home, source)
    learner, task, cfg, step = trained(run, checkpoint)
    if format != "onnx":
        return _foreign(format, run, learner.policy(), task, step, out)
    suffix = "" if precision == "fp32" else f".{precision}"
    path = out or run.folder / "export" / f"policy{suffix}.onnx"
    cases = scoring.nominal_cases(sources.data_of(run), "validation")
    made = finish.export_policy(run, learner.policy(), task, cfg, cases, path, precision)
    parity = made.parity
    return {
        "path": str(path), "digest": made.digest, "bytes": made.file_bytes, "step": step,
        "parameters": made.parameters, "precision": precision,
        "parity": None if parity is None else
        {"max_abs": parity.max_abs, "inputs": parity.inputs},
    }  # fmt: skip


def _foreign(
    format: str, run: runs.Run, policy: Policy, task: Task, step: int, out: Path | None
) -> dict[str, Any]:
    """Write a policy in one of the task's own formats (`task.exporters`)."""
    known: Mapping[str, Any] = getattr(task, "exporters", {})
    if format not in known:
        raise SettingsError(unknown("format", format, ["onnx", *known]))
    path = out or run.folder / "export" / f"policy.{format}.onnx"
    card = {"task": run.config["task"], "run": run.id, "step": step, "format": format}
    made = known[format](policy, path, card)
    return {"digest": files.sha256(path), "step": step, "precision": "fp32", **made}


def verify(source: str, *, home: Path = Path()) -> dict[str, Any]:
    """Check every digest, the parity of the export and its latency; the form of `verify --json`.

    "ok" is False where anything failed; "problems" has one sentence for each.
    """
    from ganglion.export.latency import latency

    problems: list[str] = []
    digests: dict[str, Any] = {}
    run = None if source.endswith(".onnx") else runs.find(home, source)
    if run is not None:
        _verify_run(run, digests, problems)
    path = Path(source) if run is None else run.folder / "export" / "policy.onnx"
    result: dict[str, Any] = {"parity": None, "latency_us": None}
    if run is None or path.is_file():
        try:
            found = sources.of_file(path)
            digests[path.name] = found.entry.digest
            timed = latency(found.entry.policy)  # type: ignore[arg-type]
            result["latency_us"] = {"p50": timed.p50_us, "p99": timed.p99_us}
            result["parity"] = _parity(run, found)
        except GanglionError as error:
            if run is None:
                raise
            problems.append(str(error))
    else:
        problems.append(f"{run.folder} has no export yet.")
    return {"ok": not problems, "digests": digests, "problems": problems, **result}


def act(source: str, inputs: Mapping[str, Any] | None, *, home: Path = Path()) -> dict[str, Any]:
    """Make one decision and return its outputs as lists; `inputs` None draws typical ones.

    A batched input may be given with or without its batch axis; noise, state and steps may be left
    out. The answer also says which inputs were used.
    """
    from ganglion.export import inputs as checks

    found = sources.find(source, home)
    policy = sources.policy(found)
    spec = policy.signature.inputs
    steps = _steps(found)
    rng = seeds.rng(0, "act")
    given = _typical(found, policy.signature) if inputs is None else dict(inputs)
    arrays: dict[str, Any] = {}
    for name, value in given.items():
        rank = len(spec[name].shape) if name in spec and spec[name].batched else None
        try:
            array = np.asarray(value)
        except ValueError:
            raise SettingsError(f"Input {name!r} has rows of different lengths.") from None
        if array.dtype == object:
            raise SettingsError(f"Input {name!r} is no array of numbers.")
        if array.ndim == 0 and name in spec and spec[name].shape == (1,):
            array = array[None]
        arrays[name] = array[None] if rank is not None and array.ndim == rank else array
    batched = (a for n, a in arrays.items() if n in spec and spec[n].batched)
    batch = next((len(a) for a in batched if a.ndim), 1)
    filled = checks.defaults(policy.signature, batch, rng, steps=steps)
    ready = checks.check({**filled, **arrays}, policy.signature)
    outputs = policy.act(ready)
    return {
        "inputs": {k: v.tolist() for k, v in ready.items()},
        "outputs": {k: v.tolist() for k, v in outputs.items()},
    }


def view(source: str, *, out: Path | None = None, home: Path = Path()) -> list[Path]:
    """Draw what a policy does; returns the files written (.png, .gif or one .html page).

    SettingsError where the task draws nothing, or no such picture as asked for.
    """
    from ganglion.report.figures import png

    found = sources.find(source, home)
    if found.task is None or found.cfg is None:
        raise SettingsError(f"{source} does not say which task it belongs to.")
    task = registry.make(found.task, found.cfg)
    suffix = out.suffix if out is not None else ".png"
    if suffix not in (".png", ".gif", ".html"):
        raise SettingsError(f"Pictures are written as .png, .gif or .html, not {suffix!r}.")
    data = sources.data_for(found, None)
    cases = (
        scoring.fresh_cases(task, found.task, found.cfg, 200, 0)
        if data is None
        else scoring.nominal_cases(data, "test")
    )
    kind = "animate" if suffix == ".gif" else "draw"
    draw = getattr(task, kind, None)
    if draw is None:
        raise SettingsError(f"The task {found.task} makes no {suffix} pictures.")
    drawn = draw(sources.policy(found), cases, seeds.rng(found.cfg.seed, "draw"))
    if isinstance(drawn, bytes):
        drawn = {out.stem if out else found.entry.name: drawn}
    pictures = {n: f if isinstance(f, bytes) else png(f) for n, f in drawn.items()}
    return _write_pictures(found, task, pictures, out)


# ---------------------------------------------------------------- helpers


def _verify_run(run: runs.Run, digests: dict[str, Any], problems: list[str]) -> None:
    from ganglion.train import checkpoint

    folder = run.folder / "checkpoints"
    for step in checkpoint.listed(folder):
        path = folder / f"step_{step:08d}"
        try:
            digests[path.name] = checkpoint.state_digest(checkpoint.load(path).state)
        except GanglionError as error:
            problems.append(str(error))
    try:
        digests["dataset"] = sources.data_of(run).digest
    except GanglionError as error:
        problems.append(str(error))


def _parity(run: runs.Run | None, found: Source) -> dict[str, Any] | None:
    """Compare with the checkpoint where there is one, else say what the file states."""
    from ganglion.export.parity import parity

    if run is None or found.cfg is None:
        stated = _made(found).get("parity") or {}
        return {"max_abs": stated.get("max_abs"), "inputs": stated.get("inputs")}
    from ganglion.session import trained

    learner, *_ = trained(run, "best")
    limits = found.cfg.export
    measured = parity(
        learner.policy(),
        sources.policy(found),
        limits.parity_inputs,
        limit=limits.tolerance,
        steps=_steps(found),
    )
    return {"max_abs": measured.max_abs, "inputs": measured.inputs}


def _typical(found: Source, signature: Signature) -> dict[str, Any]:
    """Return one case of the policy's own task, or plain random inputs where it names none."""
    from ganglion.export.inputs import draw

    if found.task is None or found.cfg is None:
        return draw(signature, 1, seeds.rng(0, "act"))
    task = registry.make(found.task, found.cfg)
    case = scoring.fresh_cases(task, found.task, found.cfg, 1, 0)
    case = getattr(task, "inputs", lambda rows: rows)(case)
    return {name: case[name] for name in signature.inputs if name in case}


def _made(found: Source) -> Mapping[str, Any]:
    inspection = getattr(found.entry.policy, "inspection", None)
    return getattr(inspection, "made", {}) or {}


def _steps(found: Source) -> Mapping[str, int]:
    card = getattr(found.entry.policy, "card", {})
    steps: Mapping[str, int] = card.get("steps", {})
    return steps


def _write_pictures(
    found: Source, task: Any, pictures: Mapping[str, bytes], out: Path | None
) -> list[Path]:
    if out is not None and out.suffix == ".html":
        from ganglion.report.page import render

        captions = getattr(task, "captions", {})
        listed = [{"name": n, "caption": captions.get(n, n)} for n in pictures]
        shown = render({"version": 1, "task": found.task, "figures": listed}, pictures)
        files.write_out(out, shown.encode())
        return [out]
    if out is not None and len(pictures) == 1:
        targets = {next(iter(pictures)): out}
    elif out is not None:
        targets = {n: out.with_name(f"{out.stem}-{n}{out.suffix}") for n in pictures}
    else:
        base = found.run.folder / "view" if found.run is not None else Path("view")
        targets = {n: base / f"{n}.png" for n in pictures}
    for name, path in targets.items():
        files.write_out(path, pictures[name])
    return list(targets.values())
