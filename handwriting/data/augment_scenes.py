"""Augmentation steps for photographs, which move the boxes of characters along. As in augment, on whole batches."""

from math import inf, log

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from handwriting.data.augment import Targets
from handwriting.data.dataset import END, Sequences

CORE = 0.7  # of the image's sides: what stays in the image if it is not known where its characters are
NEAREST = 0.01  # smallest depth of a pixel: none is behind the viewer, however strong the perspective
MOST_STRETCH = 1.5  # of a pasted character
SOFT = 0.15  # width of the soft edge around a pasted character, as a fraction of its height


class SceneWarp:
    """Random zoom, aspect, rotation, shear, perspective and shift of each image, and of its boxes.

    An image is changed with ``probability``; amounts are uniform: the zoom in exp(±zoom), width ÷ height in
    exp(±aspect), ±degrees, ±shear, the depth of the image's edges in 1 ± perspective, and ±shift of the image's sides.
    Zoom and shift are limited so that all characters stay in the image, or, without boxes, its central CORE. A new box
    is the smallest one around the four corners of the old box. All of it is one bilinear resampling; pixels from
    outside repeat the edge.

    Boxes with the label END move along, but are not kept in the image.
    """

    def __init__(
        self,
        probability: float = 1.0,
        zoom: float = 0.0,
        aspect: float = 0.0,
        degrees: float = 0.0,
        shear: float = 0.0,
        perspective: float = 0.0,
        shift: float = 0.0,
    ):
        self.probability, self.zoom, self.aspect, self.degrees = probability, zoom, aspect, degrees
        self.shear, self.perspective, self.shift = shear, perspective, shift

    def __call__(self, images: Tensor, targets: Targets, classes: int, generator: Generator) -> tuple[Tensor, Targets]:
        """Return the warped images, and the targets with the boxes that fit them."""
        count, _, height, width = images.shape
        draw = torch.rand(count, 9, generator=generator, device=images.device)
        chosen = draw[:, 0] < self.probability
        sides = torch.full((2,), width, dtype=torch.float32, device=images.device)
        sides[1:] = height  # not a copy from the CPU, which would synchronise
        boxes, kept = _boxes_to_keep(targets, count, sides)

        matrix = self._matrix(2 * draw[:, 1:7] - 1, sides)
        hulls = _warped(boxes, matrix)
        low = hulls[..., :2].masked_fill(~kept[..., None], inf).amin(1)
        high = hulls[..., 2:].masked_fill(~kept[..., None], -inf).amax(1)
        fit = (sides / (high - low)).amin(1).clamp(max=1)[:, None]
        least, most = -sides / 2 - low * fit, sides / 2 - high * fit
        first, last = ((sign * self.shift * sides).clamp(least, most) for sign in (-1, 1))
        shift = first + draw[:, 7:] * (last - first)
        moved = matrix[:, :2] * fit[..., None] + shift[..., None] * matrix[:, 2:]
        matrix = torch.cat([moved, matrix[:, 2:]], 1)
        matrix = torch.where(chosen[:, None, None], matrix, torch.eye(3, device=images.device))

        if isinstance(targets, Sequences) and targets.boxes is not None:
            targets = Sequences(targets.labels, _warped(boxes[:, :-1], matrix) + (sides / 2).repeat(2))
        return _resampled(images, matrix, sides), targets

    def _matrix(self, amounts: Tensor, sides: Tensor) -> Tensor:
        """Return the matrices (B, 3, 3) of all but the shift, for pixels (x, y, 1) about the image's middle."""
        zoom, aspect, turn, shear = amounts[:, :4].unbind(1)
        zoom, aspect = zoom * self.zoom, aspect * self.aspect / 2
        wide, tall = (zoom + aspect).exp(), (zoom - aspect).exp()
        angle, shear = turn * torch.pi * self.degrees / 180, shear * self.shear
        cos, sin = angle.cos(), angle.sin()
        rows = [
            torch.stack([cos * wide, (cos * shear - sin) * tall, torch.zeros_like(cos)], 1),
            torch.stack([sin * wide, (sin * shear + cos) * tall, torch.zeros_like(cos)], 1),
            torch.cat([amounts[:, 4:] * 2 * self.perspective / sides, torch.ones_like(cos)[:, None]], 1),
        ]
        return torch.stack(rows, 1)


