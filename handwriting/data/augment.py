"""Augmentation: offline variants of the training set, and random steps on whole batches, on their device."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from handwriting.data.dataset import END, LabelledImages, Sequences
from handwriting.data.variants import expand, in_variant
from handwriting.utils.errors import UserError, check_number

Targets = Tensor | Sequences  # labels (B,), soft targets (B, classes), or those of images with several characters
# A step changes images float (B, C, H, W) of 0…1 and their Targets at random; it gets the number of classes.
Step = Callable[[Tensor, Any, int, Generator], tuple[Tensor, Any]]


class Augmentation:
    """Augmentation of the training images, offline and by batch.

    ``variants`` names the offline variants of the training set (handwriting.data.variants); ``steps`` are applied to
    each batch in their order; the last ``clean_epochs`` epochs are without them. The same seed gives the same images.
    """

    def __init__(
        self,
        variants: Sequence[str] = ("original",),
        steps: Mapping[str, Step | None] | None = None,
        clean_epochs: int = 0,
        seed: int = 0,
    ):
        self.variants = tuple(variants)
        self.steps = [step for step in (steps or {}).values() if step]
        self.clean_epochs, self.seed = clean_epochs, seed
        self._generator: tuple[tuple[int, torch.device], Generator] | None = None

    def expand(self, dataset: LabelledImages) -> LabelledImages:
        """Return all images of a split in each of the offline variants. Raises UserError for sequences."""
        if dataset.labels.ndim > 1:
            self._check_no_variants()
        return expand(dataset, self.variants)

    def vary(self, images: Tensor, targets: Targets, num_classes: int, generator: Generator) -> tuple[Tensor, Any]:
        """Return a batch after all steps: uint8 (B, C, H, W), and labels (B,) or, mixed, soft targets (B, classes).

        The boxes of sequences end at the edges of the image.
        """
        if not self.steps:
            return images, targets
        images, targets = self._take_steps(images, targets, num_classes, generator)
        if isinstance(targets, Sequences) and targets.boxes is not None:
            x, y = targets.boxes.unflatten(2, (2, 2)).unbind(3)
            inside = torch.stack([x.clamp(0, images.shape[3]), y.clamp(0, images.shape[2])], 3).flatten(2)
            targets = Sequences(targets.labels, inside * (targets.labels != END)[..., None])
        return images, targets

    def _take_steps(self, images: Tensor, targets: Any, classes: int, generator: Generator) -> tuple[Tensor, Any]:
        pixels = images.float() / 255
        for step in self.steps:
            pixels, targets = step(pixels, targets, classes, generator)
        return (pixels * 255).round_().clamp_(0, 255).to(torch.uint8), targets

    def views(self, images: Tensor, number: int) -> Iterator[Tensor]:
        """Yield views of images, uint8 (B, 1, H, W), for test-time augmentation.

        First the original images, then their offline variants, then random ones, up to ``number`` in total. The same
        images have the same views. Raises UserError if the augmentation makes fewer.
        """
        yield images
        fixed = [name for name in self.variants if name != "original"]
        for name in fixed[: number - 1]:
            yield in_variant(images, name)
        generator = Generator(images.device).manual_seed(self.seed)
        labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        for _ in range(number - 1 - len(fixed)):
            view, targets = self.vary(images, labels, 2, generator)
            if not self.steps or targets.ndim > 1:
                raise UserError(
                    f"tta.views={number} is more than the {1 + len(fixed)} that this augmentation makes of an image: "
                    "choose fewer, or a random augmentation, such as tta.augment=affine."
                )
            yield view

    def scene_views(self, images: Tensor, number: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield views of images of several characters, uint8 (B, C, H, W), for test-time augmentation.

        First the original images and None, then random views, ``number`` in total, each with the matrices, float
        (B, 3, 3) on the CPU, that map its pixels (x, y, 1) to those of the original. The same images have the same
        views. Raises UserError if the augmentation makes no views.
        """
        yield images, None
        if number == 1:
            return
        self._check_no_variants()
        if not self.steps:
            raise UserError(
                f"tta.views={number} is more than the 1 that this augmentation makes of an image: choose fewer, or a "
                "random augmentation, such as tta.augment=scene_nudge."
            )
        height, width = images.shape[2:]
        corners = torch.tensor([[0, 0], [width, 0], [width, height], [0, height]], dtype=torch.float32)
        boxes = corners.repeat(1, 2).expand(len(images), 4, 4).to(images.device)  # boxes that are points
        nothing = Sequences(torch.full(boxes.shape[:2], END, device=images.device), boxes)
        generator = Generator(images.device).manual_seed(self.seed)
        for _ in range(number - 1):
            view, moved = self._take_steps(images, nothing, 2, generator)
            yield view, projective_maps(moved.boxes[..., :2].cpu(), corners)

    def _check_no_variants(self) -> None:
        if self.variants != ("original",):
            raise UserError(
                f"augment.variants=[{','.join(self.variants)}] are of single characters, not of images with several: "
                "choose a random augmentation, such as augment=scene."
            )

    def generator(self, epoch: int, device: torch.device, rank: int = 0) -> Generator:
        """Return the random generator of an epoch, which continues over its batches; it depends on seed and epoch.

        Each of several processes has its own, by its ``rank``.
        """
        if self._generator is None or self._generator[0] != (epoch, device):
            # Independent of the shuffling; torch's CPU generator uses only 32 bits of a seed.
            name = f"augment {self.seed} {epoch}" + (f" {rank}" if rank else "")
            digest = hashlib.blake2s(name.encode(), digest_size=4).digest()
            self._generator = ((epoch, device), Generator(device).manual_seed(int.from_bytes(digest)))
        return self._generator[1]


