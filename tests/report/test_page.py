"""The report's page: whole, self-contained, safe with hostile names, robust to gaps."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ganglion.core import files
from ganglion.core.errors import DataError, OutputError
from ganglion.report import compare, page, verdict
from ganglion.report.svg import Chart, Line, chart, running_mean, thin

from . import sample

VOID = {"meta", "link", "br", "img", "input", "hr"}
FIGURES = {"trajectories": sample.picture(), "worst_cases": sample.picture(kind="GIF")}


class Checker(HTMLParser):
    """Finds tags that do not close, links that leave the file, and ids used twice."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.text = ""
        self.tags: set[str] = set()
        self.feed(html)
        self.close()
        self.faults += [f"<{tag}> never closes" for tag in self.open]
        self.faults += [f"#{a} leads nowhere" for a in self.anchors if a not in self.ids]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._attributes(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes(tag, attrs)

    def _attributes(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action") and value:
                if value.startswith("#"):
                    self.anchors.append(value[1:])
                elif not value.startswith("data:"):
                    self.faults.append(f"<{tag} {name}={value[:60]!r}> leaves the file")
            if name == "id":
                self.faults += [f"id {value} twice"] if value in self.ids else []
                self.ids.append(str(value))
            if name.startswith("on"):
                self.faults.append(f"<{tag} {name}> runs a script")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += " " + " ".join(data.split())


def check(html: str) -> Checker:
    found = Checker(html)
    assert found.faults == []
    assert "script" not in found.tags
    assert not re.search(r"https?://|url\(|@import", html)
    return found


def test_the_whole_report_is_one_valid_file_that_needs_nothing_else() -> None:
    found = check(page.render(sample.report(), FIGURES))
    for heading in ("Comparison", "Scenarios", "Seeds", "Learning curves", "Diagnosis",
                    "Efficiency", "Export", "Worst cases", "Figures", "Settings", "Data card",
                    "Provenance"):  # fmt: skip
        assert heading in found.text
    assert "0.0061" in found.text
    assert "[0.00537, 0.00676]" in found.text
    assert "ganglion train control problem.num_steps=15 optim.lr=1e-3" in found.text
    assert "quoted, not measured here: guide" in found.text
    assert not re.search(r"\b(nan|none|inf)\b", found.text.lower())


@pytest.mark.parametrize("gone", list(sample.report()))
def test_the_page_renders_without_any_one_key(gone: str) -> None:
    check(page.render({k: v for k, v in sample.report().items() if k != gone}, FIGURES))


@pytest.mark.parametrize("kept", list(sample.report()))
def test_the_page_renders_with_only_one_key(kept: str) -> None:
    check(page.render({"version": 1, kept: sample.report()[kept]}))


def blank(value: Any) -> Any:
    """Return the same shape with every leaf None, names and kinds kept."""
    if isinstance(value, dict):
        return {k: v if k in ("name", "kind", "changed") else blank(v) for k, v in value.items()}
    if isinstance(value, list):
        return [blank(v) for v in value]
    return None


def test_a_report_of_nothing_but_none_renders_dashes() -> None:
    assert "–" in check(page.render(blank(sample.report()))).text


def hostile(value: Any) -> Any:
    """Return the same shape with markup in every text and every key that a user may choose."""
    attack = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
    if isinstance(value, dict):
        return {k: hostile(v) for k, v in value.items()}
    if isinstance(value, list):
        return [hostile(v) for v in value]
    return attack if isinstance(value, str) and value not in ("run", "reference") else value


def test_hostile_names_are_escaped_everywhere() -> None:
    report = hostile(sample.report())
    report["run"]["settings"] = {"<script>a</script>": 1}
    report["curves"]["train"] = [{"step": i, "<script>b</script>": i} for i in range(9)]
    report["scenarios"][0]["overrides"] = {"</style><script>c</script>": 2}
    for html in (page.render(report), compare.compare_page(report, [report, report])):
        check(html)
        assert "<script" not in html
        assert "<img src=x" not in html


def test_nan_in_a_table_shows_as_a_dash() -> None:
    report = {"goal": "gap", "policies": [
        {"name": "a", "kind": "run", "metrics": {"gap": {"value": float("nan"), "unit": "%",
                                                         "low": None, "high": None}}}]}  # fmt: skip
    found = check(page.render(report))
    assert "–" in found.text
    assert "nan" not in found.text.lower()


def test_writing_gives_json_figures_and_page_that_read_back(tmp_path: Path) -> None:
    report = sample.report()
    written = page.write(tmp_path / "report", report, {**FIGURES, "curves": sample.picture()})
    assert written == tmp_path / "report" / "report.html"
    names = sorted(str(p.relative_to(written.parent)) for p in written.parent.rglob("*.*"))
    assert names == ["curves.png", "figures/trajectories.png", "figures/worst_cases.gif",
                     "report.html", "report.json"]  # fmt: skip
    read = json.loads((written.parent / "report.json").read_text())
    assert read == files.finite(report)
    # the page of what was read back is the same page: JSON lost nothing that shows
    assert page.render(read, FIGURES) == page.render(report, FIGURES)
    assert written.read_text().count("data:image/gif;base64,") == 1


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden", "x" * 200, "<b>"])
def test_a_figure_name_must_be_a_plain_file_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="A figure cannot be called"):
        page.write(tmp_path / "report", {}, {name: sample.picture()})
    assert not (tmp_path / "report").exists()


def test_a_figure_must_be_png_or_gif(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'x' is neither PNG nor GIF; it begins with b'<svg"):
        page.write(tmp_path, {}, {"x": b"<svg onload=1>"})


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot write the report"):
        page.write(tmp_path / "file" / "report", {}, {})


def two(mine: tuple[float, float, float], theirs: tuple[float, float, float], better: str) -> Any:
    def entry(v: tuple[float, float, float]) -> dict[str, Any]:
        return {"g": {"value": v[0], "low": v[1], "high": v[2], "unit": "1", "better": better}}

    return {"task": "t", "goal": "g", "policies": [
        {"name": "p", "kind": "run", "metrics": entry(mine)},
        {"name": "oracle", "kind": "reference", "metrics": entry((0.0, 0.0, 0.0))},
        {"name": "base", "kind": "reference", "metrics": entry(theirs)}]}  # fmt: skip


@pytest.mark.parametrize(
    ("mine", "theirs", "better", "level"),
    [
        ((1.0, 0.9, 1.1), (2.0, 1.9, 2.1), "lower", "good"),
        ((1.0, 0.9, 1.1), (2.0, 1.9, 2.1), "higher", "bad"),
        ((1.0, 0.5, 1.95), (2.0, 1.9, 2.1), "lower", "mixed"),
        ((3.0, 2.9, 3.1), (2.0, 1.9, 2.1), "lower", "bad"),
    ],
)
def test_the_verdict_weighs_the_intervals(
    mine: Any, theirs: Any, better: str, level: str
) -> None:  # fmt: skip
    found = verdict.verdict(two(mine, theirs, better))
    assert found.level == level
    assert "the best baseline, base," in found.text
    assert found.export == "Nothing was exported."


def test_the_verdict_on_the_export_says_what_was_seen() -> None:
    said = [verdict.verdict({"export": e}) for e in (
        sample.report()["export"], {"ok": False, "parity": {"max_abs": 0.25, "inputs": 10}},
        {"refused": "the graph has no steps input"})]  # fmt: skip
    assert [v.export_level for v in said] == ["good", "bad", "bad"]
    assert "at most 3.1e-7 on 1,000 inputs" in said[0].export
    assert "failed its verification: it differs from the trained policy by at most 0.25" in (
        said[1].export
    )
    assert said[2].export == "The export was refused: the graph has no steps input"


def test_the_best_but_for_the_oracle_is_marked() -> None:
    html = page.render(two((1.0, 0.9, 1.1), (2.0, 1.9, 2.1), "lower"))
    marked = re.findall(r'class="best"[^>]*>([^<]*)<', html)
    assert marked == ["1"]


def test_the_spread_over_seeds_is_one_sentence_per_metric() -> None:
    spread = {"gap": {"mean": 0.01, "min": 0.005, "max": 0.02, "unit": "%", "better": "lower"}}
    found = check(page.render({**sample.report(), "spread": spread}))
    assert "gap: 1 % on average, from 0.5 % to 2 %." in found.text


def test_a_chart_is_logarithmic_where_that_shows_more_and_survives_odd_points() -> None:
    wide = [Line("a", [(1, 1.0), (2, 100.0)])]
    assert "(log)" in chart(Chart("x", wide))
    assert "(log)" not in chart(Chart("x", [Line("a", [(1, 0.0), (2, 100.0)])]))
    odd = [(1.0, float("nan")), (2.0, 5.0), (3.0, float("inf"))]
    assert "nan" not in chart(Chart("x", [Line("a", odd)]))
    assert chart(Chart("x", [Line("a", [(1.0, float("nan"))])])) == ""
    assert "<svg" in chart(Chart("x", [Line("a", [(1, 0.0), (2, 0.0)])]))


def test_thinning_keeps_ends_and_extremes() -> None:
    points = [(float(i), 0.0) for i in range(5000)]
    points[1234] = (1234.0, 9.0)
    kept = thin(points)
    assert len(kept) <= 320
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert (1234.0, 9.0) in kept


def test_the_running_mean_of_a_straight_line_is_the_line() -> None:
    points = [(float(i), 2.0 * i) for i in range(200)]
    assert [y for _, y in running_mean(points)] == pytest.approx([y for _, y in points])
