"""What must start quickly imports no torch, and models know neither Lightning nor Hydra.

Which folder may import which is a contract in pyproject.toml, which `make lint` checks.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "handwriting"
FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_functions_stay_short(file: Path):
    text = file.read_text()
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert not [f.name for f in functions if f.end_lineno and f.end_lineno - f.lineno > 55]


def test_what_must_start_quickly_imports_no_torch_and_predictions_no_lightning():
    modules = ["run", "compare", "evaluate", "predict", "export", "draw", "runs.record", "runs.config", "runs.checks"]
    modules += ["plots.runs", "plots.images", "reports.groups", "reports.stats", "reports.comparisons"]
    modules += [
        "reports.report",
        "reports.figures",
        "reports.tables",
        "sweeps.job",
        "sweeps.execute",
        "sweeps.subprocesses",
    ]
    modules += ["sweeps.hydra_hooks", "sweeps.progress"]
    code = "import importlib, sys\n"
    code += f"for name in {modules}:\n"
    code += "    importlib.import_module('handwriting.' + name)\n"
    code += "    print(*[f'{name} imports {m}' for m in ('torch', 'lightning') if m in sys.modules])\n"
    code += "import handwriting.reader\n"
    code += "print(*['reader imports lightning'] if 'lightning' in sys.modules else [])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not result.stdout.split()


def imported(module: str, known: set[str]) -> set[str]:
    """All modules that a module of this package imports when it is imported, itself or by others of the package."""
    parts = module.split(".")[1:]
    for place in [PACKAGE.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]:
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        nodes = ast.parse(file.read_text()).body if file.is_file() else []
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for name in names | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}:
            if name not in known:
                known.add(name)
                known |= imported(name, known) if name.startswith("handwriting.") else set()
    return known


@pytest.mark.parametrize("module", ["handwriting.reader", "handwriting.models.sequence_model"])
def test_a_prediction_imports_no_lightning(module: str):
    names = imported(module, set())
    assert "handwriting.data.photographs" in names or "handwriting.data.dataset" in names
    assert not [name for name in names if name.split(".")[0] == "lightning"]


@pytest.mark.parametrize("folder", ["models"])
def test_models_are_plain_modules(folder: str):
    text = "".join(file.read_text() for file in (PACKAGE / folder).glob("*.py"))
    assert "lightning" not in text
    assert "omegaconf" not in text
    assert "hydra" not in text
