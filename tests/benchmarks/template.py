"""Lightning as templates write it: the same data set, metric objects logged in every step, a bar and two loggers."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its messages would be printed between the tables


class LitClassifier(lightning.LightningModule):
    """A classifier whose metrics are objects, updated and logged in each step."""

    def __init__(self, net: nn.Module, make_optimizer: Callable, classes: int):
        super().__init__()
        self.net, self.make_optimizer = net, make_optimizer
        self.train_loss, self.train_acc = MeanMetric(), MulticlassAccuracy(classes, average="micro")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        logits = self.net(images)
        loss = F.cross_entropy(logits, labels)
        self.train_loss(loss)
        self.train_acc(logits.argmax(1), labels)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.make_optimizer(self.parameters())


class StepClock(lightning.Callback):
    """Times the training steps alone: no set-up, no validation."""

    steps, seconds = 0, 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        type(self).steps, self.start = 0, time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        type(self).steps += 1
        if self.steps == trainer.num_training_batches:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            type(self).seconds = time.perf_counter() - self.start


def train(
    net: nn.Module, make_optimizer: Callable, data: Dataset, batch: int, steps: int, classes: int, folder: Path
) -> float:
    """Train for so many steps; return images per second."""
    loggers = [CSVLogger(folder, name="", version=""), TensorBoardLogger(folder, name="", version="")]
    trainer = lightning.Trainer(
        max_epochs=1,
        limit_train_batches=steps,
        logger=loggers,
        callbacks=[StepClock(), RichProgressBar()],
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(LitClassifier(net, make_optimizer, classes), DataLoader(data, batch_size=batch, shuffle=True))
    return StepClock.steps * batch / StepClock.seconds
