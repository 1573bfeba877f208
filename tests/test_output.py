"""What the commands print where stdout cannot take it: another encoding, a closed pipe, a full disk."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from handwriting.compare import main as compare

COMMANDS = ["run", "compare", "evaluate", "predict", "draw", "export", "data.characters"]
PRINT = "from handwriting.utils.errors import exit_on_bad_input\nwith exit_on_bad_input():\n    print('x' * {size})"
FULL = "The output cannot be written: No space left on device.\n"
# Target of stdout; exit code and stderr.
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
PLACES = [("closed pipe", 1, ""), pytest.param("/dev/full", 2, FULL, marks=needs_full), ("nowhere", 0, "")]
everywhere = pytest.mark.parametrize(("place", "code", "sentence"), PLACES)


def run_into(place: str, *arguments: str) -> tuple[int, str]:
    """Run Python with stdout into a closed pipe, a full disk, or closed: the exit code and stderr."""
    if place == "closed pipe":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full" if place == "/dev/full" else os.devnull, os.O_WRONLY)
    close: Callable[[], Any] | None = (lambda: os.close(1)) if place == "nowhere" else None
    try:
        command = [sys.executable, *arguments]
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        result = subprocess.run(
            command, env=buffered, stdout=writer, stderr=subprocess.PIPE, text=True, preexec_fn=close, check=False
        )
    finally:
        os.close(writer)
    return result.returncode, result.stderr


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize("buffered", [True, False])
@everywhere
def test_no_traceback_where_stdout_takes_nothing(place: str, code: int, sentence: str, size: int, buffered: bool):
    options = [] if buffered else ["-u"]
    assert run_into(place, *options, "-c", PRINT.format(size=size)) == (code, sentence)


@everywhere
def test_compare_too_ends_without_a_traceback(place: str, code: int, sentence: str, tmp_path: Path, make_run):
    make_run(tmp_path, "optim=sgd")
    assert run_into(place, "-m", "handwriting.compare", str(tmp_path)) == (code, sentence)
    assert (tmp_path / "summary.md").exists()


@pytest.mark.parametrize(("place", "code", "sentence"), PLACES[:2])
def test_help_too_ends_without_a_traceback(place: str, code: int, sentence: str):
    assert run_into(place, "-m", "handwriting.predict", "--help") == (code, sentence)


def test_an_error_of_a_file_is_not_taken_for_one_of_stdout():
    code = PRINT.format(size=1) + "\n    raise OSError(28, 'No space left on device')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (2, "x")
    assert result.stderr == "A file cannot be read or written: No space left on device.\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_printed_in_every_encoding(command: str, encoding: str, monkeypatch: pytest.MonkeyPatch):
    module = import_module(f"handwriting.{command}")
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding))
    monkeypatch.setattr(sys, "argv", [command, "--help"])
    try:
        module.main()
    except SystemExit as stop:
        assert stop.code == 0  # noqa: PT017
    sys.stdout.flush()
    assert "python -m handwriting" in printed.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_the_table_of_compare_is_printed_in_every_encoding(encoding: str, tmp_path: Path, make_run, monkeypatch):
    folder = tmp_path / "\u6f22\u5b57"
    for seed in (0, 1):
        make_run(folder, "optim=sgd", f"seed={seed}", accuracy=0.9 + seed / 100)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    monkeypatch.setenv("COLUMNS", "120")
    compare([str(folder)])
    sys.stdout.flush()
    printed = written.getvalue().decode(encoding)
    assert "90.50 " + ("±" if encoding == "latin-1" else "?") + " 6.35" in printed
    assert "??/summary.csv" in printed
