import gzip
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
import torch
from torchvision.datasets import mnist as torchvision_mnist

from handwriting.data import DataModule
from handwriting.data.characters import read_characters
from handwriting.data.dataset import HandwritingSet, LabelledImages
from handwriting.data.mnist import FILES, read_mnist
from handwriting.data.mnist_csv import read_csv_images
from handwriting.predict import main as predict
from handwriting.utils.errors import UserError

pytestmark = pytest.mark.real_data

# counted in the published label files, as many papers print them
TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
HEADER = b"label," + b",".join(b"pixel%d" % pixel for pixel in range(784)) + b"\n"


@pytest.fixture(scope="module")
def mnist(real_data_folder: Path) -> HandwritingSet:
    if not (real_data_folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"{real_data_folder} holds no MNIST/raw")
    return read_mnist(real_data_folder)


@pytest.fixture(scope="module")
def characters_file(real_data_folder: Path) -> Path:
    file = real_data_folder / "characters" / "characters.mat"
    if not file.is_file():
        pytest.skip(f"{file} does not exist")
    return file


def as_csv(part: LabelledImages) -> bytes:
    cells = np.array([f"{level}," for level in range(256)], dtype="S4")
    rows = np.hstack([part.labels[:, None].numpy().astype(np.uint8), part.images.flatten(1).numpy()])
    return b"".join(row.tobytes().replace(b"\0", b"")[:-1] + b"\n" for row in map(cells.__getitem__, rows))


def test_mnist_is_whole(mnist):
    assert mnist.train.images.shape == (60_000, 1, 28, 28)
    assert mnist.test.images.shape == (10_000, 1, 28, 28)
    assert mnist.train.labels.bincount().tolist() == TRAIN_COUNTS
    assert mnist.test.labels.bincount().tolist() == TEST_COUNTS


def test_mnist_keeps_its_pixels(mnist, caplog):
    data = DataModule("mnist", lambda: mnist, val_fraction=0)
    assert torch.equal(data.train.images, mnist.train.images)
    assert torch.equal(data.test.images, mnist.test.images)
    assert not caplog.messages


def test_mnist_inverted_is_the_same_as_mnist(mnist):
    train, test = (LabelledImages(255 - part.images, part.labels) for part in (mnist.train, mnist.test))
    data = DataModule("inverted mnist", lambda: HandwritingSet(train, test, mnist.class_names), val_fraction=0)
    assert torch.equal(data.train.images, mnist.train.images)
    assert torch.equal(data.test.images, mnist.test.images)


def test_mnist_is_loaded_from_its_gz_files(mnist, real_data_folder, tmp_path):
    for name in (*FILES["train"], *FILES["test"]):
        content = (real_data_folder / "MNIST" / "raw" / name).read_bytes()
        (tmp_path / f"{name.replace('-idx', '.idx')}.gz").write_bytes(gzip.compress(content, 1))
    assert torch.equal(read_mnist(tmp_path).train.images, mnist.train.images)


def test_mnist_from_openml_is_loaded_with_the_label_last(mnist, tmp_path):
    rows = [b",".join([*row.split(b",")[1:], row.split(b",")[0]]) for row in as_csv(mnist.test).splitlines()]
    (tmp_path / "headerless.csv").write_bytes(b"\n".join(rows))
    with pytest.raises(UserError, match="the labels seem to be in the last column"):
        read_csv_images(tmp_path / "headerless.csv")
    header = b",".join(b"pixel%d" % pixel for pixel in range(1, 785)) + b",class"
    (tmp_path / "openml.csv").write_bytes(b"\n".join([header, *rows]))
    digits = read_csv_images(tmp_path / "openml.csv")
    assert torch.equal(digits.labels, mnist.test.labels)
    assert torch.equal(digits.images, mnist.test.images)


def test_mnist_has_its_known_mean_and_deviation(mnist):
    data = DataModule("mnist", lambda: mnist)
    data.train = mnist.train  # all of it, including the validation set
    assert data.mean_and_std() == pytest.approx((0.13066, 0.30811), abs=5e-6)


@pytest.mark.parametrize("part", ["train", "test"])
def test_mnist_equals_that_of_torchvision(mnist, real_data_folder, part):
    images, labels = (str(real_data_folder / "MNIST" / "raw" / name) for name in FILES[part])
    assert torch.equal(getattr(mnist, part).images.squeeze(1), torchvision_mnist.read_image_file(images))
    assert torch.equal(getattr(mnist, part).labels, torchvision_mnist.read_label_file(labels))


