"""The verbs on finished policies: evaluate, compare, export, verify, act, view."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from ganglion import registry, scoring, sources
from ganglion.core import dataset, files, seeds
from ganglion.core import run as runs
from ganglion.core import settings as core_settings
from ganglion.core.contracts import Arrays, Metric, Policy, Signature, Task
from ganglion.core.errors import (
    DataError,
    GanglionError,
    OutputError,
    ServiceError,
    SettingsError,
    unknown,
)
from ganglion.report.pairs import differences
from ganglion.scoring import Entry, Scenario
from ganglion.sources import Layers, Source
from ganglion.train.settings import TaskSettings


def evaluate(
    source: str,
    *,
    task: str | None = None,
    layers: Layers = (),
    data: Path | None = None,
    cases: int | None = None,
    seed: int | None = None,
    scenarios: bool = False,
    home: Path = Path(),
) -> dict[str, Any]:
    """Score one policy (RUN, FILE.onnx, or a reference of `task`); the form of `evaluate --json`.

    The cases are the test split of `data` or of the run's own dataset; a `seed`, more `cases`
    than those, or settings of another world draw fresh ones. DataError where `data` belong to
    another task or world.
    """
    found = sources.find(source, home, task, layers)
    return _judge([found], task, layers, data, cases, seed, scenarios)[0]


def compare(
    names: Sequence[str],
    *,
    task: str | None = None,
    layers: Layers = (),
    data: Path | None = None,
    cases: int | None = None,
    seed: int | None = None,
    scenarios: bool = False,
    policy_cmd: str | None = None,
    policy_url: str | None = None,
    recorded: Path | None = None,
    claims: bool = False,
    html: Path | None = None,
    out: Path | None = None,
    home: Path = Path(),
) -> dict[str, Any]:
    """Score several policies on the same cases and say what differs; `compare --json`'s form.

    policy_cmd is an external controller (JSON lines on standard input and output, no shell);
    policy_url is one behind HTTP; recorded is a file of recorded outputs. claims adds what others
    promise of the first run, with the random, the optimal and the untrained policy beside it. html
    and out are where page and JSON are written.
    """
    files.ensure_replaceable(out, ".json")
    files.ensure_replaceable(html, ".html")
    wanted = _once(names)
    named, trained = sources.trained_under(wanted, home)
    task = task or named
    under = [*([trained.model_dump(mode="json")] if trained and task == named else []), *layers]
    found = [sources.find(n, home, task, under) for n in wanted]
    name = sources.common_task(found, task)
    if claims:
        found = _with_claimed(found, name, layers)
    with ExitStack() as held_open:
        outside = _outside(found, name, layers, (policy_cmd, policy_url, recorded), held_open)
        report, judged = _judge([*found, *outside], task, layers, data, cases, seed, scenarios)
    for row, source in zip(report["policies"], [*found, *outside], strict=True):
        row["efficiency"] = _efficiency(source)
        row["training"] = _training(source)
    report["differences"] = _differences(found)
    made = registry.make(name, _settings(found, name, layers))
    report["paired"] = _paired(judged[0], made.goal)
    report["efficiency_quotes"] = list(getattr(made, "efficiency_quotes", []))
    if claims:
        report["claims"] = _claims(found[0], made, report["policies"])
    if out is not None:
        _write(out, lambda: files.write_json(out, report))
    if html is not None:
        from ganglion.report.compare import compare_page

        page = compare_page(report, runs=_reports(found))
        _write(html, lambda: files.write_bytes(html, page.encode()))
    return report


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
    batch = next((len(a) for n, a in arrays.items() if n in spec and spec[n].batched), 1)
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


# ---------------------------------------------------------------- helpers of the verbs


def _judge(
    found: Sequence[Source],
    task: str | None,
    layers: Layers,
    data: Path | None,
    cases: int | None,
    seed: int | None,
    scenarios: bool,
) -> tuple[dict[str, Any], list[Scenario]]:
    name = sources.common_task(found, task)
    cfg = _settings(found, name, layers)
    chosen = _cases(found, name, cfg, data, cases, seed)
    stream = cfg.seed if seed is None else seed
    judged = scoring.score(name, cfg, [s.entry for s in found], chosen, stream, scenarios)
    return scoring.scores_json(name, cfg, stream, judged), judged


def _settings(found: Sequence[Source], task: str, layers: Layers) -> TaskSettings:
    """Return the settings to judge under: the first trained policy's, with `layers` on top."""
    first = next((s.cfg for s in found if s.cfg is not None), None)
    if first is None:
        return registry.resolve(task, None, layers)
    return core_settings.resolve(type(first), [first.model_dump(mode="json"), *layers])


