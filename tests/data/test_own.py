"""A user's own data: the same digits in each layout give the same images and labels, and bad input is one sentence."""

import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from hydra.utils import instantiate
from PIL import Image
from sklearn.datasets import load_digits

from handwriting.data import DataModule
from handwriting.data.dataset import HandwritingSet
from handwriting.data.digits import read_digits
from handwriting.data.file import read_file
from handwriting.data.folder import read_folder
from handwriting.data.mnist import FILES
from handwriting.data.parquet import read_parquet
from handwriting.data.splits import split_holdout

TRAIN, TEST = slice(0, 200), slice(200, 300)
DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's first 300 digits, uint8 (300, 8, 8), sorted by label within each split, as folders list them."""
    bunch: Any = load_digits()
    images, labels = (bunch["images"][:300] * 15).astype(np.uint8), bunch["target"][:300]
    order = np.concatenate([np.argsort(labels[TRAIN], kind="stable"), 200 + np.argsort(labels[TEST], kind="stable")])
    return images[order], labels[order]


def png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "png")
    return content.getvalue()


def write_folder(root: Path, images: np.ndarray, labels: np.ndarray, names: tuple[str, ...] = DIGITS) -> Path:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = root / names[label] / f"{number:05}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(image))
    return root


def write_parquet(file: Path, images: np.ndarray, labels: Any, names: tuple[str, ...] = (), **columns: Any) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table: Any = {
        "image": [{"bytes": png(image), "path": None} for image in images],
        "label": list(map(int, labels)) if np.asarray(labels).dtype.kind in "iu" else list(labels),
    }
    made = pa.table({key: value for key, value in (table | columns).items() if value is not None})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, file)
    return file


def written_folder(root: Path, images: np.ndarray, labels: np.ndarray) -> HandwritingSet:
    for split, rows in (("train", TRAIN), ("test", TEST)):
        write_folder(root / split, images[rows], labels[rows])
    return read_folder(root)


def written_npz(root: Path, images: np.ndarray, labels: np.ndarray) -> HandwritingSet:
    train, test = ({"x": images[rows], "y": labels[rows]} for rows in (TRAIN, TEST))
    np.savez(root / "digits.npz", x_train=train["x"], y_train=train["y"], x_test=test["x"], y_test=test["y"])
    return read_file(root / "digits.npz")


def written_parquet(root: Path, images: np.ndarray, labels: np.ndarray) -> HandwritingSet:
    write_parquet(root / "data" / "train-00000-of-00002.parquet", images[:150], labels[:150])
    write_parquet(root / "data" / "train-00001-of-00002.parquet", images[150:200], labels[150:200])
    write_parquet(root / "data" / "test-00000-of-00001.parquet", images[TEST], labels[TEST])
    return read_file(root)


@pytest.mark.parametrize("write", [written_folder, written_npz, written_parquet])
def test_digits_in_each_layout_are_loaded_as_the_same_images(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray], write: Callable[..., HandwritingSet]
):
    images, labels = digits
    loaded = write(tmp_path, images, labels)
    for split, rows in ((loaded.train, TRAIN), (loaded.test, TEST)):
        assert split.images.dtype == torch.uint8
        assert np.array_equal(split.images.numpy(), images[rows][:, None])
        assert split.labels.tolist() == labels[rows].tolist()
    assert loaded.class_names == DIGITS


LAYOUTS = ["folder", "folder, split", "npz", "npz, split", "mat", "parquet", "parquet, split", "idx", "idx, transposed"]
LAYOUTS += ["kaggle"]
QUICK = ("model=mlp", "model.hidden=[16]", "optim=adam", "optim.lr=0.01", "data.batch_size=32", "trainer.max_epochs=5")


