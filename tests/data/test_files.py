import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from handwriting.data import files
from handwriting.data.characters import read_characters
from handwriting.data.files import data_root, find_file, has_file, in_utf8, read_bytes
from handwriting.data.mnist import FILES as MNIST
from handwriting.data.mnist import read_mnist
from handwriting.data.mnist_csv import read_mnist_csv

READERS = [read_mnist, read_mnist_csv, read_characters]


def test_the_environment_names_the_folder_of_the_data(monkeypatch, tmp_path):
    monkeypatch.setenv("HANDWRITING_DATA", str(tmp_path))
    assert data_root() == tmp_path


def test_a_tilde_in_the_environment_is_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("HANDWRITING_DATA", "~/sets")
    assert data_root() == tmp_path / "sets"


@pytest.mark.parametrize("value", [None, ""])
def test_without_the_environment_data_lie_in_a_cache_at_home(monkeypatch, tmp_path, value):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("HANDWRITING_DATA", value or "")
    if value is None:
        monkeypatch.delenv("HANDWRITING_DATA")
    assert data_root() == tmp_path / ".cache" / "handwriting"


def test_the_content_comes_back_unchanged(tmp_path):
    content = bytes(range(256)) * 5
    (tmp_path / "file").write_bytes(content)
    assert read_bytes(tmp_path / "file", "thing") == content


def test_a_missing_file_is_named(tmp_path, complaint):
    with complaint(tmp_path / "absent", "No such file", "a thing is expected"):
        read_bytes(tmp_path / "absent", "thing")


def test_a_folder_is_no_file(tmp_path, complaint):
    with complaint(tmp_path, "cannot be read"):
        read_bytes(tmp_path, "thing")


def test_an_empty_file_is_called_empty(tmp_path, complaint):
    (tmp_path / "file").touch()
    with complaint(tmp_path / "file", "is empty", "thing"):
        read_bytes(tmp_path / "file", "thing")


def test_a_file_of_the_maximum_size_is_loaded_and_one_byte_more_is_refused(tmp_path, monkeypatch, complaint):
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    (tmp_path / "file").write_bytes(bytes(1000))
    assert len(read_bytes(tmp_path / "file", "thing")) == 1000
    (tmp_path / "file").write_bytes(bytes(1001))
    with complaint(tmp_path / "file", "1,001 bytes", "1,000"):
        read_bytes(tmp_path / "file", "thing")


@pytest.mark.parametrize(
    "page",
    [
        b"<!DOCTYPE html><html></html>",
        b"<html><body>Log in</body></html>",
        b"\n\r\n  <HTML>",
        b"\xef\xbb\xbf<!doctype html>",
        b'<?xml version="1.0"?><Error>NoSuchKey</Error>',
    ],
)
def test_a_web_page_is_recognised(tmp_path, complaint, page):
    (tmp_path / "file").write_bytes(page)
    with complaint(tmp_path / "file", "HTML page, not a thing", "download the file again"):
        read_bytes(tmp_path / "file", "thing")


@pytest.mark.parametrize("name", ["file", "file.gz"])
def test_a_gz_file_is_unpacked_whatever_its_name(tmp_path, name):
    content = bytes(range(256)) * 5
    (tmp_path / name).write_bytes(gzip.compress(content))
    assert read_bytes(tmp_path / name, "thing") == content


@pytest.mark.parametrize("damage", [lambda packed: packed[:30], lambda packed: packed[:20] + b"xxxx" + packed[24:]])
def test_a_gz_file_that_is_damaged_is_named(tmp_path, complaint, damage):
    (tmp_path / "file.gz").write_bytes(damage(gzip.compress(bytes(range(256)) * 5)))
    with complaint(tmp_path / "file.gz", "truncated or damaged gzip file", "download it again"):
        read_bytes(tmp_path / "file.gz", "thing")


def test_a_gz_file_that_decompresses_to_too_much_is_refused(tmp_path, monkeypatch, complaint):
    monkeypatch.setattr(files, "MAX_BYTES", 1000)
    (tmp_path / "file.gz").write_bytes(gzip.compress(bytes(1000)))
    assert len(read_bytes(tmp_path / "file.gz", "thing")) == 1000
    (tmp_path / "file.gz").write_bytes(gzip.compress(bytes(1001)))
    with complaint(tmp_path / "file.gz", "decompresses to more than 1,000 bytes", "not a thing"):
        read_bytes(tmp_path / "file.gz", "thing")


def test_a_gz_file_of_nothing_is_called_empty(tmp_path, complaint):
    (tmp_path / "file.gz").write_bytes(gzip.compress(b""))
    with complaint(tmp_path / "file.gz", "is empty"):
        read_bytes(tmp_path / "file.gz", "thing")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize("read", READERS)
def test_every_loader_names_a_git_lfs_pointer(read: Callable, tmp_path, complaint):
    for name in ("mnist_train.csv", "mnist_test.csv", "set.mat", *MNIST["train"], *MNIST["test"]):
        (tmp_path / name).write_bytes(POINTER)
    with complaint(tmp_path, "is a Git LFS pointer", "git lfs pull"):
        read(tmp_path / "set.mat" if read is read_characters else tmp_path)


def test_utf_16_and_a_byte_order_mark_become_utf_8():
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert in_utf8("ᜀ\té\r\n".encode(encoding)).decode() == "ᜀ\té\r\n"


def test_the_file_as_it_is_comes_before_the_packed_one(tmp_path):
    assert find_file(tmp_path, "a", "b") is None
    for name in ("b.gz", "a.gz", "b", "a"):
        (tmp_path / name).touch()
        assert find_file(tmp_path, "a", "b") == tmp_path / name


def test_a_file_is_there_or_not(tmp_path):
    (tmp_path / "file").touch()
    assert has_file(tmp_path / "file")
    assert not has_file(tmp_path / "absent")
    assert not has_file(tmp_path / "absent" / "file")
    assert not has_file(tmp_path / "file" / "in a file")
    assert not has_file(tmp_path)


def test_a_name_that_the_system_refuses_is_a_complaint(tmp_path, complaint):
    with complaint("x" * 300, "cannot be read"):
        has_file(tmp_path / ("x" * 300))


@pytest.mark.parametrize("read", READERS)
def test_every_loader_reports_a_folder_without_permission(read: Callable, tmp_path, deny, complaint):
    deny(tmp_path)
    with complaint(tmp_path, "Permission denied", "permissions"):
        read(tmp_path / "set")


@pytest.mark.parametrize("read", READERS)
def test_every_loader_names_a_missing_place(read: Callable, tmp_path, complaint):
    with complaint(tmp_path / "set", "data.path"):
        read(tmp_path / "set")


@pytest.mark.parametrize("read", READERS)
def test_every_loader_expands_a_tilde(read: Callable, tmp_path, monkeypatch, complaint):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with complaint(Path(tmp_path) / "set"):
        read("~/set")


def test_without_a_path_the_data_root_is_looked_into(data_root: Path, complaint):
    with complaint(data_root / "mnist_csv"):
        read_mnist_csv()
