"""The LightningDataModule: a reader's set, split, limited and served as whole batches."""

from collections.abc import Callable

import lightning
import torch
from torch.utils.data import DataLoader

from handwriting.data.batches import serve
from handwriting.data.sets import HandwritingSet, LabelledImages
from handwriting.data.splits import draw_subset, split_holdout
from handwriting.errors import LARGEST_SEED, UserError, check_whole

EVAL_BATCH = 500  # validation and test keep no gradients: larger batches, and the last one is seldom ragged


class DataModule(lightning.LightningDataModule):
    """A handwriting data set in memory, with a validation part drawn from its training part.

    Raises UserError when a number is out of its range or the data cannot be read.
    """

    train: LabelledImages
    val: LabelledImages
    test: LabelledImages

    def __init__(
        self,
        name: str,
        read: Callable[..., HandwritingSet],
        path: str | None = None,
        batch_size: int = 64,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        limit: int | None = None,
        shuffle_seed: int = 0,
    ):
        super().__init__()
        check_whole("data.batch_size", batch_size, at_least=1)
        check_whole("data.split_seed", split_seed, at_least=0, at_most=LARGEST_SEED)
        check_whole("data.shuffle_seed", shuffle_seed, at_least=0, at_most=LARGEST_SEED)
        if limit is not None:
            check_whole("data.limit", limit, at_least=1)
        if not (isinstance(val_fraction, float) and 0 < val_fraction < 1):
            raise UserError(f"data.val_fraction={val_fraction} must lie between 0 and 1, both excluded.")
        self.name, self.batch_size, self.shuffle_seed = name, batch_size, shuffle_seed
        whole = read() if path is None else read(path)
        kept, held_out = split_holdout(whole.train.labels, val_fraction, split_seed)
        if limit is not None:
            kept = kept[draw_subset(whole.train.labels[kept], limit, split_seed)]
        self.train, self.val, self.test = whole.train[kept], whole.train[held_out], whole.test
        self.class_names, self.image_size = whole.class_names, whole.image_size

    def mean_and_std(self) -> tuple[float, float]:
        """Return mean and standard deviation of the training pixels on the scale 0…1."""
        counts = torch.bincount(self.train.images.flatten(), minlength=256).double()
        levels = torch.arange(256, dtype=torch.float64) / 255
        mean = (counts * levels).sum() / counts.sum()
        variance = (counts * (levels - mean) ** 2).sum() / counts.sum()
        return mean.item(), variance.sqrt().item()

    def train_dataloader(self) -> DataLoader:
        """Serve the training images in a new order each epoch."""
        return serve(self.train, self.batch_size, self.shuffle_seed)

    def val_dataloader(self) -> DataLoader:
        """Serve the held-out images in their fixed order."""
        return serve(self.val, EVAL_BATCH)

    def test_dataloader(self) -> DataLoader:
        """Serve the published test images in their fixed order."""
        return serve(self.test, EVAL_BATCH)
