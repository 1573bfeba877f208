"""The builder on a synthetic Omniglot of three alphabets."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from handwriting.data import omniglot
from handwriting.data.characters import main, read_characters, write_characters

ALPHABETS = {"Sanskrit": (1, 2), "Made_Up": (1, 2, 3), "Tagalog": (7, 8)}  # Tagalog 8 is not in the published set
RECIPE = {(row["alphabet"], row["character"]): row for row in json.loads(omniglot.RECIPE.read_text("utf-8"))["classes"]}

# fixed here: it must be the same in every process and on every machine
ORDER_OF_MADE_UP_1 = [7, 12, 3, 6, 16, 14, 2, 15, 18, 5, 17, 8, 4, 11, 10, 19, 9, 13, 20, 1]


def draw(path: Path, mode: str, rng: np.random.Generator) -> None:
    """Write strokes, dark on white, as a 105×105 image of mode 1 (black and white) or L (grey)."""
    page = np.full((105, 105), 255, np.uint8)
    strokes = np.kron(rng.random((17, 17)) < 0.3, np.ones((5, 5))).astype(bool)
    page[10:95, 10:95][strokes] = 0 if mode == "1" else rng.integers(0, 120, np.count_nonzero(strokes))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(page).convert(mode).save(path)


@pytest.fixture
def tree(data_root: Path, monkeypatch) -> Path:
    """The folder of the alphabets; what is not in it cannot be downloaded."""

    def fail(*_args: object, **_kwargs: object) -> None:
        pytest.fail("a download was tried")

    monkeypatch.setattr("torchvision.datasets.Omniglot", fail)
    rng = np.random.default_rng(0)
    for alphabet, numbers in ALPHABETS.items():
        half = "images_evaluation" if alphabet == "Made_Up" else "images_background"
        for number in numbers:
            for drawer in range(1, 21):
                name = f"character{number:02d}/{700 + number:04d}_{drawer:02d}.png"
                draw(data_root / "omniglot-py" / half / alphabet / name, "1" if number % 2 else "L", rng)
    return data_root / "omniglot-py"


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Build a set of alphabets and return what scipy loads from it: the keys train, test, names and glyphs."""

    def run(*alphabets: str, train: int = 15, name: str = "built.mat") -> dict[str, np.ndarray]:
        main(["--out", str(tmp_path / name), "--alphabets", *alphabets, "--train", str(train)])
        return scipy.io.loadmat(tmp_path / name)

    return run


def as_pillow_has_it(tree: Path, alphabet: str, number: int, drawer: int) -> np.ndarray:
    (path,) = tree.glob(f"*/{alphabet}/character{number:02d}/*_{drawer:02d}.png")
    return np.asarray(Image.open(path).convert("L").resize((28, 28), Image.Resampling.BILINEAR))


def drawers_of(tree: Path, images: np.ndarray, alphabet: str, number: int) -> list[int]:
    """Return the drawer of each image; every image must be one of the twenty drawings."""
    drawn = {as_pillow_has_it(tree, alphabet, number, drawer).tobytes(): drawer for drawer in range(1, 21)}
    assert len(drawn) == 20
    return [drawn[image.tobytes()] for image in images]


def test_a_published_class_has_its_images_where_the_recipe_says(tree, build):
    built = build("Sanskrit", "Tagalog")
    assert (built["train"].shape, built["test"].shape) == ((4, 15, 28, 28), (4, 5, 28, 28))
    for index, key in enumerate([("Sanskrit", 1), ("Sanskrit", 2), ("Tagalog", 7)]):
        images = np.concatenate([built["train"][index], built["test"][index]])
        for image, drawer in zip(images, RECIPE[key]["drawers"], strict=True):
            assert np.array_equal(image, as_pillow_has_it(tree, *key, drawer))


def test_classes_come_in_the_order_of_the_alphabets_as_given(tree, build, tmp_path):
    build("Tagalog", "Made_Up", "Sanskrit", "Tagalog")  # an alphabet given twice is used once
    characters = read_characters(tmp_path / "built.mat")
    wanted = [("Tagalog", 7), ("Tagalog", 8), *(("Made_Up", n) for n in (1, 2, 3)), ("Sanskrit", 1), ("Sanskrit", 2)]
    assert characters.class_names == tuple(f"{alphabet.replace('_', ' ')} {number}" for alphabet, number in wanted)
    assert characters.glyphs == tuple(RECIPE[key]["glyph"] if key in RECIPE else "" for key in wanted)
    assert characters.glyphs[0] == "ᜄ"


