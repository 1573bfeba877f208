"""Loss and accuracy over the images seen, counted batch by batch without waiting for the device."""

from collections.abc import Callable

import torch
from torch import Tensor

MOST_WITHOUT_TOP5 = 10  # classes; of so few, the five likeliest say little
SMALLEST = 1e-12  # a probability below it counts as it, in a loss and in what several nets predict together


class Tally:
    """Mean loss and accuracy over the images seen, summed on the device so that no step waits for it.

    ``top`` counts an image as read when its label is among so many of the likeliest classes, and 1 is accuracy.
    """

    def __init__(self, top: tuple[int, ...] = (1,)):
        self.top = top
        # A row a batch, summed up at the end: a step of a small net takes 3 ms, and each operation of torch 5 µs.
        self.images: list[int] = []
        self.losses: list[Tensor] = []
        self.right: list[Tensor] = []

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: its mean loss, logits (B, classes) and labels (B,)."""
        self.images.append(len(labels))
        self.losses.append(loss.detach())
        if self.top == (1,):
            self.right.append((logits.argmax(1) == labels).sum()[None])
        else:
            hits = logits.topk(max(self.top)).indices == labels[:, None]
            right = [hits[:, :n].sum() if n > 1 else (logits.argmax(1) == labels).sum() for n in self.top]
            self.right.append(torch.stack(right))

    def means(self, add_up: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, float]:
        """Return the mean loss in nats, the accuracy and other shares as fractions: loss, acc, top5, ….

        ``add_up`` returns the sum of a tensor over all processes.
        """
        names = ["loss", *("acc" if n == 1 else f"top{n}" for n in self.top)]
        sums = torch.zeros(len(names) + 1)
        if self.images:
            images = torch.tensor(self.images, dtype=torch.float32, device=self.losses[0].device)
            loss = torch.stack(self.losses).float() @ images
            sums = torch.cat([loss[None], torch.stack(self.right).sum(0).float(), images.sum()[None]])
        *totals, number = add_up(sums).tolist()
        return {name: total / number for name, total in zip(names, totals, strict=True)}
