"""The fixed variants of the characters notebook: each image once in every form, with Pillow's own pixels."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

from handwriting.data.sets import LabelledImages
from handwriting.errors import UserError, did_you_mean

STEP = 5  # pixels that a variant is moved
MARGIN = 4  # pixels that a variant is smaller or larger
TURN = 10  # degrees, counter-clockwise
SLANT = 0.2  # pixels sideways for each pixel down
DIRECTIONS = ((STEP, 0), (-STEP, 0), (0, STEP), (0, -STEP))  # (down, right), taken in turn from image to image
DIAGONALS = ((-STEP, -STEP), (STEP, STEP), (STEP, -STEP), (-STEP, STEP))

Variant = Callable[[Image.Image, int], np.ndarray]


def expand(part: LabelledImages, variants: Sequence[str]) -> LabelledImages:
    """Return every image of a part in each variant: all images in the first, then all in the second, and so on.

    An image's number in the part takes the place of the notebook's random number, so that the result is always the
    same. Raises UserError for an unknown variant, or none.
    """
    if unknown := [str(name) for name in variants if str(name) not in VARIANTS]:
        hint = did_you_mean(unknown[0], VARIANTS)
        raise UserError(f"augment.variants has no {unknown[0]!r}, only {', '.join(VARIANTS)}.{hint}")
    if not variants:
        raise UserError("augment.variants is empty: give at least [original].")
    if list(variants) == ["original"]:
        return part
    pictures = [Image.fromarray(image) for image in part.images[:, 0].numpy()]
    images = [VARIANTS[name](picture, number) for name in variants for number, picture in enumerate(pictures)]
    return LabelledImages(torch.from_numpy(np.stack(images)).unsqueeze(1), part.labels.repeat(len(variants)))


def _resize(image: Image.Image, wider: int, taller: int) -> np.ndarray:
    """Return the image so many pixels wider and taller (below 0: narrower), in a frame of its old size."""
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


def _slant(image: Image.Image, slant: float) -> np.ndarray:
    """Return the image sheared about its middle row; its top goes to the right where ``slant`` is above 0."""
    back = (1, slant, -slant * image.height / 2, 0, 1, 0)  # from a pixel of the result to where it came from
    return np.asarray(image.transform(image.size, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR))


# The first seven are the notebook's, in its order; the four that follow stretch and slant, as it proposes.
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
}
NOTEBOOK = tuple(VARIANTS)[:7]
