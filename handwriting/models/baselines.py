"""Classical baselines from scikit-learn, on pixels or histograms of gradients."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handwriting.data import LabelledImages
from handwriting.utils.errors import UserError

CELL = 4  # pixels per side of a cell
BINS = 9  # directions over 180 degrees
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # red, green and blue in a grey level (ITU-R BT.601)


class Baseline:
    """A scikit-learn estimator that classifies images by their pixels or by histograms of gradients.

    ``estimator`` returns a new one; ``features`` is ``pixels`` (0…1, of all ``channels``) or ``hog`` (histograms of
    gradients; of colour images, those of their grey levels). For an estimator without probabilities, the softmax of its
    decision values replaces them; it is not calibrated.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int],
        estimator: Callable[..., Any],
        features: str = "pixels",
        channels: int = 1,
    ):
        if features == "hog" and min(image_size) < 2 * CELL:
            raise UserError(f"model.features=hog needs images of at least {2 * CELL}×{2 * CELL} pixels.")
        self.num_classes, self.channels, self.features, self.estimator = num_classes, channels, features, estimator()
        # The confusion matrix of the test set: (true class, predicted class).
        self.confused = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.tested: list[Tensor] = []  # one tensor (N, classes): the probabilities of the test set

    def fit(self, dataset: LabelledImages) -> None:
        """Fit on a training set. Raises UserError if a setting of the estimator is invalid."""
        try:
            self.estimator.fit(self._extract(dataset.images), dataset.labels.numpy())
        except (ValueError, TypeError) as error:
            raise UserError(f"model: {' '.join(str(error).split())[:200].rstrip('.')}.") from error

    def predict_proba(self, images: Tensor) -> Tensor:
        """Return the probabilities (N, classes) of uint8 images (N, channels, H, W)."""
        features, known = self._extract(images), torch.from_numpy(np.asarray(self.estimator.classes_))
        if hasattr(self.estimator, "predict_proba"):
            values = torch.from_numpy(np.asarray(self.estimator.predict_proba(features), dtype=np.float32))
        else:
            decision = np.asarray(self.estimator.decision_function(features), dtype=np.float32)
            decision = np.stack([-decision, decision], 1) if decision.ndim == 1 else decision
            values = torch.from_numpy(decision).softmax(1)
        return torch.zeros(len(images), self.num_classes).index_copy_(1, known, values)

    def calibrate(self, logits: Tensor) -> Tensor:
        """Return what ``tested`` has as it is: the probabilities of classical baselines are not calibrated."""
        return logits

    def numbers(self) -> int:
        """Return how many numbers the fitted estimator stores."""
        estimators = [self.estimator, *getattr(self.estimator, "estimators_", [])]
        trees = sum(one.tree_.node_count for one in estimators if hasattr(one, "tree_"))
        arrays = (value for value in vars(self.estimator).values() if isinstance(value, np.ndarray))
        return trees + sum(array.size for array in arrays)

    def _extract(self, images: Tensor) -> np.ndarray:
        pixels = images.numpy()
        if self.features == "hog":
            return histograms(pixels[:, 0] if self.channels == 1 else _grey(pixels))
        return pixels.reshape(len(pixels), -1) / np.float32(255)


def _grey(images: np.ndarray) -> np.ndarray:
    """Return the grey levels, uint8 (N, H, W), of colour images, uint8 (N, 3, H, W)."""
    return np.rint(sum(share * images[:, channel] for channel, share in enumerate(LUMA))).astype(np.uint8)


def histograms(images: np.ndarray) -> np.ndarray:
    """Return histograms of gradients, float32 (N, …), of uint8 images (N, H, W).

    Cells of 4×4 pixels have 9 bins of directions. A gradient is divided between the two nearest bins, weighted by its
    magnitude. Blocks of 2×2 cells are L2-normalised, clipped at 0.2 and normalised again (N. Dalal and B. Triggs, 2005,
    doi:10.1109/CVPR.2005.177). Pixels beyond whole cells are ignored.
    """
    return np.concatenate([_histograms(batch) for batch in np.array_split(images, max(len(images) // 2000, 1))])


def _histograms(images: np.ndarray) -> np.ndarray:
    count, height, width = images.shape
    rows, columns = height // CELL, width // CELL
    down, right = np.gradient(images.astype(np.float32) / 255, axis=(1, 2))
    length = np.hypot(down, right)
    place = np.mod(np.arctan2(down, right), np.pi) / np.pi * BINS - 0.5
    lower = np.floor(place)
    above = (place - lower).astype(np.float32)
    cells = np.zeros((count, rows, columns, BINS), np.float32)
    for direction, weight in ((lower, 1 - above), (lower + 1, above)):
        for number in range(BINS):
            share = np.where(np.mod(direction, BINS) == number, weight * length, 0)[:, : rows * CELL, : columns * CELL]
            cells[..., number] += share.reshape(count, rows, CELL, columns, CELL).sum((2, 4))
    blocks = np.concatenate([cells[:, i : rows - 1 + i, j : columns - 1 + j] for i in (0, 1) for j in (0, 1)], -1)
    for most in (0.2, 1.0):
        blocks = np.minimum(blocks / np.sqrt((blocks**2).sum(-1, keepdims=True) + 1e-6), most)
    return blocks.reshape(count, -1)
