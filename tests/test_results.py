import json
import threading
from pathlib import Path

import pytest

from handwriting.errors import UserError
from handwriting.results import fingerprint, flatten, plain_settings, read_folder, read_result, write_result
from handwriting.writing import write_text

CONFIG = {
    "name": "a",
    "seed": 1,
    "optim": {"lr": 0.1},
    "trainer": {"max_epochs": 2, "enable_progress_bar": True},
    "callbacks": {"checkpoint": {"dirpath": "/somewhere", "mode": "max"}},
}


def test_name_display_and_output_folders_do_not_change_the_fingerprint():
    other = {**CONFIG, "name": "b", "force": True, "trainer": {"enable_progress_bar": False, "max_epochs": 2}}
    other["callbacks"] = {"checkpoint": {"mode": "max", "dirpath": "/elsewhere"}}
    assert fingerprint(plain_settings(CONFIG)) == fingerprint(plain_settings(other))


@pytest.mark.parametrize("change", [{"seed": 2}, {"optim": {"lr": 0.2}}, {"trainer": {"max_epochs": 3}}])
def test_every_setting_changes_the_fingerprint(change: dict):
    assert fingerprint(plain_settings(CONFIG)) != fingerprint(plain_settings({**CONFIG, **change}))


def test_a_record_comes_back_and_what_is_not_finite_becomes_null(tmp_path: Path):
    record = {"status": "done", "fingerprint": "x", "settings": {}, "choices": {}}
    write_result(tmp_path, record | {"metrics": {"test/loss": float("nan"), "test/acc": 0.5}})
    json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    run = read_result(tmp_path)
    assert run is not None
    assert run.metrics == {"test/acc": 0.5}


@pytest.mark.parametrize("content", ["", '{"status": "do', "[]", "{}", "null", "\x00\x01"])
def test_a_broken_record_is_no_record(tmp_path: Path, content: str):
    (tmp_path / "result.json").write_text(content)
    assert read_result(tmp_path) is None


def test_a_reader_never_sees_half_a_file(tmp_path: Path):
    path, texts, seen = tmp_path / "file", ("a" * 300_000, "b" * 300_000), set()
    write_text(path, texts[0])
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(30):
        write_text(path, texts[i % 2])
    stop.set()
    reader.join()
    assert seen <= set(texts)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_draft(tmp_path: Path):
    write_text(tmp_path / "file", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "file", "new \ud800")
    assert (tmp_path / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_of_equal_fingerprints_the_finished_run_counts(tmp_path: Path, make_run):
    make_run(tmp_path, "optim=adam")
    make_run(tmp_path, status="failed", reason="x")  # adam is the default: the same settings
    make_run(tmp_path, "optim=sgd", status="failed", reason="x")
    (tmp_path / "notes").mkdir()
    assert [(run.folder.name, run.status) for run in read_folder(tmp_path)] == [
        ("optim=adam", "done"),
        ("optim=sgd", "failed"),
    ]


def test_a_folder_without_runs_points_to_the_one_that_has_them(tmp_path: Path, make_run):
    make_run(tmp_path / "digits", "optim=adam")
    with pytest.raises(UserError, match=r"holds no runs.*Did you mean .*digits"):
        read_folder(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        read_folder(tmp_path / "nowhere")


def test_flatten_names_leaves_by_their_path():
    assert flatten({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None}) == {"a.b": 1, "a.c.d": [1, 2], "e": None}
