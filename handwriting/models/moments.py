"""Normalization of size and place: every sign comes to a net equally large and in the middle."""

import torch
from torch import Tensor, nn

from handwriting.errors import check_number

SMALLEST, LARGEST = 0.4, 1.6  # pixels of the image for one of the result; so that a dot does not fill the frame


class MomentNormalization(nn.Module):
    """Moves and scales each image so that its ink lies in the middle and spreads equally far.

    ``spread`` is the standard deviation of the ink's places that results, as a share of the image's shorter side. Both
    axes are scaled alike when ``aspect`` is 0; when it is 1, each to its own spread, so that a line becomes a square;
    between, the ratio of the sides is evened out by that power. After R. G. Casey, 1970 (Moment normalization of
    handprinted characters, doi:10.1147/rd.145.0548), and, for the power, C.-L. Liu et al., 2004 (Handwritten digit
    recognition: investigation of normalization and feature extraction techniques, doi:10.1016/S0031-3203(03)00224-3).
    Raises UserError for a spread that is no share of the side, or an aspect beyond 0…1.
    """

    def __init__(self, spread: float, aspect: float):
        super().__init__()
        check_number("model.spread", spread, above=0, at_most=0.5)
        check_number("model.aspect", aspect, at_least=0, at_most=1)
        self.spread, self.aspect = spread, aspect

    def forward(self, images: Tensor) -> Tensor:
        """Return images (N, 1, H, W) normalized, by linear interpolation; their darkest level is no ink."""
        background = images.amin((1, 2, 3), keepdim=True)
        ink = (images - background)[:, 0].float()  # places need more digits than a half float has
        side = min(ink.shape[1:])
        (row, height), (column, width) = _mean_and_variance(ink.sum(2)), _mean_and_variance(ink.sum(1))
        both = (height + width) / 2
        rows, columns = (
            _interpolation(mean, self._scale(variance, both, side), length)
            for mean, variance, length in ((row, height, ink.shape[1]), (column, width, ink.shape[2]))
        )
        return (rows @ ink @ columns.transpose(1, 2))[:, None].to(images.dtype) + background

    def _scale(self, variance: Tensor, both: Tensor, side: int) -> Tensor:
        """Return the pixels (N,) of each image for one of its result, along the axis of this variance (N,)."""
        deviation = variance ** (self.aspect / 2) * both ** ((1 - self.aspect) / 2)
        return (deviation / (self.spread * side)).clamp(SMALLEST, LARGEST)


def _mean_and_variance(profile: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance (N,), in pixels, of where the ink of profiles (N, length) lies."""
    places = torch.arange(profile.shape[1], device=profile.device)
    shares = profile / profile.sum(1, keepdim=True).clamp_min(1e-6)
    mean = (shares * places).sum(1)
    return mean, (shares * (places - mean[:, None]) ** 2).sum(1)


def _interpolation(middle: Tensor, scale: Tensor, length: int) -> Tensor:
    """Return weights (N, length, length) that resample pixels: the middle (N,) comes to that of the frame."""
    places = torch.arange(length, device=middle.device)
    sources = middle[:, None] + scale[:, None] * (places - (length - 1) / 2)
    return (1 - (sources[:, :, None] - places).abs()).clamp_min(0)