def _boxes_to_keep(targets: Targets, count: int, sides: Tensor) -> tuple[Tensor, Tensor]:
    """Return boxes (B, L + 1, 4), about the image's middle, and which of them must stay in the image.

    The last one is the image's core.
    """
    core = torch.cat([-sides, sides]).mul(CORE / 2).expand(count, 1, 4)
    if not isinstance(targets, Sequences) or targets.boxes is None:
        return core, torch.ones(count, 1, dtype=torch.bool, device=sides.device)
    labelled = targets.labels != END
    boxes = torch.cat([targets.boxes - (sides / 2).repeat(2), core], 1)
    return boxes, torch.cat([labelled, ~labelled.any(1, keepdim=True)], 1)


def _warped(boxes: Tensor, matrix: Tensor) -> Tensor:
    """Return the smallest boxes around the corners of boxes (B, L, 4) after a projective map (B, 3, 3)."""
    left, top, right, bottom = boxes.unbind(-1)
    x, y = torch.stack([left, right, right, left], -1), torch.stack([top, top, bottom, bottom], -1)
    corners = torch.stack([x, y, torch.ones_like(x)], -1).flatten(1, 2) @ matrix.mT
    corners = (corners[..., :2] / corners[..., 2:]).unflatten(1, (-1, 4))
    return torch.cat([corners.amin(2), corners.amax(2)], -1)


def _resampled(images: Tensor, matrix: Tensor, sides: Tensor) -> Tensor:
    """Return images after a projective map (B, 3, 3) of their pixels about the middle."""
    back = torch.linalg.inv_ex(matrix).inverse  # inv would synchronise to check it
    height, width = images.shape[2:]
    x, y = (torch.arange(side, device=images.device) + (1 - side) / 2 for side in (width, height))
    pixels = torch.stack(
        [x.expand(height, -1), y[:, None].expand(-1, width), torch.ones_like(x).expand(height, -1)], -1
    )
    sources = pixels.flatten(0, 1) @ back.mT
    grid = sources[..., :2] / sources[..., 2:].clamp(min=NEAREST) / (sides / 2)
    return F.grid_sample(images, grid.unflatten(1, (height, width)), padding_mode="border", align_corners=False)


class Colour:
    """Random brightness, contrast, saturation and hue of each image.

    An image is changed with ``probability``; amounts are uniform: ±brightness on the scale 0…1, contrast and saturation
    times exp(±contrast) and exp(±saturation), and the hue rotated by ±hue degrees about the grey axis; 120 exchanges
    red, green and blue in turn. Of grey images only brightness and contrast change.
    """

    def __init__(
        self,
        probability: float = 1.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
    ):
        self.probability, self.brightness, self.contrast = probability, brightness, contrast
        self.saturation, self.hue = saturation, hue

    def __call__(self, images: Tensor, targets: Targets, classes: int, generator: Generator) -> tuple[Tensor, Targets]:
        """Return the images in other colours, clipped to 0…1."""
        draw = torch.rand(len(images), 5, generator=generator, device=images.device)
        amounts = (2 * draw[:, 1:] - 1) * (draw[:, :1] < self.probability)
        brightness, contrast, saturation, hue = amounts[..., None, None].unbind(1)
        contrast = (contrast * self.contrast).exp()
        mixing = contrast * self._mixing(images.shape[1], saturation, hue)
        pixels = images.flatten(2)
        mean = pixels.mean(2, keepdim=True)  # it keeps its brightness under more contrast
        mixed = mixing @ pixels + (mixing / contrast - mixing) @ mean + brightness * self.brightness
        return mixed.clamp(0, 1).view_as(images), targets

    def _mixing(self, channels: int, saturation: Tensor, hue: Tensor) -> Tensor:
        """Return matrices (B, C, C) that scale and rotate colours about the grey axis (Rodrigues' formula)."""
        one = torch.eye(channels, device=hue.device)
        if channels == 1:
            return one.expand(len(hue), 1, 1)
        grey = torch.full_like(one, 1 / channels)
        angle = hue * torch.pi * self.hue / 180
        across = (one.roll(1, 0) - one.roll(-1, 0)) / 3**0.5  # the cross product with the unit vector of grey
        return grey + (saturation * self.saturation).exp() * (angle.cos() * (one - grey) + angle.sin() * across)


