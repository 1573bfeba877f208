"""The character set of the notebook, and the Omniglot that it is made of."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from omegaconf import OmegaConf
from PIL import Image

from handwriting.data.characters import main, read_characters
from handwriting.data.checks import bright_on_dark
from handwriting.data.dataset import HandwritingSet
from handwriting.data.omniglot import published_characters
from handwriting.data.variants import NOTEBOOK, expand

pytestmark = pytest.mark.real_data

SETTINGS = Path(__file__).resolve().parents[2] / "conf" / "data" / "characters.yaml"
BUILT = ("Sanskrit", "Tagalog")


@pytest.fixture(scope="module")
def folder(real_data_folder: Path) -> Path:
    folder = real_data_folder / "characters"
    for name in ("characters.mat", "labels.tsv", "omniglot_order.json"):
        if not (folder / name).is_file():
            pytest.skip(f"{folder / name} does not exist")
    return folder


@pytest.fixture(scope="module")
def characters(folder: Path) -> HandwritingSet:
    whole = read_characters(folder / "characters.mat")
    return bright_on_dark(whole, "auto", "characters")


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.tsv").open(encoding="utf-8", newline="") as file:
        return sorted(csv.DictReader(file, delimiter="\t"), key=lambda row: int(row["index"]))


@pytest.fixture(scope="module")
def built(real_data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the builder makes of the originals of two alphabets."""
    for alphabet in BUILT:
        if not (real_data_folder / "omniglot-py" / "images_background" / alphabet).is_dir():
            pytest.skip(f"{real_data_folder} holds no omniglot-py/images_background/{alphabet}")
    file = tmp_path_factory.mktemp("built") / "built.mat"
    main(["--out", str(file), "--alphabets", *BUILT])
    return file


def test_the_builder_makes_980_images_of_the_published_set_pixel_for_pixel(built, folder):
    ours, published = scipy.io.loadmat(built), scipy.io.loadmat(folder / "characters.mat")
    names = [str(name[0]) for name in ours["names"].ravel()]
    indices = [index for index, one in enumerate(published_characters()) if one.alphabet in BUILT]
    assert len(indices) == 42 + 7
    images = 0
    for index in indices:
        place = names.index(published_characters()[index].name)
        for key in ("train", "test"):
            assert np.array_equal(ours[key][place], published[key][index])
            images += len(ours[key][place])
    assert images == 980


def test_the_built_set_equals_the_published_set(built, characters):
    ours = bright_on_dark(read_characters(built), "auto", "built")
    assert len(ours.class_names) == 59
    for label, name in enumerate(ours.class_names):
        if name in characters.class_names:
            other = characters.class_names.index(name)
            assert ours.glyphs[label] == characters.glyphs[other]
            for part, whole in ((ours.train, characters.train), (ours.test, characters.test)):
                assert part.images[part.labels == label].equal(whole.images[whole.labels == other])
        else:
            assert name.startswith("Tagalog")
            assert ours.glyphs[label] == ""


def test_the_recipe_is_the_order_found_for_the_published_file(folder, rows):
    order = json.loads((folder / "omniglot_order.json").read_text(encoding="utf-8"))
    published = published_characters()
    assert [list(one.drawers) for one in published] == order["drawers"]
    assert list(dict.fromkeys(one.alphabet for one in published)) == order["alphabets"]
    assert (len(published), len(rows)) == (order["num_classes"], 200)
    for one, row in zip(published, rows, strict=True):
        assert (one.alphabet, str(one.number), one.glyph) == (row["alphabet"], row["character"], row["glyph"])


def test_names_and_glyphs_are_those_of_the_labels(characters, rows):
    assert characters.class_names == tuple(f"{row['alphabet'].replace('_', ' ')} {row['character']}" for row in rows)
    assert characters.glyphs == tuple(row["glyph"] for row in rows)
    assert characters.glyphs[0] == "ا"


@pytest.mark.parametrize(
    ("redundant", "classes", "images"), [("keep", 200, 3000), ("drop", 194, 2910), ("merge", 194, 3000)]
)
def test_redundant_removes_six_classes_or_none(folder, redundant, classes, images):
    groups = OmegaConf.load(SETTINGS).redundant_groups
    characters = read_characters(folder / "characters.mat", redundant=redundant, redundant_groups=groups)
    for part, share in ((characters.train, images), (characters.test, images // 3)):
        assert len(part) == share
        assert part.labels.unique().tolist() == list(range(classes))
    assert len(characters.class_names) == len(characters.glyphs) == classes
    if redundant == "merge":
        assert characters.train.labels.bincount().max() == 45  # three classes that are one


def as_the_notebook_has_it(image: np.ndarray, form: int, number: int) -> np.ndarray:
    """One of its seven forms, where ``number`` stands for its random number."""
    picture = Image.fromarray(image)
    if form == 0:
        return image
    if form in (3, 4):
        return np.asarray(picture.rotate(10 if form == 3 else -10))
    if form == 6:
        return np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR))[2:30, 2:30]
    small = np.pad(np.asarray(picture.resize((24, 24), Image.Resampling.BILINEAR)), 2)
    down, right = {
        1: [(5, 0), (-5, 0), (0, 5), (0, -5)],
        2: [(-5, -5), (5, 5), (5, -5), (-5, 5)],
        5: [(0, 0)] * 4,
    }[form][number % 4]
    return np.roll(small, (down, right), axis=(0, 1))


def test_a_hundred_images_have_the_pixels_of_the_notebook_in_all_seven_forms(characters):
    part = characters.train
    hundred = part[part.labels.new_tensor(range(0, 3000, 30))]
    expanded = expand(hundred, NOTEBOOK)
    assert expanded.images.shape == (700, 1, 28, 28)
    assert expanded.labels.tolist() == hundred.labels.tolist() * 7
    for form in range(7):
        for number, image in enumerate(hundred.images[:, 0].numpy()):
            wanted = as_the_notebook_has_it(image, form, number)
            assert np.array_equal(expanded.images[form * 100 + number, 0].numpy(), wanted)
