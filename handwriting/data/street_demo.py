"""House numbers composed from scikit-learn's digits, with boxes: data for street numbers without files and network."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional as F

from handwriting.data.augment import Blur, Noise
from handwriting.data.dataset import END, HandwritingSet, LabelledImages
from handwriting.data.digits import SIDE, read_digits
from handwriting.data.mnist import DIGITS

# Fractions of numbers with 1 to 6 digits: those of SVHN's training set, but 2 % of 5 and 6 digits instead of 0.03 %.
LENGTHS = (0.15, 0.53, 0.26, 0.04, 0.01, 0.01)
HEIGHTS = (0.4, 0.7)  # of a digit, as fractions of the height of the image: 26 to 45 pixels of 64
PLACE = 0.3  # of the way from the middle of the image to where the number touches its edge: photographers aim
CONTRAST = 0.35  # the smallest difference in brightness between a digit and the surface behind it, of 0…1
TOGETHER = 250  # images composed at once; more need more memory and are not faster


def read_street_demo(
    image_size: Sequence[int] = (64, 160), images: int = 1500, test_images: int = 300, composition_seed: int = 0
) -> HandwritingSet:
    """Return numbers of 1 to 6 digits on walls and plates: images uint8 (N, 3, H, W), and a box for each digit.

    The digits are those of read_digits: of its training set in the training images; of its test set, so mostly of other
    writers, in the test images. Position, size, slant, colours and surface are random; the same seed gives the same
    images.
    """
    height, width = image_size
    train = _compose("train", (height, width), images, composition_seed)
    test = _compose("test", (height, width), test_images, composition_seed)
    # Copies, so that nobody changes the images in the cache.
    train, test = (split[torch.arange(len(split))] for split in (train, test))
    return HandwritingSet(train, test, DIGITS, photographs=True)


@cache
def _compose(split: str, size: tuple[int, int], count: int, seed: int) -> LabelledImages:
    """Return the images of a split, composed once for all jobs of a sweep."""
    random = _Random(2 * seed + (split == "test"))
    parts = [_draw(split, size, min(TOGETHER, count - start), random) for start in range(0, count, TOGETHER)]
    return LabelledImages(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


class _Random:
    """Random numbers of one generator."""

    def __init__(self, seed: int):
        self.generator = Generator().manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Return uniform random numbers."""
        return low + (high - low) * torch.rand(shape, generator=self.generator)

    def normal(self, *shape: int) -> Tensor:
        """Return normal random numbers."""
        return torch.randn(shape, generator=self.generator)


