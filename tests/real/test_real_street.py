"""House numbers of the contest and both forms of SVHN, as given."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from handwriting.data import DataModule
from handwriting.data.dataset import END, HandwritingSet, LabelledImages
from handwriting.data.digit_struct import KEYS, read_digit_struct
from handwriting.data.photographs import fit_to
from handwriting.data.street import read_street
from handwriting.data.svhn import FILES, read_svhn

pytestmark = pytest.mark.real_data

SPLITS = {"train": 39, "test": 40, "extra": 40}  # images that each digitStruct.mat lists; three of them are there


@pytest.fixture(scope="module")
def street_folder(real_data_folder: Path) -> Path:
    folder = real_data_folder / "street"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    return folder


@pytest.fixture(scope="module")
def svhn_folder(real_data_folder: Path) -> Path:
    folder = real_data_folder / "SVHN"
    if not (folder / "format1").is_dir():
        pytest.skip(f"{folder / 'format1'} does not exist")
    return folder


@pytest.fixture(scope="module")
def street(street_folder: Path) -> HandwritingSet:
    return read_street(street_folder)


def boxes_of(split: LabelledImages) -> torch.Tensor:
    assert split.boxes is not None
    return split.boxes


def test_there_are_9028_and_1984_numbers_of_one_to_five_digits(street):
    assert street.train.images.shape == (9028, 3, 64, 160)
    assert street.test.images.shape == (1984, 3, 64, 160)
    assert (street.train.labels != END).sum(1).bincount().tolist() == [0, 1624, 5617, 1628, 158, 1]
    assert (street.test.labels != END).sum(1).bincount().tolist() == [0, 356, 1294, 315, 19]
    for split in (street.train, street.test):
        assert split.labels.unique().tolist() == [END, *range(10)]


@pytest.mark.parametrize(("split", "name"), [("train", "mchar_train"), ("test", "mchar_val")])
def test_labels_and_boxes_are_those_of_the_json(street, street_folder, split, name):
    ours: LabelledImages = getattr(street, split)
    entries = json.loads((street_folder / f"{name}.json").read_text())
    assert len(entries) == len(ours)
    clamped = 0
    for (image, digits), labels, boxes in zip(entries.items(), ours.labels, boxes_of(ours), strict=True):
        width, height = Image.open(street_folder / name / image).size
        sides = [digits[key] for key in ("left", "top", "width", "height")]
        found = [
            (label % 10, [max(left, 0), max(top, 0), min(left + wide, width), min(top + high, height)])
            for label, left, top, wide, high in zip(digits["label"], *sides, strict=True)
        ]
        found.sort(key=lambda digit: digit[1][0] + digit[1][2])  # one above the other: in the order of the file
        count = len(found)
        assert labels.tolist() == [label for label, _ in found] + [END] * (len(labels) - count)
        corners = np.array([box for _, box in found])
        assert fit_to((height, width), (64, 160)).to_photograph(boxes[:count]) == pytest.approx(corners, abs=0.01)
        clamped += min(sides[0] + sides[1]) < 0
    assert (clamped > 0) == (split == "train")  # no box of the others begins outside


def test_boxes_are_inside_the_images(street):
    for split in (street.train, street.test):
        there = split.labels != END
        left, top, right, bottom = boxes_of(split)[there].T
        assert min(left.min(), top.min()) >= 0
        assert right.max() <= 160
        assert bottom.max() <= 64
        assert (right > left).all()
        assert (bottom > top).all()
        assert boxes_of(split)[~there].eq(0).all()
        middles = torch.where(there, boxes_of(split)[..., 0] + boxes_of(split)[..., 2], torch.inf)
        assert (middles.diff() > -1e-4)[there[:, 1:]].all()


def test_the_validation_set_is_stratified_by_length(street, street_folder):
    data = DataModule("street", lambda: street)
    lengths = (data.val.labels != END).sum(1).bincount(minlength=6)
    assert (len(data.train), len(data.val), len(data.test)) == (8125, 903, 1984)
    assert np.abs(lengths[1:4].numpy() - np.array([162.4, 561.7, 162.8])).max() < 1
    assert lengths[4] + lengths[5] == 16
    assert (data.is_sequence, data.photographs, data.channels, data.max_length) == (True, True, 3, 5)
    assert data.image_size == (64, 160)


def test_images_cropped_by_their_boxes_hold_all_digits(street, street_folder):
    cropped = read_street(street_folder, image_size=(64, 96), crop=True)
    assert torch.equal(cropped.train.labels, street.train.labels)
    for split in (cropped.train, cropped.test):
        assert split.images.shape[1:] == (3, 64, 96)
        there = (split.labels != END)[..., None]
        first = torch.where(there, boxes_of(split), torch.inf).amin(1)
        last = torch.where(there, boxes_of(split), -torch.inf).amax(1)
        sides = torch.stack([last[:, 2] - first[:, 0], last[:, 3] - first[:, 1]], 1) / torch.tensor([96, 64])
        # The margin of 15 % leaves 1/1.3 for the digits in one direction, more at the edge of a photograph.
        assert sides.amax(1).min() > 0.6
        assert sides.max() <= 1


@pytest.mark.parametrize("split", SPLITS)
def test_a_digit_struct_agrees_with_the_one_of_version_5_and_with_h5py(svhn_folder, split):
    file = svhn_folder / "format1" / split / "digitStruct.mat"
    found = read_digit_struct(file)
    assert list(found) == [f"{number}.png" for number in range(1, SPLITS[split] + 1)]
    with h5py.File(file) as opened:
        for number, entry in enumerate(found.values()):
            box = opened[opened["digitStruct/bbox"][number, 0]]  # type: ignore[index]
            for key in KEYS:
                values = box[key][()].ravel()  # type: ignore[index]
                assert entry[key] == [opened[one][0, 0] if values.dtype == object else one for one in values]  # type: ignore[index]
    if split == "train":
        fifth = read_digit_struct(svhn_folder / "format1" / "digitStruct_matlab5.mat")
        assert len(fifth) == 33_402
        assert {name: fifth[name] for name in found} == found
        lengths = np.bincount([len(entry["label"]) for entry in fifth.values()])
        assert lengths.tolist() == [0, 5137, 18130, 8691, 1434, 9, 1]  # published


def test_a_digit_struct_of_version_5_is_that_of_scipy(svhn_folder):
    file = svhn_folder / "format1" / "digitStruct_matlab5.mat"
    listed = scipy.io.loadmat(file, squeeze_me=True, struct_as_record=False)["digitStruct"]
    found = read_digit_struct(file)
    for struct in listed[::50]:
        for key in KEYS:
            assert found[struct.name][key] == [float(getattr(box, key)) for box in np.atleast_1d(struct.bbox)]


def test_svhn_after_a_partial_download_is_loaded_in_both_versions(svhn_folder, tmp_path):
    whole = read_street(svhn_folder / "format1", extra=True)
    assert whole.train.labels.tolist()[:3] == [[1, 9, END], [2, 3, END], [2, 5, END]]
    assert whole.test.labels.tolist() == [[5, END, END], [2, 1, 0], [6, END, END]]
    assert (len(whole.train), len(whole.test)) == (6, 3)
    shutil.copytree(
        svhn_folder / "format1", tmp_path / "5", copy_function=lambda source, target: Path(target).symlink_to(source)
    )
    (tmp_path / "5" / "train").chmod(0o755)
    (tmp_path / "5" / "train" / "digitStruct.mat").unlink()
    (tmp_path / "5" / "train" / "digitStruct.mat").symlink_to(svhn_folder / "format1" / "digitStruct_matlab5.mat")
    fifth = read_street(tmp_path / "5", extra=True)
    for split, other in ((whole.train, fifth.train), (whole.test, fifth.test)):
        assert torch.equal(split.images, other.images)
        assert torch.equal(split.labels, other.labels)
        assert torch.equal(boxes_of(split), boxes_of(other))


def test_the_parts_of_svhn_are_loaded_as_by_scipy(svhn_folder):
    svhn = read_svhn(svhn_folder)
    assert (len(svhn.train), len(svhn.test)) == (4000, 1500)
    for split, name in zip((svhn.train, svhn.test), FILES, strict=True):
        stored = scipy.io.loadmat(svhn_folder / name)
        assert np.array_equal(split.images.permute(2, 3, 1, 0).numpy(), stored["X"])
        assert np.array_equal(split.labels.numpy(), stored["y"][:, 0] % 10)
        assert split.labels.unique().tolist() == list(range(10))
