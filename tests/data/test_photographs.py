"""Photographs of every kind are opened, fitted to a size and decoded in parallel."""

import io
import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from handwriting.data import photographs
from handwriting.data.photographs import Fit, decode, fit_to, letterbox, open_photograph

fork = multiprocessing.get_context("fork")  # torch is imported already
SIZE = (64, 160)
GREYS = np.linspace(0, 255, 30 * 70).round().astype(np.uint8).reshape(30, 70)
COLOURS = np.stack([GREYS, 255 - GREYS, np.roll(GREYS, 9, 1)], axis=-1)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HANDWRITING_CACHE", str(folder))
    return folder


def file_of(image: Image.Image, kind: str = "PNG", **settings: Any) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    file.seek(0)
    return file


def rotated_by_its_camera() -> io.BytesIO:
    notes = Image.Exif()
    notes[0x0112] = 6  # to be rotated by 90 degrees clockwise
    return file_of(Image.fromarray(COLOURS).rotate(90, expand=True), exif=notes)


def half_transparent() -> Image.Image:
    image = Image.fromarray(COLOURS).convert("RGBA")
    image.putalpha(Image.fromarray(np.where(np.arange(70) < 35, 255, 0).astype(np.uint8)[None].repeat(30, 0)))
    return image


def with_a_transparent_colour() -> Image.Image:
    image = Image.fromarray((GREYS > 127).astype(np.uint8)).convert("P")
    image.putpalette([200, 10, 60, 0, 0, 0])
    image.info["transparency"] = 1
    return image


def as_grey(levels: np.ndarray) -> np.ndarray:
    return np.stack([levels] * 3, axis=-1)


