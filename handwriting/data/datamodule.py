"""The LightningDataModule: a data set in memory, split, limited and served as whole batches."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import lightning
import torch
from torch import Tensor

from handwriting.data.augment import Augmentation, Targets
from handwriting.data.checks import bright_on_dark, check_classes, check_repeated
from handwriting.data.dataset import HandwritingSet, LabelledImages
from handwriting.data.loader import Batches, BatchLists, serve
from handwriting.data.splits import Stratum, draw_subset, split_training
from handwriting.data.variants import NOTEBOOK, expand
from handwriting.utils.errors import UserError

LIST_LENGTH, LIST_IMAGES = 50, 16_384  # most batches and images in a list of batches
EVAL_BATCH = 500  # validation and test need no gradients, which allows larger batches


class DataModule(lightning.LightningDataModule):
    """A handwriting data set in memory, with a validation set split off its training set if it has none of its own.

    ``split``, ``val_fraction``, ``folds``, ``fold`` and ``split_seed`` are those of split_training; ``val_fraction`` 0
    means an empty validation set. They do not apply to a data set with a validation set of its own. ``held_out`` are
    the indices of the validation set in the published training set. ``augmentation`` is applied in training. ``invert``
    true means that the images are dark on bright and are to be inverted; ``auto`` decides by their borders; photographs
    and colour images are never inverted. ``is_sequence`` says whether an image has several characters, ``max_length``
    how many at most. With ``notebook_form`` there are four test sets, as in the characters notebook: also the training
    set, and both in its seven offline variants. ``read`` loads the data set and gets all further settings. Raises
    UserError if a number is out of its range or the data cannot be read.
    """

    train: LabelledImages
    val: LabelledImages
    test: LabelledImages

    def __init__(
        self,
        name: str,
        read: Callable[..., HandwritingSet],
        path: str | None = None,
        invert: bool | str = "auto",
        batch_size: int = 64,
        val_fraction: float = 0.1,
        split: str = "holdout",
        folds: int = 5,
        fold: int = 0,
        split_seed: int = 0,
        limit: int | None = None,
        shuffle_seed: int | None = 0,
        notebook_form: bool = False,
        augmentation: Augmentation | None = None,
        **for_loader: Any,
    ):
        super().__init__()
        self.name, self.batch_size, self.shuffle_seed, self.split = name, batch_size, shuffle_seed, split
        self.notebook_form, self.augmentation = notebook_form, augmentation or Augmentation()
        self.in_lists = False  # whether training batches come in lists, as for compile=graph
        whole = _load(read, path, for_loader)
        source = name if path is None else str(path)
        self.channels = whole.channels
        self.photographs = whole.photographs or self.channels > 1
        whole = bright_on_dark(whole, invert, source)
        self.is_sequence = whole.train.labels.ndim == 2
        if self.is_sequence and notebook_form:
            raise UserError(
                f"data.notebook_form=true is for images of single characters, and those of {name} have several."
            )
        strata = whole.train.strata
        stratum = Stratum("length") if self.is_sequence else Stratum("class", whole.class_names)
        if whole.val is None:
            kept, self.held_out = split_training(strata, split, val_fraction, folds, fold, split_seed, stratum)
        elif split == "holdout":
            kept, self.held_out = torch.arange(len(strata)), torch.arange(0)
        else:
            raise UserError(f"data.split={split} makes validation sets, but {source} has its own: leave it out.")
        if limit is not None:
            kept = kept[draw_subset(strata[kept], limit, split_seed, stratum)]
        self.train, self.test = whole.train[kept], whole.test
        self.val = whole.train[self.held_out] if whole.val is None else whole.val
        self.class_names, self.glyphs, self.image_size = whole.class_names, whole.glyphs, whole.image_size
        self.max_length = whole.train.labels.shape[1] if self.is_sequence else 1
        check_classes(self.train, self.test, self.class_names, source)
        check_repeated(whole.train, self.test, source)

    def mean_and_std(self) -> tuple[float, float]:
        """Return mean and standard deviation of the training pixels of all channels, scaled to 0…1."""
        counts = torch.bincount(self.train.images.flatten(), minlength=256).double()
        levels = torch.arange(256, dtype=torch.float64) / 255
        mean = (counts * levels).sum() / counts.sum()
        variance = (counts * (levels - mean) ** 2).sum() / counts.sum()
        return mean.item(), variance.sqrt().item()

    @cached_property
    def seen_in_training(self) -> LabelledImages:
        """The training images in each of the augmentation's offline variants."""
        return self.augmentation.expand(self.train)

    @cached_property
    def test_parts(self) -> dict[str, LabelledImages]:
        """The test sets by the prefix of their metrics; ``test`` is the published test set."""
        if not self.notebook_form:
            return {"test": self.test}
        augmented = {"test_augmented": expand(self.test, NOTEBOOK), "train_augmented": expand(self.train, NOTEBOOK)}
        return {"test": self.test, "train_clean": self.train, **augmented}

    def train_dataloader(self) -> Batches | BatchLists:
        """Serve the training images, shuffled each epoch unless ``shuffle_seed`` is None; in lists if ``in_lists``."""
        batches = serve(self.seen_in_training.to(self._device()), self.batch_size, self.shuffle_seed, self._process())
        length = min(LIST_LENGTH, max(LIST_IMAGES // self.batch_size, 1))
        return BatchLists(batches, length) if self.in_lists else batches

    def val_dataloader(self) -> Batches | list[Batches]:
        """Serve the validation images in a fixed order; no loader if there are none."""
        return self._serve_own(self.val) if len(self.val) else []

    def test_dataloader(self) -> list[Batches]:
        """Serve each of ``test_parts`` in a fixed order."""
        return [self._serve_own(dataset) for dataset in self.test_parts.values()]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment a training batch, or each of a list, on its device; not in the final epochs without augmentation."""
        trainer: Any = self.trainer
        if not trainer.training or trainer.current_epoch >= trainer.max_epochs - self.augmentation.clean_epochs:
            return batch
        if isinstance(batch, list):
            return [self._augment(*one) for one in batch]
        return self._augment(*batch)

    def _augment(self, images: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        trainer: Any = self.trainer
        generator = self.augmentation.generator(trainer.current_epoch, images.device, trainer.global_rank)
        return self.augmentation.vary(images, targets, len(self.class_names), generator)

    def _serve_own(self, dataset: LabelledImages) -> Batches:
        """Serve this process's images of a split: every second one of two processes."""
        rank, processes = self._process()
        return serve(dataset[torch.arange(rank, len(dataset), processes)].to(self._device()), EVAL_BATCH)

    def _process(self) -> tuple[int, int]:
        """Return the rank of this process and the number of processes."""
        trainer: Any = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)

    def _device(self) -> torch.device:
        """Return the trainer's device; the data set is small enough to be there as a whole."""
        trainer: Any = self.trainer
        return trainer.strategy.root_device if trainer else torch.device("cpu")


def _load(read: Callable[..., HandwritingSet], path: str | None, settings: dict[str, Any]) -> HandwritingSet:
    """Return what a loader returns. Raises UserError if that is no data set, or if ``read`` is no loader."""
    if not callable(read):
        raise UserError(
            f"data.read is a {type(read).__name__}, but a function that returns a HandwritingSet is expected: add "
            "_partial_: true beside its _target_."
        )
    whole = read(**settings) if path is None else read(path, **settings)
    if not isinstance(whole, HandwritingSet):
        name = getattr(getattr(read, "func", read), "__qualname__", "data.read")
        raise UserError(f"{name} returns a {type(whole).__name__}, but a HandwritingSet is expected.")
    return whole
