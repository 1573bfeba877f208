"""One bar a run: how far the training has come, over all its epochs, and how well it reads by now."""

from typing import Any

import lightning
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

REFRESH = 20  # steps between two updates: a step of a small net takes 3 ms, an update .1 ms
DRAWINGS = 4  # a second; each takes 1 ms from the training


class RunBar(lightning.Callback):
    """A bar that is gone when the run has ended; where the output is no terminal, nothing is drawn."""

    def __init__(self, title: str, console: Console):
        self.title, self.console = title, console
        self.bar: Progress | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Draw the empty bar."""
        if not self.console.file.isatty():  # is_terminal would believe FORCE_COLOR, which Jupyter sets
            return
        columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}")]
        self.bar = Progress(
            *columns, TimeRemainingColumn(), console=self.console, transient=True, refresh_per_second=DRAWINGS
        )
        self.task = self.bar.add_task(self.title, total=int(trainer.estimated_stepping_batches), state="")
        self.bar.start()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar every REFRESH steps."""
        if self.bar and trainer.global_step % REFRESH == 0:
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
        """Remove the bar, so that the reason is not drawn over."""
        self._stop()

    def _stop(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None
