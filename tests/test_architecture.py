"""The rules of ARCHITECTURE.md, as tests over the syntax trees and over fresh interpreters."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ganglion import registry

SRC = Path(__file__).parents[1] / "src"
LAYERS = (  # a module imports from its own layer and those before it
    ("core", "provenance"),
    ("train", "nets", "flow", "rl", "importers"),
    ("tasks",),
    ("registry", "console"),
    ("export", "report"),
    ("scoring", "testing"),
    ("session", "sources", "finish"),
    ("results", "artifacts", "data_verbs", "pipeline", "serve", "client"),
    ("jobs", "sweep", "chaos", "doctor", "scaffold", "studio"),
    ("commands", "cli"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FREE = ("", "__main__")  # `import ganglion` itself, and `python -m ganglion`
# Where an error of any kind may be turned into an answer: the borders of a process.
BORDERS = {
    "cli.main",
    "tasks.control.problem.installed",  # code of others
    "serve.app.__call__", "serve.app._stream",  # a request, a stream
}  # fmt: skip


@cache
def trees() -> dict[str, ast.Module]:
    """Dotted module name below ganglion -> its syntax tree."""
    found = {}
    for path in sorted((SRC / "ganglion").rglob("*.py")):
        parts = list(path.relative_to(SRC / "ganglion").with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield what a module imports, without the names that a plain `from x import y` may add."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{a.name}", node.lineno) for a in node.names)
        elif isinstance(node, ast.Import):
            yield from ((a.name, node.lineno) for a in node.names)


def own(target: str) -> str | None:
    """Return what an imported name is below ganglion, None for others' modules."""
    return target.removeprefix("ganglion.") if target.startswith("ganglion.") else None


# ---------------------------------------------------------------- layers


def test_layers_only_import_downwards() -> None:
    wrong = []
    for module, tree in trees().items():
        if module in FREE:
            continue
        here = module.split(".")[0]
        assert here in RANK, f"{module} belongs to no layer"
        for target, line in imports(tree):
            there = (own(target) or "").split(".")[0]
            if there in RANK and RANK[there] > RANK[here]:
                wrong.append(f"{module}:{line} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_core_needs_no_torch_and_nothing_of_training() -> None:
    allowed = {"torch", "ganglion.train", "onnx", "onnxruntime", "matplotlib"}
    for module, tree in trees().items():
        if module.startswith("core"):
            for target, line in imports(tree):
                assert not any(target.startswith(a) for a in allowed), f"{module}:{line} {target}"


def test_no_task_imports_another_task() -> None:
    for module, tree in trees().items():
        if module.startswith("tasks."):
            mine = module.split(".")[1]
            for target, line in imports(tree):
                parts = (own(target) or "").split(".")
                assert parts[0] != "tasks" or parts[1:2] == [mine], f"{module}:{line} {target}"


def test_tasks_do_not_import_what_comes_after_them() -> None:
    for module, tree in trees().items():
        if module.startswith("tasks."):
            for target, line in imports(tree):
                assert (own(target) or "core").split(".")[0] in (
                    "core", "train", "nets", "flow", "rl", "importers", "tasks",
                ), f"{module}:{line} imports {target}"  # fmt: skip


def test_only_the_registry_knows_which_tasks_there_are() -> None:
    builtin = set(registry._BUILTIN)
    assert {p.name for p in (SRC / "ganglion" / "tasks").iterdir() if (p / "task.py").exists()} == (
        builtin
    )
    names = re.compile(rf"\b({'|'.join(builtin)})\b")
    for module, tree in trees().items():
        if module.startswith("tasks") or module == "registry":
            continue
        for target, line in imports(tree):
            assert not (own(target) or "").startswith("tasks"), f"{module}:{line} imports {target}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                # a whole string, a path or a command that names a task; prose may say the word
                text = node.value
                command = re.search(rf"ganglion \w+ ({'|'.join(builtin)})\b|tasks[./]\w+", text)
                named = text in builtin or (command and names.search(command[0]))
                assert not named, f"{module}:{node.lineno} names a task: {text[:60]!r}"


# ---------------------------------------------------------------- forbidden constructs


def forbidden(node: ast.AST) -> str | None:
    """Say what is forbidden in one node of a syntax tree, None where nothing is."""
    if isinstance(node, ast.Assert) and not re.fullmatch(
        r"isinstance\(.*\)|[\w.]+ is not None", ast.unparse(node.test)
    ):  # these two are for the type checker; they check nothing that can happen
        return "assert as a check (raise an error instead)"
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
        bad = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
        return next((f"import {m}" for m in modules if m.split(".")[0] in bad), None)
    if not isinstance(node, ast.Call):
        return None
    called = ast.unparse(node.func)
    if called in ("eval", "exec", "compile", "torch.load", "yaml.load", "yaml.unsafe_load",
                  "os.system", "os.popen", "__import__"):  # fmt: skip
        return called
    for keyword in node.keywords:
        value = keyword.value
        on = not (isinstance(value, ast.Constant) and value.value is False)
        if keyword.arg in ("allow_pickle", "shell") and on:
            return f"{keyword.arg}={ast.unparse(value)}"
    if called in ("np.load", "numpy.load") and not any(
        k.arg == "allow_pickle" for k in node.keywords
    ):
        return "np.load without allow_pickle=False"
    return None


def test_nothing_forbidden_is_in_product_code() -> None:
    wrong = [
        f"{module}:{getattr(node, 'lineno', 0)} {said}"
        for module, tree in trees().items()
        if module not in ("importers.tensors", "importers.values")
        for node in ast.walk(tree)
        if (said := forbidden(node))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from pickle import loads", "torch.load(p)", "np.load(p, allow_pickle=True)",
     "np.load(p)", "yaml.load(t, Loader=L)", "eval(t)", "exec(t)", "run(c, shell=True)",
     "run(c, shell=x)", "assert x", "os.system(c)", "assert x > 0"],
)  # fmt: skip
def test_the_check_for_forbidden_constructs_finds_them(code: str) -> None:
    assert any(forbidden(node) for node in ast.walk(ast.parse(code)))