def write_layout(layout: str, root: Path, splits: dict[str, Any], write_idx: Callable[..., Path]) -> list[str]:
    """Write digits in one of LAYOUTS and return the overrides for them; ``splits`` are pairs of images and labels."""
    (images, labels), train, test = (splits[name] for name in ("whole", "train", "test"))
    if layout == "folder":
        write_folder(root, 255 - images, labels)  # dark on bright
    elif layout == "folder, split":
        write_folder(root / "train", *train)
        write_folder(root / "test", *test)
    elif layout == "npz":
        np.savez(root / "a.npz", x=images, y=labels)
    elif layout == "npz, split":
        np.savez(root / "a.npz", x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1])
    elif layout == "mat":
        scipy.io.savemat(root / "a.mat", {"X": images.transpose(1, 2, 0), "y": labels})
    elif layout == "parquet":
        write_parquet(root / "a.parquet", images, labels)
    elif layout == "parquet, split":
        write_parquet(root / "train-00000-of-00001.parquet", *train)
        write_parquet(root / "test-00000-of-00001.parquet", *test)
    elif layout.startswith("idx"):
        for split, names in FILES.items():
            pixels, numbers = splits[split]
            write_idx(root / names[0], pixels.transpose(0, 2, 1) if "transposed" in layout else pixels)
            write_idx(root / names[1], numbers)
    else:
        header = ",".join(["label", *(f"pixel{number}" for number in range(784))])
        rows = np.column_stack([labels, images.reshape(-1, 784)])
        np.savetxt(root / "train.csv", rows, "%d", ",", header=header, comments="")
    choice = {"folder": "folder", "idx": "idx", "kaggle": "kaggle_digits"}.get(layout.split(",")[0], "file")
    path = next(root.glob("a.*"), root)
    return [f"data={choice}", f"data.path={path}", *(["data.transpose=true"] if "transposed" in layout else [])]


@pytest.mark.long
def test_digits_have_the_same_accuracy_in_each_layout(
    tmp_path: Path, run_in: Callable[..., int], write_idx: Callable[..., Path]
):
    """The layouts without a test set have one split off; those with one have the same images as their test set."""
    digits = read_digits().train
    whole = digits[digits.labels[:600].argsort(stable=True)]  # as folders list them
    kept, held_out = (whole[rows.sort().values] for rows in split_holdout(whole.labels, 0.2, 0))
    named = {"whole": whole, "train": kept, "test": held_out}
    splits = {name: (split.images[:, 0].numpy(), split.labels.numpy()) for name, split in named.items()}
    found: dict[str, Any] = {}
    for number, layout in enumerate(LAYOUTS):
        root = tmp_path / str(number)
        root.mkdir()
        overrides = write_layout(layout, root, splits, write_idx)
        assert run_in(tmp_path, f"name=of{number}", *overrides, *QUICK) == 0
        (result,) = tmp_path.glob(f"outputs/of{number}/*/result.json")
        record = json.loads(result.read_text())
        found[layout] = {"images": record["images"], **record["metrics"]}
    first = found["folder"]
    assert first["images"] == {"train": 432, "val": 48, "test": 120}
    assert 0.5 < first["test/acc"] < 1
    assert found == dict.fromkeys(LAYOUTS, first)