def _cases(
    found: Sequence[Source],
    task: str,
    cfg: TaskSettings,
    data: Path | None,
    count: int | None,
    seed: int | None,
) -> Arrays:
    opened = next((d for s in found if (d := sources.data_for(s, data)) is not None), None)
    if opened is None and data is not None:
        opened = dataset.open_dataset(data)
        opened.verify()
    if data is not None and opened is not None:
        scoring.check_fits(opened, task, cfg)
        return scoring.nominal_cases(opened, _test_split(opened), count)
    same = opened is not None and opened.card["recipe"]["world"] == cfg.world()
    if opened is None or not same or seed is not None or (count or 0) > opened.rows("test"):
        made = registry.make(task, cfg)
        stream = cfg.seed if seed is None else seed
        return scoring.fresh_cases(made, task, cfg, count or cfg.data.test, stream)
    return scoring.nominal_cases(opened, "test", count)


def _test_split(data: dataset.Dataset) -> str:
    return "test" if "test" in data.card["splits"] else next(iter(data.card["splits"]))


def _once(names: Sequence[str]) -> list[str]:
    if not names:
        raise SettingsError("Name at least one run, .onnx file or reference to compare.")
    return list(dict.fromkeys(names))


def _outside(
    found: Sequence[Source], task: str, layers: Layers,
    given: tuple[str | None, str | None, Path | None], held_open: ExitStack,
) -> list[Source]:  # fmt: skip
    """Return the external controllers; they have the signature of the first trained policy.

    What they hold open is closed by `held_open`.
    """
    from ganglion.export.external import CommandPolicy, RecordedPolicy
    from ganglion.export.remote import UrlPolicy

    command, url, recorded = given
    if command is None and url is None and recorded is None:
        return []
    signature = next((s.entry.policy.signature for s in found if s.entry.policy is not None), None)
    if signature is None:
        made = registry.make(task, _settings(found, task, layers))
        signature = made.references()["oracle"].signature
    outside = []
    if command is not None:
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise SettingsError(f"--policy-cmd cannot be read: {error}.") from error
        policy = held_open.enter_context(CommandPolicy(words, signature))
        outside.append(Source(Entry(f"command {words[0]}", "command", policy), task))
    if url is not None:
        remote = held_open.enter_context(closing(UrlPolicy(url, signature)))
        outside.append(Source(Entry(f"url {url}", "url", remote), task))
    if recorded is not None:
        held = RecordedPolicy(recorded, signature)
        outside.append(Source(Entry(recorded.name, "recorded", held, files.sha256(recorded)), task))
    return outside


def _with_claimed(found: Sequence[Source], task: str, layers: Layers) -> list[Source]:
    """Add the policies that claims are about; SettingsError where nobody claims anything."""
    run = found[0].run
    if run is None:
        raise SettingsError("--claims asks about a training: name a run first.")
    if not getattr(registry.make(task, _settings(found, task, layers)), "claims", ()):
        raise SettingsError(
            f"No claims are known about {task} with the settings of run {run.id}. Those of the "
            "originals' guides are about the presets that are named after them; `ganglion tasks` "
            "lists those."
        )
    out, names = list(found), {s.entry.name for s in found}
    untrained = run.folder / "references" / "untrained.onnx"
    if untrained.is_file() and untrained.name not in names:
        out.append(sources.of_file(untrained))
    return [*out, *(Source(Entry(n, "reference"), task) for n in ("random", "oracle")
                    if n not in names)]  # fmt: skip


