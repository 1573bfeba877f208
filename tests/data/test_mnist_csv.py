import gzip
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
def test_every_row_is_loaded_as_by_pandas(write, table, lines, header, end, encoding):
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


def test_a_last_line_without_newline_is_loaded(write, lines):
    path = write(lines)
    path.write_bytes(path.read_bytes().rstrip())
    assert len(read_csv_images(path)) == 25


def test_a_blank_first_image_is_an_image(write, lines):
    digits = read_csv_images(write([",".join(["0"] * 785), *lines]))
    assert len(digits) == 26
    assert not digits.images[0].any()


def test_a_single_image_is_loaded(write, lines):
    assert read_csv_images(write(lines[:1])).images.shape == (1, 1, 28, 28)


@pytest.mark.parametrize(
    ("header", "row", "column"), [([], 0, 1), ([KAGGLE], 0, 785), ([KAGGLE], 11, 400), ([], 24, 1)]
)
@pytest.mark.parametrize(
    "value",
    [
        "256",
        "-1",
        "3.5",
        "",
        "x",
        "²",
        "1e3",
        "1e400",
        "1_0",
        "#7",
        "nan",
        pytest.param("12345" * 1000, id="5,000 digits"),
    ],
)
def test_a_bad_value_is_named_with_row_and_column(write, lines, header, row, value, column, complaint):
    lines[row] = replaced(lines[row], column, value)
    path = write(header + lines)
    with complaint(path, f"row {len(header) + row + 1}, column {column}: {value[:40]!r} is not a whole number"):
        read_csv_images(path)


@pytest.mark.parametrize(("header", "row"), [([], 0), ([KAGGLE], 0), ([KAGGLE], 11), ([], 24)])
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


@pytest.mark.parametrize("lines", [[KAGGLE], ["", " "], [KAGGLE, "", " "]])
@pytest.mark.filterwarnings("error")
def test_a_file_without_images_is_refused(write, lines, complaint):
    path = write(lines)
    with complaint(path, "has no images"):
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


def test_both_files_of_a_folder_are_loaded(write, lines, tmp_path):
    write(lines).rename(tmp_path / "mnist_train.csv")
    write([KAGGLE, *lines[:7]]).rename(tmp_path / "mnist_test.csv")
    digits = read_mnist_csv(tmp_path)
    assert (len(digits.train), len(digits.test)) == (25, 7)
    assert torch.equal(digits.train.images[:7], digits.test.images)
    assert digits.class_names == tuple("0123456789")


def test_without_a_path_the_data_root_is_used(write, lines, data_root):
    (data_root / "mnist_csv").mkdir()
    for name in ("mnist_train.csv", "mnist_test.csv"):
        write(lines).rename(data_root / "mnist_csv" / name)
    assert len(read_mnist_csv().test) == 25


@pytest.mark.parametrize("present", ["mnist_train.csv", "mnist_test.csv"])
def test_the_file_that_is_missing_is_named(tmp_path, present, complaint):
    (tmp_path / present).write_text("0")
    (absent,) = {"mnist_train.csv", "mnist_test.csv"} - {present}
    with complaint(f"{tmp_path} has no {absent}:", "Kaggle", "data.path="):
        read_mnist_csv(tmp_path)


# Layouts


def move_label(lines: list[str], column: int) -> list[str]:
    """Move the first value of each line to before this column."""
    moved = []
    for line in lines:
        label, *pixels = line.split(",")
        moved.append(",".join([*pixels[:column], label, *pixels[column:]]))
    return moved


@pytest.mark.parametrize("column", [0, 400, 784])
@pytest.mark.parametrize("name", ["label", "class", "Class", '"class"', " Label ", "target"])
def test_the_header_says_which_column_is_the_label(write, table, lines, column, name):
    header = move_label([KAGGLE.replace("label", name)], column)
    digits = read_csv_images(write([*header, *move_label(lines, column)]))
    assert np.array_equal(digits.labels.numpy(), table[:, 0])
    assert np.array_equal(digits.images.flatten(1).numpy(), table[:, 1:])


