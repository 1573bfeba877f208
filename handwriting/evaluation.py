"""What trained nets make of a part of the data: probabilities, scores, confusion and speed."""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from handwriting.checkpoints import Trained, check_targets
from handwriting.data import DataModule, LabelledImages
from handwriting.errors import UserError
from handwriting.parts import build
from handwriting.scores import confusion, score
from handwriting.settings import compose_data

BATCH = 500  # images read at once


@dataclass
class Evaluation:
    """What one reader, a net or several together, makes of a part."""

    name: str
    probabilities: Tensor  # (N, classes)
    counts: np.ndarray  # true class, read as
    scores: dict[str, float]


def read_part(trained: Trained, split: str, settings: Sequence[str]) -> tuple[DataModule, LabelledImages]:
    """Read the data that a net was trained on, or others that were asked for; UserError when they do not fit it."""
    if not isinstance(config := trained.settings.get("data"), Mapping):
        raise UserError(f"{trained.path} does not say which data it was trained on.")
    check_targets(config, "data", trained.path)
    data: DataModule = build("data", compose_data(dict(config), settings))
    part = {"test": data.test, "val": data.val, "train": data.train}[split]
    if tuple(data.class_names) != trained.class_names:
        raise UserError(
            f"{trained.name} reads {len(trained.class_names)} classes ({', '.join(trained.class_names[:3])}, …), and "
            f"data={data.name} has {len(data.class_names)} ({', '.join(data.class_names[:3])}, …): they do not fit."
        )
    if tuple(data.image_size) != trained.image_size:
        raise UserError(f"{trained.name} reads images of {trained.image_size}, data={data.name} has {data.image_size}.")
    if not len(part):
        raise UserError(f"split={split} is empty: the run held no image out (data.val_fraction=0).")
    return data, part


def read_images(trained: Trained, images: Tensor) -> Tensor:
    """Return the probabilities (N, classes) that a net gives uint8 images (N, 1, H, W), on the device at hand."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = trained.model.to(device)
    with torch.inference_mode():
        return torch.cat([model(batch.to(device)).float().softmax(1).cpu() for batch in images.split(BATCH)])


def evaluate_reader(name: str, probabilities: Tensor, labels: Tensor) -> Evaluation:
    """Score the probabilities (N, classes) that a reader gave images with these labels (N,)."""
    counts = confusion(probabilities.argmax(1), labels, probabilities.shape[1])
    return Evaluation(name, probabilities, counts, score(probabilities, labels))


def without_common(names: Sequence[str]) -> list[str]:
    """Return the names of runs without the settings that all of them share: seed=1 of optim=adam,seed=1."""
    parts = [re.split(r",(?![^\[]*\])", name) for name in names]
    common = set(parts[0]).intersection(*parts[1:]) if len(names) > 1 else set()
    return [
        ",".join(part for part in own if part not in common) or name for own, name in zip(parts, names, strict=True)
    ]


def evaluate_all(trained: Sequence[Trained], part: LabelledImages) -> list[Evaluation]:
    """Evaluate each net, and of several also the mean of their probabilities."""
    names = without_common([net.name for net in trained])
    answers = [read_images(net, part.images) for net in trained]
    found = [evaluate_reader(name, answer, part.labels) for name, answer in zip(names, answers, strict=True)]
    if len(found) > 1:
        mean = torch.stack([one.probabilities for one in found]).mean(0)
        found.append(evaluate_reader(f"mean of the {len(found)}", mean, part.labels))
    return found


def measure_speed(trained: Trained, part: LabelledImages) -> dict[str, float]:
    """Measure the seconds for the whole part in batches, and of a single image: medians, warmed up."""
    model, device = trained.model, trained.model.device

    def seconds(images: Tensor, times: int) -> float:
        taken = []
        with torch.inference_mode():
            for _ in range(times + 2):
                begun = time.perf_counter()
                model(images.to(device)).argmax(1).cpu()
                taken.append(time.perf_counter() - begun)
        return float(np.median(taken[2:]))

    batch = part.images[:BATCH]
    a_batch = seconds(batch, 5)
    return {"all_seconds": a_batch * len(part) / len(batch), "batch": len(batch), "one_seconds": seconds(batch[:1], 50)}
