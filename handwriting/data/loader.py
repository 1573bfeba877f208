"""Batches by indexing tensors, which is faster than fetching image by image."""

from collections.abc import Iterator
from itertools import accumulate, islice, pairwise

import torch
from torch import Tensor

from handwriting.data.dataset import LabelledImages, Sequences
from handwriting.utils.errors import UserError


class BatchOrder:
    """The indices of each batch. If shuffled, they depend only on the seed and the epoch.

    Several processes share each batch; ``share`` is the rank of this process and the number of processes.
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
                f"{self.processes} processes, so that some of them get no image: choose another value."
            )

    @property
    def sampler(self) -> "BatchOrder":
        """Return the object whose ``set_epoch`` Lightning calls; it looks for this name."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        # A generator: a resumed run sets its epoch after the iterator is made and before the first batch.
        if self.shuffle_seed is None:
            order = torch.arange(self.length)
        else:
            # Different seeds must not share an order: seed 0 in epoch 1 is not seed 1 in epoch 0.
            generator = torch.Generator().manual_seed(self.shuffle_seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.length, generator=generator)
        for batch in order.to(self.device).split(self.batch_size):
            yield batch[self.rank :: self.processes]


class Batches:
    """Batches of images, uint8 (B, C, H, W), and their targets, labels (B,) or Sequences, in a given order.

    They are made on the device of the data: on a GPU, nothing is copied. This replaces torch's DataLoader, which takes
    longer than the indexing; a step of a small model takes 3 ms.
    """

    def __init__(self, dataset: LabelledImages, order: BatchOrder):
        # Not self.dataset: with overfit_batches Lightning would rebuild a loader that has it as torch's DataLoader.
        self.data, self.batch_sampler = dataset, order

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | Sequences]]:
        for index in self.batch_sampler:
            yield self.data.batch(index)


class BatchLists:
    """Lists of up to ``length`` batches each: what ``compile=graph`` trains in one call of Lightning."""

    def __init__(self, batches: Batches, length: int):
        self.data, self.batch_sampler, self.length = batches.data, batches.batch_sampler, length

    def __len__(self) -> int:
        return -(-len(self.batch_sampler) // self.length)

    def __iter__(self) -> Iterator[list[tuple[Tensor, Tensor | Sequences]]]:
        indices = iter(self.batch_sampler)
        while some := list(islice(indices, self.length)):
            together = self.data[torch.cat(some)]  # one copy for all
            ends = list(accumulate(map(len, some)))
            yield [together.batch(slice(start, end)) for start, end in pairwise([0, *ends])]


def serve(
    dataset: LabelledImages, batch_size: int, shuffle_seed: int | None = None, share: tuple[int, int] = (0, 1)
) -> Batches:
    """Return the batches of a split; the last may be smaller. Without a seed the order is unchanged."""
    return Batches(dataset, BatchOrder(len(dataset), batch_size, shuffle_seed, dataset.images.device, share))
