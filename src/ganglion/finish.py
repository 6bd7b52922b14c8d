"""What follows training: export, verification, evaluation, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ganglion import registry, scoring
from ganglion.core import metrics, seeds
from ganglion.core.contracts import Arrays, Policy, Ranks, Task
from ganglion.core.errors import ExportError, Preempted, SettingsError
from ganglion.core.run import Run
from ganglion.core.settings import difference
from ganglion.export.efficiency import Efficiency, efficiency
from ganglion.export.inspection import inspect
from ganglion.export.onnx_export import Checks, Exported, export
from ganglion.export.onnx_policy import OnnxPolicy
from ganglion.report import page
from ganglion.report.diagnosis import diagnose
from ganglion.report.figures import curves_png, png
from ganglion.scoring import Entry, Scenario
from ganglion.session import Session, chosen_checkpoint, steps_of
from ganglion.train.policy import TorchPolicy
from ganglion.train.settings import TaskSettings

WORST = 8


def after_training(
    run: Run,
    session: Session,
    spent: Mapping[str, float],
    console: Any,
    stop: Callable[[], str | None],
) -> dict[str, Any]:
    """Export, verify, evaluate and report the best checkpoint; the form of `train --json`.

    ExportError where the exported file does not answer as the trained policy does: the run then
    keeps its checkpoints, and has no policy.onnx. Preempted between two stages after a signal.
    """

    def stage(name: str) -> None:
        if reason := stop():
            raise Preempted(f"{reason} after training, before the stage {name!r}.")
        console.stage(name)
        run.set("running", stage=name, step=session.learner.step)

    stage("export")
    best = chosen_checkpoint(run, "best", console.say)
    session.learner.load_state_dict(best.state["learner"])
    policy = session.learner.policy()
    validation = session.validation.data
    exported = export_policy(run, policy, session.task, session.cfg, validation)
    untrained = _export_untrained(run, session, validation)
    stage("verify")
    measured = efficiency(exported.path)
    onnx = OnnxPolicy(exported.path)
    in_use = _in_use(session.task, policy, onnx, validation, session.cfg.seed)
    stage("evaluate")
    scenarios = _scored(run, session, onnx, untrained)
    stage("report")
    scores = scoring.scores_json(str(run.config["task"]), session.cfg, session.cfg.seed, scenarios)
    report = {
        **scores,
        **_training(run, session, spent, scores),
        "export": {**_export_verdict(exported, measured, session.cfg), "in_use": in_use},
    }
    report["policies"][0]["efficiency"] = measured.to_json()
    path = _report(run, session, report, onnx, scenarios[0])
    for remark in report["remarks"]:
        console.say(f"Note: {remark}")
    console.say(f"Report: {path}")
    return {
        "run": str(run.folder),
        "status": "succeeded",
        "goal": session.task.goal.name,
        "metrics": report["policies"][0]["metrics"],
        "export": {
            "path": str(exported.path), "digest": exported.digest,
            "parity": report["export"]["parity"],
            "latency_us": report["export"]["latency_us"],
        },
        "report": str(path),
        "steps": session.learner.step,
        "policies": report["policies"],
        **spent,
    }  # fmt: skip


def _scored(run: Run, session: Session, onnx: OnnxPolicy, untrained: OnnxPolicy) -> list[Scenario]:
    """Score the exported policy beside every reference, on the test cases and in every scenario."""
    entries = [
        Entry(str(run.manifest.get("name") or "policy"), "run", onnx, onnx.digest),
        *(Entry(name, "reference") for name in session.task.references()),
        Entry("untrained", "reference", untrained, untrained.digest),
    ]
    cases = scoring.nominal_cases(session.data, "test")
    return scoring.score(
        str(run.config["task"]), session.cfg, entries, cases, session.cfg.seed, True
    )


def _report(
    run: Run, session: Session, report: dict[str, Any], onnx: OnnxPolicy, nominal: Scenario
) -> Path:
    """Add to `report` what shows the policy at work, and write the page."""
    shown: dict[str, Any] = {}
    if hasattr(session.task, "curves"):  # quality over cycles, where the policy has them
        shown["curves"] = session.task.curves(onnx, nominal.cases)
        report["anytime"] = {k: v.tolist() for k, v in shown["curves"].items()}
    report["worst"] = _worst(session.task, nominal)
    figures = _figures(session.task, onnx, nominal.cases, session.cfg.seed, report, shown)
    return page.write(run.folder / "report", report, figures)


def export_policy(
    run: Run,
    policy: Policy,
    task: Task,
    cfg: TaskSettings,
    cases: Arrays,
    path: Path | None = None,
    precision: Any = "fp32",
    tolerance: float | None = None,
) -> Exported:
    """Export the torch `policy` of a run as ONNX with its card; ExportError above the tolerance."""
    if not isinstance(policy, TorchPolicy):
        raise ExportError("This policy is no torch module and cannot be exported.")
    cycles = steps_of(task, policy.signature)
    card = {
        "task": run.config["task"], "run": run.id, "settings": cfg.model_dump(mode="json"),
        "data": run.manifest["data"]["digest"], "goal": task.goal.name, "steps": cycles,
        "ganglion": run.manifest["ganglion"],
        **({"about": task.about} if hasattr(task, "about") else {}),
    }  # fmt: skip
    read = getattr(task, "inputs", lambda rows: rows)  # where data hold inputs in another form
    given = read({k: v[:64] for k, v in cases.items()})
    probe = {k: given[k] for k in policy.signature.inputs if k in given}
    whole = len(probe) == sum(s.role == "data" for s in policy.signature.inputs.values())
    checks = Checks(
        rows=cfg.export.parity_inputs, limit=tolerance or cfg.export.tolerance,
        cases={**probe, **_fill(policy, cycles)} if whole else None,
    )  # fmt: skip
    target = path or run.folder / "export" / "policy.onnx"
    target.parent.mkdir(parents=True, exist_ok=True)
    return export(policy.module, policy.signature, target, card, precision=precision, checks=checks)


def _in_use(task: Task, policy: Policy, onnx: Policy, cases: Arrays, seed: int) -> Any:
    """Return what the task says of the file in use beside the trained policy; ExportError inside.

    Small differences of single answers may grow where answers feed back through a world.
    """
    check = getattr(task, "same_in_use", None)
    return None if check is None else check(policy, onnx, cases, seeds.rng(seed, "in use"))


def _fill(policy: Policy, steps: Mapping[str, int]) -> dict[str, Any]:
    from ganglion.export.inputs import defaults

    return defaults(policy.signature, 64, seeds.rng(0, "probe"), steps=steps)


def _export_untrained(run: Run, session: Session, cases: Arrays) -> OnnxPolicy:
    """Export the net as it was before training, as a baseline for the report."""
    cfg = session.cfg
    fresh = session.task.learner(None, "cpu", cfg.seed, Ranks())
    path = run.folder / "references" / "untrained.onnx"
    # a net that was never trained may amplify rounding: its difference is stated, not judged
    export_policy(run, fresh.policy(), session.task, cfg, cases, path, tolerance=float("inf"))
    return OnnxPolicy(path)


def _beats(scores: Mapping[str, Any]) -> bool:
    """Say whether the trained policy beats zero effort: the untrained net and random choice."""
    goal = scores["goal"]
    found = {p["name"]: p["metrics"][goal] for p in scores["policies"]}
    ours = scores["policies"][0]["metrics"][goal]
    sign = 1.0 if ours["better"] == "lower" else -1.0
    rivals = [sign * found[n]["value"] for n in ("untrained", "random", "zero") if n in found]
    return bool(sign * ours["value"] < min(rivals, default=float("inf")))


def _training(
    run: Run, session: Session, spent: Mapping[str, float], scores: Mapping[str, Any]
) -> dict[str, Any]:
    lines = list(run.lines())
    curves = {
        kind: [
            {k: v for k, v in line.items() if k != "kind"} for line in lines if line["kind"] == kind
        ]
        for kind in ("train", "validation", "event")
    }
    cfg = session.cfg.model_dump(mode="json")
    default = type(session.cfg)().model_dump(mode="json")
    manifest = run.manifest
    timing = list(run.lines("timing.jsonl"))
    facts = {**_facts(run, session, timing), "beats_baselines": _beats(scores)}
    return {
        "run": {
            "id": run.id, "name": manifest.get("name"), "created": manifest.get("created"),
            "status": "succeeded", "steps": session.learner.step,
            "seconds": sum(t.get("seconds", 0.0) for t in timing),
            "cpu_seconds": spent.get("cpu_s"), "settings": cfg,
            "changed": {k: [a, b] for k, (a, b) in difference(default, cfg).items()},
            "manifest": manifest,
        },
        "remarks": list(getattr(session.task, "remarks", [])),
        "data": dict(session.data.card),
        "curves": curves,
        "best_step": session.progress.best_step,
        "diagnosis": [f.to_json() for f in diagnose(curves, cfg, facts)],
        "efficiency_quotes": list(getattr(session.task, "efficiency_quotes", [])),
    }  # fmt: skip


def _facts(run: Run, session: Session, timing: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the diagnosis needs besides curves and settings."""
    updates = [t for t in timing if t.get("kind") == "train"]
    # an estimate from the first updates knows nothing of labels that are made on the way
    labelling = float(getattr(session.learner, "labelling_seconds", 0.0))
    seconds = max(0.0, sum(t["seconds"] for t in updates) - labelling)
    logging = sum(t.get("log_s", 0.0) for t in updates)
    data = float(getattr(session.learner, "data_seconds", 0.0))
    early = [t["seconds"] for t in updates[1:6]]
    total = session.cfg.train.total_steps(session.rows)
    return {
        "goal": session.task.goal.name, "better": session.task.goal.better,
        "accepts": lambda flat: _accepts(run, session.cfg, flat),
        "stopped_early": session.learner.step < total,
        "data_path": str(session.data.folder), "device": run.manifest["device"],
        "seconds": seconds + logging, "seconds_data": data, "seconds_logging": logging,
        "seconds_compute": max(0.0, seconds - data),
        "estimated_seconds": float(np.median(early)) * len(updates) if early else None,
    }  # fmt: skip


