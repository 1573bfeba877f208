"""The LightningModule: a net and an optimizer, trained with cross-entropy and measured by accuracy."""

import inspect
from collections.abc import Callable
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau
from torchmetrics.classification import MulticlassConfusionMatrix

from handwriting.errors import UserError


class Tally:
    """Mean loss and accuracy over the images seen, summed on the device so that no step waits for it."""

    def __init__(self):
        self.images, self.loss, self.right = 0, torch.zeros(()), torch.zeros((), dtype=torch.int64)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: its mean loss, logits (B, classes) and labels (B,)."""
        self.images += len(labels)
        self.loss = self.loss.to(loss.device) + loss.detach() * len(labels)
        self.right = self.right.to(loss.device) + (logits.argmax(1) == labels).sum()

    def means(self) -> tuple[float, float]:
        """Return (mean loss in nats, accuracy as a fraction)."""
        return self.loss.item() / self.images, self.right.item() / self.images


class Classifier(lightning.LightningModule):
    """Reads uint8 images (N, 1, H, W) with a net that sees them normalised by ``mean`` and ``std`` (scale 0…1).

    ``optimizer`` makes the optimizer of the parameters, ``scheduler`` its scheduler or None. ``facts`` is plain data
    that the checkpoint carries, so that what was trained can be rebuilt from the file alone.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler | ReduceLROnPlateau] | None = None,
        num_classes: int = 10,
        mean: float = 0.0,
        std: float = 1.0,
        facts: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.net, self.make_optimizer, self.make_scheduler = net, optimizer, scheduler
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        self.facts = facts or {}
        self.confusion = MulticlassConfusionMatrix(num_classes)
        self.history: list[dict[str, float]] = []  # one row of metrics an epoch
        self.test_metrics: dict[str, float] = {}
        self.tally = {part: Tally() for part in ("train", "val", "test")}
        self.step_losses: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of uint8 images (N, 1, H, W)."""
        return self.net((images.to(self.mean.dtype) / 255 - self.mean) / self.std)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mean cross-entropy of a batch, in nats."""
        loss, _ = self._read(batch, "train")
        self.step_losses.append(loss.detach())
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count a batch of the held-out images."""
        self._read(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Count a batch of the test images, and which class was taken for which."""
        _, logits = self._read(batch, "test")
        self.confusion.update(logits, batch[1])

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the mean loss of the last steps: one wait for the device and one point in the curve."""
        if self.global_step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log_step_losses()

    def on_train_epoch_start(self) -> None:
        """Begin the epoch's row of metrics."""
        self.history.append({"epoch": self.current_epoch})

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means over the batches as they were trained, and the learning rate used."""
        self._log_step_losses()
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        self._log_means("train")

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy of the held-out images."""
        self._log_means("val")

    def on_test_epoch_end(self) -> None:
        """Log loss and accuracy of the test images."""
        self._log_means("test")

    def configure_optimizers(self) -> Any:
        """Make the optimizer and its scheduler; UserError when their settings are impossible."""
        optimizer = make("optim", self.make_optimizer, self.parameters())
        if self.make_scheduler is None:
            return optimizer
        kind = getattr(self.make_scheduler, "func", None)
        by_step = inspect.isclass(kind) and issubclass(kind, OneCycleLR)
        length = {"total_steps": int(self.trainer.estimated_stepping_batches)} if by_step else {}
        scheduler = make("scheduler", self.make_scheduler, optimizer, **length)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": scheduler,
                "interval": "step" if by_step else "epoch",
                "monitor": "val/loss",  # what plateau looks at; the others ignore it
            },
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the facts beside the weights, as plain data that loads with ``weights_only=True``."""
        checkpoint["handwriting"] = self.facts

    def _read(self, batch: tuple[Tensor, Tensor], part: str) -> tuple[Tensor, Tensor]:
        """Count a batch for a part, and return its mean loss and logits (B, classes)."""
        images, labels = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels)
        self.tally[part].add(loss, logits, labels)
        return loss, logits

    def _log_means(self, part: str) -> None:
        loss, accuracy = self.tally[part].means()
        self.tally[part] = Tally()
        row = {f"{part}/loss": loss, f"{part}/acc": accuracy}
        self.log_dict(row)
        if part == "test":
            self.test_metrics = row
        elif self.history:
            self.history[-1].update(row)

    def _log_step_losses(self) -> None:
        if self.step_losses:
            mean = torch.stack(self.step_losses).mean().item()
            for logger in self.loggers:
                logger.log_metrics({"train/loss_step": mean}, step=self.global_step)
            self.step_losses.clear()


def make(part: str, maker: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """Call the maker of an optimizer or scheduler; what it finds wrong becomes a UserError that names the part."""
    try:
        return maker(*arguments, **more)
    except ValueError as error:
        raise UserError(f"{part}: {error}.") from error
    except TypeError as error:
        raise UserError(f"{part}: a setting has a name or type that it does not take ({error}).") from error