@pytest.mark.parametrize("form", ["(N, H, W)", "(H, W, N)", "(H, W, 3, N)", "(N, 3, H, W)", "7.3"])
def test_digits_in_a_mat_file_are_all_loaded_in_some_order(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray], form: str, write_mat: Callable[..., Path]
):
    images, labels = digits
    colours = np.stack([images, images // 2, 255 - images], 1)
    expected, array = {
        "(N, H, W)": (images[:, None], images),
        "7.3": (images[:, None], images),
        "(H, W, N)": (images[:, None], images.transpose(1, 2, 0)),
        "(H, W, 3, N)": (colours, colours.transpose(2, 3, 1, 0)),
        "(N, 3, H, W)": (colours, colours),
    }[form]
    file = tmp_path / "set.mat"
    if form == "7.3":
        write_mat("7.3", train=None, test=None, X=array, y=labels[:, None])
    else:
        scipy.io.savemat(file, {"X": array, "y": labels})
    loaded = read_file(file)
    assert (len(loaded.train), len(loaded.test)) == (240, 60)
    both = torch.cat([loaded.train.images, loaded.test.images]).numpy(), [*loaded.train.labels, *loaded.test.labels]

    def rows(pixels: np.ndarray, numbers: Any) -> list[tuple[bytes, int]]:
        return sorted((image.tobytes(), int(number)) for image, number in zip(pixels, numbers, strict=True))

    assert rows(*both) == rows(expected, labels)


def test_without_a_test_set_a_stratified_one_is_split_off_by_its_seed(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]
):
    write_folder(tmp_path, *digits)
    first, again, other = (read_folder(tmp_path, test_seed=seed) for seed in (0, 0, 1))
    assert (len(first.train), len(first.test)) == (240, 60)
    assert torch.equal(first.test.images, again.test.images)
    assert not torch.equal(first.test.images, other.test.images)
    for split in (first.train, first.test):  # in the order of the folders
        assert torch.equal(split.labels, split.labels.sort().values)
    whole = torch.bincount(torch.from_numpy(digits[1]))
    assert ((first.test.labels.bincount() - whole * 0.2).abs() < 1).all()
    assert len(read_folder(tmp_path, test_fraction=0.5).test) == 150


def test_a_folder_val_is_the_validation_set(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray], complaint: Any):
    images, labels = digits
    for split, rows in (("train", slice(0, 200)), ("val", slice(200, 250)), ("test", slice(250, 300))):
        write_folder(tmp_path / split, 255 - images[rows], labels[rows])
    data = DataModule("folder", read_folder, str(tmp_path), invert=True, val_fraction=0.1)
    assert torch.equal(data.train.images[:, 0], torch.from_numpy(images[:200]))
    assert torch.equal(data.val.images[:, 0], torch.from_numpy(images[200:250][np.argsort(labels[200:250])]))
    assert len(data.val) == len(data.test) == 50
    assert len(DataModule("folder", read_folder, str(tmp_path), invert=True, limit=50).train) == 50
    with complaint("data.split=kfold makes validation sets", tmp_path):
        DataModule("folder", read_folder, str(tmp_path), split="kfold")


def test_images_of_any_mode_and_size_have_one_form(tmp_path: Path):
    white = {"L": 255, "1": 1, "P": 255, "RGB": (255, 255, 255), "RGBA": (0, 0, 0, 0), "I;16": 65535, "LA": (255, 255)}
    for mode, colour in white.items():
        for name in "ab":
            (tmp_path / name).mkdir(exist_ok=True)
            for number in range(4):
                size = 20 + number, 30
                Image.new(mode, size, colour).save(tmp_path / name / f"{mode.replace(';', '')}{number}.png")  # type: ignore
    loaded = read_folder(tmp_path)
    assert (loaded.image_size, loaded.channels) == ((32, 32), 1)
    loaded = read_folder(tmp_path, image_size=[16, 24], channels=3)
    assert (loaded.image_size, loaded.channels) == ((16, 24), 3)
    Image.new("RGB", (20, 30), "red").save(tmp_path / "a" / "red.jpg")
    assert read_folder(tmp_path).channels == 3
    assert read_folder(tmp_path, channels=1).channels == 1


def write_photographs(root: Path) -> Path:
    """Write grey images of a bright sky over dark ground, high or low, in several sizes."""
    for number in range(40):
        side = 40 + number
        image = np.full((side, side), 220 - number, np.uint8)
        image[int((0.6, 0.8)[number % 2] * side) :] = 60 + number
        file = root / ("high", "low")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(image))
    return root


@pytest.mark.parametrize("layout", ["folder", "parquet"])
def test_grey_photographs_are_not_inverted(tmp_path: Path, layout: str):
    read: Callable[..., HandwritingSet] = read_folder
    path = write_photographs(tmp_path / "photographs")
    if layout == "parquet":
        images = [np.asarray(Image.open(file)) for file in sorted(path.rglob("*.png"))]
        read, path = read_file, write_parquet(tmp_path / "a.parquet", images, [0] * 20 + [1] * 20)  # type: ignore
    writing, photographs = (
        DataModule(layout, read, str(path), val_fraction=0, photographs=given) for given in (False, True)
    )
    assert (writing.photographs, photographs.photographs) == (False, True)
    assert (writing.channels, photographs.channels) == (1, 1)
    assert torch.equal(photographs.train.images, read(path).train.images)
    assert writing.train.images[0, 0, 0, 16] < 60 < 180 < photographs.train.images[0, 0, 0, 16]


