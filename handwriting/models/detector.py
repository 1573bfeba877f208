"""An anchor-free detector: characters as objects, found by heat maps of their centres."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from handwriting.data.dataset import Sequences
from handwriting.models.detections import DetectionModel, centre_gaussians
from handwriting.models.sequence_model import Outputs
from handwriting.models.stages import Pyramid, all_maps, convolution, residual_stages

STRIDE = 4  # pixels of the image for each cell of the heat maps
CENTRE = 0.5  # cells with at least this value of a character's Gaussian learn its class and box
PRIOR = 0.02  # probability of a centre before training, so that the many empty cells do not dominate the first steps


class Detector(DetectionModel):
    """A residual network with a feature pyramid, and heat maps of characters at stride 4 (X. Zhou et al., 2019).

    Each cell has the probability that a character has its centre there, the probabilities of its class, and the
    distances to the sides of its box (arXiv:1904.07850; cells around a centre learn its box, as in Z. Liu et al., 2020,
    arXiv:1909.00700). ``widths`` and ``depths`` are the channels and convolutions of the stages, at strides 2, 4, 8, …;
    ``features`` are the channels of the pyramid. The ``candidates`` cells with the highest probabilities are kept.
    Those below ``threshold``, or that overlap a better one by more than ``overlap`` (intersection over union), are not
    part of the transcript.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int],
        channels: int = 3,
        widths: Sequence[int] = (16, 32, 64, 128, 192),
        depths: Sequence[int] = (1, 2, 2, 2, 2),
        features: int = 48,
        activation: str = "relu",
        candidates: int = 30,
        threshold: float = 0.3,
        overlap: float = 0.5,
    ):
        super().__init__(threshold, overlap)
        self.image_size, self.candidates = image_size, candidates
        self.stages = residual_stages(channels, widths, depths, [2] * len(widths), activation)
        self.pyramid = Pyramid(widths[1:], features, activation)
        self.centre, self.classes, self.sides = (
            nn.Sequential(*convolution(features, activation), nn.Conv2d(features, outputs, 1))
            for outputs in (1, num_classes, 4)
        )
        last = self.centre[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.constant_(last.bias, -math.log(1 / PRIOR - 1))

    def forward(self, images: Tensor) -> Outputs:
        """Return the candidates: boxes (N, K, 4) in pixels and the probabilities of each class (N, K, classes)."""
        return self.find(*self.maps(images))

    def maps(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of centres (N, h, w) and classes (N, classes, h, w), and distances (N, 4, h, w) in pixels."""
        pyramid = self.pyramid(all_maps(self.stages, images)[1:])
        distances = F.softplus(self.sides(pyramid).float()) * STRIDE
        return self.centre(pyramid)[:, 0].float(), self.classes(pyramid).float(), distances

    def find(self, centres: Tensor, classes: Tensor, distances: Tensor) -> Outputs:
        """Return the candidates of maps: the local maxima with the highest probabilities."""
        probable = centres.sigmoid()
        peaks = probable * (F.max_pool2d(probable[:, None], 3, 1, 1)[:, 0] == probable)
        score, place = peaks.flatten(1).topk(min(self.candidates, probable[0].numel()))
        boxes = _boxes(distances).flatten(2).gather(2, place[:, None].expand(-1, 4, -1)).transpose(1, 2)
        at = classes.flatten(2).gather(2, place[:, None].expand(-1, classes.shape[1], -1)).transpose(1, 2)
        height, width = self.image_size
        limits = torch.tensor([width, height, width, height], device=boxes.device)
        return {"boxes": boxes.clamp(min=0).minimum(limits), "probabilities": score[:, :, None] * at.softmax(2)}

    def loss(self, images: Tensor, targets: Sequences, criterion: nn.Module) -> tuple[Tensor, Outputs]:
        """Return the loss of a batch, and outside training its candidates.

        The loss is the sum of the focal loss of the centres, the cross-entropy of the classes and the generalised IoU
        loss of the boxes, the last two near the centres; each is summed over the characters of an image.
        """
        assert targets.boxes is not None
        maps = self.maps(images)
        return self.loss_of_maps(*maps, targets), {} if self.training else self.find(*maps)

    @staticmethod
    def loss_of_maps(centres: Tensor, classes: Tensor, distances: Tensor, targets: Sequences) -> Tensor:
        """Return the mean loss of images for their maps, see ``loss``."""
        from torchvision.ops import generalized_box_iou_loss  # takes seconds, and only training needs it

        assert targets.boxes is not None
        gaussians = centre_gaussians(targets, centres.shape[1:], STRIDE)  # (N, L, h, w)
        heat, owner = gaussians.max(1)
        near, owner = heat >= CENTRE, owner.flatten(1)
        whole = gaussians.where(gaussians >= CENTRE, 0.0).sum((2, 3))  # (N, L), so that each character counts as one
        weight = (heat.flatten(1) / whole.clamp(min=1e-6).gather(1, owner)).view_as(heat)[near]
        label = targets.labels.gather(1, owner).view_as(heat)[near]
        named = F.cross_entropy(classes.movedim(1, -1)[near], label, reduction="none")
        box = targets.boxes.gather(1, owner[:, :, None].expand(-1, -1, 4)).view(*heat.shape, 4)[near]
        placed = generalized_box_iou_loss(_boxes(distances).movedim(1, -1)[near], box)
        return (centre_loss(centres, heat) + (weight * (named + placed)).sum()) / len(centres)


def centre_loss(logits: Tensor, heat: Tensor) -> Tensor:
    """Return the sum of the focal loss of heat maps with Gaussians (H. Law, J. Deng, 2018, arXiv:1808.01244)."""
    probable = logits.sigmoid()
    there = -((1 - probable) ** 2) * F.logsigmoid(logits)
    empty = -((1 - heat) ** 4) * probable**2 * F.logsigmoid(-logits)
    return torch.where(heat == 1, there, empty).sum()


def _boxes(distances: Tensor) -> Tensor:
    """Return boxes (N, 4, h, w) in pixels from the distances of their sides to the middle of each cell."""
    height, width = distances.shape[2:]
    y = (torch.arange(height, device=distances.device)[:, None] + 0.5) * STRIDE
    x = (torch.arange(width, device=distances.device)[None] + 0.5) * STRIDE
    left, top, right, bottom = distances.unbind(1)
    return torch.stack([x - left, y - top, x + right, y + bottom], 1)
