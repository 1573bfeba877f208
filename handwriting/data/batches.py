"""Whole batches out of tensors: indexing a batch costs less than asking a data set for each image."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from handwriting.data.sets import LabelledImages


class BatchOrder(Sampler[Tensor]):
    """The indices of each batch; shuffled, they depend on the seed and the epoch and on nothing else."""

    def __init__(
        self, length: int, batch_size: int, shuffle_seed: int | None = None, device: torch.device | str = "cpu"
    ):
        self.length, self.batch_size, self.shuffle_seed, self.device = length, batch_size, shuffle_seed, device
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning says here which epoch begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        # A generator: a run that goes on learns its epoch after the iterator was made, and before the first batch.
        if self.shuffle_seed is None:
            order = torch.arange(self.length)
        else:
            # No two seeds may share an order: seed 0 in epoch 1 is not seed 1 in epoch 0.
            generator = torch.Generator().manual_seed(self.shuffle_seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.length, generator=generator)
        yield from order.to(self.device).split(self.batch_size)


def serve(part: LabelledImages, batch_size: int, shuffle_seed: int | None = None) -> DataLoader:
    """Return a loader of (images uint8 (B, 1, H, W), labels int64 (B,)); the last batch may be smaller.

    Batches lie where the part lies: on a GPU, nothing is copied and no step waits.
    """
    order = BatchOrder(len(part), batch_size, shuffle_seed, part.images.device)
    # A generator of its own: the loader would draw a number, which it never uses, from those of dropout.
    own = torch.Generator()
    return DataLoader(TensorDataset(part.images, part.labels), sampler=order, batch_size=None, generator=own)