def test_colours_and_their_size_are_kept(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (20, 9, 13, 3), np.uint8)
    write_folder(tmp_path / "train", images, np.arange(20) % 2)
    write_folder(tmp_path / "test", images, np.arange(20) % 2)
    loaded = read_folder(tmp_path)
    assert np.array_equal(
        loaded.train.images.numpy(), np.concatenate([images[::2], images[1::2]]).transpose(0, 3, 1, 2)
    )


def test_classes_are_folders_in_the_order_of_names_or_numbers(tmp_path: Path):
    images, labels = np.zeros((24, 8, 8), np.uint8), np.arange(24) % 12
    write_folder(tmp_path / "numbers", images, labels, tuple(map(str, range(12))))
    assert read_folder(tmp_path / "numbers", test_fraction=0.5).class_names == tuple(map(str, range(12)))
    names = tuple(f"c{label}" for label in range(12))
    write_folder(tmp_path / "names", images, labels, names)
    (tmp_path / "names" / ".hidden").mkdir()
    (tmp_path / "names" / "notes.txt").write_text("no image")
    assert read_folder(tmp_path / "names", test_fraction=0.5).class_names == tuple(sorted(names))


def test_a_class_may_be_called_train(tmp_path: Path):
    write_folder(tmp_path, np.zeros((30, 8, 8), np.uint8), np.arange(30) % 3, ("bus", "car", "train"))
    loaded = read_folder(tmp_path)
    assert loaded.class_names == ("bus", "car", "train")
    assert (len(loaded.train), loaded.val) == (24, None)


def test_splits_of_parquet_files_are_told_by_their_names(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]):
    for name, rows in (("train", TRAIN), ("validation", slice(200, 250)), ("test", slice(250, 300))):
        write_parquet(tmp_path / f"{name}-00000-of-00001.parquet", digits[0][rows], digits[1][rows], DIGITS)
    loaded = read_file(tmp_path)
    assert loaded.val is not None
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (200, 50, 50)
    assert np.array_equal(loaded.val.images[:, 0].numpy(), digits[0][200:250])


def test_class_names_replace_those_of_the_data(tmp_path: Path, complaint: Any):
    write_folder(tmp_path, np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2)
    assert read_folder(tmp_path, class_names=["zero", 1]).class_names == ("zero", "1")
    with complaint("data.class_names has 3 names, but", "2 classes"):
        read_folder(tmp_path, class_names=["a", "b", "c"])
    with complaint("data.class_names has 'a' twice"):
        read_folder(tmp_path, class_names=["a", "a"])


def test_files_that_are_not_used_are_counted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_folder(tmp_path, np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2)
    (tmp_path / "1" / ".DS_Store").write_text("hidden")
    (tmp_path / "notes.txt").write_text("not among images")
    with caplog.at_level(logging.INFO):
        read_folder(tmp_path)
        assert "not used" not in caplog.text
        (tmp_path / "1" / "photo.heic").write_bytes(b"")
        Image.new("L", (8, 8)).save(tmp_path / "loose.png")
        for _ in range(2):
            read_folder(tmp_path)
    (said,) = (message for message in caplog.messages if "not used" in message)
    assert said == f"{tmp_path}: 2 files are not used, such as 1/photo.heic (no image, or in no class folder)."


def test_what_is_of_no_split_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for split in ("train", "test", "unlabelled"):
        write_folder(tmp_path / split, np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2)
    np.savez(tmp_path / "a.npz", **arrays(x_test=np.zeros((2, 8, 8), np.uint8)))
    with caplog.at_level(logging.INFO):
        assert len(read_folder(tmp_path).train) == 20
        assert len(read_file(tmp_path / "a.npz").test) == 4
    assert f"{tmp_path}: not used, as their names are of no split: unlabelled." in caplog.messages
    assert f"{tmp_path / 'a.npz'}: its array x_test has no labels and is not used." in caplog.messages


