"""Encoded images (PNG, JPEG …) of any size and mode as one array: files, or the contents of files."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from handwriting.data import files
from handwriting.data.cache import cached
from handwriting.data.checks import say_once
from handwriting.data.photographs import decode, digest_of, letterbox, open_photograph, opened
from handwriting.utils.errors import UserError
from handwriting.utils.hardware import cores

LARGEST = 128  # pixels per side up to which images of one size are kept as they are
SIDE = 32  # of images of several sizes, if no size is given
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # Exif: photographs that are to be rotated by 90 degrees

Sources = Sequence[Path] | Sequence[tuple[str, bytes]]  # files, or names and contents


def decode_images(
    source: Path, sources: Sources, image_size: Sequence[int] | None = None, channels: int | None = None
) -> Tensor:
    """Return images as uint8 (N, C, H, W), decoded by as many threads as there are cores.

    ``image_size`` is the height and width that they are fitted to by letterbox. None keeps the size of the images if
    all have the same, of at most 128 pixels per side; otherwise it is 32×32. ``channels`` None is 1 if no image has
    colours, otherwise 3. Raises UserError with the name of the first one that is damaged or not an image.
    """
    size = tuple(image_size) if image_size else _size_of(source, sources)
    needed = len(sources) * 3 * size[0] * size[1]
    if needed > files.MAX_BYTES:
        raise UserError(
            f"{source}: its {len(sources):,} images of {size[0]}×{size[1]} need {needed:,} bytes, more than "
            f"{files.MAX_BYTES:,}: choose a smaller data.image_size, such as [{SIDE},{SIDE}]."
        )
    if isinstance(sources[0], Path):
        images, _ = decode(sources, size)  # type: ignore[arg-type]
    else:
        images = np.empty((len(sources), 3, *size), np.uint8)
        with ThreadPoolExecutor(cores()) as pool:
            for number, image in enumerate(pool.map(partial(_decode, size=size), sources)):  # type: ignore[arg-type]
                images[number] = image
    return torch.from_numpy(_with_channels(images, channels))


def _size_of(source: Path, sources: Sources) -> tuple[int, int]:
    sizes = _sizes(sources)
    if len(sizes) == 1 and max(size := min(sizes)) <= LARGEST:
        return size
    what = "of several sizes" if len(sizes) > 1 else f"larger than {LARGEST} pixels per side"
    say_once(f"{source}: its images are {what} and are fitted to {SIDE}×{SIDE} (data.image_size=[height,width]).")
    return SIDE, SIDE


def _sizes(sources: Sources) -> set[tuple[int, int]]:
    """Return the different sizes of images; those of files are kept in the user's cache until one of them changes."""

    def make() -> np.ndarray:
        with ThreadPoolExecutor(cores()) as pool:
            return np.array(sorted(set(pool.map(_size, sources))))

    if isinstance(sources[0], Path):
        name = f"sizes/{digest_of(sources, (0, 0), None)}.npy"  # type: ignore[arg-type]
        found = cached(name, make, np.save, partial(np.load, allow_pickle=False))
    else:
        found = make()
    return {(height, width) for height, width in found.tolist()}


def _size(source: Path | tuple[str, bytes]) -> tuple[int, int]:
    """Return height and width of an image upright, from its header."""
    name, content = (str(source), source) if isinstance(source, Path) else (source[0], io.BytesIO(source[1]))
    with opened(content, name) as image:
        sideways = image.getexif().get(ORIENTATION) in SIDEWAYS
        return (image.width, image.height) if sideways else (image.height, image.width)


def _decode(source: tuple[str, bytes], size: tuple[int, int]) -> np.ndarray:
    name, content = source
    return letterbox(open_photograph(io.BytesIO(content), name), size)[0].transpose(2, 0, 1)


def _with_channels(images: np.ndarray, channels: int | None) -> np.ndarray:
    """Return images (N, 3, H, W) with 1 or 3 channels."""
    grey = all((images[:, 0] == images[:, other]).all() for other in (1, 2))
    if grey and channels != 3:
        return np.ascontiguousarray(images[:, :1])
    if channels != 1:
        return images
    return np.stack([np.asarray(Image.fromarray(one.transpose(1, 2, 0)).convert("L")) for one in images])[:, None]
