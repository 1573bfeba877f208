"""LabelledImages, Sequences and HandwritingSet: what every loader of a data set returns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from handwriting.utils.errors import UserError

END = -1  # in the labels of a sequence, after its last character
FEWEST = 10  # images of a stratum


class Sequences(NamedTuple):
    """The targets of images with several characters each.

    ``labels`` are int64 (N, L): class numbers in reading order, and END after the last one. ``boxes`` are float32
    (N, L, 4): left, top, right and bottom of each character in pixels of the image, 0 after the last one; None if they
    are not known.
    """

    labels: Tensor
    boxes: Tensor | None = None


@dataclass(frozen=True)
class LabelledImages:
    """Images as uint8 (N, C, H, W), C 1 or 3, and labels as int64 (N,).

    Of images with several characters each, labels are (N, L) and there may be ``boxes``, both as in Sequences.
    """

    images: Tensor
    labels: Tensor
    boxes: Tensor | None = None

    def __post_init__(self):
        for name, value in (("images", self.images), ("labels", self.labels)):
            if not isinstance(value, Tensor):
                raise TypeError(f"{name}: torch.Tensor expected, got {type(value).__module__}.{type(value).__name__}")
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[1] not in (1, 3):
            raise ValueError(f"images: uint8 (N, 1 or 3, H, W) expected, got {self.images.dtype} {self.images.shape}")
        if self.labels.dtype != torch.int64 or self.labels.ndim > 2 or len(self.labels) != len(self.images):
            raise ValueError(f"labels: int64 (N,) or (N, L) expected, got {self.labels.dtype} {self.labels.shape}")
        if self.boxes is not None and self.boxes.shape != (*self.labels.shape, 4):
            raise ValueError(f"boxes: float (N, L, 4) for labels (N, L) expected, got {self.boxes.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> "LabelledImages":
        return LabelledImages(self.images[index], self.labels[index], self._boxes_at(index))

    def to(self, device: torch.device) -> "LabelledImages":
        """Return a copy on a device."""
        boxes = None if self.boxes is None else self.boxes.to(device)
        return LabelledImages(self.images.to(device), self.labels.to(device), boxes)

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor | Sequences]:
        """Return images and their targets by their indices: labels, or Sequences."""
        labels = self.labels[index]
        return self.images[index], labels if labels.ndim == 1 else Sequences(labels, self._boxes_at(index))

    @property
    def strata(self) -> Tensor:
        """What splits are stratified by, int64 (N,): the label, or the number of characters.

        A number of characters with fewer than FEWEST images counts as the next smaller one.
        """
        if self.labels.ndim == 1:
            return self.labels
        lengths = (self.labels != END).sum(1)
        for length in range(int(lengths.max()) if len(lengths) else 0, 1, -1):
            if 0 < (lengths == length).sum() < FEWEST:
                lengths[lengths == length] = length - 1
        return lengths

    def _boxes_at(self, index: Tensor | slice) -> Tensor | None:
        return None if self.boxes is None else self.boxes[index]


def characters_of(labels: Tensor) -> list[tuple[int, ...]]:
    """Return the characters of each image without END, from labels (N, L)."""
    return [tuple(label for label in row if label != END) for row in labels.tolist()]


@dataclass(frozen=True)
class HandwritingSet:
    """A data set as published: its training set, its test set, and the unique names of its classes.

    ``val`` is its validation set if it has one of its own; otherwise DataModule splits one off its training set.

    The images are as in the file; DataModule inverts grey ones that are dark on bright. ``photographs`` says that they
    are whole photographs, fitted to the image size by ``letterbox``, and not writing on an even background. Colour
    images count as photographs.

    ``glyphs`` are the characters of the classes, displayed instead of the names if a font has them: '' if unknown, and
    empty if the names are the characters themselves.
    """

    train: LabelledImages
    test: LabelledImages
    class_names: tuple[str, ...]
    glyphs: tuple[str, ...] = ()
    photographs: bool = False
    val: LabelledImages | None = None

    def __post_init__(self):
        for name, split in {"train": self.train, "test": self.test, "val": self.val}.items():
            if name == "val" and split is None:
                continue
            if not isinstance(split, LabelledImages):
                raise TypeError(f"{name}: LabelledImages expected, got {type(split).__name__}")
            if split.images.shape[1:] != self.train.images.shape[1:]:
                shapes = tuple(split.images.shape[1:]), tuple(self.train.images.shape[1:])
                raise ValueError(f"{name}: images {shapes[0]} are not of the form of the training images, {shapes[1]}")
            lowest, classes = (0 if split.labels.ndim == 1 else END), len(self.class_names)
            wrong = split.labels[(split.labels < lowest) | (split.labels >= classes)]
            if len(wrong):
                raise ValueError(f"{name}: labels from {lowest} to {classes - 1} expected, got {int(wrong[0])}")

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of every image, in pixels."""
        height, width = self.train.images.shape[2:]
        return height, width

    @property
    def channels(self) -> int:
        """1 if the images are grey, 3 if they are in colour."""
        return self.train.images.shape[1]


def pictures(images: Tensor) -> np.ndarray:
    """Return uint8 images (N, C, H, W) as arrays for figures: (N, H, W), or (N, H, W, 3) if they have colours."""
    return (images[:, 0] if images.shape[1] == 1 else images.permute(0, 2, 3, 1)).cpu().numpy()


def texts(labels: Tensor, names: Sequence[str]) -> list[str]:
    """Return for each image the name of its class (N,), or those of its characters (N, L), joined."""
    rows = characters_of(labels if labels.ndim > 1 else labels[:, None])
    return [text_of(row, names) for row in rows]


def text_of(characters: Iterable[int], names: Sequence[str]) -> str:
    """Return the names of characters, joined; with spaces if one has several letters."""
    between = "" if max(map(len, names)) == 1 else " "
    return between.join(names[label] for label in characters)


def boxes_of(labels: Tensor, boxes: Tensor | None) -> list[np.ndarray]:
    """Return for each image the boxes of its characters, (characters, 4); none if they are not known."""
    if boxes is None:
        return [np.zeros((0, 4), np.float32)] * len(labels)
    return [some[row != END].cpu().numpy() for row, some in zip(labels, boxes, strict=True)]


def typical_images(dataset: LabelledImages, num_classes: int) -> Tensor:
    """Return for each class the image closest to the mean of its first 50, uint8 (classes, H, W).

    Of photographs and of several characters there are none: (0, H, W).
    """
    if dataset.labels.ndim > 1 or dataset.images.shape[1] > 1:
        return torch.zeros(0, *dataset.images.shape[2:], dtype=torch.uint8)
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