def _claims(source: Source, task: Any, policies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return {"header", "rows"}: each claim beside what was measured."""
    from ganglion.report import claims

    assert source.run is not None
    assert source.cfg is not None
    steps = source.cfg.train.epoch_steps(source.cfg.data.train) if source.cfg.train.epochs else None
    trained = claims.Trained(source.entry.name, "untrained.onnx", list(source.run.lines()), steps)
    return {"header": list(claims.HEADER), "rows": claims.rows(task.claims, policies, trained)}


def _efficiency(source: Source) -> dict[str, Any] | None:
    from ganglion.export.efficiency import efficiency

    if source.onnx is None:
        return None
    try:
        return efficiency(source.onnx).to_json()
    except ServiceError:
        return None


def _training(source: Source) -> dict[str, Any] | None:
    """Return a run's best and last validation value."""
    if source.run is None or source.task is None or source.cfg is None:
        return None
    goal = registry.make(source.task, source.cfg).goal
    values = [
        (line["step"], line[goal.name])
        for line in source.run.lines()
        if line.get("kind") == "validation" and line.get(goal.name) is not None
    ]
    if not values:
        return None
    pick = min if goal.better == "lower" else max
    best = pick(values, key=lambda v: v[1])
    return {
        "goal": goal.name, "best": best[1], "best_step": best[0],
        "last": values[-1][1], "last_step": values[-1][0],
    }  # fmt: skip


def _reports(found: Sequence[Source]) -> list[dict[str, Any]]:
    """Return the report.json of every run that has one, for its curves."""
    paths = [s.run.folder / "report" / "report.json" for s in found if s.run is not None]
    try:
        return [orjson.loads(p.read_bytes()) for p in paths if p.is_file()]
    except (OSError, orjson.JSONDecodeError) as error:
        raise DataError(f"A report cannot be read: {error}.") from error


def _differences(found: Sequence[Source]) -> dict[str, dict[str, Any]]:
    """Return dotted setting -> {policy: value} for the settings in which the runs differ."""
    flat = {
        s.entry.name: {k: b for k, (_, b) in core_settings.difference({}, _leaves(s.cfg)).items()}
        for s in found
        if s.cfg is not None
    }
    names = sorted({k for values in flat.values() for k in values})
    rows = {k: {who: values.get(k) for who, values in flat.items()} for k in names}
    return {k: row for k, row in rows.items() if len({str(v) for v in row.values()}) > 1}


def _leaves(cfg: TaskSettings, where: str = "", raw: Any = None) -> dict[str, Any]:
    value = cfg.model_dump(mode="json") if raw is None else raw
    out: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            out.update(_leaves(cfg, f"{where}{name}.", item))
        else:
            out[where + name] = item
    return out


def _paired(nominal: Scenario, metric: Metric) -> list[dict[str, Any]]:
    """Return each policy's goal minus the first one's on the same cases, with its interval."""
    rows: dict[str, Arrays] = {}
    for number, scored in enumerate(nominal.scored):
        name = scored.entry.name
        rows[name if name not in rows else f"{name} ({number + 1})"] = scored.rows
    found = differences(rows, [metric], seeds.rng(0, "paired"))
    return [
        {"name": d.policy, "against": d.against, "goal": d.metric, "difference": d.value,
         "low": d.low, "high": d.high, "cases": d.cases, "verdict": d.verdict}
        for d in found
    ]  # fmt: skip


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


def _write(path: Path, write: Any) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write()
    except OSError as error:
        raise OutputError(f"Cannot write {path}: {error.strerror}.") from error


def _write_pictures(
    found: Source, task: Any, pictures: Mapping[str, bytes], out: Path | None
) -> list[Path]:
    if out is not None and out.suffix == ".html":
        from ganglion.report.page import render

        captions = getattr(task, "captions", {})
        listed = [{"name": n, "caption": captions.get(n, n)} for n in pictures]
        shown = render({"version": 1, "task": found.task, "figures": listed}, pictures)
        _write(out, lambda: files.write_bytes(out, shown.encode()))
        return [out]
    if out is not None and len(pictures) == 1:
        targets = {next(iter(pictures)): out}
    elif out is not None:
        targets = {n: out.with_name(f"{out.stem}-{n}{out.suffix}") for n in pictures}
    else:
        base = found.run.folder / "view" if found.run is not None else Path("view")
        targets = {n: base / f"{n}.png" for n in pictures}
    for name, path in targets.items():
        _write(path, lambda n=name, p=path: files.write_bytes(p, pictures[n]))
    return list(targets.values())