def test_the_validation_set_of_mnist_is_stratified(mnist):
    data = DataModule("mnist", lambda: mnist)
    assert (len(data.train), len(data.val)) == (54_000, 6_000)
    shares = np.array(TRAIN_COUNTS) / 10
    assert np.abs(data.val.labels.bincount().numpy() - shares).max() < 1


@pytest.mark.parametrize("header", [b"", HEADER], ids=["without header", "with header"])
def test_no_row_of_the_training_csv_is_lost(mnist, tmp_path, header):
    (tmp_path / "mnist_train.csv").write_bytes(header + as_csv(mnist.train))
    digits = read_csv_images(tmp_path / "mnist_train.csv")
    assert len(digits) == 60_000  # the CCNet report's reader found 59,999
    assert torch.equal(digits.labels, mnist.train.labels)
    assert torch.equal(digits.images, mnist.train.images)


def test_the_test_csv_is_loaded_as_by_pandas(mnist, tmp_path):
    (tmp_path / "mnist_test.csv").write_bytes(as_csv(mnist.test))
    digits, table = read_csv_images(tmp_path / "mnist_test.csv"), pd.read_csv(tmp_path / "mnist_test.csv", header=None)
    assert table.shape == (10_000, 785)
    assert np.array_equal(digits.labels.numpy(), table[0])
    assert np.array_equal(digits.images.flatten(1).numpy(), table.drop(columns=0))
    assert torch.equal(digits.images, mnist.test.images)


def test_a_submission_to_kaggle_has_a_row_for_each_image_and_97_percent_are_right(
    mnist: HandwritingSet, tmp_path: Path, run_in: Callable[..., int]
):
    (tmp_path / "train.csv").write_bytes(HEADER + as_csv(mnist.train[torch.arange(12_000)]))
    rows = [line.partition(b",")[2] for line in (HEADER + as_csv(mnist.test)).splitlines()]
    (tmp_path / "test.csv").write_bytes(b"\n".join(rows))
    quick = ("model=quick_net", "optim=adam", "optim.lr=0.01", "scheduler=onecycle", "trainer.max_epochs=2")
    assert run_in(tmp_path, "data=kaggle_digits", "data.path=.", "data.batch_size=128", *quick) == 0
    (run,) = (path.parent for path in tmp_path.glob("outputs/kaggle_digits/*/result.json"))
    begun = time.monotonic()
    with pytest.raises(SystemExit) as stop:
        predict([str(run), str(tmp_path / "test.csv"), "--submission", str(tmp_path / "submission.csv")])
    assert stop.value.code == 0
    assert time.monotonic() - begun < 30  # takes 2 to 5 s
    assert (tmp_path / "submission.csv").read_text().startswith("ImageId,Label\n1,7\n")
    table = pd.read_csv(tmp_path / "submission.csv")
    assert table["ImageId"].tolist() == list(range(1, 10_001))
    assert np.mean(table["Label"].to_numpy() == mnist.test.labels.numpy()) >= 0.97


def test_there_are_200_characters_of_15_and_5_images(characters_file):
    characters = read_characters(characters_file)
    assert characters.train.labels.bincount().tolist() == [15] * 200
    assert characters.test.labels.bincount().tolist() == [5] * 200
    assert len(characters.class_names) == 200
    assert characters.image_size == (28, 28)


def test_characters_are_bright_on_black(characters_file):
    characters = DataModule("characters", read_characters, path=str(characters_file), val_fraction=0)
    for part in (characters.train, characters.test):
        assert part.images.flatten(1).median(dim=1).values.max() == 0  # most of every image is background
        assert part.images.flatten(1).amax(dim=1).min() > 100  # and each has foreground
    stored = scipy.io.loadmat(characters_file)["train"]
    assert np.array_equal(characters.train.images[:, 0].numpy(), 255 - stored.reshape(-1, 28, 28))


def test_no_two_characters_are_the_same_image(characters_file):
    characters = read_characters(characters_file)
    images = torch.cat([characters.train.images, characters.test.images]).numpy()
    assert len({hashlib.sha256(image.tobytes()).digest() for image in images}) == 4000


def test_characters_hold_out_three_of_each_class(characters_file):
    data = DataModule("characters", read_characters, path=str(characters_file), val_fraction=0.2)
    assert data.val.labels.bincount().tolist() == [3] * 200
    assert data.train.labels.bincount().tolist() == [12] * 200
