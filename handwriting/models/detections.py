"""Boxes of digits: targets from true ones, and the decoding and fusion of candidates.

The candidates of N images are ``boxes`` (N, K, 4), left, top, right and bottom in pixels, and ``probabilities``
(N, K, classes). The score of a candidate is its largest probability; where there is none, all are 0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from handwriting.data.dataset import END, Sequences
from handwriting.models.sequence_model import Outputs, SequenceModel, Transcript


class DetectionModel(SequenceModel):
    """The base class of networks whose outputs are candidate boxes ``boxes`` and ``probabilities``.

    A candidate is a digit if its score is at least ``threshold``. Of candidates that overlap by more than ``overlap``
    (intersection over union), whatever their classes, only that with the highest score counts.
    """

    locates, needs_boxes = True, True

    def __init__(self, threshold: float = 0.5, overlap: float = 0.5):
        super().__init__()
        self.threshold, self.overlap = threshold, overlap

    def decode(self, outputs: Outputs) -> list[Transcript]:
        """Return the digits of each image from left to right: see decode_detections."""
        return decode_detections(outputs["boxes"], outputs["probabilities"], self.threshold, self.overlap)

    def merge(self, several: Sequence[Outputs], back: Sequence[Tensor | None]) -> list[Transcript]:
        """Return the digits of each image after the fusion of all boxes: see fuse."""
        return self.decode(fuse(several, back, self.overlap))


def centre_gaussians(targets: Sequences, shape: Sequence[int], stride: int) -> Tensor:
    """Return a Gaussian around the centre of each character, float (N, L, h, w): 1 in its cell, 0 after the last one.

    Its standard deviations are a sixth of the sides of the box; ``stride`` are the pixels for each cell.
    """
    assert targets.boxes is not None
    left, top, right, bottom = (targets.boxes / stride).unbind(2)
    along = []
    for low, high, cells in ((top, bottom, shape[0]), (left, right, shape[1])):
        centre = ((low + high) / 2).floor().clamp(0, cells - 1)  # the cell of the centre
        deviation = ((high - low) / 6).clamp(min=0.4)
        places = torch.arange(cells, device=low.device)
        along.append(torch.exp(-(((places - centre[:, :, None]) / deviation[:, :, None]) ** 2) / 2))
    present = (targets.labels != END)[:, :, None, None]
    return along[0][:, :, :, None] * along[1][:, :, None, :] * present


def region_of(boxes: Tensor, chosen: Tensor, margin: float) -> Tensor:
    """Return the hull (N, 4) of the chosen boxes (N, K, 4), enlarged by ``margin`` of its height on each side."""
    some = chosen[:, :, None]
    low = boxes[:, :, :2].masked_fill(~some, torch.inf).amin(1)
    high = boxes[:, :, 2:].masked_fill(~some, -torch.inf).amax(1)
    side = margin * (high[:, 1:] - low[:, 1:])
    return torch.cat([low - side, high + side], 1)


def decode_detections(boxes: Tensor, probabilities: Tensor, threshold: float, overlap: float) -> list[Transcript]:
    """Return the digits of each image, ordered by the centres of their boxes from left to right.

    After non-maximum suppression each candidate left is a digit or not, independently. The probability of a transcript
    is therefore the product of the scores s of its digits, and of 1 - s of the other candidates.
    """
    scores, labels = (values.cpu() for values in probabilities.max(2))
    boxes, scores = boxes.cpu(), scores * best_of_each_place(boxes.cpu(), scores, overlap)
    digits = (scores >= threshold) & (scores > 0)
    whole = torch.where(digits, scores, 1 - scores).clamp(0, 1).prod(1).tolist()
    transcripts = []
    for image, chosen in enumerate(digits):
        order = chosen.nonzero()[:, 0]
        order = order[boxes[image, order][:, [0, 2]].sum(1).argsort()]
        found = boxes[image, order].tolist()
        transcripts.append(
            Transcript(
                tuple(labels[image, order].tolist()),
                whole[image],
                tuple(scores[image, order].clamp(0, 1).tolist()),
                tuple((left, top, right, bottom) for left, top, right, bottom in found),
            )
        )
    return transcripts


def best_of_each_place(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Return which candidates non-maximum suppression leaves, bool (N, K), whatever their classes.

    It is torchvision's nms for each image, without the seconds that its import takes.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    sorted_boxes = boxes.take_along_dim(order[..., None], 1)
    overlaps = intersection_over_union(sorted_boxes[:, :, None], sorted_boxes[:, None]) > overlap
    left = torch.ones_like(scores, dtype=torch.bool)
    for rank in range(scores.shape[1]):  # a candidate that is left suppresses all later ones that overlap it
        suppressed = overlaps[:, rank] & left[:, rank, None]
        suppressed[:, : rank + 1] = False
        left &= ~suppressed
    return torch.zeros_like(left).scatter(1, order, left)


def intersection_over_union(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the overlap of boxes (…, 4) and others (…, 4), 0…1, with the shapes broadcast; 0 for empty boxes."""
    sides = (torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])).clamp(0)
    area, other = ((one[..., 2:] - one[..., :2]).clamp(0).prod(-1) for one in (boxes, others))
    both = sides.prod(-1)
    return both / (area + other - both).clamp(min=torch.finfo(both.dtype).tiny)