def _accepts(run: Run, cfg: TaskSettings, flat: Mapping[str, Any]) -> bool:
    """Say whether the run's settings could be changed so."""
    try:
        registry.override(str(run.config["task"]), cfg, flat)
    except SettingsError:
        return False
    return True


def _export_verdict(made: Exported, found: Efficiency, cfg: TaskSettings) -> dict[str, Any]:
    parity = made.parity
    return {
        "path": "export/policy.onnx", "digest": made.digest, "bytes": made.file_bytes,
        "opset": inspect(made.path).made.get("opset"), "ok": True, "refused": None,
        "parity": None if parity is None else {
            "max_abs": parity.max_abs, "inputs": parity.inputs,
            "tolerance": cfg.export.tolerance,
        },
        "latency_us": {"p50": found.latency.p50_us, "p99": found.latency.p99_us},
    }  # fmt: skip


def _worst(task: Task, nominal: Scenario) -> list[dict[str, Any]]:
    ours, found = nominal.scored[0], []
    column = np.asarray(ours.rows[task.goal.name], np.float64)
    if np.unique(column[np.isfinite(column)]).size < 2:  # none is worse than another
        return []
    for case in metrics.worst(ours.rows, task.goal, WORST):
        figures = {m.name: metrics.of_case(ours.rows, m, int(case)) for m in task.metrics}
        # bytes are codes or packed bits: nothing that a person reads
        inputs = {k: v[case].tolist() for k, v in nominal.cases.items()
                  if v[case].size <= 8 and v.dtype != np.uint8}  # fmt: skip
        found.append({"case": int(case), "metrics": figures, "inputs": inputs})
    return found


def _figures(
    task: Task, policy: Policy, cases: Arrays, seed: int, report: dict[str, Any],
    shown: Mapping[str, Any],
) -> dict[str, bytes]:  # fmt: skip
    """Return the report's pictures; `shown` is what `draw` takes besides."""
    figures = {"curves": curves_png(report["curves"], task.goal.name)}
    draw = getattr(task, "draw", None)
    if draw is not None:
        for name, figure in draw(policy, cases, seeds.rng(seed, "draw"), **shown).items():
            figures[name] = figure if isinstance(figure, bytes) else png(figure)
    captions = getattr(task, "captions", {})
    report["figures"] = [
        {"name": name, "caption": captions.get(name, name.replace("_", " "))}
        for name in figures
        if name != "curves"
    ]
    return figures