class Inversion:
    """Inverts each image with ``probability``: house numbers are dark on bright as well as bright on dark."""

    def __init__(self, probability: float = 0.5):
        self.probability = probability

    def __call__(self, images: Tensor, targets: Targets, classes: int, generator: Generator) -> tuple[Tensor, Targets]:
        """Return the images, some of them inverted."""
        draw = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device)
        return torch.where(draw < self.probability, 1 - images, images), targets


class CutPaste:
    """Replaces, with ``probability``, one character of an image by one of another image of the batch.

    After D. Dwibedi, I. Misra, M. Hebert, 2017, arXiv:1708.01642, but in the place of a character, so that numbers keep
    their length. The pasted box is resampled into the box of the replaced character, in the mean colour there, and has
    soft edges. Characters that would be stretched by more than MOST_STRETCH are not pasted. Images whose boxes are not
    known stay as they are.
    """

    def __init__(self, probability: float = 0.3):
        self.probability = probability

    def __call__(self, images: Tensor, targets: Targets, classes: int, generator: Generator) -> tuple[Tensor, Targets]:
        """Return the images and the targets with the labels of pasted characters."""
        if not isinstance(targets, Sequences) or targets.boxes is None:
            return images, targets
        count, device = len(images), images.device
        draw = torch.rand(count, 2, generator=generator, device=device)
        other = torch.randperm(count, generator=generator, device=device)
        lengths = (targets.labels != END).sum(1)
        place = (draw[:, 1] * lengths).long()[:, None]  # of a character drawn in each image
        label = targets.labels.gather(1, place)
        box = targets.boxes.gather(1, place[..., None].expand(-1, -1, 4))[:, 0]

        start, size = box[:, :2], (box[:, 2:] - box[:, :2]).clamp(min=1)
        aspect = size[:, 0] / size[:, 1]
        alike = (aspect[other] / aspect).log().abs() < log(MOST_STRETCH)
        chosen = (draw[:, 0] < self.probability) & (lengths > 0) & (lengths[other] > 0) & alike

        sides = images.shape[3], images.shape[2]
        within = [  # of each column and row: 0…1 in the box
            (torch.arange(side, device=device) + 0.5 - start[:, axis, None]) / size[:, axis, None]
            for axis, side in enumerate(sides)
        ]
        pasted = _cut(images[other], start[other], size[other], within)
        outside = [((part - 0.5).abs() - 0.5).clamp(min=0) for part in within]
        across, down = ((1 - out / SOFT).clamp(min=0) for out in (outside[0] * aspect[:, None], outside[1]))
        weight = across[:, None, None, :] * down[:, None, :, None]
        lighter = ((images - pasted) * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=1)
        weight = weight * chosen[:, None, None, None]
        labels = targets.labels.scatter(1, place, torch.where(chosen[:, None], label[other], label))
        return images + weight * ((pasted + lighter).clamp(0, 1) - images), Sequences(labels, targets.boxes)


def _cut(images: Tensor, start: Tensor, size: Tensor, within: list[Tensor]) -> Tensor:
    """Return images in which each column and row is from the place of the box that ``within`` says, 0…1."""
    height, width = images.shape[2:]
    x = 2 * (start[:, :1] + within[0] * size[:, :1]) / width - 1
    y = 2 * (start[:, 1:] + within[1] * size[:, 1:]) / height - 1
    grid = torch.stack([x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], -1)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
