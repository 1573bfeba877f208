"""Every notebook runs from top to bottom, holds no logic, and was committed as it came out."""

import ast
import os
import re
from pathlib import Path

import matplotlib
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("**/*.ipynb"))
MAX_BYTES = 400_000  # a clone should stay small, and GitHub shows no large notebook
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:home|root|tmp|Users|private|var|mnt)\b|\b[A-Z]:\\")

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def execute(path: Path, folder: Path) -> None:
    NotebookClient(
        read(path), timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()


def texts(node: object) -> list[str]:
    """Every string in a node of a notebook except its images, whose base64 is random."""
    if isinstance(node, dict):
        return [text for key, value in node.items() if not key.startswith("image/") for text in texts(value)]
    if isinstance(node, list):
        return [text for value in node for text in texts(value)]
    return [node] if isinstance(node, str) else []


def test_there_are_notebooks():
    assert [path.name for path in NOTEBOOKS][:3] == ["1_data.ipynb", "2_sweep.ipynb", "3_own_network.ipynb"]


@pytest.mark.long
@every_notebook
def test_runs_with_nothing_but_the_bundled_digits(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HANDWRITING_DATA", raising=False)
    monkeypatch.setenv("MPLCONFIGDIR", matplotlib.get_cachedir())  # of the real home: the list of fonts is slow to make
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # data sets in the user's cache are not looked at
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()

    execute(path, tmp_path / "here")

    assert not list((tmp_path / "here").iterdir()), "a notebook works in a temporary folder"
    assert not (tmp_path / "home" / ".cache" / "handwriting").exists(), "a notebook downloads nothing"


@pytest.mark.real_data
@pytest.mark.skipif("HANDWRITING_DATA" not in os.environ, reason="HANDWRITING_DATA is not set")
def test_shows_the_real_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HANDWRITING_DATA", str(Path(os.environ["HANDWRITING_DATA"]).expanduser().resolve()))
    execute(FOLDER / "1_data.ipynb", tmp_path)


@every_notebook
def test_holds_no_logic(path: Path):
    for cell in code_cells(path):
        plain = TransformerManager().transform_cell(cell.source)  # a magic is no Python
        kinds = {type(node) for node in ast.walk(ast.parse(plain))}
        assert not kinds & {ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef}, cell.source


@every_notebook
def test_was_committed_executed(path: Path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert not [text for text in texts(outputs) if "Warning" in text]


@every_notebook
def test_is_small_and_names_no_machine(path: Path):
    assert path.stat().st_size < MAX_BYTES
    notebook = read(path)
    assert notebook.metadata.kernelspec.name == "python3"
    assert not [text for text in texts(notebook) if MACHINE_PATH.search(text)]
    assert not [text for text in texts(notebook) if "\x1b" in text], "colours of a terminal"
