"""Prediction of several characters in photographs: odd pictures, boxes, files, the submission of a contest."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from scipy import ndimage

from handwriting.inference.checkpoints import Trained
from handwriting.models.sequence_model import Outputs, SequenceModel, SequenceRecognizer, Transcript
from handwriting.predict import main as predict
from handwriting.reader import Reader

SIZE = (64, 160)
LEVEL = 20  # a digit is a block of LEVEL times as much grey, on white


class Blocks(SequenceModel):
    """Finds the blocks that ``drawn`` draws, exactly: what is predicted depends on the preprocessing alone."""

    locates = True

    def forward(self, images: torch.Tensor) -> Outputs:
        return {"grey": 255 * images.mean(1)}

    def decode(self, outputs: Outputs) -> list[Transcript]:
        return [self.find(grey) for grey in outputs["grey"].numpy()]

    def find(self, grey: np.ndarray) -> Transcript:
        pieces, _ = ndimage.label(grey < 218)  # type: ignore[misc]
        found = [piece for piece in ndimage.find_objects(pieces) if grey[piece].size > 3]
        found.sort(key=lambda piece: piece[1].start + piece[1].stop)
        digits = tuple(min(round(float(grey[piece].min()) / LEVEL), 9) for piece in found)
        boxes = tuple((columns.start, rows.start, columns.stop, rows.stop) for rows, columns in found)
        return Transcript(digits, 0.9 ** len(digits), (0.9,) * len(digits), boxes)


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    """A reader with Blocks, which is also what the commands load."""
    model, names = SequenceRecognizer(Blocks()).eval(), tuple("0123456789")
    nothing = np.zeros((0, *SIZE), np.uint8)
    trained = Trained(Path("blocks.ckpt"), model, {}, names, (), SIZE, 3, True, nothing, {})
    monkeypatch.setattr("handwriting.reader.find_checkpoint", lambda place: place)
    monkeypatch.setattr("handwriting.reader.load_trained", lambda path, trust: trained)
    return Reader(trained)


def drawn(number: str, width: int, height: int, left: int = 0, top: int = 0, size: int = 0) -> Image.Image:
    """A number on white, as blocks of ``size`` pixels and half as wide, from (left, top)."""
    image, size = Image.new("RGB", (width, height), "white"), size or height // 2
    for place, digit in enumerate(number):
        x, y = left + size // 2 + place * size, top + size // 2
        ImageDraw.Draw(image).rectangle((x, y, x + size // 2 - 1, y + size - 1), (LEVEL * int(digit),) * 3)
    return image


def blocks_of(number: str, left: int, top: int, size: int) -> list[tuple[int, int, int, int]]:
    """The boxes of what ``drawn`` draws."""
    corners = [(left + size // 2 + place * size, top + size // 2) for place in range(len(number))]
    return [(x, y, x + size // 2, y + size) for x, y in corners]


def content(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(image: Image.Image) -> bytes:
    """A photograph that was taken with the camera on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees clockwise
    return content(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)


def transparent(image: Image.Image) -> Image.Image:
    cut = image.convert("RGBA")
    cut.putalpha(image.convert("L").point(lambda level: 0 if level == 255 else 255))
    return cut


def three_numbers() -> Image.Image:
    whole = Image.new("RGB", (600, 240), "white")
    for place, number in enumerate(("12", "34", "56")):
        whole.paste(drawn(number, 200, 80), (200 * place, 80 * place))
    return whole


