"""Evaluation of trained models on a split of the data: probabilities, scores, confusion, speed."""

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from handwriting.data import DataModule, LabelledImages
from handwriting.inference import classification, transcription
from handwriting.inference.checkpoints import Trained, say_changed_code
from handwriting.models.image_classifier import BATCH
from handwriting.models.sequence_model import BATCH as SEQUENCE_BATCH
from handwriting.models.sequence_model import SequenceRecognizer
from handwriting.runs.config import compose_data, name_folder
from handwriting.runs.instantiate import build
from handwriting.runs.record import flatten
from handwriting.utils.errors import UserError

BEFORE = ("loss", "calibration_error")  # scores that calibration changes
NOT_IMAGES = {"batch_size", "shuffle_seed"}  # data settings that do not change the images


@dataclass
class Evaluation:
    """The predictions and scores of a model, or of an ensemble, on a split."""

    name: str
    answer: Any  # what the model predicts, see Kind
    right: np.ndarray  # bool (N,): whether the prediction for an image is right
    sure: np.ndarray  # (N,): the probability of the prediction
    counts: np.ndarray  # (true class, predicted class); of sequences, the last is none
    scores: dict[str, float]


class Kind(Protocol):
    """What differs between models of single characters and of several, in the modules classification and transcription.

    An answer is what a model predicts for images: probabilities (N, classes), or an Answer with transcripts.
    """

    COLUMNS: dict[str, str]  # of the printed table: scores and their heads

    def predict(self, trained: Trained, images: Tensor, views: int = 1, augment: str = "") -> Any:
        """Return the answer of a model before calibration, as calibrate takes it."""
        ...

    def calibrate(self, trained: Trained, answer: Any) -> tuple[Any, Any]:
        """Return the calibrated answer, and that before calibration."""
        ...

    def predictions(self, answer: Any, dataset: LabelledImages, names: Sequence[str]) -> pd.DataFrame:
        """Return the rows of predictions.csv; ``names`` are those of the classes."""
        ...

    def combine(self, trained: Sequence[Trained], answers: Sequence[Any], way: str) -> tuple[str, Any]:
        """Return what an ensemble is called, and its answer. Raises UserError if it cannot be made."""
        ...

    def evaluate(
        self, answer: Any, dataset: LabelledImages, classes: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, float]]:
        """Return ``right``, ``sure``, ``counts`` and ``scores`` of an Evaluation."""
        ...

    def draw_gallery(
        self, answer: Any, dataset: LabelledImages, names: Sequence[str], chosen: np.ndarray, title: str
    ) -> Figure:
        """Draw the images with the indices ``chosen``, and what is predicted."""
        ...

    def draw_counts(self, counts: np.ndarray, dataset: LabelledImages, names: Sequence[str]) -> Figure:
        """Draw the confusion matrix; ``names`` are those of its rows."""
        ...

    def properties(self, dataset: LabelledImages) -> dict[str, np.ndarray]:
        """Return the properties of images (N,) by which their accuracy is listed."""
        ...

    def table(self, counts: np.ndarray, class_names: Sequence[str], glyphs: Sequence[str]) -> pd.DataFrame:
        """Return a row for each class from a confusion matrix."""
        ...


@dataclass
class Group:
    """The models that are evaluated on the same data: equal class names, image size, images and labels."""

    name: str  # of the data set
    label: str  # the name, and the data settings that were given or that differ between groups of that name
    dataset: LabelledImages  # the split
    class_names: Sequence[str]
    glyphs: Sequence[str]
    trained: list[Trained]

    @property
    def kind(self) -> Kind:
        """What its models predict."""
        return transcription if self.trained[0].is_sequence else classification


def group_by_images(trained: Sequence[Trained], split: str, settings: Sequence[str]) -> list[Group]:
    """Load a split of the data of each model and group the models by its images; ``settings`` apply to all of them.

    Each data set is loaded once. Raises UserError if data do not fit their model or cannot be read.
    """
    groups: dict[str, Group] = {}
    loaded: dict[str, str] = {}  # data settings to the key of their group, of what is already loaded
    for net in trained:
        kind = [net.class_names, net.image_size, net.channels]
        source = json.dumps([_image_settings(net), *kind], sort_keys=True, default=str)
        if source not in loaded:
            data, dataset = load_split(net, split, settings)
            loaded[source] = _digest(data, dataset)
            groups.setdefault(loaded[source], Group(str(data.name), "", dataset, data.class_names, data.glyphs, []))
        groups[loaded[source]].trained.append(net)
    _label(list(groups.values()), settings)
    return list(groups.values())


def _image_settings(net: Trained) -> dict[str, object]:
    """Return the settings that decide which images a model was trained and tested on, by their dotted names."""
    config = net.settings.get("data")
    flat = flatten(dict(config)) if isinstance(config, Mapping) else {}
    return {key: value for key, value in flat.items() if key not in NOT_IMAGES}


def _digest(data: DataModule, dataset: LabelledImages) -> str:
    digest = hashlib.sha256(json.dumps([list(data.class_names), list(data.image_size)]).encode())
    for values in (dataset.images, dataset.labels):
        digest.update(values.contiguous().numpy().data)
    return digest.hexdigest()


