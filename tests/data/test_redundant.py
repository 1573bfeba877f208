"""Duplicate classes: keep, drop, merge."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from handwriting.data.characters import read_characters
from handwriting.data.dataset import HandwritingSet

NAMES = ["a", "b", "c", "d", "e", "f"]
GLYPHS = ["α", "", "γ", "α", "ε", ""]
GROUPS = ([[0, 3]], [[5, 1]], [[0, 3, 4], [5, 2]], [[4, 3, 2, 1, 0]], [[2]], [])


@pytest.fixture
def file(write_mat) -> Path:
    return write_mat(names=np.array(NAMES, object), glyphs=np.array(GLYPHS, object))


def read(file: Path, redundant: Any, groups: Any) -> HandwritingSet:
    return read_characters(file, redundant=redundant, redundant_groups=groups)


@pytest.mark.parametrize("groups", [*GROUPS, [[0, 99]]])
def test_keep_leaves_all_as_it_is(file, pages, groups):
    characters = read(file, "keep", groups)
    assert characters.class_names == tuple(NAMES)
    assert characters.glyphs == tuple(GLYPHS)
    assert characters.train.labels.tolist() == np.repeat(range(6), 3).tolist()
    assert np.array_equal(characters.train.images.numpy(), pages["train"].reshape(-1, 1, 28, 28))


@pytest.mark.parametrize("groups", GROUPS)
def test_drop_leaves_the_first_of_each_group(file, pages, groups):
    characters = read(file, "drop", groups)
    kept = np.setdiff1d(np.arange(6), [label for group in groups for label in group[1:]])
    for part, key in ((characters.train, "train"), (characters.test, "test")):
        examples = pages[key].shape[1]
        assert np.array_equal(part.images.numpy(), pages[key][kept].reshape(-1, 1, 28, 28))
        assert part.labels.tolist() == np.repeat(np.arange(len(kept)), examples).tolist()
    assert characters.class_names == tuple(NAMES[label] for label in kept)
    assert characters.glyphs == tuple(GLYPHS[label] for label in kept)


@pytest.mark.parametrize("groups", GROUPS)
def test_merge_keeps_every_image_under_the_label_of_the_first(file, pages, groups):
    characters = read(file, "merge", groups)
    old = np.arange(6)
    for group in groups:
        old[group] = group[0]
    kept, new = np.unique(old, return_inverse=True)
    for part, key in ((characters.train, "train"), (characters.test, "test")):
        assert np.array_equal(part.images.numpy(), pages[key].reshape(-1, 1, 28, 28))
        assert part.labels.tolist() == np.repeat(new, pages[key].shape[1]).tolist()
    assert characters.class_names == tuple("/".join(np.array(NAMES)[old == label]) for label in kept)


def test_merged_classes_share_their_names_and_each_glyph_once(file):
    characters = read(file, "merge", [[0, 3, 4], [5, 2]])
    assert characters.class_names == ("a/d/e", "b", "c/f")
    assert (characters.glyphs[0], characters.glyphs[1]) == ("α/ε", "")


def test_a_class_without_a_glyph_adds_none_when_it_is_merged(file):
    assert read(file, "merge", [[5, 2]]).glyphs[-1] == "γ"


@pytest.mark.parametrize("redundant", ["drop", "merge"])
def test_numbers_serve_as_names_too(write_mat, redundant):
    characters = read(write_mat(), redundant, [[1, 4]])
    assert characters.class_names == ("0", "1" if redundant == "drop" else "1/4", "2", "3", "5")
    assert characters.glyphs == ()


@pytest.mark.parametrize("redundant", ["drop", "merge"])
@pytest.mark.parametrize("label", [6, -1, True, "1", 1.5, None])
def test_a_class_that_is_not_there_is_named(file, complaint, redundant, label):
    with complaint("data.redundant_groups", f"class {label}", file, "0 to 5"):
        read(file, redundant, [[0, 2], [3, label]])


@pytest.mark.parametrize("groups", [[[2, 2]], [[0, 2], [2, 3]], [[2], [1, 2]]])
def test_a_class_that_is_given_twice_is_named(file, complaint, groups):
    with complaint("data.redundant_groups", "class 2 twice"):
        read(file, "merge", groups)


@pytest.mark.parametrize("groups", [[0, 3], [None], None, 5])
def test_groups_that_are_no_lists_are_refused(file, complaint, groups):
    with complaint("data.redundant_groups"):
        read(file, "drop", groups)


@pytest.mark.parametrize("redundant", ["remove", "Drop", "", None, True])
def test_another_word_is_refused(file, complaint, redundant):
    with complaint(f"data.redundant={redundant}", "keep, drop or merge"):
        read(file, redundant, [])
