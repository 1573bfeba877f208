"""The training of a network for several characters in an image."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from handwriting.data.dataset import Sequences, characters_of
from handwriting.models.average_precision import average_precision, found_boxes, true_boxes
from handwriting.models.sequence_model import Outputs, SequenceModel, SequenceRecognizer, Transcript
from handwriting.training.module import TrainingModule
from handwriting.utils.metrics import SequenceTally, Tally, sequence_confusion


class Recognizer(SequenceRecognizer, TrainingModule):
    """A SequenceRecognizer in training: a network for several characters in an image, and what Lightning calls.

    Training, validation and test report the network's own loss; ``loss`` is used only by networks that say so.
    ``max_length`` is the largest number of characters in an image of the data set. The other arguments are those of
    Classifier. The test also counts the confusions of aligned characters, and the mean average precision of networks
    that locate characters.
    """

    def __init__(
        self,
        net: SequenceModel,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler | ReduceLROnPlateau] | None = None,
        num_classes: int = 10,
        mean: float = 0.0,
        std: float = 1.0,
        facts: dict[str, Any] | None = None,
        loss: nn.Module | None = None,
        stop_on_nan: bool = False,
        max_length: int = 6,
    ):
        super().__init__(net, mean, std)
        tally = {"train": Tally(()), "val": SequenceTally(max_length), "test": SequenceTally(max_length, True)}
        self.prepare(optimizer, scheduler, facts, loss, tally, stop_on_nan)
        self.num_classes = num_classes
        self.confused = torch.zeros(num_classes + 1, num_classes + 1, dtype=torch.int64)  # the last: none
        self.tested: list[Transcript] = []  # of the test set
        self.located: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []  # found and true boxes of each test image

    def loss_and_counts(self, images: Tensor, targets: Sequences) -> tuple[Tensor, Tensor]:
        """Return the mean loss of a training batch; nothing is counted, because decoding takes long."""
        return self.net.loss(self.normalise(images), targets, self.loss)[0], torch.zeros(0)

    def evaluate_batch(self, batch: tuple[Tensor, Sequences], part: str) -> tuple[list[Transcript], Outputs]:
        """Count a batch of a split, and return its transcripts and the network's outputs."""
        images, targets = batch
        with torch.autocast(self.device.type, enabled=False):
            loss, outputs = self.net.loss(self.normalise(images), targets, self.loss)
        outputs = {name: value.float().cpu() for name, value in outputs.items()}
        transcripts, tally = self.net.decode(outputs), self.tally[part]
        assert isinstance(tally, SequenceTally)
        counts = tally.count([one.labels for one in transcripts], characters_of(targets.labels))
        tally.add(len(images), loss, counts.to(loss.device))
        return transcripts, outputs

    def test_step(self, batch: tuple[Tensor, Sequences], batch_idx: int) -> None:
        """Count a test batch, its confusions and its boxes."""
        (transcripts, outputs), targets = self.evaluate_batch(batch, "test"), batch[1]
        self.tested += transcripts
        predicted, true = [one.labels for one in transcripts], characters_of(targets.labels)
        self.confused += torch.from_numpy(sequence_confusion(predicted, true, self.num_classes))
        if self.net.locates and targets.boxes is not None:
            self.located += zip(found_boxes(outputs), true_boxes(targets), strict=True)

    def on_test_epoch_end(self) -> None:
        """Log loss and accuracies of the test set, and the mean average precision (COCO) of the boxes."""
        super().on_test_epoch_end()
        self.confused = self._add_up(self.confused.double()).long().cpu()
        self.tested = self.in_order(self.tested)
        if located := self.from_all(self.located):
            row = {f"test/{name}": value for name, value in average_precision(*zip(*located, strict=True)).items()}
            self.log_dict(row)
            self.test_metrics |= row