OVER_WHITE = np.where(np.arange(70)[None, :, None] < 35, COLOURS, 255)
BLACK_AND_WHITE = as_grey(np.where(GREYS > 127, 255, 0))
ODD: dict[str, tuple[Callable[[], io.BytesIO], np.ndarray, int]] = {  # file, colours, tolerance
    "PNG": (lambda: file_of(Image.fromarray(COLOURS)), COLOURS, 0),
    "BMP": (lambda: file_of(Image.fromarray(COLOURS), "BMP"), COLOURS, 0),
    "TIFF": (lambda: file_of(Image.fromarray(COLOURS), "TIFF"), COLOURS, 0),
    "lossless WebP": (lambda: file_of(Image.fromarray(COLOURS), "WEBP", lossless=True), COLOURS, 0),
    "grey": (lambda: file_of(Image.fromarray(GREYS)), as_grey(GREYS), 0),
    "grey JPEG": (lambda: file_of(Image.fromarray(GREYS), "JPEG", quality=99), as_grey(GREYS), 6),
    "16 bits": (lambda: file_of(Image.fromarray(GREYS.astype(np.uint16) * 257)), as_grey(GREYS), 0),
    "floats": (lambda: file_of(Image.fromarray(GREYS.astype(np.float32) / 255), "TIFF"), as_grey(GREYS), 0),
    "one bit": (lambda: file_of(Image.fromarray(GREYS > 127)), BLACK_AND_WHITE, 0),
    "palette": (lambda: file_of(Image.fromarray(BLACK_AND_WHITE.astype(np.uint8)).quantize(2)), BLACK_AND_WHITE, 0),
    "GIF": (lambda: file_of(Image.fromarray(GREYS > 127), "GIF"), BLACK_AND_WHITE, 0),
    "CMYK": (lambda: file_of(Image.fromarray(COLOURS).convert("CMYK"), "TIFF"), COLOURS, 1),
    "RGBA, transparent": (lambda: file_of(half_transparent()), OVER_WHITE, 0),
    "grey with alpha": (
        lambda: file_of(Image.fromarray(np.stack([GREYS, GREYS * 0], -1), "LA")),
        np.full((30, 70, 3), 255),
        0,
    ),
    "a transparent colour": (
        lambda: file_of(with_a_transparent_colour()),
        np.where(GREYS[..., None] > 127, 255, np.array([200, 10, 60])),
        0,
    ),
    "rotated by its camera": (rotated_by_its_camera, COLOURS, 0),
    "12 pixels high": (lambda: file_of(Image.fromarray(COLOURS[:12])), COLOURS[:12], 0),
    "3,000 pixels wide": (
        lambda: file_of(Image.fromarray(np.tile(COLOURS, (1, 43, 1)))),
        np.tile(COLOURS, (1, 43, 1)),
        0,
    ),
    "3,000 pixels wide, 12 high": (
        lambda: file_of(Image.fromarray(np.tile(COLOURS[:12], (1, 43, 1)))),
        np.tile(COLOURS[:12], (1, 43, 1)),
        0,
    ),
    "3,000 pixels high": (
        lambda: file_of(Image.fromarray(np.tile(COLOURS, (100, 1, 1)))),
        np.tile(COLOURS, (100, 1, 1)),
        0,
    ),
    "one pixel": (lambda: file_of(Image.fromarray(COLOURS[:1, :1])), COLOURS[:1, :1], 0),
    "one pixel wide": (lambda: file_of(Image.fromarray(COLOURS[:, :1])), COLOURS[:, :1], 0),
    "all black": (lambda: file_of(Image.new("RGB", (70, 30))), COLOURS * 0, 0),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_picture_is_opened_in_its_colours_and_fitted(name: str):
    make, colours, tolerance = ODD[name]
    photograph = open_photograph(make())
    assert photograph.dtype == np.uint8
    assert photograph.shape == colours.shape
    assert np.abs(photograph.astype(int) - colours).max() <= tolerance
    image, fit = letterbox(photograph, SIZE)
    assert image.shape == (*SIZE, 3)
    assert image.dtype == np.uint8
    left, top, right, bottom = fit.to_input([0, 0, photograph.shape[1], photograph.shape[0]])[0].tolist()
    assert 0 <= left < right <= 160
    assert 0 <= top < bottom <= 64
    assert right - left == pytest.approx(160) or bottom - top == pytest.approx(64)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_an_empty_or_truncated_file_is_one_sentence_that_names_it(tmp_path: Path, complaint, kind: str):
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    whole = file_of(Image.fromarray(noise), kind).getvalue()
    for length in (0, 1, 10, len(whole) // 2):
        (tmp_path / "picture").write_bytes(whole[:length])
        with complaint(tmp_path / "picture", "is "):
            open_photograph(tmp_path / "picture")


@pytest.mark.parametrize("content", [b"no picture", b"<!DOCTYPE html><html></html>", b"\x00" * 5000, b"%PDF-1.4"])
def test_what_is_no_image_is_one_sentence(tmp_path: Path, complaint, content: bytes):
    (tmp_path / "page.png").write_bytes(content)
    with complaint(f"{tmp_path / 'page.png'} is not an image that can be read"):
        open_photograph(tmp_path / "page.png")


def test_a_file_that_is_missing_or_a_folder_is_one_sentence(tmp_path: Path, complaint):
    with complaint(f"{tmp_path / 'none.png'} cannot be read: No such file or directory"):
        open_photograph(tmp_path / "none.png")
    with complaint(f"{tmp_path} cannot be read"):
        open_photograph(tmp_path)


def test_a_huge_image_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch, complaint):
    monkeypatch.setattr(photographs, "MOST_PIXELS", 99)
    with complaint("the upload has 10×10 pixels"):
        open_photograph(file_of(Image.new("RGB", (10, 10))), "the upload")


SHAPES = [(30, 70), (64, 160), (20, 50), (12, 500), (200, 30), (96, 240), (311, 741), (12, 3000), (3000, 100), (1, 1)]


@pytest.mark.parametrize("shape", SHAPES)
def test_letterbox_is_the_interpolation_of_torch_between_repeated_edges(shape: tuple[int, int]):
    rng = np.random.default_rng(0)
    photograph = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    image, fit = letterbox(photograph, SIZE)
    scale = min(64 / shape[0], 160 / shape[1])
    height, width = (max(round(side * scale), 1) for side in shape)
    assert fit.scale == pytest.approx((width / shape[1], height / shape[0]))
    channels = torch.from_numpy(photograph).permute(2, 0, 1)[None].float()
    inner = F.interpolate(channels, (height, width), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    window = image[fit.top : fit.top + height, fit.left : fit.left + width].astype(float)
    assert np.abs(window - inner).max() <= 1
    above, below, before, after = fit.top, 64 - height - fit.top, fit.left, 160 - width - fit.left
    assert abs(above - below) <= 1
    assert abs(before - after) <= 1
    assert (image[:above] == image[above]).all()
    assert (image[64 - below :] == image[63 - below]).all()
    assert (image[:, :before] == image[:, before : before + 1]).all()
    assert (image[:, 160 - after :] == image[:, 159 - after : 160 - after]).all()


def test_a_large_photograph_keeps_its_mean_colours():
    y, x = np.mgrid[0:600, 0:900]
    photograph = np.stack([x * 255 / 900, y * 255 / 600, np.full_like(x, 90)], -1).astype(np.uint8)
    image, fit = letterbox(photograph, SIZE)
    inner = image[:, fit.left : 160 - fit.left].astype(float)
    assert inner.mean((0, 1)) == pytest.approx(photograph.mean((0, 1)), abs=1)
    assert inner[32, 48] == pytest.approx(photograph[300, 450], abs=3)


@pytest.mark.parametrize("shape", [(30, 70), (96, 240), (64, 160), (200, 90), (350, 741), (40, 600)])
def test_a_box_lies_where_its_content_is_in_the_input(shape: tuple[int, int]):
    photograph = np.zeros((*shape, 3), np.uint8)
    left, top, right, bottom = shape[1] // 3, shape[0] // 4, shape[1] // 2, shape[0] - shape[0] // 5
    photograph[top:bottom, left:right] = 255
    image, fit = letterbox(photograph, SIZE)
    inside = image[..., 0] > 127
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert fit.to_input([left, top, right, bottom])[0] == pytest.approx(found, abs=0.6)


@pytest.mark.parametrize("shape", SHAPES)
def test_boxes_are_mapped_there_and_back(shape: tuple[int, int]):
    fit = fit_to(shape, SIZE)
    boxes = np.random.default_rng(0).uniform(-5, 200, (7, 4))
    assert fit.to_photograph(fit.to_input(boxes)) == pytest.approx(boxes)
    assert fit.to_input(()).shape == fit.to_photograph([]).shape == (0, 4)


def test_a_photograph_of_the_input_s_size_is_unchanged():
    photograph = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    image, fit = letterbox(photograph, SIZE)
    assert np.array_equal(image, photograph)
    assert fit == Fit((1.0, 1.0), 0, 0)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Five photographs of several sizes and kinds."""
    found = []
    for number, (height, width) in enumerate([(20, 50), (64, 160), (90, 100), (12, 300), (33, 21)]):
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3)).astype(np.uint8)
        image = Image.fromarray(noise).convert(["RGB", "L", "RGBA"][number % 3])
        found.append(tmp_path / f"{number}.png")
        image.save(found[-1])
    return found


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded, as often as they are."""
    names = []
    monkeypatch.setattr(photographs, "open_photograph", lambda path: names.append(path.name) or open_photograph(path))
    return names


def test_decoded_photographs_are_those_opened_and_fitted_one_by_one(paths: list[Path]):
    for _ in range(2):  # decoded, and from the cache
        images, windows = decode(paths, SIZE)
        assert images.shape == (5, 3, *SIZE)
        assert images.dtype == np.uint8
        for path, image, window in zip(paths, images, windows, strict=True):
            photograph = open_photograph(path)
            assert np.array_equal(image, letterbox(photograph, SIZE)[0].transpose(2, 0, 1))
            assert window.tolist() == [0, 0, photograph.shape[1], photograph.shape[0]]


def test_windows_are_cut_out_as_far_as_they_lie_inside(paths: list[Path]):
    wanted = np.array([[-9, 3, 20, 99], [10, 10, 60, 40], [0, 0, 100, 90], [400, 5, 500, 9], [-8, -8, -2, -2]])
    inside = [[0, 3, 20, 20], [10, 10, 60, 40], [0, 0, 100, 90], [299, 5, 300, 9], [0, 0, 1, 1]]
    images, windows = decode(paths, (32, 48), wanted)
    assert windows.tolist() == inside
    for path, image, (left, top, right, bottom) in zip(paths, images, inside, strict=True):
        cut = open_photograph(path)[top:bottom, left:right]
        assert np.array_equal(image, letterbox(cut, (32, 48))[0].transpose(2, 0, 1))


def test_photographs_are_decoded_once_until_something_changes(paths: list[Path], decoded: list[str]):
    def newly(*arguments: Any) -> list[str]:
        decoded.clear()
        decode(*arguments)
        return sorted(decoded)

    names = [path.name for path in paths]
    assert newly(paths, SIZE) == names
    assert newly(paths, SIZE) == []
    assert newly(paths, (32, 80)) == names
    assert newly(paths[:2], SIZE) == names[:2]
    window = np.array([[0, 0, 9, 9]] * 5)
    assert newly(paths, SIZE, window) == names
    assert newly(paths, SIZE, window + 1) == names
    assert newly(paths, SIZE, window) == []
    os.utime(paths[3], (1, 1))
    assert newly(paths, SIZE) == names


def test_a_new_version_of_the_transform_decodes_again(paths: list[Path], decoded: list[str], monkeypatch):
    decode(paths, SIZE)
    monkeypatch.setattr(photographs, "VERSION", photographs.VERSION + 1)
    decode(paths, SIZE)
    assert len(decoded) == 10


def test_changed_images_do_not_change_the_cache(paths: list[Path]):
    images, _ = decode(paths, SIZE)
    expected = images.copy()
    torch.from_numpy(images).zero_()
    assert np.array_equal(decode(paths, SIZE)[0], expected)


def test_without_a_writable_cache_they_are_decoded_each_time(
    paths: list[Path], decoded: list[str], monkeypatch, capfd, caplog
):
    (paths[0].parent / "file").touch()
    monkeypatch.setenv("HANDWRITING_CACHE", str(paths[0].parent / "file" / "cache"))
    for times in (1, 2):
        assert decode(paths, SIZE)[0].shape == (5, 3, *SIZE)
        assert len(decoded) == 5 * times
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_a_full_disk_costs_only_the_cache(paths: list[Path], decoded: list[str], cache: Path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    for times in (1, 2):
        assert decode(paths, SIZE)[0].shape == (5, 3, *SIZE)
        assert len(decoded) == 5 * times
    assert [path.suffix for path in (cache / "decoded").iterdir()] == [".lock"]


def test_a_damaged_file_of_the_cache_is_made_again(paths: list[Path], decoded: list[str], cache: Path):
    expected = decode(paths, SIZE)[0].copy()
    (stored,) = (cache / "decoded").glob("*.npy")
    for content in (stored.read_bytes()[:-99], b"", b"something else"):
        stored.write_bytes(content)
        decoded.clear()
        assert np.array_equal(decode(paths, SIZE)[0], expected)
        assert len(decoded) == 5


def test_a_file_that_is_no_image_is_named_and_nothing_is_cached(paths: list[Path], cache: Path, complaint):
    paths[2].write_bytes(paths[2].read_bytes()[:200])
    paths[3].write_bytes(b"")
    with complaint(f"{paths[2]} is damaged"):
        decode(paths, SIZE)
    assert not list((cache / "decoded").glob("*.npy"))
    paths[1].unlink()
    with complaint(f"{paths[1]} cannot be read: No such file"):
        decode(paths, SIZE)


def test_two_processes_decode_once(paths: list[Path], tmp_path: Path, monkeypatch):
    def slow(path: Path) -> np.ndarray:
        (tmp_path / f"{os.getpid()}.log").touch()
        time.sleep(0.05)
        return open_photograph(path)

    def job() -> None:
        os._exit(0 if decode(paths, SIZE)[0].any() else 1)

    monkeypatch.setattr(photographs, "open_photograph", slow)
    jobs = [fork.Process(target=job) for _ in range(2)]
    for each in jobs:
        each.start()
    for each in jobs:
        each.join(20)
    assert [each.exitcode for each in jobs] == [0, 0]
    assert len(list(tmp_path.glob("*.log"))) == 1


def test_the_cache_is_in_the_home_by_default(paths: list[Path], tmp_path: Path, monkeypatch):
    monkeypatch.delenv("HANDWRITING_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    decode(paths, SIZE)
    assert len(list((tmp_path / ".cache" / "handwriting" / "decoded").glob("*.npy"))) == 1
