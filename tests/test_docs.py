"""README and docs: every command parses, every link resolves, generated pages are up to date."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from ganglion import registry
from ganglion.cli import find_verb
from ganglion.commands.common import layers, resolved
from ganglion.commands.verbs import VERBS

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / n for n in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks" / "RESULTS.md",
    *sorted((ROOT / "src/ganglion/tasks").glob("*/README.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMING = ROOT / "docs" / "coming-from.md"


def commands(page: Path) -> list[str]:
    """Every `ganglion ...` line of the page's bash blocks."""
    blocks = [body for kind, body in FENCE.findall(page.read_text()) if kind in ("bash", "sh")]
    joined = "\n".join(blocks).replace("\\\n", " ")
    lines = (line.strip().removeprefix("$ ") for line in joined.splitlines())
    return [line for line in lines if line.startswith("ganglion ")]


CASES = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}: {line[:50]}")
    for page in PAGES
    for line in commands(page)
]


def test_the_pages_have_commands() -> None:
    assert len(commands(ROOT / "README.md")) > 10
    assert len(commands(COMING)) > 8


@pytest.mark.parametrize("line", CASES)
def test_a_documented_command_parses_and_its_settings_are_known(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    verb, rest = find_verb(words)
    assert verb is not None or "--help" in words or "--version" in words
    if verb is None:
        return
    args = verb.parser().read(rest)
    if "settings" not in vars(args):
        return
    if verb.name in ("config", "generate", "train", "chaos"):
        resolved(args)
    else:  # on top of a run's own settings: names only
        layers(args, getattr(args, "task", None) or "control")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", found.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in heads]


def test_the_settings_page_is_generated_from_the_models() -> None:
    script = ROOT / "docs" / "make_settings.py"
    spec = importlib.util.spec_from_file_location("make_settings", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "settings.md").read_text() == module.text(), "run `make format`"


def test_every_verb_and_preset_is_documented() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for verb in VERBS:
        assert re.search(rf"\b{verb}\b", text), f"{verb} is in no page"
    for preset in registry.settings("control").presets:
        assert f"`{preset}`" in text


def test_the_makefile_has_the_targets_that_the_pages_name() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in [*PAGES, ROOT / ".ci" / "run"]:
        named = re.findall(r"(?:^|`|\$ )make ((?:[a-z-]+ ?)+)", page.read_text(), re.MULTILINE)
        for words in named:
            assert set(words.split()) <= targets, f"{page.name}: make {words}"


def test_every_pinned_package_is_pinned_exactly() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    names = {pin.split("==")[0].lower().replace("_", "-") for pin in pins}
    project = (ROOT / "pyproject.toml").read_text()
    wanted = set(re.findall(r'"([A-Za-z][\w-]*)>=', project))
    assert {name.lower() for name in wanted} <= names
