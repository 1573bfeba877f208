import errno
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from handwriting.compare import main


def test_the_report_is_rebuilt_from_existing_runs(tmp_path: Path, make_run, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    make_run(tmp_path / "outputs" / "digits", "optim=sgd", accuracy=0.8)
    make_run(tmp_path / "outputs" / "digits", "optim=adam", accuracy=0.9)
    main(["outputs/digits"])
    printed = capsys.readouterr().out
    assert printed.index("optim=adam") < printed.index("optim=sgd")
    for name in ("summary.csv", "summary.md", "curves.png", "ranking.png"):
        assert f"outputs/digits/{name}" in printed
        assert (tmp_path / "outputs" / "digits" / name).stat().st_size > 0


@pytest.mark.parametrize(("folder", "sentence"), [("nowhere", "is not a folder"), (".", "has no runs")])
def test_a_wrong_folder_is_one_sentence(folder: str, sentence: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([folder])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("command", ["handwriting.compare", "handwriting.evaluate"])
def test_the_error_for_a_missing_folder_names_similar_ones(command: str, tmp_path: Path, capsys):
    for name in ("optim=adam,seed=0", "optim=sgd,seed=0", "optim=sgd,seed=1", "evaluation"):
        (tmp_path / name).mkdir()
    with pytest.raises(SystemExit) as stop:
        import_module(command).main([str(tmp_path / "optim=sgd")])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert f"In {tmp_path} there are optim=sgd,seed=1, optim=sgd,seed=0, optim=adam,seed=0 and others." in said
    assert said.count("\n") == 1


def refuse_writing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """No file can be opened for writing: the tests may run as root, who may write to a read-only folder."""
    opened = Path.open

    def refuse(self: Path, mode: str = "r", *others: Any, **more: Any) -> Any:
        if "w" in mode:
            raise OSError(number, os.strerror(number), str(self))
        return opened(self, mode, *others, **more)

    monkeypatch.setattr(Path, "open", refuse)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_the_table_of_a_read_only_folder_is_printed(number: int, tmp_path: Path, monkeypatch, make_run, capsys):
    make_run(tmp_path / "digits", "optim=sgd", accuracy=0.8)
    monkeypatch.chdir(tmp_path)
    refuse_writing(monkeypatch, number)
    main(["digits"])
    said = capsys.readouterr()
    assert "80.00" in said.out
    reason = os.strerror(number)
    assert said.out.splitlines()[-1] == f"Nothing was written: digits cannot be written to ({reason})."
    assert said.err == ""
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["optim=sgd"]


def test_with_a_full_disk_the_table_is_printed_and_the_exit_code_is_2(tmp_path: Path, monkeypatch, make_run, capsys):
    make_run(tmp_path / "digits", "optim=sgd", accuracy=0.8)
    monkeypatch.chdir(tmp_path)
    refuse_writing(monkeypatch, errno.ENOSPC)
    with pytest.raises(SystemExit) as stop:
        main(["digits"])
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert "80.00" in said.out
    assert said.out.splitlines()[-1] == ("Nothing was written: digits cannot be written to (No space left on device).")


def test_a_folder_without_permission_is_one_sentence(tmp_path: Path, monkeypatch, capsys):
    def refuse(self: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path)])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"{tmp_path} cannot be read or written: Permission denied.\n"


def test_nothing_is_written_when_a_later_folder_is_wrong(tmp_path: Path, monkeypatch, make_run, capsys):
    make_run(tmp_path / "digits", "optim=sgd", accuracy=0.8)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["digits", "nowhere"])
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("nowhere is not a folder")
    assert said.err.count("\n") == 1
    assert not list((tmp_path / "digits").glob("summary.*"))
