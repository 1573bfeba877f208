"""LabelledImages and HandwritingSet: what every loader of a data set returns."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from handwriting.utils.errors import UserError


@dataclass(frozen=True)
class LabelledImages:
    """Images as uint8 (N, 1, H, W) and labels as int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __post_init__(self):
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[1] != 1:
            raise ValueError(f"images: uint8 (N, 1, H, W) expected, got {self.images.dtype} {self.images.shape}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels: int64 (N,) expected, got {self.labels.dtype} {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> "LabelledImages":
        return LabelledImages(self.images[index], self.labels[index])

    def to(self, device: torch.device) -> "LabelledImages":
        """Return a copy on a device."""
        return LabelledImages(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class HandwritingSet:
    """A data set as published: its training set, its test set, and the unique names of its classes.

    The images are as in the file; DataModule inverts those that are dark on bright.

    ``glyphs`` are the characters of the classes, displayed instead of the names if a font has them: '' if unknown, and
    empty if the names are the characters themselves.
    """

    train: LabelledImages
    test: LabelledImages
    class_names: tuple[str, ...]
    glyphs: tuple[str, ...] = ()

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image, in pixels."""
        height, width = self.train.images.shape[2:]
        return height, width


def typical_images(dataset: LabelledImages, num_classes: int) -> Tensor:
    """Return for each class the image closest to the mean of its first 50, uint8 (classes, H, W)."""
    typical = torch.zeros(num_classes, *dataset.images.shape[2:], dtype=torch.uint8)
    for label in range(num_classes):
        images = dataset.images[(dataset.labels == label).nonzero()[:50, 0], 0]
        if len(images):
            values = images.float()
            typical[label] = images[(values - values.mean(0)).square().sum((1, 2)).argmin()].cpu()
    return typical


def check_labels(
    labels: Tensor, num_classes: int, source: object, row_name: str, numbers: Sequence[int] | None = None
) -> None:
    """Raise UserError naming the first row of ``source`` whose label is not in 0 … num_classes - 1.

    ``numbers`` are the numbers of the rows; by default they count from 1.
    """
    bad = ((labels < 0) | (labels >= num_classes)).nonzero().flatten()
    if len(bad):
        row = int(bad[0])
        raise UserError(
            f"{source}, {row_name} {numbers[row] if numbers else row + 1}: the label is {int(labels[row])}, "
            f"but the classes are 0 to {num_classes - 1}; fix the file or download it again."
        )
