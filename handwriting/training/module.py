"""The LightningModules: what every training has, and the training of a network for single characters."""

import inspect
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

import lightning
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torchmetrics.classification import MulticlassConfusionMatrix

from handwriting.models.image_classifier import ImageClassifier
from handwriting.training.resume import random_states, restore_random_states
from handwriting.utils.errors import DivergedError, UserError, naming_the_line
from handwriting.utils.metrics import MOST_WITHOUT_TOP5, Tally

PLATEAU_METRIC = "val/loss"  # what scheduler=plateau monitors


class TrainingModule(lightning.LightningModule):
    """What the training of every network has: optimizer, scheduler, logs, progress and resume.

    Validation and test are counted by ``tally``; a subclass computes loss_and_counts and evaluate_batch.
    """

    def prepare(
        self,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler | ReduceLROnPlateau] | None,
        facts: dict[str, Any] | None,
        loss: nn.Module | None,
        tally: dict[str, Tally],
        stop_on_nan: bool,
    ) -> None:
        """Set what training needs; ``tally`` has counters for train, val and each test set."""
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.facts, self.loss, self.stop_on_nan = facts or {}, loss or nn.CrossEntropyLoss(), stop_on_nan
        self.tally, self.test_parts = tally, tuple(part for part in tally if part not in ("train", "val"))
        self.history: list[dict[str, float]] = []  # one row of metrics per epoch
        self.test_metrics: dict[str, float] = {}
        self.step_losses: list[Tensor] = []
        self.seconds = 0.0  # of training before this process resumed it
        self.frozen: list[nn.Module] = []  # layers that are always in eval mode
        self._begun = 0.0
        self._step = 0  # after the last batch
        self._random: dict[str, Any] | None = None

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; frozen layers stay in eval mode, so that their batch norms keep their statistics."""
        super().train(mode)
        for layer in self.frozen:
            layer.training = False
        return self

    def loss_and_counts(self, images: Tensor, targets: Any) -> tuple[Tensor, Tensor]:
        """Return the mean loss of a training batch, and what the tally counts in it."""
        raise NotImplementedError

    def evaluate_batch(self, batch: tuple[Tensor, Any], part: str) -> Any:
        """Count a batch of a split, in the precision of the weights, and return what the network predicts."""
        raise NotImplementedError

    def training_step(self, batch: tuple[Tensor, Any], batch_idx: int) -> Tensor:
        """Return the mean loss of a batch."""
        images, targets = batch
        loss, counts = self.loss_and_counts(images, targets)
        self.tally["train"].add(len(images), loss, counts)
        if (processes := _processes()) > 1:  # the mean over the whole batch, which the processes share
            loss = loss * processes * len(images) / self._add_up(loss.new_tensor(len(images)))
        self.step_losses.append(loss.detach())
        return loss

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)

    @property
    def total_steps(self) -> int:
        """Optimizer steps in the whole training; loads the training data."""
        return int(self.trainer.estimated_stepping_batches)

    def validation_step(self, batch: tuple[Tensor, Any], batch_idx: int) -> None:
        """Count a validation batch."""
        self.evaluate_batch(batch, "val")

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the mean loss of the last steps, of one or more batches each: the device is synchronised once."""
        stepped, self._step = self.global_step != self._step, self.global_step
        if stepped and self.global_step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log_step_losses()

    def on_fit_start(self) -> None:
        """Start the clock."""
        self._begun, self._seed = time.perf_counter(), torch.initial_seed()

    def on_train_start(self) -> None:
        """Train no further if the run had been stopped early before it was interrupted."""
        if any(callback.stopped_epoch for callback in self.trainer.early_stopping_callbacks):
            self.trainer.should_stop = True

    def on_train_epoch_start(self) -> None:
        """Begin the epoch's row of metrics; the first after a resume restores the random states."""
        self.history.append({"epoch": self.current_epoch})
        self._step = self.global_step
        if self._random:
            restore_random_states(self._random)
            self._random = None
            self._catch_up_plateau()
        if self.global_rank:  # each of several processes has its own dropout
            torch.manual_seed(self._seed + 1_000_003 * self.global_rank + self.current_epoch)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means over the training batches, and the learning rate."""
        self._log_step_losses()
        row = {"lr": self.trainer.optimizers[0].param_groups[0]["lr"], **self._means("train")}
        self.log_dict(row, logger=False)
        for logger in self.loggers:  # before the checkpoint of the epoch; Lightning would log them after it
            logger.log_metrics({"epoch": self.current_epoch, **row}, step=self.global_step - 1)

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy of the validation set."""
        self.log_dict(self._means("val"))

    def on_test_epoch_end(self) -> None:
        """Log loss and accuracy of each test set."""
        for part in self.test_parts:
            self.log_dict(self._means(part))

    def in_order(self, mine: Any) -> Any:
        """Return what each test image has, a tensor (N, …) or a list, from the shares of all processes."""
        shares = self.from_all([mine])
        if len(shares) == 1:
            return mine
        total = sum(map(len, shares))
        every = mine.new_empty(total, *mine.shape[1:]) if isinstance(mine, Tensor) else [None] * total
        for rank, share in enumerate(shares):  # every second image of two processes
            every[rank :: len(shares)] = share
        return every

    def from_all(self, mine: list[Any]) -> list[Any]:
        """Return the lists of all processes as one, in the order of the processes."""
        if _processes() == 1:
            return mine
        every: list[list[Any]] = [[] for _ in range(distributed.get_world_size())]
        distributed.all_gather_object(every, mine)
        return [one for some in every for one in some]

    def configure_optimizers(self) -> Any:
        """Make the optimizer and its scheduler for the steps of this training."""
        return self.make_optimization(self.total_steps)

    def make_optimization(self, steps: int) -> Any:
        """Make the optimizer and its scheduler for ``steps``. Raises UserError if their settings are invalid."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = make("optim", self.make_optimizer, trained)
        if self.make_scheduler is None:
            return optimizer
        kind = getattr(self.make_scheduler, "func", None)
        by_step = inspect.isclass(kind) and "total_steps" in inspect.signature(kind).parameters
        length = {"total_steps": steps} if by_step else {}
        scheduler = make("scheduler", self.make_scheduler, optimizer, **length)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": scheduler,
                "interval": "step" if by_step else "epoch",
                "monitor": PLATEAU_METRIC,  # the others ignore it
            },
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the facts and the progress of training to the checkpoint, as data that ``weights_only=True`` loads."""
        checkpoint["handwriting"] = self.facts
        seconds = self.seconds + time.perf_counter() - self._begun
        checkpoint["progress"] = {"history": self.history, "seconds": seconds, "random": random_states()}
        for logger in self.loggers:
            logger.save()  # flush the logs to disk

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume from the checkpoint; a test uses only the weights."""
        if self.trainer.training and "progress" in checkpoint:
            progress = checkpoint["progress"]
            self.history, self.seconds, self._random = progress["history"], progress["seconds"], progress["random"]

    def _catch_up_plateau(self) -> None:
        """Let a scheduler that monitors val/loss see that of the last epoch, as Lightning does after its checkpoint."""
        for one in self.trainer.lr_scheduler_configs:
            scheduler = one.scheduler
            if isinstance(scheduler, ReduceLROnPlateau) and scheduler.last_epoch < self.current_epoch:
                last = self.history[-2]
                if PLATEAU_METRIC in last:
                    scheduler.step(torch.tensor(last[PLATEAU_METRIC]).item())  # in float32, as it is logged

    def _means(self, part: str) -> dict[str, float]:
        """Return and record loss and accuracy of a split, and reset the counters."""
        row = {f"{part}/{name}": value for name, value in self.tally[part].means(self._add_up).items()}
        self.tally[part] = self.tally[part].empty()
        if part in self.test_parts:
            self.test_metrics |= row
        elif self.history:
            self.history[-1].update(row)
        return row

    def _add_up(self, values: Tensor) -> Tensor:
        """Return the sum over all processes that train or test together."""
        if _processes() == 1:
            return values
        return self.trainer.strategy.reduce(values.clone().to(self.device), reduce_op="sum")

    def _log_step_losses(self) -> None:
        if self.step_losses:
            mean = (self._add_up(torch.stack(self.step_losses).mean()) / _processes()).item()
            if self.stop_on_nan and not math.isfinite(mean):
                raise DivergedError(
                    f"The training loss became {mean} up to step {self.global_step} (epoch {self.current_epoch + 1}): "
                    "try a lower optim.lr or trainer.gradient_clip_val=1."
                )
            for logger in self.loggers:
                logger.log_metrics({"train/loss_step": mean}, step=self.global_step)
            self.step_losses.clear()


class Classifier(ImageClassifier, TrainingModule):
    """An ImageClassifier in training: a network, its normalisation, and what Lightning calls.

    ``optimizer`` makes the optimizer of the parameters, ``scheduler`` its scheduler or None. Training minimises
    ``loss``, of logits (B, classes) and labels (B,) or soft targets (B, classes); validation and test report the
    cross-entropy, whatever the loss. ``facts`` is plain data in the checkpoint, so that the model can be rebuilt from
    the file alone. ``test_parts`` names the test sets.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler | ReduceLROnPlateau] | None = None,
        num_classes: int = 10,
        mean: float = 0.0,
        std: float = 1.0,
        facts: dict[str, Any] | None = None,
        loss: nn.Module | None = None,
        test_parts: Sequence[str] = ("test",),
        stop_on_nan: bool = False,
    ):
        super().__init__(net, mean, std)
        top = (1, 5) if num_classes > MOST_WITHOUT_TOP5 else (1,)
        tally = {"train": Tally(), "val": Tally(), **{part: Tally(top) for part in test_parts}}
        self.prepare(optimizer, scheduler, facts, loss, tally, stop_on_nan)
        self.confusion = MulticlassConfusionMatrix(num_classes)
        self.confused = torch.zeros(
            num_classes, num_classes, dtype=torch.int64
        )  # of the test: (true class, predicted class)
        self.tested: list[Tensor] = []  # logits of batches of the test set; after the test, all in one tensor

    def loss_and_counts(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss of a training batch, in nats, and the number of correct predictions, (1,).

        ``targets`` are labels (B,) or soft targets (B, classes). A network with several heads returns the logits of
        each, (heads, B, classes): each has its loss.
        """
        logits = self(images)
        if logits.ndim == 3:
            loss = torch.stack([self.loss(head, targets) for head in logits]).mean()
            logits = logits.mean(0)
        else:
            loss = self.loss(logits, targets)
        labels = targets if targets.ndim == 1 else targets.argmax(1)
        return loss, self.tally["train"].count_correct(logits, labels)

    def evaluate_batch(self, batch: tuple[Tensor, Tensor], part: str) -> Tensor:
        """Count a batch of a split by its cross-entropy, and return its logits (B, classes)."""
        images, labels = batch
        with torch.autocast(
            self.device.type, enabled=False
        ):  # in the precision of the weights, as when they are loaded
            logits = self(images)
        tally = self.tally[part]
        tally.add(len(labels), F.cross_entropy(logits, labels), tally.count_correct(logits, labels))
        return logits

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count a batch of one of the test sets, and for the first, update the confusion matrix."""
        logits = self.evaluate_batch(batch, self.test_parts[dataloader_idx])
        if dataloader_idx == 0:
            self.confusion.update(logits, batch[1])
            self.tested.append(logits.float())

    def on_test_epoch_end(self) -> None:
        """Log loss and accuracy of each test set."""
        super().on_test_epoch_end()
        self.confused = self.confusion.compute().cpu()
        self.tested = [self.in_order(torch.cat(self.tested).cpu())]


def _processes() -> int:
    """Return how many processes train or test together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def make(part: str, maker: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """Make an optimizer or scheduler; its errors become a UserError that names it, and the user's line."""
    try:
        with naming_the_line(part):
            return maker(*arguments, **more)
    except ValueError as error:
        raise UserError(f"{part}: {error}.") from error
    except TypeError as error:
        raise UserError(f"{part}: a setting has an unknown name or a wrong type ({error}).") from error
