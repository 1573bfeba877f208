"""Whole batches out of tensors: indexing a batch costs less than asking a data set for each image."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from handwriting.data.sets import LabelledImages
from handwriting.errors import UserError


class BatchOrder(Sampler[Tensor]):
    """The indices of each batch; shuffled, they depend on the seed and the epoch and on nothing else.

    Several processes share each batch, index by index; ``share`` is the number of this one and how many there are.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        shuffle_seed: int | None = None,
        device: torch.device | str = "cpu",
        share: tuple[int, int] = (0, 1),
    ):
        self.length, self.batch_size, self.shuffle_seed, self.device = length, batch_size, shuffle_seed, device
        self.rank, self.processes = share
        self.epoch = 0
        if 0 < (length % batch_size or batch_size) < self.processes:
            raise UserError(
                f"data.batch_size={batch_size} leaves a last batch of {length % batch_size or batch_size} for "
                f"{self.processes} processes, and so none for some of them: choose another."
            )

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
        for batch in order.to(self.device).split(self.batch_size):
            yield batch[self.rank :: self.processes]


def serve(
    part: LabelledImages, batch_size: int, shuffle_seed: int | None = None, share: tuple[int, int] = (0, 1)
) -> DataLoader:
    """Return a loader of (images uint8 (B, 1, H, W), labels int64 (B,)); the last batch may be smaller.

    Batches lie where the part lies: on a GPU, nothing is copied and no step waits. ``share`` as in BatchOrder.
    """
    order = BatchOrder(len(part), batch_size, shuffle_seed, part.images.device, share)
    # A generator of its own: the loader would draw a number, which it never uses, from those of dropout.
    own = torch.Generator()
    return DataLoader(TensorDataset(part.images, part.labels), sampler=order, batch_size=None, generator=own)