class Warp:
    """Random rotation, scaling, shear, shift and elastic deformation of each image.

    An image is changed with ``probability``; amounts are uniform in ±degrees, exp(±scale) for each axis, ±shear, and
    ±shift pixels. The elastic field is Gaussian: a displacement of ``bend`` pixels (standard deviation) at each of
    ``knots``×``knots`` points, interpolated between them (after P. Simard, D. Steinkraus, J. Platt, 2003,
    doi:10.1109/ICDAR.2003.1227801). All of it is one bilinear resampling.
    """

    def __init__(
        self,
        probability: float = 1.0,
        degrees: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        shift: float = 0.0,
        bend: float = 0.0,
        knots: int = 5,
    ):
        self.probability, self.degrees, self.scale, self.shear, self.shift = probability, degrees, scale, shear, shift
        self.bend, self.knots = bend, knots

    def __call__(self, images: Tensor, targets: Targets, classes: int, generator: Generator) -> tuple[Tensor, Targets]:
        """Return the warped images; pixels from outside are black. Raises UserError for boxes: they cannot follow."""
        if isinstance(targets, Sequences) and targets.boxes is not None:
            raise UserError(
                "augment.steps.warp (Warp, as in augment=affine) moves the image but not the boxes of its characters: "
                "choose augment=scene."
            )
        count, _, height, width = images.shape
        draw = torch.rand(count, 7, generator=generator, device=images.device)
        chosen = (draw[:, 0] < self.probability).float()
        turn, wide, tall, shear, right, down = (draw[:, 1:] * 2 - 1).mul(chosen[:, None]).unbind(1)
        angle = turn * torch.pi * self.degrees / 180
        cos, sin = angle.cos(), angle.sin()
        wide, tall, shear = (wide * self.scale).exp(), (tall * self.scale).exp(), shear * self.shear
        rows = [  # in affine_grid's coordinates the image reaches from -1 to 1 along both axes
            torch.stack([cos * wide, (cos * shear - sin * tall) * height / width, right * 2 * self.shift / width], 1),
            torch.stack([sin * wide * width / height, sin * shear + cos * tall, down * 2 * self.shift / height], 1),
        ]
        grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
        if self.bend:
            bends = torch.randn(count, 2, self.knots, self.knots, generator=generator, device=images.device)
            sides = torch.full((2,), width, device=images.device)  # not a copy from the CPU, which would synchronise
            sides[1:] = height
            bends = bends * (chosen[:, None] * 2 * self.bend / sides)[:, :, None, None]
            field = F.interpolate(bends, size=(height, width), mode="bicubic", align_corners=True)
            grid = grid + field.permute(0, 2, 3, 1)
        return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False), targets


class Erasing:
    """Random erasing: fills a random rectangle (Z. Zhong et al., 2017, arXiv:1708.04896).

    Its sides are uniform between ``smallest`` and ``largest``, as fractions of the image's side. ``fill`` is black, or
    colour: a random one for each image.
    """

    def __init__(self, probability: float = 0.5, smallest: float = 0.1, largest: float = 0.3, fill: str = "black"):
        check_number("augment.steps.erasing.largest", largest, at_least=smallest, at_most=1)
        self.probability, self.smallest, self.largest, self.fill = probability, smallest, largest, fill

    def __call__(self, images: Tensor, targets: Targets, classes: int, generator: Generator) -> tuple[Tensor, Targets]:
        """Return the images with the erased rectangles."""
        count, channels, height, width = images.shape
        draw = torch.rand(count, 5, generator=generator, device=images.device)
        inside = []
        for place, side, length in ((draw[:, 1], draw[:, 2], height), (draw[:, 3], draw[:, 4], width)):
            extent = length * (self.smallest + (self.largest - self.smallest) * side)
            middle = torch.arange(length, device=images.device) + 0.5
            inside.append((middle - place[:, None] * length).abs() * 2 <= extent[:, None])
        erased = inside[0][:, :, None] & inside[1][:, None, :] & (draw[:, 0] < self.probability)[:, None, None]
        if self.fill == "black":
            return images.masked_fill(erased[:, None], 0.0), targets
        colour = torch.rand(count, channels, 1, 1, generator=generator, device=images.device)
        return torch.where(erased[:, None], colour, images), targets


