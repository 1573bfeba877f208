"""House numbers in the contest's layout and in SVHN's own, and what is wrong with their files."""

import json
import logging
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from handwriting.data import digit_struct
from handwriting.data.dataset import END
from handwriting.data.digit_struct import KEYS, read_digit_struct
from handwriting.data.street import read_street

Digits = dict[str, list[Any]]
COLOURS = [(9 * digit + 90, 255 - 20 * digit, 25 * digit) for digit in range(10)]  # of the digits in the photographs


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HANDWRITING_CACHE", str(folder))
    return folder


def digits_at(*digits: tuple[float, float, float, float, float]) -> Digits:
    """An entry of the files, from label, left, top, width and height of each digit."""
    columns = zip(*digits, strict=True)
    return {key: list(column) for key, column in zip(("label", "left", "top", "width", "height"), columns, strict=True)}


TRAIN = {
    "a.png": digits_at((1, 10, 5, 8, 20), (9, 22, 6, 9, 21)),
    "b.png": digits_at((10, 30, 4, 12, 24)),  # 10 is zero
    "c.png": digits_at((0, 5, 8, 6, 12), (0, 14, 8, 6, 12), (7, 23, 8, 6, 12)),  # leading zeros
    "d.png": digits_at((2, 40, 3, 9, 20), (3, 10, 3, 9, 20), (4, 25, 3, 9, 20)),  # not in the order of reading
}
TEST = {"e.png": digits_at((5, 12, 10, 10, 18), (6, 24, 10, 10, 18)), "f.png": digits_at((8, 3, 3, 11, 22))}
SIZES = {
    "a.png": (30, 60),
    "b.png": (40, 50),
    "c.png": (24, 80),
    "d.png": (26, 64),
    "e.png": (32, 40),
    "f.png": (64, 50),
}


def draw(folder: Path, entries: dict[str, Digits]) -> None:
    """Draw the photographs: each box is filled with the colour of its digit."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, digits in entries.items():
        photograph = np.zeros((*SIZES.get(name, (30, 60)), 3), np.uint8)
        for label, left, top, width, height in zip(*(digits[key] for key in ORDER), strict=True):
            rows = slice(max(round(top), 0), max(round(top + height), 0))
            photograph[rows, max(round(left), 0) : max(round(left + width), 0)] = COLOURS[int(label) % 10]
        Image.fromarray(photograph).save(folder / name)


ORDER = ("label", "left", "top", "width", "height")


def write_contest(root: Path, train: Any = TRAIN, test: Any = TEST, inside: bool = False) -> Path:
    for name, entries in (("mchar_train", train), ("mchar_val", test)):
        draw(root / name, entries)
        place = root / name if inside else root
        (place / f"{name}.json").write_text(json.dumps(entries))
    return root


def write_mat5(file: Path, entries: dict[str, Digits]) -> None:
    """Write a digitStruct.mat as MATLAB's version 5: an array of structs with a name and an array of structs."""
    kinds = [(key, object) for key in KEYS]
    structs = np.empty((1, len(entries)), [("name", object), ("bbox", object)])
    for place, (name, digits) in enumerate(entries.items()):
        boxes = np.empty((1, len(digits["label"])), kinds)
        for key in KEYS:
            for number, value in enumerate(digits[key]):
                boxes[key][0, number] = np.array([[value]], float)
        structs["name"][0, place], structs["bbox"][0, place] = name, boxes
    scipy.io.savemat(file, {"digitStruct": structs}, do_compression=True)