def make_bad_folder(root: Path, kind: str) -> Path:
    if kind == "no class":
        Image.new("L", (8, 8)).save(root / "a.png")
    elif kind == "no training set":
        write_folder(root / "test", np.zeros((2, 8, 8), np.uint8), np.arange(2))
    elif kind == "an empty class":
        write_folder(root, np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2)
        (root / "empty").mkdir()
    elif kind == "an empty split":
        write_folder(root / "train", np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2)
        (root / "val" / "0").mkdir(parents=True)
    elif kind == "no class folders":
        for split in ("train", "test"):
            (root / split).mkdir()
            Image.new("L", (8, 8)).save(root / split / "cat.0.png")
    elif kind in ("an unsorted test set", "two folders of a split"):
        write_folder(root / "train", np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2)
        (root / "test").mkdir()
        Image.new("L", (8, 8)).save(root / "test" / "1.png")
        if kind == "two folders of a split":
            write_folder(root / "testing", np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2)
    elif kind == "damaged":
        write_folder(root, np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2)
        (root / "0" / "damaged.png").write_bytes(png(np.zeros((30, 30), np.uint8))[:40])
    elif kind == "text":
        write_folder(root, np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2)
        (root / "1" / "text.png").write_text("no image")
    elif kind == "one image":
        write_folder(root, np.zeros((21, 8, 8), np.uint8), np.append(np.arange(20) % 2, 2))
    return root


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no class", ["has no folder for each class"]),
        ("no training set", ["has no folder train beside test"]),
        ("an empty class", ["the class empty has no images"]),
        ("an empty split", ["has no images of the val split"]),
        ("no class folders", ["has images but no class folders in train/", "train/CLASS"]),
        ("an unsorted test set", ["the images of the test split are in no class folder"]),
        ("two folders of a split", ["has the folders test and testing for one split: leave one of them"]),
        ("damaged", ["damaged.png"]),
        ("text", ["text.png is not an image"]),
        ("one image", ["data.test_fraction=0.2 needs two images of each class, but class 2 has only one"]),
    ],
)
def test_a_bad_folder_is_one_sentence(tmp_path: Path, complaint: Any, kind: str, words: list[str]):
    with complaint(*words):
        read_folder(make_bad_folder(tmp_path, kind))


def test_a_wrong_path_is_one_sentence(tmp_path: Path, complaint: Any):
    for read, choice in ((read_folder, "folder"), (read_file, "file")):
        with complaint(f"data={choice} needs the place of your data: add data.path="):
            read()
        with complaint(tmp_path / "absent", "does not exist"):
            read(tmp_path / "absent")
    (tmp_path / "a.npz").write_text("text")
    with complaint("a.npz is a file", "data=file"):
        read_folder(tmp_path / "a.npz")
    with complaint("is a folder without .parquet files", "data=folder"):
        read_file(tmp_path)
    (tmp_path / "a.zip").write_text("text")
    with complaint("a.zip does not end in .npz, .mat or .parquet"):
        read_file(tmp_path / "a.zip")


def test_images_that_need_too_much_memory_are_refused(tmp_path: Path, complaint: Any, monkeypatch: pytest.MonkeyPatch):
    write_folder(tmp_path, np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2)
    monkeypatch.setattr("handwriting.data.files.MAX_BYTES", 3000)
    with complaint(tmp_path, "20 images of 8×8 need 3,840 bytes, more than 3,000", "data.image_size"):
        read_folder(tmp_path)


def arrays(**changed: Any) -> dict[str, Any]:
    made = {"x_train": np.zeros((20, 8, 8), np.uint8), "y_train": np.arange(20) % 2}
    return {key: value for key, value in (made | changed).items() if value is not None}


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"y_train": np.arange(20) % 2 + 5}, ("5", "6")),
        ({"y_train": np.array(["b", "ä"] * 10)}, ("b", "ä")),
        ({"y_train": np.array([b"b", "ä".encode()] * 10)}, ("b", "ä")),
        ({"y_train": (np.arange(20) % 2 == 0)[:, None]}, ("0", "1")),
        ({"y_train": (np.arange(20) % 3).astype(float)}, ("0", "1", "2")),
        ({"x_train": None, "y_train": None, "X": np.zeros((20, 8, 8, 1)), "Y": np.arange(20) % 2}, ("0", "1")),
        ({"x_val": np.zeros((4, 8, 8), np.uint8), "y_val": np.array([0, 1, 2, 2])}, ("0", "1", "2")),
    ],
)
def test_labels_of_an_archive_name_their_classes(tmp_path: Path, changed: dict[str, Any], names: tuple[str, ...]):
    np.savez_compressed(tmp_path / "a.npz", **arrays(**changed))
    loaded = read_file(tmp_path / "a.npz")
    assert loaded.class_names == names
    assert set(loaded.train.labels.tolist()) <= set(range(len(names)))
    assert (loaded.val is None) == ("x_val" not in changed)


