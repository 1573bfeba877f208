"""Whole batches out of tensors: indexing a batch costs less than asking a data set for each image."""

from collections.abc import Iterator

import torch
from torch import Tensor

from handwriting.data.dataset import LabelledImages
from handwriting.utils.errors import UserError


class BatchOrder:
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

    @property
    def sampler(self) -> "BatchOrder":
        """Return whom Lightning is to tell the epoch; under this name it looks for that."""
        return self

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


class Batches:
    """A part's images uint8 (B, 1, H, W) and labels int64 (B,), batch by batch in an order.

    They lie where the part lies: on a GPU, nothing is copied and no step waits. In place of torch's DataLoader, whose
    layers cost more than the indexing: a step of a small net takes 3 ms.
    """

    def __init__(self, part: LabelledImages, order: BatchOrder):
        self.part, self.batch_sampler = part, order

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self.part.images, self.part.labels
        for index in self.batch_sampler:
            yield images[index], labels[index]


def serve(
    part: LabelledImages, batch_size: int, shuffle_seed: int | None = None, share: tuple[int, int] = (0, 1)
) -> Batches:
    """Return the batches of a part; the last may be smaller. Without a seed the order is the given one."""
    return Batches(part, BatchOrder(len(part), batch_size, shuffle_seed, part.images.device, share))
