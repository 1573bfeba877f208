from importlib import import_module
from pathlib import Path

import pytest

from handwriting.compare import main


def test_the_report_is_rebuilt_from_what_is_there(command, tmp_path: Path, make_run):
    make_run(tmp_path / "outputs" / "digits", "optim=sgd", accuracy=0.8)
    make_run(tmp_path / "outputs" / "digits", "optim=adam", accuracy=0.9)
    result = command("handwriting.compare", "outputs/digits")
    assert result.returncode == 0, result.stderr
    assert result.stdout.index("optim=adam") < result.stdout.index("optim=sgd")
    for name in ("summary.csv", "summary.md", "curves.png", "ranking.png"):
        assert f"outputs/digits/{name}" in result.stdout
        assert (tmp_path / "outputs" / "digits" / name).stat().st_size > 0


@pytest.mark.parametrize(("folder", "sentence"), [("nowhere", "is not a folder"), (".", "holds no runs")])
def test_a_wrong_folder_is_one_sentence(folder: str, sentence: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([folder])
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("command", ["handwriting.compare", "handwriting.evaluate"])
def test_for_a_folder_that_is_not_there_the_nearest_beside_it_are_named(command: str, tmp_path: Path, capsys):
    for name in ("optim=adam,seed=0", "optim=sgd,seed=0", "optim=sgd,seed=1", "evaluation"):
        (tmp_path / name).mkdir()
    with pytest.raises(SystemExit) as stop:
        import_module(command).main([str(tmp_path / "optim=sgd")])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert f"In {tmp_path} there are optim=sgd,seed=1, optim=sgd,seed=0, optim=adam,seed=0 and others." in said
    assert said.count("\n") == 1


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
