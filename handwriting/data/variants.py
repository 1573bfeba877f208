"""Offline augmentation: fixed variants of each image. Those of the characters notebook match Pillow's pixels.

New pixels are black. Those of colour images, which are photographs, repeat the edge.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from handwriting.data.dataset import LabelledImages
from handwriting.utils.errors import UserError, did_you_mean

STEP = 5  # pixels of a shift
MARGIN = 4  # pixels by which a variant is smaller or larger
TURN = 10  # degrees, counter-clockwise
SLANT = 0.2  # pixels sideways for each pixel down
BORDER = 8  # pixels of the edge that are repeated around photographs, more than a variant of 32×32 brings in
DIRECTIONS = ((STEP, 0), (-STEP, 0), (0, STEP), (0, -STEP))  # (down, right), taken in turn from image to image
DIAGONALS = ((-STEP, -STEP), (STEP, STEP), (STEP, -STEP), (-STEP, STEP))

Variant = Callable[[Image.Image, int], np.ndarray]


def expand(dataset: LabelledImages, variants: Sequence[str]) -> LabelledImages:
    """Return every image of a split in each variant: all images in the first, then all in the second, and so on.

    The index of an image replaces the notebook's random number, so that the result is deterministic. Raises UserError
    for an unknown variant, or none.
    """
    if not variants:
        raise UserError("augment.variants is empty: give at least [original].")
    if list(variants) == ["original"]:
        return dataset
    images = torch.cat([in_variant(dataset.images, name) for name in variants])
    return LabelledImages(images, dataset.labels.repeat(len(variants)))


def in_variant(images: Tensor, variant: str) -> Tensor:
    """Return uint8 images (N, C, H, W) in one of the variants. Raises UserError for an unknown name."""
    if str(variant) not in VARIANTS:
        hint = did_you_mean(str(variant), VARIANTS)
        raise UserError(f"augment.variants has no {str(variant)!r}, only {', '.join(VARIANTS)}.{hint}")
    if images.shape[1] > 1:
        padded = F.pad(images.float(), [BORDER] * 4, mode="replicate").byte()  # uint8 has no such mode
        return _in_variant(padded, variant)[..., BORDER:-BORDER, BORDER:-BORDER].contiguous()
    return _in_variant(images, variant)


def _in_variant(images: Tensor, variant: str) -> Tensor:
    channels = images.shape[1]
    pictures = map(Image.fromarray, images.flatten(0, 1).cpu().numpy())  # each channel by itself
    made = [VARIANTS[variant](picture, number // channels) for number, picture in enumerate(pictures)]
    return torch.from_numpy(np.stack(made)).view(images.shape).to(images.device)


def _resize(image: Image.Image, wider: int, taller: int) -> np.ndarray:
    """Return the image made wider and taller by these pixels (below 0: narrower), on a canvas of its old size."""
    width, height = image.size
    pixels = np.asarray(image.resize((width + wider, height + taller), Image.Resampling.BILINEAR))
    for axis, more in enumerate((taller, wider)):
        if more < 0:
            margin = [(0, 0), (0, 0)]
            margin[axis] = (-more // 2, -more // 2)
            pixels = np.pad(pixels, margin)
        else:
            pixels = pixels.take(range(more // 2, more // 2 + (height, width)[axis]), axis)
    return pixels


def _move(image: Image.Image, step: tuple[int, int]) -> np.ndarray:
    return np.roll(_resize(image, -MARGIN, -MARGIN), step, (0, 1))


def _nudge(image: Image.Image, down: int, right: int) -> np.ndarray:
    """Return the image shifted by whole pixels; new pixels are black."""
    return np.asarray(image.transform(image.size, Image.Transform.AFFINE, (1, 0, -right, 0, 1, -down)))


def _slant(image: Image.Image, slant: float) -> np.ndarray:
    """Return the image sheared about its middle row; its top moves to the right if ``slant`` is above 0."""
    back = (1, slant, -slant * image.height / 2, 0, 1, 0)  # maps a pixel of the result to its source
    return np.asarray(image.transform(image.size, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR))


# The first seven are the notebook's, in its order; four stretch and slant, as it proposes; four shift by one pixel.
VARIANTS: dict[str, Variant] = {
    "original": lambda image, number: np.asarray(image),
    "moved": lambda image, number: _move(image, DIRECTIONS[number % 4]),
    "moved_diagonally": lambda image, number: _move(image, DIAGONALS[number % 4]),
    "turned_left": lambda image, number: np.asarray(image.rotate(TURN)),
    "turned_right": lambda image, number: np.asarray(image.rotate(-TURN)),
    "smaller": lambda image, number: _resize(image, -MARGIN, -MARGIN),
    "larger": lambda image, number: _resize(image, MARGIN, MARGIN),
    "wider": lambda image, number: _resize(image, MARGIN, 0),
    "taller": lambda image, number: _resize(image, 0, MARGIN),
    "slanted_left": lambda image, number: _slant(image, -SLANT),
    "slanted_right": lambda image, number: _slant(image, SLANT),
    "one_pixel_left": lambda image, number: _nudge(image, 0, -1),
    "one_pixel_right": lambda image, number: _nudge(image, 0, 1),
    "one_pixel_up": lambda image, number: _nudge(image, -1, 0),
    "one_pixel_down": lambda image, number: _nudge(image, 1, 0),
}
NOTEBOOK = tuple(VARIANTS)[:7]
