"""Classification: the predictions, ensembles, scores and figures of models for single characters."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from handwriting.data import LabelledImages
from handwriting.data.dataset import pictures, texts
from handwriting.inference.checkpoints import Trained, log_proba
from handwriting.inference.ensembles import combine as combine_probabilities
from handwriting.inference.ensembles import stack
from handwriting.models.image_classifier import ImageClassifier
from handwriting.plots.images import draw_confused_pairs, draw_confusion, draw_predictions
from handwriting.runs.record import read_result
from handwriting.utils.errors import UserError
from handwriting.utils.metrics import confused_pairs, confusion, per_class, score

COLUMNS = {
    "acc": "accuracy",
    "top5": "top-5",
    "f1": "macro F1",
    "loss": "loss",
    "calibration_error": "calibration error",
    "calibration_error_uncalibrated": "uncalibrated",
}
CALLED = {"mean": "mean", "logits": "mean of the logits", "vote": "vote", "stack": "stack"}  # by ensemble=…

predict = log_proba
table = per_class


def calibrate(trained: Trained, answer: Tensor) -> tuple[Tensor, Tensor]:
    """Return the calibrated probabilities (N, classes), and those before calibration."""
    assert isinstance(trained.model, ImageClassifier)
    return trained.model.calibrate(answer), answer.softmax(1)


def predictions(
    answer: Tensor, dataset: LabelledImages, names: Sequence[str], predicted: Tensor | None = None
) -> pd.DataFrame:
    """Return a row for each image: its index, the names of its class and of the prediction, and their probabilities.

    ``answer`` are the probabilities (N, classes), ``predicted`` the predicted classes (N,) where they are known.
    """
    predicted = answer.argmax(1) if predicted is None else predicted
    rows = torch.arange(len(answer))
    return pd.DataFrame(
        {
            "index": rows.numpy(),
            "label": texts(dataset.labels, names),
            "prediction": texts(predicted, names),
            "label_probability": answer[rows, dataset.labels].numpy(),
            "prediction_probability": answer[rows, predicted].numpy(),
        }
    )


def combine(trained: Sequence[Trained], answers: Sequence[Tensor], way: str) -> tuple[str, Tensor]:
    """Return what an ensemble is called, and its probabilities (N, classes). Raises UserError if it cannot be made."""
    return CALLED[way], _stack(trained, answers) if way == "stack" else combine_probabilities(answers, way)


def evaluate(
    answer: Tensor, dataset: LabelledImages, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, float]]:
    """Return which images are predicted right, the probabilities of predictions, confusion matrix and scores."""
    (sure, predicted), labels = answer.max(1), dataset.labels
    counts = confusion(predicted, labels, classes)
    return (predicted == labels).numpy(), sure.numpy(), counts, score(answer, labels)


def draw_gallery(
    answer: Tensor, dataset: LabelledImages, names: Sequence[str], chosen: np.ndarray, title: str
) -> Figure:
    """Draw the images with the indices ``chosen``, with their true and predicted classes."""
    sure, predicted = answer[chosen].max(1)
    images, true = pictures(dataset.images[chosen]), texts(dataset.labels[chosen], names)
    return draw_predictions(images, true, texts(predicted, names), sure.tolist(), title)


def draw_counts(counts: np.ndarray, dataset: LabelledImages, names: Sequence[str]) -> Figure:
    """Draw the confusion matrix; of many classes also the pairs that are confused most often."""
    if len(names) <= 20:
        return draw_confusion(counts, names)
    pairs, images, labels = confused_pairs(counts), pictures(dataset.images), dataset.labels.numpy()
    first_of = {label: images[np.argmax(labels == label)] for pair in pairs for label in pair[:2]}
    examples = [(first_of[first], first_of[second]) for first, second, _ in pairs]
    named = [(names[first], names[second], times) for first, second, times in pairs]
    return draw_confused_pairs(named, examples, counts)


def properties(dataset: LabelledImages) -> dict[str, np.ndarray]:
    """Return the properties of images by which their accuracy is listed: none."""
    return {}


def _stack(trained: Sequence[Trained], answers: Sequence[Tensor]) -> Tensor:
    """Return the probabilities of stacked models; those that differ only in their fold are averaged into one.

    Raises UserError if their runs did not hold out each image exactly once.
    """
    members: dict[str, list[int]] = {}
    for number, net in enumerate(trained):
        members.setdefault(re.sub(r"(^|,)data\.fold=\d+", "", net.run.name), []).append(number)
    known: list[pd.DataFrame] = []
    for name, numbers in members.items():
        runs = [read_result(trained[number].run) for number in numbers]
        tables = [table for run in runs if run and (table := run.held_out()) is not None]
        table = pd.concat(tables).sort_values("image") if tables else pd.DataFrame({"image": []})
        if not len(table) or len(tables) < len(numbers) or table["image"].tolist() != list(range(len(table))):
            raise UserError(
                "ensemble=stack needs predictions for images that were held out once each, and "
                f"{name or 'these runs'} has none: train with -m data.split=kfold "
                "data.fold=0,1,2,3,4 and give all folds."
            )
        known.append(table)
    if len({len(table) for table in known}) > 1:
        raise UserError("ensemble=stack needs models that were trained on the same images.")
    held_out = [torch.from_numpy(table.filter(regex=r"^p\d+$").to_numpy(np.float32)) for table in known]
    means = [torch.stack([answers[number] for number in numbers]).mean(0) for numbers in members.values()]
    return stack(held_out, torch.tensor(known[0]["label"].tolist()), means)
