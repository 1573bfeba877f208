"""From a photograph or a scan to the frame that a net was trained on, step by step. Imports no torch by itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from handwriting.utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

MOST_PIXELS = 50_000_000  # of an image file; a photograph of a telephone has 12 to 50 million
WORK_SIZE = 400  # pixels of the longer side that the steps work on: enough for a pen, and quick
FITTED = 100  # pixels a side that the ground is fitted to
SPECK = 0.02  # ink in one piece with less than this share of the largest piece is dust
FAINTEST = 0.03  # ink that differs less from its ground, of 0…1, is none
LEAST_CORRELATION = 0.25  # of neighbouring pixels: of noise about 0.1, of each image of MNIST over 0.5
DARK = 0.002  # share of dark pixels up to which an image on a transparent background is bright ink
NOTHING = "nothing written was found: the image is empty or its contrast too low."
SAMPLE = 1000  # training images that are measured


@dataclass
class Framed:
    """An image in the net's frame, uint8 (H, W), ink bright on black, and what each step made of it."""

    image: np.ndarray
    steps: dict[str, np.ndarray] = field(default_factory=dict)  # by the step's name, uint8 (H, W) each


def open_image(source: Path | IO[bytes], name: str = "") -> np.ndarray:
    """Read an image file as grey levels, float (H, W) of 0…1, upright; to_grey says what becomes of transparency.

    Raises UserError when it is no image, damaged, or has more than MOST_PIXELS.
    """
    name = name or str(source)
    try:
        with Image.open(source) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UserError(f"{name} has {image.width}×{image.height} pixels, and {MOST_PIXELS:,} is the most.")
            image.draft("L", (2 * WORK_SIZE, 2 * WORK_SIZE))  # of a JPEG: large photographs open 4 times as fast
            return to_grey(ImageOps.exif_transpose(image))
    except UserError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"{name} is no image that can be read.") from error
    except OSError as error:
        if error.errno:
            raise UserError(f"{name} cannot be read: {error.strerror}.") from error
        raise UserError(f"{name} is damaged: {error}.") from error
    except (ValueError, SyntaxError, EOFError, MemoryError, OverflowError, TypeError, IndexError) as error:
        raise UserError(f"{name} is damaged or of a kind that cannot be read ({error}).") from error


def to_grey(image: Image.Image) -> np.ndarray:
    """Return the grey levels of an image of any mode as float (H, W) of 0…1.

    What is transparent becomes white, or black where the foreground is bright and its border transparent.
    """
    if image.mode.startswith(("I", "F")):  # 16 bits and more; how many are used, only the values say
        levels = np.asarray(image, dtype=np.float64)
        most = levels.max(initial=0)
        scale = 1.0 if most <= 1 else 255.0 if most <= 255 else 65535.0 if most <= 65535 else most
        return np.clip(levels / scale, 0, 1)
    if image.mode in ("P", "LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black" if _is_bright(image) else "white"), image)
    return np.asarray(image.convert("L"), dtype=np.float64) / 255


def _is_bright(image: Image.Image) -> bool:
    """Say whether an RGBA image is bright foreground on a transparent background, and not a page with dark writing."""
    levels, alpha = np.asarray(image.convert("L")), np.asarray(image.getchannel("A"))
    solid = levels[alpha >= 0.9 * max(alpha.max(), 1)]  # not the edges of strokes, whose colour says little
    return len(solid) > 0 and (solid < 128).mean() <= DARK and _border(alpha).mean() < 128