@pytest.mark.parametrize("label", ["label", "class"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("options", [{}, {"index_label": "index"}, {"sep": ";"}, {"sep": "\t"}, {"quoting": 1}])
def test_csv_from_pandas_is_loaded_without_its_index(tmp_path, table, label, last, options):
    names = [label, *(f"pixel{i}" for i in range(1, 785))]
    frame = pd.DataFrame(table, columns=names, index=range(1000, 1025))
    frame[names[1:] + names[:1] if last else names].to_csv(tmp_path / "digits.csv", **options)
    digits = read_csv_images(tmp_path / "digits.csv")
    assert np.array_equal(digits.labels.numpy(), table[:, 0])
    assert np.array_equal(digits.images.flatten(1).numpy(), table[:, 1:])


def test_an_index_that_was_saved_twice_is_skipped_twice(tmp_path, table):
    frame = pd.DataFrame(table, columns=KAGGLE.split(","))
    frame.to_csv(tmp_path / "once.csv")
    pd.read_csv(tmp_path / "once.csv").to_csv(tmp_path / "digits.csv")
    assert (tmp_path / "digits.csv").read_text().startswith(",Unnamed: 0,label,pixel0")
    digits = read_csv_images(tmp_path / "digits.csv")
    assert np.array_equal(digits.images.flatten(1).numpy(), table[:, 1:])


@pytest.mark.parametrize("index", [False, True])
def test_the_numbers_that_pandas_calls_its_columns_are_no_image(tmp_path, table, index, complaint):
    pd.DataFrame(table).to_csv(tmp_path / "digits.csv", index=index)
    with complaint(tmp_path / "digits.csv", "its header names no label column", "'label'"):
        read_csv_images(tmp_path / "digits.csv")


def test_a_first_image_that_pandas_took_for_a_header_is_refused(tmp_path, table, write, lines, complaint):
    pd.read_csv(write(lines)).to_csv(tmp_path / "damaged.csv", index=False)  # pandas renames a repeated value to 17.1
    with complaint(tmp_path / "damaged.csv", "row 1, column"):
        read_csv_images(tmp_path / "damaged.csv")


@pytest.mark.parametrize("header", [[], [KAGGLE]])
@pytest.mark.parametrize("form", ["%.1f", "%.18e", "%d"])
@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
def test_whole_numbers_may_be_written_as_fractions_with_any_separator(tmp_path, table, header, form, separator):
    names = "".join(header).replace(",", separator)
    np.savetxt(tmp_path / "digits.csv", table, form, separator, header=names, comments="")
    digits = read_csv_images(tmp_path / "digits.csv")
    assert np.array_equal(digits.labels.numpy(), table[:, 0])
    assert np.array_equal(digits.images.flatten(1).numpy(), table[:, 1:])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_recognised_by_its_mark(write, table, lines, encoding):
    mark = "" if encoding == "utf-16" else "\ufeff"
    digits = read_csv_images(write([mark + KAGGLE, *lines], "\r\n", encoding))
    assert np.array_equal(digits.labels.numpy(), table[:, 0])
    assert np.array_equal(digits.images.flatten(1).numpy(), table[:, 1:])


def test_utf_16_without_a_mark_is_named(write, lines, complaint):
    path = write([KAGGLE, *lines], encoding="utf-16-le")
    with complaint(path, "not a UTF-8 text", "zero bytes"):
        read_csv_images(path)


def at_the_border(table: np.ndarray, background: int = 0) -> list[str]:
    """Lines of images whose first and last pixels are all background, as those of MNIST are."""
    table = table.copy()
    table[:, 1], table[:, -1] = background, background
    return [",".join(map(str, row)) for row in table.tolist()]


@pytest.mark.parametrize("background", [0, 255])
def test_labels_in_the_last_column_without_a_header_are_refused(write, table, complaint, background):
    path = write(move_label(at_the_border(table, background), 784))
    with complaint(path, "no header", "last column", "names the column 'label'"):
        read_csv_images(path)


@pytest.mark.parametrize("background", [0, 255])
@pytest.mark.parametrize(("header", "values", "column"), [(0, 784, 785), (784, 0, 1), (400, 0, 1)])
def test_a_header_that_the_values_contradict_is_refused(write, table, complaint, background, header, values, column):
    rows = at_the_border(table, background)
    if header == 400:
        rows = [replaced(row, 402, "0") for row in rows]  # what the header calls the label
    path = write([*move_label([KAGGLE], header), *move_label(rows, values)])
    with complaint(path, f"header calls column {header + 1} 'label'", f"seem to be in column {column};"):
        read_csv_images(path)


def test_images_of_one_class_are_no_contradiction(write, table):
    table[:, 0] = 3
    assert read_csv_images(write([KAGGLE, *at_the_border(table)])).labels.tolist() == [3] * 25
    assert read_csv_images(write(at_the_border(table))).labels.tolist() == [3] * 25


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (KAGGLE.removeprefix("label,"), ["names no label column", "'pixel0', 'pixel1', …, 'pixel783'"]),
        (KAGGLE.replace("label", "name"), ["names no label column", "'name'"]),
        (KAGGLE.replace("pixel783", "class"), ["two label columns", "'label' (column 1)", "'class' (column 785)"]),
        (KAGGLE.removesuffix(",pixel783"), ["names 783 columns of pixels", "784 (28×28)"]),
        (KAGGLE + ",pixel784", ["names 785 columns of pixels", "784 (28×28)"]),
        ("label," + ",".join(sorted(KAGGLE.split(",")[1:])), ["'pixel109' before 'pixel11'"]),
        ("label," + ",".join(f"{row}x{column}" for column in range(28) for row in range(28)), ["'27x0' before '0x1'"]),
    ],
)
def test_a_header_of_another_layout_is_refused(write, lines, complaint, header, words):
    path = write([header, *lines])
    with complaint(path, *words):
        read_csv_images(path)


def test_a_row_longer_than_its_header_is_named(write, lines, complaint):
    path = write([f",{KAGGLE}", *lines])
    with complaint(path, "row 2: 785 values instead of 786", "1 skipped column"):
        read_csv_images(path)


def test_compressed_files_of_a_folder_are_loaded(write, lines, tmp_path):
    for name in ("mnist_train.csv.gz", "mnist_test.csv.gz"):
        (tmp_path / name).write_bytes(gzip.compress(write(lines).read_bytes()))
    assert len(read_mnist_csv(tmp_path).test) == 25
