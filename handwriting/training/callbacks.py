"""Callbacks of training: averaged weights, snapshots at the ends of cycles, gradient norms, and the progress bar."""

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from handwriting.utils.errors import UserError


class EpochAveraging(WeightAveraging):
    """The mean of the weights at the ends of the last epochs, from ``start`` on, a fraction of all epochs.

    P. Izmailov et al., 2018, arXiv:1803.05407. Up to there the average is the weights themselves, so that validation
    sees what is trained. The statistics of batch norm are averaged like the weights; the paper recomputes them.
    """

    def __init__(self, start: float = 0.75):
        super().__init__(use_buffers=True, avg_fn=self._mean)
        self.start = start
        self._steps, self._first = 1, 0  # steps per epoch; the first epoch in the average

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Find the number of steps in an epoch."""
        classifier: Any = pl_module
        epochs = trainer.max_epochs or 1
        self._steps = classifier.steps_per_epoch
        self._first = min(int(self.start * epochs), epochs - 1)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether a step ends an epoch: before validation, which uses the average."""
        return step_idx is not None and (step_idx + 1) % self._steps == 0

    def _mean(self, average: Tensor, current: Tensor, epochs: Tensor | int) -> Tensor:
        """Return the average with one more epoch; ``epochs`` is how many were added before."""
        averaged = int(epochs) - self._first
        if averaged <= 0 or not average.is_floating_point():
            return current.clone()
        return average + (current - average) / (averaged + 1)


class Snapshots(lightning.Callback):
    """Saves the model at the end of each learning rate cycle as cycle1.ckpt, cycle2.ckpt … in ``dirpath``."""

    def __init__(self, dirpath: str, cycles: int = 5):
        self.folder, self.cycles = Path(dirpath), cycles

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Raise UserError if a cycle would end within an epoch."""
        if (trainer.max_epochs or 0) % self.cycles:
            raise UserError(
                f"trainer.max_epochs={trainer.max_epochs} must be a multiple of scheduler.cycles={self.cycles}."
            )

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the model at the end of a cycle."""
        epochs, length = trainer.current_epoch + 1, (trainer.max_epochs or 1) // self.cycles
        if epochs % length == 0:
            trainer.save_checkpoint(self.folder / f"cycle{epochs // length}.ckpt", weights_only=True)


class GradientNorms(lightning.Callback):
    """Logs the norm of the gradient of each layer's weights as grad/LAYER, the mean over the steps of each epoch.

    Layers are named as in the network; biases and batch norm are left out. Gradients are those before clipping.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin a new mean."""
        self._sums, self._steps = {}, 0

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Add the norms of a step."""
        net: Any = pl_module.net
        for name, weights in net.named_parameters():
            if weights.ndim > 1 and weights.grad is not None:
                layer = f"grad/{name.removesuffix('.weight')}"
                self._sums[layer] = self._sums.get(layer, 0) + weights.grad.norm()
        self._steps += 1

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the means of the epoch."""
        means = {layer: total.item() / self._steps for layer, total in self._sums.items()}
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, **means}, step=trainer.global_step - 1)


REFRESH = 20  # steps between two updates: a step of a small model takes 3 ms, an update 0.1 ms
DRAWINGS = 4  # per second; each takes 1 ms of training time


class RunBar(lightning.Callback):
    """A progress bar that is removed at the end of the run; it is not drawn if the output is not a terminal."""

    def __init__(self, title: str, console: Console):
        self.title, self.console = title, console
        self.bar: Progress | None = None
        self._drawn = 0  # the last step that the bar shows

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Draw the empty bar."""
        if not self.console.file.isatty():  # not is_terminal, which trusts FORCE_COLOR, set by Jupyter
            return
        classifier: Any = pl_module
        # No markup: a title such as freeze=[features] has none.
        columns = [TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[state]}")]
        self.bar = Progress(
            *columns, TimeRemainingColumn(), console=self.console, transient=True, refresh_per_second=DRAWINGS
        )
        self.task = self.bar.add_task(self.title, total=classifier.total_steps, state="")
        self.bar.start()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, at most every REFRESH steps."""
        if self.bar and trainer.global_step >= self._drawn + REFRESH:
            self._drawn = trainer.global_step
            self.bar.update(self.task, completed=trainer.global_step)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the epoch and its validation accuracy."""
        if self.bar:
            accuracy = trainer.callback_metrics["val/acc"].item()
            state = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}, validation {accuracy:.2%}"
            self.bar.update(self.task, completed=trainer.global_step, state=state)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Remove the bar."""
        self._stop()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Remove the bar, so that it does not overwrite the reason."""
        self._stop()

    def _stop(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None
