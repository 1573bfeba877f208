"""A LightningDataModule of the user's as a data set: its images are collected once, and this package serves them."""

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
)

from handwriting.data.assemble import assemble
from handwriting.data.dataset import HandwritingSet, LabelledImages
from handwriting.utils.errors import UserError

ABSENT = "MisconfigurationException"  # what Lightning's own dataloaders raise: there is none


def read_datamodule(
    path: str | None = None,
    *,
    datamodule: Any,
    test_fraction: float = 0.2,
    test_seed: int = 0,
    photographs: bool = False,
) -> HandwritingSet:
    """Return the images of a LightningDataModule's train, val and test dataloaders, in the order of their data sets.

    Each loader is gone through once, so that random transforms are applied once; augmentation is the config's. Batches
    are (images, labels): images uint8, or floats of 0…1, (N, H, W) or (N, C, H, W). The classes are called as
    ``datamodule.classes`` or ``class_names``, else by their numbers. Without a test loader, ``test_fraction`` and
    ``test_seed`` are those of assemble; ``test_seed`` is also set before the setup, so that a random split is the same
    in each run and evaluation. ``photographs`` is that of HandwritingSet. Raises UserError for other batches.
    """
    name = type(datamodule).__name__
    if path is not None:
        raise UserError(f"data.path is not for a LightningDataModule: give {name} its path as data.read.datamodule.…=.")
    if not hasattr(datamodule, "train_dataloader"):
        raise UserError(f"data.read.datamodule is a {name}, but a LightningDataModule is expected.")
    with isolate_rng(include_cuda=False):
        random.seed(test_seed)
        np.random.seed(test_seed)
        torch.manual_seed(test_seed)
        datamodule.prepare_data()
        datamodule.setup("fit")
        splits = {
            "train": _collect(datamodule.train_dataloader, name),
            "val": _collect(datamodule.val_dataloader, name),
        }
        datamodule.setup("test")
        splits["test"] = _collect(datamodule.test_dataloader, name)
    found = {split: images for split, images in splits.items() if images is not None}
    if "train" not in found:
        raise UserError(f"{name} has no train_dataloader: write one.")
    names = getattr(datamodule, "classes", None) or getattr(datamodule, "class_names", None)
    if names is None:
        names = range(1 + max(int(split.labels.max()) for split in found.values()))
    whole = assemble(Path(name), found, tuple(map(str, names)), test_fraction, test_seed)
    return HandwritingSet(whole.train, whole.test, whole.class_names, photographs=photographs, val=whole.val)


def _collect(make_loader: Callable[[], Any], name: str) -> LabelledImages | None:
    """Return the images of a dataloader; None if there is none."""
    place = f"{name}.{make_loader.__name__}"
    try:
        loader = make_loader()
    except Exception as error:
        if type(error).__name__ == ABSENT:
            return None
        raise
    if loader is None or loader == []:
        return None
    if isinstance(loader, (dict, list, tuple)):
        raise UserError(f"{place} returns a {type(loader).__name__} of loaders, but one loader is expected.")
    images, labels = [], []
    for batch in _in_order(loader):
        if not isinstance(batch, (list, tuple)) or len(batch) != 2 or not all(isinstance(one, Tensor) for one in batch):
            raise UserError(
                f"{place} makes batches of type {type(batch).__name__}: (images, labels), two tensors, are expected."
            )
        images.append(_as_bytes(batch[0], place))
        labels.append(_as_labels(batch[1], place))
    if not images:
        raise UserError(f"{place} makes no batch: it has no images.")
    return LabelledImages(torch.cat(images), torch.cat(labels))


def _in_order(loader: Any) -> Iterable[Any]:
    """Return a loader's batches in the order of its data set, or as they come if a sampler or the data set decides."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset) or loader.batch_size is None:
        return loader
    dataset: Any = loader.dataset
    if isinstance(loader.sampler, SubsetRandomSampler):
        dataset = Subset(dataset, sorted(map(int, loader.sampler.indices)))
    elif not isinstance(loader.sampler, (RandomSampler, SequentialSampler)):
        return loader
    return DataLoader(dataset, loader.batch_size, num_workers=loader.num_workers, collate_fn=loader.collate_fn)


def _as_bytes(images: Tensor, place: str) -> Tensor:
    """Return images as uint8 (N, C, H, W)."""
    images = images[:, None] if images.ndim == 3 else images
    known_type = images.dtype == torch.uint8 or images.is_floating_point()
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not known_type:
        raise UserError(
            f"{place} makes images {images.dtype} {tuple(images.shape)}: uint8, or floats of 0…1, (N, 1 or 3, H, W), "
            "are expected."
        )
    if images.dtype == torch.uint8:
        return images
    lowest, highest = float(images.min()), float(images.max())
    if not (lowest >= 0 and highest <= 1):  # false for NaN
        raise UserError(
            f"{place} makes images with values from {lowest:g} to {highest:g}: leave out Normalize, so that they are "
            "0…1, as this package normalises them."
        )
    return (images * 255).round().to(torch.uint8)


def _as_labels(labels: Tensor, place: str) -> Tensor:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
        raise UserError(
            f"{place} makes labels {labels.dtype} {tuple(labels.shape)}: whole numbers (N,), from 0, are expected."
        )
    return labels.to(torch.int64)
