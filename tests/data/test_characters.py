import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from handwriting.data.characters import read_characters

GLYPHS = ["ᜀ", "", "𑀅", "é", "ﺏ", "/"]
NAMES = [f"Tagalog {number}" for number in range(1, 7)]
TABLE = "index\talphabet\tcharacter\tglyph\n"


def cells(texts: list[str]) -> np.ndarray:
    return np.array(texts, dtype=object)


@pytest.fixture
def write_labels(tmp_path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        (tmp_path / "labels.tsv").write_bytes(text.encode())
        return tmp_path / "labels.tsv"

    return write


def table_of(*rows: tuple[object, ...]) -> str:
    return TABLE + "".join("\t".join(map(str, row)) + "\n" for row in rows)


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_each_image_keeps_the_label_of_its_class(write_mat, pages, version):
    characters = read_characters(write_mat(version))
    for part, key in ((characters.train, "train"), (characters.test, "test")):
        assert part.images.dtype == torch.uint8
        assert len(part) == pages[key].shape[0] * pages[key].shape[1]
        for label in range(6):
            of_class = part.images[part.labels == label].squeeze(1).numpy()
            assert np.array_equal(of_class, pages[key][label])
    assert characters.image_size == (28, 28)


def test_without_a_path_the_data_root_is_used(write_mat, data_root):
    (data_root / "characters").mkdir()
    write_mat().rename(data_root / "characters" / "characters.mat")
    assert len(read_characters().test) == 12


def test_a_missing_file_is_named_with_the_ways_out(tmp_path, complaint):
    with complaint(f"{tmp_path / 'set.mat'} does not exist", "leave out data.path", "Omniglot", "data=digits"):
        read_characters(tmp_path / "set.mat")


def test_a_file_of_something_else_is_refused(tmp_path, complaint):
    (tmp_path / "set.mat").write_text("train and test\n")
    with complaint(tmp_path / "set.mat", "not a MATLAB file"):
        read_characters(str(tmp_path / "set.mat"))


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_classes_without_names_are_numbered(write_mat, version):
    characters = read_characters(write_mat(version, made_by="nobody"))
    assert characters.class_names == ("0", "1", "2", "3", "4", "5")
    assert characters.glyphs == ()


def test_names_and_glyphs_are_those_inside_the_file(write_mat, write_labels):
    write_labels(table_of(*((index, "Other", index, "x") for index in range(6))))
    characters = read_characters(write_mat(names=cells(NAMES), glyphs=cells(GLYPHS)))
    assert characters.class_names == tuple(NAMES)
    assert characters.glyphs == tuple(GLYPHS)


def test_names_may_be_the_rows_of_a_matrix_of_letters(write_mat):
    characters = read_characters(write_mat(names=np.array(["a", "of", "the", "d", "é", "ᜀ"])))  # MATLAB fills them up
    assert (characters.class_names, characters.glyphs) == (("a", "of", "the", "d", "é", "ᜀ"), ())


def test_else_they_are_those_of_the_labels_beside_it(write_mat, write_labels):
    rows = [(index, "N_Ko_(West)", index + 11, glyph) for index, glyph in enumerate(GLYPHS)]
    write_labels("\ufeff" + table_of(*rows[::-1]).replace("\n", "\r\n"))  # as another program may save it
    characters = read_characters(write_mat(glyphs=cells(["x"] * 6)))
    assert characters.class_names == tuple(f"N Ko (West) {number}" for number in range(11, 17))
    assert characters.glyphs == tuple(GLYPHS)


def test_labels_may_be_saved_in_utf_16(write_mat, tmp_path):
    rows = [(index, "Tagalog", index + 1, glyph) for index, glyph in enumerate(GLYPHS)]
    (tmp_path / "labels.tsv").write_bytes(table_of(*rows).encode("utf-16"))  # what Excel calls Unicode text
    assert read_characters(write_mat()).glyphs == tuple(GLYPHS)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("names", [NAMES[:5], [*NAMES, "Tagalog 7"]])
def test_a_wrong_number_of_names_gives_numbers_and_is_said_once(write_mat, write_labels, caplog, inside, names):
    if inside:
        path = write_mat(names=cells(names), glyphs=cells(GLYPHS))
    else:
        path = write_mat()
        write_labels(table_of(*((index, *name.split(), "x") for index, name in enumerate(names))))
    with caplog.at_level(logging.INFO):
        characters = [read_characters(path) for _ in range(2)]
    for each in characters:
        assert (each.class_names, each.glyphs) == (("0", "1", "2", "3", "4", "5"), ())
    said = [message for message in caplog.messages if str(path) in message]
    assert len(said) == 1
    assert f"it has {len(names)} names" in said[0]
    assert "6 classes" in said[0]


def test_names_that_are_not_each_its_own_give_numbers(write_mat):
    assert read_characters(write_mat(names=cells([*NAMES[:5], NAMES[0]]))).class_names == tuple("012345")


def test_glyphs_that_are_too_few_are_left_out(write_mat):
    characters = read_characters(write_mat(names=cells(NAMES), glyphs=cells(GLYPHS[:5])))
    assert (characters.class_names, characters.glyphs) == (tuple(NAMES), ())


ROWS = [(index, "Tagalog", index + 1, "x") for index in range(6)]


@pytest.mark.parametrize(
    "text",
    [
        table_of(*ROWS).replace("\t", ","),
        table_of(*ROWS).replace("glyph", "sign"),
        table_of(*ROWS).replace("index", "number"),
        table_of(*ROWS[:5], ("six", "Tagalog", 6, "x")),
        table_of(*ROWS[:5], (1.5, "Tagalog", 6, "x")),
        table_of(*ROWS[:5], (5,)),
        # Those from here on fail:
        table_of(*ROWS[:5], (5, "Tagalog")),  # the name becomes 'Tagalog None'
        table_of(*ROWS).replace("\n", "\r"),  # csv.Error
        table_of(*ROWS[:5], (5, "Tagalog", 6, "x" * 200_000)),  # csv.Error
        table_of(*ROWS[:5], (9, "Tagalog", 6, "x")),  # class 5 gets the name of a class 9
        table_of(*ROWS[:5], (4, "Tagalog", 6, "x")),  # class 5 gets the second name of class 4
    ],
    ids=["commas", "no glyph", "no index", "word", "fraction", "one cell", "two cells", "CR", "huge", "gap", "twice"],
)
def test_a_malformed_table_of_labels_is_refused(write_mat, write_labels, complaint, text):
    path = write_mat()
    with complaint(write_labels(text), "index, alphabet, character and glyph"):
        read_characters(path)
