"""Metrics: loss and accuracy counted batch by batch, and scores of all predictions and of each class."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

MOST_WITHOUT_TOP5 = 10  # classes; with so few, top-5 accuracy says little
SMALLEST = 1e-12  # lower limit of probabilities in a loss and in ensembles


class Tally:
    """Mean loss and accuracy over batches, summed on the device so that no step waits for it.

    ``top`` lists the k of top-k accuracies; 1 is the accuracy.
    """

    def __init__(self, top: tuple[int, ...] = (1,)):
        self.top = top
        # One row per batch, summed at the end: a step of a small model takes 3 ms, and each torch operation 5 µs.
        self.images: list[int] = []
        self.losses: list[Tensor] = []
        self.right: list[Tensor] = []

    def count_correct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return how many labels (B,) are among the top k of logits (B, classes), for each k: (len(top),)."""
        if self.top == (1,):
            return (logits.argmax(1) == labels).sum()[None]
        hits = logits.topk(max(self.top)).indices == labels[:, None]
        return torch.stack([hits[:, :n].sum() if n > 1 else (logits.argmax(1) == labels).sum() for n in self.top])

    def add(self, images: int, loss: Tensor, correct: Tensor) -> None:
        """Add a batch: its number of images, its mean loss, and what count_correct returned."""
        self.images.append(images)
        self.losses.append(loss.detach())
        self.right.append(correct)

    def means(self, add_up: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, float]:
        """Return the mean loss in nats and the accuracies as fractions: loss, acc, top5, ….

        ``add_up`` returns the sum of a tensor over all processes.
        """
        names = ["loss", *("acc" if n == 1 else f"top{n}" for n in self.top)]
        sums = torch.zeros(len(names) + 1)
        if self.images:
            images = torch.tensor(self.images, dtype=torch.float32, device=self.losses[0].device)
            loss = torch.stack(self.losses).float() @ images
            sums = torch.cat([loss[None], torch.stack(self.right).sum(0).float(), images.sum()[None]])
        *totals, number = add_up(sums).tolist()
        return {name: total / number for name, total in zip(names, totals, strict=True)}


BINS = 15  # of the expected calibration error, as in C. Guo et al., 2017, arXiv:1706.04599


def score(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Return accuracy, top-5, macro precision, recall and F1, cross-entropy (nats) and expected calibration error.

    ``probabilities`` are (N, classes), ``labels`` (N,). Of at most MOST_WITHOUT_TOP5 classes there is no top-5. A class
    that has no image and was never predicted does not count in the macro means.
    """
    classes = probabilities.shape[1]
    macro = {"num_classes": classes, "average": "macro"}
    scores = {
        "acc": multiclass_accuracy(probabilities, labels, num_classes=classes, average="micro"),
        "precision": multiclass_precision(probabilities, labels, **macro),
        "recall": multiclass_recall(probabilities, labels, **macro),
        "f1": multiclass_f1_score(probabilities, labels, **macro),
        "loss": -probabilities.gather(1, labels[:, None]).clamp_min(SMALLEST).double().log().mean(),
        "calibration_error": multiclass_calibration_error(probabilities, labels, num_classes=classes, n_bins=BINS),
    }
    if classes > MOST_WITHOUT_TOP5:
        scores["top5"] = multiclass_accuracy(probabilities, labels, num_classes=classes, average="micro", top_k=5)
    return {name: float(value) for name, value in scores.items()}


def confusion(predictions: Tensor, labels: Tensor, classes: int) -> np.ndarray:
    """Return the confusion matrix (true classes, predicted classes) from predictions (N,) and labels (N,)."""
    return multiclass_confusion_matrix(predictions, labels, num_classes=classes).numpy()


def agreement(predictions: Sequence[Tensor], labels: Tensor) -> list[int]:
    """Return how many images are classified correctly by none, one, two … and all of several models.

    ``predictions`` are (N,) for each model. More models of the same kind hardly help on images that all misclassify.
    """
    right = sum((predicted == labels).long() for predicted in predictions)
    return torch.bincount(torch.as_tensor(right), minlength=len(predictions) + 1).tolist()


def per_class(counts: np.ndarray, class_names: Sequence[str], glyphs: Sequence[str]) -> pd.DataFrame:
    """Return a row for each class from a confusion matrix: its images, the correct ones (right), and scores.

    ``acc`` is the fraction of its images that are classified correctly (recall); ``precision`` is the fraction of
    correct ones among the images predicted as this class. ``mistaken for`` names the wrong predictions for its images
    and their number, the most frequent first.
    """
    called = [f"{name} {glyph}".strip() for name, glyph in zip(class_names, glyphs or [""] * len(counts), strict=True)]
    rows = []
    for label, row in enumerate(counts):
        others = [other for other in np.argsort(-row, kind="stable") if row[other] and other != label]
        images, predicted, right = row.sum(), counts[:, label].sum(), row[label]
        rows.append(
            {
                "label": label,
                "name": class_names[label],
                "glyph": glyphs[label] if glyphs else "",
                "images": images,
                "right": right,
                "acc": right / images if images else float("nan"),
                "precision": right / predicted if predicted else float("nan"),
                "f1": 2 * right / (images + predicted) if images + predicted else float("nan"),
                "mistaken for": ", ".join(f"{called[other]} ({row[other]})" for other in others),
            }
        )
    return pd.DataFrame(rows)


def confused_pairs(counts: np.ndarray, most: int = 20) -> list[tuple[int, int, int]]:
    """Return the most often confused pairs of classes, and how often in both directions together."""
    both = np.triu(counts + counts.T, 1)
    order = np.argsort(-both, axis=None, kind="stable")[:most]
    pairs = (np.unravel_index(place, both.shape) for place in order)
    return [(int(first), int(second), int(both[first, second])) for first, second in pairs if both[first, second]]
