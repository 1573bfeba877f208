"""DigitHeads: one classifier for each position of a number."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handwriting.data.dataset import END, Sequences
from handwriting.models.sequence_model import Outputs, SequenceModel, Transcript
from handwriting.models.stages import residual_stages
from handwriting.models.weights import load_weights
from handwriting.utils.errors import UserError


class DigitHeads(SequenceModel):
    """A backbone, and a linear head for each of ``max_length`` positions, with an extra class "no digit".

    I. Goodfellow et al., 2013, arXiv:1312.6082. ``pooling`` says what a head sees of the backbone's maps: ``flat``, all
    of them flattened, as in the paper; or ``attention``, their mean weighted by a map of its own, as Z. Wojna et al.
    (2017, arXiv:1704.03549) attend to one character after the other, but for all positions at once. The heads then
    share their weights, so that a digit is learnt once for all places of the image.

    ``backbone`` is ``ours`` (stages that halve the maps; ``widths`` are their channels, ``depths`` their numbers of
    convolutions) or torchvision's ``resnet18``, whose ``weights`` may come from a local file; grey images are then
    repeated as three channels. ``dropout`` is before the heads.

    The output ``positions`` are logits (N, max_length, num_classes + 1); "no digit" has the index num_classes. Numbers
    that are longer than max_length are ignored by the loss. Raises UserError for weights that do not fit.
    """

    uses_loss = True

    def __init__(
        self,
        num_classes: int = 10,
        image_size: tuple[int, int] = (64, 160),
        channels: int = 3,
        max_length: int = 5,
        backbone: str = "ours",
        weights: str | None = None,
        widths: Sequence[int] = (24, 48, 96, 192),
        depths: Sequence[int] = (1, 2, 2, 2),
        pooling: str = "attention",
        activation: str = "relu",
        dropout: float = 0.0,
    ):
        super().__init__()
        self.max_length, self.repeats_grey = max_length, backbone == "resnet18"
        if backbone == "resnet18":
            self.backbone, width, halvings = _resnet18(weights), 512, 5
        elif weights:
            raise UserError(f"model.weights={weights} needs model.backbone=resnet18: leave it out.")
        else:
            self.backbone = residual_stages(channels, widths, depths, [2] * len(widths), activation)
            width, halvings = widths[-1], len(widths)
        self.num_classes, self.dropout = num_classes, nn.Dropout(dropout)
        if pooling == "attention":
            self.attention = nn.Conv2d(width, max_length, 1)
            self.heads = nn.Linear(width, num_classes + 1)
        else:
            height, length = (-(-side // 2**halvings) for side in image_size)  # rounded up
            self.attention = None
            self.heads = nn.Linear(width * height * length, max_length * (num_classes + 1))

    def forward(self, images: Tensor) -> Outputs:
        """Return the logits ``positions`` (N, max_length, num_classes + 1) of images (N, C, H, W)."""
        maps = self.backbone(images.expand(-1, 3, -1, -1) if self.repeats_grey else images)
        if self.attention is None:
            logits = self.heads(self.dropout(maps.flatten(1)))
            return {"positions": logits.unflatten(1, (self.max_length, self.num_classes + 1))}
        weights = self.attention(maps).flatten(2).softmax(2)  # (N, max_length, h·w)
        return {"positions": self.heads(self.dropout(weights @ maps.flatten(2).mT))}

    def loss(self, images: Tensor, targets: Sequences, criterion: nn.Module) -> tuple[Tensor, Outputs]:
        """Return the mean of the criterion over all positions of all numbers that fit, and the outputs."""
        outputs, kept = self(images), self.fits(targets.labels)
        if not kept.any():
            return 0 * outputs["positions"].sum(), outputs
        labels = targets.labels[kept, : self.max_length]
        labels = F.pad(labels, (0, self.max_length - labels.shape[1]), value=END)
        labels = labels.masked_fill(labels == END, self.num_classes)
        return criterion(outputs["positions"][kept].flatten(0, 1), labels.flatten()), outputs

    def fits(self, labels: Tensor) -> Tensor:
        """Return whether each row of labels (N, L) has at most max_length characters, bool (N,)."""
        return (labels != END).sum(1) <= self.max_length

    def decode(self, outputs: Outputs) -> list[Transcript]:
        """Return the most probable transcript of each image: see most_probable."""
        return most_probable(outputs["positions"].softmax(2))

    def merge(self, several: Sequence[Outputs], back: Sequence[Tensor | None]) -> list[Transcript]:
        """Return the most probable transcripts after the mean of the probabilities; unequal shapes vote."""
        if len({outputs["positions"].shape for outputs in several}) > 1:
            return super().merge(several, back)
        return most_probable(torch.stack([outputs["positions"].softmax(2) for outputs in several]).mean(0))


def most_probable(positions: Tensor) -> list[Transcript]:
    """Return the most probable transcript of each image from the probabilities of each position (N, L, classes + 1).

    A transcript ends before the first "no digit"; positions are independent. Its probability is therefore the product
    over its characters, and over the "no digit" after them unless it fills all L positions.
    """
    best, labels = positions[..., :-1].max(2)
    one = torch.ones_like(best[:, :1])
    characters = torch.cat([one, best.cumprod(1)], 1)  # (N, L + 1): the product of the first 0 … L
    end = torch.cat([positions[..., -1], one], 1)
    probability, lengths = (characters * end).max(1)
    return [
        Transcript(tuple(labels[:length]), whole, tuple(best[:length]))
        for labels, whole, best, length in zip(
            labels.tolist(), probability.tolist(), best.tolist(), lengths.tolist(), strict=True
        )
    ]


def _resnet18(weights: str | None) -> nn.Module:
    from torchvision.models import resnet18  # seconds; only this backbone needs it

    net = resnet18()
    if weights:
        load_weights(net, weights, last="fc.")
    return nn.Sequential(*list(net.children())[:-2])  # without the pooling and the last layer