@pytest.mark.parametrize("code", ["np.load(p, allow_pickle=False)", "yaml.safe_load(t)",
                                  "model.eval()", "re.compile(t)", "torch.compile(f)",
                                  "assert isinstance(x, T)", "assert x.y is not None"])  # fmt: skip
def test_the_check_for_forbidden_constructs_lets_others_be(code: str) -> None:
    assert not any(forbidden(node) for node in ast.walk(ast.parse(code)))


def swallows(handler: ast.ExceptHandler) -> bool:
    """Say whether a handler takes any error and need not raise it, or a clearer one, again."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = {ast.unparse(k) if k is not None else "" for k in kinds}
    broad = names & {"", "Exception", "BaseException"}
    return bool(broad) and not isinstance(handler.body[-1], ast.Raise)


def test_only_the_borders_of_a_process_swallow_any_error() -> None:
    found = {
        f"{module}.{function.name}"
        for module, tree in trees().items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.ExceptHandler) and swallows(node)
    }
    assert found == BORDERS


# ---------------------------------------------------------------- what stays light


def runs_without_torch(code: str, *words: str) -> None:
    probe = f"import sys\n{code}\nsys.exit('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", probe, *words], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr or "torch was imported"


@pytest.mark.parametrize(
    "code",
    [
        "from ganglion import cli; cli.main(['tasks'])",
        "from ganglion import cli; cli.main(['--help']); cli.main(['train', '--help'])",
        "from ganglion import cli, registry\n"
        "for n in registry.names():\n    assert cli.main(['config', n]) == 0",
        "from ganglion import cli; cli.main(['runs'])",
        "import ganglion.pipeline, ganglion.sources, ganglion.scoring, ganglion.core.run",
        "import ganglion.serve.server, ganglion.serve.workers, ganglion.client",
        "from ganglion import registry as r\n"
        "for n in r.names():\n    r.make(n, r.resolve(n)).references()",
    ],
)
def test_help_listing_and_settings_never_import_torch(code: str, tmp_path: Path) -> None:
    runs_without_torch(f"import os; os.chdir({str(tmp_path)!r})\n{code}")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy exported in a child, with the card that a run would give it."""
    path = tmp_path_factory.mktemp("exported") / "policy.onnx"
    code = """
import sys, warnings; warnings.simplefilter("ignore")
from ganglion import testing, registry
from ganglion.core.contracts import Ranks
from ganglion.export.onnx_export import Checks, export
name = registry.names()[0]; cfg = testing.small(name); task = registry.make(name, cfg)
policy = task.learner(None, "cpu", 0, Ranks()).policy()
card = {"task": name, "settings": cfg.model_dump(mode="json"), "steps": {}}
export(policy.module, policy.signature, sys.argv[1], card, checks=Checks(rows=0))
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True)
    return path


@pytest.mark.parametrize(
    "code",
    [
        "from ganglion import load; p = load(sys.argv[1]); p.signature",
        "from ganglion.artifacts import act; act(sys.argv[1], None)",
        "from ganglion.results import evaluate; evaluate(sys.argv[1], cases=20)",
    ],
)
def test_an_exported_file_is_used_without_torch(code: str, exported: Path) -> None:
    runs_without_torch(code, str(exported))


# ---------------------------------------------------------------- one visible loop


def test_at_most_five_frames_lie_between_main_and_the_optimizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from ganglion import cli

    class Seen(Exception):  # noqa: N818
        pass

    frames: list[str] = []

    def step(*args: Any, **more: Any) -> None:
        frames.extend(
            f"{Path(f.filename).stem}.{f.name}"
            for f in traceback.extract_stack()
            if f.filename.startswith(str(SRC / "ganglion"))
        )
        raise Seen

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    cli.main(
        ["--home", str(tmp_path), "--quiet", "train", registry.names()[0], "train.steps=2",
         "data.validation=8", "data.test=8", "data.shard=8", "train.tensorboard=false"]
    )  # fmt: skip
    assert frames[0] == "cli.main"
    assert len(frames) <= 5, frames


def test_beginning_to_train_does_not_load_the_compiler() -> None:
    code = (
        "from ganglion.train import device; from ganglion.train.settings import TrainSettings\n"
        "device.prepare(TrainSettings())\n"
        "assert 'torch._inductor' not in sys.modules; sys.modules.pop('torch')"
    )
    runs_without_torch(code)
