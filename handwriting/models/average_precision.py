"""Located characters in the form of torchmetrics' MeanAveragePrecision."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from handwriting.data.dataset import END, Sequences
from handwriting.models.detections import decode_detections
from handwriting.models.sequence_model import Outputs

logging.getLogger("faster_coco_eval").setLevel(logging.WARNING)  # it reports each step of the average precision
LEAST_PROBABLE, OVERLAP = 0.01, 0.5  # of the boxes that count, see decode_detections


def found_boxes(outputs: Outputs) -> list[dict[str, Tensor]]:
    """Return the boxes of each image that a network found, also improbable ones."""
    transcripts = decode_detections(outputs["boxes"], outputs["probabilities"], LEAST_PROBABLE, OVERLAP)
    return [
        {
            "boxes": torch.tensor(one.boxes).reshape(-1, 4),
            "scores": torch.tensor(one.probabilities),
            "labels": torch.tensor(one.labels, dtype=torch.int64),
        }
        for one in transcripts
    ]


def true_boxes(targets: Sequences) -> list[dict[str, Tensor]]:
    """Return the true boxes of each image, which must be known."""
    assert targets.boxes is not None
    present = targets.labels != END
    return [
        {"boxes": boxes[some].cpu(), "labels": labels[some].cpu()}
        for boxes, labels, some in zip(targets.boxes, targets.labels, present, strict=True)
    ]


def average_precision(found: Sequence[dict[str, Tensor]], true: Sequence[dict[str, Tensor]]) -> dict[str, float]:
    """Return the mean average precision of COCO, and that for boxes that overlap by half: map and map_50, 0…1."""
    from torchmetrics.detection import MeanAveragePrecision  # takes a second, and only detectors need it

    metric = MeanAveragePrecision(backend="faster_coco_eval", sync_on_compute=False)  # the caller has gathered all
    metric.update(list(found), list(true))
    values = metric.compute()
    return {name: float(values[name]) for name in ("map", "map_50")}
