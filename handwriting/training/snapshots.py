"""A learning rate that falls and begins anew, and the nets at the ends of its cycles (Huang et al., 2017)."""

import math
from pathlib import Path

import lightning
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from handwriting.utils.errors import UserError, check_whole


class CosineCycles(CosineAnnealingWarmRestarts):
    """The learning rate of snapshot ensembles (G. Huang et al., 2017, arXiv:1704.00109), to be stepped with each batch.

    In each of ``cycles`` of equal length it falls from the optimizer's rate to 0 along a cosine.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, cycles: int = 5):
        check_whole("scheduler.cycles", cycles, at_least=1)
        super().__init__(optimizer, T_0=math.ceil(total_steps / cycles))


class Snapshots(lightning.Callback):
    """Saves the net at the end of each of ``cycles`` as cycle1.ckpt, cycle2.ckpt … in ``dirpath``."""

    def __init__(self, dirpath: str, cycles: int = 5):
        check_whole("scheduler.cycles", cycles, at_least=1)
        self.folder, self.cycles = Path(dirpath), cycles

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Raise UserError where a cycle would end within an epoch."""
        if (trainer.max_epochs or 0) % self.cycles:
            raise UserError(
                f"trainer.max_epochs={trainer.max_epochs} must be a multiple of scheduler.cycles={self.cycles}."
            )

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the net where a cycle ends."""
        epochs, length = trainer.current_epoch + 1, (trainer.max_epochs or 1) // self.cycles
        if epochs % length == 0:
            trainer.save_checkpoint(self.folder / f"cycle{epochs // length}.ckpt", weights_only=True)