def fuse(several: Sequence[Outputs], back: Sequence[Tensor | None], overlap: float = 0.5) -> Outputs:
    """Return the candidates of several networks or views as one, by weighted boxes fusion.

    R. Solovyev, W. Wang, T. Gabruseva, 2019, arXiv:1910.13302. ``back`` are the matrices that map the pixels of each
    view to those of the images, (N, 3, 3), or None. After non-maximum suppression of each member, candidates join by
    their scores, highest first, the group whose fused box they overlap most and by more than ``overlap``, at most one
    of each member; else they found a group. A fused box is the mean weighted by the scores, its probabilities are the
    mean over all members, those without a box included, with 0. There are as many candidates as the largest member has.
    """
    most = max(outputs["boxes"].shape[1] for outputs in several)
    boxes, probabilities, members = [], [], []
    for member, (outputs, matrix) in enumerate(zip(several, back, strict=True)):
        place, p = to_image(outputs["boxes"].cpu(), matrix), outputs["probabilities"].cpu()
        left = best_of_each_place(place, p.amax(2), overlap)
        boxes, probabilities = [*boxes, place], [*probabilities, p * left[..., None]]
        members += [member] * place.shape[1]
    pool = torch.cat(boxes, 1), torch.cat(probabilities, 1), torch.tensor(members)
    sums, weights, total = _grouped(*pool, overlap, most)
    fused = total / len(several)
    kept = fused.amax(2).argsort(dim=1, descending=True, stable=True)[:, :most, None]
    means = sums / weights.clamp(min=torch.finfo(weights.dtype).tiny)[..., None]
    return {"boxes": means.take_along_dim(kept, 1), "probabilities": fused.take_along_dim(kept, 1)}


def _grouped(boxes: Tensor, probabilities: Tensor, members: Tensor, overlap: float, fewest: int) -> tuple[Tensor, ...]:
    """Return of each group its sum of weighted boxes (N, K, 4), of weights (N, K) and of probabilities (N, K, classes).

    The candidate of rank k founds group k, in all images at once; the groups that none founds stay 0. There are at
    least ``fewest`` groups.
    """
    scores = probabilities.amax(2)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, : max(fewest, int((scores > 0).sum(1).max()))]
    boxes, probabilities = (values.take_along_dim(order[..., None], 1) for values in (boxes, probabilities))
    scores, members = scores.take_along_dim(order, 1), members[order]
    sums, weights, total = torch.zeros_like(boxes), torch.zeros_like(scores), torch.zeros_like(probabilities)
    has = torch.zeros(*scores.shape, int(members.max()) + 1, dtype=torch.bool)  # whether a group has one of a member
    rows = torch.arange(len(boxes))
    for rank in range(scores.shape[1]):
        box, score, member = boxes[:, rank], scores[:, rank], members[:, rank]
        means = sums / weights.clamp(min=torch.finfo(weights.dtype).tiny)[..., None]
        likeness = intersection_over_union(means, box[:, None]).masked_fill(has[rows, :, member], 0)
        closest, group = likeness.max(1)
        group = torch.where(closest > overlap, group, rank)
        sums[rows, group] += score[:, None] * box
        weights[rows, group] += score
        total[rows, group] += probabilities[:, rank]
        has[rows, group, member] = True
    return sums, weights, total


def to_image(boxes: Tensor, matrix: Tensor | None) -> Tensor:
    """Return boxes (N, K, 4) of a view in pixels of the images: their corners mapped by matrices (N, 3, 3).

    Each side is at the mean of its two corners. The smallest upright box around the corners would grow with rotation.
    """
    if matrix is None:
        return boxes
    corners = boxes[..., [0, 1, 2, 1, 2, 3, 0, 3]].unflatten(2, (4, 2))  # left top, then clockwise
    mapped = torch.cat([corners, torch.ones_like(corners[..., :1])], 3) @ matrix.to(boxes)[:, None].mT
    x, y = (mapped[..., :2] / mapped[..., 2:]).unbind(3)
    sides = [x[..., [0, 3]], y[..., [0, 1]], x[..., [1, 2]], y[..., [2, 3]]]
    return torch.stack([side.mean(2) for side in sides], 2)