def write_mat73(file: Path, entries: dict[str, Digits]) -> None:
    """Write a digitStruct.mat as MATLAB's version 7.3: references, but the values of a single digit stand inline."""
    with h5py.File(file, "w", userblock_size=512) as opened:
        refs, struct = opened.create_group("#refs#"), opened.create_group("digitStruct")

        def stored(value: Any) -> h5py.Reference:
            return refs.create_dataset(str(len(refs)), data=value).ref

        names, boxes = [], []
        for name, digits in entries.items():
            names.append([stored(np.array([[ord(letter)] for letter in name], np.uint16))])
            box = refs.create_group(str(len(refs)))
            boxes.append([box.ref])
            for key in KEYS:
                if len(digits[key]) == 1:
                    box.create_dataset(key, data=[[float(digits[key][0])]])
                else:
                    references = [[stored([[float(value)]])] for value in digits[key]]
                    box.create_dataset(key, data=references, dtype=h5py.ref_dtype)
        struct.create_dataset("name", data=names, dtype=h5py.ref_dtype)
        struct.create_dataset("bbox", data=boxes, dtype=h5py.ref_dtype)
    with file.open("r+b") as content:
        content.write(b"MATLAB 7.3 MAT-file, Platform: PCWIN64 HDF5 schema 1.00 .".ljust(124) + b"\x00\x02IM")


WRITERS: dict[str, Callable[[Path, dict[str, Digits]], None]] = {"5": write_mat5, "7.3": write_mat73}


def write_svhn(root: Path, version: str, **splits: dict[str, Digits]) -> Path:
    for name, entries in splits.items():
        draw(root / name, entries)
        WRITERS[version](root / name / "digitStruct.mat", entries)
    return root


WRITE: dict[str, Callable[[Path], Path]] = {
    "JSON beside": write_contest,
    "JSON inside": lambda root: write_contest(root, inside=True),
    "JSON of floats": lambda root: write_contest(root, as_floats(TRAIN), as_floats(TEST)),
    "digitStruct 7.3": lambda root: write_svhn(root, "7.3", train=TRAIN, test=TEST),
    "digitStruct 5": lambda root: write_svhn(root, "5", train=TRAIN, test=TEST),
}


def as_floats(entries: dict[str, Digits]) -> dict[str, Digits]:
    return {name: {key: list(map(float, digits[key])) for key in KEYS} for name, digits in entries.items()}


@pytest.mark.parametrize("form", WRITE)
def test_each_form_is_loaded_completely(tmp_path: Path, form: str):
    street = read_street(WRITE[form](tmp_path / "street"))
    assert street.class_names == tuple("0123456789")
    assert street.photographs
    assert street.image_size == (64, 160)
    none = END
    assert street.train.labels.tolist() == [[1, 9, none], [0, none, none], [0, 0, 7], [3, 4, 2]]
    assert street.test.labels.tolist() == [[5, 6, none], [8, none, none]]
    for split in (street.train, street.test):
        assert split.images.shape == (len(split), 3, 64, 160)
        assert split.images.dtype == torch.uint8
        assert split.boxes is not None
        assert split.boxes.dtype == torch.float32
        assert split.boxes[split.labels == END].eq(0).all()


@pytest.mark.parametrize("size", [(64, 160), (32, 96), (48, 48)])
def test_the_boxes_hold_the_digits_of_the_letterboxed_images(tmp_path: Path, size: tuple[int, int]):
    street = read_street(write_contest(tmp_path), image_size=size)
    for split in (street.train, street.test):
        assert split.boxes is not None
        for image, labels, boxes in zip(split.images, split.labels, split.boxes, strict=True):
            outside = torch.ones(size, dtype=torch.bool)
            for label, (left, top, right, bottom) in zip(labels.tolist(), boxes.tolist(), strict=True):
                if label != END:  # interpolated colours reach one pixel over the edge
                    inside = image[:, ceil(top + 1) : int(bottom - 1), ceil(left + 1) : int(right - 1)].flatten(1)
                    assert (inside == torch.tensor(COLOURS[label])[:, None]).all()
                    outside[int(top - 1) : ceil(bottom + 1), int(left - 1) : ceil(right + 1)] = False
            assert (image[:, outside] == 0).all()


