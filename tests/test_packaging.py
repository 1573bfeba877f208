"""The package as a wheel, unpacked elsewhere: conf/ is inside, and the commands work without the clone."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_contains_conf(unpacked: Path):
    def names(conf: Path) -> set[str]:
        return {str(path.relative_to(conf)) for path in conf.rglob("*.yaml")}

    assert names(unpacked / "handwriting" / "conf") == names(ROOT / "conf")
    assert not [path for path in unpacked.rglob("*") if {"tests", "outputs", "notebooks"} & set(path.parts[-3:])]


@pytest.fixture
def elsewhere(unpacked: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in tmp_path with the wheel alone: it comes first on the path; -P keeps the working directory off."""
    environment = os.environ | {"PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    return run


@pytest.mark.long
def test_an_installed_wheel_trains_elsewhere(unpacked: Path, tmp_path: Path, elsewhere):
    found = elsewhere("-c", "import handwriting; print(handwriting.__file__)")
    assert found.stdout.startswith(str(unpacked))
    result = elsewhere("-m", "handwriting.run", "data=digits", "debug=fast")
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.glob("outputs/debug/*/result.json"))


def test_the_console_script_finds_the_settings_elsewhere(elsewhere):
    # Hydra looks for conf/ beside the module that calls it, which is not __main__ here.
    result = elsewhere("-c", "from handwriting.run import main; main()", "data=digits", "--cfg", "job")
    assert result.returncode == 0, result.stderr
    assert "handwriting.data.digits.read_digits" in result.stdout


def test_the_console_script_is_the_same_main():
    (script,) = entry_points(group="console_scripts", name="handwriting")
    assert script.value == "handwriting.run:main"
