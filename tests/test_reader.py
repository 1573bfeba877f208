"""The Python API: sources of every kind, blank images, and the memory that photographs need."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from handwriting.reader import Reader


def test_a_reader_takes_files_images_and_arrays(
    digits_run: Path, ten_digits: tuple[np.ndarray, list[int]], tmp_path: Path
):
    reader = Reader.load(digits_run)
    pictures, labels = ten_digits
    expected = [prediction.label for prediction in reader.read(pictures)]
    assert sum(map(int.__eq__, expected, labels)) >= 9
    with torch.inference_mode():
        assert expected == reader.trained.model(torch.from_numpy(pictures)[:, None]).argmax(1).tolist()
    files = [tmp_path / f"{number}.png" for number in range(10)]
    for picture, file in zip(pictures, files, strict=True):
        Image.fromarray(255 - picture).save(file)  # dark on white
    sources = {
        "paths": files,
        "names": map(str, files),
        "contents": [file.read_bytes() for file in files],
        "images": [Image.fromarray(picture) for picture in pictures],
        "floats": pictures / 255,
        "tensors": torch.from_numpy(pictures),
    }
    for kind, source in sources.items():
        assert [prediction.label for prediction in reader.read(source)] == expected, kind


def test_a_reading_has_the_probabilities_of_five_classes(digits_run: Path, ten_digits: tuple[np.ndarray, list[int]]):
    (prediction,) = Reader.load(digits_run).read(ten_digits[0][:1])
    assert prediction.name == str(prediction.label)
    assert len(prediction.likeliest) == 5
    assert prediction.likeliest[0] == (prediction.name, prediction.probability)
    assert sorted((value for _, value in prediction.likeliest), reverse=True) == [
        value for _, value in prediction.likeliest
    ]
    assert prediction.preprocessed is not None
    assert np.array_equal(prediction.preprocessed.image, ten_digits[0][0])


@pytest.mark.parametrize("level", [0, 0.5, 1], ids=["black", "grey", "white"])
def test_a_blank_image_of_the_model_s_size_is_not_classified(digits_run: Path, level: float, tmp_path: Path):
    blank = np.full((28, 28), level, np.float32)
    Image.fromarray(np.rint(255 * blank).astype(np.uint8)).save(tmp_path / "blank.png")
    noisy = np.clip(blank + np.random.default_rng(0).normal(0, 0.01, blank.shape), 0, 1)
    for prediction in Reader.load(digits_run).read([blank, noisy, torch.from_numpy(blank), tmp_path / "blank.png"]):
        assert "no writing was found" in prediction.error
        assert (prediction.label, prediction.probability) == (-1, 0)


PEAK = """
import resource, sys
from handwriting.reader import Reader
reader, sources = Reader.load(sys.argv[1]), sys.argv[2:]
reader.read(sources[:2])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert len(reader.read(source for source in sources)) == len(sources)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.long
def test_forty_photographs_need_no_more_memory_than_two(digits_run: Path, tmp_path: Path):
    page = np.full((3000, 4000), 230, np.uint8)  # 12 megapixels
    Image.fromarray(page).save(tmp_path / "blank.jpg")
    page[800:2200, 1900:2080] = 20
    Image.fromarray(page).save(tmp_path / "written.jpg")
    photos = [str(tmp_path / "blank.jpg"), str(tmp_path / "written.jpg")] * 20
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(digits_run), *photos], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 100  # MiB; the grey levels of the 38 others need 435


@pytest.mark.parametrize("level", [0, 20], ids=["written", "blank"])
def test_only_the_preprocessed_image_of_a_photograph_is_kept(digits_run: Path, level: int):
    reader, page = Reader.load(digits_run), np.full((600, 800), 20, np.uint8)
    page[150:450, 380:420] = level + 200 * (level == 0)
    reader.read([page])
    tracemalloc.start()
    try:
        predictions = reader.read(page.copy() for _ in range(5))
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(predictions) == 5
    assert kept < page.size / 2


def test_steps_are_kept_for_the_requested_number_of_images(digits_run: Path, ten_digits: tuple[np.ndarray, list[int]]):
    reader, large = Reader.load(digits_run), np.kron(ten_digits[0][:4], np.ones((1, 30, 30), np.uint8))
    sources = [np.zeros((50, 50)), *large]
    kept = [len(one.preprocessed.steps) if one.preprocessed else None for one in reader.read(sources, steps=2)]
    assert kept == [None, 5, 5, 0, 0]
    (prediction,) = reader.read(large[:1], steps=1)
    assert prediction.preprocessed is not None
    assert (
        max(prediction.preprocessed.steps["original"].shape) == 400
    )  # at the working size, not at the size of the file
    assert reader.read(sources)[1].preprocessed.steps == {}  # type: ignore[union-attr]