@cache
def _glyphs(split: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the digits of a split without their margins: labels (N,), widths ÷ heights (N,), covers (N, 1, 20, 20)."""
    digits: LabelledImages = getattr(read_digits(), split)
    sharp = (2 * digits.images[:, 0].int() - 128).clamp(0, 255)  # without pale edges, for which boxes would be too wide
    tight = [image.crop(image.getbbox()) for image in map(Image.fromarray, sharp.numpy().astype(np.uint8))]
    square = np.stack([np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for image in tight])
    aspects = torch.tensor([image.width / image.height for image in tight])
    return digits.labels, aspects, torch.from_numpy(square)[:, None] / 255


def _draw(split: str, size: tuple[int, int], count: int, random: _Random) -> tuple[Tensor, Tensor, Tensor]:
    """Return images uint8 (count, 3, H, W), and the labels and boxes of their digits."""
    digits, aspects, covers = _glyphs(split)
    chosen = torch.randint(len(digits), (count, len(LENGTHS)), generator=random.generator)
    lengths = torch.tensor(LENGTHS).multinomial(count, replacement=True, generator=random.generator) + 1
    labels = digits[chosen].masked_fill(torch.arange(len(LENGTHS)) >= lengths[:, None], END)

    # In digit heights, about the middle of the number; then in pixels, so that the whole number is in the image.
    frames = _line_up(aspects[chosen], labels != END, random)
    sides, slant = torch.tensor([size[1], size[0]]), _slant(count, random)
    reach = (slant.abs() @ frames.abs().unflatten(2, (2, 2)).amax((1, 2))[:, :, None])[..., 0]
    tall = (random.uniform(*HEIGHTS, count) * size[0]).minimum(((sides / 2 - 1) / reach).amin(1))
    frames, reach = frames * tall[:, None, None], reach * tall[:, None]
    middle = sides / 2 + random.uniform(-PLACE, PLACE, count, 2) * (sides / 2 - 1 - reach)

    # The place of each pixel along and across the number: walls, plates and digits have the same slant.
    rows, columns = torch.meshgrid(*(torch.arange(side) + 0.5 for side in size), indexing="ij")
    places = torch.stack([columns, rows], -1).flatten(0, 1) - middle[:, None]
    along, across = (places @ slant.inverse().mT).unflatten(1, size).unbind(-1)
    wall, behind = _wall(along, across, frames[:, :, 2].amax(1), tall, random)
    cover = _cover(covers, chosen, labels != END, frames, along, across)[:, None]
    pixels = wall + cover * (_contrasting(behind, random)[:, :, None, None] - wall)

    corners = frames[:, :, [0, 1, 2, 1, 2, 3, 0, 3]].unflatten(2, (4, 2)) @ slant.mT[:, None] + middle[:, None, None]
    boxes = torch.cat([corners.amin(2), corners.amax(2)], 2) * (labels != END)[:, :, None]
    return _photograph(pixels, random), labels, boxes


def _slant(count: int, random: _Random) -> Tensor:
    """Return matrices (count, 2, 2) of a small rotation and shear."""
    angle, shear = random.uniform(-0.14, 0.14, count), random.uniform(-0.25, 0.25, count)  # ±8 degrees
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, shear * cos - sin, sin, shear * sin + cos], 1).unflatten(1, (2, 2))


def _line_up(aspects: Tensor, present: Tensor, random: _Random) -> Tensor:
    """Return left, top, right and bottom of each digit in its line, (count, L, 4), in digit heights."""
    count, most = aspects.shape
    wide, gap = aspects * random.uniform(0.7, 1.0, count, 1), random.uniform(0.1, 0.35, count, 1)
    right = ((wide + gap) * present).cumsum(1)
    right = right - (right[:, -1:] + gap) / 2
    middle = random.uniform(-0.06, 0.06, count, most)  # a line is never quite straight
    return torch.stack([right - wide, middle - 0.5, right, middle + 0.5], 2) * present[:, :, None]


def _cover(covers: Tensor, chosen: Tensor, present: Tensor, frames: Tensor, along: Tensor, across: Tensor) -> Tensor:
    """Return how far digits cover each pixel, (count, H, W) of 0…1."""
    whole = torch.zeros_like(along)
    for place in range(chosen.shape[1]):
        some = present[:, place].nonzero()[:, 0]
        left, top, right, bottom = frames[some, place, :, None, None].unbind(1)
        grid = torch.stack([(along[some] - left) / (right - left), (across[some] - top) / (bottom - top)], -1)
        whole[some] += F.grid_sample(covers[chosen[some, place]], 2 * grid - 1, align_corners=False)[:, 0]
    return whole


def _wall(along: Tensor, across: Tensor, half: Tensor, tall: Tensor, random: _Random) -> tuple[Tensor, Tensor]:
    """Return walls (count, 3, H, W) and the colours behind the numbers (count, 3): of the wall, or of a plate.

    A number reaches ``half`` to both sides, and its digits are ``tall``, in pixels.
    """
    count = len(tall)
    draw = random.uniform(0, 1, count, 8)[:, :, None, None]
    half, tall = half[:, None, None], tall[:, None, None]
    row = across.div(0.5 * tall, rounding_mode="floor")
    bricks = (across % (0.5 * tall) < 0.1 * tall) | ((along + row % 2 * 0.6 * tall) % (1.2 * tall) < 0.1 * tall)
    planks = along % (1.5 * tall) < 0.1 * tall
    joints = torch.where(draw[:, 0] < 0.35, bricks, planks & (draw[:, 0] < 0.7)) * 0.3 * (draw[:, 1] - 0.5)
    colour = _colours(random.uniform(0, 1, count), random)
    wall = colour[:, :, None, None] + joints[:, None]

    side = torch.where(draw[:, 2] < 0.5, -1, 1)  # a door frame on one side of the number, for half of the images
    beside = (side * along > half + (0.3 + draw[:, 3]) * tall) & (draw[:, 4] < 0.5)
    wall = torch.where(beside[:, None], _colours(random.uniform(0, 1, count), random)[:, :, None, None], wall)

    plated, margins = draw[:, 5] < 0.5, (0.15 + 0.35 * draw[:, 6:]) * tall[:, None]
    plate = (along.abs() < half + margins[:, 0]) & (across.abs() < 0.56 * tall + margins[:, 1]) & plated
    plates = _colours(random.uniform(0, 1, count), random)
    return torch.where(plate[:, None], plates[:, :, None, None], wall), torch.where(plated[:, 0], plates, colour)


def _colours(brightness: Tensor, random: _Random) -> Tensor:
    """Return colours (count, 3) of a given brightness (count,): greyish ones, and some bright ones."""
    tint = random.normal(len(brightness), 3)
    tint = (tint - tint.mean(1, keepdim=True)) * random.uniform(0, 0.25, len(brightness), 1)
    return (brightness[:, None] + tint).clamp(0, 1)


def _contrasting(colours: Tensor, random: _Random) -> Tensor:
    """Return other colours, brighter or darker by CONTRAST at least."""
    middle = colours.mean(1)
    darker, brighter = (middle - CONTRAST).clamp(min=0), (1 - CONTRAST - middle).clamp(min=0)
    drawn = random.uniform(0, 1, len(colours)) * (darker + brighter)
    return _colours(torch.where(drawn < darker, drawn, middle + CONTRAST + drawn - darker), random)


def _photograph(pixels: Tensor, random: _Random) -> Tensor:
    """Return the images in uneven light, with grain and blur, as uint8."""
    count, _, height, width = pixels.shape
    level, slope = random.uniform(0.7, 1.1, count, 1), random.uniform(-0.2, 0.2, count, 1)
    pixels = pixels * (level + slope * torch.linspace(-1, 1, width))[:, None, None]
    for step in (Noise(1.0, 0.07), Blur(1.0, 1.2 * height / 64)):
        pixels, _ = step(pixels, level, 1, random.generator)
    return (pixels * 255).round_().clamp_(0, 255).to(torch.uint8)
