"""The verbs that judge finished policies: evaluate and compare."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import orjson

from ganglion import registry, scoring, sources
from ganglion.core import dataset, files, seeds
from ganglion.core import settings as core_settings
from ganglion.core.contracts import Arrays, Metric
from ganglion.core.errors import (
    DataError,
    ServiceError,
    SettingsError,
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
        files.write_out(out, report)
    if html is not None:
        from ganglion.report.compare import compare_page

        page = compare_page(report, runs=_reports(found))
        files.write_out(html, page.encode())
    return report


# ---------------------------------------------------------------- helpers


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
    _refuse_of_training(found, layers)
    cfg = _settings(found, name, layers)
    chosen = _cases(found, name, cfg, data, cases, seed)
    stream = cfg.seed if seed is None else seed
    judged = scoring.score(name, cfg, [s.entry for s in found], chosen, stream, scenarios)
    report = scoring.scores_json(name, cfg, stream, judged)
    return {**report, "data": None if data is None else str(data)}, judged


_OF_TRAINING = ("model", "train", "optim", "export")


def _refuse_of_training(found: Sequence[Source], layers: Layers) -> None:
    """SettingsError for what would change nothing: finished policies are what they are."""
    said = [name for name in _OF_TRAINING if any(name in layer for layer in layers)]
    if said and any(s.cfg is not None for s in found):
        raise SettingsError(
            f"{' and '.join(f'{name}.*' for name in said)}: these policies are trained already. "
            "Judging takes settings of the world (problem.* and the like), a seed and data."
        )


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
    header = [*claims.HEADER, source.entry.name]
    return {"header": header, "rows": claims.rows(task.claims, policies, trained)}


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