@pytest.mark.parametrize(
    "kind", [np.float32, np.float64, np.int64, np.uint16, "0…1", "channels last", "channels first"]
)
def test_numbers_of_any_type_are_grey_levels(tmp_path: Path, kind: Any):
    levels = np.random.default_rng(0).integers(0, 256, (20, 8, 9), np.uint8)
    stored: Any = levels if isinstance(kind, str) else levels.astype(kind)
    stored = {"0…1": levels / 255, "channels last": levels[..., None], "channels first": levels[:, None]}.get(
        kind, stored
    )
    both = {"x_train": stored, "x_test": stored, "y_test": np.arange(20) % 2}
    np.savez(tmp_path / "a.npz", **arrays(**both))
    assert np.array_equal(read_file(tmp_path / "a.npz").test.images[:, 0].numpy(), levels)


def test_class_names_for_numbers_include_classes_without_images(tmp_path: Path):
    np.savez(tmp_path / "a.npz", **arrays(y_train=np.arange(20) % 2 * 2))
    assert read_file(tmp_path / "a.npz", class_names="abc").train.labels.unique().tolist() == [0, 2]
    np.savez(tmp_path / "b.npz", **arrays(y_train=np.arange(20) % 2 + 5))
    assert read_file(tmp_path / "b.npz", class_names=["five", "six"]).class_names == ("five", "six")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"y_train": None}, ["has the arrays x_train, but x_train and y_train"]),
        ({"x_train": np.zeros((20, 64))}, ["'x_train' is float64 (20, 64), a row for each", ".reshape(-1, 8, 8)"]),
        ({"x_train": np.zeros((20, 60))}, ["'x_train' is float64 (20, 60): numbers (images, height, width)"]),
        ({"x_train": np.full((20, 8, 8), 1.01)}, ["'x_train' has values from 1.01 to 1.01"]),
        ({"x_train": np.zeros((20, 8, 8, 4))}, ["'x_train'", "1 or 3 channels"]),
        ({"x_train": np.full((20, 8, 8), np.nan)}, ["'x_train' has values from nan to nan"]),
        ({"x_train": np.full((20, 8, 8), -1)}, ["'x_train' has values from -1 to -1"]),
        ({"x_train": np.full((20, 8, 8), 256)}, ["'x_train' has values from 256 to 256"]),
        ({"x_train": np.zeros((19, 8, 8))}, ["19 images in 'x_train' but 20 labels in 'y_train'"]),
        ({"y_train": np.arange(20) + 0.5}, ["'y_train' is float64 (20,): whole numbers or texts"]),
        ({"y_train": np.zeros((20, 2))}, ["'y_train' has the shape (20, 2)", "argmax(1)"]),
        ({"y_train": np.array([{}] * 20)}, ["array of Python objects"]),
        ({"y_train": np.arange(20)}, ["data.test_fraction=0.2"]),
        (
            {"x_test": np.zeros((2, 9, 8)), "y_test": np.arange(2)},
            ["its training images are 8×8 grey but its test images 9×8 grey"],
        ),
    ],
)
def test_a_bad_archive_is_one_sentence(tmp_path: Path, complaint: Any, changed: dict[str, Any], words: list[str]):
    np.savez(tmp_path / "a.npz", **arrays(**changed))
    with complaint(*words):
        read_file(tmp_path / "a.npz")


@pytest.mark.parametrize("size", [0, 10, -30])
def test_a_truncated_archive_is_one_sentence(tmp_path: Path, complaint: Any, size: int):
    file = tmp_path / "a.npz"
    np.savez(file, **arrays())
    file.write_bytes(file.read_bytes()[:size])
    with complaint(file):
        read_file(file)