class Noise:
    """Adds Gaussian noise; its standard deviation is drawn for each image from 0 to ``deviation`` (scale 0…1)."""

    def __init__(self, probability: float = 0.5, deviation: float = 0.2):
        self.probability, self.deviation = probability, deviation

    def __call__(self, images: Tensor, targets: Targets, classes: int, generator: Generator) -> tuple[Tensor, Targets]:
        """Return the noisy images, clipped to 0…1."""
        draw = torch.rand(len(images), 2, generator=generator, device=images.device)
        strength = self.deviation * draw[:, 0] * (draw[:, 1] < self.probability)
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        return (images + noise * strength[:, None, None, None]).clamp(0, 1), targets


class Blur:
    """Blurs by a Gaussian whose standard deviation is drawn for each image from 0 to ``deviation`` pixels.

    Pixels from outside repeat the edge.
    """

    RADIUS = 4  # pixels; the Gaussian is cut off there

    def __init__(self, probability: float = 0.5, deviation: float = 1.0):
        self.probability, self.deviation = probability, deviation

    def __call__(self, images: Tensor, targets: Targets, classes: int, generator: Generator) -> tuple[Tensor, Targets]:
        """Return the images blurred along both axes."""
        count = len(images)
        draw = torch.rand(count, 2, generator=generator, device=images.device)
        deviation = (self.deviation * draw[:, 0] * (draw[:, 1] < self.probability)).clamp(min=1e-3)
        distance = torch.arange(-self.RADIUS, self.RADIUS + 1, device=images.device)
        kernels = torch.exp(-((distance / deviation[:, None]) ** 2) / 2)
        kernels = kernels / kernels.sum(1, keepdim=True)
        # A grouped convolution with images as channels, so that each image has its own kernel.
        padded = F.pad(images, (self.RADIUS,) * 4, mode="replicate").transpose(0, 1)
        rows = F.conv2d(padded, kernels[:, None, :, None], groups=count)
        return F.conv2d(rows, kernels[:, None, None, :], groups=count).transpose(0, 1), targets


class Mixup:
    """Blends each image, and its label, with another of the batch (H. Zhang et al., 2017, arXiv:1710.09412).

    An image is blended with ``probability``; its weight is drawn from Beta(alpha, alpha) for each image.
    """

    QUANTILES = 4096  # a table of the distribution: torch cannot draw Beta with a given generator

    def __init__(self, probability: float = 1.0, alpha: float = 0.2):
        self.probability = probability
        middles = (np.arange(self.QUANTILES) + 0.5) / self.QUANTILES
        self.weights = torch.from_numpy(scipy.stats.beta(alpha, alpha).ppf(middles)).float()

    def __call__(self, images: Tensor, targets: Targets, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return blended images and soft targets (B, classes). Raises UserError for sequences."""
        if isinstance(targets, Sequences):
            raise UserError(
                "augment.steps.mixup (Mixup) blends images of one character each, not of several: choose augment=scene."
            )
        count, device = len(images), images.device
        drawn = torch.randint(self.QUANTILES, (count,), generator=generator, device=device)
        chosen = torch.rand(count, generator=generator, device=device) < self.probability
        self.weights = self.weights.to(device)  # once
        weight = torch.where(chosen, self.weights[drawn], 1.0)
        other = torch.randperm(count, generator=generator, device=device)
        soft = targets
        if targets.ndim == 1:  # not one_hot, which synchronises to check the labels, except on CUDA
            soft = torch.zeros(count, classes, device=device).scatter_(1, targets[:, None], 1.0)
        mixed = weight[:, None] * soft + (1 - weight[:, None]) * soft[other]
        pixels = weight[:, None, None, None]
        return pixels * images + (1 - pixels) * images[other], mixed


def projective_maps(points: Tensor, targets: Tensor) -> Tensor:
    """Return the projective maps, float (B, 3, 3), of four points (B, 4, 2) to four points (4, 2)."""
    x, y = points.double().unbind(-1)  # float32 has too few digits for the products of coordinates
    u, v = targets.double().expand_as(points).unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows = [
        torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], -1),
        torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], -1),
    ]
    solution = torch.linalg.solve(torch.cat(rows, 1), torch.cat([u, v], 1))
    return torch.cat([solution, one[:, :1]], 1).unflatten(1, (3, 3)).float()
