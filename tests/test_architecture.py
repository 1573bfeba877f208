"""Imports go one way, and what must start quickly imports no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "handwriting"
# What may import what, from the leaves up; a module that is not named here does not belong in the house.
ALLOWED = {
    "errors": set(),
    "machine": set(),
    "stats": set(),
    "names": set(),
    "fonts": {"names"},
    "plots": {"fonts", "names"},
    "landscapes": {"fonts", "names", "plots"},
    "galleries": {"fonts"},
    "writing": set(),
    "results": {"__version__", "errors", "writing"},
    "data": {"data", "errors", "writing"},
    "models": {"models", "errors"},
    "resume": set(),
    "tally": set(),
    "classifier": {"errors", "resume", "tally"},
    "settings": {"errors", "results"},
    "groups": {"results", "stats"},
    "verdicts": {"groups", "stats"},
    "report": {"errors", "groups", "landscapes", "results", "verdicts", "plots", "writing"},
    "tables": {"groups", "names", "report", "results", "verdicts", "writing"},
    "search": {"errors"},
    "checks": {"errors", "results", "settings"},
    "launching": {"errors", "results", "settings"},
    "sweep": {"launching", "machine", "search", "settings"},
    "progress": set(),
    "tensorboard": set(),
    "pictures": {"data", "fonts", "galleries", "plots", "results", "scores", "tensorboard", "writing"},
    "frame": {"errors"},
    "parts": {"errors"},
    "losses": {"errors"},
    "optimizers": {"errors"},
    "averaging": {"errors"},
    "snapshots": {"errors"},
    "ensembles": {"errors", "tally"},
    "scores": {"tally"},
    "baselines": {"data", "errors", "machine", "pictures", "scores", "tensorboard", "writing"},
    "train": {
        "baselines",
        "checks",
        "classifier",
        "data",
        "errors",
        "frame",
        "machine",
        "parts",
        "pictures",
        "progress",
        "resume",
        "settings",
        "tally",
        "tensorboard",
    },
    "checkpoints": {"classifier", "errors", "parts", "results", "settings"},
    "evaluation": {
        "checkpoints",
        "classifier",
        "data",
        "ensembles",
        "errors",
        "parts",
        "results",
        "scores",
        "settings",
    },
    "evaluate": {
        "checkpoints",
        "data",
        "errors",
        "evaluation",
        "fonts",
        "galleries",
        "machine",
        "plots",
        "scores",
        "writing",
    },
    "reader": {"checkpoints", "errors", "evaluation", "frame", "names"},
    "page": {"errors", "frame", "reader"},
    "draw": {"checkpoints", "errors", "machine", "page"},
    "predict": {"errors", "galleries", "machine", "plots", "reader", "writing"},
    "export": {"checkpoints", "errors", "evaluation", "machine", "writing"},
    "attempt": {"errors", "machine", "pictures", "results", "train"},
    "processes": {"attempt", "errors", "machine", "results"},
    "job": {"attempt", "machine", "processes", "results"},
    "run": {
        "attempt",
        "checks",
        "errors",
        "job",
        "launching",
        "report",
        "results",
        "settings",
        "sweep",
        "tables",
        "run",
    },
    "compare": {"errors", "machine", "report", "tables"},
    "__init__": set(),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "handwriting":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("handwriting.")}
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_module_imports_only_what_lies_below_it(file: Path):
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert imports(file) <= ALLOWED[room]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_functions_stay_short(file: Path):
    text = file.read_text()
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert not [f.name for f in functions if f.end_lineno and f.end_lineno - f.lineno > 55]


def test_what_must_start_quickly_imports_no_torch():
    modules = ["run", "job", "attempt", "processes", "compare", "evaluate", "predict", "export", "draw", "results"]
    modules += ["stats", "plots", "landscapes", "groups", "verdicts", "report", "tables", "settings", "sweep"]
    modules += ["checks"]
    code = "import importlib, sys\n"
    code += f"for name in {modules}:\n"
    code += "    importlib.import_module('handwriting.' + name)\n"
    code += "    print(*[f'{name} imports {m}' for m in ('torch', 'lightning') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not result.stdout.split()


@pytest.mark.parametrize("folder", ["models"])
def test_models_are_plain_modules(folder: str):
    text = "".join(file.read_text() for file in (PACKAGE / folder).glob("*.py"))
    assert "lightning" not in text
    assert "omegaconf" not in text
    assert "hydra" not in text
