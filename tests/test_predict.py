"""Classification of image files from the command line; a file that cannot be read does not affect the others."""

import csv
import io
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from handwriting.data.digits import read_digits
from handwriting.inference.preprocess import open_image, preprocess
from handwriting.predict import main as predict
from handwriting.reader import Reader


@pytest.fixture(scope="module")
def run(digits_run: Path) -> Path:
    return digits_run


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, list[int]]:
    """Ten images of the test set, uint8 (10, 28, 28), and their labels."""
    test = read_digits().test
    return test.images[:10, 0].numpy(), test.labels[:10].tolist()


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        predict([str(argument) for argument in arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_a_reader_takes_files_images_and_arrays(run: Path, images: tuple[np.ndarray, list[int]], tmp_path: Path):
    reader = Reader.load(run)
    pictures, labels = images
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


def test_a_reading_has_the_probabilities_of_five_classes(run: Path, images: tuple[np.ndarray, list[int]]):
    (prediction,) = Reader.load(run).read(images[0][:1])
    assert prediction.name == str(prediction.label)
    assert len(prediction.likeliest) == 5
    assert prediction.likeliest[0] == (prediction.name, prediction.probability)
    probabilities = [value for _, value in prediction.likeliest]
    assert sorted(probabilities, reverse=True) == probabilities
    assert prediction.preprocessed is not None
    assert np.array_equal(prediction.preprocessed.image, images[0][0])


def test_the_command_classifies_a_folder_and_writes_the_predictions(
    run: Path, images: tuple[np.ndarray, list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, picture in enumerate(images[0][:3]):
        large = Image.fromarray(255 - picture).resize((140, 140), Image.Resampling.BICUBIC)
        large.save(folder / f"{number}.jpg")
    (folder / "notes.txt").write_text("not an image")
    written = {name: tmp_path / f"{name}.{end}" for name, end in (("csv", "csv"), ("json", "json"), ("figure", "png"))}
    more = [word for name, file in written.items() for word in (f"--{name}", file)]
    assert call(run, folder, *more, "--steps", tmp_path / "steps.pdf") == 0
    rows = list(csv.DictReader(io.StringIO(written["csv"].read_text())))
    assert [Path(row["file"]).name for row in rows] == ["0.jpg", "1.jpg", "2.jpg"]
    assert [row["reading"] for row in rows] == [str(label) for label in images[1][:3]]
    records = json.loads(written["json"].read_text())
    assert [len(record["likeliest"]) for record in records] == [5, 5, 5]
    assert written["figure"].read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "steps.pdf").read_bytes().startswith(b"%PDF")
    assert "2.jpg" in capsys.readouterr().out


def test_an_unreadable_file_is_a_line_and_the_others_are_classified(
    run: Path, images: tuple[np.ndarray, list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
):
    monkeypatch.setenv("COLUMNS", "300")
    Image.fromarray(images[0][0]).save(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    Image.new("L", (90, 90), 255).save(tmp_path / "empty.png")
    assert call(run, tmp_path, tmp_path / "missing.png") == 1
    lines = capsys.readouterr().out.splitlines()
    reasons = {
        name: next(line for line in lines if name in line) for name in ("good", "text", "cut", "empty", "missing")
    }
    assert "error" not in reasons["good"]
    assert "is not an image that can be read" in reasons["text"]
    assert "damaged" in reasons["cut"]
    assert "no writing was found" in reasons["empty"]
    assert "No such file" in reasons["missing"]
    assert call(run, tmp_path / "empty.png", tmp_path / "text.png") == 1  # also if none could be read


@pytest.mark.parametrize("level", [0, 0.5, 1], ids=["black", "grey", "white"])
def test_a_blank_image_of_the_model_s_size_is_not_classified(run: Path, level: float, tmp_path: Path):
    blank = np.full((28, 28), level, np.float32)
    Image.fromarray(np.rint(255 * blank).astype(np.uint8)).save(tmp_path / "blank.png")
    noisy = np.clip(blank + np.random.default_rng(0).normal(0, 0.01, blank.shape), 0, 1)
    for prediction in Reader.load(run).read([blank, noisy, torch.from_numpy(blank), tmp_path / "blank.png"]):
        assert "no writing was found" in prediction.error
        assert (prediction.label, prediction.probability) == (-1, 0)


def test_patterns_and_standard_input(
    run: Path, images: tuple[np.ndarray, list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for number in (1, 2):
        Image.fromarray(images[0][number]).save(tmp_path / f"scan{number}.png")
    content = (tmp_path / "scan1.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert call(run, tmp_path / "scan?.png", "-", "--json", tmp_path / "all.json") == 0
    predictions = [record["reading"] for record in json.loads((tmp_path / "all.json").read_text())]
    assert len(predictions) == 3
    assert predictions[2] == predictions[0]


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
def test_forty_photographs_need_no_more_memory_than_two(run: Path, tmp_path: Path):
    page = np.full((3000, 4000), 230, np.uint8)  # 12 megapixels
    Image.fromarray(page).save(tmp_path / "blank.jpg")
    page[800:2200, 1900:2080] = 20
    Image.fromarray(page).save(tmp_path / "written.jpg")
    photos = [str(tmp_path / "blank.jpg"), str(tmp_path / "written.jpg")] * 20
    done = subprocess.run([sys.executable, "-c", PEAK, str(run), *photos], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 100  # MiB; the grey levels of the 38 others need 435


@pytest.mark.parametrize("level", [0, 20], ids=["written", "blank"])
def test_only_the_preprocessed_image_of_a_photograph_is_kept(run: Path, level: int):
    reader, page = Reader.load(run), np.full((600, 800), 20, np.uint8)
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


def test_steps_are_kept_for_the_requested_number_of_images(run: Path, images: tuple[np.ndarray, list[int]]):
    reader, large = Reader.load(run), np.kron(images[0][:4], np.ones((1, 30, 30), np.uint8))
    sources = [np.zeros((50, 50)), *large]
    kept = [len(one.preprocessed.steps) if one.preprocessed else None for one in reader.read(sources, steps=2)]
    assert kept == [None, 5, 5, 0, 0]
    (prediction,) = reader.read(large[:1], steps=1)
    assert prediction.preprocessed is not None
    assert max(prediction.preprocessed.steps["original"].shape) == 400  # the working size, not that of the file
    assert reader.read(sources)[1].preprocessed.steps == {}  # type: ignore[union-attr]


def test_a_large_jpeg_is_preprocessed_like_a_png(tmp_path: Path):
    y, x = np.mgrid[0:2400, 0:3200]
    page = np.clip(180 + x / 80 - y / 60 + np.random.default_rng(0).normal(0, 5, x.shape), 0, 255)
    page[700:1800, 1500:1640] = 30
    page[1300:1430, 1500:2100] = 30
    results = []
    for file in ("page.png", "page.jpg"):
        Image.fromarray(page.astype(np.uint8)).convert("RGB").save(tmp_path / file, quality=90, compress_level=1)
        results.append(preprocess(open_image(tmp_path / file), (28, 28), {"size": 20.0, "stroke": 2.5}).image)
    assert np.abs(results[0].astype(int) - results[1]).max() <= 12
    assert np.corrcoef(results[0].ravel(), results[1].ravel())[0, 1] > 0.999


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing*.png"], "No file matches"),
        (["."], "holds no images"),
        (["missing.png", "--figure", "a.txt"], "a.txt must end in .png or .pdf"),
        (["missing.png", "--figure", "a.png"], "No image could be read"),
        (["missing.png", "--csv", "/dev/null/a.csv"], "/dev/null cannot be read or written"),
    ],
)
def test_bad_input_is_one_sentence(
    run: Path, arguments: list[str], sentence: str, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert call(run, *arguments) == 2
    errors = capsys.readouterr().err
    assert sentence in errors
    assert len(errors.splitlines()) == 1


def test_several_views_are_averaged(
    run: Path, images: tuple[np.ndarray, list[int]], capsys: pytest.CaptureFixture[str]
):
    reader = Reader.load(run)
    alone, seen = reader.read(images[0]), reader.read(images[0], views=8, augment="affine")
    assert len(seen) == len(alone)
    assert all(a.probability != b.probability for a, b in zip(alone, seen, strict=True))
    again = reader.read(images[0], views=8, augment="affine")
    assert [prediction.probability for prediction in again] == [prediction.probability for prediction in seen]
    with pytest.raises(SystemExit) as stop:
        predict([str(run), str(run / "augment.png"), "--views", "3"])
    assert stop.value.code == 1  # no such file
    capsys.readouterr()
    Image.fromarray(images[0][0]).save(run / "digit.png")
    assert call(run, run / "digit.png", "--views", "3") == 2
    assert "tta.views=3 is more than the 1 that this augmentation makes" in capsys.readouterr().err
    assert call(run, run / "digit.png", "--views", "3", "--augment", "affine") == 0
