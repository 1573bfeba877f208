from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from handwriting.data.mnist_csv import read_csv_images, read_mnist_csv

KAGGLE = "label," + ",".join(f"pixel{i}" for i in range(784))
BY_PLACE = "label," + ",".join(f"{row}x{column}" for row in range(1, 29) for column in range(1, 29))


@pytest.fixture
def table() -> np.ndarray:
    rng = np.random.default_rng(0)
    table = rng.integers(0, 256, (25, 785), np.uint8)
    table[:, 0] %= 10
    return table


@pytest.fixture
def lines(table) -> list[str]:
    return [",".join(map(str, row)) for row in table.tolist()]


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    def write_lines(lines: list[str], end: str = "\n", encoding: str = "utf-8") -> Path:
        (tmp_path / "digits.csv").write_bytes((end.join(lines) + end).encode(encoding))
        return tmp_path / "digits.csv"

    return write_lines


def replaced(line: str, column: int, value: str) -> str:
    values = line.split(",")
    values[column - 1] = value
    return ",".join(values)


BY_NUMBER = "label," + ",".join(map(str, range(784)))


@pytest.mark.parametrize("header", [None, KAGGLE, BY_PLACE, BY_NUMBER, KAGGLE.replace("label", '"label"')])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_every_row_is_read_as_pandas_reads_it(write, table, lines, header, end, encoding):
    path = write([header, *lines] if header else lines, end, encoding)
    digits = read_csv_images(path)
    expected = pd.read_csv(path, header=0 if header else None, encoding=encoding).to_numpy()
    assert np.array_equal(expected, table)
    assert np.array_equal(digits.labels.numpy(), expected[:, 0])
    assert np.array_equal(digits.images.reshape(-1, 784).numpy(), expected[:, 1:])
    assert digits.images.shape == (25, 1, 28, 28)
    assert (digits.images.dtype, digits.labels.dtype) == (torch.uint8, torch.int64)


@pytest.mark.parametrize("blank", ["", " "])
def test_blank_lines_are_no_images(write, table, lines, blank):
    digits = read_csv_images(write([blank, KAGGLE, blank, *lines, blank, blank]))
    assert np.array_equal(digits.labels.numpy(), table[:, 0])


def test_a_last_line_without_an_end_is_read(write, lines):
    path = write(lines)
    path.write_bytes(path.read_bytes().rstrip())
    assert len(read_csv_images(path)) == 25


def test_a_first_image_without_ink_is_an_image(write, lines):
    digits = read_csv_images(write([",".join(["0"] * 785), *lines]))
    assert len(digits) == 26
    assert not digits.images[0].any()


def test_a_single_image_is_read(write, lines):
    assert read_csv_images(write(lines[:1])).images.shape == (1, 1, 28, 28)


@pytest.mark.parametrize("header", [[], [KAGGLE]])
@pytest.mark.parametrize(("row", "column"), [(0, 1), (0, 785), (11, 400), (24, 1)])
@pytest.mark.parametrize(
    "value", ["256", "-1", "3.5", "", "x", "²", "1e2", "#7", "nan", pytest.param("12345" * 1000, id="5,000 digits")]
)
def test_a_bad_value_is_named_with_row_and_column(write, lines, header, row, value, column, complaint):
    lines[row] = replaced(lines[row], column, value)
    path = write(header + lines)
    with complaint(path, f"row {len(header) + row + 1}, column {column}: {value[:40]!r} is not a whole number"):
        read_csv_images(path)


@pytest.mark.parametrize("header", [[], [KAGGLE]])
@pytest.mark.parametrize("row", [0, 11, 24])
@pytest.mark.parametrize("count", [1, 784, 786])
def test_a_row_of_another_length_is_named(write, lines, header, row, count, complaint):
    lines[row] = ",".join([*lines[row].split(","), "0"][:count])
    path = write(header + lines)
    with complaint(path, f"row {len(header) + row + 1}: {count} values instead of 785"):
        read_csv_images(path)


def test_rows_that_are_all_too_short_are_refused(write, lines, complaint):
    with complaint("row 1: 784 values instead of 785"):
        read_csv_images(write([line.rsplit(",", 1)[0] for line in lines]))


def test_a_row_is_counted_with_the_blank_lines_before_it(write, lines, complaint):
    with complaint("row 5, column 2"):
        read_csv_images(write([KAGGLE, "", *lines[:2], replaced(lines[2], 2, "x")]))
    with complaint("row 5: the label is 10"):
        read_csv_images(write([KAGGLE, "", *lines[:2], replaced(lines[2], 1, "10")]))


@pytest.mark.parametrize("header", [[], [KAGGLE]])
@pytest.mark.parametrize("row", [0, 24])
def test_a_label_that_is_no_digit_is_named_with_its_row(write, lines, header, row, complaint):
    lines[row] = replaced(lines[row], 1, "10")
    path = write(header + lines)
    with complaint(path, f"row {len(header) + row + 1}: the label is 10", "0 to 9"):
        read_csv_images(path)


@pytest.mark.parametrize("lines", [[KAGGLE], ["", " "], ["no such page"]])
@pytest.mark.filterwarnings("error")
def test_a_file_without_images_is_refused(write, lines, complaint):
    path = write(lines)
    with complaint(path, "holds no images"):
        read_csv_images(path)


@pytest.mark.parametrize("content", [b"", b"<html>Sign in to Kaggle</html>"])
def test_an_empty_file_or_a_web_page_is_refused(tmp_path, content, complaint):
    (tmp_path / "digits.csv").write_bytes(content)
    with complaint(tmp_path / "digits.csv", "HTML page" if content else "is empty", "CSV of MNIST images"):
        read_csv_images(tmp_path / "digits.csv")


def test_a_zip_under_the_name_of_the_csv_is_refused(tmp_path, complaint):
    (tmp_path / "digits.csv").write_bytes(b"PK\x03\x04\n" + bytes(range(255, 0, -1)) * 3)
    with complaint(tmp_path / "digits.csv"):
        read_csv_images(tmp_path / "digits.csv")


def test_both_files_of_a_folder_are_read(write, lines, tmp_path):
    write(lines).rename(tmp_path / "mnist_train.csv")
    write([KAGGLE, *lines[:7]]).rename(tmp_path / "mnist_test.csv")
    digits = read_mnist_csv(tmp_path)
    assert (len(digits.train), len(digits.test)) == (25, 7)
    assert torch.equal(digits.train.images[:7], digits.test.images)
    assert digits.class_names == tuple("0123456789")


def test_without_a_path_the_data_root_is_read(write, lines, data_root):
    (data_root / "mnist_csv").mkdir()
    for name in ("mnist_train.csv", "mnist_test.csv"):
        write(lines).rename(data_root / "mnist_csv" / name)
    assert len(read_mnist_csv().test) == 25


@pytest.mark.parametrize("present", ["mnist_train.csv", "mnist_test.csv"])
def test_the_file_that_is_missing_is_named(tmp_path, present, complaint):
    (tmp_path / present).write_text("0")
    (absent,) = {"mnist_train.csv", "mnist_test.csv"} - {present}
    with complaint(f"{tmp_path} holds no {absent}:", "Kaggle", "data.path="):
        read_mnist_csv(tmp_path)