NUMBER = drawn("1907", 400, 160)
GREY16 = Image.fromarray(np.asarray(NUMBER.convert("L")).astype(np.uint16) * 257)
ODD: dict[str, tuple[bytes, str]] = {  # the content of a file, and the number in it
    "12_pixels_high.png": (content(drawn("19", 40, 12)), "19"),
    "3000_pixels_wide.png": (content(drawn("1907", 3000, 600)), "1907"),
    "narrow_and_tall.png": (content(drawn("4", 300, 900, top=200, size=200)), "4"),
    "wide_and_low.png": (content(drawn("4", 3000, 40, left=1000)), ""),
    "one_pixel.png": (content(Image.new("RGB", (1, 1), "white")), ""),
    "12_megapixels.jpg": (content(drawn("1907", 4000, 3000, size=700), "JPEG"), "1907"),
    "grey.png": (content(NUMBER.convert("L")), "1907"),
    "grey_16_bits.png": (content(GREY16), "1907"),
    "black_and_white.png": (content(drawn("000", 400, 160).convert("1")), "000"),
    "palette.gif": (content(NUMBER, "GIF"), "1907"),
    "transparent.png": (content(transparent(NUMBER)), "1907"),
    "grey_and_transparent.png": (content(transparent(NUMBER).convert("LA")), "1907"),
    "cmyk.jpg": (content(NUMBER.convert("CMYK"), "JPEG", quality=95), "1907"),
    "exif_rotated.png": (turned(NUMBER), "1907"),
    "webp.webp": (content(NUMBER, "WEBP", lossless=True), "1907"),
    "tiff.tif": (content(NUMBER, "TIFF"), "1907"),
    "bitmap.bmp": (content(NUMBER, "BMP"), "1907"),
    "another_ending.png": (content(NUMBER, "JPEG", quality=95), "1907"),
    "three_numbers.png": (content(three_numbers()), "123456"),
    "leading_zeros.png": (content(drawn("0071", 400, 160)), "0071"),
    "blank.png": (content(Image.new("RGB", (300, 200), "white")), ""),
}
UNREADABLE = {
    "empty.png": (b"", "is not an image that can be read"),
    "text.png": (b"no image", "is not an image that can be read"),
    "truncated.png": (content(NUMBER)[:200], "is damaged"),
    "truncated.jpg": (content(NUMBER, "JPEG")[:700], "is damaged"),
    "too_large.png": (content(Image.new("1", (10_000, 6_000))), "the maximum is"),
}


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        predict([str(argument) for argument in arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All odd pictures."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name, (data, _) in (ODD | UNREADABLE).items():
        (folder / name).write_bytes(data)
    (folder / "folder.png").mkdir()
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_odd_pictures_are_predicted_or_have_one_sentence(
    reader: Reader, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert call("blocks", folder, folder / "missing.png", "--csv", tmp_path / "a.csv") == 1
    rows = {Path(row["file"]).name: row for row in csv.DictReader((tmp_path / "a.csv").open())}
    assert len(rows) == len(ODD) + len(UNREADABLE) + 2
    assert {name: rows[name]["prediction"] for name in ODD} == {name: number for name, (_, number) in ODD.items()}
    assert not any(rows[name]["error"] for name in ODD)
    reasons = {name: reason for name, (_, reason) in UNREADABLE.items()}
    for name, reason in (reasons | {"folder.png": "Is a directory", "missing.png": "No such file"}).items():
        assert reason in rows[name]["error"]
        assert rows[name]["error"].startswith(str(folder / name))
        assert rows[name]["error"].count(". ") == 0
        assert rows[name]["prediction"] == rows[name]["probability"] == ""
    output, errors = capsys.readouterr()
    assert "Traceback" not in output + errors
    assert "no character" in output


def test_a_submission_has_a_row_for_each_image_of_the_folder(
    reader: Reader, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert call("blocks", folder, "--submission", tmp_path / "a" / "submission.csv") == 1
    lines = (tmp_path / "a" / "submission.csv").read_text().splitlines()
    expected = {name: number for name, (_, number) in ODD.items()} | dict.fromkeys([*UNREADABLE, "folder.png"], "")
    assert lines == ["file_name,file_code", *(f"{name},{expected[name]}" for name in sorted(expected))]
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == sum(not number for number in expected.values())
    assert all(line.endswith(" Its code in the submission is empty.") for line in errors)
    (blank,) = [line for line in errors if "blank.png" in line]
    assert blank == f"{folder / 'blank.png'}: no character was found. Its code in the submission is empty."


def test_a_submission_names_each_file_once(reader: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        NUMBER.save(tmp_path / name / "1.png")
    assert call("blocks", tmp_path / "a", tmp_path / "b", "--submission", tmp_path / "s.csv") == 2
    said = "2 images are called 1.png: a submission has one row for each file name.\n"
    assert capsys.readouterr().err == said
    assert not (tmp_path / "s.csv").exists()


def test_a_model_of_single_characters_submits_one_character(
    digits_run: Path, ten_digits: tuple[np.ndarray, list[int]], tmp_path: Path
):
    for number, picture in enumerate(ten_digits[0][:3]):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    expected = [one.name for one in Reader.load(digits_run).read(sorted(tmp_path.glob("*.png")))]
    assert call(digits_run, tmp_path, "--submission", tmp_path / "s.csv") == 0
    assert (tmp_path / "s.csv").read_text().splitlines()[1:] == [f"{n}.png,{name}" for n, name in enumerate(expected)]


@pytest.mark.parametrize(("width", "height", "left", "top", "size"), [(900, 300, 200, 50, 80), (300, 400, 30, 100, 50)])
def test_boxes_are_in_pixels_of_the_photograph(
    reader: Reader, tmp_path: Path, width: int, height: int, left: int, top: int, size: int
):
    image = drawn("1907", width, height, left, top, size)
    image.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(turned(image))
    for source in (tmp_path / "a.png", tmp_path / "b.png", (tmp_path / "a.png").read_bytes(), image, np.asarray(image)):
        (prediction,) = reader.read([source])
        assert (prediction.name, prediction.label) == ("1907", -1)
        assert prediction.probability == pytest.approx(0.9**4)
        assert prediction.characters
        assert [(one.name, one.probability) for one in prediction.characters] == [(digit, 0.9) for digit in "1907"]
        pixel = max(width / SIZE[1], height / SIZE[0])  # of the model's input
        for one, true in zip(prediction.characters, blocks_of("1907", left, top, size), strict=True):
            assert one.box == pytest.approx(true, abs=pixel)


def test_boxes_end_at_the_edges_of_the_photograph(reader: Reader):
    image = Image.new("RGB", (100, 200), (20, 20, 20))  # its edges are repeated to the left and right
    (prediction,) = reader.read([image])
    assert prediction.characters
    assert [one.box for one in prediction.characters] == [(0, 0, 100, 200)]


def test_json_has_the_characters_with_their_boxes(reader: Reader, tmp_path: Path):
    drawn("42", 320, 128, 40, 20, 40).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    assert call("blocks", tmp_path, "--json", tmp_path / "a.json") == 1
    good, bad = json.loads((tmp_path / "a.json").read_text())
    assert (good["prediction"], good["probability"], good["error"]) == ("42", 0.81, "")
    assert [one["prediction"] for one in good["characters"]] == ["4", "2"]
    assert good["characters"][0]["box"] == pytest.approx(blocks_of("42", 40, 20, 40)[0], abs=2)
    assert (bad["prediction"], bad["probability"], bad["characters"]) == ("", None, [])
    assert "likeliest" not in good
    assert "likeliest" not in bad


def test_figures_have_the_photographs_with_boxes_and_texts(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn("42", 800, 320, 100, 50, 100).save(tmp_path / "a.png")
    Image.new("RGB", (50, 90), "white").save(tmp_path / "b.png")
    found: dict[str, Sequence[Any]] = {}

    def keep(name: str) -> Callable[..., Figure]:
        return lambda *arguments: found.update({name: arguments}) or Figure()

    for name in ("draw_predictions", "draw_steps"):
        monkeypatch.setattr(f"handwriting.plots.images.{name}", keep(name))
    assert call("blocks", tmp_path, "--figure", tmp_path / "f.png", "--steps", tmp_path / "s.pdf") == 0
    images, true, predicted, sure, title, boxes = found["draw_predictions"]
    assert images.shape == (2, 160, 400, 3)
    assert (list(true), list(predicted)) == (["", ""], ["42", "no character"])
    assert list(sure) == pytest.approx([0.81, 1])
    assert title == "Photographs and predictions"
    assert [len(some) for some in boxes] == [2, 0]
    assert boxes[0] == pytest.approx(np.array(blocks_of("42", 100, 50, 100)) / 2, abs=2)
    left, top, right, bottom = np.rint(boxes[0][0]).astype(int)
    assert images[0, top + 3 : bottom - 3, left + 3 : right - 3] == pytest.approx(80, abs=2)
    rows, framed = found["draw_steps"]
    assert list(rows) == ["a.png: 42 81.0%", "b.png: no character 100.0%"]
    assert list(rows["a.png: 42 81.0%"]) == ["original", "fitted", "input of the model"]
    assert framed["a.png: 42 81.0%"] == pytest.approx(np.array(blocks_of("42", 100, 50, 100)) / 5, abs=1)


def test_views_are_merged_by_the_reader_and_the_command(street_runs: dict[str, Path], tmp_path: Path):
    run = street_runs["seed=0"]
    images = [drawn("42", 320, 128), drawn("1907", 200, 128)]
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    reader = Reader.load(run)
    alone, seen = reader.read(images), reader.read(images, views=4, augment="scene_nudge")
    assert all(one.probability != other.probability for one, other in zip(alone, seen, strict=True))
    assert call(run, tmp_path, "--views", 4, "--augment", "scene_nudge", "--csv", tmp_path / "a.csv") == 0
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert [row["prediction"] for row in rows] == [one.name for one in seen]
    assert [float(row["probability"]) for row in rows] == pytest.approx([one.probability for one in seen], abs=1e-6)
    assert all(one.characters is not None and not any(c.box for c in one.characters) for one in seen)


def test_a_checkpoint_predicts_the_images_of_its_data_set(street_runs: dict[str, Path], tmp_path: Path):
    from handwriting.data.dataset import pictures, texts
    from handwriting.data.street_demo import read_street_demo

    train = read_street_demo((32, 80), 40, 40).train
    found = Reader.load(street_runs["detector"]).read(pictures(train.images))
    assert [one.name for one in found] == texts(train.labels, "0123456789")  # which it knows by heart
    for one, true in zip(found, train.boxes, strict=True):  # type: ignore[arg-type]
        assert one.characters
        boxes = np.array([character.box for character in one.characters])
        assert np.abs(boxes - true[: len(boxes)].numpy()).max() < 8
