"""compile=graph: forward and backward pass as one CUDA graph, and many steps in each call of Lightning."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from handwriting.training.callbacks import EpochAveraging
from handwriting.training.module import PLATEAU_METRIC, Classifier
from handwriting.utils.errors import UserError


class GraphClassifier(Classifier):
    """A Classifier whose training batches come in lists; each batch is a step, with its gradients from a CUDA graph.

    On a GPU a step of a small network takes as long as PyTorch needs to start its kernels, and Lightning to call its
    hooks. A recorded graph of the forward and backward pass is one launch, and the hooks are called once per list.
    Optimizer, scheduler, losses and logs are those of single steps. Without a CUDA device there are no graphs.
    """

    def __init__(self, *arguments: Any, **settings: Any):
        super().__init__(*arguments, **settings)
        self.automatic_optimization = False
        self._graphs: BatchGraphs | None = None

    def training_step(self, batch: list[tuple[Tensor, Tensor]], batch_idx: int) -> None:  # type: ignore[override]
        """Train a list of batches, one after another."""
        self._graphs = self._graphs or BatchGraphs(self._forward_and_backward, list(self.parameters()))
        trainer: Any = self.trainer
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress  # counts trainer.global_step
        by_step = [one.scheduler for one in trainer.lr_scheduler_configs if one.interval == "step"]
        for images, targets in batch:
            result = self._graphs(images, targets)
            self.tally["train"].add(len(images), result[0], result[1:])
            self.step_losses.append(result[0])
            progress.increment_ready()
            optimizer.step()
            progress.increment_completed()
            for scheduler in by_step:
                scheduler.step()
            if self.global_step % trainer.log_every_n_steps == 0:
                self._log_step_losses()
        if batch_idx + 1 == trainer.num_training_batches:  # before validation, as Lightning does
            for one in trainer.lr_scheduler_configs:
                if one.interval == "epoch" and not isinstance(one.scheduler, ReduceLROnPlateau):
                    one.scheduler.step()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Do nothing: training_step has logged its steps."""

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means, and step a scheduler that monitors the validation loss."""
        super().on_train_epoch_end()
        trainer: Any = self.trainer
        for one in trainer.lr_scheduler_configs:
            if isinstance(one.scheduler, ReduceLROnPlateau):
                if PLATEAU_METRIC not in trainer.callback_metrics:
                    raise UserError(f"scheduler=plateau needs {PLATEAU_METRIC} after every epoch: validate in each.")
                one.scheduler.step(trainer.callback_metrics[PLATEAU_METRIC])

    def on_validation_epoch_end(self) -> None:
        """Log the validation's metrics at the number of steps; Lightning would count lists of batches."""
        super().on_validation_epoch_end()
        self._log_position(self.global_step - 1)

    def on_test_epoch_end(self) -> None:
        """Log the test's metrics, likewise."""
        super().on_test_epoch_end()
        self._log_position(self.global_step)

    def _log_position(self, step: int) -> None:
        """Tell the loggers the step and epoch of the metrics that are logged in this hook."""
        self.log_dict({"step": float(step), "epoch": float(self.current_epoch)})

    def on_train_end(self) -> None:
        """Free the memory of the graphs."""
        self._graphs = None

    def make_optimization(self, steps: int) -> Any:
        """Make the optimizer and its scheduler, which this class steps itself. Raises UserError as Classifier does.

        An optimizer that computes the loss several times in a step, as LBFGS does, is refused.
        """
        made = super().make_optimization(steps)
        optimizer = made["optimizer"] if isinstance(made, dict) else made
        closure = inspect.signature(optimizer.step).parameters.get("closure")
        if closure and closure.default is inspect.Parameter.empty:
            raise UserError(
                f"compile=graph cannot train with {type(optimizer).__name__}, which computes the loss several times in "
                "a step: choose another optimizer or compile=false."
            )
        if isinstance(made, dict):
            made["lr_scheduler"].pop("monitor")  # Lightning warns of what it does not use
        return made

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch: its batches, not its lists of batches."""
        trainer: Any = self.trainer
        return len(trainer.train_dataloader.batch_sampler)

    @property
    def total_steps(self) -> int:
        """Optimizer steps in the whole training; loads the training data."""
        trainer: Any = self.trainer
        trainer.fit_loop.setup_data()
        return self.steps_per_epoch * trainer.max_epochs

    def _forward_and_backward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Compute the gradients of a batch; return its mean loss and number of correct predictions, (2,)."""
        loss, correct = self.loss_and_counts(images, targets)
        loss.backward()
        return torch.cat([loss.detach()[None], correct.to(loss.dtype)])


