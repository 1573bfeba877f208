"""Digests of the user's code: which files count."""

from pathlib import Path

import pytest

from handwriting.runs.source import digests_of_code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def write(file: Path, text: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def changes(folder: Path, module: str, file: str) -> bool:
    """Return whether a change of a file in a folder is a change of a module."""
    config = {"_target_": f"{module}.Net"}
    before = digests_of_code(config)
    with (folder / file).open("a") as changed:
        changed.write("# changed\n")
    after = digests_of_code(config)
    assert list(before) == list(after) == [module]
    return before != after


def test_the_file_and_those_beside_it_that_it_imports_count(folder: Path):
    write(folder / "alone_net.py", "import torch\nfrom alone_layers import middle\n")
    write(folder / "alone_layers.py", "import alone_deep.inner\n")
    write(folder / "alone_deep" / "inner.py")
    write(folder / "alone_deep" / "__init__.py")
    write(folder / "alone_other.py")
    counted = {file: changes(folder, "alone_net", file) for file in ("alone_net.py", "alone_layers.py")}
    assert all(counted.values())
    assert changes(folder, "alone_net", "alone_deep/inner.py")
    assert not changes(folder, "alone_net", "alone_other.py")


@pytest.mark.parametrize("beside", ["torch/nn.py", "handwriting/run.py", "json/decoder.py", "random.py"])
def test_a_framework_or_a_library_beside_the_file_does_not_count(folder: Path, beside: str):
    write(folder / "beside_net.py", "import json, random\nimport torch\nfrom handwriting.utils import errors\n")
    write(folder / beside)
    write((folder / beside).parent / "__init__.py")
    assert not changes(folder, "beside_net", beside)


def test_an_installed_file_counts_alone(folder: Path, monkeypatch: pytest.MonkeyPatch):
    site = folder / "lib" / "site-packages"
    monkeypatch.syspath_prepend(str(site))
    write(site / "installed_net.py", "import numpy\nimport installed_layers\n")
    write(site / "installed_layers.py")
    assert changes(site, "installed_net", "installed_net.py")
    assert not changes(site, "installed_net", "installed_layers.py")


@pytest.mark.parametrize("init", [True, False])
def test_a_package_counts_with_all_of_its_files(folder: Path, init: bool):
    name = f"whole_package_{init}".lower()
    write(folder / name / "net.py")
    write(folder / name / "inner" / "layers.py")
    if init:
        write(folder / name / "__init__.py")
    config = {"_target_": f"{name}.net.Net"}
    before = digests_of_code(config)
    write(folder / name / "inner" / "layers.py", "# changed\n")
    assert digests_of_code(config) != before