def _label(groups: Sequence[Group], settings: Sequence[str]) -> None:
    """Label each group so that no two have the same label."""
    given = [setting.removeprefix("data.") for setting in settings if not setting.startswith("data=")]
    for group in groups:
        same_name = [_image_settings(other.trained[0]) for other in groups if other.name == group.name]
        own = _image_settings(group.trained[0])
        differ = [f"{key}={own[key]}" for key in own if any(other.get(key) != own[key] for other in same_name)]
        group.label = ",".join([group.name, name_folder([*differ, *given])] if differ or given else [group.name])
    for number, group in enumerate(groups, 1):
        if [other.label for other in groups].count(group.label) > 1:
            group.label += f",{number}"


def load_split(trained: Trained, split: str, settings: Sequence[str]) -> tuple[DataModule, LabelledImages]:
    """Load a split of the data of a model, changed by ``settings``. Raises UserError if it does not fit the model."""
    if not isinstance(config := trained.settings.get("data"), Mapping):
        raise UserError(f"{trained.path} does not say which data it was trained on.")
    trained.trust.check(config, "data", trained.path)
    say_changed_code(trained.path, trained.settings, config)
    data: DataModule = build("data", compose_data(dict(config), settings, trained.trust.folders))
    dataset = {"test": data.test, "val": data.val, "train": data.train}[split]
    if tuple(data.class_names) != trained.class_names:
        raise UserError(
            f"{trained.name} has {len(trained.class_names)} classes ({', '.join(trained.class_names[:3])}, …), and "
            f"data={data.name} has {len(data.class_names)} ({', '.join(data.class_names[:3])}, …): they do not fit."
        )
    if data.is_sequence != trained.is_sequence:
        several, one = "several characters in an image", "one character in an image"
        kinds = (several, one) if trained.is_sequence else (one, several)
        raise UserError(f"{trained.name} is for {kinds[0]}, and data={data.name} has {kinds[1]}: they do not fit.")
    if tuple(data.image_size) != trained.image_size:
        raise UserError(f"{trained.name} takes images of {trained.image_size}, data={data.name} has {data.image_size}.")
    if data.channels != trained.channels:
        kinds = {1: "grey", 3: "colour"}
        raise UserError(
            f"{trained.name} takes {kinds[trained.channels]} images, data={data.name} has {kinds[data.channels]} ones."
        )
    if not len(dataset):
        raise UserError(
            f"split={split} is empty: {trained.name} was trained without a validation set (data.val_fraction=0)."
        )
    return data, dataset


def without_common(names: Sequence[str]) -> list[str]:
    """Return the names of runs without the overrides that all of them share: seed=1 for optim=adam,seed=1."""
    overrides = [re.split(r",(?![^\[]*\])", name) for name in names]
    common = set(overrides[0]).intersection(*overrides[1:]) if len(names) > 1 else set()
    return [
        ",".join(one for one in own if one not in common) or name for own, name in zip(overrides, names, strict=True)
    ]


def evaluate_all(group: Group, way: str = "mean", views: int = 1, augment: str = "") -> list[Evaluation]:
    """Evaluate each model and, if there are several, their ensemble; with ``views`` > 1 also with TTA.

    All use calibrated probabilities. The scores of a model have also what BEFORE names of those before calibration.
    """
    kind, trained, dataset, classes = group.kind, group.trained, group.dataset, len(group.class_names)
    names = without_common([net.name for net in trained])
    found: list[Evaluation] = []
    for number in (1, views) if views > 1 else (1,):
        seen = f", {number} views" if number > 1 else ""
        each = []
        for name, net in zip(names, trained, strict=True):
            answer, raw = kind.calibrate(net, kind.predict(net, dataset.images, number, augment))
            found.append(Evaluation(name + seen, answer, *kind.evaluate(answer, dataset, classes)))
            before = kind.evaluate(raw, dataset, classes)[-1]
            found[-1].scores.update({f"{key}_uncalibrated": before[key] for key in BEFORE if key in before})
            each.append(answer)
        if len(each) > 1:
            called, together = kind.combine(trained, each, way)
            scores = kind.evaluate(together, dataset, classes)
            found.append(Evaluation(f"{called} of the {len(each)}{seen}", together, *scores))
    return found


def measure_speed(trained: Trained, dataset: LabelledImages) -> dict[str, float]:
    """Measure the time in seconds for the whole split in batches and for one image: medians after a warm-up.

    It is that from uint8 images to predictions; of several characters with decoding.
    """
    model, device = trained.model, trained.model.mean.device

    def predict(images: Tensor) -> Any:
        if isinstance(model, SequenceRecognizer):
            return model.transcribe(images)
        return model(images.to(device)).argmax(1).cpu()

    def seconds(images: Tensor, times: int) -> float:
        taken = []
        with torch.inference_mode():
            for _ in range(times + 2):
                begun = time.perf_counter()
                predict(images)
                taken.append(time.perf_counter() - begun)
        return float(np.median(taken[2:]))

    batch = dataset.images[: SEQUENCE_BATCH if trained.is_sequence else BATCH]
    a_batch = seconds(batch, 5)
    return {
        "all_seconds": a_batch * len(dataset) / len(batch),
        "batch": len(batch),
        "one_seconds": seconds(batch[:1], 50),
    }