def test_without_a_path_it_is_in_the_data_root(data_root: Path):
    write_contest(data_root / "street")
    assert len(read_street().train) == 4


def test_without_files_the_place_and_the_sources_are_named(data_root: Path, complaint):
    with complaint(f"House numbers are not in {data_root / 'street'}", "mchar_train", "Tianchi", "data=street_demo"):
        read_street()
    with complaint("House numbers are not in", "elsewhere", "ufldl.stanford.edu", "data.path="):
        read_street("elsewhere")


@pytest.mark.parametrize("version", WRITERS)
def test_extra_is_trained_on_if_it_is_asked_for(tmp_path: Path, version: str):
    more = {"g.png": digits_at((1, 1, 1, 9, 9), (2, 12, 1, 9, 9), (3, 22, 1, 9, 9), (4, 32, 1, 9, 9))}
    write_svhn(tmp_path, version, train=TRAIN, test=TEST, extra=more)
    assert read_street(tmp_path).train.labels.shape == (4, 3)
    street = read_street(tmp_path, extra=True)
    assert street.train.labels.shape == (5, 4)
    assert street.train.labels[4].tolist() == [1, 2, 3, 4]
    assert street.test.labels.shape == (2, 4)


def test_extra_that_is_not_there_is_one_sentence(tmp_path: Path, complaint):
    with complaint("data.extra=true needs SVHN's own files", tmp_path / "contest"):
        read_street(write_contest(tmp_path / "contest"), extra=True)
    with complaint(tmp_path / "svhn" / "extra" / "digitStruct.mat", "cannot be read"):
        read_street(write_svhn(tmp_path / "svhn", "5", train=TRAIN, test=TEST), extra=True)


def test_boxes_are_clamped_to_the_photograph(tmp_path: Path):
    outside = {"a.png": digits_at((1, -5, -3, 20, 20), (2, 50, 10, 30, 99))}  # the photograph is 60 by 30
    street = read_street(write_contest(tmp_path, train=outside), image_size=(30, 60))
    assert street.train.boxes is not None
    assert street.train.boxes[0].tolist() == [[0, 0, 15, 17], [50, 10, 60, 30]]


def test_the_order_is_that_of_the_centres_and_not_of_the_left_edges(tmp_path: Path):
    nested = {"a.png": digits_at((1, 10, 5, 30, 20), (2, 12, 5, 6, 20))}
    assert read_street(write_contest(tmp_path, train=nested)).train.labels.tolist() == [[2, 1]]


@pytest.mark.parametrize("margin", [0, 0.15, 0.5, 10])
def test_crop_cuts_out_the_union_of_the_boxes_with_a_margin(tmp_path: Path, margin: float):
    street = read_street(write_contest(tmp_path), image_size=(48, 96), crop=True, margin=margin)
    assert street.train.images.shape == (4, 3, 48, 96)
    assert street.train.labels[3].tolist() == [3, 4, 2]
    assert street.train.boxes is not None
    for row, (name, digits) in enumerate(TRAIN.items()):
        photograph = np.asarray(Image.open(tmp_path / "mchar_train" / name))
        left, top = min(digits["left"]), min(digits["top"])
        right = max(map(sum, zip(digits["left"], digits["width"], strict=True)))
        bottom = max(map(sum, zip(digits["top"], digits["height"], strict=True)))
        more = margin * (right - left), margin * (bottom - top)
        left, top = max(int(np.floor(left - more[0])), 0), max(int(np.floor(top - more[1])), 0)
        cut = photograph[top : int(np.ceil(bottom + more[1])), left : int(np.ceil(right + more[0]))]
        scale = min(48 / cut.shape[0], 96 / cut.shape[1])
        boxes = street.train.boxes[row]
        inner = boxes[street.train.labels[row] != END]
        assert (inner[:, 2] - inner[:, 0]).tolist() == pytest.approx(
            [scale * width for _, width in sorted(zip(digits["left"], digits["width"], strict=True))], rel=0.03
        )
        assert inner.min() >= 0
        assert inner[:, 2].max() <= 96
        if margin == 0:  # the boxes fill the image in one direction
            width, height = inner[:, 2].max() - inner[:, 0].min(), inner[:, 3].max() - inner[:, 1].min()
            assert width == pytest.approx(96, abs=0.01) or height == pytest.approx(48, abs=0.01)