def test_an_archive_that_would_be_too_large_is_refused(tmp_path: Path, complaint: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("handwriting.data.files.MAX_BYTES", 5000)
    np.savez_compressed(tmp_path / "a.npz", **arrays(x_train=np.zeros((20, 80, 80), np.uint8)))
    with complaint("a.npz would unpack to", "more than 5,000"):
        read_file(tmp_path / "a.npz")


def test_names_of_classes_are_those_in_the_parquet_file(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]):
    file = write_parquet(tmp_path / "a.parquet", *digits, tuple("abcdefghijk"))
    loaded = read_file(file)
    assert loaded.class_names == tuple("abcdefghijk")
    assert (len(loaded.train), len(loaded.test)) == (240, 60)
    texts = write_parquet(tmp_path / "b.parquet", digits[0], [f"n{label}" for label in digits[1]])
    assert read_file(texts, image_size=[16, 16]).class_names == tuple(f"n{label}" for label in DIGITS)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"image": None}, ["has no column 'image', only label"]),
        ({"label": None}, ["has no column 'label', only image"]),
        ({"image": ["a.png"] * 4}, ["row 1 has no image bytes"]),
        ({"image": [{"bytes": b"text", "path": "a"}] * 4}, ["row 1 is not an image"]),
        ({"label": [0.5] * 4}, ["row 1: the label is 0.5"]),
        ({"label": [1, None, 1, 1]}, ["row 2: the label is None"]),
    ],
)
def test_a_bad_parquet_file_is_one_sentence(tmp_path: Path, complaint: Any, columns: dict[str, Any], words: list[str]):
    file = write_parquet(tmp_path / "a.parquet", np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2, **columns)
    with complaint(file, *words):
        read_file(file)


def test_parquet_files_that_are_too_large_together_are_refused(
    tmp_path: Path, complaint: Any, monkeypatch: pytest.MonkeyPatch
):
    for part in range(3):
        write_parquet(tmp_path / f"train-{part}.parquet", np.zeros((20, 8, 8), np.uint8), np.arange(20) % 2)
    pq: Any = sys.modules["pyarrow.parquet"]
    one = pq.ParquetFile(tmp_path / "train-0.parquet").metadata.row_group(0).total_byte_size
    monkeypatch.setattr("handwriting.data.files.MAX_BYTES", 2 * one + 1)
    with complaint(tmp_path, "would unpack to more than"):
        read_parquet(tmp_path)
    (tmp_path / "train-2.parquet").unlink()
    assert len(read_parquet(tmp_path)[0]["train"].labels) == 40


def test_a_truncated_parquet_file_is_one_sentence(tmp_path: Path, complaint: Any):
    file = write_parquet(tmp_path / "a.parquet", np.zeros((4, 8, 8), np.uint8), np.arange(4) % 2)
    file.write_bytes(file.read_bytes()[:100])
    with complaint(file, "damaged or not a parquet file"):
        read_file(file)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, complaint: Any, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with complaint("a.parquet needs pyarrow", "pip install 'handwriting[parquet]'"):
        read_file(tmp_path / "a.parquet")


def test_a_mat_file_of_another_content_is_one_sentence(tmp_path: Path, complaint: Any):
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, {"train": np.zeros((2, 3, 8, 8))})
    with complaint(file, "has no key 'X', only train", "'X' and 'y' are needed"):
        read_file(file)
    with complaint("data.channels is for .parquet"):
        read_file(file, channels=3)


def test_a_relative_path_and_settings_reach_the_loader(tmp_path: Path, digits: Any, monkeypatch: pytest.MonkeyPatch):
    write_folder(tmp_path / "mine", *digits)
    monkeypatch.chdir(tmp_path)
    target = {"_target_": "handwriting.data.folder.read_folder", "_partial_": True}
    data = instantiate(
        {"_target_": "handwriting.data.DataModule", "name": "folder", "read": target, "path": "mine", "channels": 3}
    )
    assert data.channels == 3


def test_a_validation_set_of_other_grey_levels_is_refused(tmp_path: Path, complaint: Any):
    ones = np.ones((20, 8, 8), np.uint8)
    levels = {"x_val": 200 * ones, "y_val": np.arange(20) % 2, "x_test": ones, "y_test": np.arange(20) % 2}
    np.savez(tmp_path / "a.npz", **arrays(x_train=ones, **levels))
    with complaint("training images is 1, of its test images 1, of its validation images 200"):
        DataModule("file", read_file, str(tmp_path / "a.npz"))
