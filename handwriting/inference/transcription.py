"""Transcription: the predictions, ensembles, scores and figures of models for several characters in an image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from handwriting.data import LabelledImages
from handwriting.data.dataset import END, Sequences, characters_of, pictures, text_of, texts
from handwriting.inference.checkpoints import Trained, outputs_of
from handwriting.models.average_precision import average_precision, found_boxes, true_boxes
from handwriting.models.detections import fuse, region_of
from handwriting.models.sequence_model import SequenceRecognizer, Transcript, ViewOutputs, vote
from handwriting.plots.images import draw_confusion, draw_predictions
from handwriting.utils.errors import UserError
from handwriting.utils.metrics import NONE, per_character, sequence_confusion, sequence_scores

COLUMNS = {
    "acc": "accuracy",
    "char_acc": "characters",
    "length_acc": "length",
    "map": "mAP",
    "calibration_error": "calibration error",
    "calibration_error_uncalibrated": "uncalibrated",
}

table = per_character


@dataclass
class Answer:
    """The transcripts of images, and the outputs of networks that they come from; [] if several have voted."""

    transcripts: list[Transcript]
    outputs: list[ViewOutputs]


def predict(trained: Trained, images: torch.Tensor, views: int = 1, augment: str = "") -> Answer:
    """Return the transcripts of uint8 images (N, C, H, W) before calibration, and the outputs of the network."""
    outputs = outputs_of(trained, images, views, augment)
    return Answer(_recognizer(trained).transcripts(outputs), outputs)


def calibrate(trained: Trained, answer: Answer) -> tuple[Answer, Answer]:
    """Return the answer with calibrated probabilities of the transcripts, and the transcripts as they were.

    The latter have no outputs: their average precision, which takes long, does not depend on calibration.
    """
    calibrated = _recognizer(trained).calibrate(answer.transcripts)
    return replace(answer, transcripts=calibrated), replace(answer, outputs=[])


def predictions(answer: Answer, dataset: LabelledImages, names: Sequence[str]) -> pd.DataFrame:
    """Return a row for each image: its index, its text, the predicted text, and the probability of that.

    The probability of the true text is not known, so its column is empty.
    """
    return pd.DataFrame(
        {
            "index": range(len(dataset)),
            "label": texts(dataset.labels, names),
            "prediction": [text_of(one.labels, names) for one in answer.transcripts],
            "label_probability": np.nan,
            "prediction_probability": [one.probability for one in answer.transcripts],
        }
    )


def combine(trained: Sequence[Trained], answers: Sequence[Answer], way: str) -> tuple[str, Answer]:
    """Return what an ensemble is called, and its answer.

    ``mean`` merges the outputs of networks of one class, if they have the same shapes; others vote, each with the
    probability of its transcript. Raises UserError for another ``way`` than mean and vote.
    """
    if way not in ("mean", "vote"):
        raise UserError(f"ensemble={way} is for models of single characters: choose mean or vote.")
    if way == "vote" or len({_kind(net, answer) for net, answer in zip(trained, answers, strict=True)}) > 1:
        return "vote", Answer(vote([answer.transcripts for answer in answers]), [])
    outputs = [
        ([one for several, _ in batch for one in several], [matrix for _, back in batch for matrix in back])
        for batch in zip(*(answer.outputs for answer in answers), strict=True)
    ]
    return "mean", Answer(_recognizer(trained[0]).transcripts(outputs), outputs)


def _kind(net: Trained, answer: Answer) -> tuple[object, ...]:
    """Return what networks have in common whose outputs can be merged: their class, and names and sizes of outputs."""
    first = answer.outputs[0][0][0]
    return type(net.model.net), *((name, values.shape[1:]) for name, values in first.items())


def evaluate(
    answer: Answer, dataset: LabelledImages, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, float]]:
    """Return which images are transcribed right, the probabilities of transcripts, confusion matrix and scores.

    The confusion matrix is that of sequence_confusion.
    """
    predicted, true = [one.labels for one in answer.transcripts], characters_of(dataset.labels)
    sure = [one.probability for one in answer.transcripts]
    scores = sequence_scores(predicted, true, sure) | _average_precision(answer.outputs, dataset)
    right = np.array([one == other for one, other in zip(predicted, true, strict=True)])
    return right, np.array(sure), sequence_confusion(predicted, true, classes), scores


def _average_precision(found: Sequence[ViewOutputs], dataset: LabelledImages) -> dict[str, float]:
    """Return the mean average precision (COCO) of located characters; {} if none are, or their boxes are not known."""
    if not found or dataset.boxes is None or "boxes" not in found[0][0][0]:
        return {}
    boxes = [
        box for several, back in found for box in found_boxes(several[0] if len(several) == 1 else fuse(several, back))
    ]
    return average_precision(boxes, true_boxes(Sequences(dataset.labels, dataset.boxes)))


def draw_gallery(
    answer: Answer, dataset: LabelledImages, names: Sequence[str], chosen: np.ndarray, title: str
) -> Figure:
    """Draw the images with the indices ``chosen`` as draw_transcripts does."""
    transcripts = [answer.transcripts[image] for image in chosen]
    return draw_transcripts(dataset[torch.from_numpy(chosen)], transcripts, names, title)


def draw_transcripts(
    dataset: LabelledImages, transcripts: Sequence[Transcript], names: Sequence[str], title: str
) -> Figure:
    """Draw images with the predicted boxes, and their true and predicted texts."""
    predicted = [text_of(one.labels, names) or NONE for one in transcripts]
    true, sure = texts(dataset.labels, names), [one.probability for one in transcripts]
    return draw_predictions(pictures(dataset.images), true, predicted, sure, title, [one.boxes for one in transcripts])


def draw_counts(counts: np.ndarray, dataset: LabelledImages, names: Sequence[str]) -> Figure:
    """Draw the confusion matrix of the aligned characters; the last name is that of a missing one."""
    return draw_confusion(counts, names)


def properties(dataset: LabelledImages) -> dict[str, np.ndarray]:
    """Return the properties of images by which their accuracy is listed, (N,) each.

    That is the number of characters; and if their boxes are known, their mean height in pixels, and their contrast: the
    standard deviation of the grey levels, 0 to 255, in the hull of the boxes.
    """
    present = dataset.labels != END
    length = present.sum(1).numpy()
    if dataset.boxes is None:
        return {"length": length}
    heights = (dataset.boxes[:, :, 3] - dataset.boxes[:, :, 1]).numpy()
    hulls = region_of(dataset.boxes, present, margin=0).round().int().tolist()
    grey = dataset.images.float().mean(1)
    contrast = [
        image[top : max(bottom, top + 1), left : max(right, left + 1)].std(correction=0).item()
        for image, (left, top, right, bottom) in zip(grey, hulls, strict=True)
    ]
    return {"length": length, "height": heights.sum(1) / length, "contrast": np.array(contrast)}


def _recognizer(trained: Trained) -> SequenceRecognizer:
    assert isinstance(trained.model, SequenceRecognizer)
    return trained.model
