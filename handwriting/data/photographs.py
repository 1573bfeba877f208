"""Photographs: opened upright in colour, fitted to the size of a model's input, decoded in parallel and cached.

Training, testing and prediction share this transform. Imports no torch by itself.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageOps, UnidentifiedImageError

from handwriting.data.cache import cached
from handwriting.utils.errors import UserError
from handwriting.utils.hardware import cores

# What Pillow raises for damaged files, beside OSError; found by changing bytes of 15 formats.
DAMAGED = (ValueError, SyntaxError, EOFError, MemoryError, OverflowError, TypeError, IndexError, RuntimeError)
ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm"}  # of names of image files
MOST_PIXELS = 50_000_000  # of an image file; photographs from a phone have 12 to 50 million
VERSION = 1  # of open_photograph and letterbox; another one decodes cached photographs again

log = logging.getLogger(__name__)


@contextlib.contextmanager
def opened(source: Path | IO[bytes], name: str = "") -> Iterator[Image.Image]:
    """Open an image file, to be decoded inside the with block.

    Raises UserError with its name if it is not an image, damaged, or has more than MOST_PIXELS pixels.
    """
    name = name or str(source)
    try:
        with Image.open(source) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UserError(f"{name} has {image.width}×{image.height} pixels; the maximum is {MOST_PIXELS:,}.")
            yield image
    except UserError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(f"{name} is not an image that can be read.") from error
    except OSError as error:
        if error.errno:
            raise UserError(f"{name} cannot be read: {error.strerror}.") from error
        raise UserError(f"{name} is damaged: {error}.") from error
    except DAMAGED as error:
        raise UserError(f"{name} is damaged or in an unsupported format ({error}).") from error


def is_deep(image: Image.Image) -> bool:
    """Return whether the grey levels of an image have 16 bits or more."""
    return image.mode.startswith(("I", "F"))


def deep_levels(image: Image.Image) -> np.ndarray:
    """Return the grey levels of a deep image as float (H, W) of 0…1; the values show how many bits are used."""
    levels = np.asarray(image, dtype=np.float64)
    most = levels.max(initial=0)
    scale = 1.0 if most <= 1 else 255.0 if most <= 255 else 65535.0 if most <= 65535 else most
    return np.clip(levels / scale, 0, 1)


def is_transparent(image: Image.Image) -> bool:
    """Return whether an image has transparent pixels, in an alpha channel or as a colour."""
    return image.mode in ("P", "LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info


def to_colour(image: Image.Image) -> np.ndarray:
    """Return an image of any mode as colours, uint8 (H, W, 3); transparent pixels become white."""
    if is_deep(image):
        image = Image.fromarray(np.rint(255 * deep_levels(image)).astype(np.uint8))
    elif is_transparent(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def open_photograph(source: Path | IO[bytes], name: str = "") -> np.ndarray:
    """Read an image file as colours, uint8 (H, W, 3), rotated upright; transparent pixels become white.

    Raises UserError as ``opened``.
    """
    with opened(source, name) as image:
        return to_colour(ImageOps.exif_transpose(image))


@dataclass(frozen=True)
class Fit:
    """The place of a photograph in a model's input: its scale in both directions, and its left and top edge in pixels.

    The two scales are equal but for the rounding to whole pixels. Boxes are (N, 4): left, top, right, bottom.
    """

    scale: tuple[float, float]  # x, y
    left: int
    top: int

    def to_input(self, boxes: ArrayLike) -> np.ndarray:
        """Return boxes in pixels of the photograph as boxes in pixels of the input, float (N, 4)."""
        x, y = self.scale
        return np.asarray(boxes, float).reshape(-1, 4) * (x, y, x, y) + (self.left, self.top, self.left, self.top)

    def to_photograph(self, boxes: ArrayLike) -> np.ndarray:
        """Return boxes in pixels of the input as boxes in pixels of the photograph, float (N, 4)."""
        x, y = self.scale
        return (np.asarray(boxes, float).reshape(-1, 4) - (self.left, self.top, self.left, self.top)) / (x, y, x, y)


def fit_to(photograph: tuple[int, int], size: tuple[int, int]) -> Fit:
    """Return where ``letterbox`` places a photograph, both as height and width: centred, as large as possible."""
    (rows, columns), (height, width) = photograph, size
    scale = min(height / rows, width / columns)
    inner = [max(round(scale * side), 1) for side in (columns, rows)]
    return Fit((inner[0] / columns, inner[1] / rows), (width - inner[0]) // 2, (height - inner[1]) // 2)


def letterbox(photograph: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, Fit]:
    """Return a photograph, uint8 (H, W, 3), fitted to ``size`` (height, width), and its place there.

    It keeps its aspect ratio and is centred, and its edge pixels are repeated up to the border. It is interpolated
    bilinearly, with antialiasing.
    """
    rows, columns = photograph.shape[:2]
    fit = fit_to((rows, columns), size)
    inner = round(fit.scale[0] * columns), round(fit.scale[1] * rows)
    scaled = Image.fromarray(photograph).resize(inner, Image.Resampling.BILINEAR)
    right, bottom = size[1] - inner[0] - fit.left, size[0] - inner[1] - fit.top
    return np.pad(np.asarray(scaled), ((fit.top, bottom), (fit.left, right), (0, 0)), "edge"), fit


def decode(
    paths: Sequence[Path], size: tuple[int, int], windows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return image files fitted to ``size`` by letterbox, uint8 (N, 3, height, width), and the windows, int (N, 4).

    ``windows`` are left, top, right and bottom of what is cut out of each photograph before, as far as it lies inside;
    by default all of it. They are decoded by as many threads as there are cores, and kept in the user's cache until one
    of the files changes. Raises UserError with the name of the first file that is missing or not an image.
    """
    record = np.dtype([("image", np.uint8, (3, *size)), ("window", np.int32, 4)])

    def make() -> np.ndarray:
        log.info(f"Decoding {len(paths):,} images in {os.path.commonpath([path.parent for path in paths])}")
        made = np.empty(len(paths), record)
        wanted = [None] * len(paths) if windows is None else windows
        with ThreadPoolExecutor(cores()) as pool:
            for number, one in enumerate(pool.map(partial(_decode_one, size=size), paths, wanted)):
                made[number] = one
        return made

    # Mapped into memory: jobs side by side share it, and it may be changed without changing the file.
    name = f"decoded/{digest_of(paths, size, windows)}.npy"
    found = cached(name, make, np.save, partial(np.load, mmap_mode="c"))
    return found["image"], found["window"]


def _decode_one(path: Path, window: np.ndarray | None, size: tuple[int, int]) -> tuple[np.ndarray, list[int]]:
    photograph = open_photograph(path)
    rows, columns = photograph.shape[:2]
    left, top, right, bottom = (0, 0, columns, rows) if window is None else map(int, window)
    left, top = min(max(left, 0), columns - 1), min(max(top, 0), rows - 1)
    right, bottom = min(max(right, left + 1), columns), min(max(bottom, top + 1), rows)
    image, _ = letterbox(photograph[top:bottom, left:right], size)
    return image.transpose(2, 0, 1), [left, top, right, bottom]


def digest_of(paths: Sequence[Path], size: tuple[int, int], windows: np.ndarray | None) -> str:
    """Return a hash of files, by their paths, lengths and times, and of the size and windows they are decoded to."""
    digest = hashlib.sha256(repr((VERSION, tuple(size))).encode())
    digest.update(b"" if windows is None else windows.tobytes())
    for path in paths:
        try:
            now = path.stat()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from error
        digest.update(f"{path.absolute()}\0{now.st_size}\0{now.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]
