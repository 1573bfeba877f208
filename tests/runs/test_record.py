import json
import threading
from pathlib import Path

import pytest

from handwriting.runs.record import (
    fingerprint,
    flatten,
    plain_settings,
    read_folder,
    read_result,
    read_runs,
    write_result,
)
from handwriting.utils.errors import UserError
from handwriting.utils.files import write_text

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
    record = {"status": "done", "fingerprint": "x", "settings": {}, "choices": {}} | {"epochs": 1, "seconds": 1.0}
    record["parameters"] = 10
    write_result(tmp_path, record | {"metrics": {"test/loss": float("nan"), "test/acc": 0.5}})
    json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    run = read_result(tmp_path)
    assert run is not None
    assert run.metrics == {"test/acc": 0.5}


DAMAGED = [b"", b'{"status": "do', b"[]", b"{}", b"null", b"\x00\x01", b'{"status": "\xff\xfe"}', b"[" * 5]
DAMAGED += [b'{"status": "done", "fingerprint": "x", "settings": {}, "choices": {}}']  # without its results
DAMAGED += [b'{"status": "failed", "fingerprint": "x", "settings": [], "choices": {}}']


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_record_is_no_run_and_is_named(tmp_path: Path, content: bytes, make_run):
    make_run(tmp_path, "seed=0")
    damaged = make_run(tmp_path, "seed=1")
    (damaged / "result.json").write_bytes(content)
    assert read_result(damaged) is None
    assert [run.folder.name for run in read_folder(tmp_path)] == ["seed=0"]
    runs, problems = read_runs(tmp_path)
    assert [run.folder.name for run in runs] == ["seed=0"]
    assert problems == {damaged: "is damaged; the same command retrains it"}


def test_an_unreadable_record_is_named_with_the_reason(tmp_path: Path, make_run):
    make_run(tmp_path, "seed=0")
    (tmp_path / "seed=1" / "result.json").mkdir(parents=True)
    assert read_runs(tmp_path)[1] == {tmp_path / "seed=1": "cannot be read: Is a directory"}


def test_a_folder_of_damaged_records_alone_says_so(tmp_path: Path, make_run):
    damaged = make_run(tmp_path, "seed=1")
    (damaged / "result.json").write_text("")
    with pytest.raises(
        UserError, match=r"no readable run: .*seed=1/result\.json is damaged; the same command retrains"
    ):
        read_folder(tmp_path)


def test_half_a_file_is_never_visible(tmp_path: Path):
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
    with pytest.raises(UserError, match=r"has no runs.*Did you mean .*digits"):
        read_folder(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        read_folder(tmp_path / "nowhere")


def test_flatten_names_leaves_by_their_path():
    assert flatten({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None}) == {"a.b": 1, "a.c.d": [1, 2], "e": None}


def test_the_same_command_trains_a_run_again_whose_record_is_damaged(main, tmp_path: Path):
    words = ("data=digits", "data.limit=200", "trainer.max_epochs=1", "model.widths=[4,8]", "model.hidden=[16]")
    assert main(*words).code == 0
    (path,) = tmp_path.glob("outputs/digits/*/result.json")
    whole = json.loads(path.read_text())
    path.write_text(path.read_text()[:200])
    assert main(*words).code == 0
    again = json.loads(path.read_text())
    assert (again["status"], again["metrics"]) == ("done", whole["metrics"])
    assert again["started"] > whole["started"]
