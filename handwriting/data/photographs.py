"""Photographs: opened in colour, and fitted to the size of a model's input. Imports no torch."""

from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from handwriting.utils.errors import UserError


class Fit(NamedTuple):
    """Where letterbox puts a photograph: scaled by ``scale``, its corner at ``left`` and ``top``, in pixels."""

    scale: float
    left: int
    top: int


def open_photograph(source: Path | IO[bytes], name: str = "") -> np.ndarray:
    """Read an image file in colour, uint8 (H, W, 3), rotated upright. Raises UserError if it cannot be read."""
    name = name or str(source)
    try:
        with Image.open(source) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is not an image that can be read.") from error
    except OSError as error:
        raise UserError(f"{name} is damaged or cannot be read: {error.strerror or error}.") from error


def letterbox(photograph: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, Fit]:
    """Scale a photograph, uint8 (H, W, 3), into ``size`` (height, width), centred on black, keeping its aspect."""
    scale = min(size[0] / photograph.shape[0], size[1] / photograph.shape[1])
    height, width = (max(round(side * scale), 1) for side in photograph.shape[:2])
    left, top = (size[1] - width) // 2, (size[0] - height) // 2
    canvas = np.zeros((*size, 3), np.uint8)
    scaled = Image.fromarray(photograph).resize((width, height), Image.Resampling.BILINEAR)
    canvas[top : top + height, left : left + width] = np.asarray(scaled)
    return canvas, Fit(scale, left, top)
