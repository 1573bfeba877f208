"""Metrics: loss and accuracy counted batch by batch, and scores of all predictions and of each class."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_calibration_error,
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
        sums = torch.zeros(2 + self.counts)
        if self.images:
            images = torch.tensor(self.images, dtype=torch.float32, device=self.losses[0].device)
            loss = torch.stack(self.losses).float() @ images
            sums = torch.cat([loss[None], images.sum()[None], torch.stack(self.right).sum(0).float()])
        loss_sum, number, *counts = add_up(sums).tolist()
        return {"loss": loss_sum / number, **self.fractions(number, counts)}

    @property
    def counts(self) -> int:
        """How many counts a batch has beside its loss."""
        return len(self.top)

    def fractions(self, images: float, counts: Sequence[float]) -> dict[str, float]:
        """Return the accuracies from the sums of all batches."""
        names = ("acc" if n == 1 else f"top{n}" for n in self.top)
        return {name: count / images for name, count in zip(names, counts, strict=True)}

    def empty(self) -> "Tally":
        """Return a new one of the same kind."""
        return Tally(self.top)


NONE = "none"  # the name of a missing character
Characters = Sequence[int]  # the labels of the characters in an image, in reading order


class SequenceTally(Tally):
    """Mean loss and accuracies of images with up to ``max_length`` characters each.

    ``acc`` is the fraction of images whose whole sequence is right, ``char_acc`` is 1 − the character error rate,
    ``length_acc`` the fraction of sequences of the right length. With ``by_length``, ``acc_length_2`` is the accuracy
    of the images with two characters.
    """

    def __init__(self, max_length: int, by_length: bool = False):
        super().__init__()
        self.max_length, self.by_length = max_length, by_length

    @property
    def counts(self) -> int:
        """Right sequences, edits, characters, right lengths; images and right sequences of each length."""
        return 4 + 2 * self.max_length

    def count(self, predicted: Sequence[Characters], true: Sequence[Characters]) -> Tensor:
        """Return the counts of a batch."""
        counts = torch.zeros(self.counts)
        for guess, truth in zip(predicted, true, strict=True):
            right = tuple(guess) == tuple(truth)
            counts[:4] += torch.tensor([right, edits(guess, truth), len(truth), len(guess) == len(truth)])
            counts[3 + len(truth)] += 1
            counts[3 + self.max_length + len(truth)] += right
        return counts

    def fractions(self, images: float, counts: Sequence[float]) -> dict[str, float]:
        """Return the accuracies from the sums of all batches; no accuracy of a length without images."""
        right, wrong, characters, same_length, *rest = counts
        found = {"acc": right / images, "char_acc": 1 - wrong / max(characters, 1), "length_acc": same_length / images}
        if self.by_length:
            pairs = enumerate(zip(rest[: self.max_length], rest[self.max_length :], strict=True), 1)
            found |= {f"acc_length_{length}": hits / number for length, (number, hits) in pairs if number}
        return found

    def empty(self) -> "SequenceTally":
        """Return a new one of the same kind."""
        return SequenceTally(self.max_length, self.by_length)


def fraction_right(predicted: Sequence[Characters], true: Sequence[Characters]) -> float:
    """Return the fraction of images whose whole sequence is right."""
    return sum(tuple(one) == tuple(other) for one, other in zip(predicted, true, strict=True)) / len(true)


def edits(predicted: Characters, true: Characters) -> int:
    """Return the edit distance: the smallest number of characters to insert, delete or replace."""
    return sum(one != other for one, other in align(predicted, true))


def align(predicted: Characters, true: Characters) -> list[tuple[int | None, int | None]]:
    """Return pairs (true, predicted) of characters with the fewest differences (V. Levenshtein, 1966).

    None is a missing character in a pair: (None, 3) is a 3 too many.
    """
    costs = np.zeros((len(true) + 1, len(predicted) + 1), int)
    costs[0], costs[:, 0] = range(len(predicted) + 1), range(len(true) + 1)
    for row, truth in enumerate(true, 1):
        for column, guess in enumerate(predicted, 1):
            replaced = costs[row - 1, column - 1] + (truth != guess)
            costs[row, column] = min(replaced, costs[row - 1, column] + 1, costs[row, column - 1] + 1)
    pairs: list[tuple[int | None, int | None]] = []
    row, column = len(true), len(predicted)
    while row or column:
        here = costs[row, column]
        if row and column and here == costs[row - 1, column - 1] + (true[row - 1] != predicted[column - 1]):
            row, column = row - 1, column - 1
            pairs.append((true[row], predicted[column]))
        elif row and here == costs[row - 1, column] + 1:
            row -= 1
            pairs.append((true[row], None))
        else:
            column -= 1
            pairs.append((None, predicted[column]))
    return pairs[::-1]


def sequence_confusion(predicted: Sequence[Characters], true: Sequence[Characters], classes: int) -> np.ndarray:
    """Return the confusion matrix (true, predicted) of the aligned characters, int64 (classes + 1, classes + 1).

    The last row counts characters too many, the last column missing ones.
    """
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    for guess, truth in zip(predicted, true, strict=True):
        for one, other in align(guess, truth):
            counts[classes if one is None else one, classes if other is None else other] += 1
    return counts


BINS = 15  # of the expected calibration error, as in C. Guo et al., 2017, arXiv:1706.04599


def score(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Return accuracy, top-5, macro precision, recall and F1, cross-entropy (nats) and expected calibration error.

    ``probabilities`` are (N, classes), ``labels`` (N,). Of at most MOST_WITHOUT_TOP5 classes there is no top-5. A class
    that has no image and was never predicted does not count in the macro means.
    """
    classes = probabilities.shape[1]
    macro = {"num_classes": classes, "average": "macro"}
    scores = {
        "acc": (probabilities.argmax(1) == labels).double().mean(),
        "precision": multiclass_precision(probabilities, labels, **macro),
        "recall": multiclass_recall(probabilities, labels, **macro),
        "f1": multiclass_f1_score(probabilities, labels, **macro),
        "loss": -probabilities.gather(1, labels[:, None]).clamp_min(SMALLEST).double().log().mean(),
        "calibration_error": multiclass_calibration_error(probabilities, labels, num_classes=classes, n_bins=BINS),
    }
    if classes > MOST_WITHOUT_TOP5:
        scores["top5"] = multiclass_accuracy(probabilities, labels, num_classes=classes, average="micro", top_k=5)
    return {name: float(value) for name, value in scores.items()}