def test_images_that_a_digit_struct_lists_but_that_are_missing_are_said_once(tmp_path: Path, caplog):
    write_svhn(tmp_path, "7.3", train=TRAIN, test=TEST)
    for name in ("a.png", "c.png"):
        (tmp_path / "train" / name).unlink()
    with caplog.at_level(logging.INFO, "handwriting.data.checks"):
        for _ in range(2):
            assert read_street(tmp_path).train.labels.tolist() == [[0, END, END], [3, 4, 2]]
    (said,) = [message for message in caplog.messages if "missing" in message]
    assert f"{tmp_path / 'train' / 'digitStruct.mat'}: 2 of the 4 images that it lists are missing" in said


def test_an_image_that_a_json_lists_but_that_is_missing_is_named(tmp_path: Path, complaint):
    write_contest(tmp_path)
    (tmp_path / "mchar_val" / "f.png").unlink()
    with complaint(f"{tmp_path / 'mchar_val' / 'f.png'} does not exist, but {tmp_path / 'mchar_val.json'} lists it"):
        read_street(tmp_path)


@pytest.mark.parametrize("form", ["JSON beside", "digitStruct 5"])
def test_images_that_are_all_missing_are_one_sentence(tmp_path: Path, complaint, form: str):
    WRITE[form](tmp_path)
    for image in tmp_path.glob("*tr*/*.png"):
        image.unlink()
    with complaint("lists 4 images, and none of them is in", "unpack them there"):
        read_street(tmp_path)


def test_a_folder_that_is_missing_is_named(tmp_path: Path, complaint):
    write_contest(tmp_path)
    (tmp_path / "mchar_val").rename(tmp_path / "elsewhere")
    with complaint(f"{tmp_path / 'mchar_val'} cannot be read (No such file or directory)", "mchar_val.json"):
        read_street(tmp_path)
    (tmp_path / "mchar_val.json").unlink()
    with complaint(f"{tmp_path / 'mchar_val.json'} cannot be read"):
        read_street(tmp_path)


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "is not an image"), (b"text", "is not an image"), (None, "damaged")]
)
def test_a_picture_that_is_damaged_is_named(tmp_path: Path, complaint, content: bytes | None, word: str):
    write_contest(tmp_path)
    picture = tmp_path / "mchar_train" / "c.png"
    picture.write_bytes(picture.read_bytes()[:-40] if content is None else content)
    with complaint(picture, word):
        read_street(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("{", "is not a JSON file"),
        ("label,left", "is not a JSON file"),
        ("<html></html>", "is an HTML page"),
        ("[" * 100_000, "is not a JSON file"),
        ("[1, 2]", "must map the names of images to height, label, left, top, width, but it is a list"),
        ("{}", "lists 0 images"),
    ],
)
def test_a_json_that_is_something_else_is_one_sentence(tmp_path: Path, complaint, content: str, words: str):
    write_contest(tmp_path)
    (tmp_path / "mchar_train.json").write_text(content)
    with complaint(tmp_path / "mchar_train.json", words):
        read_street(tmp_path)


