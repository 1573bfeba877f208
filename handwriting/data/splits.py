"""Which training images are held out for validation, and which are used at all."""

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from handwriting.errors import UserError


def split_holdout(labels: Tensor, val_fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices (training, validation) of a stratified draw, the same for the same seed.

    Raises UserError when a class would have no image in one of the parts.
    """
    size = round(len(labels) * val_fraction)
    return _draw(labels, size, seed, f"data.val_fraction={val_fraction:g}")


def draw_subset(labels: Tensor, limit: int, seed: int) -> Tensor:
    """Return the indices of ``limit`` images, each class in its share."""
    if limit > len(labels):
        raise UserError(f"data.limit={limit} asks for more than the {len(labels):,} training images there are.")
    if limit == len(labels):
        return torch.arange(limit)
    return _draw(labels, limit, seed, f"data.limit={limit}")[1]


def _draw(labels: Tensor, size: int, seed: int, setting: str) -> tuple[Tensor, Tensor]:
    classes = len(labels.unique())
    if not classes <= size <= len(labels) - classes:
        raise UserError(
            f"{setting} takes {size:,} of {len(labels):,} images, but each part needs one of each of the "
            f"{classes} classes: choose a value between {classes} and {len(labels) - classes:,} images."
        )
    if int(labels.bincount().clamp(min=0)[labels.unique()].min()) < 2:
        raise UserError("A class has a single training image, so none can be held out for validation.")
    rest, drawn = train_test_split(np.arange(len(labels)), test_size=size, stratify=labels, random_state=seed)
    return torch.from_numpy(rest), torch.from_numpy(drawn)