def test_the_drawers_of_other_classes_are_shuffled_always_the_same(tree, build):
    first, again = build("Made_Up", "Tagalog"), build("Made_Up", name="again.mat")
    orders = []
    for index in range(3):
        images = np.concatenate([first["train"][index], first["test"][index]])
        assert np.array_equal(images, np.concatenate([again["train"][index], again["test"][index]]))
        orders.append(drawers_of(tree, images, "Made_Up", index + 1))
    assert [sorted(order) for order in orders] == [list(range(1, 21))] * 3
    assert len({tuple(order) for order in [*orders, range(1, 21)]}) == 4
    assert orders[0] == ORDER_OF_MADE_UP_1


def test_the_user_may_ask_for_fewer_training_images(tree, build, capsys, tmp_path):
    few, many = build("Sanskrit", train=3), build("Sanskrit", name="many.mat", train=19)
    assert (few["train"].shape[1], few["test"].shape[1]) == (3, 17)
    assert (many["train"].shape[1], many["test"].shape[1]) == (19, 1)
    for built in (few, many):
        images = np.concatenate([built["train"], built["test"]], axis=1)
        assert drawers_of(tree, images[0], "Sanskrit", 1) == RECIPE["Sanskrit", 1]["drawers"]
    assert capsys.readouterr().out.splitlines()[0] == (
        f"{tmp_path / 'built.mat'}: 2 classes, 3 training and 17 test images each, 28×28."
    )


def test_without_a_path_the_published_set_is_built_once_and_then_loaded(tree, data_root, tmp_path, monkeypatch):
    """The whole tree of seven alphabets: one drawing for each drawer, linked into each of the 200 folders."""
    drawings = sorted((tree / "images_background" / "Sanskrit" / "character01").glob("*.png"))
    shelf = [path.rename(tmp_path / path.name) for path in drawings]
    shutil.rmtree(tree)
    for alphabet, number in RECIPE:
        folder = tree / "images_background" / alphabet / f"character{number:02d}"
        folder.mkdir(parents=True)
        for drawer, path in enumerate(shelf, start=1):
            os.link(path, folder / f"0001_{drawer:02d}.png")
    built = read_characters()
    shrunk = [as_pillow_has_it(tree, "Sanskrit", 1, drawer) for drawer in range(1, 21)]
    wanted = np.stack([[shrunk[drawer - 1] for drawer in row["drawers"]] for row in RECIPE.values()])
    assert np.array_equal(built.train.images.numpy(), wanted[:, :15].reshape(3000, 1, 28, 28))
    assert np.array_equal(built.test.images.numpy(), wanted[:, 15:].reshape(1000, 1, 28, 28))
    assert built.class_names == tuple(f"{alphabet.replace('_', ' ')} {number}" for alphabet, number in RECIPE)
    assert built.glyphs == tuple(row["glyph"] for row in RECIPE.values())
    shutil.rmtree(tree)
    again = read_characters()
    assert np.array_equal(again.train.images.numpy(), built.train.images.numpy())
    assert (again.class_names, again.glyphs) == (built.class_names, built.glyphs)
    assert [path.name for path in data_root.glob("[!.]*")] == ["characters"]


def test_a_written_set_is_loaded_with_names_and_glyphs(tree, tmp_path):
    glyphs, drawers = ("", "é", "ᜀ", "𑀅", "ﺏ", '"', "a b"), tuple(range(20, 0, -1))
    keys = [(alphabet, number) for alphabet, numbers in ALPHABETS.items() for number in numbers]
    characters = [omniglot.Character(*key, glyph, drawers) for key, glyph in zip(keys, glyphs, strict=True)]
    write_characters(tmp_path / "deep" / "set.mat", characters, 12)
    read = read_characters(tmp_path / "deep" / "set.mat")
    assert read.class_names == tuple(f"{alphabet.replace('_', ' ')} {number}" for alphabet, number in keys)
    assert read.glyphs == glyphs
    for label, key in enumerate(keys):
        wanted = [as_pillow_has_it(tree, *key, drawer) for drawer in drawers]
        both = [part.images[part.labels == label, 0].numpy() for part in (read.train, read.test)]
        assert [len(part) for part in both] == [12, 8]
        assert np.array_equal(np.concatenate(both), np.stack(wanted))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["set.mat"]  # no temporary file is left


def test_the_recipe_is_of_200_classes_with_each_drawer_once():
    published = omniglot.published_characters()
    assert len({character.name for character in published}) == 200
    for character in published:
        row = RECIPE[character.alphabet, character.number]
        assert (list(character.drawers), character.glyph) == (row["drawers"], row["glyph"])
        assert sorted(character.drawers) == list(range(1, 21))