def changed(**values: Any) -> Any:
    return {key: value for key, value in (TRAIN["c.png"] | values).items() if value is not None}


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ({}, "it has no 'height'"),
        ([1, 2], "it has no 'height'"),
        (changed(label=None), "it has no 'label'"),
        (changed(width=None), "it has no 'width'"),
        (changed(left=[1, 2]), "it has 3 values of 'height', but 2 of 'left'"),
        (changed(label=[1, 2, 3, 4]), "it has 3 values of 'height', but 4 of 'label'"),
        (changed(top=8), "its 'top' is not a list of numbers, but 8"),
        (changed(top=[8, "8", 8]), "its 'top' is not a list of numbers"),
        (changed(top=[8, None, 8]), "its 'top' is not a list of numbers"),
        (changed(left=[5, float("nan"), 9]), "its 'left' is [5, nan, 9], which lies in no photograph"),
        (changed(left=[5, 10**400, 9]), "its 'left' is"),
        (changed(label=[1, 11, 3]), "the label is 11, but the digits are 0 to 9, and 10 for 0"),
        (changed(label=[1, 2, -1]), "the label is -1"),
        (changed(label=[1.5, 2, 1]), "the label is 1.5"),
        (changed(width=[6, 0, 6]), "the box of digit 2 has no area inside the photograph (left 14, top 8, width 0"),
        (changed(height=[6, 6, -6]), "the box of digit 3 has no area"),
        (changed(left=[5, 14, 90]), "the box of digit 3 has no area inside the photograph (left 90"),
        (changed(top=[-30, 8, 8]), "the box of digit 1 has no area"),
        ({key: [] for key in KEYS}, "it has no digit"),
    ],
)
@pytest.mark.parametrize("crop", [False, True])
def test_a_wrong_entry_names_the_file_and_the_image(tmp_path: Path, complaint, digits: Any, words: str, crop: bool):
    write_contest(tmp_path)
    (tmp_path / "mchar_train.json").write_text(json.dumps(TRAIN | {"c.png": digits}))
    with complaint(f"{tmp_path / 'mchar_train.json'}, image c.png: ", words):
        read_street(tmp_path, crop=crop)


@pytest.mark.parametrize("version", WRITERS)
@pytest.mark.parametrize("size", [0, 100, -300])
def test_a_truncated_digit_struct_is_one_sentence(tmp_path: Path, complaint, version: str, size: int):
    write_svhn(tmp_path, version, train=TRAIN, test=TEST)
    file = tmp_path / "train" / "digitStruct.mat"
    file.write_bytes(file.read_bytes()[:size])
    with complaint(file):
        read_street(tmp_path)


@pytest.mark.parametrize("version", WRITERS)
def test_another_mat_file_is_one_sentence(tmp_path: Path, complaint, version: str):
    file = tmp_path / "digitStruct.mat"
    if version == "5":
        scipy.io.savemat(file, {"X": np.zeros((3, 4))})
    else:
        with h5py.File(file, "w", userblock_size=512) as opened:
            opened.create_dataset("X", data=np.zeros((3, 4)))
    with complaint(f"{file} is truncated or not SVHN's digitStruct.mat"):
        read_digit_struct(file)


@pytest.mark.parametrize("version", WRITERS)
@pytest.mark.parametrize("names", [["b.png"], ["a.png"], list(TRAIN)], ids=["one digit", "one image", "several"])
def test_a_digit_struct_has_the_lists_of_the_contest(tmp_path: Path, version: str, names: list[str]):
    entries = {name: TRAIN[name] for name in names}
    WRITERS[version](tmp_path / "digitStruct.mat", entries)
    assert read_digit_struct(tmp_path / "digitStruct.mat") == entries


def test_a_digit_struct_is_read_once_until_it_changes(tmp_path: Path, monkeypatch):
    file = tmp_path / "digitStruct.mat"
    write_mat73(file, TRAIN)
    read_digit_struct(file)
    monkeypatch.setattr(digit_struct, "_read", lambda _: pytest.fail("it was read again"))
    assert read_digit_struct(file) == TRAIN
    monkeypatch.undo()
    monkeypatch.setenv("HANDWRITING_CACHE", str(tmp_path / "other"))
    write_mat73(file, TEST)
    assert read_digit_struct(file) == TEST