@dataclass
class Recorded:
    """A CUDA graph with its inputs and outputs, which are overwritten by each replay."""

    graph: torch.cuda.CUDAGraph
    images: Tensor
    targets: Tensor
    result: Tensor
    gradients: list[Tensor | None]


class BatchGraphs:
    """Runs ``compute``, which sets the gradients of ``parameters``, from a CUDA graph for each shape of batch.

    The first batch of a shape, and every batch on a CPU, runs without a graph; the second is recorded.
    """

    def __init__(self, compute: Callable[[Tensor, Tensor], Tensor], parameters: list[nn.Parameter]):
        self.compute, self.parameters = compute, parameters
        self.recorded: dict[Any, Recorded | None] = {}

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Compute the gradients of a batch, and return the result of ``compute``."""
        shape = (images.shape, targets.shape, targets.dtype)
        if images.device.type != "cuda":
            return self._run(images, targets)
        if shape not in self.recorded:
            self.recorded[shape] = None
            return self._warm_up(images, targets)
        recorded = self.recorded[shape] = self.recorded[shape] or self._record(images, targets)
        recorded.images.copy_(images)
        recorded.targets.copy_(targets)
        recorded.graph.replay()
        for parameter, gradient in zip(self.parameters, recorded.gradients, strict=True):
            parameter.grad = gradient
        return recorded.result.clone()

    def _run(self, images: Tensor, targets: Tensor) -> Tensor:
        for parameter in self.parameters:
            parameter.grad = None
        return self.compute(images, targets)

    def _warm_up(self, images: Tensor, targets: Tensor) -> Tensor:
        """Run without a graph on another stream, as torch's documentation asks before a capture."""
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            result = self._run(images, targets)
        current.wait_stream(stream)
        return result

    def _record(self, images: Tensor, targets: Tensor) -> Recorded:
        """Record the computation; nothing is computed yet."""
        graph = torch.cuda.CUDAGraph()
        images, targets = images.clone(), targets.clone()
        try:
            with torch.cuda.graph(
                graph
            ):  # Lightning's autocast keeps no casts of weights; a replay would not renew them
                result = self._run(images, targets)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"compile=graph cannot record this model or loss ({reason}): choose compile=false."
            ) from error
        return Recorded(graph, images, targets, result, [parameter.grad for parameter in self.parameters])


HOOKS = ("on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad")  # not called


def check_callbacks(callbacks: Iterable[lightning.Callback]) -> None:
    """Raise UserError for a callback that has to act on every step."""
    for callback in callbacks:
        every_step = isinstance(callback, WeightAveraging) and not isinstance(callback, EpochAveraging)
        every_step |= isinstance(callback, StochasticWeightAveraging)
        every_step |= bool(getattr(callback, "_every_n_train_steps", 0))  # of ModelCheckpoint
        every_step |= any(getattr(type(callback), hook) is not getattr(lightning.Callback, hook) for hook in HOOKS)
        if every_step:
            raise UserError(
                f"compile=graph calls Lightning's hooks once in many steps, but {type(callback).__name__} acts on "
                "single steps: leave it out, or choose compile=false."
            )
