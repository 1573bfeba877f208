"""A model trained on real MNIST for seconds classifies digits in unusual image formats, and is evaluated."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from handwriting.data.characters import read_characters
from handwriting.data.mnist import read_mnist
from handwriting.inference.preprocess import open_image, preprocess

pytestmark = pytest.mark.real_data


def page(
    digit: np.ndarray,
    size: tuple[int, int],
    side: int,
    corner: tuple[int, int],
    foreground: float,
    background: np.ndarray,
):
    """Return grey levels: a digit enlarged to ``side`` pixels, in ``foreground`` on a background."""
    large = np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC), float) / 255
    written = np.zeros(size)
    written[corner[0] : corner[0] + side, corner[1] : corner[1] + side] = large
    return background * (1 - written) + foreground * written


def save(digit: np.ndarray, kind: str, path: Path) -> Path:
    """Write a digit, uint8 (28, 28), as a file of some kind."""
    path, exif = path.with_suffix(".jpg" if kind == "rotated" else ".png"), Image.Exif()
    if kind == "photograph":
        y, x = np.mgrid[0:200, 0:300]
        noise = np.random.default_rng(0).normal(0, 4, (200, 300))
        levels = page(digit, (200, 300), 140, (30, 90), 45, 150 + x / 6 - y / 5) + noise
    elif kind == "dark on white":
        levels = 255.0 - digit
    elif kind == "white on black":
        levels = page(digit, (100, 100), 80, (10, 10), 255, np.zeros((100, 100)))
    elif kind == "rotated":
        levels = np.rot90(page(digit, (120, 160), 90, (10, 40), 20, np.full((120, 160), 240.0)))
        exif[0x0112] = 6
    elif kind == "transparent":
        alpha = page(digit, (90, 90), 84, (3, 3), 255, np.zeros((90, 90)))
        blue = np.stack([np.zeros_like(alpha), np.zeros_like(alpha), np.full_like(alpha, 120), alpha], -1)
        Image.fromarray(blue.astype(np.uint8)).save(path)
        return path
    elif kind == "one bit":
        levels = np.where(page(digit, (64, 64), 56, (4, 4), 0, np.full((64, 64), 255.0)) > 127, 255.0, 0.0)
        Image.fromarray(levels.astype(np.uint8)).convert("1").save(path)
        return path
    else:
        deep = page(digit, (80, 80), 70, (5, 5), 9000, np.full((80, 80), 60000.0))
        Image.fromarray(deep.astype(np.uint16)).save(path)
        return path
    Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8)).save(path, exif=exif)
    return path


KINDS = ["photograph", "dark on white", "white on black", "rotated", "transparent", "one bit", "sixteen bits"]


def test_the_first_twenty_test_digits_in_unusual_formats_are_classified(
    command, real_data_folder: Path, tmp_path: Path
):
    if not (real_data_folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"{real_data_folder} holds no MNIST/raw")
    data = {"HANDWRITING_DATA": str(real_data_folder)}
    assert command("handwriting.run", "experiment=mnist_fast", **data).returncode == 0
    run = tmp_path / "outputs" / "mnist_fast" / "default"
    accuracy = json.loads((run / "result.json").read_text())["metrics"]["test/acc"]
    assert accuracy > 0.988

    test = read_mnist(str(real_data_folder)).test
    (tmp_path / "scans").mkdir()
    for number in range(20):
        save(test.images[number, 0].numpy(), KINDS[number % len(KINDS)], tmp_path / "scans" / f"{number:02d}.png")
    assert command("handwriting.predict", str(run), "scans", "--csv", "read.csv").returncode == 0
    read = pd.read_csv(tmp_path / "read.csv")["prediction"].tolist()
    assert sum(map(int.__eq__, read, test.labels[:20].tolist())) >= 19

    check_evaluation_and_export(command, run, data)


def test_test_images_of_the_model_s_size_keep_their_pixels(real_data_folder: Path, tmp_path: Path):
    sets = []
    if (real_data_folder / "MNIST" / "raw").is_dir():
        sets.append(read_mnist(str(real_data_folder)).test.images[::10, 0])
    if (real_data_folder / "characters" / "characters.mat").is_file():
        sets.append(255 - read_characters(real_data_folder / "characters" / "characters.mat").test.images[::2, 0])
    if not sets:
        pytest.skip(f"{real_data_folder} holds neither MNIST/raw nor characters/characters.mat")
    for images in sets:
        for number, image in enumerate(images.numpy()):
            Image.fromarray(255 - image if number % 2 else image).save(tmp_path / "image.png")
            preprocessed = preprocess(open_image(tmp_path / "image.png"), (28, 28), {"size": 20.0, "stroke": 2.5})
            assert np.array_equal(preprocessed.image, image), number


def test_a_model_of_characters_is_evaluated_and_exported(command, real_data_folder: Path, tmp_path: Path):
    if not (real_data_folder / "characters").is_dir():
        pytest.skip(f"{real_data_folder} holds no characters")
    data = {"HANDWRITING_DATA": str(real_data_folder)}
    net = ["model.branches=1", "model.shared=0", "model.widths=[16,32,64]", "trainer.max_epochs=2"]
    done = command("handwriting.run", "experiment=characters", "data.redundant=merge", "name=few", *net, **data)
    assert done.returncode == 0
    (result,) = tmp_path.glob("outputs/few/*/result.json")
    check_evaluation_and_export(command, result.parent, data)


def check_evaluation_and_export(command, run: Path, data: dict[str, str]) -> None:
    """Check that evaluation and test count the same correct images, and that the ONNX file has the same predictions."""
    done = command("handwriting.evaluate", str(run), **data)
    assert done.returncode == 0, done.stderr
    record = json.loads((run / "evaluation" / "test" / "evaluation.json").read_text())
    (scores,) = record["models"].values()
    accuracy = json.loads((run / "result.json").read_text())["metrics"]["test/acc"]
    assert round(record["images"] * scores["acc"]) == round(record["images"] * accuracy)
    done = command("handwriting.export", str(run), "--onnx", str(run / "net.onnx"), **data)
    assert done.returncode == 0, done.stderr
    assert "same predictions as the model on 200 test images" in done.stdout
