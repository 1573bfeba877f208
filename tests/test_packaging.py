"""The package as a wheel, unpacked elsewhere: conf/ is inside, and the commands work without the clone."""

import os
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_every_setting_travels_in_the_wheel(unpacked: Path):
    def names(conf: Path) -> set[str]:
        return {str(path.relative_to(conf)) for path in conf.rglob("*.yaml")}

    assert names(unpacked / "handwriting" / "conf") == names(ROOT / "conf")
    assert not [path for path in unpacked.rglob("*") if {"tests", "outputs", "notebooks"} & set(path.parts[-3:])]


@pytest.mark.parametrize("start", [["-m", "handwriting.run"], ["-c", "from handwriting.run import main; main()"]])
def test_an_installed_wheel_trains_elsewhere(unpacked: Path, tmp_path: Path, start: list[str]):
    # The wheel comes first on the path; -P keeps the working directory off it.
    environment = os.environ | {"PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1"}
    where = [sys.executable, "-P", "-c", "import handwriting; print(handwriting.__file__)"]
    found = subprocess.run(where, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(unpacked))
    command = [sys.executable, "-P", *start, "data=digits", "debug=fast"]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.glob("outputs/debug/*/result.json"))


def test_the_console_script_is_the_same_main():
    (script,) = entry_points(group="console_scripts", name="handwriting")
    assert script.value == "handwriting.run:main"
