"""Evaluation of trained models on a split of the data: probabilities, scores, confusion, speed."""

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from handwriting.data import DataModule, LabelledImages
from handwriting.inference.checkpoints import Trained, check_targets, predict_proba
from handwriting.inference.ensembles import combine, stack
from handwriting.models.image_classifier import BATCH
from handwriting.runs.config import compose_data, name_folder
from handwriting.runs.instantiate import build
from handwriting.runs.record import flatten, read_result
from handwriting.utils.errors import UserError
from handwriting.utils.metrics import confusion, score

TOGETHER = {"mean": "mean", "logits": "mean of the logits", "vote": "vote", "stack": "stack"}  # by ensemble=…
NOT_IMAGES = {"batch_size", "shuffle_seed"}  # data settings that do not change the images


@dataclass
class Evaluation:
    """The predictions and scores of a model, or of an ensemble, on a split."""

    name: str
    probabilities: Tensor  # (N, classes)
    counts: np.ndarray  # (true class, predicted class)
    scores: dict[str, float]


@dataclass
class Group:
    """The models that are evaluated on the same data: equal class names, image size, images and labels."""

    name: str  # of the data set
    label: str  # the name, and the data settings that were given or that differ between groups of that name
    part: LabelledImages  # the split
    class_names: Sequence[str]
    glyphs: Sequence[str]
    trained: list[Trained]


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
            data, dataset = read_part(net, split, settings)
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


def read_part(trained: Trained, split: str, settings: Sequence[str]) -> tuple[DataModule, LabelledImages]:
    """Load a split of the data of a model, changed by ``settings``. Raises UserError if it does not fit the model."""
    if not isinstance(config := trained.settings.get("data"), Mapping):
        raise UserError(f"{trained.path} does not say which data it was trained on.")
    check_targets(config, "data", trained.path)
    data: DataModule = build("data", compose_data(dict(config), settings))
    dataset = {"test": data.test, "val": data.val, "train": data.train}[split]
    if tuple(data.class_names) != trained.class_names:
        raise UserError(
            f"{trained.name} has {len(trained.class_names)} classes ({', '.join(trained.class_names[:3])}, …), and "
            f"data={data.name} has {len(data.class_names)} ({', '.join(data.class_names[:3])}, …): they do not fit."
        )
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


def evaluate_predictions(name: str, probabilities: Tensor, labels: Tensor) -> Evaluation:
    """Score probabilities (N, classes) against the labels (N,)."""
    counts = confusion(probabilities.argmax(1), labels, probabilities.shape[1])
    return Evaluation(name, probabilities, counts, score(probabilities, labels))


def without_common(names: Sequence[str]) -> list[str]:
    """Return the names of runs without the overrides that all of them share: seed=1 for optim=adam,seed=1."""
    overrides = [re.split(r",(?![^\[]*\])", name) for name in names]
    common = set(overrides[0]).intersection(*overrides[1:]) if len(names) > 1 else set()
    return [
        ",".join(one for one in own if one not in common) or name for own, name in zip(overrides, names, strict=True)
    ]


def evaluate_all(
    trained: Sequence[Trained], dataset: LabelledImages, way: str = "mean", views: int = 1, augment: str = ""
) -> list[Evaluation]:
    """Evaluate each model and, if there are several, their ensemble; with ``views`` > 1 also with TTA."""
    names = without_common([net.name for net in trained])
    found: list[Evaluation] = []
    for number in (1, views) if views > 1 else (1,):
        seen = f", {number} views" if number > 1 else ""
        answers = [predict_proba(net, dataset.images, number, augment) for net in trained]
        found += [
            evaluate_predictions(name + seen, answer, dataset.labels)
            for name, answer in zip(names, answers, strict=True)
        ]
        if len(answers) > 1:
            together = _stack(trained, answers) if way == "stack" else combine(answers, way)
            found.append(evaluate_predictions(f"{TOGETHER[way]} of the {len(answers)}{seen}", together, dataset.labels))
    return found


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


def measure_speed(trained: Trained, dataset: LabelledImages) -> dict[str, float]:
    """Measure the time in seconds for the whole split in batches and for one image: medians after a warm-up."""
    model, device = trained.model, trained.model.mean.device

    def seconds(images: Tensor, times: int) -> float:
        taken = []
        with torch.inference_mode():
            for _ in range(times + 2):
                begun = time.perf_counter()
                model(images.to(device)).argmax(1).cpu()
                taken.append(time.perf_counter() - begun)
        return float(np.median(taken[2:]))

    batch = dataset.images[:BATCH]
    a_batch = seconds(batch, 5)
    return {
        "all_seconds": a_batch * len(dataset) / len(batch),
        "batch": len(batch),
        "one_seconds": seconds(batch[:1], 50),
    }