def bring_into_frame(grey: np.ndarray, size: tuple[int, int], ink: Mapping[str, float]) -> Framed:
    """Bring grey levels, (H, W) of 0…1, into the frame of a net: what is written, bright on black.

    ``ink`` is what measure_ink found of the training images. What has the frame's size already is only inverted where
    it is dark on white. Otherwise uneven light is taken out, contrast spread, dust removed, the writing cropped,
    brought to the size and the width of pen of the training images, and centred by its mass, as MNIST was made
    (Y. LeCun et al., 1998, doi:10.1109/5.726791). Raises UserError when the image, of whatever size, is empty.
    """
    if grey.ndim != 2 or min(grey.shape) < 1 or not np.isfinite(grey).all():
        raise UserError(f"An image of shape {grey.shape} cannot be read: grey levels (H, W) are wanted.")
    small = _shrink(grey, WORK_SIZE)
    flat = small - _background(small)
    if (np.clip(flat, None, 0) ** 2).sum() > (np.clip(flat, 0, None) ** 2).sum():
        flat = -flat  # more of it is darker than the ground than is brighter
    clear = _spread_contrast(flat)
    kept = _without_dust(clear)
    if grey.shape == size:
        dark = np.median(_border(grey)) > 0.5
        return Framed(_as_uint8(1 - grey if dark else grey), {"in its frame already": _as_uint8(grey)})
    rows, columns = np.nonzero(kept > 0.5)
    cropped = kept[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    drawn = _draw_as_trained(cropped, ink)
    steps = {
        "as it came": small,
        "ink without the ground": np.clip(flat, 0, None),
        "contrast spread": clear,
        "cropped to the writing": cropped,
        "size and pen of the training images": drawn,
    }
    return Framed(_as_uint8(_centre(drawn, size)), {name: _as_uint8(image) for name, image in steps.items()})


def measure_ink(images: "Tensor") -> dict[str, float]:
    """Return the medians of the longer side of what is written and of the width of the pen, in pixels.

    ``images`` are uint8 (N, 1, H, W), ink bright on black; a sample of them is measured.
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
    # A box of the source for each pixel when shrinking: the grey of a pixel is the share of ink in it.
    resized = image.resize((width, height), Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC)
    return np.clip(np.asarray(resized, dtype=np.float64), 0, 1)


def _background(grey: np.ndarray) -> np.ndarray:
    """Return the ground under the ink, fitted as a surface of second degree to the pixels that are not far from it."""
    height, width = grey.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * y, x**2, y**2], -1)
    apart = max(max(grey.shape) // FITTED, 1)  # six numbers need no more pixels than that
    some, values = terms[::apart, ::apart].reshape(-1, 6), grey[::apart, ::apart].ravel()
    # Begin at the level of the border, where seldom anything is written; then keep the half that fits best.
    surface = np.array([np.median(_border(grey)), 0, 0, 0, 0, 0])
    for _ in range(6):
        away = np.abs(values - some @ surface)
        near = away <= max(np.quantile(away, 0.6), 0.02)
        surface = np.linalg.lstsq(some[near], values[near], rcond=None)[0]
    return terms @ surface


def _spread_contrast(flat: np.ndarray) -> np.ndarray:
    """Return 0…1: noise of the ground is 0, the ink's own level is 1; UserError where nothing stands out."""
    bright = np.clip(flat, 0, None)
    if bright.max() < FAINTEST:
        raise UserError(NOTHING)
    threshold = _otsu(bright)
    ink, ground = flat[flat > threshold], flat[flat <= threshold]
    if not len(ink) or np.median(ink) < max(5 * ground.std(), FAINTEST):
        raise UserError(NOTHING)
    level = np.quantile(ink, 0.6)
    floor = min(0.35 * level, max(3 * ground.std(), 0.1 * level))
    clear = np.clip((flat - floor) / (level - floor), 0, 1)
    if _correlation(clear) < LEAST_CORRELATION:
        raise UserError(NOTHING)
    return clear


def _correlation(image: np.ndarray) -> float:
    """Return the largest correlation of neighbouring pixels in the four directions: of noise about 0."""
    away = image - image.mean()
    shifted = [(away[:, 1:], away[:, :-1]), (away[1:], away[:-1])]
    shifted += [(away[1:, 1:], away[:-1, :-1]), (away[1:, :-1], away[:-1, 1:])]
    products = [float((one * other).mean()) for one, other in shifted if one.size]
    return max(products, default=0.0) / max(float((away**2).mean()), 1e-12)


def _otsu(values: np.ndarray) -> float:
    """Return the threshold that parts the values into two groups with the least variance within (N. Otsu, 1979)."""
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    sums = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_below = sums[:-1] / below[:-1]
        mean_above = (sums[-1] - sums[:-1]) / above[1:]
        between = below[:-1] * above[1:] * (mean_below - mean_above) ** 2
    best = np.flatnonzero(between >= np.nanmax(between) * (1 - 1e-9))  # between two levels only, all are as good
    return float(edges[1 + int(best.mean())])


def _without_dust(clear: np.ndarray) -> np.ndarray:
    pieces, number = ndimage.label(clear > 0.5, structure=np.ones((3, 3)))  # type: ignore[misc]
    if not number:
        raise UserError(NOTHING)
    sizes = np.bincount(pieces.ravel())[1:]  # type: ignore[arg-type]
    kept = np.isin(pieces, 1 + np.flatnonzero(sizes >= SPECK * sizes.max()))
    return np.where(ndimage.binary_dilation(kept, iterations=2), clear, 0)


def _pen(image: np.ndarray) -> float:
    """Return the width of the pen in pixels: of a long stroke, twice its area by its outline."""
    inside = np.pad(image > 0.5, 1)
    edges = (inside[1:] != inside[:-1]).sum() + (inside[:, 1:] != inside[:, :-1]).sum()
    outline = edges * np.pi / 4  # a slanting edge is counted as its steps
    return float(2 * inside.sum() / max(outline, 1))


def _draw_as_trained(cropped: np.ndarray, ink: Mapping[str, float]) -> np.ndarray:
    """Bring the writing to the size of the training images, its pen made thicker before where it would be too thin."""
    factor = ink["size"] / max(cropped.shape)
    lacking = (ink["stroke"] / factor - _pen(cropped)) / 2  # pixels of the large image, on either side
    if lacking >= 0.5:
        margin = round(lacking)
        factor = ink["size"] / (max(cropped.shape) + 2 * margin)
        y, x = np.mgrid[-margin : margin + 1, -margin : margin + 1]
        disc = x**2 + y**2 <= (margin + 0.3) ** 2
        cropped = ndimage.grey_dilation(np.pad(cropped, margin), footprint=disc)
    return _resize(cropped, factor)


def _centre(drawn: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Lay the writing into a black frame so that its mass is in the middle, as far as it fits."""
    frame = np.zeros(size)
    drawn = drawn[: size[0], : size[1]]
    middle = ndimage.center_of_mass(drawn)
    place = []
    for side, length, mass in zip(size, drawn.shape, middle, strict=True):
        place.append(int(np.clip(round((side - 1) / 2 - float(mass)), 0, side - length)))
    frame[place[0] : place[0] + drawn.shape[0], place[1] : place[1] + drawn.shape[1]] = drawn
    return frame


def _as_uint8(grey: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(grey * 255), 0, 255).astype(np.uint8)
