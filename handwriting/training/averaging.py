"""Averages of weights over the course of a training."""

import math

import lightning
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from handwriting.utils.errors import check_number


class EpochAveraging(WeightAveraging):
    """The mean of the weights at the ends of the last epochs, from ``start`` on, a share of all epochs.

    P. Izmailov et al., 2018, arXiv:1803.05407. Up to there the average is the weights themselves, so that validation
    sees what is trained. The statistics of batch norm are averaged like the weights; the paper measures them anew.
    """

    def __init__(self, start: float = 0.75):
        check_number("callbacks.swa.start", start, at_least=0, at_most=1)
        super().__init__(use_buffers=True, avg_fn=self._mean)
        self.start = start
        self._steps, self._first = 1, 0  # of an epoch; the epoch that is averaged first

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Find out how long an epoch is."""
        epochs = trainer.max_epochs or 1
        self._steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        self._first = min(int(self.start * epochs), epochs - 1)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether a step ends an epoch: before validation, which reads with the average."""
        return step_idx is not None and (step_idx + 1) % self._steps == 0

    def _mean(self, average: Tensor, current: Tensor, epochs: Tensor | int) -> Tensor:
        """Return the average of one more epoch; ``epochs`` is how many were added before."""
        averaged = int(epochs) - self._first
        if averaged <= 0 or not average.is_floating_point():
            return current.clone()
        return average + (current - average) / (averaged + 1)
