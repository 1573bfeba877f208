"""Preprocessing: drawings of the same strokes on all kinds of paper become the same image."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from handwriting.data.digits import read_digits
from handwriting.data.photographs import letterbox, to_colour
from handwriting.inference.preprocess import (
    fit_photograph,
    measure_foreground,
    open_image,
    preprocess,
    to_grey,
)
from handwriting.utils.errors import UserError

FOREGROUND = {"size": 20.0, "stroke": 2.5}
SIZE = (28, 28)
SEVEN = [(0.1, 0.05), (0.9, 0.05), (0.4, 0.95)]


def draw(
    height: int, width: int, pen: float, box: tuple[float, float, float, float], foreground: float, background: float
):
    """Return grey levels of a 7 within ``box`` (left, top, right, bottom) in pixels, drawn four times as large."""
    large = Image.new("L", (4 * width, 4 * height), round(255 * background))
    left, top, right, bottom = box
    points = [(4 * (left + x * (right - left)), 4 * (top + y * (bottom - top))) for x, y in SEVEN]
    canvas = ImageDraw.Draw(large)
    canvas.line(points, fill=round(255 * foreground), width=round(4 * pen), joint="curve")
    for x, y in points:
        canvas.ellipse([x - 2 * pen, y - 2 * pen, x + 2 * pen, y + 2 * pen], fill=round(255 * foreground))
    return np.asarray(large.resize((width, height), Image.Resampling.BOX), float) / 255


def shade(page: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[0 : page.shape[0], 0 : page.shape[1]]
    light = 0.75 + 0.25 * x / page.shape[1] - 0.2 * y / page.shape[0]
    return np.clip(page * light + np.random.default_rng(0).normal(0, 0.015, page.shape), 0, 1)


PLAIN = draw(100, 100, 10, (20, 15, 75, 85), 1, 0)
PAPERS = {
    "bright on black": PLAIN,
    "dark on white": 1 - PLAIN,
    "grey on grey": 0.7 - 0.2 * PLAIN,
    "a photograph with a gradient": shade(draw(200, 300, 14, (150, 60, 227, 158), 0.2, 0.8)),
    "a thin pen": draw(200, 300, 3, (150, 60, 227, 158), 0.1, 0.95),
    "a small scan": draw(40, 36, 4, (8, 6, 30, 34), 0, 1),
    "a large photograph": shade(draw(900, 1200, 60, (300, 200, 740, 760), 0.15, 0.9)),
    "one bit": (draw(64, 64, 7, (10, 8, 48, 56), 0, 1) > 0.5).astype(float),
}


@pytest.mark.parametrize("paper", PAPERS)
def test_every_paper_gives_the_same_image(paper: str):
    expected = preprocess(PLAIN, SIZE, FOREGROUND).image / 255
    preprocessed = preprocess(PAPERS[paper], SIZE, FOREGROUND)
    image = preprocessed.image / 255
    assert image.shape == SIZE
    rows, columns = np.nonzero(image > 0.3)
    assert abs(max(np.ptp(rows), np.ptp(columns)) + 1 - FOREGROUND["size"]) <= 1
    assert ndimage.center_of_mass(image) == pytest.approx((13.5, 13.5), abs=0.6)
    # Centred to whole pixels: the same image may be one pixel off.
    shifted = [np.roll(image, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    assert max(np.corrcoef(each.ravel(), expected.ravel())[0, 1] for each in shifted) > 0.93
    assert list(preprocessed.steps)[-1] == "size and stroke width of the training images"


def test_dust_is_removed():
    dusty = PAPERS["dark on white"].copy()
    dusty[2:4, 2:4] = 0
    dusty[95:97, 90:92] = 0
    clean = preprocess(PAPERS["dark on white"], SIZE, FOREGROUND).image
    assert np.array_equal(preprocess(dusty, SIZE, FOREGROUND).image, clean)


def test_an_image_of_the_model_s_size_is_only_inverted():
    image = np.random.default_rng(0).integers(0, 90, SIZE) / 255
    image[10:18, 10:18] = 1
    expected = np.rint(255 * image).astype(np.uint8)
    assert np.array_equal(preprocess(image, SIZE, FOREGROUND).image, expected)
    assert np.array_equal(preprocess(1 - image, SIZE, FOREGROUND).image, expected)


@pytest.mark.parametrize(
    "empty",
    [np.zeros((50, 60)), np.ones((50, 60)), 0.5 + np.random.default_rng(0).normal(0, 0.02, (80, 80)), np.ones((1, 1))],
    ids=["black", "white", "noise", "one pixel"],
)
def test_an_empty_image_is_refused(empty: np.ndarray):
    with pytest.raises(UserError, match="no writing was found"):
        preprocess(empty, SIZE, FOREGROUND)


@pytest.mark.parametrize("size", [SIZE, (32, 48), (100, 90)], ids=["the model's size", "another", "larger"])
@pytest.mark.parametrize("level", [0.0, 0.02, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.004, 0.02, 0.06])
def test_a_blank_image_of_any_size_is_refused(size: tuple[int, int], level: float, noise: float):
    for seed in range(5):
        blank = np.clip(level + np.random.default_rng(seed).normal(0, noise, size), 0, 1)
        with pytest.raises(UserError, match="no writing was found"):
            preprocess(blank, SIZE, FOREGROUND)


def test_each_bundled_digit_of_the_model_s_size_keeps_its_pixels(tmp_path: Path):
    for number, digit in enumerate(read_digits().test.images[:200, 0].numpy()):
        for name, levels in (("bright", digit), ("dark", 255 - digit)):
            file = tmp_path / f"{number}_{name}.png"
            Image.fromarray(levels).save(file)
            assert np.array_equal(preprocess(open_image(file), SIZE, FOREGROUND).image, digit)


def strokes(kind: str, colour: tuple[int, int, int], foreground: np.ndarray) -> Image.Image:
    """Strokes of one colour on transparency, from their alpha (H, W) of 0…1, as a kind of PNG."""
    alpha = np.rint(255 * foreground).astype(np.uint8)
    image = Image.fromarray(np.dstack([*(np.full_like(alpha, level) for level in colour), alpha]))
    if kind == "P":
        pens = Image.fromarray((foreground > 0.5).astype(np.uint8)).convert("P")
        pens.putpalette([200, 100, 50, *colour])
        pens.info["transparency"] = 0
        return pens
    return image.convert(kind)


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("colour", [(255, 255, 255), (255, 240, 90), (0, 0, 0), (0, 0, 140)])
@pytest.mark.parametrize("side", [28, 100], ids=["the model's size", "larger"])
def test_strokes_on_a_transparent_background_are_found_in_every_colour(
    kind: str, colour: tuple[int, int, int], side: int
):
    foreground = draw(side, side, 0.1 * side, (0.2 * side, 0.15 * side, 0.75 * side, 0.85 * side), 1, 0)
    expected = preprocess(foreground if kind != "P" else (foreground > 0.5).astype(float), SIZE, FOREGROUND).image / 255
    file = io.BytesIO(content_of(strokes(kind, colour, foreground)))
    found = preprocess(open_image(file), SIZE, FOREGROUND).image / 255
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
    assert found.max() > 0.8


def test_transparent_corners_or_margins_of_a_page_become_white():
    page = np.full((100, 100, 4), 255, np.uint8)
    page[30:70, 48:53, :3] = 20
    for transparent in (np.s_[:4, :4], np.s_[:, :10], np.s_[:20, :]):
        cut = page.copy()
        cut[transparent] = (0, 0, 0, 0)
        assert np.array_equal(to_grey(Image.fromarray(cut)), to_grey(Image.fromarray(page)))
    for blank in (np.zeros((28, 28, 4), np.uint8), np.zeros((90, 90, 4), np.uint8)):
        with pytest.raises(UserError, match="no writing was found"):
            preprocess(to_grey(Image.fromarray(blank)), SIZE, FOREGROUND)


@pytest.mark.parametrize("grey", [np.zeros((3, 4, 5)), np.full((30, 30), np.nan), np.zeros((0, 5))])
def test_an_array_that_is_not_an_image_is_refused(grey: np.ndarray):
    with pytest.raises(UserError, match="grey levels"):
        preprocess(grey, SIZE, FOREGROUND)


def as_mode(mode: str) -> Image.Image:
    levels = np.rint(255 * PAPERS["dark on white"]).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(levels.astype(np.uint16) * 257)
    if mode == "RGBA":  # foreground only, on transparency
        clear = np.zeros((*levels.shape, 4), np.uint8)
        clear[..., 3] = 255 - levels
        return Image.fromarray(clear)
    return Image.fromarray(levels).convert(mode)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "I;16", "F", "CMYK"])
def test_every_mode_of_an_image_has_the_same_grey_levels(mode: str):
    assert to_grey(as_mode(mode)) == pytest.approx(PAPERS["dark on white"], abs=0.02)


def test_an_image_that_was_rotated_by_its_camera_is_opened_upright():
    picture = Image.fromarray(np.array([[0, 80, 255]], np.uint8))
    rotated, notes, file = picture.rotate(90, expand=True), Image.Exif(), io.BytesIO()
    notes[0x0112] = 6
    rotated.save(file, "PNG", exif=notes)
    file.seek(0)
    assert open_image(file) == pytest.approx(np.array([[0, 80, 255]]) / 255)


def content_of(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP"])
def test_a_damaged_image_is_one_sentence(kind: str):
    whole = content_of(Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8)), kind)
    for length in (0, 1, 10, len(whole) // 2):
        with pytest.raises(UserError, match=r"^it .*(is not an image|is damaged)"):
            open_image(io.BytesIO(whole[:length]), "it")


def test_a_huge_image_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("handwriting.data.photographs.MOST_PIXELS", 99)
    with pytest.raises(UserError, match="10×10 pixels"):
        open_image(io.BytesIO(content_of(Image.new("L", (10, 10)))))


def test_the_foreground_of_a_data_set_is_measured():
    images = np.zeros((20, 1, 28, 28), np.uint8)
    images[:10, 0, 4:24, 12:15] = 255  # a stroke of 20 by 3
    images[10:, 0, 10:13, 4:24] = 255
    foreground = measure_foreground(torch.from_numpy(images))
    assert foreground["size"] == 20
    assert foreground["stroke"] == pytest.approx(
        3, rel=0.25
    )  # the outline of a bar counts its ends, and pi / 4 of its sides
    assert measure_foreground(torch.zeros(3, 1, 28, 28, dtype=torch.uint8)) == {"size": 20.0, "stroke": 2.5}


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


RED, GREY = Image.new("RGB", (5, 4), (255, 0, 0)), Image.new("L", (5, 4), 51)


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (RED, (255, 0, 0)),
        (RED.convert("RGBA"), (255, 0, 0)),
        (RED.convert("CMYK"), (255, 0, 0)),
        (RED.quantize(), (255, 0, 0)),
        (GREY, (51, 51, 51)),
        (GREY.convert("LA"), (51, 51, 51)),
        (GREY.convert("F"), (51, 51, 51)),
        (Image.fromarray(np.full((4, 5), 51 * 257, np.uint16)), (51, 51, 51)),
        (Image.new("1", (5, 4), 1), (255, 255, 255)),
    ],
    ids=lambda one: getattr(one, "mode", ""),
)
def test_an_image_of_every_mode_has_its_colours(image: Image.Image, colour: tuple[int, int, int]):
    assert to_colour(image).dtype == np.uint8
    assert np.array_equal(to_colour(image), np.tile(np.array(colour), (4, 5, 1)))


def test_transparent_pixels_of_a_photograph_are_white():
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    image.putpixel((0, 0), (10, 20, 30, 0))
    assert to_colour(image).tolist() == [[[255, 255, 255], [10, 20, 30]]]


@pytest.mark.parametrize("shape", [(300, 900), (12, 12), (1000, 30)])
def test_a_photograph_is_fitted_in_colour_or_grey(shape: tuple[int, int]):
    photograph = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    fitted = letterbox(photograph, (32, 48))[0]
    colour, grey = (fit_photograph(photograph, (32, 48), channels) for channels in (3, 1))
    assert np.array_equal(colour.image, fitted)
    assert np.array_equal(grey.image, np.asarray(Image.fromarray(fitted).convert("L")))
    assert [step.ndim for step in grey.steps.values()] == [3, 3]
    assert max(grey.steps["original"].shape) == min(max(shape), 400)
