"""Preprocessing of photographs and scans into images like those that a model was trained on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from handwriting.data.photographs import deep_levels, is_deep, is_transparent, letterbox, opened
from handwriting.utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

WORK_SIZE = 400  # pixels of the longer side during preprocessing: enough for thin strokes, and fast
FITTED = 100  # pixels per side that the background is fitted to
SPECK = 0.02  # connected components smaller than this fraction of the largest are dust
FAINTEST = 0.03  # minimum contrast between foreground and background, of 0…1
LEAST_CORRELATION = 0.25  # of neighbouring pixels: noise has about 0.1, every image of MNIST more than 0.5
DARK = 0.002  # maximum fraction of dark pixels in a bright foreground on a transparent background
NOTHING = "no writing was found: the image is empty or its contrast is too low."
SAMPLE = 1000  # training images that are measured


@dataclass
class Preprocessed:
    """A preprocessed image, and the results of the steps: all uint8 (H, W), or (H, W, 3) in colour.

    Grey writing is bright on black. ``photograph`` are height and width of the photograph, if it was only fitted.
    """

    image: np.ndarray
    steps: dict[str, np.ndarray] = field(default_factory=dict)  # step name to its result
    photograph: tuple[int, int] | None = None


def open_image(source: Path | IO[bytes], name: str = "") -> np.ndarray:
    """Read an image file as grey levels, float (H, W) of 0…1, rotated upright; to_grey explains transparency.

    Raises UserError if it is not an image, damaged, or has too many pixels.
    """
    with opened(source, name) as image:
        image.draft("L", (2 * WORK_SIZE, 2 * WORK_SIZE))  # for JPEG: large photographs open 4 times as fast
        return to_grey(ImageOps.exif_transpose(image))


def to_grey(image: Image.Image) -> np.ndarray:
    """Return the grey levels of an image of any mode as float (H, W) of 0…1.

    Transparent pixels become white, or black if the foreground is bright and the border transparent.
    """
    if is_deep(image):
        return deep_levels(image)
    if is_transparent(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black" if _is_bright(image) else "white"), image)
    return np.asarray(image.convert("L"), dtype=np.float64) / 255


def _is_bright(image: Image.Image) -> bool:
    """Return whether an RGBA image is a bright foreground on a transparent background, not a page with dark writing."""
    levels, alpha = np.asarray(image.convert("L")), np.asarray(image.getchannel("A"))
    solid = levels[alpha >= 0.9 * max(alpha.max(), 1)]  # not the edges of strokes, whose colour is unreliable
    return len(solid) > 0 and (solid < 128).mean() <= DARK and _border(alpha).mean() < 128


def preprocess(grey: np.ndarray, size: tuple[int, int], foreground: Mapping[str, float]) -> Preprocessed:
    """Preprocess grey levels, (H, W) of 0…1, into an image of ``size`` (height, width), bright on black.

    ``foreground`` is the result of measure_foreground on the training images. An image that already has this size is
    only inverted if it is dark on white. For all others, uneven illumination is subtracted, the contrast is stretched,
    dust is removed, the writing is cropped, scaled to the size and the stroke width of the training images, and centred
    by its centre of mass, like MNIST (Y. LeCun et al., 1998, doi:10.1109/5.726791). Raises UserError if the image, of
    any size, is empty.
    """
    if grey.ndim != 2 or min(grey.shape) < 1 or not np.isfinite(grey).all():
        raise UserError(f"An image of shape {grey.shape} cannot be read: grey levels (H, W) are expected.")
    small = _shrink(grey, WORK_SIZE)
    flat = small - _background(small)
    if (np.clip(flat, None, 0) ** 2).sum() > (np.clip(flat, 0, None) ** 2).sum():
        flat = -flat  # more pixels are darker than the background than brighter
    clear = _spread_contrast(flat)
    kept = _without_dust(clear)
    if grey.shape == size:
        dark = np.median(_border(grey)) > 0.5
        return Preprocessed(_as_uint8(1 - grey if dark else grey), {"already of the model's size": _as_uint8(grey)})
    rows, columns = np.nonzero(kept > 0.5)
    cropped = kept[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    drawn = _draw_as_trained(cropped, foreground)
    steps = {
        "original": small,
        "background subtracted": np.clip(flat, 0, None),
        "contrast stretched": clear,
        "cropped to the writing": cropped,
        "size and stroke width of the training images": drawn,
    }
    return Preprocessed(_as_uint8(_centre(drawn, size)), {name: _as_uint8(image) for name, image in steps.items()})


def fit_photograph(photograph: np.ndarray, size: tuple[int, int], channels: int) -> Preprocessed:
    """Fit a photograph, uint8 (H, W, 3), to a ``size`` (height, width) as letterbox does; grey if ``channels`` is 1."""
    fitted, _ = letterbox(photograph, size)
    small = Image.fromarray(photograph)
    small.thumbnail((WORK_SIZE, WORK_SIZE))
    image = fitted if channels > 1 else np.asarray(Image.fromarray(fitted).convert("L"))
    height, width = photograph.shape[:2]
    return Preprocessed(image, {"original": np.asarray(small), "fitted": fitted}, (height, width))


def measure_foreground(images: "Tensor") -> dict[str, float]:
    """Return the medians of the longer side of the writing (size) and of the stroke width (stroke), in pixels.

    ``images`` are uint8 (N, 1, H, W), foreground bright on black; a sample of them is measured.
    """
    some = images[:: max(len(images) // SAMPLE, 1), 0].cpu().numpy()
    sides, pens = [], []
    for image in some:
        rows, columns = np.nonzero(image > 127)
        if len(rows):
            sides.append(max(np.ptp(rows), np.ptp(columns)) + 1)
            pens.append(_pen(image / 255))
    height, width = images.shape[2:]
    if not sides:
        return {"size": 20 / 28 * max(height, width), "stroke": 2.5}
    return {"size": float(np.median(sides)), "stroke": float(np.median(pens))}


def _border(grey: np.ndarray) -> np.ndarray:
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def _shrink(grey: np.ndarray, longest: int) -> np.ndarray:
    factor = longest / max(grey.shape)
    return grey if factor >= 1 else _resize(grey, factor)


def _resize(grey: np.ndarray, factor: float) -> np.ndarray:
    height, width = (max(round(side * factor), 1) for side in grey.shape)
    image = Image.fromarray(grey.astype(np.float32))
    # Box filter for shrinking: the grey level of a pixel is the fraction of foreground in it.
    resized = image.resize((width, height), Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC)
    return np.clip(np.asarray(resized, dtype=np.float64), 0, 1)


def _background(grey: np.ndarray) -> np.ndarray:
    """Return the background under the writing: a quadratic surface, fitted to the pixels that are close to it."""
    height, width = grey.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * y, x**2, y**2], -1)
    apart = max(max(grey.shape) // FITTED, 1)  # six coefficients need no more pixels
    some, values = terms[::apart, ::apart].reshape(-1, 6), grey[::apart, ::apart].ravel()
    # Start at the level of the border, where writing is rare; then keep the 60 % of the pixels that fit best.
    surface = np.array([np.median(_border(grey)), 0, 0, 0, 0, 0])
    for _ in range(6):
        away = np.abs(values - some @ surface)
        near = away <= max(np.quantile(away, 0.6), 0.02)
        surface = np.linalg.lstsq(some[near], values[near], rcond=None)[0]
    return terms @ surface


def _spread_contrast(flat: np.ndarray) -> np.ndarray:
    """Stretch to 0…1: background noise becomes 0, the level of the strokes 1; UserError if there is no foreground."""
    bright = np.clip(flat, 0, None)
    if bright.max() < FAINTEST:
        raise UserError(NOTHING)
    threshold = _otsu(bright)
    strokes, background = flat[flat > threshold], flat[flat <= threshold]
    if not len(strokes) or np.median(strokes) < max(5 * background.std(), FAINTEST):
        raise UserError(NOTHING)
    level = np.quantile(strokes, 0.6)
    floor = min(0.35 * level, max(3 * background.std(), 0.1 * level))
    clear = np.clip((flat - floor) / (level - floor), 0, 1)
    if _correlation(clear) < LEAST_CORRELATION:
        raise UserError(NOTHING)
    return clear


def _correlation(image: np.ndarray) -> float:
    """Return the largest correlation of neighbouring pixels over the four directions; about 0 for noise."""
    away = image - image.mean()
    shifted = [(away[:, 1:], away[:, :-1]), (away[1:], away[:-1])]
    shifted += [(away[1:, 1:], away[:-1, :-1]), (away[1:, :-1], away[:-1, 1:])]
    products = [float((one * other).mean()) for one, other in shifted if one.size]
    return max(products, default=0.0) / max(float((away**2).mean()), 1e-12)


def _otsu(values: np.ndarray) -> float:
    """Return the threshold that splits the values into two groups with the least variance within (N. Otsu, 1979)."""
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_below = sums[:-1] / below[:-1]
        mean_above = (sums[-1] - sums[:-1]) / above[1:]
        between = below[:-1] * above[1:] * (mean_below - mean_above) ** 2
    best = np.flatnonzero(
        between >= np.nanmax(between) * (1 - 1e-9)
    )  # with only two levels, all thresholds between them are equal
    return float(edges[1 + int(best.mean())])


def _without_dust(clear: np.ndarray) -> np.ndarray:
    pieces, number = ndimage.label(clear > 0.5, structure=np.ones((3, 3)))  # type: ignore[misc]
    if not number:
        raise UserError(NOTHING)
    sizes = np.bincount(pieces.ravel())[1:]  # type: ignore[arg-type]
    kept = np.isin(pieces, 1 + np.flatnonzero(sizes >= SPECK * sizes.max()))
    return np.where(ndimage.binary_dilation(kept, iterations=2), clear, 0)


def _pen(image: np.ndarray) -> float:
    """Return the stroke width in pixels: twice the area over the perimeter, which is exact for long strokes."""
    inside = np.pad(image > 0.5, 1)
    edges = (inside[1:] != inside[:-1]).sum() + (inside[:, 1:] != inside[:, :-1]).sum()
    outline = edges * np.pi / 4  # pixel edges overestimate slanted ones
    return float(2 * inside.sum() / max(outline, 1))


def _draw_as_trained(cropped: np.ndarray, foreground: Mapping[str, float]) -> np.ndarray:
    """Scale the writing to the size of the training images; strokes that would be too thin are thickened before."""
    factor = foreground["size"] / max(cropped.shape)
    lacking = (foreground["stroke"] / factor - _pen(cropped)) / 2  # pixels of the large image, on each side
    if lacking >= 0.5:
        margin = round(lacking)
        factor = foreground["size"] / (max(cropped.shape) + 2 * margin)
        y, x = np.mgrid[-margin : margin + 1, -margin : margin + 1]
        disc = x**2 + y**2 <= (margin + 0.3) ** 2
        cropped = ndimage.grey_dilation(np.pad(cropped, margin), footprint=disc)
    return _resize(cropped, factor)


def _centre(drawn: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Place the writing on a black canvas with its centre of mass in the middle, as far as it fits."""
    canvas = np.zeros(size)
    drawn = drawn[: size[0], : size[1]]
    middle = ndimage.center_of_mass(drawn)
    place = []
    for side, length, mass in zip(size, drawn.shape, middle, strict=True):
        place.append(int(np.clip(round((side - 1) / 2 - float(mass)), 0, side - length)))
    canvas[place[0] : place[0] + drawn.shape[0], place[1] : place[1] + drawn.shape[1]] = drawn
    return canvas


def _as_uint8(grey: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(grey * 255), 0, 255).astype(np.uint8)