def sequence_scores(
    predicted: Sequence[Characters], true: Sequence[Characters], probabilities: Sequence[float]
) -> dict[str, float]:
    """Return the accuracies of SequenceTally, also by length, and the expected calibration error of whole sequences.

    ``probabilities`` are those of the predicted sequences.
    """
    tally = SequenceTally(max(map(len, true)), by_length=True)
    scores = tally.fractions(len(true), tally.count(predicted, true).tolist())
    right = torch.tensor([tuple(one) == tuple(other) for one, other in zip(predicted, true, strict=True)])
    error = binary_calibration_error(torch.tensor(probabilities), right.long(), n_bins=BINS)
    return scores | {"calibration_error": float(error)}


def accuracy_by(right: np.ndarray, values: np.ndarray, most: int = 6) -> pd.DataFrame:
    """Return the accuracy of images grouped by a property: a row for each group, from low to high ``values`` (N,).

    ``right`` (N,) says which images are predicted right. Each value is a group, or, if there are more than ``most``,
    groups have about equal numbers of images. ``acc_low`` and ``acc_high`` are the 95 % interval (E. Wilson, 1927).
    """
    distinct = np.unique(values)
    starts = distinct if len(distinct) <= most else np.unique(np.quantile(values, np.arange(most) / most))
    group = np.searchsorted(starts, values, side="right") - 1
    rows = []
    for number in np.unique(group):
        inside, hits = values[group == number], int(right[group == number].sum())
        interval = binomtest(hits, len(inside)).proportion_ci(method="wilson")
        ends = {"from": inside.min(), "to": inside.max(), "images": len(inside), "right": hits}
        rows.append(ends | {"acc": hits / len(inside), "acc_low": interval.low, "acc_high": interval.high})
    return pd.DataFrame(rows)


def confusion(predictions: Tensor, labels: Tensor, classes: int) -> np.ndarray:
    """Return the confusion matrix (true classes, predicted classes) from predictions (N,) and labels (N,)."""
    return multiclass_confusion_matrix(predictions, labels, num_classes=classes).numpy()


def agreement(right: Sequence[np.ndarray]) -> list[int]:
    """Return how many images are predicted right by none, one, two … and all of several models.

    ``right`` says for each model which images, bool (N,). More models of the same kind hardly help on images that all
    misclassify.
    """
    return np.bincount(np.sum(right, axis=0), minlength=len(right) + 1).tolist()


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


def per_character(counts: np.ndarray, class_names: Sequence[str], glyphs: Sequence[str]) -> pd.DataFrame:
    """Return what per_class does from a confusion matrix of sequence_confusion; images are characters here.

    The last row, none, counts characters too many; missing ones are mistaken for none.
    """
    table = per_class(counts, [*class_names, NONE], [*glyphs, ""] if glyphs else ())
    table.loc[len(class_names), ["acc", "precision", "f1"]] = float("nan")  # of what is not there
    return table


def confused_pairs(counts: np.ndarray, most: int = 20) -> list[tuple[int, int, int]]:
    """Return the most often confused pairs of classes, and how often in both directions together."""
    both = np.triu(counts + counts.T, 1)
    order = np.argsort(-both, axis=None, kind="stable")[:most]
    pairs = (np.unravel_index(place, both.shape) for place in order)
    return [(int(first), int(second), int(both[first, second])) for first, second in pairs if both[first, second]]
