"""DigitHeads: one classifier for each position of a number."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from handwriting.data.dataset import END, Sequences
from handwriting.models.detections import centre_gaussians
from handwriting.models.sequence_model import Outputs, SequenceModel, Transcript
from handwriting.models.stages import Pyramid, all_maps, residual_stages
from handwriting.models.weights import load_weights
from handwriting.utils.errors import UserError


class DigitHeads(SequenceModel):
    """A backbone, and a classifier for each of ``max_length`` positions, with an extra class "no digit".

    I. Goodfellow et al., 2013, arXiv:1312.6082. There each classifier sees all maps at once. Here the one of a position
    sees their mean, weighted by an attention map of its own, as in Z. Wojna et al., 2017, arXiv:1704.03549, and all
    positions share their classifier: what a digit looks like is learned once. With boxes, the attention also learns
    where the digit of its position is, with the weight ``guide`` beside the criterion (Z. Cheng et al., 2017,
    arXiv:1709.02054): classes alone teach it slowly where to look.

    ``backbone`` is ``ours`` (stages that halve the maps; ``widths`` are their channels, ``depths`` their numbers of
    convolutions) or torchvision's ``resnet18``, whose ``weights`` may come from a local file; grey images are then
    repeated as three channels. A feature pyramid with ``features`` channels has the size of the map at stride 8.
    ``dropout`` is before the classifiers.

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
        widths: Sequence[int] = (16, 32, 64, 128, 192),
        depths: Sequence[int] = (1, 2, 2, 2, 2),
        features: int = 96,
        activation: str = "relu",
        dropout: float = 0.0,
        guide: float = 1.0,
    ):
        super().__init__()
        self.num_classes, self.max_length, self.guide = num_classes, max_length, guide
        self.colours = 3 if backbone == "resnet18" else channels
        if backbone == "resnet18":
            self.stages, widths = _resnet18(weights), [64, 64, 128, 256, 512]
        else:
            if weights:
                raise UserError(f"model.weights={weights} needs model.backbone=resnet18: leave it out.")
            self.stages = residual_stages(channels, widths, depths, [2] * len(widths), activation)
        self.first = min(3, len(widths)) - 1  # the stage with the largest maps in the pyramid
        self.stride = 2 ** (self.first + 1)
        self.pyramid = Pyramid(widths[self.first :], features, activation)
        self.attention = nn.Conv2d(features, max_length, 1)
        self.dropout = nn.Dropout(dropout)
        self.shared = nn.Linear(features, num_classes + 1)  # what a digit looks like does not depend on its position
        self.length = nn.Linear(widths[-1], max_length * (num_classes + 1))  # from the whole image

    def forward(self, images: Tensor) -> Outputs:
        """Return the logits ``positions`` (N, max_length, num_classes + 1) of images (N, C, H, W)."""
        return {"positions": self._logits_and_attention(images)[0]}

    def _logits_and_attention(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the positions, and the logits of their attention maps (N, max_length, h, w)."""
        maps = all_maps(self.stages, images.expand(-1, self.colours, -1, -1))
        features = self.pyramid(maps[self.first :])
        attention = self.attention(features)
        seen = torch.einsum("nlp,ncp->nlc", attention.flatten(2).softmax(2), features.flatten(2))
        whole = self.length(self.dropout(maps[-1].mean((2, 3)))).unflatten(1, (self.max_length, -1))
        return self.shared(self.dropout(seen)) + whole, attention

    def loss(self, images: Tensor, targets: Sequences, criterion: nn.Module) -> tuple[Tensor, Outputs]:
        """Return the mean of the criterion over all positions of all numbers that fit, and the outputs.

        With boxes, the cross-entropy of the attention, the mean over these positions, is added with its weight.
        """
        logits, attention = self._logits_and_attention(images)
        kept = self.fits(targets.labels)
        if not kept.any():
            return 0 * logits.sum(), {"positions": logits}
        labels = self._to_length(targets.labels[kept], END)
        missing = labels == END
        loss = criterion(logits[kept].flatten(0, 1), labels.masked_fill(missing, self.num_classes).flatten())
        if targets.boxes is not None and self.guide:
            places = Sequences(labels, self._to_length(targets.boxes[kept], 0.0))
            where = centre_gaussians(places, attention.shape[2:], self.stride).flatten(2)
            where = where / where.sum(2, keepdim=True).clamp(min=1e-6)  # all 0 after the last digit
            loss = loss - self.guide * (where * attention[kept].float().flatten(2).log_softmax(2)).sum(2).mean()
        return loss, {"positions": logits}

    def _to_length(self, values: Tensor, filling: float) -> Tensor:
        """Return values (N, L, …) with as many positions as the network has."""
        values = values[:, : self.max_length]
        lacking = values.new_full((len(values), self.max_length - values.shape[1], *values.shape[2:]), filling)
        return torch.cat([values, lacking], 1)

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


def _resnet18(weights: str | None) -> nn.Sequential:
    """Return the stages of torchvision's ResNet-18, at strides 2, 4, 8, 16 and 32."""
    from torchvision.models import resnet18  # seconds; only this backbone needs it

    net = resnet18()
    if weights:
        load_weights(net, weights, last="fc.")
    first = nn.Sequential(net.conv1, net.bn1, net.relu)
    return nn.Sequential(first, nn.Sequential(net.maxpool, net.layer1), net.layer2, net.layer3, net.layer4)
